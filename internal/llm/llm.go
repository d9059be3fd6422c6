// Package llm is a model server and how to ask it: requests, replies, their
// timings, the models a server has, and the kinds of error it can give.
//
// The base contract is Server: ask, and say what you are. More power is a small
// optional interface (Lister, Streamer).
package llm

import (
	"context"
	"encoding/json"
	"time"
)

// Server is a running inference server.
//
// Ask sends one request and waits for its whole reply. It is safe for
// concurrent use, makes exactly one attempt, and returns errors as *Error.
type Server interface {
	Ask(ctx context.Context, req Request) (Reply, error)
	// Info says what and where the server is. It does no I/O.
	Info() Info
}

// Streamer is a Server that can hand over a reply as it is generated.
// The callback runs on the calling goroutine, once for each piece of text;
// an error from it ends the request and is returned as it is.
// The reply's Timing.FirstToken and Timing.LastToken are set by our clock.
type Streamer interface {
	Stream(ctx context.Context, req Request, piece func(text string) error) (Reply, error)
}

// Lister is a Server that can list the models it has.
type Lister interface {
	Models(ctx context.Context) ([]Model, error)
}

// Info is what a server is, found once when it was opened.
type Info struct {
	Kind      Kind   // which protocol family and product
	URL       string // base address, without a trailing slash and without credentials
	Version   string // as the server says it; empty when unknown
	Simulated string // profile of a simulated server; empty for a real one
}

// Kind names a server product. Adapters decide what they send by it.
type Kind string

// The kinds of server that are told apart.
const (
	Ollama      Kind = "ollama"
	LlamaServer Kind = "llama-server"
	VLLM        Kind = "vllm"
	LMStudio    Kind = "lm-studio"
	OpenAI      Kind = "openai" // any other server that speaks the OpenAI API
)

// Role is the author of a message.
type Role string

// The roles that all servers know.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
)

// Message is one turn of a chat.
type Message struct {
	Role    Role   `json:"role"`
	Content string `json:"content"`
}

// Request is one question to a model.
type Request struct {
	Model    string
	Messages []Message
	// Schema is the JSON Schema that the answer has to fit, in full and with
	// its properties in the wanted order; nil asks for free text. The adapter
	// sends it in the form that its server supports; the caller validates.
	Schema json.RawMessage
	Options
}

// Options change what a model answers. A nil field leaves the server's default.
type Options struct {
	Temperature   *float64 `json:"temperature,omitempty"`
	TopP          *float64 `json:"top_p,omitempty"`
	TopK          *int     `json:"top_k,omitempty"`
	MinP          *float64 `json:"min_p,omitempty"`
	RepeatPenalty *float64 `json:"repeat_penalty,omitempty"`
	Seed          *int64   `json:"seed,omitempty"`
	MaxTokens     *int     `json:"max_tokens,omitempty"` // longest answer, in tokens
	NumCtx        *int     `json:"num_ctx,omitempty"`    // context length in tokens; only Ollama takes it per request
	Think         *bool    `json:"think,omitempty"`      // for models that can reason first
	Stop          []string `json:"stop,omitempty"`
}

// Finish says why a reply ended.
type Finish string

// The ways a reply ends.
const (
	FinishStop   Finish = "stop"   // the model was done
	FinishLength Finish = "length" // cut off by the token limit
	FinishOther  Finish = "other"
)

// Reply is a model's answer.
type Reply struct {
	Text     string
	Thinking string // reasoning that some models give apart from the answer
	Finish   Finish
	Model    string // as the server names it in the reply

	PromptTokens     *int // tokens of the prompt, cached ones included; nil when the server does not say
	CachedTokens     *int // of those, taken from the prefix cache; nil when unknown
	CompletionTokens *int // tokens generated, reasoning included; nil when the server does not say

	Timing    Timing
	Simulated string // profile of the simulated server that made it; empty for a real one
}

// Timing is where a request's time went. Wall is by our own clock; the
// pointers are nil where the server (or the mode) does not tell.
type Timing struct {
	Wall       time.Duration  // request sent to reply complete
	FirstToken *time.Duration // request sent to first text; streamed requests only
	LastToken  *time.Duration // request sent to last text; streamed requests only

	// The server's own figures. They do not always add up to its total:
	// see Unaccounted.
	Total, Load, Prefill, Decode *time.Duration
}

// Unaccounted is the part of the server's own total that it does not
// attribute: total - load - prefill - decode. For Ollama it holds the wait for
// a slot, and up to 0.24 the sampling too (reference: server/routes.go, the
// handler's clock starts before the slot semaphore is taken). It is nil unless
// the server gave all four figures.
func (t Timing) Unaccounted() *time.Duration {
	if t.Total == nil || t.Load == nil || t.Prefill == nil || t.Decode == nil {
		return nil
	}
	d := max(*t.Total-*t.Load-*t.Prefill-*t.Decode, 0)
	return &d
}

// Model is a model that a server has.
type Model struct {
	Name   string
	Digest string // content identity; empty when the server does not tell
	Loaded bool   // in memory now
	Bytes  *int64 // size of its weights; nil when unknown
	Remote bool   // computed elsewhere (Ollama Cloud): records would leave this machine
}

// Identity is what a cache may key on: the digest, else the name.
func (m Model) Identity() string {
	if m.Digest != "" {
		return m.Digest
	}
	return m.Name
}
