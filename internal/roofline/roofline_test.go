package roofline_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/internal/roofline"
)

func ms(x float64) time.Duration { return time.Duration(x * float64(time.Millisecond)) }

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance*want {
		t.Errorf("%s: %.4g, want %.4g within %.0f %%", what, got, want, tolerance*100)
	}
}

// The BW_eff and c of speed.md section 3 give back the published rates of
// section 2, from which they were derived (whole file, 4.92 GB).
func TestPublishedRates(t *testing.T) {
	llama := roofline.Shape{WeightBytes: 4_920_738_944, Params: 8_030_261_312}
	for _, c := range []struct {
		name          string
		spec, eff, ms float64
		want          float64
	}{
		{"RTX 4080", 717, 723, 2.62, 106.22},
		{"RTX 3090", 936, 888, 3.41, 111.74},
		{"RTX 4090", 1008, 1054, 3.16, 127.74},
		{"RTX A6000", 768, 740, 3.14, 102.22},
		{"L40S", 864, 783, 2.52, 113.60},
		{"A100 PCIe", 1935, 1004, 2.33, 138.31},
		{"H100 PCIe", 2039, 1423, 3.47, 144.49},
	} {
		m := roofline.Machine{BandwidthBytes: c.spec * 1e9, BandwidthEff: c.eff / c.spec, OverheadPerStep: ms(c.ms)}
		near(t, c.name, m.Rate(llama, 1, 0), c.want, 0.01)
	}
}

func TestCeiling(t *testing.T) {
	llama := roofline.Shape{WeightBytes: 4_920_738_944}
	for gbs, want := range map[float64]float64{256: 52.0, 320: 65.0, 1008: 205, 600: 122} {
		near(t, "ceiling", roofline.Machine{BandwidthBytes: gbs * 1e9}.Ceiling(llama), want, 0.01)
	}
}

// llama-bench's table of layers on the GPU, Llama-2-7B Q4_0 (speed.md section 4).
func TestPartialOffload(t *testing.T) {
	m := roofline.Machine{
		BandwidthBytes: 720e9, OverheadPerStep: ms(2.27),
		SlowBandwidthBytes: 40e9, SlowOverhead: ms(3.5),
	}
	for layers, want := range map[int]float64{10: 13.5, 20: 21.4, 30: 40, 34: 71.8, 35: 131.7} {
		s := roofline.Shape{WeightBytes: 3_830_000_000, SlowShare: float64(35-layers) / 35}
		near(t, "rate", m.Rate(s, 1, 0), want, 0.15)
	}
}

func TestPrefillIsComputeBound(t *testing.T) {
	s := roofline.Shape{WeightBytes: 4_625_000_000, Params: 8_030_261_312}
	m := roofline.Machine{BandwidthBytes: 1008e9, FLOPS: 2 * 8_030_261_312 * 7000}
	near(t, "tokens/s", 2048/m.Prefill(s, 2048, 512).Seconds(), 7000, 0.001)
	if got := m.Prefill(s, 0, 512); got != 0 {
		t.Errorf("no prompt takes %v", got)
	}
	whole, parts := m.Prefill(s, 1000, 0), m.Prefill(s, 1000, 300)
	if whole > parts+time.Microsecond {
		t.Errorf("in one pass %v, in parts %v", whole, parts)
	}
}

func TestNothingKnownNothingTakesTime(t *testing.T) {
	if got := (roofline.Machine{}).Step(roofline.Shape{WeightBytes: 1 << 30, Params: 1 << 30}, roofline.Batch{Sequences: 1}); got != 0 {
		t.Errorf("step of an unknown machine: %v", got)
	}
	if got := (roofline.Machine{}).Rate(roofline.Shape{}, 4, 10); got != 0 {
		t.Errorf("rate of an unknown machine: %v", got)
	}
}

func machines() *rapid.Generator[roofline.Machine] {
	return rapid.Custom(func(t *rapid.T) roofline.Machine {
		return roofline.Machine{
			BandwidthBytes:     rapid.Float64Range(1e9, 8e12).Draw(t, "bandwidth"),
			BandwidthEff:       rapid.Float64Range(0.1, 1.1).Draw(t, "eff"),
			FLOPS:              rapid.Float64Range(1e11, 1e15).Draw(t, "flops"),
			SlowBandwidthBytes: rapid.Float64Range(1e9, 1e11).Draw(t, "slow"),
			SlowOverhead:       ms(rapid.Float64Range(0, 5).Draw(t, "slow overhead")),
			OverheadPerStep:    ms(rapid.Float64Range(0, 20).Draw(t, "c")),
			PerSequence:        ms(rapid.Float64Range(0, 5).Draw(t, "sequence")),
			HostPerToken:       ms(rapid.Float64Range(0, 3).Draw(t, "host")),
		}
	})
}

func shapes() *rapid.Generator[roofline.Shape] {
	return rapid.Custom(func(t *rapid.T) roofline.Shape {
		return roofline.Shape{
			WeightBytes:     rapid.Int64Range(1e6, 4e11).Draw(t, "weights"),
			Params:          rapid.Int64Range(1e6, 5e11).Draw(t, "params"),
			KVBytesPerToken: rapid.Int64Range(0, 1<<20).Draw(t, "kv"),
			SlowShare:       rapid.Float64Range(0, 1).Draw(t, "slow share"),
		}
	})
}

func batches() *rapid.Generator[roofline.Batch] {
	return rapid.Custom(func(t *rapid.T) roofline.Batch {
		return roofline.Batch{
			Sequences:     rapid.IntRange(1, 128).Draw(t, "sequences"),
			ContextTokens: rapid.IntRange(0, 1<<20).Draw(t, "context"),
			PromptTokens:  rapid.IntRange(0, 4096).Draw(t, "prompt"),
		}
	})
}

// More of what a machine can do is never slower; more work is never faster.
func TestMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, s, b := machines().Draw(t, "machine"), shapes().Draw(t, "shape"), batches().Draw(t, "batch")
		grow := rapid.Float64Range(1, 10).Draw(t, "grow")
		more := rapid.IntRange(0, 1000).Draw(t, "more")
		base := m.Step(s, b)
		if base <= 0 {
			t.Fatalf("a step takes %v", base)
		}

		notSlower := func(what string, m roofline.Machine) {
			if got := m.Step(s, b); got > base {
				t.Fatalf("%s: %v -> %v", what, base, got)
			}
		}
		notFaster := func(what string, s roofline.Shape, b roofline.Batch) {
			if got := m.Step(s, b); got < base {
				t.Fatalf("%s: %v -> %v", what, base, got)
			}
		}
		m1 := m
		m1.BandwidthBytes *= grow
		notSlower("bandwidth", m1)
		m1 = m
		m1.FLOPS *= grow
		notSlower("flops", m1)
		notSlower("faster", m.Faster(grow))

		s1 := s
		s1.WeightBytes += int64(more) << 20
		notFaster("weights", s1, b)
		s1 = s
		s1.KVBytesPerToken += int64(more)
		notFaster("kv", s1, b)
		b1 := b
		b1.Sequences += more
		notFaster("sequences", s, b1)
		b1 = b
		b1.ContextTokens += more
		notFaster("context", s, b1)
		b1 = b
		b1.PromptTokens += more
		notFaster("prompt", s, b1)

		// Steps are shared: n sequences at once never take longer than one
		// after the other.
		one := b
		one.Sequences, one.PromptTokens = 1, 0
		many := one
		many.Sequences = 1 + more
		many.ContextTokens = b.ContextTokens
		if slack := time.Duration(more); m.PerSequence <= m.OverheadPerStep &&
			m.Step(s, many) > m.Step(s, one)*time.Duration(1+more)+slack {
			t.Fatalf("a batch of %d takes %v, one takes %v", 1+more, m.Step(s, many), m.Step(s, one))
		}
		if p, q := m.Prefill(s, more, 512), m.Prefill(s, more+1, 512); q < p {
			t.Fatalf("prefill of %d tokens %v, of one more %v", more, p, q)
		}
	})
}
