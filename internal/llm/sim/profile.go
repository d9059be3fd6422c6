package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/internal/roofline"
)

// Profile is a simulated server: a machine, the model on it, how the server
// is set up, and what is wrong with it. It is a value: change a copy.
type Profile struct {
	Name string // as in the X-Millrace-Simulated header
	Note string // one line for a person

	Machine roofline.Machine
	Model   Model

	Slots   int           // requests generated at the same time (OLLAMA_NUM_PARALLEL)
	Context int           // tokens of context of each slot
	Load    time.Duration // to load the model on first use
	Fixed   time.Duration // per request before the prompt is read: HTTP, templating, scheduling

	// Speed runs everything that many times faster than the machine would; 0
	// counts as 1. The timings in the replies are then shorter too.
	Speed float64
	// Seed varies the answers and the ills. The same seed and prompt give the
	// same answer, in whatever order requests come.
	Seed uint64
	// AnswerTokens is the length of free text; 0 lets it vary from 24 to 200
	// tokens by prompt. A request's limit still cuts it.
	AnswerTokens int
	// Instant answers at once: no timing model, no slots, no queue.
	Instant bool
	// OpenAIOnly leaves out Ollama's endpoints, as on a server of another make.
	OpenAIOnly bool
	// Record keeps each prompt that is asked, for Server.Asked.
	Record bool

	Ills Ills
}

// Model is the model that a profile serves.
type Model struct {
	Name         string // with its tag
	Bytes        int64  // size of the file
	Digest       string // identity; never that of a real model, so no cache can take one for the other
	Family       string
	Parameters   string // as Ollama prints it: "8.0B"
	Quantisation string // as Ollama prints it: "Q4_K_M"
	Layers       int
	MaxContext   int // tokens the model was trained on

	Shape roofline.Shape
}

// Ills are the ways in which a simulated server misbehaves. A rate is the
// share of requests that it befalls, 0 to 1; which ones depends on the seed,
// the prompt and how often that prompt was asked before, so that the same ills
// come back whatever the order, and asking again can help.
type Ills struct {
	BusyRate   float64       // 503 with Retry-After, as with a full queue
	RetryAfter time.Duration // what Retry-After says, in whole seconds; 0 counts as 1 s
	ResetRate  float64       // the connection breaks: half of them at once, half after the work
	HangRate   float64       // no reply ever; ends when the client gives up

	InvalidJSONRate float64 // a good reply whose answer does not fit the schema
	DropItemRate    float64 // an answer to a packed request lacks one of its items
	GarbledRate     float64 // a reply with status 200 that is not the protocol
	TruncateRate    float64 // a reply that ends half way

	// PartialOffload is the share of the layers that lies in slow memory.
	PartialOffload float64
	Throttle       *Throttle
	SlotsChange    *SlotsChange
}

// Throttle lowers the memory bandwidth for good after some time of work.
type Throttle struct {
	After  time.Duration // since the first request
	Factor float64       // of the bandwidth, 0 to 1
}

// SlotsChange changes the number of slots once, as a restart with other
// settings would. Answers under way are finished.
type SlotsChange struct {
	AfterRequests int           // when this many answers were completed; 0 means by time
	After         time.Duration // since the first request
	Slots         int
}

// llama31 is Llama 3.1 8B Instruct Q4_K_M as Ollama's llama3.1:8b: the file
// has 4,920,738,944 bytes (data/models/ollama-model-bytes.csv), of which the
// embedding table, 128256 x 4096 at 4.5 bits, is not read for each token;
// 128 KiB of f16 cache per token (speed.md section 2).
func llama31() Model {
	const bytes, embedding = 4_920_738_944, 128256 * 4096 * 9 / 16
	digest := sha256.Sum256([]byte("millrace simulated llama3.1:8b"))
	return Model{
		Name:         "llama3.1:8b",
		Bytes:        bytes,
		Digest:       hex.EncodeToString(digest[:]),
		Family:       "llama",
		Parameters:   "8.0B",
		Quantisation: "Q4_K_M",
		Layers:       32,
		MaxContext:   131072,
		Shape:        roofline.Shape{WeightBytes: bytes - embedding, Params: 8_030_261_312, KVBytesPerToken: 128 << 10},
	}
}

// params is for turning a published prompt speed into FLOP/s.
const params = 8_030_261_312

// slowMemory is system memory behind a partial offload (speed.md section 4).
func slowMemory(m roofline.Machine) roofline.Machine {
	m.SlowBandwidthBytes = 40e9
	m.SlowOverhead = 3500 * time.Microsecond
	return m
}

func us(n int) time.Duration { return time.Duration(n) * time.Microsecond }

// profiles is every profile there is. Bandwidths: gpu.md section 8. Speeds:
// speed.md. What no source gives is marked as an estimate; loading times all
// are.
//
// PerSequence and HostPerToken come from the H100 alone, where both columns of
// its table agree with 2.25 ms and 1.25 ms. A second, weaker witness is a 3090 at
// 130.4 tok/s with one and 219.5 with parallel requests (speed.md section 5),
// which needs about 3.5-4 ms for the two together. The other cards are scaled
// from there: estimates.
func profiles() map[string]Profile {
	return map[string]Profile{
		// 47.2 tok/s on Ollama (llmfit PR #958): 21.2 ms, of which 19.0 are
		// bytes at 95 % of 256 GB/s. Prompts: the 4070 Laptop's 2365 tok/s
		// (normiebench #4) by cores, 3072 of 4608.
		"rtx4060-laptop": {
			Note: "GeForce RTX 4060 Laptop, 8 GB, mains power",
			Machine: roofline.Machine{
				BandwidthBytes: 256e9, BandwidthEff: 0.95, FLOPS: 2 * params * 1577,
				OverheadPerStep: us(2000), PerSequence: us(3000), HostPerToken: us(1000),
			},
			Slots: 2, Context: 4096, Load: 4 * time.Second, Fixed: 60 * time.Millisecond,
		},
		// On battery the card gets 20-30 W of its 35-115 W (g-helper #5244),
		// and memory and core clocks fall with it. How far is not published:
		// 40 % of the bandwidth, half of the arithmetic and a slower host are
		// estimates, and give about 20 tok/s.
		"rtx4060-laptop-battery": {
			Note: "GeForce RTX 4060 Laptop, 8 GB, on battery: power and clocks are held down",
			Machine: roofline.Machine{
				BandwidthBytes: 256e9, BandwidthEff: 0.40, FLOPS: 2 * params * 790,
				OverheadPerStep: us(3500), PerSequence: us(6000), HostPerToken: us(1800),
			},
			Slots: 2, Context: 4096, Load: 6 * time.Second, Fixed: 100 * time.Millisecond,
		},
		// 127.74 tok/s in 2024 (XiongjieDai, tg1024) with BW_eff 1054 GB/s and
		// c 3.16 ms; newer builds have less of c. Prompts: 7139 tok/s (pp512
		// of the same table).
		"rtx4090": {
			Note: "GeForce RTX 4090, 24 GB",
			Machine: roofline.Machine{
				BandwidthBytes: 1008e9, BandwidthEff: 1.05, FLOPS: 2 * params * 7139,
				OverheadPerStep: us(2300), PerSequence: us(2000), HostPerToken: us(700),
			},
			Slots: 4, Context: 8192, Load: 3 * time.Second, Fixed: 60 * time.Millisecond,
		},
		// 35.54 tok/s on Ollama (ollama #12770): 28.1 ms. Turing lies below
		// the two-parameter model, hence its own efficiency. Prompts: estimate.
		"t4": {
			Note: "Tesla T4, 16 GB",
			Machine: roofline.Machine{
				BandwidthBytes: 320e9, BandwidthEff: 0.61, FLOPS: 2 * params * 900,
				OverheadPerStep: us(3800), PerSequence: us(4500), HostPerToken: us(1200),
			},
			Slots: 4, Context: 4096, Load: 12 * time.Second, Fixed: 100 * time.Millisecond,
		},
		// No measurement found; speed.md section 3 estimates 79-98 tok/s.
		// Prompts: estimate from the 3090's 4030 tok/s, at 150 W instead of 350.
		"a10g": {
			Note: "A10G, 24 GB",
			Machine: roofline.Machine{
				BandwidthBytes: 600e9, BandwidthEff: 0.94, FLOPS: 2 * params * 2500,
				OverheadPerStep: us(2600), PerSequence: us(2600), HostPerToken: us(1200),
			},
			Slots: 4, Context: 8192, Load: 8 * time.Second, Fixed: 100 * time.Millisecond,
		},
		// Our own measurement (speed.md section 1) of Ollama 0.17.4, with a
		// 4.52 GB file: by its own count 260 tok/s, 3.85 ms; by the clock 1.25
		// ms of sampling more. Sampling is serial over the slots, so 32 slots
		// give only 249 tok/s in all. PerSequence is fitted to that table.
		// Prompts: a shared prefix of 450 tokens raised 218-234 to 240 tok/s
		// at eight slots, so reading one took 14-54 ms; 8,300 tok/s is the
		// slow end of that. (The in-process Vulkan run of the same section
		// read 4,260.) Fixed is what is left of the 0.2 s per request.
		"h100": {
			Note: "H100 80GB HBM3, Ollama limited by its own sampling",
			Machine: roofline.Machine{
				BandwidthBytes: 3352e9, BandwidthEff: 0.70, FLOPS: 2 * params * 8300,
				OverheadPerStep: us(2000), PerSequence: us(2250), HostPerToken: us(1250),
			},
			Slots: 8, Context: 8192, Load: 5 * time.Second, Fixed: 130 * time.Millisecond,
		},
		"instant": {
			Note:    "answers at once: no machine behind it, for measuring everything else",
			Instant: true,
			Slots:   1024, Context: 131072,
		},
	}
}

// Profiles returns all profiles, by name.
func Profiles() []Profile {
	var all []Profile
	for name, p := range profiles() {
		p.Name = name
		p.Model = llama31()
		p.Machine = slowMemory(p.Machine)
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Profile) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Find returns the profile with that name. The error lists those there are.
func Find(name string) (Profile, error) {
	var have []string
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
		have = append(have, p.Name)
	}
	return Profile{}, fmt.Errorf("no simulated server %q; there are: %s", name, strings.Join(have, ", "))
}

// WithSlots returns the profile with n slots.
func (p Profile) WithSlots(n int) Profile { p.Slots = n; return p }

// WithContext returns the profile with n tokens of context per slot.
func (p Profile) WithContext(n int) Profile { p.Context = n; return p }

// WithSpeed returns the profile at factor times its real speed.
func (p Profile) WithSpeed(factor float64) Profile { p.Speed = factor; return p }

// WithSeed returns the profile with other answers and ills.
func (p Profile) WithSeed(seed uint64) Profile { p.Seed = seed; return p }

// WithIlls returns the profile with these ills in place of its own.
func (p Profile) WithIlls(ills Ills) Profile { p.Ills = ills; return p }

// Validate says what is wrong with a profile that was changed by hand.
func (p Profile) Validate() error {
	var errs []error
	positive := func(what string, n int) {
		if n < 1 {
			errs = append(errs, fmt.Errorf("%s is %d; it has to be at least 1", what, n))
		}
	}
	share := func(what string, x float64) {
		if !(x >= 0 && x <= 1) {
			errs = append(errs, fmt.Errorf("%s is %g; it has to lie between 0 and 1", what, x))
		}
	}
	positive("slots", p.Slots)
	positive("context", p.Context)
	if p.Speed < 0 {
		errs = append(errs, fmt.Errorf("speed is %g; it cannot be negative", p.Speed))
	}
	i := p.Ills
	share("rate of busy replies", i.BusyRate)
	share("rate of resets", i.ResetRate)
	share("rate of hangs", i.HangRate)
	share("rate of invalid answers", i.InvalidJSONRate)
	share("rate of dropped items", i.DropItemRate)
	share("rate of garbled replies", i.GarbledRate)
	share("rate of truncated replies", i.TruncateRate)
	share("share of slow layers", i.PartialOffload)
	if i.Throttle != nil {
		share("throttle factor", i.Throttle.Factor)
		if i.Throttle.Factor == 0 {
			errs = append(errs, errors.New("throttle factor is 0; nothing would ever be answered"))
		}
	}
	if i.SlotsChange != nil {
		positive("slots after the change", i.SlotsChange.Slots)
	}
	return errors.Join(errs...)
}

// scale divides a duration by the profile's speed.
func (p Profile) scale(d time.Duration) time.Duration {
	if p.Speed > 0 {
		return time.Duration(float64(d) / p.Speed)
	}
	return d
}
