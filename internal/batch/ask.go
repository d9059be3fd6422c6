package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"millrace/internal/job"
	"millrace/internal/llm"
)

// Limits of one question's way. Errors that are the server's state (gone,
// busy, loading) are waited out up to Options.Patience instead.
const (
	garbledTries = 5  // replies that are cut short, not the protocol, timed out or failed inside the server
	refusedFirst = 20 // questions refused before any was answered: the request as such is wrong
	busyPatience = 5  // times Options.Patience for a server that is there but takes no requests
	raiseFactor  = 4  // once, when an answer is cut off by the token limit
	retryFirst   = 500 * time.Millisecond
	retryMax     = 30 * time.Second
)

// dispatch sends ready questions while the pacer allows more in flight.
func (r *runner) dispatch(ctx context.Context, asks *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for !r.stopping && (len(r.ready) == 0 || r.active >= r.pacer.Limit()) {
			r.changed.Wait()
		}
		if r.stopping {
			return
		}
		qs := r.takeReady(r.Job.Pack)
		r.active++
		asks.Go(func() {
			if len(qs) > 1 {
				r.askPack(ctx, qs)
			} else {
				r.askOne(ctx, qs[0])
			}
			r.mu.Lock()
			r.active--
			r.mu.Unlock()
			r.changed.Broadcast()
		})
	}
}

// askOne asks a question until it has a valid answer or is given up.
func (r *runner) askOne(ctx context.Context, q *question) {
	var (
		messages = q.messages
		options  = r.Job.Options
		repairs  int
		raised   bool
		attempts int
	)
	for {
		reply, n, err := r.send(ctx, messages, r.Job.Schema(), options, &q.trouble)
		attempts += n
		if errors.Is(err, errLater) {
			r.later(q)
			return
		}
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, errStopAsking) {
				r.giveUp(ctx, q, err.Error(), "", attempts)
			}
			return
		}
		if reply.Finish == llm.FinishLength && options.MaxTokens != nil {
			if !raised {
				raised = true
				limit := *options.MaxTokens * raiseFactor
				options.MaxTokens = &limit
				r.n.raised.Add(1)
				continue
			}
			r.giveUp(ctx, q, fmt.Sprintf("the answer was cut off by the token limit, %d and then %d tokens; raise max_tokens in the job, or ask for less",
				*r.Job.Options.MaxTokens, *options.MaxTokens), reply.Text, attempts)
			return
		}
		answer, problem := r.Job.Decode(reply.Text)
		if problem == nil && r.Job.Check != nil {
			problem = r.Job.Check(q.first.rec, answer)
		}
		if problem == nil {
			if repairs > 0 {
				r.n.repaired.Add(1)
			}
			r.answered(ctx, q, answer)
			return
		}
		if repairs >= r.Job.Repairs {
			r.giveUp(ctx, q, "invalid answer: "+problem.Error(), reply.Text, attempts)
			return
		}
		repairs++
		messages = job.RepairMessages(q.messages, reply.Text, problem)
	}
}

// askPack asks several questions in one request; those without a valid answer
// in it are asked alone.
func (r *runner) askPack(ctx context.Context, qs []*question) {
	items := make([]job.PackItem, len(qs))
	ids := make([]string, len(qs))
	for i, q := range qs {
		ids[i] = strconv.Itoa(i + 1)
		items[i] = job.PackItem{ID: ids[i], Record: q.first.rec}
	}
	answers, err := r.packAnswers(ctx, items, ids)
	if errors.Is(err, errStopAsking) || ctx.Err() != nil {
		return
	}
	for i, q := range qs {
		answer, ok := answers[ids[i]]
		if ok && r.Job.Check != nil {
			ok = r.Job.Check(q.first.rec, answer) == nil
		}
		if ok {
			r.answered(ctx, q, answer)
			continue
		}
		r.n.packReasked.Add(1)
		r.askOne(ctx, q)
		if ctx.Err() != nil {
			return
		}
	}
}

// packAnswers returns the valid answers of one shared request, by id.
func (r *runner) packAnswers(ctx context.Context, items []job.PackItem, ids []string) (map[string]json.RawMessage, error) {
	messages, schema, err := r.Job.RenderPack(items)
	if err != nil {
		return nil, err
	}
	options := r.Job.Options
	if options.MaxTokens != nil {
		limit := *options.MaxTokens * len(items)
		options.MaxTokens = &limit
	}
	r.n.packed.Add(int64(len(items)))
	reply, _, err := r.send(ctx, messages, schema, options, &trouble{})
	if err != nil {
		return nil, err
	}
	answers, _ := r.Job.SplitPack(reply.Text, ids) // an item that is wrong is asked again alone
	return answers, nil
}

// errStopAsking ends an ask without an outcome: the run is ending. errLater
// ends it so that others get their turn first.
var (
	errStopAsking = errors.New("the run is ending")
	errLater      = errors.New("to be asked again after others")
)

// trouble is what a question has met that may be its own fault or the server's.
type trouble struct {
	failures int
	since    time.Time
}

// later puts a question behind all that is ready.
func (r *runner) later(q *question) {
	r.mu.Lock()
	r.addReady(&readyWindow{seq: math.MaxInt, qs: []*question{q}})
	r.mu.Unlock()
}

// send sends a request until there is a reply, an error that asking again
// cannot help, or the end of the run. It returns the number of requests made.
func (r *runner) send(ctx context.Context, messages []llm.Message, schema []byte, options llm.Options, tr *trouble) (llm.Reply, int, error) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = retryFirst, retryMax
	for n := 1; ; n++ {
		r.mu.Lock()
		if r.stopping && n > 1 { // do not begin again what failed
			r.mu.Unlock()
			return llm.Reply{}, n - 1, errStopAsking
		}
		if r.noSchema {
			schema = nil
		}
		ticket := r.pacer.Sent(r.now())
		r.mu.Unlock()

		r.n.requests.Add(1)
		actx, cancel := context.WithTimeout(ctx, r.Timeout)
		reply, err := r.Server.Ask(actx, llm.Request{Model: r.Model.Name, Messages: messages, Schema: schema, Options: options})
		cancel()
		if err == nil {
			r.replied(ticket, messages, reply)
			return reply, n, nil
		}
		e, ok := errors.AsType[*llm.Error](err)
		if !ok {
			e = &llm.Error{Kind: llm.Failed, Err: err}
		}
		if ctx.Err() != nil {
			return llm.Reply{}, n, errStopAsking
		}
		if e.Kind == llm.Canceled { // not ours, so the request's own time limit
			e = &llm.Error{Kind: llm.Timeout, Message: fmt.Sprintf("no reply within %s", r.Timeout), Err: err}
		}
		again, err := r.failed(ticket, e, tr)
		if errors.Is(err, errLater) && !r.pause(ctx, min(time.Duration(tr.failures)*retryFirst, retryMax)) {
			err = errStopAsking
		}
		if err != nil {
			return llm.Reply{}, n, err
		}
		if !again {
			return llm.Reply{}, n, e
		}
		if e.Kind == llm.BadSchema {
			continue // without it
		}
		r.n.retried.Add(1)
		pause := wait.NextBackOff()
		if e.RetryAfter > 0 {
			pause = max(pause, min(e.RetryAfter, r.Patience))
		}
		if !r.pause(ctx, pause) {
			return llm.Reply{}, n, errStopAsking
		}
	}
}

// replied accounts for a reply.
func (r *runner) replied(t Ticket, messages []llm.Message, reply llm.Reply) {
	prompt, completion := 0, 0
	if reply.PromptTokens != nil {
		prompt = *reply.PromptTokens
	} else {
		for _, m := range messages {
			prompt += len(m.Content) / 4
		}
		r.n.estimated.Store(true)
	}
	if reply.CompletionTokens != nil {
		completion = *reply.CompletionTokens
	} else {
		completion = (len(reply.Text)+len(reply.Thinking))/4 + 1
		r.n.estimated.Store(true)
	}
	r.n.promptTokens.Add(int64(prompt))
	r.n.completionTokens.Add(int64(completion))
	o := Outcome{Work: Work(prompt, completion), Wait: reply.Timing.Unaccounted()}
	if reply.Timing.Load != nil {
		o.Load = *reply.Timing.Load
	}
	r.mu.Lock()
	now := r.now()
	r.pacer.Done(now, t, o)
	r.downSince, r.lastErr = time.Time{}, nil
	r.lastReply = now
	r.mu.Unlock()
	r.changed.Broadcast()
}

// failed accounts for an error and says whether to ask again. Its error ends
// the whole run when no question can be answered any more.
func (r *runner) failed(t Ticket, e *llm.Error, tr *trouble) (again bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.pacer.Done(now, t, Outcome{Err: e.Kind})
	r.lastErr = e
	end := func(err error) (bool, error) {
		r.stopping = true // at once: nothing else is to be sent
		r.cancel(err)
		return false, errStopAsking
	}
	switch e.Kind {
	case llm.NoModel:
		return end(fmt.Errorf("model %s on %s: %w", r.Model.Name, r.Server.Info().URL, e))
	case llm.Unreachable, llm.Busy, llm.Loading:
		if r.downSince.IsZero() {
			r.downSince = now
		}
		patience := r.Patience
		if e.Kind != llm.Unreachable { // it is there
			patience *= busyPatience
		}
		if gone := now.Sub(r.downSince); gone > patience {
			return end(fmt.Errorf("%w: every request to %s failed for %s (%w); start it again and repeat the command: it goes on where it stopped",
				ErrServerGone, r.Server.Info().URL, gone.Round(time.Second), e))
		}
		return true, nil
	case llm.Timeout, llm.Garbled, llm.Failed:
		tr.failures++
		if tr.since.IsZero() {
			tr.since = now
		}
		if r.downSince.IsZero() {
			r.downSince = now
		}
		gone := now.Sub(r.downSince)
		switch {
		case tr.failures < 2 || tr.failures < garbledTries && gone <= r.Patience:
			return true, nil
		case r.lastReply.After(tr.since): // others are answered: it is this question
			return tr.failures < garbledTries, nil
		case gone > r.Patience && (r.lastReply.IsZero() || len(r.flight) > 1): // nobody is
			return end(fmt.Errorf("%w: %s has given no usable reply for %s (%w); mend it and repeat the command: it goes on where it stopped",
				ErrServerGone, r.Server.Info().URL, gone.Round(time.Second), e))
		case gone > r.Patience: // the last question left
			return false, nil
		case len(r.ready) > 0:
			return false, errLater
		}
		return true, nil
	case llm.BadSchema:
		if r.noSchema {
			return false, nil
		}
		r.noSchema = true
		r.notes = append(r.notes, "the server cannot use this job's schema ("+e.Message+"); it was asked without, and every answer was validated here")
		return true, nil
	case llm.Refused:
		r.refused++
		if e.Status == 401 || e.Status == 403 || r.refused >= refusedFirst && r.n.completionTokens.Load() == 0 {
			return end(fmt.Errorf("%s refuses the requests: %w", r.Server.Info().URL, e))
		}
		return false, nil
	default:
		return false, nil
	}
}

// pause waits; false when the run ends first.
func (r *runner) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-r.Stop:
		return false
	}
}

// saving is something for the saver: an answer or failure of a question, or
// links alone.
type saving struct {
	q       *question
	answer  []byte
	failure *Failure
	links   []Link
}

func (r *runner) answered(ctx context.Context, q *question, answer []byte) {
	r.toSaver(ctx, saving{q: q, answer: answer})
}

func (r *runner) giveUp(ctx context.Context, q *question, reason, raw string, attempts int) {
	r.toSaver(ctx, saving{q: q, failure: &Failure{
		Key: q.key, Subject: q.first.subject, Run: r.run.ID, Reason: reason, Raw: raw, Attempts: attempts,
	}})
}

func (r *runner) toSaver(ctx context.Context, s saving) bool {
	select {
	case r.saves <- s: // first, so that what was paid for is kept when the run has just been cancelled
		return true
	default:
	}
	select {
	case r.saves <- s:
		return true
	case <-ctx.Done():
		return false
	}
}

// save writes answers to the store in groups, and settles their records once
// they are safe there. An answer that comes alone is saved at once; when they
// come within saveClose of each other, they are gathered for saveWait, because
// a transaction costs many times what one answer in it does.
func (r *runner) save(ctx context.Context) {
	group := make([]saving, 0, saveGroup)
	var late []Link // of records that joined a question while it was being saved
	var saved time.Time
	for {
		s, ok := <-r.saves
		if !ok {
			break
		}
		group = append(group[:0], s)
		var wait time.Duration
		if now := r.now(); now.Sub(saved) < saveClose {
			wait = saveWait
		}
		group = r.gather(group, wait)
		var err error
		late, err = r.saveGroup(ctx, group, late)
		if err != nil {
			r.cancel(err)
			for range r.saves { //nolint:revive // lets the others end
			}
			return
		}
		saved = r.now()
	}
	if len(late) > 0 {
		if err := r.Store.Save(context.WithoutCancel(ctx), nil, late, nil); err != nil {
			r.cancel(err)
		}
	}
}

// gather adds to a group what has come, and what comes within the wait.
func (r *runner) gather(group []saving, wait time.Duration) []saving {
	var timeout <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timeout = t.C
	}
	for len(group) < saveGroup {
		select {
		case s, ok := <-r.saves:
			if !ok {
				return group
			}
			group = append(group, s)
			continue
		default:
		}
		if timeout == nil {
			return group
		}
		select {
		case s, ok := <-r.saves:
			if !ok {
				return group
			}
			group = append(group, s)
		case <-timeout:
			return group
		}
	}
	return group
}

// saveGroup saves a group and settles its records. It returns the links of
// records that came too late for it.
func (r *runner) saveGroup(ctx context.Context, group []saving, links []Link) ([]Link, error) {
	now := r.now()
	var answers []Answer
	var failures []Failure
	r.mu.Lock()
	for _, s := range group {
		links = append(links, s.links...)
		switch {
		case s.failure != nil:
			failures = append(failures, *s.failure)
		case s.q != nil:
			it := s.q.first
			answers = append(answers, Answer{
				Key: s.q.key, Subject: it.subject, Source: r.source, Inputs: r.Job.InputHash(it.rec), Run: r.run.ID,
				Scoped: r.scoped(), Keep: r.Job.Lifetime.Kind == job.LifetimeForever,
				Text: s.answer, Created: now, Expires: r.Job.Lifetime.Expires(now),
			})
			links = r.linksOf(s.q, 1, now, links)
			s.q.sealed = len(s.q.waiters)
		}
	}
	r.mu.Unlock()
	// What was paid for is saved even when the run has just been cancelled.
	if err := r.Store.Save(context.WithoutCancel(ctx), answers, links, failures); err != nil {
		return nil, err
	}
	links = links[:0]
	r.mu.Lock()
	for _, s := range group {
		if s.q == nil {
			continue
		}
		delete(r.flight, s.q.key)
		if s.failure != nil {
			for _, it := range s.q.waiters {
				it.attempts = s.failure.Attempts
				r.quarantine(it, s.failure.Reason, s.failure.Raw)
			}
			continue
		}
		links = r.linksOf(s.q, s.q.sealed, now, links)
		for i, it := range s.q.waiters {
			r.settle(it, s.answer)
			if i > 0 {
				r.n.shared.Add(1)
			}
		}
	}
	r.mu.Unlock()
	r.changed.Broadcast()
	return links, nil
}

// linksOf appends links for the waiters of a question from the given one on
// that are other records than its first. r.mu is held.
func (r *runner) linksOf(q *question, from int, now time.Time, links []Link) []Link {
	for _, it := range q.waiters[from:] {
		if it.subject != q.first.subject {
			links = append(links, r.link(q.key, it, now))
		}
	}
	return links
}
