// Package sim is a simulated inference server: it speaks Ollama's and OpenAI's
// protocols and behaves in time like a machine, so that pace, retries and
// displays can be tried without one. It has no model: its answers are made of
// the words of the prompt and fit the schema that is asked for.
//
// In time it follows package roofline: one pass over the weights is shared by
// all slots, prompts are bound by arithmetic and read in chunks between the
// tokens of others, a prefix that a slot has seen is free, sampling is the
// host's serial work, and who finds no slot waits, unseen from outside, as in
// Ollama. It works in virtual time inside a testing/synctest bubble if the
// server is made there.
//
// Everything it says is marked: the header X-Millrace-Simulated, the field
// "simulated" in each JSON body, and the version.
package sim

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"millrace/internal/llm"
)

// Header is the HTTP header that names the profile in every reply.
const Header = llm.SimulatedHeader

// Version is what /api/version says: the behaviour is that of Ollama 0.17.4.
const Version = "0.17.4-simulated"

// Server is a simulated inference server. It owns no goroutine and no socket,
// and needs no closing. It is safe for concurrent use.
type Server struct {
	profile Profile
	engine  *engine // nil for an instant profile
	jsonish *node   // what the format "json" asks for

	mu       sync.Mutex
	asked    map[uint64]counts
	recorded map[string]int
	schemas  map[string]*node
	stats    Stats
	inFlight int
	serial   uint64
}

// counts is what is known of one prompt.
type counts struct{ asked, answered uint32 }

// Stats says what a server has done so far.
type Stats struct {
	Requests    int // requests for an answer, good or bad
	Answered    int // of those, answered in full, wrong answers included
	Prompts     int // different questions
	Repeated    int // requests for a question that had been answered in full before
	MostAsked   int // how often the most frequent question came
	MaxInFlight int // most requests at the same time
	MaxActive   int // most slots busy at the same time
	MaxQueued   int // most requests waiting for a slot or for the model
	Loads       int // times the model was loaded
	Canceled    int // requests whose client went away

	PromptTokens, CachedTokens, CompletionTokens int

	// Ills, by kind.
	Busy, Resets, Hangs, Invalid, Dropped, Garbled, Truncated int
}

// New makes a server. Numbers in the profile that make no sense are brought
// into their bounds; Profile.Validate names them.
func New(p Profile) *Server {
	s := &Server{
		profile:  p,
		asked:    map[uint64]counts{},
		recorded: map[string]int{},
		schemas:  map[string]*node{},
	}
	s.jsonish, _ = compile([]byte(`{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"]}`))
	if !p.Instant {
		s.engine = newEngine(p)
	}
	return s
}

// Profile returns the profile that the server was made with.
func (s *Server) Profile() Profile { return s.profile }

// Stats returns what the server has done so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Prompts = len(s.asked)
	if s.engine != nil {
		e := s.engine.snapshot()
		st.MaxActive, st.MaxQueued, st.Loads, st.Canceled = e.maxBusy, e.maxQueued, e.loads, e.canceled
		st.PromptTokens, st.CachedTokens, st.CompletionTokens = e.promptTokens, e.cachedTokens, e.completionToks
	}
	return st
}

// Asked returns the last user message of each request and how often it came,
// if the profile says Record.
func (s *Server) Asked() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.recorded)
}

// Handler returns the server's HTTP interface.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	if !s.profile.OpenAIOnly {
		mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("Ollama is running"))
		})
		mux.HandleFunc("GET /api/version", s.version)
		mux.HandleFunc("GET /api/tags", s.tags)
		mux.HandleFunc("GET /api/ps", s.ps)
		mux.HandleFunc("POST /api/show", s.show)
		mux.HandleFunc("POST /api/generate", s.generate)
		mux.HandleFunc("POST /api/chat", s.chat)
	}
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("POST /v1/chat/completions", s.completions)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(Header, s.profile.Name)
		mux.ServeHTTP(w, r)
	})
}

// question is a request for an answer, whatever the protocol.
type question struct {
	prompt    string // all messages
	first     string // the first user message: what is asked about, also in a repair
	last      string // the last user message
	schema    []byte
	node      *node // compiled schema; nil for free text
	limit     int   // tokens of the answer; 0: no limit
	context   int   // tokens of context; 0: the profile's
	vary      bool  // the model is free to answer otherwise next time
	seed      string
	stop      []string
	stream    bool
	keepAlive *time.Duration
}

// result is an answer and where its time went.
type result struct {
	text         string
	tokens       int
	reason       string // stop or length
	promptTokens int
	cachedTokens int

	total, load, prefill, decode time.Duration
}

// fate is what befalls one request.
type fate struct {
	busy, resetNow, resetLater, hang      bool
	invalid, dropItem, garbled, truncated bool
	nth                                   uint32 // how often the same was asked before
	key                                   uint64
	draw                                  rng // for choices that belong to the ill
}

// receive counts a request and decides what befalls it.
func (s *Server) receive(q *question) fate {
	key := hash(hash(0, q.prompt), string(q.schema))
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.asked[key]
	f := fate{nth: c.asked, key: key}
	s.stats.Requests++
	if c.answered > 0 {
		s.stats.Repeated++
	}
	c.asked++
	s.asked[key] = c
	s.stats.MostAsked = max(s.stats.MostAsked, int(c.asked))
	if s.profile.Record {
		s.recorded[strings.Clone(q.last)]++
	}

	ills := s.profile.Ills
	r := rng(mix(key ^ mix(s.profile.Seed+1) ^ mix(uint64(f.nth)+2)))
	f.busy = r.chance(ills.BusyRate)
	reset, now := r.chance(ills.ResetRate), r.chance(0.5)
	f.resetNow, f.resetLater = reset && now, reset && !now
	f.hang = r.chance(ills.HangRate)
	f.garbled = r.chance(ills.GarbledRate)
	f.truncated = r.chance(ills.TruncateRate)
	f.invalid = r.chance(ills.InvalidJSONRate)
	f.dropItem = r.chance(ills.DropItemRate)
	f.draw = r
	count := func(n *int, is bool) bool {
		if is {
			*n++
		}
		return is
	}
	// One ill at a time, the first that shows.
	st := &s.stats
	_ = count(&st.Busy, f.busy) || count(&st.Resets, reset) || count(&st.Hangs, f.hang) ||
		count(&st.Garbled, f.garbled) || count(&st.Truncated, f.truncated) ||
		count(&st.Invalid, f.invalid) || count(&st.Dropped, f.dropItem)
	return f
}

// enter and leave count the requests in flight.
func (s *Server) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight++
	s.stats.MaxInFlight = max(s.stats.MaxInFlight, s.inFlight)
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
}

// answer makes the text of a reply. It is the same for the same prompt, schema
// and seed, unless the model is free to vary: then it differs each time.
func (s *Server) answer(q *question, f fate) result {
	seed := hash(s.profile.Seed, q.seed) ^ f.key
	if q.vary {
		seed += uint64(f.nth)
	}
	w := writer{rng: rng(mix(seed)), text: q.first, dropItem: f.dropItem}
	var r result
	if q.node != nil {
		r.text = string(w.answer(q.node))
	} else {
		n := s.profile.AnswerTokens
		if n <= 0 {
			n = 24 + w.rng.intn(177)
		}
		r.text = paragraph(&w.rng, q.first, n)
	}
	if f.invalid {
		r.text = spoil(&f.draw, r.text, q.node != nil)
	}
	for _, stop := range q.stop {
		if before, _, ok := strings.Cut(r.text, stop); ok && stop != "" {
			r.text = before
		}
	}
	r.reason = "stop"
	r.tokens = max(tokens(r.text), 1)
	if q.limit > 0 && r.tokens > q.limit {
		r.text, r.tokens, r.reason = cutTokens(r.text, q.limit), q.limit, "length"
	}
	r.promptTokens = max(tokens(q.prompt), 1)
	return r
}

// spoil makes an answer that does not fit: cut short, in prose, or of another shape.
func spoil(r *rng, text string, structured bool) string {
	if !structured {
		return ""
	}
	switch r.intn(3) {
	case 0:
		return text[:len(text)/2]
	case 1:
		return "Sure! Here is the answer: " + strings.Trim(text, "{}[]")
	default:
		return `{"unexpected": true}`
	}
}

// errAbort ends a reply in the middle.
var errAbort = errors.New("aborted on purpose")

// complete works out the reply to q. piece, if not nil, gets the text as it is
// generated, token by token.
func (s *Server) complete(ctx context.Context, q *question, f fate, piece func(text string) error) (result, error) {
	r := s.answer(q, f)
	sent := 0
	send := func(n int) error {
		breaks := f.resetLater || f.truncated
		for ; sent < n; sent++ {
			if breaks && sent >= r.tokens/2 {
				return errAbort
			}
			text := cutTokens(r.text, sent+1)[len(cutTokens(r.text, sent)):]
			if sent+1 == r.tokens {
				text = r.text[len(cutTokens(r.text, sent)):]
			}
			if err := piece(text); err != nil {
				return err
			}
		}
		return nil
	}
	if piece == nil {
		send = nil
	}
	if s.engine == nil {
		s.mu.Lock()
		s.stats.PromptTokens += r.promptTokens
		s.stats.CompletionTokens += r.tokens
		s.mu.Unlock()
		if send != nil {
			if err := send(r.tokens); err != nil {
				return r, err
			}
		}
	} else {
		t := task{
			prompt: q.prompt, promptTokens: r.promptTokens, outTokens: r.tokens,
			context: q.context, stream: send != nil, keepAlive: q.keepAlive,
		}
		if limit := s.contextOf(q); t.promptTokens > limit {
			t.promptTokens, r.promptTokens = limit, limit
		}
		if err := s.engine.do(ctx, &t, send); err != nil {
			return r, err
		}
		r.cachedTokens = t.cached
		r.total, r.prefill, r.decode = t.end-t.arrived, t.prefillD, t.decodeD
		// Finding the loaded model takes part of the fixed cost.
		r.load = t.gotModel - t.arrived + s.engine.fixed/8
	}
	if f.resetLater || f.truncated || f.garbled {
		return r, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Answered++
	c := s.asked[f.key]
	c.answered++
	s.asked[f.key] = c
	return r, nil
}

func (s *Server) contextOf(q *question) int {
	if q.context > 0 {
		return q.context
	}
	return max(s.profile.Context, 1)
}

// touch loads the model, as a request without a prompt does.
func (s *Server) touch(ctx context.Context, context int, keepAlive *time.Duration) error {
	if s.engine == nil {
		return nil
	}
	return s.engine.do(ctx, &task{context: context, keepAlive: keepAlive}, nil)
}

// schema compiles a schema, or finds it compiled.
func (s *Server) schema(raw []byte) (*node, error) {
	s.mu.Lock()
	n, ok := s.schemas[string(raw)]
	s.mu.Unlock()
	if ok {
		return n, nil
	}
	n, err := compile(raw)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.schemas) >= 256 { // somebody varies schemas: packs of records do
		clear(s.schemas)
	}
	s.schemas[string(raw)] = n
	return n, nil
}

// knows reports whether the server has the model of that name.
func (s *Server) knows(name string) bool {
	return name == s.profile.Model.Name || name+":latest" == s.profile.Model.Name
}
