package llm

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SimulatedHeader is the response header by which the simulated server
// announces itself; its value is the profile.
const SimulatedHeader = "X-Millrace-Simulated"

// MaxReply is the most that is read of one reply, in bytes.
const MaxReply = 64 << 20

// NewHTTPClient returns a client for servers that are asked by up to maxConns
// requests at once. It sets no limit on how long a reply may take: that is for
// the caller's context, as a long answer on a slow machine takes minutes.
// Redirects are not followed, so that a request and its key go nowhere else.
// Loopback hosts are reached without the environment's proxy.
func NewHTTPClient(maxConns int) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment, // leaves loopback alone
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
			ForceAttemptHTTP2:   true,
			DisableCompression:  true,
			MaxIdleConnsPerHost: max(maxConns, 2),
			// uvicorn (vLLM) and cpp-httplib (llama-server) close idle
			// connections after 5 s; being first avoids writing into one that
			// is just being closed.
			IdleConnTimeout: 4 * time.Second,
			WriteBufferSize: 16 << 10,
			ReadBufferSize:  16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Endpoint is the HTTP side of an adapter: one base address, and errors as
// *Error. It is safe for concurrent use.
type Endpoint struct {
	base    url.URL
	shown   string
	header  http.Header // of all requests; shared between them, never changed
	hc      *http.Client
	buffers sync.Pool
}

// NewEndpoint takes a base address as BaseURL gives it. The bearer token, if
// there is one, is sent with each request and shown nowhere. A nil client
// means NewHTTPClient(64).
func NewEndpoint(base, bearer string, hc *http.Client) (*Endpoint, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("server address %q is not a URL", hideUser(base))
	}
	if hc == nil {
		hc = NewHTTPClient(64)
	}
	shown := *u
	shown.User = nil
	e := &Endpoint{
		base:  *u,
		shown: strings.TrimRight(shown.String(), "/"),
		hc:    hc,
		header: http.Header{
			"Content-Type": {"application/json"},
			"Accept":       {"application/json, text/event-stream, application/x-ndjson"},
			"User-Agent":   {"millrace"},
		},
		buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
	if bearer != "" {
		e.header["Authorization"] = []string{"Bearer " + bearer}
	}
	return e, nil
}

// URL is the base address without credentials and trailing slash.
func (e *Endpoint) URL() string { return e.shown }

// Call is one request to an Endpoint.
type Call struct {
	Path string // below the base, with its leading slash
	Body []byte // JSON to post; nil for a GET
	// Private is what an error must not repeat, even if the server does.
	Private []Message
}

// Do makes a call and hands its whole reply to read. The body is only valid
// until read returns; read's error is returned as it is.
func (e *Endpoint) Do(ctx context.Context, c Call, read func(h http.Header, body []byte) error) error {
	return e.Stream(ctx, c, func(h http.Header, r io.Reader) error {
		buf, _ := e.buffers.Get().(*bytes.Buffer)
		defer func() {
			if buf.Cap() <= 1<<20 {
				buf.Reset()
				e.buffers.Put(buf)
			}
		}()
		if _, err := buf.ReadFrom(r); err != nil {
			return err
		}
		return read(h, buf.Bytes())
	})
}

// Stream makes a call and hands its reply to read as it arrives. What r
// returns as errors, and so read, is *Error already. A reply that is not read
// to its end is cut off, which tells the server to stop.
func (e *Endpoint) Stream(ctx context.Context, c Call, read func(h http.Header, r io.Reader) error) error {
	resp, err := e.hc.Do(e.request(ctx, c))
	if err != nil {
		return transportError(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	r := &replyReader{ctx: ctx, r: resp.Body, left: MaxReply}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		// An error page says what it has to say at its beginning.
		body, err := io.ReadAll(io.LimitReader(r, 256<<10))
		if err != nil && ctx.Err() != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		return ErrorFrom(resp.StatusCode, resp.Header, body, c.Private)
	}
	if err := read(resp.Header, r); err != nil {
		return err
	}
	// Reading up to the end, where nothing should be left, frees the
	// connection for the next request.
	_, _ = io.Copy(io.Discard, io.LimitReader(r, 256<<10))
	return nil
}

func (e *Endpoint) request(ctx context.Context, c Call) *http.Request {
	u := e.base
	u.Path += c.Path
	r := &http.Request{
		Method: http.MethodGet, URL: &u, Host: u.Host, Header: e.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if c.Body != nil {
		r.Method = http.MethodPost
		r.ContentLength = int64(len(c.Body))
		// With GetBody, net/http may repeat a request of which nothing was
		// sent because its idle connection had been closed.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.Body)), nil }
		r.Body, _ = r.GetBody()
	}
	return r.WithContext(ctx)
}

// replyReader reads a reply's body and turns its errors into *Error.
type replyReader struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (r *replyReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, &Error{Kind: Garbled, Message: fmt.Sprintf("reply is larger than %d MiB", MaxReply>>20)}
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.r.Read(p)
	r.left -= int64(n)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if e := endedError(r.ctx, err); e != nil {
		return n, e
	}
	return n, &Error{Kind: Garbled, Message: "reply was cut short: " + clean(err.Error()), Err: err}
}

// endedError is the error of a request that was given up from our side, nil
// for any other.
func endedError(ctx context.Context, err error) *Error {
	if ctx.Err() != nil {
		return Ended(ctx.Err())
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() && !isDial(err) {
		return &Error{Kind: Timeout, Message: "no complete reply in the time given", Err: err}
	}
	return nil
}

func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// transportError is the error of a request that got no reply.
func transportError(ctx context.Context, err error) *Error {
	if e := endedError(ctx, err); e != nil {
		return e
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // the rest of its text is the address
	}
	e := &Error{Kind: Unreachable, Message: clean(err.Error()), Err: err}
	_, badCert := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case errors.Is(err, io.EOF):
		e.Message = "server closed the connection without a reply"
	case errors.Is(err, http.ErrSchemeMismatch):
		e.Kind, e.Message = Refused, "server speaks http, not https: change the address"
	case badCert:
		e.Kind = Refused
	case strings.Contains(e.Message, "malformed HTTP"):
		e.Kind, e.Message = Garbled, "what answers there does not speak HTTP"
	case strings.Contains(e.Message, "malformed"):
		e.Kind, e.Message = Garbled, "head of the reply was cut short or is not HTTP"
	}
	return e
}

// Ended is the *Error for a context's own error.
func Ended(ctxErr error) *Error {
	if errors.Is(ctxErr, context.DeadlineExceeded) {
		return &Error{Kind: Timeout, Message: "no complete reply in the time given", Err: ctxErr}
	}
	return &Error{Kind: Canceled, Message: "request was cancelled", Err: ctxErr}
}

// BeginChat begins the body of a chat request, as both protocols write it: the
// model, the messages and whether to stream. The closing brace is the caller's.
func BeginChat(req Request, stream bool) []byte {
	size := 384 + len(req.Model) + len(req.Schema)
	for _, m := range req.Messages {
		size += len(m.Content) + len(m.Content)/16 + 40
	}
	b := make([]byte, 0, size)
	b = append(b, `{"model":`...)
	b = AppendString(b, req.Model)
	b = append(b, `,"messages":[`...)
	for i, m := range req.Messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"role":`...)
		b = AppendString(b, string(m.Role))
		b = append(b, `,"content":`...)
		b = AppendString(b, m.Content)
		b = append(b, '}')
	}
	b = append(b, `],"stream":`...)
	return strconv.AppendBool(b, stream)
}

// StreamReply makes a streamed call and times the reply by our clock. read
// parses the stream: it calls token for each piece of the answer, and with ""
// for a piece of reasoning, which counts for the times but is not handed to
// piece.
func (e *Endpoint) StreamReply(ctx context.Context, call Call, piece func(text string) error,
	read func(r io.Reader, token func(answer string) error) (Reply, error),
) (Reply, error) {
	var reply Reply
	var first, last *time.Duration
	start := time.Now()
	err := e.Stream(ctx, call, func(h http.Header, r io.Reader) error {
		var err error
		reply, err = read(r, func(answer string) error {
			now := time.Since(start)
			if last = &now; first == nil {
				first = last
			}
			if answer == "" {
				return nil
			}
			if err := piece(answer); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return Ended(err)
			}
			return nil
		})
		reply.Simulated = h.Get(SimulatedHeader)
		return err
	})
	if err != nil {
		return Reply{}, err
	}
	reply.Timing.Wall = time.Since(start)
	reply.Timing.FirstToken, reply.Timing.LastToken = first, last
	return reply, nil
}
