package sim

import (
	"fmt"
	"regexp/syntax"
	"unicode/utf8"
)

// formatted returns a string of a format that a validator may check.
func (w *writer) formatted(format string) (string, bool) {
	if format == "" {
		return "", false
	}
	day := fmt.Sprintf("20%02d-%02d-%02d", 20+w.rng.intn(10), 1+w.rng.intn(12), 1+w.rng.intn(28))
	at := fmt.Sprintf("%02d:%02d:%02dZ", w.rng.intn(24), w.rng.intn(60), w.rng.intn(60))
	switch format {
	case "date":
		return day, true
	case "time":
		return at, true
	case "date-time":
		return day + "T" + at, true
	case "duration":
		return fmt.Sprintf("PT%dM", 1+w.rng.intn(59)), true
	case "email", "idn-email":
		return fmt.Sprintf("person%d@example.org", w.rng.intn(1000)), true
	case "hostname":
		return "example.org", true
	case "uri", "iri", "uri-reference":
		return fmt.Sprintf("https://example.org/%d", w.rng.intn(1000)), true
	case "ipv4":
		return fmt.Sprintf("192.0.2.%d", w.rng.intn(256)), true
	case "ipv6":
		return fmt.Sprintf("2001:db8::%x", 1+w.rng.intn(65535)), true
	case "uuid":
		a, b := w.rng.next(), w.rng.next()
		return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x",
			uint32(a), uint16(a>>32), a>>52, b>>52, b&(1<<48-1)), true
	}
	return "", false
}

// matching returns a string that matches n's pattern within its lengths, if
// the pattern is one that Go can read and a few tries find one.
func (w *writer) matching(n *node) (string, bool) {
	re, err := syntax.Parse(n.pattern, syntax.Perl)
	if err != nil {
		return "", false
	}
	re = re.Simplify()
	for try := range 40 {
		b := w.expand(nil, re, 1+try/2)
		if len(b) > 1<<16 {
			break
		}
		s := string(b)
		if l := utf8.RuneCountInString(s); l >= n.minLen && (n.maxLen < 0 || l <= n.maxLen) {
			return s, true
		}
	}
	return "", false
}

// expand appends a text that matches re, repeating open repetitions up to
// reps times.
func (w *writer) expand(b []byte, re *syntax.Regexp, reps int) []byte {
	if len(b) > 1<<16 {
		return b
	}
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			b = utf8.AppendRune(b, r)
		}
	case syntax.OpCharClass:
		b = utf8.AppendRune(b, w.oneOf(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b = append(b, byte('a'+w.rng.intn(26)))
	case syntax.OpAlternate:
		b = w.expand(b, re.Sub[w.rng.intn(len(re.Sub))], reps)
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest:
		lo, hi := 0, reps
		if re.Op == syntax.OpPlus {
			lo = 1
		}
		if re.Op == syntax.OpQuest {
			hi = 1
		}
		for range lo + w.rng.intn(max(hi-lo, 0)+1) {
			b = w.expand(b, re.Sub[0], reps)
		}
	default: // concatenations, groups, and what has no width
		for _, sub := range re.Sub {
			b = w.expand(b, sub, reps)
		}
	}
	return b
}

// oneOf chooses a character of a class given as pairs of bounds, a printable
// ASCII one if there is one.
func (w *writer) oneOf(class []rune) rune {
	var plain []rune
	for i := 0; i+1 < len(class); i += 2 {
		for r := max(class[i], '!'); r <= min(class[i+1], '~'); r++ {
			plain = append(plain, r)
		}
	}
	if len(plain) > 0 {
		return plain[w.rng.intn(len(plain))]
	}
	if len(class) == 0 {
		return 'x'
	}
	return class[0]
}
