package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"millrace/internal/batch"
)

// removeAnswers removes answers with all that hangs on them, and counts.
func removeAnswers(ctx context.Context, c *conn, ids []int64, p *batch.Purged) error {
	if len(ids) == 0 {
		return nil
	}
	b, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	list := string(b)
	n, err := c.exec(ctx, `DELETE FROM link WHERE answer IN (SELECT value FROM json_each(?))`, list)
	if err != nil {
		return err
	}
	p.Links += n
	_, err = c.exec(ctx, `
		DELETE FROM owned WHERE (subject, answer) IN
			(SELECT a.subject, a.id FROM json_each(?) j CROSS JOIN answer a ON a.id = j.value)`, list)
	if err != nil {
		return err
	}
	n, err = c.exec(ctx, `DELETE FROM answer WHERE id IN (SELECT value FROM json_each(?))`, list)
	p.Answers += n
	return err
}

// The questions that a record led to: its own answers, those it is linked to,
// and its failures.
const questionsOf = `
	SELECT a.key FROM owned o JOIN answer a ON a.id = o.answer WHERE o.subject = ?1
	UNION SELECT a.key FROM link l JOIN answer a ON a.id = l.answer WHERE l.subject = ?1
	UNION SELECT f.key FROM failure f WHERE f.subject = ?1`

// Purge implements batch.Store. All answers and failures to a question that the
// record led to go, whoever asked it first: their text may tell of this record.
// Other records that were linked to them are asked again in their next run.
//
// An error that comes with counts means that the removal took place, but that
// another process kept the old bytes from being cleared out of the log.
func (s *Store) Purge(ctx context.Context, subject batch.Subject) (batch.Purged, error) {
	var p batch.Purged
	err := s.write(ctx, func(ctx context.Context, c *conn) error {
		p = batch.Purged{}
		if err := index(ctx, c); err != nil {
			return err
		}
		var keys [][]byte
		err := c.query(ctx, questionsOf, []driver.Value{int64(subject)}, func(row []driver.Value) error {
			keys = append(keys, column[[]byte](row[0]))
			return nil
		})
		if err != nil {
			return err
		}
		var ids []int64
		for _, key := range keys {
			id, ok, err := c.one(ctx, `SELECT id FROM answer WHERE key = ?`, key)
			if err != nil {
				return err
			}
			if ok {
				ids = append(ids, id)
			}
			// By key alone: failures are few, a run that has many is given up.
			n, err := c.exec(ctx, `DELETE FROM failure WHERE key = ?`, key)
			if err != nil {
				return err
			}
			p.Failures += n
		}
		return removeAnswers(ctx, c, ids, &p)
	})
	if err != nil {
		return batch.Purged{}, err
	}
	err = s.with(ctx, s.writer, func(c *conn) error {
		return s.patiently(ctx, func() error { return s.checkpoint(ctx, c) })
	})
	if err != nil {
		err = fmt.Errorf("the record is purged, but its bytes are still in %s-wal; purge it again: %w", s.file, err)
	}
	return p, err
}

// superseded is the condition under which an answer a is stale: it may be
// pruned, and each record that led to it has a newer answer of the same job.
const superseded = `
	a.keep = 0
	AND (EXISTS (SELECT 1 FROM owned o JOIN answer b ON b.id = o.answer JOIN source t ON t.id = b.source
			WHERE o.subject = a.subject AND b.created > a.created AND t.job = (SELECT job FROM source WHERE id = a.source))
		OR EXISTS (SELECT 1 FROM link l JOIN answer b ON b.id = l.answer JOIN source t ON t.id = l.source
			WHERE l.subject = a.subject AND b.created > a.created AND t.job = (SELECT job FROM source WHERE id = a.source)))
	AND NOT EXISTS (SELECT 1 FROM link k WHERE k.answer = a.id
		AND NOT EXISTS (SELECT 1 FROM owned o JOIN answer b ON b.id = o.answer JOIN source t ON t.id = b.source
			WHERE o.subject = k.subject AND b.created > a.created AND t.job = (SELECT job FROM source WHERE id = k.source))
		AND NOT EXISTS (SELECT 1 FROM link l JOIN answer b ON b.id = l.answer JOIN source t ON t.id = l.source
			WHERE l.subject = k.subject AND b.created > a.created AND t.job = (SELECT job FROM source WHERE id = k.source)))`

// stale finds the superseded answers: only records with more than one answer
// can have such, and most have one.
const stale = `
	FROM (SELECT subject FROM owned GROUP BY subject HAVING count(*) > 1
		UNION SELECT DISTINCT l.subject FROM link l WHERE EXISTS (SELECT 1 FROM owned o WHERE o.subject = l.subject)) m
	CROSS JOIN owned w ON w.subject = m.subject
	CROSS JOIN answer a ON a.id = w.answer
	WHERE ` + superseded

// forgotten is the condition for a run, in the column run, of which nothing is
// needed any more: it has ended, or is untouched since ?1.
const forgotten = `run NOT IN (SELECT id FROM run WHERE finished IS NULL AND touched >= ?1)`

// Prune implements batch.Store. Everything is judged as it was at the start:
// an answer that goes because it expired still counts as the newer one.
// Runs go too when they are among those forgotten, no answer came from them,
// and they are not of the last thousand finished.
func (s *Store) Prune(ctx context.Context, now, abandoned time.Time) (batch.Purged, error) {
	var p batch.Purged
	if err := s.prune(ctx, now, abandoned, &p); err != nil {
		return p, err
	}
	return p, s.shrink(ctx)
}

func (s *Store) prune(ctx context.Context, now, abandoned time.Time, p *batch.Purged) error {
	if err := s.write(ctx, index); err != nil {
		return err
	}
	var ids []int64
	err := s.read(ctx, func(c *conn) (err error) {
		ids, err = c.ids(ctx, `SELECT a.id `+stale)
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(ids) // as the answers lie in the file
	for ids := range slices.Chunk(ids, chunk) {
		b, err := json.Marshal(ids)
		if err != nil {
			return err
		}
		err = s.write(ctx, func(ctx context.Context, c *conn) error {
			// Once more, as another process may have linked a record to one.
			ids, err := c.ids(ctx, `
				SELECT a.id FROM json_each(?1) j CROSS JOIN answer a ON a.id = j.value WHERE `+superseded, string(b))
			if err != nil {
				return err
			}
			return removeAnswers(ctx, c, ids, p)
		})
		if err != nil {
			return err
		}
		if err := breathe(ctx); err != nil {
			return err
		}
	}
	from := int64(0)
	err = s.inChunks(ctx, func(ctx context.Context, c *conn) (int, error) {
		ids, err := c.ids(ctx, `
			SELECT id FROM answer WHERE id > ?1 AND keep = 0 AND expires > 0 AND expires <= ?2 ORDER BY id LIMIT ?3`,
			from, now.UnixMilli(), int64(chunk))
		if err != nil || len(ids) == 0 {
			return 0, err
		}
		from = ids[len(ids)-1]
		return len(ids), removeAnswers(ctx, c, ids, p)
	})
	if err != nil {
		return err
	}
	if err := s.removeScoped(ctx, p, forgotten, abandoned.UnixMilli()); err != nil {
		return err
	}
	if err := s.removeFailures(ctx, p, forgotten, abandoned.UnixMilli()); err != nil {
		return err
	}
	return s.removeRuns(ctx, p, abandoned)
}

func (s *Store) removeRuns(ctx context.Context, p *batch.Purged, abandoned time.Time) error {
	const old = `
		CASE WHEN finished IS NULL THEN touched < ?1
		ELSE id < coalesce((SELECT id FROM run WHERE finished IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?2), 0) END`
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		args := []driver.Value{abandoned.UnixMilli(), int64(keepRuns - 1)}
		if _, some, err := c.one(ctx, `SELECT 1 FROM run WHERE `+old+` LIMIT 1`, args...); err != nil || !some {
			return err
		}
		n, err := c.exec(ctx, `
			DELETE FROM run WHERE (`+old+`) AND id NOT IN
				(SELECT run FROM answer UNION SELECT run FROM link UNION SELECT run FROM failure)`, args...)
		p.Runs += n
		return err
	})
}

// shrink gives room back to the system when an eighth of the file is unused.
// Less is soon filled again.
func (s *Store) shrink(ctx context.Context) error {
	var free, pages int64
	err := s.read(ctx, func(c *conn) (err error) {
		if free, _, err = c.one(ctx, `SELECT freelist_count FROM pragma_freelist_count`); err != nil {
			return err
		}
		pages, _, err = c.one(ctx, `SELECT page_count FROM pragma_page_count`)
		return err
	})
	if err != nil || free*8 < pages {
		return err
	}
	for ; free > 0; free -= chunk {
		err := s.write(ctx, func(ctx context.Context, c *conn) error {
			return c.script(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", chunk))
		})
		if err != nil {
			return err
		}
		if err := breathe(ctx); err != nil {
			return err
		}
	}
	return s.with(ctx, s.writer, func(c *conn) error {
		err := s.checkpoint(ctx, c)
		if busy(err) {
			return nil // later, then
		}
		return err
	})
}

// Stats implements batch.Store. It reads through the whole file.
func (s *Store) Stats(ctx context.Context, now time.Time) (batch.StoreStats, error) {
	var st batch.StoreStats
	if err := s.write(ctx, index); err != nil {
		return st, err
	}
	jobs := map[string]*batch.JobStats{}
	err := s.read(ctx, func(c *conn) (err error) {
		err = c.query(ctx, `
			SELECT coalesce(s.job, ''), g.n, g.bytes, g.expired, g.oldest, g.newest FROM (
				SELECT source, count(*) n, sum(length(text)) bytes,
					sum(keep = 0 AND expires > 0 AND expires <= ?1) expired, min(created) oldest, max(created) newest
				FROM answer GROUP BY source) g
			LEFT JOIN source s ON s.id = g.source`, []driver.Value{now.UnixMilli()}, func(row []driver.Value) error {
			name, n := column[string](row[0]), column[int64](row[1])
			oldest, newest := instant(column[int64](row[4])), instant(column[int64](row[5]))
			st.Answers += n
			st.TextBytes += column[int64](row[2])
			st.Expired += column[int64](row[3])
			j := jobs[name]
			if j == nil {
				j = &batch.JobStats{Job: name, Oldest: oldest, Newest: newest}
				jobs[name] = j
			}
			j.Answers += n
			if oldest.Before(j.Oldest) {
				j.Oldest = oldest
			}
			if newest.After(j.Newest) {
				j.Newest = newest
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, q := range []struct {
			n   *int64
			sql string
		}{
			{&st.Stale, `SELECT count(*) ` + stale},
			{&st.Records, `
				SELECT (SELECT count(*) FROM (SELECT DISTINCT subject FROM owned)) +
					(SELECT count(*) FROM (SELECT DISTINCT subject FROM link l
						WHERE NOT EXISTS (SELECT 1 FROM owned o WHERE o.subject = l.subject)))`},
			{&st.Runs, `SELECT count(*) FROM run`},
		} {
			if *q.n, _, err = c.one(ctx, q.sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return batch.StoreStats{}, err
	}
	for _, j := range jobs {
		st.ByJob = append(st.ByJob, *j)
	}
	slices.SortFunc(st.ByJob, func(a, b batch.JobStats) int { return strings.Compare(a.Job, b.Job) })
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(s.file + suffix); err == nil {
			st.Bytes += info.Size()
		}
	}
	return st, nil
}
