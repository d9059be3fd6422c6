package record

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding/unicode"
)

func cells(pairs ...string) []string { return pairs }

func TestCSV(t *testing.T) {
	for name, tt := range map[string]struct {
		in     string
		format Format
		opts   ReadOptions
		want   []item
	}{
		"plain":           {in: "a,b\n1,2\n3,\n", want: []item{{1, 2, cells(`a="1"`, `b="2"`), "", ""}, {2, 3, cells(`a="3"`, `b=""`), "", ""}}},
		"no last newline": {in: "a,b\n1,2", want: []item{{1, 2, cells(`a="1"`, `b="2"`), "", ""}}},
		"header only":     {in: "a,b\n"},
		"header alone":    {in: "a,b"},
		"name with space": {in: "a b,c\n1,2\n", want: []item{{1, 2, cells(`a b="1"`, `c="2"`), "", ""}}},
		"windows":         {in: "a,b\r\n1,\"x\"\r\n3,4\r\n", want: []item{{1, 2, cells(`a="1"`, `b="x"`), "", ""}, {2, 3, cells(`a="3"`, `b="4"`), "", ""}}},
		"old mac":         {in: "a,b\r1,\"x\ry\"\r3,4\r", want: []item{{1, 2, cells(`a="1"`, `b="x\ry"`), "", ""}, {2, 4, cells(`a="3"`, `b="4"`), "", ""}}},
		"doubled CR":      {in: "a,b\r\r\n1,2\r\r\n", want: []item{{1, 3, cells(`a="1"`, `b="2"`), "", ""}}},
		"line ends within cells are kept": {
			in:   "a,b\r\n\"x\r\ny\n\",2\r\n3,4\r\n",
			want: []item{{1, 2, cells(`a="x\r\ny\n"`, `b="2"`), "", ""}, {2, 5, cells(`a="3"`, `b="4"`), "", ""}},
		},
		"a CR within a cell":  {in: "a,b\nx\ry,2\n", want: []item{{1, 2, cells(`a="x\ry"`, `b="2"`), "", ""}}},
		"blank lines":         {in: "\n\r\na,b\n\n1,2\n\r\n3,4\n\n", want: []item{{1, 5, cells(`a="1"`, `b="2"`), "", ""}, {2, 7, cells(`a="3"`, `b="4"`), "", ""}}},
		"BOM":                 {in: "\xef\xbb\xbfa,b\n1,2\n", want: []item{{1, 2, cells(`a="1"`, `b="2"`), "", ""}}},
		"BOM, quoted header":  {in: "\xef\xbb\xbf\"a\",b\n1,2\n", want: []item{{1, 2, cells(`a="1"`, `b="2"`), "", ""}}},
		"quotes":              {in: "a,b\n\"x,\"\"y\"\"\",\"\"\n", want: []item{{1, 2, cells(`a="x,\"y\""`, `b=""`), "", ""}}},
		"quoted at the end":   {in: "a,b\n1,\"x\"", want: []item{{1, 2, cells(`a="1"`, `b="x"`), "", ""}}},
		"quoted, CR, the end": {in: "a,b\n1,\"x\"\r", want: []item{{1, 2, cells(`a="1"`, `b="x"`), "", ""}}},
		"tsv":                 {in: "a\tb\n1,5\t\"x\ty\"\n", format: TSV, want: []item{{1, 2, cells(`a="1,5"`, `b="x\ty"`), "", ""}}},
		"semicolons":          {in: "a;b\n1,5;2\n", want: []item{{1, 2, cells(`a="1,5"`, `b="2"`), "", ""}}},
		"semicolons in names": {in: "\"a;c\",b\n1,2\n", want: []item{{1, 2, cells(`a;c="1"`, `b="2"`), "", ""}}},
		"one name, semicolon": {in: "\"a;c\"\n1\n", want: []item{{1, 2, cells(`a;c="1"`), "", ""}}},
		"tabs in a csv":       {in: "a\tb\n1\t2\n", want: []item{{1, 2, cells(`a="1"`, `b="2"`), "", ""}}},
		"Excel's sep":         {in: "sep=|\r\na|b\r\n1|2\r\n", want: []item{{1, 3, cells(`a="1"`, `b="2"`), "", ""}}},
		"no Parquet":          {in: "PAR1,PAR2\n1,2\n", want: []item{{1, 2, cells(`PAR1="1"`, `PAR2="2"`), "", ""}}},
		"delimiter":           {in: "a|b,c\n1|2\n", opts: ReadOptions{Delimiter: '|'}, want: []item{{1, 2, cells(`a="1"`, `b,c="2"`), "", ""}}},
		"ragged": {
			in: "a,b\n1\n1,2,3\n4,5\n",
			want: []item{
				{1, 2, nil, "has 1 cell, the header has 2", "1"},
				{2, 3, nil, "has 3 cells, the header has 2", "1,2,3"},
				{3, 4, cells(`a="4"`, `b="5"`), "", ""},
			},
		},
		"bare quote": {
			in: "a,b\n5\" pipe,x\n4,5\n",
			want: []item{
				{1, 2, nil, `column "a" holds a quote but does not begin with one: put the whole cell in quotes and write the quote twice ("")`, `5" pipe,x`},
				{2, 3, cells(`a="4"`, `b="5"`), "", ""},
			},
		},
		"text behind a quote": {
			in: "a,b\r\n1,\"x\" y\r\n4,5\r\n",
			want: []item{
				{1, 2, nil, `column "b" has text behind its closing quote: write a quote inside a cell twice ("")`, "1,\"x\" y"},
				{2, 3, cells(`a="4"`, `b="5"`), "", ""},
			},
		},
		"lazy": {
			in: "a,b\n5\" pipe,\"x\" y\n4,5\n", opts: ReadOptions{LazyQuotes: true},
			want: []item{{1, 2, cells(`a="5\" pipe"`, `b="x\" y\n4,5\n"`), "", ""}},
		},
		"unclosed quote": {
			in: "a,b\n1,2\n\"x\ny\",\"z\n4,5\n",
			want: []item{
				{1, 2, cells(`a="1"`, `b="2"`), "", ""},
				{2, 3, nil, `the quote that column "b" opens on line 4 is never closed: everything from there to the end of the input is lost to this record; close the quote`, "\"x\ny\",\"z\n4,5"},
			},
		},
		"invalid UTF-8": {
			in: "a,b\n1,caf\xe9\n4,5\n",
			want: []item{
				{1, 2, nil, `column "b" is not valid UTF-8: if the input comes from Excel or an older Windows program, try --encoding windows-1252`, "1,caf\uFFFD"},
				{2, 3, cells(`a="4"`, `b="5"`), "", ""},
			},
		},
		"half runes in two cells": {
			in:   "a,b\n\xc3,\xa9\n",
			want: []item{{1, 2, nil, `column "a" is not valid UTF-8: if the input comes from Excel or an older Windows program, try --encoding windows-1252`, "\uFFFD,\uFFFD"}},
		},
		"half runes that quoting joins": {
			in:   "a,b\n\"\xc3\",\"\xa9\"\n",
			want: []item{{1, 2, nil, `column "a" is not valid UTF-8: if the input comes from Excel or an older Windows program, try --encoding windows-1252`, "\"\uFFFD\",\"\uFFFD\""}},
		},
		"windows-1252": {in: "a,b\n1,caf\xe9 \x80\n", opts: ReadOptions{Encoding: "windows-1252"}, want: []item{{1, 2, cells(`a="1"`, `b="café €"`), "", ""}}},
		"latin1":       {in: "a,b\n1,caf\xe9\n", opts: ReadOptions{Encoding: "latin1"}, want: []item{{1, 2, cells(`a="1"`, `b="café"`), "", ""}}},
		"the BOM is right": {
			in: "\xef\xbb\xbfa,b\n1,café\n", opts: ReadOptions{Encoding: "windows-1252"},
			want: []item{{1, 2, cells(`a="1"`, `b="café"`), "", ""}},
		},
		"wrong encoding": {
			in: "a,b\n1,\xff\n2,\x83A\n", opts: ReadOptions{Encoding: "shift_jis"},
			want: []item{
				{1, 2, nil, `column "b" holds bytes that are not shift_jis: is that the right --encoding?`, "1,\uFFFD"},
				{2, 3, cells(`a="2"`, `b="ア"`), "", ""},
			},
		},
		"a replacement character of its own": {in: "a\n\uFFFD\n", want: []item{{1, 2, cells("a=\"\uFFFD\""), "", ""}}},
		"too long": {
			in: "a,b\n" + strings.Repeat("x", 3<<20) + ",y\n4,5\n6,\"" + strings.Repeat("line\n", 1<<19) + "\"\n8,9\n", opts: ReadOptions{MaxRecord: 1 << 20},
			want: []item{
				{1, 2, nil, "the line makes a record of more than 1 MB, which is too long: is a quote not closed, or is this another format?", strings.Repeat("x", rawMax)},
				{2, 3, cells(`a="4"`, `b="5"`), "", ""},
				{3, 4, nil, `column "b", whose quote opens on line 4, makes a record of more than 1 MB, which is too long: is a quote not closed, or is this another format?`, ("6,\"" + strings.Repeat("line\n", 1<<19))[:rawMax]},
				{4, 5 + 1<<19, cells(`a="8"`, `b="9"`), "", ""},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			format := tt.format
			if format == "" {
				format = CSV
			}
			got := readString(t, tt.in, format, tt.opts)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestUTF16(t *testing.T) {
	const text = "a;b\r\nÄpfel;\"x\r\n€\"\r\n😀;2\r\n"
	want := []item{{1, 2, cells(`a="Äpfel"`, `b="x\r\n€"`), "", ""}, {2, 4, cells(`a="😀"`, `b="2"`), "", ""}}
	for name, tt := range map[string]struct {
		endian unicode.Endianness
		bom    unicode.BOMPolicy
		opts   ReadOptions
	}{
		"LE":                {unicode.LittleEndian, unicode.UseBOM, ReadOptions{}},
		"BE":                {unicode.BigEndian, unicode.UseBOM, ReadOptions{}},
		"LE, other option":  {unicode.LittleEndian, unicode.UseBOM, ReadOptions{Encoding: "latin1"}},
		"LE without a mark": {unicode.LittleEndian, unicode.IgnoreBOM, ReadOptions{}},
		"BE without a mark": {unicode.BigEndian, unicode.IgnoreBOM, ReadOptions{}},
		"LE named":          {unicode.LittleEndian, unicode.IgnoreBOM, ReadOptions{Encoding: "utf-16le"}},
	} {
		t.Run(name, func(t *testing.T) {
			encoded, err := unicode.UTF16(tt.endian, tt.bom).NewEncoder().String(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, readString(t, encoded, CSV, tt.opts)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestRefusedInputs(t *testing.T) {
	for name, tt := range map[string]struct {
		in     string
		format Format
		opts   ReadOptions
		want   string
	}{
		"empty":             {"", CSV, ReadOptions{}, "the input is empty: it holds no bytes"},
		"empty jsonl":       {"", JSONL, ReadOptions{}, "the input is empty: it holds no bytes"},
		"blank":             {"\n\r\n", CSV, ReadOptions{}, "the input is empty: it holds only blank lines"},
		"only a BOM":        {"\xef\xbb\xbf", CSV, ReadOptions{}, "the input is empty: it holds only blank lines"},
		"two names alike":   {"id,name,id\n", CSV, ReadOptions{}, `line 1, the header: columns 1 and 3 are both named "id": give every column a name of its own`},
		"no name":           {"\n,name\n", CSV, ReadOptions{}, `line 2, the header: column 1 has no name: give every column a name of its own`},
		"many":              {"a" + strings.Repeat(",", 8) + "\n", CSV, ReadOptions{}, `line 1, the header: column 2 has no name, column 3 has no name, column 4 has no name, column 5 has no name, column 6 has no name and 3 more: give every column a name of its own`},
		"header not UTF-8":  {"a,\xe9\n", CSV, ReadOptions{}, "line 1, the header: the name of column 2 is not valid UTF-8: if the input comes from Excel or an older Windows program, try --encoding windows-1252"},
		"header badly cut":  {"a,b\"\n", CSV, ReadOptions{}, `line 1, the header: cell 2 holds a quote but does not begin with one: put the whole cell in quotes and write the quote twice ("")`},
		"encoding":          {"a\n", CSV, ReadOptions{Encoding: "klingon"}, `unknown encoding "klingon": use one such as utf-8, windows-1252, utf-16le or shift_jis`},
		"no encoding":       {"a\n", CSV, ReadOptions{Encoding: "iso-2022-kr"}, `unknown encoding "iso-2022-kr": use one such as utf-8, windows-1252, utf-16le or shift_jis`},
		"delimiter":         {"a\n", CSV, ReadOptions{Delimiter: '"'}, "a quote or a line end cannot be the delimiter"},
		"wide delimiter":    {"a\n", CSV, ReadOptions{Delimiter: 0xa6}, "the delimiter must be an ASCII character"},
		"format":            {"a\n", "xml", ReadOptions{}, `"xml" is no format of records: choose csv, tsv, jsonl or parquet`},
		"workbook":          {"PK\x03\x04....", CSV, ReadOptions{}, "the input is an Excel workbook or another ZIP file: save it as CSV first"},
		"Parquet":           {"PAR1\x15\x04..", CSV, ReadOptions{}, "the input is a Parquet file: name it .parquet or say --format parquet"},
		"not Parquet":       {"id,name", Parquet, ReadOptions{}, "the input is not a Parquet file, which begins with PAR1: say --format csv, tsv or jsonl if it is one of these"},
		"cut Parquet":       {"PAR1....", Parquet, ReadOptions{}, "the Parquet input has no footer at its end: is the file complete?"},
		"wrong footer":      {"PAR1....\xff\xff\xff\xffPAR1", Parquet, ReadOptions{}, "the Parquet input has no footer at its end: is the file complete?"},
		"gzip, damaged":     {"\x1f\x8b\x08", CSV, ReadOptions{}, ""},
		"gzip of something": {"\x1f\x8bwhat is this", JSONL, ReadOptions{}, ""},
		"zstd of something": {"\x28\xb5\x2f\xfdwhat is this", JSONL, ReadOptions{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := NewReader(strings.NewReader(tt.in), tt.format, tt.opts)
			if err == nil {
				r.Close()
				t.Fatal("no error")
			}
			if tt.want != "" && err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
			if empty := strings.HasPrefix(tt.want, "the input is empty"); errors.Is(err, ErrEmpty) != empty {
				t.Errorf("ErrEmpty: %v", !empty)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none.csv"), ReadOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "dir.csv")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, ReadOptions{}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
	empty := writeFile(t, "e.csv", nil)
	if _, err := Open(empty, ReadOptions{}); !errors.Is(err, ErrEmpty) || !strings.HasPrefix(err.Error(), empty+": the input is empty") {
		t.Errorf("an empty file: %v", err)
	}
	if _, err := Open(writeFile(t, "x.txt", []byte("a\n1\n")), ReadOptions{}); err == nil {
		t.Error("an ending that says nothing: no error")
	}
	r, err := Open(writeFile(t, "x.txt", []byte("a\n1\n")), ReadOptions{Format: CSV})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if diff := cmp.Diff([]string{"a"}, r.Columns()); diff != "" {
		t.Error(diff)
	}
	if got := records(t, r); len(got) != 1 {
		t.Errorf("%d records", len(got))
	}
	if p := r.Progress(); p != 1 {
		t.Errorf("progress at the end: %v", p)
	}
	for range 2 { // the end stays the end
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %v", err)
		}
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("a\n")
	for i := range 200_000 {
		b.WriteString(strconv.Itoa(i) + "\n")
	}
	r, err := NewReader(bytes.NewReader(b.Bytes()), CSV, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	last := r.Progress()
	if last <= 0 || last > 0.5 {
		t.Errorf("at the start: %v", last)
	}
	for {
		if _, err := r.Next(); err != nil {
			break
		}
		if p := r.Progress(); p < last || p > 1 {
			t.Fatalf("%v after %v", p, last)
		} else {
			last = p
		}
	}
	if last != 1 {
		t.Errorf("at the end: %v", last)
	}
	r, err = NewReader(io.MultiReader(&b), CSV, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Progress(); p >= 0 {
		t.Errorf("of a pipe: %v", p)
	}
}

// A stream that fails is an error, never a short input.
func TestBrokenStream(t *testing.T) {
	broken := errors.New("cable pulled")
	for _, format := range []Format{CSV, JSONL} {
		for in, want := range map[string]int{
			"{\"a\": 1}\n{\"a\": 2}\n":     2,
			"{\"a\": 1}\n{\"a\": 2}\n{\"a": 2,
			"{\"a\": 1}\n{\"a\": 2}":       1,
		} {
			if format == CSV {
				in = "h\n" + strings.NewReplacer(`"`, "", "{", "", "}", "").Replace(in)
			}
			r, err := NewReader(io.MultiReader(strings.NewReader(in), failing{broken}), format, ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			items, err := readAll(r)
			if !errors.Is(err, broken) || len(items) != want {
				t.Errorf("%s %q: %d records, want %d, then %v", format, in, len(items), want, err)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// The reader sees the same whatever pieces the bytes come in.
func TestPieces(t *testing.T) {
	for _, in := range []string{
		"a,b\r\n1,\"x\r\n\"\"y\"\"\"\r\n\r\n2,3\r\n\"4\",\"\"\r\n5,6",
		"a,b\r1,\"x\r\"\"y\"\r\r2,3\r4,5\r",
		"sep=;\na;b\n1;2\n\"",
		"\xef\xbb\xbfa\tb\n1\t2\n3\n",
	} {
		want := readString(t, in, CSV, ReadOptions{})
		r, err := NewReader(&oneByOne{in}, CSV, ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got)\n%s", in, diff)
		}
	}
}

// oneByOne is a reader of single bytes, which bufio cannot hide as it returns
// what one Read gave.
type oneByOne struct{ s string }

func (o *oneByOne) Read(p []byte) (int, error) {
	if o.s == "" {
		return 0, io.EOF
	}
	n := copy(p, o.s[:1])
	o.s = o.s[n:]
	return n, nil
}

func TestHugeCell(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 10<<20/16)
	for _, quoted := range []string{big, `"` + strings.ReplaceAll(big, "f", "\n") + `"`} {
		r := reader(t, []byte("a,b\n1,"+quoted+"\n2,3\n"), CSV)
		got := records(t, r)
		if len(got) != 2 || len(got[0].Fields[1].Value.String()) != len(big) || got[1].Fields[1].Value.String() != "3" {
			t.Errorf("%d records", len(got))
		}
		if c := len(r.(*csvReader).b.buf); c > 64<<20 {
			t.Errorf("a buffer of %d bytes for a cell of %d", c, len(big))
		}
	}
}

// Real files give the cells that encoding/csv finds, line ends in cells aside,
// and come back from the writer the same.
func TestRealCSV(t *testing.T) {
	for _, file := range sharedFiles(t, "cleaning/*.csv", "postings/*.csv", "courses/*.csv", "skills/*.csv", "transcripts/*.csv") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			std := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
			std.FieldsPerRecord = -1
			r, err := Open(file, ReadOptions{})
			if err != nil {
				t.Skipf("not an input as it is: %v", err)
			}
			defer r.Close()
			header, err := std.Read()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(header, r.Columns()); diff != "" {
				t.Fatal(diff)
			}
			var all []Record
			bad := 0
			for {
				want, stdErr := std.Read()
				got, err := r.Next()
				if errors.Is(stdErr, io.EOF) && errors.Is(err, io.EOF) {
					break
				}
				if b, ok := errors.AsType[*BadRecord](err); ok {
					bad++
					if stdErr == nil && len(want) == len(header) && !strings.Contains(b.Reason, "UTF-8") {
						t.Fatalf("refused what encoding/csv reads: %v", b)
					}
					continue
				}
				if err != nil || stdErr != nil {
					t.Fatalf("record %d: %v, encoding/csv: %v", len(all)+1, err, stdErr)
				}
				for i, f := range got.Fields {
					if strings.ReplaceAll(f.Value.String(), "\r\n", "\n") != want[i] {
						t.Fatalf("record %d, column %q differs", got.Pos, f.Name)
					}
				}
				all = append(all, got)
			}
			t.Logf("%d records, %d bad", len(all), bad)
			again := records(t, reader(t, written(t, CSV, r.Columns(), all, WriteOptions{}), CSV))
			if len(again) != len(all) {
				t.Fatalf("%d records written, %d read", len(all), len(again))
			}
			for i := range all {
				if diff := cmp.Diff(flat(all[i]), flat(again[i])); diff != "" {
					t.Fatalf("record %d (-read +read again)\n%s", i+1, diff)
				}
			}
		})
	}
}
