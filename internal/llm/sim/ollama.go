package sim

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Ollama's API as in 0.17.4 (shared/data/models/ollama-docs/api.md). The
// deprecated "context" of /api/generate is left out.

// ollamaRequest is the body of /api/generate and /api/chat.
type ollamaRequest struct {
	Model     string          `json:"model"`
	Prompt    string          `json:"prompt"`
	System    string          `json:"system"`
	Messages  []ollamaMessage `json:"messages"`
	Format    jsontext.Value  `json:"format"`
	Stream    *bool           `json:"stream"`
	Raw       bool            `json:"raw"`
	Truncate  *bool           `json:"truncate"`
	KeepAlive jsontext.Value  `json:"keep_alive"`
	Options   ollamaOptions   `json:"options"`
}

type ollamaMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type ollamaOptions struct {
	NumPredict  *float64       `json:"num_predict"`
	NumCtx      *float64       `json:"num_ctx"`
	Temperature *float64       `json:"temperature"`
	Seed        jsontext.Value `json:"seed"`
	Stop        jsontext.Value `json:"stop"`
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	s.json(w, http.StatusOK, struct {
		Version string `json:"version"`
		mark
	}{Version, s.mark()})
}

// mark is the field that every JSON body carries.
type mark struct {
	Simulated string `json:"simulated"`
}

func (s *Server) mark() mark { return mark{s.profile.Name} }

type details struct {
	Parent       string   `json:"parent_model"`
	Format       string   `json:"format"`
	Family       string   `json:"family"`
	Families     []string `json:"families"`
	Parameters   string   `json:"parameter_size"`
	Quantisation string   `json:"quantization_level"`
}

func (s *Server) details() details {
	m := s.profile.Model
	return details{Format: "gguf", Family: m.Family, Families: []string{m.Family}, Parameters: m.Parameters, Quantisation: m.Quantisation}
}

// installed is the time at which the model was pulled, as far as anyone asks.
func installed() time.Time { return time.Date(2026, 2, 26, 12, 0, 0, 0, time.UTC) }

func (s *Server) tags(w http.ResponseWriter, _ *http.Request) {
	type model struct {
		Name     string    `json:"name"`
		Model    string    `json:"model"`
		Modified time.Time `json:"modified_at"`
		Size     int64     `json:"size"`
		Digest   string    `json:"digest"`
		Details  details   `json:"details"`
	}
	m := s.profile.Model
	s.json(w, http.StatusOK, struct {
		Models []model `json:"models"`
		mark
	}{[]model{{m.Name, m.Name, installed(), m.Bytes, m.Digest, s.details()}}, s.mark()})
}

func (s *Server) ps(w http.ResponseWriter, _ *http.Request) {
	type model struct {
		Name    string    `json:"name"`
		Model   string    `json:"model"`
		Size    int64     `json:"size"`
		Digest  string    `json:"digest"`
		Details details   `json:"details"`
		Expires time.Time `json:"expires_at"`
		VRAM    int64     `json:"size_vram"`
		Context int       `json:"context_length"`
	}
	models := []model{}
	until, context, loaded := time.Now().Add(5*time.Minute), s.profile.Context, true
	if s.engine != nil {
		until, context, loaded = s.engine.loadedUntil()
	}
	if loaded {
		m := s.profile.Model
		size := m.Bytes + m.Shape.KVBytesPerToken*int64(context)*int64(s.profile.Slots)
		vram := int64(float64(size) * (1 - s.profile.Ills.PartialOffload))
		models = append(models, model{m.Name, m.Name, size, m.Digest, s.details(), until.UTC(), vram, context})
	}
	s.json(w, http.StatusOK, struct {
		Models []model `json:"models"`
		mark
	}{models, s.mark()})
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Model string `json:"model"`
		Name  string `json:"name"`
	}
	if !s.decode(w, r, &req) {
		return
	}
	if req.Model == "" {
		req.Model = req.Name
	}
	if req.Model == "" {
		s.fail(w, http.StatusBadRequest, "model is required")
		return
	}
	if !s.knows(req.Model) {
		s.fail(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", req.Model))
		return
	}
	m := s.profile.Model
	s.json(w, http.StatusOK, struct {
		Modelfile    string         `json:"modelfile"`
		Parameters   string         `json:"parameters"`
		Template     string         `json:"template"`
		Details      details        `json:"details"`
		Info         map[string]any `json:"model_info"`
		Capabilities []string       `json:"capabilities"`
		Modified     time.Time      `json:"modified_at"`
		mark
	}{
		Modelfile:  "# Simulated by Millrace\nFROM " + m.Name + "\n",
		Template:   "{{ range .Messages }}{{ .Role }}\n{{ .Content }}\n{{ end }}",
		Parameters: "",
		Details:    s.details(),
		Info: map[string]any{
			"general.architecture":                m.Family,
			"general.parameter_count":             m.Shape.Params,
			m.Family + ".block_count":             m.Layers,
			m.Family + ".context_length":          m.MaxContext,
			m.Family + ".embedding_length":        4096,
			m.Family + ".attention.head_count":    32,
			m.Family + ".attention.head_count_kv": 8,
		},
		Capabilities: []string{"completion"},
		Modified:     installed(),
		mark:         s.mark(),
	})
}

func (s *Server) generate(w http.ResponseWriter, r *http.Request) {
	var req ollamaRequest
	if !s.decode(w, r, &req) {
		return
	}
	if !s.knows(req.Model) {
		s.fail(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", req.Model))
		return
	}
	q := question{first: req.Prompt, last: req.Prompt, prompt: req.Prompt}
	if !req.Raw {
		if req.System != "" {
			q.prompt = "system\n" + req.System + "\nuser\n" + req.Prompt
		} else {
			q.prompt = "user\n" + req.Prompt
		}
	}
	s.ollama(w, r, &req, &q, req.Prompt == "", func(b []byte, text string) []byte {
		b = append(b, `,"response":`...)
		return quote(b, text)
	})
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	var req ollamaRequest
	if !s.decode(w, r, &req) {
		return
	}
	if req.Model == "" {
		s.fail(w, http.StatusBadRequest, "model is required")
		return
	}
	if !s.knows(req.Model) {
		s.fail(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", req.Model))
		return
	}
	var q question
	q.setMessages(req.Messages)
	s.ollama(w, r, &req, &q, len(req.Messages) == 0, func(b []byte, text string) []byte {
		b = append(b, `,"message":{"role":"assistant","content":`...)
		b = quote(b, text)
		return append(b, '}')
	})
}

// setMessages renders the messages into one prompt. The template is not that
// of any model, but the same prefix gives the same beginning.
func (q *question) setMessages(messages []ollamaMessage) {
	n := 0
	for _, m := range messages {
		n += len(m.Role) + len(m.Content) + 2
	}
	var b strings.Builder
	b.Grow(n)
	for _, m := range messages {
		b.WriteString(m.Role)
		b.WriteByte('\n')
		b.WriteString(m.Content)
		b.WriteByte('\n')
		if m.Role == "user" {
			if q.last == "" {
				q.first = m.Content
			}
			q.last = m.Content
		}
	}
	q.prompt = b.String()
}

// ollama serves both endpoints; text appends the field that holds the text.
func (s *Server) ollama(w http.ResponseWriter, r *http.Request, req *ollamaRequest, q *question, empty bool, text func([]byte, string) []byte) {
	var err error
	if q.keepAlive, err = keepAlive(req.KeepAlive); err != nil {
		s.fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if n := req.Options.NumCtx; n != nil && *n >= 1 {
		q.context = int(min(*n, float64(s.profile.Model.MaxContext)))
	}
	last := func(reply []byte, body, reason string) []byte {
		reply = s.ollamaHead(reply, req.Model)
		reply = text(reply, body)
		reply = append(reply, `,"done":true,"done_reason":`...)
		return quote(reply, reason)
	}
	if empty {
		reason := "load"
		if q.keepAlive != nil && *q.keepAlive == 0 {
			reason = "unload"
			if s.engine != nil {
				s.engine.unload()
			}
		} else if err := s.touch(r.Context(), q.context, q.keepAlive); err != nil {
			s.ollamaError(w, err)
			return
		}
		s.send(w, "application/json; charset=utf-8", s.tail(last(nil, "", reason)), fate{})
		return
	}
	if err := s.ollamaOptions(req, q); err != nil {
		s.fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	if req.Truncate != nil && !*req.Truncate && tokens(q.prompt) > s.contextOf(q) {
		s.fail(w, http.StatusBadRequest, "the input length exceeds the context length")
		return
	}

	s.enter()
	defer s.leave()
	f := s.receive(q)
	if s.suffer(w, r, f) {
		return
	}
	var piece func(string) error
	if q.stream {
		w.Header().Set("Content-Type", "application/x-ndjson")
		flush := http.NewResponseController(w)
		piece = func(part string) error {
			b := text(s.ollamaHead(nil, req.Model), part)
			b = append(b, `,"done":false`...)
			if _, err := w.Write(append(s.tail(b), '\n')); err != nil {
				return err
			}
			return flush.Flush()
		}
	}
	res, err := s.complete(r.Context(), q, f, piece)
	if err != nil {
		s.ollamaError(w, err)
		return
	}
	body := res.text
	if q.stream {
		body = ""
	}
	b := last(make([]byte, 0, len(body)+400), body, res.reason)
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"total_duration", int64(res.total)},
		{"load_duration", int64(res.load)},
		{"prompt_eval_count", int64(res.promptTokens)},
		{"prompt_eval_duration", int64(res.prefill)},
		{"eval_count", int64(res.tokens)},
		{"eval_duration", int64(res.decode)},
	} {
		if n.value != 0 {
			b = append(b, ',', '"')
			b = append(b, n.name...)
			b = append(b, '"', ':')
			b = strconv.AppendInt(b, n.value, 10)
		}
	}
	b = s.tail(b)
	if q.stream {
		b = append(b, '\n')
	}
	s.send(w, "application/json; charset=utf-8", b, f)
}

func (s *Server) ollamaHead(b []byte, model string) []byte {
	b = append(b, `{"model":`...)
	b = quote(b, model)
	b = append(b, `,"created_at":"`...)
	b = time.Now().UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// tail ends a JSON object with the mark.
func (s *Server) tail(b []byte) []byte {
	b = append(b, `,"simulated":`...)
	return append(quote(b, s.profile.Name), '}')
}

func (s *Server) ollamaOptions(req *ollamaRequest, q *question) error {
	q.stream = req.Stream == nil || *req.Stream
	o := req.Options
	if o.NumPredict != nil && *o.NumPredict >= 0 {
		q.limit = int(max(*o.NumPredict, 1))
	}
	if most := 10 * s.contextOf(q); q.limit == 0 || q.limit > most {
		q.limit = most // so bounds 0.17.4 it (ollama.md section 4.4)
	}
	q.seed = string(o.Seed)
	q.vary = o.Seed == nil && (o.Temperature == nil || *o.Temperature > 0)
	q.stop = stops(o.Stop)

	switch f := bytes.TrimSpace(req.Format); {
	case len(f) == 0, string(f) == "null", string(f) == `""`:
		return nil
	case string(f) == `"json"`:
		q.schema, q.node = f, s.jsonish
		return nil
	case f[0] != '{':
		return fmt.Errorf(`invalid format: %q; expected "json" or a valid JSON Schema object`, f)
	default:
		n, err := s.schema(f)
		q.schema, q.node = f, n
		return err
	}
}

// stops reads a list of stop texts, or a single one.
func stops(v jsontext.Value) []string {
	var list []string
	var one string
	switch v.Kind() {
	case '[':
		_ = json.Unmarshal(v, &list) // other than texts: none
	case '"':
		if json.Unmarshal(v, &one) == nil {
			list = []string{one}
		}
	}
	return list
}

// keepAlive reads a number of seconds or a duration; negative means for ever.
func keepAlive(v jsontext.Value) (*time.Duration, error) {
	var d time.Duration
	switch v.Kind() {
	case '0':
		var sec float64
		if err := json.Unmarshal(v, &sec); err != nil {
			return nil, err
		}
		d = time.Duration(min(sec, 1e9) * float64(time.Second))
	case '"':
		var text string
		err := json.Unmarshal(v, &text)
		if err == nil {
			d, err = time.ParseDuration(text)
		}
		if err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	if d < 0 {
		d = math.MaxInt64
	}
	return &d, nil
}

// ollamaError ends a reply whose work failed.
func (s *Server) ollamaError(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errAbort):
		panic(http.ErrAbortHandler)
	case errors.Is(err, errPending):
		s.fail(w, http.StatusServiceUnavailable, err.Error())
	default: // the client is gone; 499 is Ollama's note to itself
		s.fail(w, 499, "request canceled")
	}
}

// suffer lets the ills happen that come before the work. It reports whether
// the request is over.
func (s *Server) suffer(w http.ResponseWriter, r *http.Request, f fate) bool {
	switch {
	case f.busy:
		wait := s.profile.Ills.RetryAfter
		if wait <= 0 {
			wait = time.Second
		}
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		s.fail(w, http.StatusServiceUnavailable, errPending.Error())
		return true
	case f.resetNow:
		panic(http.ErrAbortHandler)
	case f.hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	return false
}

// send writes a whole reply, or what the request's fate makes of it.
func (s *Server) send(w http.ResponseWriter, kind string, body []byte, f fate) {
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", kind)
		if !f.garbled {
			h.Set("Content-Length", strconv.Itoa(len(body)))
		}
	}
	switch {
	case f.resetLater:
		panic(http.ErrAbortHandler)
	case f.garbled:
		_, _ = w.Write([]byte("<html><head><title>502 Bad Gateway</title></head></html>\n"))
	case f.truncated:
		_, _ = w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	default:
		_, _ = w.Write(body)
	}
}

// decode reads a JSON body, or answers what is wrong with it.
func (s *Server) decode(w http.ResponseWriter, r *http.Request, to any) bool {
	var in bytes.Buffer
	if n := r.ContentLength; n > 0 && n < 1<<20 {
		in.Grow(int(n) + bytes.MinRead)
	}
	_, err := in.ReadFrom(r.Body)
	body := in.Bytes()
	switch {
	case err != nil:
		s.fail(w, http.StatusBadRequest, "the request body ended early")
	case len(bytes.TrimSpace(body)) == 0:
		s.fail(w, http.StatusBadRequest, "missing request body")
	default:
		if err := json.Unmarshal(body, to, lenient); err != nil {
			s.fail(w, http.StatusBadRequest, err.Error())
			return false
		}
		return true
	}
	return false
}

func (s *Server) fail(w http.ResponseWriter, status int, message string) {
	s.json(w, status, struct {
		Error string `json:"error"`
		mark
	}{message, s.mark()})
}

func (s *Server) json(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}
