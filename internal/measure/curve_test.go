package measure

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
)

// batch is a round of trials made by hand: n clients that make two requests
// each, one after the other. begin and first are in milliseconds.
func batch(n int, first func(client, turn int) float64, token float64, tokens int) (trials []Trial) {
	at := make([]float64, n)
	for turn := range 2 {
		for c := range n {
			f := first(c, turn)
			e2e := f + token*float64(tokens-1)
			trials = append(trials, Trial{
				Run: "r", Sequence: 1000*n + turn*n + c, Phase: PhaseConcurrency, Scenario: "several", Concurrency: n, Client: c,
				StartedAt: time.Unix(1, 0), AtMs: at[c], TargetTokens: tokens, CompletionTokens: &tokens, Finish: llm.FinishLength,
				TTFTMs: &f, TimePerOutputTokenMs: &token, TokensPerS: new(1000 / token), E2EMs: &e2e, ServerPrefillMs: new(50.),
			})
			at[c] += e2e
		}
	}
	return trials
}

func TestCurve(t *testing.T) {
	const tokens = 51
	// Alone: 100 ms to the first token, 20 ms a token, 1.1 s.
	idle := func(int, int) float64 { return 100 }
	alone := batch(1, idle, 20, tokens)
	queued := func(n int) []Trial { // in turn, one at a time
		return batch(n, func(c, turn int) float64 {
			if turn == 0 {
				return 100 + 1100*float64(c)
			}
			return 100 + 1100*float64(n-1)
		}, 20, tokens)
	}
	starved := func(n int) []Trial { return batch(n, idle, 20*float64(n), tokens) }
	shared := func(n int) []Trial { return batch(n, idle, 20*(1+0.3*float64(n-1)), tokens) }
	join := func(parts ...[]Trial) (all []Trial) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, c := range []struct {
		name   string
		trials []Trial
		rates  []float64
		knee   *int
		grows  bool
		slots  int // 0: no queue
		serial bool
		enough string
	}{
		{"alone", alone, []float64{46.4}, nil, false, 0, false, ""},
		{"two in a queue", join(alone, queued(2)), []float64{46.4, 46.4}, new(1), false, 1, true, ""},
		{"four in a queue", join(alone, queued(2), queued(4)), []float64{46.4, 46.4, 46.4}, new(1), false, 1, true, "wait for each other"},
		{"slots that starve each other", join(alone, starved(2), starved(4)), []float64{46.4, 48.6, 49.8}, new(1), false, 0, false, "gave no more than fewer"},
		{"prompts that delay each other", join(alone, batch(2, func(int, int) float64 { return 700 }, 20, tokens)), []float64{46.4, 60}, nil, true, 0, false, ""},
		{"slots that share", join(alone, shared(2), shared(4)), []float64{46.4, 72.9, 102}, nil, true, 0, false, ""},
	} {
		curve := newCurve(c.trials)
		var rates []float64
		for _, l := range curve.Levels {
			rates = append(rates, round(l.TokensPerS, 1))
		}
		if diff := cmp.Diff(c.rates, rates, cmp.Comparer(func(a, b float64) bool { return a > 0.98*b && b > 0.98*a })); diff != "" {
			t.Errorf("%s: rates %s", c.name, diff)
		}
		if diff := cmp.Diff(c.knee, curve.Knee); diff != "" || curve.Growing != c.grows {
			t.Errorf("%s: knee %s, growing %v", c.name, diff, curve.Growing)
		}
		switch q := curve.Queue; {
		case (q == nil) != (c.slots == 0):
			t.Errorf("%s: queue %+v", c.name, q)
		case q != nil && (q.Slots != c.slots || q.Serialised != c.serial || *q.DecodeRatio != 1):
			t.Errorf("%s: queue %+v", c.name, q)
		}
		if why := enough(curve); (why == "") != (c.enough == "") || !strings.Contains(why, c.enough) {
			t.Errorf("%s: stops because %q", c.name, why)
		}
		// Order is nothing to go by.
		mixed := append([]Trial(nil), c.trials...)
		rand.New(rand.NewPCG(3, 4)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		if diff := cmp.Diff(Summarise(c.trials), Summarise(mixed)); diff != "" {
			t.Errorf("%s: order matters: %s", c.name, diff)
		}
	}
	if c := newCurve(nil); len(c.Levels) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestTokensBy(t *testing.T) {
	tr := Trial{AtMs: 100, CompletionTokens: new(11), TTFTMs: new(50.), TimePerOutputTokenMs: new(10.), E2EMs: new(160.)}
	cut := Trial{AtMs: 100, Cut: CutLevel, Pieces: new(4), TTFTMs: new(50.), TimePerOutputTokenMs: new(10.), E2EMs: new(85.)}
	for _, c := range []struct {
		trial    Trial
		at, want float64
	}{
		{tr, 0, 0},
		{tr, 149, 0},
		{tr, 150, 1},
		{tr, 200, 6},
		{tr, 255, 11},
		{tr, 260, 11},
		{tr, 1e9, 11},
		{cut, 160, 2},
		{cut, 1e9, 4},
		{Trial{Cut: CutLevel, E2EMs: new(9.)}, 1e9, 0},
		{Trial{ErrorKind: llm.Failed, Pieces: new(5), E2EMs: new(9.)}, 1e9, 0},
		{Trial{CompletionTokens: new(5), E2EMs: new(9.)}, 5, 0},
		{Trial{CompletionTokens: new(5), E2EMs: new(9.)}, 9, 5},
	} {
		if got := tokensBy(c.trial, c.at); got != c.want {
			t.Errorf("%+v at %g: %g, want %g", c.trial, c.at, got, c.want)
		}
	}
}

// Which part of the time is whose, by what the server tells.
func TestSplit(t *testing.T) {
	made := func(change func(*Trial)) Trial {
		tr := Trial{
			Server: llm.Ollama, ServerVersion: "0.17.4", Concurrency: 1, CompletionTokens: new(50), E2EMs: new(1230.),
			TTFTMs: new(225.), TimePerOutputTokenMs: new(20.),
			ServerTotalMs: new(1225.), ServerLoadMs: new(15.), ServerPrefillMs: new(100.), ServerDecodeMs: new(800.),
		}
		if change != nil {
			change(&tr)
		}
		return tr
	}
	idle := made(func(tr *Trial) {
		tr.TTFTMs, tr.E2EMs, tr.ServerTotalMs = new(165.), new(1170.), new(1165.)
	})
	p := func(x float64) *float64 { return &x }
	for _, c := range []struct {
		name  string
		trial Trial
		want  Split
	}{
		{
			"Ollama 0.17", made(nil),
			Split{N: 1, E2EMs: 1230, QueueMs: p(60), QueueBy: QueueByFirstToken, LoadMs: p(15), PrefillMs: p(100), DecodeMs: p(800), HostMs: p(200), TransportMs: p(5), RestMs: 50},
		},
		{
			"sampling is in the figure, and there is hardly any other", made(func(tr *Trial) { tr.ServerVersion = "0.32.0"; tr.ServerDecodeMs = p(990) }),
			Split{N: 1, E2EMs: 1230, QueueMs: p(60), QueueBy: QueueByFirstToken, LoadMs: p(15), PrefillMs: p(100), DecodeMs: p(990), TransportMs: p(5), RestMs: 60},
		},
		{
			"llama-server", made(func(tr *Trial) {
				tr.Server, tr.ServerVersion, tr.ServerTotalMs, tr.ServerLoadMs, tr.ServerDecodeMs = llm.LlamaServer, "b1", nil, nil, p(1000)
			}),
			Split{N: 1, E2EMs: 1230, QueueMs: p(75), QueueBy: QueueByFirstToken, PrefillMs: p(100), DecodeMs: p(1000), RestMs: 55},
		},
		{
			"no figures", made(func(tr *Trial) {
				tr.Server, tr.ServerTotalMs, tr.ServerLoadMs, tr.ServerPrefillMs, tr.ServerDecodeMs = llm.VLLM, nil, nil, nil, nil
			}),
			Split{N: 1, E2EMs: 1230, DecodeMs: p(980), DecodeByClock: true, RestMs: 250},
		},
		{
			"no figures, four at once", made(func(tr *Trial) {
				tr.Server, tr.ServerTotalMs, tr.ServerLoadMs, tr.ServerPrefillMs, tr.ServerDecodeMs = llm.VLLM, nil, nil, nil, nil
				tr.Concurrency, tr.TTFTMs, tr.E2EMs = 4, p(1660), p(2650)
			}),
			Split{N: 1, E2EMs: 2650, QueueMs: p(1000), QueueBy: QueueAtLeast, DecodeMs: p(980), DecodeByClock: true, RestMs: 670},
		},
		{
			"no streaming", made(func(tr *Trial) { tr.TTFTMs, tr.TimePerOutputTokenMs = nil, nil }),
			Split{N: 1, E2EMs: 1230, QueueMs: p(60), QueueBy: QueueByResidual, LoadMs: p(15), PrefillMs: p(100), DecodeMs: p(800), TransportMs: p(5), RestMs: 250},
		},
	} {
		got := newSplit([]Trial{c.trial, {ErrorKind: llm.Failed, E2EMs: p(1)}}, []Trial{idle, idle})
		if diff := cmp.Diff(&c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if newSplit(nil, nil) != nil {
		t.Error("a split of nothing")
	}
	for version, want := range map[string]bool{"0.17.4": true, "0.24.0": true, "0.17.4-simulated": true, "0.30.0": false, "0.32.15": false, "0.0.0": false, "": false, "1.2.0": false} {
		if got := leavesOutSampling(Trial{Server: llm.Ollama, ServerVersion: version}); got != want {
			t.Errorf("Ollama %q: %v", version, got)
		}
	}
}

func TestLoaded(t *testing.T) {
	of := func(ms ...float64) (list []Trial) {
		for _, v := range ms {
			list = append(list, Trial{ServerLoadMs: &v})
		}
		return list
	}
	for _, c := range []struct {
		loads []float64
		want  bool // of the first
	}{
		{[]float64{60, 50}, false},
		{[]float64{140, 50}, false},
		{[]float64{150, 20}, true},
		{[]float64{4000, 50}, true},
		{[]float64{4000, 4000}, true}, // in each request
		{[]float64{90, 1}, false},
	} {
		list := of(c.loads...)
		if got := loaded(list[0], list); got != c.want {
			t.Errorf("%v: %v", c.loads, got)
		}
	}
	if loaded(Trial{}, of(5)) {
		t.Error("a server that does not tell")
	}
}
