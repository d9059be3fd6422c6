package record

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPeek(t *testing.T) {
	t.Parallel()
	const text = `{"a":1,"b":2}` + "\n" + `not JSON` + "\n" + `{"a":3,"c":4}` + "\n" + `{"d":5}` + "\n"
	read := func(r Reader) (got []string) {
		for {
			rec, err := r.Next()
			if errors.Is(err, io.EOF) {
				return got
			}
			got = append(got, fmt.Sprint(rec.Pos, len(rec.Fields), err != nil))
		}
	}
	open := func() Reader {
		r, err := NewReader(strings.NewReader(text), JSONL, ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := read(open())
	for n, names := range map[int][]string{0: nil, 1: {"a", "b"}, 3: {"a", "b", "c"}, 10: {"a", "b", "c", "d"}} {
		r, got, err := Peek(open(), n)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(names, got); d != "" {
			t.Errorf("names after %d (-want +got):\n%s", n, d)
		}
		if d := cmp.Diff(want, read(r)); d != "" {
			t.Errorf("records after a peek of %d (-want +got):\n%s", n, d)
		}
	}
}
