package sqlite

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"os"
	"testing"

	"go.uber.org/goleak"

	"millrace/internal/batch"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir, os.Getenv(childWorker)))
	}
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		if err := f.Value.Set(checks); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// testKey returns the n-th of a series of keys as random as hashes.
func testKey(n int) (k batch.Key) {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	binary.LittleEndian.PutUint64(k[:], r.Uint64())
	binary.LittleEndian.PutUint64(k[8:], r.Uint64())
	return k
}

func openTest(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func testAnswer(n int) batch.Answer {
	return batch.Answer{Key: testKey(n), Subject: batch.Subject(n), Text: []byte(`{"a":1}`)}
}
