package ollama

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"millrace/internal/llm"
)

// howToSet is where a variable has to stand.
const howToSet = "it has to be in the environment of the server process, which is restarted after: " +
	"\"systemctl edit ollama\" (Linux service), \"launchctl setenv\" (macOS), the user's environment variables (Windows), " +
	"\"environment:\" of the container"

// CheckSettings says of each setting what a server of this version does with
// it. Settings found in the server's process or log are proof of what it has,
// and the others are measured against them. Where there is no such proof, a
// shell's variable counts as misplaced, and one in a file as read on the
// condition that something loads the file. Names that are not Ollama's and
// mean nothing to it are left out.
//
// version may be "" or 0.0.0: then no verdict depends on it.
func CheckSettings(version string, vars []llm.Setting) []llm.SettingNote {
	c := checker{table: map[string]Variable{}, vars: vars}
	c.version, c.known = known(version)
	if v, ok := parseVersion(NewestKnown); ok && c.known {
		c.newer = v.compare(c.version) < 0
	}
	for _, v := range Variables() {
		c.table[v.Name] = v
	}
	var notes []llm.SettingNote
	for _, s := range vars {
		if n, ok := c.check(s); ok {
			notes = append(notes, n)
		}
	}
	return notes
}

type checker struct {
	version version
	known   bool
	newer   bool // than the tables
	table   map[string]Variable
	vars    []llm.Setting
}

// value is a variable's value as Ollama sees it (envconfig.Var).
func value(s string) string { return strings.Trim(strings.TrimSpace(s), `"'`) }

func (c *checker) check(s llm.Setting) (llm.SettingNote, bool) {
	n := llm.SettingNote{Setting: s, Verdict: llm.SettingRead}
	v, listed := c.lookup(s.Name)
	switch {
	case !listed && strings.HasPrefix(strings.ToUpper(s.Name), "OLLAMA_"):
		n.Verdict = llm.NotRead
		c.guess(&n)
		return n, true
	case !listed && strings.HasPrefix(s.Name, "LLAMA_ARG_"):
		return c.llamaArg(n), true
	case !listed && libraryVariable(s.Name):
		n.Note = "not Ollama's own; the libraries under it may read it"
		c.place(&n, Variable{Name: s.Name, Kind: Text, Reader: ByServer})
		return n, true
	case !listed:
		return n, false
	}
	n.Effect = v.Effect
	switch {
	case v.Reader == ByNobody:
		n.Verdict, n.Instead = llm.NotRead, v.Instead
		n.Add("no release of Ollama has ever read this name")
		n.Add(v.Caution)
		c.newerNote(&n)
		return n, true
	case c.known && c.version.before(v.Since):
		n.Verdict = llm.NotInVersion
		n.Add(fmt.Sprintf("read from %s on; this is %s", v.Since, c.version))
		return n, true
	case v.Last != "" && (!c.known || c.after(v.Last)):
		n.Instead = v.Instead
		if c.known {
			n.Verdict = llm.NotInVersion
			n.Add(fmt.Sprintf("read up to %s; this is %s", v.Last, c.version))
		} else {
			n.Add(fmt.Sprintf("read only from %s to %s", v.Since, v.Last))
		}
		n.Add(v.Caution)
		if c.known {
			return n, true
		}
	}
	c.value(&n, v)
	if n.Verdict == llm.SettingRead {
		c.place(&n, v)
	}
	c.cross(&n)
	c.newerNote(&n)
	return n, true
}

func (c *checker) newerNote(n *llm.SettingNote) {
	if c.newer {
		n.Add("this version is newer than the table, which ends with " + NewestKnown)
	}
}

func (c *checker) after(last string) bool {
	v, ok := parseVersion(last)
	return ok && c.known && v.compare(c.version) < 0
}

func (c *checker) lookup(name string) (Variable, bool) {
	if v, ok := c.table[name]; ok {
		return v, true
	}
	if up := strings.ToUpper(name); strings.HasSuffix(up, "_PROXY") {
		v, ok := c.table[up] // read in lower case too
		return v, ok
	}
	if strings.HasPrefix(name, "OLLAMA_MLX_MTP_") {
		return Variable{Name: name, Kind: Text, Reader: ByServer, Since: "0.23.1", Last: "0.30.10", Effect: "draft tokens of MLX models", Instead: "nothing"}, true
	}
	return Variable{}, false
}

// guess names what somebody may have meant.
func (c *checker) guess(n *llm.SettingNote) {
	up := strings.ToUpper(n.Name)
	best, far := "", 4
	for name, v := range c.table {
		if v.Reader == ByNobody || v.Last != "" {
			continue
		}
		if d := levenshtein.ComputeDistance(up, name); d < far || d == far && best != "" && name < best {
			best, far = name, d
		}
	}
	if best != "" {
		n.Instead = best
		if up == best {
			n.Add("names are in capitals")
		}
	}
	n.Add("not among the names that Ollama reads up to " + NewestKnown)
	c.newerNote(n)
}

// llamaArg judges a variable of llama-server, which has the environment of the
// Ollama that started it. Flags win over variables, and these are always given
// (llm/llama_server.go, startLlamaServer).
func (c *checker) llamaArg(n llm.SettingNote) llm.SettingNote {
	n.Effect = "an option of llama-server, which models run in from 0.30.0 on"
	switch n.Name {
	case "LLAMA_ARG_CTX_SIZE", "LLAMA_ARG_N_PARALLEL", "LLAMA_ARG_MODEL", "LLAMA_ARG_HOST", "LLAMA_ARG_PORT",
		"LLAMA_ARG_BATCH", "LLAMA_ARG_UBATCH", "LLAMA_ARG_FLASH_ATTN":
		n.Verdict = llm.NotRead
		n.Add("Ollama gives this option on llama-server's command line, which wins")
		switch n.Name {
		case "LLAMA_ARG_CTX_SIZE":
			n.Instead = "OLLAMA_CONTEXT_LENGTH"
		case "LLAMA_ARG_N_PARALLEL":
			n.Instead = "OLLAMA_NUM_PARALLEL"
		case "LLAMA_ARG_FLASH_ATTN":
			n.Instead = "OLLAMA_FLASH_ATTENTION"
		case "LLAMA_ARG_BATCH", "LLAMA_ARG_UBATCH":
			n.Instead = "the option num_batch, in the request or the Modelfile"
		case "LLAMA_ARG_HOST", "LLAMA_ARG_PORT":
			n.Instead = "OLLAMA_HOST"
		}
		return n
	}
	if c.known && c.version.before("0.30.0") {
		n.Verdict = llm.NotInVersion
		n.Add(fmt.Sprintf("models run in llama-server from 0.30.0 on; this is %s", c.version))
		return n
	}
	n.Add("undocumented: it reaches llama-server because that inherits the environment")
	c.place(&n, Variable{Name: n.Name, Kind: Text, Reader: ByServer})
	return n
}

// value finds values that do not mean what they seem to.
func (c *checker) value(n *llm.SettingNote, v Variable) {
	s := value(n.Value)
	if s == "" {
		n.Add("empty is the same as not set")
		return
	}
	if n.Where == llm.InLog {
		c.logged(n, v, s)
		return
	}
	switch v.Kind {
	case Boolean:
		if _, err := strconv.ParseBool(s); err != nil {
			n.Verdict = llm.BadValue
			n.Instead = v.Name + "=1 or " + v.Name + "=0"
			n.Add(fmt.Sprintf("%q is no boolean, and what is none counts as true", s))
		}
	case Number, Bytes:
		x, err := strconv.ParseUint(s, 10, 64)
		switch {
		case err != nil:
			n.Verdict = llm.BadValue
			n.Instead = "a whole number without sign or unit"
			n.Add(fmt.Sprintf("%q is ignored, and the default is taken (%s)", s, v.Default))
		case v.Kind == Bytes && x > 0 && x < 1<<20:
			n.Add("it is in bytes: less than one MiB is nothing")
		}
	case Duration:
		if _, err := strconv.ParseInt(s, 10, 64); err == nil {
			n.Add("a plain number is seconds")
		} else if _, err := time.ParseDuration(s); err != nil {
			n.Verdict = llm.BadValue
			n.Instead = "a duration such as 30m or 24h, or seconds"
			n.Add(fmt.Sprintf("%q is ignored without a word, and the default is taken (%s)", s, v.Default))
		}
	case LogLevel:
		b, err := strconv.ParseBool(s)
		x, err2 := strconv.ParseInt(s, 10, 64)
		switch {
		case err != nil && err2 != nil:
			n.Verdict = llm.BadValue
			n.Instead = "0, 1 or 2"
			n.Add(fmt.Sprintf("%q is ignored", s))
		case b || x != 0:
			n.Add("a debug log grows fast")
		}
	case KVType:
		c.kvType(n, strings.ToLower(s))
	case Text:
	}
	switch {
	case n.Name == "OLLAMA_NUM_PARALLEL" && s == "0" && c.known && c.version.before("0.10.0"):
		n.Add("0 is automatic")
	case n.Name == "OLLAMA_NUM_PARALLEL" && s == "0":
		n.Add("0 is 1 from 0.10.0 on")
	case n.Name == "OLLAMA_CONTEXT_LENGTH" && s == "0":
		n.Add("0 is the default")
	case strings.HasSuffix(n.Name, "_VISIBLE_DEVICES") && (s == "-1" || strings.EqualFold(s, "none")):
		n.Add("it hides all these devices")
	}
	if v.Caution != "" && n.Verdict == llm.SettingRead {
		n.Add(v.Caution)
	}
}

func (c *checker) kvType(n *llm.SettingNote, s string) {
	allowed := []string{"f16", "q8_0", "q4_0"}
	if c.known && !c.version.before("0.30.0") {
		allowed = append(allowed, "f32", "bf16", "q4_1", "iq4_nl", "q5_0", "q5_1") // llama-server's
	}
	if !slices.Contains(allowed, s) {
		n.Verdict = llm.BadValue
		n.Instead = strings.Join(allowed[:3], ", ")
		n.Add(fmt.Sprintf("%q is not a type that it knows", s))
	}
}

// logged is about values as the log's "server config" prints them: after
// parsing, with defaults filled in.
func (c *checker) logged(n *llm.SettingNote, v Variable, s string) {
	switch {
	case v.Name == "OLLAMA_FLASH_ATTENTION" && s == "false":
		n.Add("the log prints false for \"not set\" too")
	case v.Name == "OLLAMA_CONTEXT_LENGTH" && s == "0":
		n.Add("not set: the default is taken")
	case v.Name == "OLLAMA_NUM_PARALLEL" && s == "0":
		n.Add("automatic")
	}
}

// place compares with what the server is known to have.
func (c *checker) place(n *llm.SettingNote, v Variable) {
	if n.Where == llm.InServer || n.Where == llm.InLog || v.Reader == ByClient || v.Reader == ByApp {
		return
	}
	proof := false
	for _, where := range [...]llm.Place{llm.InServer, llm.InLog} {
		for _, s := range c.vars {
			if s.Where != where {
				continue
			}
			proof = true
			if s.Name != n.Name {
				continue
			}
			if same(v, s.Value, n.Value) {
				n.Add("the running server has this value")
				return
			}
			n.Verdict = llm.WrongPlace
			n.Add(fmt.Sprintf("the running server has %q: it started without this, or was not restarted since", value(s.Value)))
			n.Add(howToSet)
			return
		}
		if proof && where == llm.InServer {
			break
		}
	}
	switch {
	case proof:
		n.Verdict = llm.WrongPlace
		n.Add("the running server does not have it: nothing loads this into its environment, or it was not restarted since")
		n.Add(howToSet)
	case n.Where == llm.InShell && v.Reader == ByBoth:
		n.Add("here only the client reads it")
	case n.Where == llm.InShell:
		n.Verdict = llm.WrongPlace
		n.Add("a server that runs as a service or an app does not see the shell's variables")
		n.Add(howToSet)
	case n.Where == llm.InFile:
		n.Add("only the server process reads it, from its environment: a file that nothing loads has no effect")
		n.Add(howToSet)
	default:
		n.Add("it counts once the server was started anew with it")
	}
}

// same compares values as a variable of this kind understands them.
func same(v Variable, a, b string) bool {
	a, b = value(a), value(b)
	if strings.EqualFold(a, b) {
		return true
	}
	switch v.Kind {
	case Boolean:
		return truth(a) == truth(b)
	case Number, Bytes:
		x, err1 := strconv.ParseUint(a, 10, 64)
		y, err2 := strconv.ParseUint(b, 10, 64)
		return err1 == nil && err2 == nil && x == y
	case Duration:
		x, ok1 := keepAlive(a)
		y, ok2 := keepAlive(b)
		return ok1 && ok2 && (x == y || x < 0 && y < 0)
	default:
		return v.Name == "OLLAMA_HOST" && sameHost(a, b)
	}
}

func sameHost(a, b string) bool {
	x, err1 := BaseURL(a)
	y, err2 := BaseURL(b)
	return err1 == nil && err2 == nil && x == y
}

// truth is what a boolean counts as.
func truth(s string) bool {
	if s == "" {
		return false
	}
	b, err := strconv.ParseBool(s)
	return err != nil || b
}

// keepAlive reads a duration as envconfig.KeepAlive does; the log prints for
// ever as the longest duration there is.
func keepAlive(s string) (llm.Seconds, bool) {
	d, err := time.ParseDuration(s)
	if err != nil {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, false
		}
		if n < 0 {
			return -1, true
		}
		return llm.Seconds(n), true
	}
	if d < 0 || d > 200*365*24*time.Hour {
		return -1, true
	}
	return llm.Seconds(d.Seconds()), true
}

// cross is about settings that only work together.
func (c *checker) cross(n *llm.SettingNote) {
	switch n.Name {
	case "OLLAMA_KV_CACHE_TYPE":
		t := strings.ToLower(value(n.Value))
		if t == "" || t == "f16" || t == "f32" || t == "bf16" {
			return
		}
		flash, set := "", false
		for _, s := range c.vars {
			if s.Name == "OLLAMA_FLASH_ATTENTION" {
				flash, set = value(s.Value), s.Where != llm.InLog || truth(s.Value)
			}
		}
		switch {
		case set && !truth(flash):
			n.Add("it needs flash attention, which OLLAMA_FLASH_ATTENTION switches off")
		case !set && c.known && c.version.before("0.30.0"):
			n.Add("up to 0.24 it is ignored unless OLLAMA_FLASH_ATTENTION=1 is set, but for the models of Ollama's own engine that have it on by themselves")
		}
	case "OLLAMA_VULKAN":
		if c.known && c.version.before("0.30.0") && !truth(value(n.Value)) {
			n.Add("off is the default of this version")
		}
	}
}

// libraryVariable reports names that llama.cpp or a driver read.
func libraryVariable(name string) bool {
	for _, p := range [...]string{"GGML_", "CUDA_", "HIP_", "HSA_", "ROCR_", "GPU_", "NVIDIA_", "MTL_"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
