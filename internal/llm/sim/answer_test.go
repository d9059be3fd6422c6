package sim_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"millrace/internal/llm/sim"
)

func validator(t interface{ Fatalf(string, ...any) }, schema string) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatalf("schema %s: %v", schema, err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("mem:///s.json", doc); err != nil {
		t.Fatalf("schema %s: %v", schema, err)
	}
	s, err := c.Compile("mem:///s.json")
	if err != nil {
		t.Fatalf("schema %s: %v", schema, err)
	}
	return s
}

func check(t interface{ Fatalf(string, ...any) }, schema, answer string) {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(answer))
	if err != nil {
		t.Fatalf("schema %s: answer %q is not JSON: %v", schema, answer, err)
	}
	if err := validator(t, schema).Validate(v); err != nil {
		t.Fatalf("schema %s: answer %s: %v", schema, answer, err)
	}
}

// genSchema draws schemas that have an answer, of every kind that jobs use.
func genSchema(depth int) *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		kinds := []string{"string", "integer", "number", "boolean", "enum", "const", "null", "pattern", "format"}
		if depth > 0 {
			kinds = append(kinds, "object", "object", "array", "array", "anyOf", "oneOf", "allOf", "nullable")
		}
		bound := func(m map[string]any, lo, hi string, most int) {
			a := rapid.IntRange(0, most).Draw(t, lo)
			if rapid.Bool().Draw(t, "has "+lo) {
				m[lo] = a
			}
			if rapid.Bool().Draw(t, "has "+hi) {
				m[hi] = a + rapid.IntRange(0, most).Draw(t, hi)
			}
		}
		switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
		case "string":
			m := map[string]any{"type": "string"}
			bound(m, "minLength", "maxLength", 60)
			return m
		case "integer", "number":
			m := map[string]any{"type": kind}
			lo := rapid.IntRange(-1000, 1000).Draw(t, "lo")
			if rapid.Bool().Draw(t, "has lo") {
				m[rapid.SampledFrom([]string{"minimum", "exclusiveMinimum"}).Draw(t, "which")] = lo
			}
			if rapid.Bool().Draw(t, "has hi") {
				m[rapid.SampledFrom([]string{"maximum", "exclusiveMaximum"}).Draw(t, "which")] = lo + rapid.IntRange(20, 2000).Draw(t, "hi")
			}
			if rapid.Bool().Draw(t, "multiple") {
				m["multipleOf"] = rapid.SampledFrom([]float64{1, 2, 5, 0.5, 0.25}).Draw(t, "multipleOf")
			}
			return m
		case "boolean", "null":
			return map[string]any{"type": kind}
		case "enum":
			return map[string]any{"enum": []any{"a \"quoted\"", 7, nil, true, map[string]any{"x": 1}}[:rapid.IntRange(1, 5).Draw(t, "values")]}
		case "const":
			return map[string]any{"const": rapid.SampledFrom([]any{"fixed", 1.5, nil, false}).Draw(t, "value")}
		case "pattern":
			return map[string]any{"type": "string", "pattern": rapid.SampledFrom([]string{
				`^[A-Z]{2}-\d{4}$`, `^(yes|no|maybe)$`, `^\w+@\w+\.(com|org)$`, `[0-9]+`, `^[^ ]+( [^ ]+)*$`, `^$|^x+$`,
			}).Draw(t, "pattern")}
		case "format":
			return map[string]any{"type": "string", "format": rapid.SampledFrom([]string{
				"date", "time", "date-time", "duration", "email", "uuid", "uri", "ipv4", "ipv6", "hostname",
			}).Draw(t, "format")}
		case "array":
			m := map[string]any{"type": "array"}
			bound(m, "minItems", "maxItems", 5)
			if rapid.Bool().Draw(t, "unique") { // of values of which there are enough
				m["uniqueItems"] = true
				m["items"] = rapid.SampledFrom([]any{
					map[string]any{"type": "string"},
					map[string]any{"type": "string", "minLength": 3, "maxLength": 12},
					map[string]any{"type": "integer", "minimum": 1, "maximum": 40},
					map[string]any{"enum": []any{"a", "b", "c", "d", "e", "f", "g"}},
				}).Draw(t, "items")
				return m
			}
			m["items"] = genSchema(depth-1).Draw(t, "items")
			return m
		case "anyOf", "oneOf":
			// The branches exclude each other, as oneOf demands.
			return map[string]any{kind: []any{
				map[string]any{"type": "object", "properties": map[string]any{"k": genSchema(depth-1).Draw(t, "branch")}, "required": []any{"k"}},
				map[string]any{"type": "null"},
			}}
		case "allOf":
			return map[string]any{"allOf": []any{
				map[string]any{"type": "string", "minLength": 4},
				map[string]any{"maxLength": 9},
			}}
		case "nullable":
			return map[string]any{"type": []any{"null", "string"}, "maxLength": 10}
		default:
			props, required := map[string]any{}, []any{}
			for i := range rapid.IntRange(0, 4).Draw(t, "properties") {
				name := fmt.Sprintf("p%d", i)
				props[name] = genSchema(depth-1).Draw(t, name)
				if rapid.Bool().Draw(t, "required") {
					required = append(required, name)
				}
			}
			return map[string]any{"type": "object", "properties": props, "required": required, "additionalProperties": false}
		}
	})
}

// Whatever the schema and the prompt, the answer is valid, and the same again.
func TestAnswersFitTheirSchemas(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		inner := genSchema(3).Draw(rt, "schema")
		raw, err := json.Marshal(map[string]any{
			"type": "object", "properties": map[string]any{"v": inner}, "required": []string{"v"}, "additionalProperties": false,
		})
		if err != nil {
			rt.Fatal(err)
		}
		prompt := rapid.OneOf(
			rapid.String(),
			rapid.Just("The courier, aged 41, brought 3 parcels (2.5 kg) on 7 May.\nGood service!"),
			rapid.StringMatching(`[a-zäö ,.0-9\n]{0,200}`),
		).Draw(rt, "prompt")
		body, err := json.Marshal(map[string]any{
			"model": "llama3.1:8b", "stream": false, "format": json.RawMessage(raw),
			"messages": []any{map[string]any{"role": "user", "content": prompt}},
			"options":  map[string]any{"temperature": 0},
		})
		if err != nil {
			rt.Fatal(err)
		}
		p, _ := sim.Find("instant")
		b := start(p.WithSeed(rapid.Uint64().Draw(rt, "seed")))
		r := b.do(t.Context(), "POST", "/api/chat", string(body))
		if r.status != 200 {
			rt.Fatalf("%s: %d %s", body, r.status, r.body)
		}
		check(rt, string(raw), r.Message.Content)
		if again := b.do(t.Context(), "POST", "/api/chat", string(body)); again.Message.Content != r.Message.Content {
			rt.Fatalf("first %s\nthen  %s", r.Message.Content, again.Message.Content)
		}
	})
}

func answer(t *testing.T, b *bench, schema, prompt string) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"model": "llama3.1:8b", "stream": false, "format": json.RawMessage(schema),
		"messages": []any{
			map[string]any{"role": "system", "content": "SYSTEM WORDS ONLY"},
			map[string]any{"role": "user", "content": prompt},
		},
		"options": map[string]any{"temperature": 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := b.do(t.Context(), "POST", "/api/chat", string(body))
	if r.status != 200 {
		t.Fatalf("%s: %d %s", schema, r.status, r.body)
	}
	return r.Message.Content
}

const review = "Judge this review.\nReview: The lamp arrived on 14 May, broken in 3 places; I paid 49.5 euro and want my money back."

func TestWordsAreThePrompts(t *testing.T) {
	for seed := range uint64(50) {
		b := start(profile(t, "instant").WithSeed(seed))
		var v struct {
			Quote string
			Paid  float64
			Day   int
		}
		a := answer(t, b, `{"type":"object","properties":{
			"quote":{"type":"string"},"paid":{"type":"number","minimum":40},"day":{"type":"integer","minimum":10,"maximum":31}},
			"required":["quote","paid","day"]}`, review)
		if err := json.Unmarshal([]byte(a), &v); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(review, v.Quote) || v.Quote == "" {
			t.Errorf("seed %d: %q does not stand in the prompt", seed, v.Quote)
		}
		if v.Paid != 49.5 || v.Day != 14 {
			t.Errorf("seed %d: numbers %v and %v", seed, v.Paid, v.Day)
		}
	}
}

func TestSchemasByHand(t *testing.T) {
	b := start(profile(t, "instant"))
	for name, schema := range map[string]string{
		"refs": `{"type":"object","properties":{"a":{"$ref":"#/$defs/x"},"b":{"$ref":"#/$defs/x"}},"required":["a","b"],
			"$defs":{"x":{"type":"array","items":{"$ref":"#/$defs/y~1z"},"minItems":2},"y/z":{"type":"integer","minimum":5}}}`,
		"recursive": `{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"name":{"type":"string"},
			"children":{"type":"array","items":{"$ref":"#/$defs/tree"}}},"required":["name","children"],"additionalProperties":false}}}`,
		"list":          `{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["v"]}`,
		"prefix items":  `{"type":"array","prefixItems":[{"const":1},{"type":"boolean"}],"minItems":2,"items":{"type":"string"}}`,
		"required only": `{"type":"object","required":["a","b"]}`,
		"map":           `{"type":"object","additionalProperties":{"type":"integer"},"minProperties":2}`,
		"anything":      `{}`,
		"no type":       `{"properties":{"a":{"enum":["x"]}},"required":["a"]}`,
		"long string":   `{"type":"object","properties":{"s":{"type":"string","minLength":3000}},"required":["s"]}`,
		"typed enum":    `{"type":"string","enum":[1,"one",null]}`,
		"in between":    `{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":0.001}`,
		"one left":      `{"type":"integer","exclusiveMinimum":1000,"exclusiveMaximum":1002}`,
		"nested pack":   `{"type":"object","properties":{"items":{"type":"array","items":{"type":"object","properties":{"id":{"enum":["a","b"]}},"required":["id"]}}},"required":["items"]}`,
	} {
		t.Run(name, func(t *testing.T) { check(t, schema, answer(t, b, schema, review)) })
	}
}

func TestPropertiesKeepTheirOrder(t *testing.T) {
	b := start(profile(t, "instant"))
	a := answer(t, b, `{"type":"object","properties":{"zebra":{"type":"string"},"apple":{"type":"string"},"mango":{"type":"string"}}}`, review)
	got := regexp.MustCompile(`"(\w+)": `).FindAllStringSubmatch(a, -1)
	var names []string
	for _, m := range got {
		names = append(names, m[1])
	}
	if diff := cmp.Diff([]string{"zebra", "apple", "mango"}, names); diff != "" {
		t.Errorf("%s in %s", diff, a)
	}
}

const packSchema = `{"type":"object","properties":{"items":{"type":"array","minItems":3,"maxItems":3,"items":{"type":"object",
	"properties":{"id":{"type":"string","enum":["r7","r12","r3"]},"quote":{"type":"string"},"label":{"enum":["good","bad"]}},
	"required":["id","quote","label"],"additionalProperties":false}}},"required":["items"],"additionalProperties":false}`

type packed struct {
	Items []struct{ ID, Quote, Label string }
}

// A packed request gets one item for each id, made of that record's words.
func TestPackedAnswers(t *testing.T) {
	prompt := "Judge each.\n[r7] The red chair is comfortable and large.\n[r12] Blue paint everywhere, awful smell.\n[r3] Green tea tastes wonderful today."
	records := map[string]string{"r7": "The red chair is comfortable and large.", "r12": "Blue paint everywhere, awful smell.", "r3": "Green tea tastes wonderful today."}
	for seed := range uint64(20) {
		a := answer(t, start(profile(t, "instant").WithSeed(seed)), packSchema, prompt)
		check(t, packSchema, a)
		var v packed
		if err := json.Unmarshal([]byte(a), &v); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, item := range v.Items {
			ids = append(ids, item.ID)
			if !strings.Contains(records[item.ID], item.Quote) {
				t.Errorf("seed %d: item %s quotes %q", seed, item.ID, item.Quote)
			}
		}
		slices.Sort(ids)
		if diff := cmp.Diff([]string{"r12", "r3", "r7"}, ids); diff != "" {
			t.Error(diff)
		}
		lossy := profile(t, "instant").WithSeed(seed).WithIlls(sim.Ills{DropItemRate: 1})
		if err := json.Unmarshal([]byte(answer(t, start(lossy), packSchema, prompt)), &v); err != nil || len(v.Items) != 2 {
			t.Errorf("with an item dropped: %v %+v", err, v)
		}
	}
}

// With a temperature and no seed an answer may differ the next time; the
// sequence of answers is the same in every run.
func TestTemperatureVaries(t *testing.T) {
	ask := func(options string) []string {
		b := start(profile(t, "instant"))
		var all []string
		for range 5 {
			all = append(all, b.ask(t.Context(), review, `,"options":`+options).Response)
		}
		return all
	}
	same := func(s []string) bool { return len(slices.Compact(slices.Clone(s))) == 1 }
	if !same(ask(`{"temperature":0}`)) || !same(ask(`{"temperature":1,"seed":4}`)) {
		t.Error("answers vary at temperature 0 or with a seed")
	}
	if free := ask(`{}`); same(free) {
		t.Error("five answers at the usual temperature are equal")
	} else if diff := cmp.Diff(free, ask(`{}`)); diff != "" {
		t.Errorf("another run gives other answers: %s", diff)
	}
	if ask(`{"temperature":1,"seed":4}`)[0] == ask(`{"temperature":1,"seed":5}`)[0] {
		t.Error("the seed changes nothing")
	}
}

// The order in which questions come does not change the answers.
func TestOrderDoesNotMatter(t *testing.T) {
	p := profile(t, "instant").WithIlls(sim.Ills{BusyRate: 0.2, InvalidJSONRate: 0.2})
	run := func(order []int) map[int]string {
		b := start(p)
		m := map[int]string{}
		for _, i := range order {
			r := b.ask(t.Context(), unique(i, 20), "")
			m[i] = fmt.Sprint(r.status, r.Response)
		}
		return m
	}
	var up, down []int
	for i := range 50 {
		up = append(up, i)
		down = append(down, 49-i)
	}
	if diff := cmp.Diff(run(up), run(down)); diff != "" {
		t.Error(diff)
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(packSchema))
	f.Add([]byte(`{"$ref":"#"}`))
	f.Add([]byte(`{"type":"string","pattern":"(a{1000}){1000}"}`))
	f.Add([]byte(`{"allOf":[{"$ref":"#/allOf/0"}]}`))
	f.Add([]byte(`{"type":"array","minItems":1e300}`))
	b := start(profile(f, "instant"))
	f.Fuzz(func(t *testing.T, schema []byte) {
		if len(schema) > 2000 || !json.Valid(schema) {
			return
		}
		var body bytes.Buffer
		fmt.Fprintf(&body, `{"model":"llama3.1:8b","prompt":"Some words to use","stream":false,"options":{"num_predict":2000},"format":%s}`, schema)
		r := b.do(t.Context(), "POST", "/api/generate", body.String())
		if r.status != 200 && r.status != 500 && r.status != 400 {
			t.Errorf("%s: status %d", schema, r.status)
		}
	})
}
