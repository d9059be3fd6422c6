// Package storetest is the exam for implementations of batch.Store: a new one
// is written, handed to Exercise, and done. Only tests import it.
package storetest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"millrace/internal/batch"
)

// Exercise runs the whole contract of batch.Store. open returns a new, empty
// store; Exercise closes it. Stores have to keep times to the millisecond.
func Exercise(t *testing.T, open func(t testing.TB) batch.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, batch.Store)
	}{
		{"Lookup/Miss", miss},
		{"Lookup/RoundTrip", roundTrip},
		{"Lookup/ManyKeys", manyKeys},
		{"Lookup/Failures", failures},
		{"Save/Replace", replace},
		{"Save/OtherSubject", otherSubject},
		{"Save/Links", links},
		{"Save/Nothing", saveNothing},
		{"Source", sources},
		{"Run/Resume", resume},
		{"Run/Scoped", scoped},
		{"Trail", trail},
		{"Purge", purge},
		{"Purge/Failure", purgeFailure},
		{"Prune/Expired", pruneExpired},
		{"Prune/Replaced", pruneReplaced},
		{"Prune/ReplacedWithLinks", pruneReplacedWithLinks},
		{"Prune/Abandoned", pruneAbandoned},
		{"Stats", stats},
		{"Context", ended},
		{"Concurrent", concurrent},
		{"Concurrent/OneRun", oneRun},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			test.run(t, s)
		})
	}
	t.Run("Close", func(t *testing.T) { closed(t, open(t)) })
	t.Run("Model", func(t *testing.T) { model(t, open) })
}

// key returns the n-th of a series of keys that look like hashes.
func key(n int) (k batch.Key) {
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	x ^= x >> 31
	x *= 0xbf58476d1ce4e5b9
	binary.BigEndian.PutUint64(k[:], x)
	binary.BigEndian.PutUint64(k[8:], uint64(n))
	return k
}

// at returns the n-th millisecond of some day.
func at(n int) time.Time {
	return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond)
}

var (
	never = time.Time{}
	late  = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	early = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
)

// fataler is what checks need of a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func ok(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T any](t fataler, what string, got, want T) {
	t.Helper()
	if reflect.DeepEqual(got, want) {
		return // the fast way to the same result
	}
	// Byte by byte cmp takes seconds for a long text.
	long := gocmp.FilterValues(
		func(a, b json.RawMessage) bool { return len(a) > 0 && len(b) > 0 },
		gocmp.Comparer(func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }))
	if d := gocmp.Diff(want, got, cmpopts.EquateEmpty(), long); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

// found is the part of an answer that Lookup returns.
func found(a batch.Answer) *batch.Answer {
	a.Key, a.Source, a.Inputs = batch.Key{}, 0, nil
	return &a
}

func save(t testing.TB, s batch.Store, answers ...batch.Answer) {
	t.Helper()
	ok(t, s.Save(t.Context(), answers, nil, nil))
}

func lookup(t testing.TB, s batch.Store, keys ...batch.Key) []batch.Found {
	t.Helper()
	f, err := s.Lookup(t.Context(), batch.Run{}, keys)
	ok(t, err)
	if len(f) != len(keys) {
		t.Fatalf("Lookup of %d keys gave %d results", len(keys), len(f))
	}
	return f
}

// has tells for each key whether it is answered, as a string of + and -.
func has(t testing.TB, s batch.Store, keys ...batch.Key) string {
	t.Helper()
	var b strings.Builder
	for _, f := range lookup(t, s, keys...) {
		b.WriteByte("-+"[toInt(f.Answer != nil)])
	}
	return b.String()
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func source(t testing.TB, s batch.Store, job string) int64 {
	t.Helper()
	id, err := s.Source(t.Context(), sourceOf(job))
	ok(t, err)
	return id
}

func sourceOf(job string) batch.Source {
	return batch.Source{Job: job, Version: 3, Model: "m", Options: "o", Schema: "s", Prompt: "p", Fields: []string{"review", "the product"}}
}

func openRun(t testing.TB, s batch.Store, n int) batch.Run {
	t.Helper()
	r, err := s.OpenRun(t.Context(), runOf(n))
	ok(t, err)
	return r
}

func runOf(n int) batch.Run {
	return batch.Run{
		Fingerprint: key(1_000_000 + n), Started: at(n),
		Job: "jobs/review.yaml", Args: map[string]string{"fields": "name"}, Input: "in.csv", Output: "out.csv",
		Server: "http://127.0.0.1:11434", Model: "m:1b",
	}
}

func answer(n int) batch.Answer {
	return batch.Answer{
		Key: key(n), Subject: batch.Subject(-n), Inputs: []byte("01234567abcdefgh"),
		Text: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)), Created: at(n),
	}
}

func miss(t *testing.T, s batch.Store) {
	same(t, "lookup in an empty store", lookup(t, s, key(1), key(2)), []batch.Found{{}, {}})
	same(t, "lookup of no keys", lookup(t, s), nil)
	tr, err := s.Trail(t.Context(), 1)
	ok(t, err)
	same(t, "trail of an unknown record", tr, nil)
}

func roundTrip(t *testing.T, s batch.Store) {
	answers := []batch.Answer{
		{Key: key(1), Subject: 1<<63 - 1, Source: 1, Inputs: []byte("12345678"), Run: 7, Text: json.RawMessage(`{"a":"b"}`), Created: at(1), Expires: at(2)},
		{Key: key(2), Subject: -1 << 63, Run: 8, Scoped: true, Text: json.RawMessage(`0`), Created: at(3)},
		{Key: key(3), Subject: 0, Keep: true, Text: json.RawMessage(`"` + strings.Repeat("long, ", 100) + `"`), Created: at(4)},
		{Key: key(4), Subject: 5, Text: json.RawMessage(`"` + strings.Repeat("Größe 大 \\u0000", 100_000) + `"`), Created: at(4)},
		{Key: batch.Key{}, Subject: 6, Text: json.RawMessage(` [ 1 , 2 ] `), Created: at(5)},
	}
	save(t, s, answers...)
	keys := []batch.Key{key(4), key(9), key(1), {}, key(3), key(1), key(2)}
	same(t, "found, in the order of the keys", lookup(t, s, keys...), []batch.Found{
		{Answer: found(answers[3])},
		{},
		{Answer: found(answers[0])},
		{Answer: found(answers[4])},
		{Answer: found(answers[2])},
		{Answer: found(answers[0])},
		{Answer: found(answers[1])},
	})
}

func manyKeys(t *testing.T, s batch.Store) {
	const n = 4096
	answers := make([]batch.Answer, 0, n)
	keys := make([]batch.Key, 0, 2*n)
	for i := range n {
		answers = append(answers, answer(i))
	}
	for i := range 2 * n { // every other one is there
		keys = append(keys, key(i/2+n*(i%2)))
	}
	save(t, s, answers...)
	for i, f := range lookup(t, s, keys...) {
		want := batch.Found{}
		if i%2 == 0 {
			want.Answer = found(answers[i/2])
		}
		same(t, fmt.Sprintf("key %d", i), f, want)
	}
}

func failures(t *testing.T, s batch.Store) {
	ctx := t.Context()
	run, other := openRun(t, s, 1), openRun(t, s, 2)
	f := batch.Failure{Key: key(1), Subject: 4, Run: run.ID, Reason: "no JSON", Raw: strings.Repeat("I am sorry. ", 50), Attempts: 3}
	g := batch.Failure{Key: key(2), Subject: 5, Run: run.ID, Reason: "empty"}
	ok(t, s.Save(ctx, nil, nil, []batch.Failure{f, g}))
	look := func(r batch.Run) []batch.Found {
		t.Helper()
		found, err := s.Lookup(ctx, r, []batch.Key{key(3), key(2), key(1)})
		ok(t, err)
		return found
	}
	same(t, "a run that is not resumed", look(run), make([]batch.Found, 3))
	run.Resumed, other.Resumed = true, true
	same(t, "another run", look(other), make([]batch.Found, 3))
	same(t, "a resumed run", look(run), []batch.Found{{}, {Failure: &g}, {Failure: &f}})
	f.Reason, f.Attempts = "still no JSON", 4
	ok(t, s.Save(ctx, nil, nil, []batch.Failure{f}))
	same(t, "after failing again", look(run), []batch.Found{{}, {Failure: &g}, {Failure: &f}})
	ok(t, s.FinishRun(ctx, run.ID, json.RawMessage(`{}`)))
	same(t, "a finished run", look(run), make([]batch.Found, 3))
}

func replace(t *testing.T, s batch.Store) {
	old := answer(1)
	src := source(t, s, "review")
	old.Source, old.Expires, old.Scoped = src, at(50), true
	save(t, s, old)
	a := old
	a.Text, a.Created, a.Expires, a.Run, a.Scoped, a.Keep = json.RawMessage(`"newer"`), at(100), never, 9, false, true
	a.Inputs = []byte("abcdefgh")
	save(t, s, a)
	same(t, "the newer answer", lookup(t, s, key(1)), []batch.Found{{Answer: found(a)}})
	b := a
	b.Text = json.RawMessage(`"twice in a group"`)
	save(t, s, a, b)
	same(t, "the last of a group", lookup(t, s, key(1)), []batch.Found{{Answer: found(b)}})
	tr, err := s.Trail(t.Context(), a.Subject)
	ok(t, err)
	same(t, "trail", tr, []batch.Trail{{Source: sourceOf("review"), Inputs: a.Inputs, Key: a.Key, Run: batch.Run{ID: 9}, Created: at(100)}})
}

// otherSubject: the same question came up for another record, and was asked
// again (the answer had expired, say). Both records have it now.
func otherSubject(t *testing.T, s batch.Store) {
	ctx := t.Context()
	src := source(t, s, "review")
	a := batch.Answer{Key: key(1), Subject: 10, Source: src, Inputs: []byte("of ten.."), Run: 1, Text: json.RawMessage(`1`), Created: at(1)}
	b := batch.Answer{Key: key(1), Subject: 20, Source: src, Inputs: []byte("of twnty"), Run: 2, Text: json.RawMessage(`2`), Created: at(2)}
	save(t, s, a)
	save(t, s, b)
	f := lookup(t, s, key(1))[0].Answer
	same(t, "text", string(f.Text), `2`)
	same(t, "run", f.Run, 2)
	for subject, inputs := range map[batch.Subject][]byte{10: a.Inputs, 20: b.Inputs} {
		tr, err := s.Trail(ctx, subject)
		ok(t, err)
		want := []batch.Trail{{Source: sourceOf("review"), Inputs: inputs, Key: key(1), Run: batch.Run{ID: 2}, Created: at(2)}}
		same(t, fmt.Sprintf("trail of record %d", subject), tr, want)
	}
}

func links(t *testing.T, s batch.Store) {
	ctx := t.Context()
	src := source(t, s, "review")
	a := batch.Answer{Key: key(1), Subject: 10, Source: src, Inputs: []byte("aaaaaaaa"), Run: 1, Text: json.RawMessage(`1`), Created: at(1)}
	link := func(k int, subject batch.Subject, inputs string, run int64) batch.Link {
		return batch.Link{Key: key(k), Subject: subject, Source: src, Inputs: []byte(inputs), Run: run, Created: at(5)}
	}
	// In one group: the answer is there before its links.
	ok(t, s.Save(ctx, []batch.Answer{a}, []batch.Link{link(1, 20, "bbbbbbbb", 1), link(1, 10, "cccccccc", 1), link(404, 20, "dddddddd", 1)}, nil))
	ok(t, s.Save(ctx, nil, []batch.Link{link(1, 20, "eeeeeeee", 3)}, nil))
	want := map[batch.Subject][]batch.Trail{
		10: {{Source: sourceOf("review"), Inputs: a.Inputs, Key: key(1), Run: batch.Run{ID: 1}, Created: at(1)}},
		20: {{Source: sourceOf("review"), Inputs: []byte("eeeeeeee"), Key: key(1), Run: batch.Run{ID: 3}, Created: at(1)}},
	}
	for subject, want := range want {
		tr, err := s.Trail(ctx, subject)
		ok(t, err)
		same(t, fmt.Sprintf("trail of record %d", subject), tr, want)
	}
	// A newer answer keeps the links.
	a.Created = at(9)
	save(t, s, a)
	tr, err := s.Trail(ctx, 20)
	ok(t, err)
	want[20][0].Created = at(9)
	same(t, "trail after a newer answer", tr, want[20])
}

func saveNothing(t *testing.T, s batch.Store) {
	ok(t, s.Save(t.Context(), nil, nil, nil))
}

func sources(t *testing.T, s batch.Store) {
	ctx := t.Context()
	base := sourceOf("review")
	variants := []batch.Source{base, base, base, base, base, base, base, base, base}
	variants[1].Job = "other"
	variants[2].Version++
	variants[3].Model = "n"
	variants[4].Options = "x"
	variants[5].Schema = "x"
	variants[6].Prompt = "x"
	variants[7].Fields = []string{"the product", "review"}
	variants[8].Fields = nil
	seen := map[int64]int{}
	for i, v := range variants {
		id, err := s.Source(ctx, v)
		ok(t, err)
		if j, dup := seen[id]; dup {
			t.Errorf("sources %d and %d have the same id %d", i, j, id)
		}
		seen[id] = i
		again, err := s.Source(ctx, v)
		ok(t, err)
		same(t, "id on asking again", again, id)
	}
}

func resume(t *testing.T, s batch.Store) {
	ctx := t.Context()
	first := openRun(t, s, 1)
	want := runOf(1)
	want.ID = first.ID
	same(t, "a new run", first, want)
	other := openRun(t, s, 2)
	if other.ID == first.ID || other.Resumed {
		t.Errorf("a run with another fingerprint: %+v", other)
	}
	r := runOf(1)
	r.Started, r.Server = at(99), "http://elsewhere:8080"
	again, err := s.OpenRun(ctx, r)
	ok(t, err)
	want.Resumed, want.Server = true, r.Server
	same(t, "the resumed run", again, want)

	ok(t, s.FinishRun(ctx, first.ID, json.RawMessage(`{"records":1}`)))
	ok(t, s.FinishRun(ctx, first.ID, json.RawMessage(`{"records":2}`))) // twice is no harm
	next := openRun(t, s, 1)
	if next.ID == first.ID || next.Resumed {
		t.Errorf("after the run has finished: %+v", next)
	}
	if err := s.FinishRun(ctx, 1<<40, json.RawMessage(`{}`)); err == nil {
		t.Error("finishing a run that does not exist gave no error")
	}
}

func scoped(t *testing.T, s batch.Store) {
	ctx := t.Context()
	run, other := openRun(t, s, 1), openRun(t, s, 2)
	const n = 4500 // removed in several steps
	var answers []batch.Answer
	var links []batch.Link
	for i := range n {
		a := answer(i)
		a.Scoped, a.Run = true, run.ID
		answers = append(answers, a)
		links = append(links, batch.Link{Key: a.Key, Subject: 1_000_000, Run: run.ID})
	}
	stay, theirs := answer(n), answer(n+1)
	stay.Run, theirs.Run, theirs.Scoped = run.ID, other.ID, true
	// What was scoped once and is then saved for good stays.
	kept := answers[0]
	kept.Scoped = false
	save(t, s, append(answers, stay, theirs, kept)...)
	ok(t, s.Save(ctx, nil, links, nil))
	ok(t, s.FinishRun(ctx, run.ID, json.RawMessage(`{}`)))
	same(t, "what is left", has(t, s, kept.Key, key(1), key(2000), key(n-1), stay.Key, theirs.Key), "+---++")
	tr, err := s.Trail(ctx, 1_000_000)
	ok(t, err)
	if len(tr) != 1 || tr[0].Key != kept.Key {
		t.Errorf("links of the removed answers are left: %d trails, want the one of the answer that stays", len(tr))
	}
}

func trail(t *testing.T, s batch.Store) {
	ctx := t.Context()
	run := openRun(t, s, 1)
	run2 := openRun(t, s, 2)
	ok(t, s.FinishRun(ctx, run2.ID, json.RawMessage(`{"records":1}`)))
	review, rating := source(t, s, "review"), source(t, s, "rating")
	const me, they = 10, 20
	in := []byte("11111111")
	save(t, s,
		batch.Answer{Key: key(1), Subject: me, Source: review, Inputs: in, Run: run.ID, Text: json.RawMessage(`1`), Created: at(1), Expires: at(9)},
		batch.Answer{Key: key(2), Subject: they, Source: review, Inputs: in, Run: run.ID, Text: json.RawMessage(`2`), Created: at(3)},
		batch.Answer{Key: key(3), Subject: me, Source: rating, Run: run2.ID, Text: json.RawMessage(`3`), Created: at(2)},
		batch.Answer{Key: key(4), Subject: they, Source: rating, Text: json.RawMessage(`4`), Created: at(4)},
	)
	ok(t, s.Save(ctx, nil, []batch.Link{{Key: key(2), Subject: me, Source: rating, Inputs: []byte("22222222"), Run: run2.ID, Created: at(5)}}, nil))
	got, err := s.Trail(ctx, me)
	ok(t, err)
	same(t, "trail, newest answer first", got, []batch.Trail{
		{Key: key(2), Source: sourceOf("rating"), Inputs: []byte("22222222"), Run: run2, Created: at(3)},
		{Key: key(3), Source: sourceOf("rating"), Run: run2, Created: at(2)},
		{Key: key(1), Source: sourceOf("review"), Inputs: in, Run: run, Created: at(1), Expires: at(9)},
	})
}

func purge(t *testing.T, s batch.Store) {
	ctx := t.Context()
	for i := range 6 {
		save(t, s, answer(i))
	}
	link := func(k int, subject batch.Subject) batch.Link { return batch.Link{Key: key(k), Subject: subject} }
	own := answer(3).Subject
	ok(t, s.Save(ctx, nil, []batch.Link{
		link(3, 50), link(3, 51), // others had the answer of record 3
		link(4, own), link(4, 50), // it had that of record 4
		link(5, 51), // which has nothing to do with it
	}, nil))
	p, err := s.Purge(ctx, own)
	ok(t, err)
	same(t, "removed", p, batch.Purged{Answers: 2, Links: 4})
	same(t, "what is left", has(t, s, key(2), key(3), key(4), key(5)), "+--+")
	for subject, n := range map[batch.Subject]int{own: 0, answer(4).Subject: 0, 50: 0, 51: 1, answer(5).Subject: 1} {
		tr, err := s.Trail(ctx, subject)
		ok(t, err)
		same(t, fmt.Sprintf("answers of record %d", subject), len(tr), n)
	}
	p, err = s.Purge(ctx, own)
	ok(t, err)
	same(t, "removed the second time", p, batch.Purged{})
	// Being asked again, it is there again.
	save(t, s, answer(3))
	same(t, "after asking again", has(t, s, key(3)), "+")
}

// purgeFailure: a failure holds what the model said of the record.
func purgeFailure(t *testing.T, s batch.Store) {
	ctx := t.Context()
	run := openRun(t, s, 1)
	run.Resumed = true
	save(t, s, answer(2)) // the same question was answered for another record
	ok(t, s.Save(ctx, nil, nil, []batch.Failure{
		{Key: key(1), Subject: 10, Run: run.ID, Reason: "r", Raw: "ten"},
		{Key: key(1), Subject: 11, Run: run.ID, Reason: "r", Raw: "the same question"},
		{Key: key(2), Subject: 10, Run: run.ID, Reason: "r", Raw: "ten"},
		{Key: key(3), Subject: 11, Run: run.ID, Reason: "r", Raw: "another"},
	}))
	p, err := s.Purge(ctx, 10)
	ok(t, err)
	same(t, "removed", p, batch.Purged{Answers: 1, Failures: 3})
	f, err := s.Lookup(ctx, run, []batch.Key{key(1), key(2), key(3)})
	ok(t, err)
	same(t, "what is left", f, []batch.Found{{}, {}, {Failure: &batch.Failure{Key: key(3), Subject: 11, Run: run.ID, Reason: "r", Raw: "another"}}})
}

func prune(t testing.TB, s batch.Store, now, abandoned time.Time) batch.Purged {
	t.Helper()
	p, err := s.Prune(t.Context(), now, abandoned)
	ok(t, err)
	return p
}

func pruneExpired(t *testing.T, s batch.Store) {
	const n = 2500 // more than a store is likely to remove at a time
	var answers []batch.Answer
	for i := range n {
		a := answer(i)
		a.Expires = at(n + i%2)
		answers = append(answers, a)
	}
	forever := answer(n)
	kept := answer(n + 1)
	kept.Expires, kept.Keep = at(1), true
	save(t, s, append(answers, forever, kept)...)
	ok(t, s.Save(t.Context(), nil, []batch.Link{{Key: key(0), Subject: 1}, {Key: key(n), Subject: 1}}, nil))
	same(t, "before they expire", prune(t, s, at(n-1), early), batch.Purged{})
	same(t, "when half has", prune(t, s, at(n), early), batch.Purged{Answers: n / 2, Links: 1})
	same(t, "what is left", has(t, s, key(0), key(1), key(n-2), key(n-1), key(n), key(n+1)), "-+-+++")
	same(t, "when all has", prune(t, s, at(n+1), early), batch.Purged{Answers: n / 2})
	same(t, "again", prune(t, s, late, early), batch.Purged{})
	same(t, "what is left then", has(t, s, key(1), key(n), key(n+1)), "-++")
}

func pruneReplaced(t *testing.T, s batch.Store) {
	review, rating := source(t, s, "review"), source(t, s, "rating")
	v2 := sourceOf("review")
	v2.Version++
	review2, err := s.Source(t.Context(), v2)
	ok(t, err)
	a := func(k int, subject batch.Subject, source int64, created int, keep bool) batch.Answer {
		return batch.Answer{Key: key(k), Subject: subject, Source: source, Keep: keep, Text: json.RawMessage(`1`), Created: at(created)}
	}
	save(t, s,
		a(1, 10, review, 1, false), // replaced by 3
		a(2, 10, rating, 2, false), // the only one of its job
		a(3, 10, review2, 3, false),
		a(4, 20, review, 1, true), // replaced, but kept
		a(5, 20, review2, 2, false),
		a(6, 30, review, 5, false), // two of the same moment: neither is newer
		a(7, 30, review2, 5, false),
		a(8, 40, review, 1, false), // an expired one counts as the newer one
	)
	expired := a(9, 40, review2, 2, false)
	expired.Expires = at(3)
	save(t, s, expired)
	same(t, "removed", prune(t, s, at(4), early), batch.Purged{Answers: 3})
	same(t, "what is left", has(t, s, key(1), key(2), key(3), key(4), key(5), key(6), key(7), key(8), key(9)), "-++++++--")
	same(t, "again", prune(t, s, at(4), early), batch.Purged{})
}

// pruneReplacedWithLinks: an answer goes only when no record needs it.
func pruneReplacedWithLinks(t *testing.T, s batch.Store) {
	ctx := t.Context()
	review, rating := source(t, s, "review"), source(t, s, "rating")
	a := func(k int, subject batch.Subject, created int) batch.Answer {
		return batch.Answer{Key: key(k), Subject: subject, Source: review, Text: json.RawMessage(`1`), Created: at(created)}
	}
	l := func(k int, subject batch.Subject, source int64) batch.Link {
		return batch.Link{Key: key(k), Subject: subject, Source: source, Created: at(9)}
	}
	save(t, s, a(1, 10, 1), a(2, 10, 2), a(3, 20, 1), a(4, 30, 2), a(5, 50, 1), a(6, 60, 2))
	ok(t, s.Save(ctx, nil, []batch.Link{
		l(1, 11, review), // 11 has nothing newer, so 1 stays though 10 has 2
		l(4, 20, review), // 20 got a newer answer by a link, so 3 goes
		l(6, 50, rating), // newer, but of another job
	}, nil))
	same(t, "removed", prune(t, s, at(9), early), batch.Purged{Answers: 1})
	same(t, "what is left", has(t, s, key(1), key(2), key(3), key(4), key(5)), "++-++")
	save(t, s, a(7, 11, 5))
	same(t, "once 11 has a newer one", prune(t, s, at(9), early), batch.Purged{Answers: 1, Links: 1})
	same(t, "what is left then", has(t, s, key(1), key(2)), "-+")
}

func pruneAbandoned(t *testing.T, s batch.Store) {
	ctx := t.Context()
	run, empty := openRun(t, s, 1), openRun(t, s, 2)
	a, b := answer(1), answer(2)
	a.Run, a.Scoped, b.Run = run.ID, true, run.ID
	ok(t, s.Save(ctx, []batch.Answer{a, b}, nil, []batch.Failure{{Key: key(3), Subject: 1, Run: run.ID, Reason: "r"}}))
	same(t, "touched since then", prune(t, s, late, early), batch.Purged{})
	run.Resumed = true
	f, err := s.Lookup(ctx, run, []batch.Key{key(1), key(3)})
	ok(t, err)
	if f[0].Answer == nil || f[1].Failure == nil {
		t.Error("a run in progress lost its scoped answer or its failure")
	}
	// A run that something came from stays: Trail tells of it.
	same(t, "untouched", prune(t, s, late, late), batch.Purged{Answers: 1, Failures: 1, Runs: 1})
	same(t, "what is left", has(t, s, key(1), key(2)), "-+")
	if r := openRun(t, s, 2); r.ID == empty.ID || r.Resumed {
		t.Errorf("the removed run was resumed, or its id used again: %+v", r)
	}
	tr, err := s.Trail(ctx, b.Subject)
	ok(t, err)
	run.Resumed = false
	same(t, "run of the answer that is left", tr[0].Run, run)
}

func stats(t *testing.T, s batch.Store) {
	ctx := t.Context()
	st, err := s.Stats(ctx, at(0))
	ok(t, err)
	same(t, "an empty store", st, batch.StoreStats{Bytes: st.Bytes})

	review, rating := source(t, s, "review"), source(t, s, "rating")
	v2 := sourceOf("review")
	v2.Version++
	review2, err := s.Source(ctx, v2)
	ok(t, err)
	openRun(t, s, 1)
	a := func(k int, subject batch.Subject, source int64, created int, expires time.Time) batch.Answer {
		return batch.Answer{Key: key(k), Subject: subject, Source: source, Text: json.RawMessage(`12345678`), Created: at(created), Expires: expires}
	}
	save(t, s, a(1, 10, review, 5, at(6)), a(2, 10, review2, 7, at(50)), a(3, 20, review, 3, never), a(4, 10, rating, 1, at(8)))
	ok(t, s.Save(ctx, nil, []batch.Link{{Key: key(3), Subject: 30, Source: review}}, nil))
	st, err = s.Stats(ctx, at(8))
	ok(t, err)
	if st.Bytes <= 0 || st.TextBytes < 4*8 {
		t.Errorf("bytes %d, of which texts %d", st.Bytes, st.TextBytes)
	}
	same(t, "stats", st, batch.StoreStats{
		Answers: 4, Expired: 2, Stale: 1, Records: 3, Runs: 1, Bytes: st.Bytes, TextBytes: st.TextBytes,
		ByJob: []batch.JobStats{
			{Job: "rating", Answers: 1, Oldest: at(1), Newest: at(1)},
			{Job: "review", Answers: 3, Oldest: at(3), Newest: at(7)},
		},
	})
}

// calls is one of each call.
func calls(s batch.Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Lookup": func(ctx context.Context) error {
			_, err := s.Lookup(ctx, batch.Run{}, []batch.Key{key(1)})
			return err
		},
		"Save":    func(ctx context.Context) error { return s.Save(ctx, []batch.Answer{answer(1)}, nil, nil) },
		"Source":  func(ctx context.Context) error { _, err := s.Source(ctx, sourceOf("new")); return err },
		"OpenRun": func(ctx context.Context) error { _, err := s.OpenRun(ctx, runOf(1)); return err },
		"FinishRun": func(ctx context.Context) error {
			return s.FinishRun(ctx, 1, json.RawMessage(`{}`))
		},
		"Trail": func(ctx context.Context) error { _, err := s.Trail(ctx, 1); return err },
		"Purge": func(ctx context.Context) error { _, err := s.Purge(ctx, 1); return err },
		"Prune": func(ctx context.Context) error { _, err := s.Prune(ctx, late, late); return err },
		"Stats": func(ctx context.Context) error { _, err := s.Stats(ctx, late); return err },
	}
}

func ended(t *testing.T, s batch.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(s) {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that has ended: %v", name, err)
		}
	}
	same(t, "nothing was saved", has(t, s, key(1)), "-")
	save(t, s, answer(1)) // it still works
	same(t, "saved", has(t, s, key(1)), "+")
}

func closed(t *testing.T, s batch.Store) {
	ok(t, s.Close())
	ok(t, s.Close())
	for name, call := range calls(s) {
		if err := call(t.Context()); err == nil {
			t.Errorf("%s on a closed store gave no error", name)
		}
	}
}

// newest puts trails into a fixed order: Trail leaves it open for answers of
// the same moment.
func newest(tr []batch.Trail) []batch.Trail {
	slices.SortStableFunc(tr, func(a, b batch.Trail) int {
		return cmp.Or(b.Created.Compare(a.Created), slices.Compare(a.Key[:], b.Key[:]))
	})
	return tr
}
