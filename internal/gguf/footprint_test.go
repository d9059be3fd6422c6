package gguf_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/gguf"
	"millrace/internal/gguf/gguftest"
)

// shared opens a file of the reference data, which is not part of the
// repository, and skips the test when it is not there.
func shared(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "data", "models", name))
	if err != nil {
		t.Skip("reference data is not here: ", err)
	}
	return b
}

func header8B(t *testing.T) *gguf.File {
	t.Helper()
	f, err := read(t, model(t, gguftest.Options{
		Embedding: 1024, Layers: 4, Heads: 8, KVHeads: 2, FeedForward: 2048, Vocab: 4096, Type: gguf.Q4_K,
	}))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFootprintOfFile(t *testing.T) {
	t.Parallel()
	got := header8B(t).Footprint()
	// Per layer: q and output 1024², k and v 1024×256, three 1024×2048, all
	// Q4_K at 4.5 bits; two norms in F32. The output matrix is read, the
	// embedding table is not.
	layer := int64(2*1024*1024 + 2*1024*256 + 3*1024*2048)
	table, norms := int64(1024*4096), int64(9*1024)
	want := gguf.Footprint{
		Architecture: "llama", Quantisation: "Q4_K_M",
		Layers: new(int64(4)), Context: new(int64(8192)), Vocabulary: new(int64(4096)),
		Parameters:       new(4*layer + 2*table + norms),
		ActiveParameters: new(4*layer + table + norms),
		WeightBytes:      new((4*layer+2*table)*9/16 + 4*norms),
		TokenBytes:       new((4*layer+table)*9/16 + 4*norms),
		LookupBytes:      new(table * 9 / 16),
		Cache:            &gguf.Cache{Full: 4 * 2 * 256},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("footprint (-want +got)\n", diff)
	}
}

// A hand-made header: only what a case is about.
func file(meta map[string]any, tensors ...gguf.Tensor) *gguf.File {
	return &gguf.File{Meta: meta, Tensors: tensors}
}

func tensor(name string, typ gguf.Type, dims ...int64) gguf.Tensor {
	return gguf.Tensor{Name: name, Type: typ, Dims: dims}
}

func TestFootprintTokenBytes(t *testing.T) {
	t.Parallel()
	moe := map[string]any{"general.architecture": "qwen3moe", "qwen3moe.expert_count": uint32(128), "qwen3moe.expert_used_count": uint32(8)}
	for _, tc := range []struct {
		name    string
		file    *gguf.File
		token   *int64
		lookup  *int64
		expert  *int64
		active  *int64
		noteHas string
	}{
		{
			name: "untied", token: new(int64(200)), lookup: new(int64(400)), active: new(int64(100)),
			file: file(nil, tensor("token_embd.weight", gguf.F16, 200), tensor("output.weight", gguf.F16, 100)),
		},
		{
			name: "tied: the table is the output matrix", token: new(int64(400)), lookup: new(int64(0)), active: new(int64(200)),
			file: file(nil, tensor("token_embd.weight", gguf.F16, 200)),
		},
		{
			name: "per-layer embeddings are looked up", token: new(int64(400)), lookup: new(int64(2000)), active: new(int64(200)),
			file: file(nil, tensor("token_embd.weight", gguf.F16, 200), tensor("per_layer_token_embd.weight", gguf.F16, 1000)),
		},
		{
			name: "images and further-token heads apart", token: new(int64(20)), lookup: new(int64(0)), active: new(int64(10)),
			file: file(nil, tensor("blk.0.attn_q.weight", gguf.F16, 10), tensor("v.blk.0.attn_q.weight", gguf.F16, 999),
				tensor("mm.0.weight", gguf.F16, 999), tensor("blk.9.nextn.eh_proj.weight", gguf.F16, 999)),
		},
		{
			name: "8 of 128 experts; the shared one always", token: new(int64(200 + 20 + 160)), lookup: new(int64(0)), expert: new(int64(2560)), active: new(int64(100 + 10 + 80)),
			file: file(moe, tensor("blk.0.ffn_gate_exps.weight", gguf.F16, 10, 128), tensor("blk.0.attn_q.weight", gguf.F16, 100),
				tensor("blk.0.ffn_up_shexp.weight", gguf.F16, 10)),
		},
		{
			name: "experts one by one, as old Mixtral files have them", token: new(int64(20 + 160)), lookup: new(int64(0)), expert: new(int64(2560)), active: new(int64(10 + 80)),
			file: file(moe, tensor("blk.0.ffn_down.7.weight", gguf.F16, 1280), tensor("blk.0.ffn_gate_inp.weight", gguf.F16, 10)),
		},
		{
			name: "experts without numbers", noteHas: "experts",
			file:   file(map[string]any{"general.architecture": "x"}, tensor("blk.0.ffn_up_exps.weight", gguf.F16, 10)),
			lookup: new(int64(0)), expert: new(int64(20)), // sizes are known, what a token reads is not
		},
		{
			name: "unknown type", noteHas: "type of tensor", active: new(int64(10)),
			file: file(nil, tensor("blk.0.attn_q.weight", 4711, 10)),
		},
		{
			name: "embeds text", lookup: new(int64(0)), noteHas: "architecture",
			file: file(map[string]any{".pooling_type": uint32(1)}, tensor("blk.0.attn_q.weight", gguf.F16, 10)),
		},
		{name: "no tensors", file: file(nil), noteHas: "no tensors"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := tc.file.Footprint()
			type sizes struct{ Token, Lookup, Expert, Active *int64 }
			if diff := cmp.Diff(sizes{tc.token, tc.lookup, tc.expert, tc.active},
				sizes{got.TokenBytes, got.LookupBytes, got.ExpertBytes, got.ActiveParameters}); diff != "" {
				t.Error("(-want +got)\n", diff)
			}
			if notes := strings.Join(got.Notes, "; "); !strings.Contains(notes, tc.noteHas) {
				t.Errorf("notes %q, want something about %q", notes, tc.noteHas)
			}
		})
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	meta := func(arch string, pairs ...any) map[string]any {
		m := map[string]any{"general.architecture": arch}
		for i := 0; i < len(pairs); i += 2 {
			key := arch + "." + pairs[i].(string)
			if n, ok := pairs[i+1].(int); ok {
				m[key] = uint32(n)
			} else {
				m[key] = pairs[i+1]
			}
		}
		return m
	}
	for _, tc := range []struct {
		name string
		meta map[string]any
		want *gguf.Cache
		note string
	}{
		{
			name: "llama 3.1 8B: 65536 values, 128 KiB in f16",
			meta: meta("llama", "block_count", 32, "embedding_length", 4096, "attention.head_count", 32, "attention.head_count_kv", 8),
			want: &gguf.Cache{Full: 65536},
		},
		{
			name: "gemma 3 12B: five windows to one full layer",
			meta: meta("gemma3", "block_count", 48, "attention.head_count", 16, "attention.head_count_kv", 8, "attention.key_length", 256,
				"attention.value_length", 256, "attention.sliding_window", 1024),
			want: &gguf.Cache{Full: 8 * 8 * 512, Windowed: 40 * 8 * 512, Window: 1024},
		},
		{
			name: "a listed pattern, two layers that reuse others' cache",
			meta: meta("gemma4", "block_count", 6, "attention.head_count_kv", 2, "attention.key_length", 512, "attention.value_length", 512,
				"attention.key_length_swa", 256, "attention.value_length_swa", 256, "attention.sliding_window", 512, "attention.shared_kv_layers", 2,
				"attention.sliding_window_pattern", []bool{true, true, false, true, true, false}),
			want: &gguf.Cache{Full: 2 * 1024, Windowed: 3 * 2 * 512, Window: 512},
		},
		{
			name: "a pattern that was left out",
			meta: meta("gemma4", "block_count", 6, "attention.head_count_kv", 2, "attention.key_length", 512, "attention.value_length", 512,
				"attention.sliding_window", 512, "attention.sliding_window_pattern", []string{}),
			note: "verbose",
		},
		{
			name: "a window nobody uses",
			meta: meta("phi3", "block_count", 2, "attention.head_count_kv", 4, "attention.key_length", 64, "attention.value_length", 64, "attention.sliding_window", 2047),
			want: &gguf.Cache{Full: 2 * 4 * 128},
		},
		{
			name: "latent attention, compressed",
			meta: meta("deepseek2", "block_count", 61, "attention.kv_lora_rank", 512, "rope.dimension_count", 64,
				"attention.key_length_mla", 192, "attention.head_count_kv", 1, "attention.key_length", 576, "attention.value_length", 512),
			want: &gguf.Cache{Full: 61 * 576, Latent: true},
		},
		{
			name: "latent attention in an older file is expanded",
			meta: meta("deepseek2", "block_count", 27, "attention.kv_lora_rank", 512, "rope.dimension_count", 64,
				"attention.head_count_kv", 16, "attention.key_length", 192, "attention.value_length", 128),
			want: &gguf.Cache{Full: 27 * 16 * 320},
		},
		{
			name: "a hybrid with one attending layer in four",
			meta: meta("qwen3next", "block_count", 48, "attention.head_count_kv", 2, "attention.key_length", 256, "attention.value_length", 256,
				"full_attention_interval", 4, "ssm.state_size", 128),
			want: &gguf.Cache{Full: 12 * 2 * 512},
		},
		{
			name: "heads layer by layer",
			meta: meta("lfm2", "block_count", 3, "attention.head_count_kv", []int32{0, 8, 0}, "attention.key_length", 64, "attention.value_length", 64),
			want: &gguf.Cache{Full: 8 * 128},
		},
		{
			name: "a hybrid that does not say",
			meta: meta("mamba2", "block_count", 3, "attention.head_count_kv", 8, "attention.key_length", 64, "attention.value_length", 64, "ssm.state_size", 16),
			note: "hybrid",
		},
		{name: "nothing", meta: meta("llama")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := file(tc.meta).Footprint()
			if diff := cmp.Diff(tc.want, got.Cache); diff != "" {
				t.Error("(-want +got)\n", diff)
			}
			if !strings.Contains(strings.Join(got.Notes, "; "), tc.note) {
				t.Errorf("notes %q, want %q", got.Notes, tc.note)
			}
		})
	}
	llama := gguf.Cache{Full: 65536}
	for typ, want := range map[gguf.Type]int64{gguf.F16: 4 << 30, gguf.Q8_0: (4 << 30) / 2 * 34 / 32, 2: (4 << 30) / 2 * 18 / 32} {
		if got, ok := llama.Bytes(32768, typ); got != want || !ok {
			t.Errorf("cache of 32768 tokens in %s: %d, want %d", typ, got, want)
		}
	}
	if _, ok := llama.Bytes(1, 4711); ok {
		t.Error("a size for an unknown type")
	}
	windows := gguf.Cache{Full: 10, Windowed: 100, Window: 50}
	if got, _ := windows.Bytes(80, gguf.F16); got != 2*(10*80+100*50) {
		t.Errorf("cache with a window: %d", got)
	}
}

// show is /api/show of llama3.1:8b as the documents give it, with what a
// server would count.
const show = `{"details":{"quantization_level":"Q4_0"},"model_info":{
 "general.architecture":"llama","general.file_type":2,"general.parameter_count":8030261312,
 "llama.attention.head_count":32,"llama.attention.head_count_kv":8,"llama.block_count":32,"llama.context_length":8192,
 "llama.embedding_length":4096,"llama.feed_forward_length":14336,"llama.rope.freq_base":500000,"llama.vocab_size":128256,
 "tokenizer.ggml.tokens":null,"tokenizer.ggml.merges":[]}%s}`

func TestFromShow(t *testing.T) {
	t.Parallel()
	got, err := gguf.FromShow(fmt.Appendf(nil, show, ""))
	if err != nil {
		t.Fatal(err)
	}
	// llama3:8b in Q4_0 is 4,661,211,424 bytes, header and vocabulary included
	// (ollama-model-bytes.csv); the table is 128256 x 4096 at 4.5 bits.
	if got.WeightBytes == nil || math.Abs(float64(*got.WeightBytes)/4_661_211_424-1) > 0.003 {
		t.Errorf("weights %v", got.WeightBytes)
	}
	if got.TokenBytes == nil || *got.WeightBytes-*got.TokenBytes != 128256*4096*9/16 {
		t.Errorf("bytes per token %v", got.TokenBytes)
	}
	got.WeightBytes, got.TokenBytes, got.LookupBytes = nil, nil, nil
	want := gguf.Footprint{
		Architecture: "llama", Quantisation: "Q4_0", Layers: new(int64(32)), Context: new(int64(8192)), Vocabulary: new(int64(128256)),
		Parameters: new(int64(8_030_261_248)), ActiveParameters: new(int64(8_030_261_248 - 128256*4096)), Cache: &gguf.Cache{Full: 65536}, Estimated: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("(-want +got)\n", diff)
	}

	listed, err := gguf.FromShow(fmt.Appendf(nil, show, `,"tensors":[{"name":"token_embd.weight","type":"Q4_K","shape":[4096,128256]},
		{"name":"output.weight","type":"Q6_K","shape":[4096,128256]},{"name":"output_norm.weight","type":"F32","shape":[4096]}]`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(new(int64(128256*4096*210/256+4*4096)), listed.TokenBytes); diff != "" || listed.Estimated {
		t.Errorf("with a list of tensors: estimated %v, bytes %s", listed.Estimated, diff)
	}
}

func TestFromShowDoesNotGuess(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ answer, note string }{
		"another architecture":   {`{"model_info":{"general.architecture":"newarch","general.parameter_count":8000000000}}`, "newarch"},
		"the count disagrees":    {strings.Replace(fmt.Sprintf(show, ""), "8030261312", "9030261312", 1), "counts 9030261312"},
		"no count":               {strings.Replace(fmt.Sprintf(show, ""), "general.parameter_count", "x", 1), "parameter_count"},
		"no vocabulary":          {strings.Replace(fmt.Sprintf(show, ""), "llama.vocab_size", "x", 1), "vocab_size"},
		"an unknown mix":         {strings.Replace(fmt.Sprintf(show, ""), `file_type":2`, `file_type":99`, 1), "file type 99"},
		"runs elsewhere":         {`{"remote_host":"https://example.test","model_info":{"general.architecture":"llama"}}`, "another host"},
		"unknown type of tensor": {fmt.Sprintf(show, `,"tensors":[{"name":"a","type":"unknown","shape":[4]}]`), "type of tensor"},
		"nothing":                {`{}`, "architecture"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := gguf.FromShow([]byte(tc.answer))
			if err != nil {
				t.Fatal(err)
			}
			if got.TokenBytes != nil || got.WeightBytes != nil {
				t.Errorf("bytes %v and %v out of nothing", *got.TokenBytes, *got.WeightBytes)
			}
			if notes := strings.Join(got.Notes, "; "); !strings.Contains(notes, tc.note) {
				t.Errorf("notes %q do not mention %q", notes, tc.note)
			}
		})
	}
	for _, bad := range []string{``, `[]`, `{"tensors":[{"name":"a","shape":[4611686018427387904,4611686018427387904]}]}`, `{"tensors":[{"shape":[-1]}]}`} {
		if _, err := gguf.FromShow([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func FuzzFromShow(f *testing.F) {
	f.Add(fmt.Appendf(nil, show, ""))
	f.Add(fmt.Appendf(nil, show, `,"tensors":[{"name":"blk.0.ffn_up_exps.weight","type":"Q4_K","shape":[256,2,128]}]`))
	f.Add([]byte(`{"model_info":{"general.architecture":"gemma3","gemma3.block_count":62,"gemma3.attention.sliding_window":1.024e3}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fp, err := gguf.FromShow(b)
		if err != nil {
			return
		}
		if fp.TokenBytes != nil && (*fp.TokenBytes < 0 || *fp.TokenBytes > *fp.WeightBytes) {
			t.Fatalf("a token reads %d of %d bytes", *fp.TokenBytes, *fp.WeightBytes)
		}
		if fp.Cache != nil && (fp.Cache.Full < 0 || fp.Cache.Windowed < 0) {
			t.Fatalf("cache %+v", *fp.Cache)
		}
	})
}

func FuzzFromConfig(f *testing.F) {
	f.Add([]byte(`{"model_type":"llama","num_hidden_layers":2,"hidden_size":256,"num_attention_heads":4,"intermediate_size":512,"vocab_size":99}`), "Q4_K_M")
	f.Add([]byte(`{"model_type":"mixtral","num_hidden_layers":2,"hidden_size":256,"num_attention_heads":4,"intermediate_size":512,"num_local_experts":8,"num_experts_per_tok":2,"vocab_size":9}`), "AWQ")
	f.Fuzz(func(t *testing.T, b []byte, mix string) {
		fp, err := gguf.FromConfig(b, mix)
		if err == nil && fp.TokenBytes != nil && (*fp.TokenBytes < 0 || *fp.TokenBytes > *fp.WeightBytes) {
			t.Fatalf("a token reads %d of %d bytes", *fp.TokenBytes, *fp.WeightBytes)
		}
	})
}

// TestConfigAgainstFiles holds what config.json and the rules of the quantiser
// give against the sizes of real files: the error table.
func TestConfigAgainstFiles(t *testing.T) {
	t.Parallel()
	rows, err := csv.NewReader(strings.NewReader(string(shared(t, "ollama-model-bytes.csv")))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	bytesOf := map[string]float64{}
	for _, r := range rows[1:] {
		bytesOf[r[0]+":"+r[1]], _ = strconv.ParseFloat(r[2], 64)
	}
	// Ollama's dense Qwen3 files are larger than the rules say by what attn_v in
	// F16 adds, about 10.5 bits for each of its weights: derived from the sizes,
	// the files were not looked into. llama.cpp's own Qwen3 8B in Q4_K_M has
	// 5.03 GB (speed.md section 2), as the rules say.
	const wideV = 10.5 / 8
	for _, tc := range []struct {
		config, mix, file string
		extra             float64 // bytes
	}{
		{"Llama-3.1-8B", "Q4_K_M", "llama3.1:8b", 0},
		{"Llama-3.1-8B", "Q4_0", "llama3:8b", 0}, // the same shape
		{"Llama-3.2-3B", "Q4_K_M", "llama3.2:3b", 0},
		{"Qwen2.5-3B", "Q4_K_M", "qwen2.5:3b", 0},
		{"Qwen2.5-7B", "Q4_K_M", "qwen2.5:7b", 0},
		{"Qwen2.5-14B", "Q4_K_M", "qwen2.5:14b", 0},
		{"Qwen2.5-32B", "Q4_K_M", "qwen2.5:32b", 0},
		{"Qwen3-4B", "Q4_K_M", "qwen3:4b", 36 * 2560 * 1024 * wideV},
		{"Qwen3-8B", "Q4_K_M", "qwen3:8b", 36 * 4096 * 1024 * wideV},
		{"Qwen3-14B", "Q4_K_M", "qwen3:14b", 40 * 5120 * 1024 * wideV},
		{"Qwen3-32B", "Q4_K_M", "qwen3:32b", 64 * 5120 * 1024 * wideV},
		{"Qwen3-30B-A3B", "Q4_K_M", "qwen3:30b", 0},
	} {
		t.Run(tc.config+" "+tc.mix, func(t *testing.T) {
			t.Parallel()
			fp, err := gguf.FromConfig(shared(t, filepath.Join("hf-configs", tc.config+".config.json")), tc.mix)
			if err != nil || fp.WeightBytes == nil {
				t.Fatalf("%v, notes %q", err, fp.Notes)
			}
			want := bytesOf[tc.file]
			off := 100 * ((float64(*fp.WeightBytes)+tc.extra)/want - 1)
			t.Logf("%-14s %-6s %-12s file %6.3f GB, estimated %6.3f GB + %.3f, %+.2f %%; per token %6.3f GB", tc.config, tc.mix, tc.file,
				want/1e9, float64(*fp.WeightBytes)/1e9, tc.extra/1e9, off, float64(*fp.TokenBytes)/1e9)
			if math.Abs(off) > 0.5 {
				t.Errorf("off by %.2f %%", off)
			}
		})
	}
}

// TestFactsFromLogs does the same with sizes and shapes that llama.cpp printed.
func TestFactsFromLogs(t *testing.T) {
	t.Parallel()
	rows, err := csv.NewReader(strings.NewReader(string(shared(t, "gguf-facts-from-logs.csv")))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, r := range rows[1:] {
		name, arch, mix, vocab := r[0], r[1], strings.NewReplacer(" - Medium", "_M").Replace(r[4]), r[12]
		number := func(i int) json.RawMessage {
			if r[i] == "" {
				return json.RawMessage("null")
			}
			return json.RawMessage(r[i])
		}
		if vocab == "" && arch == "qwen2" {
			r[12] = "152064" // Qwen2.5's config.json; CodeQwen has 92416
			if strings.HasPrefix(name, "CodeQwen") {
				r[12] = "92416"
			}
		}
		config, err := json.Marshal(map[string]any{
			"model_type": arch, "num_hidden_layers": number(5), "hidden_size": number(6), "intermediate_size": number(7),
			"num_attention_heads": number(8), "num_key_value_heads": number(9), "head_dim": number(10), "vocab_size": number(12),
			"tie_word_embeddings": strings.HasPrefix(name, "Llama 3.2") || arch == "gemma",
		})
		if err != nil {
			t.Fatal(err)
		}
		fp, err := gguf.FromConfig(config, mix)
		if err != nil || fp.WeightBytes == nil {
			t.Logf("%-32s not estimated: %v %q", name, err, fp.Notes)
			continue
		}
		size, _ := strconv.ParseFloat(strings.Fields(r[2])[0], 64)
		params, _ := strconv.ParseFloat(strings.Fields(r[3])[0], 64)
		off := 100 * (float64(*fp.WeightBytes)/(size*(1<<30)) - 1)
		offParams := 100 * (float64(*fp.Parameters)/(params*1e9) - 1)
		t.Logf("%-32s %-6s file %6.2f GiB, estimated %6.2f GiB, %+.2f %%; parameters %+.2f %%", name, mix, size, float64(*fp.WeightBytes)/(1<<30), off, offParams)
		if math.Abs(off) > 1 || math.Abs(offParams) > 0.5 {
			t.Errorf("%s: off by %.2f %%, parameters by %.2f %%", name, off, offParams)
		}
		checked++
	}
	if checked < 9 {
		t.Errorf("only %d of %d rows could be estimated", checked, len(rows)-1)
	}
}

func TestFromConfigDoesNotGuess(t *testing.T) {
	t.Parallel()
	const small = `{"model_type":"llama","num_hidden_layers":2,"hidden_size":256,"num_attention_heads":4,"intermediate_size":512,"vocab_size":99}`
	for name, tc := range map[string]struct{ config, mix, note string }{
		"unknown model":  {`{"model_type":"brandnew"}`, "Q4_K_M", "brandnew"},
		"unknown mix":    {small, "Q9_Z", "Q9_Z"},
		"no vocabulary":  {strings.Replace(small, "vocab_size", "x", 1), "Q4_K_M", "vocab_size"},
		"mixed layers":   {strings.Replace(small, `"llama"`, `"llama","mlp_only_layers":[0]`, 1), "Q4_K_M", "different kinds"},
		"no experts use": {strings.Replace(small, `"llama"`, `"mixtral","num_local_experts":8`, 1), "Q4_K_M", "experts"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := gguf.FromConfig([]byte(tc.config), tc.mix)
			if err != nil {
				t.Fatal(err)
			}
			if got.TokenBytes != nil || !strings.Contains(strings.Join(got.Notes, "; "), tc.note) {
				t.Errorf("bytes per token %v, notes %q", got.TokenBytes, got.Notes)
			}
		})
	}
	if _, err := gguf.FromConfig([]byte(`{"model_type":"llama"}`), "F16"); err == nil {
		t.Error("no error for a config without layers")
	}
}

// Sizes that are not GGUF, by bits: Llama 3.1 8B in 16 bits is 16.06 GB; FP8
// keeps two tables of 1.05 GB; AWQ has 6.98 billion weights at 4.16 bits.
func TestOtherQuantisations(t *testing.T) {
	t.Parallel()
	config := `{"model_type":"llama","num_hidden_layers":32,"hidden_size":4096,"num_attention_heads":32,"num_key_value_heads":8,
		"intermediate_size":14336,"vocab_size":128256,"tie_word_embeddings":false}`
	for mix, want := range map[string]float64{"BF16": 16.06, "FP8": 9.08, "AWQ": 5.73, "NVFP4": 6.03, "MLX-4bit": 4.52, "Q8_0": 8.53} {
		got, err := gguf.FromConfig([]byte(config), mix)
		if err != nil || got.WeightBytes == nil {
			t.Fatal(err, got.Notes)
		}
		if gb := float64(*got.WeightBytes) / 1e9; math.Abs(gb-want) > 0.01 {
			t.Errorf("%s: %.3f GB, want %.2f", mix, gb, want)
		}
	}
}
