package ollama

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// logLine is one line of a server's log, whatever wrote it.
type logLine struct {
	text  string // the line without what a supervisor put in front
	time  time.Time
	local bool   // the time is the server's own, without a zone
	unix  bool   // the time is in seconds since 1970: it says nothing of a zone
	msg   string // message of a structured line
	attrs map[string]string
}

func (l *logLine) attr(name string) string { return l.attrs[name] }

// whole is an attribute as a number, nil if it is none.
func (l *logLine) whole(name string) *int { return wholeNumber(l.attrs[name]) }

func wholeNumber(s string) *int {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32)
	if err != nil {
		return nil
	}
	return new(int(n))
}

// bytes is an attribute that is a size such as "8.0 GiB".
func (l *logLine) bytes(name string) *int64 { return parseBytes(l.attrs[name]) }

// parseBytes reads a size as Ollama's format.HumanBytes2 prints it ("457.0
// MiB", "0 B"). nil if it is none.
func parseBytes(s string) *int64 {
	number, unit, ok := strings.Cut(strings.Trim(strings.TrimSpace(s), "[]"), " ")
	if !ok {
		return nil
	}
	x, err := strconv.ParseFloat(number, 64)
	if err != nil || x < 0 || math.IsNaN(x) {
		return nil
	}
	switch unit {
	case "B":
	case "KiB":
		x *= 1 << 10
	case "MiB":
		x *= 1 << 20
	case "GiB":
		x *= 1 << 30
	case "TiB":
		x *= 1 << 40
	default:
		return nil
	}
	if x > 1<<60 {
		return nil
	}
	return new(int64(x))
}

var (
	ansi = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")
	// plainLog is how slog prints through package log, as Ollama did until it
	// had read its settings, and before 0.1.30 always.
	plainLog = regexp.MustCompile(`(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) [\w./-]+\.go:\d+: (?:(?:DEBUG|INFO|WARN|ERROR)(?:[+-]\d+)? )?(.*)$`)
	// plainAttr is where the attributes of such a line begin.
	plainAttr = regexp.MustCompile(` ("[^"]+"|[A-Za-z_][\w.]*)=`)
	// barLog is llama.cpp's old server: INFO [initialize] new slot | n_ctx_slot=2048 …
	barLog = regexp.MustCompile(`\[\s*\w+\] ([^|]*?) \| (.*)$`)
	ginLog = regexp.MustCompile(`\[GIN\] (\d{4}/\d\d/\d\d - \d\d:\d\d:\d\d) \|\s*(\d+)\s*\|\s*([^|]*?)\s*\|[^|]*\|\s*([A-Z]+)\s+"([^"]*)"`)
)

// maxLine is the longest line that is looked at; the longest that Ollama
// writes without debug is the list of settings, about 2 KB.
const maxLine = 64 << 10

// readLine takes a line apart. Journal, Docker, Compose, Kubernetes and
// wrappers put something before each line; what a line is begins where its own
// form begins.
func readLine(raw []byte) logLine {
	if len(raw) > maxLine {
		raw = raw[:maxLine]
	}
	return lineOf(strings.TrimRight(strings.ToValidUTF8(string(raw), "�"), "\r\n"), 0)
}

func lineOf(s string, depth int) logLine {
	if strings.Contains(s, "\x1b[") {
		s = ansi.ReplaceAllString(s, "")
	}
	if i := strings.IndexByte(s, '{'); i >= 0 && strings.HasSuffix(s, "}") && strings.Contains(s[i:], `":`) && depth < 2 {
		if l, ok := jsonLine(s[i:], depth); ok {
			return l
		}
	}
	l := logLine{text: s}
	if i := strings.Index(s, "level="); i >= 0 {
		if j := strings.Index(s[i:], " msg="); j >= 0 {
			l.attrs = logfmt(s[i+j+1:])
			l.msg = l.attrs["msg"]
			if k := strings.LastIndex(s[:i], "time="); k >= 0 {
				l.time, l.local = parseTime(strings.Trim(strings.TrimSpace(s[k+len("time="):i]), `"`))
			}
			return l
		}
	}
	if m := plainLog.FindStringSubmatch(s); m != nil {
		l.time, l.local = parseTime(m[1])
		l.msg = m[2]
		if i := plainAttr.FindStringIndex(m[2]); i != nil {
			l.msg, l.attrs = m[2][:i[0]], logfmt(m[2][i[0]+1:])
		}
		return l
	}
	if strings.Contains(s, "] ") && strings.Contains(s, " | ") && !strings.Contains(s, "[GIN]") {
		if m := barLog.FindStringSubmatch(s); m != nil {
			l.msg, l.attrs = m[1], logfmt(m[2])
		}
	}
	return l
}

// jsonLine reads a line that is a JSON object: Docker's and the journal's
// wrapping of another line, or a structured line of its own.
func jsonLine(s string, depth int) (logLine, bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(s), &fields) != nil {
		return logLine{}, false
	}
	text := func(name string) (string, bool) {
		var v string
		ok := len(fields[name]) > 0 && json.Unmarshal(fields[name], &v) == nil
		return v, ok
	}
	for _, wrap := range [...]string{"log", "MESSAGE"} {
		if inner, ok := text(wrap); ok {
			return lineOf(strings.TrimRight(inner, "\r\n"), depth+1), true
		}
	}
	l := logLine{text: s, attrs: make(map[string]string, len(fields))}
	for name, raw := range fields {
		if v, ok := text(name); ok {
			l.attrs[name] = v
		} else {
			l.attrs[name] = string(raw)
		}
	}
	for _, name := range [...]string{"msg", "message"} {
		if m, ok := text(name); ok {
			l.msg = m
			break
		}
	}
	if l.msg == "" {
		return logLine{}, false
	}
	if t, ok := text("time"); ok {
		l.time, l.local = parseTime(t)
	} else if n, err := strconv.ParseInt(l.attrs["timestamp"], 10, 64); err == nil && n > 0 && n < 1<<33 {
		l.time, l.unix = time.Unix(n, 0).UTC(), true
	}
	return l, true
}

// parseTime reads a time; local is that it has no zone (it is then in UTC).
func parseTime(s string) (t time.Time, local bool) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, false
	}
	for _, layout := range [...]string{"2006/01/02 15:04:05", "2006/01/02 - 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// parseIn reads a clock's time, which was taken for UTC, in a zone.
func parseIn(t time.Time, zone *time.Location) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
}

// logfmt reads key=value pairs. Keys and values may be quoted as by
// strconv.Quote.
func logfmt(s string) map[string]string {
	out := map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return out
		}
		var key, v string
		key, s = token(s, "= ")
		if !strings.HasPrefix(s, "=") {
			continue // a word that belongs to nothing
		}
		v, s = token(s[1:], " ")
		if _, twice := out[key]; !twice {
			out[key] = v
		}
	}
}

// token reads a quoted text, or up to one of the bytes in stop. It always
// consumes something of a text that does not begin with '='.
func token(s, stop string) (tok, rest string) {
	if strings.HasPrefix(s, `"`) {
		if q, err := strconv.QuotedPrefix(s); err == nil {
			if v, err := strconv.Unquote(q); err == nil {
				return v, s[len(q):]
			}
		}
		if i := strings.IndexByte(s[1:], '"'); i >= 0 { // a quote that is no Go string
			return s[1 : i+1], s[i+2:]
		}
		return s[1:], "" // cut off
	}
	i := strings.IndexAny(s, stop)
	if i < 0 {
		return s, ""
	}
	if i == 0 && s[0] == '=' && strings.Contains(stop, "=") {
		// "=x" without a key: skip it as a value
		j := strings.IndexByte(s, ' ')
		if j < 0 {
			return s, ""
		}
		return s[:j], s[j:]
	}
	return s[:i], s[i:]
}

// goMap reads what fmt prints for a map of texts, "map[A:1 B:[x y] C:]", whose
// keys are names of variables. Values may hold spaces and colons.
func goMap(s string) map[string]string {
	s = strings.TrimPrefix(s, "map[")
	s = strings.TrimSuffix(s, "]")
	out := map[string]string{}
	marks := mapKey.FindAllStringSubmatchIndex(s, -1)
	for i, m := range marks {
		end := len(s)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		out[s[m[2]:m[3]]] = s[m[1]:end]
	}
	return out
}

var mapKey = regexp.MustCompile(`(?:^| )([A-Z][A-Z0-9]*_[A-Z0-9_]+|https?_proxy|no_proxy):`)

// goStruct reads what fmt's %+v prints for a flat struct, "{A:1 B:[] C:}",
// whose fields begin with a capital.
func goStruct(s string) map[string]string {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}")
	out := map[string]string{}
	depth, start, key := 0, 0, ""
	flush := func(end int) {
		if key != "" {
			out[key] = s[start:end]
		}
	}
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[', '{', '(':
			depth++
			continue
		case ']', '}', ')':
			depth--
			continue
		}
		if depth != 0 || s[i] < 'A' || s[i] > 'Z' || i > 0 && s[i-1] != ' ' {
			continue
		}
		j := i
		for j < len(s) && (s[j] >= 'A' && s[j] <= 'Z' || s[j] >= 'a' && s[j] <= 'z' || s[j] >= '0' && s[j] <= '9') {
			j++
		}
		if j < len(s) && s[j] == ':' {
			flush(max(i-1, start))
			key, start = s[i:j], j+1
			i = j
		}
	}
	flush(len(s))
	return out
}
