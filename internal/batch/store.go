package batch

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Key identifies a question: everything that can change its answer, hashed.
type Key [16]byte

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Subject identifies a record across runs, as a hash of its record key, so
// that the state directory holds no names.
type Subject int64

// Source is what all answers of a job with one model have in common. The
// hashes tell which part changed.
type Source struct {
	Job     string
	Version int
	Model   string   // identity: digest, else name
	Options string   // hash
	Schema  string   // hash
	Prompt  string   // hash of the templates
	Fields  []string // input fields, in the order of Trail.Inputs
}

// Answer is a stored completion.
type Answer struct {
	Key     Key
	Subject Subject
	Source  int64  // from Store.Source
	Inputs  []byte // 8 bytes of hash for each of the source's fields
	Run     int64
	Scoped  bool // belongs to its run alone and goes when that ends
	Keep    bool // lifetime forever: Prune leaves it
	Text    json.RawMessage
	Created time.Time
	Expires time.Time // zero: never
}

// Link says that a record was answered by an answer first made for another.
type Link struct {
	Key     Key
	Subject Subject
	Source  int64
	Inputs  []byte
	Run     int64
	Created time.Time
}

// Failure is a question that this run gave up on. It is kept for the run only,
// so that a resumed run does not pay for it again.
type Failure struct {
	Key      Key
	Subject  Subject
	Run      int64
	Reason   string
	Raw      string // the last answer as the model gave it
	Attempts int
}

// Found is what a lookup gives for one key. Both are nil for a miss.
type Found struct {
	Answer  *Answer // without Key, Source and Inputs
	Failure *Failure
}

// Run is one run of a job over an input, from its start to its completion,
// however often it was interrupted.
type Run struct {
	ID          int64
	Fingerprint Key // job, input and output: what makes it the same run after an interruption
	Started     time.Time
	Resumed     bool // it had been started before

	// What `cache why` needs to ask the question again.
	Job    string // name, or path of the file
	Args   map[string]string
	Input  string
	Output string
	Server string
	Model  string
}

// Trail is one answer that a record got.
type Trail struct {
	Source  Source
	Inputs  []byte
	Key     Key
	Run     Run
	Created time.Time // of the answer
	Expires time.Time
}

// StoreStats is the size of a store.
type StoreStats struct {
	Answers, Expired, Stale, Records, Runs int64
	Bytes                                  int64 // on disk
	TextBytes                              int64 // compressed answers
	ByJob                                  []JobStats
}

// JobStats is one job's share of a store.
type JobStats struct {
	Job     string
	Answers int64
	Oldest  time.Time
	Newest  time.Time
}

// Purged counts what a purge or prune removed.
type Purged struct {
	Answers, Links, Failures, Runs int64
}

// Store keeps answers and where they came from. It keeps and finds; whether an
// answer may be used is decided here in batch. Safe for concurrent use, by
// several processes too.
type Store interface {
	// Lookup finds the answers of keys, and where run is a resumed one, its
	// failures. The result is in the order of keys.
	Lookup(ctx context.Context, run Run, keys []Key) ([]Found, error)
	// Save writes a group in one transaction. An answer replaces an older one
	// of the same key; the records linked to that stay linked.
	Save(ctx context.Context, answers []Answer, links []Link, failures []Failure) error
	// Source returns the id of a source, adding it when it is new.
	Source(ctx context.Context, s Source) (int64, error)

	// OpenRun returns the unfinished run with the same fingerprint, marked
	// Resumed, or begins one.
	OpenRun(ctx context.Context, r Run) (Run, error)
	// FinishRun ends a run: its report is kept, its scoped answers and its
	// failures are removed.
	FinishRun(ctx context.Context, id int64, report json.RawMessage) error

	// Trail returns the answers that a record got, newest first.
	Trail(ctx context.Context, s Subject) ([]Trail, error)
	// Purge removes all that was derived from a record, so that its bytes are
	// gone from the files too.
	Purge(ctx context.Context, s Subject) (Purged, error)
	// Prune removes what no run can use again: answers expired before now,
	// scoped answers and failures of runs untouched since abandoned, and
	// answers replaced by newer ones for each record that led to them
	// (unless Keep).
	Prune(ctx context.Context, now, abandoned time.Time) (Purged, error)
	Stats(ctx context.Context, now time.Time) (StoreStats, error)
	Close() error
}
