package sim_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/llm/sim"
)

// loaded starts a server whose model is in memory.
func loaded(t *testing.T, p sim.Profile) *bench {
	t.Helper()
	b := start(p)
	if r := b.ask(t.Context(), "", ""); r.err != nil || r.Reason != "load" {
		t.Fatalf("load: %v %s", r.err, r.body)
	}
	return b
}

func fixedLength(p sim.Profile, tokens int) sim.Profile {
	p.AnswerTokens = tokens
	return p
}

// The wait for a slot shows in the total alone, as in Ollama; the replies come
// in the order of the requests; the decode rate does not fall.
func TestQueueIsFirstComeFirstServedAndHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := loaded(t, fixedLength(profile(t, "rtx4090").WithSlots(1), 100))
		const n = 5
		done := make(chan int, n)
		replies := make([]*reply, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				replies[i] = b.ask(t.Context(), unique(i, 200), "")
				done <- i
			})
			synctest.Wait() // request i is in the queue
		}
		wg.Wait()
		close(done)
		want := 0
		for i := range done {
			if i != want {
				t.Errorf("reply %d came as number %d", i, want)
			}
			want++
		}
		residual := func(r *reply) int64 { return r.Total - r.Load - r.PromptD - r.EvalD }
		for i := 1; i < n; i++ {
			wait := residual(replies[i]) - residual(replies[0])
			if want := int64(i) * replies[0].Total; wait < want*9/10 || wait > want*11/10 {
				t.Errorf("request %d: hidden wait %v, want about %v", i, time.Duration(wait), time.Duration(want))
			}
			if d := replies[i].EvalD - replies[0].EvalD; d > int64(time.Millisecond) {
				t.Errorf("request %d decodes slower by %v", i, time.Duration(d))
			}
		}
		if st := b.Stats(); st.MaxActive != 1 || st.MaxInFlight != n || st.MaxQueued != n-1 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestSlotsShareTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := loaded(t, fixedLength(profile(t, "rtx4090").WithSlots(3), 50))
		var wg sync.WaitGroup
		for i := range 9 {
			wg.Go(func() { b.ask(t.Context(), unique(i, 100), "") })
		}
		wg.Wait()
		if st := b.Stats(); st.MaxActive != 3 || st.Answered != 9 {
			t.Errorf("stats %+v", st)
		}
	})
}

// An answer that joins another in the middle slows it down from then on, and
// only then.
func TestJoiningSlowsTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fixedLength(profile(t, "rtx4090").WithSlots(2), 1000)
		alone := loaded(t, p).ask(t.Context(), unique(1, 100), "")
		b := loaded(t, p)
		var first, second *reply
		var wg sync.WaitGroup
		wg.Go(func() { first = b.ask(t.Context(), unique(1, 100), "") })
		time.Sleep(time.Duration(alone.Total / 2))
		wg.Go(func() { second = b.ask(t.Context(), unique(2, 100), `,"options":{"num_predict":10}`) })
		wg.Wait()
		if slower := first.Total - alone.Total; slower < int64(10*time.Millisecond) || slower > int64(200*time.Millisecond) {
			t.Errorf("ten tokens beside it cost the other %v", time.Duration(slower))
		}
		if second.Total > int64(500*time.Millisecond) {
			t.Errorf("the short answer took %v", time.Duration(second.Total))
		}
	})
}

func TestPrefixOfASlotIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := loaded(t, fixedLength(profile(t, "t4").WithSlots(2), 10))
		long := unique(1, 2000)
		cold := b.ask(t.Context(), long, "")
		warm := b.ask(t.Context(), long, "")
		changed := b.ask(t.Context(), "X"+long, "")
		if cold.PromptN != warm.PromptN {
			t.Errorf("prompt of %d tokens, then %d: 0.17.4 counts cached ones too", cold.PromptN, warm.PromptN)
		}
		if warm.PromptD*20 > cold.PromptD {
			t.Errorf("the same prompt takes %v, at first %v", time.Duration(warm.PromptD), time.Duration(cold.PromptD))
		}
		if changed.PromptD*2 < cold.PromptD {
			t.Errorf("another beginning takes %v, at first %v", time.Duration(changed.PromptD), time.Duration(cold.PromptD))
		}
		// As in Ollama, a slot with the least in common is taken before an
		// empty one. Two at the same time use both, and both stay warm.
		other := unique(2, 2000)
		for range 2 {
			var wg sync.WaitGroup
			wg.Go(func() { warm = b.ask(t.Context(), long, "") })
			wg.Go(func() { changed = b.ask(t.Context(), other, "") })
			wg.Wait()
		}
		if warm.PromptD*10 > cold.PromptD || changed.PromptD*10 > cold.PromptD {
			t.Errorf("two warm prompts take %v and %v", time.Duration(warm.PromptD), time.Duration(changed.PromptD))
		}
		if st := b.Stats(); st.CachedTokens < 3900 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestLoadOnFirstUseAndUnload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(profile(t, "t4"))
		running := func() int { return len(b.do(t.Context(), "GET", "/api/ps", "").Models) }
		if n := running(); n != 0 {
			t.Errorf("%d models loaded before use", n)
		}
		if r := b.ask(t.Context(), "Hello", ""); time.Duration(r.Load) < 12*time.Second {
			t.Errorf("load of %v", time.Duration(r.Load))
		}
		if n := running(); n != 1 {
			t.Errorf("%d models loaded after use", n)
		}
		if r := b.ask(t.Context(), "Hello again", ""); time.Duration(r.Load) > 100*time.Millisecond {
			t.Errorf("second load of %v", time.Duration(r.Load))
		}
		if r := b.ask(t.Context(), "", `,"keep_alive":0`); r.Reason != "unload" {
			t.Errorf("unload: %s", r.body)
		}
		if n := running(); n != 0 {
			t.Errorf("%d models loaded after unload", n)
		}
		b.ask(t.Context(), "Hello", `,"keep_alive":"1m"`)
		time.Sleep(59 * time.Second)
		if n := running(); n != 1 {
			t.Errorf("dropped before its time")
		}
		time.Sleep(2 * time.Second)
		if n := running(); n != 0 {
			t.Errorf("kept after its time")
		}
		b.ask(t.Context(), "Hello", `,"keep_alive":-1`)
		time.Sleep(1000 * time.Hour)
		if n := running(); n != 1 {
			t.Errorf("dropped though it was to stay")
		}
		if st := b.Stats(); st.Loads != 3 {
			t.Errorf("%d loads", st.Loads)
		}
	})
}

// Two clients with different num_ctx make the model reload back and forth
// (ollama.md section 5).
func TestAnotherContextReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := loaded(t, fixedLength(profile(t, "rtx4090").WithSlots(4), 20))
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				b.ask(t.Context(), unique(i, 50), fmt.Sprintf(`,"options":{"num_ctx":%d}`, 2048*(1+i%2)))
			})
			synctest.Wait()
		}
		wg.Wait()
		if st := b.Stats(); st.Loads != 7 || st.Answered != 6 || st.MaxActive != 1 {
			t.Errorf("stats %+v", st)
		}
		ps := b.do(t.Context(), "GET", "/api/ps", "")
		if len(ps.Models) != 1 || ps.Models[0]["context_length"] != 4096.0 {
			t.Errorf("ps: %s", ps.body)
		}
	})
}

func TestTooManyPendingLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(fixedLength(profile(t, "h100").WithSlots(64), 5))
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[int]int{}
		for i := range 600 {
			wg.Go(func() {
				r := b.ask(t.Context(), unique(i, 20), "")
				mu.Lock()
				defer mu.Unlock()
				got[r.status]++
			})
		}
		wg.Wait()
		if got[200] != 512 || got[503] != 88 {
			t.Errorf("replies by status: %v", got)
		}
	})
}

func TestCancelFreesTheSlotAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := loaded(t, fixedLength(profile(t, "t4").WithSlots(1), 2000))
		for _, after := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, 10 * time.Second} {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				if r := b.ask(ctx, unique(1, 400), ""); !errors.Is(r.err, context.Canceled) {
					t.Errorf("canceled request: %v", r.err)
				}
			})
			wg.Go(func() { // waits in the queue and gives up there
				ctx, cancel := context.WithTimeout(t.Context(), after/2)
				defer cancel()
				if r := b.ask(ctx, unique(2, 400), ""); !errors.Is(r.err, context.DeadlineExceeded) {
					t.Errorf("request that gives up: %v", r.err)
				}
			})
			time.Sleep(after)
			cancel()
			wg.Wait()
			begin := time.Now()
			r := b.ask(t.Context(), unique(3, 10), `,"options":{"num_predict":1}`)
			if took := time.Since(begin); r.status != http.StatusOK || took > 600*time.Millisecond { // the pass under way ends first
				t.Errorf("after %v the next request took %v: %v", after, took, r.err)
			}
		}
		if st := b.Stats(); st.Canceled != 6 || st.Answered != 3 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fixedLength(profile(t, "rtx4060-laptop").WithSlots(1), 100)
		b := loaded(t, p.WithIlls(sim.Ills{Throttle: &sim.Throttle{After: time.Minute, Factor: 0.5}}))
		before := b.ask(t.Context(), unique(1, 50), "")
		time.Sleep(time.Minute)
		after := b.ask(t.Context(), unique(2, 50), "")
		if ratio := float64(after.EvalD) / float64(before.EvalD); ratio < 1.7 || ratio > 2.1 {
			t.Errorf("half the bandwidth makes decoding take %.2f times as long", ratio)
		}
	})
	synctest.Test(t, func(t *testing.T) { // in the middle of an answer
		p := fixedLength(profile(t, "rtx4060-laptop").WithSlots(1), 1000)
		whole := loaded(t, p).ask(t.Context(), unique(1, 50), "").EvalD
		ills := sim.Ills{Throttle: &sim.Throttle{After: 4*time.Second + time.Duration(whole/2), Factor: 0.5}}
		half := loaded(t, p.WithIlls(ills)).ask(t.Context(), unique(1, 50), "").EvalD
		if ratio := float64(half) / float64(whole); ratio < 1.35 || ratio > 1.6 {
			t.Errorf("half the bandwidth for half the time: %.2f times as long", ratio)
		}
	})
}

func TestPartialOffload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fixedLength(profile(t, "rtx4090").WithSlots(1), 100)
		whole := loaded(t, p).ask(t.Context(), unique(1, 50), "")
		b := loaded(t, p.WithIlls(sim.Ills{PartialOffload: 0.25}))
		part := b.ask(t.Context(), unique(1, 50), "")
		if part.EvalD < 4*whole.EvalD {
			t.Errorf("a quarter of the layers in slow memory: %v against %v", time.Duration(part.EvalD), time.Duration(whole.EvalD))
		}
		ps := b.do(t.Context(), "GET", "/api/ps", "").Models[0]
		if size, vram := ps["size"].(float64), ps["size_vram"].(float64); vram > 0.76*size || vram < 0.74*size {
			t.Errorf("size %v, in vram %v", size, vram)
		}
	})
}

func TestSlotsChange(t *testing.T) {
	for _, c := range []struct {
		name     string
		from, to int
		change   sim.SlotsChange
	}{
		{"more, by requests", 1, 4, sim.SlotsChange{AfterRequests: 10, Slots: 4}},
		{"fewer, by requests", 4, 1, sim.SlotsChange{AfterRequests: 10, Slots: 1}},
		{"more, by time", 1, 4, sim.SlotsChange{After: 20 * time.Second, Slots: 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := fixedLength(profile(t, "rtx4060-laptop").WithSlots(c.from), 50)
				b := loaded(t, p.WithIlls(sim.Ills{SlotsChange: &c.change}))
				var wg sync.WaitGroup
				var mu sync.Mutex
				var ends []time.Duration
				begin := time.Now()
				for i := range 60 {
					wg.Go(func() {
						b.ask(t.Context(), unique(i, 50), "")
						mu.Lock()
						defer mu.Unlock()
						ends = append(ends, time.Since(begin))
					})
				}
				wg.Wait()
				early, late := ends[9]-ends[0], ends[59]-ends[50]
				t.Logf("nine replies in %v, at the end in %v", early, late)
				if c.to > c.from && late*3/2 > early || c.to < c.from && early*3/2 > late {
					t.Errorf("from %d to %d slots: nine replies in %v, at the end in %v", c.from, c.to, early, late)
				}
			})
		})
	}
}

func TestSpeedFactor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fixedLength(profile(t, "t4"), 100)
		real := loaded(t, p).ask(t.Context(), unique(1, 300), "")
		begin := time.Now()
		b := loaded(t, p.WithSpeed(100))
		fast := b.ask(t.Context(), unique(1, 300), "")
		if took := time.Since(begin); took > 300*time.Millisecond {
			t.Errorf("load and answer took %v", took)
		}
		if ratio := float64(real.Total) / float64(fast.Total); ratio < 99 || ratio > 101 {
			t.Errorf("%.1f times as fast, want 100", ratio)
		}
		if fast.Response != real.Response {
			t.Error("another answer")
		}
	})
}

// A streamed answer comes token by token, in the time of one that is not.
func TestStreamTakesTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fixedLength(profile(t, "h100"), 64)
		whole := loaded(t, p).ask(t.Context(), unique(1, 100), "")
		b := loaded(t, p)
		begin := time.Now()
		got := readStream(t, b, "/api/generate", fmt.Sprintf(`{"model":"llama3.1:8b","prompt":%q}`, unique(1, 100)))
		if took := time.Since(begin); took < time.Duration(whole.Total)*99/100 || took > time.Duration(whole.Total)*101/100 {
			t.Errorf("streamed in %v, whole in %v", took, time.Duration(whole.Total))
		}
		if len(got.at) != 65 || got.text != whole.Response {
			t.Errorf("%d lines, text as without streaming: %v", len(got.at), got.text == whole.Response)
		}
		step := got.at[1].Sub(got.at[0])
		for i := 2; i < 64; i++ {
			if d := got.at[i].Sub(got.at[i-1]) - step; d > time.Millisecond || d < -time.Millisecond {
				t.Errorf("token %d came %v after the one before, the first ones %v", i, got.at[i].Sub(got.at[i-1]), step)
			}
		}
	})
}

// The pacer's tests simulate hours: 2,000 requests are one timer event or two
// each, and take no real time to speak of (logged, not judged).
func TestTwoThousandRequests(t *testing.T) {
	begin := time.Now()
	var virtual time.Duration
	synctest.Test(t, func(t *testing.T) {
		b := start(profile(t, "rtx4060-laptop").WithSlots(16))
		from := time.Now()
		var wg sync.WaitGroup
		for c := range 24 {
			wg.Go(func() {
				for i := c; i < 2000; i += 24 {
					if r := b.ask(t.Context(), unique(i, 300), ""); r.status != http.StatusOK {
						t.Errorf("request %d: %d %v", i, r.status, r.err)
					}
				}
			})
		}
		wg.Wait()
		virtual = time.Since(from)
		if st := b.Stats(); st.Answered != 2000 || st.MaxInFlight != 24 || st.MaxActive != 16 || st.Repeated != 0 {
			t.Errorf("stats %+v", st)
		}
	})
	t.Logf("%v of virtual time in %v", virtual, time.Since(begin))
}
