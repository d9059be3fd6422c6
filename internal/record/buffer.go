package record

import (
	"bytes"
	"errors"
	"io"
)

const (
	bufferSize = 256 << 10 // read at a time
	rawMax     = 64 << 10  // of a record's text kept in a BadRecord

	// DefaultMaxRecord is the most bytes a record may have unless
	// ReadOptions.MaxRecord says otherwise.
	DefaultMaxRecord = 256 << 20
)

// errTooLong says that a line or record is longer than allowed.
var errTooLong = errors.New("too long")

// buffer is a window on a stream that grows to hold one record. Offsets are
// relative to the first byte not yet consumed, so that they stay good while the
// window moves.
type buffer struct {
	r          io.Reader
	buf        []byte
	start, end int
	err        error // of r, io.EOF included; the window may still hold bytes
	max        int   // bytes that one record may have
	mac        bool  // a lone CR ends a line too
}

func newBuffer(r io.Reader, limit int) *buffer {
	if limit <= 0 {
		limit = DefaultMaxRecord
	}
	return &buffer{r: r, buf: make([]byte, bufferSize), max: limit}
}

// bytes is the window.
func (b *buffer) bytes() []byte { return b.buf[b.start:b.end] }

// more adds bytes to the window. It returns false at the end of the stream.
func (b *buffer) more() bool {
	if b.err != nil {
		return false
	}
	if b.start > 0 && (b.start == b.end || b.end == len(b.buf)) {
		b.end = copy(b.buf, b.buf[b.start:b.end])
		b.start = 0
		// One huge record must not leave a huge buffer behind.
		if len(b.buf) > 16*bufferSize && b.end < bufferSize {
			b.buf = append(make([]byte, 0, bufferSize), b.buf[:b.end]...)
			b.buf = b.buf[:bufferSize]
		}
	}
	if b.end == len(b.buf) {
		b.buf = append(b.buf, make([]byte, len(b.buf))...)
	}
	for range 100 {
		n, err := b.r.Read(b.buf[b.end:])
		b.end += n
		if err != nil {
			b.err = err
		}
		if n > 0 || err != nil {
			return n > 0
		}
	}
	b.err = io.ErrNoProgress
	return false
}

// failed returns the error that cut the stream short, nil at a proper end.
func (b *buffer) failed() error {
	if errors.Is(b.err, io.EOF) {
		return nil
	}
	return b.err
}

// consume drops the first n bytes of the window.
func (b *buffer) consume(n int) { b.start += n }

// brokenOff reports whether the stream failed within the first size bytes of
// the window, a line without its end, or before there were any.
func (b *buffer) brokenOff(size int) bool {
	return b.failed() != nil && size == len(b.bytes()) && !b.endsLine(size)
}

// endsLine reports whether a line end is right before offset at.
func (b *buffer) endsLine(at int) bool {
	if at == 0 {
		return false
	}
	ch := b.bytes()[at-1]
	return ch == '\n' || b.mac && ch == '\r'
}

// line finds the end of the line that holds offset from. The line's text ends
// at end, the next line begins at next. At the end of the stream the last line
// may lack its line end. It returns errTooLong when the record, which began at
// offset 0, passes the limit; the line end may then not have been found, and
// next is the end of the window.
func (b *buffer) line(from int) (end, next int, err error) {
	for search := from; ; {
		data := b.bytes()
		if i := b.lineEnd(data[search:]); i >= 0 {
			end = search + i
			next = end + 1
			if data[end] == '\r' { // and a lone CR counts, so see if it is alone
				if (next < len(data) || b.more()) && b.bytes()[next] == '\n' {
					next++
				}
			} else if end > from && data[end-1] == '\r' {
				end--
			}
			break
		}
		search = len(data)
		if search > b.max || !b.more() {
			end, next = search, search
			if end > from && data[end-1] == '\r' {
				end--
			}
			break
		}
	}
	if end > b.max {
		return end, next, errTooLong
	}
	return end, next, nil
}

func (b *buffer) lineEnd(data []byte) int {
	if b.mac {
		return bytes.IndexAny(data, "\r\n")
	}
	return bytes.IndexByte(data, '\n')
}

// skipLine drops the rest of a line, however long it is, without keeping it. It
// reports whether it found the line's end.
func (b *buffer) skipLine() bool {
	for {
		data := b.bytes()
		if i := b.lineEnd(data); i >= 0 {
			_, next, _ := b.line(i) // finds it at once, and the LF behind a CR
			b.consume(next)
			return true
		}
		b.consume(len(data))
		if !b.more() {
			return false
		}
	}
}

// lines counts the line ends in data.
func (b *buffer) lines(data []byte) int64 {
	n := bytes.Count(data, []byte{'\n'})
	if b.mac {
		n += bytes.Count(data, []byte{'\r'}) - bytes.Count(data, []byte("\r\n"))
	}
	return int64(n)
}

// clip gives text as a BadRecord may carry it: at most rawMax bytes of valid
// UTF-8.
func clip(text []byte) string {
	return string(bytes.ToValidUTF8(text[:min(len(text), rawMax)], []byte("\uFFFD")))
}
