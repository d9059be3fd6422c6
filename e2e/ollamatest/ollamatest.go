// Package ollamatest runs a real Ollama with a model of random weights: on a
// free port, with a model directory of its own, gone when the test is over.
// scripts/ollama.sh builds the server; nothing is downloaded.
package ollamatest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/gguf/gguftest"
)

// Model is the name under which the random model is installed.
const Model = "random:latest"

// template shows the model every message, so that a system prompt and a repair
// reach it as they would reach a real chat model.
const template = "{{ range .Messages }}<{{ .Role }}>{{ .Content }}\n{{ end }}<assistant>"

// Options says what to launch. The zero value is a server with the smallest
// model.
type Options struct {
	Env   []string         // settings of the server, as OLLAMA_NUM_PARALLEL=4
	Addr  string           // host:port to listen on; "" for a free port of 127.0.0.1
	Log   io.Writer        // gets the server's log as well; may be nil
	Model gguftest.Options // shape of the model
}

// Server is a running Ollama.
type Server struct {
	URL   string
	Model string

	binary string
	dir    string // models and home
	addr   string
	env    []string
	log    *logBuffer

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has been waited for
}

// Start launches a server with the random model for as long as the test runs.
// env are settings of the server, as OLLAMA_NUM_PARALLEL=4. The server's log
// is shown if the test fails.
func Start(t testing.TB, env ...string) *Server {
	t.Helper()
	s, err := Launch(t.Context(), Options{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("the end of Ollama's log:\n%s", s.log.tail(6000))
		}
	})
	return s
}

// Launch starts a server and installs the model. The caller closes it.
func Launch(ctx context.Context, o Options) (*Server, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	if o.Addr == "" {
		if o.Addr, err = freeAddr(ctx); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "millrace-ollama-")
	if err != nil {
		return nil, err
	}
	s := &Server{
		URL: "http://" + o.Addr, Model: Model,
		binary: binary, dir: dir, addr: o.Addr, env: o.Env, log: &logBuffer{also: o.Log},
	}
	if err := s.Resume(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.install(ctx, o.Model); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Binary is the path of the Ollama that scripts/ollama.sh built.
func Binary() (string, error) {
	cache := os.Getenv("MILLRACE_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache", "millrace")
	}
	path := filepath.Join(cache, "bin", "ollama")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no Ollama to test with: %w; build it with scripts/ollama.sh (about five minutes, once)", err)
	}
	return path, nil
}

func freeAddr(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Resume starts the server again after Stop or Kill, at the same address and
// with the same models, and returns once it answers.
func (s *Server) Resume(ctx context.Context) error {
	// Not bound to ctx: Stop lets it end in order.
	cmd := exec.Command(s.binary, "serve") //nolint:noctx // its life is Stop's and Kill's to end
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "OLLAMA_") && !strings.HasPrefix(kv, "HOME=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+s.dir, "OLLAMA_HOST="+s.addr, "OLLAMA_MODELS="+filepath.Join(s.dir, "models"),
		"OLLAMA_CONTEXT_LENGTH=4096", "OLLAMA_KEEP_ALIVE=-1", "OLLAMA_NO_CLOUD=1")
	cmd.Env = append(cmd.Env, s.env...)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = s.log, s.log
	// A runner that outlives a killed server holds the pipe of its output.
	cmd.WaitDelay = time.Second
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}()

	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		if s.call(ctx, http.MethodGet, "/api/version", nil, 0) == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-exited:
			return fmt.Errorf("ollama ended while it started; its log:\n%s", s.log.tail(2000))
		case <-limit:
			return fmt.Errorf("ollama does not answer at %s; its log:\n%s", s.URL, s.log.tail(2000))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// install writes the model to a file (its digest comes first in the protocol),
// uploads it and creates the model from it.
func (s *Server) install(ctx context.Context, o gguftest.Options) (err error) {
	f, err := os.CreateTemp(s.dir, "*.gguf")
	if err != nil {
		return err
	}
	defer func() {
		f.Close() // read only by now
		err = errors.Join(err, os.Remove(f.Name()))
	}()
	sum := sha256.New()
	if err := gguftest.Write(io.MultiWriter(f, sum), o); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	digest := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if err := s.call(ctx, http.MethodPost, "/api/blobs/"+digest, io.NopCloser(f), size); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{
		"model": Model, "files": map[string]string{"model.gguf": digest}, "template": template, "stream": false,
		// More threads gain nothing on a model this small, and on a busy machine
		// they spin for each other: minutes instead of seconds.
		"parameters": map[string]any{"num_thread": threads(o)},
	})
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPost, "/api/create", bytes.NewReader(body), int64(len(body)))
}

// threads is the server's own choice (0) for a model that is worth it.
func threads(o gguftest.Options) int {
	if o.Embedding > 1024 {
		return 0
	}
	return 1
}

func (s *Server) call(ctx context.Context, method, path string, body io.Reader, size int64) error {
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, body)
	if err != nil {
		return err
	}
	req.ContentLength = size
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 || bytes.Contains(answer, []byte(`"error"`)) {
		return fmt.Errorf("ollama: %s %s: %s: %s", method, path, resp.Status, answer)
	}
	return nil
}

// Requests is how many requests for an answer the server has finished since it
// was launched, by its own access log: the count that no client can bend.
func (s *Server) Requests() int { return s.log.count() }

// Stop ends the server as an administrator would. Resume starts it again.
func (s *Server) Stop() { s.end(terminate) }

// Kill ends the server and its runners at once, in the middle of whatever they
// do. Resume starts it again.
func (s *Server) Kill() { s.end(kill) }

func (s *Server) end(how func(*exec.Cmd)) {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	how(s.cmd)
	select {
	case <-s.exited:
	case <-time.After(15 * time.Second):
	}
	kill(s.cmd) // what is left of its group
	<-s.exited
}

// Close ends the server and removes its files.
func (s *Server) Close() error {
	s.Stop()
	return os.RemoveAll(s.dir)
}

// logBuffer keeps the server's log and counts its access lines.
type logBuffer struct {
	also io.Writer

	mu       sync.Mutex
	text     []byte
	line     []byte // the line that is not complete yet
	requests int
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	for rest := p; len(rest) > 0; {
		before, after, whole := bytes.Cut(rest, []byte("\n"))
		b.line = append(b.line, before...)
		if whole {
			if isRequest(string(b.line)) {
				b.requests++
			}
			b.line = b.line[:0]
		}
		rest = after
	}
	if b.also != nil {
		return b.also.Write(p)
	}
	return len(p), nil
}

// isRequest recognises an access line such as
//
//	[GIN] 2026/03/01 - 10:00:00 | 200 |  61.2ms |  127.0.0.1 | POST     "/api/chat"
//
// An empty request, which only loads the model, looks the same and is rare.
func isRequest(line string) bool {
	if !strings.Contains(line, "[GIN]") || !strings.Contains(line, "POST") {
		return false
	}
	for _, path := range []string{"/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions"} {
		if strings.Contains(line, `"`+path+`"`) {
			return true
		}
	}
	return false
}

func (b *logBuffer) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests
}

func (b *logBuffer) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text[max(0, len(b.text)-n):])
}
