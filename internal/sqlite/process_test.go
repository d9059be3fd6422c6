package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"

	"millrace/internal/storetest"
)

// The test binary is its own child process: with these set it hammers a store.
const (
	childDir    = "MILLRACE_TEST_STORE"
	childWorker = "MILLRACE_TEST_WORKER"

	childGroups = 60
)

// child saves groups and writes a line for each that was accepted.
func child(dir, worker string) int {
	err := func() (err error) {
		w, err := strconv.Atoi(worker)
		if err != nil {
			return err
		}
		s, err := Open(context.Background(), dir, Options{})
		if err != nil {
			return err
		}
		defer func() {
			if e := s.Close(); err == nil {
				err = e
			}
		}()
		s.indexEvery = 200
		return storetest.Hammer(context.Background(), s, w, childGroups, func(int) error {
			_, err := fmt.Println("saved")
			return err
		})
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// startChild starts a child. Its lines are what it says it has saved.
func startChild(t *testing.T, dir string, worker int) (*exec.Cmd, io.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childDir+"="+dir, childWorker+"="+strconv.Itoa(worker))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// TestProcesses: several processes save to and read from one state directory.
func TestProcesses(t *testing.T) {
	dir := t.TempDir() // they begin it together, too
	const workers = 4
	var g errgroup.Group
	for w := range workers {
		cmd, out := startChild(t, dir, w)
		g.Go(func() error {
			n, err := lines(out, -1, nil)
			if err != nil {
				return err
			}
			if err := cmd.Wait(); err != nil {
				return err
			}
			if n != childGroups {
				return fmt.Errorf("worker %d saved %d groups, want %d", w, n, childGroups)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, dir, Options{})
	for w := range workers {
		storetest.Check(t, s, w, childGroups)
	}
}

// TestKilled: what Save has accepted is there after a SIGKILL, and the file is
// whole. Another process goes on beside the one that is killed.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	acked := map[int]int{}
	for round := range 4 {
		var g errgroup.Group
		victim, out := startChild(t, dir, 2*round)
		survivor, beside := startChild(t, dir, 2*round+1)
		g.Go(func() error {
			n, err := lines(out, 5+round*14, victim.Process.Kill)
			acked[2*round] = n
			_ = victim.Wait() // killed, or done just before
			return err
		})
		g.Go(func() error {
			if _, err := lines(beside, -1, nil); err != nil {
				return err
			}
			return survivor.Wait()
		})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		acked[2*round+1] = childGroups
	}
	s := openTest(t, dir, Options{})
	for w, n := range acked {
		storetest.Check(t, s, w, n)
	}
	err := s.read(t.Context(), func(c *conn) error {
		v, err := c.pragma(t.Context(), "integrity_check")
		if err == nil && v != "ok" {
			err = fmt.Errorf("integrity check: %v", v)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// lines counts lines, and calls then after so many of them.
func lines(r io.Reader, after int, then func() error) (n int, err error) {
	in := bufio.NewScanner(r)
	for in.Scan() {
		if n++; n == after {
			if err := then(); err != nil {
				return n, err
			}
		}
	}
	return n, in.Err()
}
