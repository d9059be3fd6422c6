// Package openai speaks the chat API that OpenAI defined and most inference
// servers offer: llama-server, vLLM, LM Studio and others. It tells these
// apart, as each takes something more than the common part.
package openai

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"millrace/internal/llm"
)

// BaseURL turns an address as typed into a base URL; a pasted API path is
// dropped. The API is then below /v1 of it.
func BaseURL(address string) (string, error) {
	return llm.BaseURL(address, "", "/v1", "/chat/completions")
}

// Server is a running server with an OpenAI-compatible API.
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

// openTime bounds each question that Open asks.
const openTime = 10 * time.Second

// Open asks what answers at an address whether it has an OpenAI-compatible
// API, and which server it is. It returns llm.ErrNotMine if something else
// answers, and an *llm.Error if nothing does, if the key is missing or wrong,
// or if the server is still loading its model (kind llm.Loading: try again).
// The key is only ever sent as a bearer token. A nil client means
// llm.NewHTTPClient(64).
func Open(ctx context.Context, url string, hc *http.Client, apiKey string) (*Server, error) {
	base, err := BaseURL(url)
	if err != nil {
		return nil, err
	}
	end, err := llm.NewEndpoint(base, apiKey, hc)
	if err != nil {
		return nil, err
	}
	s := &Server{end: end, info: llm.Info{Kind: llm.OpenAI, URL: end.URL()}}
	var listed list
	var header http.Header
	err = s.get(ctx, "/v1/models", func(h http.Header, body []byte) error {
		header = h
		return listed.read(body)
	})
	if err != nil {
		return nil, openError(err, apiKey != "")
	}
	s.info.Simulated = header.Get(llm.SimulatedHeader)
	s.identify(ctx, header, listed)
	s.forms = llm.NewSchemaForms(dialect(s.info.Kind))
	return s, nil
}

// dialect is what a kind makes of a schema; LM Studio has llama.cpp for GGUF
// models and reads the same subset with others.
func dialect(k llm.Kind) llm.Dialect {
	switch k {
	case llm.LlamaServer, llm.LMStudio:
		return llm.GBNF
	case llm.VLLM:
		return llm.XGrammar
	}
	return llm.Plain
}

// openError tells apart what the list of models was answered with.
func openError(err error, withKey bool) error {
	e, ok := errors.AsType[*llm.Error](err)
	switch {
	case !ok:
		return err
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		if withKey {
			e.Message = "server does not accept the API key: " + e.Message
		} else {
			e.Message = "server wants an API key: " + e.Message
		}
		return e
	case e.Kind == llm.Garbled, e.Status >= 300 && e.Status < 500 && e.Kind != llm.Busy && e.Kind != llm.Timeout:
		return llm.ErrNotMine
	}
	return e
}

func (s *Server) get(ctx context.Context, path string, read func(h http.Header, body []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	return s.end.Do(ctx, llm.Call{Path: path}, read)
}

// identify finds the product and its version. What does not answer as known is
// a plain OpenAI server.
func (s *Server) identify(ctx context.Context, h http.Header, l list) {
	switch {
	case strings.EqualFold(h.Get("Server"), "llama.cpp") || l.ownedBy("llamacpp"):
		s.info.Kind = llm.LlamaServer
	case l.ownedBy("vllm"):
		s.info.Kind = llm.VLLM
	}
	if s.info.Kind == llm.LlamaServer || s.info.Kind == llm.OpenAI {
		var props struct {
			Settings *struct{} `json:"default_generation_settings"`
			Build    string    `json:"build_info"`
		}
		if s.ask(ctx, "/props", &props) && (props.Settings != nil || props.Build != "") {
			s.info.Kind, s.info.Version = llm.LlamaServer, props.Build
		}
	}
	if s.info.Kind == llm.VLLM {
		var v struct {
			Version string `json:"version"`
		}
		if s.ask(ctx, "/version", &v) {
			s.info.Version = v.Version
		}
	}
	if s.info.Kind == llm.OpenAI {
		var studio studioList
		if s.ask(ctx, "/api/v0/models", &studio) && studio.is() {
			s.info.Kind = llm.LMStudio
		}
	}
}

// ask gets a JSON object; false if there is none.
func (s *Server) ask(ctx context.Context, path string, to any) bool {
	return s.get(ctx, path, func(_ http.Header, body []byte) error { return llm.DecodeJSON(body, to) }) == nil
}

// Info says what and where the server is.
func (s *Server) Info() llm.Info { return s.info }

// Models lists the models that can chat. These servers give no digest. A model
// counts as loaded if the server says so (LM Studio), or if the server has but
// that one; vLLM's adapters are listed and only their base is loaded.
func (s *Server) Models(ctx context.Context) ([]llm.Model, error) {
	if s.info.Kind == llm.LMStudio {
		return s.studioModels(ctx)
	}
	var l list
	err := s.end.Do(ctx, llm.Call{Path: "/v1/models"}, func(_ http.Header, body []byte) error { return l.read(body) })
	if err != nil {
		return nil, err
	}
	models, bases := []llm.Model{}, 0
	for _, m := range l.models {
		model := llm.Model{Name: m.ID, Loaded: m.Parent.Kind() != jsontext.KindString, Bytes: m.bytes()}
		if model.Loaded {
			bases++
		}
		models = append(models, model)
	}
	// vLLM serves what it lists; others list what they could load.
	if s.info.Kind != llm.VLLM && bases != 1 {
		for i := range models {
			models[i].Loaded = false
		}
	}
	for i, m := range l.models { // llama-server's router says it
		if state := m.state(); state != "" {
			models[i].Loaded = state == "loaded"
		}
	}
	return models, nil
}

func (s *Server) studioModels(ctx context.Context) ([]llm.Model, error) {
	var l studioList
	err := s.end.Do(ctx, llm.Call{Path: "/api/v0/models"}, func(_ http.Header, body []byte) error {
		if err := llm.DecodeJSON(body, &l); err != nil {
			return llm.NotProtocol(s.info.Kind, body, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	models := []llm.Model{}
	for _, m := range l.Data {
		if m.Type != "embeddings" {
			models = append(models, llm.Model{Name: m.ID, Loaded: m.State == "loaded"})
		}
	}
	return models, nil
}

// list is the reply of /v1/models.
type list struct{ models []listed }

// listed holds as raw values what other servers may use for something else.
type listed struct {
	ID      string         `json:"id"`
	OwnedBy jsontext.Value `json:"owned_by"`
	Parent  jsontext.Value `json:"parent"` // vLLM: name of the base of an adapter
	Meta    jsontext.Value `json:"meta"`   // llama-server: facts about the weights
	Status  jsontext.Value `json:"status"` // llama-server's router: loaded, unloaded, ...
}

// bytes is the size of the weights, nil when the server does not give it.
func (m listed) bytes() *int64 {
	var meta struct {
		Size *int64 `json:"size"`
	}
	if m.Meta == nil || llm.DecodeJSON(m.Meta, &meta) != nil {
		return nil
	}
	return meta.Size
}

func (m listed) state() string {
	var status struct {
		Value string `json:"value"`
	}
	if m.Status == nil || llm.DecodeJSON(m.Status, &status) != nil {
		return ""
	}
	return status.Value
}

func (l *list) read(body []byte) error {
	var reply struct {
		Data *[]listed `json:"data"`
	}
	if err := llm.DecodeJSON(body, &reply); err != nil {
		return llm.NotProtocol(llm.OpenAI, body, err)
	}
	if reply.Data == nil {
		return llm.NotProtocol(llm.OpenAI, body, nil)
	}
	l.models = *reply.Data
	return nil
}

func (l list) ownedBy(who string) bool {
	return slices.ContainsFunc(l.models, func(m listed) bool { return string(m.OwnedBy) == `"`+who+`"` })
}

// studioList is the reply of LM Studio's /api/v0/models.
type studioList struct {
	Data []struct {
		ID    string `json:"id"`
		Type  string `json:"type"`
		State string `json:"state"`
	} `json:"data"`
}

// is reports whether the list has what only LM Studio gives. Its list may be
// empty, and is then taken for a plain server's.
func (l studioList) is() bool {
	return len(l.Data) > 0 && l.Data[0].State != ""
}

// Ask sends one request to /v1/chat/completions and waits for its whole reply.
func (s *Server) Ask(ctx context.Context, req llm.Request) (llm.Reply, error) {
	call, err := s.call(req, false)
	if err != nil {
		return llm.Reply{}, err
	}
	var reply llm.Reply
	start := time.Now()
	err = s.end.Do(ctx, call, func(h http.Header, body []byte) error {
		var c completion
		if err := llm.DecodeJSON(body, &c); err != nil {
			return llm.NotProtocol(s.info.Kind, body, err)
		}
		switch {
		case c.failed():
			return llm.ErrorFrom(0, nil, body, req.Messages)
		case len(c.Choices) == 0 || c.Choices[0].Message == nil:
			return llm.NotProtocol(s.info.Kind, body, nil)
		}
		c.describe(&reply)
		choice := c.Choices[0]
		reply.Text, reply.Thinking = choice.Message.text(), choice.Message.thinking()
		reply.Finish = finish(choice.FinishReason)
		reply.Simulated = h.Get(llm.SimulatedHeader)
		return nil
	})
	if err != nil {
		return llm.Reply{}, s.advise(err, req.Model)
	}
	reply.Timing.Wall = time.Since(start)
	return reply, nil
}

// advise says what to do about errors that the user can mend.
func (s *Server) advise(err error, model string) error {
	e, ok := errors.AsType[*llm.Error](err)
	switch {
	case !ok:
	case e.Kind == llm.NoModel:
		e.Message = fmt.Sprintf("server does not have model %q (%s); it lists its models at %s/v1/models", model, e.Message, s.info.URL)
	case e.Status == http.StatusUnauthorized:
		e.Message = "server wants a valid API key: " + e.Message
	}
	return err
}
