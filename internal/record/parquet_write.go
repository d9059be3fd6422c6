package record

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
)

// A row group is finished at so many rows or bytes of values: it is what the
// writer holds in memory.
const (
	groupRows  = 100_000
	groupBytes = 16 << 20
	// maxColumns keeps an input that makes up field names from filling the memory.
	maxColumns = 10_000
)

// parquetWriter writes a Parquet file. Its schema must stand before the first
// row: either all types are known by the first record, or the records wait in a
// temporary file until the last has been seen.
type parquetWriter struct {
	out     io.Writer
	columns []string
	added   []Column
	opts    WriteOptions
	err     error

	table *parquetTable
	spool *parquetSpool
}

func newParquetWriter(w io.Writer, columns []string, added []Column, opts WriteOptions) *parquetWriter {
	return &parquetWriter{out: w, columns: columns, added: added, opts: opts}
}

// Write writes one row, or keeps it for later.
func (p *parquetWriter) Write(r Record, added []Value) error {
	if p.err != nil {
		return p.err
	}
	if err := checkAdded(r, added, p.added); err != nil {
		return err
	}
	if p.table == nil && p.spool == nil {
		if p.err = p.begin(r); p.err != nil {
			return p.err
		}
	}
	if p.spool != nil {
		p.err = p.spool.write(r, added)
		return p.err
	}
	err := p.table.write(r, added)
	if !errors.Is(err, errColumns) {
		p.err = err
	}
	return err
}

// begin chooses the way by the first record.
func (p *parquetWriter) begin(r Record) error {
	nodes := make([]*pnode, len(p.columns))
	known := p.columns != nil
	from, _ := p.opts.From.(*parquetReader)
	for i, name := range p.columns {
		v, ok := r.Get(name)
		switch {
		case from != nil:
			nodes[i] = from.node(name)
		case ok && v.IsText():
			nodes[i] = typedNode(name, "string")
		}
		known = known && nodes[i] != nil
	}
	for _, c := range p.added {
		known = known && c.Type != ""
	}
	var err error
	if !known {
		p.spool, err = newParquetSpool(p.columns, p.added, p.opts.TempDir)
		return err
	}
	p.table, err = newParquetTable(p.out, newLayout(p.columns, p.added), nodes, p.added)
	return err
}

func (p *parquetReader) node(name string) *pnode {
	for _, n := range p.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// Close writes the footer, and before it all rows if they had to wait.
func (p *parquetWriter) Close() error {
	if p.spool != nil {
		if p.err == nil {
			p.err = p.spool.copyTo(p.out)
		}
		p.err = errors.Join(p.err, p.spool.close())
		p.spool = nil
		return p.end()
	}
	if p.err != nil {
		return p.err
	}
	if p.table == nil {
		// No record came. What is known of the types is kept, the rest is text.
		nodes := make([]*pnode, len(p.columns))
		from, _ := p.opts.From.(*parquetReader)
		for i, name := range p.columns {
			if from != nil {
				nodes[i] = from.node(name)
			}
		}
		l := newLayout(p.columns, p.added)
		if len(l.names) == 0 {
			return nil
		}
		if p.table, p.err = newParquetTable(p.out, l, nodes, p.added); p.err != nil {
			return p.err
		}
	}
	p.err = p.table.close()
	p.table = nil
	return p.end()
}

// end returns the error there was and makes sure that nothing follows.
func (p *parquetWriter) end() error {
	err := p.err
	if err == nil {
		p.err = errors.New("the output is closed")
	}
	return err
}

// typedNode is a column of a JSON Schema type; what has no Parquet type of its
// own is kept as JSON.
func typedNode(name, jsonType string) *pnode {
	var n parquet.Node
	switch jsonType {
	case "string":
		n = parquet.String()
	case "integer":
		n = parquet.Int(64)
	case "number":
		n = parquet.Leaf(parquet.DoubleType)
	case "boolean":
		n = parquet.Leaf(parquet.BooleanType)
	default:
		n = parquet.JSON()
	}
	return newNode(name, parquet.Optional(n), 0, 0, new(int))
}

type rowWriter interface {
	WriteRows(rows []parquet.Row) (int, error)
	Flush() error
	Close() error
}

// parquetTable writes rows by a layout whose types are known.
type parquetTable struct {
	w      rowWriter
	layout layout
	nodes  []*pnode
	shred  shredder
	row    parquet.Row
	values []Value
	rows   int
	bytes  int
}

// newParquetTable starts a file. nodes are the types of the layout's own
// columns, nil for text.
func newParquetTable(w io.Writer, l layout, nodes []*pnode, added []Column) (*parquetTable, error) {
	t := &parquetTable{layout: l}
	root := &pnode{name: "millrace", kind: pgroup, typ: parquet.Group{}.Type()}
	leaves := 0
	for i, name := range l.names {
		n := typedNode(name, "string")
		if j := l.added[i]; j >= 0 {
			n = typedNode(name, added[j].Type)
		} else if own := nodes[l.own[i]]; own != nil {
			n = own
		}
		// Counts the leaves anew, in the order of this file.
		n = newNode(name, n.schema(), 0, 0, &leaves)
		root.kids = append(root.kids, n)
	}
	if leaves > parquet.MaxColumnIndex {
		return nil, fmt.Errorf("the output has %d columns, Parquet here holds up to %d: write JSONL instead", leaves, parquet.MaxColumnIndex)
	}
	t.nodes = root.kids
	t.shred.columns = make([][]parquet.Value, leaves)
	// Not the generic writer: it prepares for Go values and panics on the list
	// layouts of other writers.
	t.w = parquet.NewWriter(w, parquet.NewSchema(root.name, root.schema()), parquet.Compression(&parquet.Snappy))
	return t, nil
}

func (t *parquetTable) write(r Record, added []Value) error {
	own, err := t.layout.align(r, t.values)
	if err != nil {
		return fmt.Errorf("record %d has the %w, which the Parquet schema lacks: "+
			"write JSONL instead, where each record may have fields of its own", r.Pos, err)
	}
	t.values = own
	for i := range t.shred.columns {
		t.shred.columns[i] = t.shred.columns[i][:0]
	}
	for i, n := range t.nodes {
		var v Value
		if j := t.layout.added[i]; j >= 0 {
			v = added[j]
		} else {
			v = own[t.layout.own[i]]
		}
		t.bytes += len(v.s)
		if n.leaf.text && v.text {
			t.shred.put(n.first, parquet.ByteArrayValue([]byte(v.s)), 0, n.def)
			continue
		}
		if err := t.shred.node(n, []byte(v.JSON()), 0, 0); err != nil {
			return fmt.Errorf("record %d: the value of column %q %w", r.Pos, n.name, err)
		}
	}
	t.row = t.row[:0]
	for _, values := range t.shred.columns {
		t.row = append(t.row, values...)
	}
	if _, err := t.w.WriteRows([]parquet.Row{t.row}); err != nil {
		return err
	}
	if t.rows++; t.rows >= groupRows || t.bytes >= groupBytes {
		t.rows, t.bytes = 0, 0
		return t.w.Flush()
	}
	return nil
}

func (t *parquetTable) close() error { return t.w.Close() }

// parquetSpool keeps records, with the answers in them, until it is known what
// types their fields have.
type parquetSpool struct {
	file    *scratch
	packed  *zstd.Encoder
	lines   *jsonlWriter
	columns []string // of the records, in the order they were first seen
	added   []Column
	seen    map[string]*observed
	answers []observed // by added column
}

func newParquetSpool(columns []string, added []Column, dir string) (*parquetSpool, error) {
	f, err := temporary(dir)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &parquetSpool{
		file: f, packed: z, lines: newJSONLWriter(z, added), added: added,
		seen: make(map[string]*observed), answers: make([]observed, len(added)),
	}
	for _, name := range columns {
		s.observe(name)
	}
	return s, nil
}

// observe returns the notes on one of the records' columns.
func (s *parquetSpool) observe(name string) *observed {
	o := s.seen[name]
	if o == nil {
		o = new(observed)
		name = strings.Clone(name)
		s.seen[name] = o
		s.columns = append(s.columns, name)
	}
	return o
}

func (s *parquetSpool) write(r Record, added []Value) error {
	for _, f := range r.Fields {
		o := s.observe(f.Name)
		if s.lines.column(f.Name) < 0 {
			o.add(f.Value)
		}
	}
	if len(s.columns) > maxColumns {
		return fmt.Errorf("record %d: the records have more than %d different fields: write JSONL instead", r.Pos, maxColumns)
	}
	for i, c := range s.added {
		if c.Type == "" {
			s.answers[i].add(added[i])
		}
	}
	return s.lines.Write(r, added)
}

// copyTo writes the Parquet file. The records now hold the answers, so all
// columns are their own.
func (s *parquetSpool) copyTo(w io.Writer) error {
	if err := errors.Join(s.lines.Close(), s.packed.Close()); err != nil {
		return err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	l := newLayout(s.columns, s.added)
	nodes := make([]*pnode, len(l.names))
	for i, name := range l.names {
		j := l.added[i]
		switch {
		case j < 0:
			nodes[i] = typedNode(name, s.seen[name].jsonType())
		case s.added[j].Type == "":
			nodes[i] = typedNode(name, s.answers[j].jsonType())
		default:
			nodes[i] = typedNode(name, s.added[j].Type)
		}
	}
	if len(nodes) == 0 {
		return errors.New("the records have no fields, and Parquet needs a column: write JSONL instead")
	}
	t, err := newParquetTable(w, newLayout(l.names, nil), nodes, nil)
	if err != nil {
		return err
	}
	r, err := NewReader(s.file, JSONL, ReadOptions{MaxRecord: math.MaxInt})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return t.close()
		case err != nil:
			return err
		}
		if err := t.write(rec, nil); err != nil {
			return err
		}
	}
}

func (s *parquetSpool) close() error {
	s.packed.Close() // again after copyTo, which is allowed; its goroutines end
	return s.file.Close()
}

// observed is what a column's values have in common.
type observed struct {
	text, boolean, integer, number, other bool
	large                                 bool // an integer that a double may not hold
}

func (o *observed) add(v Value) {
	switch {
	case v.text:
		o.text = true
	case v.s == "" || v.s[0] == 'n':
	case v.s[0] == '"':
		o.text = true
	case v.s[0] == 't' || v.s[0] == 'f':
		o.boolean = true
	case v.s[0] == '{' || v.s[0] == '[':
		o.other = true
	default:
		o.addNumber(v.s)
	}
}

func (o *observed) addNumber(s string) {
	if !strings.ContainsAny(s, ".eE") && s != "-0" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			o.other = true
			return
		}
		o.integer = true
		o.large = o.large || n > 1<<53 || n < -1<<53
		return
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || digitsOf(strconv.FormatFloat(f, 'e', -1, 64)) != digitsOf(s) {
		o.other = true // more digits than a double keeps
		return
	}
	o.number = true
}

// digitsOf gives a number's significant digits.
func digitsOf(s string) string {
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		s = s[:i]
	}
	s = strings.ReplaceAll(strings.TrimPrefix(s, "-"), ".", "")
	return strings.Trim(s, "0")
}

// jsonType is the narrowest type that holds all the values exactly; empty for a
// mixture, which is kept as JSON.
func (o *observed) jsonType() string {
	switch *o {
	case observed{}, observed{text: true}:
		return "string"
	case observed{boolean: true}:
		return "boolean"
	case observed{integer: true}, observed{integer: true, large: true}:
		return "integer"
	case observed{number: true}, observed{number: true, integer: true}:
		return "number"
	}
	return ""
}
