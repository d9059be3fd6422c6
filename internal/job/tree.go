package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// tree is a JSON value whose objects keep the order of their members.
type tree struct {
	kind    jsontext.Kind // '{', '[' or that of a scalar
	text    string        // of a string
	raw     string        // of any scalar, as JSON
	members []member      // of an object
	elems   []*tree       // of an array
}

type member struct {
	name  string
	value *tree
}

func parseTree(raw []byte) (*tree, error) {
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	t, err := readTree(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); err != io.EOF { //nolint:errorlint // the decoder returns io.EOF itself
		return nil, errors.New("more than one JSON value")
	}
	return t, nil
}

func readTree(d *jsontext.Decoder) (*tree, error) {
	tok, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	t := &tree{kind: tok.Kind()}
	switch t.kind {
	case '{':
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			m := member{name: name.String()}
			if m.value, err = readTree(d); err != nil {
				return nil, err
			}
			t.members = append(t.members, m)
		}
		_, err = d.ReadToken()
	case '[':
		for d.PeekKind() != ']' {
			e, err := readTree(d)
			if err != nil {
				return nil, err
			}
			t.elems = append(t.elems, e)
		}
		_, err = d.ReadToken()
	case '"':
		t.text = tok.String()
		t.raw = string(quoteJSON(nil, t.text))
	default:
		t.raw = tok.String()
	}
	return t, err
}

// get is the value of an object's member, or nil.
func (t *tree) get(name string) *tree {
	if t == nil {
		return nil
	}
	for _, m := range t.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// set replaces or appends a member.
func (t *tree) set(name string, value *tree) {
	for i, m := range t.members {
		if m.name == name {
			t.members[i].value = value
			return
		}
	}
	t.members = append(t.members, member{name, value})
}

// at follows a JSON pointer without its '#'; nil when it leads nowhere.
func (t *tree) at(pointer string) *tree {
	if pointer == "" {
		return t
	}
	for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		if t == nil {
			return nil
		}
		if t.kind == '[' {
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(t.elems) {
				return nil
			}
			t = t.elems[i]
			continue
		}
		t = t.get(step)
	}
	return t
}

func (t *tree) clone() *tree {
	c := *t
	c.members = slices.Clone(t.members)
	for i := range c.members {
		c.members[i].value = c.members[i].value.clone()
	}
	c.elems = slices.Clone(t.elems)
	for i := range c.elems {
		c.elems[i] = c.elems[i].clone()
	}
	return &c
}

// append writes the tree as compact JSON.
func (t *tree) append(dst []byte) []byte {
	switch t.kind {
	case '{':
		dst = append(dst, '{')
		for i, m := range t.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = quoteJSON(dst, m.name)
			dst = append(dst, ':')
			dst = m.value.append(dst)
		}
		return append(dst, '}')
	case '[':
		dst = append(dst, '[')
		for i, e := range t.elems {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = e.append(dst)
		}
		return append(dst, ']')
	}
	return append(dst, t.raw...)
}

func (t *tree) json() json.RawMessage { return t.append(nil) }

func textTree(s string) *tree {
	return &tree{kind: '"', text: s, raw: string(quoteJSON(nil, s))}
}

func numberTree(n int) *tree { return &tree{kind: '0', raw: itoa(n)} }

func arrayTree(elems ...*tree) *tree { return &tree{kind: '[', elems: elems} }

func objectTree(members ...member) *tree { return &tree{kind: '{', members: members} }
