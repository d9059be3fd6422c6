package sim

import (
	"cmp"
	"strings"
	"unicode/utf8"
)

// charsPerToken is how many bytes count as a token, of prompts and answers
// alike. About four is usual for English in Llama's vocabulary.
const charsPerToken = 4

// tokens is the number of tokens that a text counts as.
func tokens(s string) int { return (len(s) + charsPerToken - 1) / charsPerToken }

// cutTokens returns the first n tokens of s, without splitting a character.
func cutTokens(s string, n int) string {
	if n > len(s)/charsPerToken {
		return s
	}
	i := max(n, 0) * charsPerToken
	for i > 0 && i < len(s) && !utf8.RuneStart(s[i]) {
		i--
	}
	return s[:i]
}

// fenced returns the longest part of text that stands between a tag and its
// end, as Millrace fences data in prompts; without one, the whole text.
func fenced(text string) string {
	longest := ""
	for rest := text; ; {
		_, after, ok := strings.Cut(rest, "<")
		if !ok {
			break
		}
		rest = after
		name, body, ok := strings.Cut(after, ">")
		if !ok || name == "" || strings.ContainsAny(name, " \n/<") {
			continue
		}
		if inside, _, ok := strings.Cut(body, "</"+name+">"); ok && len(inside) > len(longest) {
			longest = inside
		}
	}
	return cmp.Or(longest, text)
}

const punctuation = " \t\r\n.,;:!?\"'`()[]{}<>|*#-"

// phrase returns a run of a few words of text, exactly as they stand there,
// from its second half: templates put what is constant first.
func phrase(r *rng, text string, words int) string {
	if text = strings.TrimRight(text, punctuation); text == "" {
		return "nothing"
	}
	start := len(text)/2 + r.intn(len(text)-len(text)/2)
	for start > 0 && !space(text[start-1]) {
		start--
	}
	for start < len(text) && space(text[start]) {
		start++
	}
	end := start
	for words > 0 && end < len(text) && text[end] != '\n' && text[end] != '\r' {
		for end < len(text) && !space(text[end]) {
			end++
		}
		if words--; words > 0 {
			next := end
			for next < len(text) && (text[next] == ' ' || text[next] == '\t') {
				next++
			}
			if next < len(text) && !space(text[next]) {
				end = next
			} else {
				break
			}
		}
	}
	if s := strings.Trim(text[start:end], punctuation); s != "" {
		return s
	}
	// A dash or the like: the last word has letters, as nothing else ends text.
	return strings.Trim(text[strings.LastIndexAny(text, " \t\r\n")+1:], punctuation)
}

func space(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// fit makes s have between lo and hi characters, by cutting it or by going on
// with more of the same words; hi < 0 means no upper bound.
func fit(s string, lo, hi int) string {
	n := utf8.RuneCountInString(s)
	for more := cmp.Or(s, "more"); n < lo; n = utf8.RuneCountInString(s) {
		s = strings.TrimLeft(s+" "+more, " ")
	}
	if hi >= 0 && n > hi {
		i := 0
		for range hi {
			_, w := utf8.DecodeRuneInString(s[i:])
			i += w
		}
		s = s[:i]
		if t := strings.TrimRight(s, " "); utf8.RuneCountInString(t) >= lo {
			s = t
		}
	}
	return s
}

// paragraph returns n tokens of text made of the words of source.
func paragraph(r *rng, source string, n int) string {
	want := n * charsPerToken
	var b strings.Builder
	b.Grow(want + 64)
	for b.Len() < want {
		p := phrase(r, source, 4+r.intn(9))
		if c := p[0]; c >= 'a' && c <= 'z' {
			b.WriteByte(c - 'a' + 'A')
			p = p[1:]
		}
		b.WriteString(p)
		b.WriteString(". ")
	}
	s := strings.TrimRight(cutTokens(b.String(), n), " .")
	return s + strings.Repeat(".", want-len(s))
}
