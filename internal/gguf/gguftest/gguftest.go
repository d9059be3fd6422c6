// Package gguftest writes model files that a real server loads: llama
// architecture, any size, random weights. A test needs no download, and the
// text that such a model gives is noise that still has to fit a schema.
package gguftest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"

	"millrace/internal/gguf"
)

// Options shapes a model. The zero value is a model of 4 MB: 256 wide, 4
// layers, 8 heads (4 for keys and values), Q8_0.
type Options struct {
	Name        string    // general.name; "random-llama"
	Embedding   int       // width; a multiple of 256 for Q4_K, of 32 for Q8_0
	Layers      int       //
	Heads       int       // divides Embedding
	KVHeads     int       // divides Heads
	FeedForward int       // width of the feed-forward layers; 2.75 times Embedding, rounded up to whole blocks
	Context     int       // context the model says it was trained on; 8192
	Vocab       int       // tokens; at least the 1,400 or so that the tokeniser is made of
	Type        gguf.Type // of the weight matrices: F16, Q8_0 or Q4_K. Zero is Q8_0
	Seed        uint64    // same options, same bytes
}

// Shape8B is the shape of Llama 3.1 8B (its config.json), in Q4_K: 4.5 GB.
func Shape8B() Options {
	return Options{
		Name: "random-llama-8b", Embedding: 4096, Layers: 32, Heads: 32, KVHeads: 8,
		FeedForward: 14336, Context: 131072, Vocab: 128256, Type: gguf.Q4_K,
	}
}

func (o *Options) setDefaults() error {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	if o.Name == "" {
		o.Name = "random-llama"
	}
	def(&o.Embedding, 256)
	def(&o.Layers, 4)
	def(&o.Heads, max(1, o.Embedding/32))
	def(&o.KVHeads, max(1, o.Heads/2))
	def(&o.Context, 8192)
	if o.Type == gguf.F32 {
		o.Type = gguf.Q8_0
	}
	values := map[gguf.Type]int{gguf.F16: 1, gguf.Q8_0: 32, gguf.Q4_K: 256}[o.Type]
	if values == 0 {
		return fmt.Errorf("weights can be F16, Q8_0 or Q4_K, not %s", o.Type)
	}
	def(&o.FeedForward, (o.Embedding*11/4+values-1)/values*values)
	switch {
	case o.Embedding%values != 0 || o.FeedForward%values != 0:
		return fmt.Errorf("%s needs widths that are multiples of %d, not %d and %d", o.Type, values, o.Embedding, o.FeedForward)
	case o.Embedding%o.Heads != 0 || o.Heads%o.KVHeads != 0:
		return fmt.Errorf("%d wide with %d heads and %d for keys and values does not divide", o.Embedding, o.Heads, o.KVHeads)
	}
	return nil
}

// Write writes the model to w in one pass, about as fast as w takes it.
func Write(w io.Writer, o Options) error {
	if err := o.setDefaults(); err != nil {
		return fmt.Errorf("random model: %w", err)
	}
	tensors := o.tensors()
	out := &writer{w: bufio.NewWriterSize(w, 1<<20)}
	out.header(o, tensors)

	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], o.Seed)
	random := rand.NewChaCha8(seed)
	for _, t := range tensors {
		out.pad()
		if t.Type == gguf.F32 {
			for range t.Elements() { // norms
				out.uint32(math.Float32bits(1))
			}
			continue
		}
		out.weights(t, random)
	}
	out.pad() // llama.cpp wants the last tensor padded too
	if out.err == nil {
		out.err = out.w.Flush()
	}
	return out.err
}

// tensors lists the tensors with their offsets.
func (o Options) tensors() []gguf.Tensor {
	var ts []gguf.Tensor
	offset := int64(0)
	add := func(name string, typ gguf.Type, dims ...int) {
		t := gguf.Tensor{Name: name, Type: typ, Offset: offset}
		for _, d := range dims {
			t.Dims = append(t.Dims, int64(d))
		}
		n, _ := t.Bytes()
		offset = (offset + n + alignment - 1) / alignment * alignment
		ts = append(ts, t)
	}
	kv := o.Embedding / o.Heads * o.KVHeads
	vocab := len(vocabulary(o.Vocab))
	add("token_embd.weight", o.Type, o.Embedding, vocab)
	for l := range o.Layers {
		p := fmt.Sprintf("blk.%d.", l)
		add(p+"attn_norm.weight", gguf.F32, o.Embedding)
		add(p+"attn_q.weight", o.Type, o.Embedding, o.Embedding)
		add(p+"attn_k.weight", o.Type, o.Embedding, kv)
		add(p+"attn_v.weight", o.Type, o.Embedding, kv)
		add(p+"attn_output.weight", o.Type, o.Embedding, o.Embedding)
		add(p+"ffn_norm.weight", gguf.F32, o.Embedding)
		add(p+"ffn_gate.weight", o.Type, o.Embedding, o.FeedForward)
		add(p+"ffn_up.weight", o.Type, o.Embedding, o.FeedForward)
		add(p+"ffn_down.weight", o.Type, o.FeedForward, o.Embedding)
	}
	add("output_norm.weight", gguf.F32, o.Embedding)
	add("output.weight", o.Type, o.Embedding, vocab)
	return ts
}

const alignment = 32

// writer writes little-endian values and counts them; errors stick.
type writer struct {
	w   *bufio.Writer
	n   int64
	err error
	buf [8]byte
}

func (w *writer) bytes(p []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(p)
		w.n += int64(len(p))
	}
}

func (w *writer) uint32(v uint32) { w.bytes(binary.LittleEndian.AppendUint32(w.buf[:0], v)) }
func (w *writer) uint64(v uint64) { w.bytes(binary.LittleEndian.AppendUint64(w.buf[:0], v)) }

func (w *writer) string(s string) {
	w.uint64(uint64(len(s)))
	w.bytes([]byte(s))
}

func (w *writer) pad() {
	var zeros [alignment]byte
	if over := w.n % alignment; over != 0 {
		w.bytes(zeros[over:])
	}
}

// Value types of metadata (enum gguf_type).
const (
	typeUint32  = 4
	typeInt32   = 5
	typeFloat32 = 6
	typeBool    = 7
	typeString  = 8
	typeArray   = 9
)

func (w *writer) header(o Options, tensors []gguf.Tensor) {
	type entry struct {
		key   string
		value any
	}
	vocab := vocabulary(o.Vocab)
	// general.file_type: enum llama_ftype, MOSTLY_F16, MOSTLY_Q8_0, MOSTLY_Q4_K_M
	fileType := map[gguf.Type]int{gguf.F16: 1, gguf.Q8_0: 7, gguf.Q4_K: 15}[o.Type]
	meta := []entry{
		{"general.architecture", "llama"},
		{"general.name", o.Name},
		{"general.file_type", fileType},
		{"llama.context_length", o.Context},
		{"llama.embedding_length", o.Embedding},
		{"llama.block_count", o.Layers},
		{"llama.feed_forward_length", o.FeedForward},
		{"llama.attention.head_count", o.Heads},
		{"llama.attention.head_count_kv", o.KVHeads},
		{"llama.attention.layer_norm_rms_epsilon", float32(1e-5)},
		{"llama.rope.dimension_count", o.Embedding / o.Heads},
		{"llama.rope.freq_base", float32(500000)},
		{"llama.vocab_size", len(vocab)},
		{"tokenizer.ggml.model", "llama"},
		{"tokenizer.ggml.tokens", func() { // each a list, written in place
			w.list(typeString, len(vocab), func(i int) { w.string(vocab[i].text) })
		}},
		{"tokenizer.ggml.scores", func() {
			w.list(typeFloat32, len(vocab), func(i int) { w.uint32(math.Float32bits(vocab[i].score)) })
		}},
		{"tokenizer.ggml.token_type", func() {
			w.list(typeInt32, len(vocab), func(i int) { w.uint32(uint32(vocab[i].kind)) })
		}},
		{"tokenizer.ggml.unknown_token_id", 0},
		{"tokenizer.ggml.bos_token_id", 1},
		{"tokenizer.ggml.eos_token_id", 2},
		{"tokenizer.ggml.add_bos_token", true},
		{"tokenizer.ggml.add_eos_token", false},
	}

	w.bytes([]byte("GGUF"))
	w.uint32(3)
	w.uint64(uint64(len(tensors)))
	w.uint64(uint64(len(meta)))
	for _, e := range meta {
		w.string(e.key)
		switch v := e.value.(type) {
		case string:
			w.uint32(typeString)
			w.string(v)
		case int:
			w.uint32(typeUint32)
			w.uint32(uint32(v))
		case float32:
			w.uint32(typeFloat32)
			w.uint32(math.Float32bits(v))
		case bool:
			w.uint32(typeBool)
			w.bytes([]byte{map[bool]byte{true: 1}[v]})
		case func():
			w.uint32(typeArray)
			v()
		}
	}
	for _, t := range tensors {
		w.string(t.Name)
		w.uint32(uint32(len(t.Dims)))
		for _, d := range t.Dims {
			w.uint64(uint64(d))
		}
		w.uint32(uint32(t.Type))
		w.uint64(uint64(t.Offset))
	}
}

func (w *writer) list(typ uint32, n int, item func(i int)) {
	w.uint32(typ)
	w.uint64(uint64(n))
	for i := range n {
		item(i)
	}
}

// Half-precision scales that give weights a spread of about 0.02, as after
// training: uniform int8 has a standard deviation of 73; a Q4_K value is
// d*scale(0..63)*q(0..15) - dmin*min(0..63).
const (
	scaleQ8   = 0x0c7d // 0.02/73
	scaleQ4   = 0x051f // 0.02/8/32
	scaleQ4mn = 0x111f // 0.02/32
)

// weights writes random blocks of the tensor's type.
func (w *writer) weights(t gguf.Tensor, random *rand.ChaCha8) {
	var buf [1152 * 34 * 2]byte // whole blocks of each type: 2, 34 and 144 bytes
	left, _ := t.Bytes()
	for left > 0 && w.err == nil {
		p := buf[:min(left, int64(len(buf)))]
		_, _ = random.Read(p) // never fails
		switch t.Type {
		case gguf.F16:
			// Sign and mantissa stay random, the exponent is 2^-6: 0.016 to 0.031.
			for i := 1; i < len(p); i += 2 {
				p[i] = p[i]&0x83 | 0x24
			}
		case gguf.Q8_0:
			for i := 0; i < len(p); i += 34 {
				binary.LittleEndian.PutUint16(p[i:], scaleQ8)
			}
		case gguf.Q4_K:
			for i := 0; i < len(p); i += 144 {
				binary.LittleEndian.PutUint16(p[i:], scaleQ4)
				binary.LittleEndian.PutUint16(p[i+2:], scaleQ4mn)
			}
		}
		w.bytes(p)
		left -= int64(len(p))
	}
}
