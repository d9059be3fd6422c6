package sim_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/llm/sim"
)

func TestBusy(t *testing.T) {
	b := start(profile(t, "instant").WithIlls(sim.Ills{BusyRate: 1, RetryAfter: 1500 * time.Millisecond}))
	r := b.ask(t.Context(), "Hello", "")
	if r.status != 503 || r.header.Get("Retry-After") != "2" || r.Error != "server busy, please try again.  maximum pending requests exceeded" {
		t.Errorf("%d %v %s", r.status, r.header, r.body)
	}
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := loaded(t, fixedLength(profile(t, "t4"), 100).WithIlls(sim.Ills{ResetRate: 1}))
		early, late := 0, 0
		for i := range 20 {
			begin := time.Now()
			if r := b.ask(t.Context(), unique(i, 50), ""); !errors.Is(r.err, syscall.ECONNRESET) && !errors.Is(r.err, io.ErrUnexpectedEOF) {
				t.Fatalf("request %d: %v %s", i, r.err, r.body)
			}
			if time.Since(begin) == 0 {
				early++
			} else {
				late++
			}
		}
		if early == 0 || late == 0 {
			t.Errorf("%d connections broke at once, %d after the work", early, late)
		}
		if st := b.Stats(); st.Answered != 0 || st.Resets != 20 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestHangEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := loaded(t, profile(t, "t4").WithIlls(sim.Ills{HangRate: 1}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		if r := b.ask(ctx, "Hello", ""); !errors.Is(r.err, context.DeadlineExceeded) || time.Since(begin) != time.Hour {
			t.Errorf("%v after %v", r.err, time.Since(begin))
		}
	})
}

func TestGarbledAndTruncated(t *testing.T) {
	p := profile(t, "instant")
	for _, stream := range []string{`,"stream":false`, ``} {
		body := `{"model":"llama3.1:8b","prompt":"Hello my friend"` + stream + `}`
		b := start(p.WithIlls(sim.Ills{GarbledRate: 1}))
		r := b.do(t.Context(), "POST", "/api/generate", body)
		if r.status != 200 || r.err != nil || !strings.Contains(string(r.body), "<html>") || r.Done {
			t.Errorf("garbled: %d %v %s", r.status, r.err, r.body)
		}
		b = start(p.WithIlls(sim.Ills{TruncateRate: 1}))
		r = b.do(t.Context(), "POST", "/api/generate", body)
		if r.status != 200 || !errors.Is(r.err, io.ErrUnexpectedEOF) || len(r.body) == 0 || strings.Contains(string(r.body), `"done":true`) && stream == "" {
			t.Errorf("truncated: %d %v %s", r.status, r.err, r.body)
		}
	}
}

// Every way of being invalid fails the schema; asking again can help.
func TestInvalidJSON(t *testing.T) {
	schema := `{"type":"object","properties":{"a":{"type":"string"},"b":{"enum":["x","y"]}},"required":["a","b"],"additionalProperties":false}`
	check := validator(t, schema)
	valid := func(a string) bool {
		var v any
		return json.Unmarshal([]byte(a), &v) == nil && check.Validate(v) == nil
	}
	b := start(profile(t, "instant").WithIlls(sim.Ills{InvalidJSONRate: 1}))
	seen := map[bool]int{}
	for i := range 60 {
		a := answer(t, b, schema, unique(i, 30))
		if valid(a) {
			t.Errorf("valid all the same: %s", a)
		}
		seen[json.Valid([]byte(a))]++
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("JSON or not: %v", seen)
	}
	if a := b.ask(t.Context(), "Hello", ""); a.Response != "" || a.status != 200 {
		t.Errorf("without a schema: %s", a.body)
	}

	b = start(profile(t, "instant").WithIlls(sim.Ills{InvalidJSONRate: 0.5}))
	for i := range 20 {
		tries := 0
		for ; tries < 30 && !valid(answer(t, b, schema, unique(i, 30))); tries++ {
		}
		if tries == 30 {
			t.Errorf("question %d never got a valid answer", i)
		}
	}
}

func TestIllsComeAtTheirRate(t *testing.T) {
	b := start(profile(t, "instant").WithSeed(3).WithIlls(sim.Ills{
		BusyRate: 0.1, GarbledRate: 0.1, InvalidJSONRate: 0.1, TruncateRate: 0.05, ResetRate: 0.05,
	}))
	const n = 4000
	for i := range n {
		b.ask(t.Context(), unique(i, 20), "")
	}
	st := b.Stats()
	for what, c := range map[string]struct{ got, rate float64 }{
		"busy": {float64(st.Busy), 0.1}, "resets": {float64(st.Resets), 0.05 * 0.9},
		"garbled": {float64(st.Garbled), 0.1 * 0.9 * 0.95},
	} {
		if r := c.got / n; r < c.rate*0.75 || r > c.rate*1.25 {
			t.Errorf("%s at %.3f, want about %.3f", what, r, c.rate)
		}
	}
	if st.Requests != n || st.Answered+st.Busy+st.Resets+st.Garbled+st.Truncated != n {
		t.Errorf("stats %+v", st)
	}
}

func TestStatsAndRecord(t *testing.T) {
	p := profile(t, "instant")
	p.Record = true
	b := start(p)
	for _, prompt := range []string{"one", "two", "one", "one"} {
		b.ask(t.Context(), prompt, "")
	}
	b.ask(t.Context(), "one", `,"format":"json"`) // another question
	if st := b.Stats(); st.Prompts != 3 || st.Repeated != 2 || st.MostAsked != 3 || st.Answered != 5 || st.CompletionTokens == 0 {
		t.Errorf("stats %+v", st)
	}
	if got := b.Asked(); got["one"] != 4 || got["two"] != 1 || len(got) != 2 {
		t.Errorf("asked %v", got)
	}
}

// discard is a reply that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

func generateBody(prompt, more string) string {
	return fmt.Sprintf(`{"model":"llama3.1:8b","stream":false,"prompt":%q%s}`, prompt, more)
}

// The handler alone, with prompts of 250 tokens.
func BenchmarkInstant(b *testing.B) {
	p := profile(b, "instant")
	schema := `{"type":"object","properties":{"sentiment":{"type":"string","enum":["good","bad"]},"reason":{"type":"string","maxLength":80}},"required":["sentiment","reason"],"additionalProperties":false}`
	for name, more := range map[string]string{"text": `,"options":{"num_predict":30}`, "schema": `,"format":` + schema} {
		b.Run(name, func(b *testing.B) {
			h := sim.New(p).Handler()
			var bodies []string
			for i := range 512 {
				bodies = append(bodies, generateBody(unique(i, 250), more))
			}
			w := &discard{header: http.Header{}}
			r := httptest.NewRequestWithContext(b.Context(), "POST", "/api/generate", nil)
			i := 0
			for b.Loop() {
				i++
				r.Body = io.NopCloser(strings.NewReader(bodies[i%len(bodies)]))
				r.ContentLength = int64(len(bodies[i%len(bodies)]))
				clear(w.header)
				h.ServeHTTP(w, r)
			}
			if w.status != 0 && w.status != http.StatusOK {
				b.Fatalf("status %d", w.status)
			}
		})
	}
}
