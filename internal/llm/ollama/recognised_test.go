package ollama_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
	"millrace/internal/llm/ollama"
)

var update = flag.Bool("update", false, "write docs/recognised-logs.md anew")

// TestSharedLogs reads the real logs that we were given, which may not be
// copied here.
func TestSharedLogs(t *testing.T) {
	dir := shared(t, "data", "ollama-logs")
	const cpuModel = "model 0.00+"
	for file, want := range map[string]summary{
		"a40_partial_48of65.log": {
			Version: "0.30.10", Starts: 1, Devices: []string{"NVIDIA A40|cuda_v13|discrete|"}, Default: 32768,
			Loads:   []string{"sha256-ac3d1 qwen2 llama-server cuda_v13: slots 1 ctx 4096/4096 of 32768, batch 512/512, flash auto/true, kv f16, layers 48/65, model 13.34+5.14 GiB, kv 0.73+0.27 GiB, 25.64 s"},
			Reasons: []llm.LoadReason{llm.FirstLoad}, Events: map[llm.EventKind]int{}, Requests: 1,
		},
		"apple-m4pro_49of49.log": {
			Version: "0.22.0", Starts: 1, Devices: []string{"Apple M4 Pro|metal|discrete|"}, Default: 4096,
			Loads:   []string{"sha256-ac9bc qwen2 llama.cpp runner metal: slots 1 ctx 32768/32768 of 32768, batch 512/512, flash on/true, kv q4_0, layers 49/49, model 7.96+0.41 GiB, kv 1.69+0.00 GiB, 1.07 s"},
			Reasons: []llm.LoadReason{llm.FirstLoad}, Events: map[llm.EventKind]int{llm.ContextClipped: 1}, Requests: 1,
		},
		"cpu-only_2024-12_avx2.log": {
			Version: "0.3.14", Starts: 2, Devices: []string{"|cpu_avx2||"}, Events: map[llm.EventKind]int{llm.NoGPU: 1},
		},
		"cpu-only_8GB.log": {
			Version: "0.15.4", Starts: 1, Devices: []string{"cpu|cpu||"},
			Loads:   []string{"sha256-74701 llama llama.cpp runner cpu: slots 1 ctx 4096/4096 of 131072, batch 512/512, flash auto/true, kv f16, layers 0/17, " + cpuModel + "1.22 GiB, kv 0.00+0.12 GiB, 4.31 s"},
			Reasons: []llm.LoadReason{llm.FirstLoad}, Events: map[llm.EventKind]int{llm.VulkanOff: 1, llm.LowVRAM: 1}, Requests: 2,
		},
		"rtx3090_partial_49of65.log": {
			Version: "0.19.0", Starts: 1, Devices: []string{"NVIDIA GeForce RTX 3090|cuda_v12|discrete|"}, Default: 32768,
			Loads: []string{
				"sha256-ac3d1 qwen2 llama.cpp runner cuda_v12: slots 1 ctx 32768/32768 of 32768, batch 512/512, flash auto/true, kv f16, layers 49/65, model 13.29+18.48 GiB, kv 6.12+1.88 GiB, 5.31 s",
				"sha256-dec52 qwen35 ollama engine cuda_v12: slots 1 ctx 32768/32768 of -, batch 512/-, flash on/true, kv , layers 33/33, model 5.60+0.55 GiB, kv 2.20+0.00 GiB, 4.67 s",
			},
			Reasons: []llm.LoadReason{llm.FirstLoad, llm.FirstLoad}, Events: map[llm.EventKind]int{llm.VulkanOff: 1}, Requests: 99,
		},
		"rtx4060-laptop_partial_12of29_cuda13.log": {
			Version: "0.13.5", Starts: 1, Devices: []string{"NVIDIA GeForce RTX 4060 Laptop GPU|cuda_v13|discrete|"},
			Loads:   []string{"sha256-2fdcb qwen2vl llama.cpp runner cuda_v13: slots 1 ctx 4096/4096 of 32768, batch 512/512, flash auto/true, kv f16, layers 12/29, model 1.58+2.77 GiB, kv 0.09+0.12 GiB, 2.57 s"},
			Reasons: []llm.LoadReason{llm.FirstLoad}, Events: map[llm.EventKind]int{llm.VulkanOff: 1, llm.LowVRAM: 1}, Requests: 1,
		},
		"t4_17of17.log": {
			Version: "0.15.2", Starts: 1, Devices: []string{"Tesla T4|cuda_v12|discrete|"},
			Loads: slices.Collect(func(yield func(string) bool) {
				for _, s := range []string{"1.87", "1.63", "1.64"} {
					if !yield("sha256-74701 llama llama.cpp runner cuda_v12: slots 1 ctx 4096/4096 of 131072, batch 512/512, flash auto/true, kv f16, layers 17/17, model 1.22+0.26 GiB, kv 0.12+0.00 GiB, " + s + " s") {
						return
					}
				}
			}),
			Reasons: []llm.LoadReason{llm.FirstLoad, llm.AfterIdle, llm.AfterIdle}, Events: map[llm.EventKind]int{llm.VulkanOff: 1, llm.LowVRAM: 1}, Requests: 182,
		},
		"v100_33of33.log": {
			Version: "0.0.0", Starts: 1, Devices: []string{"Tesla V100-SXM2-32GB|cuda_v12||"},
			Loads:   []string{"sha256-667b0 llama llama.cpp runner cuda_v12: slots 4 ctx 2048/8192 of 131072, batch 512/512, flash off/false, kv f16, layers 33/33, model 4.30+0.28 GiB, kv 1.00+0.00 GiB, 4.27 s"},
			Reasons: []llm.LoadReason{llm.FirstLoad}, Events: map[llm.EventKind]int{}, Requests: 1,
		},
	} {
		t.Run(file, func(t *testing.T) {
			l := parse(t, dir, file)
			if diff := cmp.Diff(want, summarise(l)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if len(l.Settings) < 20 {
				t.Errorf("%d settings", len(l.Settings))
			}
			for _, load := range l.Loads {
				if !load.Ready || load.Time == nil || load.Host == nil || len(load.Buffers) < 4 {
					t.Errorf("load of %s: ready %v, time %v, host %v, %d buffers", load.Model, load.Ready, load.Time, load.Host, len(load.Buffers))
				}
			}
			for _, d := range l.Devices {
				if d.TotalBytes == nil || d.FreeBytes == nil {
					t.Errorf("device without memory: %+v", d)
				}
			}
		})
	}
}

// TestRecognisedLogs writes the table of what was recognised in each log, and
// holds it true.
func TestRecognisedLogs(t *testing.T) {
	dir := shared(t, "data", "ollama-logs")
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob(filepath.Join("testdata", "logs", "*.log"))
	if err != nil || len(files) == 0 || len(own) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	var b bytes.Buffer
	b.WriteString("# What is recognised in logs\n\n" +
		"Every server log under `../shared/data/ollama-logs`, and the fixtures of our own writing under\n" +
		"`internal/llm/ollama/testdata/logs` (marked *), as `ollama.ParseLog` reads them. Written and held true by\n" +
		"`go test ./internal/llm/ollama -run TestRecognisedLogs` (`-update` writes it anew). – is what the log does not say.\n" +
		"Lines: those that something was taken from, of all; most others are the model's metadata, progress, and requests for lists.\n\n" +
		"## Server\n\n| log | version | lines | starts | settings | devices: library, type, total, free GiB | default context | events | requests |\n|---|---|---|---|---|---|---|---|---|\n")
	logs := map[string]*ollama.LogFacts{}
	var names []string
	for _, f := range append(files, own...) {
		name := filepath.Base(f)
		if slices.Contains(own, f) {
			name += " *"
		}
		logs[name] = parse(t, f)
		names = append(names, name)
	}
	for _, name := range names {
		l := logs[name]
		var devices, events, requests []string
		for _, d := range l.Devices {
			s := d.Description
			for _, x := range []string{d.Library, d.Type, inGiB(d.TotalBytes), inGiB(d.FreeBytes)} {
				s += ", " + dash(x)
			}
			if d.Dropped != "" {
				s += ", dropped"
			}
			devices = append(devices, strings.TrimPrefix(s, ", "))
		}
		for _, e := range l.History.Events {
			s := string(e.Kind)
			if e.Detail != "" {
				s += " (" + e.Detail + ")"
			}
			if e.Count > 1 {
				s += fmt.Sprintf(" ×%d", e.Count)
			}
			events = append(events, s)
		}
		for _, status := range slices.Sorted(maps.Keys(l.History.Statuses)) {
			requests = append(requests, fmt.Sprintf("%d × %s", l.History.Statuses[status], status))
		}
		context := dash("")
		if l.DefaultContext != nil {
			context = fmt.Sprint(*l.DefaultContext)
		}
		version := l.Version
		if l.DevBuild != nil && *l.DevBuild {
			version += " (development)"
		}
		if l.SelfBuilt != nil {
			version += " (self-built)"
		}
		fmt.Fprintf(&b, "| %s | %s | %d of %d | %d | %d | %s | %s | %s | %s |\n", name, dash(version), l.Recognised, l.Lines, l.History.Starts, len(l.Settings),
			dash(strings.Join(devices, "; ")), context, dash(strings.Join(events, "; ")), dash(strings.Join(requests, ", ")))
	}
	b.WriteString("\n## Loads\n\n| log | architecture, quantisation | engine | library | slots | context per slot, total, trained | batch, micro | flash attention set, used | KV type | layers on GPU | buffers | seconds | reason |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range names {
		for _, load := range logs[name].Loads {
			n := func(p ...*int) string {
				var out []string
				for _, x := range p {
					if x == nil {
						out = append(out, "–")
					} else {
						out = append(out, fmt.Sprint(*x))
					}
				}
				return strings.Join(out, ", ")
			}
			used := "–"
			if load.FlashUsed != nil {
				used = fmt.Sprint(*load.FlashUsed)
			}
			reason := string(load.Reason)
			if load.Detail != "" {
				reason += ": " + load.Detail
			}
			if load.Failed != "" {
				reason += "; failed: " + load.Failed
			}
			s := "–"
			if load.Seconds != nil {
				s = fmt.Sprintf("%.2f", float64(*load.Seconds))
			}
			fmt.Fprintf(&b, "| %s | %s, %s | %s | %s | %s | %s | %s | %s, %s | %s | %s | %d | %s | %s |\n", name, dash(load.Architecture), dash(load.Quantisation), load.Engine,
				dash(load.Library), n(load.Slots), n(load.ContextPerSlot, load.ContextTotal, load.ContextTrained), n(load.Batch, load.Microbatch),
				dash(string(load.Flash)), used, dash(load.KVType), strings.ReplaceAll(n(load.GPULayers, load.Layers), ", ", " of "), len(load.Buffers), s, reason)
		}
	}
	doc := filepath.Join("..", "..", "..", "docs", "recognised-logs.md")
	if *update {
		if err := os.WriteFile(doc, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Error("docs/recognised-logs.md is out of date: go test ./internal/llm/ollama -run TestRecognisedLogs -update")
	}
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return strings.ReplaceAll(s, "|", "\\|")
}

func inGiB(n *int64) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf("%.1f", float64(*n)/(1<<30))
}
