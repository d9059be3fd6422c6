package ollama_test

import (
	"os"
	"strings"
	"testing"

	"millrace/internal/llm"
	"millrace/internal/llm/llmtest"
	"millrace/internal/llm/ollama"
)

// TestReal holds the adapter to a real Ollama:
//
//	MILLRACE_TEST_OLLAMA=http://127.0.0.1:11434 MILLRACE_TEST_MODEL=tiny go test ./internal/llm/ollama
func TestReal(t *testing.T) {
	url, model := os.Getenv("MILLRACE_TEST_OLLAMA"), os.Getenv("MILLRACE_TEST_MODEL")
	if url == "" || model == "" {
		t.Skip("MILLRACE_TEST_OLLAMA and MILLRACE_TEST_MODEL are not set")
	}
	hc := llm.NewHTTPClient(8)
	t.Cleanup(hc.CloseIdleConnections)
	limit, small := 2000, 256
	slow := llm.Request{Model: model, Messages: []llm.Message{{Role: llm.User, Content: "Write without end."}}}
	slow.MaxTokens = &limit
	// The text has to be longer than the context that the request asks for.
	tooLong := llm.Request{Model: model, Messages: []llm.Message{{Role: llm.User, Content: strings.Repeat("and so on ", 500)}}}
	tooLong.NumCtx = &small
	open := func(t *testing.T) llm.Server {
		s, err := ollama.Open(t.Context(), url, hc)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	llmtest.Exercise(t, open, llmtest.Traits{Model: model, Slow: &slow, TooLong: &tooLong})

	// Each of these, sent as it is, is refused by Ollama 0.17.4 or ends its
	// model runner, together with all other requests in it.
	t.Run("schemas", func(t *testing.T) {
		s := open(t)
		limit := 40
		for _, schema := range []string{
			`{"type":"string","pattern":"[a-z]+"}`,
			`{"type":"string","pattern":"^\\d{3}$"}`,
			`{"type":"string","pattern":"^a\\-b$"}`,
			`{"type":"string","pattern":"^[a-z\\-\\.]+$"}`,
			`{"type":"string","pattern":"^(?=x)[^a]*$"}`,
			`{"type":"object","properties":{"a":{"type":"string","maxLength":2500}},"required":["a"]}`,
			`{"type":"object","properties":{"a":true},"required":["a"]}`,
			`{"type":"object","properties":{"a":{"$ref":"#/$defs/b"}},"$defs":{"b":{"minLength":2}}}`,
			`{"type":"object","properties":{"a-b":{"type":"string"},"a]":{}},"additionalProperties":{"type":"integer"}}`,
			`{"type":"array","prefixItems":[{"type":"boolean"}],"items":false}`,
			`{"required":["a"]}`,
			`{"type":"integer","minimum":0.5,"exclusiveMaximum":7}`,
		} {
			req := llm.Request{Model: model, Messages: []llm.Message{{Role: llm.User, Content: "Answer."}}, Schema: []byte(schema)}
			req.MaxTokens = &limit
			if _, err := s.Ask(t.Context(), req); err != nil {
				t.Errorf("%s: %v", schema, err)
			}
		}
	})
}
