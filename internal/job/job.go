// Package job is what an LLM job is: prompt, output schema, the fields it
// uses, how long its completions stay valid, and the Go steps around the model.
//
// A job comes from a YAML file (Load, Parse) or from Go (New); both are
// checked in full before anything is asked. A Job renders a record into
// messages (Render, RenderPack), turns a reply into a valid, canonical answer
// (Decode, SplitPack) and an answer into output columns (Columns, Values).
// Parts, InputHash and RecordKey are what a cache needs to recognise a
// question and to say what changed.
//
// A prompt is a text/template. What it prints of a record is data and is fenced:
// {{ .review }} becomes <review>...</review>, with nothing inside that could
// close it; {{ raw .review }} prints without a fence, {{ json .review }} as
// JSON, {{ index . "full name" }} a field whose name is no identifier. Numbers
// and booleans of JSON are printed as they are. Conditions, ranges and
// functions see the plain value.
//
// What a job file leaves out is: lifetime inputs, temperature 0, seed 1,
// max_tokens 1024 (so that every answer ends), pack 1, repairs 2.
package job

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"millrace/internal/llm"
	"millrace/internal/record"
)

// Job is a definition of LLM work on a record. Make one with Parse or, for
// built-in jobs, with New; its fields are then read only. It is safe for
// concurrent use.
type Job struct {
	Name    string
	Version int
	About   string   // one line for the list of jobs
	Origin  string   // path of the job file; "built-in" otherwise
	Input   []string // fields of the record that the prompt may use
	Key     string   // field that identifies the record, of Input or not; "" for its position

	Lifetime Lifetime
	Options  llm.Options
	Pack     int // records one request may carry; at least 1
	Repairs  int // times the model is shown its error before the record is given up

	// Prepare runs before the model. It may answer without it: a non-nil
	// answer is validated and used as the model's would be. Nil means "ask".
	Prepare func(ctx context.Context, r record.Record) (json.RawMessage, error)
	// Check verifies a valid answer against the record. Its error is shown to
	// the model as a repair and may be the record's reason for quarantine.
	Check func(r record.Record, answer json.RawMessage) error

	system     string // the job's own words
	prompt     string // source of the template
	schema     *schema
	template   *promptTemplate
	systemOne  string // system message of a request with one record
	systemPack string // and of one with several
	packID     string // property that carries the id in a packed answer
	at         position
	buffers    sync.Pool // of *buffer
}

// Def is a job as Go code writes it. Zero values mean the defaults of a job
// file, which the package comment lists.
type Def struct {
	Name    string
	Version int // at least 1
	About   string
	Input   []string
	Key     string

	System string          // plain text, no template
	Prompt string          // text/template over the input fields
	Schema json.RawMessage // JSON Schema 2020-12 of an object

	Lifetime Lifetime
	Options  llm.Options
	Pack     int
	Repairs  *int

	Prepare func(ctx context.Context, r record.Record) (json.RawMessage, error)
	Check   func(r record.Record, answer json.RawMessage) error
}

// Defaults of what a job leaves out.
const (
	defaultMaxTokens = 1024
	defaultRepairs   = 2
)

// New makes a built-in job. Its error lists everything that is wrong, one
// finding a line.
func New(d Def) (*Job, error) {
	at := position{label: "job"}
	if d.Name != "" {
		at.label += " " + d.Name
	}
	j := build(d, &at)
	j.Origin = "built-in"
	if err := at.err(); err != nil {
		return nil, err
	}
	return j, nil
}

// build checks d and makes the job; what is wrong is added to at. The job is
// usable only if nothing is.
func build(d Def, at *position) *Job {
	j := &Job{
		Name: d.Name, Version: d.Version, About: d.About, Input: slices.Clone(d.Input), Key: d.Key,
		Lifetime: d.Lifetime, Options: d.Options, Pack: d.Pack, Repairs: defaultRepairs,
		Prepare: d.Prepare, Check: d.Check, system: d.System, prompt: d.Prompt,
	}
	if j.Lifetime.Kind == "" {
		j.Lifetime.Kind = LifetimeInputs
	}
	if j.Pack == 0 {
		j.Pack = 1
	}
	if d.Repairs != nil {
		j.Repairs = *d.Repairs
	}
	setDefault(&j.Options.Temperature, 0)
	setDefault(&j.Options.Seed, 1)
	setDefault(&j.Options.MaxTokens, defaultMaxTokens)

	checkDef(j, at)
	if !at.has("input") {
		j.template = compileTemplate(j.prompt, j.Input, at)
	}
	if len(d.Schema) > 0 {
		j.schema = compileSchema(d.Schema, at)
		for _, c := range j.schema.names() {
			if slices.Contains(j.Input, c) {
				at.add("schema: the property "+quote(c)+" has the name of an input field, whose value it would replace in the output; rename it", "schema", "properties", c)
			}
		}
	} else if !at.has("schema") {
		at.add("a job needs a schema for its answers: a JSON Schema of an object", "schema")
	}
	if at.err() == nil {
		j.packID = freeName(j.schema.root, "id")
		j.systemOne, j.systemPack = systemMessages(j)
	}
	j.at = *at
	return j
}

func setDefault[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// checkDef checks what needs neither the template nor the schema.
func checkDef(j *Job, at *position) {
	switch {
	case j.Name == "" && !at.has("name"):
		at.add("a job needs a name", "name")
	case j.Name != "" && !validName(j.Name):
		at.add("the name must begin with a letter or digit and hold only letters, digits, '-', '_' and '.'", "name")
	}
	if j.Version < 1 && !at.has("version") {
		at.add("a job needs a version, a whole number from 1 up; raise it when the meaning of the answers changes", "version")
	}
	if len(j.Input) == 0 && !at.has("input") {
		at.add("a job needs input: the list of the record's fields that its prompt may use", "input")
	}
	inputRead := !at.has("input")
	for i, f := range j.Input {
		if !inputRead {
			break
		}
		if f == "" {
			at.add("an input field needs a name", "input", itoa(i))
		} else if slices.Contains(j.Input[:i], f) {
			at.add("the input field "+quote(f)+" is named twice", "input", itoa(i))
		}
	}
	if j.prompt == "" && !at.has("prompt") {
		at.add("a job needs a prompt", "prompt")
	}
	if j.Lifetime.Kind == LifetimeFor && j.Lifetime.For <= 0 && !at.has("lifetime") {
		at.add("the lifetime must be longer than nothing", "lifetime")
	}
	if j.Pack < 1 && !at.has("pack") {
		at.add("pack must be at least 1: it is the number of records that one request may carry", "pack")
	}
	if j.Repairs < 0 && !at.has("repairs") {
		at.add("repairs must not be negative", "repairs")
	}
	checkOptions(j.Options, at)
}

func checkOptions(o llm.Options, at *position) {
	check := func(ok bool, name, rule string) {
		if !ok {
			at.add(name+" must be "+rule, "options", name)
		}
	}
	check(o.Temperature == nil || *o.Temperature >= 0 && *o.Temperature <= 5, "temperature", "from 0 to 5")
	check(o.TopP == nil || *o.TopP > 0 && *o.TopP <= 1, "top_p", "above 0 and at most 1")
	check(o.TopK == nil || *o.TopK >= 0, "top_k", "0 or more")
	check(o.MinP == nil || *o.MinP >= 0 && *o.MinP <= 1, "min_p", "from 0 to 1")
	check(o.RepeatPenalty == nil || *o.RepeatPenalty > 0, "repeat_penalty", "above 0")
	check(o.MaxTokens == nil || *o.MaxTokens >= 1, "max_tokens", "at least 1")
	check(o.NumCtx == nil || *o.NumCtx >= 1, "num_ctx", "at least 1")
	check(!slices.Contains(o.Stop, ""), "stop", "texts that are not empty")
}

func validName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || r != '-' && r != '_' && r != '.') {
			return false
		}
	}
	return s != ""
}

// Schema is the JSON Schema of one record's answer, compact and with its
// properties in the order in which they were written. It must not be changed.
func (j *Job) Schema() json.RawMessage { return j.schema.raw }

// Lifetime is how long a completion stays valid.
type Lifetime struct {
	Kind LifetimeKind
	For  time.Duration // with LifetimeFor
}

// LifetimeKind is the form of a lifetime.
type LifetimeKind string

// The forms of a lifetime, as a job file writes them.
const (
	LifetimeInputs  LifetimeKind = "inputs"  // until the inputs, prompt, schema, options or model change; then the old one may be pruned
	LifetimeForever LifetimeKind = "forever" // as inputs, and never pruned
	LifetimeNone    LifetimeKind = "none"    // for the run that asked, no longer
	LifetimeFor     LifetimeKind = "for"     // a duration: 30d, 12h
)

// Expires is when a completion made at the given time ends; zero for never.
func (l Lifetime) Expires(made time.Time) time.Time {
	if l.Kind == LifetimeFor {
		return made.Add(l.For)
	}
	return time.Time{}
}
