package openai_test

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
	"millrace/internal/llm/openai"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, url string) *openai.Server {
	t.Helper()
	s, err := tryOpen(t, url, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpen(t *testing.T, url, key string) (*openai.Server, error) {
	t.Helper()
	hc := llm.NewHTTPClient(16)
	t.Cleanup(hc.CloseIdleConnections)
	return openai.Open(t.Context(), url, hc, key)
}

func kinds() []llm.Kind { return []llm.Kind{llm.LlamaServer, llm.VLLM, llm.LMStudio, llm.OpenAI} }

func TestConformance(t *testing.T) {
	slow := llm.Request{Model: llmtest.Model, Messages: []llm.Message{{Role: llm.User, Content: "slow"}}}
	tooLong := llm.Request{Model: llmtest.Model, Messages: []llm.Message{{Role: llm.User, Content: "too long"}}}
	for _, kind := range kinds() {
		t.Run(string(kind), func(t *testing.T) {
			url := llmtest.NewOpenAI(t, kind, script)
			llmtest.Exercise(t, func(t *testing.T) llm.Server { return open(t, url) }, llmtest.Traits{
				Model: llmtest.Model, Slow: &slow, TooLong: &tooLong,
				AnyModel: kind == llm.LlamaServer, // it has the one and does not look at the name
			})
		})
	}
}

// script answers what the suite asks.
func script(req llm.Request) llmtest.Response {
	last := req.Messages[len(req.Messages)-1].Content
	switch {
	case last == "slow":
		return llmtest.Response{Delay: time.Hour}
	case last == "too long":
		return llmtest.Response{Status: http.StatusBadRequest, Text: "request (9412 tokens) exceeds the available context size (8192 tokens), try increasing it"}
	case req.Schema != nil:
		return llmtest.Response{Text: `{"alpha": "small", "beta": "fixed", "gamma": [true, false], "omega": null}`}
	}
	return llmtest.Response{Text: "Blue, or green, or grün.", Thinking: "Hm."}
}

func TestRequest(t *testing.T) {
	all := llm.Request{
		Model:    llmtest.Model,
		Messages: []llm.Message{{Role: llm.User, Content: "Say \"x\""}},
		Schema:   []byte(`{"type":"object","properties":{"b":{"$ref":"#/$defs/x"}},"$defs":{"x":{"const":1,"title":"t"}}}`),
		Options: llm.Options{
			Temperature: new(0.5), TopP: new(0.9), TopK: new(40), MinP: new(0.05), RepeatPenalty: new(1.1),
			Seed: new(int64(7)), MaxTokens: new(200), NumCtx: new(8192), Think: new(true), Stop: []string{"END", "\n"},
		},
	}
	const (
		start   = `{"model":"tiny:latest","messages":[{"role":"user","content":"Say \"x\""}],"stream":false,"response_format":{"type":"json_schema","json_schema":{"name":"answer",`
		grammar = `"strict":true,"schema":{"type":"object","properties":{"b":{"enum":[1]}},"additionalProperties":false}}},`
		options = `"temperature":0.5,"top_p":0.9,"max_tokens":200,"seed":7,"stop":["END","\n"]`
		think   = `,"chat_template_kwargs":{"enable_thinking":true}}`
	)
	for kind, want := range map[llm.Kind]string{
		llm.LlamaServer: start + grammar + options + `,"top_k":40,"min_p":0.05,"repeat_penalty":1.1` + think,
		llm.VLLM:        start + grammar + options + `,"top_k":40,"min_p":0.05,"repetition_penalty":1.1` + think,
		llm.LMStudio:    start + grammar + options + `,"top_k":40,"repeat_penalty":1.1}`,
		llm.OpenAI:      start + `"schema":{"type":"object","properties":{"b":{"const":1,"title":"t"}}}}},` + options + `}`,
	} {
		t.Run(string(kind), func(t *testing.T) {
			fake := llmtest.New(t, llmtest.Config{Kind: kind})
			s := open(t, fake.URL)
			if _, err := s.Ask(t.Context(), all); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Stream(t.Context(), all, func(string) error { return nil }); err != nil {
				t.Fatal(err)
			}
			streamed := strings.Replace(want, `"stream":false`, `"stream":true,"stream_options":{"include_usage":true}`, 1)
			if diff := cmp.Diff([]string{want, streamed}, fake.Bodies()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if _, err := s.Ask(t.Context(), llm.Request{Model: llmtest.Model}); err != nil {
				t.Fatal(err)
			}
			if got := fake.Bodies()[2]; got != `{"model":"tiny:latest","messages":[],"stream":false}` {
				t.Errorf("nothing set: %s", got)
			}
		})
	}
}

func TestReply(t *testing.T) {
	whole := llmtest.Response{
		Text: "Deep blue.", Thinking: "The sky?", PromptTokens: 12, CachedTokens: 4, CompletionTokens: 5,
		Prefill: 3 * time.Millisecond, Decode: 1500 * time.Microsecond,
	}
	told := llm.Reply{
		Text: "Deep blue.", Thinking: "The sky?", Finish: llm.FinishStop, Model: llmtest.Model,
		PromptTokens: new(12), CachedTokens: new(4), CompletionTokens: new(5),
	}
	timed := told
	timed.Timing = llm.Timing{Prefill: new(3 * time.Millisecond), Decode: new(1500 * time.Microsecond)}
	untold := told
	untold.CachedTokens = nil
	uncached := whole
	uncached.CachedTokens = 0
	for _, tt := range []struct {
		name string
		kind llm.Kind
		resp llmtest.Response
		want llm.Reply
	}{
		{"llama-server", llm.LlamaServer, whole, timed},
		{"vllm", llm.VLLM, whole, told},
		{"lm studio", llm.LMStudio, whole, told},
		{"cache not told", llm.VLLM, uncached, untold},
		{"length", llm.OpenAI, llmtest.Response{Text: "Deep", Finish: llm.FinishLength, PromptTokens: 1, CompletionTokens: 1}, llm.Reply{
			Text: "Deep", Finish: llm.FinishLength, Model: llmtest.Model, PromptTokens: new(1), CompletionTokens: new(1),
		}},
		{"filtered", llm.OpenAI, llmtest.Response{Finish: "content_filter", PromptTokens: 1, CompletionTokens: 1}, llm.Reply{
			Finish: llm.FinishOther, Model: llmtest.Model, PromptTokens: new(1), CompletionTokens: new(1),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, llmtest.NewOpenAI(t, tt.kind, func(llm.Request) llmtest.Response { return tt.resp }))
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

func TestReplyForms(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       llm.Reply
	}{
		{
			"bare", `{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}`,
			llm.Reply{Text: "hi", Finish: llm.FinishStop},
		},
		{
			"nulls", `{"model":"m","choices":[{"message":{"content":null,"reasoning_content":null,"refusal":null},"finish_reason":null,"logprobs":null}],"usage":null,"timings":null,"error":null}`,
			llm.Reply{Model: "m", Finish: llm.FinishOther},
		},
		{
			"parts", `{"choices":[{"message":{"content":[{"type":"thinking","thinking":"t"},{"type":"text","text":"a"},{"type":"text","text":"b"}]},"finish_reason":"stop"}]}`,
			llm.Reply{Text: "ab", Finish: llm.FinishStop},
		},
		{
			"timings without usage", `{"choices":[{"message":{"content":""},"finish_reason":"length"}],"timings":{"cache_n":236,"prompt_n":1,"prompt_ms":30.5,"predicted_n":35,"predicted_ms":-1}}`,
			llm.Reply{Finish: llm.FinishLength, PromptTokens: new(237), CachedTokens: new(236), CompletionTokens: new(35), Timing: llm.Timing{Prefill: new(30500 * time.Microsecond)}},
		},
	} {
		s := open(t, llmtest.NewOpenAI(t, llm.OpenAI, func(llm.Request) llmtest.Response { return llmtest.Response{Body: tt.body} }))
		got, err := s.Ask(t.Context(), llm.Request{Model: llmtest.Model})
		if err != nil {
			t.Fatal(err)
		}
		got.Timing.Wall = 0
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name    string
		resp    llmtest.Response
		kind    llm.ErrorKind
		message string
	}{
		{"no such model", llmtest.Response{Status: 404, Text: "The model `x` does not exist."}, llm.NoModel, "/v1/models"},
		{"loading", llmtest.Response{Status: 503, Text: "Loading model"}, llm.Loading, "Loading model"},
		{"busy", llmtest.Response{Status: 503, Text: "no slot"}, llm.Busy, "no slot"},
		{"rate", llmtest.Response{Status: 429, Text: "slow down", Header: map[string]string{"Retry-After": "2"}}, llm.Busy, "slow down"},
		{"too long", llmtest.Response{Status: 400, Text: "This model's maximum context length is 8192 tokens."}, llm.TooLong, "8192"},
		{"schema", llmtest.Response{Status: 400, Text: "failed to parse grammar"}, llm.BadSchema, "grammar"},
		{"key", llmtest.Response{Status: 401, Text: "Incorrect API key"}, llm.Refused, "wants a valid API key"},
		{"refused", llmtest.Response{Status: 400, Text: "max_tokens must be at least 1"}, llm.Refused, "max_tokens"},
		{"failed", llmtest.Response{Status: 500, Text: "EngineCore died"}, llm.Failed, "EngineCore"},
		{"proxy", llmtest.Response{Status: 502, Body: "<html><head><title>502 Bad Gateway</title></head></html>"}, llm.Failed, "502 Bad Gateway"},
		{"web page", llmtest.Response{Body: "<!doctype html><title>Welcome</title>"}, llm.Garbled, "Welcome"},
		{"not JSON", llmtest.Response{Body: "once upon a time"}, llm.Garbled, "not what vllm sends"},
		{"other JSON", llmtest.Response{Body: `{"message":{}}`}, llm.Garbled, ""},
		{"half JSON", llmtest.Response{Body: `{"model":"m","choices":[{"message":{"content":"he`}, llm.Garbled, ""},
		{"nothing", llmtest.Response{Body: "\n"}, llm.Garbled, ""},
		{"an error with status 200", llmtest.Response{Body: `{"error":{"message":"CUDA error","code":500}}`}, llm.Failed, "CUDA"},
		{"an older error with status 200", llmtest.Response{Body: `{"object":"error","message":"CUDA error","code":500}`}, llm.Failed, "CUDA"},
		{"closed before the reply", llmtest.Response{Cut: -1}, llm.Unreachable, ""},
		{"closed in the reply", llmtest.Response{Text: "some words and more", Cut: 30}, llm.Garbled, "cut short"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, llmtest.NewOpenAI(t, llm.VLLM, func(llm.Request) llmtest.Response { return tt.resp }))
			req := llm.Request{Model: llmtest.Model, Messages: []llm.Message{{Role: llm.User, Content: "secret words"}}}
			_, asked := s.Ask(t.Context(), req)
			_, streamed := s.Stream(t.Context(), req, func(string) error { return nil })
			for how, err := range map[string]error{"asked": asked, "streamed": streamed} {
				e, ok := errors.AsType[*llm.Error](err)
				want := tt.kind
				if how == "streamed" && strings.HasSuffix(tt.name, "200") {
					want = llm.Garbled // not an event: a stream of nothing
				}
				if !ok || e.Kind != want {
					t.Errorf("%s: got %v, want %s", how, err, want)
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
	bodies := map[string]string{
		"older llama-server": "data: {\"choices\":[{\"delta\":{\"content\":\"one two \"}}]}\n\nerror: {\"code\":500,\"message\":\"it broke\",\"type\":\"server_error\"}\n\n",
		"now":                "",
	}
	for name, body := range bodies {
		s := open(t, llmtest.NewOpenAI(t, llm.LlamaServer, func(req llm.Request) llmtest.Response {
			return llmtest.Response{Text: "one two three four", StreamError: "it broke", Body: body}
		}))
		var got strings.Builder
		_, err := s.Stream(t.Context(), llm.Request{Model: llmtest.Model}, func(text string) error { got.WriteString(text); return nil })
		if llm.KindOf(err) != llm.Failed || !strings.Contains(err.Error(), "it broke") {
			t.Errorf("%s: got %v", name, err)
		}
		if got.String() != "one two " {
			t.Errorf("%s: pieces before it: %q", name, got.String())
		}
	}
}

func TestModels(t *testing.T) {
	size := int64(4_000_000_000)
	one := []llm.Model{{Name: "only", Bytes: &size}}
	two := []llm.Model{{Name: "a"}, {Name: "b", Loaded: true}}
	for _, tt := range []struct {
		name string
		kind llm.Kind
		have []llm.Model
		want []llm.Model
	}{
		{"llama-server", llm.LlamaServer, one, []llm.Model{{Name: "only", Bytes: &size, Loaded: true}}},
		{"vllm", llm.VLLM, two, []llm.Model{{Name: "a", Loaded: true}, {Name: "b", Loaded: true}}},
		{"lm studio", llm.LMStudio, two, two},
		{"one of another server", llm.OpenAI, one, []llm.Model{{Name: "only", Loaded: true}}},
		{"several of another server", llm.OpenAI, two, []llm.Model{{Name: "a"}, {Name: "b"}}},
		{"none", llm.OpenAI, []llm.Model{}, []llm.Model{}},
	} {
		fake := llmtest.New(t, llmtest.Config{Kind: tt.kind, Models: tt.have})
		got, err := open(t, fake.URL).Models(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// handler serves fixed bodies by path, 404 for the rest; a body may begin with
// another status.
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

func TestModelsWithStates(t *testing.T) {
	vllm := handler(t, map[string]string{"/v1/models": `{"data":[{"id":"base","owned_by":"vllm","parent":null},{"id":"lora","owned_by":"vllm","parent":"base"}]}`})
	router := handler(t, map[string]string{"/v1/models": `{"data":[{"id":"a","owned_by":"llamacpp","status":{"value":"unloaded"}},{"id":"b","status":{"value":"loaded"}}]}`})
	odd := handler(t, map[string]string{"/v1/models": `{"data":[{"id":"a","status":"fine","meta":"x","parent":{},"owned_by":7}]}`})
	for url, want := range map[string][]llm.Model{
		vllm:   {{Name: "base", Loaded: true}, {Name: "lora"}},
		router: {{Name: "a"}, {Name: "b", Loaded: true}},
		odd:    {{Name: "a", Loaded: true}},
	} {
		got, err := open(t, url).Models(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestOpen(t *testing.T) {
	for kind, version := range map[llm.Kind]string{llm.LlamaServer: "b10488-0a1b2c3d", llm.VLLM: "0.11.0", llm.LMStudio: "", llm.OpenAI: ""} {
		fake := llmtest.New(t, llmtest.Config{Kind: kind, Simulated: "t4"})
		s := open(t, strings.Replace(fake.URL, "http://", "http://me:secret@", 1)+"/v1/chat/completions")
		if diff := cmp.Diff(llm.Info{Kind: kind, URL: fake.URL, Version: version, Simulated: "t4"}, s.Info()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		reply, err := s.Ask(t.Context(), llm.Request{Model: llmtest.Model})
		if err != nil || reply.Simulated != "t4" {
			t.Errorf("reply %+v, %v", reply, err)
		}
	}
	// A proxy took the Server header off, and an older server has no owner.
	hidden := handler(t, map[string]string{"/v1/models": `{"data":[{"id":"m"}]}`, "/props": `{"default_generation_settings":{"n_ctx":1}}`})
	if info := open(t, hidden).Info(); info.Kind != llm.LlamaServer || info.Version != "" {
		t.Errorf("llama-server behind a proxy is %+v", info)
	}

	for _, tt := range []struct {
		name, url string
		notMine   bool
		kind      llm.ErrorKind
		message   string
	}{
		{"a web server", handler(t, map[string]string{"/v1/models": "<html>"}), true, "", ""},
		{"another web server", handler(t, nil), true, "", ""},
		{"another API", handler(t, map[string]string{"/v1/models": `{"models":[]}`}), true, "", ""},
		{"a loading llama-server", handler(t, map[string]string{"/v1/models": `503 {"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`}), false, llm.Loading, "Loading"},
		{"a proxy without its server", handler(t, map[string]string{"/v1/models": `502 <title>Bad Gateway</title>`}), false, llm.Failed, "Bad Gateway"},
		{"nothing", "127.0.0.1:1", false, llm.Unreachable, "refused"},
	} {
		_, err := tryOpen(t, tt.url, "")
		if errors.Is(err, llm.ErrNotMine) != tt.notMine || llm.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	if _, err := tryOpen(t, "ftp://x", ""); err == nil {
		t.Error("an ftp address was opened")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openai.Open(ctx, hidden, nil, ""); llm.KindOf(err) != llm.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestKey(t *testing.T) {
	fake := llmtest.New(t, llmtest.Config{Kind: llm.VLLM, Key: "sk-secret"})
	for key, want := range map[string]string{"": "wants an API key", "sk-wrong": "does not accept the API key"} {
		_, err := tryOpen(t, fake.URL, key)
		if llm.KindOf(err) != llm.Refused || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sk-") {
			t.Errorf("key %q: %v", key, err)
		}
	}
	s, err := tryOpen(t, fake.URL, "sk-secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ask(t.Context(), llm.Request{Model: llmtest.Model}); err != nil {
		t.Error(err)
	}
	if strings.Contains(fmt.Sprintf("%+v", s.Info()), "sk-") {
		t.Error("Info shows the key")
	}
}

func TestBaseURL(t *testing.T) {
	for in, want := range map[string]string{
		"gpu1:8000":                            "http://gpu1:8000",
		"0.0.0.0:8080":                         "http://127.0.0.1:8080",
		"http://gpu1:8000/v1/":                 "http://gpu1:8000",
		"https://host.test/api/v1":             "https://host.test/api",
		"http://gpu1:8000/v1/chat/completions": "http://gpu1:8000",
	} {
		if got, err := openai.BaseURL(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}
