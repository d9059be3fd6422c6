package record

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func fields(pairs ...any) []Field {
	var all []Field
	for i := 0; i < len(pairs); i += 2 {
		switch v := pairs[i+1].(type) {
		case string:
			all = append(all, Field{pairs[i].(string), Text(v)})
		case Value:
			all = append(all, Field{pairs[i].(string), v})
		}
	}
	return all
}

type row struct {
	fields []Field
	added  []Value
}

func TestWriter(t *testing.T) {
	sentiment := []Column{{"sentiment", "string"}, {"score", "number"}}
	for name, tt := range map[string]struct {
		format  Format
		columns []string
		added   []Column
		opts    WriteOptions
		rows    []row
		want    string
		wantErr string
	}{
		"csv": {
			format: CSV, columns: []string{"id", "text"}, added: sentiment,
			rows: []row{
				{fields("id", "1", "text", "a,b"), []Value{JSON(`"good"`), JSON(`0.5`)}},
				{fields("id", "2", "text", "say \"x\"\r\ny"), []Value{JSON(`null`), {}}},
				{fields("id", " 3", "text", ""), []Value{JSON(`["a", {"b": "c d"}]`), JSON(`"caf\u00e9\n"`)}},
			},
			want: "id,text,sentiment,score\n1,\"a,b\",good,0.5\n2,\"say \"\"x\"\"\r\ny\",,\n\" 3\",,\"[\"\"a\"\",{\"\"b\"\":\"\"c d\"\"}]\",\"café\n\"\n",
		},
		"tsv":                 {format: TSV, columns: []string{"a"}, added: sentiment, rows: []row{{fields("a", "x,\ty"), []Value{Text("p,q"), Text("r\ts")}}}, want: "a\tsentiment\tscore\n\"x,\ty\"\tp,q\t\"r\ts\"\n"},
		"delimiter":           {format: CSV, columns: []string{"a"}, added: sentiment[:1], opts: WriteOptions{Delimiter: ';'}, rows: []row{{fields("a", "x,y"), []Value{Text("p;q")}}}, want: "a;sentiment\nx,y;\"p;q\"\n"},
		"bad delimiter":       {format: CSV, opts: WriteOptions{Delimiter: '\n'}, wantErr: "the delimiter must be an ASCII character other than a quote and a line end"},
		"names that mislead":  {format: CSV, columns: []string{"a;b"}, want: "\"a;b\"\n"},
		"a name like sep":     {format: CSV, columns: []string{"sep=x"}, want: "\"sep=x\"\n"},
		"no records":          {format: CSV, columns: []string{"id", "a b"}, added: sentiment, want: "id,a b,sentiment,score\n"},
		"no records at all":   {format: CSV, added: sentiment, want: "sentiment,score\n"},
		"nothing":             {format: CSV, want: ""},
		"no records, jsonl":   {format: JSONL, added: sentiment, want: ""},
		"one empty cell":      {format: CSV, columns: []string{"a"}, rows: []row{{fields("a", ""), nil}, {fields("a", "x"), nil}}, want: "a\n\"\"\nx\n"},
		"replaced in place":   {format: CSV, columns: []string{"score", "id"}, added: sentiment, rows: []row{{fields("score", "old", "id", "1"), []Value{Text("good"), JSON("2")}}}, want: "score,id,sentiment\n2,1,good\n"},
		"columns from first":  {format: CSV, added: sentiment[:1], rows: []row{{fields("b", JSON("1"), "a", "x"), []Value{Text("p")}}, {fields("a", "y"), []Value{Text("q")}}, {fields("a", "z", "b", JSON("null"), "sentiment", "old"), []Value{Text("r")}}}, want: "b,a,sentiment\n1,x,p\n,y,q\n,z,r\n"},
		"a field too many":    {format: CSV, added: sentiment[:1], rows: []row{{fields("a", "x"), []Value{Text("p")}}, {fields("a", "y", "new", "z"), []Value{Text("q")}}}, wantErr: `record 2 has the unknown field "new", which the header written for the first record lacks: write JSONL instead, where each record may have fields of its own`},
		"values missing":      {format: CSV, columns: []string{"a"}, added: sentiment, rows: []row{{fields("a", "x"), []Value{Text("p")}}}, wantErr: "record 1 comes with 1 value of the answer for 2 columns"},
		"columns alike":       {format: CSV, added: []Column{{"a", ""}, {"a", ""}}, wantErr: `the answer has two columns named "a"`},
		"column without name": {format: JSONL, added: []Column{{"", ""}}, wantErr: `column 1 of the answer has no name`},
		"format":              {format: "xml", wantErr: `"xml" is no format of records: choose csv, tsv, jsonl or parquet`},
		"the model's formulas": {
			format: CSV, columns: []string{"mine"}, added: sentiment,
			rows: []row{
				{fields("mine", "=1+1"), []Value{Text("=1+1"), JSON(`"@SUM(A1)"`)}},
				{fields("mine", "-x"), []Value{Text("-x"), JSON(`-5`)}},
				{fields("mine", "\tx"), []Value{Text("\tx"), JSON(`"\r=x"`)}},
				{fields("mine", "+49"), []Value{Text("+49"), Text("+49 30 1")}},
				{fields("mine", "x"), []Value{Text("-1.5e-3"), Text("-1-1")}},
				{fields("mine", "x"), []Value{Text("-.5"), Text("-.")}},
				{fields("mine", "x"), []Value{Text("+"), Text("-1e")}},
				{fields("mine", "x"), []Value{Text("x=1"), Text("'=1")}},
			},
			want: "mine,sentiment,score\n=1+1,'=1+1,'@SUM(A1)\n-x,'-x,-5\n\"\tx\",'\tx,\"'\r=x\"\n+49,+49,'+49 30 1\nx,-1.5e-3,'-1-1\nx,-.5,'-.\nx,'+,'-1e\nx,x=1,'=1\n",
		},
		"formulas in place": {format: CSV, columns: []string{"sentiment"}, added: sentiment[:1], rows: []row{{fields("sentiment", "=old"), []Value{Text("=new")}}}, want: "sentiment\n'=new\n"},
		"jsonl": {
			format: JSONL, added: sentiment,
			rows: []row{
				{fields("id", JSON("1.0"), "o", JSON(`{"b": 1, "a": [ ]}`)), []Value{JSON(`"=good"`), JSON(`-1`)}},
				{fields("text", "a\"b\n", "none", Value{}), []Value{Text("x"), {}}},
				{fields("score", JSON("9"), "id", JSON("2")), []Value{JSON("null"), JSON(`[1]`)}},
				{nil, []Value{Text(""), JSON("2")}},
				{fields("r", JSON("[1,\r2]")), []Value{Text(""), JSON("2")}},
			},
			want: `{"id":1.0,"o":{"b": 1, "a": [ ]},"sentiment":"=good","score":-1}` + "\n" +
				`{"text":"a\"b\n","none":null,"sentiment":"x","score":null}` + "\n" +
				`{"score":[1],"id":2,"sentiment":null}` + "\n" +
				`{"sentiment":"","score":2}` + "\n" +
				`{"r":[1,2],"sentiment":"","score":2}` + "\n",
		},
		"jsonl, not JSON": {format: JSONL, rows: []row{{fields("a", JSON("{\n")), nil}}, wantErr: `record 1: the value of field "a" is not valid JSON`},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			err := func() error {
				w, err := NewWriter(&b, tt.format, tt.columns, tt.added, tt.opts)
				if err != nil {
					return err
				}
				for i, r := range tt.rows {
					if err := w.Write(Record{Pos: int64(i + 1), Fields: r.fields}, r.added); err != nil {
						return err
					}
				}
				return w.Close()
			}()
			if got := message(err); got != tt.wantErr {
				t.Fatalf("error %q, want %q", got, tt.wantErr)
			}
			if tt.wantErr != "" {
				return
			}
			if diff := cmp.Diff(tt.want, b.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A semicolon file stays one.
func TestWriterKeepsDelimiter(t *testing.T) {
	in := "a;b\n1,5;x\n"
	for format, want := range map[Format]string{CSV: in, TSV: "a\tb\n1,5\tx\n"} {
		r := reader(t, []byte(in), CSV)
		if got := string(written(t, format, r.Columns(), records(t, r), WriteOptions{From: r})); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
}

type full struct{ left int }

var errFull = errors.New("no space left")

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.left {
		n := f.left
		f.left = 0
		return n, errFull
	}
	f.left -= len(p)
	return len(p), nil
}

// noise is text that does not compress well.
func noise(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)[:n]
}

// What cannot be written is an error at the latest at Close.
func TestFullOutput(t *testing.T) {
	for _, format := range []Format{CSV, JSONL, Parquet} {
		for _, left := range []int{0, 100, 100 << 10} {
			w, err := NewWriter(&full{left}, format, []string{"a"}, nil, WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for ; n < 5000 && err == nil; n++ {
				err = w.Write(Record{Pos: int64(n + 1), Fields: fields("a", noise(t, 97))}, nil)
			}
			again := w.Write(Record{Fields: fields("a", "x")}, nil)
			if err != nil && again == nil {
				t.Errorf("%s, %d bytes: written on after an error", format, left)
			}
			if closed := w.Close(); !errors.Is(closed, errFull) {
				t.Errorf("%s, %d bytes: at Close %v", format, left, closed)
			}
		}
	}
}

func TestFlush(t *testing.T) {
	for _, format := range []Format{CSV, TSV, JSONL} {
		var b bytes.Buffer
		w, err := NewWriter(&b, format, nil, nil, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(Record{Fields: fields("a", "x")}, nil); err != nil {
			t.Fatal(err)
		}
		if b.Len() > 0 {
			t.Errorf("%s: not held back", format)
		}
		if err := w.(Flusher).Flush(); err != nil || b.Len() == 0 {
			t.Errorf("%s: %d bytes after Flush, %v", format, b.Len(), err)
		}
	}
}

func TestFormatOf(t *testing.T) {
	for path, want := range map[string]struct {
		format Format
		packed Compression
		bad    bool
	}{
		"a.csv":            {CSV, "", false},
		"dir.csv/a.TSV":    {TSV, "", false},
		"a.tab":            {TSV, "", false},
		"a.b.jsonl":        {JSONL, "", false},
		"a.ndjson.gz":      {JSONL, Gzip, false},
		"a.parquet":        {Parquet, "", false},
		"A.CSV.ZST":        {CSV, Zstd, false},
		"a":                {bad: true},
		"a.gz":             {packed: Gzip, bad: true},
		"csv":              {bad: true},
		".csv":             {bad: true},
		"a.json":           {bad: true},
		"a.csv.bz2":        {bad: true},
		"dir.csv/readme":   {bad: true},
		"dir.csv/a.txt.gz": {packed: Gzip, bad: true},
	} {
		format, packed, err := FormatOf(path)
		if format != want.format || packed != want.packed || (err != nil) != want.bad {
			t.Errorf("%s: %q %q %v, want %+v", path, format, packed, err, want)
		}
	}
}

// Every format through every other, plain and packed, gives back the same cells.
func TestRoundTrips(t *testing.T) {
	in := "id,text,empty\n1,\"a, \"\"b\"\"\nc\",\n007,=x,\n\" 3 \",\"caf\u00e9 \U0001F600\t\",\n4,null,\n-0.50,\"[1, 2]\",\n"
	first := reader(t, []byte(in), CSV)
	want := records(t, first)
	for _, from := range []string{"csv", "tsv", "jsonl", "parquet"} {
		for _, packed := range []string{"", ".gz", ".zst"} {
			for _, to := range []string{"csv", "tsv", "jsonl", "parquet"} {
				a := filepath.Join(t.TempDir(), "a."+from+packed)
				create(t, a, from, first.Columns(), want, WriteOptions{})
				r, err := Open(a, ReadOptions{})
				if err != nil {
					t.Fatal(err)
				}
				b := filepath.Join(t.TempDir(), "b."+to+packed)
				all := records(t, r)
				if p := r.Progress(); p < 0.99 {
					t.Errorf("%s: progress %v at the end", a, p)
				}
				create(t, b, to, r.Columns(), all, WriteOptions{From: r})
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				r, err = Open(b, ReadOptions{})
				if err != nil {
					t.Fatal(err)
				}
				got := records(t, r)
				r.Close()
				if len(got) != len(want) {
					t.Fatalf("%s, %s: %d records", from, to, len(got))
				}
				for i := range want {
					var w, g [][2]string
					for k := range want[i].Fields {
						w = append(w, [2]string{want[i].Fields[k].Name, want[i].Fields[k].Value.String()})
						g = append(g, [2]string{got[i].Fields[k].Name, got[i].Fields[k].Value.String()})
					}
					if diff := cmp.Diff(w, g); diff != "" {
						t.Errorf("%s%s to %s, record %d (-want +got)\n%s", from, packed, to, i+1, diff)
					}
				}
			}
		}
	}
}

func create(t *testing.T, path, format string, columns []string, all []Record, opts WriteOptions) {
	t.Helper()
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	if _, err := f.Write(written(t, Format(format), columns, all, opts)); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
}

// Compression is seen through whatever the name says, and its end is checked.
func TestCompressionByContent(t *testing.T) {
	var text strings.Builder
	text.WriteString("a,b\n")
	for i := range 5000 {
		text.WriteString(strings.Repeat(string(rune('a'+i%26)), i%50+1) + ",x\n")
	}
	for _, ending := range []string{".gz", ".zst"} {
		path := filepath.Join(t.TempDir(), "a.csv"+ending)
		f, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text.String())); err != nil {
			t.Fatal(err)
		}
		if err := f.Commit(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) >= text.Len() {
			t.Errorf("%s: %d bytes, not packed", ending, len(data))
		}
		r, err := Open(writeFile(t, "a.csv", append(data, data...)), ReadOptions{}) // two members
		if err != nil {
			t.Fatal(err)
		}
		items, err := readAll(r)
		if err != nil || len(items) != 10001 {
			t.Errorf("%s: %d records, %v", ending, len(items), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		r, err = Open(writeFile(t, "cut.csv", data[:len(data)-9]), ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if items, err = readAll(r); err == nil {
			t.Errorf("%s: cut short, yet %d records and no error", ending, len(items))
		} else if !strings.Contains(err.Error(), "breaks off after record") {
			t.Errorf("%s: %v", ending, err)
		}
		r.Close()
	}
}

func TestNeutralised(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	w, err := NewWriter(&b, CSV, []string{"own"}, []Column{{Name: "a"}, {Name: "b"}}, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = w.Write(Record{Fields: []Field{{"own", Text("=own")}}}, []Value{JSON(`"=HYPERLINK(1)"`), JSON(`-5`)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := w.(Neutraliser).Neutralised(); n != 1 {
		t.Errorf("%d cells neutralised, want 1", n)
	}
	if want := "own,a,b\n=own,'=HYPERLINK(1),-5\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
