package ollama

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"millrace/internal/gguf"
	"millrace/internal/llm"
)

var _ llm.Inspector = (*Server)(nil)

// Facts asks version, ps, tags and, for the model, show. Nothing in Ollama's
// API tells slots, flash attention, the type of the cache or the queue: those
// come from the log (Merge), the environment (MergeSettings), the child's
// command line (MergeCommand), and at last from what the version does by
// itself (MergeDefaults).
func (s *Server) Facts(ctx context.Context, model string) (llm.Facts, error) {
	f := llm.Facts{Kind: llm.Ollama}
	var answers int
	var first error
	ask := func(what string, err error) bool {
		switch {
		case err == nil:
			answers++
			return true
		case first == nil:
			first = err
		}
		f.Note("%s: %v", what, err)
		return false
	}
	version := s.info.Version
	err := s.get(ctx, "/api/version", func(_ http.Header, body []byte) {
		var reply struct {
			Version string `json:"version"`
		}
		if llm.DecodeJSON(body, &reply) == nil && reply.Version != "" {
			version = reply.Version // it may have been updated since it was opened
		}
	})
	if ask("version", err) || version != "" {
		describeVersion(&f, version, llm.FromAPI)
	}
	running, err := s.ps(ctx, version)
	if ask("models in memory", err) {
		f.Loaded, f.LoadedKnown = running, true
	}
	installed, err := s.tags(ctx)
	ask("installed models", err)
	if model == "" && len(f.Loaded) == 1 {
		model = f.Loaded[0].Name
	}
	for i := range f.Loaded {
		r := &f.Loaded[i]
		for _, m := range installed {
			if m.name() == r.Name && m.Size != nil {
				doubtSize(r, version, *m.Size)
			}
		}
	}
	if model != "" {
		s.factsOf(ctx, &f, model, installed, ask)
	}
	if answers == 0 {
		if e, ok := errors.AsType[*llm.Error](first); ok {
			return llm.Facts{}, e
		}
		return llm.Facts{}, first
	}
	return f, nil
}

// factsOf adds what is known of one model.
func (s *Server) factsOf(ctx context.Context, f *llm.Facts, model string, installed []listed, ask func(string, error) bool) {
	i := slices.IndexFunc(installed, func(m listed) bool { return sameModel(m.name(), model) })
	if i >= 0 {
		model = installed[i].name()
	}
	m, err := s.show(ctx, model)
	if !ask("model "+model, err) {
		m = llm.ModelFacts{Name: model, Source: llm.FromAPI}
	}
	if i >= 0 {
		m.Digest = installed[i].Digest
		if m.WeightBytes == nil && !m.Remote {
			m.WeightBytes = installed[i].Size
		}
	}
	f.Model = &m
	if m.ContextTrained != nil && *m.ContextTrained < math.MaxInt32 {
		put(&f.ContextTrained, int(*m.ContextTrained), llm.FromAPI)
	}
	if m.Layers != nil && *m.Layers < 1<<20 {
		put(&f.Layers, int(*m.Layers)+1, llm.FromAPI) // the output layer counts as one
	}
	for _, r := range f.Loaded {
		if sameModel(r.Name, model) && r.Context != nil && *r.Context > 0 {
			put(&f.ContextPerSlot, *r.Context, llm.FromAPI)
		}
	}
	if n := wholeNumber(m.Options["num_gpu"]); n != nil && *n >= 0 {
		put(&f.LayersAsked, *n, llm.FromAPI)
	}
	if n := wholeNumber(m.Options["num_thread"]); n != nil {
		put(&f.Threads, *n, llm.FromAPI)
	}
	if n := wholeNumber(m.Options["num_batch"]); n != nil {
		put(&f.Batch, *n, llm.FromAPI)
	}
}

// tags lists the installed models, with a time limit of its own.
func (s *Server) tags(ctx context.Context) ([]listed, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	return s.list(ctx, "/api/tags")
}

func sameModel(a, b string) bool {
	full := func(s string) string {
		if !strings.Contains(s[strings.LastIndexByte(s, '/')+1:], ":") {
			s += ":latest"
		}
		return s
	}
	return full(a) == full(b)
}

// describeVersion adds a version and what follows from it.
func describeVersion(f *llm.Facts, version string, from llm.Source) {
	if version == "" {
		return
	}
	put(&f.Version, version, from)
	put(&f.DevBuild, DevBuild(version), from)
	if day := ReleasedAbout(version); day != "" {
		put(&f.ReleasedAbout, day, from)
	}
	f.Changes = ChangesSince(version)
}

// ps lists the models in memory.
func (s *Server) ps(ctx context.Context, version string) ([]llm.Residency, error) {
	var reply struct {
		Models []struct {
			listed
			VRAM    *int64     `json:"size_vram"`
			Context *int       `json:"context_length"`
			Expires *time.Time `json:"expires_at"`
			Details struct {
				Family       string `json:"family"`
				Parameters   string `json:"parameter_size"`
				Quantisation string `json:"quantization_level"`
			} `json:"details"`
		} `json:"models"`
	}
	var now time.Time
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	err := s.end.Do(ctx, llm.Call{Path: "/api/ps"}, func(_ http.Header, body []byte) error {
		now = time.Now()
		if err := llm.DecodeJSON(body, &reply); err != nil {
			return llm.NotProtocol(llm.Ollama, body, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := []llm.Residency{}
	for _, m := range reply.Models {
		r := llm.Residency{
			Name: m.name(), Digest: m.Digest, SizeBytes: m.Size, VRAMBytes: m.VRAM,
			Quantised: m.Details.Quantisation, Family: m.Details.Family, Parameters: m.Details.Parameters,
		}
		if m.Context != nil && *m.Context > 0 { // before 0.10.0 there was none
			r.Context = m.Context
		}
		if m.Size != nil && m.VRAM == nil {
			r.VRAMBytes = new(int64(0)) // it is left out when it is 0
		}
		if t := m.Expires; t != nil && !t.IsZero() {
			r.ExpiresAt = t
			r.Stopping = t.Before(now)
			r.ForEver = t.After(now.AddDate(100, 0, 0))
		}
		if r.SizeBytes != nil {
			r.Processor, r.GPUPercent = Processor(*r.SizeBytes, *r.VRAMBytes)
		}
		basis(&r, version)
		out = append(out, r)
	}
	return out, nil
}

// Processor is the share of a model on GPUs as "ollama ps" prints it, and the
// share in percent, unrounded; nil where ps says Unknown (cmd/cmd.go,
// ListRunningHandler).
func Processor(size, vram int64) (string, *float64) {
	switch {
	case vram == 0:
		return "100% CPU", new(0.)
	case vram == size:
		return "100% GPU", new(100.)
	case vram > size || size == 0:
		return "Unknown", nil
	}
	cpu := math.Round(float64(size-vram) / float64(size) * 100)
	return fmt.Sprintf("%d%%/%d%% CPU/GPU", int(cpu), int(100-cpu)), new(float64(vram) / float64(size) * 100)
}

// basis adds how a version counts memory, and what is known to be wrong with
// it (reference/ollama.md section 7).
func basis(r *llm.Residency, version string) {
	v, ok := known(version)
	if !ok || r.GPUPercent == nil {
		return
	}
	share := *r.GPUPercent
	switch {
	case v.before("0.30.0"):
		r.Basis = "what the runner took from the GPUs; with all layers there, input weights and the CPU's part of the graph count as GPU"
	default:
		r.Basis = "buffers as llama-server lists them; with all layers on GPUs, memory on the host is left out"
		if share > 0 && share < 100 && v.before("0.30.11") {
			r.Doubts = append(r.Doubts, "weights mapped from the file are counted twice: the share on GPUs is higher than this")
		}
	}
}

// sizeSlack is by how much a model's manifest, which adds a licence and a
// template, can be larger than its weights' file.
const sizeSlack = 1 << 20

// doubtSize compares with the size of the model's files: from 0.30 on, a
// server that could not read its runner's account gives the file's size twice,
// which looks like 100% GPU (llm/llama_server.go, MemorySize).
func doubtSize(r *llm.Residency, version string, files int64) {
	v, ok := known(version)
	if !ok || v.before("0.30.0") || r.SizeBytes == nil || r.VRAMBytes == nil {
		return
	}
	if *r.SizeBytes == *r.VRAMBytes && *r.SizeBytes <= files && files-*r.SizeBytes < sizeSlack {
		r.Doubts = append(r.Doubts, "both sizes are the file's: the server could not tell how much is on GPUs, and it may be none")
	}
}

// doubtLog compares with the buffers in the log.
func doubtLog(r *llm.Residency, load *LoadFacts) {
	if r.GPUPercent == nil || load.GPULayers == nil || load.Layers == nil {
		return
	}
	if *r.GPUPercent == 100 && *load.GPULayers < *load.Layers {
		r.Doubts = append(r.Doubts, fmt.Sprintf("the log says that %d of %d layers are on GPUs", *load.GPULayers, *load.Layers))
	}
	if load.LayersOverflowing != nil && *load.LayersOverflowing > 0 {
		r.Doubts = append(r.Doubts, fmt.Sprintf("%d layers are on GPUs only in part", *load.LayersOverflowing))
	}
}

// show asks what a model is. Newer servers list tensors and long arrays only
// on demand, which is asked for where sizes or cache depend on it.
func (s *Server) show(ctx context.Context, model string) (llm.ModelFacts, error) {
	m, fp, err := s.showOnce(ctx, model, false)
	if err != nil {
		return llm.ModelFacts{}, advise(err, model)
	}
	if !m.Remote && (fp.TokenBytes == nil || fp.Estimated || fp.Cache == nil) {
		if more, fp2, err := s.showOnce(ctx, model, true); err == nil && (fp2.TokenBytes != nil || fp2.Cache != nil) {
			return more, nil
		}
	}
	return m, nil
}

func (s *Server) showOnce(ctx context.Context, model string, verbose bool) (llm.ModelFacts, gguf.Footprint, error) {
	b := append([]byte(`{"model":`), llm.AppendString(nil, model)...)
	if verbose {
		b = append(b, `,"verbose":true`...)
	}
	b = append(b, '}')
	m := llm.ModelFacts{Name: model, Source: llm.FromAPI}
	var fp gguf.Footprint
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	err := s.end.Do(ctx, llm.Call{Path: "/api/show", Body: b}, func(_ http.Header, body []byte) error {
		var reply struct {
			Modelfile    string   `json:"modelfile"`
			Parameters   string   `json:"parameters"`
			RemoteHost   string   `json:"remote_host"`
			RemoteModel  string   `json:"remote_model"`
			Capabilities []string `json:"capabilities"`
			Details      struct {
				Format       string `json:"format"`
				Family       string `json:"family"`
				Quantisation string `json:"quantization_level"`
			} `json:"details"`
		}
		err := llm.DecodeJSON(body, &reply)
		if err == nil {
			fp, err = gguf.FromShow(body)
		}
		if err != nil {
			return llm.NotProtocol(llm.Ollama, body, err)
		}
		describe(&m, fp)
		m.Remote = reply.RemoteHost != "" || reply.RemoteModel != ""
		m.Capabilities = reply.Capabilities
		m.Format = reply.Details.Format
		m.Blob = blobOf(reply.Modelfile)
		m.Options = optionsOf(reply.Parameters)
		if m.Architecture == "" {
			m.Architecture = reply.Details.Family
		}
		return nil
	})
	return m, fp, err
}

// describe copies a footprint.
func describe(m *llm.ModelFacts, fp gguf.Footprint) {
	m.Architecture, m.Quantisation = fp.Architecture, fp.Quantisation
	m.Parameters, m.ActiveParameters = fp.Parameters, fp.ActiveParameters
	m.Layers, m.ContextTrained, m.Vocabulary = fp.Layers, fp.Context, fp.Vocabulary
	m.WeightBytes, m.TokenBytes, m.LookupBytes = fp.WeightBytes, fp.TokenBytes, fp.LookupBytes
	m.ExpertBytes, m.Experts, m.ExpertsUsed = fp.ExpertBytes, fp.Experts, fp.ExpertsUsed
	m.Estimated, m.Notes = fp.Estimated, fp.Notes
	if c := fp.Cache; c != nil {
		m.KV = &llm.KVLayout{Full: c.Full, Windowed: c.Windowed, Window: c.Window, Latent: c.Latent}
	}
}

var fromLine = regexp.MustCompile(`(?m)^FROM (.*(?:sha256[-:][0-9a-f]{64}|\.gguf))\s*$`)

// blobOf is the file of the weights that a Modelfile names, without its folder.
func blobOf(modelfile string) string {
	if m := fromLine.FindStringSubmatch(modelfile); m != nil {
		return base(m[1])
	}
	return ""
}

// optionsOf reads the parameters that a model sets, one to a line. Those that
// a runner is started with, and how long an answer may be, matter to speed.
func optionsOf(parameters string) map[string]string {
	var out map[string]string
	for line := range strings.Lines(parameters) {
		name, v, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !slices.Contains([]string{
			"num_ctx", "num_gpu", "num_batch", "num_thread", "num_predict", "main_gpu", "use_mmap", "low_vram", "numa",
			"draft_num_predict", "num_keep",
		}, name) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = strings.TrimSpace(v)
	}
	return out
}
