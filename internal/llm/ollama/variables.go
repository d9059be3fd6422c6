package ollama

// Kind is how Ollama reads the value of a variable (envconfig/config.go). All
// values are first stripped of spaces and of quotes around them.
type Kind string

// The kinds.
const (
	Boolean  Kind = "boolean"  // 1, t, true, 0, f, false; anything else that is not empty counts as true
	Number   Kind = "number"   // whole, not negative; anything else is ignored, with a warning in the log
	Bytes    Kind = "bytes"    // a Number without a unit
	Duration Kind = "duration" // 5m, 1h30m, or plain seconds; anything else is ignored without a word
	LogLevel Kind = "log level"
	KVType   Kind = "kv type"
	Text     Kind = "text"
)

// Reader is who reads a variable.
type Reader string

// The readers.
const (
	ByServer Reader = "server" // the process behind "ollama serve", when it starts
	ByClient Reader = "client" // the command line tool
	ByBoth   Reader = "server and client"
	ByApp    Reader = "desktop app"
	ByNobody Reader = "nobody"
)

// Variable is what is known of an environment variable of Ollama. From
// reference/ollama.md sections 2 and 3, which was read in the source of
// fb307609 (0.32.15) and 0.17.4 and their history.
type Variable struct {
	Name    string
	Kind    Kind
	Reader  Reader
	Since   string // first release that reads it
	Last    string // last release that reads it; "" is NewestKnown
	Default string // of NewestKnown, or of the last release that had it
	Effect  string
	Instead string // what to use where it is not read
	Caution string // what people get wrong
}

// Variables is the table.
func Variables() []Variable {
	v := append(serverVariables(), otherVariables()...)
	v = append(v, goneVariables()...)
	return append(v, phantomVariables()...)
}

func serverVariables() []Variable {
	const (
		app    = "the desktop app sets it from its own settings, which win over the environment"
		device = "hides or orders devices; a wrong value hides them all"
	)
	return []Variable{
		{"OLLAMA_HOST", Text, ByBoth, "0.0.1", "", "http://127.0.0.1:11434", "address to listen on, and for the client to ask", "", "http:// without a port means port 80; " + app},
		{"OLLAMA_ORIGINS", Text, ByServer, "0.0.14", "", "localhost and apps", "web pages that may ask", "", app},
		{"OLLAMA_MODELS", Text, ByServer, "0.1.6", "", "~/.ollama/models", "folder of the models", "", "a folder, not a list of models; " + app},
		{"OLLAMA_KEEP_ALIVE", Duration, ByServer, "0.1.29", "", "5m", "how long a model stays in memory after a request", "", "a plain number is seconds; a request's keep_alive wins; 0 unloads at once, negative is for ever"},
		{"OLLAMA_LOAD_TIMEOUT", Duration, ByServer, "0.3.10", "", "5m", "how long a load may stand still", "", "a plain number is seconds"},
		{"OLLAMA_NUM_PARALLEL", Number, ByServer, "0.1.33", "", "1", "requests for a model that are computed at once", "", "memory for the context is taken once for each"},
		{"OLLAMA_MAX_LOADED_MODELS", Number, ByServer, "0.1.33", "", "3 for each GPU", "models in memory at once", "", ""},
		{"OLLAMA_MAX_QUEUE", Number, ByServer, "0.1.34", "", "512", "requests that may wait for a load", "", "requests for a loaded model wait without this limit"},
		{"OLLAMA_CONTEXT_LENGTH", Number, ByServer, "0.5.13", "", "by GPU memory: 4096, 32768 or 262144", "context of a request that asks for none, per slot", "", "a request's or a Modelfile's num_ctx wins; " + app},
		{"OLLAMA_FLASH_ATTENTION", Boolean, ByServer, "0.1.39", "", "automatic", "flash attention on or off", "", ""},
		{"OLLAMA_KV_CACHE_TYPE", KVType, ByServer, "0.5.0", "", "f16", "type of the context's memory", "", ""},
		{"OLLAMA_GPU_OVERHEAD", Bytes, ByServer, "0.3.10", "", "0", "bytes left free on each GPU", "", "it also lowers the sum that picks the default context"},
		{"OLLAMA_SCHED_SPREAD", Boolean, ByServer, "0.1.45", "", "false", "spread every model over all GPUs", "", "spreading a model that fits one GPU makes it slower"},
		{"OLLAMA_IGPU_ENABLE", Boolean, ByServer, "0.30.0", "", "automatic", "use integrated GPUs", "", ""},
		{"OLLAMA_VULKAN", Boolean, ByServer, "0.12.11", "", "true", "use Vulkan", "", "off unless set from 0.12.11 to 0.24; not on macOS"},
		{"OLLAMA_LLM_LIBRARY", Text, ByServer, "0.1.21", "", "", "force a backend's library", "", ""},
		{"LLAMA_ARG_FIT", Text, ByServer, "0.30.0", "", "on", "llama-server fits unset options to the memory", "", ""},
		{"LLAMA_ARG_FIT_TARGET", Text, ByServer, "0.30.0", "", "1024", "MiB that it leaves free on each device", "", ""},
		{"OLLAMA_DEBUG", LogLevel, ByServer, "0.1.21", "", "0", "1 writes a debug log, 2 traces", "", ""},
		{"OLLAMA_DEBUG_LOG_REQUESTS", Boolean, ByServer, "0.18.3", "", "false", "write the body of each request to disk", "", "prompts end up in a temporary folder"},
		{"OLLAMA_GO_TEMPLATE", Boolean, ByServer, "0.30.0", "", "true", "use the Modelfile's TEMPLATE", "", "it decides how a schema is applied"},
		{"OLLAMA_NO_CLOUD", Boolean, ByServer, "0.16.2", "", "false", "no models computed elsewhere", "", ""},
		{"OLLAMA_REMOTES", Text, ByServer, "0.12.0", "", "ollama.com", "hosts that models may be computed at", "", ""},
		{"OLLAMA_MAX_TRANSFER_STREAMS", Number, ByServer, "0.23.3", "", "4", "streams for pulling safetensors", "", "no effect on GGUF"},
		{"OLLAMA_NOHISTORY", Boolean, ByClient, "0.1.39", "", "false", "no history on the command line", "", ""},
		{"OLLAMA_NOPRUNE", Boolean, ByServer, "0.0.19", "", "false", "keep unused files at start", "", ""},
		{"OLLAMA_EDITOR", Text, ByClient, "0.16.0", "", "", "editor of the command line", "", ""},
		{"CUDA_VISIBLE_DEVICES", Text, ByServer, "0.1.33", "", "", "NVIDIA devices that may be used", "", device + "; not on macOS"},
		{"HIP_VISIBLE_DEVICES", Text, ByServer, "0.1.29", "", "", "AMD devices that may be used, by number", "", device},
		{"ROCR_VISIBLE_DEVICES", Text, ByServer, "0.1.22", "", "", "AMD devices that may be used, by UUID or number", "", device},
		{"GPU_DEVICE_ORDINAL", Text, ByServer, "0.1.33", "", "", "AMD devices that may be used", "", device},
		{"GGML_VK_VISIBLE_DEVICES", Text, ByServer, "0.12.6", "", "", "Vulkan devices that may be used", "", device},
		{"HSA_OVERRIDE_GFX_VERSION", Text, ByServer, "0.1.29", "", "", "treat all AMD devices as another one", "", ""},
		{"HTTP_PROXY", Text, ByBoth, "0.0.1", "", "", "proxy for outgoing traffic", "", ""},
		{"HTTPS_PROXY", Text, ByBoth, "0.0.1", "", "", "proxy for outgoing traffic", "", ""},
		{"NO_PROXY", Text, ByBoth, "0.0.1", "", "", "hosts reached without the proxy", "", ""},
	}
}

func otherVariables() []Variable {
	return []Variable{
		{"OLLAMA_AUTH", Boolean, ByBoth, "0.8.0", "", "false", "authentication between client and server", "", ""},
		{"OLLAMA_CLOUD_BASE_URL", Text, ByServer, "0.18.0", "", "", "where cloud models are computed", "", ""},
		{"OLLAMA_EXPERIMENT", Text, ByServer, "0.6.0", "", "", "experiments to switch on", "", ""},
		{"OLLAMA_LLAMA_CPP_COMPAT", Boolean, ByServer, "0.30.0", "", "true", "compatibility with older model files in llama-server", "", ""},
		{"JETSON_JETPACK", Text, ByServer, "0.1.30", "", "", "JetPack version on a Jetson", "", ""},
		{"OLLAMA_SKILLS", Text, ByClient, "0.32.2", "", "", "the command line's agent", "", ""},
		{"OLLAMA_AGENT_DISABLE_SHELL", Boolean, ByClient, "0.32.0", "", "false", "the command line's agent", "", ""},
		{"OLLAMA_AGENT_DISABLE_WEBSEARCH", Boolean, ByClient, "0.14.0", "", "false", "the command line's agent", "", ""},
		{"OLLAMA_AGENT_DISABLE_BASH", Boolean, ByClient, "0.14.0", "0.31.1", "false", "the command line's agent", "OLLAMA_AGENT_DISABLE_SHELL", ""},
		{"OLLAMA_APP_DB_PATH", Text, ByApp, "0.32.15", "", "", "the desktop app's own data", "", ""},
		{"OLLAMA_CORS", Boolean, ByApp, "0.12.10", "", "", "the desktop app", "", ""},
		{"OLLAMA_DOT_COM_URL", Text, ByApp, "0.12.10", "", "", "the desktop app", "", ""},
		{"OLLAMA_API_KEY", Text, ByClient, "0.23.0", "", "", "key that \"ollama launch\" writes into other tools' settings", "", "not a setting of the server"},
		{"OLLAMA_LAUNCH_DSH_API_KEY", Text, ByClient, "0.32.11", "", "", "key that \"ollama launch\" writes into other tools' settings", "", "not a setting of the server"},
	}
}

// goneVariables were read once.
func goneVariables() []Variable {
	return []Variable{
		{"OLLAMA_NEW_ENGINE", Boolean, ByServer, "0.5.12", "0.24.0", "false", "run every model in Ollama's own engine", "nothing: models run in llama-server", ""},
		{"OLLAMA_MULTIUSER_CACHE", Boolean, ByServer, "0.3.13", "0.24.0", "false", "prompt cache for many users", "nothing: llama-server keeps prompts of its own accord", ""},
		{"OLLAMA_REGISTRY_MAXSTREAMS", Number, ByServer, "0.5.13", "0.31.1", "", "streams for pulling", "OLLAMA_MAX_TRANSFER_STREAMS for safetensors, nothing for GGUF", ""},
		{"OLLAMA_LIBRARY_PATH", Text, ByServer, "0.6.7", "0.24.0", "", "the server sets it for its runner", "nothing: it was never a user's setting", ""},
		{"OLLAMA_UPDATE_URL", Text, ByApp, "0.12.10", "0.22.1", "", "the desktop app", "", ""},
		{"OLLAMA_BACKEND", Text, ByServer, "0.14.0", "0.15.5", "", "experimental", "", ""},
		{"OLLAMA_NEW_ESTIMATES", Boolean, ByServer, "0.11.5", "0.11.10", "", "another estimate of memory", "nothing: it is the only one now", ""},
		{"OLLAMA_INTEL_GPU", Boolean, ByServer, "0.1.45", "0.12.10", "false", "look for Intel GPUs", "OLLAMA_VULKAN", ""},
		// The declaration stayed until 0.6.8; nothing used it from 0.2.8 on.
		{"OLLAMA_MAX_VRAM", Bytes, ByServer, "0.1.21", "0.2.7", "", "memory that may be used", "OLLAMA_GPU_OVERHEAD, a smaller context, OLLAMA_KV_CACHE_TYPE", "still declared, and without effect, until 0.6.8"},
		{"OLLAMA_RUNNERS_DIR", Text, ByServer, "0.1.33", "0.3.10", "", "folder of the runners", "nothing", ""},
		{"OLLAMA_TMPDIR", Text, ByServer, "0.1.21", "0.4.7", "", "folder for the runners", "nothing: runners are no longer unpacked", "Ollama's own troubleshooting page still recommends it"},
		{"OLLAMA_PORT", Number, ByServer, "0.0.1", "0.0.19", "", "port to listen on", "OLLAMA_HOST", ""},
	}
}

// phantomVariables are names that go round and that no release has ever read.
func phantomVariables() []Variable {
	const (
		layers  = "the option num_gpu, in the request or the Modelfile (or leave it: layers are placed automatically)"
		threads = "the option num_thread, in the request or the Modelfile"
		context = "OLLAMA_CONTEXT_LENGTH for the server, or the option num_ctx in the request or the Modelfile"
		batch   = "the option num_batch, in the request or the Modelfile"
		cpu     = "the option num_gpu: 0, or hide the devices (CUDA_VISIBLE_DEVICES=-1), or OLLAMA_LLM_LIBRARY"
		memory  = "OLLAMA_GPU_OVERHEAD (bytes to leave free), a smaller context, OLLAMA_KV_CACHE_TYPE"
	)
	var out []Variable
	for _, p := range [...]struct{ name, instead, caution string }{
		{"OLLAMA_NUM_GPU", layers, "Intel's IPEX-LLM fork of Ollama does read it"},
		{"OLLAMA_GPU_LAYERS", layers, ""},
		{"OLLAMA_NUM_THREAD", threads, "a change that would read it is proposed (ollama #17920) and not in any release up to " + NewestKnown},
		{"OLLAMA_NUM_THREADS", threads, ""},
		{"OLLAMA_THREADS", threads, ""},
		{"OLLAMA_NUM_CTX", context, ""},
		{"OLLAMA_CONTEXT_SIZE", context, ""},
		{"OLLAMA_MAX_CONTEXT", context, ""},
		{"OLLAMA_BATCH_SIZE", batch, ""},
		{"OLLAMA_NUM_BATCH", batch, ""},
		{"OLLAMA_MMAP", "the option use_mmap, in the request or the Modelfile", ""},
		{"OLLAMA_USE_MLOCK", "nothing: Ollama has no such option", ""},
		{"OLLAMA_CPU_ONLY", cpu, ""},
		{"OLLAMA_FORCE_CPU", cpu, ""},
		{"OLLAMA_CUDA", cpu, ""},
		{"OLLAMA_GPU_MEMORY_FRACTION", memory, ""},
		{"OLLAMA_LOW_VRAM", memory, ""},
		{"OLLAMA_PARALLEL", "OLLAMA_NUM_PARALLEL", ""},
		{"OLLAMA_TIMEOUT", "OLLAMA_LOAD_TIMEOUT for loading; a limit on requests is the client's", ""},
		{"OLLAMA_SKIP_CPU_GENERATE", "nothing: only build scripts used it", ""},
	} {
		out = append(out, Variable{Name: p.name, Kind: Text, Reader: ByNobody, Instead: p.instead, Caution: p.caution})
	}
	return out
}
