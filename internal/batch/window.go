package batch

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"millrace/internal/llm"
	"millrace/internal/record"
)

// read turns the input into windows, handed to the workers and, in the same
// order, to the writer. It waits while too many records are under way.
func (r *runner) read(ctx context.Context, todo, order chan<- *window) error {
	size := windowFirst
	left := r.Limit
	if left == 0 {
		left = math.MaxInt64
	}
	for seq := 0; r.room(); seq++ {
		w := &window{seq: seq, items: make([]item, 0, size)}
		more, err := r.fill(w, min(int64(size), left))
		if err != nil {
			return err
		}
		left -= int64(len(w.items))
		if len(w.items) > 0 {
			r.n.read.Add(int64(len(w.items)))
			r.mu.Lock()
			r.open += len(w.items)
			r.openSize += w.bytes
			r.mu.Unlock()
			order <- w
			select {
			case todo <- w:
			case <-ctx.Done():
				return nil
			}
		}
		if !more || left == 0 {
			r.mu.Lock()
			r.complete = true
			r.mu.Unlock()
			return nil
		}
		size = min(2*size, windowRecords)
	}
	return nil
}

// fill reads up to n records into a window, fewer if they are large. It
// reports whether the input may hold more.
func (r *runner) fill(w *window, n int64) (more bool, err error) {
	defer func() { r.n.share.Store(math.Float64bits(r.In.Progress())) }()
	for range n {
		rec, err := r.In.Next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		bad, isBad := errors.AsType[*record.BadRecord](err)
		if err != nil && !isBad {
			return false, err
		}
		w.items = append(w.items, item{rec: rec, bad: bad})
		w.bytes += sizeOf(rec)
		if isBad {
			w.bytes += int64(len(bad.Raw))
		}
		if w.bytes >= windowBytes {
			break
		}
	}
	return true, nil
}

// room waits until more records may be read; false when the run ends.
func (r *runner) room() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.stopping && (r.open >= openRecords || r.openSize >= openBytes) {
		r.changed.Wait()
	}
	return !r.stopping
}

func sizeOf(rec record.Record) int64 {
	n := 64
	for i := range rec.Fields {
		n += 64 + len(rec.Fields[i].Value.String())
	}
	return int64(n)
}

// work prepares windows: what can be answered at once is, the rest becomes ready to ask.
func (r *runner) work(ctx context.Context, todo <-chan *window) {
	k := newKeyer(r.Job, r.Model.Identity(), r.scope)
	for w := range todo {
		if ctx.Err() != nil {
			continue
		}
		if err := r.prepare(ctx, w, k); err != nil && ctx.Err() == nil {
			r.cancel(err)
		}
	}
}

func (r *runner) prepare(ctx context.Context, w *window, k *keyer) error {
	asks := make([]*question, 0, len(w.items)) // one for each item that needs an answer, nil otherwise
	for i := range w.items {
		it := &w.items[i]
		q := r.start(ctx, it)
		if q != nil {
			q.key = k.key(q.messages)
		}
		asks = append(asks, q)
	}

	// The same question in flight? Then its answer will do.
	mine := asks[:0]
	r.mu.Lock()
	for _, q := range asks {
		if q == nil {
			continue
		}
		if have, ok := r.flight[q.key]; ok {
			have.waiters = append(have.waiters, q.first)
			continue
		}
		r.flight[q.key] = q
		mine = append(mine, q)
	}
	r.mu.Unlock()
	if len(mine) == 0 {
		r.changed.Broadcast() // items may have been answered by rules
		return nil
	}

	keys := make([]Key, len(mine))
	for i, q := range mine {
		keys[i] = q.key
	}
	found, err := r.Store.Lookup(ctx, r.run, keys)
	if err != nil {
		return err
	}
	var misses []*question
	var links []Link
	now := r.now()
	r.mu.Lock()
	for i, q := range mine {
		switch f := found[i]; {
		case f.Answer != nil && r.fresh(f.Answer, now):
			delete(r.flight, q.key)
			for _, it := range q.waiters {
				same := it.subject == f.Answer.Subject
				r.settle(it, f.Answer.Text)
				if f.Answer.Run == r.run.ID && (!r.run.Resumed || !same) {
					r.n.shared.Add(1)
				} else {
					r.n.cached.Add(1)
				}
				if !same {
					links = append(links, r.link(q.key, it, now))
				}
			}
		case f.Failure != nil:
			delete(r.flight, q.key)
			for _, it := range q.waiters {
				it.attempts = f.Failure.Attempts
				r.quarantine(it, f.Failure.Reason, f.Failure.Raw)
			}
		default:
			misses = append(misses, q)
		}
	}
	if len(misses) > 0 {
		r.addReady(newReadyWindow(w.seq, misses, r.Job.Pack))
	}
	r.mu.Unlock()
	r.changed.Broadcast()
	for chunk := range slices.Chunk(links, saveGroup) {
		if !r.toSaver(ctx, saving{links: chunk}) {
			return nil
		}
	}
	return nil
}

// start does what comes before the cache: rules, then the prompt. It returns
// nil for an item that needs no answer any more.
func (r *runner) start(ctx context.Context, it *item) *question {
	if it.bad != nil {
		r.lockedQuarantine(it, it.bad.Reason, "")
		return nil
	}
	it.key = r.Job.RecordKey(it.rec, r.Input)
	it.subject = SubjectOf(it.key)
	if r.Job.Prepare != nil {
		answer, err := r.Job.Prepare(ctx, it.rec)
		if err == nil && answer != nil {
			answer, err = r.Job.Validate(answer)
		}
		if err != nil {
			r.lockedQuarantine(it, err.Error(), "")
			return nil
		}
		if answer != nil {
			r.mu.Lock()
			r.settle(it, answer)
			r.mu.Unlock()
			r.n.prepared.Add(1)
			return nil
		}
	}
	messages, err := r.Job.Render(it.rec)
	if err != nil {
		r.lockedQuarantine(it, err.Error(), "")
		return nil
	}
	q := &question{messages: messages, first: it}
	q.waiters = []*item{it}
	return q
}

// fresh reports whether a stored answer may be used now. The lifetime is the
// job's present one, so that shortening it in the job file takes effect.
func (r *runner) fresh(a *Answer, now time.Time) bool {
	if r.Refresh && (a.Run != r.run.ID || a.Created.Before(r.run.Started)) {
		return false
	}
	end := r.Job.Lifetime.Expires(a.Created)
	return end.IsZero() || now.Before(end)
}

func (r *runner) link(key Key, it *item, now time.Time) Link {
	return Link{Key: key, Subject: it.subject, Source: r.source, Inputs: r.Job.InputHash(it.rec), Run: r.run.ID, Created: now}
}

// settle gives an item its answer. r.mu is held.
func (r *runner) settle(it *item, answer []byte) {
	it.answer, it.done = answer, true
	r.n.answered.Add(1)
}

// quarantine gives an item up. r.mu is held.
func (r *runner) quarantine(it *item, reason, raw string) {
	q := &Quarantined{Position: it.rec.Pos, Line: it.rec.Line, Key: it.key, Reason: reason, Answer: raw, Attempts: it.attempts}
	if it.bad != nil {
		q.Position, q.Line, q.Raw = it.bad.Pos, it.bad.Line, it.bad.Raw
	} else {
		q.Record = asJSON(it.rec)
	}
	it.failed, it.done = q, true
	r.n.quarantined.Add(1)
}

func (r *runner) lockedQuarantine(it *item, reason, raw string) {
	r.mu.Lock()
	r.quarantine(it, reason, raw)
	r.mu.Unlock()
}

// asJSON returns a record as a JSON object with its fields in their order.
func asJSON(rec record.Record) json.RawMessage {
	var b strings.Builder
	b.WriteByte('{')
	for i, f := range rec.Fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(record.Text(f.Name).JSON())
		b.WriteByte(':')
		b.Write(f.Value.JSON())
	}
	b.WriteByte('}')
	return json.RawMessage(b.String())
}

// readyWindow is the questions of a window that have to be asked.
type readyWindow struct {
	seq int
	qs  []*question
}

// newReadyWindow orders the questions. Those that share the longest beginning
// come next to each other, so that a server can reuse what it has read; packs
// are drawn in a shuffled order instead, because answers in a pack depend on
// their neighbours (BatchPrompt, ICLR'24: permutation is the lever). The seed
// is fixed: the same input gives the same packs.
func newReadyWindow(seq int, qs []*question, pack int) *readyWindow {
	if pack > 1 {
		rnd := rand.New(rand.NewPCG(1, uint64(seq))) //nolint:gosec // an order, not a secret
		rnd.Shuffle(len(qs), func(i, j int) { qs[i], qs[j] = qs[j], qs[i] })
	} else {
		slices.SortStableFunc(qs, func(a, b *question) int {
			return strings.Compare(last(a.messages), last(b.messages))
		})
	}
	return &readyWindow{seq: seq, qs: qs}
}

func last(ms []llm.Message) string {
	if len(ms) == 0 {
		return ""
	}
	return ms[len(ms)-1].Content
}

// addReady keeps the windows in input order, so that the oldest record is
// asked first. r.mu is held.
func (r *runner) addReady(w *readyWindow) {
	i, _ := slices.BinarySearchFunc(r.ready, w.seq, func(have *readyWindow, seq int) int { return have.seq - seq })
	r.ready = slices.Insert(r.ready, i, w)
}

// takeReady removes up to n questions from the oldest ready window. r.mu is held.
func (r *runner) takeReady(n int) []*question {
	w := r.ready[0]
	n = min(n, len(w.qs))
	qs := w.qs[:n:n]
	w.qs = w.qs[n:]
	if len(w.qs) == 0 {
		r.ready = slices.Delete(r.ready, 0, 1)
	}
	return qs
}

// write writes the records in input order as they are done.
func (r *runner) write(ctx context.Context, order <-chan *window) error {
	for w := range order {
		for i := range w.items {
			it := &w.items[i]
			if !r.await(ctx, it) {
				return ErrStopped
			}
			if it.failed != nil {
				if r.Quarantine != nil {
					if err := r.Quarantine(*it.failed); err != nil {
						return err
					}
				}
				continue
			}
			if err := r.Out.Write(it.rec, r.Job.Values(it.answer)); err != nil {
				return err
			}
		}
		r.mu.Lock()
		r.open -= len(w.items)
		r.openSize -= w.bytes
		r.mu.Unlock()
		r.changed.Broadcast()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.complete { // the reader ended early
		return ErrStopped
	}
	return nil
}

// await waits for an item; false when the run ends before it is done.
func (r *runner) await(ctx context.Context, it *item) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !it.done {
		if ctx.Err() != nil || (r.stopping && r.active == 0) {
			return it.done
		}
		r.changed.Wait()
	}
	return true
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
