package openai_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
	"millrace/internal/llm/openai"
)

// inspect serves the given pages and asks for facts. A page of "501 text" is
// an error.
func inspect(t *testing.T, header string, pages map[string]string, model string) (llm.Facts, error) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if header != "" {
			w.Header().Set("Server", header)
		}
		page, ok := pages[r.URL.Path]
		if !ok || r.Method != http.MethodGet {
			http.NotFound(w, r)
			return
		}
		if status, text, isError := strings.Cut(page, " "); isError && len(status) == 3 {
			var code int
			_, _ = fmt.Sscan(status, &code)
			w.WriteHeader(code)
			page = text
		}
		_, _ = io.WriteString(w, page)
	}))
	t.Cleanup(srv.Close)
	s, err := openai.Open(t.Context(), srv.URL, srv.Client(), "")
	if err != nil {
		t.Fatal(err)
	}
	return s.Facts(t.Context(), model)
}

func prom(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const llamaModels = `{"object":"list","data":[{"id":"some-8b","object":"model","owned_by":"llamacpp","meta":{"vocab_type":2,"n_vocab":128256,"n_ctx_train":131072,"n_embd":4096,"n_params":8030261312,"size":4912898304}}]}`

func TestLlamaServerFacts(t *testing.T) {
	pages := map[string]string{
		"/v1/models": llamaModels,
		"/props":     `{"default_generation_settings":{"id":0,"n_ctx":4096,"params":{"temperature":0.8}},"total_slots":4,"model_path":"/home/jane/models/some-8b-Q4_K_M.gguf","model_alias":"some-8b","chat_template":"x","build_info":"b8000-0123abcd","is_sleeping":false}`,
		"/slots":     `[{"id":0,"n_ctx":4096,"is_processing":true,"prompt":"a secret","next_token":[{"n_decoded":5}]},{"id":1,"n_ctx":4096,"is_processing":true},{"id":2,"n_ctx":4096,"is_processing":true},{"id":3,"n_ctx":4096,"is_processing":false}]`,
		"/metrics":   prom(t, "llama-server.prom"),
	}
	const api = llm.FromAPI
	got, err := inspect(t, "llama.cpp", pages, "")
	if err != nil {
		t.Fatal(err)
	}
	want := llm.Facts{
		Kind: llm.LlamaServer, Version: llm.Known("b8000-0123abcd", api), Engine: llm.Known(llm.LlamaServerEngine, api),
		Slots: llm.Known(4, api), ContextPerSlot: llm.Known(4096, api), ContextTotal: llm.Known(16384, api), ContextTrained: llm.Known(131072, api),
		Model: &llm.ModelFacts{
			Name: "some-8b", Blob: "some-8b-Q4_K_M.gguf", Format: "gguf", Parameters: new(int64(8030261312)), WeightBytes: new(int64(4912898304)),
			ContextTrained: new(int64(131072)), Vocabulary: new(int64(128256)), Source: api,
		},
		Loaded: []llm.Residency{{Name: "some-8b"}}, LoadedKnown: true,
		Counters: &llm.Counters{
			Processing: new(4.), Waiting: new(3.), BusySlots: new(3), Sleeping: new(false), PromptTokens: new(48210.), PromptSeconds: new(12.504),
			GeneratedTokens: new(10240.), GeneratedSeconds: new(204.8), Decodes: new(4100.), SlotsPerDecode: new(2.5), LongestTokens: new(3900.),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	// Without its pages, and an old build.
	pages["/metrics"] = `501 {"error":{"code":501,"message":"This server does not support metrics endpoint.","type":"not_supported_error"}}`
	pages["/slots"] = `[{"id":0,"n_ctx":2048,"state":0},{"id":1,"n_ctx":2048,"state":1}]`
	got, err = inspect(t, "llama.cpp", pages, "some-8b")
	if err != nil || got.Slots.Or(0) != 2 || *got.Counters.BusySlots != 1 || got.Counters.Waiting != nil || got.ContextTotal.Or(0) != 4096 {
		t.Errorf("got %+v, %v", got, err)
	}
	if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "--metrics") {
		t.Errorf("notes %q", got.Notes)
	}
	pages["/slots"] = `501 {"error":{"code":501,"message":"This server does not support slots endpoint. Start it with --slots","type":"not_supported_error"}}`
	got, err = inspect(t, "llama.cpp", pages, "")
	if err != nil || got.Slots.Or(0) != 4 || got.Counters.BusySlots != nil || len(got.Notes) != 2 {
		t.Errorf("got %+v, %v", got, err)
	}

	// A router has several models and says which are loaded.
	pages = map[string]string{
		"/v1/models": `{"object":"list","data":[{"id":"a","owned_by":"llamacpp","status":{"value":"loaded"}},{"id":"b","owned_by":"llamacpp","status":{"value":"unloaded"}}]}`,
		"/props":     `{"role":"router","default_generation_settings":{},"build_info":"b8000-0123abcd"}`,
	}
	got, err = inspect(t, "llama.cpp", pages, "a")
	if err != nil || len(got.Loaded) != 1 || got.Loaded[0].Name != "a" || got.Slots != nil || !strings.Contains(strings.Join(got.Notes, "\n"), "router") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestVLLMFacts(t *testing.T) {
	const api = llm.FromAPI
	pages := map[string]string{
		"/v1/models": `{"object":"list","data":[{"id":"meta-llama/Llama-3.1-8B-Instruct","object":"model","owned_by":"vllm","root":"meta-llama/Llama-3.1-8B-Instruct","parent":null,"max_model_len":8192},{"id":"adapter","owned_by":"vllm","parent":"meta-llama/Llama-3.1-8B-Instruct"}]}`,
		"/version":   `{"version":"0.6.3"}`,
		"/metrics":   prom(t, "vllm-old.prom"),
	}
	got, err := inspect(t, "uvicorn", pages, "")
	if err != nil {
		t.Fatal(err)
	}
	want := llm.Facts{
		Kind: llm.VLLM, Version: llm.Known("0.6.3", api), DevBuild: llm.Known(false, api), Engine: llm.Known(llm.VLLMEngine, api),
		ContextPerSlot: llm.Known(8192, api), KVCapacity: llm.Known(440000, api), PrefixCache: llm.Known(false, api),
		Model:  &llm.ModelFacts{Name: "meta-llama/Llama-3.1-8B-Instruct", Source: api},
		Loaded: []llm.Residency{{Name: "meta-llama/Llama-3.1-8B-Instruct"}}, LoadedKnown: true,
		Counters: &llm.Counters{
			Processing: new(8.), Waiting: new(2.), KVUsage: new(0.25), PromptTokens: new(1000.), GeneratedTokens: new(2000.), Preemptions: new(1.),
			FirstToken: &llm.Mean{Sum: 0.5, Count: 10}, PerToken: &llm.Mean{Sum: 19.9, Count: 1990}, EndToEnd: &llm.Mean{Sum: 25, Count: 10},
		},
		Settings: []llm.Setting{
			{Name: "block_size", Value: "16", Where: llm.InServer},
			{Name: "cache_dtype", Value: "auto", Where: llm.InServer},
			{Name: "cpu_offload_gb", Value: "0", Where: llm.InServer},
			{Name: "enable_prefix_caching", Value: "False", Where: llm.InServer},
			{Name: "gpu_memory_utilization", Value: "0.9", Where: llm.InServer},
			{Name: "num_gpu_blocks", Value: "27500", Where: llm.InServer},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	pages["/v1/models"] = `{"object":"list","data":[{"id":"qwen","object":"model","owned_by":"vllm","max_model_len":32768}]}`
	pages["/version"] = `{"version":"0.11.0"}`
	pages["/metrics"] = prom(t, "vllm-new.prom")
	got, err = inspect(t, "uvicorn", pages, "qwen")
	if err != nil {
		t.Fatal(err)
	}
	counters := &llm.Counters{
		Processing: new(7.), Waiting: new(5.), KVUsage: new(0.97), PromptTokens: new(1e6), PromptSeconds: new(1.5), GeneratedTokens: new(2e6),
		GeneratedSeconds: new(30.), Preemptions: new(7.), PrefixQueries: new(400.), PrefixHits: new(100.), DraftTokens: new(50.), DraftAccepted: new(40.),
		FirstToken: &llm.Mean{Sum: 4, Count: 20}, PerToken: &llm.Mean{Sum: 3, Count: 300}, QueueTime: &llm.Mean{Sum: 2, Count: 20},
	}
	if diff := cmp.Diff(counters, got.Counters); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got.KVCapacity.Or(0) != 102400 || got.KVType.Or("") != "fp8" || !got.PrefixCache.Or(false) || got.Slots != nil {
		t.Errorf("got %+v", got)
	}
	delete(pages, "/metrics")
	if got, err := inspect(t, "uvicorn", pages, "qwen"); err != nil || got.Counters != nil || len(got.Notes) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestLMStudioFacts(t *testing.T) {
	pages := map[string]string{
		"/v1/models": `{"object":"list","data":[{"id":"meta-llama-3.1-8b-instruct","object":"model","owned_by":"organization_owner"}]}`,
		"/api/v0/models": `{"object":"list","data":[
{"id":"qwen2-vl-7b-instruct","object":"model","type":"vlm","publisher":"mlx-community","arch":"qwen2_vl","compatibility_type":"mlx","quantization":"4bit","state":"not-loaded","max_context_length":32768},
{"id":"meta-llama-3.1-8b-instruct","object":"model","type":"llm","publisher":"x","arch":"llama","compatibility_type":"gguf","quantization":"Q4_K_M","state":"loaded","max_context_length":131072,"loaded_context_length":4096},
{"id":"embed","object":"model","type":"embeddings","arch":"nomic-bert","compatibility_type":"gguf","quantization":"Q4_0","state":"loaded","max_context_length":2048}]}`,
	}
	const api = llm.FromAPI
	got, err := inspect(t, "", pages, "")
	if err != nil {
		t.Fatal(err)
	}
	want := llm.Facts{
		Kind: llm.LMStudio, Engine: llm.Known(llm.LlamaCpp, api), ContextPerSlot: llm.Known(4096, api), ContextTrained: llm.Known(131072, api),
		Model:  &llm.ModelFacts{Name: "meta-llama-3.1-8b-instruct", Architecture: "llama", Quantisation: "Q4_K_M", Format: "gguf", ContextTrained: new(int64(131072)), Source: api},
		Loaded: []llm.Residency{{Name: "meta-llama-3.1-8b-instruct", Context: new(4096), Quantised: "Q4_K_M", Family: "llama"}}, LoadedKnown: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	got, err = inspect(t, "", pages, "qwen2-vl-7b-instruct")
	if err != nil || got.Engine.Or("") != llm.MLXEngine || got.ContextPerSlot != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPlainFacts(t *testing.T) {
	pages := map[string]string{"/v1/models": `{"object":"list","data":[{"id":"m","object":"model","owned_by":"someone"}]}`}
	got, err := inspect(t, "", pages, "")
	want := llm.Facts{Kind: llm.OpenAI, Model: &llm.ModelFacts{Name: "m", Source: llm.FromAPI}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// TestFactsUnreachable is a server that went away.
func TestFactsUnreachable(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, llamaModels)
	}))
	s, err := openai.Open(t.Context(), srv.URL, srv.Client(), "")
	if err != nil {
		t.Fatal(err)
	}
	srv.Close()
	if _, err := s.Facts(t.Context(), ""); llm.KindOf(err) != llm.Unreachable {
		t.Errorf("got %v", err)
	}
}

func TestParseMetrics(t *testing.T) {
	for _, tt := range []struct {
		line string
		want openai.Metrics
	}{
		{"", nil},
		{"# HELP a b", nil},
		{"a 1", openai.Metrics{{Name: "a", Value: 1}}},
		{"a\t1.5e3 1700000000", openai.Metrics{{Name: "a", Value: 1500}}},
		{`a{} 2`, openai.Metrics{{Name: "a", Labels: map[string]string{}, Value: 2}}},
		{`a{b="c",d="e\"f\\g\nh",} 3`, openai.Metrics{{Name: "a", Labels: map[string]string{"b": "c", "d": "e\"f\\g\nh"}, Value: 3}}},
		{`a{b = "}" , c="="} 4 # {trace="x"} 1`, openai.Metrics{{Name: "a", Labels: map[string]string{"b": "}", "c": "="}, Value: 4}}},
		{`a{b="c} 4`, nil},
		{`a{b} 4`, nil},
		{`a x`, nil},
		{`{} 1`, nil},
		{"alone", nil},
		{"a 1\r\nb 2\n\n", openai.Metrics{{Name: "a", Value: 1}, {Name: "b", Value: 2}}},
	} {
		if diff := cmp.Diff(tt.want, openai.ParseMetrics([]byte(tt.line))); diff != "" {
			t.Errorf("%q: -want +got\n%s", tt.line, diff)
		}
	}
	if m := openai.ParseMetrics([]byte("a NaN\nb +Inf\nc -Inf")); len(m) != 3 {
		t.Errorf("got %v", m)
	}
}

func FuzzParseMetrics(f *testing.F) {
	for _, name := range []string{"llama-server.prom", "vllm-old.prom", "vllm-new.prom"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`a{b="\`))
	f.Fuzz(func(t *testing.T, page []byte) {
		for _, s := range openai.ParseMetrics(page) {
			if s.Name == "" || strings.ContainsAny(s.Name, "{ \n") {
				t.Fatalf("%+v", s)
			}
		}
	})
}
