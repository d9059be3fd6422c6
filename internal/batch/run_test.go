package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"millrace/internal/job"
	"millrace/internal/llm"
	"millrace/internal/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memStore is a Store in memory, for tests of the runner. The stores proper
// have a suite of their own.
type memStore struct {
	mu       sync.Mutex
	answers  map[Key]Answer
	links    []Link
	failures map[Key]Failure
	sources  []Source
	runs     []Run
	finished map[int64]bool
	saves    int
	fail     error // returned by Save
}

func newMemStore() *memStore {
	return &memStore{answers: map[Key]Answer{}, failures: map[Key]Failure{}, finished: map[int64]bool{}}
}

func (s *memStore) Lookup(_ context.Context, run Run, keys []Key) ([]Found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make([]Found, len(keys))
	for i, k := range keys {
		if a, ok := s.answers[k]; ok {
			found[i].Answer = &a
		}
		if f, ok := s.failures[k]; ok && run.Resumed && f.Run == run.ID {
			found[i].Failure = &f
		}
	}
	return found, nil
}

func (s *memStore) Save(_ context.Context, answers []Answer, links []Link, failures []Failure) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.saves++
	for _, a := range answers {
		s.answers[a.Key] = a
	}
	s.links = append(s.links, links...)
	for _, f := range failures {
		s.failures[f.Key] = f
	}
	return nil
}

func (s *memStore) Source(_ context.Context, src Source) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources = append(s.sources, src)
	return int64(len(s.sources)), nil
}

func (s *memStore) OpenRun(_ context.Context, r Run) (Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, have := range s.runs {
		if have.Fingerprint == r.Fingerprint && !s.finished[have.ID] {
			have.Resumed = true
			return have, nil
		}
	}
	r.ID = int64(len(s.runs) + 1)
	s.runs = append(s.runs, r)
	return r, nil
}

func (s *memStore) FinishRun(_ context.Context, id int64, _ json.RawMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished[id] = true
	maps.DeleteFunc(s.answers, func(_ Key, a Answer) bool { return a.Scoped && a.Run == id })
	maps.DeleteFunc(s.failures, func(_ Key, f Failure) bool { return f.Run == id })
	return nil
}

func (s *memStore) Trail(_ context.Context, sub Subject) ([]Trail, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var t []Trail
	for _, a := range s.answers {
		if a.Subject == sub {
			t = append(t, Trail{Source: s.sources[a.Source-1], Inputs: a.Inputs, Key: a.Key, Created: a.Created, Expires: a.Expires})
		}
	}
	slices.SortFunc(t, func(a, b Trail) int { return b.Created.Compare(a.Created) })
	return t, nil
}

func (*memStore) Purge(context.Context, Subject) (Purged, error) { return Purged{}, nil }

func (*memStore) Prune(context.Context, time.Time, time.Time) (Purged, error) { return Purged{}, nil }

func (*memStore) Stats(context.Context, time.Time) (StoreStats, error) { return StoreStats{}, nil }
func (*memStore) Close() error                                         { return nil }

// funcServer answers with a function.
type funcServer struct {
	mu    sync.Mutex
	asked []llm.Request
	kind  llm.Kind
	reply func(n int, req llm.Request) (llm.Reply, error) // n counts requests from 1
}

func (s *funcServer) Ask(ctx context.Context, req llm.Request) (llm.Reply, error) {
	s.mu.Lock()
	s.asked = append(s.asked, req)
	n := len(s.asked)
	s.mu.Unlock()
	if ctx.Err() != nil {
		return llm.Reply{}, &llm.Error{Kind: llm.Canceled, Err: ctx.Err()}
	}
	return s.reply(n, req)
}

func (s *funcServer) Info() llm.Info { return llm.Info{Kind: s.kind, URL: "http://test"} }

func (s *funcServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func text(s string) (llm.Reply, error) {
	n := len(s)/4 + 1
	return llm.Reply{Text: s, Finish: llm.FinishStop, CompletionTokens: &n, PromptTokens: &n}, nil
}

// echo answers {"out": the value of field "in"} for jobs of testJob.
func echo(_ int, req llm.Request) (llm.Reply, error) {
	return text(fmt.Sprintf(`{"out":%q}`, "re "+question1(req)))
}

// question1 is the value of "in" in a request for one record.
func question1(req llm.Request) string { return between(req.Messages[1].Content) }

func between(s string) string {
	_, s, _ = strings.Cut(s, "<in>")
	s, _, _ = strings.Cut(s, "</in>")
	return s
}

// rows is a Writer into memory.
type rows struct {
	mu  sync.Mutex
	got []string // "pos:answer"
}

func (w *rows) Write(r record.Record, added []record.Value) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, fmt.Sprintf("%d:%s", r.Pos, added[0].String()))
	return nil
}
func (w *rows) Close() error { return nil }

// list is a Reader over prepared records; nil stands for a bad one.
type list struct {
	values []*string
	next   int
	onNext func(n int)
}

func values(s ...string) *list {
	l := &list{}
	for i := range s {
		l.values = append(l.values, &s[i])
	}
	return l
}

func (l *list) Next() (record.Record, error) {
	if l.onNext != nil {
		l.onNext(l.next)
	}
	if l.next == len(l.values) {
		return record.Record{}, io.EOF
	}
	l.next++
	v := l.values[l.next-1]
	if v == nil {
		return record.Record{}, &record.BadRecord{Pos: int64(l.next), Line: int64(l.next + 1), Reason: "ragged"}
	}
	return record.Record{Pos: int64(l.next), Fields: []record.Field{
		{Name: "id", Value: record.Text(fmt.Sprintf("id%d", l.next))}, {Name: "in", Value: record.Text(*v)},
	}}, nil
}
func (l *list) Columns() []string { return []string{"id", "in"} }
func (l *list) Progress() float64 { return 1 }
func (l *list) Close() error      { return nil }

func testJob(t testing.TB, more string) *job.Job {
	t.Helper()
	j, err := job.Parse([]byte(`
name: test
version: 1
input: [in]
prompt: "Value: {{ .in }}"
schema: {type: object, properties: {out: {type: string, maxLength: 40}}, required: [out], additionalProperties: false}
`+more), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

type testRun struct {
	Options
	out  *rows
	quar []string
}

func newRun(j *job.Job, srv llm.Server, st Store, in record.Reader) *testRun {
	r := &testRun{out: &rows{}}
	r.Options = Options{
		Job: j, Server: srv, Model: llm.Model{Name: "m", Digest: "d"}, Store: st, In: in, Out: r.out,
		Input: "in.csv", Output: "out.csv",
		Quarantine: func(q Quarantined) error {
			r.quar = append(r.quar, fmt.Sprintf("%d:%s", q.Position, q.Reason))
			return nil
		},
	}
	return r
}

func (r *testRun) do(t testing.TB) (Report, error) {
	t.Helper()
	return RunJob(t.Context(), r.Options)
}

func TestRunAnswersInOrderAndAsksOnce(t *testing.T) {
	st := newMemStore()
	srv := &funcServer{reply: echo}
	in := []string{"b", "a", "b", "c", "a", "b"}
	r := newRun(testJob(t, ""), srv, st, values(in...))
	rep, err := r.do(t)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"1:re b", "2:re a", "3:re b", "4:re c", "5:re a", "6:re b"}
	if d := cmp.Diff(want, r.out.got); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
	if srv.count() != 3 || rep.Requests != 3 || rep.Deduplicated != 3 || rep.Cached != 0 || rep.Answered != 6 {
		t.Errorf("asked %d times; report %+v", srv.count(), rep)
	}
	// Every record whose answer came from another's question is linked to it.
	if len(st.links) != 3 {
		t.Errorf("%d links, want 3", len(st.links))
	}

	again := newRun(testJob(t, ""), srv, st, values(in...))
	rep, err = again.do(t)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, again.out.got); d != "" {
		t.Errorf("second run's rows (-want +got):\n%s", d)
	}
	if srv.count() != 3 || rep.Cached != 6 || rep.Requests != 0 {
		t.Errorf("second run asked %d more; report %+v", srv.count()-3, rep)
	}
}

func TestRunQuarantine(t *testing.T) {
	one := func(s string) func(int, llm.Request) (llm.Reply, error) {
		return func(int, llm.Request) (llm.Reply, error) { return text(s) }
	}
	cutOff := func(_ int, req llm.Request) (llm.Reply, error) {
		r, _ := text(`{"out":"unfin`)
		r.Finish = llm.FinishLength
		return r, nil
	}
	tests := []struct {
		name     string
		more     string
		in       *list
		reply    func(int, llm.Request) (llm.Reply, error)
		requests int
		reason   string // part of the only line of quarantine; "" for none
		report   func(Report) bool
	}{
		{"bad record", "", &list{values: []*string{nil}}, echo, 0, "ragged", nil},
		{"invalid to the end", "", values("x"), one(`{"out":7}`), 3, "invalid answer: ", nil},
		{"no repairs", "repairs: 0", values("x"), one("hello"), 1, "invalid answer: ", nil},
		{"repaired", "", values("x"), func(n int, req llm.Request) (llm.Reply, error) {
			if n == 1 {
				return text(`{"out":7}`)
			}
			if len(req.Messages) != 4 || !strings.Contains(last(req.Messages), "/out") {
				return text("the repair does not show the error: " + last(req.Messages))
			}
			return text(`{"out":"ok"}`)
		}, 2, "", func(r Report) bool { return r.Repaired == 1 }},
		{"cut off", "options: {max_tokens: 10}", values("x"), cutOff, 2, "cut off by the token limit, 10 and then 40 tokens", func(r Report) bool { return r.Raised == 1 }},
		{"too long", "", values("x"), func(int, llm.Request) (llm.Reply, error) {
			return llm.Reply{}, &llm.Error{Kind: llm.TooLong, Message: "prompt exceeds the context"}
		}, 1, "too-long", nil},
		{"schema refused", "", values("x"), func(_ int, req llm.Request) (llm.Reply, error) {
			if req.Schema != nil {
				return llm.Reply{}, &llm.Error{Kind: llm.BadSchema, Message: "cannot"}
			}
			return text(`{"out":"ok"}`)
		}, 2, "", func(r Report) bool { return len(r.Notes) == 1 && strings.Contains(r.Notes[0], "schema") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := &funcServer{reply: tt.reply}
			st := newMemStore()
			r := newRun(testJob(t, tt.more), srv, st, tt.in)
			rep, err := r.do(t)
			if err != nil {
				t.Fatal(err)
			}
			if srv.count() != tt.requests {
				t.Errorf("%d requests, want %d", srv.count(), tt.requests)
			}
			if got := strings.Join(r.quar, "|"); (tt.reason == "") != (got == "") || !strings.Contains(got, tt.reason) {
				t.Errorf("quarantine %q, want %q", got, tt.reason)
			}
			if rep.Answered+rep.Quarantined != rep.Records || int(rep.Answered) != len(r.out.got) {
				t.Errorf("does not add up: %+v, %d rows", rep, len(r.out.got))
			}
			if tt.report != nil && !tt.report(rep) {
				t.Errorf("report %+v", rep)
			}
			if len(st.answers) != int(rep.Answered) {
				t.Errorf("%d answers kept for %d records answered: failures are never cached", len(st.answers), rep.Answered)
			}
		})
	}
}

// Errors of the server, in virtual time.
func TestRunServerErrors(t *testing.T) {
	fail := func(kind llm.ErrorKind, status int) (llm.Reply, error) {
		return llm.Reply{}, &llm.Error{Kind: kind, Status: status, Message: "m"}
	}
	tests := []struct {
		name  string
		reply func(n int, req llm.Request) (llm.Reply, error)
		want  func(t *testing.T, rep Report, err error, took time.Duration)
	}{
		{"comes back", func(n int, req llm.Request) (llm.Reply, error) {
			if n <= 4 {
				return fail(llm.Unreachable, 0)
			}
			return echo(n, req)
		}, func(t *testing.T, rep Report, err error, _ time.Duration) {
			if err != nil || rep.Answered != 3 || rep.Retried == 0 {
				t.Errorf("error %v, report %+v", err, rep)
			}
		}},
		{
			"gone", func(int, llm.Request) (llm.Reply, error) { return fail(llm.Unreachable, 0) },
			func(t *testing.T, rep Report, err error, took time.Duration) {
				if !errors.Is(err, ErrServerGone) || took < 2*time.Minute || took > 4*time.Minute || !rep.Interrupted {
					t.Errorf("error %v after %s, report %+v", err, took, rep)
				}
			},
		},
		{"busy for three minutes", func() func(n int, req llm.Request) (llm.Reply, error) {
			var from time.Time
			return func(n int, req llm.Request) (llm.Reply, error) {
				if from.IsZero() {
					from = time.Now()
				}
				if time.Since(from) < 3*time.Minute {
					return fail(llm.Busy, 503)
				}
				return echo(n, req)
			}
		}(), func(t *testing.T, rep Report, err error, took time.Duration) {
			if err != nil || rep.Answered != 3 || rep.Concurrency.Refusals == 0 {
				t.Errorf("error %v, report %+v", err, rep)
			}
		}},
		{"asks to wait", func(n int, req llm.Request) (llm.Reply, error) {
			if n == 1 {
				return llm.Reply{}, &llm.Error{Kind: llm.Busy, Status: 429, RetryAfter: 50 * time.Second}
			}
			return echo(n, req)
		}, func(t *testing.T, rep Report, err error, took time.Duration) {
			if err != nil || took < 50*time.Second {
				t.Errorf("error %v after %s", err, took)
			}
		}},
		{
			"wrong model", func(int, llm.Request) (llm.Reply, error) { return fail(llm.NoModel, 404) },
			func(t *testing.T, rep Report, err error, _ time.Duration) {
				if llm.KindOf(err) != llm.NoModel || rep.Requests > 2 {
					t.Errorf("error %v, report %+v", err, rep)
				}
			},
		},
		{
			"not allowed", func(int, llm.Request) (llm.Reply, error) { return fail(llm.Refused, 401) },
			func(t *testing.T, rep Report, err error, _ time.Duration) {
				if llm.KindOf(err) != llm.Refused {
					t.Errorf("error %v, report %+v", err, rep)
				}
			},
		},
		{
			"only garbage", func(int, llm.Request) (llm.Reply, error) { return fail(llm.Garbled, 200) },
			func(t *testing.T, rep Report, err error, took time.Duration) {
				if !errors.Is(err, ErrServerGone) || rep.Quarantined != 0 || took > 4*time.Minute {
					t.Errorf("error %v after %s, report %+v", err, took, rep)
				}
			},
		},
		{"garbage from the second record on", func(n int, req llm.Request) (llm.Reply, error) {
			if n > 1 {
				return fail(llm.Failed, 500)
			}
			return echo(n, req)
		}, func(t *testing.T, rep Report, err error, _ time.Duration) {
			if !errors.Is(err, ErrServerGone) || rep.Answered != 1 || rep.Quarantined != 0 {
				t.Errorf("error %v, report %+v", err, rep)
			}
		}},
		{"garbled for one record", func(n int, req llm.Request) (llm.Reply, error) {
			if question1(req) == "b" {
				return fail(llm.Garbled, 200)
			}
			return echo(n, req)
		}, func(t *testing.T, rep Report, err error, _ time.Duration) {
			if err != nil || rep.Answered != 2 || rep.Quarantined != 1 {
				t.Errorf("error %v, report %+v", err, rep)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				r := newRun(testJob(t, ""), &funcServer{reply: tt.reply}, newMemStore(), values("a", "b", "c"))
				rep, err := r.do(t)
				tt.want(t, rep, err, time.Since(start))
			})
		})
	}
}

func TestRunHangingRequestTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &hangingServer{}
		r := newRun(testJob(t, ""), srv, newMemStore(), values("a", "b"))
		r.Timeout = time.Minute
		rep, err := r.do(t)
		if err != nil || rep.Answered != 2 || rep.Retried != 1 {
			t.Errorf("error %v, report %+v", err, rep)
		}
	})
}

type hangingServer struct {
	funcServer
	n int
}

func (s *hangingServer) Ask(ctx context.Context, req llm.Request) (llm.Reply, error) {
	s.mu.Lock()
	s.n++
	n := s.n
	s.mu.Unlock()
	if n == 1 {
		<-ctx.Done()
		return llm.Reply{}, &llm.Error{Kind: llm.Timeout, Err: ctx.Err()}
	}
	return echo(n, req)
}

func TestRunPacks(t *testing.T) {
	j := testJob(t, "pack: 3\n")
	srv := &funcServer{}
	srv.reply = func(n int, req llm.Request) (llm.Reply, error) {
		if !strings.Contains(string(req.Schema), `"items"`) {
			return echo(n, req)
		}
		// Answers in reverse order, and leaves out every value that is "gone".
		var items []string
		parts := strings.Split(last(req.Messages), "<in>")
		for i := len(parts) - 1; i >= 1; i-- {
			v, _, _ := strings.Cut(parts[i], "</in>")
			if v != "gone" {
				items = append(items, fmt.Sprintf(`{"id":"%d","out":%q}`, i, "re "+v))
			}
		}
		return text(`{"items":[` + strings.Join(items, ",") + `]}`)
	}
	in := []string{"a", "b", "gone", "d", "e", "f", "g"}
	r := newRun(j, srv, newMemStore(), values(in...))
	rep, err := r.do(t)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, v := range in {
		want = append(want, fmt.Sprintf("%d:re %s", i+1, v))
	}
	if d := cmp.Diff(want, r.out.got); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
	if rep.Packed != 6 || rep.PackReasked != 1 || rep.Requests != 4 {
		t.Errorf("report %+v; want 2 packs, the seventh record alone and one asked again", rep)
	}
}

func TestRunStopAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newMemStore()
		stop := make(chan struct{})
		asked := map[string]int{}
		srv := &funcServer{}
		srv.reply = func(n int, req llm.Request) (llm.Reply, error) {
			time.Sleep(time.Second)
			srv.mu.Lock()
			asked[question1(req)]++
			srv.mu.Unlock()
			if n == 40 {
				close(stop)
			}
			if question1(req) == "v3" {
				return text("no JSON at all")
			}
			return echo(n, req)
		}
		var in []string
		for i := range 200 {
			in = append(in, fmt.Sprintf("v%d", i))
		}
		first := newRun(testJob(t, ""), srv, st, values(in...))
		first.Stop = stop
		first.Pacer = FixedPacer(4)
		committed := false
		first.Commit = func() error { committed = true; return nil }
		rep, err := first.do(t)
		if !errors.Is(err, ErrStopped) || committed || !rep.Interrupted {
			t.Fatalf("error %v, committed %v, report %+v", err, committed, rep)
		}
		// What was in flight was finished and saved.
		if n := len(st.answers) + len(st.failures); n < 35 || n > 44 {
			t.Errorf("%d questions settled after a stop at the 40th request", n)
		}
		second := newRun(testJob(t, ""), srv, st, values(in...))
		rep, err = second.do(t)
		if err != nil || !rep.Resumed || len(second.out.got) != 199 || len(second.quar) != 1 {
			t.Fatalf("error %v, %d rows, quarantine %v, report %+v", err, len(second.out.got), second.quar, rep)
		}
		for v, n := range asked {
			if n > 1 && v != "v3" {
				t.Errorf("%s was asked %d times", v, n)
			}
		}
		if asked["v3"] != 3 {
			t.Errorf("the invalid one was asked %d times over both, want 3: its failure belongs to the run", asked["v3"])
		}
		// A new run tries what failed again.
		third := newRun(testJob(t, ""), srv, st, values(in...))
		rep, err = third.do(t)
		if err != nil || rep.Resumed || rep.Cached != 199 || rep.Requests != 3 {
			t.Errorf("error %v, report %+v", err, rep)
		}
	})
}

func TestRunScopes(t *testing.T) {
	for _, tt := range []struct {
		name     string
		more     string
		opt      func(*Options)
		requests [2]int // of the first and second run
	}{
		{"cached", "", nil, [2]int{2, 0}},
		{"no cache", "", func(o *Options) { o.NoCache = true }, [2]int{2, 2}},
		{"lifetime none", "lifetime: none", nil, [2]int{2, 2}},
		{"refresh", "", func(o *Options) { o.Refresh = true }, [2]int{2, 2}},
		{"expired", "lifetime: 1h", nil, [2]int{2, 2}},
		{"not yet expired", "lifetime: 30d", nil, [2]int{2, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newMemStore()
				for i, want := range tt.requests {
					srv := &funcServer{reply: echo}
					r := newRun(testJob(t, tt.more), srv, st, values("a", "b", "a"))
					if tt.opt != nil {
						tt.opt(&r.Options)
					}
					if _, err := r.do(t); err != nil {
						t.Fatal(err)
					}
					if srv.count() != want {
						t.Errorf("run %d: %d requests, want %d", i+1, srv.count(), want)
					}
					time.Sleep(2 * time.Hour)
				}
			})
		})
	}
}

func TestRunStoreFailureEndsIt(t *testing.T) {
	st := newMemStore()
	st.fail = errors.New("disk full")
	r := newRun(testJob(t, ""), &funcServer{reply: echo}, st, values("a", "b"))
	if _, err := r.do(t); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error %v", err)
	}
	if len(r.out.got) != 0 {
		t.Errorf("rows %v were written though nothing was saved", r.out.got)
	}
}

func TestRunWriterFailureEndsIt(t *testing.T) {
	r := newRun(testJob(t, ""), &funcServer{reply: echo}, newMemStore(), values("a", "b"))
	r.Out = failingWriter{}
	if _, err := r.do(t); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("error %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write(record.Record, []record.Value) error { return errors.New("no space left") }
func (failingWriter) Close() error                              { return nil }

func TestRunPrepareAndCheck(t *testing.T) {
	j := testJob(t, "")
	j.Prepare = func(_ context.Context, r record.Record) (json.RawMessage, error) {
		v, _ := r.Get("in")
		switch v.String() {
		case "known":
			return json.RawMessage(`{"out":"by rule"}`), nil
		case "impossible":
			return nil, errors.New("cannot be")
		case "wrong rule":
			return json.RawMessage(`{"out":1}`), nil
		}
		return nil, nil
	}
	j.Check = func(r record.Record, answer json.RawMessage) error {
		if strings.Contains(string(answer), "re lie") {
			return errors.New("the answer is not in the input")
		}
		return nil
	}
	srv := &funcServer{reply: echo}
	r := newRun(j, srv, newMemStore(), values("known", "open", "impossible", "lie", "wrong rule"))
	rep, err := r.do(t)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"1:by rule", "2:re open"}, r.out.got); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
	if rep.Prepared != 1 || rep.Quarantined != 3 || srv.count() != 4 {
		t.Errorf("%d requests, report %+v, quarantine %v", srv.count(), rep, r.quar)
	}
}

// Whatever the server does, every record ends as one row or one line of
// quarantine, in input order, and no question with an answer is asked again.
func TestRunNothingLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 120).Draw(t, "records")
		pack := rapid.IntRange(1, 4).Draw(t, "pack")
		distinct := rapid.IntRange(1, 60).Draw(t, "distinct")
		l := &list{}
		for i := range n {
			if rapid.IntRange(0, 20).Draw(t, "bad") == 0 {
				l.values = append(l.values, nil)
				continue
			}
			v := fmt.Sprintf("v%d", (i*7)%distinct)
			l.values = append(l.values, &v)
		}
		plan := rapid.SliceOfN(rapid.IntRange(0, 9), 32, 32).Draw(t, "replies")
		srv := &funcServer{}
		answered := map[string]int{}
		srv.reply = func(n int, req llm.Request) (llm.Reply, error) {
			switch plan[n%len(plan)] {
			case 0:
				return text("nonsense")
			case 1:
				return llm.Reply{}, &llm.Error{Kind: llm.TooLong}
			case 2:
				r, _ := text(`{"out":"cut`)
				r.Finish = llm.FinishLength
				return r, nil
			}
			if strings.Contains(string(req.Schema), `"items"`) {
				return text(`{"items":[]}`)
			}
			srv.mu.Lock()
			answered[question1(req)]++
			srv.mu.Unlock()
			return echo(n, req)
		}
		j, err := job.Parse(fmt.Appendf(nil, "name: p\nversion: 1\ninput: [in]\nprompt: \"{{ .in }}\"\npack: %d\nschema: {type: object, properties: {out: {type: string}}, required: [out]}\n", pack), "p.yaml")
		if err != nil {
			t.Fatal(err)
		}
		r := newRun(j, srv, newMemStore(), l)
		rep, err := RunJob(context.Background(), r.Options)
		if err != nil {
			t.Fatal(err)
		}
		var seen []int
		for _, s := range slices.Concat(r.out.got, r.quar) {
			var pos int
			fmt.Sscanf(s, "%d:", &pos)
			seen = append(seen, pos)
		}
		slices.Sort(seen)
		for i, pos := range seen {
			if pos != i+1 {
				t.Fatalf("record %d is missing or doubled: %v", i+1, seen)
			}
		}
		if len(seen) != n || rep.Records != int64(n) {
			t.Fatalf("%d records ended, of %d; report %+v", len(seen), n, rep)
		}
		for _, s := range [][]string{r.out.got, r.quar} {
			if !slices.IsSortedFunc(s, func(a, b string) int {
				var x, y int
				fmt.Sscanf(a, "%d:", &x)
				fmt.Sscanf(b, "%d:", &y)
				return x - y
			}) {
				t.Fatalf("out of order: %v", s)
			}
		}
		for v, n := range answered {
			if n > 1 {
				t.Fatalf("%s was answered %d times", v, n)
			}
		}
	})
}

func TestWhy(t *testing.T) {
	ctx := t.Context()
	st := newMemStore()
	r := newRun(testJob(t, "lifetime: 30d"), &funcServer{reply: echo}, st, values("a"))
	if _, err := r.do(t); err != nil {
		t.Fatal(err)
	}
	model := llm.Model{Name: "m", Digest: "d"}
	rec := func(in string) record.Record {
		return record.Record{Pos: 1, Fields: []record.Field{{Name: "id", Value: record.Text("id1")}, {Name: "in", Value: record.Text(in)}}}
	}
	now := time.Now()
	other := func(from, to string) *job.Job {
		src := strings.Replace(`
name: test
version: 1
input: [in]
prompt: "Value: {{ .in }}"
schema: {type: object, properties: {out: {type: string, maxLength: 40}}, required: [out], additionalProperties: false}
lifetime: 30d
`, from, to, 1)
		j, err := job.Parse([]byte(src), "test.yaml")
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	tests := []struct {
		name    string
		job     *job.Job
		model   llm.Model
		rec     record.Record
		now     time.Time
		hit     bool
		changed []string
	}{
		{"same", other("", ""), model, rec("a"), now, true, nil},
		{"input", other("", ""), model, rec("b"), now, false, []string{"input in"}},
		{"model", other("", ""), llm.Model{Name: "m", Digest: "e"}, rec("a"), now, false, []string{"model"}},
		{"prompt", other("Value:", "The value:"), model, rec("a"), now, false, []string{"prompt"}},
		{"schema", other("maxLength: 40", "maxLength: 41"), model, rec("a"), now, false, []string{"schema"}},
		{"options", other("lifetime:", "options: {temperature: 0.5}\nlifetime:"), model, rec("a"), now, false, []string{"options"}},
		{"version", other("version: 1", "version: 2"), model, rec("a"), now, false, []string{"job version (1 to 2)"}},
		{"two", other("Value:", "The value:"), model, rec("b"), now, false, []string{"prompt", "input in"}},
		{"expired", other("", ""), model, rec("a"), now.Add(31 * 24 * time.Hour), false, []string{"expired"}},
		{"shorter lifetime", other("30d", "1h"), model, rec("a"), now.Add(2 * time.Hour), false, []string{"expired"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Why(ctx, st, tt.job, tt.model, tt.rec, "in.csv", tt.now)
			if err != nil {
				t.Fatal(err)
			}
			if v.Hit != tt.hit || !cmp.Equal(v.Changed, tt.changed) {
				t.Errorf("hit %v, changed %v (%s); want %v, %v", v.Hit, v.Changed, v.Reason, tt.hit, tt.changed)
			}
		})
	}
}
