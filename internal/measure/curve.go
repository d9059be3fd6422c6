package measure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Curve is what several requests at once give.
type Curve struct {
	Scenario     string  `json:"scenario"`
	TargetTokens int     `json:"target_tokens"`
	Levels       []Level `json:"levels"` // rising; the first is one request at a time, if measured

	// Knee is the smallest number of requests at once that gives nine tenths
	// of the best; nil when more would have given more still, or when it
	// cannot be told.
	Knee    *int `json:"knee,omitempty"`
	Growing bool `json:"growing"` // the last level still gave more
	// Queue is the signature of a queue, if there is one.
	Queue *Queue `json:"queue,omitempty"`
}

// Level is what one number of requests at once gave.
type Level struct {
	Clients int `json:"clients"`
	N       int `json:"n"` // requests answered in full
	Failed  int `json:"failed,omitempty"`
	Cut     int `json:"cut,omitempty"`

	// TokensPerS is what all requests together got by our clock, while all of
	// them were kept going. Rate is the same from each request that began
	// under way (tokens over time, times the number at once), with its
	// interval.
	TokensPerS float64   `json:"tokens_per_s"`
	Rate       *Estimate `json:"rate,omitempty"`
	// Gain is TokensPerS over that of one at a time.
	Gain *float64 `json:"gain,omitempty"`

	StreamTokensPerS *Estimate `json:"stream_tokens_per_s,omitempty"` // of each answer, from first to last token
	ServerTokensPerS *Estimate `json:"server_tokens_per_s,omitempty"` // the same by the server
	TTFTMs           *Estimate `json:"ttft_ms,omitempty"`             // of requests that began under way
	E2EMs            *Estimate `json:"e2e_ms,omitempty"`              // likewise
	Split            *Split    `json:"split,omitempty"`

	// Served is how many requests were really worked on at once, on average:
	// the number at once less those that waited (Little's law).
	Served *float64 `json:"served,omitempty"`
	// Streams is the most answers that were seen arriving at the same time.
	Streams *int `json:"streams,omitempty"`
}

// Queue is the signature of requests that wait for each other (speed.md section
// 5): an answer that has begun comes about as fast as alone, and the time
// until it begins grows with the number of requests.
type Queue struct {
	Clients int     `json:"clients"` // at which it was seen
	WaitMs  float64 `json:"wait_ms"`
	// Slots is how many requests are worked on at once: the answers that were
	// seen arriving together, or an average without streaming.
	Slots int `json:"slots"`
	// DecodeRatio is the time per token over that of a single request, and
	// FirstTokenRatio likewise the time to the first token.
	DecodeRatio     *float64 `json:"decode_ratio,omitempty"`
	FirstTokenRatio *float64 `json:"first_token_ratio,omitempty"`
	// Serialised is that requests are answered one after the other: no gain,
	// decoding unchanged.
	Serialised bool `json:"serialised"`
}

const (
	plateau    = 0.90 // of the best: as good
	noGain     = 1.05 // over the best before: nothing gained
	waitShare  = 0.20 // of a request's time: requests wait
	serialGain = 1.20
	serialSlow = 1.20 // time per token against a single request
)

// baseline is the single requests of a scenario: what is compared with.
func baseline(trials []Trial, scenario string, target int) []Trial {
	var alone []Trial
	for _, t := range trials {
		if t.Good() && t.Concurrency == 1 && t.Variant == VariantPlain && t.Scenario == scenario && t.TargetTokens == target &&
			(t.Phase == PhaseSingle || t.Phase == PhaseConcurrency) {
			alone = append(alone, t)
		}
	}
	return alone
}

// newCurve reads the curve out of the trials of a run.
func newCurve(trials []Trial) Curve {
	var c Curve
	levels := map[int][]Trial{}
	for _, t := range trials {
		if t.Phase == PhaseConcurrency && t.Skipped == "" && t.Variant == VariantPlain && !t.StartedAt.IsZero() {
			c.Scenario, c.TargetTokens = t.Scenario, t.TargetTokens
			if t.Concurrency > 1 {
				levels[t.Concurrency] = append(levels[t.Concurrency], t)
			}
		}
	}
	if c.Scenario == "" { // nothing yet: the singles may be what will be compared with
		return c
	}
	alone := undisturbed(baseline(trials, c.Scenario, c.TargetTokens))
	if len(alone) > 0 {
		c.Levels = append(c.Levels, newLevel(1, alone, alone))
	}
	var numbers []int
	for n := range levels {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		c.Levels = append(c.Levels, newLevel(n, levels[n], alone))
	}
	c.judge()
	return c
}

// undisturbed leaves out trials during which the model was loaded, unless
// that is all of them.
func undisturbed(trials []Trial) []Trial {
	kept := slices.DeleteFunc(slices.Clone(trials), func(t Trial) bool { return loaded(t, trials) })
	if len(kept) == 0 {
		return trials
	}
	return kept
}

// loaded reports whether the model was loaded during a trial. Finding a model
// that is in memory takes Ollama some 10 to 100 ms.
func loaded(t Trial, among []Trial) bool {
	if t.ServerLoadMs == nil {
		return false
	}
	lowest := math.Inf(1)
	for _, o := range among {
		lowest = min(lowest, or(o.ServerLoadMs, math.Inf(1)))
	}
	return *t.ServerLoadMs >= 500 || *t.ServerLoadMs >= 100 && *t.ServerLoadMs >= 5*lowest
}

func newLevel(n int, trials, alone []Trial) Level {
	l := Level{Clients: n}
	begin := math.Inf(1)
	first := map[int]int{} // by client, the sequence of its first request
	last := map[int]float64{}
	for _, t := range trials {
		begin = min(begin, t.AtMs)
		last[t.Client] = max(last[t.Client], t.endMs())
		if f, ok := first[t.Client]; !ok || t.Sequence < f {
			first[t.Client] = t.Sequence
		}
		switch {
		case t.Good():
			l.N++
		case t.Cut != "":
			l.Cut++
		default:
			l.Failed++
		}
	}
	var good, steady []Trial
	for _, t := range trials {
		if t.Good() {
			good = append(good, t)
			if n == 1 || t.Sequence > first[t.Client] {
				steady = append(steady, t)
			}
		}
	}
	if len(steady) == 0 {
		steady = good
	}
	var rates []float64
	tokens, time := 0.0, 0.0
	for _, t := range steady {
		k, _ := t.tokens()
		tokens += float64(k)
		time += *t.E2EMs
		if *t.E2EMs > 0 {
			rates = append(rates, float64(n*k)*1000 / *t.E2EMs)
		}
	}
	l.Rate = NewEstimate(rates)
	if time > 0 {
		l.TokensPerS = float64(n) * tokens * 1000 / time
	}
	if streamed := !slices.ContainsFunc(good, func(t Trial) bool { return t.TTFTMs == nil }); n > 1 && streamed && len(good) > 0 {
		// Until the first client stopped.
		end := math.Inf(1)
		for _, at := range last {
			end = min(end, at)
		}
		sum := 0.0
		for _, t := range trials {
			sum += tokensBy(t, end)
		}
		if end > begin {
			l.TokensPerS = sum * 1000 / (end - begin)
		}
	}
	l.TokensPerS = round(l.TokensPerS, 2)
	l.StreamTokensPerS = NewEstimate(collect(good, func(t Trial) *float64 { return t.TokensPerS }))
	l.ServerTokensPerS = NewEstimate(collect(good, func(t Trial) *float64 { return t.ServerTokensPerS }))
	l.TTFTMs = NewEstimate(collect(steady, ttft))
	l.E2EMs = NewEstimate(collect(steady, func(t Trial) *float64 { return t.E2EMs }))
	l.Split = newSplit(steady, alone)
	if s := l.Split; s != nil && s.QueueMs != nil && s.E2EMs > 0 {
		l.Served = new(round(float64(n)*(1-*s.QueueMs/s.E2EMs), 2))
	}
	l.Streams = streams(trials)
	return l
}

// streams is the most answers that arrived at the same time; nil if that
// cannot be told.
func streams(trials []Trial) *int {
	type edge struct {
		at   float64
		step int
	}
	var edges []edge
	for _, t := range trials {
		if t.TTFTMs != nil && t.TimePerOutputTokenMs != nil {
			n, _ := t.tokens()
			begin := t.AtMs + *t.TTFTMs
			edges = append(edges, edge{begin, 1}, edge{begin + *t.TimePerOutputTokenMs*float64(n-1), -1})
		}
	}
	if len(edges) == 0 {
		return nil
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), a.step-b.step) })
	now, most := 0, 0
	for _, e := range edges {
		now += e.step
		most = max(most, now)
	}
	return &most
}

// tokensBy is how many tokens of a trial had come at a time of the run, taking
// them as evenly spread between the first and the last.
func tokensBy(t Trial, at float64) float64 {
	n, _ := t.tokens()
	if t.ErrorKind != "" || n == 0 {
		return 0
	}
	if t.endMs() <= at+0.001 && t.Cut == "" {
		return float64(n)
	}
	if t.TTFTMs == nil || at < t.AtMs+*t.TTFTMs {
		return 0
	}
	if t.TimePerOutputTokenMs == nil || *t.TimePerOutputTokenMs == 0 {
		return 1
	}
	return min(1 + (at-t.AtMs-*t.TTFTMs) / *t.TimePerOutputTokenMs, float64(n))
}

func collect(trials []Trial, of func(Trial) *float64) []float64 {
	var x []float64
	for _, t := range trials {
		if v := of(t); v != nil {
			x = append(x, *v)
		}
	}
	return x
}

// judge finds the knee and the queue.
func (c *Curve) judge() {
	best := 0.0
	for _, l := range c.Levels {
		best = max(best, l.TokensPerS)
	}
	if best == 0 || len(c.Levels) < 2 {
		return
	}
	one := c.Levels[0]
	for i := range c.Levels {
		if one.Clients == 1 && one.TokensPerS > 0 {
			c.Levels[i].Gain = new(round(c.Levels[i].TokensPerS/one.TokensPerS, 3))
		}
	}
	last := c.Levels[len(c.Levels)-1]
	before := 0.0
	for _, l := range c.Levels[:len(c.Levels)-1] {
		before = max(before, l.TokensPerS)
	}
	c.Growing = last.TokensPerS > before/plateau
	if !c.Growing {
		for _, l := range c.Levels {
			if l.TokensPerS >= plateau*best {
				c.Knee = new(l.Clients)
				break
			}
		}
	}
	if one.Clients != 1 {
		return
	}
	for _, l := range c.Levels[1:] {
		if q := queueAt(one, l); q != nil {
			c.Queue = q // the largest number shows it best
		}
	}
}

// waits reports whether requests wait for each other at a level. Prompts that
// are read together delay each other too, but then all answers arrive at once.
func (l Level) waits() bool {
	s := l.Split
	return l.Clients > 1 && s != nil && s.QueueMs != nil && *s.QueueMs >= waitShare*s.E2EMs &&
		(l.Streams == nil || *l.Streams < l.Clients)
}

// queueAt is the queue seen at a level, if requests wait there.
func queueAt(one, l Level) *Queue {
	if !l.waits() {
		return nil
	}
	q := &Queue{Clients: l.Clients, WaitMs: *l.Split.QueueMs, Slots: max(int(math.Round(*l.Served)), 1)}
	if l.Streams != nil {
		q.Slots = *l.Streams
	}
	if one.StreamTokensPerS != nil && l.StreamTokensPerS != nil && l.StreamTokensPerS.Median > 0 {
		q.DecodeRatio = new(round(one.StreamTokensPerS.Median/l.StreamTokensPerS.Median, 3))
	}
	if one.TTFTMs != nil && l.TTFTMs != nil && one.TTFTMs.Median > 0 {
		q.FirstTokenRatio = new(round(l.TTFTMs.Median/one.TTFTMs.Median, 3))
	}
	q.Serialised = q.Slots == 1 && l.TokensPerS <= serialGain*one.TokensPerS && or(q.DecodeRatio, 1) <= serialSlow
	return q
}

// enough says why no larger number of requests need be tried; "" if it should.
func enough(c Curve) string {
	n := len(c.Levels)
	if n < 3 { // that a queue grows takes two numbers to see
		return ""
	}
	gained := func(i int) bool {
		best := 0.0
		for _, l := range c.Levels[:i] {
			best = max(best, l.TokensPerS)
		}
		return c.Levels[i].TokensPerS > noGain*best
	}
	last := c.Levels[n-1]
	if gained(n - 1) {
		return ""
	}
	if last.waits() {
		return fmt.Sprintf("%d requests at once gave no more than fewer, and wait for each other", last.Clients)
	}
	if !gained(n - 2) {
		return fmt.Sprintf("%d requests at once gave no more than fewer", last.Clients)
	}
	return ""
}
