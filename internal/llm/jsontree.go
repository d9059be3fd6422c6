package llm

import (
	"bytes"
	"errors"
	"io"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// node is a JSON value that keeps the order of its members, which a Go map
// would lose. Nodes are shared freely and never changed once built.
type node struct {
	kind    jsontext.Kind // '{' and '[', else that of the scalar
	scalar  string        // JSON text of a scalar
	members []member      // of an object
	items   []*node       // of an array
}

type member struct {
	name  string
	value *node
}

// parseNode reads one JSON value and nothing after it. Names within an object
// have to be unique.
func parseNode(data []byte) (*node, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowInvalidUTF8(true))
	n, err := readNode(dec)
	if err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more text follows the JSON value")
	}
	return n, nil
}

func readNode(dec *jsontext.Decoder) (*node, error) {
	kind := dec.PeekKind()
	switch kind {
	case jsontext.KindBeginObject:
		if _, err := dec.ReadToken(); err != nil {
			return nil, err
		}
		n := &node{kind: kind}
		for dec.PeekKind() != jsontext.KindEndObject {
			name, err := dec.ReadToken()
			if err != nil {
				return nil, err
			}
			m := member{name: name.String()}
			if m.value, err = readNode(dec); err != nil {
				return nil, err
			}
			n.members = append(n.members, m)
		}
		_, err := dec.ReadToken()
		return n, err
	case jsontext.KindBeginArray:
		if _, err := dec.ReadToken(); err != nil {
			return nil, err
		}
		n := &node{kind: kind}
		for dec.PeekKind() != jsontext.KindEndArray {
			item, err := readNode(dec)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		_, err := dec.ReadToken()
		return n, err
	default:
		v, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		return &node{kind: kind, scalar: string(v)}, nil
	}
}

// append appends the node as compact JSON.
func (n *node) append(dst []byte) []byte {
	switch n.kind {
	case jsontext.KindBeginObject:
		dst = append(dst, '{')
		for i, m := range n.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendString(dst, m.name)
			dst = append(dst, ':')
			dst = m.value.append(dst)
		}
		return append(dst, '}')
	case jsontext.KindBeginArray:
		dst = append(dst, '[')
		for i, item := range n.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = item.append(dst)
		}
		return append(dst, ']')
	default:
		return append(dst, n.scalar...)
	}
}

func (n *node) text() string { return string(n.append(nil)) }

func (n *node) isObject() bool { return n != nil && n.kind == jsontext.KindBeginObject }
func (n *node) isArray() bool  { return n != nil && n.kind == jsontext.KindBeginArray }
func (n *node) isTrue() bool   { return n != nil && n.kind == jsontext.KindTrue }
func (n *node) isFalse() bool  { return n != nil && n.kind == jsontext.KindFalse }

// get returns the value of an object's member, nil when there is none.
func (n *node) get(name string) *node {
	if n == nil {
		return nil
	}
	for i := range n.members {
		if n.members[i].name == name {
			return n.members[i].value
		}
	}
	return nil
}

func (n *node) has(name string) bool { return n.get(name) != nil }

// str returns the value of a JSON string.
func (n *node) str() (string, bool) {
	if n == nil || n.kind != jsontext.KindString {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, n.scalar)
	return string(b), err == nil
}

// float returns the value of a JSON number.
func (n *node) float() (float64, bool) {
	if n == nil || n.kind != jsontext.KindNumber {
		return 0, false
	}
	f, err := strconv.ParseFloat(n.scalar, 64)
	return f, err == nil
}

// with returns a copy of an object in which name has the value, at its old
// place or at the end; a nil value removes the member.
func (n *node) with(name string, value *node) *node {
	out := &node{kind: jsontext.KindBeginObject, members: make([]member, 0, len(n.members)+1)}
	done := value == nil
	for _, m := range n.members {
		if m.name == name {
			if value == nil || done {
				continue
			}
			m.value, done = value, true
		}
		out.members = append(out.members, m)
	}
	if !done {
		out.members = append(out.members, member{name, value})
	}
	return out
}

// without returns a copy of an object that lacks the members for which drop
// holds.
func (n *node) without(drop func(name string) bool) *node {
	out := &node{kind: n.kind, members: make([]member, 0, len(n.members))}
	for _, m := range n.members {
		if !drop(m.name) {
			out.members = append(out.members, m)
		}
	}
	return out
}

func object(members ...member) *node {
	return &node{kind: jsontext.KindBeginObject, members: members}
}

func array(items ...*node) *node {
	return &node{kind: jsontext.KindBeginArray, items: items}
}

func text(s string) *node {
	return &node{kind: jsontext.KindString, scalar: string(AppendString(nil, s))}
}

func number(s string) *node {
	return &node{kind: jsontext.KindNumber, scalar: s}
}

func texts(ss []string) *node {
	n := array()
	for _, s := range ss {
		n.items = append(n.items, text(s))
	}
	return n
}

func falseNode() *node { return &node{kind: jsontext.KindFalse, scalar: "false"} }

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD, as JSON has no way to carry them.
func AppendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the only error is about invalid UTF-8
	return dst
}
