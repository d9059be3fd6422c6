package job

import (
	"encoding/json"
	"slices"

	"millrace/internal/llm"
	"millrace/internal/record"
)

// Description is what a person may want to know of a job.
type Description struct {
	Name     string          `json:"name"`
	Version  int             `json:"version"`
	About    string          `json:"about,omitempty"`
	Origin   string          `json:"origin"`
	Input    []string        `json:"input"`
	Key      string          `json:"key,omitempty"` // "" for the record's position
	Output   []record.Column `json:"output"`
	Lifetime string          `json:"lifetime"`
	Options  llm.Options     `json:"options"`
	Pack     int             `json:"pack"`
	Repairs  int             `json:"repairs"`
	Prepare  bool            `json:"prepare"` // has a Go step before the model
	Check    bool            `json:"check"`   // has a Go step that verifies answers
	System   string          `json:"system"`  // the whole system message, as sent
	Prompt   string          `json:"prompt"`  // source of the template
	Schema   json.RawMessage `json:"schema"`
}

// Describe returns the job's description.
func (j *Job) Describe() Description {
	return Description{
		Name: j.Name, Version: j.Version, About: j.About, Origin: j.Origin,
		Input: slices.Clone(j.Input), Key: j.Key, Output: j.Columns(),
		Lifetime: j.Lifetime.String(), Options: j.Options, Pack: j.Pack, Repairs: j.Repairs,
		Prepare: j.Prepare != nil, Check: j.Check != nil,
		System: j.systemOne, Prompt: j.prompt, Schema: j.schema.raw,
	}
}
