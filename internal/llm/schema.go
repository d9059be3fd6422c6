package llm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Dialect is the part of JSON Schema that a server's constrained decoding
// understands.
type Dialect int

// The dialects. What each can do is listed in reference/jobs.md, section 6.
const (
	// Plain is an unknown server: references are inlined, the rest is left.
	Plain Dialect = iota
	// GBNF is llama.cpp's converter of schemas to grammars: Ollama,
	// llama-server and LM Studio.
	GBNF
	// XGrammar is vLLM's default backend.
	XGrammar
)

// schemaLimit bounds the subschemas that inlining may produce: references to
// references can grow without end in a few lines.
const schemaLimit = 20_000

var errSchemaSize = fmt.Errorf("schema grows beyond %d parts when its references and alternatives are written out; make it smaller", schemaLimit)

// ForDialect rewrites a JSON Schema into the form that a dialect supports.
// The result asks for the same, or for less where the dialect cannot express
// it: the caller validates answers with the full schema. The one thing it asks
// beyond the schema is that objects have no properties but the declared ones,
// which is what these servers make of an absent additionalProperties anyway.
// The order of properties is kept.
//
// Local references are inlined; a recursive one, one that leaves the schema
// and text that is no schema are errors.
func ForDialect(schema json.RawMessage, d Dialect) (json.RawMessage, error) {
	root, err := parseNode(schema)
	if err != nil {
		return nil, fmt.Errorf("schema is not valid JSON: %w", err)
	}
	if !root.isObject() && !root.isTrue() && !root.isFalse() {
		return nil, fmt.Errorf("schema is a JSON %s; it has to be an object", root.kind)
	}
	in := inliner{root: root}
	out, err := in.schema(root)
	if err != nil {
		return nil, err
	}
	if d != Plain {
		g := &grammar{gbnf: d == GBNF}
		out = g.schema(out)
		switch {
		case g.made > schemaLimit:
			return nil, errSchemaSize
		case out == nil:
			return nil, errors.New("schema allows no value at all")
		}
	}
	return out.append(nil), nil
}

// SchemaForms remembers the forms that ForDialect makes, for an adapter that
// sends the same few schemas with thousands of requests. It is safe for
// concurrent use.
type SchemaForms struct {
	dialect Dialect
	mu      sync.RWMutex
	known   map[string]json.RawMessage
}

// NewSchemaForms returns an empty memory for one dialect.
func NewSchemaForms(d Dialect) *SchemaForms {
	return &SchemaForms{dialect: d, known: map[string]json.RawMessage{}}
}

// formsKept bounds SchemaForms; packed requests may each have their own schema.
const formsKept = 64

// Form is ForDialect, remembered. Its error is an *Error of kind BadSchema.
func (f *SchemaForms) Form(schema json.RawMessage) (json.RawMessage, error) {
	f.mu.RLock()
	form, ok := f.known[string(schema)]
	f.mu.RUnlock()
	if ok {
		return form, nil
	}
	form, err := ForDialect(schema, f.dialect)
	if err != nil {
		return nil, &Error{Kind: BadSchema, Message: err.Error(), Err: err}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.known) >= formsKept {
		clear(f.known)
	}
	f.known[string(schema)] = form
	return form, nil
}

// Keywords that hold subschemas, by form.
const (
	formOne  = iota + 1 // a schema
	formList            // an array of schemas
	formMap             // an object whose values are schemas
)

func schemaForm(keyword string, value *node) int {
	switch keyword {
	case "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else",
		"propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema":
		return formOne
	case "items":
		if value.isArray() {
			return formList
		}
		return formOne
	case "anyOf", "oneOf", "allOf", "prefixItems":
		return formList
	case "properties", "patternProperties", "dependentSchemas", "dependencies":
		return formMap
	}
	return 0
}

// annotation reports keywords that say something to people and nothing about
// which values are valid.
func annotation(keyword string) bool {
	switch keyword {
	case "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
		"$comment", "$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary":
		return true
	}
	return false
}

// inliner replaces references by what they point to.
type inliner struct {
	root   *node
	active []string // references being followed, outermost first
	made   int
}

func (in *inliner) schema(n *node) (*node, error) {
	if !n.isObject() {
		return n, nil
	}
	if in.made++; in.made > schemaLimit {
		return nil, errSchemaSize
	}
	out := object()
	var ref string
	var isRef bool
	for _, m := range n.members {
		switch m.name {
		case "$defs", "definitions":
			continue
		case "$ref", "$dynamicRef", "$recursiveRef":
			if ref, isRef = m.value.str(); !isRef {
				return nil, fmt.Errorf("schema: %s has to be a string", m.name)
			}
			continue
		}
		value, err := in.keyword(m)
		if err != nil {
			return nil, err
		}
		out.members = append(out.members, member{m.name, value})
	}
	if !isRef {
		return out, nil
	}
	target, err := in.follow(ref)
	if err != nil {
		return nil, err
	}
	return besides(target, out), nil
}

func (in *inliner) keyword(m member) (*node, error) {
	switch schemaForm(m.name, m.value) {
	case formOne:
		return in.schema(m.value)
	case formList:
		if !m.value.isArray() {
			return m.value, nil
		}
		out := array()
		for _, item := range m.value.items {
			s, err := in.schema(item)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, s)
		}
		return out, nil
	case formMap:
		if !m.value.isObject() {
			return m.value, nil
		}
		out := object()
		for _, p := range m.value.members {
			s, err := in.schema(p.value)
			if err != nil {
				return nil, err
			}
			out.members = append(out.members, member{p.name, s})
		}
		return out, nil
	}
	return m.value, nil
}

// besides joins what a reference points to with the keywords that stand next
// to the reference: annotations replace the target's, all else holds as well.
func besides(target, beside *node) *node {
	onlyNotes := !slices.ContainsFunc(beside.members, func(m member) bool { return !annotation(m.name) })
	switch {
	case len(beside.members) == 0:
		return target
	case onlyNotes && target.isObject():
		for _, m := range beside.members {
			target = target.with(m.name, m.value)
		}
		return target
	case onlyNotes:
		return target
	}
	all := array(target)
	if old := beside.get("allOf"); old.isArray() {
		all.items = append(all.items, old.items...)
	}
	return beside.with("allOf", all)
}

func (in *inliner) follow(ref string) (*node, error) {
	if slices.Contains(in.active, ref) {
		return nil, fmt.Errorf("schema: %s refers to itself (%s); a server cannot be held to a schema without end, so write out as many levels as you need",
			ref, strings.Join(append(in.active, ref), " -> "))
	}
	target, err := in.resolve(ref)
	if err != nil {
		return nil, err
	}
	in.active = append(in.active, ref)
	defer func() { in.active = in.active[:len(in.active)-1] }()
	return in.schema(target)
}

// resolve finds what a reference points to within the schema: a JSON Pointer
// (RFC 6901) or an anchor.
func (in *inliner) resolve(ref string) (*node, error) {
	local := ref
	if id, ok := in.root.get("$id").str(); ok && id != "" {
		local = strings.TrimPrefix(local, strings.TrimSuffix(id, "#"))
	}
	fragment, ok := strings.CutPrefix(local, "#")
	if !ok {
		return nil, fmt.Errorf("schema: $ref %q leaves the schema; copy what it points to into $defs", ref)
	}
	if p, err := url.PathUnescape(fragment); err == nil {
		fragment = p
	}
	if fragment != "" && fragment[0] != '/' {
		if n := findAnchor(in.root, fragment); n != nil {
			return n, nil
		}
		return nil, fmt.Errorf("schema: $ref %q: no $anchor of that name", ref)
	}
	n := in.root
	if fragment != "" {
		for tok := range strings.SplitSeq(fragment[1:], "/") {
			tok = strings.ReplaceAll(strings.ReplaceAll(tok, "~1", "/"), "~0", "~")
			switch {
			case n.isObject():
				n = n.get(tok)
			case n.isArray():
				i, err := strconv.Atoi(tok)
				if err != nil || i < 0 || i >= len(n.items) {
					n = nil
					break
				}
				n = n.items[i]
			default:
				n = nil
			}
			if n == nil {
				return nil, fmt.Errorf("schema: $ref %q points to nothing (no %q)", ref, tok)
			}
		}
	}
	if !n.isObject() && !n.isTrue() && !n.isFalse() {
		return nil, fmt.Errorf("schema: $ref %q points to a JSON %s, not to a schema", ref, n.kind)
	}
	return n, nil
}

func findAnchor(n *node, name string) *node {
	if !n.isObject() && !n.isArray() {
		return nil
	}
	for _, key := range []string{"$anchor", "$dynamicAnchor"} {
		if s, ok := n.get(key).str(); ok && s == name {
			return n
		}
	}
	for _, m := range n.members {
		if found := findAnchor(m.value, name); found != nil {
			return found
		}
	}
	for _, item := range n.items {
		if found := findAnchor(item, name); found != nil {
			return found
		}
	}
	return nil
}

// both returns a schema for the values that fit a and b; false when it can
// tell that there are none. Where it cannot join two keywords it keeps a's.
func both(a, b *node) (*node, bool) {
	switch {
	case a.isFalse() || b.isFalse():
		return nil, false
	case !b.isObject():
		return a, true
	case !a.isObject():
		return b, true
	}
	out := a
	for _, m := range b.members {
		old := out.get(m.name)
		if old == nil {
			out = out.with(m.name, m.value)
			continue
		}
		joined, ok := bothKeyword(m.name, old, m.value)
		if !ok {
			return nil, false
		}
		out = out.with(m.name, joined)
	}
	return out, true
}

func bothKeyword(keyword string, a, b *node) (*node, bool) {
	switch keyword {
	case "type":
		types := intersectTypes(typeList(a), typeList(b))
		if len(types) == 0 {
			return nil, false
		}
		return typeNode(types), true
	case "const":
		return a, a.text() == b.text()
	case "enum":
		out := array()
		for _, v := range a.items {
			if slices.ContainsFunc(b.items, func(w *node) bool { return v.text() == w.text() }) {
				out.items = append(out.items, v)
			}
		}
		return out, len(out.items) > 0
	case "required", "allOf":
		out := array(a.items...)
		for _, v := range b.items {
			if !slices.ContainsFunc(a.items, func(w *node) bool { return v.text() == w.text() }) {
				out.items = append(slices.Clip(out.items), v)
			}
		}
		return out, true
	case "properties", "patternProperties":
		out := a
		for _, p := range b.members {
			old := out.get(p.name)
			if old == nil {
				out = out.with(p.name, p.value)
				continue
			}
			joined, ok := both(old, p.value)
			if !ok {
				joined = falseNode()
			}
			out = out.with(p.name, joined)
		}
		return out, true
	case "additionalProperties", "additionalItems", "items":
		if a.isArray() || b.isArray() {
			return a, true
		}
		joined, ok := both(a, b)
		if !ok {
			return falseNode(), true
		}
		return joined, true
	case "minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties":
		return extreme(a, b, func(x, y float64) bool { return y > x }), true
	case "maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties":
		return extreme(a, b, func(x, y float64) bool { return y < x }), true
	}
	return a, true
}

func extreme(a, b *node, better func(x, y float64) bool) *node {
	x, ok1 := a.float()
	y, ok2 := b.float()
	if ok1 && ok2 && better(x, y) {
		return b
	}
	return a
}

func typeList(n *node) []string {
	if s, ok := n.str(); ok {
		return []string{s}
	}
	var out []string
	if n.isArray() {
		for _, item := range n.items {
			if s, ok := item.str(); ok && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

func typeNode(types []string) *node {
	if len(types) == 1 {
		return text(types[0])
	}
	return texts(types)
}

func intersectTypes(a, b []string) []string {
	var out []string
	for _, t := range a {
		switch {
		case slices.Contains(b, t):
			out = append(out, t)
		case t == "integer" && slices.Contains(b, "number"):
			out = append(out, t)
		case t == "number" && slices.Contains(b, "integer"):
			out = append(out, "integer")
		}
	}
	return out
}

// typeOf is the JSON Schema type of a value.
func typeOf(v *node) string {
	switch v.kind {
	case jsontext.KindBeginObject:
		return "object"
	case jsontext.KindBeginArray:
		return "array"
	case jsontext.KindString:
		return "string"
	case jsontext.KindTrue, jsontext.KindFalse:
		return "boolean"
	case jsontext.KindNull:
		return "null"
	}
	if f, ok := v.float(); ok && f == float64(int64(f)) {
		return "integer"
	}
	return "number"
}

func typesAllow(types []string, v *node) bool {
	t := typeOf(v)
	return slices.Contains(types, t) || t == "integer" && slices.Contains(types, "number")
}
