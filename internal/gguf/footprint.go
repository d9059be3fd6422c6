package gguf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Footprint is what a model asks of a machine. A pointer that is nil means
// that the source does not say, never zero; Notes says what is missing and why.
// Sizes are in bytes.
type Footprint struct {
	Architecture string `json:"architecture,omitempty"`
	Quantisation string `json:"quantisation,omitempty"` // the mix, such as Q4_K_M
	Layers       *int64 `json:"layers,omitempty"`
	Context      *int64 `json:"context,omitempty"` // tokens the model was trained for
	Vocabulary   *int64 `json:"vocabulary,omitempty"`

	// Parameters is how many there are, ActiveParameters how many of them one
	// token is multiplied with: without lookup tables, and of the experts the
	// share that is used. Two FLOPs for each.
	Parameters       *int64 `json:"parameters,omitempty"`
	ActiveParameters *int64 `json:"active_parameters,omitempty"`

	// WeightBytes is all tensors. TokenBytes is what has to be read from memory
	// for one token: without the tables that are only looked up
	// (LookupBytes), without parts for images or sound, and of the experts
	// (ExpertBytes) ExpertsUsed of Experts.
	WeightBytes *int64 `json:"weight_bytes,omitempty"`
	TokenBytes  *int64 `json:"token_bytes,omitempty"`
	LookupBytes *int64 `json:"lookup_bytes,omitempty"`
	ExpertBytes *int64 `json:"expert_bytes,omitempty"` // nil or 0 for a dense model
	Experts     *int64 `json:"experts,omitempty"`
	ExpertsUsed *int64 `json:"experts_used,omitempty"`

	// Cache is nil when the layout of the key-value cache cannot be told.
	Cache *Cache `json:"cache,omitempty"`

	// Estimated is true when sizes come from the model's shape and the rules of
	// the quantiser instead of from a list of tensors.
	Estimated bool     `json:"estimated,omitempty"`
	Notes     []string `json:"notes,omitempty"`
}

// Cache is the layout of the key-value cache, in values (not bytes).
type Cache struct {
	// Full is how many values a token of context adds in the layers that see
	// all of it: heads × (key + value length), summed over layers.
	Full int64 `json:"full"`
	// Windowed is the same for layers that see only the last Window tokens.
	Windowed int64 `json:"windowed,omitempty"`
	Window   int64 `json:"window,omitempty"`
	// Latent marks multi-head latent attention, kept compressed: one shared
	// key per layer, whose first part is the value too.
	Latent bool `json:"latent,omitempty"`
}

// Bytes is the size of the cache of one sequence with the given number of
// tokens, stored as t (F16 unless the server was told otherwise; Ollama's
// OLLAMA_KV_CACHE_TYPE names q8_0 and q4_0). It is false when t is not known.
func (c Cache) Bytes(tokens int64, t Type) (int64, bool) {
	b, ok := blocks[t]
	if !ok {
		return 0, false
	}
	tokens = max(tokens, 0)
	values := c.Full*tokens + c.Windowed*min(tokens, c.Window)
	return values / b.values * b.bytes, true
}

// TokenBytes is what one token of context adds while no window is full; false
// when t is not known.
func (c Cache) TokenBytes(t Type) (int64, bool) {
	b, ok := blocks[t]
	return (c.Full + c.Windowed) / max(b.values, 1) * b.bytes, ok
}

// part is one tensor as the sums need it.
type part struct {
	name   string
	values int64
	bytes  int64
	known  bool // bytes
}

// Footprint adds up the header.
func (f *File) Footprint() Footprint {
	parts := make([]part, 0, len(f.Tensors))
	for _, t := range f.Tensors {
		n, ok := t.Bytes()
		parts = append(parts, part{t.Name, t.Elements(), n, ok})
	}
	fp := f.facts()
	fp.add(parts, f.causal())
	return fp
}

// facts is what the metadata alone says.
func (f *File) facts() Footprint {
	fp := Footprint{Architecture: f.Arch()}
	if fp.Architecture == "" {
		fp.note("general.architecture is missing: nothing about layers, cache or experts can be read")
	}
	if v, ok := f.Uint("general.file_type"); ok {
		fp.Quantisation = FileType(v).String()
	}
	fp.Layers = f.archInt("block_count")
	fp.Context = f.archInt("context_length")
	fp.Vocabulary = f.archInt("vocab_size")
	if tokens, ok := f.Meta["tokenizer.ggml.tokens"].([]string); ok && fp.Vocabulary == nil && len(tokens) > 0 {
		fp.Vocabulary = new(int64(len(tokens)))
	}
	if n := f.archInt("expert_count"); n != nil && *n > 0 {
		fp.Experts, fp.ExpertsUsed = n, f.archInt("expert_used_count")
	}
	if n, ok := f.Uint("general.parameter_count"); ok && n > 0 {
		fp.Parameters = new(int64(n))
	}
	fp.Cache = f.cache(&fp)
	return fp
}

// add sums the tensors.
func (fp *Footprint) add(parts []part, causal bool) {
	if len(parts) == 0 {
		fp.note("no tensors are listed: bytes per token are unknown")
		return
	}
	tied := !slices.ContainsFunc(parts, func(p part) bool { return p.name == "output.weight" })
	var all, params, token, active, lookup, expert, expertParams int64
	known, tokens := true, causal
	for _, p := range parts {
		if !p.known && known {
			known = false
			fp.note("the type of tensor %.60q is not known: bytes are unknown", p.name)
		}
		all += p.bytes
		params += p.values
		if all > 1<<59 || params > 1<<59 { // a broken header; beyond it sums overflow
			fp.note("the tensors add up to more than any machine holds: bytes are unknown")
			return
		}
		switch fp.kind(p.name, tied) {
		case lookedUp:
			lookup += p.bytes
		case routed:
			expert += p.bytes
			expertParams += p.values
		case apart:
		default:
			token += p.bytes
			active += p.values
		}
	}
	fp.Parameters = &params
	share := 1.0
	if expertParams > 0 {
		if fp.Experts == nil || fp.ExpertsUsed == nil || *fp.ExpertsUsed <= 0 || *fp.ExpertsUsed > *fp.Experts {
			fp.note("there are experts, but not how many of how many are used: bytes per token are unknown")
			tokens = false
		} else {
			share = float64(*fp.ExpertsUsed) / float64(*fp.Experts)
		}
	}
	if tokens {
		fp.ActiveParameters = new(active + int64(float64(expertParams)*share))
	}
	if !known {
		return
	}
	fp.WeightBytes, fp.LookupBytes = &all, &lookup
	if expertParams > 0 {
		fp.ExpertBytes = &expert
	}
	if tokens {
		fp.TokenBytes = new(token + int64(float64(expert)*share))
	}
}

type tensorKind int

const (
	streamed tensorKind = iota
	lookedUp            // one row per token
	routed              // an expert, used by some tokens
	apart               // not in the path of a text token
)

// kind says what a tensor is for. Names: llama.cpp's src/llama-arch.cpp and
// gguf-py's constants; v., mm. and a. are images and sound in the files that
// Ollama writes.
func (fp *Footprint) kind(name string, tied bool) tensorKind {
	switch name {
	case "token_embd.weight":
		if tied {
			return streamed // it is the output matrix too
		}
		return lookedUp
	case "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight":
		return lookedUp
	}
	for _, p := range [...]string{"v.", "mm.", "a.", "mtp."} {
		if strings.HasPrefix(name, p) {
			return apart
		}
	}
	if strings.Contains(name, ".nextn.") {
		return apart // predicts further tokens; plain decoding skips it
	}
	if isExpert(name) {
		return routed
	}
	return streamed
}

// isExpert recognises blk.N.ffn_up_exps.weight and the older, one tensor for
// each expert: blk.N.ffn_up.7.weight.
func isExpert(name string) bool {
	_, rest, ok := strings.Cut(strings.TrimPrefix(name, "blk."), ".")
	if !ok || !strings.HasPrefix(rest, "ffn_") {
		return false
	}
	fields := strings.Split(rest, ".")
	if strings.HasSuffix(fields[0], "_exps") {
		return true
	}
	if len(fields) != 3 {
		return false
	}
	_, err := strconv.ParseUint(fields[1], 10, 32)
	return err == nil
}

// swa is which layers of an architecture see only a window: all but every
// period-th, or (denseFirst) all but the first of each period. window is used
// when the file names none. From llama.cpp's set_swa_pattern calls in
// src/llama-model.cpp as vendored by Ollama 0.17.4. Other architectures that
// name a window (phi3, old mistral and qwen2 files) are run with full attention.
type swa struct {
	period, window int64
	denseFirst     bool
}

var swaByArch = map[string]swa{
	"gemma2":       {period: 2, window: 4096},
	"gemma3":       {period: 6},
	"gemma3n":      {period: 5},
	"cohere2":      {period: 4},
	"gpt-oss":      {period: 2},
	"gptoss":       {period: 2}, // Ollama's name for it
	"llama4":       {period: 4, window: 8192},
	"olmo2":        {period: 4},
	"afmoe":        {period: 4},
	"exaone4":      {period: 4, window: 4096},
	"smallthinker": {period: 4, window: 4096, denseFirst: true},
}

// cache works out the layout; nil, with a note, when a layer's share is unknown.
func (f *File) cache(fp *Footprint) *Cache {
	if fp.Layers == nil || *fp.Layers <= 0 || *fp.Layers > 1<<16 {
		return nil
	}
	layers := *fp.Layers
	if rank := f.archInt("attention.kv_lora_rank"); rank != nil && f.archInt("attention.key_length_mla") != nil {
		rope := f.archInt("rope.dimension_count")
		if rope == nil {
			fp.note("latent attention without rope.dimension_count: the cache is unknown")
			return nil
		}
		return &Cache{Full: layers * (*rank + *rope), Latent: true}
	}
	heads, ok := f.perLayer("attention.head_count_kv", layers)
	if !ok {
		if heads, ok = f.perLayer("attention.head_count", layers); !ok {
			fp.note("heads are not listed for each layer (/api/show lists them with verbose): the cache is unknown")
			return nil
		}
	}
	key, value := f.headLength("key_length"), f.headLength("value_length")
	if key == nil || value == nil {
		fp.note("neither head length nor width and heads: the cache is unknown")
		return nil
	}
	windowed, window, ok := f.windowed(layers)
	if !ok {
		fp.note("which layers have a window is not listed (/api/show lists it with verbose): the cache is unknown")
		return nil
	}
	keyW, valueW := key, value
	if v := f.archInt("attention.key_length_swa"); v != nil {
		keyW = v
	}
	if v := f.archInt("attention.value_length_swa"); v != nil {
		valueW = v
	}
	attends := layers
	if n := f.archInt("attention.shared_kv_layers"); n != nil { // the last ones reuse earlier layers' cache
		attends = max(0, layers-*n)
	}
	if n := f.archInt("nextn_predict_layers"); n != nil {
		attends = max(0, min(attends, layers-*n))
	}
	every := f.archInt("full_attention_interval") // hybrids: the others are recurrent
	if every == nil && f.archInt("ssm.state_size") != nil && !slices.Contains(heads, 0) {
		fp.note("a hybrid that does not say which layers attend: the cache is unknown")
		return nil
	}
	c := &Cache{Window: window}
	for l := range attends {
		switch {
		case every != nil && *every > 0 && (l+1)%*every != 0 && !slices.Contains(heads, 0):
		case windowed(l):
			c.Windowed += heads[l] * (*keyW + *valueW)
		default:
			c.Full += heads[l] * (*key + *value)
		}
	}
	if c.Windowed == 0 {
		c.Window = 0
	}
	return c
}

// windowed returns which layers see only a window, and the window. It is false
// when the file has a pattern that is not listed.
func (f *File) windowed(layers int64) (in func(int64) bool, window int64, ok bool) {
	none := func(int64) bool { return false }
	byArch, known := swaByArch[f.Arch()]
	pattern := f.Meta[f.Arch()+".attention.sliding_window_pattern"]
	if w := f.archInt("attention.sliding_window"); w != nil {
		window = *w
	} else if known {
		window = byArch.window
	}
	if window <= 0 {
		return none, 0, true
	}
	if list, is := pattern.([]bool); is && int64(len(list)) >= layers {
		return func(l int64) bool { return list[l] }, window, true
	}
	period := byArch.period
	if p, is := f.Uint(f.Arch() + ".attention.sliding_window_pattern"); is && p < 1<<16 {
		period, known = int64(p), true
	}
	switch {
	case !known && pattern != nil:
		return nil, 0, false
	case !known:
		return none, 0, true
	case period == 0:
		return func(int64) bool { return true }, window, true
	case byArch.denseFirst:
		return func(l int64) bool { return l%period != 0 }, window, true
	}
	return func(l int64) bool { return l%period < period-1 }, window, true
}

// perLayer reads a number that is one for all layers or one for each.
func (f *File) perLayer(name string, layers int64) ([]int64, bool) {
	if v := f.archInt(name); v != nil {
		return slices.Repeat([]int64{*v}, int(layers)), true
	}
	list := ints(f.Meta[f.Arch()+"."+name])
	if int64(len(list)) < layers || slices.ContainsFunc(list, func(n int64) bool { return n < 0 || n > 1<<20 }) {
		return nil, false
	}
	return list, true
}

// headLength is the length of one head's key or value: its own entry, or the
// width over the heads.
func (f *File) headLength(name string) *int64 {
	if v := f.archInt("attention." + name); v != nil && *v > 0 {
		return v
	}
	width, heads := f.archInt("embedding_length"), f.archInt("attention.head_count")
	if width == nil || heads == nil || *heads == 0 {
		return nil
	}
	return new(*width / *heads)
}

// causal is false for models that embed text and generate none.
func (f *File) causal() bool {
	if v, ok := f.Meta[f.Arch()+".attention.causal"].(bool); ok && !v {
		return false
	}
	_, pools := f.Uint(f.Arch() + ".pooling_type")
	return !pools
}

// archInt is a count from the architecture's own metadata, nil when it is
// absent or absurd.
func (f *File) archInt(name string) *int64 {
	v, ok := f.ArchUint(name)
	if !ok || v > 1<<31 {
		return nil
	}
	return new(int64(v))
}

func (fp *Footprint) note(format string, args ...any) {
	fp.Notes = append(fp.Notes, fmt.Sprintf(format, args...))
}

func ints(v any) []int64 {
	switch v := v.(type) {
	case []int64:
		return v
	case []int32:
		return widen(v)
	case []uint32:
		return widen(v)
	case []uint8:
		return widen(v)
	case []int8:
		return widen(v)
	case []uint16:
		return widen(v)
	case []int16:
		return widen(v)
	}
	return nil
}

func widen[T int8 | int16 | int32 | uint8 | uint16 | uint32](s []T) []int64 {
	out := make([]int64, len(s))
	for i, v := range s {
		out[i] = int64(v)
	}
	return out
}
