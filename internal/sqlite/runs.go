package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"millrace/internal/batch"
)

const (
	// keepRuns is how many finished runs keep their report.
	keepRuns = 1000

	// chunk is how many rows are removed at a time, so that others who write
	// wait no longer than that takes: some 50 ms.
	chunk = 2000
)

// OpenRun implements batch.Store. What the run says of its server, model and
// arguments is what counts from now on; Started stays that of the beginning.
func (s *Store) OpenRun(ctx context.Context, r batch.Run) (batch.Run, error) {
	args, err := json.Marshal(r.Args)
	if err != nil {
		return batch.Run{}, err
	}
	err = s.write(ctx, func(ctx context.Context, c *conn) error {
		now := s.now()
		if r.Started.IsZero() {
			r.Started = now
		}
		id, resumed, err := c.one(ctx, `SELECT id FROM run WHERE fingerprint = ? AND finished IS NULL`, r.Fingerprint[:])
		if err != nil {
			return err
		}
		r.Resumed = resumed
		if resumed {
			r.ID = id
			started, _, err := c.one(ctx, `SELECT started FROM run WHERE id = ?`, id)
			if err != nil {
				return err
			}
			r.Started = instant(started)
			_, err = c.exec(ctx, `
				UPDATE run SET touched = max(touched, ?), job = ?, args = ?, input = ?, output = ?, server = ?, model = ?
				WHERE id = ?`, now.UnixMilli(), r.Job, string(args), r.Input, r.Output, r.Server, r.Model, id)
			return err
		}
		// As it will be read back, so that no answer is older than its run.
		r.Started = instant(r.Started.UnixMilli())
		_, err = c.exec(ctx, `
			INSERT INTO run(fingerprint, started, touched, job, args, input, output, server, model)
			VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)`, r.Fingerprint[:], r.Started.UnixMilli(), now.UnixMilli(),
			r.Job, string(args), r.Input, r.Output, r.Server, r.Model)
		if err != nil {
			return err
		}
		r.ID, _, err = c.one(ctx, `SELECT last_insert_rowid()`)
		return err
	})
	if err != nil {
		return batch.Run{}, err
	}
	return r, nil
}

// FinishRun implements batch.Store. The run is finished as soon as that is
// recorded; should the removal be interrupted then, calling it again or Prune
// completes it. A run that is finished already keeps its first report.
func (s *Store) FinishRun(ctx context.Context, id int64, report json.RawMessage) error {
	err := s.write(ctx, func(ctx context.Context, c *conn) error {
		n, err := c.exec(ctx, `UPDATE run SET finished = ?, report = ? WHERE id = ? AND finished IS NULL`,
			s.now().UnixMilli(), string(report), id)
		if err != nil {
			return err
		}
		if n == 0 {
			if _, known, err := c.one(ctx, `SELECT 1 FROM run WHERE id = ?`, id); err != nil || known {
				return err
			}
			return fmt.Errorf("there is no run %d to finish; the state directory was replaced while it ran", id)
		}
		_, err = c.exec(ctx, `
			UPDATE run SET report = NULL WHERE report IS NOT NULL AND finished IS NOT NULL
				AND id < (SELECT id FROM run WHERE finished IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?)`, int64(keepRuns-1))
		return err
	})
	if err != nil {
		return err
	}
	var p batch.Purged
	if err := s.removeScoped(ctx, &p, `run = ?1`, id); err != nil {
		return err
	}
	return s.removeFailures(ctx, &p, `run = ?1`, id)
}

// removeScoped removes the scoped answers of the runs that meet a condition.
func (s *Store) removeScoped(ctx context.Context, p *batch.Purged, where string, arg int64) error {
	return s.inChunks(ctx, func(ctx context.Context, c *conn) (int, error) {
		ids, err := c.ids(ctx, `SELECT id FROM answer WHERE scoped = 1 AND `+where+` LIMIT ?2`, arg, int64(chunk))
		if err != nil {
			return 0, err
		}
		return len(ids), removeAnswers(ctx, c, ids, p)
	})
}

// removeFailures removes the failures of the runs that meet a condition.
func (s *Store) removeFailures(ctx context.Context, p *batch.Purged, where string, arg int64) error {
	return s.inChunks(ctx, func(ctx context.Context, c *conn) (int, error) {
		n, err := c.exec(ctx, `
			DELETE FROM failure WHERE (run, key, subject) IN
				(SELECT run, key, subject FROM failure WHERE `+where+` LIMIT ?2)`, arg, int64(chunk))
		p.Failures += n
		return int(n), err
	})
}

// inChunks calls fn in a transaction of its own until it has done fewer than a
// whole chunk, and lets others write in between.
func (s *Store) inChunks(ctx context.Context, fn func(context.Context, *conn) (int, error)) error {
	for {
		n := 0
		err := s.write(ctx, func(ctx context.Context, c *conn) (err error) {
			n, err = fn(ctx, c)
			return err
		})
		if err != nil || n < chunk {
			return err
		}
		if err := breathe(ctx); err != nil {
			return err
		}
	}
}

// breathe leaves another process the time to find the lock free.
func breathe(ctx context.Context) error {
	t := time.NewTimer(2 * poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
