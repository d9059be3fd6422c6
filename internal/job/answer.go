package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// InvalidError is an answer that cannot be used, in words that tell the model
// what to mend: `/sentiment: must be one of "good", "bad"; got "great"`.
type InvalidError struct {
	Message string // for the model; quotes a little of the answer
	reason  string // the same without contents
}

// Error is the message without what the answer held, fit for a log or a reason.
func (e *InvalidError) Error() string { return e.reason }

// Invalid makes the error of a Check: message is for the model, reason is the
// same without contents of the record or the answer.
func Invalid(message, reason string) *InvalidError { return &InvalidError{message, reason} }

func invalidf(format string, args ...any) *InvalidError {
	s := fmt.Sprintf(format, args...)
	return &InvalidError{s, s}
}

// Decode turns a model's reply into an answer. Reasoning (<think>), code
// fences and prose around it are passed over, but there must be exactly one
// JSON object, and it must fit the whole schema. The answer is compact JSON
// with its properties in the schema's order, others behind them by name. The
// error is an *InvalidError.
func (j *Job) Decode(text string) (json.RawMessage, error) {
	v, problem := findObject(text)
	if problem != nil {
		return nil, problem
	}
	return j.schema.accept(v)
}

// Validate checks an answer that Prepare gave. It returns it as Decode would
// return it. The error is an *InvalidError.
func (j *Job) Validate(answer json.RawMessage) (json.RawMessage, error) {
	text := strings.TrimSpace(string(answer))
	v, n, err := readJSON(text)
	if err == nil && strings.TrimSpace(text[n:]) != "" {
		return nil, invalidf("there is something behind the JSON object")
	}
	if err != nil {
		return nil, syntaxProblem(err)
	}
	return j.schema.accept(v)
}

// accept validates a decoded value and writes it in canonical form.
func (s *schema) accept(v any) (json.RawMessage, error) {
	if err := s.compiled.Validate(v); err != nil {
		return nil, invalid(err, v)
	}
	return appendShaped(make([]byte, 0, 128), v, s.shape), nil
}

// appendShaped writes v as compact JSON, properties in the order of the shape
// and others behind them by name.
func appendShaped(dst []byte, v any, sh *shape) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return strconv.AppendBool(dst, v)
	case json.Number:
		return append(dst, v...)
	case string:
		return quoteJSON(dst, v)
	case []any:
		var items *shape
		if sh != nil {
			items = sh.items
		}
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendShaped(dst, e, items)
		}
		return append(dst, ']')
	case map[string]any:
		return appendObject(dst, v, sh)
	}
	return append(dst, "null"...) // readJSON makes nothing else
}

func appendObject(dst []byte, v map[string]any, sh *shape) []byte {
	dst = append(dst, '{')
	start := len(dst)
	written := 0
	if sh != nil {
		for i := range sh.props {
			p := &sh.props[i]
			e, ok := v[p.name]
			if !ok {
				continue
			}
			if len(dst) > start {
				dst = append(dst, ',')
			}
			dst = append(dst, p.quoted...)
			dst = appendShaped(dst, e, p.value)
			written++
		}
	}
	if written < len(v) {
		var extra []string
		for name := range v {
			if sh != nil {
				if _, ok := sh.byName[name]; ok {
					continue
				}
			}
			extra = append(extra, name)
		}
		slices.Sort(extra)
		for _, name := range extra {
			if len(dst) > start {
				dst = append(dst, ',')
			}
			dst = append(quoteJSON(dst, name), ':')
			dst = appendShaped(dst, v[name], nil)
		}
	}
	return append(dst, '}')
}

// findObject finds the one JSON object of a reply.
func findObject(text string) (map[string]any, *InvalidError) {
	text = strings.TrimSpace(text)
	if rest, ok := afterThinking(text); ok {
		return findObject(rest) // what was drafted before it is no answer
	}
	var found map[string]any
	for i := 0; ; {
		n := strings.IndexByte(text[i:], '{')
		if n < 0 {
			break
		}
		i += n
		v, used, err := readJSON(text[i:])
		switch {
		case err == nil:
			if found != nil {
				return nil, invalidf("the reply holds more than one JSON object; answer with exactly one")
			}
			found = v.(map[string]any) //nolint:forcetypeassert // it began with {
			if before := strings.TrimSpace(text[:i]); strings.HasSuffix(before, "[") && strings.HasPrefix(strings.TrimSpace(text[i+used:]), "]") {
				return nil, invalidf("the answer must be one JSON object, not a list")
			}
			i += used
		case looksLikeObject(text[i:]):
			// An object inside a broken one is not the answer.
			return nil, syntaxProblem(err)
		default: // a brace in prose
			i++
		}
	}
	if found == nil {
		return nil, invalidf("the reply holds no JSON object")
	}
	return found, nil
}

// afterThinking is what stands behind a model's reasoning. Some templates
// swallow the opening tag.
func afterThinking(text string) (string, bool) {
	if strings.HasPrefix(text, "{") {
		return "", false
	}
	_, rest, ok := strings.Cut(text, "</think>")
	return strings.TrimSpace(rest), ok
}

// looksLikeObject tells a JSON object, perhaps broken, from a brace in prose.
func looksLikeObject(text string) bool {
	rest := strings.TrimLeft(text[1:], " \t\r\n")
	if rest == "" {
		return true // cut off
	}
	if rest[0] != '"' {
		return false
	}
	end := skipString(rest, 0)
	rest = strings.TrimLeft(rest[end:], " \t\r\n")
	return rest == "" || rest[0] == ':'
}

func syntaxProblem(err error) *InvalidError {
	if e, ok := errors.AsType[*InvalidError](err); ok {
		return e
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return invalidf("the JSON object is cut off before its end")
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			return &InvalidError{fmt.Sprintf("%s: is given twice", e.JSONPointer), "a property is given twice"}
		}
		return invalidf("a property is given twice")
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return &InvalidError{
			fmt.Sprintf("not valid JSON at byte %d: %v", e.ByteOffset, e.Err),
			fmt.Sprintf("not valid JSON at byte %d", e.ByteOffset),
		}
	}
	return invalidf("not valid JSON")
}

// readJSON reads the JSON value at the start of text and says how many bytes
// it takes. Numbers are json.Number.
func readJSON(text string) (v any, used int, err error) {
	d := jsontext.NewDecoder(strings.NewReader(text))
	v, err = readAny(d)
	return v, int(d.InputOffset()), err
}

// maxNumber is how long a number and how large its exponent may be, so that
// checking it against a bound costs no more than it should.
const maxNumber = 300

func readAny(d *jsontext.Decoder) (any, error) {
	tok, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch tok.Kind() {
	case '{':
		m := make(map[string]any)
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String()
			v, err := readAny(d)
			if err != nil {
				return nil, err
			}
			m[key] = v
		}
		_, err := d.ReadToken()
		return m, err
	case '[':
		a := []any{}
		for d.PeekKind() != ']' {
			v, err := readAny(d)
			if err != nil {
				return nil, err
			}
			a = append(a, v)
		}
		_, err := d.ReadToken()
		return a, err
	case '"':
		return tok.String(), nil
	case '0':
		n := tok.String()
		if _, exponent, ok := strings.Cut(strings.ToLower(n), "e"); ok {
			if e, err := strconv.Atoi(exponent); err != nil || e > maxNumber || e < -maxNumber {
				return nil, invalidf("%s: the number is out of range", d.StackPointer())
			}
		}
		if len(n) > maxNumber {
			return nil, invalidf("%s: the number is too long", d.StackPointer())
		}
		return json.Number(n), nil
	case 't':
		return true, nil
	case 'f':
		return false, nil
	}
	return nil, nil
}

// invalid puts what a validator found into words.
func invalid(err error, v any) *InvalidError {
	e, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return invalidf("the answer does not fit the schema")
	}
	const most = 5
	var message, reason []string
	faults := explain(e, v)
	slices.SortStableFunc(faults, func(a, b fault) int { return slices.Compare(a.path, b.path) })
	for i, f := range faults {
		if i == most {
			break
		}
		message = append(message, f.String(true))
		reason = append(reason, f.String(false))
	}
	return &InvalidError{strings.Join(message, "\n"), strings.Join(reason, "; ")}
}
