package gguf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/gguf"
	"millrace/internal/gguf/gguftest"
)

func read(t *testing.T, b []byte) (*gguf.File, error) {
	t.Helper()
	return gguf.Read(bytes.NewReader(b), int64(len(b)))
}

func model(t *testing.T, o gguftest.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := gguftest.Write(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadOwnModel(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		opts    gguftest.Options
		min     int // bytes of the file
		max     int
		weights int64
	}{
		{"default", gguftest.Options{}, 3_000_000, 4_500_000, 0},
		{"f16", gguftest.Options{Type: gguf.F16}, 6_000_000, 8_000_000, 0},
		{"q4_k", gguftest.Options{Type: gguf.Q4_K}, 1_500_000, 2_500_000, 0},
		{"wide", gguftest.Options{Embedding: 512, Layers: 2, Vocab: 1000}, 6_000_000, 9_000_000, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := model(t, tc.opts)
			if len(b) < tc.min || len(b) > tc.max {
				t.Errorf("file has %d bytes, want %d to %d", len(b), tc.min, tc.max)
			}
			f, err := read(t, b)
			if err != nil {
				t.Fatal(err)
			}
			if f.Version != 3 || f.Arch() != "llama" || f.Missing != 0 {
				t.Errorf("version %d, architecture %q, missing %d", f.Version, f.Arch(), f.Missing)
			}
			layers, _ := f.ArchUint("block_count")
			if want := 2 + 1 + 9*int(layers); len(f.Tensors) != want {
				t.Errorf("%d tensors for %d layers, want %d", len(f.Tensors), layers, want)
			}
			weights, ok := f.WeightBytes("")
			if padded := int64(len(b)) - f.DataOffset; !ok || weights > padded || weights < padded-32*int64(len(f.Tensors)) {
				t.Errorf("weights of %d bytes (%v) in a file with %d bytes of data", weights, ok, padded)
			}
			vocab, _ := f.ArchUint("vocab_size")
			tokens, _ := f.Meta["tokenizer.ggml.tokens"].([]string)
			if uint64(len(tokens)) != vocab || len(tokens) < 300 {
				t.Errorf("%d tokens, vocab_size %d", len(tokens), vocab)
			}
			if again := model(t, tc.opts); !bytes.Equal(b, again) {
				t.Error("the same options gave different bytes")
			}
			tc.opts.Seed = 7
			if other := model(t, tc.opts); bytes.Equal(b, other) {
				t.Error("another seed gave the same bytes")
			}
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]gguftest.Options{
		"type":  {Type: 14},
		"width": {Embedding: 320, Type: gguf.Q4_K},
		"heads": {Heads: 7},
		"kv":    {Heads: 8, KVHeads: 3},
	} {
		if err := gguftest.Write(&bytes.Buffer{}, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestWritePassesOnErrors: a full disk is not a model.
func TestWritePassesOnErrors(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	if err := gguftest.Write(writerFunc(func([]byte) (int, error) { return 0, full }), gguftest.Options{}); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestReadSharedModels(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "..", "shared", "data", "models")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no shared data here: %v", err)
	}
	for _, tc := range []struct {
		file    string
		arch    string
		meta    map[string]any
		tensors []gguf.Tensor
		missing int64
	}{
		{file: "empty.gguf", arch: "llama", meta: map[string]any{"general.architecture": "llama"}},
		{
			// A header alone: 32768 bytes of data and 6 of padding are not there.
			file: "tiny.gguf", arch: "llama", missing: 32774,
			tensors: []gguf.Tensor{{Name: "test.weight.0", Dims: []int64{64, 128}}},
		},
		{
			file: "ggml-vocab-llama-spm.gguf", arch: "llama",
			meta: map[string]any{
				"llama.block_count": uint32(32), "llama.attention.head_count": uint32(32),
				"tokenizer.ggml.model": "llama", "tokenizer.ggml.bos_token_id": uint32(1),
			},
		},
	} {
		t.Run(tc.file, func(t *testing.T) {
			t.Parallel()
			file, err := os.Open(filepath.Join(dir, tc.file))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			info, err := file.Stat()
			if err != nil {
				t.Fatal(err)
			}
			f, err := gguf.Read(file, info.Size())
			if err != nil {
				t.Fatal(err)
			}
			if f.Arch() != tc.arch {
				t.Errorf("architecture %q, want %q", f.Arch(), tc.arch)
			}
			for k, want := range tc.meta {
				if diff := cmp.Diff(want, f.Meta[k]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", k, diff)
				}
			}
			if diff := cmp.Diff(tc.tensors, f.Tensors); diff != "" {
				t.Errorf("tensors (-want +got):\n%s", diff)
			}
			if f.Missing != tc.missing {
				t.Errorf("missing %d, want %d", f.Missing, tc.missing)
			}
		})
	}
}

// builder puts a header together by hand, for what no writer would write.
type builder struct{ b []byte }

func header(version uint32, tensors, entries uint64) *builder {
	w := &builder{[]byte("GGUF")}
	return w.u32(version).u64(tensors).u64(entries)
}

func (w *builder) u32(v uint32) *builder {
	w.b = binary.LittleEndian.AppendUint32(w.b, v)
	return w
}

func (w *builder) u64(v uint64) *builder {
	w.b = binary.LittleEndian.AppendUint64(w.b, v)
	return w
}

func (w *builder) str(s string) *builder {
	w.u64(uint64(len(s)))
	w.b = append(w.b, s...)
	return w
}

func (w *builder) raw(b ...byte) *builder {
	w.b = append(w.b, b...)
	return w
}

func TestReadValues(t *testing.T) {
	t.Parallel()
	w := header(2, 0, 14)
	w.str("u8").u32(0).raw(200)
	w.str("i8").u32(1).raw(0xfe)
	w.str("u16").u32(2).raw(1, 2)
	w.str("i16").u32(3).raw(0xff, 0xff)
	w.str("u32").u32(4).u32(1 << 31)
	w.str("i32").u32(5).u32(0xffffffff)
	w.str("f32").u32(6).u32(0x3fc00000)
	w.str("bool").u32(7).raw(1)
	w.str("string").u32(8).str("ein Wort")
	w.str("u64").u32(10).u64(1 << 63)
	w.str("i64").u32(11).u64(1<<64 - 2)
	w.str("f64").u32(12).u64(0x4000000000000000)
	w.str("strings").u32(9).u32(8).u64(2).str("a").str("")
	w.str("bools").u32(9).u32(7).u64(3).raw(1, 0, 1)
	f, err := read(t, w.b)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"u8": uint8(200), "i8": int8(-2), "u16": uint16(0x201), "i16": int16(-1),
		"u32": uint32(1 << 31), "i32": int32(-1), "f32": float32(1.5), "bool": true, "string": "ein Wort",
		"u64": uint64(1 << 63), "i64": int64(-2), "f64": 2.0,
		"strings": []string{"a", ""}, "bools": []bool{true, false, true},
	}
	if diff := cmp.Diff(want, f.Meta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	for key, want := range map[string]uint64{"u8": 200, "u16": 0x201, "u32": 1 << 31, "u64": 1 << 63} {
		if got, ok := f.Uint(key); !ok || got != want {
			t.Errorf("Uint(%q) = %d, %v", key, got, ok)
		}
	}
	for _, key := range []string{"i8", "i32", "i64", "string", "absent"} {
		if got, ok := f.Uint(key); ok {
			t.Errorf("Uint(%q) = %d, want none", key, got)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		in   []byte
		want string
	}{
		{"empty", nil, "ends inside the header"},
		{"other file", []byte("PK\x03\x04 and so on, a zip"), "does not begin with GGUF"},
		{"cut", header(3, 0, 1).str("key").raw(4, 0).b, "ends inside the header"},
		{"old", header(1, 0, 0).b, "version 1"},
		{"new", header(4, 0, 0).b, "version 4"},
		{"big-endian", header(3<<24, 0, 0).b, "big-endian"},
		{"many entries", header(3, 0, 1<<60).raw(make([]byte, 100)...).b, "announces"},
		{"many tensors", header(3, 1<<40, 0).raw(make([]byte, 100)...).b, "announces"},
		{"long key", header(3, 0, 1).u64(1 << 62).raw(make([]byte, 100)...).b, "announces"},
		{"long list", header(3, 0, 1).str("k").u32(9).u32(8).u64(1 << 61).raw(make([]byte, 100)...).b, `metadata "k"`},
		{"list of lists", header(3, 0, 1).str("k").u32(9).u32(9).u64(1).raw(make([]byte, 100)...).b, "arrays inside arrays"},
		{"type", header(3, 0, 1).str("k").u32(99).raw(make([]byte, 100)...).b, "value type 99"},
		{"bool", header(3, 0, 1).str("k").u32(7).raw(make([]byte, 8)...).raw(2).b[:24+9+4], "ends inside"},
		{"bad bool", header(3, 0, 1).str("k").u32(7).raw(2).b, "neither true nor false"},
		{"twice", header(3, 0, 2).str("k").u32(0).raw(1).str("k").u32(0).raw(1).b, "twice"},
		{"dimensions", header(3, 1, 0).str("t").u32(5).raw(make([]byte, 64)...).b, "5 dimensions"},
		{"overflow", header(3, 1, 0).str("t").u32(2).u64(1 << 40).u64(1 << 40).u32(0).u64(0).b, "more values"},
		{"row", header(3, 1, 0).str("t").u32(1).u64(33).u32(8).u64(0).b, "rows of 33"},
		{"offset", header(3, 1, 0).str("t").u32(1).u64(32).u32(8).u64(1 << 63).b, "beyond any file"},
		{"misaligned", header(3, 1, 0).str("t").u32(1).u64(32).u32(8).u64(8).b, "not aligned"},
		{"alignment", header(3, 0, 1).str("general.alignment").u32(4).u32(24).b, "power of two"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := read(t, tc.in)
			if !errors.Is(err, gguf.ErrFormat) {
				t.Fatalf("got %v, want an ErrFormat", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want it to contain %q", err, tc.want)
			}
		})
	}
}

// TestReadCutShort: a download that broke off is told by its size.
func TestReadCutShort(t *testing.T) {
	t.Parallel()
	b := model(t, gguftest.Options{})
	f, err := read(t, b[:len(b)-1_000_000])
	if err != nil {
		t.Fatal(err)
	}
	if f.Missing < 999_968 || f.Missing > 1_000_000 { // the file's own padding is not missed
		t.Errorf("missing %d, want 1,000,000 less padding", f.Missing)
	}
}

func TestUnknownType(t *testing.T) {
	t.Parallel()
	f, err := read(t, header(3, 1, 0).str("t").u32(1).u64(32).u32(77).u64(0).b)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := f.Tensors[0].Bytes(); ok {
		t.Errorf("Bytes() = %d, want unknown", n)
	}
	if n, ok := f.WeightBytes(""); ok {
		t.Errorf("WeightBytes() = %d, want unknown", n)
	}
	if _, ok := f.WeightBytes("blk."); !ok {
		t.Error("the size of no tensors is known: 0")
	}
	if got := f.Tensors[0].Type.String(); got != "type 77" {
		t.Errorf("type is %q", got)
	}
	if bits, ok := gguf.Q4_K.BitsPerWeight(); !ok || bits != 4.5 {
		t.Errorf("Q4_K has %v bits per weight, want 4.5", bits)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(header(3, 0, 1).str("k").u32(9).u32(8).u64(2).str("a").str("b").b)
	f.Add(header(3, 1, 0).str("t").u32(2).u64(32).u64(2).u32(8).u64(0).b)
	f.Add(header(2, 0, 1).str("general.alignment").u32(4).u32(64).b)
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := gguf.Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, gguf.ErrFormat) {
				t.Fatalf("reading bytes in memory gave %v", err)
			}
			return
		}
		if file.Missing < 0 || len(file.Tensors) > 0 && file.DataOffset < int64(24) {
			t.Fatalf("missing %d, data at %d", file.Missing, file.DataOffset)
		}
		for _, ts := range file.Tensors {
			if n, ok := ts.Bytes(); n < 0 || ok && ts.Offset+n < 0 || ts.Elements() < 0 {
				t.Fatalf("tensor %q: %d bytes of %d values at %d", ts.Name, n, ts.Elements(), ts.Offset)
			}
		}
	})
}
