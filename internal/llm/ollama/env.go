package ollama

import (
	"bytes"
	"path"
	"regexp"
	"strconv"
	"strings"

	"millrace/internal/llm"
)

// JournalCommand prints the log of Ollama's Linux service, as the installer
// sets it up: the newest lines without the journal's own prefix. It needs
// membership of the group systemd-journal or adm where the service runs as
// another user. Its words are separated by single spaces.
const JournalCommand = "journalctl --unit=ollama --no-pager --quiet --output=cat --lines=20000"

// UserJournalCommand is the same for a service of the user's own.
const UserJournalCommand = "journalctl --user --unit=ollama --no-pager --quiet --output=cat --lines=20000"

// LogSource is a place where a server's log may be: a file, or a command that
// prints it.
type LogSource struct {
	Path    string
	Command string // words separated by single spaces
}

// LogPaths is where to look for Ollama's log on an operating system (GOOS),
// the likeliest first. env gives a variable's value, "" when it is not set.
// From Ollama's docs/troubleshooting.md; the last of macOS are Homebrew's.
func LogPaths(goos string, env func(string) string) []LogSource {
	var out []LogSource
	file := func(dir, sep string, parts ...string) {
		if dir != "" {
			out = append(out, LogSource{Path: strings.Join(append([]string{strings.TrimRight(dir, `/\`)}, parts...), sep)})
		}
	}
	switch goos {
	case "windows":
		file(env("LOCALAPPDATA"), `\`, "Ollama", "server.log")
		if env("LOCALAPPDATA") == "" {
			file(env("USERPROFILE"), `\`, "AppData", "Local", "Ollama", "server.log")
		}
	case "darwin":
		file(env("HOME"), "/", ".ollama", "logs", "server.log")
		file("/opt/homebrew", "/", "var", "log", "ollama.log")
		file("/usr/local", "/", "var", "log", "ollama.log")
	default:
		out = append(out, LogSource{Command: JournalCommand}, LogSource{Command: UserJournalCommand})
		file(env("HOME"), "/", ".ollama", "logs", "server.log")
	}
	return out
}

// relevant reports names that mean something to Ollama or to what is under it.
// Everything else in an environment or a file is nobody's business here.
func relevant(name string) bool {
	up := strings.ToUpper(name)
	for _, p := range [...]string{"OLLAMA_", "LLAMA_ARG_"} {
		if strings.HasPrefix(up, p) {
			return true
		}
	}
	switch name {
	case "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
		"GPU_DEVICE_ORDINAL", "HSA_OVERRIDE_GFX_VERSION", "JETSON_JETPACK", "NVIDIA_VISIBLE_DEVICES":
		return true
	}
	return strings.HasPrefix(name, "GGML_")
}

// hidden is what stands in a setting whose value is a secret or names people.
const hidden = "(set)"

// discreet takes secrets and names of people out of a value.
func discreet(name, v string) string {
	up := strings.ToUpper(name)
	switch {
	case v == "":
		return v
	case strings.Contains(up, "KEY") || strings.Contains(up, "TOKEN") || strings.Contains(up, "SECRET") ||
		strings.Contains(up, "PASS") || strings.HasSuffix(up, "_PROXY") || strings.HasSuffix(up, "_URL"):
		return hidden
	}
	return homeless(v)
}

var (
	homeDir = regexp.MustCompile(`(?i)(?:/home/|[/\\]Users[/\\])[^/\\\s"':;,]+`)
	// windowsHome is one whose name has spaces, as Windows allows: what follows
	// it tells where it ends.
	windowsHome = regexp.MustCompile(`(?i)[/\\]Users[/\\][^/\\"':;,]+[/\\]`)
)

// homeless replaces the home folder in a path, which names a person.
func homeless(s string) string {
	if !strings.Contains(s, "/") && !strings.Contains(s, `\`) {
		return s
	}
	s = strings.ReplaceAll(s, `\\`, `\`) // as a quoted log line has it
	if strings.Contains(s, `\`) {
		s = windowsHome.ReplaceAllString(s, `~\`)
	}
	return homeDir.ReplaceAllString(s, "~")
}

// ParseEnviron reads the environment of a process as Linux gives it in
// /proc/PID/environ: NAME=VALUE ended by NUL. Only names that matter to Ollama
// are kept; secrets and home folders are not.
func ParseEnviron(data []byte) []llm.Setting {
	var out []llm.Setting
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		name, v, ok := strings.Cut(string(entry), "=")
		if ok && relevant(name) {
			out = append(out, llm.Setting{Name: name, Value: discreet(name, v), Where: llm.InServer})
		}
	}
	return out
}

// FromEnviron is ParseEnviron for the form that Go's os.Environ has; where says
// whose environment it is.
func FromEnviron(environ []string, where llm.Place) []llm.Setting {
	var out []llm.Setting
	for _, entry := range environ {
		name, v, ok := strings.Cut(entry, "=")
		if ok && relevant(name) {
			out = append(out, llm.Setting{Name: name, Value: discreet(name, v), Where: where})
		}
	}
	return out
}

// nameInFile finds a variable that is set: what stands before it, its name,
// and what separates it from its value.
var nameInFile = regexp.MustCompile(
	`(^|[^A-Za-z0-9_$.{%/-])(?:\$\{?[Ee][Nn][Vv]:)?((?:OLLAMA|LLAMA_ARG|GGML|CUDA|HIP|ROCR|GPU|HSA|JETSON|NVIDIA|ollama)_[A-Za-z0-9_]+)\}?["']?(\s*[=:]\s*|["']?\s*,\s*["']|\s+)`)

// ParseEnvFile finds the settings for Ollama in a file that somebody wrote:
// KEY=VALUE (env files, /etc/environment), exports of a shell script, set, setx
// and $env: of Windows, Environment= of a systemd unit, "environment:" of a
// compose file as list or map, ENV of a Dockerfile, launchctl setenv, the
// EnvironmentVariables of a launchd plist. Comments are skipped. Only names
// that matter to Ollama are kept. file is put into each setting.
func ParseEnvFile(data []byte, file string) []llm.Setting {
	var out []llm.Setting
	where := placeOf(data)
	plist := bytes.Contains(data, []byte("<plist"))
	shell := bytes.HasPrefix(data, []byte("#!"))
	key, number := "", 0
	for raw := range bytes.Lines(data) {
		number++
		if len(raw) > 64<<10 {
			continue
		}
		line := strings.TrimSpace(strings.ToValidUTF8(string(bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))), ""))
		if plist {
			if k, ok := element(line, "key"); ok {
				key = k
			} else if v, ok := element(line, "string"); ok && relevant(key) {
				out = append(out, llm.Setting{Name: key, Value: discreet(key, v), Where: llm.InUnit, File: file, Line: number})
				key = ""
			}
			continue
		}
		if isComment(line) {
			continue
		}
		for _, s := range settingsIn(line, shell || severalInLine(line)) {
			s.Value = discreet(s.Name, s.Value)
			s.Where, s.File, s.Line = where, file, number
			out = append(out, s)
		}
	}
	return out
}

func isComment(line string) bool {
	for _, p := range [...]string{"#", ";", "//", "REM ", "rem ", "::"} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

// placeOf is the kind of file by what is in it.
func placeOf(data []byte) llm.Place {
	for raw := range bytes.Lines(data) {
		line := strings.TrimSpace(string(raw))
		switch {
		case line == "[Service]", strings.HasPrefix(line, "Environment="), strings.HasPrefix(line, "<plist"):
			return llm.InUnit
		case line == "environment:", line == "services:", strings.HasPrefix(line, "environment: ["),
			strings.HasPrefix(line, "FROM "), strings.HasPrefix(line, "ENV "):
			return llm.InContainer
		}
	}
	return llm.InFile
}

// element is the text of an XML element that stands alone in a line.
func element(line, name string) (string, bool) {
	s, ok := strings.CutPrefix(line, "<"+name+">")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(s, "</"+name+">")
}

// severalInLine reports lines in which a value without quotes ends at a space.
func severalInLine(line string) bool {
	for _, p := range [...]string{"Environment=", "ENV ", "export ", "docker ", "podman ", "sudo ", "env "} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

// settingsIn finds what a line sets; words is that a value without quotes ends
// at a space.
func settingsIn(line string, words bool) []llm.Setting {
	var out []llm.Setting
	for line != "" {
		m := nameInFile.FindStringSubmatchIndex(line)
		if m == nil {
			// A name at the end of a list of compose takes its value from
			// whoever runs compose: nothing is set here.
			return out
		}
		name, sep := line[m[4]:m[5]], line[m[6]:m[7]]
		before, rest := line[:m[4]], line[m[1]:]
		if !relevant(name) || strings.TrimSpace(sep) == "" && !takesSpace(before) || strings.Contains(sep, ",") && !strings.Contains(strings.ToLower(before), "setenvironmentvariable") {
			line = line[m[5]:]
			continue
		}
		var v string
		v, line = valueIn(before, sep, rest, words)
		out = append(out, llm.Setting{Name: name, Value: v})
	}
	return out
}

// takesSpace reports what writes name and value with a space between them.
func takesSpace(before string) bool {
	b := strings.ToLower(strings.TrimRight(before, " \t\"'"))
	for _, s := range [...]string{"setx", "setx /m", "setenv", "env"} {
		if b == s || strings.HasSuffix(b, " "+s) {
			return true
		}
	}
	return false
}

// valueIn reads a value and returns what follows it.
func valueIn(before, sep, rest string, words bool) (v, left string) {
	if before != "" { // "NAME=value with spaces"
		if q := before[len(before)-1]; q == '"' || q == '\'' {
			if i := strings.IndexByte(rest, q); i >= 0 && !strings.HasSuffix(sep, string(q)) && (len(rest) == 0 || rest[0] != q) {
				return rest[:i], rest[i+1:]
			}
		}
	}
	if strings.Contains(sep, ",") { // SetEnvironmentVariable("NAME", "value", ...)
		v, left, _ := strings.Cut(rest, sep[len(sep)-1:])
		return v, left
	}
	if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
		if v, left, ok := strings.Cut(rest[1:], rest[:1]); ok {
			return v, left
		}
	}
	switch {
	case strings.Contains(before, "["): // a list
		if i := strings.IndexAny(rest, ",]"); i >= 0 {
			return strings.TrimSpace(rest[:i]), rest[i:]
		}
	case words:
		if i := strings.IndexAny(rest, " \t;"); i >= 0 {
			return rest[:i], rest[i:]
		}
		return rest, ""
	}
	if i := strings.Index(rest, " #"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.Index(rest, "&&"); i >= 0 {
		return strings.TrimSpace(rest[:i]), rest[i:]
	}
	return strings.TrimRight(strings.TrimSpace(rest), ";"), ""
}

// Command is what the command line of llama-server, or of one of Ollama's older
// runners, says. Nil and empty: the option is not given.
type Command struct {
	Program      string // file, without its folder
	Engine       llm.Engine
	Model        string // file of the weights, without its folder
	HasModel     bool
	ContextTotal *int // of all slots
	Slots        *int
	Batch        *int
	Microbatch   *int
	GPULayers    *int
	Threads      *int
	MainGPU      *int
	FitTarget    string
	Fit          llm.Switch
	Flash        llm.Switch
	KVTypeK      string
	KVTypeV      string
	TensorSplit  string
	Device       string
	MMap         *bool
	Metrics      bool   // --metrics
	Library      string // cuda_v12, where the program's own folder names it
	Projector    bool
}

// KVType is f16, q8_0, ..., "q8_0/f16" where keys and values differ, "" where
// neither is given.
func (c Command) KVType() string {
	switch {
	case c.KVTypeK == c.KVTypeV || c.KVTypeV == "":
		return c.KVTypeK
	case c.KVTypeK == "":
		return "f16/" + c.KVTypeV
	}
	return c.KVTypeK + "/" + c.KVTypeV
}

// ParseCmdline reads a command line as Linux gives it in /proc/PID/cmdline:
// words ended by NUL.
func ParseCmdline(data []byte) Command {
	return ParseCommand(strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00"))
}

// ParseCommandLine reads a command line that was printed without quotes, as
// Ollama's log has it: a folder with spaces in its name is taken together.
func ParseCommandLine(line string) Command {
	var words []string
	for w := range strings.FieldsSeq(line) {
		if n := len(words); n > 0 && !strings.HasPrefix(w, "-") && (n == 1 || !strings.HasPrefix(words[n-1], "-")) && w != "runner" && words[n-1] != "runner" {
			words[n-1] += " " + w // the value of an option has one word: this is its next
			continue
		}
		words = append(words, w)
	}
	return ParseCommand(words)
}

// ParseCommand reads the words of a command line, the program's name first.
func ParseCommand(argv []string) Command {
	var c Command
	if len(argv) == 0 {
		return c
	}
	c.Program = base(argv[0])
	c.Library = libraryOf(argv[0])
	c.Engine = engineOf(c.Program)
	set := func(to **int, s string) {
		if n, err := strconv.ParseInt(s, 10, 32); err == nil {
			*to = new(int(n))
		}
	}
	for i := 1; i < len(argv); i++ {
		name, v, joined := strings.Cut(argv[i], "=")
		if !strings.HasPrefix(name, "-") {
			joined = false
			name = argv[i]
		}
		next := ""
		if joined {
			next = v
		} else if i+1 < len(argv) && !isFlag(argv[i+1]) {
			next = argv[i+1]
		}
		switch name {
		case "--model", "-m":
			c.Model, c.HasModel = base(next), true
		case "-c", "--ctx-size":
			set(&c.ContextTotal, next)
		case "-np", "--parallel":
			set(&c.Slots, next)
		case "-b", "--batch-size":
			set(&c.Batch, next)
		case "-ub", "--ubatch-size":
			set(&c.Microbatch, next)
		case "-ngl", "--gpu-layers", "--n-gpu-layers":
			set(&c.GPULayers, next) // auto and all are no number
		case "-t", "--threads":
			set(&c.Threads, next)
		case "-mg", "--main-gpu":
			set(&c.MainGPU, next)
		case "-fa", "--flash-attn":
			c.Flash = switchOf(next, llm.On)
		case "-ctk", "--cache-type-k":
			c.KVTypeK = strings.ToLower(next)
		case "-ctv", "--cache-type-v":
			c.KVTypeV = strings.ToLower(next)
		case "--kv-cache-type": // Ollama's older runners
			c.KVTypeK, c.KVTypeV = strings.ToLower(next), strings.ToLower(next)
		case "-ts", "--tensor-split":
			c.TensorSplit = next
		case "-dev", "--device":
			c.Device = next
		case "-fit", "--fit":
			c.Fit = switchOf(next, llm.On)
		case "-fitt", "--fit-target":
			c.FitTarget = next
		case "--no-mmap":
			c.MMap = new(false)
		case "--mmap":
			c.MMap = new(true)
		case "-lm", "--load-mode":
			if next != "" && next != "auto" {
				c.MMap = new(strings.HasPrefix(next, "mmap"))
			}
		case "--metrics":
			c.Metrics = true
		case "--mmproj", "-mm":
			c.Projector = true
		case "--ollama-engine":
			c.Engine = llm.OllamaEngine
		case "--mlx-engine":
			c.Engine = llm.MLXEngine
		}
	}
	return c
}

// isFlag tells an option from a negative number.
func isFlag(s string) bool {
	return len(s) > 1 && s[0] == '-' && (s[1] < '0' || s[1] > '9')
}

func switchOf(s string, given llm.Switch) llm.Switch {
	switch strings.ToLower(s) {
	case "on", "1", "true", "enabled":
		return llm.On
	case "off", "0", "false", "disabled":
		return llm.Off
	case "auto", "-1":
		return llm.Auto
	}
	return given
}

// engineOf is the engine by its program: "ollama runner" says with a flag if
// it is not the llama.cpp one.
func engineOf(program string) llm.Engine {
	switch p := strings.TrimSuffix(strings.ToLower(program), ".exe"); {
	case p == "llama-server":
		return llm.LlamaServerEngine
	case p == "ollama" || strings.HasPrefix(p, "ollama_llama_server") || p == "server":
		return llm.LlamaRunner
	}
	return ""
}

// base is the last part of a path of any system. Blobs are named sha256:… on
// old systems and sha256-… on others; it is the latter here.
func base(p string) string {
	p = strings.Trim(p, `"' `)
	p = path.Base(strings.ReplaceAll(strings.ReplaceAll(p, `\\`, "/"), `\`, "/"))
	if p == "." || p == "/" {
		return ""
	}
	return strings.Replace(p, "sha256:", "sha256-", 1)
}

var libraryDir = regexp.MustCompile(`(?:^|[/\\])((?:cuda|rocm|hip|vulkan|metal|oneapi|cpu|mlx)(?:_[a-z0-9._]+)?)[/\\]`)

// libraryOf is the backend that a path has as one of its folders.
func libraryOf(p string) string {
	if all := libraryDir.FindAllStringSubmatch(strings.ReplaceAll(p, `\\`, `\`), -1); all != nil {
		return all[len(all)-1][1]
	}
	return ""
}
