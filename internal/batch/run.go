package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"millrace/internal/job"
	"millrace/internal/llm"
	"millrace/internal/record"
)

// Options are what a run needs. Job, Server, Model, Store, In and Out are required.
type Options struct {
	Job    *job.Job
	Server llm.Server
	Model  llm.Model
	Store  Store

	In         record.Reader
	Out        record.Writer
	Quarantine func(Quarantined) error // called in input order

	// Run identity and what `cache why` needs later.
	JobRef string            // name, or path of the job file
	Args   map[string]string // parameters of a built-in job
	Input  string            // absolute path, or "-"
	Output string

	Pacer    *Pacer        // nil: NewPacer(0)
	Limit    int64         // records to read at most; 0: all
	NoCache  bool          // neither use nor keep answers beyond this run
	Refresh  bool          // use no answer from before this run, but keep the new ones
	Timeout  time.Duration // for one request; 0: 5 minutes
	Patience time.Duration // how long a server may be gone before the run gives up; 0: 2 minutes

	// Commit makes the complete output appear under its name. It is called once
	// all records are written; after it the run is over. May be nil.
	Commit func() error

	// Stop ends the run gently when closed: what is in flight is finished and
	// saved. Cancel the context to end it at once. May be nil.
	Stop <-chan struct{}
	// Watch receives a function that looks at the run's progress. May be nil.
	Watch func(look func() Progress)
}

// Errors that say how a run ended.
var (
	// ErrStopped means that the run was ended before its end and can be resumed.
	ErrStopped = errors.New("stopped before the end; the same command goes on where it stopped")
	// ErrServerGone means that the server did not come back within Options.Patience.
	ErrServerGone = errors.New("the server is gone")
)

// Sizes of the pipeline. Records are handled in windows: large enough to make
// one database query and one sort worth it, small enough that the records
// between reader and writer fit in little memory.
const (
	windowFirst   = 64
	windowRecords = 1024
	windowBytes   = 4 << 20
	openRecords   = 24 * windowRecords
	openBytes     = 48 << 20
	saveGroup     = 512
	saveClose     = 2 * time.Millisecond
	saveWait      = 5 * time.Millisecond
)

type runner struct {
	Options
	run    Run
	source int64
	scope  string
	now    func() time.Time

	cancel context.CancelCauseFunc
	n      counters

	mu        sync.Mutex // guards what follows
	changed   *sync.Cond // something below changed
	flight    map[Key]*question
	ready     []*readyWindow // in the order of their windows
	active    int            // asks under way
	stopping  bool
	complete  bool  // the whole input has been read
	open      int   // records read and not yet written
	openSize  int64 // their bytes
	pacer     *Pacer
	downSince time.Time // first of the errors since the last reply; zero while the server answers
	lastReply time.Time // zero before the first reply
	lastErr   error
	noSchema  bool
	refused   int
	notes     []string

	saves chan saving
}

// question is something to ask, and the records that wait for its answer.
type question struct {
	key      Key
	messages []llm.Message
	first    *item
	waiters  []*item // first included
	trouble  trouble
	sealed   int // waiters whose links have been handed to the store
}

// item is a record on its way.
type item struct {
	rec     record.Record
	bad     *record.BadRecord
	key     string
	subject Subject

	done     bool
	answer   []byte
	failed   *Quarantined
	attempts int
}

type window struct {
	seq   int
	items []item
	bytes int64
}

// RunJob pushes the records of an input through a job. It returns a report also
// with an error: errors.Is tells ErrStopped (resumable, asked for), ErrServerGone
// (resumable), and others.
func RunJob(ctx context.Context, o Options) (Report, error) {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Minute
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	if o.Pacer == nil {
		o.Pacer = NewPacer(0)
	}
	r := &runner{Options: o, now: time.Now, flight: map[Key]*question{}, pacer: o.Pacer, saves: make(chan saving, 2*saveGroup)}
	r.changed = sync.NewCond(&r.mu)
	start := r.now()

	if err := r.begin(ctx); err != nil {
		return r.report(start), err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.cancel = cancel
	if o.Watch != nil {
		o.Watch(func() Progress { return r.progress(start) })
	}

	err := r.pipeline(ctx)
	rep := r.report(start)
	if err != nil {
		rep.Interrupted = true
		return rep, err
	}
	if o.Commit != nil {
		if err := o.Commit(); err != nil {
			return rep, err
		}
	}
	b, err := json.Marshal(rep)
	if err != nil {
		return rep, err
	}
	return rep, r.Store.FinishRun(context.WithoutCancel(ctx), r.run.ID, b)
}

// begin finds or starts the run in the store.
func (r *runner) begin(ctx context.Context) error {
	p := r.Job.Parts()
	mode := fmt.Sprintf("nocache=%v refresh=%v limit=%d", r.NoCache, r.Refresh, r.Limit)
	args := make([]string, 0, len(r.Args))
	for _, k := range sortedKeys(r.Args) {
		args = append(args, k+"="+r.Args[k])
	}
	var err error
	r.run, err = r.Store.OpenRun(ctx, Run{
		Fingerprint: Fingerprint(r.Job.Name, fmt.Sprint(r.Job.Version), p.Options, p.Schema, p.Prompt,
			r.Model.Identity(), r.Input, r.Output, mode, strings.Join(args, "\x00")),
		Started: r.now(),
		Job:     r.JobRef, Args: r.Args, Input: r.Input, Output: r.Output,
		Server: r.Server.Info().URL, Model: r.Model.Name,
	})
	if err != nil {
		return err
	}
	if r.scoped() {
		r.scope = fmt.Sprintf("run %d", r.run.ID)
	}
	r.source, err = r.Store.Source(ctx, SourceOf(r.Job, r.Model))
	return err
}

// SourceOf returns what the answers of a job with a model have in common.
func SourceOf(j *job.Job, m llm.Model) Source {
	p := j.Parts()
	return Source{
		Job: j.Name, Version: j.Version, Model: m.Identity(),
		Options: fmt.Sprintf("%s pack=%d", p.Options, p.Pack), Schema: p.Schema, Prompt: p.Prompt, Fields: j.Input,
	}
}

// scoped reports whether the answers of this run are for this run alone.
func (r *runner) scoped() bool {
	return r.NoCache || r.Job.Lifetime.Kind == job.LifetimeNone
}

// pipeline runs the stages until the input is done, the run is stopped or
// something fails.
func (r *runner) pipeline(ctx context.Context) error {
	var (
		todo   = make(chan *window)                            // reader to workers
		order  = make(chan *window, openRecords/windowFirst+1) // reader to writer
		stages sync.WaitGroup
		saver  sync.WaitGroup
	)
	go func() { // wakes those who wait on the condition when the context ends or a stop is asked for
		select {
		case <-ctx.Done():
		case <-r.Stop:
		}
		r.mu.Lock()
		r.stopping = true
		r.mu.Unlock()
		r.changed.Broadcast()
	}()
	saver.Go(func() { r.save(ctx) })
	stages.Go(func() {
		defer close(order)
		defer close(todo)
		if err := r.read(ctx, todo, order); err != nil {
			r.cancel(err)
		}
	})
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() { r.work(ctx, todo) })
	}
	var asks sync.WaitGroup
	dispatched := make(chan struct{})
	go func() { defer close(dispatched); r.dispatch(ctx, &asks) }()

	werr := r.write(ctx, order)
	if werr != nil && !errors.Is(werr, ErrStopped) {
		r.cancel(werr)
	}
	// The writer has seen every record, or the run ends early: nothing more is to be asked.
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	r.changed.Broadcast()
	for range order { //nolint:revive // lets the reader finish
	}
	stages.Wait()
	workers.Wait()
	<-dispatched
	asks.Wait()
	close(r.saves)
	saver.Wait()
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) {
			return ErrStopped
		}
		return cause
	}
	r.cancel(nil)
	return werr
}

func (r *runner) progress(start time.Time) Progress {
	r.mu.Lock()
	p := Progress{InFlight: r.active, Limit: r.pacer.Limit(), Complete: r.complete, Elapsed: r.now().Sub(start)}
	if r.lastErr != nil && r.active > 0 {
		p.Waiting = r.lastErr.Error()
	}
	r.mu.Unlock()
	p.Read = r.n.read.Load()
	p.Quarantined = r.n.quarantined.Load()
	p.Done = r.n.answered.Load() + p.Quarantined
	p.Cached, p.Shared = r.n.cached.Load(), r.n.shared.Load()
	p.Requests, p.Tokens = r.n.requests.Load(), r.n.completionTokens.Load()
	p.InputShare = math.Float64frombits(r.n.share.Load())
	return p
}

func (r *runner) report(start time.Time) Report {
	seconds := r.now().Sub(start).Seconds()
	info := r.Server.Info()
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.pacer.Knee()
	rep := Report{
		Job: r.Job.Name, JobVersion: r.Job.Version,
		Records: r.n.read.Load(), Answered: r.n.answered.Load(), Cached: r.n.cached.Load(),
		Deduplicated: r.n.shared.Load(), Prepared: r.n.prepared.Load(), Quarantined: r.n.quarantined.Load(),
		Requests: r.n.requests.Load(), Packed: r.n.packed.Load(), PackReasked: r.n.packReasked.Load(),
		Repaired: r.n.repaired.Load(), Retried: r.n.retried.Load(), Raised: r.n.raised.Load(),
		PromptTokens: r.n.promptTokens.Load(), CompletionTokens: r.n.completionTokens.Load(),
		TokensEstimated: r.n.estimated.Load(),
		Seconds:         seconds,
		Concurrency:     Concurrency{Mode: "auto", Level: k.Level, Peak: k.Peak, Found: k.Found, Rate: k.Rate, Refusals: k.Refusals},
		Server:          info.URL, ServerKind: string(info.Kind), ServerVersion: info.Version, Simulated: info.Simulated,
		Model: r.Model.Name, ModelDigest: r.Model.Digest,
		Resumed: r.run.Resumed,
		Notes:   append([]string(nil), r.notes...),
	}
	if rep.CompletionTokens > 0 { // the pacer counts prompts too
		rep.Concurrency.Rate *= float64(rep.CompletionTokens) / Work(int(rep.PromptTokens), int(rep.CompletionTokens))
	}
	if k.Fixed {
		rep.Concurrency.Mode = "fixed"
	}
	if seconds > 0 {
		rep.RecordsPerSecond = float64(rep.Answered+rep.Quarantined) / seconds
		rep.TokensPerSecond = float64(rep.CompletionTokens) / seconds
	}
	if note := kneeNote(info, k, rep); note != "" {
		rep.Notes = append(rep.Notes, note)
	}
	return rep
}

// kneeNote says what the pacer found about the server, and what to do.
func kneeNote(info llm.Info, k Knee, rep Report) string {
	if !k.Found || k.Fixed || rep.Requests < 16 {
		return ""
	}
	if rep.Seconds*float64(k.Level)/float64(rep.Requests) < 0.05 {
		return "" // requests this short say more about this program than about the server
	}
	switch {
	case k.Level == 1 && info.Kind == llm.Ollama:
		return "the server answers 1 request at a time; started with OLLAMA_NUM_PARALLEL=4 in its own environment it can answer several together for little more than the time of one (memory for the context is needed 4 times)"
	case k.Level == 1 && info.Kind == llm.LlamaServer:
		return "the server answers 1 request at a time; started with --parallel 4 it can answer several together for little more than the time of one"
	case k.Level == 1:
		return "the server answers 1 request at a time"
	}
	return fmt.Sprintf("the server gives its full rate at about %d requests in flight", k.Level)
}
