package llm

import (
	"bytes"
	"encoding/json"
	"html"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// DecodeJSON decodes a server's JSON: members are matched by their exact name,
// and text that is not UTF-8 or a name given twice is put up with.
func DecodeJSON(data []byte, to any) error {
	return jsonv2.Unmarshal(data, to, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
}

// ErrorFrom makes an *Error of a reply that tells of a failure. The status is 0
// for an error that came inside a reply that had begun well. The message is
// the server's own, in one line, without what is in private.
func ErrorFrom(status int, h http.Header, body []byte, private []Message) *Error {
	said := parseFailure(body)
	message := clean(hide(said.message, private))
	if message == "" {
		message = "server gave no reason"
		if s := http.StatusText(status); s != "" {
			message = s
		}
	}
	if to := h.Get("Location"); to != "" && status >= 300 && status < 400 {
		message = "server redirects to " + hideUser(clean(to)) + ": use that address"
	}
	return &Error{
		Kind:       kindOfFailure(status, said.code+" "+said.message),
		Status:     status,
		RetryAfter: RetryAfter(h.Get("Retry-After"), time.Now()),
		Message:    message,
	}
}

// NotProtocol is the error of a reply that came with a good status and is not
// what the protocol of the server named says: a proxy's web page, or text that
// does not decode. It repeats nothing of an answer.
func NotProtocol(server Kind, body []byte, cause error) *Error {
	e := &Error{Kind: Garbled, Err: cause}
	switch b := bytes.TrimSpace(body); {
	case len(b) == 0:
		e.Message = "reply is empty"
	case b[0] == '<':
		e.Message = "a web page came instead of a reply: " + clean(pageText(string(b)))
	default:
		e.Message = "reply of " + strconv.Itoa(len(body)) + " bytes is not what " + string(server) + " sends, or is cut short"
	}
	return e
}

// failure is what a server says about an error.
type failure struct {
	message string
	code    string // the codes and types beside it
}

// parseFailure reads the body of an error reply: Ollama's {"error": "..."},
// OpenAI's {"error": {"message": ..., "type": ..., "code": ...}}, vLLM's older
// form without the outer object, FastAPI's {"detail": ...}, one of them quoted
// inside another, a proxy's web page, or plain text.
func parseFailure(body []byte) failure {
	for range 3 { // an inner server's error may be quoted in the outer's
		trimmed := bytes.TrimSpace(body)
		if len(trimmed) == 0 {
			return failure{}
		}
		if trimmed[0] != '{' {
			break
		}
		var f failure
		var reply struct {
			Error   jsontext.Value `json:"error"`
			Message jsontext.Value `json:"message"`
			Detail  jsontext.Value `json:"detail"`
			Type    jsontext.Value `json:"type"`
			Code    jsontext.Value `json:"code"`
		}
		if DecodeJSON(trimmed, &reply) != nil {
			break
		}
		message := reply.Error
		if message.Kind() == jsontext.KindBeginObject {
			if reply.Message, reply.Detail = nil, nil; DecodeJSON(message, &reply) != nil {
				break
			}
			message = nil
		}
		f.code = scalarText(reply.Type) + " " + scalarText(reply.Code)
		for _, v := range []jsontext.Value{message, reply.Message, reply.Detail} {
			if f.message = failureText(v); f.message != "" {
				break
			}
		}
		if inner := strings.TrimSpace(f.message); strings.HasPrefix(inner, "{") {
			body = []byte(inner)
			continue
		}
		return f
	}
	s := strings.ToValidUTF8(string(body), "\ufffd")
	if strings.HasPrefix(strings.TrimSpace(s), "<") {
		return failure{message: pageText(s)}
	}
	if strings.HasPrefix(strings.TrimSpace(s), "{") {
		return failure{} // broken JSON says nothing to people
	}
	return failure{message: s}
}

// failureText is the text of a message, or of FastAPI's list of messages. The
// list also holds the input that was wrong, which is not for showing.
func failureText(v jsontext.Value) string {
	switch v.Kind() {
	case jsontext.KindString:
		return scalarText(v)
	case jsontext.KindBeginArray:
		var list []struct {
			Msg jsontext.Value `json:"msg"`
		}
		if DecodeJSON(v, &list) != nil {
			return ""
		}
		var parts []string
		for _, item := range list {
			if s := scalarText(item.Msg); s != "" {
				parts = append(parts, s)
			}
		}
		return strings.Join(parts, "; ")
	}
	return ""
}

func scalarText(v jsontext.Value) string {
	switch v.Kind() {
	case jsontext.KindString:
		var s string
		if json.Unmarshal(v, &s) == nil {
			return s
		}
	case jsontext.KindNumber:
		return string(v)
	}
	return ""
}

// pageText is the title of a web page, or the beginning of its text.
func pageText(page string) string {
	lower := strings.ToLower(page)
	if len(lower) != len(page) { // lower case of a different length: offsets differ
		lower = page
	}
	if _, from, ok := cutTag(page, lower, "title"); ok {
		if s := strings.TrimSpace(stripTags(from)); s != "" {
			return s
		}
	}
	for _, tag := range []string{"script", "style", "head"} {
		for {
			rest, _, ok := cutTag(page, lower, tag)
			if !ok {
				break
			}
			page, lower = rest, strings.ToLower(rest)
			if len(lower) != len(page) {
				lower = page
			}
		}
	}
	return stripTags(page)
}

// cutTag removes the first element of that name and returns its content.
func cutTag(page, lower, tag string) (rest, content string, ok bool) {
	from := strings.Index(lower, "<"+tag)
	if from < 0 {
		return page, "", false
	}
	open := strings.IndexByte(lower[from:], '>')
	if open < 0 {
		return page, "", false
	}
	open += from + 1
	end := strings.Index(lower[open:], "</"+tag)
	if end < 0 {
		return page[:from], page[open:], true
	}
	end += open
	after := len(page)
	if i := strings.IndexByte(lower[end:], '>'); i >= 0 {
		after = end + i + 1
	}
	return page[:from] + page[after:], page[open:end], true
}

func stripTags(s string) string {
	var b strings.Builder
	for s != "" {
		text, rest, tag := strings.Cut(s, "<")
		b.WriteString(text)
		if !tag {
			break
		}
		b.WriteByte(' ')
		_, s, _ = strings.Cut(rest, ">")
	}
	return html.UnescapeString(b.String())
}

// messageLimit is the most of a server's message that is kept, in characters.
const messageLimit = 240

// clean makes one printable line of a text, not longer than messageLimit.
func clean(s string) string {
	var b strings.Builder
	n, space := 0, false
	for _, r := range s {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			space = n > 0
			continue
		}
		if n >= messageLimit {
			b.WriteString(" …")
			break
		}
		if space {
			b.WriteByte(' ')
			n++
			space = false
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}

// hide takes out of a message what a server repeats of the request: records
// hold personal data.
func hide(message string, private []Message) string {
	for _, m := range private {
		if utf8.RuneCountInString(m.Content) >= 8 {
			message = strings.ReplaceAll(message, m.Content, "[…]")
		}
	}
	// pydantic's way of naming the wrong input
	for _, mark := range []string{"input_value=", "'input':", `"input":`} {
		if i := strings.Index(message, mark); i >= 0 {
			message = message[:i] + "[…]"
		}
	}
	return message
}

// kindOfFailure tells what an error means. Servers put different things under
// one status and one thing under different statuses (Ollama 0.17.4 gives 500
// for a schema it cannot use), so the words go first.
func kindOfFailure(status int, text string) ErrorKind {
	text = strings.ToLower(text)
	says := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case says("exceeds the context", "input length exceeds", "exceeds the available context", "exceed_context_size",
		"context_length_exceeded", "maximum context length", "maximum model length", "model's context length",
		"context size has been exceeded", "exceeds maximum context", "prompt is too long", "prompt too long",
		"trying to keep the first"): // LM Studio
		return TooLong
	case says("invalid json schema", "json schema conversion failed", "invalid format:", "grammar",
		"invalid schema", "unsupported schema", "not supported by xgrammar", "response_format"):
		return BadSchema
	case says("loading model", "model is loading", "still loading", "currently loading") &&
		!says("error loading", "failed loading", "failed to load"):
		return Loading
	case status < 500 && (says("model_not_found", "no models loaded", "no such model", "invalid model identifier") ||
		says("model") && says("not found", "does not exist")):
		return NoModel
	case says("insufficient_quota", "must be of type"): // the latter is Ollama's for a wrong option, with 500
		return Refused
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, status == http.StatusTooEarly,
		says("server busy", "no slots available", "maximum pending requests"):
		return Busy
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return Timeout
	case status == 499: // the server, or a proxy, lost sight of us
		return Unreachable
	case status >= 300 && status < 500:
		return Refused
	}
	return Failed
}

// RetryAfter reads a Retry-After header: seconds, or the HTTP date to wait for
// (RFC 9110, section 10.2.3). It is 0 for anything else and for the past.
func RetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if s, err := strconv.ParseFloat(value, 64); err == nil && s > 0 && s < 1e8 {
		return time.Duration(s * float64(time.Second))
	}
	if t, err := http.ParseTime(value); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}
