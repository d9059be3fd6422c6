package llm

import (
	"regexp"
	"strconv"
	"strings"
)

// gbnfPattern rewrites a regular expression so that llama.cpp's converter
// makes a grammar of it that yields valid JSON strings. That converter knows
// only expressions anchored at both ends, passes escapes such as \d through to
// a grammar that has none, and lets '.' and negated classes write a bare quote
// or backslash into the answer. So only what is safe passes; the full schema
// is checked on the answer anyway.
func gbnfPattern(p string) (string, bool) {
	if len(p) < 3 || p[0] != '^' || p[len(p)-1] != '$' || p[len(p)-2] == '\\' {
		return "", false
	}
	t := patternText{in: p[1 : len(p)-1]}
	t.out.WriteByte('^')
	if !t.sequence(0) || t.at != len(t.in) {
		return "", false
	}
	t.out.WriteByte('$')
	return t.out.String(), true
}

// patternText is a pattern being translated.
type patternText struct {
	in  string
	at  int
	out strings.Builder
}

func (t *patternText) more() bool { return t.at < len(t.in) }

// sequence reads up to the end or the ')' of its group.
func (t *patternText) sequence(depth int) bool {
	if depth > 20 {
		return false
	}
	atoms := 0
	for t.more() {
		c := t.in[t.at]
		switch {
		case c == ')':
			return depth > 0 && atoms > 0
		case c == '|':
			// At the top it would split the anchors: ^a|b$.
			if depth == 0 || atoms == 0 {
				return false
			}
			t.at++
			t.out.WriteByte('|')
			atoms = 0
			continue
		case c == '(':
			t.at++
			if strings.HasPrefix(t.in[t.at:], "?:") {
				t.at += 2
			}
			t.out.WriteByte('(')
			if !t.sequence(depth+1) || !t.more() {
				return false
			}
			t.at++
			t.out.WriteByte(')')
		case c == '[':
			if !t.class() {
				return false
			}
		case c == '\\':
			if !t.escape(false) {
				return false
			}
		case strings.IndexByte(`^$.*+?{}]"`, c) >= 0 || c < 0x20 || c == 0x7f:
			return false
		default:
			t.at++
			t.out.WriteByte(c)
		}
		atoms++
		if !t.quantifier() {
			return false
		}
	}
	return depth == 0 && atoms > 0
}

// quantifier copies *, +, ? or {n,m}; lazy ones and long repetitions are not
// for a grammar.
func (t *patternText) quantifier() bool {
	if !t.more() {
		return true
	}
	switch t.in[t.at] {
	case '*', '+', '?':
		t.out.WriteByte(t.in[t.at])
		t.at++
	case '{':
		end := strings.IndexByte(t.in[t.at:], '}')
		if end < 0 {
			return false
		}
		bounds := t.in[t.at+1 : t.at+end]
		low, high, ranged := strings.Cut(bounds, ",")
		for _, s := range []string{low, high} {
			n, err := strconv.Atoi(s)
			if err != nil && (s != "" || !ranged) || n < 0 || n >= repeatLimit {
				if s == "" && !ranged {
					continue
				}
				return false
			}
		}
		if low == "" {
			return false
		}
		t.out.WriteString(t.in[t.at : t.at+end+1])
		t.at += end + 1
	default:
		return true
	}
	return !t.more() || strings.IndexByte("*+?{", t.in[t.at]) < 0
}

// class copies a character class that is not negated.
func (t *patternText) class() bool {
	t.at++
	if !t.more() || t.in[t.at] == '^' || t.in[t.at] == ']' {
		return false
	}
	t.out.WriteByte('[')
	hyphen := false // GBNF has no escape for '-': it goes to the end
	for t.more() {
		c := t.in[t.at]
		switch {
		case c == ']':
			t.at++
			if hyphen {
				t.out.WriteByte('-')
			}
			t.out.WriteByte(']')
			return true
		case c == '\\' && strings.HasPrefix(t.in[t.at:], `\-`):
			t.at += 2
			hyphen = true
		case c == '\\':
			if !t.escape(true) {
				return false
			}
		case c == '-':
			t.at++
			last := t.out.String()
			atEdge := !t.more() || t.in[t.at] == ']' || last[len(last)-1] == '['
			if atEdge {
				hyphen = true
				continue
			}
			if t.in[t.at] == '\\' || t.in[t.at] == '[' || !plainRange(last[len(last)-1], t.in[t.at]) {
				return false
			}
			t.out.WriteByte('-')
		case c == '"' || c == '[' || c < 0x20 || c == 0x7f:
			return false
		default:
			t.at++
			t.out.WriteByte(c)
		}
	}
	return false
}

// plainRange reports a range within digits or letters of one case, or of
// characters outside ASCII: it cannot hold a quote or a backslash.
func plainRange(from, to byte) bool {
	in := func(lo, hi byte) bool { return from >= lo && to <= hi && from <= to }
	return in('0', '9') || in('a', 'z') || in('A', 'Z') || from >= 0x80 && to >= 0x80
}

// escape translates an escape, within a class or outside.
func (t *patternText) escape(inClass bool) bool {
	if t.at+1 >= len(t.in) {
		return false
	}
	c := t.in[t.at+1]
	t.at += 2
	class := ""
	switch c {
	case 'd':
		class = "0-9"
	case 'w':
		class = "A-Za-z0-9_"
	case 's':
		class = " "
	case '-', '/', ' ', ',', ':', ';', '@', '#', '%', '&', '=', '!', '_', '~', '\'', '<', '>':
		t.out.WriteByte(c)
		return true
	case '.', '(', ')', '{', '}', '*', '+', '?', '|', '$':
		if !inClass {
			t.out.WriteByte('\\') // the converter takes the backslash off again
		}
		t.out.WriteByte(c)
		return true
	default:
		return false
	}
	if inClass {
		t.out.WriteString(class)
	} else {
		t.out.WriteString("[" + class + "]")
	}
	return true
}

// xgrammarPattern reports patterns that XGrammar's own converter reads as
// everybody does: no look-around, back references, word boundaries or Unicode
// classes, all of which Go's parser refuses or names too.
func xgrammarPattern(p string) bool {
	for _, bad := range []string{`\b`, `\B`, `\p`, `\P`, `\A`, `\z`, `(?`, "\x00"} {
		if strings.Contains(strings.ReplaceAll(p, "(?:", "("), bad) {
			return false
		}
	}
	_, err := regexp.Compile(p)
	return err == nil
}
