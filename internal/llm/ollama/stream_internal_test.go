package ollama

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"millrace/internal/llm"
)

func TestReadStreamLongLines(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	in := `{"model":"m","message":{"content":"` + long + `"},"done":false}` + "\r\n\n" +
		`{"model":"m","message":{"content":""},"done":true,"done_reason":"stop"}`
	got, err := readStream(iotest.HalfReader(strings.NewReader(in)), nil, func(string) error { return nil })
	if err != nil || got.Text != long {
		t.Errorf("got %d bytes, %v", len(got.Text), err)
	}
}

func FuzzReadStream(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","message":{"content":"a","thinking":"b"},"done":false}` + "\n" + `{"message":{},"done":true,"done_reason":"length","eval_count":3}` + "\n",
		`{"error":"boom"}` + "\n", "\n\n{", `{"done":true}`, "\xff\n", `{"message":{"content":1}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var pieces strings.Builder
		reply, err := readStream(strings.NewReader(in), nil, func(s string) error { pieces.WriteString(s); return nil })
		if err != nil {
			if _, ok := errors.AsType[*llm.Error](err); !ok {
				t.Fatalf("%q: error %v is not an *llm.Error", in, err)
			}
			return
		}
		if reply.Text != pieces.String() || reply.Finish == "" {
			t.Fatalf("%q: text %q, pieces %q, finish %q", in, reply.Text, pieces.String(), reply.Finish)
		}
	})
}
