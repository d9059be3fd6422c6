package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
)

// Transport is a way to reach a handler without a network: a round tripper
// that runs it in a goroutine of its own for each request. Replies stream when
// the handler flushes; a handler that panics with http.ErrAbortHandler breaks
// the connection as a server would. It holds nothing between requests, so it
// needs no closing and works inside a testing/synctest bubble.
func Transport(h http.Handler) http.RoundTripper { return direct{h} }

type direct struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (d direct) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	in := req.Clone(ctx)
	in.RequestURI = req.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	if in.Host == "" {
		in.Host = req.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	out := &conn{header: http.Header{}, ready: make(chan struct{})}
	go func() {
		defer cancel()
		defer in.Body.Close()
		defer out.end()
		d.handler.ServeHTTP(out, in)
	}()
	select {
	case <-out.ready:
	case <-ctx.Done():
		if req.Context().Err() != nil {
			return nil, req.Context().Err()
		}
		<-out.ready
	}
	return out.response(req, cancel)
}

// conn is a reply on its way. It is gathered whole unless the handler flushes.
type conn struct {
	header http.Header
	ready  chan struct{}

	status int
	sent   http.Header // header as it was when the reply began
	buf    bytes.Buffer
	pipe   *io.PipeWriter
	body   *io.PipeReader
	broken bool
}

func (c *conn) Header() http.Header { return c.header }

func (c *conn) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
		c.sent = c.header.Clone()
	}
}

func (c *conn) Write(b []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	if c.pipe != nil {
		return c.pipe.Write(b)
	}
	return c.buf.Write(b)
}

// FlushError sends what there is; http.ResponseController calls it.
func (c *conn) FlushError() error {
	c.WriteHeader(http.StatusOK)
	if c.pipe == nil {
		c.body, c.pipe = io.Pipe()
		close(c.ready)
		_, err := c.pipe.Write(c.buf.Bytes())
		return err
	}
	return nil
}

// end closes the reply; deferred, so that it sees an aborted one.
func (c *conn) end() {
	if v := recover(); v != nil {
		if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			panic(v)
		}
		c.broken = true
	}
	if c.pipe == nil {
		if !c.broken {
			c.WriteHeader(http.StatusOK)
		}
		close(c.ready)
	} else if c.broken {
		c.pipe.CloseWithError(io.ErrUnexpectedEOF)
	} else {
		c.pipe.Close()
	}
}

func (c *conn) response(req *http.Request, cancel context.CancelFunc) (*http.Response, error) {
	r := &http.Response{
		StatusCode: c.status,
		Status:     strconv.Itoa(c.status) + " " + http.StatusText(c.status),
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        c.sent,
		ContentLength: -1,
		Request:       req,
	}
	switch {
	case c.body != nil: // and the handler may be running still
		r.Body = &closer{c.body, cancel}
	case c.broken && c.status == 0:
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	case c.broken:
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(c.buf.Bytes()), failing{}))
	default:
		r.ContentLength = int64(c.buf.Len())
		r.Body = io.NopCloser(bytes.NewReader(c.buf.Bytes()))
	}
	return r, nil
}

// closer ends the handler's request when the client has had enough.
type closer struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (c *closer) Close() error {
	c.cancel()
	return c.PipeReader.Close()
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
