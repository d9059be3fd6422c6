// Package roofline is the arithmetic of inference speed: from what a machine
// can move and compute, and from the shape of a model, the time that one pass
// takes and the rates that follow. It measures nothing and decides nothing.
//
// Generating a token reads all weights once, whatever the number of sequences
// in the batch, and each sequence's own key-value cache; reading a prompt is
// bound by arithmetic. So a step costs
//
//	max(bytes / bandwidth, FLOPs / FLOP/s) + c
//
// which for one sequence is the two-parameter model
// ms per token = bytes/BW_eff + c (shared/reference/speed.md section 3).
package roofline

import (
	"math"
	"time"
)

// Machine is what a machine can do. Rates are per second.
//
// Good priors (speed.md section 3): on GDDR cards BandwidthEff is 0.88-1.05
// and OverheadPerStep 2-3.4 ms; on A100 and H100 BandwidthEff is 0.5-0.7. A
// single efficiency factor for all cards is wrong.
type Machine struct {
	BandwidthBytes float64 // memory bandwidth by specification, bytes/s
	BandwidthEff   float64 // share of it that decoding reaches; 0 counts as 1
	FLOPS          float64 // arithmetic that prompts reach in practice, FLOP/s; 0 means no limit

	// SlowBandwidthBytes is the rate at which layers are read that did not fit
	// the fast memory, and SlowOverhead what crossing over costs in each step.
	// About 40e9 and 3.5 ms reproduce llama-bench's Llama-2-7B table (speed.md
	// section 4: 34 of 35 layers on the GPU already cost 45 %).
	SlowBandwidthBytes float64
	SlowOverhead       time.Duration

	// OverheadPerStep is the model's c: kernel launches and dequantisation.
	OverheadPerStep time.Duration
	// PerSequence is what each sequence after the first adds to a step apart
	// from its cache: batch kernels, the server's bookkeeping.
	PerSequence time.Duration
	// HostPerToken is the host's serial work for each generated token, mostly
	// sampling: 1.2-1.3 ms in Ollama 0.17.4 (speed.md section 1).
	HostPerToken time.Duration
}

// Shape is what a model asks of a machine.
type Shape struct {
	WeightBytes     int64   // bytes read for each token: the file without the embedding table
	Params          int64   // parameters; a token costs 2 FLOPs for each
	KVBytesPerToken int64   // key-value cache per token of context, all layers
	SlowShare       float64 // share of the weights that lies in slow memory, 0 to 1
}

// Batch is the work of one step.
type Batch struct {
	Sequences     int // sequences that get one token each
	ContextTokens int // tokens of cache that they read, all sequences together
	PromptTokens  int // tokens of prompts processed in the same pass
}

// Step returns the time of one pass over the weights; 0 for an empty batch.
func (m Machine) Step(s Shape, b Batch) time.Duration {
	if b.Sequences <= 0 && b.PromptTokens <= 0 {
		return 0
	}
	slow := min(max(s.SlowShare, 0), 1)
	kv := float64(s.KVBytesPerToken) * float64(max(b.ContextTokens, 0))
	memory := divide(float64(s.WeightBytes)*(1-slow)+kv, m.bandwidth())
	compute := divide(2*float64(s.Params)*float64(b.Sequences+b.PromptTokens), m.FLOPS)

	t := seconds(max(memory, compute)) + m.OverheadPerStep
	if slow > 0 {
		t += seconds(divide(float64(s.WeightBytes)*slow, m.SlowBandwidthBytes)) + m.SlowOverhead
	}
	t += m.PerSequence * time.Duration(max(b.Sequences-1, 0))
	return t + m.HostPerToken*time.Duration(b.Sequences)
}

// Rate returns the tokens per second of all sequences together while each has
// the given number of tokens of context; 0 when nothing limits or nothing runs.
func (m Machine) Rate(s Shape, sequences, context int) float64 {
	t := m.Step(s, Batch{Sequences: sequences, ContextTokens: sequences * context})
	if t <= 0 {
		return 0
	}
	return float64(sequences) / t.Seconds()
}

// Prefill returns the time to read a prompt of the given number of tokens in
// passes of at most chunk tokens; chunk <= 0 reads it in one.
func (m Machine) Prefill(s Shape, tokens, chunk int) time.Duration {
	if tokens <= 0 {
		return 0
	}
	if chunk <= 0 || chunk > tokens {
		chunk = tokens
	}
	t := m.Step(s, Batch{PromptTokens: chunk}) * time.Duration(tokens/chunk)
	return t + m.Step(s, Batch{PromptTokens: tokens % chunk})
}

// Ceiling returns the tokens per second that one stream cannot exceed: the
// bandwidth by specification over the bytes of a token, at empty context.
func (m Machine) Ceiling(s Shape) float64 {
	return divide(m.BandwidthBytes, float64(s.WeightBytes))
}

// Faster returns the machine with every rate multiplied, and every fixed cost
// divided, by factor. A factor of 0 or less changes nothing.
func (m Machine) Faster(factor float64) Machine {
	if factor <= 0 {
		return m
	}
	m.BandwidthBytes *= factor
	m.SlowBandwidthBytes *= factor
	m.FLOPS *= factor
	for _, d := range []*time.Duration{&m.SlowOverhead, &m.OverheadPerStep, &m.PerSequence, &m.HostPerToken} {
		*d = time.Duration(float64(*d) / factor)
	}
	return m
}

func (m Machine) bandwidth() float64 {
	if m.BandwidthEff > 0 {
		return m.BandwidthBytes * m.BandwidthEff
	}
	return m.BandwidthBytes
}

// divide returns a/b, and 0 where b is absent: an unknown rate sets no limit.
func divide(a, b float64) float64 {
	if b <= 0 {
		return 0
	}
	return a / b
}

func seconds(s float64) time.Duration {
	ns := s * float64(time.Second)
	if ns >= math.MaxInt64/4 {
		return math.MaxInt64 / 4
	}
	return time.Duration(ns)
}
