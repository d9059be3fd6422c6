package llm_test

import (
	"strings"
	"testing"

	"millrace/internal/llm"
)

func TestBaseURL(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "http://127.0.0.1:11434"},
		{"  \"gpu1\" ", "http://gpu1:11434"},
		{"gpu1:8000", "http://gpu1:8000"},
		{":8000", "http://127.0.0.1:8000"},
		{"0.0.0.0", "http://127.0.0.1:11434"},
		{"0.0.0.0:80", "http://127.0.0.1:80"},
		{"[::]:1", "http://[::1]:1"},
		{"::1", "http://[::1]:11434"},
		{"[fe80::2]:99", "http://[fe80::2]:99"},
		{"http://gpu1", "http://gpu1"},
		{"HTTPS://gpu1/", "https://gpu1"},
		{"http://gpu1:1234//", "http://gpu1:1234"},
		{"gpu1/v1/", "http://gpu1:11434"},
		{"http://gpu1/v1/chat/completions", "http://gpu1"},
		{"http://gpu1/api/tags?x=1#y", "http://gpu1"},
		{"http://gpu1/llm/v1", "http://gpu1/llm"},
		{"http://gpu1/apiary", "http://gpu1/apiary"},
		{"http://me:secret@gpu1/x", "http://me:secret@gpu1/x"},
		{"me:secret@gpu1", "http://me:secret@gpu1:11434"},
	} {
		got, err := llm.BaseURL(tt.in, "11434", "/v1", "/api")
		if err != nil || got != tt.want {
			t.Errorf("%q: got %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"ftp://x", "gpu1:port", "http://me:secret@gpu1:99999", "http://a b", "gpu1:-1"} {
		got, err := llm.BaseURL(in, "11434")
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %q, %v; want an error", in, got, err)
		}
	}
}

func FuzzBaseURL(f *testing.F) {
	for _, s := range []string{"", "gpu1:8000", "[::]:1", "http://me:secret@gpu1/x", "::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		got, err := llm.BaseURL(address, "11434", "/v1", "/api")
		if err != nil {
			return
		}
		if again, err := llm.BaseURL(got, "11434", "/v1", "/api"); err != nil || again != got {
			t.Fatalf("%q became %q, and that %q, %v", address, got, again, err)
		}
	})
}
