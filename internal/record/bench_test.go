package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
)

// benchRecords are rows of about 100 bytes.
func benchRecords(n int) (columns []string, all []Record) {
	columns = []string{"id", "name", "text", "price", "city"}
	for i := range n {
		all = append(all, Record{Pos: int64(i + 1), Fields: []Field{
			{columns[0], Text(fmt.Sprint(i))},
			{columns[1], Text("A Person's Name")},
			{columns[2], Text("Some text that goes on for a while and holds words")},
			{columns[3], Text(fmt.Sprintf("%d.99", i%1000))},
			{columns[4], Text("Copenhagen")},
		}})
	}
	return columns, all
}

func benchData(b *testing.B, format Format, n int) []byte {
	b.Helper()
	columns, all := benchRecords(n)
	var out bytes.Buffer
	w, err := NewWriter(&out, format, columns, nil, WriteOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range all {
		if err := w.Write(r, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

func BenchmarkRead(b *testing.B) {
	const n = 10_000
	for _, format := range []Format{CSV, JSONL, Parquet} {
		b.Run(string(format), func(b *testing.B) {
			data := benchData(b, format, n)
			b.SetBytes(int64(len(data) / n))
			b.ReportAllocs()
			for done := 0; done < b.N; {
				r, err := NewReader(bytes.NewReader(data), format, ReadOptions{})
				if err != nil {
					b.Fatal(err)
				}
				for ; done < b.N; done++ {
					if _, err := r.Next(); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
				r.Close()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	const n = 10_000
	columns, all := benchRecords(n)
	added := []Column{{"sentiment", "string"}, {"score", "number"}}
	values := []Value{JSON(`"good"`), JSON("0.75")}
	for _, format := range []Format{CSV, JSONL, Parquet} {
		b.Run(string(format), func(b *testing.B) {
			b.ReportAllocs()
			w, err := NewWriter(io.Discard, format, columns, added, WriteOptions{})
			if err != nil {
				b.Fatal(err)
			}
			for i := range b.N {
				if err := w.Write(all[i%n], values); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// endless makes lines as long as it is asked to.
type endless struct {
	head, line string
	left       int
	pending    string
}

func (e *endless) Read(p []byte) (int, error) {
	if e.pending == "" {
		switch {
		case e.head != "":
			e.pending, e.head = e.head, ""
		case e.left > 0:
			e.pending = e.line
			e.left--
		default:
			return 0, io.EOF
		}
	}
	n := copy(p, e.pending)
	e.pending = e.pending[n:]
	return n, nil
}

// Memory does not grow with the number of records, from reader to writer.
func TestMemory(t *testing.T) {
	for _, format := range []Format{CSV, JSONL} {
		in := &endless{line: "{\"a\":\"some text\",\"b\":[1,2,3],\"c\":null}\n", left: 160_000}
		if format == CSV {
			in.head, in.line = "a,b,c\n", "some text,\"with \"\"quotes\"\"\",and more of it\n"
		}
		r, err := NewReader(in, format, ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var w Writer
		for _, out := range []Format{format, Parquet} {
			if w == nil || out == Parquet {
				columns := r.Columns()
				if w, err = NewWriter(io.Discard, out, columns, nil, WriteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			var most uint64
			for n := 1; n <= 80_000; n++ {
				rec, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				if err := w.Write(rec, nil); err != nil {
					t.Fatal(err)
				}
				if n%20_000 == 0 {
					runtime.GC()
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapAlloc)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if most > 64<<20 {
				t.Errorf("%s to %s: %d MB in use", format, out, most>>20)
			}
			t.Logf("%s to %s: %d MB", format, out, most>>20)
		}
		r.Close()
	}
}
