package sim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"millrace/internal/llm/sim"
)

func TestTransport(t *testing.T) {
	gone := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Host", r.Host)
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(b)
	})
	mux.HandleFunc("GET /empty", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(w, "line %d\n", i); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /cut", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("begin"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("GET /wait", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	client := &http.Client{Transport: sim.Transport(mux)}
	do := func(ctx context.Context, method, path, body string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, "http://sim.test"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		return client.Do(req)
	}

	r, err := do(t.Context(), "POST", "/echo", "hello")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(r.Body); string(b) != "hello" || r.StatusCode != 418 || r.Header.Get("X-Host") != "sim.test" || r.ContentLength != 5 {
		t.Errorf("echo: %d %v %q", r.StatusCode, r.Header, b)
	}
	r.Body.Close()

	if r, err = do(t.Context(), "GET", "/empty", ""); err != nil || r.StatusCode != 200 {
		t.Errorf("empty: %v", err)
	}
	r.Body.Close()

	if r, err = do(t.Context(), "GET", "/stream", ""); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 7)
	if _, err := io.ReadFull(r.Body, b); err != nil || string(b) != "line 0\n" {
		t.Errorf("stream: %q %v", b, err)
	}
	r.Body.Close()
	<-gone // the handler sees that nobody reads

	if r, err = do(t.Context(), "GET", "/cut", ""); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r.Body); string(b) != "begin" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %q %v", b, err)
	}
	r.Body.Close()

	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if r, err = do(ctx, "GET", "/wait", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v %v", r, err)
	}
	if err == nil {
		r.Body.Close()
	}
}
