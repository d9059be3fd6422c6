package measure

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func TestSpeed(t *testing.T) {
	var s speed
	if s.known() {
		t.Error("something is known of nothing")
	}
	s.saw(Trial{ErrorKind: "failed"}, 150)
	if s.known() {
		t.Error("a failure tells nothing")
	}
	// 4 s of loading are not the server's speed.
	s.saw(Trial{CompletionTokens: new(11), TTFTMs: new(4300.), ServerLoadMs: new(4000.), TimePerOutputTokenMs: new(20.), E2EMs: new(4510.)}, 100)
	if diff := cmp.Diff(speed{token: 20e6, before: 300e6, prompt: 100, after: 10e6}, s, cmp.AllowUnexported(speed{})); diff != "" {
		t.Error(diff)
	}
	if got := s.request(100, 101); got != seconds(2.31) {
		t.Errorf("known lengths: %v", got)
	}
	if got := s.request(400, 101); got != seconds(3.21) {
		t.Errorf("longer prompt: %v", got)
	}
	if got := s.request(10, 1); got != seconds(0.31) {
		t.Errorf("shorter prompt: %v", got)
	}
	// Without streaming there is only the whole.
	s = speed{}
	s.saw(Trial{CompletionTokens: new(10), E2EMs: new(1000.)}, 100)
	if s.token != 100*time.Millisecond || s.before != 100*time.Millisecond || s.after != 0 {
		t.Errorf("%+v", s)
	}
}

func TestFit(t *testing.T) {
	laptop := speed{token: seconds(0.022), before: seconds(0.2), prompt: 150}
	gpu := speed{token: seconds(0.005), before: seconds(0.15), prompt: 150}
	cpu := speed{token: seconds(0.5), before: seconds(10), prompt: 60}
	type row struct {
		name            string
		prompt, answers int
		once            bool
	}
	for _, c := range []struct {
		name  string
		speed speed
		share time.Duration
		want  []row
		out   []string
	}{
		{"no limit", cpu, 0, []row{{"short", 150, 16, false}, {"medium", 300, 80, false}, {"long", 400, 256, false}}, nil},
		{"room for all", gpu, seconds(20), []row{{"short", 150, 16, false}, {"medium", 300, 80, false}, {"long", 400, 256, false}}, nil},
		{"shorter answers", laptop, seconds(22), []row{{"short", 150, 16, false}, {"medium", 300, 56, false}, {"long", 400, 211, false}}, nil},
		{"shorter prompts", laptop, seconds(20), []row{{"short", 103, 16, false}, {"medium", 206, 50, false}, {"long", 275, 200, false}}, nil},
		{"the longest once", laptop, seconds(13), []row{{"short", 150, 16, false}, {"medium", 300, 80, false}, {"long", 400, 200, true}}, nil},
		{"the longest not at all", laptop, seconds(7), []row{{"short", 150, 16, false}, {"medium", 300, 63, false}}, []string{"long"}},
		{"one always stays", cpu, seconds(4), []row{{"short", 60, 16, false}}, []string{"medium", "long"}},
	} {
		kept, out := fit(Scenarios(), c.speed, c.share, 3)
		var got []row
		var sum time.Duration
		for _, k := range kept {
			got = append(got, row{k.Name, k.PromptTokens, k.AnswerTokens, k.once})
			times := time.Duration(3)
			if k.once {
				times = 1
			}
			sum += times * c.speed.of(k.Scenario)
		}
		var left []string
		for _, o := range out {
			left = append(left, o.Name)
			if !strings.Contains(o.why, "tokens takes about") {
				t.Errorf("%s: %q", c.name, o.why)
			}
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(row{})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if diff := cmp.Diff(c.out, left); diff != "" {
			t.Errorf("%s, left out: %s", c.name, diff)
		}
		if c.share > 0 && sum > c.share && len(kept) > 1 {
			t.Errorf("%s: takes %v of %v", c.name, sum, c.share)
		}
	}
	if kept, out := fit(nil, laptop, seconds(1), 3); kept != nil || out != nil {
		t.Error("something of nothing")
	}
}

func TestFitLengths(t *testing.T) {
	for _, c := range []struct {
		token float64
		want  int
	}{{0, 128}, {0.002, 128}, {0.0078125, 128}, {0.02, 50}, {0.1, 16}, {2, 16}} {
		if got := fitSeveral(several, speed{token: seconds(c.token)}).AnswerTokens; got != c.want {
			t.Errorf("%g s a token: answers of %d, want %d", c.token, got, c.want)
		}
	}
	for _, c := range []struct {
		before float64
		want   int
	}{{0, 800}, {0.05, 800}, {0.5, 450}, {3, 120}} {
		if got := fitPrefix(speed{before: seconds(c.before), prompt: 150}); got != c.want {
			t.Errorf("%g s before the first token: a prompt of %d, want %d", c.before, got, c.want)
		}
	}
	if got := shareOf(seconds(10), 2, 8); got != seconds(2.5) {
		t.Errorf("share %v", got)
	}
	if shareOf(-1, 2, 8) != 0 || shareOf(5, 1, 0) != 0 {
		t.Error("a share of nothing")
	}
}

func TestLevelCost(t *testing.T) {
	// Alone 1 s; nothing else known: as if served one after the other.
	if got := levelCost(Curve{}, 4, time.Second, 50); got != 5*time.Second {
		t.Errorf("%v", got)
	}
	// 200 tokens a second: 5 answers of 50 take 1.25 s, but never less than
	// the rounds take.
	c := Curve{Levels: []Level{{Clients: 2, TokensPerS: 200}}}
	if got := levelCost(c, 4, time.Second, 50); got != 2*time.Second {
		t.Errorf("%v", got)
	}
	if got := levelCost(c, 16, time.Second, 50); got != seconds(4.25) {
		t.Errorf("%v", got)
	}
}

func TestValidate(t *testing.T) {
	for _, p := range []Plan{Full(), Quick(), {}} {
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
	}
	for want, p := range map[string]Plan{
		"rising":        {Concurrency: []int{1, 4, 2}},
		"positive":      {Concurrency: []int{0, 1}},
		"at most 512":   {Concurrency: []int{1000}},
		"repetitions":   {Min: 5, Max: 2},
		"negative":      {Budget: -1},
		"name":          {Scenarios: []Scenario{short, short}},
		"at least 1":    {Scenarios: []Scenario{{Name: "x", AnswerTokens: 5}}},
		"1 of answer; ": {Scenarios: []Scenario{{Name: "x", PromptTokens: 5, AnswerTokens: 1}}},
	} {
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", p, err, want)
		}
	}
	if _, err := FindScenario("huge"); err == nil || !strings.Contains(err.Error(), "short, medium, long") {
		t.Errorf("%v", err)
	}
	if s, err := FindScenario("long"); err != nil || s != long {
		t.Errorf("%v %v", s, err)
	}
}

func TestPrompts(t *testing.T) {
	begins := map[string]bool{}
	for i := range 200 {
		p := prompt("run", i, 300, askReport)
		begins[p[:17]] = true
		if n := len(p); n < 300*3 || n > 300*5 {
			t.Fatalf("%d characters for 300 tokens", n)
		}
		if !strings.HasSuffix(p, askReport) || strings.Contains(p, "PLACE") || strings.Contains(p, "COUNT") {
			t.Fatal(p)
		}
	}
	if len(begins) != 200 {
		t.Errorf("%d of 200 prompts begin alike", 200-len(begins))
	}
	if a, b := prompt("run", 1, 300, askReport), prompt("run", 1, 300, askReport); a != b {
		t.Error("the same number gives another prompt")
	}
	if prompt("run", 1, 300, askReport)[:17] == prompt("other", 1, 300, askReport)[:17] {
		t.Error("another run begins alike")
	}
	if p := prompt("run", 1, 5, askReport); !strings.HasSuffix(p, askReport) {
		t.Errorf("a very short one: %q", p)
	}
	for _, tokens := range []int{120, 800} {
		a, b := twice("run", 1, tokens)
		same := 0
		for same < min(len(a), len(b)) && a[same] == b[same] {
			same++
		}
		if share := float64(same) / float64(len(a)); share < 0.75 || share > 0.95 {
			t.Errorf("%d tokens: %.2f of the prompt is shared", tokens, share)
		}
	}
	if a, b := newRun(), newRun(); a == b {
		t.Error("two runs of one name")
	}
}
