package roofline_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/internal/roofline"
)

// llama31 is Llama 3.1 8B in Q4_K_M: 4,912,898,048 bytes of tensors, of which
// the embedding table, 128256 x 4096 at 4.5 bits, is not read per token.
func llama31() roofline.Model {
	return roofline.Model{
		FileBytes: new(int64(4_912_898_048)), TokenBytes: new(int64(4_617_396_224)), Layers: new(int64(32)),
		ActiveParams: new(int64(7_504_924_672)), KVBytesPerToken: new(int64(128 << 10)),
	}
}

func hardware(t *testing.T, name string, memGiB float64) roofline.Hardware {
	t.Helper()
	g, err := roofline.Lookup(name, int64(memGiB*(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	return g.Hardware()
}

func value(t *testing.T, what string, got *float64, want, tolerance float64) {
	t.Helper()
	if got == nil {
		t.Errorf("%s is not known, want %.4g", what, want)
		return
	}
	near(t, what, *got, want, tolerance)
}

// The case that Millrace began with: gpu.md sections 9 and 10.
func TestFoundingCase(t *testing.T) {
	g, err := roofline.Lookup("NVIDIA GeForce RTX 4060 Laptop GPU", 8188<<20)
	if err != nil {
		t.Fatal(err)
	}
	if *g.Cores != 3072 || *g.BandwidthGBs != 256 || g.Kind != roofline.Laptop || *g.PowerW[0] != 35 || *g.PowerW[1] != 115 {
		t.Errorf("card %+v", g)
	}
	value(t, "NVML's clock and bus", roofline.BandwidthFromNVML(8001, 128), 256, 0.001)

	h, m := g.Hardware(), llama31()
	ceiling := roofline.DecodeCeiling(h, m, roofline.Load{})
	value(t, "ceiling without the embedding table", ceiling.TokensPerS, 55.4, 0.002)
	value(t, "ceiling of the whole file", ceiling.WholeFile, 52.1, 0.002)
	if ceiling.Wall != roofline.WallMemory || ceiling.Missing != nil {
		t.Errorf("wall %q, missing %q", ceiling.Wall, ceiling.Missing)
	}
	band := roofline.DecodeBand(h, m, roofline.Load{})
	value(t, "low end", band.Low, 42.7, 0.002)
	value(t, "high end", band.High, 49.9, 0.002)
	if !band.Contains(47.2) || !band.Contains(48) {
		t.Error("47.2 tok/s, the best published figure, is not in the band")
	}
	for _, claim := range []float64{67, 100, 200} { // on one stream: impossible
		if claim <= *ceiling.TokensPerS {
			t.Errorf("%g tok/s is possible below a ceiling of %g", claim, *ceiling.TokensPerS)
		}
	}
	if band.Contains(25) {
		t.Error("25 tok/s passes for healthy")
	}
	// The user's notes had 192 GB/s, the desktop card has 272.
	notes := h
	notes.BandwidthGBs = new(192.0)
	if c := roofline.DecodeCeiling(notes, m, roofline.Load{}); *c.TokensPerS > 42 {
		t.Errorf("192 GB/s would allow %g tok/s", *c.TokensPerS)
	}

	type ends struct{ Low, High float64 }
	round := func(b roofline.Band) ends { return ends{math.Round(*b.Low), math.Round(*b.High)} }
	for _, tc := range []struct {
		n, context                 int
		ceiling                    float64
		queued, hostBound, batched ends
	}{
		{n: 4, ceiling: 221.8, queued: ends{43, 50}, hostBound: ends{52, 127}, batched: ends{146, 194}},
		{n: 8, ceiling: 443.5, queued: ends{43, 50}, hostBound: ends{52, 176}, batched: ends{246, 373}},
		{n: 4, context: 1024, ceiling: 198.7, queued: ends{38, 49}, hostBound: ends{47, 119}, batched: ends{105, 176}},
	} {
		s := roofline.AtOnce(h, m, tc.n, tc.context)
		value(t, "ceiling of streams", s.Ceiling.TokensPerS, tc.ceiling, 0.002)
		got := []ends{round(s.Queued), round(s.HostBound), round(s.Batched)}
		if diff := cmp.Diff([]ends{tc.queued, tc.hostBound, tc.batched}, got); diff != "" {
			t.Errorf("%d streams at %d tokens (-want +got)\n%s", tc.n, tc.context, diff)
		}
	}
}

// Nothing in, nothing out.
func TestUnknownStaysUnknown(t *testing.T) {
	h, m := hardware(t, "NVIDIA GeForce RTX 4090", 24), llama31()
	strip := func(h roofline.Hardware, m roofline.Model) []roofline.Band {
		s := roofline.AtOnce(h, m, 4, 100)
		o := roofline.OffloadRate(h, m, 0.5, 0)
		return []roofline.Band{roofline.DecodeBand(h, m, roofline.Load{}), s.Queued, s.HostBound, s.Batched, o.OnCPU, o.OverPCIe}
	}
	noBandwidth, noBytes := h, m
	noBandwidth.BandwidthGBs, noBytes.TokenBytes = nil, nil
	for name, bands := range map[string][]roofline.Band{
		"nothing": strip(roofline.Hardware{}, roofline.Model{}), "no bandwidth": strip(noBandwidth, m), "no bytes": strip(h, noBytes),
	} {
		for i, b := range bands {
			if b.Low != nil || b.High != nil || b.Contains(50) {
				t.Errorf("%s, band %d: %v", name, i, b)
			}
		}
	}
	if c := roofline.DecodeCeiling(noBandwidth, m, roofline.Load{}); c.TokensPerS != nil || !has(c.Missing, roofline.InputBandwidth) {
		t.Errorf("ceiling without bandwidth: %+v", c)
	}
	c := roofline.DecodeCeiling(h, noBytes, roofline.Load{})
	if c.TokensPerS != nil || c.WholeFile == nil || !has(c.Missing, roofline.InputTokenBytes) {
		t.Errorf("ceiling without bytes per token: %+v", c)
	}
	if p := roofline.PrefillRate(roofline.Hardware{}, m); p.Ceiling.TokensPerS != nil || p.Band.Low != nil || !has(p.Band.Missing, roofline.InputFLOPS) {
		t.Errorf("prefill without arithmetic: %+v", p)
	}

	// What only refines is missed, and said so.
	noKV := m
	noKV.KVBytesPerToken = nil
	if b := roofline.DecodeBand(h, noKV, roofline.Load{Context: 1000}); b.Low == nil || !has(b.Missing, roofline.InputKV) {
		t.Errorf("band without the cache's size: %+v", b)
	}
	if b := roofline.DecodeBand(h, noKV, roofline.Load{}); len(b.Missing) != 0 {
		t.Errorf("at empty context nothing is missing: %q", b.Missing)
	}
	known := roofline.DecodeBand(h, m, roofline.Load{})
	for _, arch := range []string{"", "Rubin"} {
		h.Arch = arch
		b := roofline.DecodeBand(h, m, roofline.Load{})
		if !has(b.Missing, roofline.InputArch) || *b.Low >= *known.Low || *b.High < *known.High || b.Rows != 0 {
			t.Errorf("architecture %q: %+v is not wider than %+v", arch, b, known)
		}
	}
	// No link and no memory bandwidth: neither way to offload.
	o := roofline.OffloadRate(roofline.Hardware{Arch: "Ada", BandwidthGBs: new(256.0)}, m, 0.3, 0)
	if o.OnCPU.Low != nil || !has(o.OnCPU.Missing, roofline.InputDRAM) || o.OverPCIe.Low != nil || !has(o.OverPCIe.Missing, roofline.InputPCIe) {
		t.Errorf("offload: %+v", o)
	}
}

func has(inputs []roofline.Input, want roofline.Input) bool {
	return slices.Contains(inputs, want)
}

func TestWalls(t *testing.T) {
	laptop, m := hardware(t, "NVIDIA GeForce RTX 4060 Laptop GPU", 8), llama31()
	if w := roofline.DecodeBand(laptop, m, roofline.Load{HostMs: [2]float64{60, 80}}).Wall; w != roofline.WallHost {
		t.Errorf("80 ms of sampling per token: wall %q", w)
	}
	small := roofline.Model{TokenBytes: new(int64(50e6)), Layers: new(int64(24))}
	if w := roofline.DecodeBand(laptop, small, roofline.Load{}).Wall; w != roofline.WallOverhead {
		t.Errorf("a tiny model: wall %q", w)
	}
	if w := roofline.DecodeCeiling(laptop, m, roofline.Load{Streams: 1000}).Wall; w != roofline.WallCompute {
		t.Errorf("1000 streams: wall %q", w)
	}
	slow := laptop
	slow.FP16TFLOPS = new(0.1)
	if w := roofline.DecodeBand(slow, m, roofline.Load{}).Wall; w != roofline.WallCompute {
		t.Errorf("0.1 TFLOPS: wall %q", w)
	}
	if w := roofline.OffloadRate(roofline.Hardware{BandwidthGBs: new(256.0), DRAMGBs: new(50.0)}, m, 0.5, 0).OnCPU.Wall; w != roofline.WallSlowMemory {
		t.Errorf("half on the CPU: wall %q", w)
	}
}

// A mixture of experts: one stream reads 8 of 128, many streams read nearly all.
func TestExperts(t *testing.T) {
	h := roofline.Hardware{Arch: "Ada", BandwidthGBs: new(1000.0)}
	m := roofline.Model{ // Qwen3 30B-A3B in Q4_K_M
		TokenBytes: new(int64(1_919_596_544)), ExpertBytes: new(int64(17_553_162_240)), Experts: new(int64(128)), ExpertsUsed: new(int64(8)),
		Layers: new(int64(48)),
	}
	value(t, "one stream", roofline.DecodeCeiling(h, m, roofline.Load{}).TokensPerS, 1e12/1_919_596_544, 1e-9)
	few := 17_553_162_240.0
	eight := 1_919_596_544 - few/16 + few*(1-math.Pow(1-1.0/16, 8))
	value(t, "eight streams", roofline.DecodeCeiling(h, m, roofline.Load{Streams: 8}).TokensPerS, 8*1e12/eight, 1e-9)
	m.ExpertsUsed = nil
	if c := roofline.DecodeCeiling(h, m, roofline.Load{Streams: 8}); c.TokensPerS != nil || !has(c.Missing, roofline.InputExperts) {
		t.Errorf("eight streams without the number of experts: %+v", c)
	}
}

// llama-bench's table (speed.md section 4), Llama 2 7B in Q4_0. Which card and
// memory it was is not recorded; 131.7 tok/s with all layers is put at 800 GB/s
// and system memory at 60 GB/s.
func TestOffloadTable(t *testing.T) {
	h := roofline.Hardware{Arch: "Ada", BandwidthGBs: new(800.0), DRAMGBs: new(60.0)}
	m := roofline.Model{TokenBytes: new(int64(3_750_000_000)), Layers: new(int64(32))}
	for layers, want := range map[int]float64{10: 13.5, 20: 21.4, 30: 40, 34: 71.8, 35: 131.7} {
		o := roofline.OffloadRate(h, m, float64(35-layers)/35, 0)
		if !o.OnCPU.Contains(want) {
			t.Errorf("%d of 35 layers: %g tok/s is outside %.1f-%.1f", layers, want, *o.OnCPU.Low, *o.OnCPU.High)
		}
	}
	// RTX 4060 Laptop with Qwen2.5 14B: 5.3 tok/s (llmfit PR #958). About half
	// of 9 GB fits beside the cache; memory is taken as two channels of DDR5-4800.
	laptop := hardware(t, "NVIDIA GeForce RTX 4060 Laptop GPU", 8)
	laptop.DRAMGBs = new(76.8)
	qwen := roofline.Model{TokenBytes: new(int64(8_544_198_656)), Layers: new(int64(48))}
	o := roofline.OffloadRate(laptop, qwen, 0.4, 0)
	t.Logf("14B with 40 %% outside: %.1f-%.1f on the CPU, %.1f-%.1f over PCIe", *o.OnCPU.Low, *o.OnCPU.High, *o.OverPCIe.Low, *o.OverPCIe.High)
	if *o.OverPCIe.High >= *roofline.DecodeBand(laptop, qwen, roofline.Load{}).Low {
		t.Error("a 14B model outside the memory is as fast as one inside")
	}
}

// Prompts: what was measured is inside.
func TestPrefillPublished(t *testing.T) {
	for _, tc := range []struct {
		gpu  string
		gib  float64
		rate float64
	}{
		{"NVIDIA GeForce RTX 4070 Laptop GPU", 8, 2365}, // normiebench #4 (speed.md section 2)
		{"NVIDIA GeForce RTX 4090", 24, 7139},           // XiongjieDai, pp512
		{"NVIDIA GeForce RTX 3090", 24, 4030},
	} {
		p := roofline.PrefillRate(hardware(t, tc.gpu, tc.gib), llama31())
		if !p.Band.Contains(tc.rate) || *p.Ceiling.TokensPerS <= tc.rate || p.Ceiling.Wall != roofline.WallCompute {
			t.Errorf("%s: %g tok/s, band %.0f-%.0f, ceiling %.0f", tc.gpu, tc.rate, *p.Band.Low, *p.Band.High, *p.Ceiling.TokensPerS)
		}
	}
}

// What was measured on the H100 (speed.md section 1), by the clock and with
// prompts of 450 tokens in the total, beside the bands of decoding alone.
func TestStreamsMeasured(t *testing.T) {
	h := hardware(t, "NVIDIA H100 80GB HBM3", 80)
	m := llama31()
	m.TokenBytes = new(int64(4_224_506_112)) // random Q4_K weights throughout
	for n, rates := range map[int]struct{ ollama, inProcess float64 }{4: {207, 358}, 8: {234, 402}, 16: {245, 541}, 32: {249, 1196}, 64: {0, 1845}} {
		s := roofline.AtOnce(h, m, n, 514)
		t.Logf("%2d streams: Ollama %4.0f in %4.0f-%4.0f; in process %4.0f in %4.0f-%4.0f; ceiling %5.0f", n, rates.ollama, *s.HostBound.Low, *s.HostBound.High,
			rates.inProcess, *s.Batched.Low, *s.Batched.High, *s.Ceiling.TokensPerS)
		if rates.ollama > 0 && !s.HostBound.Contains(rates.ollama) {
			t.Errorf("%d streams: Ollama's %g is outside %.0f-%.0f", n, rates.ollama, *s.HostBound.Low, *s.HostBound.High)
		}
		if rates.inProcess > *s.Batched.High || rates.inProcess > *s.Ceiling.TokensPerS {
			t.Errorf("%d streams: %g measured, at most %.0f estimated", n, rates.inProcess, *s.Batched.High)
		}
	}
}

func hardwares() *rapid.Generator[roofline.Hardware] {
	return rapid.Custom(func(t *rapid.T) roofline.Hardware {
		return roofline.Hardware{
			Arch:         rapid.SampledFrom([]string{"", "Ada", "Ampere", "Turing", "Hopper", "Apple Max", "RDNA 3"}).Draw(t, "arch"),
			BandwidthGBs: new(rapid.Float64Range(10, 8000).Draw(t, "bandwidth")),
			FP16TFLOPS:   new(rapid.Float64Range(1, 2500).Draw(t, "tflops")),
			MaxPowerW:    new(rapid.Float64Range(30, 700).Draw(t, "power")),
			PCIeGBs:      new(rapid.Float64Range(1, 128).Draw(t, "pcie")),
			DRAMGBs:      new(rapid.Float64Range(10, 500).Draw(t, "dram")),
		}
	})
}

func models() *rapid.Generator[roofline.Model] {
	return rapid.Custom(func(t *rapid.T) roofline.Model {
		token := rapid.Int64Range(1e7, 1e11).Draw(t, "token")
		m := roofline.Model{
			FileBytes: new(token + rapid.Int64Range(0, 1e9).Draw(t, "tables")), TokenBytes: &token,
			Layers:          new(rapid.Int64Range(1, 130).Draw(t, "layers")),
			ActiveParams:    new(2 * token),
			KVBytesPerToken: new(rapid.Int64Range(0, 1<<20).Draw(t, "kv")),
		}
		if rapid.Bool().Draw(t, "moe") {
			m.Experts = new(rapid.Int64Range(2, 256).Draw(t, "experts"))
			m.ExpertsUsed = new(rapid.Int64Range(1, *m.Experts).Draw(t, "used"))
			m.ExpertBytes = new(int64(float64(token) / 2 * float64(*m.Experts) / float64(*m.ExpertsUsed)))
		}
		return m
	})
}

// Bands are in order, never above the ceiling, and move the way physics does.
func TestEstimatesMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, m := hardwares().Draw(t, "hardware"), models().Draw(t, "model")
		n, context := rapid.IntRange(1, 64).Draw(t, "streams"), rapid.IntRange(0, 1<<17).Draw(t, "context")
		share := rapid.Float64Range(0, 1).Draw(t, "share")
		grow := rapid.Float64Range(1, 8).Draw(t, "grow")
		const slack = 1 + 1e-4 // steps are sums of whole nanoseconds

		type all struct {
			ceiling, whole float64
			bands          map[string]roofline.Band
		}
		estimate := func(h roofline.Hardware, m roofline.Model, n, context int, share float64) all {
			s, o := roofline.AtOnce(h, m, n, context), roofline.OffloadRate(h, m, share, context)
			c := s.Ceiling
			a := all{*c.TokensPerS, *c.WholeFile, map[string]roofline.Band{
				"queued": s.Queued, "host-bound": s.HostBound, "batched": s.Batched, "on the CPU": o.OnCPU, "over PCIe": o.OverPCIe,
			}}
			one := *roofline.DecodeCeiling(h, m, roofline.Load{Context: context}).TokensPerS
			for name, b := range a.bands {
				limit := one
				if name == "host-bound" || name == "batched" {
					limit = max(one, a.ceiling)
				}
				if *b.Low > *b.High*slack || *b.Low <= 0 || *b.High > limit*slack || math.IsInf(*b.High, 0) {
					t.Fatalf("%s: %g to %g below %g", name, *b.Low, *b.High, limit)
				}
			}
			return a
		}
		base := estimate(h, m, n, context, share)
		notSlower := func(what string, got all, but ...string) {
			if got.ceiling*slack < base.ceiling {
				t.Fatalf("%s: ceiling %g -> %g", what, base.ceiling, got.ceiling)
			}
			for name, b := range got.bands {
				if strings.Contains(strings.Join(but, ","), name) {
					continue
				}
				if *b.Low*slack < *base.bands[name].Low || *b.High*slack < *base.bands[name].High {
					t.Fatalf("%s: %s %g-%g -> %g-%g", what, name, *base.bands[name].Low, *base.bands[name].High, *b.Low, *b.High)
				}
			}
		}
		h1 := h
		h1.BandwidthGBs = new(*h.BandwidthGBs * grow)
		notSlower("bandwidth", estimate(h1, m, n, context, share))
		h1 = h
		h1.FP16TFLOPS = new(*h.FP16TFLOPS * grow)
		notSlower("arithmetic", estimate(h1, m, n, context, share))
		h1 = h
		h1.PCIeGBs, h1.DRAMGBs = new(*h.PCIeGBs*grow), new(*h.DRAMGBs*grow)
		notSlower("link and memory", estimate(h1, m, n, context, share))
		m1 := m
		m1.TokenBytes = new(int64(float64(*m.TokenBytes) / grow))
		if m.ExpertBytes != nil {
			m1.ExpertBytes = new(int64(float64(*m.ExpertBytes) / grow))
		}
		m1.ActiveParams = new(int64(float64(*m.ActiveParams) / grow))
		notSlower("a smaller model", estimate(h, m1, n, context, share))
		notSlower("less context", estimate(h, m, n, int(float64(context)/grow), share))
		notSlower("less outside", estimate(h, m, n, context, share/grow))
		if m.ExpertBytes == nil { // more streams share the weights, not the experts
			notSlower("more streams", estimate(h, m, n+1, context, share))
		}
	})
}
