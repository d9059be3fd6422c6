package record

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync/atomic"

	"github.com/parquet-go/parquet-go"
)

// parquetReader reads one row group after the other, a page per column at a time.
type parquetReader struct {
	*source
	groups  []parquet.RowGroup
	total   int64
	count   atomic.Int64
	nodes   []*pnode
	columns []string

	rows  parquet.Rows
	batch []parquet.Row // read ahead
	ready []parquet.Row // of batch, not yet returned
	asm   assembler
	json  []byte
	ends  []int
	done  error
}

func (s *source) openParquet(r io.Reader, packed bool) (_ Reader, err error) {
	at, size := s.randomAccess(packed)
	if at == nil {
		if at, size, err = s.spool(r); err != nil {
			return nil, err
		}
	}
	if err := s.checkFooter(at, size); err != nil {
		return nil, err
	}
	p := &parquetReader{source: s, batch: make([]parquet.Row, 64)}
	defer guard(s, &err)
	f, err := parquet.OpenFile(at, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.ReadBufferSize(256<<10))
	if err != nil {
		return nil, s.errorf("the Parquet input is damaged or cut short: %w", err)
	}
	p.groups, p.total = f.RowGroups(), f.NumRows()
	leaves := 0
	seen := make(map[string]bool)
	for _, field := range f.Schema().Fields() {
		name := field.Name()
		if name == "" || seen[name] {
			return nil, s.errorf("the Parquet input has two columns named %q or one without a name: give every column a name of its own", name)
		}
		seen[name] = true
		p.nodes = append(p.nodes, newNode(name, field, 0, 0, &leaves))
		p.columns = append(p.columns, name)
	}
	p.asm = assembler{columns: make([][]parquet.Value, leaves), at: make([]int, leaves)}
	return p, nil
}

// checkFooter makes sure that the file has its end: its length and the magic
// number are the last 8 bytes. The library would make room for whatever they say.
func (s *source) checkFooter(at io.ReaderAt, size int64) error {
	var end [8]byte
	if size >= 12 {
		if _, err := at.ReadAt(end[:], size-8); err != nil && !errors.Is(err, io.EOF) {
			return s.broken(err, 0)
		}
	}
	if string(end[4:]) != "PAR1" || int64(binary.LittleEndian.Uint32(end[:4])) > size-12 {
		return s.errorf("the Parquet input has no footer at its end: is the file complete?")
	}
	return nil
}

// randomAccess returns the input for reading at any place, if it allows that.
func (s *source) randomAccess(packed bool) (io.ReaderAt, int64) {
	if at, ok := s.r.(io.ReaderAt); ok && !packed && s.size > 0 {
		return at, s.size
	}
	return nil, 0
}

// spool keeps the input in a temporary file.
func (s *source) spool(r io.Reader) (io.ReaderAt, int64, error) {
	f, err := temporary("")
	if err != nil {
		return nil, 0, err
	}
	s.closers = append(s.closers, f.Close)
	size, err := io.Copy(f, r)
	if err != nil {
		return nil, 0, s.errorf("keeping the Parquet input in a temporary file: %w", err)
	}
	return f, size, nil
}

// scratch is a file that is gone when closed, or, where the system allows it,
// when the process ends however it ends.
type scratch struct {
	*os.File
	gone bool
}

func temporary(dir string) (*scratch, error) {
	f, err := os.CreateTemp(dir, "millrace-*.tmp")
	if err != nil {
		return nil, err
	}
	return &scratch{File: f, gone: os.Remove(f.Name()) == nil}, nil
}

func (s *scratch) Close() error {
	err := s.File.Close()
	if !s.gone {
		err = errors.Join(err, os.Remove(s.Name()))
	}
	return err
}

// guard turns a panic of the Parquet library, which a damaged file can cause,
// into an error.
func guard(s *source, err *error) {
	if r := recover(); r != nil {
		*err = s.errorf("the Parquet input is damaged: %v", r)
	}
}

// Columns are the fields of the schema.
func (p *parquetReader) Columns() []string { return p.columns }

// Progress counts rows.
func (p *parquetReader) Progress() float64 {
	if p.total <= 0 {
		return -1
	}
	return min(1, float64(p.count.Load())/float64(p.total))
}

// Close also closes what the row group at hand holds.
func (p *parquetReader) Close() error {
	var err error
	if p.rows != nil {
		err = p.rows.Close()
		p.rows = nil
	}
	if p.done == nil {
		p.done = errors.New("the input is closed")
	}
	return errors.Join(err, p.source.Close())
}

// Next reads the next row.
func (p *parquetReader) Next() (r Record, err error) {
	if p.done != nil {
		return Record{}, p.done
	}
	defer func() {
		if err != nil {
			p.done = err
		}
	}()
	defer guard(p.source, &err)
	for len(p.ready) == 0 {
		if err := p.fill(); err != nil {
			return Record{}, err
		}
	}
	row := p.ready[0]
	p.ready = p.ready[1:]
	p.asm.load(row)
	p.json, p.ends = p.json[:0], p.ends[:0]
	if cap(p.json) > 16*bufferSize { // left by one huge record
		p.json = nil
	}
	for _, n := range p.nodes {
		p.json = p.asm.appendNode(p.json, n)
		p.ends = append(p.ends, len(p.json))
	}
	text, begin := string(p.json), 0
	fields := make([]Field, len(p.nodes))
	for i, end := range p.ends {
		fields[i] = Field{Name: p.columns[i], Value: JSON(text[begin:end])}
		begin = end
	}
	return Record{Pos: p.count.Add(1), Fields: fields}, nil
}

// fill reads rows ahead, going on to the next row group where one ends.
func (p *parquetReader) fill() error {
	if p.rows == nil {
		if len(p.groups) == 0 {
			if n := p.count.Load(); n != p.total {
				return p.errorf("the Parquet input is damaged: it has %d rows, its footer says %d", n, p.total)
			}
			return io.EOF
		}
		p.rows = p.groups[0].Rows()
		p.groups = p.groups[1:]
	}
	n, err := p.rows.ReadRows(p.batch)
	p.ready = p.batch[:n]
	if err == nil && n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	if !errors.Is(err, io.EOF) {
		return p.broken(err, p.count.Load())
	}
	// What was read stays good until these rows are closed, so close them later.
	if n > 0 {
		return nil
	}
	err = p.rows.Close()
	p.rows = nil
	if err != nil {
		return p.broken(err, p.count.Load())
	}
	return nil
}
