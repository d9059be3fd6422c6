package record

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// item is what a Reader returned for one record, for comparing.
type item struct {
	Pos, Line int64
	Cells     []string // "name=JSON"; nil for a bad record
	Bad       string   // its reason
	Raw       string
}

func flat(r Record) []string {
	var cells []string
	for _, f := range r.Fields {
		cells = append(cells, f.Name+"="+string(f.Value.JSON()))
	}
	return cells
}

// readAll reads to the end. The error is the one that ended it, nil for io.EOF.
func readAll(r Reader) (items []item, err error) {
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if bad, ok := errors.AsType[*BadRecord](err); ok {
			items = append(items, item{Pos: bad.Pos, Line: bad.Line, Bad: bad.Reason, Raw: bad.Raw})
			continue
		}
		if err != nil {
			return items, err
		}
		items = append(items, item{Pos: rec.Pos, Line: rec.Line, Cells: flat(rec)})
	}
}

func readString(t *testing.T, text string, format Format, opts ReadOptions) []item {
	t.Helper()
	r, err := NewReader(strings.NewReader(text), format, opts)
	if err != nil {
		t.Fatal(err)
	}
	items, err := readAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return items
}

// records reads all of an input that must have no bad record.
func records(t *testing.T, r Reader) []Record {
	t.Helper()
	var all []Record
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rec)
	}
}

// written writes records as they are.
func written(t *testing.T, format Format, columns []string, all []Record, opts WriteOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, format, columns, nil, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if err := w.Write(r, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func reader(t *testing.T, data []byte, format Format) Reader {
	t.Helper()
	r, err := NewReader(bytes.NewReader(data), format, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// sharedFiles lists real inputs, or skips where there are none.
func sharedFiles(t *testing.T, patterns ...string) []string {
	t.Helper()
	var all []string
	for _, p := range patterns {
		files, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "data", p))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, files...)
	}
	if len(all) == 0 {
		t.Skip("the shared data is not here")
	}
	return all
}

func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
