package roofline

import "time"

// efficiency is the spread of the two-parameter model's coefficients for an
// architecture: the share of the specified bandwidth that decoding reaches, and
// c, for a model of fittedLayers layers.
type efficiency struct {
	arch  string // "" for any
	eff   [2]float64
	cMs   [2]float64
	rows  int // published measurements that the spread was set to hold
	basis string
}

// The coefficients were set by hand so that the published rows of
// shared/reference/speed.md section 2 (published.csv, set "fit") fall inside
// with little to spare, ill rows left out; docs/roofline-check.md lists how they
// and the held-out rows of shared/data/speed fare. c's lower end is below the
// rows of 2024, because newer builds have less of it (speed.md section 3).
const (
	// fittedLayers is the depth of the 8B models of those rows. c is launches,
	// which come layer by layer, so it grows with depth.
	fittedLayers = 32
	// expertLaunches is how much larger c may be with a mixture of experts,
	// which launches a router and gathers; no published row, an estimate.
	expertLaunches = 2.0
	// cacheCost is how much slower than its bytes a cache may be read: tg4096
	// and tg8192 of the RTX 3090 (4.6 and 4.3 times) and 4090 (2.3) in 2024
	// (speed.md section 2).
	cacheCost = 4.6
)

var (
	// promptShare is the share of the dense 16-bit peak that prompts reach:
	// pp512 of the RTX 4070 Laptop (speed.md section 2: 2365 tok/s, 47 %), and
	// of the RTX 4090 and 3090 (7139 and 4030 tok/s, 35 and 45 %: XiongjieDai's
	// table); widened for other cards and builds.
	promptShare = [2]float64{0.20, 0.70}

	// What Ollama 0.17.4 adds for each stream on an H100 (speed.md section 1):
	// serial sampling, and what is left to fit its table.
	ollamaHostMs    = [2]float64{1.2, 1.3}
	ollamaPerStream = 2250 * time.Microsecond
	// ollamaLeastGain: eight clients each keep 16-17 % of solo speed on an RTX
	// 4080 Laptop (report TR130, speed.md section 5).
	ollamaLeastGain = 1.28

	// batchedPerStream is from llama.cpp in process on the H100 (speed.md
	// section 1, shared prompt: 26.8 ms a step for 32 slots and 34.7 for 64
	// against 5.2 for one, of which reading prompts is a tenth: 0.6 and 0.4 ms).
	// That was Vulkan; the least is half of it, an estimate.
	batchedPerStream = [2]time.Duration{200 * time.Microsecond, 600 * time.Microsecond}

	// dramShare and crossing hold llama-bench's table of layers on the GPU
	// (speed.md section 4) as far as its memory is known; pcieShare is an
	// estimate from what bulk copies reach.
	dramShare = [2]float64{0.5, 0.9}
	pcieShare = [2]float64{0.6, 0.9}
	crossing  = [2]time.Duration{0, 3500 * time.Microsecond}
)

// lowPowerW is the power limit below which Turing has coefficients of its own:
// the T4 (70 W) and Max-Q cards (80-90 W) are held back by their clocks.
const lowPowerW = 100

var (
	gddr = efficiency{eff: [2]float64{0.90, 1.0}, cMs: [2]float64{2.0, 3.4}}

	efficiencies = []efficiency{
		{"Ada", gddr.eff, gddr.cMs, 12, "Ada cards, llama.cpp 2024-05 and Ollama"},
		{"Ampere", [2]float64{0.85, 1.0}, [2]float64{2.0, 3.9}, 12, "Ampere GeForce and workstation cards, llama.cpp 2024 and 2025"},
		{"Blackwell", [2]float64{0.88, 1.0}, [2]float64{1.6, 3.4}, 1, "one RTX 5090, else as Ada"},
		{"Turing", [2]float64{0.80, 1.0}, [2]float64{2.0, 4.0}, 1, "one RTX 2080"},
		{turingLowPower, [2]float64{0.60, 0.90}, [2]float64{3.8, 10}, 2, "T4 and RTX 2070 Max-Q"},
		{"Ampere (GA100)", [2]float64{0.48, 0.85}, [2]float64{1.3, 3.5}, 2, "A100, llama.cpp 2024-05; upper end from the H100"},
		{"Hopper", [2]float64{0.48, 0.85}, [2]float64{1.3, 3.5}, 3, "H100 PCIe, llama.cpp 2024-05, and our own measurement"},
		{"Apple", [2]float64{0.68, 0.95}, [2]float64{2.0, 6.0}, 3, "M1 and M2 Pro"},
		{"Apple Max", [2]float64{0.75, 1.0}, [2]float64{4.0, 18}, 3, "M1 Max, M3 Max and M4 Max"},
		{"Apple Ultra", [2]float64{0.75, 1.0}, [2]float64{3.0, 7.0}, 1, "one M2 Ultra"},
	}

	// unknownArch is about the worst and the best of the others, Apple's Max
	// chips left out.
	unknownArch = efficiency{eff: [2]float64{0.45, 1.0}, cMs: [2]float64{1.3, 8}, basis: "no published rows for this architecture: a wide band"}
)

const turingLowPower = "Turing under 100 W"

func efficiencyOf(h Hardware) efficiency {
	arch := h.Arch
	if arch == "Turing" && h.MaxPowerW != nil && *h.MaxPowerW < lowPowerW {
		arch = turingLowPower
	}
	for _, e := range efficiencies {
		if e.arch == arch {
			return e
		}
	}
	return unknownArch
}
