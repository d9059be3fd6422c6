package measure_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"millrace/internal/llm"
	"millrace/internal/llm/ollama"
	"millrace/internal/llm/openai"
	"millrace/internal/llm/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is a server in virtual time with ills that the simulated server has
// not. Times are those of one request alone.
type machine struct {
	info   llm.Info
	slots  chan struct{}
	fixed  time.Duration // before the prompt
	read   time.Duration // for a token of the prompt
	token  time.Duration // for a token of the answer
	load   time.Duration // in each request
	schema float64       // times longer with a schema; 0 is 1
	jitter float64       // of the time per token, by request
	limit  int           // tokens after which answers end by themselves; 0 is no limit

	silent   bool    // counts nothing and times nothing
	counts   bool    // counts tokens but times nothing
	atOnce   bool    // sends everything at the end
	skew     float64 // its clock runs that much too fast
	loading  int     // that many requests find it still loading
	refusal  map[int]llm.ErrorKind
	rejects  llm.ErrorKind // of requests with a schema
	stranger func(n int) time.Duration

	mu    sync.Mutex
	asked int
	seen  []llm.Request
}

func newMachine(slots int) *machine {
	return &machine{
		info:  llm.Info{Kind: llm.LlamaServer, Version: "b1", URL: "http://machine.test"},
		slots: make(chan struct{}, slots),
		fixed: 20 * time.Millisecond, read: 500 * time.Microsecond, token: 20 * time.Millisecond,
	}
}

func (m *machine) Info() llm.Info { return m.info }

func (m *machine) Ask(ctx context.Context, req llm.Request) (llm.Reply, error) {
	r, err := m.Stream(ctx, req, func(string) error { return nil })
	r.Timing.FirstToken, r.Timing.LastToken = nil, nil
	return r, err
}

func (m *machine) Stream(ctx context.Context, req llm.Request, piece func(string) error) (llm.Reply, error) {
	m.mu.Lock()
	n := m.asked
	m.asked++
	m.seen = append(m.seen, req)
	m.mu.Unlock()
	switch {
	case n < m.loading:
		return llm.Reply{}, &llm.Error{Kind: llm.Loading, Status: 503, Message: "Loading model"}
	case m.refusal[n] != "":
		return llm.Reply{}, &llm.Error{Kind: m.refusal[n], Message: "as the test wants it"}
	case req.Schema != nil && m.rejects != "":
		return llm.Reply{}, &llm.Error{Kind: m.rejects, Status: 400, Message: "no schema here"}
	}
	start := time.Now()
	since := func() *time.Duration { return new(time.Since(start)) }
	pause := func(d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return llm.Ended(ctx.Err())
		}
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return llm.Reply{}, llm.Ended(ctx.Err())
	}
	if m.stranger != nil {
		if err := pause(m.stranger(n)); err != nil {
			return llm.Reply{}, err
		}
	}
	if err := pause(m.load + m.fixed); err != nil {
		return llm.Reply{}, err
	}
	prompt := len(req.Messages[0].Content) / 4
	begin := time.Now()
	if err := pause(time.Duration(prompt) * m.read); err != nil {
		return llm.Reply{}, err
	}
	prefill := time.Since(begin)
	token := float64(m.token)
	if m.jitter > 0 {
		token *= 1 + m.jitter*(2*rand.New(rand.NewPCG(uint64(n), 7)).Float64()-1)
	}
	if req.Schema != nil && m.schema > 0 {
		token *= m.schema
	}
	want, finish := *req.MaxTokens, llm.FinishLength
	if m.limit > 0 && m.limit < want {
		want, finish = m.limit, llm.FinishStop
	}
	begin = time.Now()
	var first, last *time.Duration
	for range want {
		if err := pause(time.Duration(token)); err != nil {
			return llm.Reply{}, err
		}
		if m.atOnce {
			continue
		}
		if last = since(); first == nil {
			first = last
		}
		if err := piece("word "); err != nil {
			return llm.Reply{}, err
		}
	}
	decode := time.Since(begin)
	for i := 0; m.atOnce && i < want; i++ {
		if last = since(); first == nil {
			first = last
		}
		if err := piece("word "); err != nil {
			return llm.Reply{}, err
		}
	}
	r := llm.Reply{Text: strings.Repeat("word ", want), Finish: finish, Model: req.Model}
	r.Timing = llm.Timing{Wall: time.Since(start), FirstToken: first, LastToken: last}
	if m.silent {
		return r, nil
	}
	r.PromptTokens, r.CompletionTokens = &prompt, &want
	if m.counts {
		return r, nil
	}
	fast := func(d time.Duration) *time.Duration { return new(time.Duration(float64(d) * (1 + m.skew))) }
	r.Timing.Prefill, r.Timing.Decode = fast(prefill), fast(decode)
	if m.info.Kind == llm.Ollama {
		r.Timing.Load, r.Timing.Total = fast(m.load), fast(r.Timing.Wall)
	}
	return r, nil
}

// mute hides that a server can stream.
type mute struct{ llm.Server }

// profile is a simulated machine whose answers are as long as asked for.
func profile(t *testing.T, name string) sim.Profile {
	t.Helper()
	p, err := sim.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	p.AnswerTokens = 1000
	return p
}

// simulated is our own client at a simulated server.
func simulated(t *testing.T, p sim.Profile) (llm.Server, *sim.Server) {
	t.Helper()
	s := sim.New(p)
	hc := &http.Client{Transport: sim.Transport(s.Handler())}
	var server llm.Server
	var err error
	if p.OpenAIOnly {
		server, err = openai.Open(t.Context(), "http://sim.test", hc, "")
	} else {
		server, err = ollama.Open(t.Context(), "http://sim.test", hc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return server, s
}

// unloadable is a simulated Ollama that can be told to drop its model.
type unloadable struct {
	*ollama.Server
	hc *http.Client
}

func (u unloadable) Unload(ctx context.Context, model string) error {
	body := strings.NewReader(fmt.Sprintf(`{"model":%q,"keep_alive":0}`, model))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.Info().URL+"/api/generate", body)
	if err != nil {
		return err
	}
	resp, err := u.hc.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
