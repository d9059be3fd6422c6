package job

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/record"
)

// Each part of a job's identity answers for its own change and no other.
func TestParts(t *testing.T) {
	base := mustParse(t, sentimentYAML).Parts()
	tests := []struct {
		name, old, new string
		changed        []string
	}{
		{"nothing", "about: is", "about: was", nil},
		{"lifetime", "30d", "31d", nil},
		{"repairs", "repairs: 0", "repairs: 1", nil},
		{"max_tokens", "max_tokens: 200", "max_tokens: 300", nil},
		{"layout of the file", "options: {temperature: 0.5, ", "options: {\n  temperature: 0.50,\n  ", nil},
		{"version", "version: 2", "version: 3", []string{"version"}},
		{"temperature", "temperature: 0.5", "temperature: 0.6", []string{"options"}},
		{"stop", `["\n\n"]`, `["\n"]`, []string{"options"}},
		{"schema", "[good, bad]", "[good, bad, mixed]", []string{"schema"}},
		{"schema order", "[good, bad]", "[bad, good]", []string{"schema"}},
		{"prompt", "Review of", "A review of", []string{"prompt"}},
		{"system", "You judge", "You weigh", []string{"prompt"}},
		{"pack", "pack: 3", "pack: 2", []string{"pack"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustParse(t, strings.Replace(sentimentYAML, tt.old, tt.new, 1)).Parts()
			var changed []string
			for name, same := range map[string]bool{
				"version": p.Version == base.Version, "options": p.Options == base.Options, "schema": p.Schema == base.Schema,
				"prompt": p.Prompt == base.Prompt, "pack": p.Pack == base.Pack,
			} {
				if !same {
					changed = append(changed, name)
				}
			}
			if diff := cmp.Diff(tt.changed, changed); diff != "" {
				t.Error(diff)
			}
		})
	}
	if len(base.Options) != 16 || len(base.Schema) != 16 || len(base.Prompt) != 16 {
		t.Errorf("%+v", base)
	}
}

func TestInputHash(t *testing.T) {
	j := jobOf(t, "{{ .a }}{{ .b }}", "a", "b")
	hash := func(a, b record.Value) []byte { return j.InputHash(rec("a", a, "x", "y", "b", b)) }
	base := hash(record.Text("one"), record.Text("two"))
	if len(base) != 16 {
		t.Fatalf("%d bytes", len(base))
	}
	other := hash(record.Text("one"), record.Text("three"))
	if !bytes.Equal(base[:8], other[:8]) || bytes.Equal(base[8:], other[8:]) {
		t.Error("a change of b is not one of b alone")
	}
	if !bytes.Equal(base, j.InputHash(rec("b", "two", "a", "one"))) {
		t.Error("the order of the record's fields matters")
	}
	// What asks the same question is the same, what does not is not.
	same := map[string][]record.Value{
		"absent": {{}, record.JSON("null")},
		"empty":  {record.Text(""), record.JSON(`""`)},
		"five":   {record.Text("5"), record.JSON(`"5"`), record.JSON(`"\u0035"`)},
		"number": {record.JSON("5")},
		"list":   {record.JSON("[]")},
		"text":   {record.Text("[]")},
	}
	seen := map[string]string{}
	for name, values := range same {
		for _, v := range values {
			h := string(hash(v, record.Text("")))
			if was, ok := seen[h]; ok && was != name {
				t.Errorf("%s and %s have one hash", was, name)
			}
			if h != string(hash(values[0], record.Text(""))) {
				t.Errorf("%s: %s has another hash", name, v.JSON())
			}
			seen[h] = name
		}
	}
	if !bytes.Equal(j.InputHash(rec()), make([]byte, 16)) {
		t.Error("absent fields are not zeros")
	}
}

func TestRecordKey(t *testing.T) {
	keyed := mustParse(t, sentimentYAML)
	plain := jobOf(t, "{{ .a }}", "a")
	r := rec("id", "r7", "a", "x")
	r.Pos = 12
	for _, tt := range []struct {
		j    *Job
		r    record.Record
		want string
	}{
		{keyed, r, "r7"},
		{keyed, rec("id", record.JSON("7")), "7"},
		{keyed, rec("id", record.JSON(`"q 7"`)), "q 7"},
		{keyed, rec("id", ""), "in.csv#1"},
		{keyed, rec("id", record.JSON("null")), "in.csv#1"},
		{keyed, rec("a", "x"), "in.csv#1"},
		{plain, r, "in.csv#12"},
	} {
		if got := tt.j.RecordKey(tt.r, "in.csv"); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestCheckColumns(t *testing.T) {
	file := mustParse(t, strings.Replace(sentimentYAML, "input: [review, product]", "input:\n  - review\n  - product", 1))
	builtin := jobOf(t, "{{ .a }}", "a")
	for _, tt := range []struct {
		j       *Job
		columns []string
		want    string
	}{
		{file, nil, ""},
		{file, []string{"product", "id", "review", "more"}, ""},
		{file, []string{"id", "reviews", "product"}, `job.yaml:5: the input has no field "review"; did you mean "reviews"?`},
		{file, []string{"Id", "Review", "product"}, `job.yaml:5: the input has no field "review"; did you mean "Review"?` + "\n" + `job.yaml:7: the input has no field "id", named as key; did you mean "Id"?`},
		{file, []string{"id", "text", "product"}, `job.yaml:5: the input has no field "review"; it has "id", "text", "product"`},
		{file, []string{}, "job.yaml:5: the input has no field \"review\"; it has no fields\njob.yaml:6: the input has no field \"product\"; it has no fields\njob.yaml:7: the input has no field \"id\", named as key; it has no fields"},
		{builtin, []string{"b"}, `job test: the input has no field "a"; it has "b"`},
	} {
		got := ""
		if err := tt.j.CheckColumns(tt.columns); err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
	}
}
