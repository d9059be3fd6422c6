package openai

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
)

func TestReadEvents(t *testing.T) {
	long := strings.Repeat("x", 50_000)
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"plain", "data: a\n\ndata: b\n\n", []string{"a", "b"}},
		{"windows lines", "data: a\r\n\r\ndata:b\r\n\r\n", []string{"a", "b"}},
		{"other fields and comments", ": hello\n\nevent: x\nid: 1\ndata: a\nretry: 5\n\nevent: y\n\n", []string{"a"}},
		{"several lines", "data: a\ndata:\ndata:  b\n\n", []string{"a\n\n b"}},
		{"no empty line at the end", "data: a\n\ndata: b", []string{"a", "b"}},
		{"an error line", "error: {\"code\":1}\n\n", []string{`{"error":{"code":1}}`}},
		{"a long line", "data: " + long + "\n\n", []string{long}},
		{"more empty lines", "\n\n\ndata: a\n\n\n\n", []string{"a"}},
		{"nothing", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			err := readEvents(iotest.OneByteReader(strings.NewReader(tt.in)), func(data []byte) (bool, error) {
				got = append(got, string(data))
				return true, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	broken := errors.New("broken")
	err := readEvents(iotest.ErrReader(broken), func([]byte) (bool, error) { return true, nil })
	if !errors.Is(err, broken) {
		t.Errorf("error of the reader: %v", err)
	}
}

func FuzzReadStream(f *testing.F) {
	for _, s := range []string{
		"data: {\"choices\":[{\"delta\":{\"content\":\"a\",\"reasoning\":\"r\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n",
		"data: {\"error\":{\"message\":\"boom\"}}\n\n", "error: boom\n\n", "data: \xff\n\n", ":\r\n\r\ndata\n\n", "data: {\"choices\":[{\"delta\":{\"content\":[{\"type\":\"text\",\"text\":1}]}}]}\n\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var pieces strings.Builder
		reply, err := readStream(strings.NewReader(in), llm.VLLM, nil, func(s string) error { pieces.WriteString(s); return nil })
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
