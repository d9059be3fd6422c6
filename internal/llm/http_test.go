package llm_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"millrace/internal/llm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server and returns an endpoint of it.
func serve(t *testing.T, bearer string, h http.HandlerFunc) *llm.Endpoint {
	t.Helper()
	ts := httptest.NewServer(h)
	t.Cleanup(ts.Close)
	return endpoint(t, ts.URL, bearer)
}

func endpoint(t *testing.T, url, bearer string) *llm.Endpoint {
	t.Helper()
	hc := llm.NewHTTPClient(4)
	t.Cleanup(hc.CloseIdleConnections)
	e, err := llm.NewEndpoint(url, bearer, hc)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func do(t *testing.T, e *llm.Endpoint, c llm.Call) (string, error) {
	t.Helper()
	var got string
	err := e.Do(t.Context(), c, func(_ http.Header, body []byte) error {
		got = string(body)
		return nil
	})
	return got, err
}

func TestEndpoint(t *testing.T) {
	conns := map[string]bool{}
	e := serve(t, "KEY", func(w http.ResponseWriter, r *http.Request) {
		conns[r.RemoteAddr] = true
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Content-Type")+" "+string(body))
	})
	for range 3 {
		got, err := do(t, e, llm.Call{Path: "/a/b", Body: []byte(`{"x":1}`)})
		if want := `POST /a/b Bearer KEY application/json {"x":1}`; err != nil || got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
		got, err = do(t, e, llm.Call{Path: "/g"})
		if want := `GET /g Bearer KEY application/json `; err != nil || got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	if len(conns) != 1 {
		t.Errorf("%d connections for requests one after the other, want 1", len(conns))
	}
}

func TestEndpointKeepsConnectionsAfterErrors(t *testing.T) {
	conns := map[string]bool{}
	e := serve(t, "", func(w http.ResponseWriter, r *http.Request) {
		conns[r.RemoteAddr] = true
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, strings.Repeat("x", 300<<10))
	})
	for range 3 {
		if _, err := do(t, e, llm.Call{Path: "/"}); llm.KindOf(err) != llm.Failed {
			t.Fatalf("got %v", err)
		}
	}
	if len(conns) != 1 {
		t.Errorf("%d connections, want 1", len(conns))
	}
}

func TestEndpointWithPathAndUser(t *testing.T) {
	var path, user string
	ts := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		path = r.URL.Path
		user, _, _ = r.BasicAuth()
	}))
	t.Cleanup(ts.Close)
	e := endpoint(t, strings.Replace(ts.URL, "http://", "http://me:secret@", 1)+"/below/", "")
	if e.URL() != ts.URL+"/below" {
		t.Errorf("URL() = %q", e.URL())
	}
	e = endpoint(t, strings.Replace(ts.URL, "http://", "http://me:secret@", 1)+"/below", "")
	if _, err := do(t, e, llm.Call{Path: "/x"}); err != nil {
		t.Fatal(err)
	}
	if path != "/below/x" || user != "me" {
		t.Errorf("path %q, user %q", path, user)
	}
	if _, err := llm.NewEndpoint("nonsense", "", nil); err == nil {
		t.Error("an address without a host was taken")
	}
}

// raw is a server that answers each connection with bytes and closes it.
func raw(t *testing.T, reply string) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			_, _ = c.Read(buf)
			_, _ = io.WriteString(c, reply)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return "http://" + l.Addr().String()
}

func TestEndpointErrors(t *testing.T) {
	const header = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for _, tt := range []struct {
		name, url string
		kind      llm.ErrorKind
		message   string
	}{
		{"refused", "http://127.0.0.1:1", llm.Unreachable, "refused"},
		{"no such host", "http://no-such-host.invalid", llm.Unreachable, "no-such-host.invalid"},
		{"closed at once", raw(t, ""), llm.Unreachable, "closed the connection without a reply"},
		{"closed within the header", raw(t, "HTTP/1.1 200 OK\r\nCont"), llm.Garbled, "head of the reply"},
		{"not HTTP", raw(t, "SSH-2.0-OpenSSH_9.2\r\n"), llm.Garbled, "does not speak HTTP"},
		{"https against http", strings.Replace(raw(t, "HTTP/1.0 400 Bad Request\r\n\r\n"), "http:", "https:", 1), llm.Refused, "http, not https"},
		{"body cut short", raw(t, header+"Content-Length: 100\r\n\r\n{\"a\":"), llm.Garbled, "cut short"},
		{"chunks cut short", raw(t, header+"Transfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n"), llm.Garbled, "cut short"},
		{"redirect", raw(t, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:2/\r\nContent-Length: 0\r\n\r\n"), llm.Refused, "127.0.0.1:2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := do(t, endpoint(t, tt.url, "KEY"), llm.Call{Path: "/", Body: []byte(`{}`)})
			if llm.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("got %v, want %s: ...%s", err, tt.kind, tt.message)
			}
			if strings.Contains(err.Error(), "KEY") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q holds what it should not", err)
			}
		})
	}
}

func TestEndpointBadCertificate(t *testing.T) {
	ts := httptest.NewUnstartedServer(http.NotFoundHandler())
	ts.Config.ErrorLog = discard()
	ts.StartTLS()
	t.Cleanup(ts.Close)
	_, err := do(t, endpoint(t, ts.URL, ""), llm.Call{Path: "/"})
	if llm.KindOf(err) != llm.Refused || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestEndpointGivenUp(t *testing.T) {
	release := make(chan struct{})
	e := serve(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	t.Cleanup(func() { close(release) })
	for _, path := range []string{"/none", "/half"} {
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(20*time.Millisecond, cancel)
		err := e.Do(ctx, llm.Call{Path: path}, func(http.Header, []byte) error { return nil })
		stop.Stop()
		cancel()
		if llm.KindOf(err) != llm.Canceled || !errors.Is(err, context.Canceled) {
			t.Errorf("%s cancelled: %v", path, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
		err = e.Do(ctx, llm.Call{Path: path}, func(http.Header, []byte) error { return nil })
		cancel()
		if llm.KindOf(err) != llm.Timeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s timed out: %v", path, err)
		}
	}
	hc := llm.NewHTTPClient(1)
	hc.Timeout = 20 * time.Millisecond
	t.Cleanup(hc.CloseIdleConnections)
	limited, err := llm.NewEndpoint(e.URL(), "", hc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, limited, llm.Call{Path: "/none"}); llm.KindOf(err) != llm.Timeout {
		t.Errorf("limit of the client: %v", err)
	}
}

func TestEndpointHugeReply(t *testing.T) {
	e := serve(t, "", func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 1<<20)
		for range llm.MaxReply>>20 + 1 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	var read int64
	err := e.Stream(t.Context(), llm.Call{Path: "/"}, func(_ http.Header, r io.Reader) error {
		var err error
		read, err = io.Copy(io.Discard, r)
		return err
	})
	if llm.KindOf(err) != llm.Garbled || read != llm.MaxReply {
		t.Errorf("read %d bytes, %v", read, err)
	}
}

func TestClientProxy(t *testing.T) {
	transport, ok := llm.NewHTTPClient(3).Transport.(*http.Transport)
	if !ok || transport.Proxy == nil || transport.MaxIdleConnsPerHost < 3 || !transport.DisableCompression {
		t.Fatalf("transport is %+v", transport)
	}
}

func discard() *log.Logger { return log.New(io.Discard, "", 0) }
