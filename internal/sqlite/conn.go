package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"millrace/internal/batch"
)

// conn is one connection, used by one goroutine at a time. It stands directly
// on the driver: database/sql's scanning costs as much again as a lookup does.
type conn struct {
	raw   driver.Conn
	stmts map[string]driver.Stmt // prepared, by their SQL
	args  []driver.NamedValue
}

// exec runs one prepared statement and returns the number of rows it changed.
// A context that can end costs a goroutine for each call, so the statements of
// a transaction run without one; see Store.write.
func (c *conn) exec(ctx context.Context, sql string, args ...driver.Value) (int64, error) {
	st, err := c.prepare(ctx, sql)
	if err != nil {
		return 0, err
	}
	r, err := st.(driver.StmtExecContext).ExecContext(ctx, c.bind(args))
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// query runs one prepared statement and calls row for each row of its result.
// The slice is reused for the next row; the byte slices in it are not.
func (c *conn) query(ctx context.Context, sql string, args []driver.Value, row func([]driver.Value) error) error {
	st, err := c.prepare(ctx, sql)
	if err != nil {
		return err
	}
	return c.rows(ctx, st, args, row)
}

func (c *conn) rows(ctx context.Context, st driver.Stmt, args []driver.Value, row func([]driver.Value) error) (err error) {
	rows, err := st.(driver.StmtQueryContext).QueryContext(ctx, c.bind(args))
	if err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			bad, ok := p.(badColumn)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("%w: %s", errDamaged, bad)
		}
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	dest := make([]driver.Value, len(rows.Columns()))
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := rows.Next(dest); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := row(dest); err != nil {
			return err
		}
	}
}

// one is query for a result of at most one row with one integer; without a row
// ok is false.
func (c *conn) one(ctx context.Context, sql string, args ...driver.Value) (n int64, ok bool, err error) {
	err = c.query(ctx, sql, args, func(row []driver.Value) error {
		n, ok = row[0].(int64)
		return nil
	})
	return n, ok, err
}

// script runs statements without preparing them for another time. Pragmas need
// that: some take effect when they are prepared.
func (c *conn) script(ctx context.Context, sql string) error {
	_, err := c.raw.(driver.ExecerContext).ExecContext(ctx, sql, nil)
	return err
}

// pragma returns the first column of what a pragma says.
func (c *conn) pragma(ctx context.Context, sql string) (v driver.Value, err error) {
	st, err := c.raw.Prepare("PRAGMA " + sql)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := st.Close(); err == nil {
			err = e
		}
	}()
	err = c.rows(ctx, st, nil, func(row []driver.Value) error {
		v = row[0]
		return nil
	})
	return v, err
}

func (c *conn) prepare(ctx context.Context, sql string) (driver.Stmt, error) {
	if st, ok := c.stmts[sql]; ok {
		return st, nil
	}
	st, err := c.raw.(driver.ConnPrepareContext).PrepareContext(ctx, sql)
	if err != nil {
		return nil, err
	}
	c.stmts[sql] = st
	return st, nil
}

// bind numbers the arguments. The driver keeps none of them after the call.
func (c *conn) bind(args []driver.Value) []driver.NamedValue {
	c.args = c.args[:0]
	for i, v := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return c.args
}

func (c *conn) close() error {
	var errs []error
	for _, st := range c.stmts {
		errs = append(errs, st.Close())
	}
	clear(c.stmts)
	return errors.Join(append(errs, c.raw.Close())...)
}

// ids returns the integers that a query finds.
func (c *conn) ids(ctx context.Context, sql string, args ...driver.Value) ([]int64, error) {
	var ids []int64
	err := c.query(ctx, sql, args, func(row []driver.Value) error {
		ids = append(ids, column[int64](row[0]))
		return nil
	})
	return ids, err
}

// column reads a value whose type the schema fixes: the tables are STRICT, so
// another type means that the file is damaged. It may be used only in what
// query calls, which makes an error of that.
func column[T int64 | string | []byte](v driver.Value) T {
	t, ok := v.(T)
	if !ok && v != nil {
		panic(badColumn(fmt.Sprintf("a column holds %T where %T belongs", v, t)))
	}
	return t
}

// keyColumn reads a value that is a batch.Key, as column does.
func keyColumn(v driver.Value) batch.Key {
	b := column[[]byte](v)
	if len(b) != len(batch.Key{}) {
		panic(badColumn(fmt.Sprintf("a key has %d bytes", len(b))))
	}
	return batch.Key(b)
}

type badColumn string
