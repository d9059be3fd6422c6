package job

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// fenceVersion changes when the way in which values are fenced does, because
// then equal records make other prompts.
const fenceVersion = "fence 2"

// tagOf makes a tag of a field's name: letters, digits, '_' and '-', beginning
// with a letter.
func tagOf(name string) string {
	var b strings.Builder
	for _, r := range name {
		letter := unicode.IsLetter(r) && r != utf8.RuneError
		if b.Len() == 0 && !letter {
			if !unicode.IsDigit(r) {
				continue
			}
			b.WriteString("field_")
		}
		if letter || unicode.IsDigit(r) || r == '-' || r == '_' {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	if tag := strings.TrimRight(b.String(), "_"); tag != "" {
		return tag
	}
	return "field"
}

// appendFence writes a value between tags in such a way that nothing in it can
// be taken for the closing tag: the '<' of what looks like one becomes "&lt;".
func appendFence(dst []byte, tag, value string) []byte {
	dst = append(dst, '<')
	dst = append(dst, tag...)
	dst = append(dst, '>')
	dst = appendHarmless(dst, tag, value, false)
	dst = append(dst, "</"...)
	dst = append(dst, tag...)
	return append(dst, '>')
}

// appendHarmless writes value with each closing tag in it made harmless, in
// any letter case and with any spaces or invisible characters within; with
// opening, each opening tag too.
func appendHarmless(dst []byte, tag, value string, opening bool) []byte {
	for {
		i := strings.IndexByte(value, '<')
		if i < 0 {
			return append(dst, value...)
		}
		dst = append(dst, value[:i]...)
		value = value[i+1:]
		if isTag(value, tag, opening) {
			dst = append(dst, "&lt;"...)
		} else {
			dst = append(dst, '<')
		}
	}
}

// isTag reports whether what stands behind a '<' reads as the closing tag, or
// with opening as either.
func isTag(s, tag string, opening bool) bool {
	s = skipBlank(s)
	if strings.HasPrefix(s, "/") {
		s = skipBlank(s[1:])
	} else if !opening {
		return false
	}
	for _, want := range tag {
		s = skipBlank(s)
		r, n := utf8.DecodeRuneInString(s)
		if n == 0 || folded(r) != folded(want) {
			return false
		}
		s = s[n:]
	}
	r, n := utf8.DecodeRuneInString(s)
	return n == 0 || r == utf8.RuneError || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_'
}

// skipBlank drops leading spaces and characters that do not show.
func skipBlank(s string) string {
	if s != "" && s[0] > ' ' && s[0] < 0x7f { // nearly always
		return s
	}
	return strings.TrimLeftFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Mn, unicode.Me, unicode.Variation_Selector)
	})
}

// folded is the same for all cases of a letter.
func folded(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	return least
}
