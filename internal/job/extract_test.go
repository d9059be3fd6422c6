package job

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/record"
)

func extract(t testing.TB, params map[string]string) *Job {
	t.Helper()
	j, err := Builtins()[0].New(params)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestExtract(t *testing.T) {
	j := extract(t, map[string]string{"text": "the notes", "fields": "name, full address , years:integer, skills: array,ok:boolean", "key": "id", "lifetime": "2w"})
	wantSchema := `{"type":"object","properties":{"name":{"type":["string","null"]},"full address":{"type":["string","null"]},"years":{"type":["integer","null"]},` +
		`"skills":{"type":["array","null"],"items":{"type":"string"}},"ok":{"type":["boolean","null"]}},` +
		`"required":["name","full address","years","skills","ok"],"additionalProperties":false}`
	if diff := cmp.Diff(wantSchema, string(j.Schema())); diff != "" {
		t.Error(diff)
	}
	wantColumns := []record.Column{
		{Name: "name", Type: "string"},
		{Name: "full address", Type: "string"},
		{Name: "years", Type: "integer"},
		{Name: "skills", Type: "array"},
		{Name: "ok", Type: "boolean"},
	}
	if diff := cmp.Diff(wantColumns, j.Columns()); diff != "" {
		t.Error(diff)
	}
	if j.Name != "extract" || j.Origin != "built-in" || j.Key != "id" || j.Lifetime.String() != "2w" || j.template.parts == nil {
		t.Errorf("%+v", j.Describe())
	}
	if got := promptOf(t, j, rec("the notes", "Hi")); !strings.HasSuffix(got, "<the_notes>Hi</the_notes>") {
		t.Error(got)
	}
	other := extract(t, map[string]string{"text": "the notes", "fields": "name"})
	if j.Parts().Schema == other.Parts().Schema || j.Parts().Prompt != other.Parts().Prompt {
		t.Error("the fields are not part of the identity")
	}
}

func TestExtractPrepare(t *testing.T) {
	j := extract(t, map[string]string{"text": "notes", "fields": "name,years:integer"})
	for value, want := range map[string]string{"": `{"name":null,"years":null}`, " \n": `{"name":null,"years":null}`, "x": ""} {
		got, err := j.Prepare(t.Context(), rec("notes", value))
		if err != nil || string(got) != want {
			t.Errorf("%q: %s, %v", value, got, err)
		}
	}
	// Where the schema asks for something, nothing cannot be the answer.
	j = extract(t, map[string]string{"text": "notes", "schema": `{"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}`})
	if got, err := j.Prepare(t.Context(), rec("notes", "")); got != nil || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}

func TestExtractCheck(t *testing.T) {
	j := extract(t, map[string]string{"text": "notes", "schema": `
type: object
properties:
  name: {type: [string, "null"]}
  skills: {type: array, items: {$ref: "#/$defs/skill"}}
  level: {type: string, enum: [low, high]}
  born: {type: string, format: date}
  home: {type: object, properties: {city: {type: string}}}
$defs:
  skill: {type: string}
`})
	const notes = "Ada  LOVELACE knows “sums” – and\nGo. She lives in Łódź. Cost: ½ of it."
	tests := []struct{ answer, message, reason string }{
		{`{"name":"Ada Lovelace"}`, "", ""},
		{`{"name":null}`, "", ""},
		{`{"name":""}`, "", ""},
		{`{"skills":["\"Sums\" - and Go"],"home":{"city":"łódź"}}`, "", ""},
		{`{"level":"high","born":"1815-12-10"}`, "", ""},
		{`{"name":"Grace Hopper"}`, `/name: "Grace Hopper" does not occur in the text; copy it verbatim, or give null if it is absent`, "/name: does not occur in the text"},
		{
			`{"skills":["Go","Rust"],"home":{"city":"Lodz"}}`,
			"/home/city: \"Lodz\" does not occur in the text; copy it verbatim, or give null if it is absent\n/skills/1: \"Rust\" does not occur in the text; copy it verbatim, or give null if it is absent",
			"/home/city: does not occur in the text; /skills/1: does not occur in the text",
		},
	}
	for _, tt := range tests {
		answer, err := j.Decode(tt.answer)
		if err != nil {
			t.Fatal(err)
		}
		err = j.Check(rec("notes", notes), answer)
		var message, reason string
		if e, ok := errors.AsType[*InvalidError](err); ok {
			message, reason = e.Message, e.Error()
		}
		if diff := cmp.Diff([]string{tt.message, tt.reason}, []string{message, reason}); diff != "" || (err == nil) != (tt.message == "") {
			t.Errorf("%s: %v %s", tt.answer, err, diff)
		}
	}
}

func TestExtractSchemaFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "s.json")
	if err := os.WriteFile(file, []byte(`{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"string"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	j := extract(t, map[string]string{"text": "notes", "schema": "@" + file})
	if c := j.Columns(); c[0].Name != "z" || c[1].Name != "a" {
		t.Errorf("%v", c)
	}
}

func TestBuiltinErrors(t *testing.T) {
	tests := []struct {
		name   string
		params map[string]string
		want   string
	}{
		{"none", nil, `job extract: the parameter "text" is missing (the field that holds the text); give it with -p text=...`},
		{"unknown", map[string]string{"txt": "a", "text": "b", "fields": "x"}, `job extract: unknown parameter "txt"; did you mean "text"?`},
		{"unknown, nothing near", map[string]string{"zzzzzzz": "a", "text": "b", "fields": "x"}, `job extract: unknown parameter "zzzzzzz"; it has "text", "fields", "schema", "key", "lifetime"`},
		{"neither", map[string]string{"text": "a"}, `job extract: say what to pull out with -p fields="name, email, years:integer" or -p schema=@FILE`},
		{"both", map[string]string{"text": "a", "fields": "x", "schema": "{}"}, `job extract: give fields or schema, not both`},
		{"type", map[string]string{"text": "a", "fields": "years:integr"}, `job extract: fields: "years" has the unknown type "integr"; did you mean "integer"?`},
		{"type, nothing near", map[string]string{"text": "a", "fields": "years:zzzzzzzz"}, `job extract: fields: "years" has the unknown type "zzzzzzzz"; it may be "string", "integer", "number", "boolean", "array"`},
		{"empty name", map[string]string{"text": "a", "fields": "x,,y"}, `job extract: fields "x,,y": a name is missing between the commas`},
		{"twice", map[string]string{"text": "a", "fields": "x,x"}, `job extract: fields: "x" is named twice`},
		{"lifetime", map[string]string{"text": "a", "fields": "x", "lifetime": "soon"}, `job extract: "soon" is no lifetime; write inputs, forever, none, or a duration such as 12h, 30d or 2w`},
		{"schema", map[string]string{"text": "a", "schema": `{"type":"object","properties":{"x":{"type":"strin"}}}`}, `job extract: schema: /properties/x/type: must be one of "array", "boolean", "integer", "null", "number", "object", "string"; got "strin"`},
		{"schema no object", map[string]string{"text": "a", "schema": `[1]`}, `job extract: schema: must be a mapping`},
		{"schema broken", map[string]string{"text": "a", "schema": "a: [\n"}, `job extract: schema:1: this is not YAML: sequence end token ']' not found`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Builtins()[0].New(tt.params)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := Builtins()[0].New(map[string]string{"text": "a", "schema": "@" + t.TempDir() + "/none"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
