package batch

import (
	"math"
	"time"

	"millrace/internal/llm"
)

// Pacer decides how many requests may be in flight at a server. It is told
// when a request is sent and how it ended, and answers with a number; it holds
// no clock and starts nothing, so it is the same in virtual time.
//
// It looks for the knee: the smallest number of requests in flight at which
// the server gives its full tokens per second. The measure is work done, not
// requests answered, taken from each request by Little's law: a request that
// did w tokens in d seconds beside n-1 others is evidence for n*w/d tokens/s.
//
// It doubles while doubling pays, stops where more requests only wait longer,
// backs off on refusals and timeouts, and looks again from time to time
// because servers change. Not safe for concurrent use.
type Pacer struct {
	fixed bool
	max   int

	level int // requests that may be in flight
	mode  paceMode
	epoch int // counts changes of level; samples of older ones are not compared

	// In-flight requests integrated over time, so that each request knows how
	// many others it ran beside.
	inflight int
	area     float64 // request-seconds
	at       time.Time

	first, later paceSample // of this epoch: sent while filling up, and after
	turned       bool       // a request of this epoch has completed

	base     paceLevel // the level that the present one is compared with
	best     paceLevel // the level to go back to
	share    float64   // of the possible gain that the step to base gave
	held     paceSample
	sinceTry int // completions since something else was last tried
	patience int // completions to hold before trying again
	lid      int // do not go above this; 0 is none
	lidFor   int // completions until the lid is lifted

	calm     time.Duration // unattributed time of a request that is alone, per the server; -1 unknown
	seen     int
	peak     int
	refusals int
	waits    paceWait
}

type paceMode int

const (
	paceGrow    paceMode = iota // doubling
	paceShrink                  // is fewer as good?
	paceHold                    // at the knee
	paceTry                     // holding, and trying a little more
	paceMeasure                 // slower than before: how slow?
)

// Constants of the search. A queue that is full lets a first generation of
// requests look up to a third better than it is (those already running when
// the level is raised do not wait), so growth on that evidence alone needs
// more than half of the possible gain.
const (
	growQuick   = 0.70 // of the share that the step before gave, on first-generation evidence
	firstMin    = 0.50 // and of the possible gain itself: a queue alone makes first evidence look like a third
	growClear   = 0.80 // likewise: enough to double
	growFull    = 0.60 // of the possible gain: double
	growMin     = 0.08 // of the possible gain: grow by half
	sharp       = 0.45 // of the share that the step before gave: the gain breaks off, a knee
	sure        = 1.6  // standard errors
	quickMin    = 4    // samples, at least, for a quick step
	sameRate    = 0.97 // within 3 %: as good
	shareWait   = 0.20 // of a request's time spent waiting in the server: the knee is passed
	driftDown   = 0.80
	driftUp     = 1.25
	defaultMax  = 256
	holdRounds  = 8  // rounds to hold before trying more
	holdRounds2 = 24 // at most
)

type paceLevel struct {
	level  int
	rate   float64 // tokens/s; 0 unknown
	spread float64 // relative standard error of rate
}

// paceSample gathers requests into a rate.
type paceSample struct {
	n          int
	work       float64 // sum of x: work times the number of requests beside it
	seconds    float64 // sum of y
	xx, xy, yy float64
}

func (s *paceSample) add(work, seconds float64) {
	s.join(paceSample{1, work, seconds, work * work, work * seconds, seconds * seconds})
}

func (s *paceSample) join(o paceSample) {
	s.n += o.n
	s.work += o.work
	s.seconds += o.seconds
	s.xx += o.xx
	s.xy += o.xy
	s.yy += o.yy
}

func (s paceSample) rate() float64 {
	if s.seconds <= 0 {
		return 0
	}
	return s.work / s.seconds
}

// spread is the relative standard error of rate, a ratio of sums: the root of
// sum((x - R y)^2) over sum(x) (the linearised variance of a ratio estimator,
// Cochran, Sampling Techniques, 6.3).
func (s paceSample) spread() float64 {
	if s.n < 2 || s.work <= 0 {
		return 0.5
	}
	r := s.rate()
	return math.Sqrt(max(s.xx-2*r*s.xy+r*r*s.yy, 0)*float64(s.n)/float64(s.n-1)) / s.work
}

type paceWait struct {
	n          int
	wait, wall float64
}

// NewPacer returns a pacer that searches between 1 and limit requests in
// flight (0: 256).
func NewPacer(limit int) *Pacer {
	if limit <= 0 {
		limit = defaultMax
	}
	return &Pacer{max: limit, level: 1, calm: -1, peak: 1}
}

// FixedPacer returns a pacer that always allows n requests in flight.
func FixedPacer(n int) *Pacer {
	return &Pacer{fixed: true, max: n, level: n, calm: -1, mode: paceHold}
}

// Limit is how many requests may be in flight now. At the knee it is a little
// more than the knee, so that a request is always waiting when a slot gets free.
func (p *Pacer) Limit() int {
	if p.mode == paceHold && !p.fixed {
		return min(p.level+max(1, p.level/4), p.ceiling())
	}
	return p.level
}

// Ticket is a request in flight, from Sent to Done.
type Ticket struct {
	sent  time.Time
	area  float64
	epoch int
	later bool
}

// Outcome is how a request ended.
type Outcome struct {
	// Work is what the server did for it in tokens generated, with prompt
	// tokens counted at a fraction: see Work.
	Work float64
	Load time.Duration  // part of its time that went into loading the model
	Wait *time.Duration // time that the server spent on it and does not attribute; nil unknown
	Err  llm.ErrorKind  // "" for a reply
}

// Work expresses a reply in tokens generated. Reading a prompt token costs a
// server far less than making one, because prompts are read many tokens to a
// pass; the twentieth here only evens out long and short prompts.
func Work(prompt, completion int) float64 {
	return float64(completion) + float64(prompt)/20
}

// Sent tells that a request was sent.
func (p *Pacer) Sent(now time.Time) Ticket {
	p.tick(now)
	p.inflight++
	return Ticket{sent: now, area: p.area, epoch: p.epoch, later: p.turned}
}

// Done tells how a request ended.
func (p *Pacer) Done(now time.Time, t Ticket, o Outcome) {
	p.tick(now)
	p.inflight--
	if p.fixed {
		if o.Err == "" {
			p.observe(now, t, o)
		}
		return
	}
	switch o.Err {
	case "":
	case llm.Busy:
		p.backOff(t, 0.7)
		return
	case llm.Timeout, llm.Unreachable:
		p.backOff(t, 0.5)
		return
	default:
		return // says nothing about the server's speed
	}
	s, ok := p.observe(now, t, o)
	if !ok {
		return
	}
	if p.lidFor > 0 {
		if p.lidFor--; p.lidFor == 0 {
			p.lid = 0
		}
	}
	if t.epoch != p.epoch {
		return
	}
	p.turned = true
	if t.later {
		p.later.add(s.work, s.seconds)
	} else {
		p.first.add(s.work, s.seconds)
	}
	p.decide(s)
}

func (p *Pacer) tick(now time.Time) {
	if !p.at.IsZero() {
		p.area += float64(p.inflight) * now.Sub(p.at).Seconds()
	}
	p.at = now
}

// observe turns a reply into a sample: its work times the mean number of
// requests in flight beside it, and its seconds.
func (p *Pacer) observe(now time.Time, t Ticket, o Outcome) (paceSample, bool) {
	wall := now.Sub(t.sent).Seconds()
	seconds := wall - o.Load.Seconds()
	p.seen++
	if p.seen == 1 && o.Load == 0 && o.Wait == nil && !p.fixed {
		return paceSample{}, false // may have loaded the model without saying so
	}
	if wall <= 0 || seconds <= 0 || o.Work <= 0 {
		return paceSample{}, false
	}
	beside := (p.area - t.area) / wall
	if o.Wait != nil {
		if beside < 1.1 && (p.calm < 0 || *o.Wait < p.calm) {
			p.calm = *o.Wait
		}
		if t.epoch == p.epoch {
			wait := max(o.Wait.Seconds()-max(p.calm.Seconds(), 0), 0)
			p.waits.n++
			p.waits.wait += min(wait, seconds)
			p.waits.wall += seconds
		}
	}
	return paceSample{n: 1, work: o.Work * beside, seconds: seconds}, true
}

// need is how many samples make a rate worth comparing, most how many are
// gathered before a doubtful comparison is decided as it stands.
// A full round is needed: the first half of one may hold just those that did not wait.
func (p *Pacer) need() int { return max(8, p.level) }
func (p *Pacer) most() int { return 32 + 4*p.level }

func (p *Pacer) decide(s paceSample) {
	switch p.mode {
	case paceGrow:
		p.grow()
	case paceShrink:
		p.shrink()
	case paceHold:
		p.hold(s)
	case paceTry:
		p.try()
	case paceMeasure:
		p.measure()
	}
}

// measure takes the rate of a server that has changed, before less is tried.
func (p *Pacer) measure() {
	if p.later.n < max(2*p.level, 16) {
		return
	}
	p.best = paceLevel{level: p.level, rate: p.later.rate(), spread: p.later.spread()}
	p.base = p.best
	if p.level == 1 {
		p.rest()
		return
	}
	p.to((p.level+1)/2, paceShrink)
}

func (p *Pacer) grow() {
	if p.base.level == 0 { // the first level: nothing to compare with
		if p.both().n == 0 {
			return
		}
		// A request that is alone shares nothing and waits for nobody: one is enough.
		p.base = paceLevel{level: p.level, rate: p.both().rate(), spread: 0.05}
		p.best = p.base
		p.share = 1
		p.to(p.level*2, paceGrow)
		return
	}
	// Replies to requests sent while filling up: quick, but too good when a
	// queue forms, because those already running did not wait.
	all, quick := p.both(), p.first
	if 5*p.first.n >= 3*p.level && 4*all.n >= 5*p.level { // or most of them and some later ones
		quick = all
	}
	if (10*quick.n >= 9*p.level) && all.n >= quickMin && p.later.n < p.need() && !p.queued() {
		if share, spread := p.gain(quick); share-spread >= max(growQuick*p.share, firstMin) {
			factor := 2.0
			if share < growClear*p.share {
				factor = 1.5
			}
			p.step(factor, quick, share)
			return
		}
	}
	if p.later.n < p.need() {
		return
	}
	share, spread := p.gain(p.later)
	switch {
	case p.queued() && share < growFull:
		p.settle(share)
	case p.later.n < p.most() && share-sure*spread < growMin && share+sure*spread >= growMin:
		// not yet clear
	case share < growMin, share < sharp*p.share:
		p.settle(share)
	case share >= growFull && share >= growClear*p.share:
		p.step(2, p.later, share)
	default:
		p.step(1.5, p.later, share)
	}
}

func (p *Pacer) both() paceSample {
	s := p.first
	s.join(p.later)
	return s
}

// gain is the gain of a sample over base as a share of what the step could
// give, and the standard error of that.
func (p *Pacer) gain(s paceSample) (share, spread float64) {
	if p.base.rate <= 0 || p.level <= p.base.level {
		return 0, 0
	}
	g := s.rate() / p.base.rate
	could := float64(p.level)/float64(p.base.level) - 1
	return (g - 1) / could, g * math.Hypot(s.spread(), p.base.spread) / could
}

// queued reports whether the server itself tells that requests wait in it.
func (p *Pacer) queued() bool {
	return p.waits.n >= p.need() && p.calm >= 0 && p.waits.wait > shareWait*p.waits.wall
}

// step takes the present level as the one to beat and goes on to a higher one.
func (p *Pacer) step(factor float64, s paceSample, share float64) {
	p.base = paceLevel{level: p.level, rate: s.rate(), spread: s.spread()}
	p.best = p.base
	p.share = min(share, 1)
	next := min(max(p.level+1, int(math.Round(float64(p.level)*factor))), p.ceiling())
	if next <= p.level {
		p.rest()
		return
	}
	p.to(next, paceGrow)
}

func (p *Pacer) ceiling() int {
	if p.lid > 0 {
		return min(p.max, p.lid)
	}
	return p.max
}

// settle ends growth: the step from base to the present level gave only share
// of what it could. The knee lies between them.
func (p *Pacer) settle(share float64) {
	s := p.later
	if s.n < p.need() {
		s = p.both()
	}
	could := float64(p.level - p.base.level)
	target := float64(p.base.level)
	if share > 0 {
		// Up to the knee the gain goes on about as before (a little less with
		// each step, as the batch itself costs), and stops there. A request too
		// many in flight costs nothing, one too few costs its share.
		target += 1.1 * could * share / (0.9 * p.share)
	}
	if p.queued() {
		// What does not wait is being served: Little's law again.
		target = max(target, float64(p.level)*(1-p.waits.wait/p.waits.wall))
	}
	level := min(max(int(math.Ceil(target-0.25)), p.base.level), p.level)
	p.best = paceLevel{level: level, rate: max(s.rate(), p.base.rate), spread: s.spread()}
	p.rest()
}

// rest holds the best level and forgets what was tried.
func (p *Pacer) rest() {
	if p.patience == 0 {
		p.patience = holdRounds
	}
	p.to(p.best.level, paceHold)
}

func (p *Pacer) to(level int, mode paceMode) {
	level = min(max(level, 1), p.ceiling())
	p.level, p.mode = level, mode
	p.epoch++
	p.first, p.later, p.held = paceSample{}, paceSample{}, paceSample{}
	p.waits = paceWait{}
	p.turned = false
	p.sinceTry = 0
	p.peak = max(p.peak, p.Limit())
}

func (p *Pacer) hold(s paceSample) {
	p.sinceTry++
	p.held.add(s.work, s.seconds)
	window := max(2*p.level, 24)
	if p.held.n >= window {
		rate := p.held.rate()
		p.held = paceSample{}
		switch {
		case p.best.rate > 0 && rate < p.best.rate*driftDown:
			// Slower than it was: fewer requests may be as good now. This window
			// may hold some of both, so the comparison needs a new one.
			p.patience = holdRounds
			p.to(p.level, paceMeasure)
			return
		case p.best.rate > 0 && rate > p.best.rate*driftUp:
			p.best.rate = rate
			p.patience = holdRounds
			p.startTry(rate)
			return
		case p.best.rate == 0:
			p.best.rate = rate
		default:
			p.best.rate += (rate - p.best.rate) / 4
		}
	}
	if p.sinceTry >= p.patience*p.level && p.best.rate > 0 {
		p.startTry(p.best.rate)
	}
}

func (p *Pacer) startTry(rate float64) {
	next := min(p.level+max(1, p.level/2), p.ceiling())
	if next <= p.level {
		p.sinceTry = 0
		return
	}
	p.base = paceLevel{level: p.level, rate: rate, spread: p.best.spread}
	p.best = p.base
	p.share = 1
	p.to(next, paceTry)
}

// try judges a level a little above the held one.
func (p *Pacer) try() {
	if p.queued() && p.later.n+p.first.n >= p.need() {
		p.patience = min(p.patience*3/2, holdRounds2)
		p.rest()
		return
	}
	if p.later.n < p.need() {
		return
	}
	share, spread := p.gain(p.later)
	switch {
	case p.later.n < p.most() && share-sure*spread < growMin && share+sure*spread >= growMin:
		return
	case share < growMin:
		p.patience = min(p.patience*3/2, holdRounds2)
		p.rest()
		return
	}
	p.patience = holdRounds
	p.step(2, p.later, share)
}

// shrink judges a level below the one compared with: if it is as good, fewer
// will do.
func (p *Pacer) shrink() {
	if p.later.n < p.need() {
		return
	}
	rate, spread := p.later.rate(), p.later.spread()
	if p.later.n < p.most() && math.Abs(rate/p.base.rate-sameRate) < sure*math.Hypot(spread, p.base.spread) {
		return
	}
	if rate < p.base.rate*sameRate {
		p.best = p.base
		p.rest()
		return
	}
	p.best = paceLevel{level: p.level, rate: rate, spread: spread}
	p.base = p.best
	if p.level == 1 {
		p.rest()
		return
	}
	p.to((p.level+1)/2, paceShrink)
}

// backOff lowers the level after a refusal, once for all requests that were in
// flight together.
func (p *Pacer) backOff(t Ticket, factor float64) {
	p.refusals++
	if t.epoch != p.epoch {
		return
	}
	level := max(1, int(float64(p.level)*factor))
	p.lid, p.lidFor = level, holdRounds*level
	p.best = paceLevel{level: level}
	p.patience = holdRounds
	p.to(level, paceHold)
}

// Knee is what the pacer found.
type Knee struct {
	Level    int     // requests in flight that give the full rate
	Rate     float64 // tokens/s there; 0 unknown
	Peak     int     // most that were allowed at any time
	Found    bool    // the search came to an end; otherwise Level is only where it stopped
	Fixed    bool    // the user set the level
	Refusals int     // replies of 429, 503 and timeouts that lowered it
}

// Knee reports what was found so far.
func (p *Pacer) Knee() Knee {
	k := Knee{Level: p.level, Peak: p.peak, Fixed: p.fixed, Refusals: p.refusals}
	switch {
	case p.fixed:
		k.Peak = p.level
	case p.mode == paceHold:
		k.Found, k.Rate = p.best.rate > 0, p.best.rate
	case p.mode == paceTry:
		k.Found, k.Level, k.Rate = true, p.base.level, p.base.rate
	case p.mode == paceShrink:
		k.Level, k.Rate = p.base.level, p.base.rate
	}
	return k
}
