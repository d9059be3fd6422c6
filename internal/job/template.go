package job

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/go-json-experiment/json/jsontext"

	"millrace/internal/record"
)

// promptTemplate is a prompt ready to be filled. What a template prints of a
// record is fenced: `{{ .review }}` gives <review>...</review>, with nothing
// in between that could close it. Numbers and booleans of JSON are printed as
// they are, absent and null values as an empty fence. `{{ raw .review }}`
// prints without a fence, `{{ json .review }}` prints JSON, fenced. In
// conditions, ranges and functions a field is its plain value.
type promptTemplate struct {
	input []string
	tags  []string // of the input fields

	// Most prompts only put fields between texts; those are written without
	// text/template.
	parts []part // nil when the prompt needs more
	full  *template.Template
}

// part is a piece of text and the field behind it.
type part struct {
	text  string
	field int // index in input; -1 for none
	mode  mode
}

type mode int

const (
	fenced mode = iota
	bare
	asJSON
)

// What the functions of a template return for the printing that follows.
type (
	rawText  string // print as it is
	jsonText string // JSON
	number   string // a JSON number that Go's own would not print as it was written
)

// compileTemplate checks and compiles a prompt; what is wrong goes to at.
func compileTemplate(text string, input []string, at *position) *promptTemplate {
	t := &promptTemplate{input: input, tags: make([]string, len(input))}
	for i, f := range input {
		t.tags[i] = tagOf(f)
		for n := 2; slices.Contains(t.tags[:i], t.tags[i]); n++ {
			t.tags[i] = tagOf(f) + "_" + strconv.Itoa(n)
		}
	}
	full, err := template.New("prompt").Option("missingkey=zero").Funcs(t.funcs()).Parse(text)
	if err != nil {
		line, message := templateError(err)
		at.addLine("prompt: "+message, line, "prompt")
		return nil
	}
	w := templateWalk{t: t, text: text, at: at}
	for _, other := range full.Templates() {
		if other != full && other.Tree != nil {
			w.wrong(other.Root, "define and block have no place in a prompt")
		}
	}
	if full.Tree == nil {
		return nil // an empty prompt is reported elsewhere
	}
	t.parts = t.simpleParts(full.Root)
	w.list(full.Root, scope{top: true, name: "record"})
	t.full = full
	return t
}

var templateErrorForm = regexp.MustCompile(`^template: prompt:(\d+)(?::\d+)?: (?s:(.*))$`)

func templateError(err error) (line int, message string) {
	m := templateErrorForm.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, err.Error()
	}
	line, _ = strconv.Atoi(m[1])
	return line, m[2]
}

// printFunc is the function that is put behind each value printed.
const printFunc = "_print"

func (t *promptTemplate) funcs() template.FuncMap {
	return template.FuncMap{
		"raw": func(v any) rawText {
			return rawText(plainText(v))
		},
		"json": func(v any) (jsonText, error) {
			if n, ok := v.(number); ok {
				return jsonText(n), nil
			}
			b, err := marshalPlain(v)
			return jsonText(b), err
		},
		"len": func(v any) (int, error) {
			switch v := v.(type) {
			case nil:
				return 0, nil
			case string:
				return len(v), nil
			case []any:
				return len(v), nil
			case map[string]any:
				return len(v), nil
			}
			return 0, errors.New("len of a number or truth value")
		},
		printFunc: func(tag string, v any) string { return string(appendPrinted(nil, tag, v)) },
	}
}

// plainText is a value without fence.
func plainText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case rawText:
		return string(v)
	case jsonText:
		return string(v)
	case number:
		return string(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any, map[string]any:
		b, err := marshalPlain(v)
		if err != nil {
			return ""
		}
		return string(b)
	}
	return fmt.Sprint(v)
}

// MarshalJSON writes the number as it was written.
func (n number) MarshalJSON() ([]byte, error) { return []byte(n), nil }

// marshalPlain is JSON that leaves '<' and '&' alone.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func appendPrinted(dst []byte, tag string, v any) []byte {
	switch v := v.(type) {
	case rawText:
		return append(dst, v...)
	case jsonText:
		if isPlainJSON(string(v)) {
			return append(dst, v...)
		}
	case bool, int, int64, float64, number:
		return append(dst, plainText(v)...)
	}
	return appendFence(dst, tag, plainText(v))
}

// isPlainJSON reports whether JSON is a number or a truth value, which cannot
// carry an instruction.
func isPlainJSON(s string) bool {
	if s == "true" || s == "false" {
		return true
	}
	return s != "" && (s[0] == '-' || s[0] >= '0' && s[0] <= '9')
}

// scope is what the dot is at a place in a template.
type scope struct {
	top  bool   // the dot is the record
	name string // what the dot is called when it is printed
}

// templateWalk checks the fields that a template uses and puts the printing
// function behind each action.
type templateWalk struct {
	t    *promptTemplate
	text string
	at   *position
	vars map[string]string // variables and the fields that they hold
}

func (w *templateWalk) wrong(n parse.Node, message string) {
	line := 1
	if n != nil {
		line += strings.Count(w.text[:min(int(n.Position()), len(w.text))], "\n")
	}
	w.at.addLine("prompt: "+message, line, "prompt")
}

func (w *templateWalk) list(l *parse.ListNode, s scope) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			name := w.pipe(n.Pipe, s)
			if len(n.Pipe.Decl) == 0 && name != "" {
				w.print(n.Pipe, name)
			}
		case *parse.IfNode:
			w.branch(&n.BranchNode, s, false)
		case *parse.RangeNode:
			w.branch(&n.BranchNode, s, true)
		case *parse.WithNode:
			w.branch(&n.BranchNode, s, true)
		case *parse.TemplateNode:
			w.wrong(n, "define, template and block have no place in a prompt")
		}
	}
}

func (w *templateWalk) branch(n *parse.BranchNode, s scope, moves bool) {
	inner := s
	name := w.pipe(n.Pipe, s)
	if moves {
		inner = scope{name: name}
	}
	w.list(n.List, inner)
	w.list(n.ElseList, s)
}

// print puts the printing function behind a pipeline.
func (w *templateWalk) print(p *parse.PipeNode, name string) {
	tag := tagOf(name)
	if i := slices.Index(w.t.input, name); i >= 0 {
		tag = w.t.tags[i]
	}
	p.Cmds = append(p.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: p.Pos, Args: []parse.Node{
		parse.NewIdentifier(printFunc).SetPos(p.Pos),
		&parse.StringNode{NodeType: parse.NodeString, Pos: p.Pos, Quoted: strconv.Quote(tag), Text: tag},
	}})
}

// pipe checks a pipeline and returns what its value is called: the one field
// that it uses, "data" for several, "" when it uses nothing of the record.
func (w *templateWalk) pipe(p *parse.PipeNode, s scope) string {
	if p == nil {
		return ""
	}
	used := map[string]bool{}
	for _, c := range p.Cmds {
		w.command(c, s, used)
	}
	name := ""
	if len(used) > 1 {
		delete(used, "record")
		name = "data"
	}
	if len(used) == 1 {
		name = slices.Collect(maps.Keys(used))[0]
	}
	for _, v := range p.Decl {
		if w.vars == nil {
			w.vars = map[string]string{}
		}
		if name != "" || w.vars[v.Ident[0]] == "" {
			w.vars[v.Ident[0]] = name
		}
	}
	return name
}

func (w *templateWalk) command(c *parse.CommandNode, s scope, used map[string]bool) {
	args := c.Args
	// index . "name" is the way to a field whose name has spaces.
	if id, ok := args[0].(*parse.IdentifierNode); ok && id.Ident == "index" && len(args) > 2 && isRecord(args[1], s) {
		if name, ok := args[2].(*parse.StringNode); ok {
			w.field(name, name.Text, used)
			args = args[3:]
		}
	}
	for _, a := range args {
		w.arg(a, s, used)
	}
}

func isRecord(n parse.Node, s scope) bool {
	if v, ok := n.(*parse.VariableNode); ok {
		return len(v.Ident) == 1 && v.Ident[0] == "$"
	}
	_, dot := n.(*parse.DotNode)
	return dot && s.top
}

func (w *templateWalk) arg(n parse.Node, s scope, used map[string]bool) {
	switch n := n.(type) {
	case *parse.FieldNode:
		if s.top {
			w.field(n, n.Ident[0], used)
			if len(n.Ident) == 1 {
				return
			}
			delete(used, n.Ident[0])
		}
		used[n.Ident[len(n.Ident)-1]] = true
	case *parse.VariableNode:
		switch {
		case n.Ident[0] == "$" && len(n.Ident) > 1:
			w.field(n, n.Ident[1], used)
		case n.Ident[0] == "$":
			used["record"] = true
		case len(n.Ident) > 1:
			used[n.Ident[len(n.Ident)-1]] = true
		default:
			if name, ok := w.vars[n.Ident[0]]; !ok || name != "" {
				used[cmp.Or(name, "data")] = true
			}
		}
	case *parse.DotNode:
		used[cmp.Or(s.name, "data")] = true
	case *parse.ChainNode:
		w.arg(n.Node, s, used)
	case *parse.PipeNode:
		if name := w.pipe(n, s); name != "" {
			used[name] = true
		}
	}
}

// field checks that a field of the record is one that the prompt may use.
func (w *templateWalk) field(n parse.Node, name string, used map[string]bool) {
	used[name] = true
	if !slices.Contains(w.t.input, name) {
		w.wrong(n, "it uses the field "+quote(name)+", which is not in input"+didYouMean(name, w.t.input))
	}
}

// simpleParts returns the parts of a prompt that is only texts and fields, or nil.
func (t *promptTemplate) simpleParts(l *parse.ListNode) []part {
	parts := []part{}
	text := ""
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			text += string(n.Text)
		case *parse.ActionNode:
			i, m, ok := t.simpleField(n.Pipe)
			if !ok {
				return nil
			}
			parts = append(parts, part{text, i, m})
			text = ""
		default:
			return nil
		}
	}
	return append(parts, part{text: text, field: -1})
}

// simpleField reads {{ .a }}, {{ raw .a }}, {{ json .a }} and {{ index . "a" }}.
func (t *promptTemplate) simpleField(p *parse.PipeNode) (field int, m mode, ok bool) {
	if len(p.Decl) != 0 || len(p.Cmds) != 1 {
		return 0, 0, false
	}
	args := p.Cmds[0].Args
	name := ""
	id, call := args[0].(*parse.IdentifierNode)
	switch {
	case call && len(args) == 2 && (id.Ident == "raw" || id.Ident == "json"):
		m = bare
		if id.Ident == "json" {
			m = asJSON
		}
		args = args[1:]
	case call && len(args) == 3 && id.Ident == "index" && isRecord(args[1], scope{top: true}):
		if s, ok := args[2].(*parse.StringNode); ok {
			name, args = s.Text, nil
		}
	}
	if len(args) == 1 {
		if f, ok := args[0].(*parse.FieldNode); ok && len(f.Ident) == 1 {
			name = f.Ident[0]
		}
	}
	field = slices.Index(t.input, name)
	return field, m, field >= 0
}

// appendTo writes the prompt for a record.
func (t *promptTemplate) appendTo(dst []byte, r record.Record) ([]byte, error) {
	if t.parts == nil {
		return t.appendFull(dst, r)
	}
	for i := range t.parts {
		p := &t.parts[i]
		dst = append(dst, p.text...)
		if p.field >= 0 {
			v, _ := r.Get(t.input[p.field])
			dst = appendValue(dst, t.tags[p.field], v, p.mode)
		}
	}
	return dst, nil
}

// appendValue writes a record's value as appendPrinted would write its plain
// value.
func appendValue(dst []byte, tag string, v record.Value, m mode) []byte {
	if v.IsText() {
		switch m {
		case bare:
			return append(dst, v.String()...)
		case asJSON:
			return appendFence(dst, tag, string(v.JSON()))
		}
		return appendFence(dst, tag, v.String())
	}
	raw := v.JSON()
	switch {
	case isPlainJSON(string(raw)):
		return append(dst, raw...)
	case m == asJSON:
		return appendFence(dst, tag, string(raw))
	case m == bare:
		return append(dst, v.String()...)
	}
	return appendFence(dst, tag, v.String())
}

// appendFull writes the prompt with text/template.
func (t *promptTemplate) appendFull(dst []byte, r record.Record) ([]byte, error) {
	data := make(map[string]any, len(t.input))
	for _, f := range t.input {
		v, _ := r.Get(f)
		data[f] = plainValue(v)
	}
	w := appendWriter{dst}
	if err := t.full.Execute(&w, data); err != nil {
		line, message := templateError(err)
		return dst, fmt.Errorf("prompt, line %d: %s", line, message)
	}
	return w.b, nil
}

// maxPrompt is the longest prompt that a template may make, in bytes: it stops
// a loop over what was meant to be a list and is a large number.
const maxPrompt = 64 << 20

type appendWriter struct{ b []byte }

func (w *appendWriter) Write(p []byte) (int, error) {
	if len(w.b)+len(p) > maxPrompt {
		return 0, errors.New("the prompt grows beyond all bounds")
	}
	w.b = append(w.b, p...)
	return len(p), nil
}

// plainValue is a record's value as a template works with it.
func plainValue(v record.Value) any {
	if v.IsText() {
		return v.String()
	}
	d := jsontext.NewDecoder(strings.NewReader(string(v.JSON())), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	plain, err := readAny(d)
	if err != nil {
		return v.String()
	}
	return withNumbers(plain)
}

// withNumbers turns JSON numbers into Go's where these print the same.
func withNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil && strconv.FormatInt(i, 10) == string(v) {
			return i
		}
		if f, err := v.Float64(); err == nil && strconv.FormatFloat(f, 'f', -1, 64) == string(v) {
			return f
		}
		return number(v)
	case []any:
		for i := range v {
			v[i] = withNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = withNumbers(v[k])
		}
	}
	return v
}
