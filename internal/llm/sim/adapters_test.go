package sim_test

import (
	"net/http"
	"strings"
	"testing"

	"millrace/internal/llm"
	"millrace/internal/llm/llmtest"
	"millrace/internal/llm/ollama"
	"millrace/internal/llm/openai"
	"millrace/internal/llm/sim"
)

// Millrace's own clients hold the simulated server to what they ask of a real
// one, over the in-process transport.
func TestOurClients(t *testing.T) {
	p := fixedLength(profile(t, "rtx4090").WithSpeed(100), 4000)
	limit := 4000
	slow := llm.Request{Model: p.Model.Name, Messages: []llm.Message{{Role: llm.User, Content: "Write without end."}}}
	slow.MaxTokens = &limit
	tooLong := llm.Request{Model: p.Model.Name, Messages: []llm.Message{{Role: llm.User, Content: strings.Repeat("and so on ", 5000)}}}
	traits := llmtest.Traits{Model: p.Model.Name, Slow: &slow, TooLong: &tooLong}
	t.Run("ollama", func(t *testing.T) {
		llmtest.Exercise(t, func(t *testing.T) llm.Server {
			hc := &http.Client{Transport: sim.Transport(sim.New(p).Handler())}
			s, err := ollama.Open(t.Context(), "http://sim.test", hc)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Info(); got.Simulated != p.Name || got.Version != sim.Version {
				t.Errorf("info %+v", got)
			}
			return s
		}, traits)
	})
	t.Run("openai", func(t *testing.T) {
		p := p
		p.OpenAIOnly = true
		llmtest.Exercise(t, func(t *testing.T) llm.Server {
			hc := &http.Client{Transport: sim.Transport(sim.New(p).Handler())}
			s, err := openai.Open(t.Context(), "http://sim.test", hc, "")
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Info(); got.Simulated != p.Name {
				t.Errorf("info %+v", got)
			}
			return s
		}, traits)
	})
}
