package batch

import (
	"encoding/json"
	"sync/atomic"
	"time"
)

// Report is what a run did. Counts are of records unless named otherwise.
type Report struct {
	Job        string `json:"job"`
	JobVersion int    `json:"job_version"`

	Records      int64 `json:"records"`      // read from the input
	Answered     int64 `json:"answered"`     // written to the output
	Cached       int64 `json:"cached"`       // of those, answered from an earlier run (or the part of this run before an interruption)
	Deduplicated int64 `json:"deduplicated"` // of those, the same question as another record of this run
	Prepared     int64 `json:"prepared"`     // of those, answered by the job's own rules without a model
	Quarantined  int64 `json:"quarantined"`

	Requests    int64 `json:"requests"`           // sent to the server, repeats included
	Packed      int64 `json:"packed"`             // records that were asked in a request with others
	PackReasked int64 `json:"packed_reasked"`     // of those, asked again alone because the shared answer missed them or was invalid
	Repaired    int64 `json:"repaired"`           // answered after the model was shown its error
	Retried     int64 `json:"retried"`            // requests repeated because of an error of the server or connection
	Raised      int64 `json:"token_limit_raised"` // requests repeated with a higher token limit because the answer was cut off

	PromptTokens     int64 `json:"prompt_tokens"`
	CompletionTokens int64 `json:"completion_tokens"`
	// TokensEstimated says that the server did not count tokens for some
	// replies and that they were taken as four characters each.
	TokensEstimated bool `json:"tokens_estimated"`

	Seconds          float64 `json:"seconds"`
	RecordsPerSecond float64 `json:"records_per_second"`
	TokensPerSecond  float64 `json:"tokens_per_second"` // completion tokens over all seconds

	Concurrency Concurrency `json:"concurrency"`

	Server        string `json:"server"`
	ServerKind    string `json:"server_kind"`
	ServerVersion string `json:"server_version,omitempty"`
	Simulated     string `json:"simulated,omitempty"` // profile, when the server was a simulated one
	Model         string `json:"model"`
	ModelDigest   string `json:"model_digest,omitempty"`

	Resumed     bool     `json:"resumed"`
	Interrupted bool     `json:"interrupted"`
	Notes       []string `json:"notes,omitempty"` // what the user should know, one sentence each
}

// Concurrency is how many requests were in flight.
type Concurrency struct {
	Mode     string  `json:"mode"` // auto or fixed
	Level    int     `json:"level"`
	Peak     int     `json:"peak"`
	Found    bool    `json:"knee_found"`
	Rate     float64 `json:"tokens_per_second_at_level,omitempty"`
	Refusals int     `json:"refusals"`
}

// Quarantined is a record without a valid answer.
type Quarantined struct {
	Record   json.RawMessage `json:"record"` // its fields; null when it could not be read
	Position int64           `json:"position"`
	Line     int64           `json:"line,omitempty"`
	Key      string          `json:"key,omitempty"`
	Reason   string          `json:"reason"`
	Answer   string          `json:"answer,omitempty"` // the model's last one, as it came
	Attempts int             `json:"attempts"`
	Raw      string          `json:"raw,omitempty"` // text of a record that could not be read
}

// Progress is a look at a run under way.
type Progress struct {
	Read        int64
	Done        int64 // answered or quarantined
	Cached      int64
	Shared      int64 // deduplicated
	Quarantined int64
	Requests    int64
	Tokens      int64 // completion tokens
	InFlight    int
	Limit       int
	Complete    bool    // all records have been read: Read is their number
	InputShare  float64 // share of the input that has been read, 0 to 1; negative when unknown
	Elapsed     time.Duration
	Waiting     string // why nothing moves, if so: "the server does not answer (connection refused)"
}

// counters are the live figures of a run.
type counters struct {
	read, answered, cached, shared, prepared, quarantined    atomic.Int64
	requests, packed, packReasked, repaired, retried, raised atomic.Int64
	promptTokens, completionTokens                           atomic.Int64
	estimated                                                atomic.Bool
	share                                                    atomic.Uint64 // float bits of the input's share read
}
