package sqlite

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"millrace/internal/batch"
)

// Sizes. Small ones, to see that the benchmarks run; figures to tell are made
// with -store.answers=1000000.
var (
	benchAnswers = flag.Int("store.answers", 20_000, "answers that are in the store when a benchmark begins")
	benchText    = flag.Int("store.text", 120, "length of a benchmark's answers in bytes")
)

const (
	benchSave   = 500  // answers in a group that is saved
	benchLookup = 1024 // keys in a group that is looked up
)

var benchWords = strings.Fields("the student has worked on data analysis with python and spreadsheets in a team of three, then for customer service and marketing")

func benchAnswer(n int) batch.Answer {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	var b strings.Builder
	fmt.Fprintf(&b, `{"sentiment":"good","score":%d,"reason":"`, r.IntN(100))
	for b.Len() < *benchText-3 {
		b.WriteString(benchWords[r.IntN(len(benchWords))])
		b.WriteByte(' ')
	}
	b.WriteString(`"}`)
	return batch.Answer{
		Key: testKey(n), Subject: batch.Subject(r.Uint64()), Source: 1, Run: 1, Inputs: []byte("16 bytes of hash"),
		Text: json.RawMessage(b.String()), Created: time.UnixMilli(1_790_000_000_000 + int64(n)),
	}
}

func benchFill(b *testing.B, s *Store, from, n int) {
	b.Helper()
	answers := make([]batch.Answer, 0, benchSave)
	for i := range n {
		if answers = append(answers, benchAnswer(from+i)); len(answers) == benchSave || i == n-1 {
			if err := s.Save(b.Context(), answers, nil, nil); err != nil {
				b.Fatal(err)
			}
			answers = answers[:0]
		}
	}
}

// BenchmarkSave saves to a store that holds -store.answers already.
func BenchmarkSave(b *testing.B) {
	s := openTest(b, b.TempDir(), Options{})
	benchFill(b, s, 0, *benchAnswers)
	next := *benchAnswers
	answers := make([]batch.Answer, benchSave)
	for b.Loop() {
		b.StopTimer()
		for i := range answers {
			answers[i] = benchAnswer(next)
			next++
		}
		b.StartTimer()
		if err := s.Save(b.Context(), answers, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*benchSave)/b.Elapsed().Seconds(), "answers/s")
}

// BenchmarkLookup finds answers in the order in which they were saved, as a
// second run over the same records does, and in no order.
func BenchmarkLookup(b *testing.B) {
	dir := b.TempDir()
	s := openTest(b, dir, Options{})
	benchFill(b, s, 0, *benchAnswers)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	s = openTest(b, dir, Options{})
	groups := max(*benchAnswers/benchLookup, 1)
	group := func(at int, order func(int) int) []batch.Key {
		keys := make([]batch.Key, benchLookup)
		for i := range keys {
			keys[i] = testKey(order(at*benchLookup+i) % *benchAnswers)
		}
		return keys
	}
	inOrder := func(n int) int { return n }
	atRandom := func(n int) int { return int(rand.New(rand.NewPCG(uint64(n), 2)).Uint32()) }
	for _, test := range []struct {
		name  string
		order func(int) int
	}{{"second-run", inOrder}, {"random", atRandom}} {
		b.Run(test.name, func(b *testing.B) {
			hits := 0
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				keys := group(n%groups, test.order)
				b.StartTimer()
				found, err := s.Lookup(b.Context(), batch.Run{}, keys)
				if err != nil {
					b.Fatal(err)
				}
				for i := range found {
					if found[i].Answer != nil {
						hits++
					}
				}
			}
			if hits != b.N*benchLookup {
				b.Fatalf("%d hits, want %d", hits, b.N*benchLookup)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(hits), "ns/hit")
		})
	}
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for n := rand.IntN(groups); p.Next(); n++ {
				if _, err := s.Lookup(b.Context(), batch.Run{}, group(n%groups, inOrder)); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchLookup), "ns/hit")
	})
}

// BenchmarkWhole measures the calls that read through the whole store: half of
// its records have a second, newer answer.
func BenchmarkWhole(b *testing.B) {
	ctx := b.Context()
	s := openTest(b, b.TempDir(), Options{})
	if _, err := s.Source(ctx, batch.Source{Job: "review"}); err != nil {
		b.Fatal(err)
	}
	benchFill(b, s, 0, *benchAnswers)
	var newer []batch.Answer
	for i := range *benchAnswers / 2 {
		a := benchAnswer(i)
		a.Key, a.Created = testKey(-1-i), a.Created.Add(time.Hour)
		if newer = append(newer, a); len(newer) == benchSave {
			if err := s.Save(ctx, newer, nil, nil); err != nil {
				b.Fatal(err)
			}
			newer = newer[:0]
		}
	}
	b.Run("Trail", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			if _, err := s.Trail(ctx, benchAnswer(n%*benchAnswers).Subject); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Stats", func(b *testing.B) {
		for b.Loop() {
			st, err := s.Stats(ctx, time.Now())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(st.Bytes)/float64(st.Answers), "bytes/answer")
			b.ReportMetric(float64(st.Stale), "stale")
		}
	})
	b.Run("Purge", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			if _, err := s.Purge(ctx, benchAnswer(n%*benchAnswers).Subject); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Prune", func(b *testing.B) {
		for b.Loop() {
			p, err := s.Prune(ctx, time.Now(), time.Time{})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(p.Answers), "answers")
		}
	})
}
