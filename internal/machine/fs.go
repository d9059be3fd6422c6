package machine

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxFile is more than any file that is read here holds.
const maxFile = 1 << 20

// tree reads small files below a root: the host's own, or a captured copy.
type tree string

// path is a file's place below the root.
func (t tree) path(parts ...string) string {
	return filepath.Join(append([]string{string(t)}, parts...)...)
}

// text is a file's content without the white space around it, "" if it cannot
// be read. Files of /sys answer with an error where a driver has nothing to
// say.
func (t tree) text(parts ...string) string {
	b, err := t.bytes(parts...)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (t tree) bytes(parts ...string) ([]byte, error) {
	f, err := os.Open(t.path(parts...))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	return b, nil
}

// int is a whole number in a file.
func (t tree) int(parts ...string) (int64, bool) {
	s := t.text(parts...)
	x, err := strconv.ParseInt(s, 10, 64)
	return x, err == nil
}

func (t tree) exists(parts ...string) bool {
	_, err := os.Stat(t.path(parts...))
	return err == nil
}

// names lists a folder, links as well, sorted.
func (t tree) names(parts ...string) []string {
	entries, err := os.ReadDir(t.path(parts...))
	if err != nil {
		return nil
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out
}

// link is the last part of what a link points to.
func (t tree) link(parts ...string) string {
	target, err := os.Readlink(t.path(parts...))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// within is the tree below a folder.
func (t tree) within(parts ...string) tree { return tree(t.path(parts...)) }

// open opens a file to be read in parts.
func (t tree) open(parts ...string) (*os.File, error) { return os.Open(t.path(parts...)) }

// missing reports whether an error only says that there is no such file.
func missing(err error) bool { return errors.Is(err, os.ErrNotExist) }
