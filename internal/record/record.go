// Package record is streams of records in and out: CSV, TSV, JSONL and
// Parquet, plain or compressed.
package record

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Record is one row of an input: named values in the order of the input.
type Record struct {
	Pos    int64 // 1-based position among the input's records
	Line   int64 // line of the input on which it starts; 0 where lines mean nothing (Parquet)
	Fields []Field
}

// Field is a named value.
type Field struct {
	Name  string
	Value Value
}

// Get returns the value of the named field. Fields are few: it is a scan.
func (r Record) Get(name string) (Value, bool) {
	for i := range r.Fields {
		if r.Fields[i].Name == name {
			return r.Fields[i].Value, true
		}
	}
	return Value{}, false
}

// Value is a cell: either text (from CSV and TSV) or a JSON value (from JSONL
// and Parquet, and in answers). The zero Value is JSON null.
type Value struct {
	s    string
	text bool
}

// Text makes a Value of a plain string.
func Text(s string) Value { return Value{s: s, text: true} }

// JSON makes a Value of one valid JSON value. It does not check.
func JSON(raw string) Value { return Value{s: raw} }

// Reader reads records one after the other.
//
// Next returns io.EOF after the last record. A *BadRecord error is one record
// that cannot be read: it counts, and reading goes on after it. Any other
// error is the end.
type Reader interface {
	Next() (Record, error)
	// Columns are the field names known before the first record: a CSV header, a
	// Parquet schema. Nil for JSONL, where each record names its own.
	Columns() []string
	// Progress is how much of the input has been read, from 0 to 1, for display;
	// negative when the size is unknown (a pipe).
	Progress() float64
	Close() error
}

// BadRecord is a record that the input holds but that cannot be read.
type BadRecord struct {
	Pos    int64
	Line   int64
	Reason string // what is wrong and, where there is something, what to do
	Raw    string // its text as far as it can be given
}

func (e *BadRecord) Error() string {
	return fmt.Sprintf("record %d (line %d): %s", e.Pos, e.Line, e.Reason)
}

// Column is a column that an answer adds to the records.
type Column struct {
	Name string
	Type string // JSON Schema type: string, integer, number, boolean, array, object; "" when mixed
}

// Writer writes records with the answer's values behind their own fields.
// added is in the order of the columns given when the Writer was made.
type Writer interface {
	Write(r Record, added []Value) error
	// Close finishes the stream (footer, compression) but not the file below it.
	Close() error
}

// IsText reports whether the value is plain text and not JSON.
func (v Value) IsText() bool { return v.text }

// JSON returns the value as JSON: text as a JSON string, the zero Value as null.
func (v Value) JSON() json.RawMessage {
	return v.appendJSON(nil)
}

func (v Value) appendJSON(dst []byte) []byte {
	switch {
	case v.text:
		return appendString(dst, v.s)
	case v.s == "":
		return append(dst, "null"...)
	}
	return append(dst, v.s...)
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
	n := len(dst)
	dst, err := jsontext.AppendQuote(dst, s)
	if err != nil { // only invalid UTF-8, which readers refuse
		dst, _ = jsontext.AppendQuote(dst[:n], strings.ToValidUTF8(s, "\uFFFD"))
	}
	return dst
}

// String returns the value as a person would write it in a cell: text as it
// is, a JSON string without its quotes, null as nothing, any other JSON as JSON
// without white space.
func (v Value) String() string {
	if v.text {
		return v.s
	}
	if v.s == "" || v.s == "null" {
		return ""
	}
	switch v.s[0] {
	case '"':
		if inner := v.s[1:max(1, len(v.s)-1)]; strings.IndexByte(inner, '\\') < 0 {
			return inner
		}
		if s, err := jsontext.AppendUnquote(nil, v.s); err == nil {
			return string(s)
		}
	case '{', '[':
		if strings.ContainsAny(v.s, " \t\r\n") {
			b := jsontext.Value(v.s)
			if b.Compact() == nil {
				return string(b)
			}
		}
	}
	return v.s
}
