package ollama_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
	"millrace/internal/llm/ollama"
)

// TestFoundingCase is the file that Millrace began with.
func TestFoundingCase(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "ollama_config.env"))
	if err != nil {
		t.Fatal(err)
	}
	vars := ollama.ParseEnvFile(data, "ollama_config.env")
	notes := ollama.CheckSettings("0.17.4", vars)
	want := []struct {
		name    string
		verdict llm.Verdict
		instead string // in Instead
		note    string // in Note
	}{
		{"OLLAMA_NUM_GPU", llm.NotRead, "option num_gpu", "no release of Ollama has ever read"},
		{"OLLAMA_GPU_LAYERS", llm.NotRead, "option num_gpu", "no release of Ollama has ever read"},
		{"OLLAMA_NUM_PARALLEL", llm.SettingRead, "", "a file that nothing loads has no effect"},
		{"OLLAMA_NUM_THREAD", llm.NotRead, "option num_thread", "ollama #17920"},
		{"OLLAMA_FLASH_ATTENTION", llm.SettingRead, "", "a file that nothing loads has no effect"},
	}
	if len(notes) != len(want) {
		t.Fatalf("%d notes, want %d: %+v", len(notes), len(want), notes)
	}
	for i, w := range want {
		n := notes[i]
		if n.Name != w.name || n.Verdict != w.verdict || !strings.Contains(n.Instead, w.instead) || !strings.Contains(n.Note, w.note) {
			t.Errorf("%s\n\twant %+v", n, w)
		}
		if n.Where != llm.InFile || n.File != "ollama_config.env" || n.Line == 0 {
			t.Errorf("%s: found in %s %s:%d", n.Name, n.Where, n.File, n.Line)
		}
		if (n.Verdict == llm.NotRead) != (w.instead != "") {
			t.Errorf("%s: instead %q", n.Name, n.Instead)
		}
	}

	// The server's own environment shows that nothing loaded the file.
	server := []llm.Setting{{Name: "OLLAMA_HOST", Value: "0.0.0.0", Where: llm.InServer}}
	for _, n := range ollama.CheckSettings("0.17.4", append(vars, server...)) {
		switch n.Name {
		case "OLLAMA_NUM_PARALLEL", "OLLAMA_FLASH_ATTENTION":
			if n.Verdict != llm.WrongPlace || !strings.Contains(n.Note, "the running server does not have it") {
				t.Errorf("%s", n)
			}
		case "OLLAMA_HOST":
			if n.Verdict != llm.SettingRead {
				t.Errorf("%s", n)
			}
		}
	}
	// With it loaded, both count.
	server = append(server, llm.Setting{Name: "OLLAMA_NUM_PARALLEL", Value: "4", Where: llm.InServer},
		llm.Setting{Name: "OLLAMA_FLASH_ATTENTION", Value: "true", Where: llm.InServer})
	for _, n := range ollama.CheckSettings("0.17.4", append(vars, server...)) {
		if n.Where == llm.InFile && n.Verdict != llm.NotRead && n.Verdict != llm.SettingRead {
			t.Errorf("%s", n)
		}
	}
	// Below 0.30 nobody's names are nobody's names in every version.
	for _, version := range []string{"", "0.0.0", "0.1.33", "0.32.15", "0.40.0"} {
		for _, n := range ollama.CheckSettings(version, vars) {
			if n.Name == "OLLAMA_NUM_GPU" && n.Verdict != llm.NotRead {
				t.Errorf("version %q: %s", version, n)
			}
		}
	}
}

func TestCheckSettings(t *testing.T) {
	at := func(where llm.Place, pairs ...string) []llm.Setting {
		var out []llm.Setting
		for _, p := range pairs {
			name, v, _ := strings.Cut(p, "=")
			out = append(out, llm.Setting{Name: name, Value: v, Where: where})
		}
		return out
	}
	for _, tt := range []struct {
		what    string
		version string
		vars    []llm.Setting
		verdict llm.Verdict // of the first
		holds   string      // in its line
	}{
		{"a boolean that is none is true", "0.17.4", at(llm.InServer, "OLLAMA_FLASH_ATTENTION=off"), llm.BadValue, "counts as true"},
		{"quotes and spaces are stripped", "0.17.4", at(llm.InServer, `OLLAMA_FLASH_ATTENTION= "0" `), llm.SettingRead, ""},
		{"a number that is none is ignored", "0.17.4", at(llm.InServer, "OLLAMA_NUM_PARALLEL=four"), llm.BadValue, "the default is taken (1)"},
		{"a sign is no number", "0.17.4", at(llm.InServer, "OLLAMA_NUM_PARALLEL=-1"), llm.BadValue, "the default is taken"},
		{"bytes without unit", "0.17.4", at(llm.InServer, "OLLAMA_GPU_OVERHEAD=1g"), llm.BadValue, "whole number"},
		{"bytes that are too few", "0.17.4", at(llm.InServer, "OLLAMA_GPU_OVERHEAD=512"), llm.SettingRead, "it is in bytes"},
		{"a duration in seconds", "0.17.4", at(llm.InServer, "OLLAMA_KEEP_ALIVE=5"), llm.SettingRead, "a plain number is seconds"},
		{"no duration", "0.17.4", at(llm.InServer, "OLLAMA_KEEP_ALIVE=5min"), llm.BadValue, "ignored without a word"},
		{"for ever", "0.17.4", at(llm.InServer, "OLLAMA_KEEP_ALIVE=-1"), llm.SettingRead, ""},
		{"parallel 0 was automatic", "0.6.2", at(llm.InServer, "OLLAMA_NUM_PARALLEL=0"), llm.SettingRead, "0 is automatic"},
		{"parallel 0 is 1", "0.17.4", at(llm.InServer, "OLLAMA_NUM_PARALLEL=0"), llm.SettingRead, "0 is 1"},
		{"kv type", "0.17.4", at(llm.InServer, "OLLAMA_KV_CACHE_TYPE=q5_0"), llm.BadValue, "not a type"},
		{"kv type of llama-server", "0.30.0", at(llm.InServer, "OLLAMA_KV_CACHE_TYPE=q5_0"), llm.SettingRead, ""},
		{"kv type without flash attention", "0.17.4", at(llm.InServer, "OLLAMA_KV_CACHE_TYPE=q8_0"), llm.SettingRead, "ignored unless OLLAMA_FLASH_ATTENTION=1"},
		{"kv type against flash attention", "0.30.0", at(llm.InServer, "OLLAMA_KV_CACHE_TYPE=q8_0", "OLLAMA_FLASH_ATTENTION=0"), llm.SettingRead, "switches off"},
		{"kv type with flash attention", "0.17.4", at(llm.InServer, "OLLAMA_KV_CACHE_TYPE=q8_0", "OLLAMA_FLASH_ATTENTION=1"), llm.SettingRead, ""},
		{"not yet", "0.17.4", at(llm.InServer, "OLLAMA_IGPU_ENABLE=1"), llm.NotInVersion, "read from 0.30.0 on; this is 0.17.4"},
		{"no longer", "0.30.0", at(llm.InServer, "OLLAMA_NEW_ENGINE=1"), llm.NotInVersion, "read up to 0.24.0"},
		{"was", "", at(llm.InServer, "OLLAMA_INTEL_GPU=1"), llm.SettingRead, "read only from 0.1.45 to 0.12.10"},
		{"recommended and gone", "0.17.4", at(llm.InServer, "OLLAMA_TMPDIR=/x"), llm.NotInVersion, "troubleshooting page"},
		{"a near miss", "0.17.4", at(llm.InServer, "OLLAMA_NUM_PARALLELS=4"), llm.NotRead, "use instead: OLLAMA_NUM_PARALLEL"},
		{"small letters", "0.17.4", at(llm.InServer, "ollama_num_parallel=4"), llm.NotRead, "names are in capitals"},
		{"something else", "0.17.4", at(llm.InServer, "OLLAMA_MAKE_IT_FAST=1"), llm.NotRead, "not among the names"},
		{"newer than the table", "0.40.0", at(llm.InServer, "OLLAMA_MAKE_IT_FAST=1"), llm.NotRead, "newer than the table"},
		{"a shell's", "0.17.4", at(llm.InShell, "OLLAMA_NUM_PARALLEL=4"), llm.WrongPlace, "does not see the shell's"},
		{"a shell's that the client reads", "0.17.4", at(llm.InShell, "OLLAMA_HOST=gpu1"), llm.SettingRead, "only the client"},
		{"a shell's, of the command line", "0.17.4", at(llm.InShell, "OLLAMA_NOHISTORY=1"), llm.SettingRead, ""},
		{"a unit's", "0.17.4", at(llm.InUnit, "OLLAMA_NUM_PARALLEL=4"), llm.SettingRead, "started anew"},
		{"a unit's that the server lacks", "0.17.4", append(at(llm.InUnit, "OLLAMA_NUM_PARALLEL=4"), at(llm.InServer, "OLLAMA_NUM_PARALLEL=1")...), llm.WrongPlace, `the running server has "1"`},
		{"a unit's that the log shows", "0.17.4", append(at(llm.InUnit, "OLLAMA_KEEP_ALIVE=-1"), at(llm.InLog, "OLLAMA_KEEP_ALIVE=2562047h47m16.854775807s")...), llm.SettingRead, "has this value"},
		{"a host that the log shows", "0.17.4", append(at(llm.InContainer, "OLLAMA_HOST=0.0.0.0"), at(llm.InLog, "OLLAMA_HOST=http://0.0.0.0:11434")...), llm.SettingRead, "has this value"},
		{"a shell's that the log denies", "0.17.4", append(at(llm.InShell, "OLLAMA_FLASH_ATTENTION=1"), at(llm.InLog, "OLLAMA_FLASH_ATTENTION=false")...), llm.WrongPlace, `has "false"`},
		{"the log's false", "0.17.4", at(llm.InLog, "OLLAMA_FLASH_ATTENTION=false"), llm.SettingRead, `for "not set" too`},
		{"llama-server's, overridden", "0.30.0", at(llm.InServer, "LLAMA_ARG_N_PARALLEL=4"), llm.NotRead, "OLLAMA_NUM_PARALLEL"},
		{"llama-server's, passed on", "0.30.0", at(llm.InServer, "LLAMA_ARG_NO_MMAP=1"), llm.SettingRead, "undocumented"},
		{"llama-server's, too early", "0.17.4", at(llm.InServer, "LLAMA_ARG_NO_MMAP=1"), llm.NotInVersion, "from 0.30.0"},
		{"fit", "0.30.0", at(llm.InServer, "LLAMA_ARG_FIT_TARGET=512"), llm.SettingRead, "leaves free"},
		{"all devices hidden", "0.17.4", at(llm.InServer, "CUDA_VISIBLE_DEVICES=-1"), llm.SettingRead, "hides all"},
		{"draft of MLX", "0.24.0", at(llm.InServer, "OLLAMA_MLX_MTP_X=1"), llm.SettingRead, ""},
		{"draft of MLX, gone", "0.32.0", at(llm.InServer, "OLLAMA_MLX_MTP_X=1"), llm.NotInVersion, "read up to 0.30.10"},
		{"a library's", "0.17.4", at(llm.InServer, "GGML_CUDA_ENABLE_UNIFIED_MEMORY=1"), llm.SettingRead, "not Ollama's own"},
		{"request log", "0.32.0", at(llm.InServer, "OLLAMA_DEBUG_LOG_REQUESTS=1"), llm.SettingRead, "prompts end up"},
		{"empty", "0.32.0", at(llm.InServer, "OLLAMA_KV_CACHE_TYPE="), llm.SettingRead, "the same as not set"},
		{"debug", "0.32.0", at(llm.InServer, "OLLAMA_DEBUG=yes"), llm.BadValue, "0, 1 or 2"},
		{"MLX candidate", "v0.30.0-rc1", at(llm.InServer, "OLLAMA_IGPU_ENABLE=1"), llm.SettingRead, ""},
	} {
		notes := ollama.CheckSettings(tt.version, tt.vars)
		if len(notes) != len(tt.vars) {
			t.Errorf("%s: %d notes", tt.what, len(notes))
			continue
		}
		if got := notes[0].String() + " " + notes[0].Effect; notes[0].Verdict != tt.verdict || !strings.Contains(got, tt.holds) {
			t.Errorf("%s: %s\n\twant %s, %q", tt.what, got, tt.verdict, tt.holds)
		}
	}
	if notes := ollama.CheckSettings("0.17.4", at(llm.InServer, "PATH=/bin", "LANG=C")); notes != nil {
		t.Errorf("variables of others: %+v", notes)
	}
}

// TestVariables keeps the table in order.
func TestVariables(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range ollama.Variables() {
		if seen[v.Name] {
			t.Errorf("%s is there twice", v.Name)
		}
		seen[v.Name] = true
		if (v.Reader == ollama.ByNobody) != (v.Since == "") {
			t.Errorf("%s: read by %s since %q", v.Name, v.Reader, v.Since)
		}
		if v.Reader == ollama.ByNobody && v.Instead == "" {
			t.Errorf("%s: nothing to use instead", v.Name)
		}
		if v.Reader != ollama.ByNobody && v.Effect == "" {
			t.Errorf("%s: no effect", v.Name)
		}
	}
	for name := range strings.FieldsSeq("OLLAMA_HOST OLLAMA_NUM_PARALLEL OLLAMA_NUM_GPU OLLAMA_SKIP_CPU_GENERATE OLLAMA_TMPDIR OLLAMA_AUTH") {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestDefaultsFor(t *testing.T) {
	const gib = 1 << 30
	vram := func(n int64) *int64 { n *= gib; return &n }
	for _, tt := range []struct {
		version  string
		vram     *int64
		slots    *int
		upTo     *int
		context  *int
		flash    llm.Switch
		vulkanOn *bool
	}{
		{"0.1.48", nil, new(1), nil, new(2048), llm.Off, new(false)},
		{"0.5.7", nil, nil, new(4), new(2048), llm.Off, new(false)},
		{"0.6.7", vram(8), nil, new(2), new(4096), llm.Off, new(false)},
		{"0.10.0", vram(80), new(1), nil, new(4096), llm.Off, new(false)},
		{"0.13.4", vram(80), new(1), nil, new(4096), llm.Auto, new(false)},
		{"0.15.5", vram(8), new(1), nil, new(4096), llm.Auto, new(false)},
		{"0.17.4", vram(24), new(1), nil, new(32768), llm.Auto, new(false)},
		{"0.17.4", vram(80), new(1), nil, new(262144), llm.Auto, new(false)},
		{"0.17.4", nil, new(1), nil, nil, llm.Auto, new(false)},
		{"v0.30.0-rc1", vram(0), new(1), nil, new(4096), llm.Auto, new(true)},
		{"0.0.0", vram(8), nil, nil, nil, "", nil},
		{"", nil, nil, nil, nil, "", nil},
		{"garbage", nil, nil, nil, nil, "", nil},
	} {
		d := ollama.DefaultsFor(tt.version, tt.vram)
		if diff := cmp.Diff([]any{tt.slots, tt.upTo, tt.context, tt.flash, tt.vulkanOn}, []any{d.Slots, d.SlotsUpTo, d.Context, d.FlashAttention, d.Vulkan}); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.version, diff)
		}
		if d.KeepAlive != 300 || d.MaxQueue != 512 {
			t.Errorf("%s: %+v", tt.version, d)
		}
	}
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		version string
		dev     bool
		about   string
		behind  int
	}{
		{"0.17.4", false, "2026-02-26", 4},
		{"0.17.3", false, "2026-02-22", 4},
		{"0.15.2", false, "2026-01-23", 5},
		{"0.1.32", false, "2023-09-25", 10},
		{"0.32.15", false, "2026-07-13", 0},
		{"0.0.0", true, "", 0},
		{"0.6.0-rc0-12-g1234567-dirty", true, "2025-03-11", 9},
		{"v0.30.0-rc1", false, "2026-06-01", 3},
		{"b4501", false, "", 0},
		{"", false, "", 0},
	} {
		if got := ollama.DevBuild(tt.version); got != tt.dev {
			t.Errorf("%q: development build %v", tt.version, got)
		}
		if got := ollama.ReleasedAbout(tt.version); got != tt.about {
			t.Errorf("%q: released %q", tt.version, got)
		}
		if got := ollama.ChangesSince(tt.version); len(got) != tt.behind {
			t.Errorf("%q: behind %d changes: %v", tt.version, len(got), got)
		}
	}
	for _, tt := range []struct {
		version, arch string
		newEngine     bool
		want          llm.Engine
	}{
		{"0.17.4", "llama", false, llm.LlamaRunner},
		{"0.17.4", "llama", true, llm.OllamaEngine},
		{"0.17.4", "qwen3", false, llm.OllamaEngine},
		{"0.17.4", "", false, ""},
		{"0.9.0", "qwen3", false, ""},
		{"0.3.0", "gemma3", false, llm.LlamaRunner},
		{"0.30.5", "qwen3", false, llm.LlamaServerEngine},
		{"0.0.0", "qwen3", false, ""},
	} {
		if got := ollama.EngineFor(tt.version, tt.arch, tt.newEngine); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.version, tt.arch, got, tt.want)
		}
	}
	for _, tt := range []struct {
		version, arch string
		want          bool
	}{{"0.17.4", "qwen3vl", true}, {"0.17.4", "llama", false}, {"0.17.4", "nemotron_h_omni", false}, {"0.32.0", "nemotron_h_omni", true}, {"0.9.0", "mllama", true}, {"", "mllama", false}} {
		if got := ollama.SingleSlotOnly(tt.version, tt.arch); got != tt.want {
			t.Errorf("%s %s: %v", tt.version, tt.arch, got)
		}
	}
}
