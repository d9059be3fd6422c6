package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// jsonlReader reads one JSON object a line.
type jsonlReader struct {
	*source
	b       *buffer
	charset string
	pos     int64
	line    int64
	done    error

	dec  *jsontext.Decoder
	text bytes.Buffer // what dec reads
	// Records mostly have the same names in the same order: those of the last one,
	// as they stood in it and as they read, save making them again.
	quoted, names []string
}

func newJSONLReader(s *source, b *buffer, charset string) *jsonlReader {
	// Outside strings, and they cannot hold one, a CR is white space in JSON. So it
	// ends lines only where nothing else does.
	b.more()
	b.mac = bytes.IndexByte(b.bytes(), '\n') < 0 && bytes.IndexByte(b.bytes(), '\r') >= 0
	r := &jsonlReader{source: s, b: b, charset: charset, line: 1}
	r.dec = jsontext.NewDecoder(&r.text)
	return r
}

// Columns is nil: each record names its own.
func (j *jsonlReader) Columns() []string { return nil }

// Next reads the next line that is not blank.
func (j *jsonlReader) Next() (Record, error) {
	for j.done == nil {
		end, next, err := j.b.line(0)
		switch {
		case j.b.brokenOff(next):
			j.done = j.broken(j.b.failed(), j.pos)
			continue
		case next == 0 && j.pos == 0:
			j.done = j.errorf("%w: it holds only blank lines", ErrEmpty)
			continue
		case next == 0:
			j.done = io.EOF
			continue
		}
		line := j.b.bytes()[:end]
		if err == nil && len(bytes.Trim(line, " \t\r\n")) == 0 {
			j.advance(next)
			continue
		}
		j.pos++
		var fields []Field
		reason := ""
		if err != nil {
			reason = fmt.Sprintf("the line is longer than %d MB: is this another format?", j.b.max>>20)
		} else {
			fields, reason = j.parse(line)
		}
		at := j.line
		if reason == "" {
			j.advance(next)
			return Record{Pos: j.pos, Line: at, Fields: fields}, nil
		}
		bad := &BadRecord{Pos: j.pos, Line: at, Reason: reason, Raw: clip(line)}
		whole := j.b.endsLine(next)
		j.advance(next)
		if err != nil && !whole && j.b.skipLine() {
			j.line++
		}
		return Record{}, bad
	}
	return Record{}, j.done
}

func (j *jsonlReader) advance(size int) {
	j.line += j.b.lines(j.b.bytes()[:size])
	j.b.consume(size)
}

// parse cuts a line into fields, or says why it cannot. The fields' values are
// parts of one copy of the line, byte for byte.
func (j *jsonlReader) parse(line []byte) (fields []Field, reason string) {
	text := string(line)
	j.reset(line)
	switch j.dec.PeekKind() {
	case '{':
	case '[':
		return nil, "is a JSON array, not an object: if the input is one array of objects, `jq -c '.[]'` makes JSONL of it"
	case 'n', 't', 'f', '"', '0':
		return nil, "is a JSON value but not an object: each line must be one, such as {\"id\": 1}"
	default:
		return nil, "is not JSON: each line must be an object, such as {\"id\": 1}"
	}
	if _, err := j.dec.ReadToken(); err != nil {
		return nil, j.reason(line, err)
	}
	fields = make([]Field, 0, len(j.names))
	for j.dec.PeekKind() == '"' {
		name, err := j.dec.ReadValue()
		if err != nil {
			return nil, j.reason(line, err)
		}
		i := len(fields)
		if i == len(j.names) || string(name) != j.quoted[i] {
			plain, err := jsontext.AppendUnquote(nil, name)
			if err != nil {
				return nil, j.reason(line, err)
			}
			if i == len(j.names) {
				j.quoted, j.names = append(j.quoted, ""), append(j.names, "")
			}
			j.quoted[i], j.names[i] = string(name), string(plain)
		}
		value, err := j.dec.ReadValue()
		if err != nil {
			return nil, j.reason(line, err)
		}
		at := int(j.dec.InputOffset())
		fields = append(fields, Field{Name: j.names[i], Value: JSON(text[at-len(value) : at])})
	}
	if _, err := j.dec.ReadToken(); err != nil {
		return nil, j.reason(line, err)
	}
	if _, err := j.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, "has more behind its JSON object: put each object on a line of its own"
	}
	if replaces(j.charset) && !readable(line, j.charset) {
		return nil, encodingReason("the line", j.charset)
	}
	return fields, ""
}

func (j *jsonlReader) reset(line []byte, opts ...jsontext.Options) {
	j.text = *bytes.NewBuffer(line)
	j.dec.Reset(&j.text, opts...)
}

// reason says what is wrong with a line, naming the field but no values.
func (j *jsonlReader) reason(line []byte, err error) string {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "breaks off before its JSON object ends: an object must stand on one line"
	}
	var where, what string
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if ok {
		what = syntax.Err.Error()
		if p := syntax.JSONPointer; p != "" {
			where = fmt.Sprintf("field %q ", p.LastToken())
			if p.Parent() != "" {
				where = fmt.Sprintf("field %s ", string(p))
			}
		}
	}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return fmt.Sprintf("%sappears twice: give each field a name of its own", where)
	case !readable(line, ""):
		if where == "" {
			where = "the line "
		}
		return encodingReason(where[:len(where)-1], j.charset)
	case ok:
		return fmt.Sprintf("%sis not valid JSON (byte %d of the line): %s", where, syntax.ByteOffset+1, what)
	}
	return "is not valid JSON"
}
