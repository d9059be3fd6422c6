package ollama

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"millrace/internal/llm"
)

// NewestKnown is the newest release that the tables of this package were made
// from (ollama/ollama fb307609). Of later ones they may be wrong.
const NewestKnown = "0.32.15"

// version is a release of Ollama. Candidates count as their release, as they
// have its features.
type version struct{ major, minor, patch int }

func (v version) compare(w version) int {
	return cmp.Or(cmp.Compare(v.major, w.major), cmp.Compare(v.minor, w.minor), cmp.Compare(v.patch, w.patch))
}

func (v version) before(w string) bool {
	o, ok := parseVersion(w)
	return ok && v.compare(o) < 0
}

func (v version) zero() bool { return v == version{} }

func (v version) String() string {
	return strconv.Itoa(v.major) + "." + strconv.Itoa(v.minor) + "." + strconv.Itoa(v.patch)
}

// parseVersion reads 0.17.4, v0.30.0-rc1, 0.6.0-rc0-12-g1234567-dirty. It is
// false for what is no version; 0.0.0, what a development build says, is one.
func parseVersion(s string) (version, bool) {
	s = strings.TrimPrefix(strings.TrimSpace(s), "v")
	if i := strings.IndexAny(s, "-+ "); i >= 0 {
		s = s[:i]
	}
	parts := strings.Split(s, ".")
	if len(parts) != 2 && len(parts) != 3 {
		return version{}, false
	}
	n := make([]int, 3)
	for i, p := range parts {
		x, err := strconv.ParseUint(p, 10, 31)
		if err != nil {
			return version{}, false
		}
		n[i] = int(x)
	}
	return version{n[0], n[1], n[2]}, true
}

// known is the version of a release; false for a development build (0.0.0) or
// what is no version.
func known(s string) (version, bool) {
	v, ok := parseVersion(s)
	return v, ok && !v.zero()
}

// DevBuild reports whether a version is that of a build whose number says
// nothing: 0.0.0 and what carries commits after a tag.
func DevBuild(s string) bool {
	v, ok := parseVersion(s)
	if !ok {
		return false
	}
	_, suffix, _ := strings.Cut(s, "-")
	return v.zero() || strings.Contains(suffix, "-g") || strings.Contains(suffix, "dirty")
}

// ReleasedAbout is the day on which a release, or the first of its series, was
// published; "" when it is not known. The dates are of the tags' commits.
func ReleasedAbout(s string) string {
	v, ok := known(s)
	if !ok {
		return ""
	}
	for _, c := range changes() {
		if c.Version == v.String() {
			return c.Date
		}
	}
	for _, r := range [...]struct {
		minor int
		date  string
	}{
		{0, "2023-07-08"},
		{1, "2023-09-25"},
		{2, "2024-07-07"},
		{3, "2024-07-25"},
		{4, "2024-11-05"},
		{5, "2024-12-04"},
		{6, "2025-03-11"},
		{7, "2025-05-14"},
		{8, "2025-05-27"},
		{9, "2025-05-28"},
		{10, "2025-07-30"},
		{11, "2025-08-05"},
		{12, "2025-09-18"},
		{13, "2025-11-18"},
		{14, "2026-01-13"},
		{15, "2026-01-23"},
		{16, "2026-02-11"},
		{17, "2026-02-22"},
		{18, "2026-03-13"},
		{19, "2026-03-29"},
		{20, "2026-04-02"},
		{21, "2026-04-16"},
		{22, "2026-04-27"},
		{23, "2026-05-02"},
		{24, "2026-05-14"},
		{30, "2026-06-01"},
		{31, "2026-06-29"},
		{32, "2026-07-13"},
	} {
		if v.major == 0 && v.minor == r.minor {
			return r.date
		}
	}
	return ""
}

// changes are the releases that changed what matters for speed and its
// measurement (reference/ollama.md section 10), oldest first.
func changes() []llm.Change {
	return []llm.Change{
		{Version: "0.2.0", Date: "2024-07-07", What: "slots are chosen automatically, up to 4"},
		{Version: "0.6.7", Date: "2025-04-30", What: "the default context is 4096 tokens (was 2048); up to 2 slots automatically"},
		{Version: "0.10.0", Date: "2025-07-30", What: "the default is one slot; ps tells the context"},
		{Version: "0.12.11", Date: "2025-11-13", What: "Vulkan can be switched on"},
		{Version: "0.13.4", Date: "2025-12-15", What: "flash attention is automatic in the llama.cpp runner"},
		{Version: "0.15.5", Date: "2026-02-05", What: "the default context follows the GPUs' memory: 4k, 32k or 256k"},
		{Version: "0.17.4", Date: "2026-02-26", What: "measured for this project; eval_duration leaves sampling out"},
		{Version: "0.30.0", Date: "2026-06-01", What: "models run in llama-server; Vulkan is on; integrated GPUs have a switch"},
		{Version: "0.30.1", Date: "2026-06-02", What: "prompt_eval_count includes cached tokens, which inflates the prompt's rate"},
		{Version: "0.30.11", Date: "2026-06-26", What: "ps no longer counts mapped weights twice when a model is partly on the CPU"},
		{Version: "0.31.2", Date: "2026-07-07", What: "flash attention on CUDA devices of compute capability 6.x"},
	}
}

// ChangesSince are the changes that a release does not have yet, oldest first;
// nil for a version that is not known.
func ChangesSince(s string) []llm.Change {
	v, ok := known(s)
	if !ok {
		return nil
	}
	all := changes()
	i := slices.IndexFunc(all, func(c llm.Change) bool { return v.before(c.Version) })
	if i < 0 {
		return nil
	}
	return slices.DeleteFunc(all[i:], func(c llm.Change) bool { return c.Version == "0.17.4" })
}

// Defaults are what a release does when nobody says otherwise. Nil is not
// known, or depends on more than version and memory.
type Defaults struct {
	Slots *int
	// SlotsUpTo is the most that a release with automatic slots takes, which
	// it lowers until the model fits; nil where it has a fixed number.
	SlotsUpTo *int
	Context   *int
	// ContextReason says in words why it is that.
	ContextReason string
	// FlashAttention is Auto for 0.13.4 and later. Ollama's own engine (to
	// 0.24) decides by architecture: see flashByDefault.
	FlashAttention llm.Switch
	Vulkan         *bool // false too where there is none
	KeepAlive      llm.Seconds
	MaxQueue       int
	KVType         string
	// Batch is nil where it follows context and memory.
	Batch *int
}

// DefaultsFor gives the defaults of a release on GPUs with vram bytes together
// (less OLLAMA_GPU_OVERHEAD on each); nil is not known, 0 is none. Of an
// unknown version only what all have in common is filled in.
// From reference/ollama.md sections 2, 5 and 6.
func DefaultsFor(ver string, vram *int64) Defaults {
	d := Defaults{KeepAlive: 300, MaxQueue: 512, KVType: "f16"}
	v, ok := known(ver)
	if !ok {
		return d
	}
	switch {
	case v.before("0.2.0"):
		d.Slots = new(1)
	case v.before("0.6.7"):
		d.SlotsUpTo = new(4)
	case v.before("0.10.0"):
		d.SlotsUpTo = new(2)
	default:
		d.Slots = new(1)
	}
	const gib = 1 << 30
	switch {
	case v.before("0.6.7"):
		d.Context, d.ContextReason = new(2048), "fixed before 0.6.7"
	case v.before("0.15.5"):
		d.Context, d.ContextReason = new(4096), "fixed before 0.15.5"
	case vram == nil:
		d.ContextReason = "follows the GPUs' memory, which is not known"
	case *vram >= 47*gib:
		d.Context, d.ContextReason = new(262144), "GPUs have 47 GiB or more together"
	case *vram >= 23*gib:
		d.Context, d.ContextReason = new(32768), "GPUs have 23 to 47 GiB together"
	default:
		d.Context, d.ContextReason = new(4096), "GPUs have less than 23 GiB together"
	}
	if v.before("0.13.4") {
		d.FlashAttention = llm.Off
	} else {
		d.FlashAttention = llm.Auto
	}
	d.Vulkan = new(!v.before("0.30.0"))
	if v.before("0.30.0") {
		d.Batch = new(512)
	}
	return d
}

// EngineFor is the engine that a release takes for a model's architecture;
// newEngine is OLLAMA_NEW_ENGINE. It is "" when version or architecture is not
// known. The list is 0.17.4's (fs/ggml/ggml.go, OllamaEngineRequired); it grew
// over time, so for older releases it is only asked where nothing better
// (the log) tells.
func EngineFor(ver, arch string, newEngine bool) llm.Engine {
	v, ok := known(ver)
	switch {
	case !ok:
		return ""
	case !v.before("0.30.0"):
		return llm.LlamaServerEngine
	case v.before("0.5.12"):
		return llm.LlamaRunner
	case newEngine:
		return llm.OllamaEngine
	case arch == "":
		return ""
	case !ownEngine(arch):
		return llm.LlamaRunner
	case v.before("0.17.0"):
		return "" // the list was shorter then
	}
	return llm.OllamaEngine
}

func ownEngine(arch string) bool {
	return slices.Contains([]string{
		"bert", "deepseek2", "deepseekocr", "gemma3", "gemma3n", "gptoss", "gpt-oss", "llama4", "mistral3", "mllama",
		"nemotron_h", "nemotron_h_moe", "nomic-bert", "olmo3", "qwen25vl", "qwen3", "qwen3moe", "qwen35", "qwen35moe",
		"qwen3next", "qwen3vl", "qwen3vlmoe", "glm4moelite", "glmocr", "lfm2", "lfm2moe",
	}, arch)
}

// flashByDefault reports whether Ollama's own engine, to 0.24, uses flash
// attention for an architecture when nobody asks (0.17.4, FlashAttention in
// fs/ggml/ggml.go).
func flashByDefault(arch string) bool {
	return slices.Contains([]string{
		"bert", "gemma3", "glm4moelite", "glmocr", "gptoss", "gpt-oss", "lfm2", "lfm2moe", "mistral3", "nemotron_h",
		"nemotron_h_moe", "olmo3", "qwen3", "qwen3moe", "qwen35", "qwen35moe", "qwen3next", "qwen3vl", "qwen3vlmoe",
	}, arch)
}

// SingleSlotOnly reports whether a release computes one request at a time for
// an architecture, whatever OLLAMA_NUM_PARALLEL says (server/sched.go). It is
// false when not known.
func SingleSlotOnly(ver, arch string) bool {
	v, ok := known(ver)
	if !ok {
		return false
	}
	switch arch {
	case "mllama":
		return !v.before("0.5.0")
	case "nemotron_h_omni":
		return !v.before("0.30.0")
	}
	return !v.before("0.17.4") && slices.Contains([]string{
		"qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe",
	}, arch)
}
