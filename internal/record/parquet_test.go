package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
)

type inner struct {
	Name string   `parquet:"name"`
	Tags []string `parquet:"tags,list"`
	N    *int32   `parquet:"n,optional"`
}

type sample struct {
	Bool    bool              `parquet:"bool"`
	I8      int8              `parquet:"i8"`
	I64     int64             `parquet:"i64"`
	U64     uint64            `parquet:"u64"`
	U32     uint32            `parquet:"u32"`
	F32     float32           `parquet:"f32"`
	F64     float64           `parquet:"f64"`
	Text    string            `parquet:"text"`
	Opt     *string           `parquet:"opt,optional"`
	Bytes   []byte            `parquet:"bytes"`
	Enum    string            `parquet:"enum,enum"`
	JSON    string            `parquet:"json,json"`
	UUID    [16]byte          `parquet:"uuid,uuid"`
	Dec     int64             `parquet:"dec,decimal(2:18)"`
	DecB    [9]byte           `parquet:"decb,decimal(3:20)"`
	Date    int32             `parquet:"date,date"`
	Millis  int64             `parquet:"millis,timestamp(millisecond)"`
	Local   int64             `parquet:"local,timestamp(microsecond:local)"`
	Nanos   time.Time         `parquet:"nanos,timestamp(nanosecond)"`
	Time    int64             `parquet:"time,time(microsecond)"`
	I96     deprecated.Int96  `parquet:"i96"`
	Repeat  []int32           `parquet:"repeat"`
	List    []string          `parquet:"list,list"`
	Opts    []*string         `parquet:"opts,list"`
	Map     map[string]int64  `parquet:"map"`
	IntMap  map[int64]float64 `parquet:"intmap"`
	Group   inner             `parquet:"group"`
	Groups  []inner           `parquet:"groups,list"`
	OptGrp  *inner            `parquet:"optgrp,optional"`
	ListMap map[string][]int8 `parquet:"listmap"`
}

func samples() []sample {
	s, n := "some", int32(-7)
	full := sample{
		Bool: true, I8: -8, I64: math.MinInt64, U64: math.MaxUint64, U32: math.MaxUint32, F32: 0.1, F64: 1e-9, Text: "caf\u00e9 \"x\"\n",
		Opt: &s, Bytes: []byte{0xff, 0}, Enum: "red", JSON: `{"b": [1], "a": null}`, UUID: [16]byte{0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0x00},
		Dec: -5, DecB: [9]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfb, 0x2e}, Date: -1, Millis: 1700000000123, Local: 1700000000123456,
		Nanos: time.Unix(1700000000, 1).UTC(), Time: 86399999999, I96: deprecated.Int96{1, 0, 2440589},
		Repeat: []int32{1, 2}, List: []string{"a", ""}, Opts: []*string{nil, &s},
		Map: map[string]int64{"k \"1\"": 1}, IntMap: map[int64]float64{-3: math.Inf(-1)},
		Group:  inner{"g", []string{"t"}, &n},
		Groups: []inner{{"x", nil, nil}, {"y", []string{"p", "q"}, &n}}, OptGrp: &inner{Name: "o"},
		ListMap: map[string][]int8{"l": {1, 2, 3}},
	}
	empty := sample{F64: math.NaN(), JSON: "null", I96: deprecated.Int96{0, 0xffffffff, 5}, Millis: math.MaxInt64}
	return []sample{full, empty, full}
}

var wantSamples = [2][]string{
	{
		`bool=true`, `i8=-8`, `i64=-9223372036854775808`, `u64=18446744073709551615`, `u32=4294967295`, `f32=0.1`, `f64=1e-09`,
		`text="café \"x\"\n"`, `opt="some"`, `bytes="data:;base64,/wA="`, `enum="red"`, `json={"b": [1], "a": null}`,
		`uuid="123e4567-e89b-12d3-a456-426614174000"`, `dec=-0.05`, `decb=-1.234`, `date="1969-12-31"`,
		`millis="2023-11-14T22:13:20.123Z"`, `local="2023-11-14T22:13:20.123456"`, `nanos="2023-11-14T22:13:20.000000001Z"`,
		`time="23:59:59.999999"`, `i96="1970-01-02T00:00:00.000000001Z"`,
		`repeat=[1,2]`, `list=["a",""]`, `opts=[null,"some"]`, `map={"k \"1\"":1}`, `intmap={"-3":"-Infinity"}`,
		`group={"name":"g","tags":["t"],"n":-7}`, `groups=[{"name":"x","tags":[],"n":null},{"name":"y","tags":["p","q"],"n":-7}]`,
		`optgrp={"name":"o","tags":[],"n":null}`, `listmap={"l":[1,2,3]}`,
	},
	{
		`bool=false`, `i8=0`, `i64=0`, `u64=0`, `u32=0`, `f32=0`, `f64="NaN"`,
		`text=""`, `opt=null`, `bytes=""`, `enum=""`, `json=null`,
		`uuid="00000000-0000-0000-0000-000000000000"`, `dec=0.00`, `decb=0.000`, `date="1970-01-01"`,
		`millis=9223372036854775807`, `local="1970-01-01T00:00:00"`, `nanos="1970-01-01T00:00:00Z"`,
		`time="00:00:00"`, `i96="int96:00000005ffffffff00000000"`,
		`repeat=[]`, `list=[]`, `opts=[]`, `map={}`, `intmap={}`,
		`group={"name":"","tags":[],"n":null}`, `groups=[]`, `optgrp=null`, `listmap={}`,
	},
}

func sampleFile(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[sample](&b)
	for _, s := range samples() { // three row groups
		if s.Nanos.IsZero() {
			s.Nanos = time.Unix(0, 0)
		}
		if _, err := w.Write([]sample{s}); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParquetTypes(t *testing.T) {
	data := sampleFile(t)
	r := reader(t, data, Parquet)
	all := records(t, r)
	if len(all) != 3 {
		t.Fatalf("%d records", len(all))
	}
	for i, rec := range all {
		if diff := cmp.Diff(wantSamples[i%2], flat(rec)); diff != "" {
			t.Errorf("record %d (-want +got)\n%s", i+1, diff)
		}
		if rec.Pos != int64(i+1) || rec.Line != 0 {
			t.Errorf("record %d: %d, line %d", i+1, rec.Pos, rec.Line)
		}
	}
	if p := r.Progress(); p != 1 {
		t.Errorf("progress %v", p)
	}

	// Written again it is the same, types included, with the answer's columns behind.
	added := []Column{{"score", "integer"}, {"text", "string"}, {"why", "object"}}
	var b bytes.Buffer
	w, err := NewWriter(&b, Parquet, r.Columns(), added, WriteOptions{From: r})
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range all {
		if err := w.Write(rec, []Value{JSON("5.0"), JSON(`"new"`), JSON(`{"a": [1]}`)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	again := reader(t, b.Bytes(), Parquet)
	for i, rec := range records(t, again) {
		want := append([]string{}, wantSamples[i%2]...)
		want[7] = `text="new"`
		want = append(want, "score=5", `why={"a": [1]}`)
		if diff := cmp.Diff(want, flat(rec)); diff != "" {
			t.Errorf("record %d, again (-want +got)\n%s", i+1, diff)
		}
	}
	for i, n := range again.(*parquetReader).nodes[:len(r.Columns())] {
		if i == 7 {
			continue
		}
		if was := r.(*parquetReader).nodes[i]; was.schema().String() != n.schema().String() {
			t.Errorf("type was %s\nis %s", was.schema(), n.schema())
		}
	}
	file, err := parquet.OpenFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := parquet.Read[sample](bytes.NewReader(b.Bytes()), file.Size())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(samples()[0].Groups, got[0].Groups, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("as Go values (-want +got)\n%s", diff)
	}
}

// A stream that cannot be read at random goes through a temporary file, which is
// gone afterwards.
func TestParquetFromPipe(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("TMP", tmp)
	r, err := NewReader(io.MultiReader(bytes.NewReader(sampleFile(t))), Parquet, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := records(t, r); len(got) != 3 {
		t.Errorf("%d records", len(got))
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Damage anywhere is an error or goes unnoticed in a value, but never a panic and
// never a missing row.
func TestParquetDamage(t *testing.T) {
	data := sampleFile(t)
	step := max(1, len(data)/150)
	for at := 0; at < len(data); at += step {
		for name, bad := range map[string][]byte{
			"cut at":     data[:at],
			"flipped at": flipped(data, at),
		} {
			r, err := NewReader(bytes.NewReader(bad), Parquet, ReadOptions{})
			if err != nil {
				continue
			}
			items, err := readAll(r)
			if err == nil && len(items) != 3 {
				t.Errorf("%s %d: %d records and no error", name, at, len(items))
			}
			r.Close()
		}
	}
}

func flipped(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[at] ^= 0xff
	return data
}

// Types of JSONL are found by looking at all values, and no value is changed.
func TestParquetInference(t *testing.T) {
	lines := []string{
		`{"i":1,"f":1,"b":true,"s":"x","mixed":1,"big":12345678901234567890,"exact":0.1,"o":{"a": 1},"null":null,"precise":1}`,
		`{"i":-9007199254740993,"f":2.5,"s":"","mixed":"1","exact":0.12345678901234567890,"o":[2],"late":"x"}`,
		`{"b":null,"f":1e300,"mixed":null,"precise":9007199254740993}`,
		`{"precise":0.5,"\u0000":"odd"}`,
	}
	in := reader(t, []byte(strings.Join(lines, "\n")), JSONL)
	added := []Column{{"answer", ""}, {"free", ""}, {"list", "array"}, {"late", "string"}}
	tmp := t.TempDir()
	var b bytes.Buffer
	w, err := NewWriter(&b, Parquet, in.Columns(), added, WriteOptions{From: in, TempDir: tmp})
	if err != nil {
		t.Fatal(err)
	}
	for i, rec := range records(t, in) {
		if err := w.Write(rec, []Value{JSON(fmt.Sprint(i)), []Value{JSON(`"t"`), JSON("1"), {}, Text("u")}[i], JSON("[ 1]"), JSON(`"L"`)}); err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() > 0 {
		t.Error("written before the types are known")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	r := reader(t, b.Bytes(), Parquet)
	types := map[string]string{}
	for _, n := range r.(*parquetReader).nodes {
		types[n.name] = n.typ.String()
	}
	if diff := cmp.Diff(map[string]string{
		"i": "INT(64,true)", "f": "DOUBLE", "b": "BOOLEAN", "s": "STRING", "mixed": "JSON", "big": "JSON", "exact": "JSON", "o": "JSON",
		"null": "STRING", "precise": "JSON", "late": "STRING", "\x00": "STRING", "answer": "INT(64,true)", "free": "JSON", "list": "JSON",
	}, types); diff != "" {
		t.Errorf("types (-want +got)\n%s", diff)
	}
	want := [][]string{
		{`i=1`, `f=1`, `b=true`, `s="x"`, `mixed=1`, `big=12345678901234567890`, `exact=0.1`, `o={"a": 1}`, `null=null`, `precise=1`, `late="L"`, "\x00=null", `answer=0`, `free="t"`, `list=[ 1]`},
		{`i=-9007199254740993`, `f=2.5`, `b=null`, `s=""`, `mixed="1"`, `big=null`, `exact=0.12345678901234567890`, `o=[2]`, `null=null`, `precise=null`, `late="L"`, "\x00=null", `answer=1`, `free=1`, `list=[ 1]`},
		{`i=null`, `f=1e+300`, `b=null`, `s=null`, `mixed=null`, `big=null`, `exact=null`, `o=null`, `null=null`, `precise=9007199254740993`, `late="L"`, "\x00=null", `answer=2`, `free=null`, `list=[ 1]`},
		{`i=null`, `f=null`, `b=null`, `s=null`, `mixed=null`, `big=null`, `exact=null`, `o=null`, `null=null`, `precise=0.5`, `late="L"`, "\x00=\"odd\"", `answer=3`, `free="u"`, `list=[ 1]`},
	}
	for i, rec := range records(t, r) {
		if diff := cmp.Diff(want[i], flat(rec)); diff != "" {
			t.Errorf("record %d (-want +got)\n%s", i+1, diff)
		}
	}
}

func TestParquetWithoutRecords(t *testing.T) {
	for name, tt := range map[string]struct {
		columns []string
		added   []Column
		want    []string
	}{
		"csv":   {[]string{"id", "a, b"}, []Column{{"x", "integer"}}, []string{"id", "a, b", "x"}},
		"jsonl": {nil, []Column{{"x", ""}}, []string{"x"}},
	} {
		var b bytes.Buffer
		w, err := NewWriter(&b, Parquet, tt.columns, tt.added, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r := reader(t, b.Bytes(), Parquet)
		if diff := cmp.Diff(tt.want, r.Columns()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParquetWrongValues(t *testing.T) {
	for jsonType, v := range map[string]string{"integer": "1.5", "number": `"x"`, "boolean": "1", "string": "[1]"} {
		var b bytes.Buffer
		w, err := NewWriter(&b, Parquet, []string{"a"}, []Column{{"x", jsonType}}, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		err = w.Write(Record{Pos: 1, Fields: fields("a", "1")}, []Value{JSON(v)})
		if err == nil || !strings.HasPrefix(err.Error(), `record 1: the value of column "x" is not the `) {
			t.Errorf("%s in a column of type %s: %v", v, jsonType, err)
		}
	}
}

// Row groups end before memory does, and rows stay in order across them.
func TestParquetManyRows(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, Parquet, []string{"n", "text"}, []Column{{"x", "integer"}}, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const n = 120
	big := strings.Repeat("x", 200<<10)
	for i := range n {
		if err := w.Write(Record{Pos: int64(i + 1), Fields: fields("n", fmt.Sprint(i), "text", big)}, []Value{JSON(fmt.Sprint(-i))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := reader(t, b.Bytes(), Parquet)
	if g := len(r.(*parquetReader).groups); g != 2 {
		t.Errorf("%d row groups", g)
	}
	i := 0
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Fields[0].Value.String() != fmt.Sprint(i) || rec.Fields[2].Value.String() != fmt.Sprint(-i) {
			t.Fatalf("record %d: %s", i+1, rec.Fields[0].Value)
		}
		i++
	}
	if i != n {
		t.Errorf("%d records", i)
	}
}

// Values cut into columns and put together again are the same, whatever the
// nesting.
func TestParquetTree(t *testing.T) {
	text, number := parquet.String(), parquet.Optional(parquet.Int(32))
	tuple := parquet.Group{"a": text, "b": number}
	for name, tt := range map[string]struct {
		node   parquet.Node
		values []string
	}{
		"list of lists": {
			parquet.Optional(parquet.List(parquet.Optional(parquet.List(number)))),
			[]string{`null`, `[]`, `[null]`, `[[]]`, `[[null]]`, `[[1,null,2],null,[],[3]]`},
		},
		"list of groups": {parquet.List(parquet.Optional(tuple)), []string{`[]`, `[null,{"a":"","b":1},{"a":"x","b":null}]`}},
		"repeated groups": {
			parquet.Repeated(parquet.Group{"a": parquet.Repeated(text), "b": number}),
			[]string{`[]`, `[{"a":[],"b":1}]`, `[{"a":["x","y"],"b":null},{"a":[],"b":2},{"a":["z"],"b":3}]`},
		},
		"repeated pairs": {parquet.Repeated(tuple), []string{`[]`, `[{"a":"x","b":null},{"a":"y","b":2}]`}},
		"map of maps": {
			parquet.Optional(parquet.Map(text, parquet.Optional(parquet.Map(parquet.Int(64), number)))),
			[]string{`null`, `{}`, `{"x":null}`, `{"x":{}}`, `{"x":{"-1":null,"2":3},"y":{"4":5}}`},
		},
		"map of groups":   {parquet.Map(tuple, text), []string{`{}`, `[{"key":{"a":"x","b":1},"value":"y"}]`}},
		"keys alike":      {parquet.Map(text, number), []string{`[{"key":"x","value":1},{"key":"x","value":null}]`, `{"x":1}`}},
		"old list, array": {annotated{parquet.Group{"array": parquet.Repeated(parquet.Group{"v": text})}}, []string{`[]`, `[{"v":"x"},{"v":""}]`}},
		"old list, bag":   {annotated{parquet.Group{"bag": parquet.Repeated(parquet.Group{"array_element": number})}}, []string{`[]`, `[1,null]`}},
		"old list, leaf":  {annotated{parquet.Group{"element": parquet.Repeated(text)}}, []string{`[]`, `["x","y"]`}},
		"decimals":        {parquet.Decimal(4, 30, parquet.FixedLenByteArrayType(13)), []string{`0.0000`, `-0.0001`, `99999999999999999999999999.9999`, `-128.0000`}},
		"short decimals":  {parquet.Decimal(2, 9, parquet.ByteArrayType), []string{`1.27`, `1.28`, `-1.28`, `-1.29`, `0.00`}},
		"no decimals":     {parquet.Decimal(0, 9, parquet.Int32Type), []string{`7`, `-7`}},
		"times":           {parquet.Time(parquet.Millisecond), []string{`"00:00:00"`, `"23:59:59.999"`}},
		"dates":           {parquet.Date(), []string{`"0000-01-01"`, `"9999-12-31"`, `"1969-12-31"`, `2932897`, `-719529`}},
		"timestamps":      {parquet.Timestamp(parquet.Nanosecond), []string{`"1969-12-31T23:59:59.999999999Z"`, `"2262-04-11T23:47:16.854775807Z"`}},
		"bytes":           {parquet.Leaf(parquet.ByteArrayType), []string{`"data:;base64,/w=="`, `"data:,"`, `"text"`}},
		"fixed bytes":     {parquet.Leaf(parquet.FixedLenByteArrayType(2)), []string{`"ab"`, `"data:;base64,//8="`}},
		"json":            {parquet.JSON(), []string{`null`, `{"a": 1}`}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, want := range tt.values {
				leaves := 0
				n := newNode("x", tt.node, 0, 0, &leaves)
				s := shredder{columns: make([][]parquet.Value, leaves)}
				if err := s.node(n, []byte(want), 0, 0); err != nil {
					t.Errorf("%s: %v", want, err)
					continue
				}
				var row parquet.Row
				for _, values := range s.columns {
					row = append(row, values...)
				}
				a := assembler{columns: make([][]parquet.Value, leaves), at: make([]int, leaves)}
				a.load(row)
				if got := string(a.appendNode(nil, n)); got != want {
					t.Errorf("%s came back as %s", want, got)
				}
				for c, at := range a.at {
					if at != len(s.columns[c]) {
						t.Errorf("%s: %d of %d values of column %d used", want, at, len(s.columns[c]), c)
					}
				}
			}
		})
	}
}

// annotated is a LIST with a layout of its own.
type annotated struct{ parquet.Group }

func (annotated) Type() parquet.Type { return parquet.List(parquet.String()).Type() }
