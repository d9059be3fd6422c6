package llm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"millrace/internal/llm"
)

func TestForDialect(t *testing.T) {
	const anything = `{"type":["string","number","boolean","object","array","null"]}`
	for _, tt := range []struct {
		name, schema string
		gbnf, xg     string // xg "" for the same as gbnf
	}{
		{
			"properties keep their order, and closing is explicit",
			`{"type":"object","properties":{"zeta":{"type":"string"},"alpha":{"type":"boolean"}},"required":["zeta","alpha"]}`,
			`{"type":"object","properties":{"zeta":{"type":"string"},"alpha":{"type":"boolean"}},"required":["zeta","alpha"],"additionalProperties":false}`, "",
		},
		{
			"annotations go, properties of their names stay",
			`{"$schema":"x","title":"T","description":"D","type":"object","properties":{"title":{"type":"string","default":"a","examples":["b"]},"description":{"type":"null"}}}`,
			`{"type":"object","properties":{"title":{"type":"string"},"description":{"type":"null"}},"additionalProperties":false}`, "",
		},
		{
			"an object without properties stays open",
			`{"type":"object"}`, `{"type":"object"}`, "",
		},
		{
			"a property that is required only",
			`{"type":"object","required":["a"]}`,
			`{"type":"object","properties":{"a":` + anything + `},"required":["a"],"additionalProperties":false}`,
			`{"type":"object","properties":{"a":{}},"required":["a"],"additionalProperties":false}`,
		},
		{
			"further properties that are wanted",
			`{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":{"type":"integer","title":"n"}}`,
			`{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":{"type":"integer"}}`, "",
		},
		{
			"further properties beside a name that GBNF cannot exclude",
			`{"type":"object","properties":{"a-b":{"type":"string"}},"additionalProperties":true}`,
			`{"type":"object","properties":{"a-b":{"type":"string"}},"additionalProperties":false}`,
			`{"type":"object","properties":{"a-b":{"type":"string"}},"additionalProperties":true}`,
		},
		{
			"a property that can have no value",
			`{"type":"object","properties":{"a":false,"b":true},"required":["b"]}`,
			`{"type":"object","properties":{"b":` + anything + `},"required":["b"],"additionalProperties":false}`,
			`{"type":"object","properties":{"b":{}},"required":["b"],"additionalProperties":false}`,
		},
		{"const", `{"const":"x"}`, `{"enum":["x"]}`, ""},
		{"const with its type", `{"type":"string","const":"x"}`, `{"type":"string","enum":["x"]}`, ""},
		{"enum with types", `{"type":["string","null"],"enum":["a",null,3]}`, `{"enum":["a",null]}`, ""},
		{"enum with bounds", `{"type":"integer","enum":[1,2,"x"],"minimum":1}`, `{"type":"integer","enum":[1,2]}`, ""},
		{"a reference", `{"$ref":"#/$defs/a","$defs":{"a":{"type":"string"}}}`, `{"type":"string"}`, ""},
		{
			"references in references, with escapes",
			`{"properties":{"x":{"$ref":"#/definitions/a~1b%20c","description":"d"}},"definitions":{"a/b c":{"items":{"$ref":"#/definitions/t"}},"t":{"type":"integer"}}}`,
			`{"type":"object","properties":{"x":{"type":"array","items":{"type":"integer"}}},"additionalProperties":false}`, "",
		},
		{"an anchor", `{"$ref":"#here","$defs":{"a":{"$anchor":"here","type":"boolean"}}}`, `{"type":"boolean"}`, ""},
		{"a reference by the schema's own id", `{"$id":"https://x.test/s","$ref":"https://x.test/s#/$defs/a","$defs":{"a":{"type":"null"}}}`, `{"type":"null"}`, ""},
		{
			"a reference with more beside it",
			`{"$ref":"#/$defs/a","maxLength":5,"$defs":{"a":{"type":"string","minLength":2}}}`,
			`{"type":"string","minLength":2,"maxLength":5}`, "",
		},
		{"a value that looks like a reference", `{"enum":[{"$ref":"#/x"}]}`, `{"enum":[{"$ref":"#/x"}]}`, ""},
		{"one type in a list", `{"type":["string"]}`, `{"type":"string"}`, ""},
		{"types", `{"type":["string","null"],"maxLength":9}`, `{"type":["string","null"],"maxLength":9}`, ""},
		{"integer within number", `{"type":["integer","number"]}`, `{"type":"number"}`, ""},
		{"nullable by anyOf", `{"anyOf":[{"type":"string"},{"type":"null"}]}`, `{"type":["string","null"]}`, ""},
		{"nullable enum by anyOf", `{"anyOf":[{"enum":["a","b"]},{"type":"null"}]}`, `{"enum":["a","b",null]}`, ""},
		{
			"nullable object by oneOf",
			`{"oneOf":[{"type":"object","properties":{"a":{"type":"string"}}},{"type":"null"}]}`,
			`{"anyOf":[{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false},{"type":"null"}]}`, "",
		},
		{"anyOf of one", `{"anyOf":[{"type":"string"},false]}`, `{"type":"string"}`, ""},
		{"anyOf with anything", `{"anyOf":[{"type":"string"},{}]}`, anything, `{}`},
		{
			"what stands beside anyOf goes into it",
			`{"type":"string","anyOf":[{"maxLength":3},{"enum":["longer",7]}]}`,
			`{"anyOf":[{"type":"string","maxLength":3},{"type":"string","enum":["longer"]}]}`, "",
		},
		{
			"properties beside anyOf",
			`{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}},"anyOf":[{"required":["a"]},{"required":["b"]}]}`,
			`{"anyOf":[{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}},"required":["a"],"additionalProperties":false},` +
				`{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}},"required":["b"],"additionalProperties":false}]}`, "",
		},
		{
			"allOf of objects",
			`{"allOf":[{"type":"object","properties":{"b":{"type":"string"}},"required":["b"]},{"properties":{"a":{"type":"integer"},"b":{"maxLength":4}},"required":["a"]}]}`,
			`{"type":"object","properties":{"b":{"type":"string","maxLength":4},"a":{"type":"integer"}},"required":["b","a"],"additionalProperties":false}`, "",
		},
		{"allOf that contradicts", `{"type":"string","allOf":[{"type":"integer"}]}`, `{"type":"string"}`, ""},
		{"the narrower bound", `{"allOf":[{"type":"array","maxItems":9,"minItems":1},{"maxItems":3,"minItems":2}]}`, `{"type":"array","items":` + anything + `,"minItems":2,"maxItems":3}`, `{"type":"array","items":{},"minItems":2,"maxItems":3}`},
		{"bounds of integers", `{"type":"integer","minimum":1,"maximum":5}`, `{"type":"integer","minimum":1,"maximum":5}`, ""},
		{
			"bounds of integers, exclusive and broken",
			`{"type":"integer","minimum":0.5,"exclusiveMaximum":5,"multipleOf":2}`,
			`{"type":"integer","minimum":1,"maximum":4}`,
			`{"type":"integer","minimum":0.5,"exclusiveMaximum":5}`,
		},
		{"bounds of integers, draft 4", `{"type":"integer","minimum":1,"exclusiveMinimum":true}`, `{"type":"integer","minimum":2}`, `{"type":"integer","minimum":1,"exclusiveMinimum":true}`},
		{"bounds beyond what GBNF reads", `{"type":"integer","maximum":1e30}`, `{"type":"integer"}`, `{"type":"integer","maximum":1e30}`},
		{"bounds of numbers", `{"type":"number","minimum":0,"maximum":1}`, `{"type":"number"}`, `{"type":"number","minimum":0,"maximum":1}`},
		{"length", `{"type":"string","minLength":1,"maxLength":1999}`, `{"type":"string","minLength":1,"maxLength":1999}`, ""},
		{"length that GBNF cannot take", `{"type":"string","maxLength":2000}`, `{"type":"string"}`, `{"type":"string","maxLength":2000}`},
		{"pattern", `{"type":"string","pattern":"^[a-z]{2}$"}`, `{"type":"string","pattern":"^[a-z]{2}$"}`, ""},
		{"pattern that is not anchored", `{"type":"string","pattern":"[a-z]","maxLength":3}`, `{"type":"string","maxLength":3}`, `{"type":"string","pattern":"[a-z]"}`},
		{"pattern with look-ahead", `{"type":"string","pattern":"^(?=a)b$","minLength":1}`, `{"type":"string","minLength":1}`, ""},
		{"pattern or length", `{"type":"string","pattern":"^a+$","maxLength":3}`, `{"type":"string","pattern":"^a+$"}`, ""},
		{"format", `{"type":"string","format":"date-time","maxLength":3}`, `{"type":"string","format":"date-time"}`, ""},
		{"format of one server", `{"type":"string","format":"email"}`, `{"type":"string"}`, `{"type":"string","format":"email"}`},
		{"format of none", `{"type":"string","format":"iri","maxLength":3}`, `{"type":"string","maxLength":3}`, ""},
		{
			"what both ignore",
			`{"type":"object","properties":{"a":{"type":"array","items":{"type":"string"},"uniqueItems":true,"contains":{"const":"x"},"minContains":1}},` +
				`"not":{"required":["b"]},"if":{},"then":{},"else":{},"minProperties":1,"dependentRequired":{},"unevaluatedProperties":false}`,
			`{"type":"object","properties":{"a":{"type":"array","items":{"type":"string"}}},"additionalProperties":false}`, "",
		},
		{
			"properties by pattern",
			`{"type":"object","patternProperties":{"^n_":{"type":"integer"}},"additionalProperties":false}`,
			`{"type":"object","additionalProperties":{"type":"integer"}}`,
			`{"type":"object","patternProperties":{"^n_":{"type":"integer"}},"additionalProperties":false}`,
		},
		{
			"properties by several patterns",
			`{"type":"object","patternProperties":{"^a":{"type":"integer"},"^b":{}},"additionalProperties":false}`,
			`{"type":"object"}`, "",
		},
		{"names", `{"type":"object","propertyNames":{"pattern":"^[a-z]+$"}}`, `{"type":"object"}`, `{"type":"object","propertyNames":{"type":"string","pattern":"^[a-z]+$"}}`},
		{
			"names beside properties",
			`{"type":"object","properties":{"a":{}},"propertyNames":{"maxLength":3}}`,
			`{"type":"object","properties":{"a":` + anything + `},"additionalProperties":false}`,
			`{"type":"object","properties":{"a":{}},"additionalProperties":false}`,
		},
		{
			"a tuple",
			`{"type":"array","prefixItems":[{"type":"boolean"},{"const":1}],"items":false}`,
			`{"type":"array","items":[{"type":"boolean"},{"enum":[1]}]}`,
			`{"type":"array","prefixItems":[{"type":"boolean"},{"enum":[1]}],"items":false}`,
		},
		{"a tuple longer than its parts", `{"type":"array","items":[{"type":"boolean"}],"minItems":2}`, `{"type":"array"}`, `{"type":"array","prefixItems":[{"type":"boolean"}],"minItems":2}`},
		{"an array that stays empty", `{"type":"array","items":false}`, `{"type":"array","items":` + anything + `,"maxItems":0}`, `{"type":"array","items":{},"maxItems":0}`},
		{"a type that is implied", `{"properties":{"a":{"maxLength":2}}}`, `{"type":"object","properties":{"a":{"type":"string","maxLength":2}},"additionalProperties":false}`, ""},
		{"nothing said", `{"description":"anything"}`, anything, `{}`},
		{"true", `true`, anything, `{}`},
		{"big numbers stay exact", `{"enum":[12345678901234567890,1.10]}`, `{"enum":[12345678901234567890,1.10]}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.xg == "" {
				tt.xg = tt.gbnf
			}
			for d, want := range map[llm.Dialect]string{llm.GBNF: tt.gbnf, llm.XGrammar: tt.xg} {
				got, err := llm.ForDialect(json.RawMessage(tt.schema), d)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, string(got)); diff != "" {
					t.Errorf("dialect %d (-want +got):\n%s", d, diff)
				}
			}
		})
	}
}

func TestForDialectPlain(t *testing.T) {
	for _, tt := range []struct{ name, schema, want string }{
		{
			"all but references is left",
			`{"title":"T","type":"object","properties":{"b":{"$ref":"#/$defs/x"},"a":{"const":1,"not":{}}},"if":{},"$defs":{"x":{"type":"string","description":"d","pattern":"a"}}}`,
			`{"title":"T","type":"object","properties":{"b":{"type":"string","description":"d","pattern":"a"},"a":{"const":1,"not":{}}},"if":{}}`,
		},
		{
			"notes beside a reference win",
			`{"properties":{"b":{"$ref":"#/$defs/x","description":"mine"}},"$defs":{"x":{"type":"string","description":"theirs"}}}`,
			`{"properties":{"b":{"type":"string","description":"mine"}}}`,
		},
		{
			"limits beside a reference hold too",
			`{"properties":{"b":{"$ref":"#/$defs/x","maxLength":3,"allOf":[{"minLength":1}]}},"$defs":{"x":{"type":"string"}}}`,
			`{"properties":{"b":{"maxLength":3,"allOf":[{"type":"string"},{"minLength":1}]}}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := llm.ForDialect(json.RawMessage(tt.schema), llm.Plain)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestForDialectErrors(t *testing.T) {
	bomb := `{"$ref":"#/$defs/a0","$defs":{`
	for i := range 20 {
		a, b := string(rune('a'+i)), string(rune('a'+i+1))
		bomb += `"` + a + `0":{"properties":{"x":{"$ref":"#/$defs/` + b + `0"},"y":{"$ref":"#/$defs/` + b + `0"}}},`
	}
	bomb += `"u0":{}}}`
	deep := strings.Repeat(`{"properties":{"p":{}},"anyOf":[{"required":["p"]},{"required":["q"]}],"additionalProperties":`, 20) + `{}` + strings.Repeat(`}`, 20)
	for _, tt := range []struct{ name, schema, want string }{
		{"not JSON", `{"type":`, "not valid JSON"},
		{"more than JSON", `{} {}`, "more text"},
		{"a name twice", `{"type":"a","type":"b"}`, "duplicate"},
		{"not a schema", `[1]`, "has to be an object"},
		{"recursion", `{"properties":{"next":{"$ref":"#"}}}`, "refers to itself"},
		{"recursion by a detour", `{"$ref":"#/$defs/a","$defs":{"a":{"items":{"$ref":"#/$defs/b"}},"b":{"$ref":"#/$defs/a"}}}`, "#/$defs/a -> #/$defs/b -> #/$defs/a"},
		{"remote", `{"$ref":"https://x.test/y"}`, "leaves the schema"},
		{"to nothing", `{"$ref":"#/$defs/a"}`, "points to nothing"},
		{"to no schema", `{"$ref":"#/a","a":"b"}`, "not to a schema"},
		{"to no anchor", `{"$ref":"#a"}`, "no $anchor"},
		{"not a reference", `{"$ref":1}`, "has to be a string"},
		{"grows without end", bomb, "grows beyond"},
		{"alternatives grow without end", deep, "grows beyond"},
		{"allows nothing", `false`, "no value"},
		{"allows nothing within", `{"type":"string","enum":[1]}`, "no value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := llm.ForDialect(json.RawMessage(tt.schema), llm.GBNF)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.200s, %v; want an error about %q", got, err, tt.want)
			}
		})
	}
}

// What fits the schema has to fit the form too, or a server would be kept from
// giving a right answer.
func TestFormsAllowRightAnswers(t *testing.T) {
	for _, tt := range []struct {
		schema  string
		answers []string
	}{
		{`{"type":"object","properties":{"a":{"type":"integer","exclusiveMinimum":0,"maximum":9.5},"b":{"type":["string","null"],"maxLength":3}},"required":["a"]}`, []string{`{"a":1}`, `{"a":9,"b":null}`, `{"a":5,"b":"xyz"}`}},
		{`{"anyOf":[{"type":"object","properties":{"k":{"const":"a"},"v":{"type":"number"}},"required":["k","v"]},{"type":"object","properties":{"k":{"const":"b"}},"required":["k"]}]}`, []string{`{"k":"a","v":1.5}`, `{"k":"b"}`}},
		{`{"allOf":[{"$ref":"#/$defs/p"},{"properties":{"z":{"enum":[1,2]}}}],"$defs":{"p":{"type":"object","properties":{"y":{"type":"string"}},"required":["y"]}}}`, []string{`{"y":"s"}`, `{"y":"s","z":2}`}},
		{`{"type":"string","pattern":"^\\d{2}-[\\w.]+(?:x|yz)?$"}`, []string{`"12-a.b"`, `"00-_x"`, `"99-qyz"`}},
		{`{"type":"string","pattern":"ab"}`, []string{`"ab"`}},
		{`{"type":"array","prefixItems":[{"type":"string"},{"type":"integer"}],"minItems":2,"maxItems":2}`, []string{`["a",1]`}},
		{`{"type":"object","additionalProperties":{"type":"array","items":{"type":"boolean"}}}`, []string{`{}`, `{"x":[true]}`}},
		{`{"type":"object","properties":{"s":{"type":"number","multipleOf":0.5,"minimum":0}},"dependentRequired":{"s":["t"]},"required":["t"]}`, []string{`{"t":{"any":[1]},"s":1.5}`}},
		{`{"oneOf":[{"type":"integer","minimum":10},{"type":"integer","maximum":-10},{"type":"null"}]}`, []string{`10`, `-11`, `null`}},
	} {
		for _, d := range []llm.Dialect{llm.Plain, llm.GBNF, llm.XGrammar} {
			form, err := llm.ForDialect(json.RawMessage(tt.schema), d)
			if err != nil {
				t.Fatalf("%s: %v", tt.schema, err)
			}
			compiled := compile(t, string(form), d)
			full := compile(t, tt.schema, llm.Plain)
			for _, a := range tt.answers {
				v, err := jsonschema.UnmarshalJSON(strings.NewReader(a))
				if err != nil {
					t.Fatal(err)
				}
				if err := full.Validate(v); err != nil {
					t.Fatalf("the test itself is wrong: %s: %v", a, err)
				}
				if err := compiled.Validate(v); err != nil {
					t.Errorf("dialect %d: %s does not fit the form %s: %v", d, a, form, err)
				}
			}
		}
	}
}

func compile(t *testing.T, schema string, d llm.Dialect) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if d == llm.GBNF {
		c.DefaultDraft(jsonschema.Draft2019) // tuples are lists of items
	}
	if err := c.AddResource("s.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("s.json")
	if err != nil {
		t.Fatalf("form %s does not compile: %v", schema, err)
	}
	return s
}

func TestSchemaForms(t *testing.T) {
	forms := llm.NewSchemaForms(llm.GBNF)
	for i := range 200 { // more than are kept
		schema := json.RawMessage(`{"const":` + strings.Repeat("1", i%100+1) + `}`)
		got, err := forms.Form(schema)
		want, _ := llm.ForDialect(schema, llm.GBNF)
		if err != nil || string(got) != string(want) {
			t.Fatalf("%s gave %s, %v", schema, got, err)
		}
	}
	if _, err := forms.Form(json.RawMessage(`{"$ref":"#"}`)); llm.KindOf(err) != llm.BadSchema {
		t.Errorf("got %v, want kind %s", err, llm.BadSchema)
	}
}

func FuzzForDialect(f *testing.F) {
	for _, s := range []string{
		`{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"type":["string","null"],"pattern":"^[a-z\\d-]+$"}}}`,
		`{"allOf":[{"anyOf":[{"const":1},{"type":"string"}]},{"oneOf":[{"enum":[1,"a"]},false]}]}`,
		`{"type":"array","prefixItems":[{},true],"items":{"minimum":1.5,"exclusiveMaximum":true}}`,
		`{"patternProperties":{"a":{}},"additionalProperties":{"required":["b"]},"required":["c","c"]}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, schema string) {
		for _, d := range []llm.Dialect{llm.Plain, llm.GBNF, llm.XGrammar} {
			form, err := llm.ForDialect(json.RawMessage(schema), d)
			if err != nil {
				continue
			}
			if !json.Valid(form) {
				t.Fatalf("dialect %d of %s is not JSON: %s", d, schema, form)
			}
			again, err := llm.ForDialect(form, d)
			if err != nil {
				t.Fatalf("dialect %d of %s: form %s: %v", d, schema, form, err)
			}
			if d != llm.Plain && string(again) != string(form) {
				t.Fatalf("dialect %d of %s: form %s has the form %s", d, schema, form, again)
			}
		}
	})
}

func BenchmarkForDialect(b *testing.B) {
	schema := json.RawMessage(`{"type":"object","properties":{"skills":{"type":"array","items":{"$ref":"#/$defs/skill"},"maxItems":20},"level":{"enum":["a","b","c"]}},"required":["skills","level"],"$defs":{"skill":{"type":"object","properties":{"name":{"type":"string","maxLength":80},"score":{"type":"integer","minimum":1,"maximum":5}},"required":["name","score"]}}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := llm.ForDialect(schema, llm.GBNF); err != nil {
			b.Fatal(err)
		}
	}
}
