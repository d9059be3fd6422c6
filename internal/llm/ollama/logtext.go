package ollama

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"millrace/internal/llm"
)

var (
	bufferLine = regexp.MustCompile(`(\w+): +(\S+)\s+(?:(model|KV|compute|output|RS) )?buffer size\s*=\s*([\d.]+) MiB`)
	offloadOf  = regexp.MustCompile(`offloaded (\d+)/(\d+) layers to GPU`)
	usingLine  = regexp.MustCompile(`using device (\S+) \((.*?)\)(?: \([^)]*\))? - (\d+) MiB free`)
	fitLine    = regexp.MustCompile(`common_params_fit_impl:\s+- .*?(\d+) layers \(\s*(\d+) overflowing\)`)
	kvTypes    = regexp.MustCompile(`K \((\w+)\): .*V \((\w+)\):`)
	contextKey = regexp.MustCompile(`(?:llama_context|llama_init_from_model|llama_new_context_with_model): (n_\w+|flash_attn)\s+= (\S+)`)
	metaKey    = regexp.MustCompile(`(?:print_info|llm_load_print_meta): ([\w. ]+?)\s+= (.*)$`)
	metaFrom   = regexp.MustCompile(`loaded meta data with .* from (.+?) \(version`)
	cudaDevice = regexp.MustCompile(`^\s*Device (\d+): (.+?), compute capability ([\d.]+)`)
	metalName  = regexp.MustCompile(`ggml_metal\w*: (?:GPU name:|found device:)\s+(.+)$`)
	loadModel  = regexp.MustCompile(`load_model: loading model '(.+)'`)
	slotsLine  = regexp.MustCompile(`initializing slots, n_slots = (\d+)`)
	slotCtx    = regexp.MustCompile(`new slot,? n_ctx(?:_slot)? = (\d+)`)
	threadsOf  = regexp.MustCompile(`system_info: n_threads = (\d+)`)
)

// text takes in a line that llama.cpp, gin or the Go runtime wrote. Each rule
// first looks for a fixed text, as most lines of a log are of no use.
func (p *logParser) text(l *logLine) bool {
	s := l.text
	has := func(sub string) bool { return strings.Contains(s, sub) }
	switch {
	case has("[GIN] "):
		return p.request(s)
	case has("[GIN-debug]"):
		p.facts.SelfBuilt = new(true) // the project builds in gin's release mode
	case has("buffer size"):
		return p.bufferSize(s)
	case has("layers to GPU"):
		return p.offloaded(s)
	case has("using device "):
		return p.usingDevice(s)
	case has("overflowing)"):
		if m := fitLine.FindStringSubmatch(s); m != nil {
			if load := p.loading(); load != nil {
				n, _ := strconv.Atoi(m[2])
				if load.LayersOverflowing != nil {
					n += *load.LayersOverflowing
				}
				load.LayersOverflowing = new(n)
			}
		}
	case has("K (") && has("V ("):
		m := kvTypes.FindStringSubmatch(s)
		load := p.loading()
		if m == nil || load == nil {
			return m != nil
		}
		load.KVType = Command{KVTypeK: m[1], KVTypeV: m[2]}.KVType()
	case has("Flash Attention was auto, set to"):
		if load := p.loading(); load != nil {
			load.Flash = llm.Auto
			load.FlashUsed = new(has("set to enabled"))
		}
	case has("llama_context: ") || has("llama_init_from_model: ") || has("llama_new_context_with_model: "):
		return p.contextLine(s)
	case has("print_info: ") || has("llm_load_print_meta: "):
		return p.metaLine(s)
	case has("loaded meta data with"):
		return p.metaSource(s)
	case has("loading model tensors"):
		if load := p.loading(); load != nil {
			load.Buffers = nil // a load that is tried again
			if _, v, ok := strings.Cut(s, "(mmap = "); ok {
				load.MMap = new(strings.HasPrefix(v, "true"))
			}
		}
	case has("load_backend: loaded "):
		if load := p.loading(); load != nil {
			if lib := libraryOf(s); lib != "" && llm.BackendOf(lib) != llm.CPU {
				load.Library = lib
			}
		}
	case has("compute capability"):
		if m := cudaDevice.FindStringSubmatch(s); m != nil {
			p.devices["CUDA"+m[1]] = llm.Device{Name: "CUDA" + m[1], Description: m[2], Compute: m[3], Library: "cuda", Backend: llm.CUDA}
		} else {
			return false
		}
	case has("ggml_metal") && (has("GPU name:") || has("found device:")):
		if m := metalName.FindStringSubmatch(s); m != nil {
			p.devices["Metal"] = llm.Device{Name: "Metal", Description: strings.TrimSpace(m[1]), Library: "metal", Backend: llm.Metal}
		}
	case has("load_model: loading model '"):
		if m := loadModel.FindStringSubmatch(s); m != nil && p.loading() == nil { // a llama-server on its own
			p.begin(l, Command{Engine: llm.LlamaServerEngine, Model: base(m[1]), HasModel: true})
		}
	case has("initializing slots, n_slots"):
		if m, load := slotsLine.FindStringSubmatch(s), p.loading(); m != nil && load != nil {
			load.Slots = wholeNumber(m[1])
		}
	case has("new slot"):
		if m, load := slotCtx.FindStringSubmatch(s), p.loading(); m != nil && load != nil {
			load.ContextPerSlot = wholeNumber(m[1])
		}
	case has("system_info: n_threads"):
		if m, load := threadsOf.FindStringSubmatch(s), p.loading(); m != nil && load != nil && load.Threads == nil {
			load.Threads = wholeNumber(m[1])
		}
	case has("server is listening on http") || has("main: model loaded"):
		if load := p.loading(); load != nil && len(p.facts.Settings) == 0 && p.facts.Version == "" {
			load.Ready = true // nobody else says that it is
		}
	default:
		return p.textTrouble(s)
	}
	return true
}

func (p *logParser) textTrouble(s string) bool {
	has := func(sub string) bool { return strings.Contains(s, sub) }
	switch {
	case has("out of memory") || has("OutOfDeviceMemory") || has("hipErrorOutOfMemory") || has("kIOGPUCommandBufferCallbackErrorOutOfMemory"):
		p.event(llm.OutOfMemory, p.when())
	case has("failed to allocate") && has("buffer"):
		p.event(llm.OutOfMemory, p.when())
	case has("maximum pending requests exceeded"):
		p.event(llm.QueueFull, "")
	case has("slot context shift") || has("context shift") && has("n_discard"):
		p.event(llm.ContextShift, "")
	case has("stop processing: ") && has("truncated = 1"):
		p.event(llm.ContextShift, "an answer ended at the end of its context")
	case strings.HasPrefix(s, "panic: ") || has("SIGSEGV") || has("GGML_ASSERT(") || strings.HasPrefix(s, "CUDA error"):
		p.crashed(s)
	case (has("build: ") || has("build = ") || has("print_info: build ")) && strings.HasSuffix(s, "(debug)"):
		p.facts.DebugBuild = new(true)
	default:
		return false
	}
	return true
}

func (p *logParser) when() string {
	if p.loading() != nil {
		return "while it loaded"
	}
	return "while it answered"
}

// request reads gin's line of a request.
func (p *logParser) request(s string) bool {
	m := ginLog.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	path, _, _ := strings.Cut(m[5], "?")
	if m[4] != "POST" || !slices.Contains([]string{
		"/api/generate", "/api/chat", "/api/embed", "/api/embeddings",
		"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/responses",
	}, path) {
		return true
	}
	h := &p.facts.History
	h.Requests++
	if h.Statuses == nil {
		h.Statuses = map[string]int{}
	}
	h.Statuses[m[2]]++
	if t, _ := parseTime(m[1]); !t.IsZero() && strings.HasPrefix(m[2], "2") {
		p.lastDone = p.inZone(t)
	}
	return true
}

func (p *logParser) bufferSize(s string) bool {
	m := bufferLine.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	load := p.loading()
	mib, err := strconv.ParseFloat(m[4], 64)
	if load == nil || err != nil || mib < 0 || mib > 1<<30 {
		return true
	}
	kind := llm.ModelBuffer
	switch m[3] {
	case "KV":
		kind = llm.KVBuffer
	case "compute":
		kind = llm.ComputeBuffer
	case "output":
		kind = llm.OutputBuffer
	case "RS":
		kind = llm.StateBuffer
	case "":
		if !strings.Contains(m[1], "tensors") {
			return true
		}
	}
	load.buffer(llm.Buffer{Device: m[2], Kind: kind, Bytes: int64(mib * (1 << 20)), GPU: llm.OnGPU(m[2]), Source: llm.FromLog})
	return true
}

func (p *logParser) offloaded(s string) bool {
	m := offloadOf.FindStringSubmatch(s)
	if m == nil {
		return strings.Contains(s, "offloading ")
	}
	if load := p.loading(); load != nil {
		load.GPULayers, load.Layers = wholeNumber(m[1]), wholeNumber(m[2])
	}
	return true
}

func (p *logParser) usingDevice(s string) bool {
	m := usingLine.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	load := p.loading()
	if load == nil {
		load = p.pending
	}
	if n, err := strconv.ParseInt(m[3], 10, 40); err == nil {
		load.free(m[1], n<<20)
	}
	if _, have := p.devices[m[1]]; !have {
		p.devices[m[1]] = llm.Device{Name: m[1], Description: m[2], Library: string(llm.BackendOf(m[1])), Backend: llm.BackendOf(m[1])}
	}
	return true
}

// contextLine reads a parameter of llama.cpp's context.
func (p *logParser) contextLine(s string) bool {
	m := contextKey.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	load := p.loading()
	if load == nil {
		return true
	}
	n := wholeNumber(m[2])
	switch m[1] {
	case "n_ctx":
		load.ContextTotal = n
	case "n_seq_max":
		load.Slots = n
	case "n_ctx_per_seq", "n_ctx_seq":
		load.ContextPerSlot = n
	case "n_batch":
		if load.Batch == nil || load.Engine == llm.LlamaServerEngine {
			load.Batch = n // older runners give llama.cpp more than they use
		}
	case "n_ubatch":
		load.Microbatch = n
	case "flash_attn":
		load.Flash = switchOf(m[2], load.Flash)
	default:
		return false
	}
	return true
}

// metaSource is the beginning of what llama.cpp says of a file. A runner's own
// reading of its model comes after the runner's start, Ollama's before.
func (p *logParser) metaSource(s string) bool {
	m := metaFrom.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	file := base(m[1])
	load := p.loading()
	switch {
	case load != nil && load.Model == "":
		load.Model = file
	case load == nil || load.Model != file:
		if p.pending.Model != file {
			p.pending.Model, p.pending.Name, p.pending.Architecture, p.pending.Quantisation, p.pending.ContextTrained = file, "", "", "", nil
		}
		load = p.pending
	}
	p.filling = load
	return true
}

func (p *logParser) metaLine(s string) bool {
	m := metaKey.FindStringSubmatch(s)
	if m == nil || p.filling == nil {
		return false
	}
	load, v := p.filling, strings.TrimSpace(m[2])
	switch m[1] {
	case "arch":
		load.Architecture = v
	case "general.name":
		load.Name = trimmed(v, 80)
	case "file type", "model ftype":
		load.Quantisation = v
	case "n_ctx_train":
		load.ContextTrained = wholeNumber(v)
	case "n_layer":
		if n := wholeNumber(v); n != nil && load.Layers == nil {
			load.Layers = new(*n + 1) // llama.cpp counts the output layer
		}
	default:
		return false
	}
	return true
}
