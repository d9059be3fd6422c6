package record

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// File is an output that appears under its name only when it is complete. Until
// Commit it is the file .NAME.millrace-partial beside it; what a killed run left
// there is replaced. A File must end with Commit or Abort.
type File struct {
	path   string // as the user wrote it
	target string // what is replaced: path with links followed
	temp   string // empty when the bytes go to the target itself
	f      *os.File
	buf    *bufio.Writer
	packed io.WriteCloser // nil without compression
	err    error
	ended  bool
}

const partial = ".millrace-partial"

// Create starts an output. Endings .gz and .zst pack it. A path that cannot be
// written is an error here, not only at Commit, and so is a path that another
// process is writing. Where the path names a device or a pipe, the bytes go
// straight into it.
func Create(path string) (*File, error) {
	f := &File{path: path, target: path}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		f.target = real
	}
	info, err := os.Stat(f.target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, f.cannot(err)
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory: name a file to write", path)
	default:
		// The file could be replaced even if it may not be written; whoever set it so
		// would be surprised.
		old, err := os.OpenFile(f.target, os.O_WRONLY, 0)
		if err != nil {
			return nil, f.cannot(err)
		}
		if !info.Mode().IsRegular() {
			f.f = old
			break
		}
		if err := old.Close(); err != nil {
			return nil, f.cannot(err)
		}
	}
	if f.f == nil {
		dir, name := filepath.Split(f.target)
		f.temp = filepath.Join(dir, "."+name+partial)
		if f.f, err = createLocked(f.temp); err != nil {
			return nil, f.cannot(err)
		}
		if info != nil {
			if err := f.f.Chmod(info.Mode().Perm()); err != nil && !errors.Is(err, errors.ErrUnsupported) {
				f.Abort()
				return nil, f.cannot(err)
			}
		}
	}
	f.buf = bufio.NewWriterSize(f.f, 256<<10)
	switch _, compression := cutCompression(strings.ToLower(path)); compression {
	case Gzip:
		f.packed = gzip.NewWriter(f.buf)
	case Zstd:
		z, err := zstd.NewWriter(f.buf, zstd.WithEncoderConcurrency(1))
		if err != nil {
			f.Abort()
			return nil, f.cannot(err)
		}
		f.packed = z
	}
	return f, nil
}

var errInUse = errors.New("it is being written already: wait for that run to end, or write elsewhere")

// createLocked makes an empty file that no other process of Millrace writes.
func createLocked(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		err = lock(f)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		// The one who held the lock may have moved the file to its final name.
		mine, err := f.Stat()
		if err == nil {
			var there os.FileInfo
			if there, err = os.Stat(path); err == nil && os.SameFile(mine, there) {
				if err = f.Truncate(0); err == nil {
					return f, nil
				}
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// cannot names the output instead of the temporary file.
func (f *File) cannot(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	} else if e, ok := errors.AsType[*os.LinkError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("%s cannot be written: %w", f.path, err)
}

// Name is the path as it was given to Create.
func (f *File) Name() string { return f.path }

// Write adds bytes. After an error, such as a full disk, nothing but Abort is of
// use.
func (f *File) Write(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	if f.ended {
		return 0, f.cannot(fs.ErrClosed)
	}
	var w io.Writer = f.buf
	if f.packed != nil {
		w = f.packed
	}
	n, err := w.Write(p)
	if err != nil {
		f.err = f.cannot(err)
	}
	return n, f.err
}

// Commit completes the output and gives it its name: all bytes reach the disk
// before the name does. On an error the temporary file is removed and what was
// under the name before is still there.
func (f *File) Commit() error {
	if f.ended {
		return f.cannot(fs.ErrClosed)
	}
	err := f.err
	if err == nil && f.packed != nil {
		err = f.packed.Close()
		f.packed = nil
	}
	if err == nil {
		err = f.buf.Flush()
	}
	if err == nil && f.temp != "" {
		err = f.f.Sync()
	}
	if err != nil {
		f.Abort()
		if f.err != nil {
			return f.err
		}
		return f.cannot(err)
	}
	f.ended = true
	if f.temp == "" {
		if err := f.f.Close(); err != nil {
			return f.cannot(err)
		}
		return nil
	}
	if err := f.publish(); err != nil {
		os.Remove(f.temp)
		return f.cannot(err)
	}
	syncDir(filepath.Dir(f.target))
	return nil
}

// Abort ends the output without giving it its name. After Commit it does
// nothing, so it can be deferred.
func (f *File) Abort() {
	if f.ended {
		return
	}
	f.ended = true
	if f.packed != nil && f.err == nil {
		// Its goroutines end; the bytes do not matter.
		f.buf.Reset(io.Discard)
		f.packed.Close()
	}
	f.f.Close()
	if f.temp != "" {
		os.Remove(f.temp)
	}
}

// syncDir makes a rename durable where directories can be synced. Where they
// cannot, the rename is as durable as the system makes it.
func syncDir(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	_ = d.Sync()
	d.Close()
}
