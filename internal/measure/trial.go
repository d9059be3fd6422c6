package measure

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"millrace/internal/llm"
)

// Trial is one request and what it gave. In a file it is one line of JSON. A
// nil or empty field is not known; times are in milliseconds.
type Trial struct {
	Run      string `json:"run"`
	Sequence int    `json:"sequence"` // of the request within its run, as sent
	Phase    Phase  `json:"phase"`
	Variant  string `json:"variant,omitempty"`
	Scenario string `json:"scenario,omitempty"`
	// Concurrency is how many requests were kept going at once, and Client
	// which of them this was.
	Concurrency int `json:"concurrency"`
	Client      int `json:"client"`

	Model         string   `json:"model"`
	Server        llm.Kind `json:"server,omitempty"`
	ServerVersion string   `json:"server_version,omitempty"`
	Simulated     string   `json:"simulated,omitempty"` // profile, if the server was a simulated one

	// StartedAt is for people and for matching with other records; AtMs is
	// the same since the run began, by a clock that nobody sets.
	StartedAt time.Time `json:"started_at"`
	AtMs      float64   `json:"at_ms"`

	TargetTokens     int  `json:"target_tokens"` // length of answer asked for
	PromptTokens     *int `json:"prompt_tokens,omitempty"`
	CachedTokens     *int `json:"cached_tokens,omitempty"`
	CompletionTokens *int `json:"completion_tokens,omitempty"`
	// Pieces are the parts in which text arrived, usually one for a token,
	// without those of a model's reasoning.
	Pieces *int `json:"pieces,omitempty"`

	// By our clock, from when the request was sent.
	TTFTMs *float64 `json:"ttft_ms,omitempty"` // first token, of reasoning too
	// TimePerOutputTokenMs is from the first to the last token, over one less
	// than their number. Where the server does not count tokens, pieces do.
	TimePerOutputTokenMs *float64 `json:"time_per_output_token_ms,omitempty"`
	E2EMs                *float64 `json:"e2e_ms,omitempty"`
	TokensPerS           *float64 `json:"tokens_per_s,omitempty"` // 1000 / TimePerOutputTokenMs
	// Times between pieces.
	GapP50Ms *float64 `json:"gap_p50_ms,omitempty"`
	GapP95Ms *float64 `json:"gap_p95_ms,omitempty"`
	GapMaxMs *float64 `json:"gap_max_ms,omitempty"`

	// The server's own figures. DifferencePercent is by how much its rate
	// (completion tokens over its decoding time) exceeds ours.
	ServerTotalMs     *float64 `json:"server_total_ms,omitempty"`
	ServerLoadMs      *float64 `json:"server_load_ms,omitempty"`
	ServerPrefillMs   *float64 `json:"server_prefill_ms,omitempty"`
	ServerDecodeMs    *float64 `json:"server_decode_ms,omitempty"`
	ServerTokensPerS  *float64 `json:"server_tokens_per_s,omitempty"`
	DifferencePercent *float64 `json:"difference_percent,omitempty"`

	Finish   llm.Finish `json:"finish,omitempty"`
	Reasoned bool       `json:"reasoned,omitempty"` // the model reasoned before it answered
	// Buffered is that the pieces came all at once though they cannot have
	// been made so: something on the way held them back, and the times of the
	// first and last token say nothing and are left out.
	Buffered bool `json:"buffered,omitempty"`
	// Cut says why we ended it before its end: its times then are those of
	// what had come.
	Cut string `json:"cut,omitempty"`

	ErrorKind llm.ErrorKind `json:"error_kind,omitempty"`
	Error     string        `json:"error,omitempty"` // in the server's words; never a prompt

	// Skipped says why something was not measured: such a line is no request.
	Skipped string `json:"skipped,omitempty"`
}

// The reasons of Cut.
const (
	CutLevel = "enough was seen at this number of requests"
	CutTime  = "out of time"
)

// Good reports whether the request was answered in full.
func (t Trial) Good() bool {
	return t.Skipped == "" && t.ErrorKind == "" && t.Cut == "" && t.E2EMs != nil
}

// tokens is the length of the answer, and whether the server counted it.
func (t Trial) tokens() (n int, counted bool) {
	switch {
	case t.CompletionTokens != nil:
		return *t.CompletionTokens, true
	case t.Pieces != nil:
		return *t.Pieces, false
	}
	return 0, false
}

// endMs is when it ended, since the run began.
func (t Trial) endMs() float64 { return t.AtMs + or(t.E2EMs, 0) }

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func msOf(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	return new(ms(*d))
}

func or(p *float64, unknown float64) float64 {
	if p == nil {
		return unknown
	}
	return *p
}

func round(x float64, digits int) float64 {
	f := math.Pow10(digits)
	return math.Round(x*f) / f
}

// atOnce is the time per token below which an answer counts as held back and
// then sent at once, if the server does not say that it was that fast.
const atOnce = 100 * time.Microsecond

// replied fills in what a reply says.
func (t *Trial) replied(r llm.Reply, arrivals []time.Duration) {
	t.PromptTokens, t.CachedTokens, t.CompletionTokens = r.PromptTokens, r.CachedTokens, r.CompletionTokens
	t.Finish, t.Reasoned = r.Finish, r.Thinking != ""
	if r.Simulated != "" {
		t.Simulated = r.Simulated
	}
	t.E2EMs = new(ms(r.Timing.Wall))
	t.ServerTotalMs, t.ServerLoadMs = msOf(r.Timing.Total), msOf(r.Timing.Load)
	t.ServerPrefillMs, t.ServerDecodeMs = msOf(r.Timing.Prefill), msOf(r.Timing.Decode)
	if n := r.CompletionTokens; n != nil && *n > 0 && or(t.ServerDecodeMs, 0) > 0 {
		t.ServerTokensPerS = new(round(float64(*n)*1000 / *t.ServerDecodeMs, 2))
	}
	t.arrived(r.Timing.FirstToken, r.Timing.LastToken, arrivals)
}

// arrived fills in what the arrival of tokens says. first and last may be nil.
func (t *Trial) arrived(first, last *time.Duration, arrivals []time.Duration) {
	if first == nil || last == nil {
		return
	}
	t.Pieces = new(len(arrivals))
	n, counted := t.tokens()
	span := *last - *first
	if !counted && n > 0 { // pieces are of the answer alone
		span = arrivals[n-1] - arrivals[0]
	}
	if n >= 8 && t.Simulated == "" && span < time.Duration(n-1)*atOnce {
		if t.ServerDecodeMs == nil || *t.ServerDecodeMs > 4*ms(span) {
			t.Buffered = true
			return
		}
	}
	t.TTFTMs = msOf(first)
	if n >= 2 && span > 0 {
		tpot := ms(span) / float64(n-1)
		t.TimePerOutputTokenMs = new(round(tpot, 4))
		t.TokensPerS = new(round(1000/tpot, 2))
		if t.ServerTokensPerS != nil {
			t.DifferencePercent = new(round(100*(*t.ServerTokensPerS*tpot/1000-1), 1))
		}
	}
	if len(arrivals) >= 2 {
		gaps := make([]time.Duration, len(arrivals)-1)
		for i := range gaps {
			gaps[i] = arrivals[i+1] - arrivals[i]
		}
		slices.Sort(gaps)
		at := func(q float64) *float64 { return new(ms(gaps[int(q*float64(len(gaps)-1)+0.5)])) }
		t.GapP50Ms, t.GapP95Ms, t.GapMaxMs = at(0.5), at(0.95), at(1)
	}
}

// WriteTrial writes a trial as one line of JSON.
func WriteTrial(w io.Writer, t Trial) error {
	b, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("trial %d: %w", t.Sequence, err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// BadLine is a line of a file that is not a trial.
type BadLine struct {
	File string
	Line int // from 1
	Err  error
}

func (b BadLine) Error() string { return fmt.Sprintf("%s:%d: %v", b.File, b.Line, b.Err) }

func (b BadLine) Unwrap() error { return b.Err }

// maxLine is the longest line that is read; a trial takes about 1 KB.
const maxLine = 1 << 20

// ReadTrials reads a file of trials. Lines that are not trials do not stop it:
// they come back apart, with their place. Empty lines are passed over, and
// fields that are not known here too. The error is one of reading.
func ReadTrials(r io.Reader, file string) (trials []Trial, bad []BadLine, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, tooLong, err := readLine(in)
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return trials, bad, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		if text := bytes.TrimSpace(line); len(text) > 0 || tooLong {
			t, parseErr := parseTrial(text)
			if tooLong {
				parseErr = fmt.Errorf("line is longer than %d bytes", maxLine)
			}
			if parseErr != nil {
				bad = append(bad, BadLine{file, n, parseErr})
			} else {
				trials = append(trials, t)
			}
		}
		if end {
			return trials, bad, nil
		}
	}
}

// Bounds for what is read: a picosecond, 12 days of milliseconds, a thousand
// million tokens. Within them no ratio overflows.
const (
	least = 1e-9
	most  = 1_000_000_000
)

// readLine reads up to the end of a line, and keeps at most maxLine of it.
func readLine(in *bufio.Reader) (line []byte, tooLong bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			tooLong = true
		} else {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err
		}
	}
}

func parseTrial(line []byte) (Trial, error) {
	var t Trial
	if err := json.Unmarshal(line, &t); err != nil {
		return Trial{}, fmt.Errorf("not a trial: %w", err)
	}
	var missing []string
	for _, field := range []struct {
		name string
		ok   bool
	}{{"run", t.Run != ""}, {"phase", t.Phase != ""}, {"concurrency", t.Concurrency > 0}} {
		if !field.ok {
			missing = append(missing, field.name)
		}
	}
	if len(missing) > 0 {
		return Trial{}, fmt.Errorf("not a trial: %s missing", strings.Join(missing, ", "))
	}
	for _, v := range []*float64{
		&t.AtMs, t.TTFTMs, t.TimePerOutputTokenMs, t.E2EMs, t.TokensPerS, t.GapP50Ms, t.GapP95Ms, t.GapMaxMs,
		t.ServerTotalMs, t.ServerLoadMs, t.ServerPrefillMs, t.ServerDecodeMs, t.ServerTokensPerS,
	} {
		if v != nil && (*v < 0 || *v > most || *v > 0 && *v < least) {
			return Trial{}, fmt.Errorf("trial %d: a time or rate of %g cannot be", t.Sequence, *v)
		}
	}
	for _, v := range []*int{&t.TargetTokens, t.PromptTokens, t.CachedTokens, t.CompletionTokens, t.Pieces, &t.Client, &t.Concurrency} {
		if v != nil && (*v < 0 || *v > most) {
			return Trial{}, fmt.Errorf("trial %d: a count of %d cannot be", t.Sequence, *v)
		}
	}
	return t, nil
}

// Runs splits trials by run, in the order in which they first come.
func Runs(trials []Trial) [][]Trial {
	var runs [][]Trial
	at := map[string]int{}
	for _, t := range trials {
		i, ok := at[t.Run]
		if !ok {
			i = len(runs)
			at[t.Run] = i
			runs = append(runs, nil)
		}
		runs[i] = append(runs[i], t)
	}
	return runs
}
