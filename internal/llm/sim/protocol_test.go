package sim_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm/sim"
)

// stream is a streamed reply: its text, when each line came, and the last one.
type stream struct {
	text string
	at   []time.Time
	last map[string]any
}

func readStream(t *testing.T, b *bench, path, body string) stream {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://sim.test"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out stream
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		line := strings.TrimPrefix(in.Text(), "data: ")
		if line == "" || line == "[DONE]" {
			continue
		}
		out.at = append(out.at, time.Now())
		out.last = nil
		if err := json.Unmarshal([]byte(line), &out.last); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		var r struct {
			Response string
			Message  struct{ Content string }
			Choices  []struct{ Delta struct{ Content string } }
		}
		_ = json.Unmarshal([]byte(line), &r)
		out.text += r.Response + r.Message.Content
		for _, c := range r.Choices {
			out.text += c.Delta.Content
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// shape turns a JSON value into the types of its parts, so that two values
// can be compared by form.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for k, x := range v {
			m[k] = shape(x)
		}
		return m
	case []any:
		if len(v) == 0 {
			return []any{}
		}
		return []any{shape(v[0])}
	default:
		return fmt.Sprintf("%T", v)
	}
}

// missing returns what of the documented shape a reply lacks.
func missing(path string, want, got any) []string {
	switch want := want.(type) {
	case map[string]any:
		have, ok := got.(map[string]any)
		if !ok {
			return []string{path + ": not an object"}
		}
		var out []string
		for k, v := range want {
			g, ok := have[k]
			if !ok {
				out = append(out, path+"."+k+" is missing")
				continue
			}
			out = append(out, missing(path+"."+k, v, g)...)
		}
		return out
	case []any:
		have, ok := got.([]any)
		if !ok || len(want) > 0 && len(have) == 0 {
			return []string{path + ": no list, or an empty one"}
		}
		if len(want) > 0 {
			return missing(path+"[0]", want[0], have[0])
		}
		return nil
	default:
		if want != got {
			return []string{fmt.Sprintf("%s: %v, documented as %v", path, got, want)}
		}
		return nil
	}
}

// documented reads api.md of Ollama: the example reply that follows a heading
// or text, by its place after it.
func documented(t *testing.T, after string, nth int) any {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	path := ""
	for path == "" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			path = filepath.Join(dir, "..", "shared", "data", "models", "ollama-docs", "api.md")
		} else if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Skip("the shared reference data is absent")
	}
	_, rest, ok := strings.Cut(string(text), "\n"+after+"\n")
	if !ok {
		t.Fatalf("api.md has no %q", after)
	}
	for ; ; nth-- {
		_, rest, ok = strings.Cut(rest, "```json\n")
		if !ok {
			t.Fatalf("api.md has no such example after %q", after)
		}
		block, _, _ := strings.Cut(rest, "```")
		if nth == 0 {
			var v any
			if err := json.Unmarshal([]byte(block), &v); err != nil {
				t.Fatalf("example after %q: %v", after, err)
			}
			return v
		}
	}
}

// Every field of the documented replies is there, with the documented type.
// Left out: the deprecated "context", the images, llama3.2's own model_info.
func TestRepliesHaveTheDocumentedShape(t *testing.T) {
	generate := `{"model":"llama3.1:8b","prompt":"Why is the sky blue?","stream":false}`
	chat := `{"model":"llama3.1:8b","messages":[{"role":"user","content":"Why is the sky blue?"}],"stream":false}`
	streamed := func(s string) string { return strings.Replace(s, `,"stream":false`, "", 1) }
	for _, c := range []struct {
		after              string
		nth                int
		method, path, body string
		line               int // of a stream: 0 the first, 1 the last; -1: no stream
		leave              []string
	}{
		{"#### Generate request (Streaming)", 0, "POST", "/api/generate", streamed(generate), 0, nil},
		{"#### Generate request (Streaming)", 1, "POST", "/api/generate", streamed(generate), 1, []string{"context"}},
		{"#### Request (No streaming)", 0, "POST", "/api/generate", generate, -1, []string{"context"}},
		{"#### Request (Structured outputs)", 0, "POST", "/api/generate", generate, -1, []string{"context"}},
		{"#### Request (Raw Mode)", 0, "POST", "/api/generate", generate, -1, nil},
		{"#### Load a model", 0, "POST", "/api/generate", `{"model":"llama3.1:8b"}`, -1, nil},
		{"#### Unload a model", 0, "POST", "/api/generate", `{"model":"llama3.1:8b","keep_alive":0}`, -1, nil},
		{"#### Chat request (Streaming)", 0, "POST", "/api/chat", streamed(chat), 0, []string{"images"}},
		{"#### Chat request (Streaming)", 1, "POST", "/api/chat", streamed(chat), 1, nil},
		{"#### Chat request (No streaming)", 0, "POST", "/api/chat", chat, -1, nil},
		{"#### Chat request (Structured outputs)", 0, "POST", "/api/chat", chat, -1, nil},
		{"If the messages array is empty, the model will be loaded into memory.", 0, "POST", "/api/chat", `{"model":"llama3.1:8b","messages":[]}`, -1, nil},
		{"If the messages array is empty and the `keep_alive` parameter is set to `0`, a model will be unloaded from memory.", 0, "POST", "/api/chat", `{"model":"llama3.1:8b","messages":[],"keep_alive":0}`, -1, nil},
		{"## List Local Models", 0, "GET", "/api/tags", "", -1, nil},
		{"## List Running Models", 0, "GET", "/api/ps", "", -1, nil},
		{"## Version", 0, "GET", "/api/version", "", -1, nil},
	} {
		t.Run(fmt.Sprintf("%s %d", c.after, c.nth), func(t *testing.T) {
			want := documented(t, c.after, c.nth).(map[string]any)
			for _, k := range c.leave {
				delete(want, k)
				if m, ok := want["message"].(map[string]any); ok {
					delete(m, k)
				}
			}
			b := start(profile(t, "h100").WithSpeed(1e4))
			if strings.Contains(c.path, "ps") {
				b.ask(t.Context(), "load the model", "")
			}
			var got map[string]any
			if c.line >= 0 {
				lines := strings.Split(strings.TrimSpace(string(b.do(t.Context(), c.method, c.path, c.body).body)), "\n")
				line := lines[0]
				if c.line == 1 {
					line = lines[len(lines)-1]
				}
				_ = json.Unmarshal([]byte(line), &got)
			} else {
				_ = json.Unmarshal(b.do(t.Context(), c.method, c.path, c.body).body, &got)
			}
			if lacks := missing("", shape(want), shape(got)); len(lacks) > 0 {
				t.Errorf("%v\nreply: %v", lacks, got)
			}
		})
	}
}

func TestShow(t *testing.T) {
	b := start(profile(t, "instant"))
	var got map[string]any
	_ = json.Unmarshal(b.do(t.Context(), "POST", "/api/show", `{"model":"llama3.1:8b"}`).body, &got)
	info := got["model_info"].(map[string]any)
	if info["general.architecture"] != "llama" || info["llama.block_count"] != 32.0 {
		t.Errorf("model_info %v", info)
	}
	if diff := cmp.Diff([]any{"completion"}, got["capabilities"]); diff != "" {
		t.Error(diff)
	}
}

// Errors in Ollama's own words and with its statuses (server/routes.go and
// runner/llamarunner/runner.go of 0.17.4).
func TestOllamaErrors(t *testing.T) {
	b := start(profile(t, "instant").WithContext(100))
	long := strings.Repeat("many words ", 200)
	for _, c := range []struct {
		path, body string
		status     int
		message    string
	}{
		{"/api/generate", `{"model":"nope","prompt":"x"}`, 404, "model 'nope' not found"},
		{"/api/chat", `{"model":"nope","messages":[]}`, 404, "model 'nope' not found"},
		{"/api/chat", `{"messages":[]}`, 400, "model is required"},
		{"/api/show", `{"model":"nope"}`, 404, "model 'nope' not found"},
		{"/api/show", `{}`, 400, "model is required"},
		{"/api/chat", ``, 400, "missing request body"},
		{"/api/generate", `{"model":"llama3.1:8b","truncate":false,"prompt":"` + long + `"}`, 400, "the input length exceeds the context length"},
		{"/api/chat", `{"model":"llama3.1:8b","truncate":false,"messages":[{"role":"user","content":"` + long + `"}]}`, 400, "the input length exceeds the context length"},
		{"/api/generate", `{"model":"llama3.1:8b","prompt":"x","format":"xml"}`, 500, `invalid format: "\"xml\""; expected "json" or a valid JSON Schema object`},
		{"/api/generate", `{"model":"llama3.1:8b","prompt":"x","format":{"$ref":"#/$defs/none"}}`, 500, "invalid JSON schema in format"},
	} {
		r := b.do(t.Context(), "POST", c.path, c.body)
		if r.status != c.status || r.Error != c.message {
			t.Errorf("%s %.60s: %d %v, want %d %q", c.path, c.body, r.status, r.Error, c.status, c.message)
		}
	}
	for _, body := range []string{`{"model":"llama3.1:8b","prompt":7}`, `{"model":`, `{"model":"llama3.1:8b","prompt":"x","keep_alive":"soon"}`} {
		if r := b.do(t.Context(), "POST", "/api/generate", body); r.status != 400 || r.Error == nil {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	if r := b.ask(t.Context(), long, ""); r.status != 200 {
		t.Errorf("a long prompt that may be cut: %d %s", r.status, r.body)
	}
	if r := b.do(t.Context(), "GET", "/", ""); string(r.body) != "Ollama is running" {
		t.Errorf("GET /: %s", r.body)
	}
	if r := b.do(t.Context(), "GET", "/api/nothing", ""); r.status != 404 {
		t.Errorf("unknown path: %d", r.status)
	}
}

func TestLimitCutsTheAnswer(t *testing.T) {
	p := fixedLength(profile(t, "instant"), 50)
	b := start(p)
	whole := b.ask(t.Context(), "Tell me about water and stones in rivers", "")
	cut := b.ask(t.Context(), "Tell me about water and stones in rivers", `,"options":{"num_predict":7,"seed":1}`)
	if whole.EvalN != 50 || whole.Reason != "stop" || len(whole.Response) != 200 {
		t.Errorf("%d tokens, %q, %d bytes", whole.EvalN, whole.Reason, len(whole.Response))
	}
	if cut.EvalN != 7 || cut.Reason != "length" || len(cut.Response) > 28 {
		t.Errorf("%d tokens, %q, %d bytes", cut.EvalN, cut.Reason, len(cut.Response))
	}
	stop := b.ask(t.Context(), "Tell me about water and stones in rivers", `,"options":{"stop":["."],"seed":1}`)
	if strings.Contains(stop.Response, ".") || stop.Reason != "stop" {
		t.Errorf("stopped at a full stop: %q", stop.Response)
	}
}

func TestOpenAI(t *testing.T) {
	p := fixedLength(profile(t, "h100").WithSpeed(1e4), 30)
	p.OpenAIOnly = true
	b := start(p)
	if r := b.do(t.Context(), "GET", "/api/version", ""); r.status != 404 {
		t.Errorf("Ollama's API is there: %d", r.status)
	}
	models := b.do(t.Context(), "GET", "/v1/models", "")
	if len(models.Data) != 1 || models.Data[0]["id"] != "llama3.1:8b" {
		t.Errorf("models: %s", models.body)
	}
	const messages = `"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"Why is the sky blue?"}]}]`
	plain := b.do(t.Context(), "POST", "/v1/chat/completions", `{"model":"llama3.1:8b","seed":1,`+messages+`}`)
	if plain.status != 200 || len(plain.Choices) != 1 || plain.Choices[0].Finish != "stop" {
		t.Fatalf("reply %d %s", plain.status, plain.body)
	}
	if u := plain.Usage; u.Completion != 30 || u.Prompt < 8 || u.Total != u.Prompt+30 {
		t.Errorf("usage %+v", u)
	}
	again := b.do(t.Context(), "POST", "/v1/chat/completions", `{"model":"llama3.1:8b","seed":1,`+messages+`}`)
	if again.Usage.Details.Cached == 0 || again.Choices[0].Message.Content != plain.Choices[0].Message.Content {
		t.Errorf("again: %s", again.body)
	}
	got := readStream(t, b, "/v1/chat/completions", `{"model":"llama3.1:8b","seed":1,"stream":true,"stream_options":{"include_usage":true},`+messages+`}`)
	if got.text != plain.Choices[0].Message.Content {
		t.Errorf("streamed %q", got.text)
	}
	if u, ok := got.last["usage"].(map[string]any); !ok || u["completion_tokens"] != 30.0 {
		t.Errorf("last event %v", got.last)
	}
	short := b.do(t.Context(), "POST", "/v1/chat/completions", `{"model":"llama3.1:8b","max_tokens":3,`+messages+`}`)
	if short.Choices[0].Finish != "length" || short.Usage.Completion != 3 {
		t.Errorf("cut: %s", short.body)
	}
	for _, format := range []string{
		`{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}}}`,
		`{"type":"json_object","schema":{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}}`,
		`{"type":"json_object"}`,
	} {
		r := b.do(t.Context(), "POST", "/v1/chat/completions", `{"model":"llama3.1:8b","response_format":`+format+`,`+messages+`}`)
		var v map[string]any
		if err := json.Unmarshal([]byte(r.Choices[0].Message.Content), &v); err != nil {
			t.Errorf("%s: %v in %s", format, err, r.body)
		}
		if _, ok := v["n"].(float64); strings.Contains(format, "schema") && !ok {
			t.Errorf("%s: %v", format, v)
		}
	}
	for body, want := range map[string]string{
		`{"model":"nope","messages":[]}`:        "not_found_error",
		`{"model":"llama3.1:8b","messages":[]}`: "invalid_request_error",
		`{"model":"llama3.1:8b","messages":[{"role":"user","content":"` + strings.Repeat("word ", 20000) + `"}]}`: "invalid_request_error",
	} {
		r := b.do(t.Context(), "POST", "/v1/chat/completions", body)
		e, _ := r.Error.(map[string]any)
		if e["type"] != want || e["message"] == "" {
			t.Errorf("%.60s: %d %s", body, r.status, r.body)
		}
	}
}

// Over a real socket the same bytes come, streamed and not, and a broken
// connection is one.
func TestOverHTTP(t *testing.T) {
	p := fixedLength(profile(t, "h100").WithSpeed(1e4), 20)
	s := sim.New(p)
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	local := start(p)
	for _, body := range []string{
		`{"model":"llama3.1:8b","prompt":"Why is the sky blue?","options":{"seed":1}}`,
		`{"model":"llama3.1:8b","prompt":"Why is the sky blue?","options":{"seed":1},"stream":false}`,
	} {
		far := (&bench{s, &http.Client{Transport: rewrite{server.URL}}}).do(t.Context(), "POST", "/api/generate", body)
		near := local.do(t.Context(), "POST", "/api/generate", body)
		if far.err != nil || far.status != near.status || far.header.Get("Content-Type") != near.header.Get("Content-Type") {
			t.Errorf("far %d %v %v, near %d %v", far.status, far.err, far.header, near.status, near.header)
		}
		if n, m := strings.Count(string(far.body), "\n"), strings.Count(string(near.body), "\n"); n != m {
			t.Errorf("far %d lines, near %d", n, m)
		}
	}
	for _, ills := range []sim.Ills{{ResetRate: 1}, {TruncateRate: 1}} {
		sick := httptest.NewServer(sim.New(p.WithIlls(ills)).Handler())
		r := (&bench{s, &http.Client{Transport: rewrite{sick.URL}}}).do(t.Context(), "POST", "/api/generate", `{"model":"llama3.1:8b","prompt":"x","stream":false}`)
		if r.err == nil {
			t.Errorf("%+v: whole reply %s", ills, r.body)
		}
		sick.Close()
	}
}

// rewrite sends requests to another host, on a connection of their own.
type rewrite struct{ url string }

func (r rewrite) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Host = strings.TrimPrefix(r.url, "http://")
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
}
