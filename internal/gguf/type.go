package gguf

import "strconv"

// Type is how a tensor's values are stored (enum ggml_type).
type Type uint32

// The types that are named in code.
const (
	F32  Type = 0
	F16  Type = 1
	Q8_0 Type = 8
	Q4_K Type = 12
)

func (t Type) String() string {
	if b, ok := blocks[t]; ok {
		return b.name
	}
	return "type " + strconv.FormatUint(uint64(t), 10)
}

// BitsPerWeight is the storage that one value takes, scales included; false
// when the type is not known.
func (t Type) BitsPerWeight() (float64, bool) {
	b, ok := blocks[t]
	if !ok {
		return 0, false
	}
	return float64(8*b.bytes) / float64(b.values), true
}

type block struct {
	name          string
	values, bytes int64
}

// blocks is the size of each type's block, from the static asserts in
// llama.cpp's ggml/src/ggml-common.h.
var blocks = map[Type]block{
	F32:  {"F32", 1, 4},
	F16:  {"F16", 1, 2},
	2:    {"Q4_0", 32, 18},
	3:    {"Q4_1", 32, 20},
	4:    {"MXFP4", 32, 17}, // in Ollama's first gpt-oss files (its fs/ggml/type.go)
	6:    {"Q5_0", 32, 22},
	7:    {"Q5_1", 32, 24},
	Q8_0: {"Q8_0", 32, 34},
	9:    {"Q8_1", 32, 36},
	10:   {"Q2_K", 256, 84},
	11:   {"Q3_K", 256, 110},
	Q4_K: {"Q4_K", 256, 144},
	13:   {"Q5_K", 256, 176},
	14:   {"Q6_K", 256, 210},
	15:   {"Q8_K", 256, 292},
	16:   {"IQ2_XXS", 256, 66},
	17:   {"IQ2_XS", 256, 74},
	18:   {"IQ3_XXS", 256, 98},
	19:   {"IQ1_S", 256, 50},
	20:   {"IQ4_NL", 32, 18},
	21:   {"IQ3_S", 256, 110},
	22:   {"IQ2_S", 256, 82},
	23:   {"IQ4_XS", 256, 136},
	24:   {"I8", 1, 1},
	25:   {"I16", 1, 2},
	26:   {"I32", 1, 4},
	27:   {"I64", 1, 8},
	28:   {"F64", 1, 8},
	29:   {"IQ1_M", 256, 56},
	30:   {"BF16", 1, 2},
	34:   {"TQ1_0", 256, 54},
	35:   {"TQ2_0", 256, 66},
	39:   {"MXFP4", 32, 17},
	40:   {"NVFP4", 64, 36},
}
