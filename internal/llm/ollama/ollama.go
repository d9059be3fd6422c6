// Package ollama speaks Ollama's own API. Facts about that API by version are
// in reference/ollama.md.
package ollama

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/internal/llm"
)

// DefaultPort is where Ollama listens when nothing else is said.
const DefaultPort = "11434"

// BaseURL turns the value of OLLAMA_HOST, or an address typed by hand, into a
// base URL. It reads the value as Ollama's own client does (envconfig.Host):
// a bare host means port 11434, a scheme without a port means that scheme's
// port, an empty value means this machine. The address to listen on (0.0.0.0)
// becomes one to reach, and a pasted API path is dropped.
func BaseURL(hostVar string) (string, error) {
	if strings.Trim(strings.TrimSpace(hostVar), `"'`) == "ollama.com" {
		hostVar = "https://ollama.com"
	}
	return llm.BaseURL(hostVar, DefaultPort, "/v1", "/api")
}

// Server is a running Ollama.
type Server struct {
	end   *llm.Endpoint
	info  llm.Info
	forms *llm.SchemaForms
}

var (
	_ llm.Server   = (*Server)(nil)
	_ llm.Streamer = (*Server)(nil)
	_ llm.Lister   = (*Server)(nil)
)

// openTime bounds each question that Open asks. Ollama answers these while it
// generates too.
const openTime = 10 * time.Second

// Open asks what answers at an address whether it is Ollama. It returns
// llm.ErrNotMine if something else does, and an *llm.Error if nothing does. A
// nil client means llm.NewHTTPClient(64).
func Open(ctx context.Context, url string, hc *http.Client) (*Server, error) {
	base, err := BaseURL(url)
	if err != nil {
		return nil, err
	}
	end, err := llm.NewEndpoint(base, "", hc)
	if err != nil {
		return nil, err
	}
	s := &Server{
		end:   end,
		info:  llm.Info{Kind: llm.Ollama, URL: end.URL()},
		forms: llm.NewSchemaForms(llm.GBNF),
	}
	found := false
	err = s.get(ctx, "/api/version", func(h http.Header, body []byte) {
		var reply struct {
			Version string `json:"version"`
		}
		found = llm.DecodeJSON(body, &reply) == nil && reply.Version != ""
		s.info.Version = reply.Version
		s.info.Simulated = h.Get(llm.SimulatedHeader)
	})
	if err == nil && !found || answered(err) {
		// A proxy may let only some paths through.
		err = s.get(ctx, "/", func(h http.Header, body []byte) {
			found = strings.Contains(string(body), "Ollama is running")
			s.info.Simulated = h.Get(llm.SimulatedHeader)
		})
	}
	switch {
	case found:
		return s, nil
	case err == nil || answered(err):
		return nil, llm.ErrNotMine
	}
	return nil, err
}

// answered reports whether an error shows that something is there, only not
// Ollama.
func answered(err error) bool {
	e, ok := errors.AsType[*llm.Error](err)
	return ok && (e.Status != 0 || e.Kind == llm.Garbled)
}

func (s *Server) get(ctx context.Context, path string, read func(h http.Header, body []byte)) error {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	return s.end.Do(ctx, llm.Call{Path: path}, func(h http.Header, body []byte) error {
		read(h, body)
		return nil
	})
}

// Info says what and where the server is.
func (s *Server) Info() llm.Info { return s.info }

// Models lists what is installed, and of that what is loaded. Models that can
// only embed are left out.
func (s *Server) Models(ctx context.Context) ([]llm.Model, error) {
	installed, err := s.list(ctx, "/api/tags")
	if err != nil {
		return nil, err
	}
	running, err := s.list(ctx, "/api/ps")
	if err != nil && answered(err) {
		running = nil // before 0.1.33 there was no such path
	} else if err != nil {
		return nil, err
	}
	models := []llm.Model{}
	for _, m := range installed {
		if m.onlyEmbeds() {
			continue
		}
		model := llm.Model{
			Name:   m.name(),
			Digest: m.Digest,
			Remote: m.RemoteHost != "" || m.RemoteModel != "",
			Loaded: slices.ContainsFunc(running, func(r listed) bool { return r.name() == m.name() }),
		}
		if m.Size != nil && !model.Remote {
			model.Bytes = m.Size
		}
		models = append(models, model)
	}
	return models, nil
}

// listed is an entry of /api/tags and /api/ps.
type listed struct {
	Name        string `json:"name"`
	Model       string `json:"model"`
	Digest      string `json:"digest"`
	Size        *int64 `json:"size"`
	RemoteModel string `json:"remote_model"`
	RemoteHost  string `json:"remote_host"`
	Details     struct {
		Family string `json:"family"`
	} `json:"details"`
}

func (m listed) name() string {
	if m.Name != "" {
		return m.Name
	}
	return m.Model
}

// onlyEmbeds reports the encoder families (bert, nomic-bert, ...): the list
// does not give capabilities.
func (m listed) onlyEmbeds() bool { return strings.Contains(m.Details.Family, "bert") }

func (s *Server) list(ctx context.Context, path string) ([]listed, error) {
	var reply struct {
		Models *[]listed `json:"models"`
	}
	err := s.end.Do(ctx, llm.Call{Path: path}, func(_ http.Header, body []byte) error {
		if err := llm.DecodeJSON(body, &reply); err != nil {
			return llm.NotProtocol(llm.Ollama, body, err)
		}
		return nil
	})
	if err != nil || reply.Models == nil {
		return nil, err
	}
	return *reply.Models, nil
}

// Ask sends one request to /api/chat and waits for its whole reply.
func (s *Server) Ask(ctx context.Context, req llm.Request) (llm.Reply, error) {
	call, err := s.call(req, false)
	if err != nil {
		return llm.Reply{}, err
	}
	var reply llm.Reply
	start := time.Now()
	err = s.end.Do(ctx, call, func(h http.Header, body []byte) error {
		var c chunk
		if err := llm.DecodeJSON(body, &c); err != nil {
			return llm.NotProtocol(llm.Ollama, body, err)
		}
		switch {
		case c.Error != "":
			return llm.ErrorFrom(0, nil, body, req.Messages)
		case c.Message == nil || c.Model == "" && !c.Done:
			return llm.NotProtocol(llm.Ollama, body, nil)
		}
		reply = c.reply()
		reply.Text, reply.Thinking = c.Message.Content, c.Message.Thinking
		reply.Simulated = h.Get(llm.SimulatedHeader)
		return nil
	})
	if err != nil {
		return llm.Reply{}, advise(err, req.Model)
	}
	reply.Timing.Wall = time.Since(start)
	return reply, nil
}

// advise says what to do about a model that is missing.
func advise(err error, model string) error {
	if e, ok := errors.AsType[*llm.Error](err); ok && e.Kind == llm.NoModel {
		e.Message = fmt.Sprintf("model %q is not installed; install it with: ollama pull %s", model, model)
	}
	return err
}

// call writes a request. What is left out keeps the server's default, which
// matters for num_ctx: two values in turn make Ollama reload the model each
// time.
func (s *Server) call(req llm.Request, stream bool) (llm.Call, error) {
	b := llm.BeginChat(req, stream)
	// Without this Ollama cuts a long prompt without a word.
	b = append(b, `,"truncate":false`...)
	if req.Think != nil {
		b = append(b, `,"think":`...)
		b = strconv.AppendBool(b, *req.Think)
	}
	if len(req.Schema) > 0 {
		form, err := s.forms.Form(req.Schema)
		if err != nil {
			return llm.Call{}, err
		}
		b = append(b, `,"format":`...)
		b = append(b, form...)
	}
	if options := appendOptions(nil, req.Options); len(options) > 0 {
		b = append(b, `,"options":{`...)
		b = append(b, options[1:]...)
		b = append(b, '}')
	}
	b = append(b, '}')
	return llm.Call{Path: "/api/chat", Body: b, Private: req.Messages}, nil
}

// appendOptions appends each option that is set, with a comma before it.
func appendOptions(b []byte, o llm.Options) []byte {
	float := func(name string, v *float64) {
		if v != nil {
			b = append(b, `,"`+name+`":`...)
			b = strconv.AppendFloat(b, *v, 'g', -1, 64)
		}
	}
	whole := func(name string, v *int) {
		if v != nil {
			b = append(b, `,"`+name+`":`...)
			b = strconv.AppendInt(b, int64(*v), 10)
		}
	}
	float("temperature", o.Temperature)
	float("top_p", o.TopP)
	whole("top_k", o.TopK)
	float("min_p", o.MinP)
	float("repeat_penalty", o.RepeatPenalty)
	if o.Seed != nil {
		b = append(b, `,"seed":`...)
		b = strconv.AppendInt(b, *o.Seed, 10)
	}
	whole("num_predict", o.MaxTokens)
	whole("num_ctx", o.NumCtx)
	if len(o.Stop) > 0 {
		b = append(b, `,"stop":[`...)
		for i, s := range o.Stop {
			if i > 0 {
				b = append(b, ',')
			}
			b = llm.AppendString(b, s)
		}
		b = append(b, ']')
	}
	return b
}

// chunk is a reply of /api/chat, or one line of a streamed one. Durations are
// in nanoseconds (api/types.go, Metrics).
type chunk struct {
	Model   string `json:"model"`
	Message *struct {
		Content  string `json:"content"`
		Thinking string `json:"thinking"`
	} `json:"message"`
	Done       bool   `json:"done"`
	DoneReason string `json:"done_reason"`
	Error      string `json:"error"`

	TotalDuration      *int64 `json:"total_duration"`
	LoadDuration       *int64 `json:"load_duration"`
	PromptEvalDuration *int64 `json:"prompt_eval_duration"`
	EvalDuration       *int64 `json:"eval_duration"`
	PromptEvalCount    *int   `json:"prompt_eval_count"`
	EvalCount          *int   `json:"eval_count"`
}

// reply is what a chunk says besides its text.
func (c *chunk) reply() llm.Reply {
	nanos := func(n *int64) *time.Duration {
		if n == nil {
			return nil
		}
		d := time.Duration(*n)
		return &d
	}
	r := llm.Reply{
		Model:            c.Model,
		PromptTokens:     c.PromptEvalCount,
		CompletionTokens: c.EvalCount,
		Timing: llm.Timing{
			Total:   nanos(c.TotalDuration),
			Load:    nanos(c.LoadDuration),
			Prefill: nanos(c.PromptEvalDuration),
			Decode:  nanos(c.EvalDuration),
		},
	}
	switch {
	case !c.Done:
		// Ollama stops an answer that repeats one token more than 30 times
		// (llm/server.go, Completion) and then sends what there is, not done.
		r.Finish = llm.FinishOther
	case c.DoneReason == "stop" || c.DoneReason == "":
		r.Finish = llm.FinishStop
	case c.DoneReason == "length":
		r.Finish = llm.FinishLength
	default:
		r.Finish = llm.FinishOther
	}
	return r
}
