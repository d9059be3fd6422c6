package sqlite

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/internal/batch"
)

// onDisk counts the occurrences of each needle in the files of the store.
func onDisk(t *testing.T, dir string, needles ...[]byte) []int {
	t.Helper()
	counts := make([]int, len(needles))
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range needles {
			counts[i] += bytes.Count(b, n)
		}
	}
	return counts
}

// TestPurgeLeavesNoByte looks for purged texts, plain and as they were
// compressed, in the raw files, after a history that moved them around.
func TestPurgeLeavesNoByte(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	r := rand.New(rand.NewPCG(1, 2))
	const records = 700
	needles := make([][][]byte, records)
	save := func(i int, round int) {
		mark := fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64())
		text := fmt.Sprintf(`{"round":%d,"name":"%s"}`, round, mark)
		switch r.IntN(3) {
		case 1: // compressed
			text = fmt.Sprintf(`{"name":"%s","note":"%s"}`, mark, strings.Repeat("the same again and ", 5+r.IntN(100)))
		case 2: // on pages of its own
			b := make([]byte, 3000+r.IntN(3000))
			for i := range b {
				b[i] = byte('a' + r.IntN(26))
			}
			text = fmt.Sprintf(`{"name":"%s","note":"%s"}`, mark, b)
		}
		packed := s.codec.pack([]byte(text))
		needles[i] = append(needles[i], []byte(mark))
		if packed[0] == textZstd {
			needles[i] = append(needles[i], packed[1:])
		}
		err := s.Save(ctx, []batch.Answer{{Key: testKey(i), Subject: batch.Subject(i), Run: 1, Text: []byte(text), Created: time.Now()}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range records {
		save(i, 0)
	}
	for round := range 3 {
		for range records {
			save(r.IntN(records), round+1)
		}
		// Bytes have to leave the log too, whenever they got there.
		if err := s.with(ctx, s.writer, func(c *conn) error { return s.checkpoint(ctx, c) }); err != nil {
			t.Fatal(err)
		}
	}
	if n := onDisk(t, dir, needles[7][len(needles[7])-1]); n[0] == 0 {
		t.Fatal("the text is not on disk as this test thinks it is, so it cannot tell whether it goes")
	}
	failure := "raw answer of record seven, nothing else like it"
	err := s.Save(ctx, nil, nil, []batch.Failure{{Key: testKey(-1), Subject: 7, Run: 1, Reason: "r", Raw: failure}})
	if err != nil {
		t.Fatal(err)
	}
	var gone [][]byte
	for i := 0; i < records; i += 7 {
		gone = append(gone, needles[i]...)
	}
	gone = append(gone, needles[1]...)
	for i := 0; i < records; i += 7 {
		p, err := s.Purge(ctx, batch.Subject(i))
		if err != nil {
			t.Fatal(err)
		}
		want := batch.Purged{Answers: 1}
		if i == 7 {
			want.Failures = 1
		}
		if p != want {
			t.Fatalf("purge of %d: %+v, want %+v", i, p, want)
		}
	}
	if _, err := s.Purge(ctx, 1); err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, n := range onDisk(t, dir, append(gone, []byte(failure))...) {
		left += min(n, 1)
	}
	if left > 0 {
		t.Errorf("%d of %d purged texts are still in the files", left, len(gone)+1)
	}
}
