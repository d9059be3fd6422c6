package openai

import (
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"millrace/internal/llm"
)

// call writes a request; what a kind of server does not take is left out.
func (s *Server) call(req llm.Request, stream bool) (llm.Call, error) {
	b := llm.BeginChat(req, stream)
	if stream {
		b = append(b, `,"stream_options":{"include_usage":true}`...)
	}
	if len(req.Schema) > 0 {
		form, err := s.forms.Form(req.Schema)
		if err != nil {
			return llm.Call{}, err
		}
		b = append(b, `,"response_format":{"type":"json_schema","json_schema":{"name":"answer",`...)
		if s.info.Kind != llm.OpenAI {
			// OpenAI's own server refuses "strict" for schemas with optional
			// properties; without it, it does its best.
			b = append(b, `"strict":true,`...)
		}
		b = append(b, `"schema":`...)
		b = append(b, form...)
		b = append(b, `}}`...)
	}
	b = s.appendOptions(b, req.Options)
	b = append(b, '}')
	return llm.Call{Path: "/v1/chat/completions", Body: b, Private: req.Messages}, nil
}

// appendOptions appends each option that is set, with a comma before it.
//
// The extensions by kind: llama-server takes all of its /completion options
// (tools/server/README.md), vLLM names them in its ChatCompletionRequest, LM
// Studio documents top_k and repeat_penalty.
func (s *Server) appendOptions(b []byte, o llm.Options) []byte {
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
	whole("max_tokens", o.MaxTokens)
	if o.Seed != nil {
		b = append(b, `,"seed":`...)
		b = strconv.AppendInt(b, *o.Seed, 10)
	}
	if len(o.Stop) > 0 {
		b = append(b, `,"stop":[`...)
		for i, stop := range o.Stop {
			if i > 0 {
				b = append(b, ',')
			}
			b = llm.AppendString(b, stop)
		}
		b = append(b, ']')
	}
	switch s.info.Kind {
	case llm.LlamaServer:
		whole("top_k", o.TopK)
		float("min_p", o.MinP)
		float("repeat_penalty", o.RepeatPenalty)
	case llm.VLLM:
		whole("top_k", o.TopK)
		float("min_p", o.MinP)
		float("repetition_penalty", o.RepeatPenalty)
	case llm.LMStudio:
		whole("top_k", o.TopK)
		float("repeat_penalty", o.RepeatPenalty)
	}
	if o.Think != nil && (s.info.Kind == llm.LlamaServer || s.info.Kind == llm.VLLM) {
		b = append(b, `,"chat_template_kwargs":{"enable_thinking":`...)
		b = strconv.AppendBool(b, *o.Think)
		b = append(b, '}')
	}
	return b
}

// completion is a chat completion, or one event of a streamed one.
type completion struct {
	Model   string `json:"model"`
	Choices []struct {
		Message      *message `json:"message"`
		Delta        *message `json:"delta"`
		FinishReason string   `json:"finish_reason"`
	} `json:"choices"`
	Usage   *usage         `json:"usage"`
	Timings *timings       `json:"timings"`
	Error   jsontext.Value `json:"error"`
	Object  jsontext.Value `json:"object"` // "error" in older vLLM
}

type message struct {
	Content          jsontext.Value `json:"content"`
	ReasoningContent string         `json:"reasoning_content"` // llama-server, vLLM
	Reasoning        string         `json:"reasoning"`         // LM Studio, newer vLLM
}

type usage struct {
	PromptTokens     *int `json:"prompt_tokens"`
	CompletionTokens *int `json:"completion_tokens"`
	Details          *struct {
		CachedTokens *int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// timings are llama-server's, in milliseconds (tools/server/README.md).
type timings struct {
	CacheN      *int     `json:"cache_n"`
	PromptN     *int     `json:"prompt_n"`
	PromptMS    *float64 `json:"prompt_ms"`
	PredictedN  *int     `json:"predicted_n"`
	PredictedMS *float64 `json:"predicted_ms"`
}

func (c *completion) failed() bool {
	return c.Error.Kind() == jsontext.KindBeginObject || c.Error.Kind() == jsontext.KindString || string(c.Object) == `"error"`
}

// describe notes what a completion says besides its text.
func (c *completion) describe(r *llm.Reply) {
	if c.Model != "" {
		r.Model = c.Model
	}
	if u := c.Usage; u != nil {
		r.PromptTokens, r.CompletionTokens = u.PromptTokens, u.CompletionTokens
		if u.Details != nil {
			r.CachedTokens = u.Details.CachedTokens
		}
	}
	t := c.Timings
	if t == nil {
		return
	}
	if t.CacheN != nil {
		r.CachedTokens = t.CacheN
		if r.PromptTokens == nil && t.PromptN != nil {
			n := *t.CacheN + *t.PromptN
			r.PromptTokens = &n
		}
	}
	if r.CompletionTokens == nil {
		r.CompletionTokens = t.PredictedN
	}
	r.Timing.Prefill, r.Timing.Decode = millis(t.PromptMS), millis(t.PredictedMS)
}

func millis(ms *float64) *time.Duration {
	if ms == nil || *ms < 0 {
		return nil
	}
	d := time.Duration(*ms * float64(time.Millisecond))
	return &d
}

// text is the content: a string, or the text parts of a list.
func (m *message) text() string {
	switch m.Content.Kind() {
	case jsontext.KindString:
		var s string
		if llm.DecodeJSON(m.Content, &s) == nil {
			return s
		}
	case jsontext.KindBeginArray:
		var parts []struct {
			Type string `json:"type"`
			Text string `json:"text"`
		}
		if llm.DecodeJSON(m.Content, &parts) == nil {
			var b strings.Builder
			for _, p := range parts {
				if p.Type == "text" {
					b.WriteString(p.Text)
				}
			}
			return b.String()
		}
	}
	return ""
}

func (m *message) thinking() string {
	if m.ReasoningContent != "" {
		return m.ReasoningContent
	}
	return m.Reasoning
}

func finish(reason string) llm.Finish {
	switch reason {
	case "stop":
		return llm.FinishStop
	case "length":
		return llm.FinishLength
	}
	return llm.FinishOther
}
