package job

import (
	"slices"
	"strings"
)

// notation writes a schema for a model to read, in a fraction of the tokens
// that JSON Schema takes: {"mood": "good"|"bad", "why": string, "tags":
// [string, ...]}. It is only words in the prompt; what counts is the schema
// itself, which goes to the server and validates the answer. It returns "" for
// a schema that says more than the notation can, which is then shown whole.
func notation(root *tree) string {
	var b strings.Builder
	if !writeNotation(&b, root) {
		return ""
	}
	return b.String()
}

// notationKeys are the keywords that the notation expresses, or that say
// nothing to a model.
var notationKeys = []string{
	"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "description",
	"minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "title", "default", "examples", "$schema", "$comment",
}

func writeNotation(b *strings.Builder, t *tree) bool {
	if t.kind != '{' {
		return false
	}
	for _, m := range t.members {
		if !slices.Contains(notationKeys, m.name) {
			return false
		}
	}
	if !writeType(b, t) {
		return false
	}
	if d := t.get("description"); d != nil && d.kind == '"' {
		b.WriteString(" (" + strings.Join(strings.Fields(d.text), " ") + ")")
	}
	return true
}

func writeType(b *strings.Builder, t *tree) bool {
	if e := t.get("enum"); e != nil {
		for i, v := range e.elems {
			if i > 0 {
				b.WriteByte('|')
			}
			b.Write(v.append(nil))
		}
		return len(e.elems) > 0
	}
	if c := t.get("const"); c != nil {
		b.Write(c.append(nil))
		return true
	}
	if any := t.get("anyOf"); any != nil {
		if t.get("type") != nil || t.get("properties") != nil {
			return false
		}
		for i, v := range any.elems {
			if i > 0 {
				b.WriteByte('|')
			}
			if !writeNotation(b, v) {
				return false
			}
		}
		return len(any.elems) > 0
	}
	types := []string{}
	switch ty := t.get("type"); {
	case ty == nil:
		return false
	case ty.kind == '"':
		types = append(types, ty.text)
	default:
		for _, e := range ty.elems {
			types = append(types, e.text)
		}
	}
	for i, name := range types {
		if i > 0 {
			b.WriteByte('|')
		}
		if !writeNamed(b, t, name) {
			return false
		}
	}
	return true
}

func writeNamed(b *strings.Builder, t *tree, name string) bool {
	switch name {
	case "object":
		return writeObject(b, t)
	case "array":
		items := t.get("items")
		if items == nil {
			return false
		}
		b.WriteByte('[')
		if !writeNotation(b, items) {
			return false
		}
		b.WriteString(", ...]")
		b.WriteString(bounds(t, "minItems", "maxItems", "items"))
	case "string":
		b.WriteString("string")
		b.WriteString(bounds(t, "minLength", "maxLength", "characters"))
	case "integer", "number":
		b.WriteString(name)
		b.WriteString(bounds(t, "minimum", "maximum", ""))
	case "boolean":
		b.WriteString("true|false")
	case "null":
		b.WriteString("null")
	default:
		return false
	}
	return true
}

func writeObject(b *strings.Builder, t *tree) bool {
	props := t.get("properties")
	if props == nil || len(props.members) == 0 {
		return false
	}
	if extra := t.get("additionalProperties"); extra != nil && extra.raw != "false" {
		return false
	}
	required := map[string]bool{}
	if r := t.get("required"); r != nil {
		for _, e := range r.elems {
			required[e.text] = true
		}
	}
	b.WriteByte('{')
	for i, p := range props.members {
		if i > 0 {
			b.WriteString(", ")
		}
		b.Write(quoteJSON(nil, p.name))
		if !required[p.name] {
			b.WriteByte('?')
		}
		b.WriteString(": ")
		if !writeNotation(b, p.value) {
			return false
		}
		delete(required, p.name)
	}
	b.WriteByte('}')
	return len(required) == 0 // a required property that is not described
}

// bounds writes the lower and upper bound of a schema, if it has any, as a
// remark: " (at most 40 characters)".
func bounds(t *tree, low, high, unit string) string {
	get := func(key string) string {
		if v := t.get(key); v != nil && v.raw != "0" {
			return v.raw
		}
		return ""
	}
	lo, hi := get(low), get(high)
	if v := t.get(low); unit == "" && v != nil { // 0 is a bound of a number
		lo = v.raw
	}
	if v := t.get(high); unit == "" && v != nil {
		hi = v.raw
	}
	if unit != "" {
		unit = " " + unit
	}
	switch {
	case lo == "" && hi == "":
		return ""
	case hi == "":
		return " (at least " + lo + unit + ")"
	case lo == "":
		return " (at most " + hi + unit + ")"
	case lo == hi:
		return " (exactly " + lo + unit + ")"
	}
	return " (" + lo + " to " + hi + unit + ")"
}
