package record

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// WriteOptions say how records are to be written; the zero value is right for
// most.
type WriteOptions struct {
	// From is the Reader whose records will be written. It lets the output keep
	// what only the input knows: the types of Parquet columns, the delimiter of a
	// CSV.
	From Reader
	// Delimiter parts the cells of CSV and TSV; 0 means that of From where both are
	// the same format, or else a comma for CSV and a tab for TSV.
	Delimiter byte
	// TempDir holds the temporary file that Parquet needs for records whose types
	// are not known beforehand; empty means the system's.
	TempDir string
}

// Flusher is a Writer that can hand on what it holds back, for an output that
// somebody watches. Those of CSV, TSV and JSONL are.
type Flusher interface {
	Flush() error
}

// Neutraliser is a Writer that defuses cells of an answer which a spreadsheet
// would take for formulas, and counts them. Those of CSV and TSV are.
type Neutraliser interface {
	Neutralised() int64
}

// NewWriter writes records to w, which stays the caller's to close. columns are
// the names of the records' own fields, nil when they are not known (JSONL
// input); added are the answer's columns. An added column whose name the record
// has already replaces it in place, the others stand behind.
//
// CSV and TSV without columns take those of the first record and refuse a record
// with others. Their cells from the answer never begin with =, +, -, @, a tab or
// a CR: an apostrophe is put in front, except of a plain number, so that a
// spreadsheet does not run them. The record's own cells are left as they are.
//
// Parquet keeps the types of Parquet input (see WriteOptions.From), writes text
// as strings, the answer's columns by their type, and of other records finds the
// narrowest types that lose nothing, for which it keeps them in a temporary file
// until Close.
func NewWriter(w io.Writer, format Format, columns []string, added []Column, opts WriteOptions) (Writer, error) {
	for i, c := range added {
		if c.Name == "" {
			return nil, fmt.Errorf("column %d of the answer has no name", i+1)
		}
		if slices.ContainsFunc(added[:i], func(d Column) bool { return d.Name == c.Name }) {
			return nil, fmt.Errorf("the answer has two columns named %q", c.Name)
		}
	}
	switch cmp.Or(format, JSONL) {
	case CSV, TSV:
		return newCSVWriter(w, format, columns, added, opts)
	case JSONL:
		return newJSONLWriter(w, added), nil
	case Parquet:
		return newParquetWriter(w, columns, added, opts), nil
	}
	return nil, fmt.Errorf("%q is no format of records: choose csv, tsv, jsonl or parquet", format)
}

// output gathers what is written into large writes. Its first error stays.
type output struct {
	w   io.Writer
	buf []byte
	err error
}

const outputSize = 64 << 10

// spill writes the buffer when it is full.
func (o *output) spill() error {
	if len(o.buf) < outputSize {
		return o.err
	}
	return o.Flush()
}

// Flush writes what has been held back.
func (o *output) Flush() error {
	if o.err == nil && len(o.buf) > 0 {
		n, err := o.w.Write(o.buf)
		if err == nil && n < len(o.buf) {
			err = io.ErrShortWrite
		}
		o.err = err
	}
	o.buf = o.buf[:0]
	if cap(o.buf) > 16*outputSize {
		o.buf = nil
	}
	return o.err
}

// layout is the columns of a table and where each gets its value.
type layout struct {
	names []string
	input []string // the records' own columns
	own   []int    // by column: index in input, -1 for none
	added []int    // by column: index in the answer's columns, -1 for none
}

func newLayout(input []string, added []Column) layout {
	l := layout{input: input}
	index := func(name string) int {
		return slices.IndexFunc(added, func(c Column) bool { return c.Name == name })
	}
	for i, name := range input {
		l.names = append(l.names, name)
		l.own = append(l.own, i)
		l.added = append(l.added, index(name))
	}
	for i, c := range added {
		if !slices.Contains(input, c.Name) {
			l.names = append(l.names, c.Name)
			l.own = append(l.own, -1)
			l.added = append(l.added, i)
		}
	}
	return l
}

var errColumns = errors.New("unknown field")

// align returns the record's own values in the order of l.input, absent ones as
// null. An error that matches errColumns names a field that has no column.
func (l *layout) align(r Record, dst []Value) ([]Value, error) {
	dst = dst[:0]
	if len(r.Fields) == len(l.input) {
		for i := range r.Fields {
			if r.Fields[i].Name != l.input[i] {
				break
			}
			dst = append(dst, r.Fields[i].Value)
		}
		if len(dst) == len(l.input) {
			return dst, nil
		}
		dst = dst[:0]
	}
	found := 0
	for _, name := range l.input {
		v, ok := r.Get(name)
		if ok {
			found++
		}
		dst = append(dst, v)
	}
	if found < len(r.Fields) {
		for _, f := range r.Fields {
			if !slices.Contains(l.names, f.Name) {
				return nil, fmt.Errorf("%w %q", errColumns, f.Name)
			}
		}
	}
	return dst, nil
}

// checkAdded makes sure that a record comes with one value per added column.
func checkAdded(r Record, values []Value, columns []Column) error {
	if len(values) != len(columns) {
		return fmt.Errorf("record %d comes with %s of the answer for %s", r.Pos,
			plural(len(values), "value"), plural(len(columns), "column"))
	}
	return nil
}
