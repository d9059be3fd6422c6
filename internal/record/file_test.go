package record

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// files lists a folder, hidden files too.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFileAppearsWhenComplete(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.csv")
	stale := filepath.Join(dir, ".out.csv.millrace-partial")
	if err := os.WriteFile(stale, []byte("left by a killed run, and longer than what follows"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	if _, err := f.Write([]byte("a\n")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".out.csv.millrace-partial"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"out.csv"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "a\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := f.Commit(); err == nil {
		t.Error("committed twice")
	}
	if _, err := f.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("written behind the end: %v", err)
	}
	f.Abort()
	if diff := cmp.Diff([]string{"out.csv"}, files(t, dir)); diff != "" {
		t.Errorf("Abort behind Commit: %s", diff)
	}
}

func TestFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.csv")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, commit := range []bool{false, true} {
		f, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("new")); err != nil {
			t.Fatal(err)
		}
		want := "old"
		if commit {
			want = "new"
			if err := f.Commit(); err != nil {
				t.Fatal(err)
			}
		} else {
			f.Abort()
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("commit %v: %q, %v", commit, got, err)
		}
		if diff := cmp.Diff([]string{"out.csv"}, files(t, dir)); diff != "" {
			t.Error(diff)
		}
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestFileThroughLink(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	target, link := filepath.Join(other, "real.csv"), filepath.Join(dir, "link.csv")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Skip(err)
	}
	f, err := Create(link)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(target); err != nil || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Error("the link is gone")
	}
}

func TestFileInUse(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no locks here")
	}
	path := filepath.Join(t.TempDir(), "out.csv")
	first, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Abort()
	if _, err := first.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path); !errors.Is(err, errInUse) || !strings.HasPrefix(err.Error(), path) {
		t.Fatalf("a second writer: %v", err)
	}
	if err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	second, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	second.Abort()
	if got, err := os.ReadFile(path); err != nil || string(got) != "first" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestCreateErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Create(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
	missing := filepath.Join(dir, "none", "out.csv")
	if _, err := Create(missing); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), missing+" cannot be written") {
		t.Errorf("a missing folder: %v", err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(filepath.Join(plain, "out.csv")); err == nil {
		t.Error("a file as a folder: no error")
	}
	if _, err := Create(filepath.Join(dir, strings.Repeat("x", 300)+".csv")); err == nil {
		t.Error("a name that is too long: no error")
	}
	if os.Getuid() > 0 {
		locked := filepath.Join(dir, "locked")
		if err := os.Mkdir(locked, 0o500); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(filepath.Join(locked, "out.csv")); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a folder that may not be written: %v", err)
		}
		readOnly := writeFile(t, "out.csv", []byte("keep"))
		if err := os.Chmod(readOnly, 0o400); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(readOnly); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a file that may not be written: %v", err)
		}
	}
}

// Devices are written to, never replaced.
func TestFileToDevice(t *testing.T) {
	const null = "/dev/null"
	before, err := os.Stat(null)
	if err != nil {
		t.Skip(err)
	}
	f, err := Create(null)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(null); err != nil || after.Mode() != before.Mode() {
		t.Errorf("the device has changed: %v, %v", after, err)
	}
}

func TestFullDisk(t *testing.T) {
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip(err)
	}
	for _, size := range []int{10, 1 << 20} {
		f, err := Create(full)
		if err != nil {
			t.Fatal(err)
		}
		_, writeErr := f.Write([]byte(noise(t, size)))
		if size > 1<<19 && writeErr == nil {
			t.Error("a large write: no error")
		}
		if err := f.Commit(); err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
