package measure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"millrace/internal/llm"
)

// Summary is what the trials of a run say. Nil is not known.
type Summary struct {
	Run           string    `json:"run"`
	Model         string    `json:"model"`
	Server        llm.Kind  `json:"server,omitempty"`
	ServerVersion string    `json:"server_version,omitempty"`
	Simulated     string    `json:"simulated,omitempty"` // profile; empty for a real server
	StartedAt     time.Time `json:"started_at"`
	TookS         float64   `json:"took_s"`
	Requests      int       `json:"requests"`
	Failed        int       `json:"failed"`

	Scenarios []ScenarioSummary `json:"scenarios"` // one request at a time
	Curve     *Curve            `json:"curve,omitempty"`
	Prefix    *PrefixEffect     `json:"prefix,omitempty"`
	Schema    *SchemaCost       `json:"schema,omitempty"`
	ColdStart *Loading          `json:"cold_start,omitempty"` // if the model was not in memory
	Reload    *Loading          `json:"reload,omitempty"`     // if asked for

	// DriftPercent is how much faster single requests were in the last third
	// of them than in the first, negative for slower.
	DriftPercent *float64 `json:"drift_percent,omitempty"`

	Skipped  []Omission `json:"skipped,omitempty"`
	Warnings []Warning  `json:"warnings,omitempty"`
}

// ScenarioSummary is what single requests of a scenario gave.
type ScenarioSummary struct {
	Scenario     string   `json:"scenario"`
	N            int      `json:"n"` // requests answered in full
	Failed       int      `json:"failed,omitempty"`
	Cut          int      `json:"cut,omitempty"`
	TargetTokens int      `json:"target_tokens"`
	AnswerTokens *float64 `json:"answer_tokens,omitempty"` // median
	PromptTokens *float64 `json:"prompt_tokens,omitempty"` // median, by the server
	// CountedByPieces is that the server counts no tokens, and rates are of
	// the pieces in which text came.
	CountedByPieces bool `json:"counted_by_pieces,omitempty"`

	TokensPerS         *Estimate `json:"tokens_per_s,omitempty"`            // first to last token, by our clock
	EndToEndTokensPerS *Estimate `json:"end_to_end_tokens_per_s,omitempty"` // tokens over all of the time
	ServerTokensPerS   *Estimate `json:"server_tokens_per_s,omitempty"`     // the server's own claim
	// DifferencePercent is by how much that claim exceeds our clock.
	DifferencePercent *float64  `json:"difference_percent,omitempty"`
	TTFTMs            *Estimate `json:"ttft_ms,omitempty"`
	E2EMs             *Estimate `json:"e2e_ms,omitempty"`
	// PromptTokensPerS is by the server, of tokens that were not cached.
	PromptTokensPerS *Estimate `json:"prompt_tokens_per_s,omitempty"`
	GapP95Ms         *Estimate `json:"gap_p95_ms,omitempty"` // between pieces
	Split            *Split    `json:"split,omitempty"`
}

// PrefixEffect is what a prompt gains whose beginning was just read.
type PrefixEffect struct {
	PromptTokens int       `json:"prompt_tokens"` // about
	FirstTTFTMs  *Estimate `json:"first_ttft_ms,omitempty"`
	AgainTTFTMs  *Estimate `json:"again_ttft_ms,omitempty"`
	// By the server.
	FirstPrefillMs *Estimate `json:"first_prefill_ms,omitempty"`
	AgainPrefillMs *Estimate `json:"again_prefill_ms,omitempty"`
	CachedTokens   *float64  `json:"cached_tokens,omitempty"` // of the second, median
	// SavedPercent is the part of reading that the second is spared: of the
	// server's time for it, else of the time to the first token. Nine tenths
	// of the prompt are the same.
	SavedPercent *float64 `json:"saved_percent,omitempty"`
	// Reused is whether the server reuses what it has read; nil when the
	// times are too close to tell.
	Reused *bool `json:"reused,omitempty"`
}

// SchemaCost is what a JSON Schema costs.
type SchemaCost struct {
	PlainTokensPerS  *Estimate `json:"plain_tokens_per_s,omitempty"`
	SchemaTokensPerS *Estimate `json:"schema_tokens_per_s,omitempty"`
	// Factor is how many times longer a token takes, with bounds from the two
	// intervals.
	Factor *float64 `json:"factor,omitempty"`
	Low    *float64 `json:"low,omitempty"`
	High   *float64 `json:"high,omitempty"`
	// FirstTokenMs is how much later the first token comes.
	FirstTokenMs *float64 `json:"first_token_ms,omitempty"`
	N            int      `json:"n"` // requests with the schema answered in full
	Error        string   `json:"error,omitempty"`
}

// Loading is how long a model took to load.
type Loading struct {
	Ms float64 `json:"ms"`
	// ByServer is that the server said so; otherwise it is by how much later
	// the first token came than usual.
	ByServer bool `json:"by_server"`
	N        int  `json:"n"`
}

// Omission is what was not measured, and why.
type Omission struct {
	Phase       Phase  `json:"phase"`
	Scenario    string `json:"scenario,omitempty"`
	Variant     string `json:"variant,omitempty"`
	Concurrency int    `json:"concurrency"`
	Why         string `json:"why"`
}

// Code names a warning.
type Code string

// The warnings.
const (
	TooFew         Code = "too-few-samples"
	WideSpread     Code = "wide-spread"
	ModelLoaded    Code = "model-loaded"
	EndedEarly     Code = "ended-early"
	Shortened      Code = "shortened"
	CutOff         Code = "cut-off"
	ClocksDiffer   Code = "clocks-differ"
	NotStreamed    Code = "not-streamed"
	NoTokenCounts  Code = "no-token-counts"
	Waited         Code = "waited"
	PromptCached   Code = "prompt-cached"
	SlowedDown     Code = "slowed-down"
	RequestsFailed Code = "requests-failed"
	MixedRuns      Code = "mixed-runs"
)

// Warning is something that makes a number doubtful. It does not stop a
// summary, and has to be shown beside it.
type Warning struct {
	Code        Code   `json:"code"`
	Scenario    string `json:"scenario,omitempty"`
	Concurrency int    `json:"concurrency,omitempty"`
	Text        string `json:"text"`
}

const (
	wide     = 0.10 // half of the interval, as a part of the median
	drifted  = 8.0  // percent
	clockLag = 0.02
)

// Summarise makes numbers of the trials of one run, in any order. Of several
// runs it takes the last, and warns.
func Summarise(trials []Trial) Summary {
	runs := Runs(trials)
	if len(runs) == 0 {
		return Summary{}
	}
	mine := slices.Clone(runs[len(runs)-1])
	slices.SortStableFunc(mine, func(a, b Trial) int { return cmp.Compare(a.Sequence, b.Sequence) })
	s := Summary{StartedAt: mine[0].StartedAt}
	if len(runs) > 1 {
		s.warn(MixedRuns, "", 0, "there are trials of %d runs; this is the last of them", len(runs))
	}
	var asked []Trial
	first, last := math.Inf(1), 0.0
	for _, t := range mine {
		s.Run, s.Model, s.Server = t.Run, cmp.Or(s.Model, t.Model), cmp.Or(s.Server, t.Server)
		s.ServerVersion, s.Simulated = cmp.Or(s.ServerVersion, t.ServerVersion), cmp.Or(s.Simulated, t.Simulated)
		if t.Skipped != "" {
			s.Skipped = append(s.Skipped, Omission{t.Phase, t.Scenario, t.Variant, t.Concurrency, t.Skipped})
			continue
		}
		asked = append(asked, t)
		s.Requests++
		first, last = min(first, t.AtMs), max(last, t.endMs())
		if t.ErrorKind != "" {
			s.Failed++
		}
	}
	if len(asked) == 0 {
		return s
	}
	s.TookS = round((last-first)/1000, 3)
	s.failures(asked)
	s.clocks(asked)
	s.scenarios(asked)
	if c := newCurve(asked); len(c.Levels) > 0 && hasSeveral(asked) {
		s.Curve = &c
		s.levels(c, asked)
	}
	s.Prefix, s.Schema = prefixEffect(asked), schemaCost(asked)
	s.ColdStart, s.Reload = loading(asked, PhaseWarmUp), loading(asked, PhaseReload)
	s.drift(asked)
	return s
}

func (s *Summary) warn(c Code, scenario string, clients int, format string, args ...any) {
	s.Warnings = append(s.Warnings, Warning{c, scenario, clients, fmt.Sprintf(format, args...)})
}

func hasSeveral(trials []Trial) bool {
	return slices.ContainsFunc(trials, func(t Trial) bool { return t.Concurrency > 1 })
}

// failures warns of requests that were not answered, by kind.
func (s *Summary) failures(trials []Trial) {
	count := map[llm.ErrorKind]int{}
	example := map[llm.ErrorKind]Trial{}
	var kinds []llm.ErrorKind
	for _, t := range trials {
		if t.ErrorKind == "" {
			continue
		}
		if count[t.ErrorKind]++; count[t.ErrorKind] == 1 {
			kinds = append(kinds, t.ErrorKind)
			example[t.ErrorKind] = t
		}
	}
	for _, k := range kinds {
		t := example[k]
		s.warn(RequestsFailed, t.Scenario, t.Concurrency, "%d of %d requests failed (%s), the first with: %s", count[k], s.Requests, k, t.Error)
	}
}

// clocks warns where a server's times cannot be right by our clock.
func (s *Summary) clocks(trials []Trial) {
	worst, n := 0.0, 0
	for _, t := range trials {
		if t.Good() && t.ServerTotalMs != nil {
			if over := *t.ServerTotalMs - *t.E2EMs; over > clockLag**t.E2EMs+5 {
				n++
				worst = max(worst, over / *t.E2EMs)
			}
		}
	}
	if n > 0 {
		s.warn(ClocksDiffer, "", 0, "in %d requests the server counted more time than passed here, up to %.0f %%: one of the two clocks is wrong", n, 100*worst)
	}
}

func (s *Summary) scenarios(trials []Trial) {
	var names []string
	by := map[string][]Trial{}
	for _, t := range trials {
		if t.Phase == PhaseSingle {
			if by[t.Scenario] == nil {
				names = append(names, t.Scenario)
			}
			by[t.Scenario] = append(by[t.Scenario], t)
		}
	}
	for _, name := range names {
		s.Scenarios = append(s.Scenarios, s.scenario(name, by[name]))
	}
}

func (s *Summary) scenario(name string, trials []Trial) ScenarioSummary {
	r := ScenarioSummary{Scenario: name, TargetTokens: trials[0].TargetTokens}
	warn := func(c Code, format string, args ...any) { s.warn(c, name, 1, format, args...) }
	var good, cut []Trial
	for _, t := range trials {
		switch {
		case t.Good():
			good = append(good, t)
		case t.Cut != "":
			r.Cut++
			cut = append(cut, t)
		default:
			r.Failed++
		}
	}
	r.N = len(good)
	reloads := 0
	for _, t := range good {
		if loaded(t, good) {
			reloads++
		}
	}
	if reloads > 0 {
		warn(ModelLoaded, "the model was loaded during %d of %d requests", reloads, len(good))
	}
	good = undisturbed(good)
	sample := good
	if len(good) == 0 && len(cut) > 0 {
		sample = cut // a part of an answer tells the speed too
		warn(CutOff, "no request was answered in full: the speed is that of the part that came")
	}
	est := func(of func(Trial) *float64) *Estimate { return NewEstimate(collect(sample, of)) }
	r.TokensPerS = est(func(t Trial) *float64 { return t.TokensPerS })
	r.ServerTokensPerS = est(func(t Trial) *float64 { return t.ServerTokensPerS })
	r.TTFTMs = est(ttft)
	r.GapP95Ms = est(func(t Trial) *float64 { return t.GapP95Ms })
	r.E2EMs = NewEstimate(collect(good, func(t Trial) *float64 { return t.E2EMs }))
	r.EndToEndTokensPerS = NewEstimate(collect(good, func(t Trial) *float64 {
		n, _ := t.tokens()
		if n == 0 || *t.E2EMs == 0 {
			return nil
		}
		return new(float64(n) * 1000 / *t.E2EMs)
	}))
	r.PromptTokensPerS = NewEstimate(collect(good, promptRate))
	if r.TokensPerS != nil && r.ServerTokensPerS != nil && r.TokensPerS.Median > 0 {
		r.DifferencePercent = new(round(100*(r.ServerTokensPerS.Median/r.TokensPerS.Median-1), 1))
	}
	r.Split = newSplit(good, good)
	r.lengths(good, warn)
	r.doubts(good, warn)
	return r
}

// promptRate is the server's rate of reading.
func promptRate(t Trial) *float64 {
	if t.PromptTokens == nil || or(t.ServerPrefillMs, 0) == 0 {
		return nil
	}
	n := *t.PromptTokens
	if t.CachedTokens != nil {
		n -= *t.CachedTokens
	}
	if n <= 0 {
		return nil
	}
	return new(float64(n) * 1000 / *t.ServerPrefillMs)
}

func (r *ScenarioSummary) lengths(good []Trial, warn func(Code, string, ...any)) {
	var answers, prompts []float64
	early, pieces, cached := 0, 0, 0
	for _, t := range good {
		n, counted := t.tokens()
		if n > 0 {
			answers = append(answers, float64(n))
		}
		if !counted && n > 0 {
			pieces++
		}
		if t.Finish != llm.FinishLength && n > 0 && float64(n) < 0.9*float64(t.TargetTokens) {
			early++
		}
		if t.PromptTokens != nil {
			prompts = append(prompts, float64(*t.PromptTokens))
			if t.CachedTokens != nil && 3**t.CachedTokens > *t.PromptTokens {
				cached++
			}
		}
	}
	if len(answers) > 0 {
		r.AnswerTokens = new(medianOf(answers))
	}
	if len(prompts) > 0 {
		r.PromptTokens = new(medianOf(prompts))
	}
	if early > 0 {
		warn(EndedEarly, "%d of %d answers ended before the %d tokens that were asked for", early, len(good), r.TargetTokens)
	}
	if sc, err := FindScenario(r.Scenario); err == nil && r.TargetTokens < sc.AnswerTokens {
		warn(Shortened, "answers of %d tokens were asked for in place of %d, to fit into the time", r.TargetTokens, sc.AnswerTokens)
	}
	if pieces > 0 {
		r.CountedByPieces = true
		warn(NoTokenCounts, "the server does not count tokens: rates are of pieces of text, often but not always one token")
	}
	if cached > 0 {
		warn(PromptCached, "%d of %d prompts came from a cache though they were new: reading looks faster than it is", cached, len(good))
	}
}

func (r *ScenarioSummary) doubts(good []Trial, warn func(Code, string, ...any)) {
	e := r.TokensPerS
	if e == nil {
		e = r.EndToEndTokensPerS
	}
	switch {
	case e == nil || e.N < fewest:
		n := 0
		if e != nil {
			n = e.N
		}
		warn(TooFew, "only %d of the requests tell the speed: no interval can be given", n)
	default:
		if w, ok := e.halfWidth(); ok && w > wide {
			warn(WideSpread, "the speed is only known to %.0f %%: something else may have used the machine", 100*w)
		}
	}
	held, streamed, waited := 0, 0, 0
	for _, t := range good {
		if t.Buffered {
			held++
		}
		if t.TTFTMs != nil {
			streamed++
		}
		if q, _ := queue(t, good); q != nil && *q > max(100, 0.25**t.E2EMs) {
			waited++
		}
	}
	switch {
	case held > 0:
		warn(NotStreamed, "%d of %d answers arrived all at once: something between here and the server holds them back", held, len(good))
	case streamed == 0 && len(good) > 0:
		warn(NotStreamed, "the server does not stream: there is no time to the first token, and rates are end to end")
	}
	if waited > 0 {
		warn(Waited, "%d of %d requests waited although they were alone: something else uses this server", waited, len(good))
	}
}

// levels warns about several requests at once.
func (s *Summary) levels(c Curve, trials []Trial) {
	for _, l := range c.Levels {
		if l.Clients == 1 {
			continue
		}
		if n := l.Rate; n == nil || n.N < fewest {
			got := 0
			if n != nil {
				got = n.N
			}
			s.warn(TooFew, c.Scenario, l.Clients, "only %d requests began while %d were under way: no interval can be given", got, l.Clients)
		}
		var here []Trial
		for _, t := range trials {
			if t.Phase == PhaseConcurrency && t.Concurrency == l.Clients && t.Good() {
				here = append(here, t)
			}
		}
		if n := slices.IndexFunc(here, func(t Trial) bool { return loaded(t, here) }); n >= 0 {
			s.warn(ModelLoaded, c.Scenario, l.Clients, "the model was loaded while %d requests were under way", l.Clients)
		}
	}
}

// drift compares the first and the last single requests.
func (s *Summary) drift(trials []Trial) {
	by := map[string][]float64{}
	var alone []Trial
	for _, t := range trials {
		if t.Good() && t.Concurrency == 1 && t.Variant == VariantPlain && t.TokensPerS != nil && (t.Phase == PhaseSingle || t.Phase == PhaseConcurrency) {
			by[t.Scenario] = append(by[t.Scenario], *t.TokensPerS)
			alone = append(alone, t)
		}
	}
	// A scenario asked once or twice says nothing about change.
	alone = slices.DeleteFunc(alone, func(t Trial) bool { return len(by[t.Scenario]) < fewest })
	if len(alone) < 6 {
		return
	}
	relative := func(list []Trial) (x []float64) {
		for _, t := range list {
			x = append(x, *t.TokensPerS/medianOf(by[t.Scenario]))
		}
		return x
	}
	third := len(alone) / 3
	before, after := relative(alone[:third]), relative(alone[len(alone)-third:])
	d := 100 * (medianOf(after)/medianOf(before) - 1)
	s.DriftPercent = new(round(d, 1))
	if d < -drifted && slices.Max(after) < slices.Min(before) {
		s.warn(SlowedDown, "", 1, "single requests became %.0f %% slower during the run", -d)
	}
}

func pick(trials []Trial, keep func(Trial) bool) []Trial {
	return slices.DeleteFunc(slices.Clone(trials), func(t Trial) bool { return !keep(t) })
}

func prefixEffect(trials []Trial) *PrefixEffect {
	of := func(variant string) []Trial {
		return pick(trials, func(t Trial) bool { return t.Phase == PhasePrefix && t.Variant == variant && t.Good() })
	}
	first, again := of(VariantFirst), of(VariantAgain)
	if len(first) == 0 || len(again) == 0 {
		return nil
	}
	prefill := func(t Trial) *float64 { return t.ServerPrefillMs }
	e := &PrefixEffect{
		FirstTTFTMs: NewEstimate(collect(first, ttft)), AgainTTFTMs: NewEstimate(collect(again, ttft)),
		FirstPrefillMs: NewEstimate(collect(first, prefill)), AgainPrefillMs: NewEstimate(collect(again, prefill)),
	}
	if n := collect(first, func(t Trial) *float64 {
		if t.PromptTokens == nil {
			return nil
		}
		return new(float64(*t.PromptTokens))
	}); len(n) > 0 {
		e.PromptTokens = int(medianOf(n))
	}
	if n := collect(again, func(t Trial) *float64 {
		if t.CachedTokens == nil {
			return nil
		}
		return new(float64(*t.CachedTokens))
	}); len(n) > 0 {
		e.CachedTokens = new(medianOf(n))
	}
	a, b := e.FirstPrefillMs, e.AgainPrefillMs
	byServer := a != nil && b != nil && a.Median > 0
	if !byServer {
		a, b = e.FirstTTFTMs, e.AgainTTFTMs
	}
	if a == nil || b == nil || a.Median <= 0 {
		return e
	}
	saved := 100 * (1 - b.Median/a.Median)
	e.SavedPercent = new(round(saved, 1))
	// The time to the first token also holds what no cache spares.
	switch {
	case e.CachedTokens != nil && *e.CachedTokens > 0:
		e.Reused = new(*e.CachedTokens > float64(e.PromptTokens)/2)
	case saved > 40 || saved > 20 && b.Max < a.Min:
		e.Reused = new(true)
	case byServer && saved < 20:
		e.Reused = new(false)
	}
	return e
}

func schemaCost(trials []Trial) *SchemaCost {
	with := pick(trials, func(t Trial) bool { return t.Phase == PhaseConcurrency && t.Variant == VariantSchema })
	if len(with) == 0 {
		return nil
	}
	c := &SchemaCost{}
	for _, t := range with {
		if t.ErrorKind != "" {
			c.Error = t.Error
		}
	}
	plain := undisturbed(baseline(trials, with[0].Scenario, with[0].TargetTokens))
	with = undisturbed(pick(with, Trial.Good))
	c.N = len(with)
	sample := func(list []Trial) *Estimate {
		return NewEstimate(collect(list, func(t Trial) *float64 {
			if v, ok := rate(t); ok {
				return &v
			}
			return nil
		}))
	}
	c.PlainTokensPerS, c.SchemaTokensPerS = sample(plain), sample(with)
	p, q := c.PlainTokensPerS, c.SchemaTokensPerS
	if p != nil && q != nil && q.Median > 0 {
		c.Factor = new(round(p.Median/q.Median, 3))
		if p.Low != nil && q.Low != nil && *q.Low > 0 {
			c.Low, c.High = new(round(*p.Low / *q.High, 3)), new(round(*p.High / *q.Low, 3))
		}
	}
	a, b := NewEstimate(collect(plain, ttft)), NewEstimate(collect(with, ttft))
	if a != nil && b != nil {
		c.FirstTokenMs = new(round(b.Median-a.Median, 3))
	}
	return c
}

// loading is how long the model took to load in a phase; nil if it did not.
func loading(trials []Trial, phase Phase) *Loading {
	usual := pick(trials, func(t Trial) bool {
		return t.Good() && t.Concurrency == 1 && t.Phase != PhaseWarmUp && t.Phase != PhaseReload
	})
	var x []float64
	byServer := false
	for _, t := range trials {
		if t.Phase != phase || !t.Good() {
			continue
		}
		if t.ServerLoadMs != nil {
			if phase == PhaseReload || loaded(t, trials) {
				x = append(x, *t.ServerLoadMs)
				byServer = true
			}
			continue
		}
		if first := collect(usual, ttft); len(first) > 0 && t.TTFTMs != nil {
			if late := *t.TTFTMs - medianOf(first); late > 500 && late > 3*medianOf(first) {
				x = append(x, late)
			}
		}
	}
	if len(x) == 0 {
		return nil
	}
	return &Loading{Ms: round(medianOf(x), 3), ByServer: byServer, N: len(x)}
}
