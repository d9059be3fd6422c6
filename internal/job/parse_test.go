package job

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
	"millrace/internal/record"
)

const sentimentYAML = `name: sentiment
version: 2
about: is a review good
input: [review, product]
key: id
system: You judge product reviews.
prompt: "Review of {{ .product }}: {{ .review }}"
schema: {type: object, properties: {sentiment: {type: string, enum: [good, bad]}, aspects: {type: array, items: {type: string}}}, required: [sentiment], additionalProperties: false}
lifetime: 30d
options: {temperature: 0.5, seed: 7, top_p: 0.9, top_k: 40, min_p: 0.05, repeat_penalty: 1.1, max_tokens: 200, num_ctx: 4096, think: false, stop: ["\n\n"]}
pack: 3
repairs: 0
`

func mustParse(t testing.TB, yaml string) *Job {
	t.Helper()
	j, err := Parse([]byte(yaml), "job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestParse(t *testing.T) {
	for _, form := range []string{sentimentYAML, "\ufeff" + strings.ReplaceAll(sentimentYAML, "\n", "\r\n")} {
		j := mustParse(t, form)
		d := j.Describe()
		d.System, d.Prompt, d.Schema = "", "", nil
		want := Description{
			Name: "sentiment", Version: 2, About: "is a review good", Origin: "job.yaml",
			Input: []string{"review", "product"}, Key: "id", Lifetime: "30d", Pack: 3, Repairs: 0,
			Output: []record.Column{{Name: "sentiment", Type: "string"}, {Name: "aspects", Type: "array"}},
			Options: llm.Options{
				Temperature: new(0.5), Seed: new(int64(7)), TopP: new(0.9), TopK: new(40), MinP: new(0.05), RepeatPenalty: new(1.1),
				MaxTokens: new(200), NumCtx: new(4096), Think: new(false), Stop: []string{"\n\n"},
			},
		}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Error(diff)
		}
	}
}

func TestParseDefaults(t *testing.T) {
	j := mustParse(t, `
name: x
version: 1
input: [a]
prompt: "{{ .a }}"
schema: {type: object, properties: {b: {type: string}}}
`)
	want := llm.Options{Temperature: new(0.0), Seed: new(int64(1)), MaxTokens: new(1024)}
	if diff := cmp.Diff(want, j.Options); diff != "" {
		t.Error(diff)
	}
	if j.Pack != 1 || j.Repairs != 2 || j.Lifetime != (Lifetime{Kind: LifetimeInputs}) || j.Key != "" {
		t.Errorf("pack %d, repairs %d, lifetime %v, key %q", j.Pack, j.Repairs, j.Lifetime, j.Key)
	}
}

// The order of keys is kept where YAML has it, not where the alphabet has it.
func TestSchemaOrder(t *testing.T) {
	j := mustParse(t, `
name: x
version: 1
input: [a]
prompt: "{{ .a }}"
schema:
  type: object
  properties:
    zebra:
      type: object
      properties: {y: {type: integer}, x: {type: number, minimum: 0.10}}
    "no": {type: boolean}
    1: {enum: [b, a, null, 2.50, true, "1"]}
    älter: {$ref: "#/$defs/when"}
    either: {anyOf: [{type: integer}, {type: "null"}]}
    mixed: {type: [string, integer]}
  required: [zebra]
  $defs: {when: {type: [string, "null"]}}
`)
	wantSchema := `{"type":"object","properties":{"zebra":{"type":"object","properties":{"y":{"type":"integer"},"x":{"type":"number","minimum":0.10}}},` +
		`"no":{"type":"boolean"},"1":{"enum":["b","a",null,2.50,true,"1"]},"älter":{"$ref":"#/$defs/when"},` +
		`"either":{"anyOf":[{"type":"integer"},{"type":"null"}]},"mixed":{"type":["string","integer"]}},` +
		`"required":["zebra"],"$defs":{"when":{"type":["string","null"]}}}`
	if diff := cmp.Diff(wantSchema, string(j.Schema())); diff != "" {
		t.Error(diff)
	}
	wantColumns := []record.Column{
		{Name: "zebra", Type: "object"},
		{Name: "no", Type: "boolean"},
		{Name: "1", Type: ""},
		{Name: "älter", Type: "string"},
		{Name: "either", Type: "integer"},
		{Name: "mixed", Type: ""},
	}
	if diff := cmp.Diff(wantColumns, j.Columns()); diff != "" {
		t.Error(diff)
	}
	got, err := j.Decode(`{"mixed":3,"either":null,"extra":{"b":1,"a":2},"zebra":{"x":1.50,"z":0,"y":2},"no":false}`)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"zebra":{"y":2,"x":1.50,"z":0},"no":false,"either":null,"mixed":3,"extra":{"a":2,"b":1}}`
	if string(got) != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestParseErrors(t *testing.T) {
	// Each case changes a good file; the errors are all of them.
	const good = `name: sentiment
version: 2
input:
  - review
  - product name
key: id
system: s
prompt: |
  Review of {{ index . "product name" }}:
  {{ .review }}
schema:
  type: object
  properties:
    sentiment: {type: string, enum: [good, bad]}
  required: [sentiment]
lifetime: 30d
options:
  temperature: 0
pack: 1
repairs: 2
`
	if _, err := Parse([]byte(good), "f"); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		old, new string
		want     string
	}{
		{"unknown key", "lifetime: 30d", "lifetme: 30d", `f:16: unknown key "lifetme"; did you mean "lifetime"?`},
		{"unknown key, nothing near", "pack: 1", "zzzzzzzz: 1", `f:19: unknown key "zzzzzzzz"; it may be one of "name", "version", "about", "input", "key", "system", "prompt", "schema", "lifetime", "options", "pack", "repairs"`},
		{"unknown option", "temperature: 0", "temprature: 0", `f:18: unknown key "temprature"; did you mean "temperature"?`},
		{"no name", "name: sentiment\n", "", `f:1: a job needs a name`},
		{"name of spaces", "name: sentiment", "name: my job", `f:1: the name must begin with a letter or digit and hold only letters, digits, '-', '_' and '.'`},
		{"name a number", "name: sentiment", "name: 12", `f:1: "name" must be a text (put it in quotes), not a number`},
		{"no version", "version: 2\n", "", `f:1: a job needs a version, a whole number from 1 up; raise it when the meaning of the answers changes`},
		{"version 0", "version: 2", "version: 0", `f:2: a job needs a version, a whole number from 1 up; raise it when the meaning of the answers changes`},
		{"version a text", "version: 2", "version: two", `f:2: "version" must be a whole number, not a text`},
		{"version a fraction", "version: 2", "version: 1.5", `f:2: "version" must be a whole number, not a number`},
		{"input a text", "input:\n  - review\n  - product name", "input: review\n", `f:3: "input" must be a list of texts, not a text`},
		{"input of numbers", "- review", "- 7", `f:4: "input" must be a text (put it in quotes), not a number`},
		{"input twice", "- product name", "- product name\n  - review", `f:6: the input field "review" is named twice`},
		{"input empty", "- review", "- review\n  - ''", `f:5: an input field needs a name`},
		{"key a list", "key: id", "key: [id]", `f:6: "key" must be a text, not a list`},
		{"prompt missing", "prompt: |\n  Review of {{ index . \"product name\" }}:\n  {{ .review }}\n", "", `f:1: a job needs a prompt`},
		{"template syntax", "{{ .review }}", "{{ .review }", `f:10: prompt: unexpected "}" in operand`},
		{"template function", "{{ .review }}", "{{ upper .review }}", `f:10: prompt: function "upper" not defined`},
		{"template without end", "{{ .review }}", "{{ if .review }}", `f:10: prompt: unexpected EOF`},
		{"unknown field", "{{ .review }}", "{{ .reviw }}", `f:10: prompt: it uses the field "reviw", which is not in input; did you mean "review"?`},
		{"unknown field by index", `"product name" }}`, `"product" }}`, `f:9: prompt: it uses the field "product", which is not in input`},
		{"unknown field by root", "{{ .review }}", "{{ range .review }}{{ $.rview }}{{ end }}", `f:10: prompt: it uses the field "rview", which is not in input; did you mean "review"?`},
		{"unknown field in if", "{{ .review }}", "{{ if .stars }}{{ .review }}{{ end }}", `f:10: prompt: it uses the field "stars", which is not in input`},
		{"unknown field of a field", "{{ .review }}", "{{ .stars.value }}", `f:10: prompt: it uses the field "stars", which is not in input`},
		{"define", "{{ .review }}", `{{ define "x" }}{{ .review }}{{ end }}`, `f:10: prompt: define and block have no place in a prompt`},
		{"schema missing", "schema:\n  type: object\n  properties:\n    sentiment: {type: string, enum: [good, bad]}\n  required: [sentiment]\n", "", `f:1: a job needs a schema for its answers: a JSON Schema of an object`},
		{"schema no object", "type: object", "type: array", `f:12: schema: must have type: object at its top, because an answer's properties become columns`},
		{"schema without properties", "  properties:\n    sentiment: {type: string, enum: [good, bad]}\n", "", `f:11: schema: must have properties at its top: they become the columns of the output`},
		{"schema not compilable", "{type: string, enum: [good, bad]}", "{type: strin}", `f:14: schema: /properties/sentiment/type: must be one of "array", "boolean", "integer", "null", "number", "object", "string"; got "strin"`},
		{"schema wrong keyword value", "enum: [good, bad]", "maxLength: -1", `f:14: schema: /properties/sentiment/maxLength: must be at least 0; got -1`},
		{"schema bad pattern", "enum: [good, bad]", "pattern: '('", `f:14: schema: /properties/sentiment/pattern: must be a valid regex; got "("`},
		{"schema dangling ref", "{type: string, enum: [good, bad]}", `{$ref: "#/$defs/no"}`, `f:11: schema: a $ref leads nowhere: #/$defs/no`},
		{"schema remote ref", "{type: string, enum: [good, bad]}", `{$ref: "file:///etc/passwd"}`, `f:11: schema: a $ref leads outside: file:///etc/passwd: a schema may only refer to its own parts (#/$defs/...)`},
		{"schema required slip", "required: [sentiment]", "required: [sentimnt]", `f:15: schema: required names "sentimnt", which is not among the properties; did you mean "sentiment"?`},
		{"schema with .inf", "enum: [good, bad]", "minimum: .inf", `f:14: JSON has no way to say a number`},
		{"schema with alias", "enum: [good, bad]", "enum: &x [good, bad]", `f:14: JSON has no way to say an anchor or alias, which job files do without`},
		{"lifetime without unit", "30d", "30", `f:16: "lifetime" must be a text (put it in quotes), not a number`},
		{"lifetime unknown unit", "30d", "30y", `f:16: "30y" is no lifetime; write inputs, forever, none, or a duration such as 12h, 30d or 2w`},
		{"lifetime zero", "30d", "0d", `f:16: "0d" is no lifetime; write inputs, forever, none, or a duration such as 12h, 30d or 2w`},
		{"lifetime negative", "30d", "-1d", `f:16: "-1d" is no lifetime; write inputs, forever, none, or a duration such as 12h, 30d or 2w`},
		{"lifetime too long", "30d", "99999w", `f:16: "99999w" is longer than a century; write forever`},
		{"options a list", "options:\n  temperature: 0", "options: []\n", `f:17: "options" must be a mapping of keys to values, not a list`},
		{"option a text", "temperature: 0", "temperature: warm", `f:18: "temperature" must be a number, not a text`},
		{"option out of range", "temperature: 0", "temperature: -1", `f:18: temperature must be from 0 to 5`},
		{"option max_tokens", "temperature: 0", "max_tokens: 0", `f:18: max_tokens must be at least 1`},
		{"option think", "temperature: 0", "think: maybe", `f:18: "think" must be true or false, not a text`},
		{"option seed", "temperature: 0", "seed: 1.5", `f:18: "seed" must be a whole number, not a number`},
		{"option stop", "temperature: 0", `stop: [1]`, `f:18: "stop" must be a text (put it in quotes), not a number`},
		{"pack 0", "pack: 1", "pack: 0", `f:19: pack must be at least 1: it is the number of records that one request may carry`},
		{"pack a text", "pack: 1", "pack: four", `f:19: "pack" must be a whole number, not a text`},
		{"repairs", "repairs: 2", "repairs: -1", `f:20: repairs must not be negative`},
		{"key twice", "pack: 1", "name: again", `f:19: this is not YAML: mapping key "name" already defined at [1:1]`},
		{"two documents", "repairs: 2", "repairs: 2\n---\nname: b", `f:22: a job file holds one job; this begins a second document`},
		{"tab", "  required: [sentiment]", "\trequired: [sentiment]", `f:15: this is not YAML: found character '` + "\t" + `' that cannot start any token`},
		{
			"several", "pack: 1\nrepairs: 2", "pack: 0\nrepairs: x\nnamee: y",
			"f:19: pack must be at least 1: it is the number of records that one request may carry\n" +
				"f:20: \"repairs\" must be a whole number, not a text\n" +
				"f:21: unknown key \"namee\"; did you mean \"name\"?",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Count(good, tt.old) == 0 {
				t.Fatalf("the file has no %q", tt.old)
			}
			_, err := Parse([]byte(strings.Replace(good, tt.old, tt.new, 1)), "f")
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseNotAJob(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", "f:1: the file is empty; a job needs name, version, input, prompt and schema"},
		{"comment only", "# nothing\n", "f:1: the file is empty; a job needs name, version, input, prompt and schema"},
		{"list", "- a\n", "f:1: a job file is a mapping of keys to values (name: ..., version: ...), not a list"},
		{"text", "hello\n", "f:1: a job file is a mapping of keys to values (name: ..., version: ...), not a text"},
		{"one key", "name: a\n", "f:1: a job needs a version, a whole number from 1 up; raise it when the meaning of the answers changes\n" +
			"f:1: a job needs input: the list of the record's fields that its prompt may use\nf:1: a job needs a prompt\n" +
			"f:1: a job needs a schema for its answers: a JSON Schema of an object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.in), "f")
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoadNoFile(t *testing.T) {
	if _, err := Load(t.TempDir() + "/none.yaml"); !os.IsNotExist(unwrapAll(err)) {
		t.Errorf("got %v", err)
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
	}
}

func TestNewErrors(t *testing.T) {
	_, err := New(Def{Name: "b", Input: []string{"a"}, Prompt: "{{ .b }}", Schema: []byte(`{"type":"object","properties":{"x":{"type":"nope"}}}`)})
	want := "job b: a job needs a version, a whole number from 1 up; raise it when the meaning of the answers changes\n" +
		"job b: prompt: it uses the field \"b\", which is not in input\n" +
		"job b: schema: /properties/x/type: must be one of \"array\", \"boolean\", \"integer\", \"null\", \"number\", \"object\", \"string\"; got \"nope\""
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestLifetime(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for in, want := range map[string]struct {
		back    string
		expires time.Time
	}{
		"inputs":  {"inputs", time.Time{}},
		"forever": {"forever", time.Time{}},
		"none":    {"none", time.Time{}},
		"12h":     {"12h", made.Add(12 * time.Hour)},
		"30d":     {"30d", made.AddDate(0, 0, 30)},
		"14d":     {"2w", made.AddDate(0, 0, 14)},
		"24h":     {"1d", made.AddDate(0, 0, 1)},
		"2w":      {"2w", made.AddDate(0, 0, 14)},
	} {
		l, err := ParseLifetime(in)
		if err != nil || l.String() != want.back || !l.Expires(made).Equal(want.expires) {
			t.Errorf("%s: %v, %v, expires %v", in, l, err, l.Expires(made))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sentimentYAML)
	f.Add("name: x\nversion: 1\ninput: [a]\nprompt: |\n  {{ range .a }}{{ . }}{{ end }}\nschema:\n  type: object\n  properties: {b: {$ref: '#'}}\n")
	f.Fuzz(func(t *testing.T, s string) {
		j, err := Parse([]byte(s), "f")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("without a place: %v", err)
			}
			return
		}
		if _, err := j.Render(record.Record{}); err == nil && len(j.Columns()) == 0 {
			t.Error("no columns")
		}
	})
}
