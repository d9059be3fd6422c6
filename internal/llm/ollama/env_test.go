package ollama_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
	"millrace/internal/llm/ollama"
)

// pairs is settings as NAME=VALUE lines.
func pairs(settings []llm.Setting) string {
	var out []string
	for _, s := range settings {
		out = append(out, s.Name+"="+s.Value)
	}
	return strings.Join(out, "\n")
}

func TestParseEnvFile(t *testing.T) {
	for _, tt := range []struct {
		what, file, want string
		where            llm.Place
	}{
		{"env file", "\ufeff# OLLAMA_HOST=no\nOLLAMA_HOST=0.0.0.0:11434\r\nOLLAMA_MODELS=\"/big disk/models\"\nOTHER=1\nOLLAMA_KEEP_ALIVE='24h' # a day\nOLLAMA_ORIGINS=*\n", "OLLAMA_HOST=0.0.0.0:11434\nOLLAMA_MODELS=/big disk/models\nOLLAMA_KEEP_ALIVE=24h\nOLLAMA_ORIGINS=*", llm.InFile},
		{"shell", "#!/bin/sh\nexport OLLAMA_NUM_PARALLEL=4\nexport OLLAMA_A=1 OLLAMA_B=\"2 3\" ; export CUDA_VISIBLE_DEVICES=0\nOLLAMA_DEBUG=1 ollama serve\necho $OLLAMA_HOST ${OLLAMA_MODELS}\nOLLAMA_X=1 && ollama serve\n", "OLLAMA_NUM_PARALLEL=4\nOLLAMA_A=1\nOLLAMA_B=2 3\nCUDA_VISIBLE_DEVICES=0\nOLLAMA_DEBUG=1\nOLLAMA_X=1", llm.InFile},
		{"systemd", "[Unit]\nDescription=x\n[Service]\nEnvironment=\"OLLAMA_HOST=0.0.0.0\"\nEnvironment=\"OLLAMA_A=1 2\" \"OLLAMA_B=3\" OLLAMA_C=4\nEnvironment=OLLAMA_D=5 OLLAMA_E=6\n; Environment=OLLAMA_F=7\n", "OLLAMA_HOST=0.0.0.0\nOLLAMA_A=1 2\nOLLAMA_B=3\nOLLAMA_C=4\nOLLAMA_D=5\nOLLAMA_E=6", llm.InUnit},
		{"compose list", "services:\n  ollama:\n    environment:\n      - OLLAMA_HOST=0.0.0.0\n      - \"OLLAMA_NUM_PARALLEL=4\"\n      - OLLAMA_PASSED_ON\n      - DB_PASSWORD=secret\n      - NVIDIA_VISIBLE_DEVICES=all\n", "OLLAMA_HOST=0.0.0.0\nOLLAMA_NUM_PARALLEL=4\nNVIDIA_VISIBLE_DEVICES=all", llm.InContainer},
		{"compose map", "services:\n  ollama:\n    environment:\n      OLLAMA_NUM_PARALLEL: \"4\"\n      OLLAMA_KEEP_ALIVE: -1 # for ever\n      OLLAMA_FLASH_ATTENTION: ${FLASH:-1}\n", "OLLAMA_NUM_PARALLEL=4\nOLLAMA_KEEP_ALIVE=-1\nOLLAMA_FLASH_ATTENTION=${FLASH:-1}", llm.InContainer},
		{"compose flow", "services:\n  o:\n    environment: [OLLAMA_A=1, \"OLLAMA_B=2\"]\n", "OLLAMA_A=1\nOLLAMA_B=2", llm.InContainer},
		{"Dockerfile", "FROM ollama/ollama\nENV OLLAMA_HOST 0.0.0.0\nENV OLLAMA_A=1 OLLAMA_B=2\n", "OLLAMA_HOST=0.0.0.0\nOLLAMA_A=1\nOLLAMA_B=2", llm.InContainer},
		{"Windows", "@echo off\r\nREM set OLLAMA_X=1\r\nset OLLAMA_HOST=0.0.0.0\r\nsetx OLLAMA_NUM_PARALLEL 4\r\nsetx OLLAMA_MODELS \"D:\\models\"\r\n$env:OLLAMA_DEBUG=\"1\"\r\n[Environment]::SetEnvironmentVariable(\"OLLAMA_KEEP_ALIVE\", \"1h\", \"User\")\r\n", "OLLAMA_HOST=0.0.0.0\nOLLAMA_NUM_PARALLEL=4\nOLLAMA_MODELS=D:\\models\nOLLAMA_DEBUG=1\nOLLAMA_KEEP_ALIVE=1h", llm.InFile},
		{"launchctl", "launchctl setenv OLLAMA_HOST \"0.0.0.0\"\n", "OLLAMA_HOST=0.0.0.0", llm.InFile},
		{"plist", "<?xml version=\"1.0\"?>\n<plist version=\"1.0\">\n<dict>\n<key>EnvironmentVariables</key>\n<dict>\n  <key>OLLAMA_FLASH_ATTENTION</key>\n  <string>1</string>\n  <key>PATH</key>\n  <string>/bin</string>\n</dict>\n</dict>\n</plist>\n", "OLLAMA_FLASH_ATTENTION=1", llm.InUnit},
		{"docker run", "docker run -d -e OLLAMA_NUM_PARALLEL=4 -e OLLAMA_HOST=0.0.0.0 ollama/ollama\n", "OLLAMA_NUM_PARALLEL=4\nOLLAMA_HOST=0.0.0.0", llm.InFile},
		{"secrets and homes", "OLLAMA_API_KEY=sk-1\nOLLAMA_MODELS=/home/jane/models\nOLLAMA_CLOUD_BASE_URL=http://u:p@x\n", "OLLAMA_API_KEY=(set)\nOLLAMA_MODELS=~/models\nOLLAMA_CLOUD_BASE_URL=(set)", llm.InFile},
		{"empty", "OLLAMA_HOST=\nOLLAMA_ORIGINS=\"\"\n", "OLLAMA_HOST=\nOLLAMA_ORIGINS=", llm.InFile},
		{"nothing", "a: b\nnot OLLAMA_ here, MY_OLLAMA_HOST=1\n", "", llm.InFile},
	} {
		got := ollama.ParseEnvFile([]byte(tt.file), "f")
		if diff := cmp.Diff(tt.want, pairs(got)); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.what, diff)
		}
		for _, s := range got {
			if s.Where != tt.where || s.File != "f" || s.Line == 0 {
				t.Errorf("%s: %+v", tt.what, s)
			}
		}
	}
}

func TestParseEnviron(t *testing.T) {
	got := ollama.ParseEnviron([]byte("PATH=/bin\x00OLLAMA_HOST=0.0.0.0\x00HOME=/home/jane\x00OLLAMA_MODELS=/home/jane/m\x00CUDA_VISIBLE_DEVICES=\x00AWS_SECRET=x\x00broken\x00OLLAMA_NUM_PARALLEL=4=5\x00"))
	want := "OLLAMA_HOST=0.0.0.0\nOLLAMA_MODELS=~/m\nCUDA_VISIBLE_DEVICES=\nOLLAMA_NUM_PARALLEL=4=5"
	if diff := cmp.Diff(want, pairs(got)); diff != "" {
		t.Error(diff)
	}
	if got[0].Where != llm.InServer {
		t.Errorf("found in %s", got[0].Where)
	}
	if got := ollama.FromEnviron([]string{"OLLAMA_DEBUG=1", "PATH=x"}, llm.InShell); len(got) != 1 || got[0].Where != llm.InShell {
		t.Errorf("got %+v", got)
	}
}

func TestParseCommand(t *testing.T) {
	for _, tt := range []struct {
		line string
		want ollama.Command
	}{
		{
			"/usr/lib/ollama/llama-server --model /m/blobs/sha256-ab --port 44999 --host 127.0.0.1 --no-webui --offline -c 32768 -np 4 --cache-type-k q8_0 --cache-type-v q8_0 --flash-attn on -b 1024 -ub 512 -ngl 30 -t 6 --context-shift --keep 4 --no-mmap",
			ollama.Command{
				Program: "llama-server", Engine: llm.LlamaServerEngine, Model: "sha256-ab", HasModel: true, ContextTotal: new(32768), Slots: new(4),
				Batch: new(1024), Microbatch: new(512), GPULayers: new(30), Threads: new(6), Flash: llm.On, KVTypeK: "q8_0", KVTypeV: "q8_0", MMap: new(false),
			},
		},
		{
			"/tmp/ollama1/runners/cuda_v12_avx/ollama_llama_server runner --model /m/sha256:ab --ctx-size 8192 --batch-size 512 --n-gpu-layers 33 --threads 36 --flash-attn --kv-cache-type q4_0 --parallel 4 --tensor-split 17,16 --port 1",
			ollama.Command{
				Program: "ollama_llama_server", Engine: llm.LlamaRunner, Model: "sha256-ab", HasModel: true, ContextTotal: new(8192), Slots: new(4), Batch: new(512),
				GPULayers: new(33), Threads: new(36), Flash: llm.On, KVTypeK: "q4_0", KVTypeV: "q4_0", TensorSplit: "17,16", Library: "cuda_v12_avx",
			},
		},
		{`C:\Program Files\Ollama\ollama.exe runner --ollama-engine --model C:\Users\A B\blobs\sha256-cd --port 5`, ollama.Command{Program: "ollama.exe", Engine: llm.OllamaEngine, Model: "sha256-cd", HasModel: true}},
		{"/usr/local/bin/ollama runner --ollama-engine --port 45861", ollama.Command{Program: "ollama", Engine: llm.OllamaEngine}},
		{
			"llama-server -m x.gguf --parallel=8 --ctx-size=0 -ngl all -fa auto -ctk q8_0 -t -1 -fit off -fitt 512 -dev CUDA0 --metrics -mg 1 --mmproj p.gguf -lm mmap",
			ollama.Command{
				Program: "llama-server", Engine: llm.LlamaServerEngine, Model: "x.gguf", HasModel: true, Slots: new(8), ContextTotal: new(0), Flash: llm.Auto,
				KVTypeK: "q8_0", Threads: new(-1), Fit: llm.Off, FitTarget: "512", Device: "CUDA0", Metrics: true, MainGPU: new(1), Projector: true, MMap: new(true),
			},
		},
		{"llama-server", ollama.Command{Program: "llama-server", Engine: llm.LlamaServerEngine}},
		{"llama-server -c", ollama.Command{Program: "llama-server", Engine: llm.LlamaServerEngine}},
		{"", ollama.Command{}},
	} {
		if diff := cmp.Diff(tt.want, ollama.ParseCommandLine(tt.line)); diff != "" {
			t.Errorf("%s\n-want +got\n%s", tt.line, diff)
		}
		if !strings.Contains(tt.line, " B") && !strings.Contains(tt.line, "Program ") && tt.line != "" {
			nul := strings.ReplaceAll(tt.line, " ", "\x00") + "\x00"
			if diff := cmp.Diff(tt.want, ollama.ParseCmdline([]byte(nul))); diff != "" {
				t.Errorf("%s, as /proc has it\n-want +got\n%s", tt.line, diff)
			}
		}
	}
	for _, tt := range []struct{ k, v, want string }{{"", "", ""}, {"q8_0", "q8_0", "q8_0"}, {"q8_0", "", "q8_0"}, {"", "q8_0", "f16/q8_0"}, {"f16", "q4_0", "f16/q4_0"}} {
		if got := (ollama.Command{KVTypeK: tt.k, KVTypeV: tt.v}).KVType(); got != tt.want {
			t.Errorf("%q %q: %q", tt.k, tt.v, got)
		}
	}
}

func TestLogPaths(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for _, p := range pairs {
				if k, v, _ := strings.Cut(p, "="); k == name {
					return v
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		goos string
		env  func(string) string
		want []ollama.LogSource
	}{
		{"windows", env(`LOCALAPPDATA=C:\Users\a\AppData\Local`), []ollama.LogSource{{Path: `C:\Users\a\AppData\Local\Ollama\server.log`}}},
		{"windows", env(`USERPROFILE=C:\Users\a`), []ollama.LogSource{{Path: `C:\Users\a\AppData\Local\Ollama\server.log`}}},
		{"windows", env(), nil},
		{"darwin", env("HOME=/Users/a"), []ollama.LogSource{{Path: "/Users/a/.ollama/logs/server.log"}, {Path: "/opt/homebrew/var/log/ollama.log"}, {Path: "/usr/local/var/log/ollama.log"}}},
		{"linux", env("HOME=/home/a/"), []ollama.LogSource{{Command: ollama.JournalCommand}, {Command: ollama.UserJournalCommand}, {Path: "/home/a/.ollama/logs/server.log"}}},
	} {
		if diff := cmp.Diff(tt.want, ollama.LogPaths(tt.goos, tt.env)); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.goos, diff)
		}
	}
}

func FuzzParseEnvFile(f *testing.F) {
	for _, s := range []string{
		"OLLAMA_A=1\n", "export OLLAMA_A='1' OLLAMA_B=\"2\"", "- OLLAMA_A: [1,2]", "<plist>\n<key>OLLAMA_A</key>\n<string>1</string>",
		"SetEnvironmentVariable(\"OLLAMA_A\", \"1\")", "setx OLLAMA_A", "Environment=\"OLLAMA_A=1", "OLLAMA_=", "ENV OLLAMA_A OLLAMA_B OLLAMA_C",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, s := range ollama.ParseEnvFile(data, "f") {
			if s.Name == "" || strings.ContainsAny(s.Value, "\n\x00") && !strings.ContainsRune(string(data), 0) {
				t.Fatalf("%+v", s)
			}
		}
		ollama.CheckSettings("0.17.4", ollama.ParseEnvFile(data, "f"))
		ollama.ParseEnviron(data)
	})
}

func FuzzParseCommand(f *testing.F) {
	f.Add("/usr/lib/ollama/llama-server --model /m/x -c 4096 -np 4 --flash-attn on")
	f.Add("ollama runner --ollama-engine --model C:\\A B\\c --ctx-size=1")
	f.Add("-c --- = -np=")
	f.Fuzz(func(t *testing.T, line string) {
		c := ollama.ParseCommandLine(line)
		if strings.ContainsAny(c.Program+c.Model, "/") {
			t.Fatalf("a folder was left in %+v", c)
		}
		ollama.ParseCmdline([]byte(line))
	})
}
