package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/batch"
	"millrace/internal/storetest"
)

func TestStore(t *testing.T) {
	n := 0
	storetest.Exercise(t, func(t testing.TB) batch.Store {
		s, err := Open(t.Context(), t.TempDir(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		// Every other store enters its answers in the index after a few.
		if n++; n%2 == 0 {
			s.indexEvery = 3
		}
		return s
	})
}

func TestOpenAgain(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "a b", "50%?#") // names that mean something in a URI
	if runtime.GOOS == "windows" {
		dir = filepath.Join(t.TempDir(), "a b", "50%#")
	}
	s := openTest(t, dir, Options{})
	src, err := s.Source(ctx, batch.Source{Job: "review"})
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.OpenRun(ctx, batch.Run{Fingerprint: testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(ctx, []batch.Answer{testAnswer(1)}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != FileName {
		t.Errorf("after closing the directory holds %v (%v), want only %s", files, err, FileName)
	}

	s = openTest(t, dir, Options{})
	if again, err := s.Source(ctx, batch.Source{Job: "review"}); again != src || err != nil {
		t.Errorf("source %d (%v), want %d", again, err, src)
	}
	if r, err := s.OpenRun(ctx, batch.Run{Fingerprint: testKey(1)}); r.ID != run.ID || !r.Resumed || err != nil {
		t.Errorf("run %+v (%v), want %d resumed", r, err, run.ID)
	}
	if f, err := s.Lookup(ctx, batch.Run{}, []batch.Key{testKey(1)}); err != nil || f[0].Answer == nil {
		t.Errorf("the answer is lost (%v)", err)
	}
}

func TestOpenModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such modes")
	}
	dir := filepath.Join(t.TempDir(), "new", "state")
	s := openTest(t, dir, Options{})
	if err := s.Save(t.Context(), []batch.Answer{testAnswer(1)}, nil, nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700 | os.ModeDir, FileName: 0o600, FileName + "-wal": 0o600, FileName + "-shm": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%q has mode %v, want %v", name, info.Mode(), want)
		}
	}
}

// TestOpenSettings: the settings that the promises rest on.
func TestOpenSettings(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	want := map[string]any{
		"journal_mode": "wal", "synchronous": int64(1), "secure_delete": int64(1),
		"page_size": int64(pageSize), "auto_vacuum": int64(2), "user_version": int64(1),
	}
	got := map[string]any{}
	err := s.with(t.Context(), s.writer, func(c *conn) error {
		for name := range want {
			v, err := c.pragma(t.Context(), name)
			if err != nil {
				return err
			}
			got[name] = v
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("settings (-want +got):\n%s", d)
	}
	err = s.read(t.Context(), func(c *conn) error {
		_, err := c.exec(t.Context(), "DELETE FROM answer")
		return err
	})
	if err == nil {
		t.Error("a connection for reading can write")
	}
}

func TestOpenErrors(t *testing.T) {
	// other makes a database as a program other than this version would.
	other := func(t *testing.T, file, script string) {
		db, err := sql.Open("sqlite", file)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(script); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		make func(t *testing.T, file string)
		want []string
	}{
		{
			"newer", func(t *testing.T, file string) {
				other(t, file, fmt.Sprintf("CREATE TABLE answer(x); PRAGMA application_id=%d; PRAGMA user_version=7", applicationID))
			},
			[]string{"newer Millrace", "format 7", "format 1", "update Millrace", "--state"},
		},
		{
			"another program", func(t *testing.T, file string) { other(t, file, "CREATE TABLE bookmarks(url)") },
			[]string{"another program", "another state directory"},
		},
		{
			"not a database", func(t *testing.T, file string) { write(t, file, strings.Repeat("Dear diary, ", 500)) },
			[]string{"not a database of Millrace", "move the file away"},
		},
		{
			"damaged", func(t *testing.T, file string) {
				dir := filepath.Dir(file)
				s := openTest(t, dir, Options{})
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				copy(b[100:], make([]byte, pageSize)) // the first page holds the schema
				write(t, file, string(b))
			},
			[]string{"damaged", "backup"},
		},
		{
			"cut off", func(t *testing.T, file string) {
				dir := filepath.Dir(file)
				s := openTest(t, dir, Options{})
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(file, 3*pageSize/2); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"damaged", "backup"},
		},
		{
			"a directory in its place", func(t *testing.T, file string) {
				if err := os.Mkdir(file, 0o700); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"cannot be opened", "check that you may write to"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, FileName)
			test.make(t, file)
			before, _ := os.ReadFile(file)
			s, err := Open(t.Context(), dir, Options{})
			if err == nil {
				_ = s.Close()
				t.Fatal("no error")
			}
			for _, want := range append(test.want, file) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			if after, _ := os.ReadFile(file); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
	t.Run("a file where the directory belongs", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "state")
		write(t, file, "")
		_, err := Open(t.Context(), file, Options{})
		if err == nil || !strings.Contains(err.Error(), "state directory") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Open(ctx, t.TempDir(), Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOpenTogether: several begin a state directory at the same moment.
func TestOpenTogether(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			s, err := Open(t.Context(), dir, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Save(t.Context(), []batch.Answer{testAnswer(i)}, nil, nil); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	st, err := openTest(t, dir, Options{}).Stats(t.Context(), time.Now())
	if err != nil || st.Answers != 6 {
		t.Errorf("%d answers (%v), want 6", st.Answers, err)
	}
}

func TestDiskFull(t *testing.T) {
	ctx := t.Context()
	s := openTest(t, t.TempDir(), Options{})
	limit := func(pages int) {
		t.Helper()
		err := s.with(ctx, s.writer, func(c *conn) error {
			_, err := c.pragma(ctx, fmt.Sprintf("max_page_count=%d", pages))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	save := func(from, to int) error {
		var answers []batch.Answer
		for i := from; i < to; i++ {
			a := testAnswer(i)
			a.Text = json.RawMessage(fmt.Sprintf(`"%s%d"`, strings.Repeat("x", 100), i))
			answers = append(answers, a)
		}
		return s.Save(ctx, answers, nil, nil)
	}
	if err := save(0, 10); err != nil {
		t.Fatal(err)
	}
	limit(60)
	err := save(10, 2000)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{s.file, "disk is full", "make room", "run the same command again"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	f, err := s.Lookup(ctx, batch.Run{}, []batch.Key{testKey(1), testKey(10)})
	if err != nil || f[0].Answer == nil || f[1].Answer != nil {
		t.Errorf("of the earlier group %+v, of the one that failed %+v (%v)", f[0].Answer, f[1].Answer, err)
	}
	limit(1 << 20)
	if err := save(10, 2000); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestLocked(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	hasty, other := openTest(t, dir, Options{Wait: 20 * time.Millisecond}), openTest(t, dir, Options{})
	err := other.write(ctx, func(context.Context, *conn) error {
		if _, err := hasty.Lookup(ctx, batch.Run{}, []batch.Key{testKey(1)}); err != nil {
			t.Errorf("reading beside a writer: %v", err)
		}
		err := hasty.Save(ctx, []batch.Answer{testAnswer(1)}, nil, nil)
		if err == nil {
			t.Fatal("no error")
		}
		for _, want := range []string{hasty.file, "another process", "20ms", "run the same command again"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error does not say %q: %v", want, err)
			}
		}
		end, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Millisecond, cancel)
		patient := openTest(t, dir, Options{})
		if err := patient.Save(end, []batch.Answer{testAnswer(1)}, nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting with a context that ends: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := hasty.Save(ctx, []batch.Answer{testAnswer(1)}, nil, nil); err != nil {
		t.Errorf("when the lock is free: %v", err)
	}
}

// TestPurgeBesideReader: somebody who reads keeps the log from being emptied.
func TestPurgeBesideReader(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, other := openTest(t, dir, Options{Wait: 20 * time.Millisecond}), openTest(t, dir, Options{})
	if err := s.Save(ctx, []batch.Answer{testAnswer(1)}, nil, nil); err != nil {
		t.Fatal(err)
	}
	err := other.read(ctx, func(c *conn) error {
		if err := c.script(ctx, "BEGIN; SELECT count(*) FROM answer"); err != nil {
			return err
		}
		p, err := s.Purge(ctx, 1)
		if err == nil || !strings.Contains(err.Error(), "purge it again") {
			t.Errorf("error %v", err)
		}
		if p.Answers != 1 {
			t.Errorf("removed %+v", p)
		}
		return c.script(ctx, "COMMIT")
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Purge(ctx, 1); err != nil {
		t.Errorf("when the reader has ended: %v", err)
	}
	if info, err := os.Stat(s.file + "-wal"); err != nil || info.Size() != 0 {
		t.Errorf("the log: %v, %v", info, err)
	}
}

// TestPruneGivesRoomBack: the file shrinks when much of it is unused.
func TestPruneGivesRoomBack(t *testing.T) {
	ctx := t.Context()
	s := openTest(t, t.TempDir(), Options{})
	var answers []batch.Answer
	for i := range 3000 {
		a := testAnswer(i)
		a.Expires = time.Now().Add(-time.Hour)
		answers = append(answers, a)
	}
	if err := s.Save(ctx, answers, nil, nil); err != nil {
		t.Fatal(err)
	}
	before, err := s.Stats(ctx, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(ctx, time.Now(), time.Time{}); err != nil {
		t.Fatal(err)
	}
	after, err := s.Stats(ctx, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if after.Answers != 0 || after.Bytes > before.Bytes/4 {
		t.Errorf("%d answers in %d bytes, before %d in %d", after.Answers, after.Bytes, before.Answers, before.Bytes)
	}
}

// TestRunsTouched: the store's clock says which runs are abandoned.
func TestRunsTouched(t *testing.T) {
	ctx := t.Context()
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	s := openTest(t, t.TempDir(), Options{Now: func() time.Time { return now }})
	var runs []batch.Run
	for i := range 3 {
		r, err := s.OpenRun(ctx, batch.Run{Fingerprint: testKey(i)})
		if err != nil {
			t.Fatal(err)
		}
		if !r.Started.Equal(now) {
			t.Errorf("run started %v, want %v", r.Started, now)
		}
		runs = append(runs, r)
		a := testAnswer(i)
		a.Run, a.Scoped = r.ID, true
		if err := s.Save(ctx, []batch.Answer{a}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	begun := now
	now = now.Add(24 * time.Hour)
	if _, err := s.OpenRun(ctx, batch.Run{Fingerprint: testKey(1)}); err != nil { // resumed
		t.Fatal(err)
	}
	if err := s.Save(ctx, nil, nil, []batch.Failure{{Key: testKey(9), Run: runs[2].ID}}); err != nil { // saved to
		t.Fatal(err)
	}
	p, err := s.Prune(ctx, now, begun.Add(time.Hour))
	if want := (batch.Purged{Answers: 1, Runs: 1}); p != want || err != nil {
		t.Errorf("removed %+v (%v), want %+v: the run that nothing was heard of", p, err, want)
	}
	f, err := s.Lookup(ctx, batch.Run{}, []batch.Key{testKey(0), testKey(1), testKey(2)})
	if err != nil || f[0].Answer != nil || f[1].Answer == nil || f[2].Answer == nil {
		t.Errorf("what is left: %+v (%v)", f, err)
	}
}

// TestFinishedRuns: reports of the last thousand are kept, and rows beyond
// them go with Prune when nothing came from them.
func TestFinishedRuns(t *testing.T) {
	ctx := t.Context()
	s := openTest(t, t.TempDir(), Options{})
	var first int64
	for i := range keepRuns + 3 {
		r, err := s.OpenRun(ctx, batch.Run{Fingerprint: testKey(1)})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = r.ID
			a := testAnswer(1)
			a.Run = r.ID
			if err := s.Save(ctx, []batch.Answer{a}, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.FinishRun(ctx, r.ID, json.RawMessage(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	count := func(sql string) (n int64) {
		t.Helper()
		err := s.read(ctx, func(c *conn) (err error) {
			n, _, err = c.one(ctx, sql)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count("SELECT count(report) FROM run"); n != keepRuns {
		t.Errorf("%d reports, want %d", n, keepRuns)
	}
	p, err := s.Prune(ctx, time.Now(), time.Time{})
	if err != nil || p.Runs != 2 {
		t.Errorf("removed %+v (%v), want 2 runs", p, err)
	}
	if n := count(fmt.Sprintf("SELECT count(*) FROM run WHERE id = %d", first)); n != 1 {
		t.Error("the run that an answer came from is gone")
	}
}
