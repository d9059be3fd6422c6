package job

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
	"millrace/internal/record"
)

func answerJob(t testing.TB) *Job {
	t.Helper()
	j, err := New(Def{
		Name: "t", Version: 1, Input: []string{"a"}, Prompt: "{{ .a }}",
		Schema: []byte(`{"type":"object","properties":{
			"sentiment":{"type":"string","enum":["good","bad"]},
			"score":{"type":["integer","null"],"minimum":0,"maximum":10},
			"tags":{"type":"array","items":{"type":"string","minLength":2,"pattern":"^[a-z]+$"},"maxItems":3,"uniqueItems":true},
			"when":{"anyOf":[{"type":"string","format":"date"},{"type":"null"}]},
			"who":{"type":"object","properties":{"name":{"type":"string","maxLength":5},"age":{"type":"integer"}},"required":["name"],"additionalProperties":false}},
			"required":["sentiment"],"additionalProperties":false}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestDecode(t *testing.T) {
	j := answerJob(t)
	tests := []struct{ name, in, want string }{
		{"plain", `{"sentiment":"good"}`, `{"sentiment":"good"}`},
		{"spaces", " {\n \"score\" : 3 , \"sentiment\" : \"good\" }\n", `{"sentiment":"good","score":3}`},
		{"escapes", `{"sentiment":"g\u006fod","who":{"name":"é\u00e9\/"}}`, `{"sentiment":"good","who":{"name":"éé/"}}`},
		{"nested order", `{"who":{"age":3,"name":"Ann"},"sentiment":"bad"}`, `{"sentiment":"bad","who":{"name":"Ann","age":3}}`},
		{"null", `{"sentiment":"good","score":null,"when":null}`, `{"sentiment":"good","score":null,"when":null}`},
		{"number kept", `{"sentiment":"good","score":3.0}`, `{"sentiment":"good","score":3.0}`},
		{"code fence", "```json\n{\"sentiment\":\"good\"}\n```", `{"sentiment":"good"}`},
		{"bare code fence", "```\n{\"sentiment\":\"good\"}```", `{"sentiment":"good"}`},
		{"prose", "Sure! Here {you} are: {\"sentiment\":\"good\"}. Hope {this} helps.", `{"sentiment":"good"}`},
		{"reasoning", "<think>Maybe {\"sentiment\":\"bad\"}?</think>\n{\"sentiment\":\"good\"}", `{"sentiment":"good"}`},
		{"reasoning, tag swallowed", "Maybe {\"sentiment\":\"bad\"}?</think>{\"sentiment\":\"good\"}", `{"sentiment":"good"}`},
		{"tag inside", `{"sentiment":"good","tags":["ab"],"who":{"name":"{\"}"}}`, `{"sentiment":"good","tags":["ab"],"who":{"name":"{\"}"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := j.Decode(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	j := answerJob(t)
	// reason is empty where it is the message.
	tests := []struct{ name, in, message, reason string }{
		{"nothing", "", "the reply holds no JSON object", ""},
		{"prose", "I think it is good.", "the reply holds no JSON object", ""},
		{"text", `"good"`, "the reply holds no JSON object", ""},
		{"list", `[{"sentiment":"good"}]`, "the answer must be one JSON object, not a list", ""},
		{"two", `{"sentiment":"good"} {"sentiment":"good"}`, "the reply holds more than one JSON object; answer with exactly one", ""},
		{"only in reasoning", `<think>{"sentiment":"good"}</think>`, "the reply holds no JSON object", ""},
		{"cut off", `{"sentiment":"good"`, "the JSON object is cut off before its end", ""},
		{"cut off at once", `{`, "the JSON object is cut off before its end", ""},
		{"cut off, whole inside", `{"who":{"sentiment":"good"}, "sent`, "the JSON object is cut off before its end", ""},
		{"cut off in a text", `{"sentiment":"go`, "the JSON object is cut off before its end", ""},
		{"broken, whole inside", `{"who":{"sentiment":"good"},,}`, `not valid JSON at byte 28: invalid character ',' at start of value`, "not valid JSON at byte 28"},
		{"twice", `{"sentiment":"good","sentiment":"bad"}`, "/sentiment: is given twice", "a property is given twice"},
		{"enum", `{"sentiment":"great"}`, `/sentiment: must be one of "good", "bad"; got "great"`, `/sentiment: must be one of "good", "bad"`},
		{"type", `{"sentiment":5}`, "/sentiment: must be a string; got 5", "/sentiment: must be a string"},
		{"two types", `{"sentiment":"good","score":"7"}`, `/score: must be an integer or null; got "7"`, "/score: must be an integer or null"},
		{"missing", `{}`, `property "sentiment" is missing`, ""},
		{"unknown", `{"sentiment":"good","x":1}`, `has a property that the schema does not have; got "x"`, "has a property that the schema does not have"},
		{"unknown nested", `{"sentiment":"good","who":{"name":"A","secret":1}}`, `/who: has a property that the schema does not have; got "secret"`, "/who: has a property that the schema does not have"},
		{"missing nested", `{"sentiment":"good","who":{}}`, `/who: property "name" is missing`, ""},
		{"range", `{"sentiment":"good","score":11}`, "/score: must be at most 10; got 11", "/score: must be at most 10"},
		{"long", `{"sentiment":"good","who":{"name":"abcdef"}}`, "/who/name: must have at most 5 characters; it has 6", ""},
		{"pattern", `{"sentiment":"good","tags":["ab","CD"]}`, `/tags/1: must match the pattern ^[a-z]+$; got "CD"`, "/tags/1: must match the pattern ^[a-z]+$"},
		{"same", `{"sentiment":"good","tags":["ab","ab"]}`, "/tags: must not hold the same item twice; items 0 and 1 are equal", ""},
		{"many", `{"sentiment":"good","tags":["ab","cd","ef","gh"]}`, "/tags: must have at most 3 items; it has 4", ""},
		{"format", `{"sentiment":"good","when":"tomorrow"}`, `/when: must be a valid date; got "tomorrow"`, "/when: must be a valid date"},
		{"branches", `{"sentiment":"good","when":5}`, "/when: must be a string or null; got 5", "/when: must be a string or null"},
		{"several", `{"sentiment":"x","score":-1}`, "/score: must be at least 0; got -1\n/sentiment: must be one of \"good\", \"bad\"; got \"x\"", `/score: must be at least 0; /sentiment: must be one of "good", "bad"`},
		{"huge exponent", `{"sentiment":"good","score":1e999999999}`, "/score: the number is out of range", ""},
		{"huge number", `{"sentiment":"good","score":` + strings.Repeat("9", 400) + `}`, "/score: the number is too long", ""},
		{"not UTF-8", "{\"sentiment\":\"\xff\"}", "not valid JSON at byte 14: invalid UTF-8", "not valid JSON at byte 14"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := j.Decode(tt.in)
			e, ok := errors.AsType[*InvalidError](err)
			if !ok {
				t.Fatalf("got %s, %v", got, err)
			}
			if tt.reason == "" {
				tt.reason = tt.message
			}
			if diff := cmp.Diff([]string{tt.message, tt.reason}, []string{e.Message, e.Error()}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	j := answerJob(t)
	got, err := j.Validate(json.RawMessage(` {"score": 1, "sentiment": "good"} `))
	if err != nil || string(got) != `{"sentiment":"good","score":1}` {
		t.Errorf("got %s, %v", got, err)
	}
	for _, in := range []string{``, `null`, `[]`, `{"sentiment":"good"} x`, `{"sentiment":"great"}`, `{"sentiment":`} {
		if got, err := j.Validate(json.RawMessage(in)); err == nil {
			t.Errorf("%s: got %s", in, got)
		} else if _, ok := errors.AsType[*InvalidError](err); !ok {
			t.Errorf("%s: %T", in, err)
		}
	}
}

func TestValues(t *testing.T) {
	j := answerJob(t)
	tests := []struct {
		in   string
		want []string
	}{
		{`{"sentiment":"good"}`, []string{`"good"`, "null", "null", "null", "null"}},
		{`{"sentiment":"bad","score":null,"tags":["a,]","}"],"when":"2026-01-02","who":{"name":"\"{","age":3}}`, []string{`"bad"`, "null", `["a,]","}"]`, `"2026-01-02"`, `{"name":"\"{","age":3}`}},
		{`{"tags":[]}`, []string{"null", "null", "[]", "null", "null"}},
		{`{"score":1,"zzz":[{"who":1}],"who":2}`, []string{"null", "1", "null", "null", "2"}},
		{`{}`, []string{"null", "null", "null", "null", "null"}},
		{``, []string{"null", "null", "null", "null", "null"}},
		{`{"score":`, []string{"null", "null", "null", "null", "null"}},
		{`{"score":1`, []string{"null", "null", "null", "null", "null"}},
	}
	for _, tt := range tests {
		var got []string
		for _, v := range j.Values(json.RawMessage(tt.in)) {
			got = append(got, string(v.JSON()))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.in, diff)
		}
	}
}

// What Decode accepts is canonical, valid, and comes apart into its columns.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"sentiment":"good"}`, "```json\n{\"sentiment\":\"bad\",\"who\":{\"age\":1,\"name\":\"x\"}}\n```", `<think>{</think>{"sentiment":"good","tags":["ab"]}`,
		`{"sentiment":"good","score":1e1}`, `{ {"sentiment":"good"`, `{"":0}`, `{"sentiment":"good","when":"2020-01-01"} {`,
	} {
		f.Add(s)
	}
	j := answerJob(f)
	f.Fuzz(func(t *testing.T, s string) {
		j.Values(json.RawMessage(s))
		j.SplitPack(s, []string{"1", "2"})
		got, err := j.Decode(s)
		if err != nil {
			if _, ok := errors.AsType[*InvalidError](err); !ok {
				t.Fatalf("%T", err)
			}
			return
		}
		again, err := j.Decode(string(got))
		if err != nil || string(again) != string(got) {
			t.Fatalf("%s becomes %s, %v", got, again, err)
		}
		var std map[string]json.RawMessage
		if err := json.Unmarshal(got, &std); err != nil {
			t.Fatal(err)
		}
		values := j.Values(got)
		for i, c := range j.Columns() {
			want := string(std[c.Name])
			if want == "" {
				want = "null"
			}
			if string(values[i].JSON()) != want {
				t.Fatalf("%s: column %s is %s", got, c.Name, values[i].JSON())
			}
		}
	})
}

func TestRepairMessages(t *testing.T) {
	asked := []llm.Message{{Role: llm.System, Content: "s"}, {Role: llm.User, Content: "u"}}
	asked = asked[:2:2]
	got := RepairMessages(asked, `{"sentiment":"great"}`, &InvalidError{Message: "m", reason: "r"})
	want := []llm.Message{
		{Role: llm.System, Content: "s"},
		{Role: llm.User, Content: "u"},
		{Role: llm.Assistant, Content: `{"sentiment":"great"}`},
		{Role: llm.User, Content: "That answer cannot be used:\nm\nAnswer again with one JSON object in which this is mended, and with nothing else."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = RepairMessages(asked, strings.Repeat("é", maxRepair), errors.New("plain"))
	if n := len(got[2].Content); n > maxRepair+4 || !strings.HasSuffix(got[2].Content, "é…") || !strings.Contains(got[3].Content, "\nplain\n") {
		t.Errorf("%d bytes, %s", n, got[3].Content)
	}
	if got := RepairMessages(asked, " ", errors.New("x")); strings.TrimSpace(got[2].Content) == "" {
		t.Error("an empty message")
	}
}

func BenchmarkDecode(b *testing.B) {
	j := answerJob(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := j.Decode(`{"sentiment": "good", "score": 7, "tags": ["soft", "warm"]}`); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValues(b *testing.B) {
	j := answerJob(b)
	answer := json.RawMessage(`{"sentiment":"good","score":7,"tags":["soft","warm"],"when":null}`)
	b.ReportAllocs()
	for b.Loop() {
		if v := j.Values(answer); v[0] == (record.Value{}) {
			b.Fatal("no value")
		}
	}
}
