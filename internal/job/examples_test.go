package job

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"millrace/internal/record"
)

const examples = "../../examples/"

// The example jobs are good, fit their sample inputs, and no sample breaks out
// of its fence.
func TestExamples(t *testing.T) {
	for _, tt := range []struct {
		job, input string
		rows       int
		read       func(t *testing.T, path string) ([]string, []record.Record)
	}{
		{"sentiment.yaml", "reviews.csv", 40, readCSV},
		{"skills.yaml", "postings.jsonl", 30, readJSONL},
	} {
		t.Run(tt.job, func(t *testing.T) {
			j, err := Load(filepath.Join(examples, tt.job))
			if err != nil {
				t.Fatal(err)
			}
			columns, recs := tt.read(t, filepath.Join(examples, tt.input))
			if err := j.CheckColumns(columns); err != nil {
				t.Error(err)
			}
			if len(recs) != tt.rows {
				t.Errorf("%d records", len(recs))
			}
			keys := map[string]bool{}
			prompts := map[string]bool{}
			for _, r := range recs {
				prompt := promptOf(t, j, r)
				prompts[prompt] = true
				keys[j.RecordKey(r, tt.input)] = true
				for i, f := range j.Input {
					closing := "</" + j.template.tags[i] + ">"
					if v, _ := r.Get(f); v.IsText() && strings.Count(prompt, closing) != 1 {
						t.Errorf("record %d: %q holds %s not once", r.Pos, prompt, closing)
					}
				}
			}
			if len(keys) != len(recs) {
				t.Errorf("%d keys of %d records", len(keys), len(recs))
			}
			if len(prompts) == len(recs) {
				t.Error("the sample has no duplicates")
			}
		})
	}
}

func readCSV(t *testing.T, path string) ([]string, []record.Record) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var recs []record.Record
	for i, row := range rows[1:] {
		r := record.Record{Pos: int64(i + 1)}
		for k, cell := range row {
			r.Fields = append(r.Fields, record.Field{Name: rows[0][k], Value: record.Text(cell)})
		}
		recs = append(recs, r)
	}
	return rows[0], recs
}

func readJSONL(t *testing.T, path string) ([]string, []record.Record) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var recs []record.Record
	for line := range strings.Lines(string(data)) {
		if !jsontext.Value(line).IsValid() {
			t.Fatalf("%s", line)
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		r := record.Record{Pos: int64(len(recs) + 1)}
		for name, raw := range fields {
			r.Fields = append(r.Fields, record.Field{Name: name, Value: record.JSON(string(raw))})
		}
		recs = append(recs, r)
	}
	return nil, recs
}
