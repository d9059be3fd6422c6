package record

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

// pnode is a node of a Parquet schema, seen as the JSON it stands for. Values
// are assembled from and cut into columns by their repetition and definition
// levels as in Melnik et al., "Dremel", VLDB 2010. parquet-go does the same for
// Go types, which lose the order of fields, decimals and time zones.
type pnode struct {
	name               string
	id                 int
	typ                parquet.Type
	kind               pkind
	optional, repeated bool
	def                int // definition level at which a value is present
	rep                int // repetition level of the values behind the first
	first, last        int // its leaf columns are first to last-1
	kids               []*pnode
	// bare: of a LIST's repeated node, its only child is the element.
	bare bool
	leaf leaf
}

type pkind int

const (
	pleaf pkind = iota
	pgroup
	plist // its one child is repeated
	pmap  // its one child is repeated and holds key and value
)

// newNode reads a schema. column is the next free leaf column.
func newNode(name string, n parquet.Node, def, rep int, column *int) *pnode {
	p := &pnode{name: name, id: n.ID(), typ: n.Type(), optional: n.Optional(), repeated: n.Repeated(), first: *column}
	if p.optional || p.repeated {
		def++
	}
	if p.repeated {
		rep++
	}
	p.def, p.rep = def, rep
	if n.Leaf() {
		p.leaf = leafOf(n.Type())
		*column++
		p.last = *column
		return p
	}
	p.kind = pgroup
	for _, f := range n.Fields() {
		p.kids = append(p.kids, newNode(f.Name(), f, def, rep, column))
	}
	p.last = *column
	if lt := n.Type().LogicalType(); lt != nil && len(p.kids) == 1 && p.kids[0].repeated {
		kid := p.kids[0]
		switch lt.Value.(type) {
		case *format.ListType:
			p.kind = plist
			// The rules for older writers:
			// https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists
			kid.bare = kid.kind == pgroup && len(kid.kids) == 1 && !kid.kids[0].repeated &&
				kid.name != "array" && kid.name != name+"_tuple"
		case *format.MapType:
			if kid.kind == pgroup && len(kid.kids) == 2 {
				p.kind = pmap
			}
		}
	}
	return p
}

// assembler makes JSON of one row.
type assembler struct {
	columns [][]parquet.Value
	at      []int // per column: the next value
}

// load takes a row, whose values stand column by column.
func (a *assembler) load(row parquet.Row) {
	clear(a.at)
	for i := 0; i < len(row); {
		column, from := row[i].Column(), i
		for i < len(row) && row[i].Column() == column {
			i++
		}
		a.columns[column] = row[from:i]
	}
}

func (a *assembler) peek(n *pnode) parquet.Value { return a.columns[n.first][a.at[n.first]] }

// again reports whether the next value belongs to the same list.
func (a *assembler) again(n *pnode) bool {
	values, at := a.columns[n.first], a.at[n.first]
	return at < len(values) && values[at].RepetitionLevel() >= n.rep
}

// skip passes over the one entry per column that stands for an absent value.
func (a *assembler) skip(n *pnode) {
	for c := n.first; c < n.last; c++ {
		a.at[c]++
	}
}

func (a *assembler) appendNode(dst []byte, n *pnode) []byte {
	absent := n.def > 0 && (n.optional || n.repeated) && a.peek(n).DefinitionLevel() < n.def
	switch {
	case n.repeated && absent:
		a.skip(n)
		return append(dst, "[]"...)
	case absent:
		a.skip(n)
		return append(dst, "null"...)
	case n.repeated:
		dst = append(dst, '[')
		dst = a.appendContent(dst, n)
		for a.again(n) {
			dst = append(dst, ',')
			dst = a.appendContent(dst, n)
		}
		return append(dst, ']')
	}
	return a.appendContent(dst, n)
}

func (a *assembler) appendContent(dst []byte, n *pnode) []byte {
	switch {
	case n.kind == pleaf:
		v := a.peek(n)
		a.at[n.first]++
		return n.leaf.append(dst, v)
	case n.bare || n.kind == plist:
		return a.appendNode(dst, n.kids[0])
	case n.kind == pmap:
		return a.appendMap(dst, n.kids[0])
	}
	dst = append(dst, '{')
	for i, kid := range n.kids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, kid.name), ':')
		dst = a.appendNode(dst, kid)
	}
	return append(dst, '}')
}

// appendMap writes a map as an object, or, where keys are not text-like or
// appear twice, as an array of objects with key and value.
func (a *assembler) appendMap(dst []byte, pair *pnode) []byte {
	if a.peek(pair).DefinitionLevel() < pair.def {
		a.skip(pair)
		return append(dst, "{}"...)
	}
	var keys, values [][]byte
	unique := true
	for {
		key := a.appendNode(nil, pair.kids[0])
		if key[0] == '{' || key[0] == '[' || key[0] == 'n' {
			unique = false
		}
		unique = unique && !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
		keys = append(keys, key)
		values = append(values, a.appendNode(nil, pair.kids[1]))
		if !a.again(pair) {
			break
		}
	}
	open, shut := byte('{'), byte('}')
	if !unique {
		open, shut = '[', ']'
	}
	for i, key := range keys {
		if i > 0 {
			open = ','
		}
		dst = append(dst, open)
		switch {
		case !unique:
			dst = append(append(dst, `{"key":`...), key...)
			dst = append(append(append(dst, `,"value":`...), values[i]...), '}')
			continue
		case key[0] == '"':
			dst = append(dst, key...)
		default:
			dst = appendString(dst, string(key))
		}
		dst = append(append(dst, ':'), values[i]...)
	}
	return append(dst, shut)
}

// shredder cuts JSON into the columns of one row.
type shredder struct {
	columns [][]parquet.Value
}

func (s *shredder) put(column int, v parquet.Value, rep, def int) {
	s.columns[column] = append(s.columns[column], v.Level(rep, def, column))
}

// nulls marks the node as absent; def is the level up to which its parents are
// present.
func (s *shredder) nulls(n *pnode, rep, def int) {
	for c := n.first; c < n.last; c++ {
		s.put(c, parquet.NullValue(), rep, def)
	}
}

var errNull = errors.New("is null where the column allows none")

func (s *shredder) node(n *pnode, raw jsontext.Value, rep, def int) error {
	null := len(raw) == 0 || raw.Kind() == 'n'
	switch {
	case n.repeated && null:
		s.nulls(n, rep, def)
		return nil
	case n.repeated:
		i := 0
		err := elements(raw, func(element jsontext.Value) error {
			i++
			if i == 1 {
				return s.content(n, element, rep)
			}
			return s.content(n, element, n.rep)
		})
		if i == 0 && err == nil {
			s.nulls(n, rep, def)
		}
		return err
	case null && n.optional:
		s.nulls(n, rep, def)
		return nil
	case null && n.kind == pleaf && !n.leaf.null:
		return errNull
	}
	return s.content(n, raw, rep)
}

func (s *shredder) content(n *pnode, raw jsontext.Value, rep int) error {
	switch {
	case n.kind == pleaf:
		v, err := n.leaf.parse(raw)
		if err != nil {
			return err
		}
		s.put(n.first, v, rep, n.def)
		return nil
	case n.bare || n.kind == plist:
		return s.node(n.kids[0], raw, rep, n.def)
	case n.kind == pmap:
		return s.pairs(n.kids[0], raw, rep, n.def)
	}
	fields := make([]jsontext.Value, len(n.kids))
	err := members(raw, func(name string, value jsontext.Value) error {
		i := slices.IndexFunc(n.kids, func(k *pnode) bool { return k.name == name })
		if i < 0 {
			return fmt.Errorf("has the field %q, which the column lacks", name)
		}
		fields[i] = value
		return nil
	})
	if err != nil {
		return err
	}
	for i, kid := range n.kids {
		if err := s.node(kid, fields[i], rep, n.def); err != nil {
			return err
		}
	}
	return nil
}

// pairs takes both forms that appendMap writes.
func (s *shredder) pairs(pair *pnode, raw jsontext.Value, rep, def int) error {
	if len(raw) > 0 && raw.Kind() == '[' {
		return s.node(pair, raw, rep, def) // elements have the fields key and value
	}
	i := 0
	err := members(raw, func(name string, value jsontext.Value) error {
		if i++; i > 1 {
			rep = pair.rep
		}
		key := jsontext.Value(appendString(nil, name))
		if err := s.node(pair.kids[0], key, rep, pair.def); err != nil {
			// The key was a number before it became a name.
			if err := s.node(pair.kids[0], jsontext.Value(name), rep, pair.def); err != nil {
				return err
			}
		}
		return s.node(pair.kids[1], value, rep, pair.def)
	})
	if i == 0 && err == nil {
		s.nulls(pair, rep, def)
	}
	return err
}

func elements(raw jsontext.Value, yield func(jsontext.Value) error) error {
	return inside(raw, '[', func(d *jsontext.Decoder) error {
		v, err := d.ReadValue()
		if err != nil {
			return err
		}
		return yield(v)
	})
}

func members(raw jsontext.Value, yield func(string, jsontext.Value) error) error {
	return inside(raw, '{', func(d *jsontext.Decoder) error {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		key := name.String()
		v, err := d.ReadValue()
		if err != nil {
			return err
		}
		return yield(key, v)
	})
}

func inside(raw jsontext.Value, kind jsontext.Kind, next func(*jsontext.Decoder) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(raw))
	if t, err := d.ReadToken(); err != nil || t.Kind() != kind {
		return fmt.Errorf("is not the %s that the column holds", map[jsontext.Kind]string{'[': "array", '{': "object"}[kind])
	}
	for d.PeekKind() != ']' && d.PeekKind() != '}' {
		if err := next(d); err != nil {
			return err
		}
	}
	return nil
}

// schema makes a parquet.Node of the tree. Unlike parquet.Group it keeps the
// order of the columns, and it leaves encodings and compression to the writer.
func (n *pnode) schema() parquet.Node { return schemaNode{n} }

type schemaNode struct{ n *pnode }

func (s schemaNode) ID() int                           { return s.n.id }
func (s schemaNode) Name() string                      { return s.n.name }
func (s schemaNode) Type() parquet.Type                { return s.n.typ }
func (s schemaNode) Optional() bool                    { return s.n.optional }
func (s schemaNode) Repeated() bool                    { return s.n.repeated }
func (s schemaNode) Required() bool                    { return !s.n.optional && !s.n.repeated }
func (s schemaNode) Leaf() bool                        { return s.n.kind == pleaf }
func (s schemaNode) Encoding() encoding.Encoding       { return nil }
func (s schemaNode) Compression() compress.Codec       { return nil }
func (s schemaNode) GoType() reflect.Type              { return reflect.TypeFor[any]() }
func (s schemaNode) Value(reflect.Value) reflect.Value { return reflect.Value{} }

func (s schemaNode) String() string {
	var b bytes.Buffer
	if parquet.PrintSchema(&b, s.n.name, s) != nil {
		return s.n.name
	}
	return b.String()
}

func (s schemaNode) Fields() []parquet.Field {
	fields := make([]parquet.Field, len(s.n.kids))
	for i, kid := range s.n.kids {
		fields[i] = schemaNode{kid}
	}
	return fields
}
