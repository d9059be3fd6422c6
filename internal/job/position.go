package job

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml/ast"
)

// Error is one thing that is wrong with a job, and where.
type Error struct {
	File    string // job file; for a built-in job "job NAME"
	Line    int    // 1-based; 0 where lines mean nothing
	Message string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

// position finds the line of a part of a job and collects what is wrong. Paths
// are keys from the top of the file, such as schema, properties, age.
type position struct {
	label string // file name, or "job NAME"
	root  ast.Node
	found []finding
}

type finding struct {
	err  *Error
	part string // top-level key
}

// add notes a finding at the node that the path leads to, or at the nearest
// one above it.
func (p *position) add(message string, path ...string) { p.addLine(message, 0, path...) }

// addLine is add for a line of a text value; 1 is its first.
func (p *position) addLine(message string, line int, path ...string) {
	at := p.line(path...)
	if line > 0 && p.root != nil {
		n, _ := nodeAt(p.root, path)
		at = textLine(n, line)
	}
	part := ""
	if len(path) > 0 {
		part = path[0]
	}
	p.found = append(p.found, finding{&Error{File: p.label, Line: at, Message: message}, part})
}

// has reports whether something is wrong with a top-level key already.
func (p *position) has(part string) bool {
	return slices.ContainsFunc(p.found, func(f finding) bool { return f.part == part })
}

// err is all that is wrong in the order of lines, one finding a line, or nil.
func (p *position) err() error {
	if len(p.found) == 0 {
		return nil
	}
	found := slices.Clone(p.found)
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(a.err.Line, b.err.Line) })
	errs := make([]error, len(found))
	for i, f := range found {
		errs[i] = f.err
	}
	return errors.Join(errs...)
}

// line is the line of the key that the path leads to, or of the nearest one
// above it; 0 without a file.
func (p *position) line(path ...string) int {
	if p.root == nil {
		return 0
	}
	_, line := nodeAt(p.root, path)
	return line
}

// nearest returns the candidate that s is most likely a slip of, or "".
func nearest(s string, candidates []string) string {
	best, distance := "", max(2, len([]rune(s))/3)+1
	for _, c := range candidates {
		d := levenshtein.ComputeDistance(strings.ToLower(s), strings.ToLower(c))
		if d < distance && d < len([]rune(c)) {
			best, distance = c, d
		}
	}
	return best
}

// didYouMean is the end of an error about an unknown name.
func didYouMean(s string, candidates []string) string {
	if n := nearest(s, candidates); n != "" {
		return "; did you mean " + quote(n) + "?"
	}
	return ""
}

// oneOf lists names for an error.
func oneOf(names []string) string {
	const most = 20
	quoted := make([]string, 0, len(names))
	for i, n := range names {
		if i == most {
			return strings.Join(quoted, ", ") + fmt.Sprintf(" and %d more", len(names)-most)
		}
		quoted = append(quoted, quote(n))
	}
	return strings.Join(quoted, ", ")
}

func quote(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strconv.Quote(s)
}

func itoa(n int) string { return strconv.Itoa(n) }
