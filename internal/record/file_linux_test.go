package record

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A disk that is really full: the error comes out, the old output stays and
// nothing is left behind.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("millrace-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	for _, ending := range []string{"", ".gz", ".zst"} {
		path := filepath.Join(dir, "out.csv"+ending)
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			if _, err = f.Write([]byte(noise(t, 100_000))); err != nil {
				break
			}
		}
		if ended := f.Commit(); !errors.Is(ended, syscall.ENOSPC) {
			t.Errorf("%s: %v, Write said %v", path, ended, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		if diff := cmp.Diff([]string{"out.csv" + ending}, files(t, dir)); diff != "" {
			t.Error(diff)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
