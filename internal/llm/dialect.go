package llm

import (
	"math"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// grammar rewrites a schema without references for a server that turns it into
// a grammar. What such a server ignores, misreads or refuses is left out.
//
// The rules are those of llama.cpp's common/json-schema-to-grammar.cpp (as in
// Ollama 0.17.4) and of vLLM's v1/structured_output/backend_xgrammar.py.
type grammar struct {
	gbnf bool // else XGrammar
	made int  // subschemas so far
}

// repeatLimit is where llama.cpp refuses a repetition ("number of repetitions
// exceeds sane defaults", llama-grammar.cpp, and llama.cpp #25746 for 2000).
const repeatLimit = 2000

// branchLimit bounds the copies made of an object that has alternatives.
const branchLimit = 16

// schema returns nil for a schema that no value fits.
func (g *grammar) schema(n *node) *node {
	if n.isFalse() {
		return nil
	}
	if g.made++; !n.isObject() || g.made > schemaLimit {
		return g.anything()
	}
	n = n.without(annotation)
	n, ok := flattenAll(n)
	if !ok {
		return nil
	}
	if v := n.get("const"); v != nil {
		n = n.with("const", nil)
		if n, ok = both(n, object(member{"enum", array(v)})); !ok {
			return nil
		}
	}
	if out, done := g.alternatives(n); done {
		return out
	}

	types := typeList(n.get("type"))
	if values := n.get("enum"); values.isArray() {
		return enumSchema(values, types)
	}
	if len(types) == 0 {
		types = impliedTypes(n)
	}
	if len(types) == 0 {
		return g.anything()
	}
	if slices.Contains(types, "number") {
		types = slices.DeleteFunc(slices.Clone(types), func(t string) bool { return t == "integer" })
	}
	out := object(member{"type", typeNode(types)})
	for _, t := range types {
		switch t {
		case "object":
			g.object(n, out)
		case "array":
			g.array(n, out)
		case "string":
			g.string(n, out)
		case "integer":
			g.integer(n, out)
		case "number":
			if !g.gbnf {
				keep(n, out, "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
			}
		}
	}
	return out
}

// anything is a schema that every value fits. GBNF takes an empty schema for
// "any object".
func (g *grammar) anything() *node {
	if g.gbnf {
		return object(member{"type", texts([]string{"string", "number", "boolean", "object", "array", "null"})})
	}
	return object()
}

func (g *grammar) isAnything(n *node) bool { return n.text() == g.anything().text() }

// flattenAll joins the schemas of allOf with the one they stand in. A part
// that contradicts the rest is left out rather than making all impossible:
// what is known of contradictions here is approximate.
func flattenAll(n *node) (*node, bool) {
	all := n.get("allOf")
	if all == nil {
		return n, true
	}
	n = n.with("allOf", nil)
	for _, part := range all.items {
		if part.isFalse() {
			return nil, false
		}
		if part.isObject() {
			var ok bool
			if part, ok = flattenAll(part.without(annotation)); !ok {
				return nil, false
			}
		}
		if joined, ok := both(n, part); ok {
			n = joined
		}
	}
	return n, true
}

// alternatives handles anyOf and oneOf, which both servers read the same way
// and both without regard for what stands beside them: so that is put into
// each branch.
func (g *grammar) alternatives(n *node) (*node, bool) {
	branches := n.get("anyOf")
	if !branches.isArray() {
		branches = n.get("oneOf")
	}
	rest := n.without(func(name string) bool { return name == "anyOf" || name == "oneOf" })
	if !branches.isArray() || len(branches.items) == 0 {
		return nil, false
	}
	if rest.has("properties") && len(branches.items) > branchLimit {
		return g.schema(rest), true
	}
	var out []*node
	for _, b := range branches.items {
		joined, ok := both(b, rest)
		if b.isObject() && rest.has("properties") {
			joined, ok = both(rest, b) // the order of properties is the parent's
		}
		if !ok {
			continue
		}
		s := g.schema(joined)
		switch {
		case s == nil:
			continue
		case g.isAnything(s):
			return s, true
		}
		if !slices.ContainsFunc(out, func(o *node) bool { return o.text() == s.text() }) {
			out = append(out, s)
		}
	}
	switch {
	case len(out) == 0:
		return g.schema(rest), true
	case len(out) == 1:
		return out[0], true
	}
	if s := joinEnums(out); s != nil {
		return s, true
	}
	if s := joinTypes(out); s != nil {
		return s, true
	}
	return object(member{"anyOf", array(out...)}), true
}

// joinEnums makes one enum of branches that are enums or null.
func joinEnums(branches []*node) *node {
	values := array()
	enums := 0
	for _, b := range branches {
		switch t, _ := b.get("type").str(); {
		case b.has("enum"):
			enums++
			values.items = append(values.items, b.get("enum").items...)
		case t == "null":
			values.items = append(values.items, &node{kind: jsontext.KindNull, scalar: "null"})
		default:
			return nil
		}
	}
	if enums == 0 {
		return nil
	}
	return enumSchema(values, nil)
}

// joinTypes makes one list of types of branches that are nothing else.
func joinTypes(branches []*node) *node {
	var types []string
	for _, b := range branches {
		if len(b.members) != 1 || !b.has("type") {
			return nil
		}
		for _, t := range typeList(b.get("type")) {
			if !slices.Contains(types, t) {
				types = append(types, t)
			}
		}
	}
	return object(member{"type", typeNode(types)})
}

// enumSchema keeps the values that have one of the types; nil when none has.
// A list of types goes: GBNF would repeat the enum for each of them.
func enumSchema(values *node, types []string) *node {
	kept := array()
	for _, v := range values.items {
		if len(types) > 0 && !typesAllow(types, v) {
			continue
		}
		if !slices.ContainsFunc(kept.items, func(o *node) bool { return o.text() == v.text() }) {
			kept.items = append(kept.items, v)
		}
	}
	if len(kept.items) == 0 {
		return nil
	}
	if len(types) == 1 {
		return object(member{"type", text(types[0])}, member{"enum", kept})
	}
	return object(member{"enum", kept})
}

// impliedTypes is the type that a schema without one is about.
func impliedTypes(n *node) []string {
	for _, m := range n.members {
		switch m.name {
		case "properties", "required", "additionalProperties", "patternProperties", "propertyNames",
			"minProperties", "maxProperties", "dependentRequired", "unevaluatedProperties":
			return []string{"object"}
		case "items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains":
			return []string{"array"}
		case "pattern", "format", "minLength", "maxLength":
			return []string{"string"}
		case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf":
			return []string{"number"}
		}
	}
	return nil
}

func keep(from, to *node, keywords ...string) {
	for _, k := range keywords {
		if v := from.get(k); v != nil {
			to.members = append(to.members, member{k, v})
		}
	}
}

func (g *grammar) object(n, out *node) {
	props := object()
	var impossible []string
	if old := n.get("properties"); old.isObject() {
		for _, p := range old.members {
			if s := g.schema(p.value); s != nil {
				props.members = append(props.members, member{p.name, s})
			} else {
				impossible = append(impossible, p.name)
			}
		}
	}
	patterns := n.get("patternProperties")
	var required []string
	if r := n.get("required"); r.isArray() {
		for _, item := range r.items {
			name, ok := item.str()
			if !ok || slices.Contains(required, name) || slices.Contains(impossible, name) {
				continue
			}
			required = append(required, name)
			if !props.has(name) {
				props.members = append(props.members, member{name, g.undeclared(n)})
			}
		}
	}
	if len(props.members) > 0 {
		out.members = append(out.members, member{"properties", props})
	}
	if len(required) > 0 {
		out.members = append(out.members, member{"required", texts(required)})
	}
	more := n.get("additionalProperties")
	switch {
	case len(props.members) == 0 && patterns.isObject() && len(patterns.members) > 0:
		// Closing such an object would leave only {}.
		if !g.gbnf && len(patterns.members) == 1 {
			if s := g.schema(patterns.members[0].value); s != nil {
				only := object(member{patterns.members[0].name, s})
				out.members = append(out.members, member{"patternProperties", only})
				keepFalse(more, out)
				return
			}
		}
		if len(patterns.members) == 1 {
			if s := g.schema(patterns.members[0].value); s != nil {
				out.members = append(out.members, member{"additionalProperties", s})
			}
		}
	case len(props.members) == 0 && more == nil:
		if !g.gbnf {
			if names := n.get("propertyNames"); names != nil {
				if s := g.schema(names); s != nil {
					out.members = append(out.members, member{"propertyNames", s})
				}
			}
		}
	case more == nil || more.isFalse():
		out.members = append(out.members, member{"additionalProperties", falseNode()})
	case g.gbnf && !slices.ContainsFunc(props.members, oddName):
		g.more(more, out)
	case g.gbnf:
		out.members = append(out.members, member{"additionalProperties", falseNode()})
	default:
		g.more(more, out)
	}
}

func (g *grammar) more(more, out *node) {
	if more.isTrue() {
		out.members = append(out.members, member{"additionalProperties", more})
		return
	}
	if s := g.schema(more); s != nil {
		out.members = append(out.members, member{"additionalProperties", s})
	} else {
		out.members = append(out.members, member{"additionalProperties", falseNode()})
	}
}

func keepFalse(n, out *node) {
	if n.isFalse() {
		out.members = append(out.members, member{"additionalProperties", n})
	}
}

// undeclared is the schema of a property that is required and not declared.
func (g *grammar) undeclared(n *node) *node {
	if more := n.get("additionalProperties"); more.isObject() {
		if s := g.schema(more); s != nil {
			return s
		}
	}
	return g.anything()
}

// oddName reports a property name that GBNF cannot keep apart from others: its
// "any other name" rule puts single bytes of the names into character classes.
func oddName(m member) bool {
	for i := range len(m.name) {
		switch c := m.name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
		default:
			return true
		}
	}
	return m.name == ""
}

func (g *grammar) array(n, out *node) {
	items := n.get("items")
	tuple := n.get("prefixItems")
	rest := items
	if items.isArray() {
		tuple, rest = items, n.get("additionalItems")
	}
	if tuple.isArray() && len(tuple.items) > 0 {
		g.tuple(n, tuple, rest, out)
		return
	}
	if items != nil && !items.isArray() {
		s := g.schema(items)
		if s == nil {
			out.members = append(out.members, member{"items", g.anything()}, member{"maxItems", number("0")})
			return
		}
		out.members = append(out.members, member{"items", s})
	} else if n.has("minItems") || n.has("maxItems") {
		out.members = append(out.members, member{"items", g.anything()})
	}
	g.counts(n, out, "minItems", "maxItems")
}

// tuple handles prefixItems and its older form, a list of items. llama.cpp
// reads prefixItems wrongly when items stands beside it, and knows only tuples
// that are complete.
func (g *grammar) tuple(n, tuple, rest, out *node) {
	fixed := array()
	for _, item := range tuple.items {
		s := g.schema(item)
		if s == nil {
			return
		}
		fixed.items = append(fixed.items, s)
	}
	if !g.gbnf {
		out.members = append(out.members, member{"prefixItems", fixed})
		if rest != nil {
			if s := g.schema(rest); s != nil {
				out.members = append(out.members, member{"items", s})
			} else {
				out.members = append(out.members, member{"items", falseNode()})
			}
		}
		g.counts(n, out, "minItems", "maxItems")
		return
	}
	count := float64(len(fixed.items))
	least, hasLeast := n.get("minItems").float()
	most, hasMost := n.get("maxItems").float()
	if hasLeast && least > count || hasMost && most < count {
		return // longer or shorter than the tuple: any array
	}
	out.members = append(out.members, member{"items", fixed})
}

// counts keeps bounds that are whole numbers and small enough to be written as
// a repetition.
func (g *grammar) counts(n, out *node, keywords ...string) {
	for _, k := range keywords {
		v, ok := n.get(k).float()
		if !ok || v < 0 || v != math.Trunc(v) || g.gbnf && v >= repeatLimit {
			continue
		}
		out.members = append(out.members, member{k, number(strconv.FormatFloat(v, 'f', -1, 64))})
	}
}

func (g *grammar) string(n, out *node) {
	pattern, hasPattern := n.get("pattern").str()
	format, hasFormat := n.get("format").str()
	if g.gbnf {
		if p, ok := gbnfPattern(pattern); hasPattern && ok {
			out.members = append(out.members, member{"pattern", text(p)})
			return
		}
		if hasFormat && gbnfFormat(format) {
			out.members = append(out.members, member{"format", text(format)})
			return
		}
		g.counts(n, out, "minLength", "maxLength")
		return
	}
	// XGrammar drops bounds on the length without a word when there is a
	// pattern or a format too.
	if hasPattern && xgrammarPattern(pattern) {
		out.members = append(out.members, member{"pattern", text(pattern)})
		return
	}
	if hasFormat && xgrammarFormat(format) {
		out.members = append(out.members, member{"format", text(format)})
		return
	}
	g.counts(n, out, "minLength", "maxLength")
}

func gbnfFormat(f string) bool {
	switch f {
	case "date", "time", "date-time", "uuid":
		return true
	}
	return false
}

func xgrammarFormat(f string) bool {
	switch f {
	case "email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid", "uri",
		"uri-reference", "uri-template", "json-pointer", "relative-json-pointer":
		return true
	}
	return false
}

// integer writes the bounds of an integer. GBNF reads one bound on each side,
// as int64, and cuts off fractions.
func (g *grammar) integer(n, out *node) {
	if !g.gbnf {
		keep(n, out, "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
		return
	}
	low, high := math.Inf(-1), math.Inf(1)
	if v, ok := n.get("minimum").float(); ok {
		low = math.Ceil(v)
		if n.get("exclusiveMinimum").isTrue() && low == v { // draft 4
			low++
		}
	}
	if v, ok := n.get("exclusiveMinimum").float(); ok {
		low = max(low, math.Floor(v)+1)
	}
	if v, ok := n.get("maximum").float(); ok {
		high = math.Floor(v)
		if n.get("exclusiveMaximum").isTrue() && high == v {
			high--
		}
	}
	if v, ok := n.get("exclusiveMaximum").float(); ok {
		high = min(high, math.Ceil(v)-1)
	}
	const exact = 1e15 // beyond it a float64 no longer tells integers apart
	if low >= -exact && low <= exact {
		out.members = append(out.members, member{"minimum", number(strconv.FormatInt(int64(low), 10))})
	}
	if high >= -exact && high <= exact {
		out.members = append(out.members, member{"maximum", number(strconv.FormatInt(int64(high), 10))})
	}
}
