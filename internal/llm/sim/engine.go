package sim

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"millrace/internal/roofline"
)

const (
	// chunkTokens is how many prompt tokens go into one pass; Ollama's
	// num_batch (ollama.md section 6).
	chunkTokens = 512
	// maxPending is how many requests may wait for a model to load; then 503.
	// It is Ollama's OLLAMA_MAX_QUEUE (ollama.md section 5).
	maxPending = 512

	never = time.Duration(math.MaxInt64)
)

// errPending is Ollama's answer to a full queue, two spaces included.
var errPending = errors.New("server busy, please try again.  maximum pending requests exceeded")

// engine is the machine: slots that share each pass over the weights, and a
// queue in front of them.
//
// It is a discrete simulation under a lock. Its clock moves from event to
// event, never token by token unless somebody streams; one timer wakes it for
// the next event. Everything happens at the time at which the machine would
// have done it, even if the timer fires late.
type engine struct {
	machine   roofline.Machine
	throttled roofline.Machine
	shape     roofline.Shape
	load      time.Duration
	fixed     time.Duration
	context   int // tokens per slot unless a request asks otherwise
	throttle  time.Duration
	change    SlotsChange // Slots 0: no change to come

	epoch time.Time

	mu      sync.Mutex
	timer   *time.Timer
	clock   time.Duration // since epoch: all events up to here have happened
	started time.Duration // first request; never until then
	slots   []*slot
	limit   int // slots that may be used
	queue   []*task
	run     run

	loaded    bool
	loadEnd   time.Duration // never unless loading
	loadedCtx int
	keepAlive time.Duration
	expires   time.Duration // when the model is dropped if nothing comes

	done  int
	stats engineStats
}

type engineStats struct {
	maxBusy, maxQueued                         int
	loads, canceled                            int
	promptTokens, cachedTokens, completionToks int
}

// slot is a place for one sequence, with the prompt that its cache holds.
type slot struct {
	prompt string
	used   time.Duration
	task   *task
}

type phase int

const (
	waiting phase = iota
	setup         // in a slot, before its prompt is read
	prefill
	decode
	finished
)

// task is one request's way through the engine. What stands above the line is
// set by the caller; the rest belongs to the engine.
type task struct {
	prompt       string
	promptTokens int
	outTokens    int
	context      int // tokens of context wanted; 0 takes the engine's
	stream       bool
	keepAlive    *time.Duration

	wake chan struct{} // holds at most one notice of progress

	phase     phase
	arrived   time.Duration
	gotModel  time.Duration // model ready for it
	ready     time.Duration // end of setup
	end       time.Duration
	cached    int // prompt tokens taken from the slot's cache
	prefilled int // prompt tokens present, cached ones included
	generated int
	prefillD  time.Duration
	decodeD   time.Duration // as Ollama 0.17.4 counts it: see endRun
}

// run is a number of equal steps of one composition of the batch.
type run struct {
	steps    int // 0: the machine is idle
	start    time.Duration
	end      time.Duration
	machine  roofline.Machine
	shape    roofline.Shape
	seqs     []*task
	prefills []*task
	chunks   []int // prompt tokens of each of prefills in this step
	context  int   // tokens of cache read in the first step
	prompt   int   // sum of chunks
}

// cost is the time of the first j steps. The cache grows by a token for each
// sequence and step, so the step in the middle stands for the mean.
func (r *run) cost(j int) time.Duration {
	n := len(r.seqs)
	return time.Duration(j) * r.machine.Step(r.shape, roofline.Batch{
		Sequences: n, ContextTokens: r.context + n*(j-1)/2, PromptTokens: r.prompt,
	})
}

// stepsUntil is the least number of steps that last for d, at most r.steps.
func (r *run) stepsUntil(d time.Duration) int {
	lo, hi := 1, r.steps
	for lo < hi {
		if mid := (lo + hi) / 2; r.cost(mid) >= d {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

func newEngine(p Profile) *engine {
	m := p.Machine
	if p.Speed > 0 {
		m = m.Faster(p.Speed)
	}
	e := &engine{
		machine: m, throttled: m, shape: p.Model.Shape,
		load: p.scale(p.Load), fixed: p.scale(p.Fixed), context: max(p.Context, 1),
		throttle: never, epoch: time.Now(), started: never, loadEnd: never, limit: max(p.Slots, 1),
		keepAlive: 5 * time.Minute, // OLLAMA_KEEP_ALIVE; by the client's clock, so not scaled
	}
	e.shape.SlowShare = p.Ills.PartialOffload
	if t := p.Ills.Throttle; t != nil {
		e.throttle = p.scale(t.After)
		e.throttled.BandwidthBytes *= max(t.Factor, 0.001)
	}
	if c := p.Ills.SlotsChange; c != nil {
		e.change = SlotsChange{AfterRequests: c.AfterRequests, After: p.scale(c.After), Slots: max(c.Slots, 1)}
	}
	for range e.limit {
		e.slots = append(e.slots, &slot{})
	}
	return e
}

// do runs a task to its end. progress, if not nil, is called on the calling
// goroutine with the number of tokens generated so far, whenever it grew.
func (e *engine) do(ctx context.Context, t *task, progress func(tokens int) error) error {
	t.wake = make(chan struct{}, 1)
	if err := e.submit(t); err != nil {
		return err
	}
	seen := 0
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			e.cancel(t)
			return ctx.Err()
		}
		e.mu.Lock()
		n, end := t.generated, t.phase == finished
		e.mu.Unlock()
		if progress != nil && n > seen {
			seen = n
			if err := progress(n); err != nil {
				e.cancel(t)
				return err
			}
		}
		if end {
			return nil
		}
	}
}

func (e *engine) submit(t *task) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.advance()
	if t.context == 0 {
		t.context = e.context
	}
	if e.busy() == 0 && e.clock >= e.expires {
		e.loaded = false
	}
	ready := e.loaded && e.loadedCtx == t.context
	if !ready && e.pending() >= maxPending {
		return errPending
	}
	if e.started == never {
		e.started = e.clock
	}
	t.arrived, t.gotModel = e.clock, never
	e.queue = append(e.queue, t)
	e.stats.maxQueued = max(e.stats.maxQueued, len(e.queue))
	if ready {
		t.gotModel = e.clock
	}
	e.settle()
	e.schedule()
	return nil
}

func (e *engine) cancel(t *task) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.advance()
	if t.phase == finished {
		return
	}
	e.stats.canceled++
	if i := slices.Index(e.queue, t); i >= 0 {
		e.queue = slices.Delete(e.queue, i, i+1)
	}
	for _, s := range e.slots {
		if s.task == t {
			s.prompt = cutTokens(t.prompt, t.prefilled)
			e.release(s)
		}
	}
	t.phase = finished // a run that holds it passes over it
	e.cutRun()
	e.settle()
	e.schedule()
}

// unload drops the model once nothing uses it.
func (e *engine) unload() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.advance()
	e.expires = e.clock
}

// loadedUntil reports whether the model is in memory, with what context, and
// until when it stays.
func (e *engine) loadedUntil() (time.Time, int, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.advance()
	if !e.loaded || e.busy() == 0 && e.clock >= e.expires {
		return time.Time{}, 0, false
	}
	return e.epoch.Add(max(e.expires, e.clock)), e.loadedCtx, true
}

func (e *engine) busy() int {
	n := len(e.queue)
	for _, s := range e.slots {
		if s.task != nil {
			n++
		}
	}
	return n
}

// wakeUp is what the timer calls.
func (e *engine) wakeUp() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.advance()
	e.schedule()
}

// schedule sets the timer for the next event.
func (e *engine) schedule() {
	next := e.next()
	switch {
	case next == never:
		if e.timer != nil {
			e.timer.Stop()
		}
	case e.timer == nil:
		e.timer = time.AfterFunc(next-time.Since(e.epoch), e.wakeUp)
	default:
		e.timer.Reset(next - time.Since(e.epoch))
	}
}

// advance lets everything happen that is due by now.
func (e *engine) advance() {
	now := time.Since(e.epoch)
	for {
		t := e.next()
		if t > now {
			break
		}
		e.clock = max(e.clock, t)
		e.settle()
	}
	e.clock = max(e.clock, now)
}

// next is the time of the next event; never if there is none.
func (e *engine) next() time.Duration {
	t := e.loadEnd
	if e.run.steps > 0 {
		t = min(t, e.run.end)
	}
	for _, s := range e.slots {
		if s.task != nil && s.task.phase == setup {
			t = min(t, s.task.ready)
		}
	}
	if len(e.queue) > 0 && e.change.Slots > 0 && e.change.AfterRequests == 0 {
		t = min(t, max(e.started+e.change.After, e.clock))
	}
	return t
}

// settle brings the state to what it is at e.clock. It is idempotent.
func (e *engine) settle() {
	e.endLoad()
	if e.run.steps > 0 && e.clock >= e.run.end {
		e.endRun()
	}
	e.changeSlots()
	e.admit()
	joined := false
	for _, s := range e.slots {
		if t := s.task; t != nil && t.phase == setup && t.ready <= e.clock {
			t.phase = prefill
			joined = true
		}
	}
	if e.run.steps == 0 {
		e.compose()
	} else if joined {
		e.cutRun()
	}
}

// cutRun ends the run with the step under way, so that the next one can have
// another composition.
func (e *engine) cutRun() {
	if e.run.steps > 1 {
		e.run.steps = e.run.stepsUntil(e.clock - e.run.start)
		e.run.end = e.run.start + e.run.cost(e.run.steps)
	}
}

func (e *engine) startLoad(context int) {
	e.loaded, e.loadedCtx, e.loadEnd = false, context, e.clock+e.load
	e.stats.loads++
	for _, s := range e.slots {
		s.prompt = "" // a load starts with empty caches
	}
	for _, t := range e.queue {
		t.gotModel = never
	}
	e.endLoad()
}

func (e *engine) endLoad() {
	if e.clock < e.loadEnd {
		return
	}
	e.loaded, e.loadEnd = true, never
	e.expires = e.clock + e.keepAlive
	for _, t := range e.queue {
		if t.context == e.loadedCtx {
			t.gotModel = e.clock
		}
	}
}

// pending is the number of requests that wait for a load.
func (e *engine) pending() int {
	n := 0
	for _, t := range e.queue {
		if t.gotModel == never {
			n++
		}
	}
	return n
}

func (e *engine) changeSlots() {
	c := e.change
	if c.Slots == 0 || e.started == never {
		return
	}
	if c.AfterRequests > 0 && e.done < c.AfterRequests ||
		c.AfterRequests == 0 && e.clock < e.started+c.After {
		return
	}
	e.limit, e.change = c.Slots, SlotsChange{}
	for len(e.slots) < e.limit {
		e.slots = append(e.slots, &slot{})
	}
	e.dropSlots()
}

// dropSlots takes away free slots beyond the limit.
func (e *engine) dropSlots() {
	for i := len(e.slots) - 1; i >= 0 && len(e.slots) > e.limit; i-- {
		if e.slots[i].task == nil {
			e.slots = slices.Delete(e.slots, i, i+1)
		}
	}
}

// admit gives free slots to the head of the queue, and loads what it needs.
func (e *engine) admit() {
	for len(e.queue) > 0 {
		t := e.queue[0]
		if !e.loaded || e.loadedCtx != t.context {
			if e.loadEnd == never && e.busy() == len(e.queue) {
				e.startLoad(t.context)
			}
			if !e.loaded || e.loadedCtx != t.context {
				return // loading, or answers with another context are under way
			}
		}
		if t.promptTokens == 0 { // only the model was wanted
			e.queue = slices.Delete(e.queue, 0, 1)
			e.finish(t)
			continue
		}
		s, same := e.free(t.prompt)
		if s == nil {
			return
		}
		e.queue = slices.Delete(e.queue, 0, 1)
		// The last token is always computed: its logits give the first word.
		t.cached = min(same/charsPerToken, t.promptTokens-1)
		t.prefilled = t.cached
		t.phase, t.ready = setup, e.clock+e.fixed
		s.task, s.prompt = t, t.prompt
		e.stats.promptTokens += t.promptTokens
		e.stats.cachedTokens += t.cached
		used := 0
		for _, s := range e.slots {
			if s.task != nil {
				used++
			}
		}
		e.stats.maxBusy = max(e.stats.maxBusy, used)
	}
}

// free returns the free slot whose cache shares the longest prefix with the
// prompt, the least recently used of equals, and how many bytes are shared.
func (e *engine) free(prompt string) (best *slot, same int) {
	same = -1
	for _, s := range e.slots {
		if s.task != nil {
			continue
		}
		n := commonPrefix(s.prompt, prompt)
		if n > same || n == same && s.used < best.used {
			best, same = s, n
		}
	}
	return best, max(same, 0)
}

func (e *engine) release(s *slot) {
	s.task, s.used = nil, e.clock
	e.dropSlots()
}

// compose starts the next run with all that are in a slot and ready.
func (e *engine) compose() {
	r := run{start: e.clock, machine: e.machine, shape: e.shape}
	for _, s := range e.slots {
		switch t := s.task; {
		case t == nil:
		case t.phase == decode:
			r.seqs = append(r.seqs, t)
			r.context += t.promptTokens + t.generated
		case t.phase == prefill:
			r.prefills = append(r.prefills, t)
		}
	}
	slices.SortStableFunc(r.prefills, func(a, b *task) int { return cmp.Compare(a.ready, b.ready) })
	for i, t := range r.prefills {
		n := min(t.promptTokens-t.prefilled, chunkTokens-r.prompt)
		if n == 0 {
			r.prefills = r.prefills[:i]
			break
		}
		r.chunks = append(r.chunks, n)
		r.prompt += n
	}
	switch {
	case len(r.prefills) > 0:
		r.steps = 1
	case len(r.seqs) > 0:
		r.steps = math.MaxInt
		for _, t := range r.seqs {
			r.steps = min(r.steps, t.outTokens-t.generated)
			if t.stream {
				r.steps = 1
				break
			}
		}
	default:
		e.run = run{}
		return
	}
	if e.throttle != never {
		if begin := e.started + e.throttle; e.clock >= begin {
			r.machine = e.throttled
		} else if r.steps > 1 {
			r.steps = r.stepsUntil(begin - e.clock)
		}
	}
	r.end = r.start + r.cost(r.steps)
	e.run = r
}

// endRun hands out what the run has produced.
func (e *engine) endRun() {
	r := e.run
	e.run = run{}
	took := r.end - r.start
	for i, t := range r.prefills {
		if t.phase != prefill {
			continue
		}
		t.prefilled += r.chunks[i]
		t.prefillD += took
		if t.prefilled >= t.promptTokens {
			t.phase = decode
		}
	}
	for i, t := range r.seqs {
		if t.phase != decode {
			continue
		}
		t.generated += r.steps
		// Ollama 0.17.4 takes the time of a token before it samples it, after
		// having sampled the sequences before it (ollama.md section 4.2).
		own := time.Duration(r.steps*(len(r.seqs)-i)) * r.machine.HostPerToken
		t.decodeD += max(took-own, 0)
		if t.generated >= t.outTokens {
			for _, s := range e.slots {
				if s.task == t {
					e.release(s)
					break
				}
			}
			e.finish(t)
		} else if t.stream {
			notify(t)
		}
	}
}

func (e *engine) finish(t *task) {
	t.phase, t.end = finished, e.clock
	if t.outTokens > 0 {
		e.done++
		e.stats.completionToks += t.generated
	}
	keep := e.keepAlive
	if t.keepAlive != nil {
		keep = *t.keepAlive
	}
	e.expires = e.clock + min(keep, never-e.clock)
	notify(t)
}

func notify(t *task) {
	select {
	case t.wake <- struct{}{}:
	default: // a notice is waiting already
	}
}

func (e *engine) snapshot() engineStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

// commonPrefix is the number of leading bytes that a and b share.
func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	if a[:n] == b[:n] {
		return n
	}
	lo, hi := 0, n // a[:lo] == b[:lo], a[:hi] != b[:hi]
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; a[lo:mid] == b[lo:mid] {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}
