package record

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// csvWriter writes RFC 4180 with LF line ends. encoding/csv would do, but takes
// every record as strings and half the speed; a fuzz test reads its output back
// with encoding/csv.
type csvWriter struct {
	output
	delim   byte
	special [256]bool // what makes a cell need quotes
	columns []Column
	layout  layout
	known   bool // the records' columns are known
	values  []Value

	neutralised int64
}

// Neutralised is the number of cells that got an apostrophe in front.
func (c *csvWriter) Neutralised() int64 { return c.neutralised }

func newCSVWriter(w io.Writer, format Format, columns []string, added []Column, opts WriteOptions) (*csvWriter, error) {
	c := &csvWriter{output: output{w: w}, delim: opts.Delimiter, columns: added}
	if c.delim == 0 {
		c.delim = ','
		if format == TSV {
			c.delim = '\t'
		} else if from, ok := opts.From.(*csvReader); ok && from.format == format {
			c.delim = from.delim
		}
	}
	if c.delim == '"' || c.delim == '\r' || c.delim == '\n' || c.delim >= utf8.RuneSelf {
		return nil, errors.New("the delimiter must be an ASCII character other than a quote and a line end")
	}
	c.special['"'], c.special['\r'], c.special['\n'], c.special[c.delim] = true, true, true, true
	if columns != nil {
		c.begin(columns)
	}
	return c, nil
}

// begin fixes the records' columns and writes the header.
func (c *csvWriter) begin(columns []string) {
	c.layout = newLayout(columns, c.columns)
	c.known = true
	for i, name := range c.layout.names {
		if i > 0 {
			c.buf = append(c.buf, c.delim)
		}
		// Readers, ours too, guess the delimiter from the header line.
		if strings.ContainsAny(name, ",;\t") || strings.HasPrefix(name, "sep=") {
			c.buf = appendQuoted(c.buf, name)
		} else {
			c.buf = c.appendCell(c.buf, name)
		}
	}
	if len(c.layout.names) > 0 {
		c.buf = append(c.buf, '\n')
	}
}

// Write writes one line, which may hold line ends within its cells.
func (c *csvWriter) Write(r Record, added []Value) error {
	if c.err != nil {
		return c.err
	}
	if err := checkAdded(r, added, c.columns); err != nil {
		return err
	}
	if !c.known {
		names := make([]string, len(r.Fields))
		for i, f := range r.Fields {
			names[i] = f.Name
		}
		c.begin(names)
	}
	values, err := c.layout.align(r, c.values)
	if err != nil {
		return fmt.Errorf("record %d has the %w, which the header written for the first record lacks: "+
			"write JSONL instead, where each record may have fields of its own", r.Pos, err)
	}
	c.values = values
	start := len(c.buf)
	for i := range c.layout.names {
		if i > 0 {
			c.buf = append(c.buf, c.delim)
		}
		if j := c.layout.added[i]; j >= 0 {
			cell := added[j].String()
			safe := neutral(cell)
			if len(safe) != len(cell) {
				c.neutralised++
			}
			c.buf = c.appendCell(c.buf, safe)
		} else {
			c.buf = c.appendCell(c.buf, values[c.layout.own[i]].String())
		}
	}
	if len(c.buf) == start && len(c.layout.names) > 0 {
		c.buf = append(c.buf, '"', '"') // a blank line would be no record
	}
	c.buf = append(c.buf, '\n')
	return c.spill()
}

// Close writes what is held back, the header at least.
func (c *csvWriter) Close() error {
	if !c.known {
		c.begin(nil)
	}
	return c.Flush()
}

func (c *csvWriter) appendCell(dst []byte, cell string) []byte {
	if cell == "" {
		return dst
	}
	// White space in front is lost on some readers, \. is the end for Postgres.
	quote := cell[0] == ' ' || cell[0] == '\t' || cell == `\.`
	for i := 0; i < len(cell) && !quote; i++ {
		quote = c.special[cell[i]]
	}
	if !quote {
		return append(dst, cell...)
	}
	return appendQuoted(dst, cell)
}

func appendQuoted(dst []byte, cell string) []byte {
	dst = append(dst, '"')
	for {
		i := strings.IndexByte(cell, '"')
		if i < 0 {
			break
		}
		dst = append(dst, cell[:i+1]...)
		dst = append(dst, '"')
		cell = cell[i+1:]
	}
	dst = append(dst, cell...)
	return append(dst, '"')
}

// neutral puts an apostrophe before a cell that a spreadsheet would take for a
// formula. What to look for is from OWASP's page on CSV injection.
func neutral(cell string) string {
	if cell == "" {
		return cell
	}
	switch cell[0] {
	case '=', '@', '\t', '\r':
		return "'" + cell
	case '+', '-':
		if !plainNumber(cell[1:]) {
			return "'" + cell
		}
	}
	return cell
}

// plainNumber reports whether s is digits with at most one point among or
// before them and at most an exponent behind.
func plainNumber(s string) bool {
	digits := func() (n int) {
		for n < len(s) && '0' <= s[n] && s[n] <= '9' {
			n++
		}
		s = s[n:]
		return n
	}
	n := digits()
	if strings.HasPrefix(s, ".") {
		s = s[1:]
		n += digits()
	}
	if n == 0 {
		return false
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		if s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if digits() == 0 {
			return false
		}
	}
	return s == ""
}
