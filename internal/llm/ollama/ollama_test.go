package ollama_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"millrace/internal/llm"
	"millrace/internal/llm/llmtest"
	"millrace/internal/llm/ollama"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, url string) *ollama.Server {
	t.Helper()
	s, err := tryOpen(t, url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpen(t *testing.T, url string) (*ollama.Server, error) {
	t.Helper()
	hc := llm.NewHTTPClient(16)
	t.Cleanup(hc.CloseIdleConnections)
	return ollama.Open(t.Context(), url, hc)
}

func TestConformance(t *testing.T) {
	slow := llm.Request{Model: llmtest.Model, Messages: []llm.Message{{Role: llm.User, Content: "slow"}}}
	tooLong := llm.Request{Model: llmtest.Model, Messages: []llm.Message{{Role: llm.User, Content: "too long"}}}
	url := llmtest.NewOllama(t, script)
	llmtest.Exercise(t, func(t *testing.T) llm.Server { return open(t, url) },
		llmtest.Traits{Model: llmtest.Model, Slow: &slow, TooLong: &tooLong})
}

// script answers what the suite asks.
func script(req llm.Request) llmtest.Response {
	last := req.Messages[len(req.Messages)-1].Content
	switch {
	case last == "slow":
		return llmtest.Response{Delay: time.Hour}
	case last == "too long":
		return llmtest.Response{Status: http.StatusBadRequest, Text: "the input length exceeds the context length"}
	case req.Schema != nil:
		return llmtest.Response{Text: `{"alpha": "small", "beta": "fixed", "gamma": [true, false], "omega": null}`}
	}
	return llmtest.Response{Text: "Blue, or green, or grün.", Thinking: "Hm."}
}

func TestRequest(t *testing.T) {
	fake := llmtest.New(t, llmtest.Config{})
	s := open(t, fake.URL)
	message := []llm.Message{{Role: llm.System, Content: "Be \"brief\"\n"}, {Role: llm.User, Content: "bad \xff byte"}}
	for _, tt := range []struct {
		name string
		req  llm.Request
		want string
	}{
		{
			"nothing set",
			llm.Request{Messages: message[:1]},
			`{"model":"tiny:latest","messages":[{"role":"system","content":"Be \"brief\"\n"}],"stream":false,"truncate":false}`,
		},
		{
			"all set",
			llm.Request{
				Messages: message,
				Schema:   []byte(`{"type":"object","properties":{"b":{"const":1},"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"type":"string"}}}`),
				Options: llm.Options{
					Temperature: new(0.0), TopP: new(0.9), TopK: new(40), MinP: new(0.05), RepeatPenalty: new(1.1),
					Seed: new(int64(-7)), MaxTokens: new(200), NumCtx: new(8192), Think: new(false), Stop: []string{"\n", "END"},
				},
			},
			`{"model":"tiny:latest","messages":[{"role":"system","content":"Be \"brief\"\n"},{"role":"user","content":"bad ` + "\ufffd" + ` byte"}],` +
				`"stream":false,"truncate":false,"think":false,` +
				`"format":{"type":"object","properties":{"b":{"enum":[1]},"a":{"type":"string"}},"additionalProperties":false},` +
				`"options":{"temperature":0,"top_p":0.9,"top_k":40,"min_p":0.05,"repeat_penalty":1.1,"seed":-7,"num_predict":200,"num_ctx":8192,"stop":["\n","END"]}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.req.Model = llmtest.Model
			if _, err := s.Ask(t.Context(), tt.req); err != nil {
				t.Fatal(err)
			}
			bodies := fake.Bodies()
			if diff := cmp.Diff(tt.want, bodies[len(bodies)-1]); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			st, err := s.Stream(t.Context(), tt.req, func(string) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			bodies = fake.Bodies()
			if want := strings.Replace(tt.want, `"stream":false`, `"stream":true`, 1); bodies[len(bodies)-1] != want {
				t.Errorf("streamed: %s", bodies[len(bodies)-1])
			}
			if st.Timing.FirstToken != nil {
				t.Errorf("an empty answer had its first token at %v", *st.Timing.FirstToken)
			}
		})
	}
}

func TestReply(t *testing.T) {
	whole := llmtest.Response{
		Text: "Deep blue.", Thinking: "The sky?", PromptTokens: 12, CompletionTokens: 5,
		Total: 100, Load: 20, Prefill: 30, Decode: 40,
	}
	for _, tt := range []struct {
		name string
		resp llmtest.Response
		want llm.Reply
	}{
		{"all told", whole, llm.Reply{
			Text: "Deep blue.", Thinking: "The sky?", Finish: llm.FinishStop, Model: llmtest.Model,
			PromptTokens: new(12), CompletionTokens: new(5),
			Timing: llm.Timing{Total: new(time.Duration(100)), Load: new(time.Duration(20)), Prefill: new(time.Duration(30)), Decode: new(time.Duration(40))},
		}},
		{"length", llmtest.Response{Text: "Deep", Finish: llm.FinishLength, PromptTokens: 1, CompletionTokens: 1}, llm.Reply{
			Text: "Deep", Finish: llm.FinishLength, Model: llmtest.Model, PromptTokens: new(1), CompletionTokens: new(1),
		}},
		{"unloaded", llmtest.Response{Finish: "unload", PromptTokens: 1, CompletionTokens: 1}, llm.Reply{
			Finish: llm.FinishOther, Model: llmtest.Model, PromptTokens: new(1), CompletionTokens: new(1),
		}},
		{"an old server", llmtest.Response{Body: `{"model":"m","message":{"role":"assistant","content":"hi"},"done":true}`}, llm.Reply{
			Text: "hi", Finish: llm.FinishStop, Model: "m",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, llmtest.NewOllama(t, func(llm.Request) llmtest.Response { return tt.resp }))
			req := llm.Request{Model: llmtest.Model, Messages: []llm.Message{{Role: llm.User, Content: "sky"}}}
			got, err := s.Ask(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			got.Timing.Wall = 0
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			got, err = s.Stream(t.Context(), req, func(string) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			got.Timing.Wall, got.Timing.FirstToken, got.Timing.LastToken = 0, nil, nil
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("streamed (-want +got):\n%s", diff)
			}
		})
	}
}

// Ollama ends an answer that repeats itself without a line that says done.
func TestRepeatingAnswer(t *testing.T) {
	line := `{"model":"m","message":{"role":"assistant","content":" ha"},"done":false}` + "\n"
	many := strings.Repeat(line, 31)
	s := open(t, llmtest.NewOllama(t, func(req llm.Request) llmtest.Response {
		switch req.Messages[0].Content {
		case "stream":
			return llmtest.Response{Body: many}
		case "cut":
			return llmtest.Response{Body: strings.Repeat(line, 5)}
		}
		return llmtest.Response{Body: line}
	}))
	ask := func(what string) llm.Request {
		return llm.Request{Model: llmtest.Model, Messages: []llm.Message{{Role: llm.User, Content: what}}}
	}
	got, err := s.Ask(t.Context(), ask("ask"))
	if err != nil || got.Finish != llm.FinishOther || got.Text != " ha" {
		t.Errorf("asked: %+v, %v", got, err)
	}
	got, err = s.Stream(t.Context(), ask("stream"), func(string) error { return nil })
	if err != nil || got.Finish != llm.FinishOther || got.Text != strings.Repeat(" ha", 31) {
		t.Errorf("streamed: %+v, %v", got, err)
	}
	_, err = s.Stream(t.Context(), ask("cut"), func(string) error { return nil })
	if llm.KindOf(err) != llm.Garbled {
		t.Errorf("a stream that only ends: %v", err)
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name    string
		resp    llmtest.Response
		kind    llm.ErrorKind
		message string
	}{
		{"no such model", llmtest.Response{Status: 404, Text: "model 'x' not found"}, llm.NoModel, `"tiny:latest" is not installed; install it with: ollama pull tiny:latest`},
		{"busy", llmtest.Response{Status: 503, Text: "server busy, please try again.  maximum pending requests exceeded"}, llm.Busy, "server busy"},
		{"rate", llmtest.Response{Status: 429, Text: "slow down", Header: map[string]string{"Retry-After": "2"}}, llm.Busy, "slow down"},
		{"too long", llmtest.Response{Status: 400, Text: "the input length exceeds the context length"}, llm.TooLong, "exceeds"},
		{"schema", llmtest.Response{Status: 500, Text: "invalid JSON schema in format"}, llm.BadSchema, "schema"},
		{"refused", llmtest.Response{Status: 400, Text: `"tiny" does not support thinking`}, llm.Refused, "thinking"},
		{"failed", llmtest.Response{Status: 500, Text: "model runner has unexpectedly stopped"}, llm.Failed, "unexpectedly"},
		{"loading", llmtest.Response{Status: 500, Text: "unexpected server status: llm server loading model"}, llm.Loading, "loading"},
		{"proxy", llmtest.Response{Status: 502, Body: "<html><head><title>502 Bad Gateway</title></head></html>"}, llm.Failed, "502 Bad Gateway"},
		{"web page", llmtest.Response{Body: "<!doctype html><title>Welcome</title>"}, llm.Garbled, "Welcome"},
		{"not JSON", llmtest.Response{Body: "once upon a time"}, llm.Garbled, "not what ollama sends"},
		{"other JSON", llmtest.Response{Body: `{"choices":[]}`}, llm.Garbled, ""},
		{"half JSON", llmtest.Response{Body: `{"model":"m","message":{"content":"he`}, llm.Garbled, ""},
		{"nothing", llmtest.Response{Body: "\n"}, llm.Garbled, ""},
		{"an error with status 200", llmtest.Response{Body: `{"error":"an error was encountered while running the model: CUDA error"}`}, llm.Failed, "CUDA"},
		{"closed before the reply", llmtest.Response{Cut: -1}, llm.Unreachable, ""},
		{"closed in the reply", llmtest.Response{Text: "some words and more", Cut: 30}, llm.Garbled, "cut short"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, llmtest.NewOllama(t, func(llm.Request) llmtest.Response { return tt.resp }))
			req := llm.Request{Model: llmtest.Model, Messages: []llm.Message{{Role: llm.User, Content: "secret words"}}}
			_, asked := s.Ask(t.Context(), req)
			_, streamed := s.Stream(t.Context(), req, func(string) error { return nil })
			for how, err := range map[string]error{"asked": asked, "streamed": streamed} {
				e, ok := errors.AsType[*llm.Error](err)
				if !ok || e.Kind != tt.kind {
					t.Errorf("%s: got %v, want %s", how, err, tt.kind)
					continue
				}
				if how == "asked" && !strings.Contains(e.Message, tt.message) {
					t.Errorf("%s: message %q lacks %q", how, e.Message, tt.message)
				}
				if strings.Contains(e.Error(), "secret words") {
					t.Errorf("%s: %q repeats the prompt", how, e)
				}
				if tt.name == "rate" && e.RetryAfter != 2*time.Second {
					t.Errorf("RetryAfter = %v", e.RetryAfter)
				}
			}
		})
	}
}

func TestErrorWithinStream(t *testing.T) {
	s := open(t, llmtest.NewOllama(t, func(req llm.Request) llmtest.Response {
		return llmtest.Response{Text: "one two three four", StreamError: "an error was encountered: secret words"}
	}))
	var got strings.Builder
	_, err := s.Stream(t.Context(), llm.Request{Model: llmtest.Model, Messages: []llm.Message{{Role: llm.User, Content: "secret words"}}},
		func(text string) error { got.WriteString(text); return nil })
	if llm.KindOf(err) != llm.Failed || !strings.Contains(err.Error(), "an error was encountered") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	if got.String() != "one two " {
		t.Errorf("pieces before it: %q", got.String())
	}
}

func TestModels(t *testing.T) {
	size := int64(4_000_000_000)
	fake := llmtest.New(t, llmtest.Config{Models: []llm.Model{
		{Name: "a:latest", Digest: "aa", Bytes: &size, Loaded: true},
		{Name: "b:8b", Digest: "bb"},
		{Name: "c-cloud", Digest: "cc", Remote: true, Bytes: new(int64(300))},
	}})
	got, err := open(t, fake.URL).Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []llm.Model{
		{Name: "a:latest", Digest: "aa", Bytes: &size, Loaded: true},
		{Name: "b:8b", Digest: "bb"},
		{Name: "c-cloud", Digest: "cc", Remote: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// handler serves fixed bodies by path, 404 for the rest.
func handler(t *testing.T, bodies map[string]string) string {
	t.Helper()
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := bodies[r.URL.Path]
		if !ok {
			http.Error(w, "404 page not found", http.StatusNotFound)
			return
		}
		var status int
		if n, _ := fmt.Sscanf(body, "%d ", &status); n == 1 {
			_, body, _ = strings.Cut(body, " ")
			w.WriteHeader(status)
		}
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(ts.Close)
	return ts.URL
}

func TestModelsOfOtherVersions(t *testing.T) {
	const tags = `{"models":[{"name":"","model":"m","size":7,"details":null},{"name":"e","details":{"family":"nomic-bert"}}]}`
	want := []llm.Model{{Name: "m", Bytes: new(int64(7))}}
	s := open(t, handler(t, map[string]string{"/": "Ollama is running", "/api/tags": tags}))
	got, err := s.Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("without /api/ps (-want +got):\n%s", diff)
	}
	s = open(t, handler(t, map[string]string{"/": "Ollama is running", "/api/tags": `{"models":null}`, "/api/ps": `{"models":null}`}))
	if got, err = s.Models(t.Context()); err != nil || got == nil || len(got) != 0 {
		t.Errorf("no models: %v, %v", got, err)
	}
	s = open(t, handler(t, map[string]string{"/": "Ollama is running", "/api/tags": `<html>`}))
	if _, err = s.Models(t.Context()); llm.KindOf(err) != llm.Garbled {
		t.Errorf("a web page for a list: %v", err)
	}
}

func TestOpen(t *testing.T) {
	fake := llmtest.New(t, llmtest.Config{Version: "0.30.1", Simulated: "h100"})
	s := open(t, strings.Replace(fake.URL, "http://", "http://me:secret@", 1)+"/v1/")
	if diff := cmp.Diff(llm.Info{Kind: llm.Ollama, URL: fake.URL, Version: "0.30.1", Simulated: "h100"}, s.Info()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	reply, err := s.Ask(t.Context(), llm.Request{Model: llmtest.Model})
	if err != nil || reply.Simulated != "h100" {
		t.Errorf("reply %+v, %v", reply, err)
	}
	reply, err = s.Stream(t.Context(), llm.Request{Model: llmtest.Model}, func(string) error { return nil })
	if err != nil || reply.Simulated != "h100" {
		t.Errorf("streamed reply %+v, %v", reply, err)
	}

	for _, tt := range []struct {
		name, url string
		notMine   bool
		kind      llm.ErrorKind
	}{
		{"llama-server", llmtest.NewOpenAI(t, llm.LlamaServer, nil), true, ""},
		{"lm studio", handler(t, map[string]string{"/api/version": `{"error":"Unexpected endpoint or method."}`, "/": `{"error":"x"}`}), true, ""},
		{"a web server", handler(t, map[string]string{"/": "<html>", "/api/version": "<html>"}), true, ""},
		{"llama-server, loading", handler(t, map[string]string{"/": `503 {"error":{}}`, "/api/version": `503 {"error":{}}`}), true, ""},
		{"nothing", "127.0.0.1:1", false, llm.Unreachable},
	} {
		_, err := tryOpen(t, tt.url)
		if errors.Is(err, llm.ErrNotMine) != tt.notMine || llm.KindOf(err) != tt.kind {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	if _, err := tryOpen(t, "ftp://x"); err == nil {
		t.Error("an ftp address was opened")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ollama.Open(ctx, fake.URL, nil); llm.KindOf(err) != llm.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestBaseURL(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "http://127.0.0.1:11434",
		"0.0.0.0":                  "http://127.0.0.1:11434",
		"0.0.0.0:8080":             "http://127.0.0.1:8080",
		"gpu1":                     "http://gpu1:11434",
		"http://gpu1":              "http://gpu1",
		"https://gpu1/ollama/":     "https://gpu1/ollama",
		"http://gpu1:11434/v1":     "http://gpu1:11434",
		"http://gpu1/api/generate": "http://gpu1",
		"ollama.com":               "https://ollama.com",
	} {
		if got, err := ollama.BaseURL(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

func BenchmarkAsk(b *testing.B) {
	body := `{"model":"tiny:latest","created_at":"2026-02-26T10:00:00Z","message":{"role":"assistant","content":"` + strings.Repeat("word ", 40) +
		`"},"done":true,"done_reason":"stop","total_duration":10706818083,"load_duration":6338219291,"prompt_eval_count":26,"prompt_eval_duration":130079000,"eval_count":259,"eval_duration":4232710000}`
	hc := &http.Client{Transport: instant(body)}
	s, err := ollama.Open(b.Context(), "http://stub", hc)
	if err != nil {
		b.Fatal(err)
	}
	req := llm.Request{
		Model:    llmtest.Model,
		Messages: []llm.Message{{Role: llm.System, Content: strings.Repeat("rule ", 100)}, {Role: llm.User, Content: strings.Repeat("text ", 100)}},
		Schema:   []byte(`{"type":"object","properties":{"a":{"type":"string"},"b":{"enum":["x","y"]}},"required":["a","b"]}`),
		Options:  llm.Options{Temperature: new(0.0), MaxTokens: new(100)},
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Ask(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

// instant is a transport without a network, so that only our own part counts.
type instant string

func (body instant) RoundTrip(r *http.Request) (*http.Response, error) {
	text := string(body)
	if r.Method == http.MethodGet {
		text = `{"version":"0.17.4"}`
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}
