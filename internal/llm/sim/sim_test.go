package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"millrace/internal/llm/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func profile(t testing.TB, name string) sim.Profile {
	t.Helper()
	p, err := sim.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// bench is a server with a client that reaches it.
type bench struct {
	*sim.Server
	client *http.Client
}

func start(p sim.Profile) *bench {
	s := sim.New(p)
	return &bench{s, &http.Client{Transport: sim.Transport(s.Handler())}}
}

// reply is any reply of the server.
type reply struct {
	status int
	header http.Header
	body   []byte
	err    error // of the request, or of reading its body

	Response string
	Message  struct{ Role, Content string }
	Done     bool
	Reason   string `json:"done_reason"`
	Total    int64  `json:"total_duration"`
	Load     int64  `json:"load_duration"`
	PromptN  int    `json:"prompt_eval_count"`
	PromptD  int64  `json:"prompt_eval_duration"`
	EvalN    int    `json:"eval_count"`
	EvalD    int64  `json:"eval_duration"`
	Error    any
	Models   []map[string]any
	Data     []map[string]any
	Choices  []struct {
		Message struct{ Content string }
		Finish  string `json:"finish_reason"`
	}
	Usage struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
		Details    struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	}
	Simulated string
}

func (b *bench) do(ctx context.Context, method, path, body string) *reply {
	var r reply
	req, err := http.NewRequestWithContext(ctx, method, "http://sim.test"+path, strings.NewReader(body))
	if err != nil {
		r.err = err
		return &r
	}
	resp, err := b.client.Do(req)
	if err != nil {
		r.err = err
		return &r
	}
	defer resp.Body.Close()
	r.status, r.header = resp.StatusCode, resp.Header
	r.body, r.err = io.ReadAll(resp.Body)
	_ = json.Unmarshal(r.body, &r) // a stream or a garbled reply is judged by its bytes
	return &r
}

// ask posts to /api/generate, not streaming. more is further JSON fields.
func (b *bench) ask(ctx context.Context, prompt, more string) *reply {
	return b.do(ctx, "POST", "/api/generate", generateBody(prompt, more))
}

// unique returns a prompt of n tokens that shares no prefix with another i.
func unique(i, n int) string {
	s := fmt.Sprintf("%d is the number of this question. ", i)
	return (s + strings.Repeat("word and word ", n))[:4*n-len("user\n")]
}

func TestProfiles(t *testing.T) {
	want := []string{"a10g", "h100", "instant", "rtx4060-laptop", "rtx4060-laptop-battery", "rtx4090", "t4"}
	var got []string
	for _, p := range sim.Profiles() {
		got = append(got, p.Name)
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if p.Note == "" || p.Model.Digest == "" {
			t.Errorf("%s: no note or no digest", p.Name)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("profiles %v, want %v", got, want)
	}
	if _, err := sim.Find("rtx9090"); err == nil || !strings.Contains(err.Error(), "rtx4090") {
		t.Errorf("unknown profile: %v", err)
	}
	bad := profile(t, "t4").WithSlots(0).WithSpeed(-1).WithIlls(sim.Ills{BusyRate: 2, Throttle: &sim.Throttle{}})
	err := bad.Validate()
	for _, word := range []string{"slots", "speed", "busy", "throttle"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("a bad profile passes %s: %v", word, err)
		}
	}
}

func TestEveryReplyIsMarked(t *testing.T) {
	b := start(profile(t, "instant"))
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/api/version", ""},
		{"GET", "/api/tags", ""},
		{"GET", "/api/ps", ""},
		{"POST", "/api/show", `{"model":"llama3.1:8b"}`},
		{"POST", "/api/show", `{"model":"nope"}`},
		{"POST", "/api/generate", `{"model":"llama3.1:8b","prompt":"Hello there","stream":false}`},
		{"POST", "/api/generate", `{"model":"llama3.1:8b"}`},
		{"POST", "/api/generate", ``},
		{"POST", "/api/chat", `{"model":"llama3.1:8b","messages":[{"role":"user","content":"Hello"}],"stream":false}`},
		{"POST", "/api/chat", `{"model":"nope"}`},
		{"GET", "/v1/models", ""},
		{"POST", "/v1/chat/completions", `{"model":"llama3.1:8b","messages":[{"role":"user","content":"Hello"}]}`},
		{"POST", "/v1/chat/completions", `{"model":"nope","messages":[]}`},
	} {
		r := b.do(t.Context(), c.method, c.path, c.body)
		if r.err != nil || r.header.Get(sim.Header) != "instant" || r.Simulated != "instant" {
			t.Errorf("%s %s %s: err %v, header %q, body %s", c.method, c.path, c.body, r.err, r.header.Get(sim.Header), r.body)
		}
	}
	for _, path := range []string{"/api/chat", "/v1/chat/completions"} {
		r := b.do(t.Context(), "POST", path, `{"model":"llama3.1:8b","stream":true,"messages":[{"role":"user","content":"Hello"}]}`)
		for line := range bytes.Lines(r.body) {
			if len(bytes.TrimSpace(line)) > 0 && !bytes.Contains(line, []byte(`"simulated":"instant"`)) && !bytes.Contains(line, []byte("[DONE]")) {
				t.Errorf("%s: line without the mark: %s", path, line)
			}
		}
	}
	if got := b.do(t.Context(), "GET", "/api/version", ""); !bytes.Contains(got.body, []byte("simulated")) {
		t.Errorf("version: %s", got.body)
	}
}
