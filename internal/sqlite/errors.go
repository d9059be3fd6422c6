package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

var (
	errClosed = errors.New("the store is closed")
	// errHeld is a lock that another process kept for longer than Options.Wait.
	errHeld = errors.New("locked")
	// errDamaged is content that this program cannot have written.
	errDamaged = errors.New("the content is not as it was written")
	// errBlocked is a checkpoint that could not reach the end of the log.
	errBlocked = errors.New("the log is being read")
)

// code returns SQLite's primary result code, or 0 for an error of another kind.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// busy reports whether an error may be gone when the call is made again.
func busy(err error) bool {
	return errors.Is(err, errBlocked) || code(err) == lib.SQLITE_BUSY || code(err) == lib.SQLITE_LOCKED
}

const damaged = "the file is damaged; restore it from a backup, or move it away to begin an empty one (everything is asked again then)"

// explain says which file an error is about and what to do about it.
func (s *Store) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	advice := ""
	switch {
	case errors.Is(err, errHeld) || busy(err):
		return fmt.Errorf("%s: another process has kept it locked for %v; wait until it has ended, then run the same command again", s.file, s.wait)
	case errors.Is(err, errDamaged):
		advice = damaged
	default:
		switch code(err) {
		case lib.SQLITE_FULL:
			advice = "the disk is full; make room and run the same command again, what was saved is kept"
		case lib.SQLITE_CORRUPT:
			advice = damaged
		case lib.SQLITE_NOTADB:
			advice = "this is not a database of Millrace; use another state directory, or move the file away to begin an empty one"
		case lib.SQLITE_CANTOPEN:
			advice = "it cannot be opened; check that you may write to " + filepath.Dir(s.file)
		case lib.SQLITE_READONLY, lib.SQLITE_PERM:
			advice = "it cannot be written to; check its owner and mode"
		case lib.SQLITE_IOERR:
			advice = "the disk gave an error; check that it has room and is well"
		}
	}
	if advice != "" {
		return fmt.Errorf("%s: %s: %w", s.file, advice, err)
	}
	return fmt.Errorf("%s: %w", s.file, err)
}
