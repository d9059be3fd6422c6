package gguf

import "strings"

func (b block) size(values int64) int64 { return (values*b.bytes + b.values - 1) / max(b.values, 1) }

// whole is how mixes that store all matrices alike do it. Sizes of those that
// are not GGUF:
//   - AWQ, GPTQ: 4 bits, and for each group of 128 a 16-bit scale and a 4-bit
//     zero point; embeddings and output stay in 16 bits (AutoAWQ and AutoGPTQ,
//     defaults);
//   - FP8: one byte, scales per channel are nothing beside it; embeddings and
//     output stay in 16 bits (vLLM, FP8 checkpoints);
//   - NVFP4: 4 bits, and one 8-bit scale for each 16; embeddings and output stay
//     in 16 bits (NVIDIA Model Optimizer, defaults);
//   - MLX: groups of 64 with a 16-bit scale and bias; embeddings too (mlx-lm
//     convert, defaults).
var whole = map[string]struct {
	matrices block
	tables   block // embeddings and output
}{
	"F32":      {blocks[F32], blocks[F32]},
	"F16":      {blocks[F16], blocks[F16]},
	"BF16":     {blocks[30], blocks[30]},
	"Q8_0":     {blocks[Q8_0], blocks[Q8_0]},
	"AWQ":      {block{"AWQ", 256, 133}, blocks[F16]},
	"GPTQ":     {block{"GPTQ", 256, 133}, blocks[F16]},
	"FP8":      {block{"FP8", 1, 1}, blocks[F16]},
	"NVFP4":    {block{"NVFP4", 16, 9}, blocks[F16]},
	"MLX-4bit": {block{"MLX-4bit", 64, 36}, block{"MLX-4bit", 64, 36}},
	"MLX-8bit": {block{"MLX-8bit", 64, 68}, block{"MLX-8bit", 64, 68}},
}

const (
	q4_0, q4_1, q5_0, q5_1 = Type(2), Type(3), Type(6), Type(7)
	q3K, q5K, q6K          = Type(11), Type(13), Type(14)
	iq4NL                  = Type(20)
)

// base is the type that most tensors of a mixed GGUF have.
var base = map[string]Type{
	"Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1,
	"Q3_K_M": q3K, "Q3_K_L": q3K, "Q4_K_S": Q4_K, "Q4_K_M": Q4_K, "Q5_K_S": q5K, "Q5_K_M": q5K, "Q6_K": q6K,
}

// stored is how llama.cpp's quantiser, without an importance matrix, stores a
// matrix with rows of cols values: llama_tensor_get_type in
// src/llama-quant.cpp, as vendored by Ollama 0.17.4. layer is -1 outside the
// layers.
func (s shape) stored(mix, name string, layer, cols int64) (block, bool) {
	table := name == "output" || name == "token_embd"
	if w, ok := whole[mix]; ok {
		if table {
			return w.tables, true
		}
		return w.matrices, true
	}
	t, ok := base[mix]
	if !ok {
		return block{}, false
	}
	early := layer < s.layers/8
	more := early || layer >= 7*s.layers/8 || (layer-s.layers/8)%3 == 2
	eight := s.experts == 8 // Mixtral's small attention matrices get more
	pick := func(want map[string]Type) {
		if better, ok := want[mix]; ok {
			t = better
		}
	}
	switch {
	case name == "output", name == "token_embd" && s.tied:
		t = q6K
	case table:
	case name == "attn_v":
		switch {
		case eight:
			t = Q8_0
		case more && (mix == "Q4_K_M" || mix == "Q5_K_M"):
			t = q6K
		case mix == "Q4_K_S" && layer < 4:
			t = q5K
		case mix == "Q3_K_M" && layer >= 2:
			t = Q4_K
		case mix == "Q3_K_M" || mix == "Q3_K_L":
			t = q5K
		}
		if s.layers == 80 && s.heads == 8*s.kvHeads && (t == q3K || t == Q4_K) { // its LLM_TYPE_70B
			t = q5K
		}
	case name == "attn_k" && eight:
		t = Q8_0
	case strings.HasPrefix(name, "ffn_down"):
		switch {
		case more && (mix == "Q4_K_M" || mix == "Q5_K_M"):
			t = q6K
		case mix == "Q4_K_S" && early:
			t = q5K
		case mix == "Q3_K_M" && layer >= s.layers/16:
			t = Q4_K
		case mix == "Q3_K_M" || mix == "Q3_K_L":
			t = q5K
		}
	case name == "attn_output" && eight:
		pick(map[string]Type{"Q3_K_M": q5K, "Q4_K_S": q5K, "Q4_K_M": q5K})
	case name == "attn_output":
		pick(map[string]Type{"Q3_K_M": Q4_K, "Q3_K_L": q5K})
	case name == "attn_qkv":
		pick(map[string]Type{"Q3_K_M": Q4_K, "Q3_K_L": Q4_K, "Q4_K_M": q5K, "Q5_K_M": q6K})
	}
	if cols%blocks[t].values != 0 {
		fallback := map[Type]Type{q3K: iq4NL, Q4_K: q5_0, q5K: q5_1, q6K: Q8_0}
		if t, ok = fallback[t]; !ok || cols%blocks[t].values != 0 {
			t = F16
		}
	}
	return blocks[t], true
}
