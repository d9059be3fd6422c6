package ollama

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"millrace/internal/llm"
)

// message takes in a structured line. The texts are those of Ollama's source,
// by file: server/{sched,routes}.go, llm/{server,llama_server}.go, discover/*,
// runner/*, ml/device.go, envconfig/config.go, over its releases.
func (p *logParser) message(l *logLine) bool {
	return p.aboutServer(l) || p.aboutDevices(l) || p.aboutPlan(l) || p.aboutLoad(l) || p.trouble(l)
}

func (p *logParser) aboutServer(l *logLine) bool {
	f := &p.facts
	switch {
	case l.msg == "server config":
		p.started()
		p.config(goMap(l.attr("env")))
	case strings.HasPrefix(l.msg, "Listening on "):
		if !p.sawStart || f.Version != "" {
			p.started()
		}
		_, v, _ := strings.Cut(l.msg, "(version ")
		f.Version = strings.TrimSuffix(v, ")")
		if f.Version != "" {
			f.DevBuild = new(DevBuild(f.Version))
		}
	case l.msg == "vram-based default context":
		f.DefaultContext, f.VRAMBytes = l.whole("default_num_ctx"), l.bytes("total_vram")
		f.DefaultContextReason = "GPUs have " + l.attr("total_vram") + " together"
	case l.msg == "entering low vram mode":
		f.VRAMBytes = l.bytes("total vram")
		p.event(llm.LowVRAM, "GPUs have "+l.attr("total vram")+" together, less than "+l.attr("threshold"))
	case l.msg == "Dynamic LLM libraries":
		f.Libraries = strings.Fields(strings.Trim(l.attr("runners"), "[]"))
	case strings.HasPrefix(l.msg, "Dynamic LLM libraries ["):
		f.Libraries = strings.Fields(strings.Trim(strings.TrimPrefix(l.msg, "Dynamic LLM libraries "), "[]"))
	case strings.HasPrefix(l.msg, "request debug logging enabled"):
		p.event(llm.RequestsLogged, "")
	case l.msg == "invalid environment variable, using default":
		p.event(llm.BadSetting, l.attr("key")+"="+l.attr("value")+", taken: "+l.attr("default"))
	case l.msg == "invalid llama-server fit target":
		p.event(llm.BadSetting, l.attr("env")+"="+l.attr("value"))
	default:
		return false
	}
	return true
}

// config is the list of settings, with defaults filled in.
func (p *logParser) config(env map[string]string) {
	f := &p.facts
	for name, v := range env {
		if name == "OLLAMA_ORIGINS" && v != "" {
			v = hidden // long, and names hosts
		}
		f.Settings = append(f.Settings, llm.Setting{Name: name, Value: discreet(name, v), Where: llm.InLog})
	}
	slices.SortFunc(f.Settings, func(a, b llm.Setting) int { return strings.Compare(a.Name, b.Name) })
	if v, ok := env["OLLAMA_DEBUG"]; ok {
		// A boolean up to 0.7, the level's name after.
		f.DebugLog = new(v == "true" || strings.HasPrefix(v, "DEBUG"))
	}
}

func (p *logParser) aboutDevices(l *logLine) bool {
	switch {
	case l.msg == "inference compute":
		p.facts.Devices = append(p.facts.Devices, deviceOf(l))
	case strings.HasPrefix(l.msg, "dropping integrated GPU"):
		d := deviceOf(l)
		d.Integrated, d.Dropped = new(true), "integrated GPUs are off; OLLAMA_IGPU_ENABLE=1 allows them"
		p.facts.Devices = append(p.facts.Devices, d)
		p.event(llm.IntegratedOff, d.Description)
	case strings.HasPrefix(l.msg, "unsupported Radeon iGPU detected"), strings.HasPrefix(l.msg, "amdgpu appears to be an iGPU"),
		strings.Contains(l.msg, "iGPU detected") && strings.Contains(l.msg, "skipping"), strings.Contains(l.msg, "appears to be an iGPU"),
		l.msg == "ROCm unsupported integrated GPU detected":
		p.event(llm.IntegratedOff, strings.TrimSpace(l.attr("name")+" "+l.attr("gfx")))
	case strings.HasPrefix(l.msg, "experimental Vulkan support disabled"):
		p.event(llm.VulkanOff, "")
	case l.msg == "user overrode visible devices":
		for name, v := range l.attrs {
			if relevant(name) {
				p.event(llm.DevicesHidden, name+"="+v)
			}
		}
	case strings.HasPrefix(l.msg, "failure during GPU discovery"), strings.HasPrefix(l.msg, "failure during llama-server GPU discovery"),
		strings.Contains(l.msg, "GPU discovery watchdog timed out"), strings.HasPrefix(l.msg, "llama-server discovery: "),
		strings.HasPrefix(l.msg, "Unable to load "), l.msg == "unable to load cuda driver library",
		strings.HasPrefix(l.msg, "error looking up nvidia GPU memory"):
		p.event(llm.DiscoveryFailed, strings.TrimSpace(l.msg+" "+l.attr("error")))
	case strings.Contains(l.msg, "CUDA GPU is too old"), strings.Contains(l.msg, "amdgpu is not supported"),
		strings.Contains(l.msg, "amdgpu too old"), strings.HasPrefix(l.msg, "skipping CUDA device"), strings.HasPrefix(l.msg, "dropping ROCm device"):
		p.event(llm.GPUTooOld, strings.TrimSpace(l.msg+" "+l.attr("gpu_type")+l.attr("compute")))
	case strings.HasPrefix(l.msg, "old CUDA driver detected"), strings.HasPrefix(l.msg, "NVIDIA driver too old"),
		strings.HasPrefix(l.msg, "AMD driver is too old"), strings.HasPrefix(l.msg, "amdgpu detected, but no compatible rocm library"):
		p.event(llm.DriverTooOld, strings.TrimSpace(l.msg+" "+l.attr("version")))
	case strings.HasPrefix(l.msg, "CPU does not have"):
		p.event(llm.MissingCaps, l.msg)
	case strings.Contains(l.msg, "falling back to CPU"), l.msg == "not enough vram available, setting num_gpu=0",
		l.msg == "no compatible GPUs were discovered", l.msg == "unable to locate gpu dependency libraries":
		switch {
		case strings.HasPrefix(l.msg, "no compatible"):
			p.event(llm.NoGPU, "")
		case strings.HasPrefix(l.msg, "unable to locate"):
			p.event(llm.DiscoveryFailed, l.msg)
		default:
			p.event(llm.CPUFallback, l.msg)
		}
	default:
		return false
	}
	return true
}

// deviceOf reads "inference compute". Up to 0.12 library and variant name the
// backend's library and name is the device's; later libdirs ends with the
// library's folder, name is the backend's device and description the device's.
func deviceOf(l *logLine) llm.Device {
	d := llm.Device{
		ID:          l.attr("id"),
		Description: l.attr("description"),
		Library:     strings.ToLower(l.attr("library")),
		Type:        l.attr("type"),
		Compute:     l.attr("compute"),
		Driver:      l.attr("driver"),
		PCI:         l.attr("pci_id"),
		TotalBytes:  l.bytes("total"),
		FreeBytes:   l.bytes("available"),
	}
	d.Backend = llm.BackendOf(d.Library)
	if d.Description == "" {
		d.Description = l.attr("name")
	} else {
		d.Name = l.attr("name")
	}
	if v := l.attr("variant"); v != "" && v != "no vector extensions" {
		d.Library += "_" + v
	}
	for lib := range strings.SplitSeq(l.attr("libdirs"), ",") {
		if b := llm.BackendOf(lib); b != "" && b == d.Backend && b != llm.CPU {
			d.Library = lib
		}
	}
	if d.Driver == "0.0" {
		d.Driver = ""
	}
	if d.Compute == "0.0" {
		d.Compute = ""
	}
	switch d.Type {
	case "iGPU":
		d.Integrated = new(true)
	case "discrete":
		if d.Backend != llm.Metal { // Ollama calls Apple's GPUs discrete
			d.Integrated = new(false)
		}
	}
	return d
}

// aboutPlan is what Ollama logs while it plans a load.
func (p *logParser) aboutPlan(l *logLine) bool {
	switch {
	case l.msg == "system memory":
		p.planning().Host = &llm.HostMemory{
			TotalBytes: l.bytes("total"), FreeBytes: l.bytes("free"), SwapFree: l.bytes("free_swap"), Source: llm.FromLog,
		}
	case l.msg == "gpu memory":
		if n := l.bytes("free"); n != nil {
			p.planning().free(l.attr("id"), *n)
		}
	case strings.HasPrefix(l.msg, "new model will fit in available VRAM"):
		p.legacy = true
		p.pending.Model = base(l.attr("model"))
		p.pending.Slots = l.whole("parallel")
	case l.msg == "offload", strings.HasPrefix(l.msg, "offload to "):
		p.legacy = true
		load := p.pending
		load.Layers, load.GPULayers = l.whole("layers.model"), l.whole("layers.offload")
		for _, older := range [...]string{"layers.real", "reallayers"} { // 0.1.33 to 0.1.41, 0.1.32
			if n := l.whole(older); n != nil && load.GPULayers == nil {
				load.GPULayers = n
			}
		}
		if n := l.whole("layers.requested"); n != nil && *n >= 0 {
			load.LayersAsked = n
		}
	case l.msg == "loading model" && l.attr("model layers") != "":
		load := p.planning()
		load.Layers = l.whole("model layers")
		if n := l.whole("requested"); n != nil && *n >= 0 {
			load.LayersAsked = n
		}
	case l.msg == "model weights", l.msg == "kv cache", l.msg == "compute graph":
		p.planned(l)
	case l.msg == "enabling flash attention":
		p.pending.Flash = llm.On
	case strings.HasPrefix(l.msg, "using llama-server for model"):
	case l.msg == "template selection":
		if p.cur != nil {
			p.cur.Registry = l.attr("model")
		}
	case l.msg == "requested context size too large for model":
		p.event(llm.ContextClipped, fmt.Sprintf("asked for %s, the model was made for %s", l.attr("num_ctx"), l.attr("n_ctx_train")))
	case strings.HasPrefix(l.msg, "requested context length is greater than"):
		p.event(llm.ContextClipped, strings.TrimPrefix(l.msg, "requested context length is greater than "))
	default:
		return false
	}
	return true
}

// planned reads Ollama's own account of memory (ml/device.go; "buffer" and
// "backend" in place of "device" from 0.6 to 0.11).
func (p *logParser) planned(l *logLine) {
	load := p.loading()
	if load == nil {
		return
	}
	device := l.attr("device")
	if device == "" {
		device = l.attr("buffer")
	}
	if device == "" {
		device = l.attr("buffer_type")
	}
	n := l.bytes("size")
	if n == nil || device == "" {
		return
	}
	kind := llm.ModelBuffer
	switch l.msg {
	case "kv cache":
		kind = llm.KVBuffer
	case "compute graph":
		kind = llm.ComputeBuffer
	}
	b := llm.Buffer{Device: device, Kind: kind, Bytes: *n, GPU: llm.OnGPU(device), Source: llm.FromLog}
	for i, have := range load.planned { // the layout is fitted in several rounds
		if have.Device == device && have.Kind == kind {
			load.planned[i] = b
			return
		}
	}
	load.planned = append(load.planned, b)
}

// aboutLoad is what happens to one load.
func (p *logParser) aboutLoad(l *logLine) bool {
	switch {
	case l.msg == "starting llama-server", l.msg == "starting runner", l.msg == "starting llama server":
		c := ParseCommandLine(l.attr("cmd"))
		if l.attr("cmd") == "" || !c.HasModel {
			return true // a probe for devices, or for free memory
		}
		p.legacy = l.msg == "starting llama server"
		p.begin(l, c)
	case l.msg == "starting mlx runner subprocess":
		p.begin(l, Command{Engine: llm.MLXEngine, Model: l.attr("model"), HasModel: true})
	case l.msg == "mlx runner is ready":
		p.ready("")
	case strings.HasPrefix(l.msg, "Loading Dynamic llm server: "): // 0.1.22 to 0.1.31
		path := strings.TrimPrefix(l.msg, "Loading Dynamic llm server: ")
		p.begin(l, Command{Engine: llm.LlamaRunner, Library: libraryOf(path)})
	case l.msg == "Starting llama main loop", l.msg == "model loaded" && l.attr("function") == "main":
		p.ready("")
	case l.msg == "load" && l.attr("request") != "":
		p.loadRequest(goStruct(l.attr("request")))
	case l.msg == "initializing slots" && l.attr("n_slots") != "":
		if load := p.loading(); load != nil {
			load.Slots = l.whole("n_slots")
		}
	case l.msg == "new slot" && l.attr("n_ctx_slot") != "":
		if load := p.loading(); load != nil {
			load.ContextPerSlot = l.whole("n_ctx_slot")
		}
	case strings.HasPrefix(l.msg, "llama runner started in "), strings.HasPrefix(l.msg, "llama-server started in "):
		_, s, _ := strings.Cut(l.msg, " started in ")
		s, _, _ = strings.Cut(s, " ")
		p.ready(s)
	case strings.HasPrefix(l.msg, "offloaded ") && strings.HasSuffix(l.msg, " layers to GPU"):
		p.offloaded(l.msg)
	case strings.HasSuffix(l.msg, " repeating layers to GPU"), strings.HasPrefix(l.msg, "offloading output layer to"):
	case l.msg == "loaded runners":
	case l.msg == "" && l.attr("architecture") != "" && l.attr("file_type") != "": // Ollama's own engine
		if load := p.loading(); load != nil {
			load.Architecture, load.Quantisation = l.attr("architecture"), l.attr("file_type")
			if load.Name == "" {
				load.Name = trimmed(l.attr("name"), 80)
			}
		}
	default:
		return false
	}
	return true
}

// loadRequest is what Ollama tells its runner (0.11.5 to 0.24): GPULayers is
// "49[ID:… Layers:49(15..63)]", or "[]" for none.
func (p *logParser) loadRequest(req map[string]string) {
	load := p.loading()
	if load == nil || req["Operation"] == "close" {
		return
	}
	for _, n := range [...]struct {
		name string
		to   **int
	}{
		{"Parallel", &load.Slots}, {"BatchSize", &load.Batch}, {"KvSize", &load.ContextTotal}, {"NumThreads", &load.Threads},
	} {
		if v := wholeNumber(req[n.name]); v != nil {
			*n.to = v
		}
	}
	switch s := req["FlashAttention"]; strings.ToLower(s) {
	case "auto":
		load.Flash = llm.Auto
	case "enabled", "true":
		load.Flash = llm.On
	case "disabled", "false":
		load.Flash = llm.Off
	}
	if t := req["KvCacheType"]; t != "" {
		load.KVType = strings.ToLower(t)
	}
	if v, err := strconv.ParseBool(req["UseMmap"]); err == nil {
		load.MMap = new(v)
	}
	if s, ok := req["GPULayers"]; ok {
		s, _, _ = strings.Cut(s, "[")
		if s == "" {
			s = "0"
		}
		if n := wholeNumber(s); n != nil {
			load.GPULayers = n
		}
	}
}

// trouble is what went wrong, or had to give way.
func (p *logParser) trouble(l *logLine) bool {
	switch {
	case strings.HasPrefix(l.msg, "model requires more ") && strings.Contains(l.msg, "evicting"),
		strings.HasPrefix(l.msg, "llama-server model predicted to exceed available memory"):
		p.event(llm.Eviction, evictionDetail(l))
	case l.msg == "evicting all other loaded models for OOM retry":
		p.event(llm.Eviction, "all others, after a load ran out of memory")
	case strings.HasPrefix(l.msg, "llama-server load failed; evicting all other models"):
		p.failed("out of memory")
		p.event(llm.Eviction, "all others, after a load ran out of memory")
	case strings.HasPrefix(l.msg, "llama-server load failed; reducing automatic context"):
		p.failed("out of memory")
		p.event(llm.ContextReduced, l.attr("old_num_ctx")+" to "+l.attr("new_num_ctx"))
	case strings.HasPrefix(l.msg, "runtime OOM detected"):
		p.event(llm.OutOfMemory, "while it answered")
		if p.cur != nil {
			p.cur.crashed = true
		}
	case strings.HasPrefix(l.msg, "model is too large for system memory"), l.msg == "model request too large for system":
		p.failed("larger than the system's memory")
	case l.msg == "Load failed", l.msg == "error loading llama server", l.msg == "NewLlamaServer failed",
		l.msg == "failed to create server", l.msg == "unable to load any llama server":
		p.failed(l.attr("error"))
	case l.msg == "llama runner terminated", l.msg == "llama-server terminated", strings.HasSuffix(l.msg, " process no longer running"):
		p.crashed(l.attr("error") + l.attr("string"))
	case strings.Contains(l.msg, "does not currently support parallel requests"), strings.Contains(l.msg, "doesn't support parallel requests yet"),
		strings.Contains(l.msg, "don't support parallel requests yet"):
		detail := l.attr("architecture")
		if detail == "" {
			detail, _, _ = strings.Cut(l.msg, " do")
		}
		p.event(llm.SingleSlot, detail)
	case l.msg == "model does not support caching, disabling parallel processing":
		p.event(llm.SingleSlot, "the model has no cache")
	case strings.HasPrefix(l.msg, "flash attention enabled but not supported by"):
		p.event(llm.FlashUnsupported, strings.TrimPrefix(l.msg, "flash attention enabled but not supported "))
	case strings.HasPrefix(l.msg, "OLLAMA_FLASH_ATTENTION must be enabled to use a quantized"):
		p.event(llm.KVTypeIgnored, l.attr("type")+": OLLAMA_FLASH_ATTENTION=1 is not set")
	case l.msg == "quantized kv cache requested but flash attention disabled":
		p.event(llm.KVTypeIgnored, l.attr("type")+": flash attention is off")
	case l.msg == "unsupported OLLAMA_KV_CACHE_TYPE":
		p.event(llm.KVTypeIgnored, l.attr("type")+": not a type that it knows")
	case l.msg == "kv cache type not supported by model":
		if l.attr("type") != "" && l.attr("type") != "f16" { // up to 0.11 it said so with no type asked for
			p.event(llm.KVTypeIgnored, l.attr("type")+": not for this model")
		}
	case l.msg == "truncating input prompt":
		p.event(llm.Truncation, "to the context of "+l.attr("limit")+" tokens")
	case strings.HasPrefix(l.msg, "aborting ") && strings.Contains(l.msg, "due to client closing the connection"):
		p.event(llm.ClientGone, "while waiting for a slot")
	case strings.HasPrefix(l.msg, "client connection closed before"):
		p.event(llm.ClientGone, "while the model loaded")
	case strings.Contains(l.msg, "maximum pending requests exceeded"):
		p.event(llm.QueueFull, "")
	case strings.HasPrefix(l.msg, "gpu VRAM usage didn't recover within timeout"):
		p.event(llm.VRAMNotFreed, "")
	case strings.HasPrefix(l.msg, "llama-server VRAM tracking: no per-device buffer sizes"):
		p.event(llm.VRAMUntracked, "")
	case strings.HasPrefix(l.msg, "disabling mmap for llama-server load"):
		reason := l.attr("reason")
		if reason == "" {
			reason = "main memory is short"
		}
		p.event(llm.MMapOff, reason)
	default:
		return false
	}
	return true
}

func evictionDetail(l *logLine) string {
	switch {
	case l.attr("predicted") != "":
		return "needs " + l.attr("predicted") + " of " + l.attr("available")
	case l.attr("loaded layers") != "":
		return l.attr("loaded layers") + " layers would fit"
	}
	return strings.TrimSuffix(l.msg, ", evicting a model to make space")
}

func (p *logParser) crashed(why string) {
	if p.loading() != nil {
		p.failed(why)
		return
	}
	if p.cur != nil {
		p.cur.crashed = true
	}
	p.event(llm.RunnerCrashed, why)
}
