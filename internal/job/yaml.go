package job

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// parseYAML reads one YAML document whose top is a mapping.
func parseYAML(data []byte, file string) (root *ast.MappingNode, err error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	// The parser counts a line too many for some CRLF.
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	fail := func(line int, message string) error { return &Error{File: file, Line: line, Message: message} }
	defer func() { // the parser has panicked on broken input before
		if p := recover(); p != nil {
			root, err = nil, fail(1, fmt.Sprintf("this is not YAML: %v", p))
		}
	}()
	if len(data) > maxFile {
		return nil, fail(1, fmt.Sprintf("a job file is at most %d KiB", maxFile>>10))
	}
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		if e, ok := err.(yaml.Error); ok && e.GetToken() != nil { //nolint:errorlint // yaml.Error is what ParseBytes returns, unwrapped
			return nil, fail(e.GetToken().Position.Line, "this is not YAML: "+e.GetMessage())
		}
		return nil, fail(1, "this is not YAML: "+firstLine(err.Error()))
	}
	var body ast.Node
	for _, d := range f.Docs {
		switch {
		case d.Body == nil:
		case body != nil:
			return nil, fail(lineOf(d.Body), "a job file holds one job; this begins a second document")
		default:
			body = d.Body
		}
	}
	switch n := body.(type) {
	case nil:
		return nil, fail(1, "the file is empty; a job needs name, version, input, prompt and schema")
	case *ast.MappingNode:
		return n, nil
	case *ast.MappingValueNode:
		return ast.Mapping(n.Start, false, n), nil
	default:
		return nil, fail(lineOf(n), "a job file is a mapping of keys to values (name: ..., version: ...), not "+kindOf(n))
	}
}

const maxFile = 1 << 20

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// lineOf is the line on which a node begins.
func lineOf(n ast.Node) int {
	switch v := n.(type) {
	case nil:
		return 1
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return lineOf(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return lineOf(v.Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 1
}

// textLine is the line of the file that holds the given line of a text value.
func textLine(n ast.Node, line int) int {
	if v, ok := n.(*ast.LiteralNode); ok && strings.HasPrefix(v.Start.Value, "|") {
		return lineOf(n) + min(line, 1+strings.Count(strings.TrimRight(v.Value.Value, "\n"), "\n"))
	}
	return lineOf(n) // folded or quoted: the lines of the file are gone
}

// nodeAt follows a path of keys and indexes as far as it leads. The line is
// that of the last key on the way, or of the list's element.
func nodeAt(n ast.Node, path []string) (ast.Node, int) {
	line := lineOf(n)
	for _, step := range path {
		next, at := child(n, step)
		if next == nil {
			break
		}
		n, line = next, at
	}
	return n, line
}

func child(n ast.Node, step string) (ast.Node, int) {
	if m, ok := members(n); ok {
		for _, v := range m {
			if keyText(v.Key) == step {
				return v.Value, lineOf(v.Key)
			}
		}
	}
	if v, ok := n.(*ast.SequenceNode); ok {
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(v.Values) {
			return v.Values[i], lineOf(v.Values[i])
		}
	}
	return nil, 0
}

// members are a mapping's keys and values; ok is false for any other node.
func members(n ast.Node) (m []*ast.MappingValueNode, ok bool) {
	switch v := n.(type) {
	case *ast.MappingNode:
		return v.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{v}, true
	}
	return nil, false
}

func keyText(k ast.MapKeyNode) string {
	switch v := any(k).(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.MappingKeyNode:
		if s, ok := v.Value.(*ast.StringNode); ok {
			return s.Value
		}
	}
	if t := k.GetToken(); t != nil {
		return t.Value
	}
	return ""
}

// kindOf names what a node is, for an error.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.AnchorNode, *ast.AliasNode:
		return "an anchor or alias, which job files do without"
	case *ast.TagNode:
		return "a tagged value, which job files do without"
	}
	return "something else"
}

func textOf(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	}
	return "", false
}

func intOf(n ast.Node) (int64, bool) {
	v, ok := n.(*ast.IntegerNode)
	if !ok {
		return 0, false
	}
	switch i := v.Value.(type) {
	case int64:
		return i, true
	case uint64:
		if i <= math.MaxInt64 {
			return int64(i), true
		}
	}
	return 0, false
}

func floatOf(n ast.Node) (float64, bool) {
	switch v := n.(type) {
	case *ast.FloatNode:
		return v.Value, true
	case *ast.IntegerNode:
		if i, ok := intOf(v); ok {
			return float64(i), true
		}
	}
	return 0, false
}

// jsonOf appends a node as JSON, keys in the order in which they were written.
// A node that JSON cannot say is passed to bad.
func jsonOf(dst []byte, n ast.Node, bad func(ast.Node, string)) []byte {
	if m, ok := members(n); ok {
		dst = append(dst, '{')
		for i, v := range m {
			if i > 0 {
				dst = append(dst, ',')
			}
			if v.Key.IsMergeKey() {
				bad(v, "merge keys (<<) are not for job files; write the keys out")
			}
			dst = quoteJSON(dst, keyText(v.Key))
			dst = append(dst, ':')
			dst = jsonOf(dst, v.Value, bad)
		}
		return append(dst, '}')
	}
	if s, ok := textOf(n); ok {
		return quoteJSON(dst, s)
	}
	switch v := n.(type) {
	case nil, *ast.NullNode:
		return append(dst, "null"...)
	case *ast.SequenceNode:
		dst = append(dst, '[')
		for i, e := range v.Values {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = jsonOf(dst, e, bad)
		}
		return append(dst, ']')
	case *ast.BoolNode:
		return strconv.AppendBool(dst, v.Value)
	case *ast.IntegerNode:
		return fmt.Append(dst, v.Value)
	case *ast.FloatNode:
		if s := v.Token.Value; jsontext.Value(s).IsValid() {
			return append(dst, s...) // as it was written: 0.10 stays so
		}
		if b, err := jsontext.AppendFormat(nil, strconv.FormatFloat(v.Value, 'g', -1, 64)); err == nil {
			return append(dst, b...)
		}
	}
	bad(n, "JSON has no way to say "+kindOf(n))
	return append(dst, "null"...)
}

func quoteJSON(dst []byte, s string) []byte {
	b, err := jsontext.AppendQuote(dst, strings.ToValidUTF8(s, "\ufffd"))
	if err != nil { // not with valid UTF-8
		return append(dst, `""`...)
	}
	return b
}
