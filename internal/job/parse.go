package job

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"millrace/internal/llm"
)

// Load reads a job file.
func Load(path string) (*Job, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("job file: %w", err)
	}
	return Parse(data, path)
}

// Parse reads a job from YAML. It is strict: a key that no job has, a value of
// the wrong kind, a schema that does not compile or a prompt that uses a field
// outside input is an error. The error lists all that is wrong, one finding a
// line, each an *Error with file and line.
func Parse(data []byte, file string) (*Job, error) {
	root, err := parseYAML(data, file)
	if err != nil {
		return nil, err
	}
	p := fileParser{at: position{label: file, root: root}}
	d := p.def(root)
	j := build(d, &p.at)
	j.Origin = file
	if err := p.at.err(); err != nil {
		return nil, err
	}
	return j, nil
}

// fileParser turns the nodes of a job file into a Def. Wrong nodes are noted
// and left out.
type fileParser struct {
	at   position
	path []string // to the node in hand
}

// key says what a key of a mapping does with its value.
type key struct {
	name string
	read func(p *fileParser, n ast.Node)
}

func (p *fileParser) def(root *ast.MappingNode) Def {
	var d Def
	p.mapping(root, []key{
		{"name", text(&d.Name)},
		{"version", whole(&d.Version)},
		{"about", text(&d.About)},
		{"input", texts(&d.Input, false)},
		{"key", text(&d.Key)},
		{"system", text(&d.System)},
		{"prompt", text(&d.Prompt)},
		{"schema", func(p *fileParser, n ast.Node) { d.Schema = p.schema(n) }},
		{"lifetime", func(p *fileParser, n ast.Node) { d.Lifetime = p.lifetime(n) }},
		{"options", func(p *fileParser, n ast.Node) { d.Options = p.options(n) }},
		{"pack", func(p *fileParser, n ast.Node) {
			whole(&d.Pack)(p, n)
			if d.Pack == 0 && !p.at.has("pack") {
				d.Pack = -1 // 0 written out is not the default
			}
		}},
		{"repairs", func(p *fileParser, n ast.Node) { d.Repairs = new(int); whole(d.Repairs)(p, n) }},
	})
	return d
}

// mapping reads a mapping with known keys.
func (p *fileParser) mapping(n ast.Node, keys []key) {
	m, ok := members(n)
	if !ok {
		p.wrong(n, "a mapping of keys to values")
		return
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	for _, v := range m {
		name := keyText(v.Key)
		p.path = append(p.path, name)
		i := slices.Index(names, name)
		switch {
		case v.Key.IsMergeKey():
			p.note("merge keys (<<) are not for job files; write the keys out")
		case i < 0 && nearest(name, names) != "":
			p.note("unknown key " + quote(name) + didYouMean(name, names))
		case i < 0:
			p.note("unknown key " + quote(name) + "; it may be one of " + oneOf(names))
		default:
			keys[i].read(p, v.Value)
		}
		p.path = p.path[:len(p.path)-1]
	}
}

func (p *fileParser) note(message string) { p.at.add(message, p.path...) }

// wrong notes that the node in hand is of the wrong kind.
func (p *fileParser) wrong(n ast.Node, want string) {
	name := p.path[len(p.path)-1]
	if _, err := strconv.Atoi(name); err == nil && len(p.path) > 1 {
		name = p.path[len(p.path)-2] // an element of a list
	}
	p.note(quote(name) + " must be " + want + ", not " + kindOf(n))
}

func text(dst *string) func(*fileParser, ast.Node) {
	return func(p *fileParser, n ast.Node) {
		s, ok := textOf(n)
		if !ok {
			p.wrong(n, "a text"+hintQuotes(n))
			return
		}
		*dst = s
	}
}

// hintQuotes helps those who wrote a text that YAML takes for something else.
func hintQuotes(n ast.Node) string {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return " (put it in quotes)"
	}
	return ""
}

func whole(dst *int) func(*fileParser, ast.Node) {
	return func(p *fileParser, n ast.Node) {
		i, ok := intOf(n)
		if !ok || int64(int32(i)) != i { //nolint:gosec // this is the check
			p.wrong(n, "a whole number")
			return
		}
		*dst = int(i)
	}
}

func texts(dst *[]string, orOne bool) func(*fileParser, ast.Node) {
	return func(p *fileParser, n ast.Node) {
		list, ok := n.(*ast.SequenceNode)
		if s, one := textOf(n); orOne && one {
			*dst = []string{s}
			return
		}
		if !ok {
			p.wrong(n, "a list of texts")
			return
		}
		out := []string{}
		for i, e := range list.Values {
			p.path = append(p.path, itoa(i))
			before := len(p.at.found)
			var s string
			if text(&s)(p, e); len(p.at.found) == before {
				out = append(out, s)
			}
			p.path = p.path[:len(p.path)-1]
		}
		*dst = out
	}
}

func (p *fileParser) schema(n ast.Node) []byte {
	if _, ok := members(n); !ok {
		p.wrong(n, "a mapping: the JSON Schema of the answer")
		return nil
	}
	good := true
	raw := jsonOf(nil, n, func(bad ast.Node, message string) {
		good = false
		p.at.found = append(p.at.found, finding{&Error{File: p.at.label, Line: lineOf(bad), Message: message}, "schema"})
	})
	if !good {
		return nil
	}
	return raw
}

func (p *fileParser) lifetime(n ast.Node) Lifetime {
	var s string
	text(&s)(p, n)
	if p.at.has("lifetime") {
		return Lifetime{}
	}
	l, err := ParseLifetime(s)
	if err != nil {
		p.note(err.Error())
	}
	return l
}

func (p *fileParser) options(n ast.Node) llm.Options {
	var o llm.Options
	p.mapping(n, []key{
		{"temperature", optionalNumber(&o.Temperature)},
		{"top_p", optionalNumber(&o.TopP)},
		{"top_k", optionalWhole(&o.TopK)},
		{"min_p", optionalNumber(&o.MinP)},
		{"repeat_penalty", optionalNumber(&o.RepeatPenalty)},
		{"seed", func(p *fileParser, n ast.Node) {
			i, ok := intOf(n)
			if !ok {
				p.wrong(n, "a whole number")
				return
			}
			o.Seed = &i
		}},
		{"max_tokens", optionalWhole(&o.MaxTokens)},
		{"num_ctx", optionalWhole(&o.NumCtx)},
		{"think", func(p *fileParser, n ast.Node) {
			b, ok := n.(*ast.BoolNode)
			if !ok {
				p.wrong(n, "true or false")
				return
			}
			o.Think = new(b.Value)
		}},
		{"stop", texts(&o.Stop, true)},
	})
	return o
}

func optionalNumber(dst **float64) func(*fileParser, ast.Node) {
	return func(p *fileParser, n ast.Node) {
		f, ok := floatOf(n)
		if !ok {
			p.wrong(n, "a number")
			return
		}
		*dst = &f
	}
}

func optionalWhole(dst **int) func(*fileParser, ast.Node) {
	return func(p *fileParser, n ast.Node) {
		i := 0
		before := len(p.at.found)
		whole(&i)(p, n)
		if len(p.at.found) == before {
			*dst = &i
		}
	}
}
