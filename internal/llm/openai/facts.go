package openai

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"millrace/internal/llm"
)

var _ llm.Inspector = (*Server)(nil)

// Facts asks what the product offers besides the chat API: llama-server's
// /props, /slots and /metrics, vLLM's /version and /metrics, LM Studio's
// /api/v0/models. A plain OpenAI server gives no more than its list of models.
func (s *Server) Facts(ctx context.Context, model string) (llm.Facts, error) {
	f := llm.Facts{Kind: s.info.Kind}
	if s.info.Version != "" {
		f.Version = llm.Known(s.info.Version, llm.FromAPI)
	}
	var l list
	err := s.get(ctx, "/v1/models", func(_ http.Header, body []byte) error { return l.read(body) })
	if err != nil && s.info.Kind != llm.LMStudio {
		if e, ok := errors.AsType[*llm.Error](err); ok {
			return llm.Facts{}, e
		}
		return llm.Facts{}, err
	}
	if model == "" {
		if ids := l.bases(); len(ids) == 1 {
			model = ids[0]
		}
	}
	switch s.info.Kind {
	case llm.LlamaServer:
		s.llamaFacts(ctx, &f, l, model)
	case llm.VLLM:
		s.vllmFacts(ctx, &f, l, model)
	case llm.LMStudio:
		if err := s.studioFacts(ctx, &f, model); err != nil {
			return llm.Facts{}, err
		}
	default:
		if model != "" {
			f.Model = &llm.ModelFacts{Name: model, Source: llm.FromAPI}
		}
	}
	return f, nil
}

// bases are the names of the models that are no adapters of another.
func (l list) bases() []string {
	var out []string
	for _, m := range l.models {
		if m.Parent.Kind() != jsontext.KindString {
			out = append(out, m.ID)
		}
	}
	return out
}

// ask gets an object that may not be there, and notes why it is not.
func (s *Server) askFor(ctx context.Context, f *llm.Facts, what string, to any) bool {
	err := s.get(ctx, what, func(_ http.Header, body []byte) error {
		if err := llm.DecodeJSON(body, to); err != nil {
			return llm.NotProtocol(s.info.Kind, body, err)
		}
		return nil
	})
	if err != nil {
		f.Note("%s: %v", what, err)
	}
	return err == nil
}

// metrics gets the page of counters; hint says how to have one.
func (s *Server) metrics(ctx context.Context, f *llm.Facts, hint string) Metrics {
	var m Metrics
	err := s.get(ctx, "/metrics", func(_ http.Header, body []byte) error {
		m = ParseMetrics(body)
		return nil
	})
	switch e, ok := errors.AsType[*llm.Error](err); {
	case err == nil && len(m) == 0:
		f.Note("/metrics: holds nothing that can be read")
	case err == nil:
	case ok && (e.Status == http.StatusNotImplemented || e.Status == http.StatusNotFound):
		f.Note("/metrics: %s", hint)
	default:
		f.Note("/metrics: %v", err)
	}
	return m
}

// llamaFacts asks a llama-server. The prompts that /slots holds are not read.
func (s *Server) llamaFacts(ctx context.Context, f *llm.Facts, l list, model string) {
	put(&f.Engine, llm.LlamaServerEngine)
	var props struct {
		Settings struct {
			Context *int `json:"n_ctx"`
		} `json:"default_generation_settings"`
		Slots    *int   `json:"total_slots"`
		Path     string `json:"model_path"`
		Alias    string `json:"model_alias"`
		Build    string `json:"build_info"`
		Sleeping *bool  `json:"is_sleeping"`
		Role     string `json:"role"`
	}
	c := llm.Counters{}
	if s.askFor(ctx, f, "/props", &props) {
		if props.Build != "" {
			put(&f.Version, props.Build)
		}
		if props.Slots != nil && *props.Slots > 0 {
			put(&f.Slots, *props.Slots)
		}
		if n := props.Settings.Context; n != nil && *n > 0 {
			put(&f.ContextPerSlot, *n)
		}
		c.Sleeping = props.Sleeping
		if props.Role == "router" {
			f.Note("/props: this is a router, which starts a server for each model; slots and context are that server's")
		}
	}
	var slots []struct {
		Context *int  `json:"n_ctx"`
		Busy    *bool `json:"is_processing"`
		State   *int  `json:"state"` // in place of it in old builds: 0 is idle
	}
	if s.askFor(ctx, f, "/slots", &slots) && len(slots) > 0 {
		put(&f.Slots, len(slots))
		busy, known := 0, true
		for _, slot := range slots {
			switch {
			case slot.Busy != nil && *slot.Busy, slot.Busy == nil && slot.State != nil && *slot.State != 0:
				busy++
			case slot.Busy == nil && slot.State == nil:
				known = false
			}
		}
		if known {
			c.BusySlots = &busy
		}
		if n := slots[0].Context; n != nil && *n > 0 {
			put(&f.ContextPerSlot, *n)
		}
	}
	if f.Slots != nil && f.ContextPerSlot != nil {
		put(&f.ContextTotal, f.Slots.Value*f.ContextPerSlot.Value)
	}
	if m := s.metrics(ctx, f, "the server was started without --metrics, so its queue cannot be seen"); len(m) > 0 {
		m.llamaCounters(&c)
	}
	f.Counters = &c
	for _, m := range l.models {
		if model != "" && m.ID != model {
			continue
		}
		f.Model = m.facts()
		f.Model.Blob = fileName(props.Path)
		if t := f.Model.ContextTrained; t != nil && *t < 1<<31 {
			put(&f.ContextTrained, int(*t))
		}
		break
	}
	if f.Model == nil && (model != "" || props.Path != "") {
		f.Model = &llm.ModelFacts{Name: model, Blob: fileName(props.Path), Source: llm.FromAPI}
	}
	f.LoadedKnown = len(l.models) > 0
	for _, m := range l.models {
		// A router says which it has in memory; a server of one model has it.
		if state := m.state(); state == "loaded" || state == "" && len(l.models) == 1 {
			f.Loaded = append(f.Loaded, llm.Residency{Name: m.ID})
		}
	}
}

// put sets a fact that the server's API told.
func put[T any](to **llm.Fact[T], v T) { *to = llm.Known(v, llm.FromAPI) }

// fileName is the last part of a path of any system.
func fileName(p string) string {
	if p == "" {
		return ""
	}
	return path.Base(strings.ReplaceAll(p, `\`, "/"))
}

// facts reads llama-server's meta.
func (m listed) facts() *llm.ModelFacts {
	out := &llm.ModelFacts{Name: m.ID, Format: "gguf", Source: llm.FromAPI}
	var meta struct {
		Trained    *int64 `json:"n_ctx_train"`
		Vocabulary *int64 `json:"n_vocab"`
		Parameters *int64 `json:"n_params"`
		Size       *int64 `json:"size"`
	}
	if m.Meta == nil || llm.DecodeJSON(m.Meta, &meta) != nil {
		return out
	}
	out.ContextTrained, out.Vocabulary, out.Parameters, out.WeightBytes = meta.Trained, meta.Vocabulary, meta.Parameters, meta.Size
	return out
}

// vllmFacts asks a vLLM server. How many sequences it may run at once
// (--max-num-seqs) is told nowhere.
func (s *Server) vllmFacts(ctx context.Context, f *llm.Facts, l list, model string) {
	put(&f.Engine, llm.VLLMEngine)
	var v struct {
		Version string `json:"version"`
	}
	if s.askFor(ctx, f, "/version", &v) && v.Version != "" {
		put(&f.Version, v.Version)
		put(&f.DevBuild, strings.Contains(v.Version, "dev"))
	}
	for _, m := range l.models {
		if model != "" && m.ID != model {
			continue
		}
		f.Model = &llm.ModelFacts{Name: m.ID, Source: llm.FromAPI}
		break
	}
	for _, name := range l.bases() {
		f.Loaded = append(f.Loaded, llm.Residency{Name: name})
	}
	f.LoadedKnown = true
	var lengths struct {
		Data []struct {
			ID     string `json:"id"`
			Length *int   `json:"max_model_len"`
		} `json:"data"`
	}
	if s.askFor(ctx, f, "/v1/models", &lengths) {
		for _, m := range lengths.Data {
			if m.Length != nil && *m.Length > 0 && (model == "" || m.ID == model) {
				put(&f.ContextPerSlot, *m.Length)
				break
			}
		}
	}
	m := s.metrics(ctx, f, "the server has no such page")
	if len(m) == 0 {
		return
	}
	f.Counters = &llm.Counters{}
	m.vllmCounters(f.Counters, model)
	m.cacheConfig(f)
}

// cacheConfig reads vLLM's vllm:cache_config_info, whose labels are settings.
func (m Metrics) cacheConfig(f *llm.Facts) {
	labels := m.info("vllm:cache_config_info")
	if labels == nil {
		return
	}
	whole := func(name string) (int, bool) {
		n, err := strconv.ParseInt(labels[name], 10, 32)
		return int(n), err == nil && n > 0
	}
	if n, ok := whole("kv_cache_size_tokens"); ok {
		put(&f.KVCapacity, n)
	} else if blocks, ok := whole("num_gpu_blocks"); ok {
		if size, ok := whole("block_size"); ok && blocks < 1<<40/size {
			put(&f.KVCapacity, blocks*size)
		}
	}
	if t := labels["cache_dtype"]; t != "" && t != "auto" && t != "None" {
		put(&f.KVType, t)
	}
	if b, err := strconv.ParseBool(labels["enable_prefix_caching"]); err == nil {
		put(&f.PrefixCache, b)
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		switch name {
		case "gpu_memory_utilization", "block_size", "num_gpu_blocks", "cache_dtype", "enable_prefix_caching",
			"swap_space", "cpu_offload_gb", "sliding_window", "kv_cache_max_concurrency":
			if v := labels[name]; v != "" && v != "None" {
				f.Settings = append(f.Settings, llm.Setting{Name: name, Value: v, Where: llm.InServer})
			}
		}
	}
}

// studioFacts asks LM Studio (docs, REST API v0).
func (s *Server) studioFacts(ctx context.Context, f *llm.Facts, model string) error {
	var l struct {
		Data []struct {
			ID           string   `json:"id"`
			Type         string   `json:"type"`
			Arch         string   `json:"arch"`
			Format       string   `json:"compatibility_type"`
			Quantisation string   `json:"quantization"`
			State        string   `json:"state"`
			Most         *int64   `json:"max_context_length"`
			Loaded       *int     `json:"loaded_context_length"`
			Capabilities []string `json:"capabilities"`
		} `json:"data"`
	}
	err := s.get(ctx, "/api/v0/models", func(_ http.Header, body []byte) error {
		if err := llm.DecodeJSON(body, &l); err != nil {
			return llm.NotProtocol(s.info.Kind, body, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.LoadedKnown = true
	for _, m := range l.Data {
		if m.State == "loaded" && m.Type != "embeddings" {
			f.Loaded = append(f.Loaded, llm.Residency{Name: m.ID, Context: m.Loaded, Quantised: m.Quantisation, Family: m.Arch})
		}
	}
	if model == "" && len(f.Loaded) == 1 {
		model = f.Loaded[0].Name
	}
	for _, m := range l.Data {
		if m.ID != model {
			continue
		}
		f.Model = &llm.ModelFacts{
			Name: m.ID, Architecture: m.Arch, Quantisation: m.Quantisation, Format: m.Format,
			ContextTrained: m.Most, Capabilities: m.Capabilities, Source: llm.FromAPI,
		}
		if m.Most != nil && *m.Most > 0 && *m.Most < 1<<31 {
			put(&f.ContextTrained, int(*m.Most))
		}
		if m.Loaded != nil && *m.Loaded > 0 {
			put(&f.ContextPerSlot, *m.Loaded)
		}
		switch m.Format {
		case "gguf":
			put(&f.Engine, llm.LlamaCpp)
		case "mlx":
			put(&f.Engine, llm.MLXEngine)
		}
	}
	return nil
}
