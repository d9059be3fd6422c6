package llm

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Inspector is a Server that can say how it is set up and what it holds.
type Inspector interface {
	// Facts asks what can be known without changing anything: no model is
	// loaded for it and nothing is generated. model chooses the one whose
	// settings and size are wanted; "" means the one in memory, if it is only
	// one. What a server does not tell stays unknown; what was asked for and
	// refused is named in Notes. The error, an *Error, is that of a server
	// that did not answer at all.
	Facts(ctx context.Context, model string) (Facts, error)
}

// Source says where a reading comes from.
type Source string

// The sources, the surest first: how the process was started, what it wrote
// when it loaded the model, what it answers, what its environment held, what a
// server of this version does when nobody says otherwise.
const (
	FromCommand     Source = "command line"
	FromLog         Source = "log"
	FromAPI         Source = "api"
	FromEnvironment Source = "environment"
	FromDefault     Source = "default of this version"
)

// Fact is a reading and where it comes from. A nil *Fact is not known.
type Fact[T any] struct {
	Value  T      `json:"value"`
	Source Source `json:"source"`
}

// Known makes a Fact.
func Known[T any](v T, s Source) *Fact[T] { return &Fact[T]{v, s} }

// Get is the value and whether there is one.
func (f *Fact[T]) Get() (v T, ok bool) {
	if f == nil {
		return v, false
	}
	return f.Value, true
}

// Or is the value, or what is given in its place.
func (f *Fact[T]) Or(unknown T) T {
	if f == nil {
		return unknown
	}
	return f.Value
}

// Facts is what is known of a running server and of one of its models. Nil and
// empty mean unknown, never zero. Its JSON names are part of the observation
// file. Sizes are in bytes.
type Facts struct {
	Kind    Kind          `json:"kind"`
	Version *Fact[string] `json:"version,omitempty"`

	// DevBuild is a build whose version number says nothing (0.0.0);
	// SelfBuilt one that others than the project made (a distribution,
	// Homebrew, a user); DebugBuild one that was compiled without
	// optimisation; DebugLog is whether it writes a debug log.
	DevBuild   *Fact[bool] `json:"dev_build,omitempty"`
	SelfBuilt  *Fact[bool] `json:"self_built,omitempty"`
	DebugBuild *Fact[bool] `json:"debug_build,omitempty"`
	DebugLog   *Fact[bool] `json:"debug_log,omitempty"`
	// ReleasedAbout is the day (2026-02-26) on which this version, or the
	// first of its series, was published.
	ReleasedAbout *Fact[string] `json:"released_about,omitempty"`
	// Changes are what later versions do otherwise and matters for speed.
	Changes []Change `json:"changes,omitempty"`

	Engine *Fact[Engine] `json:"engine,omitempty"`
	// Library is the backend's library as the server names it (cuda_v12,
	// cuda_v13, rocm, vulkan, metal, cpu); Backend is the family.
	Library *Fact[string]  `json:"library,omitempty"`
	Backend *Fact[Backend] `json:"backend,omitempty"`
	// Devices are the ones that the server found for computing, the processor
	// among them when it found no other. Absent is not known.
	Devices []Device `json:"devices,omitempty"`

	Slots          *Fact[int] `json:"slots,omitempty"` // requests for the model that are computed at once
	ContextPerSlot *Fact[int] `json:"context_per_slot,omitempty"`
	ContextTotal   *Fact[int] `json:"context_total,omitempty"`   // of all slots
	ContextTrained *Fact[int] `json:"context_trained,omitempty"` // what the model was made for
	// DefaultContext is what a request gets that asks for none, of a model
	// that sets none (Model.Options, num_ctx); Reason says why it is that.
	DefaultContext       *Fact[int] `json:"default_context,omitempty"`
	DefaultContextReason string     `json:"default_context_reason,omitempty"`
	// KVCapacity is how many tokens the cache of all requests together can
	// hold, where it is not slots times context (vLLM).
	KVCapacity *Fact[int] `json:"kv_capacity,omitempty"`

	Batch      *Fact[int] `json:"batch,omitempty"`
	Microbatch *Fact[int] `json:"microbatch,omitempty"`
	Threads    *Fact[int] `json:"threads,omitempty"`
	// FlashAttention is the setting, FlashAttentionUsed what came of it.
	FlashAttention     *Fact[Switch] `json:"flash_attention,omitempty"`
	FlashAttentionUsed *Fact[bool]   `json:"flash_attention_used,omitempty"`
	// KVType is f16, q8_0, ...; "q8_0/f16" where keys and values differ.
	KVType      *Fact[string] `json:"kv_type,omitempty"`
	MMap        *Fact[bool]   `json:"mmap,omitempty"`
	PrefixCache *Fact[bool]   `json:"prefix_cache,omitempty"`

	// GPULayers of Layers are on GPUs, the output layer counted as one.
	// LayersAsked is what a user asked for; absent means automatic.
	// LayersOverflowing are on a GPU only in part.
	GPULayers         *Fact[int] `json:"gpu_layers,omitempty"`
	Layers            *Fact[int] `json:"layers,omitempty"`
	LayersAsked       *Fact[int] `json:"layers_asked,omitempty"`
	LayersOverflowing *Fact[int] `json:"layers_overflowing,omitempty"`

	// KeepAlive is how long a model stays in memory after its last request;
	// negative is for ever.
	KeepAlive *Fact[Seconds] `json:"keep_alive_s,omitempty"`
	MaxQueue  *Fact[int]     `json:"max_queue,omitempty"`
	MaxLoaded *Fact[int]     `json:"max_loaded,omitempty"` // models in memory at once

	Model   *ModelFacts `json:"model,omitempty"`
	Loaded  []Residency `json:"loaded,omitempty"`  // models in memory; absent: not known, see LoadedKnown
	Buffers []Buffer    `json:"buffers,omitempty"` // of the model's last load
	Host    *HostMemory `json:"host_memory,omitempty"`
	// LoadedKnown is that the server lists what it has in memory, so that an
	// empty Loaded means nothing.
	LoadedKnown bool `json:"loaded_known,omitempty"`

	History  *History  `json:"history,omitempty"`
	Counters *Counters `json:"counters,omitempty"`

	// Settings are what the server started with.
	Settings []Setting `json:"settings,omitempty"`
	// Notes are readings that failed, and readings not to be trusted.
	Notes []string `json:"notes,omitempty"`
}

// Note adds a sentence to Notes, once.
func (f *Facts) Note(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if !slices.Contains(f.Notes, s) {
		f.Notes = append(f.Notes, s)
	}
}

// Seconds is a time span in seconds.
type Seconds float64

// Duration converts to a time.Duration.
func (s Seconds) Duration() time.Duration {
	switch x := float64(s) * float64(time.Second); {
	case x >= math.MaxInt64:
		return math.MaxInt64
	case x <= math.MinInt64:
		return math.MinInt64
	default:
		return time.Duration(x)
	}
}

// Change is what a version of a server changed.
type Change struct {
	Version string `json:"version"`
	Date    string `json:"date,omitempty"`
	What    string `json:"what"`
}

// Engine is the program that computes.
type Engine string

// The engines. Ollama has three of them, by version and model.
const (
	LlamaRunner       Engine = "llama.cpp runner" // llama.cpp inside an "ollama runner" (to 0.24)
	OllamaEngine      Engine = "ollama engine"    // Ollama's own, in Go (to 0.24)
	LlamaServerEngine Engine = "llama-server"
	LlamaCpp          Engine = "llama.cpp" // inside another program, such as LM Studio
	MLXEngine         Engine = "mlx"
	VLLMEngine        Engine = "vllm"
)

// Backend is a family of compute libraries.
type Backend string

// The backends.
const (
	CUDA   Backend = "cuda"
	ROCm   Backend = "rocm"
	Vulkan Backend = "vulkan"
	Metal  Backend = "metal"
	SYCL   Backend = "sycl" // Intel's, oneAPI
	CPU    Backend = "cpu"
)

// BackendOf is the family of a library or device by its name: cuda_v12, CUDA0,
// ROCm1, MTL0, Vulkan0, hip, cpu_avx2. It is "" for a name it does not know.
func BackendOf(name string) Backend {
	name = strings.ToLower(strings.TrimPrefix(name, "lib"))
	for _, b := range [...]struct {
		prefix  string
		backend Backend
	}{
		{"cuda", CUDA},
		{"rocm", ROCm},
		{"hip", ROCm},
		{"vulkan", Vulkan},
		{"metal", Metal},
		{"mtl", Metal},
		{"oneapi", SYCL},
		{"sycl", SYCL},
		{"cpu", CPU},
	} {
		if strings.HasPrefix(name, b.prefix) {
			return b.backend
		}
	}
	return ""
}

// Switch is a setting that may be left to the program.
type Switch string

// The positions.
const (
	On   Switch = "on"
	Off  Switch = "off"
	Auto Switch = "auto"
)

// Device is a processor that a server found to compute with.
type Device struct {
	ID          string   `json:"id,omitempty"`   // the driver's, such as GPU-2291…
	Name        string   `json:"name,omitempty"` // the backend's, such as CUDA0
	Description string   `json:"description,omitempty"`
	Library     string   `json:"library,omitempty"` // cuda_v13, rocm, metal, cpu
	Backend     Backend  `json:"backend,omitempty"`
	Type        string   `json:"type,omitempty"` // discrete or iGPU, as the server names it
	Integrated  *bool    `json:"integrated,omitempty"`
	Compute     string   `json:"compute,omitempty"` // CUDA compute capability, gfx target
	Driver      string   `json:"driver,omitempty"`
	PCI         string   `json:"pci,omitempty"`
	TotalBytes  *int64   `json:"total_bytes,omitempty"`
	FreeBytes   *int64   `json:"free_bytes,omitempty"`         // when the server started
	AtLoad      *int64   `json:"free_at_load_bytes,omitempty"` // before the model's last load
	Dropped     string   `json:"dropped,omitempty"`            // why the server does not use it
	Sources     []Source `json:"sources,omitempty"`
}

// Buffer is memory that a model takes on one device.
type Buffer struct {
	Device string     `json:"device"` // CUDA0, CPU, CPU_Mapped, CUDA_Host, Metal, ...
	Kind   BufferKind `json:"kind"`
	Bytes  int64      `json:"bytes"`
	// GPU is whether the device is a GPU's memory. Host memory that is pinned
	// for a GPU (CUDA_Host) is not.
	GPU bool `json:"gpu"`
	// Estimated marks what was planned before the load.
	Estimated bool   `json:"estimated,omitempty"`
	Source    Source `json:"source"`
}

// BufferKind says what a buffer holds.
type BufferKind string

// The kinds of buffers.
const (
	ModelBuffer   BufferKind = "model"
	KVBuffer      BufferKind = "kv"
	ComputeBuffer BufferKind = "compute"
	OutputBuffer  BufferKind = "output"
	StateBuffer   BufferKind = "state" // of recurrent layers
)

// OnGPU reports whether a device name of llama.cpp means GPU memory. CPU,
// BLAS, everything CPU_* and pinned host memory (*_Host) do not; mapped device
// memory (Metal_Mapped) does. From Ollama's llm/llama_server.go, isGPUBuffer.
func OnGPU(device string) bool {
	return device != "" && device != "CPU" && device != "BLAS" && device != "AMX" && device != "Host" &&
		!strings.HasPrefix(device, "CPU_") && !strings.HasSuffix(device, "_Host")
}

// HostMemory is main memory when the model was loaded.
type HostMemory struct {
	TotalBytes *int64 `json:"total_bytes,omitempty"`
	FreeBytes  *int64 `json:"free_bytes,omitempty"`
	SwapFree   *int64 `json:"swap_free_bytes,omitempty"`
	Source     Source `json:"source"`
}

// Residency is a model in memory.
type Residency struct {
	Name       string     `json:"name"`
	Digest     string     `json:"digest,omitempty"`
	SizeBytes  *int64     `json:"size_bytes,omitempty"` // all its memory
	VRAMBytes  *int64     `json:"vram_bytes,omitempty"` // of that, on GPUs by the server's account
	Context    *int       `json:"context,omitempty"`    // per slot
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
	ForEver    bool       `json:"for_ever,omitempty"` // it does not expire
	Stopping   bool       `json:"stopping,omitempty"` // it expired and is still there
	Quantised  string     `json:"quantisation,omitempty"`
	Family     string     `json:"family,omitempty"`
	Parameters string     `json:"parameter_size,omitempty"`
	// Processor is the share on GPUs as the server's own tool prints it:
	// "100% GPU", "48%/52% CPU/GPU". GPUPercent is the number in it.
	Processor  string   `json:"processor,omitempty"`
	GPUPercent *float64 `json:"gpu_percent,omitempty"`
	// Basis is how this version of the server counts; Doubts are reasons why
	// the share may be wrong here.
	Basis  string   `json:"basis,omitempty"`
	Doubts []string `json:"doubts,omitempty"`
}

// ModelFacts is what a model is, and what it asks of a machine. TokenBytes and
// the cache are as in package gguf.
type ModelFacts struct {
	Name         string `json:"name,omitempty"`
	Digest       string `json:"digest,omitempty"`
	Blob         string `json:"blob,omitempty"` // file of the weights, without its folder: how a log names the model
	Architecture string `json:"architecture,omitempty"`
	Quantisation string `json:"quantisation,omitempty"`
	Format       string `json:"format,omitempty"` // gguf, safetensors, mlx
	Remote       bool   `json:"remote,omitempty"` // computed elsewhere

	Parameters       *int64 `json:"parameters,omitempty"`
	ActiveParameters *int64 `json:"active_parameters,omitempty"` // that one token is multiplied with
	Layers           *int64 `json:"layers,omitempty"`
	ContextTrained   *int64 `json:"context_trained,omitempty"`
	Vocabulary       *int64 `json:"vocabulary,omitempty"`
	WeightBytes      *int64 `json:"weight_bytes,omitempty"` // all tensors, or the file's size
	TokenBytes       *int64 `json:"token_bytes,omitempty"`  // read for one token
	LookupBytes      *int64 `json:"lookup_bytes,omitempty"`
	ExpertBytes      *int64 `json:"expert_bytes,omitempty"`
	Experts          *int64 `json:"experts,omitempty"`
	ExpertsUsed      *int64 `json:"experts_used,omitempty"`
	// KV is the layout of the cache; nil when it is not known.
	KV *KVLayout `json:"kv,omitempty"`
	// Estimated is that sizes come from the model's shape.
	Estimated    bool     `json:"estimated,omitempty"`
	Capabilities []string `json:"capabilities,omitempty"`
	// Options are what the model's own definition sets (num_ctx, num_gpu,
	// num_thread, ...); those that only shape an answer are left out.
	Options map[string]string `json:"options,omitempty"`
	Notes   []string          `json:"notes,omitempty"`
	Source  Source            `json:"source,omitempty"`
}

// KVLayout is how many values (not bytes) a token of context adds to the
// cache: Full in layers that see all of it, Windowed in those that see the
// last Window tokens.
type KVLayout struct {
	Full     int64 `json:"full"`
	Windowed int64 `json:"windowed,omitempty"`
	Window   int64 `json:"window,omitempty"`
	Latent   bool  `json:"latent,omitempty"`
}

// bitsPerKVValue is bits per value of a type that a cache can have: blocks of
// 32 values with their scales (llama.cpp ggml/src/ggml-common.h, block_q8_0 and
// so on); 0 for a type it does not know.
func bitsPerKVValue(t string) float64 {
	const perBlockByte = 8 / 32.
	switch t {
	case "f32":
		return 32
	case "f16", "bf16":
		return 16
	case "q8_0":
		return 34 * perBlockByte
	case "q5_1":
		return 24 * perBlockByte
	case "q5_0":
		return 22 * perBlockByte
	case "q4_1":
		return 20 * perBlockByte
	case "q4_0", "iq4_nl":
		return 18 * perBlockByte
	}
	return 0
}

// Bytes is the cache of one sequence of tokens, stored as kvType: "f16",
// "q8_0", or "q8_0/f16" for keys and values (taken as halves). "" is f16. It
// is false for a type it does not know.
func (l KVLayout) Bytes(tokens int64, kvType string) (int64, bool) {
	if kvType == "" {
		kvType = "f16"
	}
	k, v, two := strings.Cut(strings.ToLower(kvType), "/")
	if !two {
		v = k
	}
	bk, bv := bitsPerKVValue(k), bitsPerKVValue(v)
	tokens = max(tokens, 0)
	values := float64(l.Full)*float64(tokens) + float64(l.Windowed)*float64(min(tokens, l.Window))
	bytes := values * (bk + bv) / 2 / 8
	if bk == 0 || bv == 0 || bytes > math.MaxInt64/2 {
		return 0, false
	}
	return int64(bytes), true
}

// History is what a log tells of the time since the server's start.
type History struct {
	Starts int        `json:"starts"` // seen in the log; the rest is about the last
	From   *time.Time `json:"from,omitempty"`
	To     *time.Time `json:"to,omitempty"`
	// Loads in order, the newest at the end. Of a long log only the last
	// MaxLoads are kept; LoadCount and Reloads count all.
	Loads     []Load         `json:"loads,omitempty"`
	LoadCount int            `json:"load_count"`
	Reloads   int            `json:"reloads"` // loads of a model that had been loaded before
	Events    []Event        `json:"events,omitempty"`
	Requests  int            `json:"requests"`           // for completions, chats and embeddings
	Statuses  map[string]int `json:"statuses,omitempty"` // of those, by HTTP status
}

// MaxLoads is how many loads a History keeps.
const MaxLoads = 64

// Count is how often something happened.
func (h *History) Count(k EventKind) int {
	if h == nil {
		return 0
	}
	n := 0
	for _, e := range h.Events {
		if e.Kind == k {
			n += e.Count
		}
	}
	return n
}

// Load is one load of a model.
type Load struct {
	Time           *time.Time `json:"time,omitempty"`
	Model          string     `json:"model,omitempty"` // file of the weights without its folder
	Name           string     `json:"name,omitempty"`  // as the file calls itself
	Seconds        *Seconds   `json:"seconds,omitempty"`
	Engine         Engine     `json:"engine,omitempty"`
	Slots          *int       `json:"slots,omitempty"`
	ContextTotal   *int       `json:"context_total,omitempty"`
	GPULayers      *int       `json:"gpu_layers,omitempty"`
	Layers         *int       `json:"layers,omitempty"`
	Reason         LoadReason `json:"reason,omitempty"`
	Detail         string     `json:"detail,omitempty"` // what changed
	Failed         string     `json:"failed,omitempty"`
	SincePreviousS *Seconds   `json:"since_previous_s,omitempty"` // after this model's load before
}

// LoadReason is why a model was loaded.
type LoadReason string

// The reasons. All but the first are about a model that had been loaded before.
const (
	FirstLoad      LoadReason = "first"
	OptionsChanged LoadReason = "options changed"
	AfterEviction  LoadReason = "made room for another model"
	AfterIdle      LoadReason = "unloaded after its keep-alive"
	AfterFailure   LoadReason = "after a failed load or a crash"
	AfterUnload    LoadReason = "unloaded before its time" // keep_alive 0, or stopped by hand
	UnknownReason  LoadReason = "unknown"
)

// EventKind is a kind of thing that a log reports.
type EventKind string

// The kinds of events. Each carries in Detail what the log adds to it.
const (
	Eviction         EventKind = "eviction"           // a model had to go for another
	Truncation       EventKind = "prompt truncated"   // a prompt was cut
	OutOfMemory      EventKind = "out of memory"      // of a GPU or of the host
	SingleSlot       EventKind = "forced to one slot" // the architecture cannot do more
	ContextReduced   EventKind = "context reduced"    // to fit the memory
	ContextClipped   EventKind = "context clipped"    // asked for more than the model was made for
	ContextShift     EventKind = "context shifted"    // a sequence grew over its context
	ClientGone       EventKind = "client gone"        // gave up waiting for a slot
	QueueFull        EventKind = "queue full"
	KVTypeIgnored    EventKind = "kv type ignored"
	FlashUnsupported EventKind = "flash attention unsupported"
	IntegratedOff    EventKind = "integrated gpu dropped"
	VulkanOff        EventKind = "vulkan disabled"
	DevicesHidden    EventKind = "visible devices overridden"
	LowVRAM          EventKind = "low vram mode"
	DiscoveryFailed  EventKind = "gpu discovery failed"
	NoGPU            EventKind = "no gpu found"
	GPUTooOld        EventKind = "gpu too old"
	DriverTooOld     EventKind = "driver too old"
	CPUFallback      EventKind = "fell back to cpu"
	LoadFailed       EventKind = "load failed"
	RunnerCrashed    EventKind = "runner crashed"
	BadSetting       EventKind = "setting not understood"
	VRAMNotFreed     EventKind = "vram not freed in time"
	VRAMUntracked    EventKind = "vram not tracked" // sizes in ps are the file's
	MMapOff          EventKind = "mmap disabled"
	RequestsLogged   EventKind = "requests written to disk"
	MissingCaps      EventKind = "processor lacks vector units"
)

// Event is something that happened, Count times.
type Event struct {
	Kind   EventKind  `json:"kind"`
	Detail string     `json:"detail,omitempty"`
	Count  int        `json:"count"`
	First  *time.Time `json:"first,omitempty"`
	Last   *time.Time `json:"last,omitempty"`
}

// Counters are a server's own counts: the first group now, the others since
// its start.
type Counters struct {
	Processing *float64 `json:"processing,omitempty"`
	Waiting    *float64 `json:"waiting,omitempty"` // for a slot
	KVUsage    *float64 `json:"kv_usage,omitempty"`
	BusySlots  *int     `json:"busy_slots,omitempty"`
	Sleeping   *bool    `json:"sleeping,omitempty"` // the model is unloaded until the next request

	PromptTokens     *float64 `json:"prompt_tokens,omitempty"`
	PromptSeconds    *float64 `json:"prompt_seconds,omitempty"`
	GeneratedTokens  *float64 `json:"generated_tokens,omitempty"`
	GeneratedSeconds *float64 `json:"generated_seconds,omitempty"`
	Decodes          *float64 `json:"decodes,omitempty"`
	// SlotsPerDecode is how many slots had work in a pass, on average.
	SlotsPerDecode *float64 `json:"slots_per_decode,omitempty"`
	LongestTokens  *float64 `json:"longest_tokens,omitempty"` // longest sequence seen
	Preemptions    *float64 `json:"preemptions,omitempty"`
	PrefixQueries  *float64 `json:"prefix_queries,omitempty"` // tokens looked up in the prefix cache
	PrefixHits     *float64 `json:"prefix_hits,omitempty"`
	DraftTokens    *float64 `json:"draft_tokens,omitempty"` // of speculative decoding
	DraftAccepted  *float64 `json:"draft_accepted,omitempty"`

	FirstToken *Mean `json:"first_token,omitempty"` // seconds to the first token
	PerToken   *Mean `json:"per_token,omitempty"`   // seconds between tokens
	EndToEnd   *Mean `json:"end_to_end,omitempty"`  // seconds for a request
	QueueTime  *Mean `json:"queue_time,omitempty"`  // seconds of waiting
}

// Mean is a sum and how many it is of.
type Mean struct {
	Sum   float64 `json:"sum"`
	Count float64 `json:"count"`
}

// Value is the mean; false when there is none.
func (m *Mean) Value() (float64, bool) {
	if m == nil || m.Count <= 0 {
		return 0, false
	}
	return m.Sum / m.Count, true
}

// Place is where a setting was found.
type Place string

// The places. Only the first two are proof that the server has it.
const (
	InServer    Place = "server process" // environment of the running server
	InLog       Place = "server log"     // what the server said it started with
	InUnit      Place = "service unit"   // systemd drop-in, launchd plist
	InContainer Place = "container file" // compose file, Dockerfile
	InFile      Place = "file"           // KEY=VALUE, shell script
	InShell     Place = "shell"          // environment of whoever asks
)

// Setting is a variable and where it was found.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Where Place  `json:"where"`
	File  string `json:"file,omitempty"` // name of the file, where it is one
	Line  int    `json:"line,omitempty"`
}

// Verdict is what a server does with a setting.
type Verdict string

// The verdicts.
const (
	SettingRead  Verdict = "read"
	NotRead      Verdict = "not-read" // by any version: nobody reads the name
	WrongPlace   Verdict = "wrong-place"
	NotInVersion Verdict = "not-in-this-version"
	BadValue     Verdict = "bad-value"
)

// SettingNote is a judgement on a setting.
type SettingNote struct {
	Setting
	Verdict Verdict `json:"verdict"`
	Effect  string  `json:"effect,omitempty"`  // what it does where it is read
	Instead string  `json:"instead,omitempty"` // what to use in its place
	Note    string  `json:"note,omitempty"`
}

// Add adds a sentence to Note; an empty one is nothing.
func (n *SettingNote) Add(sentence string) {
	switch {
	case sentence == "":
	case n.Note == "":
		n.Note = sentence
	default:
		n.Note += "; " + sentence
	}
}

// String is the note as one line, for messages.
func (n SettingNote) String() string {
	s := n.Name + "=" + strconv.Quote(n.Value) + " (" + string(n.Where) + "): " + string(n.Verdict)
	if n.Instead != "" {
		s += "; use instead: " + n.Instead
	}
	if n.Note != "" {
		s += "; " + n.Note
	}
	return s
}
