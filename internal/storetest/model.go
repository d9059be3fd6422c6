package storetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/internal/batch"
)

// The model is the contract in its plainest form: maps, searched in full.
type stored struct {
	batch.Answer
	links map[batch.Subject]batch.Link
}

type failed struct {
	run     int64
	key     batch.Key
	subject batch.Subject
}

type contents struct {
	answers  map[batch.Key]*stored
	failures map[failed]batch.Failure
	runs     map[int64]batch.Run // unfinished have Resumed false here
	ended    map[int64]bool
	sources  map[int64]batch.Source
}

func (m *contents) save(answers []batch.Answer, links []batch.Link, failures []batch.Failure) {
	for _, a := range answers {
		have := m.answers[a.Key]
		if have == nil {
			m.answers[a.Key] = &stored{Answer: a, links: map[batch.Subject]batch.Link{}}
			continue
		}
		old := have.Answer
		have.Answer = a
		if old.Subject != a.Subject {
			have.Subject, have.Source, have.Inputs = old.Subject, old.Source, old.Inputs
			have.links[a.Subject] = batch.Link{Key: a.Key, Subject: a.Subject, Source: a.Source, Inputs: a.Inputs, Run: a.Run}
		}
	}
	for _, l := range links {
		if have := m.answers[l.Key]; have != nil && have.Subject != l.Subject {
			have.links[l.Subject] = l
		}
	}
	for _, f := range failures {
		m.failures[failed{f.Run, f.Key, f.Subject}] = f
	}
}

// got returns a record's answers with the link that each came by: its own
// source and inputs for the record that asked.
func (m *contents) got(s batch.Subject) map[batch.Key]batch.Link {
	got := map[batch.Key]batch.Link{}
	for k, a := range m.answers {
		if a.Subject == s {
			got[k] = batch.Link{Key: k, Subject: s, Source: a.Source, Inputs: a.Inputs, Run: a.Run}
		} else if l, ok := a.links[s]; ok {
			got[k] = l
		}
	}
	return got
}

func (m *contents) records() map[batch.Subject]bool {
	records := map[batch.Subject]bool{}
	for _, a := range m.answers {
		records[a.Subject] = true
		for s := range a.links {
			records[s] = true
		}
	}
	return records
}

func (m *contents) remove(p *batch.Purged, drop func(*stored) bool) {
	for k, a := range m.answers {
		if drop(a) {
			p.Answers++
			p.Links += int64(len(a.links))
			delete(m.answers, k)
		}
	}
}

func (m *contents) removeFailures(p *batch.Purged, drop func(failed) bool) {
	for k := range m.failures {
		if drop(k) {
			p.Failures++
			delete(m.failures, k)
		}
	}
}

func (m *contents) finish(id int64) {
	var p batch.Purged
	m.ended[id] = true
	m.remove(&p, func(a *stored) bool { return a.Scoped && a.Run == id })
	m.removeFailures(&p, func(f failed) bool { return f.run == id })
}

func (m *contents) purge(s batch.Subject) (p batch.Purged) {
	keys := map[batch.Key]bool{}
	for k := range m.got(s) {
		keys[k] = true
	}
	for f := range m.failures {
		if f.subject == s {
			keys[f.key] = true
		}
	}
	m.remove(&p, func(a *stored) bool { return keys[a.Key] })
	m.removeFailures(&p, func(f failed) bool { return keys[f.key] })
	return p
}

// stale: each record that led to the answer has a newer one of the same job.
func (m *contents) stale(a *stored) bool {
	replaced := func(s batch.Subject, source int64) bool {
		for k, l := range m.got(s) {
			if m.answers[k].Created.After(a.Created) && m.sources[l.Source].Job == m.sources[source].Job {
				return true
			}
		}
		return false
	}
	if a.Keep || !replaced(a.Subject, a.Source) {
		return false
	}
	for s, l := range a.links {
		if !replaced(s, l.Source) {
			return false
		}
	}
	return true
}

// over reports whether nothing more is to be expected of a run.
func (m *contents) over(run int64) bool {
	_, known := m.runs[run]
	return !known || m.ended[run]
}

func (a *stored) expired(now time.Time) bool {
	return !a.Keep && !a.Expires.IsZero() && !a.Expires.After(now)
}

func (m *contents) prune(now time.Time, abandoned bool) (p batch.Purged) {
	drop := map[batch.Key]bool{}
	for k, a := range m.answers {
		drop[k] = m.stale(a) || a.expired(now) || a.Scoped && (abandoned || m.over(a.Run))
	}
	m.remove(&p, func(a *stored) bool { return drop[a.Key] })
	m.removeFailures(&p, func(f failed) bool { return abandoned || m.over(f.run) })
	for id := range m.runs {
		used := m.ended[id] || !abandoned // of the finished the last thousand stay
		for _, a := range m.answers {
			used = used || a.Run == id
			for _, l := range a.links {
				used = used || l.Run == id
			}
		}
		if !used {
			p.Runs++
			delete(m.runs, id)
		}
	}
	return p
}

func (m *contents) stats(now time.Time) batch.StoreStats {
	st := batch.StoreStats{Answers: int64(len(m.answers)), Records: int64(len(m.records())), Runs: int64(len(m.runs))}
	jobs := map[string]*batch.JobStats{}
	for _, a := range m.answers {
		st.Expired += int64(toInt(a.expired(now)))
		st.Stale += int64(toInt(m.stale(a)))
		name := m.sources[a.Source].Job
		j := jobs[name]
		if j == nil {
			j = &batch.JobStats{Job: name, Oldest: a.Created, Newest: a.Created}
			jobs[name] = j
		}
		j.Answers++
		if a.Created.Before(j.Oldest) {
			j.Oldest = a.Created
		}
		if a.Created.After(j.Newest) {
			j.Newest = a.Created
		}
	}
	for _, name := range slices.Sorted(maps.Keys(jobs)) {
		st.ByJob = append(st.ByJob, *jobs[name])
	}
	return st
}

// model compares a store with the model after random calls in random order.
func model(t *testing.T, open func(t testing.TB) batch.Store) {
	const keys, subjects = 12, 6
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t)
		defer func() { ok(rt, s.Close()) }()
		ctx := t.Context()
		m := &contents{
			answers: map[batch.Key]*stored{}, failures: map[failed]batch.Failure{},
			runs: map[int64]batch.Run{}, ended: map[int64]bool{}, sources: map[int64]batch.Source{},
		}
		v2 := sourceOf("review")
		v2.Version++
		for _, src := range []batch.Source{sourceOf("review"), v2, sourceOf("rating")} {
			id, err := s.Source(ctx, src)
			ok(rt, err)
			m.sources[id] = src
		}
		aKey := rapid.Custom(func(t *rapid.T) batch.Key { return key(rapid.IntRange(0, keys-1).Draw(t, "key")) })
		aSubject := rapid.Custom(func(t *rapid.T) batch.Subject { return batch.Subject(rapid.IntRange(0, subjects-1).Draw(t, "subject")) })
		aSource := rapid.SampledFrom(slices.Sorted(maps.Keys(m.sources)))
		inputs := rapid.SampledFrom([][]byte{nil, []byte("01234567"), []byte("76543210")})
		moment := rapid.Custom(func(t *rapid.T) time.Time { return at(rapid.IntRange(0, 9).Draw(t, "moment")) })
		// Also of runs that have ended: a worker may be late.
		aRun := func(t *rapid.T) int64 {
			return rapid.SampledFrom(append(slices.Sorted(maps.Keys(m.runs)), 0)).Draw(t, "run")
		}
		open := func(rt *rapid.T) {
			want := runOf(rapid.IntRange(0, 2).Draw(rt, "run"))
			for id, r := range m.runs {
				if r.Fingerprint == want.Fingerprint && !m.ended[id] {
					want.ID, want.Resumed = id, true
				}
			}
			got, err := s.OpenRun(ctx, want)
			ok(rt, err)
			if _, known := m.runs[got.ID]; known && !want.Resumed {
				rt.Fatalf("the id %d of a new run is that of another", got.ID)
			}
			want.ID = got.ID
			same(rt, "run", got, want)
			want.Resumed = false
			m.runs[got.ID] = want
		}
		rt.Repeat(map[string]func(*rapid.T){
			"open": open,
			"save": func(rt *rapid.T) {
				var answers []batch.Answer
				var links []batch.Link
				var failures []batch.Failure
				for range rapid.IntRange(0, 4).Draw(rt, "answers") {
					a := batch.Answer{
						Key: aKey.Draw(rt, "key"), Subject: aSubject.Draw(rt, "subject"), Source: aSource.Draw(rt, "source"),
						Inputs: inputs.Draw(rt, "inputs"), Run: aRun(rt), Scoped: rapid.Bool().Draw(rt, "scoped"),
						Created: moment.Draw(rt, "created"),
						Text:    json.RawMessage(fmt.Sprintf(`"%s"`, strings.Repeat("text ", rapid.IntRange(0, 80).Draw(rt, "length")))),
					}
					switch rapid.IntRange(0, 3).Draw(rt, "lifetime") {
					case 0:
						a.Keep = true
					case 1:
						a.Expires = moment.Draw(rt, "expires")
					}
					answers = append(answers, a)
				}
				for range rapid.IntRange(0, 3).Draw(rt, "links") {
					links = append(links, batch.Link{
						Key: aKey.Draw(rt, "key"), Subject: aSubject.Draw(rt, "subject"), Source: aSource.Draw(rt, "source"),
						Inputs: inputs.Draw(rt, "inputs"), Run: aRun(rt), Created: at(0),
					})
				}
				for range rapid.IntRange(0, 2).Draw(rt, "failures") {
					failures = append(failures, batch.Failure{
						Key: aKey.Draw(rt, "key"), Subject: aSubject.Draw(rt, "subject"), Run: aRun(rt),
						Reason: rapid.SampledFrom([]string{"no JSON", "cut off"}).Draw(rt, "reason"), Attempts: 2,
					})
				}
				ok(rt, s.Save(ctx, answers, links, failures))
				m.save(answers, links, failures)
			},
			"finish": func(rt *rapid.T) {
				if len(m.runs) == 0 {
					rt.Skip("no run")
				}
				id := rapid.SampledFrom(slices.Sorted(maps.Keys(m.runs))).Draw(rt, "run")
				ok(rt, s.FinishRun(ctx, id, json.RawMessage(`{}`)))
				m.finish(id)
			},
			"purge": func(rt *rapid.T) {
				subject := aSubject.Draw(rt, "subject")
				p, err := s.Purge(ctx, subject)
				ok(rt, err)
				same(rt, "purged", p, m.purge(subject))
			},
			"prune": func(rt *rapid.T) {
				now, abandoned := moment.Draw(rt, "now"), rapid.Bool().Draw(rt, "abandoned")
				since := early
				if abandoned {
					since = late
				}
				p, err := s.Prune(ctx, now, since)
				ok(rt, err)
				same(rt, "pruned", p, m.prune(now, abandoned))
			},
			"stats": func(rt *rapid.T) { compareStats(rt, s, m, moment.Draw(rt, "now")) },
			"": func(rt *rapid.T) {
				compareAnswers(rt, s, m, keys)
				compareTrail(rt, s, m, aSubject.Draw(rt, "of"))
			},
		})
		for i := range subjects {
			compareTrail(rt, s, m, batch.Subject(i))
		}
		compareStats(rt, s, m, at(5))
	})
}

func compareAnswers(rt *rapid.T, s batch.Store, m *contents, keys int) {
	all := make([]batch.Key, keys)
	for i := range all {
		all[i] = key(i)
	}
	for _, run := range append(slices.Collect(maps.Values(m.runs)), batch.Run{}) {
		run.Resumed = run.ID != 0
		got, err := s.Lookup(rt.Context(), run, all)
		ok(rt, err)
		for i, k := range all {
			want := batch.Found{}
			if a := m.answers[k]; a != nil {
				want.Answer = found(a.Answer)
			}
			if f := got[i].Failure; f != nil { // any of its records will do
				if g, ok := m.failures[failed{run.ID, k, f.Subject}]; ok && run.Resumed {
					want.Failure = &g
				}
			}
			same(rt, "found", got[i], want)
			if run.Resumed && got[i].Failure == nil {
				for f := range m.failures {
					if f.run == run.ID && f.key == k {
						rt.Fatalf("a failure of run %d is lost", run.ID)
					}
				}
			}
		}
	}
}

func compareTrail(rt *rapid.T, s batch.Store, m *contents, subject batch.Subject) {
	var want []batch.Trail
	for k, l := range m.got(subject) {
		a, run := m.answers[k], batch.Run{ID: l.Run}
		if r, ok := m.runs[l.Run]; ok {
			run = r
		}
		want = append(want, batch.Trail{
			Source: m.sources[l.Source], Inputs: l.Inputs, Key: k, Run: run, Created: a.Created, Expires: a.Expires,
		})
	}
	got, err := s.Trail(rt.Context(), subject)
	ok(rt, err)
	if !slices.IsSortedFunc(got, func(a, b batch.Trail) int { return b.Created.Compare(a.Created) }) {
		rt.Fatal("the trail is not newest first")
	}
	same(rt, "trail", newest(got), newest(want))
}

func compareStats(rt *rapid.T, s batch.Store, m *contents, now time.Time) {
	got, err := s.Stats(rt.Context(), now)
	ok(rt, err)
	want := m.stats(now)
	want.Bytes, want.TextBytes = got.Bytes, got.TextBytes
	same(rt, "stats", got, want)
}
