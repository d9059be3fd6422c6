// Package measure puts a controlled load on a server and says, by our own
// clock, how fast it is: raw trials, and summaries made from them.
//
// [Run] asks, [Trial] is what one request gave, and a file of trials can be
// read again with [ReadTrials]. [Summarise] makes numbers of trials, each with
// the interval it is known to and with warnings about what makes it doubtful.
// It never judges: what a number means is for package doctor.
//
// How to measure well, which Run does by itself: warm up and throw that away;
// ask new questions only, for a prompt seen before is read from a cache;
// interleave what is to be compared, so that a machine that slows down slows
// everything alike; repeat until the spread is known, and no longer because
// the answer does not please. Run repeats until the interval is narrow, which
// makes the interval of a noisy machine a little too narrow: it is meant for
// finding causes, not for ranking cards.
//
// The speed of decoding is taken from the first to the last token that
// arrived. What the server says of itself stands beside it and is never used
// in its place: Ollama up to 0.24 leaves sampling out of its figure, others
// count tokens from their cache as read (reference: shared/reference/ollama.md
// section 4.2).
package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/internal/llm"
)

// Scenario is a kind of question, by its length and that of its answer.
// Tokens are about four characters of English.
type Scenario struct {
	Name         string
	PromptTokens int // length of the question, about
	AnswerTokens int // length of the answer that is asked for, by max_tokens
	// Least is how far answers are shortened on a slow machine: the shortest
	// that still belong to the scenario.
	Least int
}

// The scenarios. The first three are those by which users compare servers;
// Several is asked to find what several requests at once give, and is as long
// as takes about a second.
var (
	short   = Scenario{Name: "short", PromptTokens: 150, AnswerTokens: 16, Least: 16}
	medium  = Scenario{Name: "medium", PromptTokens: 300, AnswerTokens: 80, Least: 50}
	long    = Scenario{Name: "long", PromptTokens: 400, AnswerTokens: 256, Least: 200}
	several = Scenario{Name: "several", PromptTokens: 150, AnswerTokens: 128, Least: 16}
)

// Scenarios returns the scenarios that can be asked for by name: short (under
// 20 tokens of answer), medium (50 to 100) and long (200 and more).
func Scenarios() []Scenario { return []Scenario{short, medium, long} }

// FindScenario returns the scenario of that name. The error lists those there
// are.
func FindScenario(name string) (Scenario, error) {
	var have []string
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, nil
		}
		have = append(have, s.Name)
	}
	return Scenario{}, fmt.Errorf("no scenario %q; there are: %s", name, strings.Join(have, ", "))
}

// Phase is a part of a measurement.
type Phase string

// The phases, in the order in which they run.
const (
	PhaseWarmUp      Phase = "warmup"      // thrown away, but tells how long loading took
	PhaseSingle      Phase = "single"      // one request at a time, scenarios interleaved
	PhaseConcurrency Phase = "concurrency" // so many at once; one at a time to compare with
	PhasePrefix      Phase = "prefix"      // a prompt, and then its beginning again
	PhaseReload      Phase = "reload"      // the model taken out of memory on purpose
)

// Variants of a trial within its phase.
const (
	VariantPlain  = ""       // nothing special
	VariantSchema = "schema" // the answer has to fit a JSON Schema
	VariantFirst  = "first"  // a prompt that is new
	VariantAgain  = "again"  // its beginning was just read
)

// Plan is what to measure.
type Plan struct {
	// Run names the run in its trials, and makes its prompts unlike those of
	// any other; "" takes a new name.
	Run string

	Scenarios []Scenario // one request at a time; the shortest first
	// Min and Max bound the repetitions of each, and Within is the half width
	// of the 95 % interval, as a part of the rate, at which it is known well
	// enough. Min 0 is 3, Max 0 is 12, Within 0 is 0.05.
	Min, Max int
	Within   float64

	// Concurrency are the numbers of requests at once, rising; one at a time
	// is always measured to compare with. Empty measures none. Unless All is
	// set, it stops where more requests give no more tokens.
	Concurrency []int
	All         bool
	// Load is what is asked then, and for the schema. The zero value takes
	// answers of about a second.
	Load Scenario

	Prefix bool // measure what a prompt gains whose beginning was just read
	Schema bool // measure what a JSON Schema costs
	// Reload takes the model out of memory and measures how long it takes to
	// load: intrusive for other users of the server. It needs an Unloader.
	Reload bool

	// Budget is how long it may take; 0 is no limit. Lengths and repetitions
	// are fitted into it by the speed measured so far, and what has no place
	// is left out and said so. Loading a model counts, but half of the budget
	// is left after it.
	Budget time.Duration
	// LoadLimit bounds the wait for the model; 0 is 5 minutes.
	LoadLimit time.Duration

	// Think is passed on; for a model that reasons first.
	Think *bool
}

// Full is the plan of a whole diagnosis: about 45 seconds.
func Full() Plan {
	return Plan{
		Scenarios:   Scenarios(),
		Concurrency: []int{2, 4, 8, 16, 32},
		Prefix:      true,
		Schema:      true,
		Budget:      45 * time.Second,
	}
}

// Quick is the plan of a first look: about 8 seconds.
func Quick() Plan {
	return Plan{
		Scenarios:   []Scenario{short, medium},
		Concurrency: []int{2, 4, 8},
		Load:        short,
		Prefix:      true,
		Schema:      true,
		Max:         5,
		Budget:      8 * time.Second,
	}
}

// Validate says what is wrong with a plan.
func (p Plan) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	names := map[string]bool{}
	for _, s := range p.Scenarios {
		switch {
		case s.Name == "" || names[s.Name]:
			wrong("scenario %q: each needs a name of its own", s.Name)
		case s.PromptTokens < 1 || s.AnswerTokens < 2:
			wrong("scenario %q: %d tokens of prompt and %d of answer; at least 1 and 2 are needed", s.Name, s.PromptTokens, s.AnswerTokens)
		}
		names[s.Name] = true
	}
	last := 0
	for _, n := range p.Concurrency {
		if n <= last {
			wrong("concurrency %v: numbers have to be positive and rising", p.Concurrency)
			break
		}
		last = n
	}
	if last > maxClients {
		wrong("concurrency %d: at most %d requests at once", last, maxClients)
	}
	if p.Min < 0 || p.Max < 0 || p.Max > 0 && p.Max < p.Min {
		wrong("repetitions from %d to %d: the first must not be larger, nor one of them negative", p.Min, p.Max)
	}
	if p.Within < 0 || p.Budget < 0 || p.LoadLimit < 0 {
		wrong("an interval or a time is negative")
	}
	return errors.Join(errs...)
}

// maxClients is a bound against typing errors; servers' own queues hold 512
// (ollama.md section 5).
const maxClients = 512

func (p Plan) withDefaults() Plan {
	if p.Run == "" {
		p.Run = newRun()
	}
	if p.Min == 0 {
		p.Min = 3
		if p.Max > 0 {
			p.Min = min(p.Min, p.Max)
		}
	}
	if p.Max == 0 {
		p.Max = max(12, p.Min)
	}
	if p.Within == 0 {
		p.Within = 0.05
	}
	if p.LoadLimit == 0 {
		p.LoadLimit = 5 * time.Minute
	}
	p.Concurrency = slices.DeleteFunc(slices.Clone(p.Concurrency), func(n int) bool { return n == 1 })
	return p
}

// Step is a part of a run that is measured under the same conditions.
type Step struct {
	Phase   Phase
	Clients int // requests at once
}

// Hooks are called during a run. Each may be nil. They are called one at a
// time, and the run waits for them.
type Hooks struct {
	// Before and After enclose a step: the place to start and stop sampling
	// the machine.
	Before, After func(context.Context, Step)
	// Trial gets each trial when it ends.
	Trial func(Trial)
}

func (h Hooks) around(ctx context.Context, s Step, f func() error) error {
	if h.Before != nil {
		h.Before(ctx, s)
	}
	if h.After != nil {
		defer h.After(context.WithoutCancel(ctx), s)
	}
	return f()
}

// Unloader is a server that can take a model out of memory, as Ollama does
// with keep_alive 0. It is needed for Plan.Reload only.
type Unloader interface {
	Unload(ctx context.Context, model string) error
}

var errNoUnload = &llm.Error{Kind: llm.Refused, Message: "this kind of server cannot be told to take a model out of memory"}
