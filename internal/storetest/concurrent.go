package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"millrace/internal/batch"
)

// Sizes of what Hammer saves.
const (
	hammerOwn    = 20 // answers of a group that only this worker has
	hammerShared = 5  // answers of a group that every worker saves
)

// Hammer saves groups of answers, some of them to questions that all workers
// have in common, and reads back what it saved before. It calls acked after
// each group that Save has accepted. Together with Check it shows what a store
// keeps of several writers, or of one that was killed.
func Hammer(ctx context.Context, s batch.Store, worker, groups int, acked func(group int) error) error {
	for g := range groups {
		answers, keys := hammerGroup(worker, g)
		var links []batch.Link
		for _, a := range answers {
			links = append(links, batch.Link{Key: a.Key, Subject: hammerReader(worker)})
		}
		if err := s.Save(ctx, answers, links, nil); err != nil {
			return fmt.Errorf("worker %d, group %d: %w", worker, g, err)
		}
		if err := acked(g); err != nil {
			return err
		}
		if err := checkGroup(ctx, s, answers, keys); err != nil {
			return fmt.Errorf("worker %d, group %d: %w", worker, g, err)
		}
	}
	return nil
}

// Check reports an error for what is missing or wrong of the first groups that
// a worker's Hammer saved.
func Check(t testing.TB, s batch.Store, worker, groups int) {
	t.Helper()
	for g := range groups {
		answers, keys := hammerGroup(worker, g)
		if err := checkGroup(t.Context(), s, answers, keys); err != nil {
			t.Errorf("worker %d, group %d: %v", worker, g, err)
		}
	}
	tr, err := s.Trail(t.Context(), hammerReader(worker))
	ok(t, err)
	if want := groups * (hammerOwn + hammerShared); len(tr) < want {
		t.Errorf("worker %d: %d links, want at least %d", worker, len(tr), want)
	}
}

// hammerReader is a record that is linked to all that a worker saved.
func hammerReader(worker int) batch.Subject { return batch.Subject(1_000_000 + worker) }

func hammerGroup(worker, g int) ([]batch.Answer, []batch.Key) {
	var answers []batch.Answer
	var keys []batch.Key
	for i := range hammerOwn + hammerShared {
		n := (worker*1000+g)*100 + i
		if i >= hammerOwn {
			n = -(g*100 + i)
		}
		a := answer(n)
		a.Text = json.RawMessage(fmt.Sprintf(`{"n":%d,"text":"%0200d"}`, n, n))
		answers, keys = append(answers, a), append(keys, a.Key)
	}
	return answers, keys
}

func checkGroup(ctx context.Context, s batch.Store, answers []batch.Answer, keys []batch.Key) error {
	found, err := s.Lookup(ctx, batch.Run{}, keys)
	if err != nil {
		return err
	}
	for i, f := range found {
		switch {
		case f.Answer == nil:
			return fmt.Errorf("answer %d is lost", i)
		case string(f.Answer.Text) != string(answers[i].Text):
			return fmt.Errorf("answer %d is %s, want %s", i, f.Answer.Text, answers[i].Text)
		}
	}
	return nil
}

// concurrent: many at once, with the calls that remove running in between.
func concurrent(t *testing.T, s batch.Store) {
	const workers, groups = 6, 15
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			return Hammer(t.Context(), s, w, groups, func(int) error { return nil })
		})
	}
	g.Go(func() error {
		for i := range 10 {
			run, err := s.OpenRun(t.Context(), runOf(i))
			if err != nil {
				return err
			}
			a := answer(10_000_000 + i)
			a.Run, a.Scoped = run.ID, true
			if err := s.Save(t.Context(), []batch.Answer{a}, nil, nil); err != nil {
				return err
			}
			if err := s.FinishRun(t.Context(), run.ID, json.RawMessage(`{}`)); err != nil {
				return err
			}
			if _, err := s.Purge(t.Context(), 77); err != nil {
				return err
			}
			if _, err := s.Prune(t.Context(), late, early); err != nil {
				return err
			}
			if _, err := s.Stats(t.Context(), late); err != nil {
				return err
			}
		}
		return nil
	})
	ok(t, g.Wait())
	for w := range workers {
		Check(t, s, w, groups)
	}
	st, err := s.Stats(t.Context(), late)
	ok(t, err)
	same(t, "answers, none twice and none too many", st.Answers, workers*groups*hammerOwn+groups*hammerShared)
}

// oneRun: of several that open a run at the same moment one begins it.
func oneRun(t *testing.T, s batch.Store) {
	const n = 8
	var wg sync.WaitGroup
	runs := make([]batch.Run, n)
	ids := make([]int64, n)
	errs := make([]error, 2*n)
	for i := range n {
		wg.Go(func() { runs[i], errs[i] = s.OpenRun(t.Context(), runOf(1)) })
		wg.Go(func() { ids[i], errs[n+i] = s.Source(t.Context(), sourceOf("review")) })
	}
	wg.Wait()
	fresh := 0
	for i, r := range runs {
		ok(t, errs[i])
		ok(t, errs[n+i])
		fresh += toInt(!r.Resumed)
		same(t, "run", r.ID, runs[0].ID)
		same(t, "source", ids[i], ids[0])
	}
	same(t, "runs that were begun", fresh, 1)
}
