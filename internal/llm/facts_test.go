package llm_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
)

// TestFactsUnknown is that what is not known leaves no trace, and is not zero.
func TestFactsUnknown(t *testing.T) {
	b, err := json.Marshal(llm.Facts{Kind: llm.Ollama})
	if err != nil || string(b) != `{"kind":"ollama"}` {
		t.Errorf("got %s, %v", b, err)
	}
	var f llm.Facts
	if v, ok := f.Slots.Get(); ok || v != 0 {
		t.Errorf("got %d, %v", v, ok)
	}
	if got := f.Slots.Or(7); got != 7 {
		t.Errorf("got %d", got)
	}
	var m *llm.Mean
	if _, ok := m.Value(); ok {
		t.Error("a mean of nothing")
	}
	var h *llm.History
	if h.Count(llm.Eviction) != 0 {
		t.Error("events of no history")
	}
}

// TestFactsJSON writes what an observation keeps, and reads it again.
func TestFactsJSON(t *testing.T) {
	at := time.Date(2026, 2, 26, 9, 0, 0, 0, time.UTC)
	f := llm.Facts{
		Kind:    llm.Ollama,
		Version: llm.Known("0.17.4", llm.FromAPI),
		Slots:   llm.Known(4, llm.FromLog),
		KVType:  llm.Known("q8_0", llm.FromCommand),
		Devices: []llm.Device{{Name: "CUDA0", Backend: llm.CUDA, Integrated: new(false), FreeBytes: new(int64(0))}},
		Loaded:  []llm.Residency{{Name: "m", SizeBytes: new(int64(5)), VRAMBytes: new(int64(0)), ExpiresAt: &at}},
		Buffers: []llm.Buffer{{Device: "CUDA0", Kind: llm.KVBuffer, Bytes: 1, GPU: true, Source: llm.FromLog}},
		History: &llm.History{Starts: 1, Events: []llm.Event{{Kind: llm.Eviction, Count: 2, First: &at}}},
		Settings: []llm.Setting{
			{Name: "OLLAMA_NUM_PARALLEL", Value: "4", Where: llm.InServer},
		},
		Counters: &llm.Counters{Waiting: new(0.)},
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"slots":{"value":4,"source":"log"}`, `"free_bytes":0`, `"vram_bytes":0`, `"waiting":0`, `"kind":"kv"`, `"integrated":false`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s is missing in %s", want, b)
		}
	}
	var again llm.Facts
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f, again); diff != "" {
		t.Errorf("-wrote +read\n%s", diff)
	}
	note := llm.SettingNote{Setting: f.Settings[0], Verdict: llm.NotRead, Instead: "x"}
	note.Add("")
	note.Add("one")
	note.Add("two")
	if got := note.String(); got != `OLLAMA_NUM_PARALLEL="4" (server process): not-read; use instead: x; one; two` {
		t.Error(got)
	}
	b, err = json.Marshal(note)
	if want := `{"name":"OLLAMA_NUM_PARALLEL","value":"4","where":"server process","verdict":"not-read","instead":"x","note":"one; two"}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v", b, err)
	}
	f.Note("a %d", 1)
	f.Note("a %d", 1)
	if len(f.Notes) != 1 {
		t.Errorf("notes: %v", f.Notes)
	}
}

func TestBackendOf(t *testing.T) {
	for name, want := range map[string]llm.Backend{
		"cuda_v12": llm.CUDA, "CUDA0": llm.CUDA, "ROCm1": llm.ROCm, "rocm_v6.1": llm.ROCm, "HIP": llm.ROCm, "Vulkan0": llm.Vulkan,
		"MTL0": llm.Metal, "Metal": llm.Metal, "cpu_avx2": llm.CPU, "oneapi": llm.SYCL, "BLAS": "", "": "", "RPC0": "",
	} {
		if got := llm.BackendOf(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]bool{
		"CUDA0": true, "Metal_Mapped": true, "MTL0_Mapped": true, "ROCm0": true, "Vulkan0": true, "CPU": false, "CPU_Mapped": false,
		"CPU_REPACK": false, "CUDA_Host": false, "ROCm_Host": false, "BLAS": false, "": false,
	} {
		if got := llm.OnGPU(name); got != want {
			t.Errorf("%q on GPU: %v", name, got)
		}
	}
}

func TestKVLayoutBytes(t *testing.T) {
	llama := llm.KVLayout{Full: 32 * 8 * 256} // Llama 3.1 8B: 32 layers, 8 heads, 128 + 128 long
	for _, tt := range []struct {
		l      llm.KVLayout
		tokens int64
		kv     string
		want   int64
		ok     bool
	}{
		{llama, 1, "", 128 << 10, true}, // reference/ollama.md section 6
		{llama, 32768, "f16", 4 << 30, true},
		{llama, 4096, "q8_0", 4096 * 65536 * 34 / 32, true},
		{llama, 4096, "q4_0", 4096 * 65536 * 18 / 32, true},
		{llama, 4096, "q8_0/f16", (4096*65536*34/32 + 4096*65536*2) / 2, true},
		{llama, 1, "Q8_0", 65536 * 34 / 32, true},
		{llama, -5, "", 0, true},
		{llama, 1, "q9_9", 0, false},
		{llama, 1, "f16/x", 0, false},
		{llama, math.MaxInt64, "f16", 0, false},
		{llm.KVLayout{Full: 100, Windowed: 1000, Window: 10}, 20, "f16", 2 * (2000 + 10000), true},
	} {
		if got, ok := tt.l.Bytes(tt.tokens, tt.kv); got != tt.want || ok != tt.ok {
			t.Errorf("%+v, %d tokens of %q: %d, %v; want %d, %v", tt.l, tt.tokens, tt.kv, got, ok, tt.want, tt.ok)
		}
	}
	for s, want := range map[llm.Seconds]time.Duration{1.5: 1500 * time.Millisecond, -1: -time.Second, 1e300: math.MaxInt64, -1e300: math.MinInt64} {
		if got := s.Duration(); got != want {
			t.Errorf("%v: %v", s, got)
		}
	}
	if got, ok := (&llm.Mean{Sum: 3, Count: 2}).Value(); got != 1.5 || !ok {
		t.Errorf("mean %v, %v", got, ok)
	}
}
