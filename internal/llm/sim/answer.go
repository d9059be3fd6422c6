package sim

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxDepth = 5       // how deep an answer nests before all that is optional is left out
	tooDeep  = 40      // how deep it nests before it gives up, for schemas without a finite answer
	enough   = 1 << 14 // bytes after which all that is optional is left out
	tooLong  = 1 << 20 // bytes after which it gives up
)

// writer makes an answer that fits a schema out of the words of a text.
type writer struct {
	rng      rng
	text     string // where words and numbers are taken from
	dropItem bool   // leave one item out of a packed answer

	out     []byte
	numbers []float64
	counted bool // numbers have been looked for
}

// answer returns JSON that fits the schema. The words of its strings are
// consecutive words of the text; numbers are the text's where they fit.
func (w *writer) answer(n *node) []byte {
	w.value(n, 0)
	return w.out
}

func (w *writer) value(n *node, depth int) {
	if depth > tooDeep || len(w.out) > tooLong {
		w.raw([]byte("null"))
		return
	}
	if len(n.enum) > 0 {
		w.raw(w.pick(n))
		return
	}
	switch n.kind {
	case "object":
		w.object(n, depth)
	case "array":
		w.array(n, depth)
	case "integer", "number":
		w.number(n)
	case "boolean":
		w.raw([]byte(strconv.FormatBool(w.rng.intn(2) == 1)))
	case "null":
		w.raw([]byte("null"))
	default: // a string is also an answer where anything is
		w.string(w.words(n))
	}
}

// brief reports whether what is optional is to be left out.
func (w *writer) brief(depth int) bool { return depth >= maxDepth || len(w.out) > enough }

func (w *writer) raw(b []byte) { w.out = append(w.out, b...) }

func (w *writer) string(s string) { w.out = quote(w.out, s) }

// pick chooses one of an enum's values, of the schema's own type if it has some.
func (w *writer) pick(n *node) []byte {
	fits := n.enum
	if n.kind != "" {
		fits = slices.DeleteFunc(slices.Clone(n.enum), func(v jsontext.Value) bool { return !ofKind(v, n.kind) })
		if len(fits) == 0 {
			fits = n.enum
		}
	}
	return fits[w.rng.intn(len(fits))]
}

func ofKind(v jsontext.Value, kind string) bool {
	switch v.Kind() {
	case '"':
		return kind == "string"
	case '0':
		return kind == "number" || kind == "integer"
	case 't', 'f':
		return kind == "boolean"
	case 'n':
		return kind == "null"
	case '{':
		return kind == "object"
	default:
		return kind == "array"
	}
}

func (w *writer) object(n *node, depth int) {
	w.out = append(w.out, '{')
	count := 0
	next := func(name string) {
		if count++; count > 1 {
			w.out = append(w.out, ',', ' ')
		}
		w.string(name)
		w.out = append(w.out, ':', ' ')
	}
	for _, p := range n.props {
		if p.node.never || w.brief(depth) && !p.required {
			continue
		}
		next(p.name)
		w.value(p.node, depth+1)
	}
	free := n.extra
	if free == nil {
		free = &node{kind: "string", maxLen: 40}
	}
	for _, name := range n.required {
		if !slices.ContainsFunc(n.props, func(p property) bool { return p.name == name }) {
			next(name)
			w.value(free, depth+1)
		}
	}
	for i := 1; count < n.minProps; i++ {
		next("key" + strconv.Itoa(i))
		w.value(free, depth+1)
	}
	w.out = append(w.out, '}')
}

func (w *writer) array(n *node, depth int) {
	if ids := packIDs(n); ids != nil {
		w.pack(n, ids, depth)
		return
	}
	count := n.minItems
	if !w.brief(depth) {
		most := n.minItems + 3
		if n.maxItems >= 0 {
			most = min(most, n.maxItems)
		}
		if n.unique && n.items != nil && len(n.items.enum) > 0 {
			most = min(most, len(n.items.enum))
		}
		if most > count {
			count = max(count, 1)
			count += w.rng.intn(most - count + 1)
		}
	}
	if n.items == nil && len(n.prefix) > 0 {
		count = min(count, max(len(n.prefix), n.minItems))
	}
	free := n.items
	if free == nil {
		free = &node{kind: "string", maxLen: 40}
	}
	w.out = append(w.out, '[')
	seen := map[string]bool{}
	turn := w.rng.intn(len(free.enum))
	for i := range count {
		if len(w.out) > tooLong {
			break
		}
		if i > 0 {
			w.out = append(w.out, ',', ' ')
		}
		from := len(w.out)
		switch {
		case i < len(n.prefix):
			w.value(n.prefix[i], depth+1)
		case n.unique && len(free.enum) > 0:
			w.raw(free.enum[(turn+i)%len(free.enum)])
		default:
			w.value(free, depth+1)
		}
		for try := 1; n.unique && seen[string(w.out[from:])] && try < 50; try++ {
			w.out = w.out[:from]
			w.distinct(free, depth+1, try)
		}
		seen[string(w.out[from:])] = true
	}
	w.out = append(w.out, ']')
}

// distinct writes another value where equal ones are not allowed: strings get
// a number, numbers are counted up.
func (w *writer) distinct(n *node, depth, try int) {
	switch {
	case n.kind == "integer" && n.multiple == 0 && !math.IsInf(n.min, -1):
		w.out = strconv.AppendInt(w.out, int64(math.Ceil(n.min))+int64(try), 10)
	case (n.kind == "string" || n.kind == "") && n.pattern == "" && n.format == "" && len(n.enum) == 0:
		mark := strconv.Itoa(try)
		s := w.words(n)
		if n.maxLen >= 0 {
			s = fit(s, 0, max(n.maxLen-len(mark), 0))
		}
		w.string(s + mark)
	default:
		w.value(n, depth)
	}
}

// packIDs returns the ids of a packed request: an array of objects whose
// property "id" is an enum wants one item for each of its values.
func packIDs(n *node) []jsontext.Value {
	if n.items == nil || n.items.kind != "object" {
		return nil
	}
	for _, p := range n.items.props {
		if p.name == "id" && len(p.node.enum) > 0 {
			return p.node.enum
		}
	}
	return nil
}

func (w *writer) pack(n *node, ids []jsontext.Value, depth int) {
	if n.maxItems >= 0 && len(ids) > n.maxItems {
		ids = ids[:n.maxItems]
	}
	skip := -1
	if w.dropItem {
		skip = w.rng.intn(len(ids))
	}
	whole := w.text
	parts := split(whole, ids)
	w.out = append(w.out, '[')
	first := true
	for i, id := range ids {
		w.text, w.counted = parts[i], false
		if i == skip {
			continue
		}
		if !first {
			w.out = append(w.out, ',', ' ')
		}
		first = false
		item := *n.items
		item.props = slices.Clone(item.props)
		for j := range item.props {
			if item.props[j].name == "id" {
				item.props[j].node = &node{enum: []jsontext.Value{id}}
			}
		}
		w.object(&item, depth+1)
	}
	w.out = append(w.out, ']')
	w.text, w.counted = whole, false
}

// split gives each id the part of the text from where it stands to the next
// id; the whole text where it does not stand.
func split(text string, ids []jsontext.Value) []string {
	at := make([]int, len(ids))
	for i, id := range ids {
		name := string(id)
		if s, err := jsontext.AppendUnquote(nil, id); err == nil {
			name = string(s)
		}
		at[i] = indexWord(text, name)
	}
	parts := make([]string, len(ids))
	for i, from := range at {
		if from < 0 {
			parts[i] = text
			continue
		}
		to := len(text)
		for _, other := range at {
			if other > from && other < to {
				to = other
			}
		}
		parts[i] = text[from:to]
	}
	return parts
}

// indexWord returns where name stands in text as a whole word; -1 if nowhere.
func indexWord(text, name string) int {
	letter := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
	}
	for from := 0; name != ""; {
		i := strings.Index(text[from:], name)
		if i < 0 {
			break
		}
		i += from
		end := i + len(name)
		if (i == 0 || !letter(text[i-1])) && (end == len(text) || !letter(text[end])) {
			return i
		}
		from = i + 1
	}
	return -1
}

// words returns a string that fits n.
func (w *writer) words(n *node) string {
	if s, ok := w.formatted(n.format); ok {
		return s
	}
	if n.pattern != "" {
		if s, ok := w.matching(n); ok {
			return s
		}
	}
	count := 1 + w.rng.intn(6)
	if n.minLen > 0 {
		count = max(count, n.minLen/5+1)
	}
	return fit(phrase(&w.rng, fenced(w.text), count), n.minLen, n.maxLen)
}

// number writes a number of the text that fits, else one within the bounds.
func (w *writer) number(n *node) {
	w.findNumbers()
	var fits []float64
	for _, x := range w.numbers {
		if w.allowed(n, x) {
			fits = append(fits, x)
		}
	}
	if len(fits) > 0 {
		w.appendNumber(fits[w.rng.intn(len(fits))])
		return
	}
	lo, hi := n.min, n.max
	switch {
	case math.IsInf(lo, 0) && math.IsInf(hi, 0):
		lo, hi = 0, 100
	case math.IsInf(lo, 0):
		lo = hi - 100
	case math.IsInf(hi, 0):
		hi = lo + 100
	}
	step := n.multiple
	if step == 0 && n.kind == "integer" {
		step = 1
	}
	if step == 0 {
		// Sixteenths of the way, so that decimals stay short.
		w.appendNumber(lo + (hi-lo)*float64(1+w.rng.intn(15))/16)
		return
	}
	first := math.Ceil(lo / step)
	if n.openMin && first*step == lo {
		first++
	}
	last := math.Floor(hi / step)
	if n.openMax && last*step == hi {
		last--
	}
	span := max(last-first, 0)
	x := first + float64(w.rng.intn(int(min(span, 1<<30))+1))
	for range 64 { // both an integer and a multiple of 2.5, say
		if n.kind != "integer" || x*step == math.Trunc(x*step) {
			break
		}
		if x++; x > last {
			x = first
		}
	}
	w.appendNumber(x * step)
}

func (w *writer) allowed(n *node, x float64) bool {
	if x < n.min || x > n.max || n.openMin && x == n.min || n.openMax && x == n.max {
		return false
	}
	if n.kind == "integer" && x != math.Trunc(x) {
		return false
	}
	return n.multiple == 0 || math.Mod(x, n.multiple) == 0
}

func (w *writer) appendNumber(x float64) {
	if x == math.Trunc(x) && math.Abs(x) < 1e15 {
		w.out = strconv.AppendInt(w.out, int64(x), 10)
		return
	}
	w.out = strconv.AppendFloat(w.out, x, 'g', -1, 64)
}

// findNumbers collects the plain numbers in the text, at most 32.
func (w *writer) findNumbers() {
	if w.counted {
		return
	}
	w.counted = true
	w.numbers = w.numbers[:0]
	digit := func(i int) bool { return i < len(w.text) && w.text[i] >= '0' && w.text[i] <= '9' }
	for i := 0; i < len(w.text) && len(w.numbers) < 32; {
		if !digit(i) {
			i++
			continue
		}
		from := i
		for digit(i) {
			i++
		}
		if i < len(w.text) && w.text[i] == '.' && digit(i+1) {
			for i++; digit(i); i++ {
			}
		}
		if from > 0 && w.text[from-1] == '-' && (from == 1 || space(w.text[from-2])) {
			from--
		}
		if i-from <= 15 {
			if x, err := strconv.ParseFloat(w.text[from:i], 64); err == nil {
				w.numbers = append(w.numbers, x)
			}
		}
	}
}

// quote appends s as a JSON string.
func quote(b []byte, s string) []byte {
	out, err := jsontext.AppendQuote(b, s)
	if err != nil { // not UTF-8
		out, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(s, "�"))
	}
	return out
}
