// Package sqlite keeps answers in one SQLite file on this machine. It is
// batch's store for a single user: several processes may use one state
// directory at the same time.
package sqlite

import (
	"context"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"

	"millrace/internal/batch"
)

// FileName is the name of the database in the state directory.
const FileName = "millrace.db"

const (
	// applicationID marks the file as ours: "mill".
	applicationID = 0x6d696c6c

	// readers is how many lookups can go on at the same time.
	readers = 2

	// A page of 2 KiB makes Save a fifth cheaper than one of 4: nearly every
	// new key lies on a page of its own, which is written whole.
	pageSize = 2048
	// Caches in KiB. A million answers in 4 MiB or in 32 are found equally
	// fast, as the system caches the file too; memory is better spent elsewhere.
	writerCache, readerCache = 16 << 10, 8 << 10
	// checkpointPages is 32 MiB: each checkpoint then writes a page once that
	// many groups have changed.
	checkpointPages = 16384

	// poll is how often a lock held by another process is tried. SQLite's own
	// waiting backs off to 100 ms and so goes hungry beside a busy writer.
	poll = 2 * time.Millisecond
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options are a store's settings. The zero value is ready to use.
type Options struct {
	// Now is the clock for when runs begin, are used and end; time.Now if nil.
	Now func() time.Time
	// Wait is how long to wait for another process that is writing; 30 s if 0.
	Wait time.Duration
}

// Store is a batch.Store in one file.
type Store struct {
	file  string
	now   func() time.Time
	wait  time.Duration
	codec *codec

	indexEvery int64 // answers that may wait to be entered in table owned

	writer  chan *conn // the one connection that writes
	readers chan *conn
	done    chan struct{} // closed when Close begins
	close   func() error

	mu      sync.Mutex
	sources map[string]int64 // ids of the sources seen, by their JSON
}

var _ batch.Store = (*Store)(nil)

// Open opens the store in a state directory, making both where there are none.
// The directory has to be on a local disk.
func Open(ctx context.Context, dir string, o Options) (_ *Store, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		file: filepath.Join(dir, FileName), now: o.Now, wait: o.Wait,
		writer: make(chan *conn, 1), readers: make(chan *conn, readers), done: make(chan struct{}),
		indexEvery: indexEvery, sources: map[string]int64{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.wait <= 0 {
		s.wait = 30 * time.Second
	}
	s.close = sync.OnceValue(s.shut)
	if s.codec, err = newCodec(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w; choose one that you may write to", err)
	}
	if err := s.connect(ctx); err != nil {
		s.discard()
		return nil, s.explain(err)
	}
	return s, nil
}

// connect opens the connections, the writer first: it makes the file and
// brings it up to date.
func (s *Store) connect(ctx context.Context) error {
	_, err := os.Stat(s.file)
	fresh := errors.Is(err, fs.ErrNotExist)
	w, err := s.dial(ctx)
	if err != nil {
		return err
	}
	s.writer <- w
	if fresh {
		// By name, not through a file of our own: closing that would drop the
		// locks which another store of this process may hold.
		if err := os.Chmod(s.file, 0o600); err != nil {
			return err
		}
	}
	// Every step may meet the lock of another process that begins or ends just
	// now, and doing them again is no harm.
	if err := s.patiently(ctx, func() error { return s.prepareWriter(ctx, w) }); err != nil {
		return err
	}
	for range readers {
		r, err := s.dial(ctx)
		if err != nil {
			return err
		}
		s.readers <- r
		err = r.script(ctx, fmt.Sprintf("PRAGMA busy_timeout=%d; PRAGMA cache_size=-%d; PRAGMA query_only=1; PRAGMA trusted_schema=0",
			s.wait.Milliseconds(), readerCache))
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dial(ctx context.Context) (*conn, error) {
	path := filepath.ToSlash(s.file)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a Windows drive
	}
	connector, err := sqlite.NewConnector((&url.URL{Scheme: "file", Path: path}).String())
	if err != nil {
		return nil, err
	}
	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{raw: raw, stmts: map[string]driver.Stmt{}}, nil
}

func (s *Store) prepareWriter(ctx context.Context, w *conn) error {
	if err := w.script(ctx, "PRAGMA busy_timeout=5; PRAGMA trusted_schema=0"); err != nil {
		return err
	}
	// Nothing is changed before it is known that the file is ours.
	version, err := s.version(ctx, w)
	if err != nil {
		return err
	}
	if version == 0 {
		// Takes effect only while the file is empty.
		err := w.script(ctx, fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=INCREMENTAL", pageSize))
		if err != nil {
			return err
		}
	}
	mode, err := w.pragma(ctx, "journal_mode=WAL")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("SQLite's write-ahead log does not work here (journal mode %v); use a state directory on a local disk", mode)
	}
	// secure_delete: what is purged is overwritten, not only unlinked.
	err = w.script(ctx, fmt.Sprintf("PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON; PRAGMA cache_size=-%d; PRAGMA wal_autocheckpoint=%d; PRAGMA journal_size_limit=%d",
		writerCache, checkpointPages, 2*checkpointPages*pageSize))
	if err != nil {
		return err
	}
	return s.migrate(ctx, w)
}

// version returns the number of migrations that the file has had. It is an
// error if the file is another program's or a newer Millrace's. Call it within
// a transaction: its readings have to be of one moment, as another process may
// be making the tables.
func (s *Store) version(ctx context.Context, c *conn) (int, error) {
	known, err := migrations.ReadDir("migrations")
	if err != nil {
		return 0, err
	}
	v, err := c.pragma(ctx, "user_version")
	if err != nil {
		return 0, err
	}
	version := int(column[int64](v))
	app, err := c.pragma(ctx, "application_id")
	if err != nil {
		return 0, err
	}
	tables, _, err := c.one(ctx, "SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return 0, err
	}
	switch {
	case column[int64](app) != applicationID && (tables > 0 || version != 0):
		return 0, errors.New("this is the database of another program; use another state directory")
	case version > len(known):
		return 0, fmt.Errorf("it was written by a newer Millrace (format %d; this one knows format %d and older); update Millrace, or use another state directory with --state", version, len(known))
	}
	return version, nil
}

// versionNow is version in a transaction of its own, which locks nobody out.
func (s *Store) versionNow(ctx context.Context, c *conn) (version int, err error) {
	if _, err := c.exec(ctx, "BEGIN"); err != nil {
		return 0, err
	}
	defer func() {
		if _, e := c.exec(context.WithoutCancel(ctx), "ROLLBACK"); err == nil {
			err = e
		}
	}()
	return s.version(ctx, c)
}

func (s *Store) migrate(ctx context.Context, c *conn) error {
	known, err := migrations.ReadDir("migrations") // sorted by name
	if err != nil {
		return err
	}
	version, err := s.versionNow(ctx, c)
	if err != nil || version == len(known) {
		return err
	}
	return s.transact(ctx, c, func(ctx context.Context) error {
		version, err := s.version(ctx, c) // another process may have been first
		if err != nil {
			return err
		}
		for i, f := range known[version:] {
			sql, err := migrations.ReadFile("migrations/" + f.Name())
			if err != nil {
				return err
			}
			sql = fmt.Appendf(sql, "\nPRAGMA application_id=%d; PRAGMA user_version=%d;", applicationID, version+i+1)
			if err := c.script(ctx, string(sql)); err != nil {
				return fmt.Errorf("migration %s: %w", f.Name(), err)
			}
		}
		return nil
	})
}

// read calls fn with a connection for reading.
func (s *Store) read(ctx context.Context, fn func(*conn) error) error {
	return s.with(ctx, s.readers, fn)
}

// write calls fn within a transaction on the connection for writing, and
// commits unless it returns an error. The context that fn gets does not end:
// a transaction is short, and interrupting its commit would leave it unknown
// whether it took place.
func (s *Store) write(ctx context.Context, fn func(context.Context, *conn) error) error {
	return s.with(ctx, s.writer, func(c *conn) error {
		return s.transact(ctx, c, func(ctx context.Context) error { return fn(ctx, c) })
	})
}

func (s *Store) with(ctx context.Context, pool chan *conn, fn func(*conn) error) error {
	select {
	case <-s.done:
		return s.explain(errClosed)
	default:
	}
	select {
	case <-s.done:
		return s.explain(errClosed)
	case <-ctx.Done():
		return ctx.Err()
	case c := <-pool:
		defer func() { pool <- c }()
		return s.explain(fn(c))
	}
}

func (s *Store) transact(ctx context.Context, c *conn, fn func(context.Context) error) (err error) {
	inside := context.WithoutCancel(ctx)
	done := false
	defer func() {
		if !done {
			// Also after a BEGIN that was interrupted: it may have been too late.
			_, _ = c.exec(inside, "ROLLBACK")
		}
	}()
	err = s.patiently(ctx, func() error {
		_, err := c.exec(ctx, "BEGIN IMMEDIATE")
		return err
	})
	if err != nil {
		return err
	}
	if err := fn(inside); err != nil {
		return err
	}
	if _, err := c.exec(inside, "COMMIT"); err != nil {
		return err
	}
	done = true
	return nil
}

// patiently tries fn until it does not meet another process's lock, for
// Options.Wait.
func (s *Store) patiently(ctx context.Context, fn func() error) error {
	var end, next *time.Timer
	for {
		err := fn()
		if !busy(err) {
			return err
		}
		d := poll/2 + rand.N(poll)
		if end == nil {
			end, next = time.NewTimer(s.wait), time.NewTimer(d)
			defer end.Stop()
			defer next.Stop()
		} else {
			next.Reset(d)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return errHeld
		case <-next.C:
		}
	}
}

// checkpoint brings the whole log into the file and empties it. The error is
// a busy one while another process reads from the log.
func (s *Store) checkpoint(ctx context.Context, c *conn) error {
	v, err := c.pragma(ctx, "wal_checkpoint(TRUNCATE)")
	if err == nil && v != int64(0) {
		err = errBlocked
	}
	return err
}

// Close waits for the calls in progress, brings the log into the file and lets
// go of it. Calling it again gives the same result.
func (s *Store) Close() error { return s.close() }

func (s *Store) shut() error {
	close(s.done)
	w := <-s.writer
	idle := []*conn{w}
	for range readers {
		idle = append(idle, <-s.readers)
	}
	// Another process may be reading or writing: then the log is its affair.
	err := s.checkpoint(context.Background(), w)
	if busy(err) {
		err = nil
	}
	errs := []error{err}
	for _, c := range idle {
		errs = append(errs, c.close())
	}
	s.codec.close()
	return s.explain(errors.Join(errs...))
}

// discard closes what a failed Open has opened.
func (s *Store) discard() {
	for _, pool := range []chan *conn{s.writer, s.readers} {
		for range len(pool) {
			c := <-pool
			_ = c.close()
		}
	}
	s.codec.close()
}
