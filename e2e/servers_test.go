//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"millrace/e2e/ollamatest"
	"millrace/internal/llm"
	"millrace/internal/llm/llmtest"
	"millrace/internal/llm/ollama"
	"millrace/internal/llm/openai"
)

// TestServers puts both adapters through the suite against the real thing.
func TestServers(t *testing.T) {
	server := ollamatest.Start(t, "OLLAMA_NUM_PARALLEL=2")
	hc := llm.NewHTTPClient(8)
	t.Cleanup(hc.CloseIdleConnections)

	zero, long := 0.0, 4000
	slow := &llm.Request{
		Model:    server.Model,
		Messages: []llm.Message{{Role: llm.User, Content: "Toss a coin five hundred times."}},
		Schema:   json.RawMessage(`{"type": "array", "items": {"type": "boolean"}, "minItems": 500}`),
		Options:  llm.Options{Temperature: &zero, MaxTokens: &long},
	}
	tooLong := &llm.Request{
		Model:    server.Model,
		Messages: []llm.Message{{Role: llm.User, Content: strings.Repeat("word ", 5000)}},
		Options:  llm.Options{Temperature: &zero},
	}

	t.Run("ollama", func(t *testing.T) {
		llmtest.Exercise(t, func(t *testing.T) llm.Server {
			s, err := ollama.Open(t.Context(), server.URL, hc)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}, llmtest.Traits{Model: server.Model, Slow: slow, TooLong: tooLong})
	})
	t.Run("openai", func(t *testing.T) {
		llmtest.Exercise(t, func(t *testing.T) llm.Server {
			s, err := openai.Open(t.Context(), server.URL+"/v1", hc, "")
			if err != nil {
				t.Fatal(err)
			}
			return s
			// Its OpenAI API cuts long prompts silently, so that TooLong cannot be told.
		}, llmtest.Traits{Model: server.Model, Slow: slow})
	})
}
