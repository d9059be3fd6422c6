package llmtest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/llm"
)

// Model is the model that a fake server has unless it is given others.
const Model = "tiny:latest"

// Response is what a fake server does with one request. The zero value is an
// empty answer.
type Response struct {
	Text     string
	Thinking string
	Finish   llm.Finish // "" for FinishStop, or FinishLength if MaxTokens cut the text

	// Tokens; 0 for one per word.
	PromptTokens, CompletionTokens, CachedTokens int
	// The server's own times, as each protocol gives them.
	Total, Load, Prefill, Decode time.Duration

	Delay  time.Duration // before the reply, or until the client gives up
	Pause  time.Duration // before each piece of a stream
	Status int           // an error status; Text is then the server's message
	Header map[string]string

	// Body, if set, is sent as it is instead of a reply in the protocol.
	Body string
	// Cut closes the connection after that many bytes of the reply; -1 before
	// anything is sent.
	Cut int
	// StreamError ends a stream with an error of this text after the answer's
	// first half.
	StreamError string
}

// Config is a fake server.
type Config struct {
	Kind      llm.Kind // "" for Ollama
	Version   string   // "" for a recent one
	Simulated string   // profile, if it is to announce itself as simulated
	Key       string   // API key that it wants
	Models    []llm.Model
	// Answer decides about each request; it runs concurrently. Requests for
	// models that the server does not have never reach it.
	Answer func(llm.Request) Response
}

// Server is a running fake.
type Server struct {
	URL string

	config Config
	mu     sync.Mutex
	bodies []string
}

// NewOllama starts a fake Ollama with the one model Model; it is stopped when
// the test ends.
func NewOllama(t testing.TB, answer func(llm.Request) Response) (url string) {
	t.Helper()
	return New(t, Config{Kind: llm.Ollama, Answer: answer}).URL
}

// NewOpenAI starts a fake of one of the servers with OpenAI's API.
func NewOpenAI(t testing.TB, kind llm.Kind, answer func(llm.Request) Response) (url string) {
	t.Helper()
	return New(t, Config{Kind: kind, Answer: answer}).URL
}

// New starts a fake server; it is stopped when the test ends.
func New(t testing.TB, c Config) *Server {
	t.Helper()
	if c.Kind == "" {
		c.Kind = llm.Ollama
	}
	if c.Models == nil {
		size := int64(3_372_352)
		c.Models = []llm.Model{{Name: Model, Digest: strings.Repeat("c0ffee", 10) + "c0ff", Loaded: true, Bytes: &size}}
	}
	if c.Answer == nil {
		c.Answer = func(llm.Request) Response { return Response{} }
	}
	s := &Server{config: c}
	mux := http.NewServeMux()
	if c.Kind == llm.Ollama {
		s.routeOllama(mux)
	} else {
		s.routeOpenAI(mux)
	}
	ts := httptest.NewServer(s.middle(mux))
	t.Cleanup(ts.Close)
	s.URL = ts.URL
	return s
}

// Bodies returns the bodies of the requests for an answer, in the order in
// which they arrived.
func (s *Server) Bodies() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.bodies)
}

// middle checks the key and announces a simulated server.
func (s *Server) middle(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.config.Simulated != "" {
			w.Header().Set(llm.SimulatedHeader, s.config.Simulated)
		}
		if s.config.Kind == llm.LlamaServer {
			w.Header().Set("Server", "llama.cpp")
		}
		if s.config.Key != "" && r.Header.Get("Authorization") != "Bearer "+s.config.Key {
			s.fail(w, http.StatusUnauthorized, "Invalid API Key", "authentication_error")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) has(model string) bool {
	return slices.ContainsFunc(s.config.Models, func(m llm.Model) bool {
		return m.Name == model || m.Name == model+":latest"
	})
}

// fail sends an error as the server's kind does.
func (s *Server) fail(w http.ResponseWriter, status int, message, code string) {
	var body any = map[string]any{"error": message}
	if s.config.Kind != llm.Ollama {
		body = map[string]any{"error": map[string]any{"message": message, "type": code, "code": status}}
	}
	writeJSON(w, status, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// wire is a request in either protocol, as far as they agree.
type wire struct {
	Model    string        `json:"model"`
	Messages []llm.Message `json:"messages"`
	Stream   *bool         `json:"stream"`
}

// serve answers one request. unary and pieces write a reply in the protocol.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, parse func(body []byte) (llm.Request, bool, error),
	unary func(llm.Request, Response) any, pieces func(req llm.Request, resp Response, piece string, at, of int) string,
) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.bodies = append(s.bodies, string(body))
	s.mu.Unlock()
	req, stream, err := parse(body)
	if err != nil {
		s.fail(w, http.StatusBadRequest, err.Error(), "invalid_request_error")
		return
	}
	if !s.has(req.Model) && s.config.Kind != llm.LlamaServer {
		message := fmt.Sprintf("model '%s' not found", req.Model)
		if s.config.Kind != llm.Ollama {
			message = fmt.Sprintf("The model `%s` does not exist.", req.Model)
		}
		s.fail(w, http.StatusNotFound, message, "NotFoundError")
		return
	}
	resp := s.config.Answer(req)
	if !wait(r, resp.Delay) {
		return
	}
	if resp.Cut != 0 {
		w = &cutter{ResponseWriter: w, left: max(resp.Cut, 0)}
		if resp.Cut < 0 {
			panic(http.ErrAbortHandler)
		}
	}
	for name, value := range resp.Header {
		w.Header().Set(name, value)
	}
	switch status := max(resp.Status, http.StatusOK); {
	case resp.Body != "":
		w.WriteHeader(status)
		_, _ = io.WriteString(w, resp.Body)
	case resp.Status != 0 && resp.Status != http.StatusOK:
		s.fail(w, status, resp.Text, "server_error")
	case !stream:
		writeJSON(w, status, unary(req, resp.within(req)))
	default:
		s.stream(w, r, req, resp.within(req), pieces)
	}
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request, req llm.Request, resp Response,
	pieces func(req llm.Request, resp Response, piece string, at, of int) string,
) {
	w.Header().Set("Content-Type", "text/event-stream")
	if s.config.Kind == llm.Ollama {
		w.Header().Set("Content-Type", "application/x-ndjson")
	}
	flush := http.NewResponseController(w)
	words := strings.SplitAfter(resp.Text, " ")
	for i, word := range words {
		if resp.StreamError != "" && i >= len(words)/2 {
			break
		}
		if !wait(r, resp.Pause) {
			return
		}
		_, _ = io.WriteString(w, pieces(req, resp, word, i, len(words)))
		_ = flush.Flush()
	}
	if resp.StreamError != "" {
		text, _ := json.Marshal(resp.StreamError)
		if s.config.Kind == llm.Ollama {
			_, _ = fmt.Fprintf(w, "{\"error\":%s}\n", text)
		} else {
			_, _ = fmt.Fprintf(w, "data: {\"error\":{\"message\":%s,\"type\":\"server_error\",\"code\":500}}\n\n", text)
		}
		return
	}
	_, _ = io.WriteString(w, pieces(req, resp, "", len(words), len(words)))
}

// within fills in what was left open, and cuts the text to the limit.
func (r Response) within(req llm.Request) Response {
	words := strings.Fields(r.Text)
	if r.Finish == "" {
		r.Finish = llm.FinishStop
		if req.MaxTokens != nil && len(words) > *req.MaxTokens {
			r.Finish = llm.FinishLength
			r.Text = strings.Join(words[:*req.MaxTokens], " ")
			words = words[:*req.MaxTokens]
		}
	}
	if r.CompletionTokens == 0 {
		r.CompletionTokens = max(len(words), 1)
	}
	if r.PromptTokens == 0 {
		for _, m := range req.Messages {
			r.PromptTokens += len(strings.Fields(m.Content)) + 1
		}
	}
	return r
}

// wait is false when the client has gone.
func wait(r *http.Request, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// cutter ends the connection after a number of bytes of the body.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) < c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func (s *Server) routeOllama(mux *http.ServeMux) {
	version := s.config.Version
	if version == "" {
		version = "0.17.4"
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "Ollama is running")
	})
	mux.HandleFunc("GET /api/version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"version": version})
	})
	entry := func(m llm.Model) map[string]any {
		e := map[string]any{
			"name": m.Name, "model": m.Name, "digest": m.Digest,
			"details": map[string]any{"format": "gguf", "family": "llama", "families": []string{"llama"}},
		}
		if m.Bytes != nil {
			e["size"] = *m.Bytes
		}
		if m.Remote {
			e["remote_model"], e["remote_host"] = m.Name, "https://ollama.com:443"
		}
		return e
	}
	models := func(keep func(llm.Model) bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			list := []any{}
			for _, m := range s.config.Models {
				if keep(m) {
					list = append(list, entry(m))
				}
			}
			writeJSON(w, http.StatusOK, map[string]any{"models": list})
		}
	}
	mux.HandleFunc("GET /api/tags", models(func(llm.Model) bool { return true }))
	mux.HandleFunc("GET /api/ps", models(func(m llm.Model) bool { return m.Loaded }))
	mux.HandleFunc("POST /api/chat", func(w http.ResponseWriter, r *http.Request) {
		s.serve(w, r, parseOllama, func(req llm.Request, resp Response) any { return ollamaDone(req, resp, resp.Text, resp.Thinking) }, ollamaLine)
	})
}

func parseOllama(body []byte) (llm.Request, bool, error) {
	var b struct {
		wire
		Format  json.RawMessage `json:"format"`
		Think   *bool           `json:"think"`
		Options struct {
			llm.Options
			NumPredict *int `json:"num_predict"`
		} `json:"options"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return llm.Request{}, false, err
	}
	req := llm.Request{Model: b.Model, Messages: b.Messages, Schema: b.Format, Options: b.Options.Options}
	req.MaxTokens, req.Think = b.Options.NumPredict, b.Think
	return req, b.Stream == nil || *b.Stream, nil
}

func ollamaDone(req llm.Request, resp Response, text, thinking string) map[string]any {
	message := map[string]any{"role": "assistant", "content": text}
	if thinking != "" {
		message["thinking"] = thinking
	}
	done := map[string]any{
		"model": req.Model, "created_at": time.Now().UTC(), "message": message,
		"done": true, "done_reason": string(resp.Finish),
	}
	// Ollama leaves out what is zero.
	for name, n := range map[string]int64{
		"total_duration": int64(resp.Total), "load_duration": int64(resp.Load),
		"prompt_eval_duration": int64(resp.Prefill), "eval_duration": int64(resp.Decode),
		"prompt_eval_count": int64(resp.PromptTokens), "eval_count": int64(resp.CompletionTokens),
	} {
		if n != 0 {
			done[name] = n
		}
	}
	return done
}

func ollamaLine(req llm.Request, resp Response, piece string, at, of int) string {
	line := map[string]any{
		"model": req.Model, "created_at": time.Now().UTC(), "done": false,
		"message": map[string]any{"role": "assistant", "content": piece},
	}
	if at == of {
		line = ollamaDone(req, resp, "", "")
	}
	b, _ := json.Marshal(line)
	if at == 0 && resp.Thinking != "" {
		thought, _ := json.Marshal(map[string]any{
			"model": req.Model, "done": false,
			"message": map[string]any{"role": "assistant", "content": "", "thinking": resp.Thinking},
		})
		return string(thought) + "\n" + string(b) + "\n"
	}
	return string(b) + "\n"
}

func (s *Server) routeOpenAI(mux *http.ServeMux) {
	c := s.config
	owner := map[llm.Kind]string{llm.LlamaServer: "llamacpp", llm.VLLM: "vllm", llm.LMStudio: "organization_owner", llm.OpenAI: "somebody"}[c.Kind]
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		data := []any{}
		for _, m := range c.Models {
			e := map[string]any{"id": m.Name, "object": "model", "owned_by": owner}
			if c.Kind == llm.LlamaServer && m.Bytes != nil {
				e["meta"] = map[string]any{"size": *m.Bytes}
			}
			data = append(data, e)
		}
		writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": data})
	})
	version := c.Version
	switch c.Kind {
	case llm.LlamaServer:
		if version == "" {
			version = "b10488-0a1b2c3d"
		}
		mux.HandleFunc("GET /props", func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, map[string]any{"default_generation_settings": map[string]any{"n_ctx": 4096}, "total_slots": 4, "build_info": version})
		})
	case llm.VLLM:
		if version == "" {
			version = "0.11.0"
		}
		mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, map[string]any{"version": version})
		})
	case llm.LMStudio:
		mux.HandleFunc("GET /api/v0/models", func(w http.ResponseWriter, _ *http.Request) {
			data := []any{}
			for _, m := range c.Models {
				state := "not-loaded"
				if m.Loaded {
					state = "loaded"
				}
				data = append(data, map[string]any{"id": m.Name, "object": "model", "type": "llm", "state": state})
			}
			data = append(data, map[string]any{"id": "text-embedding-nomic", "object": "model", "type": "embeddings", "state": "not-loaded"})
			writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": data})
		})
	}
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		s.serve(w, r, parseOpenAI, func(req llm.Request, resp Response) any { return s.completion(req, resp) }, s.event)
	})
}

func parseOpenAI(body []byte) (llm.Request, bool, error) {
	var b struct {
		wire
		llm.Options
		RepetitionPenalty *float64 `json:"repetition_penalty"`
		ResponseFormat    struct {
			Type       string `json:"type"`
			JSONSchema struct {
				Name   string          `json:"name"`
				Schema json.RawMessage `json:"schema"`
			} `json:"json_schema"`
		} `json:"response_format"`
		Kwargs struct {
			Thinking *bool `json:"enable_thinking"`
		} `json:"chat_template_kwargs"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return llm.Request{}, false, err
	}
	if f := b.ResponseFormat; f.Type != "" && (f.Type != "json_schema" || f.JSONSchema.Name == "" || f.JSONSchema.Schema == nil) {
		return llm.Request{}, false, fmt.Errorf("invalid response_format")
	}
	req := llm.Request{Model: b.Model, Messages: b.Messages, Schema: b.ResponseFormat.JSONSchema.Schema, Options: b.Options}
	req.Think = b.Kwargs.Thinking
	if b.RepetitionPenalty != nil {
		req.RepeatPenalty = b.RepetitionPenalty
	}
	return req, b.Stream != nil && *b.Stream, nil
}

func (s *Server) usage(resp Response) map[string]any {
	u := map[string]any{
		"prompt_tokens": resp.PromptTokens, "completion_tokens": resp.CompletionTokens,
		"total_tokens": resp.PromptTokens + resp.CompletionTokens,
	}
	if resp.CachedTokens > 0 {
		u["prompt_tokens_details"] = map[string]any{"cached_tokens": resp.CachedTokens}
	}
	return u
}

func (s *Server) base(req llm.Request, object string) map[string]any {
	return map[string]any{"id": "chatcmpl-1", "object": object, "created": time.Now().Unix(), "model": req.Model}
}

// timings are added by llama-server only.
func (s *Server) timings(resp Response) map[string]any {
	if s.config.Kind != llm.LlamaServer {
		return nil
	}
	return map[string]any{"timings": map[string]any{
		"cache_n": resp.CachedTokens, "prompt_n": resp.PromptTokens - resp.CachedTokens,
		"prompt_ms": float64(resp.Prefill) / 1e6, "predicted_n": resp.CompletionTokens, "predicted_ms": float64(resp.Decode) / 1e6,
	}}
}

func (s *Server) completion(req llm.Request, resp Response) map[string]any {
	message := map[string]any{"role": "assistant", "content": resp.Text}
	if resp.Thinking != "" {
		message[s.reasoning()] = resp.Thinking
	}
	c := s.base(req, "chat.completion")
	c["choices"] = []any{map[string]any{"index": 0, "message": message, "finish_reason": string(resp.Finish)}}
	c["usage"] = s.usage(resp)
	maps.Copy(c, s.timings(resp))
	return c
}

func (s *Server) reasoning() string {
	if s.config.Kind == llm.LMStudio {
		return "reasoning"
	}
	return "reasoning_content"
}

func (s *Server) event(req llm.Request, resp Response, piece string, at, of int) string {
	chunk := func(delta map[string]any, finish any) string {
		c := s.base(req, "chat.completion.chunk")
		c["choices"] = []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}}
		b, _ := json.Marshal(c)
		return "data: " + string(b) + "\n\n"
	}
	if at == of {
		last := s.base(req, "chat.completion.chunk")
		last["choices"], last["usage"] = []any{}, s.usage(resp)
		maps.Copy(last, s.timings(resp))
		b, _ := json.Marshal(last)
		return chunk(map[string]any{}, string(resp.Finish)) + "data: " + string(b) + "\n\ndata: [DONE]\n\n"
	}
	out := ""
	if at == 0 {
		out = ": keep-alive\n\n" + chunk(map[string]any{"role": "assistant", "content": nil}, nil)
		if resp.Thinking != "" {
			out += chunk(map[string]any{s.reasoning(): resp.Thinking}, nil)
		}
	}
	return out + chunk(map[string]any{"content": piece}, nil)
}
