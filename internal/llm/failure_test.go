package llm_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"millrace/internal/llm"
)

func TestErrorFrom(t *testing.T) {
	openAI := func(message, kind string) string {
		return `{"error":{"message":"` + message + `","type":"` + kind + `","param":null,"code":null}}`
	}
	for _, tt := range []struct {
		name    string
		status  int
		body    string
		kind    llm.ErrorKind
		message string // what the message has to hold
	}{
		// Ollama, as in 0.17.4 (server/routes.go, llm/server.go).
		{"ollama unknown model", 404, `{"error":"model 'x' not found"}`, llm.NoModel, "model 'x' not found"},
		{"ollama unknown path", 404, `404 page not found`, llm.Refused, "404 page not found"},
		{"ollama busy", 503, `{"error":"server busy, please try again.  maximum pending requests exceeded"}`, llm.Busy, "server busy, please try again. maximum"},
		{"ollama no slot", 500, `{"error":"unexpected server status: llm busy - no slots available"}`, llm.Busy, "no slots"},
		{"ollama loading", 500, `{"error":"unexpected server status: llm server loading model"}`, llm.Loading, "loading model"},
		{"ollama cannot load", 500, `{"error":"error loading model: out of memory"}`, llm.Failed, "out of memory"},
		{"ollama too long", 400, `{"error":"the input length exceeds the context length"}`, llm.TooLong, "exceeds"},
		{"ollama schema", 500, `{"error":"invalid JSON schema in format"}`, llm.BadSchema, "invalid JSON schema"},
		{"ollama format", 500, `{"error":"invalid format: \"xml\"; expected \"json\" or a valid JSON Schema object"}`, llm.BadSchema, "invalid format"},
		{"ollama option", 500, `{"error":"option \"num_predict\" must be of type integer"}`, llm.Refused, "num_predict"},
		{"ollama thinking", 400, `{"error":"\"tiny\" does not support thinking"}`, llm.Refused, "does not support thinking"},
		{"ollama runner died", 500, `{"error":"model runner has unexpectedly stopped"}`, llm.Failed, "unexpectedly"},
		{"ollama lost us", 499, `{"error":"request canceled"}`, llm.Unreachable, "request canceled"},
		{"ollama quotes llama-server", 400, `{"error":"{\"error\":{\"code\":400,\"message\":\"request (9412 tokens) exceeds the available context size (8192 tokens), try increasing it\",\"type\":\"exceed_context_size_error\"}}"}`, llm.TooLong, "request (9412 tokens)"},
		// llama-server
		{"llama-server loading", 503, `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`, llm.Loading, "Loading model"},
		{"llama-server too long", 400, `{"error":{"code":400,"message":"too big","type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":4}}`, llm.TooLong, "too big"},
		{"llama-server grammar", 400, `{"error":{"code":400,"message":"failed to parse grammar","type":"invalid_request_error"}}`, llm.BadSchema, "grammar"},
		{"llama-server schema", 400, openAI(`JSON schema conversion failed:\nUnsupported ref`, "invalid_request_error"), llm.BadSchema, "failed: Unsupported ref"},
		// vLLM
		{"vllm unknown model", 404, openAI("The model `x` does not exist.", "NotFoundError"), llm.NoModel, "does not exist"},
		{"vllm unknown model, older", 404, `{"object":"error","message":"The model x does not exist.","type":"NotFoundError","code":404}`, llm.NoModel, "does not exist"},
		{"vllm unknown path", 404, `{"detail":"Not Found"}`, llm.Refused, "Not Found"},
		{"vllm too long", 400, openAI("This model's maximum context length is 8192 tokens. However, you requested 9000 tokens", "BadRequestError"), llm.TooLong, "8192"},
		{"vllm schema", 400, openAI("The provided JSON schema contains features not supported by xgrammar.", "BadRequestError"), llm.BadSchema, "xgrammar"},
		{"fastapi list", 422, `{"detail":[{"loc":["body"],"msg":"field required","input":"PRIVATE"},{"msg":"too short"}]}`, llm.Refused, "field required; too short"},
		// LM Studio, OpenAI
		{"lm studio no model", 404, `{"error":"No models loaded. Please load a model in the developer page"}`, llm.NoModel, "No models loaded"},
		{"lm studio too long", 400, `{"error":"Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens"}`, llm.TooLong, "4096"},
		{"openai too long", 400, `{"error":{"message":"m","type":"invalid_request_error","code":"context_length_exceeded"}}`, llm.TooLong, "m"},
		{"openai unknown model", 404, `{"error":{"message":"m","code":"model_not_found"}}`, llm.NoModel, "m"},
		{"openai schema", 400, openAI("Invalid schema for response_format 'answer'", "invalid_request_error"), llm.BadSchema, "Invalid schema"},
		{"openai rate", 429, openAI("Rate limit reached", "requests"), llm.Busy, "Rate limit"},
		{"openai quota", 429, openAI("You exceeded your current quota", "insufficient_quota"), llm.Refused, "quota"},
		{"openai key", 401, openAI("Incorrect API key", "invalid_request_error"), llm.Refused, "Incorrect"},
		// what stands between
		{"proxy page", 502, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center><hr>nginx</body></html>", llm.Failed, "502 Bad Gateway"},
		{"proxy page without a title", 503, "<!DOCTYPE html><head><style>p {color: red}</style></head><BODY><script>var x = '<p>';</script><h1>Service&nbsp;down</h1><p>Come &amp; try</BODY>", llm.Busy, "Service down Come & try"},
		{"proxy page that is broken", 500, "<html><script>never ends", llm.Failed, "Internal Server Error"},
		{"proxy is too slow", 504, "", llm.Timeout, "Gateway Timeout"},
		{"proxy is too slow, 408", 408, "", llm.Timeout, "Request Timeout"},
		{"too early", 425, "", llm.Busy, "Too Early"},
		{"too large", 413, "", llm.Refused, "Too Large"},
		{"plain text", 500, "boom\n\n\tbang\x1b[31m\x00!", llm.Failed, "boom bang [31m !"},
		{"not UTF-8", 500, "bo\xffom", llm.Failed, "bo\ufffdom"},
		{"broken JSON", 500, `{"error":`, llm.Failed, "Internal Server Error"},
		{"JSON of something else", 400, `{"a":1}`, llm.Refused, "Bad Request"},
		{"nothing known", 599, "", llm.Failed, "no reason"},
		{"in a stream", 0, `{"error":"an error was encountered while running the model"}`, llm.Failed, "while running"},
		{"code as a number, message as an object", 400, `{"error":{"message":{"a":1},"code":7}}`, llm.Refused, "Bad Request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := llm.ErrorFrom(tt.status, nil, []byte(tt.body), nil)
			if e.Kind != tt.kind || e.Status != tt.status || !strings.Contains(e.Message, tt.message) {
				t.Errorf("got %s, %d, %q; want %s, %q", e.Kind, e.Status, e.Message, tt.kind, tt.message)
			}
			if strings.Contains(e.Message, "PRIVATE") || strings.ContainsAny(e.Message, "<\n\x00\x1b") {
				t.Errorf("message %q holds what it should not", e.Message)
			}
		})
	}
}

func TestErrorFromHidesTheRequest(t *testing.T) {
	private := []llm.Message{{Role: llm.User, Content: "Jo Doe, born 1999, failed maths"}, {Role: llm.User, Content: "short"}}
	for _, body := range []string{
		`{"error":"cannot answer 'Jo Doe, born 1999, failed maths', it is short"}`,
		`{"error":{"message":"1 validation error [type=str, input_value='Jo Doe, born 1999', input_type=str]"}}`,
		`{"error":{"message":"[{'type': 'x', 'msg': 'bad', 'input': 'Jo Doe'}]"}}`,
	} {
		e := llm.ErrorFrom(400, nil, []byte(body), private)
		if strings.Contains(e.Error(), "Jo Doe") || e.Message == "" {
			t.Errorf("%s gave %q", body, e)
		}
	}
	long := llm.ErrorFrom(500, nil, []byte(strings.Repeat("word ", 1000)), nil)
	if len(long.Message) > 300 || !strings.HasSuffix(long.Message, "…") {
		t.Errorf("a long message is %d bytes: %q", len(long.Message), long.Message)
	}
}

func TestErrorFromHeaders(t *testing.T) {
	e := llm.ErrorFrom(http.StatusTooManyRequests, http.Header{"Retry-After": {"7"}}, nil, nil)
	if e.RetryAfter != 7*time.Second || e.Kind != llm.Busy {
		t.Errorf("got %s, %v", e.Kind, e.RetryAfter)
	}
	e = llm.ErrorFrom(http.StatusMovedPermanently, http.Header{"Location": {"https://me:secret@other.test/"}}, nil, nil)
	if e.Kind != llm.Refused || !strings.Contains(e.Message, "https://other.test/") || strings.Contains(e.Message, "secret") {
		t.Errorf("got %v", e)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"3":                             3 * time.Second,
		" 0.5 ":                         500 * time.Millisecond,
		"-1":                            0,
		"soon":                          0,
		"NaN":                           0,
		"1e300":                         0,
		"Sun, 01 Mar 2026 12:01:00 GMT": time.Minute,
		"Sun, 01 Mar 2026 11:00:00 GMT": 0,
	} {
		if got := llm.RetryAfter(value, now); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
}

func TestNotProtocol(t *testing.T) {
	for body, want := range map[string]string{
		"": "empty",
		" <html><head><title>Sign in</title></head></html>": "web page came instead of a reply: Sign in",
		`{"message":"Jo Doe`: "reply of 18 bytes is not what ollama sends",
	} {
		e := llm.NotProtocol(llm.Ollama, []byte(body), nil)
		if e.Kind != llm.Garbled || !strings.Contains(e.Error(), want) || strings.Contains(e.Error(), "Jo Doe") {
			t.Errorf("%q gave %v", body, e)
		}
	}
}

func FuzzErrorFrom(f *testing.F) {
	for _, s := range []string{
		`{"error":"model 'x' not found"}`, `{"error":{"message":"m","type":"t","code":3}}`, `{"detail":[{"msg":"m"}]}`,
		`{"error":"{\"error\":\"{}\"}"}`, "<html><title>x</title><script>a</script>", "<head", "plain", "\xff",
	} {
		f.Add(500, s)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		e := llm.ErrorFrom(status, nil, []byte(body), nil)
		if e.Message == "" || e.Kind == "" || len([]rune(e.Message)) > 500 || strings.ContainsAny(e.Message, "\n\r\x00\x1b") {
			t.Fatalf("status %d, %q: kind %q, message %q", status, body, e.Kind, e.Message)
		}
	})
}
