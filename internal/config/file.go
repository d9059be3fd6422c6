package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// FileName is the name of the settings file.
const FileName = "millrace.yaml"

const maxFile = 64 << 10 // bytes; a settings file has a dozen lines

// fileValue is a value and the place at which it stands, "millrace.yaml:3".
type fileValue struct{ text, source string }

// parseFile reads the settings file. All that is wrong with it is reported,
// not only the first.
func parseFile(from Sources) (values map[string]fileValue, errs []error) {
	name := cmp.Or(from.Path, FileName)
	at := func(line int) string { return fmt.Sprintf("%s:%d", name, line) }
	if len(from.File) > maxFile {
		return nil, []error{fmt.Errorf("%s: it is larger than %d KiB; is it a settings file?", name, maxFile>>10)}
	}
	pairs, line, err := mapping(from.File)
	if err != nil {
		return nil, []error{fmt.Errorf("%s: %w", at(line), err)}
	}
	values = map[string]fileValue{}
	for _, p := range pairs {
		key, line := keyOf(p), p.Key.GetToken().Position.Line
		s := find(key)
		if s == nil {
			errs = append(errs, fmt.Errorf("%s: unknown key %q%s", at(line), key, suggest(key)))
			continue
		}
		text, err := scalar(p.Value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", at(line), key, err))
			continue
		}
		if key == "state" {
			text = resolve(from, text)
		}
		values[key] = fileValue{text, at(line)}
	}
	return values, errs
}

// mapping returns the pairs of a file's only document; line is that of the
// error.
func mapping(data []byte) (pairs []*ast.MappingValueNode, line int, err error) {
	defer func() { // the parser panics on some broken input
		if p := recover(); p != nil {
			pairs, line, err = nil, 1, errors.New("this is not YAML")
		}
	}()
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
			return nil, e.GetToken().Position.Line, fmt.Errorf("this is not YAML: %s", e.GetMessage())
		}
		first, _, _ := strings.Cut(err.Error(), "\n")
		return nil, 1, fmt.Errorf("this is not YAML: %s", first)
	}
	seen := false
	for _, doc := range f.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		line := doc.Body.GetToken().Position.Line
		if seen {
			return nil, line, errors.New("a second document begins; settings are one")
		}
		seen = true
		switch n := doc.Body.(type) {
		case *ast.MappingNode:
			pairs = n.Values
		case *ast.MappingValueNode:
			pairs = []*ast.MappingValueNode{n}
		case *ast.NullNode:
		default:
			return nil, line, errors.New("settings are lines such as model: llama3.1:8b")
		}
	}
	return pairs, 0, nil
}

func keyOf(p *ast.MappingValueNode) string {
	if s, ok := p.Key.(*ast.StringNode); ok {
		return s.Value
	}
	return p.Key.GetToken().Value
}

// scalar is the text of a value as it was written: 08 and 1e3 stay what they
// are.
func scalar(n ast.Node) (string, error) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, nil
	case *ast.LiteralNode:
		return strings.TrimSpace(v.Value.Value), nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return v.GetToken().Value, nil
	case *ast.NullNode:
		return "", errors.New("there is no value; give one or delete the line")
	}
	return "", errors.New("the value has to be a single text or number")
}

// suggest proposes the key that was meant, if one is near.
func suggest(key string) string {
	best, distance := "", 3
	for _, s := range settings {
		if d := levenshtein.ComputeDistance(strings.ReplaceAll(strings.ToLower(key), "-", "_"), s.key); d < distance {
			best, distance = s.key, d
		}
	}
	if best == "" {
		var keys []string
		for _, s := range settings {
			keys = append(keys, s.key)
		}
		return "; the keys are " + strings.Join(keys, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// strayVariables finds variables that begin as settings do but are none, and
// that are near enough to one to be a slip: MILLRACE_CACHE is the build's own.
func strayVariables(env map[string]string) []string {
	var warnings []string
	for name := range env {
		key, ok := strings.CutPrefix(name, "MILLRACE_")
		if !ok || find(strings.ToLower(key)) != nil && name == strings.ToUpper(name) {
			continue
		}
		if s := suggest(key); strings.Contains(s, "did you mean") {
			meant := strings.Split(s, `"`)[1]
			warnings = append(warnings, fmt.Sprintf("%s is not a setting and has no effect; did you mean %s?", name, EnvName(meant)))
		}
	}
	slices.Sort(warnings)
	return warnings
}
