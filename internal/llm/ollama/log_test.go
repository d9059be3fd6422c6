package ollama_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
	"millrace/internal/llm/ollama"
)

// summary is what the tests compare of a log.
type summary struct {
	Version  string
	Starts   int
	Devices  []string // description, library, type
	Default  int      // context; 0 where the log does not say
	Loads    []string
	Reasons  []llm.LoadReason
	Events   map[llm.EventKind]int
	Requests int
}

func summarise(l *ollama.LogFacts) summary {
	s := summary{Version: l.Version, Starts: l.History.Starts, Requests: l.History.Requests, Events: map[llm.EventKind]int{}}
	for _, d := range l.Devices {
		s.Devices = append(s.Devices, strings.TrimSpace(strings.Join([]string{d.Description, d.Library, d.Type, d.Dropped}, "|")))
	}
	if l.DefaultContext != nil {
		s.Default = *l.DefaultContext
	}
	for _, load := range l.Loads {
		s.Loads = append(s.Loads, loadLine(&load))
		s.Reasons = append(s.Reasons, load.Reason)
	}
	for _, e := range l.History.Events {
		s.Events[e.Kind] += e.Count
	}
	return s
}

// loadLine puts a load into one line: unknown is "-".
func loadLine(l *ollama.LoadFacts) string {
	n := func(p *int) string {
		if p == nil {
			return "-"
		}
		return fmt.Sprint(*p)
	}
	gib := func(kind llm.BufferKind, gpu bool) string {
		var sum int64
		for _, b := range l.Buffers {
			if b.Kind == kind && b.GPU == gpu {
				sum += b.Bytes
			}
		}
		return fmt.Sprintf("%.2f", float64(sum)/(1<<30))
	}
	used := "-"
	if l.FlashUsed != nil {
		used = fmt.Sprint(*l.FlashUsed)
	}
	model := l.Model[:min(len(l.Model), 12)]
	return fmt.Sprintf("%s %s %s %s: slots %s ctx %s/%s of %s, batch %s/%s, flash %s/%s, kv %s, layers %s/%s, model %s+%s GiB, kv %s+%s GiB, %s",
		model, l.Architecture, l.Engine, l.Library, n(l.Slots), n(l.ContextPerSlot), n(l.ContextTotal), n(l.ContextTrained), n(l.Batch), n(l.Microbatch),
		l.Flash, used, l.KVType, n(l.GPULayers), n(l.Layers),
		gib(llm.ModelBuffer, true), gib(llm.ModelBuffer, false), gib(llm.KVBuffer, true), gib(llm.KVBuffer, false),
		seconds(l.Seconds))
}

func seconds(s *llm.Seconds) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f s", float64(*s))
}

func parse(t *testing.T, parts ...string) *ollama.LogFacts {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	l := ollama.ParseLog(data)
	return &l
}

// TestParseLogDialects reads logs of our own writing, one for each way in which
// Ollama has logged.
func TestParseLogDialects(t *testing.T) {
	ownEngine := summary{
		Version: "0.6.2", Starts: 1,
		Devices:  []string{"NVIDIA GeForce RTX 3060|cuda_v12||"},
		Loads:    []string{"sha256-cccc gemma3 ollama engine cuda_v12: slots 2 ctx 2048/4096 of -, batch 512/-, flash on/true, kv q8_0, layers 35/35, model 3.10+0.51 GiB, kv 0.00+0.00 GiB, 3.01 s"},
		Reasons:  []llm.LoadReason{llm.FirstLoad},
		Events:   map[llm.EventKind]int{llm.Truncation: 1},
		Requests: 2,
	}
	for file, want := range map[string]summary{
		"json-0.1.32.log": {
			Version: "0.1.32", Starts: 1,
			Devices:  []string{"Apple M3 Max|metal||"},
			Loads:    []string{"sha256-bbbb llama llama.cpp runner metal: slots 1 ctx 2048/2048 of 4096, batch 512/-, flash /-, kv f16, layers 33/33, model 3.49+0.07 GiB, kv 1.00+0.00 GiB, -"},
			Reasons:  []llm.LoadReason{llm.FirstLoad},
			Events:   map[llm.EventKind]int{llm.ContextShift: 1},
			Requests: 1,
		},
		"journal-0.3.log": {
			Version: "0.3.6", Starts: 1,
			Devices: []string{"NVIDIA GeForce RTX 4060 Laptop GPU|cuda||"},
			Loads: []string{
				"sha256-aaaa llama llama.cpp runner cuda_v11: slots 4 ctx 2048/8192 of 131072, batch 512/-, flash off/false, kv f16, layers 33/33, model 4.30+0.28 GiB, kv 1.00+0.00 GiB, 2.18 s",
				"sha256-aaaa  llama.cpp runner cuda_v11: slots 4 ctx 2048/8192 of -, batch 512/-, flash /-, kv , layers 20/-, model 0.00+0.00 GiB, kv 0.00+0.00 GiB, -",
			},
			Reasons:  []llm.LoadReason{llm.FirstLoad, llm.AfterIdle},
			Events:   map[llm.EventKind]int{llm.IntegratedOff: 1, llm.OutOfMemory: 1, llm.LoadFailed: 1, llm.VRAMNotFreed: 1},
			Requests: 2,
		},
		"own-engine-0.6.log":  ownEngine,
		"docker-json-0.6.log": ownEngine,
		"windows-0.17.log": {
			Version: "0.17.4", Starts: 1,
			Devices: []string{"NVIDIA GeForce RTX 4060 Laptop GPU|cuda_v13|discrete|"}, Default: 4096,
			Loads: []string{
				"sha256-ffff  llama.cpp runner cuda_v13: slots 1 ctx 4096/4096 of -, batch 512/-, flash auto/true, kv f16, layers 33/33, model 4.30+0.28 GiB, kv 0.00+0.00 GiB, 2.80 s",
				"sha256-ffff  llama.cpp runner cuda_v13: slots 1 ctx 8192/8192 of -, batch 512/-, flash auto/-, kv , layers 33/-, model 0.00+0.00 GiB, kv 0.00+0.00 GiB, 2.80 s",
				"sha256-ffff  llama.cpp runner cuda_v13: slots 1 ctx 8192/8192 of -, batch 512/-, flash auto/-, kv , layers 33/-, model 0.00+0.00 GiB, kv 0.00+0.00 GiB, 2.80 s",
			},
			Reasons:  []llm.LoadReason{llm.FirstLoad, llm.OptionsChanged, llm.AfterUnload},
			Events:   map[llm.EventKind]int{llm.VulkanOff: 1, llm.SingleSlot: 1},
			Requests: 2,
		},
		"llama-server-0.32.log": {
			Version: "0.32.15", Starts: 1,
			Devices: []string{
				"AMD Radeon 780M|vulkan||integrated GPUs are off; OLLAMA_IGPU_ENABLE=1 allows them",
				"NVIDIA GeForce RTX 4060 Laptop GPU|cuda_v12|discrete|",
			}, Default: 4096,
			Loads: []string{
				"sha256-dddd llama llama-server cuda_v12: slots 4 ctx 8192/32768 of 131072, batch 1024/1024, flash on/true, kv q8_0, layers 30/33, model 3.91+0.68 GiB, kv 1.17+0.00 GiB, 6.00 s",
				"sha256-eeee  llama-server : slots 1 ctx 4096/4096 of -, batch 512/512, flash on/true, kv , layers -/-, model 0.00+0.00 GiB, kv 0.00+0.00 GiB, 2.00 s",
				"sha256-dddd  llama-server : slots 4 ctx 8192/32768 of -, batch 1024/1024, flash on/true, kv q8_0, layers -/-, model 0.00+0.00 GiB, kv 0.00+0.00 GiB, -",
				"sha256-dddd  llama-server cuda_v12: slots 4 ctx 4096/16384 of -, batch 512/512, flash on/true, kv q8_0, layers 33/33, model 0.00+0.00 GiB, kv 0.00+0.00 GiB, 4.00 s",
				"sha256-dddd  llama-server : slots 4 ctx 16384/65536 of -, batch 2048/2048, flash on/true, kv q8_0, layers -/-, model 0.00+0.00 GiB, kv 0.00+0.00 GiB, -",
			},
			Reasons: []llm.LoadReason{llm.FirstLoad, llm.FirstLoad, llm.AfterEviction, llm.AfterFailure, llm.OptionsChanged},
			Events: map[llm.EventKind]int{
				llm.BadSetting: 1, llm.DevicesHidden: 1, llm.IntegratedOff: 1, llm.Eviction: 2, llm.LoadFailed: 1,
				llm.ContextReduced: 1, llm.ClientGone: 1, llm.ContextShift: 1,
			},
			Requests: 1,
		},
	} {
		t.Run(file, func(t *testing.T) {
			got := summarise(parse(t, "testdata", "logs", file))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestParseLogDetails is what the summary leaves out.
func TestParseLogDetails(t *testing.T) {
	l := parse(t, "testdata", "logs", "llama-server-0.32.log")
	first, last := l.Loads[0], l.Loads[4]
	if first.Name != "Some 8B" || first.Quantisation != "Q4_K - Medium" || first.Registry != "registry.ollama.ai/library/some:8b" {
		t.Errorf("model: %q, %q, %q", first.Name, first.Quantisation, first.Registry)
	}
	if got := []int{*first.LayersAsked, *first.LayersOverflowing, *first.Threads}; !slices.Equal(got, []int{30, 2, 6}) || *first.MMap {
		t.Errorf("layers asked, overflowing, threads: %v, mmap %v", got, *first.MMap)
	}
	if got := first.Free["CUDA0"]; got != 7005<<20 {
		t.Errorf("free before the load: %d", got)
	}
	if first.Host == nil || *first.Host.FreeBytes != 12<<30 || *first.Host.SwapFree != 0 {
		t.Errorf("host: %+v", first.Host)
	}
	if last.Detail != "context 16384 to 65536, batch 512 to 2048" {
		t.Errorf("why it was loaded again: %q", last.Detail)
	}
	if *last.SincePreviousS != 55 {
		t.Errorf("since the load before: %v", *last.SincePreviousS)
	}
	if l.DebugLog == nil || !*l.DebugLog || l.DebugBuild == nil || !*l.DebugBuild || l.SelfBuilt != nil {
		t.Errorf("builds: %v %v %v", l.DebugLog, l.DebugBuild, l.SelfBuilt)
	}
	if l.History.Reloads != 3 || l.History.LoadCount != 5 || l.History.Count(llm.Eviction) != 2 {
		t.Errorf("history: %+v", l.History)
	}
	for _, e := range l.History.Events {
		switch e.Kind {
		case llm.ContextReduced:
			if e.Detail != "8192 to 4096" {
				t.Errorf("context reduced: %q", e.Detail)
			}
		case llm.Eviction:
			if e.First == nil || e.Detail != "needs 6.0 GiB of 1.0 GiB" || e.Count != 2 || e.Last.Sub(*e.First) != time.Minute {
				t.Errorf("eviction: %+v", e)
			}
		}
	}
	setting := func(l *ollama.LogFacts, name string) string {
		for _, s := range l.Settings {
			if s.Name == name {
				return s.Value
			}
		}
		return "absent"
	}
	if got := setting(l, "OLLAMA_NUM_PARALLEL"); got != "4" {
		t.Errorf("OLLAMA_NUM_PARALLEL: %q", got)
	}

	// Privacy: no home folder, no proxy's password, no list of origins.
	for file, want := range map[string][2]string{
		"windows-0.17.log":   {"OLLAMA_MODELS", `C:~\.ollama\models`},
		"own-engine-0.6.log": {"HTTPS_PROXY", "(set)"},
		"journal-0.3.log":    {"OLLAMA_ORIGINS", "(set)"},
	} {
		if got := setting(parse(t, "testdata", "logs", file), want[0]); got != want[1] {
			t.Errorf("%s: %s is %q", file, want[0], got)
		}
	}
	if l := parse(t, "testdata", "logs", "json-0.1.32.log"); l.SelfBuilt == nil || !*l.SelfBuilt {
		t.Error("gin's debug mode was not seen")
	}
	if l := parse(t, "testdata", "logs", "journal-0.3.log"); !slices.Contains(l.Libraries, "cuda_v11") {
		t.Errorf("libraries: %v", l.Libraries)
	}
	w := parse(t, "testdata", "logs", "windows-0.17.log")
	if got := w.History.From.Format(time.RFC3339); got != "2026-02-26T09:00:00+01:00" {
		t.Errorf("from %s", got)
	}
	if got := w.Loads[1].Detail; got != "context 4096 to 8192" {
		t.Errorf("why it was loaded again: %q", got)
	}
}

// TestParseLogLines is every line of section 9 of the reference, and older and
// rarer ones, alone.
func TestParseLogLines(t *testing.T) {
	const slog = "time=2026-02-26T09:00:00.000+01:00 level=WARN source=x.go:1 "
	for _, tt := range []struct {
		line   string
		kind   llm.EventKind
		detail string
	}{
		{slog + `msg="model requires more gpu memory than is currently available, evicting a model to make space" "loaded layers"=12`, llm.Eviction, "12 layers would fit"},
		{slog + `msg="model requires more memory than is currently available, evicting a model to make space" estimate.library=cuda`, llm.Eviction, "model requires more memory than is currently available"},
		{slog + `msg="evicting all other loaded models for OOM retry" count=2`, llm.Eviction, "all others, after a load ran out of memory"},
		{slog + `msg="runtime OOM detected; expiring loaded models to clear memory before next request" model=x error=y`, llm.OutOfMemory, "while it answered"},
		{slog + `msg="model architecture does not currently support parallel requests" architecture=qwen35`, llm.SingleSlot, "qwen35"},
		{slog + `msg="mllama doesn't support parallel requests yet"`, llm.SingleSlot, "mllama"},
		{slog + `msg="multimodal models don't support parallel requests yet"`, llm.SingleSlot, "multimodal models"},
		{slog + `msg="model does not support caching, disabling parallel processing"`, llm.SingleSlot, "the model has no cache"},
		{slog + `msg="OLLAMA_FLASH_ATTENTION must be enabled to use a quantized OLLAMA_KV_CACHE_TYPE" type=q8_0`, llm.KVTypeIgnored, "q8_0: OLLAMA_FLASH_ATTENTION=1 is not set"},
		{slog + `msg="quantized kv cache requested but flash attention disabled" type=q4_0`, llm.KVTypeIgnored, "q4_0: flash attention is off"},
		{slog + `msg="flash attention enabled but not supported by gpu"`, llm.FlashUnsupported, "by gpu"},
		{slog + `msg="truncating input prompt" limit=2048 prompt=5000 keep=4 new=2048`, llm.Truncation, "to the context of 2048 tokens"},
		{slog + `msg="user overrode visible devices" CUDA_VISIBLE_DEVICES=1`, llm.DevicesHidden, "CUDA_VISIBLE_DEVICES=1"},
		{slog + `msg="aborting completion request due to client closing the connection"`, llm.ClientGone, "while waiting for a slot"},
		{slog + `msg="client connection closed before llama-server finished loading, aborting load"`, llm.ClientGone, "while the model loaded"},
		{slog + `msg="server busy, please try again.  maximum pending requests exceeded"`, llm.QueueFull, ""},
		{slog + `msg="llama-server VRAM tracking: no per-device buffer sizes were parsed from llama-server logs. VRAM" model=/m gpus=1`, llm.VRAMUntracked, ""},
		{slog + `msg="disabling mmap for llama-server load by default" model=/m reason=windows_cuda`, llm.MMapOff, "windows_cuda"},
		{slog + `msg="disabling mmap for llama-server load due to host memory pressure" model=/m`, llm.MMapOff, "main memory is short"},
		{slog + `msg="request debug logging enabled; inference request logs will be stored in /tmp/x and include request bodies and replay curl commands"`, llm.RequestsLogged, ""},
		{slog + `msg="requested context size too large for model" num_ctx=65536 n_ctx_train=32768`, llm.ContextClipped, "asked for 65536, the model was made for 32768"},
		{slog + `msg="failure during GPU discovery" OLLAMA_LIBRARY_PATH="[/a /home/jane/b]" extra_envs=map[] error="runner crashed in /home/jane/x"`, llm.DiscoveryFailed, "failure during GPU discovery runner crashed in ~/x"},
		{slog + `msg="old CUDA driver detected - please upgrade to a newer driver" version=11.4`, llm.DriverTooOld, "old CUDA driver detected - please upgrade to a newer driver 11.4"},
		{slog + `msg="NVIDIA driver too old" driver=515`, llm.DriverTooOld, "NVIDIA driver too old"},
		{slog + `msg="[0] CUDA GPU is too old. Compute Capability detected: 3.5"`, llm.GPUTooOld, "[0] CUDA GPU is too old. Compute Capability detected: 3.5"},
		{slog + `msg="amdgpu is not supported" gpu=0 gpu_type=gfx1103 library=/opt/rocm`, llm.GPUTooOld, "amdgpu is not supported gfx1103"},
		{slog + `msg="CPU does not have AVX or AVX2, disabling GPU support."`, llm.MissingCaps, "CPU does not have AVX or AVX2, disabling GPU support."},
		{slog + `msg="entering low vram mode" "total vram"="8.0 GiB" threshold="20.0 GiB"`, llm.LowVRAM, "GPUs have 8.0 GiB together, less than 20.0 GiB"},
		{"2024/01/10 20:03:52 llm.go:77: INFO GPU not available, falling back to CPU", llm.CPUFallback, "GPU not available, falling back to CPU"},
		{"2024/01/10 20:03:52 llm.go:77: not enough vram available, falling back to CPU only", llm.CPUFallback, "not enough vram available, falling back to CPU only"},
		{"ollama  | CUDA error: out of memory", llm.OutOfMemory, "while it answered"},
		{"ggml_vulkan: Device memory allocation of size 1 failed. ErrorOutOfDeviceMemory", llm.OutOfMemory, "while it answered"},
		{"ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 100", llm.OutOfMemory, "while it answered"},
		{"panic: runtime error: index out of range", llm.RunnerCrashed, "panic: runtime error: index out of range"},
		{slog + `msg="llama runner terminated" error="exit status 2"`, llm.RunnerCrashed, "exit status 2"},
		{slog + `msg="Load failed" model=/m error="timed out"`, llm.LoadFailed, "timed out"},
		{`Jul 26 18:00:00 box ollama[1]: ` + slog + `msg="invalid environment variable, using default" key=OLLAMA_NUM_PARALLEL value=four default=1`, llm.BadSetting, "OLLAMA_NUM_PARALLEL=four, taken: 1"},
		{`{"time":"2026-02-26T09:00:00Z","level":"WARN","msg":"truncating input prompt","limit":4096}`, llm.Truncation, "to the context of 4096 tokens"},
		{"\x1b[33m" + slog + "\x1b[0m" + `msg="truncating input prompt" limit=512`, llm.Truncation, "to the context of 512 tokens"},
	} {
		l := ollama.ParseLog([]byte(tt.line + "\n"))
		if len(l.History.Events) != 1 || l.Recognised != 1 {
			t.Errorf("%s\n\tgave %+v", tt.line, l.History.Events)
			continue
		}
		if e := l.History.Events[0]; e.Kind != tt.kind || e.Detail != tt.detail || e.Count != 1 {
			t.Errorf("%s\n\tgave %+v; want %s, %q", tt.line, e, tt.kind, tt.detail)
		}
	}
}

// TestParseLogDevices is the line about a device, in its forms.
func TestParseLogDevices(t *testing.T) {
	const slog = "time=2026-02-26T09:00:00.000+01:00 level=INFO source=types.go:42 msg=\"inference compute\" "
	gib := func(f float64) *int64 { return new(int64(f * (1 << 30))) }
	from := []llm.Source{llm.FromLog}
	for _, tt := range []struct {
		attrs string
		want  llm.Device
	}{
		{
			`id=GPU-9 filter_id="" library=CUDA compute=8.9 name=CUDA0 description="NVIDIA GeForce RTX 4060 Laptop GPU" libdirs=ollama,cuda_v13 driver=13.0 pci_id=0000:01:00.0 type=discrete total="8.0 GiB" available="7.5 GiB"`,
			llm.Device{ID: "GPU-9", Name: "CUDA0", Description: "NVIDIA GeForce RTX 4060 Laptop GPU", Library: "cuda_v13", Backend: llm.CUDA, Type: "discrete", Integrated: new(false), Compute: "8.9", Driver: "13.0", PCI: "0000:01:00.0", TotalBytes: gib(8), FreeBytes: gib(7.5), Sources: from},
		},
		{
			`id=0 library=ROCm compute=gfx1151 name=ROCm0 description="AMD Radeon 8060S" libdirs=ollama,rocm driver=60342.13 pci_id=0000:c5:00.0 type=iGPU total="96.0 GiB" available="95.5 GiB"`,
			llm.Device{ID: "0", Name: "ROCm0", Description: "AMD Radeon 8060S", Library: "rocm", Backend: llm.ROCm, Type: "iGPU", Integrated: new(true), Compute: "gfx1151", Driver: "60342.13", PCI: "0000:c5:00.0", TotalBytes: gib(96), FreeBytes: gib(95.5), Sources: from},
		},
		{
			`id=0 filter_id=0 library=Vulkan compute=0.0 name=Vulkan0 description="Intel(R) Arc(TM) A770" libdirs=ollama,vulkan driver=0.0 pci_id="" type=discrete total="16.0 GiB" available="15.0 GiB"`,
			llm.Device{ID: "0", Name: "Vulkan0", Description: "Intel(R) Arc(TM) A770", Library: "vulkan", Backend: llm.Vulkan, Type: "discrete", Integrated: new(false), TotalBytes: gib(16), FreeBytes: gib(15), Sources: from},
		},
		{
			`id=0 library=Metal compute=0.0 name=Metal description="Apple M2" libdirs="" driver=0.0 pci_id="" type=discrete total="16.0 GiB" available="16.0 GiB"`,
			llm.Device{ID: "0", Name: "Metal", Description: "Apple M2", Library: "metal", Backend: llm.Metal, Type: "discrete", TotalBytes: gib(16), FreeBytes: gib(16), Sources: from},
		},
		{
			`id=cpu library=cpu compute="" name=cpu description=cpu libdirs=ollama driver="" pci_id="" type="" total="8.0 GiB" available="4.0 GiB"`,
			llm.Device{ID: "cpu", Name: "cpu", Description: "cpu", Library: "cpu", Backend: llm.CPU, TotalBytes: gib(8), FreeBytes: gib(4), Sources: from},
		},
		{
			`id=GPU-4 library=cuda variant=v11 compute=6.1 driver=11.4 name="NVIDIA GeForce GTX 1080" total="8.0 GiB" available="7.0 GiB"`,
			llm.Device{ID: "GPU-4", Description: "NVIDIA GeForce GTX 1080", Library: "cuda_v11", Backend: llm.CUDA, Compute: "6.1", Driver: "11.4", TotalBytes: gib(8), FreeBytes: gib(7), Sources: from},
		},
	} {
		l := ollama.ParseLog([]byte(slog + tt.attrs))
		if diff := cmp.Diff([]llm.Device{tt.want}, l.Devices); diff != "" {
			t.Errorf("%s\n-want +got\n%s", tt.attrs, diff)
		}
	}
}

// TestParseLogLlamaServer is a llama-server that nobody started for us.
func TestParseLogLlamaServer(t *testing.T) {
	l := ollama.ParseLog([]byte(`build: 8000 (abcd) with GNU 13.2.0 for Linux x86_64
0.00.123.456 I srv    load_model: loading model '/models/some-8b-Q4_K_M.gguf'
0.00.200.000 I llama_model_loader: loaded meta data with 34 key-value pairs and 292 tensors from /models/some-8b-Q4_K_M.gguf (version GGUF V3 (latest))
print_info: arch                  = llama
load_tensors: offloaded 20/33 layers to GPU
load_tensors:          CPU model buffer size =   700.00 MiB
load_tensors:      Vulkan0 model buffer size =  2000.00 MiB
llama_context: n_ctx         = 16384
srv    load_model: initializing slots, n_slots = 4
slot   load_model: id  0 | task -1 | new slot, n_ctx = 4096
main: server is listening on http://127.0.0.1:8080 - starting the main loop
`))
	want := []string{"some-8b-Q4_K llama llama-server vulkan: slots 4 ctx 4096/16384 of -, batch -/-, flash /-, kv , layers 20/33, model 1.95+0.68 GiB, kv 0.00+0.00 GiB, -"}
	if got := summarise(&l); !slices.Equal(got.Loads, want) || !l.Loads[0].Ready {
		t.Errorf("got %q", got.Loads)
	}
}

// TestParseLogCutOff is what a log holds whose beginning is lost, and one whose
// end is.
func TestParseLogCutOff(t *testing.T) {
	whole, err := os.ReadFile(filepath.Join("testdata", "logs", "llama-server-0.32.log"))
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(whole), "starting llama-server")
	tail := ollama.ParseLog(whole[i-60:])
	if tail.Version != "" || tail.History.Starts != 0 || len(tail.Settings) != 0 || len(tail.Loads) < 4 {
		t.Errorf("without its beginning: version %q, %d starts, %d loads", tail.Version, tail.History.Starts, len(tail.Loads))
	}
	head := ollama.ParseLog(whole[:i+200])
	if head.Version != "0.32.15" || len(head.Loads) != 1 || head.Loads[0].Ready {
		t.Errorf("without its end: %q, %+v", head.Version, head.Loads)
	}
	twice := ollama.ParseLog(append(slices.Clone(whole), whole...))
	if twice.History.Starts != 2 || twice.History.LoadCount != 5 {
		t.Errorf("after a restart: %d starts, %d loads", twice.History.Starts, twice.History.LoadCount)
	}
}

func FuzzParseLog(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "logs", "*.log"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no fixtures: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`time=x level=INFO msg="a b" "k e"=v =x y= z`))
	f.Add([]byte(`{"log":"{\"log\":\"{}\"}"}`))
	f.Add([]byte(`level=INFO msg=load request="{Parallel:-1 KvSize:99999999999999999999 GPULayers:[}"`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := ollama.ParseLog(data)
		if l.Recognised > l.Lines || l.History.LoadCount != len(l.Loads) || l.History.Reloads > l.History.LoadCount {
			t.Fatalf("%d of %d lines, %d of %d loads", l.Recognised, l.Lines, l.History.Reloads, l.History.LoadCount)
		}
		for _, load := range l.Loads {
			for _, b := range load.Buffers {
				if b.Bytes < 0 {
					t.Fatalf("a buffer of %d bytes", b.Bytes)
				}
			}
		}
		var facts llm.Facts
		ollama.Merge(&facts, &l)
		ollama.MergeDefaults(&facts, nil)
	})
}
