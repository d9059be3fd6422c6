package record

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// jsonlWriter writes one object a line.
type jsonlWriter struct {
	output
	columns []Column
	quoted  map[string][]byte // names as they are written, with their colon
	placed  []bool            // by added column: it stands in place of a field
}

// Names are as good as always few; an input that makes them up must not fill
// the memory.
const maxQuoted = 4096

func newJSONLWriter(w io.Writer, added []Column) *jsonlWriter {
	return &jsonlWriter{
		output: output{w: w}, columns: added,
		quoted: make(map[string][]byte), placed: make([]bool, len(added)),
	}
}

// Write writes the record's own fields in their order, then those of the answer
// that did not replace one of them.
func (j *jsonlWriter) Write(r Record, added []Value) error {
	if j.err != nil {
		return j.err
	}
	if err := checkAdded(r, added, j.columns); err != nil {
		return err
	}
	clear(j.placed)
	start := len(j.buf)
	j.buf = append(j.buf, '{')
	var err error
	for _, f := range r.Fields {
		if i := j.column(f.Name); i >= 0 {
			err = j.field(f.Name, added[i])
			j.placed[i] = true
		} else {
			err = j.field(f.Name, f.Value)
		}
		if err != nil {
			j.buf = j.buf[:start]
			return fmt.Errorf("record %d: %w", r.Pos, err)
		}
	}
	for i, done := range j.placed {
		if done {
			continue
		}
		if err := j.field(j.columns[i].Name, added[i]); err != nil {
			j.buf = j.buf[:start]
			return fmt.Errorf("record %d: %w", r.Pos, err)
		}
	}
	j.buf = append(j.buf, '}', '\n')
	return j.spill()
}

// Close writes what is held back.
func (j *jsonlWriter) Close() error { return j.Flush() }

func (j *jsonlWriter) column(name string) int {
	return slices.IndexFunc(j.columns, func(c Column) bool { return c.Name == name })
}

func (j *jsonlWriter) field(name string, v Value) error {
	if j.buf[len(j.buf)-1] != '{' {
		j.buf = append(j.buf, ',')
	}
	quoted, ok := j.quoted[name]
	if !ok {
		quoted = append(appendString(nil, name), ':')
		if len(j.quoted) < maxQuoted {
			j.quoted[strings.Clone(name)] = quoted
		}
	}
	j.buf = append(j.buf, quoted...)
	if !v.text && strings.ContainsAny(v.s, "\r\n") { // may stand between tokens
		raw := jsontext.Value(v.s)
		if err := raw.Compact(); err != nil {
			return fmt.Errorf("the value of field %q is not valid JSON", name)
		}
		j.buf = append(j.buf, raw...)
		return nil
	}
	j.buf = v.appendJSON(j.buf)
	return nil
}
