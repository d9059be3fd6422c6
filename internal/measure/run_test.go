package measure_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
	"millrace/internal/llm/llmtest"
	"millrace/internal/llm/ollama"
	"millrace/internal/llm/openai"
	"millrace/internal/llm/sim"
	"millrace/internal/measure"
)

// near fails unless got is within that part of want.
func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within*math.Abs(want)) {
		t.Errorf("%s: %.4g, want %.4g within %.0f %%", what, got, want, 100*within)
	}
}

func codes(s measure.Summary) (list []measure.Code) {
	for _, w := range s.Warnings {
		if !slices.Contains(list, w.Code) {
			list = append(list, w.Code)
		}
	}
	return list
}

// warned fails unless there is a warning of that code.
func warned(t *testing.T, s measure.Summary, c measure.Code) {
	t.Helper()
	if !slices.Contains(codes(s), c) {
		t.Errorf("no warning %s; there are %+v", c, s.Warnings)
	}
}

func find(t *testing.T, s measure.Summary, scenario string) measure.ScenarioSummary {
	t.Helper()
	i := slices.IndexFunc(s.Scenarios, func(x measure.ScenarioSummary) bool { return x.Scenario == scenario })
	if i < 0 {
		t.Fatalf("scenario %q was not measured; skipped: %+v", scenario, s.Skipped)
	}
	return s.Scenarios[i]
}

func run(t *testing.T, server llm.Server, model string, plan measure.Plan) ([]measure.Trial, measure.Summary, time.Duration) {
	t.Helper()
	plan.Run = "test"
	begin := time.Now()
	trials, err := measure.Run(t.Context(), server, model, plan, measure.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	return trials, measure.Summarise(trials), time.Since(begin)
}

// The simulated machines are measured as what they are: the speed, what the
// server leaves out of its own, loading, slots, the queue, the prefix cache.
func TestProfiles(t *testing.T) {
	for _, p := range sim.Profiles() {
		if p.Instant {
			continue
		}
		for _, slots := range []int{1, 4} {
			t.Run(p.Name+map[int]string{1: "/1 slot", 4: "/4 slots"}[slots], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := profile(t, p.Name).WithSlots(slots)
					server, s := simulated(t, p)
					trials, sum, took := run(t, server, p.Model.Name, measure.Full())
					if limit := max(45*time.Second, p.Load+23*time.Second) + 4500*time.Millisecond; took > limit {
						t.Errorf("took %v of %v", took, limit)
					}
					for _, sc := range sum.Scenarios {
						step := 1 / p.Machine.Rate(p.Model.Shape, 1, int(*sc.PromptTokens+*sc.AnswerTokens/2))
						near(t, sc.Scenario+": clock", sc.TokensPerS.Median, 1/step, 0.02)
						// Ollama 0.17.4 leaves sampling out.
						own := 1 / (step - p.Machine.HostPerToken.Seconds())
						near(t, sc.Scenario+": own rate", sc.ServerTokensPerS.Median, own, 0.02)
						near(t, sc.Scenario+": difference", *sc.DifferencePercent, 100*(own*step-1), 0.03)
						near(t, sc.Scenario+": host", *sc.Split.HostMs, 1000*p.Machine.HostPerToken.Seconds()**sc.AnswerTokens, 0.03)
						near(t, sc.Scenario+": rest", *sc.Split.LoadMs+sc.Split.RestMs, 1000*p.Fixed.Seconds(), 0.05)
						if *sc.Split.QueueMs > 2 {
							t.Errorf("%s: %.1f ms of waiting on an idle server", sc.Scenario, *sc.Split.QueueMs)
						}
						if sc.N < 3 && sc.Scenario != "long" {
							t.Errorf("%s: only %d trials", sc.Scenario, sc.N)
						}
					}
					if sum.ColdStart == nil || !sum.ColdStart.ByServer {
						t.Errorf("cold start %+v", sum.ColdStart)
					} else {
						near(t, "load", sum.ColdStart.Ms, 1000*p.Load.Seconds(), 0.02)
					}
					c := sum.Curve
					if c == nil || len(c.Levels) < 3 {
						t.Fatalf("curve %+v, skipped %+v", c, sum.Skipped)
					}
					for i, l := range c.Levels {
						busy := min(slots, l.Clients)
						near(t, "served", *l.Served, float64(busy), 0.2)
						if *l.Streams != busy {
							t.Errorf("%d at once: %d answers came together, want %d", l.Clients, *l.Streams, busy)
						}
						if i > 0 && l.Clients <= slots && l.TokensPerS < 1.1*c.Levels[i-1].TokensPerS {
							t.Errorf("%d at once: %.1f tok/s after %.1f", l.Clients, l.TokensPerS, c.Levels[i-1].TokensPerS)
						}
						if l.Rate.N >= 3 {
							near(t, "rate by Little's law", l.Rate.Median, l.TokensPerS, 0.06)
						}
					}
					q := c.Queue
					switch {
					case slots == 1 && (q == nil || !q.Serialised || q.Slots != 1 || q.Clients < 4 || *c.Knee != 1):
						t.Errorf("one slot: queue %+v, knee %v", q, c.Knee)
					case slots == 1:
						near(t, "time per token in the queue", *q.DecodeRatio, 1, 0.02)
					case c.Levels[len(c.Levels)-1].Clients > slots && (q == nil || q.Serialised || q.Slots != slots || *c.Knee != slots):
						t.Errorf("%d slots: queue %+v, knee %v", slots, q, c.Knee)
					case c.Levels[len(c.Levels)-1].Clients <= slots && (q != nil || !c.Growing || c.Knee != nil):
						t.Errorf("%d slots and no more at once: queue %+v, growing %v", slots, q, c.Growing)
					}
					if e := sum.Prefix; e == nil || e.Reused == nil || !*e.Reused {
						t.Errorf("prefix %+v", e)
					} else {
						near(t, "saved by the prefix", *e.SavedPercent, 90, 0.05)
					}
					if sum.Schema == nil || sum.Schema.N == 0 {
						t.Errorf("schema %+v", sum.Schema)
					} else {
						near(t, "schema", *sum.Schema.Factor, 1, 0.01)
					}
					for _, code := range codes(sum) {
						if code != measure.Shortened && code != measure.TooFew {
							t.Errorf("false alarm: %+v", sum.Warnings)
						}
					}
					if sum.Simulated != p.Name || sum.Failed != 0 {
						t.Errorf("simulated %q, %d failed", sum.Simulated, sum.Failed)
					}
					if st := s.Stats(); st.Repeated != 0 || st.Loads != 1 {
						t.Errorf("%d questions were asked twice, the model was loaded %d times", st.Repeated, st.Loads)
					}
					for i, tr := range trials {
						if tr.Sequence != i {
							t.Fatalf("trial %d has number %d", i, tr.Sequence)
						}
					}
				})
			})
		}
	}
}

// A first look is done in time and finds the speed and the queue.
func TestQuick(t *testing.T) {
	for _, slots := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			p := profile(t, "rtx4060-laptop").WithSlots(slots)
			server, _ := simulated(t, p)
			_, sum, took := run(t, server, p.Model.Name, measure.Quick())
			if took > 9*time.Second {
				t.Errorf("took %v", took)
			}
			near(t, "clock", find(t, sum, "short").TokensPerS.Median, 45.2, 0.02)
			c := sum.Curve
			if c == nil || len(c.Levels) < 2 || (slots == 1) != (c.Queue != nil && c.Queue.Serialised) {
				t.Errorf("%d slots: curve %+v", slots, c)
			}
		})
	}
}

// Fixed repetitions and numbers, no budget: what bench asks for.
func TestWithoutBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := profile(t, "rtx4090").WithSlots(4)
		server, _ := simulated(t, p)
		plan := measure.Plan{Scenarios: measure.Scenarios(), Min: 7, Max: 7, Concurrency: []int{1, 2, 3, 8, 16}, All: true}
		_, sum, _ := run(t, server, p.Model.Name, plan)
		for _, name := range []string{"short", "medium", "long"} {
			sc := find(t, sum, name)
			if sc.N != 7 || sc.TokensPerS.Method != measure.OrderStatistics {
				t.Errorf("%s: %d trials, %+v", name, sc.N, sc.TokensPerS)
			}
		}
		var numbers []int
		for _, l := range sum.Curve.Levels {
			numbers = append(numbers, l.Clients)
		}
		if want := []int{1, 2, 3, 8, 16}; !slices.Equal(numbers, want) {
			t.Errorf("levels %v, want %v; skipped %+v", numbers, want, sum.Skipped)
		}
		if sum.Prefix != nil || sum.Schema != nil || sum.Skipped != nil {
			t.Errorf("what was not asked for: %+v %+v %+v", sum.Prefix, sum.Schema, sum.Skipped)
		}
		if len(sum.Warnings) != 0 {
			t.Errorf("warnings %+v", sum.Warnings)
		}
	})
}

// A server that gives no times of its own: the clock says what it can.
func TestWithoutServerTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := profile(t, "rtx4060-laptop").WithSlots(1)
		p.OpenAIOnly = true
		server, _ := simulated(t, p)
		_, sum, _ := run(t, server, p.Model.Name, measure.Full())
		sc := find(t, sum, "medium")
		near(t, "clock", sc.TokensPerS.Median, 45.05, 0.02)
		if sc.ServerTokensPerS != nil || sc.DifferencePercent != nil || sc.PromptTokensPerS != nil {
			t.Errorf("the server said nothing of its times: %+v", sc)
		}
		sp := sc.Split
		if sp.LoadMs != nil || sp.PrefillMs != nil || sp.HostMs != nil || sp.TransportMs != nil || sp.QueueMs != nil || !sp.DecodeByClock {
			t.Errorf("split %+v", sp)
		}
		near(t, "parts and the whole", *sp.DecodeMs+sp.RestMs, sp.E2EMs, 1e-6)
		if sum.ColdStart == nil || sum.ColdStart.ByServer {
			t.Errorf("cold start %+v", sum.ColdStart)
		} else {
			near(t, "load", sum.ColdStart.Ms, 4000, 0.03)
		}
		last := sum.Curve.Levels[len(sum.Curve.Levels)-1]
		if last.Split.QueueBy != measure.QueueAtLeast || sum.Curve.Queue == nil {
			t.Errorf("level %+v, queue %+v", last, sum.Curve.Queue)
		}
		if e := sum.Prefix; e.Reused == nil || !*e.Reused || e.FirstPrefillMs != nil {
			t.Errorf("prefix %+v", e)
		}
	})
}

// A card that throttles in the middle is seen to.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := profile(t, "rtx4090").WithIlls(sim.Ills{Throttle: &sim.Throttle{After: 18 * time.Second, Factor: 0.5}})
		server, _ := simulated(t, p)
		plan := measure.Plan{Scenarios: measure.Scenarios(), Min: 10, Max: 10}
		_, sum, _ := run(t, server, p.Model.Name, plan)
		warned(t, sum, measure.SlowedDown)
		if sum.DriftPercent == nil || *sum.DriftPercent > -30 {
			t.Errorf("drift %v", sum.DriftPercent)
		}
	})
}

// On a machine that gives two tokens a second there is still an answer, in
// time, and what had no place is named.
func TestVerySlow(t *testing.T) {
	for _, plan := range []measure.Plan{measure.Full(), measure.Quick()} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(1)
			m.token, m.read = 500*time.Millisecond, 40*time.Millisecond
			_, sum, took := run(t, m, "slow", plan)
			if limit := plan.Budget + plan.Budget/2 + plan.Budget/5; took > limit {
				t.Errorf("took %v of %v", took, limit)
			}
			sc := find(t, sum, "short")
			near(t, "clock", sc.TokensPerS.Median, 2, 0.01)
			if i := slices.IndexFunc(sum.Skipped, func(o measure.Omission) bool { return o.Phase == measure.PhaseSingle }); i < 0 {
				t.Errorf("nothing was left out: %+v", sum.Skipped)
			}
			if plan.Budget < 10*time.Second {
				warned(t, sum, measure.CutOff)
			}
		})
	}
}

// Each ill of a machine gives its warning or its number, and nothing else.
func TestIlls(t *testing.T) {
	for _, c := range []struct {
		name   string
		server func(*machine) llm.Server
		plan   func(*measure.Plan)
		codes  []measure.Code
		check  func(*testing.T, measure.Summary)
	}{
		{name: "healthy", check: func(t *testing.T, s measure.Summary) {
			near(t, "clock", find(t, s, "long").TokensPerS.Median, 50, 0.001)
			near(t, "schema", *s.Schema.Factor, 1, 0.001)
			if s.Prefix.Reused == nil || *s.Prefix.Reused {
				t.Errorf("this machine has no prefix cache: %+v", s.Prefix)
			}
			if s.ColdStart != nil {
				t.Errorf("the model was there: %+v", s.ColdStart)
			}
			if h := find(t, s, "long").Split.HostMs; h != nil {
				t.Errorf("host work of a server whose figure may hold it: %v", *h)
			}
		}},
		{name: "a schema is dear", server: func(m *machine) llm.Server { m.schema = 4.7; return m }, plan: func(p *measure.Plan) { p.Budget = 0 }, check: func(t *testing.T, s measure.Summary) {
			near(t, "schema", *s.Schema.Factor, 4.7, 0.01)
			if s.Schema.Low == nil || *s.Schema.Low > 4.71 || *s.Schema.High < 4.69 {
				t.Errorf("bounds %v %v", s.Schema.Low, s.Schema.High)
			}
		}},
		{name: "no schemas", server: func(m *machine) llm.Server { m.rejects = llm.BadSchema; return m }, codes: []measure.Code{measure.RequestsFailed}, check: func(t *testing.T, s measure.Summary) {
			if s.Schema == nil || s.Schema.N != 0 || s.Schema.Error == "" || s.Failed != 1 {
				t.Errorf("schema %+v, %d failed", s.Schema, s.Failed)
			}
			if s.Curve == nil || len(s.Curve.Levels) < 3 {
				t.Errorf("the rest was not measured: %+v", s.Curve)
			}
		}},
		{name: "reload in each request", server: func(m *machine) llm.Server {
			m.info.Kind, m.info.Version, m.load = llm.Ollama, "0.32.0", 3*time.Second
			return m
		}, plan: func(p *measure.Plan) { p.Budget = 0; p.Max = 3 }, codes: []measure.Code{measure.ModelLoaded}, check: func(t *testing.T, s measure.Summary) {
			sc := find(t, s, "short")
			near(t, "load", *sc.Split.LoadMs, 3000, 0.01)
			near(t, "clock", sc.TokensPerS.Median, 50, 0.01)
		}},
		{name: "a proxy holds answers back", server: func(m *machine) llm.Server { m.atOnce = true; return m }, codes: []measure.Code{measure.NotStreamed}, check: func(t *testing.T, s measure.Summary) {
			sc := find(t, s, "long")
			if sc.TokensPerS != nil || sc.TTFTMs != nil || sc.EndToEndTokensPerS == nil {
				t.Errorf("%+v", sc)
			}
			near(t, "own", sc.ServerTokensPerS.Median, 50, 0.01)
		}},
		{name: "a proxy holds answers back of a server without times", server: func(m *machine) llm.Server { m.atOnce, m.counts = true, true; return m }, codes: []measure.Code{measure.NotStreamed}},
		{name: "no streaming", server: func(m *machine) llm.Server { return mute{m} }, codes: []measure.Code{measure.NotStreamed}, check: func(t *testing.T, s measure.Summary) {
			sc := find(t, s, "medium")
			if sc.TTFTMs != nil || sc.TokensPerS != nil {
				t.Errorf("%+v", sc)
			}
			near(t, "end to end", sc.EndToEndTokensPerS.Median, 43, 0.1)
			if c := s.Curve; c == nil || len(c.Levels) < 3 {
				t.Errorf("curve %+v", c)
			} else {
				near(t, "no gain", *c.Levels[2].Gain, 1, 0.02)
			}
		}},
		{name: "no counts", server: func(m *machine) llm.Server { m.silent = true; return m }, codes: []measure.Code{measure.NoTokenCounts}, check: func(t *testing.T, s measure.Summary) {
			sc := find(t, s, "long")
			near(t, "pieces per second", sc.TokensPerS.Median, 50, 0.01)
			if !sc.CountedByPieces || sc.PromptTokens != nil {
				t.Errorf("%+v", sc)
			}
		}},
		{name: "answers end early", server: func(m *machine) llm.Server { m.limit = 30; return m }, codes: []measure.Code{measure.EndedEarly}, check: func(t *testing.T, s measure.Summary) {
			near(t, "clock", find(t, s, "long").TokensPerS.Median, 50, 0.01)
			if n := *find(t, s, "long").AnswerTokens; n != 30 {
				t.Errorf("%v tokens", n)
			}
			if slices.ContainsFunc(s.Warnings, func(w measure.Warning) bool { return w.Scenario == "short" }) {
				t.Errorf("short answers were whole: %+v", s.Warnings)
			}
		}},
		{name: "its clock is fast", server: func(m *machine) llm.Server {
			m.info.Kind, m.info.Version, m.skew = llm.Ollama, "0.32.0", 0.1
			return m
		}, codes: []measure.Code{measure.ClocksDiffer}},
		{name: "speed varies", server: func(m *machine) llm.Server { m.jitter = 0.6; return m }, codes: []measure.Code{measure.WideSpread}, check: func(t *testing.T, s measure.Summary) {
			if n := find(t, s, "short").N; n < 4 {
				t.Errorf("%d repetitions of a speed that is not known", n)
			}
		}},
		{name: "somebody else asks too", server: func(m *machine) llm.Server {
			m.stranger = func(n int) time.Duration { return time.Duration(n%4/3) * 2 * time.Second }
			return m
		}, codes: []measure.Code{measure.Waited}},
		{name: "still loading", server: func(m *machine) llm.Server { m.loading = 4; return m }, codes: []measure.Code{measure.RequestsFailed}, check: func(t *testing.T, s measure.Summary) {
			near(t, "clock", find(t, s, "long").TokensPerS.Median, 50, 0.01)
		}},
		{name: "one request fails", server: func(m *machine) llm.Server { m.refusal = map[int]llm.ErrorKind{5: llm.Failed}; return m }, codes: []measure.Code{measure.RequestsFailed}, check: func(t *testing.T, s measure.Summary) {
			if s.Failed != 1 || find(t, s, "medium").N < 3 || find(t, s, "short").N < 3 {
				t.Errorf("%+v", s)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(1)
				var server llm.Server = m
				if c.server != nil {
					server = c.server(m)
				}
				plan := measure.Full()
				if c.plan != nil {
					c.plan(&plan)
				}
				_, sum, took := run(t, server, "model", plan)
				if plan.Budget > 0 && took > 50*time.Second {
					t.Errorf("took %v", took)
				}
				for _, code := range c.codes {
					warned(t, sum, code)
				}
				for _, code := range codes(sum) {
					if !slices.Contains(c.codes, code) && code != measure.Shortened && code != measure.TooFew {
						t.Errorf("false alarm %s: %+v", code, sum.Warnings)
					}
				}
				if c.check != nil {
					c.check(t, sum)
				}
			})
		})
	}
}

// A run that cannot go on keeps what it has and says why it ended.
func TestErrors(t *testing.T) {
	dead := map[int]llm.ErrorKind{}
	for i := 8; i < 500; i++ {
		dead[i] = llm.Unreachable
	}
	for _, c := range []struct {
		name    string
		refusal map[int]llm.ErrorKind
		want    llm.ErrorKind
		trials  int
		text    string
	}{
		{"no such model", map[int]llm.ErrorKind{0: llm.NoModel}, llm.NoModel, 1, `warming up model "model"`},
		{"dies midway", dead, llm.Unreachable, 11, "no longer answers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(1)
				m.refusal = c.refusal
				trials, err := measure.Run(t.Context(), m, "model", measure.Full(), measure.Hooks{})
				if llm.KindOf(err) != c.want || !strings.Contains(err.Error(), c.text) {
					t.Errorf("error %v", err)
				}
				if len(trials) != c.trials {
					t.Errorf("%d trials, want %d", len(trials), c.trials)
				}
				if s := measure.Summarise(trials); s.Failed == 0 {
					t.Errorf("summary %+v", s)
				}
			})
		})
	}
}

// When many at once are too much for a server, one is asked whether it lives.
func TestTooManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := profile(t, "rtx4090").WithSlots(4).WithIlls(sim.Ills{})
		server, _ := simulated(t, p)
		fragile := &crowded{Server: server, most: 3}
		_, sum, _ := run(t, fragile, p.Model.Name, measure.Full())
		warned(t, sum, measure.RequestsFailed)
		if n := len(sum.Curve.Levels); n != 3 || sum.Curve.Levels[2].Failed == 0 {
			t.Errorf("levels %+v", sum.Curve.Levels)
		}
		if !slices.ContainsFunc(sum.Skipped, func(o measure.Omission) bool {
			return o.Concurrency == 8 && strings.Contains(o.Why, "failed")
		}) {
			t.Errorf("skipped %+v", sum.Skipped)
		}
	})
}

// crowded resets the connection when more than so many ask at once.
type crowded struct {
	llm.Server
	most int
	now  chan struct{}
}

func (c *crowded) Stream(ctx context.Context, req llm.Request, piece func(string) error) (llm.Reply, error) {
	if c.now == nil {
		c.now = make(chan struct{}, c.most)
	}
	select {
	case c.now <- struct{}{}:
		defer func() { <-c.now }()
		return c.Server.(llm.Streamer).Stream(ctx, req, piece)
	default:
		return llm.Reply{}, &llm.Error{Kind: llm.Unreachable, Message: "connection reset"}
	}
}

func TestHooksAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(2)
		var log []string
		var seen []measure.Trial
		depth := 0
		hooks := measure.Hooks{
			Before: func(_ context.Context, s measure.Step) {
				depth++
				log = append(log, string(s.Phase))
			},
			After: func(ctx context.Context, _ measure.Step) {
				depth--
				if ctx.Err() != nil {
					t.Error("sampling could not be stopped in order")
				}
			},
			Trial: func(tr measure.Trial) {
				if depth > 1 || depth == 0 && tr.Skipped == "" {
					t.Errorf("a trial in %d steps", depth)
				}
				seen = append(seen, tr)
			},
		}
		trials, err := measure.Run(t.Context(), m, "model", measure.Full(), hooks)
		if err != nil || depth != 0 {
			t.Fatal(err, depth)
		}
		want := []string{"warmup", "single", "concurrency", "prefix", "concurrency", "concurrency"}
		if len(log) < len(want) || !slices.Equal(log[:len(want)], want) {
			t.Errorf("steps %v", log)
		}
		slices.SortFunc(seen, func(a, b measure.Trial) int { return a.Sequence - b.Sequence })
		if diff := cmp.Diff(trials, seen); diff != "" {
			t.Error(diff)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		trials, err = measure.Run(ctx, newMachine(1), "model", measure.Full(), measure.Hooks{})
		if !errors.Is(err, context.DeadlineExceeded) || len(trials) < 5 {
			t.Errorf("%d trials, %v", len(trials), err)
		}
	})
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := profile(t, "t4")
		s := sim.New(p)
		hc := &http.Client{Transport: sim.Transport(s.Handler())}
		o, err := ollama.Open(t.Context(), "http://sim.test", hc)
		if err != nil {
			t.Fatal(err)
		}
		plan := measure.Quick()
		_, sum, _ := run(t, o, p.Model.Name, plan)
		if sum.Reload != nil || s.Stats().Loads != 1 {
			t.Errorf("reloaded without being asked: %+v", sum.Reload)
		}
		plan.Reload = true
		_, sum, _ = run(t, o, p.Model.Name, plan)
		if sum.Reload != nil || !slices.ContainsFunc(sum.Skipped, func(o measure.Omission) bool { return o.Phase == measure.PhaseReload }) {
			t.Errorf("a server that cannot unload: %+v, %+v", sum.Reload, sum.Skipped)
		}
		_, sum, _ = run(t, unloadable{o, hc}, p.Model.Name, plan)
		if sum.Reload == nil || sum.Reload.N != 2 {
			t.Fatalf("reload %+v", sum.Reload)
		}
		near(t, "load", sum.Reload.Ms, 12000, 0.01)
	})
}

// What is asked: new prompts, a fixed length, seeds that differ, and nothing
// that would change the server.
func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(4)
		run(t, m, "model", measure.Full())
		begins, seeds := map[string]bool{}, map[int64]bool{}
		for _, r := range m.seen {
			if r.NumCtx != nil || r.Think != nil || r.Temperature == nil || r.MaxTokens == nil || r.Seed == nil {
				t.Errorf("options %+v", r.Options)
			}
			begins[r.Messages[0].Content[:17]] = true
			seeds[*r.Seed] = true
		}
		if again := 2; len(begins) != len(m.seen)-again {
			t.Errorf("%d of %d prompts begin alike", len(m.seen)-len(begins), len(m.seen))
		}
		if len(seeds) != len(m.seen) {
			t.Errorf("%d seeds for %d requests", len(seeds), len(m.seen))
		}
		first := slices.Clone(m.seen)
		m.seen = nil
		run(t, m, "model", measure.Full())
		if diff := cmp.Diff(first[:20], m.seen[:20]); diff != "" {
			t.Errorf("the same run asks otherwise: %s", diff)
		}
	})
}

// Over HTTP, with the ills of real connections.
func TestFakes(t *testing.T) {
	plan := measure.Plan{
		Scenarios:   []measure.Scenario{{Name: "short", PromptTokens: 60, AnswerTokens: 12, Least: 8}},
		Concurrency: []int{2}, Schema: true, Prefix: true, Max: 3, Budget: 20 * time.Second,
	}
	answer := strings.Repeat("word ", 40)
	full := llmtest.Response{Text: answer, Pause: 200 * time.Microsecond}
	asked := func(after int, then llmtest.Response) func(llm.Request) llmtest.Response {
		calls := make(chan struct{}, 1000)
		return func(llm.Request) llmtest.Response {
			calls <- struct{}{}
			if len(calls) > after {
				return then
			}
			return full
		}
	}
	t.Run("healthy", func(t *testing.T) {
		t.Parallel()
		s, err := ollama.Open(t.Context(), llmtest.NewOllama(t, asked(1000, full)), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, sum, _ := run(t, s, llmtest.Model, plan)
		if sum.Failed != 0 || find(t, sum, "short").N != 3 || sum.Schema.N == 0 || sum.Prefix == nil || sum.Curve == nil {
			t.Errorf("%+v", sum)
		}
	})
	for _, c := range []struct {
		name string
		then llmtest.Response
		want []llm.ErrorKind
	}{
		{"cut in the middle of a stream", llmtest.Response{Text: answer, Cut: 300}, []llm.ErrorKind{llm.Garbled, llm.Unreachable}},
		{"closed before a reply", llmtest.Response{Cut: -1}, []llm.ErrorKind{llm.Unreachable}},
		{"an error in the stream", llmtest.Response{Text: answer, StreamError: "CUDA error: out of memory"}, []llm.ErrorKind{llm.Failed}},
		{"HTTP 500", llmtest.Response{Status: 500, Text: "runner terminated"}, []llm.ErrorKind{llm.Failed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := ollama.Open(t.Context(), llmtest.NewOllama(t, asked(4, c.then)), nil)
			if err != nil {
				t.Fatal(err)
			}
			trials, err := measure.Run(t.Context(), s, llmtest.Model, plan, measure.Hooks{})
			if !slices.Contains(c.want, llm.KindOf(err)) {
				t.Errorf("error %v of kind %q, want %v", err, llm.KindOf(err), c.want)
			}
			sum := measure.Summarise(trials)
			if sum.Failed != 3 || find(t, sum, "short").N < 2 {
				t.Errorf("%d failed, %+v", sum.Failed, sum.Scenarios)
			}
			for _, tr := range trials {
				if strings.Contains(tr.Error, "notes") {
					t.Errorf("an error repeats the prompt: %s", tr.Error)
				}
			}
		})
	}
	t.Run("no usage", func(t *testing.T) {
		t.Parallel()
		var stream strings.Builder
		for range 12 {
			stream.WriteString(`data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}` + "\n\n")
		}
		stream.WriteString(`data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}` + "\n\ndata: [DONE]\n\n")
		s, err := openai.Open(t.Context(), llmtest.NewOpenAI(t, llm.OpenAI, asked(0, llmtest.Response{Body: stream.String()})), nil, "")
		if err != nil {
			t.Fatal(err)
		}
		trials, sum, _ := run(t, s, llmtest.Model, plan)
		for _, tr := range trials {
			if tr.Skipped == "" && tr.Cut == "" && (tr.CompletionTokens != nil || tr.Pieces == nil || *tr.Pieces != 12) {
				t.Errorf("%+v", tr)
			}
		}
		if find(t, sum, "short").PromptTokens != nil {
			t.Errorf("%+v", sum.Scenarios)
		}
		warned(t, sum, measure.NotStreamed) // the whole body comes in one piece
	})
}
