package ollama

import (
	"path"
	"strings"

	"millrace/internal/llm"
)

// rank orders sources, the surest highest.
func rank(s llm.Source) int {
	switch s {
	case llm.FromCommand:
		return 5
	case llm.FromLog:
		return 4
	case llm.FromAPI:
		return 3
	case llm.FromEnvironment:
		return 2
	case llm.FromDefault:
		return 1
	}
	return 0
}

// put sets a fact unless a surer source has.
func put[T any](to **llm.Fact[T], v T, s llm.Source) {
	if *to == nil || rank((*to).Source) <= rank(s) {
		*to = llm.Known(v, s)
	}
}

// putIf is put for a value that may not be known.
func putIf[T any](to **llm.Fact[T], v *T, s llm.Source) {
	if v != nil {
		put(to, *v, s)
	}
}

// Merge adds to f what the server's log says, and from it what is known of the
// last load of the model that f is about: f.Model names it (Blob, as /api/show
// gives it, or Name), and where that is not known, the only model in the log
// does. The log is that of the running server or it is an old one: where
// versions differ, nothing but a note is taken.
func Merge(f *llm.Facts, log *LogFacts) {
	if v, ok := f.Version.Get(); ok && log.Version != "" && v != log.Version {
		f.Note("the log is of version %s, and the server is %s: the log was not used", log.Version, v)
		return
	}
	const from = llm.FromLog
	if log.Version != "" && f.Version == nil {
		describeVersion(f, log.Version, from)
	}
	putIf(&f.DevBuild, log.DevBuild, from)
	putIf(&f.SelfBuilt, log.SelfBuilt, from)
	putIf(&f.DebugBuild, log.DebugBuild, from)
	putIf(&f.DebugLog, log.DebugLog, from)
	if log.DefaultContext != nil {
		put(&f.DefaultContext, *log.DefaultContext, from)
		f.DefaultContextReason = log.DefaultContextReason
	}
	if len(log.Devices) > 0 {
		f.Devices = log.Devices
	}
	if len(log.Settings) > 0 {
		MergeSettings(f, log.Settings)
	}
	history := log.History
	f.History = &history
	if len(log.Libraries) > 0 {
		missingLibrary(f, log)
	}
	load := log.loadOf(f.Model)
	if load == nil {
		if len(log.Loads) > 0 {
			f.Note("the log holds no load of this model")
		}
		return
	}
	mergeLoad(f, load)
}

// missingLibrary notes a GPU whose backend is not installed.
func missingLibrary(f *llm.Facts, log *LogFacts) {
	for _, d := range log.Devices {
		if d.Backend == llm.CPU || d.Backend == "" || d.Backend == llm.Metal {
			continue
		}
		found := false
		for _, lib := range log.Libraries {
			found = found || llm.BackendOf(lib) == d.Backend
		}
		if !found {
			f.Note("a %s device was found, and the installed backends are only %s", d.Backend, strings.Join(log.Libraries, ", "))
		}
	}
}

// loadOf is the last load of a model that came to an end, or is under way. An
// unknown model is the only one in the log.
func (log *LogFacts) loadOf(m *llm.ModelFacts) *LoadFacts {
	names := map[string]bool{}
	var last, named *LoadFacts
	for i := range log.Loads {
		load := &log.Loads[i]
		names[load.Model] = true
		if load.Failed == "" {
			last = load
		}
		if m != nil && load.Failed == "" && (m.Blob != "" && load.Model == m.Blob || m.Blob == "" && m.Name != "" && load.called(m.Name)) {
			named = load
		}
	}
	switch {
	case named != nil:
		return named
	case (m == nil || m.Blob == "") && len(names) == 1:
		return last
	}
	return nil
}

// called reports whether a load is of the model with a name such as qwen3:8b.
func (load *LoadFacts) called(name string) bool {
	if !strings.Contains(name, ":") {
		name += ":latest"
	}
	return load.Model == name || load.Registry != "" && (load.Registry == name || path.Base(load.Registry) == name || strings.HasSuffix(load.Registry, "/"+name))
}

// mergeLoad adds what a log says of a load.
func mergeLoad(f *llm.Facts, load *LoadFacts) {
	const from = llm.FromLog
	if load.Engine != "" {
		put(&f.Engine, load.Engine, from)
	}
	if load.Library != "" {
		put(&f.Library, load.Library, from)
		if b := llm.BackendOf(load.Library); b != "" {
			put(&f.Backend, b, from)
		}
	}
	putIf(&f.Slots, load.Slots, from)
	putIf(&f.ContextTotal, load.ContextTotal, from)
	putIf(&f.ContextPerSlot, load.ContextPerSlot, from)
	putIf(&f.ContextTrained, load.ContextTrained, from)
	putIf(&f.Batch, load.Batch, from)
	putIf(&f.Microbatch, load.Microbatch, from)
	putIf(&f.Threads, load.Threads, from)
	putIf(&f.FlashAttentionUsed, load.FlashUsed, from)
	putIf(&f.MMap, load.MMap, from)
	putIf(&f.GPULayers, load.GPULayers, from)
	putIf(&f.Layers, load.Layers, from)
	putIf(&f.LayersAsked, load.LayersAsked, from)
	putIf(&f.LayersOverflowing, load.LayersOverflowing, from)
	if load.Flash != "" {
		put(&f.FlashAttention, load.Flash, from)
	}
	if load.KVType != "" {
		put(&f.KVType, load.KVType, from)
	} else if load.Engine != "" {
		put(&f.KVType, "f16", llm.FromDefault)
	}
	if len(load.Buffers) > 0 {
		f.Buffers = load.Buffers
	}
	if load.Host != nil {
		f.Host = load.Host
	}
	for i := range f.Devices {
		d := &f.Devices[i]
		for _, key := range [...]string{d.Name, d.ID} {
			if n, ok := load.Free[key]; ok {
				d.AtLoad = new(n)
				break
			}
		}
	}
	if f.Model == nil {
		f.Model = &llm.ModelFacts{Source: from}
	}
	m := f.Model
	if m.Blob == "" {
		m.Blob = load.Model
	}
	if m.Architecture == "" {
		m.Architecture = load.Architecture
	}
	if m.Quantisation == "" {
		m.Quantisation = load.Quantisation
	}
	if load.Library == "cpu" {
		for _, d := range f.Devices {
			if d.Backend != llm.CPU && d.Backend != "" && d.Dropped == "" {
				f.Note("the model runs on the CPU although the server found %s", d.Description)
				break
			}
		}
	}
	for i := range f.Loaded {
		if f.Loaded[i].Name == m.Name || len(f.Loaded) == 1 {
			doubtLog(&f.Loaded[i], load)
		}
	}
}

// MergeSettings adds what the settings of the server say: its environment
// (llm.InServer) or what it logged at its start (llm.InLog). Others are not
// the server's and are left out.
func MergeSettings(f *llm.Facts, settings []llm.Setting) {
	for _, s := range settings {
		from := llm.FromEnvironment
		switch s.Where {
		case llm.InLog:
			from = llm.FromLog
		case llm.InServer:
		default:
			continue
		}
		f.Settings = append(f.Settings, s)
		mergeSetting(f, s.Name, value(s.Value), from)
	}
}

// mergeSetting sets the fact that a setting stands for. What a log prints for
// "not set" (false, 0, empty) says nothing.
func mergeSetting(f *llm.Facts, name, v string, from llm.Source) {
	// What a load in the log says is surer than what the server was told: it
	// may have had to do otherwise.
	told := llm.FromEnvironment
	n := wholeNumber(v)
	switch name {
	case "OLLAMA_NUM_PARALLEL":
		if n != nil && *n > 0 {
			slots := *n
			if ver, ok := f.Version.Get(); ok && f.Model != nil && SingleSlotOnly(ver, f.Model.Architecture) {
				slots = 1
			}
			put(&f.Slots, slots, told)
		}
	case "OLLAMA_CONTEXT_LENGTH":
		if n != nil && *n > 0 {
			put(&f.DefaultContext, *n, from)
			f.DefaultContextReason = "OLLAMA_CONTEXT_LENGTH"
		}
	case "OLLAMA_KEEP_ALIVE":
		if k, ok := keepAlive(v); ok {
			put(&f.KeepAlive, k, from)
		}
	case "OLLAMA_MAX_QUEUE":
		putIf(&f.MaxQueue, n, from)
	case "OLLAMA_MAX_LOADED_MODELS":
		if n != nil && *n > 0 {
			put(&f.MaxLoaded, *n, from)
		}
	case "OLLAMA_FLASH_ATTENTION":
		switch {
		case v == "":
		case truth(v):
			put(&f.FlashAttention, llm.On, told)
		case from != llm.FromLog: // a log prints false for not set, too
			put(&f.FlashAttention, llm.Off, told)
		}
	case "OLLAMA_KV_CACHE_TYPE":
		if v != "" {
			put(&f.KVType, strings.ToLower(v), told)
		}
	case "OLLAMA_DEBUG":
		if from == llm.FromEnvironment && v != "" {
			put(&f.DebugLog, v != "0" && !strings.EqualFold(v, "false"), from)
		}
	}
}

// MergeCommand adds what the command line of the process that serves the model
// says: a llama-server, on its own or below Ollama, or an older runner.
func MergeCommand(f *llm.Facts, c Command) {
	const from = llm.FromCommand
	if c.Engine != "" {
		put(&f.Engine, c.Engine, from)
	}
	putIf(&f.Slots, c.Slots, from)
	putIf(&f.ContextTotal, c.ContextTotal, from)
	if c.ContextTotal != nil && c.Slots != nil && *c.Slots > 0 && *c.ContextTotal > 0 {
		put(&f.ContextPerSlot, *c.ContextTotal / *c.Slots, from)
	}
	putIf(&f.Batch, c.Batch, from)
	putIf(&f.Microbatch, c.Microbatch, from)
	putIf(&f.Threads, c.Threads, from)
	putIf(&f.MMap, c.MMap, from)
	if c.Engine == llm.LlamaServerEngine {
		putIf(&f.LayersAsked, c.GPULayers, from)
	} else {
		putIf(&f.GPULayers, c.GPULayers, from)
	}
	if c.Flash != "" {
		put(&f.FlashAttention, c.Flash, from)
	}
	if t := c.KVType(); t != "" {
		put(&f.KVType, t, from)
	}
	if c.Library != "" {
		put(&f.Library, c.Library, from)
		put(&f.Backend, llm.BackendOf(c.Library), from)
	}
}

// MergeDefaults fills what is still unknown with what a server of this version
// does by itself; vram is the memory of its GPUs together, nil if not known.
func MergeDefaults(f *llm.Facts, vram *int64) {
	v, ok := f.Version.Get()
	if !ok || f.Kind != llm.Ollama {
		return
	}
	const from = llm.FromDefault
	d := DefaultsFor(v, vram)
	putIf(&f.Slots, d.Slots, from)
	if d.Context != nil && f.DefaultContext == nil {
		put(&f.DefaultContext, *d.Context, from)
	}
	if f.DefaultContextReason == "" {
		f.DefaultContextReason = d.ContextReason
	}
	put(&f.KeepAlive, d.KeepAlive, from)
	put(&f.MaxQueue, d.MaxQueue, from)
	put(&f.KVType, d.KVType, from)
	putIf(&f.Batch, d.Batch, from)
	arch := ""
	if f.Model != nil {
		arch = f.Model.Architecture
	}
	if e := EngineFor(v, arch, settingIsOn(f, "OLLAMA_NEW_ENGINE")); e != "" {
		put(&f.Engine, e, from)
	}
	if flash := d.FlashAttention; flash != "" {
		if f.Engine.Or("") == llm.OllamaEngine && arch != "" {
			flash = llm.Off
			if flashByDefault(arch) {
				flash = llm.On
			}
		}
		put(&f.FlashAttention, flash, from)
	}
}

func settingIsOn(f *llm.Facts, name string) bool {
	for _, s := range f.Settings {
		if s.Name == name {
			return truth(value(s.Value))
		}
	}
	return false
}
