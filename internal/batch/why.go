package batch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"millrace/internal/job"
	"millrace/internal/llm"
	"millrace/internal/record"
)

// Verdict says whether a record's question would be answered from the cache
// and, if not, what changed since the record's last answer.
type Verdict struct {
	Record  string    `json:"record"` // record key
	Job     string    `json:"job"`
	Model   string    `json:"model"`
	Hit     bool      `json:"hit"`
	Created time.Time `json:"created,omitzero"` // of the answer that would be used, or of the last one
	Expires time.Time `json:"expires,omitzero"`
	// Changed names the parts that differ from the last answer's: "job version",
	// "model", "options", "schema", "prompt", "input FIELD", "expired". Empty
	// for a hit, and for a record that has no answer yet.
	Changed []string `json:"changed,omitempty"`
	Reason  string   `json:"reason"` // one sentence
}

// Why asks of one record whether it would be a cache hit.
func Why(ctx context.Context, s Store, j *job.Job, m llm.Model, rec record.Record, input string, now time.Time) (Verdict, error) {
	v := Verdict{Record: j.RecordKey(rec, input), Job: j.Name, Model: m.Name}
	messages, err := j.Render(rec)
	if err != nil {
		return v, err
	}
	if j.Lifetime.Kind == job.LifetimeNone {
		v.Reason = "the job's lifetime is none: every run asks again"
		return v, nil
	}
	key := newKeyer(j, m.Identity(), "").key(messages)
	found, err := s.Lookup(ctx, Run{}, []Key{key})
	if err != nil {
		return v, err
	}
	if a := found[0].Answer; a != nil {
		v.Created, v.Expires = a.Created, j.Lifetime.Expires(a.Created)
		if v.Expires.IsZero() || now.Before(v.Expires) {
			v.Hit = true
			v.Reason = "hit: the same question was answered on " + a.Created.Format(time.DateTime)
			return v, nil
		}
		v.Changed = []string{"expired"}
		v.Reason = fmt.Sprintf("miss: the answer of %s expired on %s", a.Created.Format(time.DateTime), v.Expires.Format(time.DateTime))
		return v, nil
	}
	trail, err := s.Trail(ctx, SubjectOf(v.Record))
	if err != nil {
		return v, err
	}
	for _, t := range trail {
		if t.Source.Job != j.Name {
			continue
		}
		v.Created = t.Created
		v.Changed = changes(t, SourceOf(j, m), j.InputHash(rec))
		if len(v.Changed) == 0 {
			v.Reason = "miss: nothing changed since the last answer, but it was given for another prompt form (an older version of Millrace)"
		} else {
			v.Reason = fmt.Sprintf("miss: changed since the last answer of %s: %s", t.Created.Format(time.DateTime), strings.Join(v.Changed, ", "))
		}
		return v, nil
	}
	v.Reason = "miss: this record has no answer of this job yet (or it was purged)"
	return v, nil
}

// changes names the parts in which a trail differs from what would be asked now.
func changes(t Trail, now Source, inputs []byte) []string {
	var c []string
	if t.Source.Version != now.Version {
		c = append(c, fmt.Sprintf("job version (%d to %d)", t.Source.Version, now.Version))
	}
	if t.Source.Model != now.Model {
		c = append(c, "model")
	}
	if t.Source.Options != now.Options {
		c = append(c, "options")
	}
	if t.Source.Schema != now.Schema {
		c = append(c, "schema")
	}
	if t.Source.Prompt != now.Prompt {
		c = append(c, "prompt")
	}
	was := map[string][]byte{}
	for i, f := range t.Source.Fields {
		if end := (i + 1) * 8; end <= len(t.Inputs) {
			was[f] = t.Inputs[end-8 : end]
		}
	}
	for i, f := range now.Fields {
		h, ok := was[f]
		if end := (i + 1) * 8; ok && end <= len(inputs) && !bytes.Equal(h, inputs[end-8:end]) {
			c = append(c, "input "+f)
		}
	}
	return c
}

// Estimate is what a run would do, found without asking the model.
type Estimate struct {
	Records  int64 `json:"records"`
	Bad      int64 `json:"unreadable"` // would go to quarantine unread
	Prepared int64 `json:"prepared"`   // answered by the job's rules
	Cached   int64 `json:"cached"`
	Repeated int64 `json:"deduplicated"` // the same question as an earlier record
	Ask      int64 `json:"to_ask"`       // distinct questions left
	// PromptTokens estimates those of all questions to ask, at four characters each.
	PromptTokens int64         `json:"prompt_tokens_estimated"`
	Capped       bool          `json:"capped,omitempty"` // more distinct questions than are remembered: Repeated is a lower bound
	Example      []llm.Message `json:"-"`                // the first question to ask
}

// rememberKeys bounds the memory of a dry run.
const rememberKeys = 4 << 20

// DryRun reads the whole input and says what a run would do. Only Job, Model,
// Store, In, Limit, NoCache, Refresh and Input of the options are used.
func DryRun(ctx context.Context, o Options) (Estimate, error) {
	var e Estimate
	r := &runner{Options: o, now: time.Now}
	k := newKeyer(o.Job, o.Model.Identity(), "")
	seen := map[Key]struct{}{}
	var keys []Key
	var sizes []int64
	flush := func() error {
		found := make([]Found, len(keys))
		if !o.NoCache && !o.Refresh && o.Job.Lifetime.Kind != job.LifetimeNone {
			var err error
			if found, err = o.Store.Lookup(ctx, Run{}, keys); err != nil {
				return err
			}
		}
		for i := range keys {
			if a := found[i].Answer; a != nil && r.fresh(a, r.now()) {
				e.Cached++
				continue
			}
			if _, ok := seen[keys[i]]; ok {
				e.Repeated++
				continue
			}
			if len(seen) < rememberKeys {
				seen[keys[i]] = struct{}{}
			} else {
				e.Capped = true
			}
			e.Ask++
			e.PromptTokens += sizes[i]
		}
		keys, sizes = keys[:0], sizes[:0]
		return nil
	}
	for o.Limit == 0 || e.Records < o.Limit {
		rec, err := o.In.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if _, bad := errors.AsType[*record.BadRecord](err); bad {
			e.Records++
			e.Bad++
			continue
		}
		if err != nil {
			return e, err
		}
		e.Records++
		if o.Job.Prepare != nil {
			answer, err := o.Job.Prepare(ctx, rec)
			if err != nil {
				e.Bad++
				continue
			}
			if answer != nil {
				e.Prepared++
				continue
			}
		}
		messages, err := o.Job.Render(rec)
		if err != nil {
			e.Bad++
			continue
		}
		if e.Example == nil {
			e.Example = messages
		}
		var n int
		for _, m := range messages {
			n += len(m.Content)
		}
		keys, sizes = append(keys, k.key(messages)), append(sizes, int64(n/4))
		if len(keys) == windowRecords {
			if err := flush(); err != nil {
				return e, err
			}
		}
	}
	return e, flush()
}
