package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"slices"
	"time"

	"millrace/internal/batch"
)

// group is how many keys one lookup statement takes: the rows of table seq.
const group = 1024

// indexEvery is how many answers may wait to be entered in owned. The more at
// a time, the fewer pages are written for each; those that wait are read
// through by Trail, 65,536 of them in some 20 ms.
const indexEvery = 1 << 16

const (
	lookupAnswers = `
		SELECT s.i, a.subject, a.run, a.scoped, a.keep, a.created, a.expires, a.text
		FROM seq s CROSS JOIN answer a ON a.key = substr(?1, s.i*16 + 1, 16)
		WHERE s.i < ?2`
	lookupFailures = `
		SELECT s.i, f.subject, f.attempts, f.reason, f.raw
		FROM seq s CROSS JOIN failure f ON f.run = ?3 AND f.key = substr(?1, s.i*16 + 1, 16)
		WHERE s.i < ?2`
)

// Lookup implements batch.Store. A failure that several records had in common
// is given as one of theirs.
func (s *Store) Lookup(ctx context.Context, run batch.Run, keys []batch.Key) ([]batch.Found, error) {
	found := make([]batch.Found, len(keys))
	err := s.read(ctx, func(c *conn) error {
		rest := found
		for keys := range slices.Chunk(keys, group) {
			if err := s.lookup(ctx, c, run, keys, rest[:len(keys)]); err != nil {
				return err
			}
			rest = rest[len(keys):]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// lookup looks up one group. A statement is a read transaction of its own, so
// none is held from one group to the next.
func (s *Store) lookup(ctx context.Context, c *conn, run batch.Run, keys []batch.Key, found []batch.Found) error {
	blob := make([]byte, 0, len(keys)*len(batch.Key{}))
	for i := range keys {
		blob = append(blob, keys[i][:]...)
	}
	args := []driver.Value{blob, int64(len(keys))}
	answers := make([]batch.Answer, 0, len(keys))
	err := c.query(ctx, lookupAnswers, args, func(row []driver.Value) error {
		text, err := s.codec.unpack(column[[]byte](row[7]))
		if err != nil {
			return err
		}
		answers = append(answers, batch.Answer{
			Subject: batch.Subject(column[int64](row[1])),
			Run:     column[int64](row[2]),
			Scoped:  column[int64](row[3]) != 0,
			Keep:    column[int64](row[4]) != 0,
			Created: instant(column[int64](row[5])),
			Expires: expiry(column[int64](row[6])),
			Text:    text,
		})
		found[column[int64](row[0])].Answer = &answers[len(answers)-1]
		return nil
	})
	if err != nil || !run.Resumed {
		return err
	}
	return c.query(ctx, lookupFailures, append(args, run.ID), func(row []driver.Value) error {
		raw, err := s.codec.unpack(column[[]byte](row[4]))
		if err != nil {
			return err
		}
		i := column[int64](row[0])
		found[i].Failure = &batch.Failure{
			Key:      keys[i],
			Subject:  batch.Subject(column[int64](row[1])),
			Run:      run.ID,
			Attempts: int(column[int64](row[2])),
			Reason:   column[string](row[3]),
			Raw:      string(raw),
		}
		return nil
	})
}

const (
	insertAnswer = `
		INSERT INTO answer(key, subject, source, inputs, run, scoped, keep, created, expires, text)
		VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT(key) DO NOTHING`
	// The answer belongs to the run that made it last. What it says of the
	// record in subject stays true of that record: another record's source and
	// inputs go into a link.
	replaceAnswer = `
		UPDATE answer SET run = ?2, scoped = ?3, keep = ?4, created = ?5, expires = ?6, text = ?7,
			source = iif(subject = ?8, ?9, source), inputs = iif(subject = ?8, ?10, inputs)
		WHERE key = ?1`
	upsertLink = `
		INSERT INTO link(subject, answer, source, inputs, run, created)
		SELECT ?2, id, ?3, ?4, ?5, ?6 FROM answer WHERE key = ?1 AND subject <> ?2
		ON CONFLICT(subject, answer) DO UPDATE SET
			source = excluded.source, inputs = excluded.inputs, run = excluded.run, created = excluded.created`
	upsertFailure = `
		INSERT INTO failure(run, key, subject, reason, raw, attempts) VALUES(?, ?, ?, ?, ?, ?)
		ON CONFLICT(run, key, subject) DO UPDATE SET
			reason = excluded.reason, raw = excluded.raw, attempts = excluded.attempts`
	touchRun = `UPDATE run SET touched = max(touched, ?2) WHERE id = ?1`

	waiting = `SELECT coalesce((SELECT max(id) FROM answer), 0) - value FROM meta WHERE name = 'indexed'`
	// In the order of the index, so that each of its pages is visited once.
	indexOwned = `
		INSERT INTO owned(subject, answer)
		SELECT subject, id FROM answer WHERE id > (SELECT value FROM meta WHERE name = 'indexed')
		ORDER BY subject, id`
	indexedAll = `UPDATE meta SET value = max(value, coalesce((SELECT max(id) FROM answer), 0)) WHERE name = 'indexed'`
)

// Save implements batch.Store. An answer to a question that another record
// asked before replaces that record's; the one who asks now becomes linked. A
// link to an answer that is not there (purged by another process) is dropped.
// Times are kept to the millisecond.
func (s *Store) Save(ctx context.Context, answers []batch.Answer, links []batch.Link, failures []batch.Failure) error {
	if len(answers)+len(links)+len(failures) == 0 {
		return nil
	}
	texts := make([][]byte, len(answers))
	for i := range answers {
		texts[i] = s.codec.pack(answers[i].Text)
	}
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		runs := map[int64]bool{}
		for i := range answers {
			runs[answers[i].Run] = true
			if err := saveAnswer(ctx, c, &answers[i], texts[i]); err != nil {
				return err
			}
		}
		for i := range links {
			runs[links[i].Run] = true
			if err := saveLink(ctx, c, &links[i]); err != nil {
				return err
			}
		}
		for i := range failures {
			f := &failures[i]
			runs[f.Run] = true
			_, err := c.exec(ctx, upsertFailure, f.Run, f.Key[:], int64(f.Subject), f.Reason, s.codec.pack([]byte(f.Raw)), int64(f.Attempts))
			if err != nil {
				return err
			}
		}
		now := s.now().UnixMilli()
		for run := range runs {
			if _, err := c.exec(ctx, touchRun, run, now); err != nil {
				return err
			}
		}
		if n, _, err := c.one(ctx, waiting); err != nil || n < s.indexEvery {
			return err
		}
		return index(ctx, c)
	})
}

func saveAnswer(ctx context.Context, c *conn, a *batch.Answer, text []byte) error {
	subject, expires := int64(a.Subject), int64(0)
	if !a.Expires.IsZero() {
		expires = a.Expires.UnixMilli()
	}
	n, err := c.exec(ctx, insertAnswer, a.Key[:], subject, a.Source, a.Inputs, a.Run, bit(a.Scoped), bit(a.Keep),
		a.Created.UnixMilli(), expires, text)
	if err != nil || n > 0 {
		return err
	}
	_, err = c.exec(ctx, replaceAnswer, a.Key[:], a.Run, bit(a.Scoped), bit(a.Keep), a.Created.UnixMilli(), expires, text,
		subject, a.Source, a.Inputs)
	if err != nil {
		return err
	}
	return saveLink(ctx, c, &batch.Link{Key: a.Key, Subject: a.Subject, Source: a.Source, Inputs: a.Inputs, Run: a.Run, Created: a.Created})
}

// saveLink does nothing for the answer's own record.
func saveLink(ctx context.Context, c *conn, l *batch.Link) error {
	_, err := c.exec(ctx, upsertLink, l.Key[:], int64(l.Subject), l.Source, l.Inputs, l.Run, l.Created.UnixMilli())
	return err
}

// index enters the answers that wait for it in owned.
func index(ctx context.Context, c *conn) error {
	if _, err := c.exec(ctx, indexOwned); err != nil {
		return err
	}
	_, err := c.exec(ctx, indexedAll)
	return err
}

// Source implements batch.Store. Sources are few and never removed, so their
// ids are remembered.
func (s *Store) Source(ctx context.Context, src batch.Source) (int64, error) {
	name, err := json.Marshal(src)
	if err != nil {
		return 0, err
	}
	fields, err := json.Marshal(append([]string{}, src.Fields...))
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	id, ok := s.sources[string(name)]
	s.mu.Unlock()
	if ok {
		return id, nil
	}
	err = s.write(ctx, func(ctx context.Context, c *conn) error {
		args := []driver.Value{src.Job, int64(src.Version), src.Model, src.Options, src.Schema, src.Prompt, string(fields)}
		_, err := c.exec(ctx, `
			INSERT INTO source(job, version, model, options, schema, prompt, fields) VALUES(?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`, args...)
		if err != nil {
			return err
		}
		id, _, err = c.one(ctx, `
			SELECT id FROM source
			WHERE job = ? AND version = ? AND model = ? AND options = ? AND schema = ? AND prompt = ? AND fields = ?`, args...)
		return err
	})
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.sources[string(name)] = id
	s.mu.Unlock()
	return id, nil
}

// trail finds a record's own answers, those not yet in owned, and those it is
// linked to, with the source, inputs and run of the record in question.
const trail = `
	WITH got AS (
		SELECT a.id, a.source, a.inputs, a.run FROM owned o JOIN answer a ON a.id = o.answer
		WHERE o.subject = ?1
		UNION ALL
		SELECT id, source, inputs, run FROM answer
		WHERE subject = ?1 AND id > (SELECT value FROM meta WHERE name = 'indexed')
		UNION ALL
		SELECT answer, source, inputs, run FROM link
		WHERE subject = ?1
	)
	SELECT a.key, a.created, a.expires, got.inputs, got.run,
		s.job, s.version, s.model, s.options, s.schema, s.prompt, s.fields,
		r.fingerprint, r.started, r.job, r.args, r.input, r.output, r.server, r.model
	FROM got JOIN answer a ON a.id = got.id
		LEFT JOIN source s ON s.id = got.source
		LEFT JOIN run r ON r.id = got.run
	ORDER BY a.created DESC, a.id DESC`

// Trail implements batch.Store. Of a run that is no longer known only the ID
// is given.
func (s *Store) Trail(ctx context.Context, subject batch.Subject) ([]batch.Trail, error) {
	var trails []batch.Trail
	err := s.read(ctx, func(c *conn) error {
		return c.query(ctx, trail, []driver.Value{int64(subject)}, func(row []driver.Value) error {
			t := batch.Trail{
				Key:     keyColumn(row[0]),
				Created: instant(column[int64](row[1])),
				Expires: expiry(column[int64](row[2])),
				Inputs:  column[[]byte](row[3]),
				Run:     batch.Run{ID: column[int64](row[4])},
			}
			if row[5] != nil {
				t.Source = batch.Source{
					Job: column[string](row[5]), Version: int(column[int64](row[6])), Model: column[string](row[7]),
					Options: column[string](row[8]), Schema: column[string](row[9]), Prompt: column[string](row[10]),
				}
				if err := json.Unmarshal([]byte(column[string](row[11])), &t.Source.Fields); err != nil {
					return err
				}
			}
			if row[12] != nil {
				t.Run.Fingerprint = keyColumn(row[12])
				t.Run.Started = instant(column[int64](row[13]))
				t.Run.Job, t.Run.Input, t.Run.Output = column[string](row[14]), column[string](row[16]), column[string](row[17])
				t.Run.Server, t.Run.Model = column[string](row[18]), column[string](row[19])
				if err := json.Unmarshal([]byte(column[string](row[15])), &t.Run.Args); err != nil {
					return err
				}
			}
			trails = append(trails, t)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return trails, nil
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func instant(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func expiry(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return instant(ms)
}
