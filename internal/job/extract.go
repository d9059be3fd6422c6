package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/unicode/norm"

	"millrace/internal/record"
)

func extractBuiltin() Builtin {
	return Builtin{
		Name:  "extract",
		About: "pull named fields out of free text; every string found must stand in the text (numbers are not checked)",
		Params: []Param{
			{Name: "text", About: "the field that holds the text", Required: true},
			{Name: "fields", About: `what to pull out, such as "name, email, years:integer, skills:array"`},
			{Name: "schema", About: "instead of fields: a JSON Schema in JSON or YAML, or @FILE"},
			{Name: "key", About: "the field that identifies a record; without it, its position does"},
			{Name: "lifetime", About: "how long answers stay valid: inputs, forever, none, 30d", Default: string(LifetimeInputs)},
		},
		Make: func(params map[string]string) (*Job, error) {
			lifetime, err := ParseLifetime(params["lifetime"])
			if err != nil {
				return nil, fmt.Errorf("job extract: %w", err)
			}
			return Extract(ExtractOptions{
				Text: params["text"], Fields: params["fields"], Schema: params["schema"], Key: params["key"], Lifetime: lifetime,
			})
		},
	}
}

// ExtractOptions say what the extract job pulls out of what.
type ExtractOptions struct {
	Text     string // input field that holds the text
	Fields   string // "name, email, years:integer, skills:array"; types are those of JSON, string by default
	Schema   string // instead of Fields: JSON Schema as JSON or YAML, or @FILE
	Key      string
	Lifetime Lifetime
}

// extractVersion is raised when the meaning of the answers changes.
const extractVersion = 1

// Extract makes the built-in job that pulls named fields out of free text. Its
// check refuses a text that does not occur in the input, letter case and
// spaces aside; values of an enum, a const or a format for dates are not
// verbatim and are left out of it. A field that the text does not have is null.
func Extract(o ExtractOptions) (*Job, error) {
	var schema json.RawMessage
	var err error
	switch {
	case o.Fields != "" && o.Schema != "":
		return nil, errors.New("job extract: give fields or schema, not both")
	case o.Fields != "":
		schema, err = schemaOfFields(o.Fields)
	case o.Schema != "":
		schema, err = schemaOfText(o.Schema)
	default:
		return nil, errors.New(`job extract: say what to pull out with -p fields="name, email, years:integer" or -p schema=@FILE`)
	}
	if err != nil {
		return nil, fmt.Errorf("job extract: %w", err)
	}
	var j *Job
	j, err = New(Def{
		Name: "extract", Version: extractVersion, About: extractBuiltin().About,
		Input: []string{o.Text}, Key: o.Key, Lifetime: o.Lifetime, Schema: schema,
		System: "You pull facts out of a text. Copy texts verbatim, as they stand there; do not translate, complete or reword. " +
			"What the text does not say is null. Never guess.",
		Prompt: fmt.Sprintf("Pull the fields of the schema out of this text:\n{{ index . %q }}", o.Text),
		Prepare: func(_ context.Context, r record.Record) (json.RawMessage, error) {
			v, _ := r.Get(o.Text)
			if strings.TrimSpace(v.String()) != "" {
				return nil, nil
			}
			return j.allNull(), nil
		},
		Check: func(r record.Record, answer json.RawMessage) error {
			v, _ := r.Get(o.Text)
			return j.checkVerbatim(v.String(), answer)
		},
	})
	return j, err
}

// allNull is the answer in which everything is absent, or nil if the schema
// does not allow it.
func (j *Job) allNull() json.RawMessage {
	t := objectTree()
	for _, c := range j.schema.columns {
		t.set(c.Name, &tree{kind: 'n', raw: "null"})
	}
	answer, err := j.Validate(t.json())
	if err != nil {
		return nil
	}
	return answer
}

// schemaOfFields makes the schema of "name, email, years:integer, skills:array".
func schemaOfFields(fields string) (json.RawMessage, error) {
	props := objectTree()
	required := arrayTree()
	for f := range strings.SplitSeq(fields, ",") {
		name, kind := strings.TrimSpace(f), "string"
		if i := strings.LastIndexByte(f, ':'); i >= 0 {
			name, kind = strings.TrimSpace(f[:i]), strings.TrimSpace(f[i+1:])
		}
		if name == "" {
			return nil, fmt.Errorf("fields %s: a name is missing between the commas", quote(fields))
		}
		if props.get(name) != nil {
			return nil, fmt.Errorf("fields: %s is named twice", quote(name))
		}
		types := []string{"string", "integer", "number", "boolean", "array"}
		if !slices.Contains(types, kind) {
			hint := didYouMean(kind, types)
			if hint == "" {
				hint = "; it may be " + oneOf(types)
			}
			return nil, fmt.Errorf("fields: %s has the unknown type %s%s", quote(name), quote(kind), hint)
		}
		// Null is in the type, not in an anyOf: grammars of servers know that.
		p := objectTree(member{"type", arrayTree(textTree(kind), textTree("null"))})
		if kind == "array" {
			p.set("items", objectTree(member{"type", textTree("string")}))
		}
		props.set(name, p)
		required.elems = append(required.elems, textTree(name))
	}
	return objectTree(
		member{"type", textTree("object")},
		member{"properties", props},
		member{"required", required},
		member{"additionalProperties", &tree{kind: 'f', raw: "false"}},
	).json(), nil
}

// schemaOfText reads a schema in JSON or YAML, given as it is or as @FILE.
func schemaOfText(s string) (json.RawMessage, error) {
	file := "schema"
	if path, ok := strings.CutPrefix(s, "@"); ok {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("schema: %w", err)
		}
		file, s = path, string(data)
	}
	if t, err := parseTree([]byte(s)); err == nil { // YAML reads most JSON, but not all
		return t.json(), nil
	}
	root, err := parseYAML([]byte(s), file)
	if err != nil {
		return nil, err
	}
	p := fileParser{at: position{label: file, root: root}}
	raw := p.schema(root)
	return raw, p.at.err()
}

// checkVerbatim checks that the texts of an answer occur in the input.
func (j *Job) checkVerbatim(text string, answer json.RawMessage) error {
	v, _, err := readJSON(string(answer))
	if err != nil {
		return syntaxProblem(err)
	}
	c := verbatim{text: loose(text)}
	c.value(v, j.schema.compiled, "")
	if len(c.messages) == 0 {
		return nil
	}
	slices.Sort(c.messages)
	slices.Sort(c.reasons)
	return Invalid(strings.Join(c.messages, "\n"), strings.Join(slices.Compact(c.reasons), "; "))
}

type verbatim struct {
	text              string // of the record, loose
	messages, reasons []string
}

func (c *verbatim) value(v any, s *jsonschema.Schema, path string) {
	for s != nil && s.Ref != nil {
		s = s.Ref
	}
	switch v := v.(type) {
	case string:
		if free(s) && !strings.Contains(c.text, loose(v)) {
			c.messages = append(c.messages, fmt.Sprintf("%s: %s does not occur in the text; copy it verbatim, or give null if it is absent", path, shown(v)))
			c.reasons = append(c.reasons, path+": does not occur in the text")
		}
	case []any:
		for i, e := range v {
			c.value(e, itemSchema(s), path+"/"+itoa(i))
		}
	case map[string]any:
		for name, e := range v {
			var p *jsonschema.Schema
			if s != nil {
				p = s.Properties[name]
			}
			c.value(e, p, path+"/"+name)
		}
	}
}

func itemSchema(s *jsonschema.Schema) *jsonschema.Schema {
	if s == nil {
		return nil
	}
	if s.Items2020 != nil {
		return s.Items2020
	}
	one, _ := s.Items.(*jsonschema.Schema)
	return one
}

// free reports whether a text of this schema is the text's own: not a choice
// and not put into a form.
func free(s *jsonschema.Schema) bool {
	if s == nil {
		return true
	}
	if s.Enum != nil || s.Const != nil {
		return false
	}
	if s.Format != nil {
		return !slices.Contains([]string{"date", "time", "date-time", "duration"}, s.Format.Name)
	}
	return !slices.ContainsFunc(slices.Concat(s.AnyOf, s.OneOf, s.AllOf), func(b *jsonschema.Schema) bool { return !free(b) })
}

// loose is a text without regard to letter case, kinds of spaces, quotes and
// dashes, which models put into their own form.
func loose(s string) string {
	s = strings.ToLower(norm.NFKC.String(s))
	s = strings.NewReplacer("‘", "'", "’", "'", "“", `"`, "”", `"`, "–", "-", "—", "-", "‐", "-", "‑", "-", "\u00ad", "").Replace(s)
	return strings.Join(strings.Fields(s), " ")
}
