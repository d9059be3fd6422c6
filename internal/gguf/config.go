package gguf

import (
	"encoding/json"
	"fmt"
	"strings"
)

// FromConfig estimates a footprint from a Hugging Face config.json and the name
// of a quantisation: a GGUF mix (Q4_K_M, Q8_0, F16 ...) or one of AWQ, GPTQ,
// FP8, NVFP4, MLX-4bit and MLX-8bit. An architecture or a quantisation that is
// not known leaves the sizes nil, with a note.
func FromConfig(config []byte, quantisation string) (Footprint, error) {
	var c struct {
		ModelType     string `json:"model_type"`
		Layers        int64  `json:"num_hidden_layers"`
		Width         int64  `json:"hidden_size"`
		FFN           int64  `json:"intermediate_size"`
		Heads         int64  `json:"num_attention_heads"`
		KVHeads       *int64 `json:"num_key_value_heads"`
		HeadDim       *int64 `json:"head_dim"`
		Vocabulary    int64  `json:"vocab_size"`
		Context       int64  `json:"max_position_embeddings"`
		Tied          *bool  `json:"tie_word_embeddings"`
		Experts       int64  `json:"num_experts"`
		LocalExperts  int64  `json:"num_local_experts"` // mixtral's name for it
		ExpertsUsed   int64  `json:"num_experts_per_tok"`
		ExpertFFN     int64  `json:"moe_intermediate_size"`
		SparseStep    int64  `json:"decoder_sparse_step"`
		DenseLayers   []any  `json:"mlp_only_layers"`
		Window        *int64 `json:"sliding_window"`
		WindowPattern *int64 `json:"sliding_window_pattern"`
		KVLoraRank    *int64 `json:"kv_lora_rank"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return Footprint{}, fmt.Errorf("config.json: %w", err)
	}
	arch, known := hfArch[c.ModelType]
	if !known {
		fp := Footprint{Architecture: c.ModelType, Quantisation: quantisation, Estimated: true}
		fp.note("the tensors of model_type %.40q are not known here: read the model file instead", c.ModelType)
		return fp, nil
	}
	if c.Layers <= 0 || c.Layers > 1<<12 || c.Width <= 0 || c.Width > 1<<20 || c.Heads <= 0 || c.Heads > 1<<16 {
		return Footprint{}, fmt.Errorf("config.json: layers, width and heads are %d, %d, %d: not a model", c.Layers, c.Width, c.Heads)
	}
	f := &File{Meta: map[string]any{"general.architecture": arch}}
	set := func(name string, v int64) {
		if v > 0 {
			f.Meta[arch+"."+name] = uint64(v)
		}
	}
	or := func(v *int64, d int64) int64 {
		if v != nil {
			return *v
		}
		return d
	}
	set("block_count", c.Layers)
	set("embedding_length", c.Width)
	set("feed_forward_length", c.FFN)
	set("attention.head_count", c.Heads)
	set("attention.head_count_kv", or(c.KVHeads, c.Heads))
	set("attention.key_length", or(c.HeadDim, c.Width/c.Heads))
	set("attention.value_length", or(c.HeadDim, c.Width/c.Heads))
	set("vocab_size", c.Vocabulary)
	set("context_length", c.Context)
	set("expert_count", max(c.Experts, c.LocalExperts))
	set("expert_used_count", c.ExpertsUsed)
	set("expert_feed_forward_length", c.ExpertFFN)
	if _, windows := swaByArch[arch]; windows {
		set("attention.sliding_window", or(c.Window, 0))
		set("attention.sliding_window_pattern", or(c.WindowPattern, 0))
	}

	fp := f.facts()
	fp.Quantisation = quantisation
	s, ok := f.shape(&fp)
	if !ok {
		return fp, nil
	}
	if c.KVLoraRank != nil || c.SparseStep > 1 || len(c.DenseLayers) > 0 {
		fp.note("layers of different kinds: sizes are not estimated")
		return fp, nil
	}
	// What transformers' configuration classes default to.
	s.tied = strings.HasPrefix(arch, "gemma")
	if c.Tied != nil {
		s.tied = *c.Tied
	}
	fp.estimate(s)
	return fp, nil
}

// hfArch is GGUF's name for model_type (llama.cpp's convert_hf_to_gguf.py).
var hfArch = map[string]string{
	"llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
	"qwen3_moe": "qwen3moe", "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3",
}

// shape is what fixes the tensors of the architectures in traits.
type shape struct {
	arch                 string
	layers, width, heads int64
	kvHeads, key, value  int64
	ffn, vocabulary      int64
	experts, expertWidth int64
	tied                 bool
	traits
}

// traits is how an architecture departs from llama's tensors (llama.cpp's
// load_tensors in src/llama-model.cpp).
type traits struct {
	qkvBias  bool
	headNorm bool // norms of the length of a head for queries and keys
	norms    int64
	fused    bool // one tensor for q, k and v, and one for gate and up
}

var traitsByArch = map[string]traits{
	"llama":    {norms: 2},
	"qwen2":    {norms: 2, qkvBias: true},
	"qwen3":    {norms: 2, headNorm: true},
	"qwen3moe": {norms: 2, headNorm: true},
	"gemma":    {norms: 2},
	"gemma2":   {norms: 4},
	"gemma3":   {norms: 4, headNorm: true},
	"phi3":     {norms: 2, fused: true},
}

// shape reads the metadata; false, with a note, when it does not fix the tensors.
func (f *File) shape(fp *Footprint) (shape, bool) {
	s := shape{arch: f.Arch()}
	var known bool
	if s.traits, known = traitsByArch[s.arch]; !known {
		fp.note("no list of tensors, and those of architecture %.40q are not known here: bytes are unknown", s.arch)
		return s, false
	}
	need := func(name string, into *int64) {
		if v := f.archInt(name); v != nil && *v > 0 {
			*into = *v
			return
		}
		known = false
		fp.note("no list of tensors, and no %s.%s to estimate them from: bytes are unknown", s.arch, name)
	}
	need("block_count", &s.layers)
	need("embedding_length", &s.width)
	need("attention.head_count", &s.heads)
	need("attention.head_count_kv", &s.kvHeads)
	need("vocab_size", &s.vocabulary)
	if fp.Experts != nil {
		s.experts = *fp.Experts
		if v := f.archInt("expert_feed_forward_length"); v != nil {
			s.expertWidth = *v
		} else {
			need("feed_forward_length", &s.expertWidth)
		}
	} else {
		need("feed_forward_length", &s.ffn)
	}
	key, value := f.headLength("key_length"), f.headLength("value_length")
	if !known || key == nil || value == nil {
		return s, false
	}
	s.key, s.value = *key, *value
	return s, s.layers < 1<<12 && s.width < 1<<20 && s.heads < 1<<16 && max(s.key, s.value) < 1<<16 &&
		max(s.ffn, s.expertWidth) < 1<<22 && s.experts < 1<<16 && s.vocabulary < 1<<24
}

// estimate fills in the sizes of a model whose parameters were counted by its
// server: of the two ways to treat the output matrix, the one that gives that
// number.
func (f *File) estimate(fp *Footprint) {
	counted := fp.Parameters
	s, ok := f.shape(fp)
	if !ok {
		return
	}
	if counted == nil {
		fp.note("neither a list of tensors nor general.parameter_count: bytes are unknown")
		return
	}
	for _, tied := range []bool{false, true} {
		s.tied = tied
		if n := s.parameters(); n-n/500 < *counted && *counted < n+n/500 {
			fp.estimate(s)
			return
		}
	}
	fp.note("the shape gives %d parameters and the server counts %d: bytes are unknown", s.parameters(), *counted)
}

// estimate sums the tensors that the shape and the quantisation give.
func (fp *Footprint) estimate(s shape) {
	fp.Estimated = true
	parts, ok := s.parts(fp.Quantisation)
	if !ok {
		fp.note("how %.40q stores its tensors is not known here: bytes are unknown", fp.Quantisation)
		parts, _ = s.parts("F16") // for the parameters
		for i := range parts {
			parts[i].known = false
		}
	}
	notes := len(fp.Notes)
	fp.add(parts, true)
	if !ok {
		fp.Notes = fp.Notes[:notes]
	}
}

func (s shape) parameters() int64 {
	parts, _ := s.parts("F16")
	var n int64
	for _, p := range parts {
		n += p.values
	}
	return n
}

// parts lists the tensors; false when the quantisation is not known.
func (s shape) parts(mix string) ([]part, bool) {
	var parts []part
	known := true
	add := func(name string, layer, cols, rows int64) {
		t, ok := s.stored(mix, name, layer, cols)
		known = known && ok
		full := name + ".weight"
		if layer >= 0 {
			full = fmt.Sprintf("blk.%d.%s", layer, full)
		}
		parts = append(parts, part{full, cols * rows, t.size(cols * rows), ok})
	}
	small := func(name string, values int64) { // norms and biases stay F32
		parts = append(parts, part{name, values, 4 * values, true})
	}
	add("token_embd", -1, s.width, s.vocabulary)
	for l := range s.layers {
		small("norms", s.norms*s.width)
		q, k, v := s.heads*s.key, s.kvHeads*s.key, s.kvHeads*s.value
		if s.fused {
			add("attn_qkv", l, s.width, q+k+v)
		} else {
			add("attn_q", l, s.width, q)
			add("attn_k", l, s.width, k)
			add("attn_v", l, s.width, v)
		}
		if s.qkvBias {
			small("biases", q+k+v)
		}
		if s.headNorm {
			small("head norms", 2*s.key)
		}
		add("attn_output", l, s.heads*s.value, s.width)
		switch {
		case s.experts > 0:
			small("ffn_gate_inp", s.width*s.experts)
			add("ffn_gate_exps", l, s.width, s.expertWidth*s.experts)
			add("ffn_up_exps", l, s.width, s.expertWidth*s.experts)
			add("ffn_down_exps", l, s.expertWidth, s.width*s.experts)
		case s.fused:
			add("ffn_up", l, s.width, 2*s.ffn)
			add("ffn_down", l, s.ffn, s.width)
		default:
			add("ffn_gate", l, s.width, s.ffn)
			add("ffn_up", l, s.width, s.ffn)
			add("ffn_down", l, s.ffn, s.width)
		}
	}
	small("output_norm", s.width)
	if !s.tied {
		add("output", -1, s.width, s.vocabulary)
	}
	return parts, known
}
