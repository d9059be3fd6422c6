package batch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"millrace/internal/llm"
)

// queueServer is a server as a queueing model, in virtual time and without
// goroutines: slots that share each decode step, and a queue before them.
type queueServer struct {
	slots  func(done int) int       // by requests completed
	step   func(active int) float64 // seconds per token of each active request
	tokens func(rnd *rand.Rand) float64
	gap    float64 // seconds between a reply and the next request's arrival
	tell   bool    // the server's reply tells how long it waited
}

type simReq struct {
	left, tokens  float64
	ticket        Ticket
	arrive, start float64
}

// run sends n requests as the pacer allows and returns the seconds it took and
// the most requests that were in flight once the first fifth was done.
func (s queueServer) run(p *Pacer, n int, seed uint64) (seconds float64, peak int) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var now float64
	at := func() time.Time { return time.Unix(0, 0).Add(time.Duration(now * float64(time.Second))) }
	var queue, active []*simReq
	type arrival struct {
		at float64
		r  *simReq
	}
	var coming []arrival
	sent, done, inflight := 0, 0, 0
	for done < n {
		for inflight < p.Limit() && sent < n {
			r := &simReq{tokens: s.tokens(rnd)}
			r.left = r.tokens
			r.ticket = p.Sent(at())
			coming = append(coming, arrival{now + s.gap, r})
			sent++
			inflight++
			peak = max(peak, inflight)
		}
		for len(active) < s.slots(done) && len(queue) > 0 {
			r := queue[0]
			queue = queue[1:]
			r.start = now
			active = append(active, r)
		}
		next := math.Inf(1)
		for _, a := range coming {
			next = min(next, a.at)
		}
		step := s.step(max(len(active), 1))
		for _, r := range active {
			next = min(next, now+r.left*step)
		}
		dt := next - now
		now = next
		for _, r := range active {
			r.left -= dt / step
		}
		k := 0
		for _, a := range coming {
			if a.at <= now+1e-12 {
				a.r.arrive = now
				queue = append(queue, a.r)
			} else {
				coming[k] = a
				k++
			}
		}
		coming = coming[:k]
		k = 0
		for _, r := range active {
			if r.left > 1e-9 {
				active[k] = r
				k++
				continue
			}
			done++
			inflight--
			o := Outcome{Work: r.tokens}
			if s.tell {
				w := time.Duration((r.start - r.arrive) * float64(time.Second))
				o.Wait = &w
			}
			p.Done(at(), r.ticket, o)
		}
		active = active[:k]
	}
	return now, peak
}

// laptop is an RTX 4060 laptop with an 8B model: weights once per step, then a
// little for each sequence.
func laptop(active int) float64 { return 0.0205 + 0.0006*float64(active) }

// hostBound is a server whose sampling is serial: parallel slots give little.
func hostBound(active int) float64 { return 0.0038 + 0.0031*float64(active) }

func fixedTokens(n float64) func(*rand.Rand) float64 { return func(*rand.Rand) float64 { return n } }

func spreadTokens(r *rand.Rand) float64 { return 20 + math.Floor(r.ExpFloat64()*80) }

func slots(n int) func(int) int { return func(int) int { return n } }

func TestPacerFindsTheKnee(t *testing.T) {
	t.Parallel()
	type server struct {
		name  string
		slots func(int) int
		knee  int
		step  func(int) float64
		least float64
	}
	var servers []server
	for _, n := range []int{1, 2, 3, 4, 6, 8, 12, 16, 32} {
		servers = append(servers, server{fmt.Sprintf("%d slots", n), slots(n), n, laptop, 0.95})
	}
	servers = append(servers,
		server{"host bound, 8 slots", slots(8), 8, hostBound, 0.95},
		server{"4 then 16 slots", func(done int) int {
			if done < 1000 {
				return 4
			}
			return 16
		}, 16, laptop, 0.95},
		server{"16 then 4 slots", func(done int) int {
			if done < 1000 {
				return 16
			}
			return 4
		}, 16, laptop, 0.95},
	)
	for _, s := range servers {
		for _, tokens := range []struct {
			name string
			f    func(*rand.Rand) float64
		}{{"equal", fixedTokens(100)}, {"spread", spreadTokens}} {
			for _, tell := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/tell=%v", s.name, tokens.name, tell), func(t *testing.T) {
					t.Parallel()
					q := queueServer{slots: s.slots, step: s.step, tokens: tokens.f, gap: 0.002, tell: tell}
					best, bestAt := math.Inf(1), 0
					for _, c := range []int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64} {
						if d, _ := q.run(FixedPacer(c), 2000, 7); d < best {
							best, bestAt = d, c
						}
					}
					p := NewPacer(0)
					d, peak := q.run(p, 2000, 7)
					t.Logf("best fixed %d: %.1f s; auto %.1f s = %.3f of it; peak %d, settled %+v", bestAt, best, d, best/d, peak, p.Knee())
					if ratio := best / d; ratio < s.least {
						t.Errorf("auto gives %.3f of the best fixed rate, want at least %.2f", ratio, s.least)
					}
					if peak > 2*s.knee {
						t.Errorf("%d requests in flight at a server with a knee of %d", peak, s.knee)
					}
				})
			}
		}
	}
}

func TestPacerBacksOff(t *testing.T) {
	t.Parallel()
	for _, kind := range []llm.ErrorKind{llm.Busy, llm.Timeout, llm.Unreachable} {
		p := NewPacer(0)
		p.to(16, paceHold)
		now := time.Unix(0, 0)
		tickets := make([]Ticket, 16)
		for i := range tickets {
			tickets[i] = p.Sent(now)
		}
		for i := range tickets {
			p.Done(now.Add(time.Duration(i)*time.Millisecond), tickets[i], Outcome{Err: kind})
		}
		if l := p.Limit(); l >= 16 || l < 8 {
			t.Errorf("%s: 16 refusals at once led to %d in flight, want one step back from 16", kind, l)
		}
	}
	p := NewPacer(0)
	for range 20 {
		p.Done(time.Unix(1, 0), p.Sent(time.Unix(0, 0)), Outcome{Err: llm.Busy})
	}
	if p.Limit() != 1 {
		t.Errorf("after many refusals %d in flight, want 1", p.Limit())
	}
}
