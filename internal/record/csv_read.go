package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// csvReader reads RFC 4180 as encoding/csv does, and a fuzz test holds it to
// that. It is not encoding/csv because that one turns CR LF inside a cell into
// LF, knows no lone CR as a line end, keeps no text of a bad record, and would
// take the rest of any input into memory behind a quote that is never closed.
type csvReader struct {
	*source
	b       *buffer
	format  Format
	delim   byte
	lazy    bool
	charset string
	columns []string
	pos     int64
	line    int64 // of the first byte in the window
	done    error

	cells []byte // those of the record at hand, without their quotes, one behind the other
	gap   int    // 1: they stand in the window still, a delimiter behind each
	ends  []int  // where each ends
}

func newCSVReader(s *source, b *buffer, format Format, charset string, opts ReadOptions) (*csvReader, error) {
	c := &csvReader{source: s, b: b, format: format, delim: opts.Delimiter, lazy: opts.LazyQuotes, charset: charset, line: 1}
	switch c.delim {
	case '"', '\r', '\n':
		return nil, s.errorf("a quote or a line end cannot be the delimiter")
	case 0:
		if format == TSV {
			c.delim = '\t'
		}
	}
	if c.delim >= utf8.RuneSelf {
		return nil, s.errorf("the delimiter must be an ASCII character")
	}
	c.sniff()
	if err := c.header(); err != nil {
		return nil, err
	}
	return c, nil
}

// sniff learns from the header line how lines end and, if it is not given, what
// parts the cells.
func (c *csvReader) sniff() {
	const most = 1 << 20
	var (
		quoted                   bool
		commas, semicolons, tabs int
	)
scan:
	for i := range most {
		if i >= len(c.b.bytes()) && !c.b.more() {
			break
		}
		switch ch := c.b.bytes()[i]; {
		case ch == '"':
			quoted = !quoted
		case quoted:
		case ch == ',':
			commas++
		case ch == ';':
			semicolons++
		case ch == '\t':
			tabs++
		case ch == '\n' && commas+semicolons+tabs == 0 && len(bytes.TrimSpace(c.b.bytes()[:i])) == 0:
			// A blank line: the header is further down.
		case ch == '\n':
			break scan
		case ch == '\r':
			if i+1 < len(c.b.bytes()) || c.b.more() {
				c.b.mac = c.b.bytes()[i+1] != '\n'
			}
			if c.b.mac {
				break scan
			}
		}
	}
	if c.delim != 0 {
		return
	}
	// Excel's own way to name the delimiter.
	if end, next, err := c.b.line(0); err == nil {
		if rest, ok := bytes.CutPrefix(c.b.bytes()[:end], []byte("sep=")); ok && len(rest) == 1 && rest[0] != '"' && rest[0] < utf8.RuneSelf {
			c.delim = rest[0]
			c.b.consume(next)
			c.line++
			return
		}
	}
	switch {
	case commas == 0 && semicolons > 0:
		c.delim = ';'
	case commas == 0 && tabs > 0:
		c.delim = '\t'
	default:
		c.delim = ','
	}
}

func (c *csvReader) header() error {
	at, size, err := c.scan()
	switch {
	case c.b.brokenOff(size):
		return c.broken(c.b.failed(), 0)
	case errors.Is(err, io.EOF):
		return c.errorf("%w: it holds only blank lines", ErrEmpty)
	case err != nil:
		return c.errorf("line %d, the header: %w", at, err)
	}
	text, begin := c.text(), 0
	names := make([]string, len(c.ends))
	for i, end := range c.ends {
		if names[i] = text[begin:end]; !readable([]byte(names[i]), c.charset) {
			return c.errorf("line %d, the header: %s", at, encodingReason(fmt.Sprintf("the name of column %d", i+1), c.charset))
		}
		begin = end + c.gap
	}
	first := make(map[string]int, len(names))
	var wrong []string
	for i, name := range names {
		if strings.TrimSpace(name) == "" {
			wrong = append(wrong, fmt.Sprintf("column %d has no name", i+1))
		} else if j, ok := first[name]; ok {
			wrong = append(wrong, fmt.Sprintf("columns %d and %d are both named %q", j+1, i+1, name))
		} else {
			first[name] = i
		}
	}
	if len(wrong) > 0 {
		more := ""
		if len(wrong) > 5 {
			more = fmt.Sprintf(" and %d more", len(wrong)-5)
			wrong = wrong[:5]
		}
		return c.errorf("line %d, the header: %s%s: give every column a name of its own", at, strings.Join(wrong, ", "), more)
	}
	c.columns = names
	c.advance(size)
	return nil
}

// Columns are the names in the header.
func (c *csvReader) Columns() []string { return c.columns }

// Next reads the next line that is not blank.
func (c *csvReader) Next() (Record, error) {
	if c.done != nil {
		return Record{}, c.done
	}
	at, size, err := c.scan()
	switch {
	case c.b.brokenOff(size):
		c.done = c.broken(c.b.failed(), c.pos)
		return Record{}, c.done
	case errors.Is(err, io.EOF):
		c.done = err
		return Record{}, err
	}
	c.pos++
	if err != nil {
		return Record{}, c.bad(at, size, err)
	}
	if len(c.ends) != len(c.columns) {
		return Record{}, c.bad(at, size, fmt.Errorf("has %s, the header has %d", plural(len(c.ends), "cell"), len(c.columns)))
	}
	text := c.text()
	fields := make([]Field, len(c.columns))
	begin := 0
	for i, end := range c.ends {
		fields[i] = Field{Name: c.columns[i], Value: Text(text[begin:end])}
		begin = end + c.gap
	}
	// The bytes in the window, as cells without their quotes may complete each
	// other's runes.
	if !readable(c.b.bytes()[:size], c.charset) {
		for _, f := range fields {
			if !readable([]byte(f.Value.s), c.charset) {
				return Record{}, c.bad(at, size, errors.New(encodingReason(fmt.Sprintf("column %q", f.Name), c.charset)))
			}
		}
	}
	c.advance(size)
	return Record{Pos: c.pos, Line: at, Fields: fields}, nil
}

// text is the text of the cells that scan found, with c.ends telling them apart.
func (c *csvReader) text() string {
	if c.gap == 1 {
		return string(c.b.bytes()[:c.ends[len(c.ends)-1]])
	}
	return string(c.cells)
}

// bad consumes a record and reports it.
func (c *csvReader) bad(line int64, size int, reason error) error {
	raw := c.b.bytes()[:size]
	e := &BadRecord{Pos: c.pos, Line: line, Reason: reason.Error(), Raw: clip(bytes.TrimRight(raw, "\r\n"))}
	quoted := bytes.Count(raw, []byte{'"'})%2 == 1
	whole := c.b.endsLine(size) && !quoted
	c.advance(size)
	if errors.Is(reason, errTooLong) && !whole {
		c.skip(quoted)
	}
	return e
}

// skip drops the rest of a record, however long, without keeping it; quoted says
// whether it stands within a quoted cell.
func (c *csvReader) skip(quoted bool) {
	for {
		data := c.b.bytes()
		i := bytes.IndexByte(data, '"')
		if !quoted {
			if end := c.b.lineEnd(data); end >= 0 && (i < 0 || end < i) {
				_, next, _ := c.b.line(end) // finds it at once, and the LF behind a CR
				c.advance(next)
				return
			}
		}
		if i >= 0 {
			c.advance(i + 1)
			quoted = !quoted // a quote written twice changes it twice
			continue
		}
		c.advance(len(data))
		if !c.b.more() {
			return
		}
	}
}

func (c *csvReader) advance(size int) {
	c.line += c.b.lines(c.b.bytes()[:size])
	c.b.consume(size)
}

// scan finds the next record that is not a blank line: the line it begins on
// and its size in the window, line end included. Its cells are then in text. An
// error other than io.EOF says what is wrong with the record, and size is how
// much of the window it takes with it.
func (c *csvReader) scan() (line int64, size int, err error) {
	c.cells, c.ends = c.cells[:0], c.ends[:0]
	if cap(c.cells) > 16*bufferSize { // left by one huge record
		c.cells = nil
	}
	for {
		end, next, err := c.b.line(0)
		switch {
		case next == 0:
			return c.line, 0, io.EOF
		case err != nil:
			return c.line, next, c.tooLong("the line")
		case end == 0:
			c.advance(next)
			continue
		}
		text := c.b.bytes()[:end]
		if bytes.IndexByte(text, '"') >= 0 {
			c.gap = 0
			size, err := c.scanQuoted(end, next)
			return c.line, size, err
		}
		// Most records have no quote: their cells are the line with delimiters between.
		c.gap = 1
		for at := 0; ; {
			i := bytes.IndexByte(text[at:], c.delim)
			if i < 0 {
				c.ends = append(c.ends, end)
				return c.line, next, nil
			}
			c.ends = append(c.ends, at+i)
			at += i + 1
		}
	}
}

// scanQuoted cuts a record some of whose cells may be quoted. Its first line
// ends at end, the one behind begins at next.
func (c *csvReader) scanQuoted(end, next int) (size int, err error) {
	for at := 0; ; {
		if at == end || c.b.bytes()[at] != '"' {
			cell := c.b.bytes()[at:end]
			i := bytes.IndexByte(cell, c.delim)
			if i >= 0 {
				cell = cell[:i]
			}
			if !c.lazy && bytes.IndexByte(cell, '"') >= 0 {
				return next, fmt.Errorf("%s holds a quote but does not begin with one: "+
					`put the whole cell in quotes and write the quote twice ("")`, c.cellName())
			}
			c.addCell(cell)
			if i < 0 {
				return next, nil
			}
			at += i + 1
			continue
		}
		opened := at
		at++
		for {
			i := bytes.IndexByte(c.b.bytes()[at:end], '"')
			if i < 0 { // the cell goes on in the next line
				c.cells = append(c.cells, c.b.bytes()[at:next]...)
				at = next
				if at == len(c.b.bytes()) && !c.b.more() {
					first := c.line + c.b.lines(c.b.bytes()[:opened])
					if c.lazy {
						c.ends = append(c.ends, len(c.cells))
						return next, nil
					}
					return next, fmt.Errorf("the quote that %s opens on line %d is never closed: everything from there to "+
						"the end of the input is lost to this record; close the quote", c.cellName(), first)
				}
				if end, next, err = c.b.line(at); err != nil {
					return next, c.tooLong(fmt.Sprintf("%s, whose quote opens on line %d,",
						c.cellName(), c.line+c.b.lines(c.b.bytes()[:opened])))
				}
				continue
			}
			c.cells = append(c.cells, c.b.bytes()[at:at+i]...)
			at += i + 1
			if at == end || c.b.bytes()[at] == c.delim {
				break
			}
			if c.b.bytes()[at] == '"' {
				c.cells = append(c.cells, '"')
				at++
				continue
			}
			if !c.lazy {
				return next, fmt.Errorf(`%s has text behind its closing quote: write a quote inside a cell twice ("")`, c.cellName())
			}
			c.cells = append(c.cells, '"')
		}
		c.ends = append(c.ends, len(c.cells))
		if at == end {
			return next, nil
		}
		at++ // the delimiter
	}
}

func (c *csvReader) addCell(cell []byte) {
	c.cells = append(c.cells, cell...)
	c.ends = append(c.ends, len(c.cells))
}

// cellName names the cell that is being cut.
func (c *csvReader) cellName() string {
	i := len(c.ends)
	if i < len(c.columns) {
		return fmt.Sprintf("column %q", c.columns[i])
	}
	return fmt.Sprintf("cell %d", i+1)
}

func (c *csvReader) tooLong(what string) error {
	return fmt.Errorf("%s makes a record of more than %d MB, which is %w: is a quote not closed, or is this another format?",
		what, c.b.max>>20, errTooLong)
}

// readable reports whether text came through its decoding whole.
func readable(text []byte, charset string) bool {
	return utf8.Valid(text) && (!replaces(charset) || !bytes.ContainsRune(text, utf8.RuneError))
}

func encodingReason(what, charset string) string {
	if charset != "" {
		return fmt.Sprintf("%s holds bytes that are not %s: is that the right --encoding?", what, charset)
	}
	return what + " is not valid UTF-8: if the input comes from Excel or an older Windows program, try --encoding windows-1252"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
