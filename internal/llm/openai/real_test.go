package openai_test

import (
	"os"
	"testing"

	"millrace/internal/llm"
	"millrace/internal/llm/llmtest"
	"millrace/internal/llm/openai"
)

// TestReal holds the adapter to a real server, for example Ollama, whose /v1
// this API is as well:
//
//	MILLRACE_TEST_OPENAI=http://127.0.0.1:11434 MILLRACE_TEST_MODEL=tiny go test ./internal/llm/openai
func TestReal(t *testing.T) {
	url, model := os.Getenv("MILLRACE_TEST_OPENAI"), os.Getenv("MILLRACE_TEST_MODEL")
	if url == "" || model == "" {
		t.Skip("MILLRACE_TEST_OPENAI and MILLRACE_TEST_MODEL are not set")
	}
	hc := llm.NewHTTPClient(8)
	t.Cleanup(hc.CloseIdleConnections)
	limit := 2000
	slow := llm.Request{Model: model, Messages: []llm.Message{{Role: llm.User, Content: "Write without end."}}}
	slow.MaxTokens = &limit
	llmtest.Exercise(t, func(t *testing.T) llm.Server {
		s, err := openai.Open(t.Context(), url, hc, os.Getenv("MILLRACE_TEST_KEY"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, llmtest.Traits{Model: model, Slow: &slow})
}
