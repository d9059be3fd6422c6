//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package record

import "os"

// lock does nothing: on Windows a file that is open cannot be renamed or
// removed, which keeps a second writer from publishing.
func lock(*os.File) error { return nil }

// publish closes first: an open file cannot be renamed. os.Rename replaces an
// existing file on Windows too.
func (f *File) publish() error {
	if err := f.f.Close(); err != nil {
		return err
	}
	return os.Rename(f.temp, f.target)
}
