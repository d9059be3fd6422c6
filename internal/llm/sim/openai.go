package sim

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The OpenAI chat API, as Ollama, llama-server and vLLM speak it.

type openaiRequest struct {
	Model         string          `json:"model"`
	Messages      []openaiMessage `json:"messages"`
	Stream        bool            `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           *float64       `json:"max_tokens"`
	MaxCompletionTokens *float64       `json:"max_completion_tokens"`
	Temperature         *float64       `json:"temperature"`
	Seed                jsontext.Value `json:"seed"`
	Stop                jsontext.Value `json:"stop"`
	ResponseFormat      struct {
		Type       string         `json:"type"`
		Schema     jsontext.Value `json:"schema"` // llama-server takes it here too
		JSONSchema struct {
			Schema jsontext.Value `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
}

type openaiMessage struct {
	Role    string         `json:"role"`
	Content jsontext.Value `json:"content"` // text, or parts of which some are text
}

func (m openaiMessage) text() (string, error) {
	switch m.Content.Kind() {
	case '"':
		var s string
		return s, json.Unmarshal(m.Content, &s, lenient)
	case '[':
		var parts []struct {
			Text string `json:"text"`
		}
		err := json.Unmarshal(m.Content, &parts, lenient)
		var s strings.Builder
		for _, p := range parts {
			s.WriteString(p.Text)
		}
		return s.String(), err
	}
	return "", nil
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	s.json(w, http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
		mark
	}{"list", []model{{s.profile.Model.Name, "model", installed().Unix(), "library"}}, s.mark()})
}

func (s *Server) openaiFail(w http.ResponseWriter, status int, message string) {
	kind := "api_error"
	switch status {
	case http.StatusBadRequest:
		kind = "invalid_request_error"
	case http.StatusNotFound:
		kind = "not_found_error"
	}
	type body struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	s.json(w, status, struct {
		Error body `json:"error"`
		mark
	}{body{Message: message, Type: kind}, s.mark()})
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	var req openaiRequest
	if !s.decode(w, r, &req) {
		return
	}
	if !s.knows(req.Model) {
		s.openaiFail(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", req.Model))
		return
	}
	if len(req.Messages) == 0 {
		s.openaiFail(w, http.StatusBadRequest, "[] is too short - 'messages'")
		return
	}
	q, err := s.openaiQuestion(&req)
	if err != nil {
		s.openaiFail(w, http.StatusBadRequest, err.Error())
		return
	}
	if n := tokens(q.prompt); n > s.contextOf(q) {
		// Ollama's /v1 would cut it silently; servers of other makes refuse.
		s.openaiFail(w, http.StatusBadRequest, fmt.Sprintf(
			"the request exceeds the available context size: %d tokens, context %d", n, s.contextOf(q)))
		return
	}
	s.enter()
	defer s.leave()
	f := s.receive(q)
	if s.suffer(w, r, f) {
		return
	}
	s.mu.Lock()
	s.serial++
	id := "chatcmpl-" + strconv.FormatUint(s.serial, 10)
	s.mu.Unlock()
	if q.stream {
		s.openaiStream(w, r, &req, q, f, id)
		return
	}
	res, err := s.complete(r.Context(), q, f, nil)
	if err != nil {
		s.openaiError(w, err)
		return
	}
	b := s.openaiHead(make([]byte, 0, len(res.text)+400), id, "chat.completion", req.Model)
	b = append(b, `,"choices":[{"index":0,"message":{"role":"assistant","content":`...)
	b = quote(b, res.text)
	b = append(b, `},"finish_reason":"`...)
	b = append(b, res.reason...)
	b = append(b, `"}]`...)
	b = s.tail(appendUsage(b, res))
	s.send(w, "application/json", b, f)
}

func (s *Server) openaiQuestion(req *openaiRequest) (*question, error) {
	q := &question{stream: req.Stream, stop: stops(req.Stop), seed: string(req.Seed)}
	messages := make([]ollamaMessage, len(req.Messages))
	for i, m := range req.Messages {
		text, err := m.text()
		if err != nil {
			return nil, fmt.Errorf("message %d: content is neither text nor a list of parts", i)
		}
		messages[i] = ollamaMessage{m.Role, text}
	}
	q.setMessages(messages)
	for _, n := range []*float64{req.MaxTokens, req.MaxCompletionTokens} {
		if n != nil && *n >= 1 {
			q.limit = int(*n)
		}
	}
	q.vary = req.Seed == nil && (req.Temperature == nil || *req.Temperature > 0)
	schema := req.ResponseFormat.JSONSchema.Schema
	if schema == nil {
		schema = req.ResponseFormat.Schema
	}
	switch {
	case req.ResponseFormat.Type == "json_object" && schema == nil:
		q.schema, q.node = []byte(`"json"`), s.jsonish
	case schema != nil:
		n, err := s.schema(schema)
		if err != nil {
			return nil, err
		}
		q.schema, q.node = schema, n
	}
	return q, nil
}

func (s *Server) openaiStream(w http.ResponseWriter, r *http.Request, req *openaiRequest, q *question, f fate, id string) {
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	event := func(fields func([]byte) []byte) error {
		b := s.openaiHead([]byte("data: "), id, "chat.completion.chunk", req.Model)
		b = append(s.tail(fields(b)), "\n\n"...)
		if _, err := w.Write(b); err != nil {
			return err
		}
		return flush.Flush()
	}
	piece := func(part string) error {
		return event(func(b []byte) []byte {
			b = append(b, `,"choices":[{"index":0,"delta":{"role":"assistant","content":`...)
			return append(quote(b, part), `},"finish_reason":null}]`...)
		})
	}
	res, err := s.complete(r.Context(), q, f, piece)
	if err != nil {
		s.openaiError(w, err)
		return
	}
	err = event(func(b []byte) []byte {
		b = append(b, `,"choices":[{"index":0,"delta":{},"finish_reason":"`...)
		return append(append(b, res.reason...), `"}]`...)
	})
	if err == nil && req.StreamOptions.IncludeUsage {
		err = event(func(b []byte) []byte { return appendUsage(append(b, `,"choices":[]`...), res) })
	}
	if err == nil {
		s.send(w, "", []byte("data: [DONE]\n\n"), f)
	}
}

func (s *Server) openaiHead(b []byte, id, object, model string) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, id...)
	b = append(b, `","object":"`...)
	b = append(b, object...)
	b = append(b, `","created":`...)
	b = strconv.AppendInt(b, time.Now().Unix(), 10)
	b = append(b, `,"model":`...)
	b = quote(b, model)
	return append(b, `,"system_fingerprint":"fp_simulated"`...)
}

func appendUsage(b []byte, r result) []byte {
	return fmt.Appendf(b, `,"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}`,
		r.promptTokens, r.tokens, r.promptTokens+r.tokens, r.cachedTokens)
}

// openaiError ends a reply whose work failed.
func (s *Server) openaiError(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errAbort):
		panic(http.ErrAbortHandler)
	case errors.Is(err, errPending):
		s.openaiFail(w, http.StatusServiceUnavailable, err.Error())
	default:
		s.openaiFail(w, 499, "request canceled")
	}
}
