package measure

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
)

func example() Trial {
	t := Trial{
		Run: "r1", Sequence: 7, Phase: PhaseConcurrency, Variant: VariantSchema, Scenario: "several", Concurrency: 2, Client: 1,
		Model: "llama3.1:8b", Server: llm.Ollama, ServerVersion: "0.17.4",
		StartedAt: time.Date(2026, 11, 24, 10, 0, 0, 5000, time.UTC), AtMs: 1234.5, TargetTokens: 5,
	}
	d := func(n int) *time.Duration { return new(time.Duration(n) * time.Millisecond) }
	t.replied(llm.Reply{
		Finish: llm.FinishLength, PromptTokens: new(150), CompletionTokens: new(5),
		Timing: llm.Timing{Wall: 210 * time.Millisecond, FirstToken: d(120), LastToken: d(200), Total: d(208), Load: d(8), Prefill: d(90), Decode: d(80)},
	}, []time.Duration{*d(120), *d(140), *d(155), *d(180), *d(200)})
	return t
}

// The names of the file are a contract.
func TestTrialLine(t *testing.T) {
	var b bytes.Buffer
	if err := WriteTrial(&b, example()); err != nil {
		t.Fatal(err)
	}
	const want = `{"run":"r1","sequence":7,"phase":"concurrency","variant":"schema","scenario":"several","concurrency":2,"client":1,` +
		`"model":"llama3.1:8b","server":"ollama","server_version":"0.17.4","started_at":"2026-11-24T10:00:00.000005Z","at_ms":1234.5,` +
		`"target_tokens":5,"prompt_tokens":150,"completion_tokens":5,"pieces":5,"ttft_ms":120,"time_per_output_token_ms":20,"e2e_ms":210,` +
		`"tokens_per_s":50,"gap_p50_ms":20,"gap_p95_ms":25,"gap_max_ms":25,"server_total_ms":208,"server_load_ms":8,"server_prefill_ms":90,` +
		`"server_decode_ms":80,"server_tokens_per_s":62.5,"difference_percent":25,"finish":"length"}` + "\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	trials, bad, err := ReadTrials(&b, "x")
	if err != nil || len(bad) != 0 {
		t.Fatal(bad, err)
	}
	if diff := cmp.Diff([]Trial{example()}, trials); diff != "" {
		t.Error(diff)
	}
}

func TestReadTrials(t *testing.T) {
	var good bytes.Buffer
	if err := WriteTrial(&good, example()); err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSuffix(good.String(), "\n")
	file := strings.Join([]string{
		line,
		"",
		`{"run":"r1","phase":"single","concurrency":1,"e2e_ms":5,"of_a_later_version":[1]}`,
		`{"run":"r1","phase":"sing`,
		"not JSON",
		`[1,2]`,
		`{"sequence":3}`,
		`{"run":"r1","phase":"single","concurrency":0}`,
		`{"run":"r1","phase":"single","concurrency":1,"ttft_ms":-1}`,
		`{"run":"r1","phase":"single","concurrency":1,"completion_tokens":-1}`,
		`{"run":"r1","phase":"single","concurrency":1,"e2e_ms":1e300}`,
		`{"run":"r1","phase":"single","concurrency":1,"server_prefill_ms":1e-300}`,
		`{"run":"r1","phase":"single","concurrency":1,"e2e_ms":"5"}`,
		"\r",
		`{"run":"` + strings.Repeat("x", maxLine) + `"}`,
		line, // without an end
	}, "\n")
	trials, bad, err := ReadTrials(strings.NewReader(file), "trials.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if len(trials) != 3 {
		t.Errorf("%d trials, want 3", len(trials))
	}
	var lines []int
	for _, b := range bad {
		lines = append(lines, b.Line)
		if !strings.HasPrefix(b.Error(), "trials.jsonl:") || b.Err == nil {
			t.Errorf("%v", b)
		}
	}
	if diff := cmp.Diff([]int{4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15}, lines); diff != "" {
		t.Errorf("bad lines: %s%v", diff, bad)
	}
	broken := errors.New("disk")
	trials, _, err = ReadTrials(io.MultiReader(strings.NewReader(line+"\n"), iotest.ErrReader(broken)), "trials.jsonl")
	if !errors.Is(err, broken) || len(trials) != 1 || !strings.Contains(err.Error(), "trials.jsonl:2") {
		t.Errorf("%d trials, %v", len(trials), err)
	}
}

// Whatever a file holds, reading and summarising it end, and what was read
// reads the same when it is written again.
func FuzzReadTrials(f *testing.F) {
	var good bytes.Buffer
	if err := WriteTrial(&good, example()); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte(`{"run":"r","phase":"single","concurrency":1,"e2e_ms":1e308,"completion_tokens":9007199254740993}` + "\n{}\n\n[\n"))
	f.Add([]byte(`{"run":"r","phase":"concurrency","concurrency":2,"scenario":"several","e2e_ms":0,"at_ms":0,"started_at":"2026-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		trials, _, err := ReadTrials(bytes.NewReader(data), "f")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := json.Marshal(Summarise(trials)); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		for _, tr := range trials {
			if err := WriteTrial(&b, tr); err != nil {
				t.Fatal(err)
			}
		}
		again, bad, err := ReadTrials(&b, "f")
		if err != nil || len(bad) > 0 {
			t.Fatal(bad, err)
		}
		if diff := cmp.Diff(trials, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestArrived(t *testing.T) {
	d := func(us ...int) (list []time.Duration) {
		for _, n := range us {
			list = append(list, time.Duration(n)*time.Microsecond)
		}
		return list
	}
	burst := d(9_000_000, 9_000_010, 9_000_020, 9_000_030, 9_000_040, 9_000_050, 9_000_060, 9_000_070)
	for _, c := range []struct {
		name     string
		trial    Trial
		at       []time.Duration
		tpot     float64 // 0 for none
		ttft     float64
		buffered bool
	}{
		{name: "one token has no time per token", trial: Trial{CompletionTokens: new(1)}, at: d(5000), ttft: 5},
		{name: "two", trial: Trial{CompletionTokens: new(2)}, at: d(5000, 9000), tpot: 4, ttft: 5},
		{name: "more tokens than pieces", trial: Trial{CompletionTokens: new(5)}, at: d(5000, 9000), tpot: 1, ttft: 5},
		{name: "pieces in place of tokens", at: d(5000, 9000, 13000), tpot: 4, ttft: 5},
		{name: "all at once", trial: Trial{CompletionTokens: new(8)}, at: burst, buffered: true},
		{name: "all at once, and the server says so", trial: Trial{CompletionTokens: new(8), ServerDecodeMs: new(0.07)}, at: burst, tpot: 0.01, ttft: 9000},
		{name: "all at once, but made in a second", trial: Trial{CompletionTokens: new(8), ServerDecodeMs: new(1000.)}, at: burst, buffered: true},
		{name: "all at once, from a simulated server", trial: Trial{CompletionTokens: new(8), Simulated: "instant"}, at: burst, tpot: 0.01, ttft: 9000},
		{name: "too short to tell", trial: Trial{CompletionTokens: new(3)}, at: burst[:3], tpot: 0.01, ttft: 9000},
	} {
		tr := c.trial
		tr.arrived(&c.at[0], &c.at[len(c.at)-1], c.at)
		if tr.Buffered != c.buffered || or(tr.TimePerOutputTokenMs, 0) != c.tpot || or(tr.TTFTMs, 0) != c.ttft {
			t.Errorf("%s: buffered %v, per token %v, first %v", c.name, tr.Buffered, or(tr.TimePerOutputTokenMs, 0), or(tr.TTFTMs, 0))
		}
	}
	// Reasoning came before the pieces, and nobody counted it.
	tr := Trial{}
	at := d(50_000, 54_000, 58_000)
	tr.arrived(new(time.Millisecond), &at[2], at)
	if *tr.TTFTMs != 1 || *tr.TimePerOutputTokenMs != 4 {
		t.Errorf("reasoning: %+v", tr)
	}
	tr = Trial{}
	tr.arrived(nil, nil, nil)
	if diff := cmp.Diff(Trial{}, tr); diff != "" {
		t.Error(diff)
	}
}

func TestRuns(t *testing.T) {
	a, b := Trial{Run: "a"}, Trial{Run: "b"}
	if diff := cmp.Diff([][]Trial{{a, a}, {b}}, Runs([]Trial{a, b, a})); diff != "" {
		t.Error(diff)
	}
	s := Summarise([]Trial{{Run: "a", Phase: PhaseSingle, Concurrency: 1}, {Run: "b", Phase: PhaseSingle, Concurrency: 1}})
	if s.Run != "b" || s.Requests != 1 || len(s.Warnings) == 0 || s.Warnings[0].Code != MixedRuns {
		t.Errorf("%+v", s)
	}
	if diff := cmp.Diff(Summary{}, Summarise(nil)); diff != "" {
		t.Error(diff)
	}
}
