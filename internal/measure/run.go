package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"millrace/internal/llm"
)

// Run measures a model on a server as planned. Questions are its own; nothing
// on the server is changed, but a model that was not loaded will be.
//
// It returns the trials in the order in which they were sent, in case of an
// error those so far: the error says why it could not go on. A server that is
// a Streamer tells more than one that is not. What could not be measured is a
// trial with Skipped.
func Run(ctx context.Context, server llm.Server, model string, plan Plan, hooks Hooks) ([]Trial, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	r := &runner{
		server: server, model: model, plan: plan.withDefaults(), hooks: hooks,
		info: server.Info(), epoch: time.Now(),
	}
	err := r.run(ctx)
	return r.trials, err
}

type runner struct {
	server llm.Server
	model  string
	plan   Plan
	hooks  Hooks
	info   llm.Info
	epoch  time.Time

	speed    speed
	end      time.Time // of the budget; zero without one
	weight   float64   // of the phases still to come
	failures int       // one after the other

	mu     sync.Mutex
	trials []Trial
	next   int // sequence
}

// Causes of a request's end that are ours.
var (
	errLevel = errors.New(CutLevel)
	errTime  = errors.New(CutTime)
	errOver  = errors.New("budget is spent") // ends a run early, and is no failure
)

func (r *runner) run(ctx context.Context) error {
	if err := r.hooks.around(ctx, Step{PhaseWarmUp, 1}, func() error { return r.warmUp(ctx) }); err != nil {
		return fmt.Errorf("warming up model %q: %w", r.model, err)
	}
	if b := r.plan.Budget; b > 0 {
		now := time.Now()
		r.end = r.epoch.Add(b)
		if half := now.Add(b / 2); r.end.Before(half) {
			r.end = half
		}
		// Estimates are not perfect: a tenth over is allowed before a request
		// is cut.
		c, cancel := context.WithDeadlineCause(ctx, r.end.Add(b/10), errTime)
		defer cancel()
		if err := r.phases(c); err != nil && !errors.Is(err, errOver) {
			return err
		}
	} else if err := r.phases(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil || !r.plan.Reload {
		return err
	}
	return r.reload(ctx) // it was asked for by name: outside the budget
}

func (r *runner) phases(ctx context.Context) error {
	p := r.plan
	load := p.Load
	if load.Name == "" {
		load = several
	}
	r.weight = 0
	var steps []func(context.Context) error
	add := func(wanted bool, weight float64, f func(context.Context, time.Duration) error) {
		if !wanted {
			return
		}
		r.weight += weight
		steps = append(steps, func(ctx context.Context) error {
			share := time.Duration(0)
			if !r.end.IsZero() {
				share = max(shareOf(time.Until(r.end), weight, r.weight), 1)
			}
			r.weight -= weight
			return f(ctx, share)
		})
	}
	add(len(p.Scenarios) > 0, weightSingle, func(ctx context.Context, share time.Duration) error {
		fits, err := r.singles(ctx, share)
		for _, f := range fits {
			if f.Name == load.Name {
				load = f.Scenario
			}
		}
		return err
	})
	levels := func() {
		add(len(p.Concurrency) > 0, weightSeveral, func(ctx context.Context, share time.Duration) error {
			return r.levels(ctx, load, share)
		})
	}
	pairs := func() {
		add(len(p.Concurrency) > 0 || p.Schema, weightPairs, func(ctx context.Context, share time.Duration) error {
			if load.Name == several.Name {
				load = fitSeveral(load, r.speed)
			}
			return r.pairs(ctx, &load, share)
		})
	}
	// Several requests at once come last, as there is no end to them; but
	// where the single ones have measured already what they are compared with,
	// time is short, and a queue is the first thing to know.
	if slices.ContainsFunc(p.Scenarios, func(s Scenario) bool { return s.Name == load.Name }) {
		levels()
		add(p.Prefix, weightPrefix, r.prefix)
		pairs()
	} else {
		pairs()
		add(p.Prefix, weightPrefix, r.prefix)
		levels()
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// question is what to ask, and under which name.
type question struct {
	phase    Phase
	variant  string
	scenario string
	clients  int // requests at once
	client   int
	prompt   string // "" for one of its own
	tokens   int    // length of that
	answer   int
}

func single(phase Phase, variant string, sc Scenario) question {
	return question{phase: phase, variant: variant, scenario: sc.Name, clients: 1, tokens: sc.PromptTokens, answer: sc.AnswerTokens}
}

// ask makes one request and records it. It never waits longer than the context.
func (r *runner) ask(ctx context.Context, q question) Trial {
	r.mu.Lock()
	n := r.next
	r.next++
	r.trials = append(r.trials, Trial{Run: r.plan.Run, Sequence: n}) // its place, in the order of sending
	r.mu.Unlock()
	t, req := r.prepare(q, n)
	start := time.Now()
	t.StartedAt, t.AtMs = start, ms(start.Sub(r.epoch))
	var arrivals []time.Duration
	var reply llm.Reply
	var err error
	if s, ok := r.server.(llm.Streamer); ok {
		reply, err = s.Stream(ctx, req, func(string) error {
			arrivals = append(arrivals, time.Since(start))
			return nil
		})
	} else {
		reply, err = r.server.Ask(ctx, req)
	}
	wall := time.Since(start)
	switch cause := context.Cause(ctx); {
	case err == nil:
		t.replied(reply, arrivals)
	case errors.Is(cause, errLevel), errors.Is(cause, errTime):
		t.Cut, t.E2EMs = cause.Error(), new(ms(wall))
		if k := len(arrivals); k > 0 {
			t.arrived(&arrivals[0], &arrivals[k-1], arrivals)
		}
	default:
		t.E2EMs, t.ErrorKind, t.Error = new(ms(wall)), llm.KindOf(err), err.Error()
		if t.ErrorKind == "" {
			t.ErrorKind = llm.Failed
		}
	}
	r.record(n, t)
	return t
}

func (r *runner) prepare(q question, n int) (Trial, llm.Request) {
	text := q.prompt
	if text == "" {
		ask := askReport
		if q.scenario == several.Name || q.variant == VariantSchema {
			ask = askList
		}
		text = prompt(r.plan.Run, n, q.tokens, ask)
	}
	req := llm.Request{Model: r.model, Messages: []llm.Message{{Role: llm.User, Content: text}}}
	if q.variant == VariantSchema {
		req.Schema = listSchema
	}
	req.MaxTokens, req.Temperature, req.Seed = &q.answer, new(0.8), new(int64(n)+1)
	req.Think = r.plan.Think
	return Trial{
		Run: r.plan.Run, Sequence: n, Phase: q.phase, Variant: q.variant, Scenario: q.scenario,
		Concurrency: q.clients, Client: q.client, TargetTokens: q.answer,
		Model: r.model, Server: r.info.Kind, ServerVersion: r.info.Version, Simulated: r.info.Simulated,
	}, req
}

// record puts a trial in its place and hands it on.
func (r *runner) record(n int, t Trial) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.trials) - 1; i >= 0; i-- {
		if r.trials[i].Sequence == n {
			r.trials[i] = t
			break
		}
	}
	if r.hooks.Trial != nil {
		r.hooks.Trial(t)
	}
}

// skip records that something was not measured.
func (r *runner) skip(q question, format string, args ...any) {
	r.mu.Lock()
	n := r.next
	r.next++
	r.trials = append(r.trials, Trial{Sequence: n})
	r.mu.Unlock()
	t, _ := r.prepare(q, n)
	t.StartedAt, t.AtMs = time.Now(), ms(time.Since(r.epoch))
	t.Skipped = fmt.Sprintf(format, args...)
	r.record(n, t)
}

// after decides what a trial means for the run: nil to go on, errOver when the
// time is spent, an error to end it. drop is that the same question need not
// be asked again.
func (r *runner) after(ctx context.Context, t Trial) (drop bool, err error) {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errTime) {
			return true, errOver
		}
		return true, ctx.Err()
	}
	if t.ErrorKind == "" {
		r.failures = 0
		return false, nil
	}
	r.failures++
	switch {
	case r.failures >= 3:
		return true, &llm.Error{Kind: t.ErrorKind, Message: "server no longer answers: " + t.Error}
	case !t.ErrorKind.Retryable():
		return true, nil
	}
	return false, wait(ctx, time.Duration(r.failures)*300*time.Millisecond)
}

// wait is a pause that the context ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), errTime) {
			return errOver
		}
		return ctx.Err()
	}
}

// fits reports whether something that takes so long still has a place.
func (r *runner) fits(end time.Time, d time.Duration) bool {
	return end.IsZero() || !time.Now().Add(d).After(end)
}

// until is the end of a share; zero without a budget.
func (r *runner) until(share time.Duration) time.Time {
	if r.end.IsZero() {
		return time.Time{}
	}
	return time.Now().Add(share)
}

// Lengths of the first request: it is there to load the model, not to wait for.
const (
	warmPrompt = 60
	warmAnswer = 8
)

// warmUp loads the model, waits while the server is still loading it, and asks
// once more in the form of the trials if that costs little: the first prompts
// after a load find kernels not yet compiled and memory not yet mapped.
func (r *runner) warmUp(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, r.plan.LoadLimit)
	defer cancel()
	for {
		t := r.ask(limited, question{phase: PhaseWarmUp, clients: 1, tokens: warmPrompt, answer: warmAnswer})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case t.ErrorKind == "":
			r.speed.saw(t, warmPrompt)
			return r.warmUpMore(ctx, t)
		case t.ErrorKind != llm.Loading && t.ErrorKind != llm.Busy || limited.Err() != nil:
			return &llm.Error{Kind: t.ErrorKind, Message: t.Error}
		}
		if err := wait(limited, time.Second); err != nil {
			return &llm.Error{Kind: t.ErrorKind, Message: t.Error}
		}
	}
}

func (r *runner) warmUpMore(ctx context.Context, first Trial) error {
	cost := r.speed.of(short)
	// A load that the server does not tell of may be in that figure.
	if b := r.plan.Budget; b > 0 && first.ServerLoadMs != nil && cost > b/16 {
		return nil
	}
	if b := r.plan.Budget; b > 0 {
		c, cancel := context.WithTimeoutCause(ctx, b/4, errTime)
		defer cancel()
		ctx = c
	}
	t := r.ask(ctx, single(PhaseWarmUp, VariantPlain, short))
	if err := ctx.Err(); err != nil && t.Cut == "" {
		return err
	}
	r.speed.saw(t, short.PromptTokens)
	return nil
}

// singles asks all scenarios one request at a time, in turn, until each is
// known or the time is spent. It returns them with the lengths used.
func (r *runner) singles(ctx context.Context, share time.Duration) (fits []fitted, err error) {
	fits, out := fit(r.plan.Scenarios, r.speed, share, r.plan.Min)
	for _, o := range out {
		r.skip(single(PhaseSingle, VariantPlain, o.Scenario), "%s", o.why)
	}
	end := r.until(share)
	err = r.hooks.around(ctx, Step{PhaseSingle, 1}, func() error {
		done := make([]bool, len(fits))
		rates := make([][]float64, len(fits))
		asked := make([]int, len(fits))
		for left := len(fits); left > 0; {
			for i, f := range fits {
				if done[i] {
					continue
				}
				limit := end
				if asked[i] < r.plan.Min {
					limit = r.end // the least that was promised may run over its share
				}
				cost := r.speed.of(f.Scenario)
				// A first answer is tried whatever it is thought to take: an
				// estimate is no reason to know nothing.
				if (asked[i] > 0 || i > 0) && !r.fits(limit, cost) {
					if asked[i] == 0 {
						r.skip(single(PhaseSingle, VariantPlain, f.Scenario), "the time was spent")
					}
					done[i] = true
					left--
					continue
				}
				t := r.ask(ctx, single(PhaseSingle, VariantPlain, f.Scenario))
				asked[i]++
				drop, err := r.after(ctx, t)
				if err != nil {
					return err
				}
				r.speed.saw(t, f.PromptTokens)
				if v, ok := rate(t); ok {
					rates[i] = append(rates[i], v)
				}
				if drop || f.once || asked[i] >= r.plan.Max ||
					len(rates[i]) >= r.plan.Min && NewEstimate(rates[i]).Known(r.plan.Within) {
					done[i] = true
					left--
				}
			}
		}
		return nil
	})
	return fits, err
}

// rate is a trial's tokens per second as the repetitions are judged by: from
// the first to the last token, or end to end where that is not known.
func rate(t Trial) (float64, bool) {
	if !t.Good() {
		return 0, false
	}
	if t.TokensPerS != nil {
		return *t.TokensPerS, true
	}
	if n, _ := t.tokens(); n > 0 && *t.E2EMs > 0 {
		return float64(n) * 1000 / *t.E2EMs, true
	}
	return 0, false
}

// pairs asks the scenario of several requests one at a time, with and without
// a schema in turn. Without is also what several requests are compared with;
// where the single scenarios have measured it already, it is not asked again.
func (r *runner) pairs(ctx context.Context, load *Scenario, share time.Duration) error {
	have := len(baseline(r.trials, load.Name, load.AnswerTokens)) >= r.plan.Min
	times := r.plan.Min
	if share > 0 {
		// One token with a schema may take as long as several without; the
		// first such trial tells.
		for load.Name == several.Name && load.AnswerTokens > load.Least && 2*time.Duration(times)*r.speed.of(*load) > share {
			load.AnswerTokens = max(load.AnswerTokens-4, load.Least)
		}
	}
	end := r.until(share)
	return r.hooks.around(ctx, Step{PhaseConcurrency, 1}, func() error {
		plain, schema := !have, r.plan.Schema
		withSchema := r.speed.of(*load)
		var rates [2][]float64
		for i := 0; (plain || schema) && i < r.plan.Max; i++ {
			if plain {
				if i > 0 && !r.fits(end, r.speed.of(*load)) {
					break
				}
				t := r.ask(ctx, single(PhaseConcurrency, VariantPlain, *load))
				drop, err := r.after(ctx, t)
				if err != nil {
					return err
				}
				r.speed.saw(t, load.PromptTokens)
				if v, ok := rate(t); ok {
					rates[0] = append(rates[0], v)
				}
				plain = !drop
			}
			if schema {
				q := single(PhaseConcurrency, VariantSchema, *load)
				if !r.fits(end, withSchema) && (i > 0 || !r.fits(r.end, 3*withSchema)) {
					if i == 0 {
						r.skip(q, "there was no time for it")
					}
					schema = false
					continue
				}
				t := r.ask(ctx, q)
				drop, err := r.after(ctx, t)
				if err != nil {
					return err
				}
				if t.Good() {
					withSchema = time.Duration(*t.E2EMs * float64(time.Millisecond))
				}
				if v, ok := rate(t); ok {
					rates[1] = append(rates[1], v)
				}
				schema = !drop
			}
			known := func(have []float64) bool {
				return len(have) >= times && NewEstimate(have).Known(r.plan.Within)
			}
			if (!plain || known(rates[0])) && (!schema || known(rates[1])) {
				return nil
			}
		}
		return nil
	})
}

// How long a number of requests is kept up: a quarter of the time there is for
// such, within these bounds.
const (
	levelLeast = time.Second
	levelMost  = 5 * time.Second
)

// rounds is how many requests each client makes at least: the first of them
// all arrive together, which is not how it goes on.
const rounds = 2

// mostRounds bounds what a server is asked that answers at once.
const mostRounds = 24

// levels asks rising numbers of requests at once.
func (r *runner) levels(ctx context.Context, load Scenario, share time.Duration) error {
	end := r.until(share)
	for i, n := range r.plan.Concurrency {
		q := question{phase: PhaseConcurrency, scenario: load.Name, clients: n, tokens: load.PromptTokens, answer: load.AnswerTokens}
		curve := newCurve(r.trials)
		if !r.plan.All {
			if why := enough(curve); why != "" {
				r.skip(q, "%s", why)
				return nil
			}
		}
		keep := levelMost
		if !end.IsZero() {
			keep = min(max(time.Until(end)/4, levelLeast), levelMost)
		}
		cost := max(levelCost(curve, n, r.speed.of(load), load.AnswerTokens), keep)
		limit := end
		if i == 0 {
			limit = r.end // two at once tell of a queue: worth other phases' time
		}
		if !r.fits(limit, cost) {
			r.skip(q, "%d requests at once would take about %.0f s; that was too long for this run", n, cost.Seconds())
			return nil
		}
		failed := false
		err := r.hooks.around(ctx, Step{PhaseConcurrency, n}, func() error {
			var err error
			failed, err = r.level(ctx, q, keep)
			return err
		})
		if err != nil {
			return err
		}
		if failed {
			if i+1 < len(r.plan.Concurrency) {
				q.clients = r.plan.Concurrency[i+1]
				r.skip(q, "requests failed when %d were asked at once", n)
			}
			return nil
		}
	}
	return nil
}

// levelCost is how long a level will take if more requests give no more
// tokens: until the first client has made its rounds. It is never less than
// rounds of what one request takes.
func levelCost(c Curve, n int, one time.Duration, answer int) time.Duration {
	best := 0.0
	for _, l := range c.Levels {
		best = max(best, l.TokensPerS)
	}
	cost := one * time.Duration(n*(rounds-1)+1)
	if best > 0 {
		tokens := float64((n*(rounds-1) + 1) * answer)
		cost = time.Duration(tokens / best * float64(time.Second))
	}
	return max(cost, rounds*one)
}

// level keeps q.clients requests going until the first client has had its
// rounds and the time is up. What is then under way is given a little time to
// end and cut off: it is no longer under the load that is measured.
func (r *runner) level(parent context.Context, q question, keep time.Duration) (failed bool, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	start := time.Now()
	var wg sync.WaitGroup
	var once sync.Once
	over := make(chan time.Duration, 1) // how long to wait for the others
	ended := make(chan struct{})
	end := func(last Trial) {
		once.Do(func() {
			close(ended)
			over <- max(time.Duration(or(last.E2EMs, 0)*0.15*float64(time.Millisecond)), 50*time.Millisecond)
		})
	}
	var mu sync.Mutex
	var bad *Trial
	for c := range q.clients {
		wg.Go(func() {
			q := q
			q.client = c
			for made := 1; ; made++ {
				t := r.ask(ctx, q)
				if t.ErrorKind != "" {
					mu.Lock()
					bad = &t
					mu.Unlock()
				}
				if !t.Good() || made >= rounds && time.Since(start) >= keep || made >= mostRounds {
					end(t)
					return
				}
				select {
				case <-ended:
					return
				default:
				}
			}
		})
	}
	all := make(chan struct{})
	go func() {
		wg.Wait()
		close(all)
	}()
	grace := time.NewTimer(<-over)
	defer grace.Stop()
	select {
	case <-all:
	case <-grace.C:
		cancel(errLevel)
		<-all
	}
	if cause := context.Cause(parent); cause != nil {
		if errors.Is(cause, errTime) {
			return false, errOver
		}
		return false, parent.Err()
	}
	if bad == nil {
		return false, nil
	}
	if bad.ErrorKind == llm.Unreachable {
		// Too many at once, or gone? One request tells.
		_, err := r.after(parent, r.ask(parent, single(PhaseWarmUp, VariantPlain, short)))
		return true, err
	}
	return true, nil
}

// prefixAnswer is enough of an answer to see its first token.
const prefixAnswer = 8

// prefix asks a long prompt, and then another that begins alike.
func (r *runner) prefix(ctx context.Context, share time.Duration) error {
	end := r.until(share)
	tokens := fitPrefix(r.speed)
	q := question{phase: PhasePrefix, scenario: "prefix", clients: 1, tokens: tokens, answer: prefixAnswer}
	if cost := r.speed.request(tokens, prefixAnswer); !r.fits(r.end, 2*cost) {
		r.skip(q, "reading a long prompt twice would take about %.0f s; that was too long for this run", 2*cost.Seconds())
		return nil
	}
	return r.hooks.around(ctx, Step{PhasePrefix, 1}, func() error {
		cost := time.Duration(0)
		for i := range min(r.plan.Min, 2) {
			if i > 0 && !r.fits(end, cost) {
				break
			}
			begin := time.Now()
			first, again := twice(r.plan.Run, -1-i, tokens)
			for _, v := range []struct{ variant, prompt string }{{VariantFirst, first}, {VariantAgain, again}} {
				q.variant, q.prompt = v.variant, v.prompt
				drop, err := r.after(ctx, r.ask(ctx, q))
				if err != nil {
					return err
				}
				if drop {
					return nil
				}
			}
			cost = time.Since(begin)
		}
		return nil
	})
}

// reload takes the model out of memory and asks again, twice.
func (r *runner) reload(ctx context.Context) error {
	q := question{phase: PhaseReload, clients: 1, tokens: warmPrompt, answer: warmAnswer}
	u, ok := r.server.(Unloader)
	if !ok {
		r.skip(q, "%v", errNoUnload)
		return nil
	}
	return r.hooks.around(ctx, Step{PhaseReload, 1}, func() error {
		for range 2 {
			if err := u.Unload(ctx, r.model); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				r.skip(q, "%v", err)
				return nil
			}
			if _, err := r.after(ctx, r.ask(ctx, q)); err != nil {
				return err
			}
		}
		return nil
	})
}
