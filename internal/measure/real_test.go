package measure_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"millrace/internal/llm"
	"millrace/internal/llm/ollama"
	"millrace/internal/measure"
)

// TestReal measures a real Ollama and shows the summary:
//
//	MILLRACE_TEST_OLLAMA=http://127.0.0.1:11434 MILLRACE_TEST_MODEL=tiny go test -v -run Real ./internal/measure
func TestReal(t *testing.T) {
	url, model := os.Getenv("MILLRACE_TEST_OLLAMA"), os.Getenv("MILLRACE_TEST_MODEL")
	if url == "" || model == "" {
		t.Skip("MILLRACE_TEST_OLLAMA and MILLRACE_TEST_MODEL are not set")
	}
	hc := llm.NewHTTPClient(32)
	t.Cleanup(hc.CloseIdleConnections)
	s, err := ollama.Open(t.Context(), url, hc)
	if err != nil {
		t.Fatal(err)
	}
	plan := measure.Full()
	if os.Getenv("MILLRACE_TEST_QUICK") != "" {
		plan = measure.Quick()
	}
	begin := time.Now()
	trials, err := measure.Run(t.Context(), s, model, plan, measure.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	sum := measure.Summarise(trials)
	b, err := json.MarshalIndent(sum, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("took %v\n%s", took, b)
	if sum.Failed > 0 || len(sum.Scenarios) == 0 || sum.Scenarios[0].TokensPerS == nil || sum.Curve == nil {
		t.Errorf("failed %d, %d scenarios, curve %v", sum.Failed, len(sum.Scenarios), sum.Curve != nil)
	}
	if out := os.Getenv("MILLRACE_TEST_TRIALS"); out != "" {
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, tr := range trials {
			if err := measure.WriteTrial(f, tr); err != nil {
				t.Fatal(err)
			}
		}
	}
}
