package roofline

import (
	"fmt"
	"math"
	"time"
)

// Hardware is what is known of a machine. Nil is not known: an estimate that
// needs it is nil too, one that is only refined by it lists it as missing.
// Rates are in 10^9 bytes or 10^12 operations per second.
type Hardware struct {
	Arch         string   `json:"arch,omitempty"` // as in the table of GPUs; another, or none, widens the band
	BandwidthGBs *float64 `json:"bandwidth_gbs,omitempty"`
	FP16TFLOPS   *float64 `json:"fp16_tflops,omitempty"` // dense
	MaxPowerW    *float64 `json:"max_power_w,omitempty"` // what the maker allows, not what is set
	PCIeGBs      *float64 `json:"pcie_gbs,omitempty"`    // one direction, of the link as it is
	DRAMGBs      *float64 `json:"dram_gbs,omitempty"`    // system memory, all channels
}

// Model is what is known of a model. Sizes are in bytes.
type Model struct {
	FileBytes       *int64 `json:"file_bytes,omitempty"`  // all weights
	TokenBytes      *int64 `json:"token_bytes,omitempty"` // of them, what one token reads
	Layers          *int64 `json:"layers,omitempty"`
	ActiveParams    *int64 `json:"active_params,omitempty"`      // that one token is multiplied with
	KVBytesPerToken *int64 `json:"kv_bytes_per_token,omitempty"` // of context, all layers

	// ExpertBytes is what all routed experts take, of which a token reads
	// ExpertsUsed of Experts; nil or 0 for a dense model.
	ExpertBytes *int64 `json:"expert_bytes,omitempty"`
	Experts     *int64 `json:"experts,omitempty"`
	ExpertsUsed *int64 `json:"experts_used,omitempty"`
}

// Load is the work whose speed is asked for. The zero value is one stream at
// empty context, without the server's own work.
type Load struct {
	Streams int // sequences at once; 0 is 1
	Context int // tokens of context that each has on average
	// HostMs is the server's serial work for each token in milliseconds, lowest
	// and highest, mostly sampling. Ollama leaves it out of eval_duration.
	HostMs [2]float64
}

// Wall is what sets the limit.
type Wall string

// The walls.
const (
	WallMemory     Wall = "memory bandwidth"
	WallCompute    Wall = "arithmetic"
	WallOverhead   Wall = "kernel launches and dequantisation" // the two-parameter model's c
	WallHost       Wall = "work on the host"
	WallSlowMemory Wall = "weights outside the GPU's memory"
)

// Input names what an estimate was made without.
type Input string

// The inputs.
const (
	InputBandwidth  Input = "memory bandwidth"
	InputArch       Input = "architecture"
	InputFLOPS      Input = "arithmetic rate"
	InputTokenBytes Input = "bytes per token"
	InputLayers     Input = "layers"
	InputParams     Input = "active parameters"
	InputKV         Input = "cache bytes per token"
	InputExperts    Input = "experts used"
	InputPCIe       Input = "PCIe link"
	InputDRAM       Input = "system memory bandwidth"
)

// Ceiling is a rate that cannot be exceeded, in tokens per second of all
// streams together. It is an estimate only as far as its inputs are.
type Ceiling struct {
	TokensPerS *float64 `json:"tokens_per_s,omitempty"`
	// WholeFile is the same if every byte of the file were read for each token,
	// tables that are only looked up included: the usual back-of-envelope figure.
	WholeFile *float64 `json:"whole_file,omitempty"`
	Wall      Wall     `json:"wall,omitempty"`
	Missing   []Input  `json:"missing,omitempty"`
}

// Band is where a healthy machine is expected, in tokens per second of all
// streams together. Always an estimate.
type Band struct {
	Low  *float64 `json:"low,omitempty"`
	High *float64 `json:"high,omitempty"`
	Wall Wall     `json:"wall,omitempty"` // what takes the largest share of the time in the middle of the band
	// Rows is how many published measurements the coefficients rest on, Basis
	// what they are.
	Rows    int     `json:"rows"`
	Basis   string  `json:"basis,omitempty"`
	Missing []Input `json:"missing,omitempty"`
}

// Contains reports whether a rate is inside; false for an unknown band.
func (b Band) Contains(rate float64) bool {
	return b.Low != nil && b.High != nil && *b.Low <= rate && rate <= *b.High
}

// DecodeCeiling is the limit of generation: bandwidth over the bytes that a step
// reads (weights once, each stream's cache), or arithmetic, whichever is lower.
func DecodeCeiling(h Hardware, m Model, l Load) Ceiling {
	c := Ceiling{Missing: missing(h, m, l, InputBandwidth, InputTokenBytes, InputFLOPS, InputParams, InputKV, InputExperts)}
	if h.BandwidthGBs == nil {
		return c
	}
	n := l.streams()
	cache := m.cacheBytes(l)
	if m.FileBytes != nil && *m.FileBytes > 0 {
		c.WholeFile = new(n * *h.BandwidthGBs * 1e9 / (float64(*m.FileBytes) + cache))
	}
	weights := m.stepBytes(n)
	if weights == nil {
		return c
	}
	c.TokensPerS, c.Wall = new(n*divide(*h.BandwidthGBs*1e9, *weights+cache)), WallMemory
	if peak := h.peakFLOPS(m); peak > 0 && m.ActiveParams != nil && *m.ActiveParams > 0 {
		if limit := peak / (2 * float64(*m.ActiveParams)); limit < *c.TokensPerS {
			c.TokensPerS, c.Wall = &limit, WallCompute
		}
	}
	return c
}

// DecodeBand is the expected rate by the two-parameter model,
// time = bytes/bandwidth/efficiency + c, with the coefficients' spread for the
// architecture. It never exceeds the ceiling.
func DecodeBand(h Hardware, m Model, l Load) Band {
	e := efficiencyOf(h)
	b := Band{
		Rows: e.rows, Basis: e.basis,
		Missing: missing(h, m, l, InputBandwidth, InputTokenBytes, InputArch, InputLayers, InputKV, InputExperts),
	}
	return b.between(h, m, l, e, extra{})
}

// extra is what comes on top of the two-parameter model, each with its least
// and its most.
type extra struct {
	perStream [2]time.Duration // that streams after the first add to a step

	slowShare float64    // of the weights, outside the GPU's memory
	slowRate  [2]float64 // at which they are read, bytes/s, lowest and highest
	crossing  [2]time.Duration
}

// between fills in both ends of a band.
func (b Band) between(h Hardware, m Model, l Load, e efficiency, x extra) Band {
	weights := m.stepBytes(l.streams())
	if h.BandwidthGBs == nil || weights == nil {
		return b
	}
	scale := 1.0
	if m.Layers != nil && *m.Layers > 0 {
		scale = float64(*m.Layers) / fittedLayers
	}
	moe := 1.0
	if m.ExpertBytes != nil && *m.ExpertBytes > 0 {
		moe = expertLaunches
	}
	n := int(l.streams())
	work := Batch{Sequences: n, ContextTokens: n * max(l.Context, 0)}
	// end is one end of the band; slow is 1 at the low end.
	end := func(slow int, cMs, kv float64) (float64, Machine, Shape) {
		fast := 1 - slow
		mc := Machine{
			BandwidthBytes: *h.BandwidthGBs * 1e9, BandwidthEff: e.eff[fast], OverheadPerStep: milliseconds(cMs),
			HostPerToken: milliseconds(l.HostMs[slow]), PerSequence: x.perStream[slow],
			// What is called slow is never counted as faster.
			SlowBandwidthBytes: min(x.slowRate[fast], *h.BandwidthGBs*1e9*e.eff[fast]), SlowOverhead: x.crossing[slow],
		}
		s := Shape{WeightBytes: int64(*weights), SlowShare: x.slowShare}
		if m.KVBytesPerToken != nil {
			s.KVBytesPerToken = int64(float64(*m.KVBytesPerToken) * kv)
		}
		return float64(n) / mc.Step(s, work).Seconds(), mc, s
	}
	low, slowest, shape := end(1, e.cMs[1]*scale*moe, cacheCost)
	high, fastest, _ := end(0, e.cMs[0]*scale, 1)
	b.Wall = wall([]Machine{slowest, fastest}, shape, work)
	if c := DecodeCeiling(h, m, l); c.TokensPerS != nil && high > *c.TokensPerS {
		low, high = min(low, *c.TokensPerS), *c.TokensPerS
		b.Wall = c.Wall
	}
	b.Low, b.High = &low, &high
	return b
}

// wall is what takes the largest share of the machines' steps together.
func wall(ms []Machine, s Shape, work Batch) Wall {
	parts := map[Wall]time.Duration{}
	for _, m := range ms {
		parts[WallHost] += m.HostPerToken * time.Duration(work.Sequences)
		parts[WallOverhead] += m.OverheadPerStep + m.PerSequence*time.Duration(work.Sequences-1)
		if s.SlowShare > 0 {
			parts[WallSlowMemory] += seconds(divide(float64(s.WeightBytes)*s.SlowShare, m.SlowBandwidthBytes)) + m.SlowOverhead
		}
		parts[WallMemory] += m.Step(s, work)
	}
	parts[WallMemory] -= parts[WallHost] + parts[WallOverhead] + parts[WallSlowMemory]
	first := WallMemory
	for _, w := range []Wall{WallSlowMemory, WallOverhead, WallHost} {
		if parts[w] > parts[first] {
			first = w
		}
	}
	return first
}

// Streams is what several sequences at once can give, in tokens per second of
// all together. Which of the three a server does is for a measurement to say;
// no multiple can be promised (shared/reference/speed.md section 5).
type Streams struct {
	N       int     `json:"n"`
	Ceiling Ceiling `json:"ceiling"`
	// Queued is the rate of a server that answers one after the other.
	Queued Band `json:"queued"`
	// HostBound is that of a server that batches the decoding but samples on
	// one thread, as Ollama's llama.cpp runner does. Its high end follows what
	// was measured on an H100; its low end is 1.28 times one stream, the least
	// that was published for eight clients.
	HostBound Band `json:"host_bound"`
	// Batched is that of a server that batches everything.
	Batched Band `json:"batched"`
}

const hostBasis = "; per stream 2.25 ms and 1.2-1.3 ms of sampling (Ollama 0.17.4 on one H100); low end 1.28 times one stream (report TR130)"

// AtOnce estimates n streams with the given average context each.
func AtOnce(h Hardware, m Model, n, context int) Streams {
	n = max(n, 1)
	l := Load{Streams: n, Context: context}
	one := DecodeBand(h, m, Load{Context: context})
	sampled := DecodeBand(h, m, Load{Context: context, HostMs: ollamaHostMs})
	sampled.Basis += hostBasis
	s := Streams{N: n, Ceiling: DecodeCeiling(h, m, l), Queued: one, HostBound: sampled, Batched: one}
	if n == 1 || one.Low == nil {
		return s
	}
	e := efficiencyOf(h)

	host := l
	host.HostMs = ollamaHostMs
	b := Band{Rows: one.Rows, Basis: sampled.Basis, Missing: missing(h, m, l, InputArch, InputLayers, InputKV, InputExperts)}
	s.HostBound = b.between(h, m, host, e, extra{perStream: [2]time.Duration{ollamaPerStream, ollamaPerStream}})
	s.HostBound.Low = new(max(min(*s.HostBound.Low, ollamaLeastGain**sampled.Low), *sampled.Low))
	s.HostBound.High = new(max(*s.HostBound.High, *sampled.High))

	// Batches of a few tokens run at what prompts reach.
	per := batchedPerStream
	b.Missing = missing(h, m, l, InputArch, InputLayers, InputKV, InputExperts, InputFLOPS, InputParams)
	if h.FP16TFLOPS == nil || m.ActiveParams == nil {
		per[1] = ollamaPerStream
	} else {
		per[1] = max(per[1], seconds(2*float64(*m.ActiveParams)/(*h.FP16TFLOPS*1e12*promptShare[0])))
	}
	s.Batched = b.between(h, m, l, e, extra{perStream: per})
	// It is not slower than one after the other.
	s.Batched.Low, s.Batched.High = new(max(*s.Batched.Low, *one.Low)), new(max(*s.Batched.High, *one.High))
	s.Batched.Basis = one.Basis + "; per stream 0.2-0.6 ms (llama.cpp in process on one H100), or the arithmetic of a prompt"
	return s
}

// Prefill is the speed of reading prompts, tokens per second.
type Prefill struct {
	Ceiling Ceiling `json:"ceiling"`
	Band    Band    `json:"band"`
}

// PrefillRate estimates how fast prompts are read: two operations for each
// parameter and token (attention, small below some thousand tokens, left out).
func PrefillRate(h Hardware, m Model) Prefill {
	p := Prefill{
		Ceiling: Ceiling{Missing: missing(h, m, Load{}, InputFLOPS, InputParams)},
		Band:    Band{Rows: 3, Basis: "RTX 4090, 3090 and 4070 Laptop reached 35-47 % of their 16-bit peak; widened", Missing: missing(h, m, Load{}, InputFLOPS, InputParams)},
	}
	if h.FP16TFLOPS == nil || m.ActiveParams == nil || *m.ActiveParams <= 0 {
		return p
	}
	work := 2 * float64(*m.ActiveParams)
	p.Ceiling.TokensPerS, p.Ceiling.Wall = new(h.peakFLOPS(m)/work), WallCompute
	p.Band.Low, p.Band.High = new(*h.FP16TFLOPS*1e12*promptShare[0]/work), new(*h.FP16TFLOPS*1e12*promptShare[1]/work)
	p.Band.Wall = WallCompute
	return p
}

// Offload is one stream's speed when part of the weights is not in the GPU's
// memory, by the two ways to get at it.
type Offload struct {
	SlowShare float64 `json:"slow_share"`
	// OnCPU is for layers that the CPU computes out of system memory, as Ollama
	// and llama.cpp do.
	OnCPU Band `json:"on_cpu"`
	// OverPCIe is for weights that the GPU reads over its link in each step, as
	// with Windows' system-memory fallback.
	OverPCIe Band `json:"over_pcie"`
}

// OffloadRate estimates one stream with the given share (0 to 1) of the weights
// outside the GPU's memory. Layers take turns, so the two parts' times add up;
// the cache is counted as if it stayed on the GPU.
func OffloadRate(h Hardware, m Model, slowShare float64, context int) Offload {
	share := min(max(slowShare, 0), 1)
	l := Load{Context: context}
	o := Offload{SlowShare: share}
	one := DecodeBand(h, m, l)
	if share == 0 {
		o.OnCPU, o.OverPCIe = one, one
		return o
	}
	e := efficiencyOf(h)
	way := func(rate *float64, in Input, eff [2]float64, basis string) Band {
		b := Band{
			Rows: one.Rows, Basis: basis,
			Missing: missing(h, m, l, InputBandwidth, InputTokenBytes, InputArch, InputLayers, InputKV, in),
		}
		if rate == nil {
			return b
		}
		return b.between(h, m, l, e, extra{
			slowShare: share, slowRate: [2]float64{*rate * 1e9 * eff[0], *rate * 1e9 * eff[1]}, crossing: crossing,
		})
	}
	o.OnCPU = way(h.DRAMGBs, InputDRAM, dramShare, "half to nine tenths of system memory's bandwidth, up to 3.5 ms for crossing over (llama-bench's table of layers)")
	o.OverPCIe = way(h.PCIeGBs, InputPCIe, pcieShare, "0.6-0.9 of the link's rate, up to 3.5 ms for crossing over: an estimate")
	return o
}

// peakFLOPS is the arithmetic that cannot be exceeded, per second; 0 when it is
// not known. Weights of fewer than 16 bits may be multiplied as 8-bit integers,
// at twice the 16-bit rate (NVIDIA's architecture white papers).
func (h Hardware) peakFLOPS(m Model) float64 {
	if h.FP16TFLOPS == nil {
		return 0
	}
	if m.TokenBytes != nil && m.ActiveParams != nil && 8**m.TokenBytes < 15**m.ActiveParams {
		return 2 * *h.FP16TFLOPS * 1e12
	}
	return *h.FP16TFLOPS * 1e12
}

// stepBytes is the weights that one step of n streams reads; nil when unknown.
// Streams choose experts independently: of E experts, k for each, a share of
// 1-(1-k/E)^n is read.
func (m Model) stepBytes(n float64) *float64 {
	if m.TokenBytes == nil || *m.TokenBytes <= 0 {
		return nil
	}
	bytes := float64(*m.TokenBytes)
	if m.ExpertBytes == nil || *m.ExpertBytes <= 0 || n <= 1 {
		return &bytes
	}
	if m.Experts == nil || m.ExpertsUsed == nil || *m.Experts <= 0 || *m.ExpertsUsed <= 0 {
		return nil
	}
	used := min(float64(*m.ExpertsUsed)/float64(*m.Experts), 1)
	all := float64(*m.ExpertBytes)
	return new(max(bytes, bytes-all*used+all*(1-math.Pow(1-used, n))))
}

func (m Model) cacheBytes(l Load) float64 {
	if m.KVBytesPerToken == nil {
		return 0
	}
	return float64(*m.KVBytesPerToken) * float64(max(l.Context, 0)) * l.streams()
}

func (l Load) streams() float64 { return float64(max(l.Streams, 1)) }

// missing lists those of the inputs that are not known and would matter.
func missing(h Hardware, m Model, l Load, inputs ...Input) []Input {
	var out []Input
	for _, in := range inputs {
		absent := false
		switch in {
		case InputBandwidth:
			absent = h.BandwidthGBs == nil
		case InputArch:
			absent = efficiencyOf(h).arch == ""
		case InputFLOPS:
			absent = h.FP16TFLOPS == nil
		case InputPCIe:
			absent = h.PCIeGBs == nil
		case InputDRAM:
			absent = h.DRAMGBs == nil
		case InputTokenBytes:
			absent = m.TokenBytes == nil
		case InputLayers:
			absent = m.Layers == nil
		case InputParams:
			absent = m.ActiveParams == nil
		case InputKV:
			absent = l.Context > 0 && m.KVBytesPerToken == nil
		case InputExperts:
			absent = l.streams() > 1 && m.ExpertBytes != nil && *m.ExpertBytes > 0 && (m.Experts == nil || m.ExpertsUsed == nil)
		default:
			panic(fmt.Sprintf("roofline: no such input %q", in))
		}
		if absent {
			out = append(out, in)
		}
	}
	return out
}

func milliseconds(ms float64) time.Duration { return seconds(ms / 1e3) }
