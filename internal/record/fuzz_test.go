package record

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

// structure is what CSV puts around cells.
var structure = strings.NewReplacer(",", "", `"`, "", "\r", "", "\n", "")

func FuzzCSVReader(f *testing.F) {
	for _, s := range []string{
		"1,2\n", "1\n1,2,3", "\"x\"\"y\",z\n", "\"x\ny\",\"\"\r\n", "a\"b,c\n1,2\n", "\"a\"b,c\n1,2\n", "1,\"2\n3,4", "caf\xe9,1\n", "\r\r\n1,2\r3,4\n", "\"\xc3\",\"\xa9\"", "", "\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// As it is: no panic, an end, and positions that count up.
		if r, err := NewReader(bytes.NewReader(data), CSV, ReadOptions{}); err == nil {
			items, _ := readAll(r)
			checkPositions(t, items)
			r.Close()
		}

		in := "a,b\n" + string(data)
		r, err := NewReader(strings.NewReader(in), CSV, ReadOptions{Delimiter: ','})
		if err != nil {
			t.Fatal(err)
		}
		items, err := readAll(r)
		if err != nil {
			t.Fatal(err)
		}
		checkPositions(t, items)

		// Every byte is in a record or in a bad one.
		if utf8.Valid(data) && len(data) <= rawMax {
			var got strings.Builder
			again, _ := NewReader(strings.NewReader(in), CSV, ReadOptions{Delimiter: ','})
			for {
				rec, err := again.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if bad, ok := errors.AsType[*BadRecord](err); ok {
					got.WriteString(bad.Raw)
				}
				for _, f := range rec.Fields {
					got.WriteString(f.Value.String())
				}
			}
			if want := structure.Replace(string(data)); structure.Replace(got.String()) != want {
				t.Errorf("of %q there is %q", data, got.String())
			}
		}

		// encoding/csv sees the same records on the same lines, as far as it keeps CR.
		if bytes.IndexByte(data, '\r') >= 0 {
			return
		}
		std := csv.NewReader(strings.NewReader(in))
		std.FieldsPerRecord = -1
		std.Read()
		for i := 0; ; i++ {
			row, err := std.Read()
			if errors.Is(err, io.EOF) {
				if i != len(items) {
					t.Errorf("%q: %d records, encoding/csv has %d", data, len(items), i)
				}
				return
			}
			if i >= len(items) {
				t.Fatalf("%q: %d records, encoding/csv has more", data, len(items))
			}
			got := items[i]
			if err != nil {
				if got.Bad == "" {
					t.Fatalf("%q: record %d is good, encoding/csv says %v", data, i, err)
				}
				continue
			}
			if line, _ := std.FieldPos(0); int64(line) != got.Line {
				t.Errorf("%q: record %d is on line %d, encoding/csv says %d", data, i, got.Line, line)
			}
			if len(row) != 2 || slices.ContainsFunc(row, func(c string) bool { return !utf8.ValidString(c) }) {
				if got.Bad == "" {
					t.Errorf("%q: record %d should be bad", data, i)
				}
				continue
			}
			want := []string{"a=" + string(Text(row[0]).JSON()), "b=" + string(Text(row[1]).JSON())}
			if diff := cmp.Diff(want, got.Cells); diff != "" {
				t.Errorf("%q, record %d (-encoding/csv +here)\n%s", data, i, diff)
			}
		}
	})
}

func checkPositions(t *testing.T, items []item) {
	t.Helper()
	line := int64(0)
	for i, it := range items {
		if it.Pos != int64(i+1) || it.Line <= line {
			t.Fatalf("item %d is at %d, line %d behind line %d", i+1, it.Pos, it.Line, line)
		}
		line = it.Line
	}
}

func FuzzJSONLReader(f *testing.F) {
	for _, s := range []string{
		`{"a":1}`, `{"a":"x","b":[1, {"c":null}]}` + "\n\n" + `{"b":2}`, `{"a":1,"a":2}`, `[1]`, `{"\u0061":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":1}{"b":2}`, "{\"a\":\r1}\r\n", `{"a":1e999}`, `{`, ` {} `,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := NewReader(bytes.NewReader(data), JSONL, ReadOptions{}); err == nil {
			items, _ := readAll(r)
			checkPositions(t, items)
			r.Close()
		}

		r, err := NewReader(strings.NewReader("{}\n"+string(data)), JSONL, ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		for i, line := range bytes.Split(data, []byte("\n")) {
			if len(bytes.Trim(line, " \t\r")) == 0 {
				continue
			}
			rec, err := r.Next()
			if bad, ok := errors.AsType[*BadRecord](err); ok {
				if bad.Line != int64(i+2) {
					t.Errorf("line %d reported as %d", i+2, bad.Line)
				}
				if v := jsontext.Value(line); v.IsValid() && v.Kind() == '{' {
					t.Errorf("%q is good, yet: %s", line, bad.Reason)
				}
				if want := clip(bytes.TrimSuffix(line, []byte("\r"))); bad.Raw != want {
					t.Errorf("%q is reported as %q", line, bad.Raw)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if rec.Line != int64(i+2) {
				t.Errorf("line %d read as %d", i+2, rec.Line)
			}
			var b bytes.Buffer
			w := newJSONLWriter(&b, nil)
			if err := errors.Join(w.Write(rec, nil), w.Close()); err != nil {
				t.Fatal(err)
			}
			got, want := jsontext.Value(b.Bytes()), jsontext.Value(bytes.Clone(line))
			if bytes.ContainsAny(bytes.TrimSuffix(got, []byte("\n")), "\r\n") {
				t.Errorf("%q is written with a line end: %q", line, got)
			}
			if err := errors.Join(got.Canonicalize(), want.Canonicalize()); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%q is written as %q", line, b.String())
			}
		}
		if rec, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %v, %v", rec, err)
		}
	})
}

func FuzzCSVWriter(f *testing.F) {
	f.Add("a", "b", "c", byte(','))
	f.Add("", "", "", byte('\t'))
	f.Add("x,y;z\t\"q\"", "\r\n", "=1+1", byte(';'))
	f.Add(" lead", `\.`, "-5", byte(','))
	f.Add("\ufeff", "\r", "+x\n", byte(','))
	f.Add("sep=;", "sep=", "-1e5", byte(','))
	f.Fuzz(func(t *testing.T, name, own, answer string, delim byte) {
		name, own, answer = strings.ToValidUTF8(name, "?"), strings.ToValidUTF8(own, "?"), strings.ToValidUTF8(answer, "?")
		if delim != ';' && delim != '\t' {
			delim = ','
		}
		columns, added := []string{"first" + name, name}, []Column{{Name: "answer " + name}}
		if strings.TrimSpace(name) == "" {
			columns = []string{"only"}
		}
		r := Record{Pos: 1}
		for _, c := range columns {
			r.Fields = append(r.Fields, Field{c, Text(own)})
		}
		var b bytes.Buffer
		w, err := NewWriter(&b, CSV, columns, added, WriteOptions{Delimiter: delim})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Write(r, []Value{Text(answer)}), w.Write(r, []Value{{}}), w.Close()); err != nil {
			t.Fatal(err)
		}
		safe := neutral(answer)
		if safe != answer && safe != "'"+answer {
			t.Errorf("%q became %q", answer, safe)
		}
		if safe != "" && strings.ContainsRune("=@\t\r", rune(safe[0])) {
			t.Errorf("%q is a formula", safe)
		}
		header := append(slices.Clone(columns), added[0].Name)
		cells := append(slices.Repeat([]string{own}, len(columns)), safe)
		null := append(slices.Repeat([]string{own}, len(columns)), "")
		want := [][]string{header, cells, null}

		// Read here, with the delimiter found by itself, the cells are exactly the same.
		in, err := NewReader(bytes.NewReader(b.Bytes()), CSV, ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got := [][]string{in.Columns()}
		for _, rec := range records(t, in) {
			var row []string
			for _, f := range rec.Fields {
				row = append(row, f.Value.String())
			}
			got = append(got, row)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +read here)\n%s", b.String(), diff)
		}

		// encoding/csv loses nothing but the CR of a CR LF.
		std := csv.NewReader(bytes.NewReader(b.Bytes()))
		std.Comma = rune(delim)
		got, err = std.ReadAll()
		if err != nil {
			t.Fatalf("%q: %v", b.String(), err)
		}
		for _, row := range want {
			for i := range row {
				row[i] = strings.ReplaceAll(row[i], "\r\n", "\n")
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +encoding/csv)\n%s", b.String(), diff)
		}
	})
}

// A file may be anything: what it says is an error at worst.
func FuzzParquetReader(f *testing.F) {
	f.Add([]byte("PAR1"))
	var b bytes.Buffer
	w, err := NewWriter(&b, Parquet, []string{"a"}, []Column{{"x", "integer"}}, WriteOptions{})
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(w.Write(Record{Fields: fields("a", "x")}, []Value{JSON("1")}), w.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := NewReader(bytes.NewReader(data), Parquet, ReadOptions{})
		if err != nil {
			return
		}
		defer r.Close()
		for range 1000 {
			if _, err := r.Next(); err != nil {
				return
			}
		}
	})
}
