package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"millrace/internal/record"
)

// schema is a compiled JSON Schema of an object.
type schema struct {
	raw      json.RawMessage // compact, members in the order written
	root     *tree
	compiled *jsonschema.Schema
	shape    *shape
	columns  []record.Column
}

// shape is the order in which the properties of a value are written.
type shape struct {
	props  []shapeProp
	items  *shape
	byName map[string]int
}

type shapeProp struct {
	name   string
	quoted string // with the colon, as JSON
	value  *shape
}

// names are the properties that become columns; none of a schema that did not compile.
func (s *schema) names() []string {
	if s == nil {
		return nil
	}
	names := make([]string, len(s.columns))
	for i, c := range s.columns {
		names[i] = c.Name
	}
	return names
}

// schemaURL is where the schema stands for the compiler; nothing is fetched.
const schemaURL = "mem:///schema"

// compileSchema compiles raw and notes what is wrong with it.
func compileSchema(raw json.RawMessage, at *position) *schema {
	note := func(message string, path ...string) {
		at.add("schema: "+message, append([]string{"schema"}, path...)...)
	}
	root, err := parseTree(raw)
	if err != nil {
		note("not valid JSON: " + err.Error())
		return nil
	}
	if root.kind != '{' {
		note("must be a mapping")
		return nil
	}
	if t := root.get("type"); t == nil || t.text != "object" {
		note("must have type: object at its top, because an answer's properties become columns", "type")
		return nil
	}
	props := root.get("properties")
	if props == nil || props.kind != '{' || len(props.members) == 0 {
		note("must have properties at its top: they become the columns of the output", "properties")
		return nil
	}
	if root.get("$id") != nil {
		note("$id has no use here; leave it out", "$id")
		return nil
	}
	s := &schema{raw: root.json(), root: root}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(noLoader{})
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(s.raw)))
	if err == nil {
		err = c.AddResource(schemaURL, doc)
	}
	if err == nil {
		s.compiled, err = c.Compile(schemaURL)
	}
	if err != nil {
		noteSchemaError(err, doc, note)
		return nil
	}
	plain := !slices.ContainsFunc([]string{"allOf", "anyOf", "oneOf", "$ref", "patternProperties"}, func(k string) bool { return root.get(k) != nil })
	for i, name := range s.compiled.Required {
		if plain && props.get(name) == nil {
			var names []string
			for _, m := range props.members {
				names = append(names, m.name)
			}
			note("required names "+quote(name)+", which is not among the properties"+didYouMean(name, names), "required", itoa(i))
		}
	}
	s.shape = shapeOf(root, root, maxShape)
	for _, p := range s.shape.props {
		s.columns = append(s.columns, record.Column{Name: p.name, Type: typeOf(s.compiled.Properties[p.name], maxShape)})
	}
	return s
}

// noLoader keeps a schema from reaching files and the network.
type noLoader struct{}

func (noLoader) Load(u string) (any, error) {
	return nil, fmt.Errorf("%s: a schema may only refer to its own parts (#/$defs/...)", u)
}

// noteSchemaError notes what the compiler said, at the line of the culprit.
func noteSchemaError(err error, doc any, note func(string, ...string)) {
	if e, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if v, ok := errors.AsType[*jsonschema.ValidationError](e.Err); ok {
			for _, f := range explain(v, doc) {
				path := make([]string, len(f.path))
				copy(path, f.path)
				note(f.String(true), path...)
			}
			return
		}
	}
	var where string
	message := err.Error()
	if e, ok := errors.AsType[*jsonschema.InvalidRegexError](err); ok {
		where, message = e.URL, fmt.Sprintf("%s is no regular expression that Go knows: %v", quote(e.Regex), e.Err)
	}
	if e, ok := errors.AsType[*jsonschema.JSONPointerNotFoundError](err); ok {
		message = "a $ref leads nowhere: " + strings.TrimPrefix(e.URL, schemaURL)
	}
	if e, ok := errors.AsType[*jsonschema.AnchorNotFoundError](err); ok {
		message = "a $ref leads nowhere: " + e.Reference
	}
	if e, ok := errors.AsType[*jsonschema.LoadURLError](err); ok {
		message = "a $ref leads outside: " + e.Err.Error()
	}
	var path []string
	if _, fragment, ok := strings.Cut(where, "#/"); ok {
		for step := range strings.SplitSeq(fragment, "/") {
			if u, err := url.PathUnescape(step); err == nil {
				step = u
			}
			path = append(path, strings.NewReplacer("~1", "/", "~0", "~").Replace(step))
		}
	}
	note(strings.ReplaceAll(message, schemaURL, ""), path...)
}

// maxShape is how deep the order of properties and the types of columns are
// looked for; deeper, and in circles of $ref, properties follow the alphabet.
const maxShape = 12

func shapeOf(root, t *tree, depth int) *shape {
	for ; t != nil && depth > 0; depth-- {
		ref := t.get("$ref")
		if ref == nil || !strings.HasPrefix(ref.text, "#") {
			break
		}
		if t.get("properties") != nil {
			break
		}
		t = root.at(ref.text[1:])
	}
	if t == nil || depth <= 0 || t.kind != '{' {
		return nil
	}
	s := &shape{}
	if props := t.get("properties"); props != nil && props.kind == '{' {
		s.byName = make(map[string]int, len(props.members))
		for i, m := range props.members {
			s.byName[m.name] = i
			s.props = append(s.props, shapeProp{m.name, string(quoteJSON(nil, m.name)) + ":", shapeOf(root, m.value, depth-1)})
		}
	}
	s.items = shapeOf(root, t.get("items"), depth-1)
	if s.props == nil && s.items == nil {
		return nil
	}
	return s
}

// typeOf is the one type that a value may have besides null, or "".
func typeOf(s *jsonschema.Schema, depth int) string {
	if s == nil || depth == 0 {
		return ""
	}
	var types []string
	add := func(t string) {
		if t != "null" && !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	switch {
	case s.Types != nil:
		for _, t := range s.Types.ToStrings() {
			add(t)
		}
	case s.Enum != nil:
		for _, v := range s.Enum.Values {
			add(jsonType(v))
		}
	case s.Const != nil:
		add(jsonType(*s.Const))
	case s.Ref != nil:
		return typeOf(s.Ref, depth-1)
	default:
		for _, b := range slices.Concat(s.AnyOf, s.OneOf) {
			if b.Types != nil && slices.Equal(b.Types.ToStrings(), []string{"null"}) {
				continue
			}
			add(typeOf(b, depth-1))
		}
	}
	if slices.Contains(types, "number") {
		types = slices.DeleteFunc(types, func(t string) bool { return t == "integer" })
	}
	if len(types) == 1 {
		return types[0]
	}
	return ""
}

func jsonType(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case json.Number:
		if strings.ContainsAny(string(v), ".eE") {
			return "number"
		}
		return "integer"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return ""
}

// freeName is name, with underscores behind it until no property has it.
func freeName(root *tree, name string) string {
	for root.get("properties").get(name) != nil {
		name += "_"
	}
	return name
}

// Columns are the columns that an answer adds to a record: the properties of
// the schema, in the order written.
func (j *Job) Columns() []record.Column { return slices.Clone(j.schema.columns) }

// Values are the values of an answer in the order of Columns. The answer is
// one that Decode, Validate or SplitPack returned. A property that it lacks is
// the zero Value.
func (j *Job) Values(answer json.RawMessage) []record.Value {
	props := j.schema.shape.props
	out := make([]record.Value, len(props))
	s := string(answer) // the values share this copy
	next := 0
	for name, value := range rawMembers(s) {
		// The answer follows the schema's order; it may leave out properties.
		i := next
		for i < len(props) && props[i].quoted[:len(props[i].quoted)-1] != name {
			i++
		}
		if i == len(props) {
			continue
		}
		out[i] = record.JSON(value)
		next = i + 1
	}
	return out
}

// rawMembers yields the members of a compact JSON object, name (quoted) and
// value as they stand there. On what is no such object it stops early.
func rawMembers(s string) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		if len(s) < 2 || s[0] != '{' {
			return
		}
		for i := 1; i < len(s) && s[i] == '"'; i++ {
			end := skipString(s, i)
			if end >= len(s) || s[end] != ':' {
				return
			}
			name := s[i:end]
			i = skipValue(s, end+1)
			if i > len(s)-1 || s[i] != ',' && s[i] != '}' || i == end+1 {
				return
			}
			if !yield(name, s[end+1:i]) {
				return
			}
		}
	}
}

// skipString returns the index behind the string that begins at i.
func skipString(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

// skipValue returns the index behind the compact JSON value that begins at i.
func skipValue(s string, i int) int {
	depth := 0
	for i < len(s) {
		switch s[i] {
		case '"':
			i = skipString(s, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
			if depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}
