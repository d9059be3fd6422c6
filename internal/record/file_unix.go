//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package record

import (
	"errors"
	"os"
	"syscall"
)

// lock keeps other processes from writing the same output; it ends with the
// process. A file system without locks is written without.
func lock(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var held error
	err = raw.Control(func(fd uintptr) {
		held = syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if errors.Is(held, syscall.EWOULDBLOCK) {
		return errInUse
	}
	return err
}

// publish renames while the file is still locked, so that no other process can
// take the temporary name in between.
func (f *File) publish() error {
	return errors.Join(os.Rename(f.temp, f.target), f.f.Close())
}
