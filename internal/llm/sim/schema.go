package sim

import (
	"bytes"
	"errors"
	"math"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// node is a JSON Schema as far as it decides what a valid answer looks like.
// Properties keep their order, as in Ollama 0.17.4 (ollama.md section 8).
type node struct {
	kind     string // "object", "array", ...; empty: anything
	never    bool   // the schema false
	enum     []jsontext.Value
	props    []property
	required []string
	extra    *node // additionalProperties, if a schema
	minProps int
	items    *node
	prefix   []*node
	minItems int
	maxItems int // -1: no bound
	unique   bool
	minLen   int
	maxLen   int // -1: no bound
	pattern  string
	format   string
	min, max float64
	openMin  bool // min itself is not allowed
	openMax  bool
	multiple float64
}

type property struct {
	name     string
	node     *node
	required bool
}

var errSchema = errors.New("invalid JSON schema in format")

// lenient accepts what other servers accept.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// compiler turns a schema document into nodes; references may be circular.
type compiler struct {
	root jsontext.Value
	refs map[string]*node
	done int // schemas looked at
}

// compile reads a JSON Schema. What it does not know it ignores.
func compile(schema []byte) (*node, error) {
	c := &compiler{root: schema, refs: map[string]*node{}}
	if k := jsontext.Value(schema).Kind(); k != '{' {
		return nil, errSchema
	}
	n := &node{}
	if err := c.fill(n, schema, 0); err != nil {
		return nil, err
	}
	return n, nil
}

// keywords are those of one schema object.
type keywords struct {
	Type          jsontext.Value   `json:"type"`
	Enum          []jsontext.Value `json:"enum"`
	Const         jsontext.Value   `json:"const"`
	Ref           string           `json:"$ref"`
	AnyOf         []jsontext.Value `json:"anyOf"`
	OneOf         []jsontext.Value `json:"oneOf"`
	AllOf         []jsontext.Value `json:"allOf"`
	Properties    jsontext.Value   `json:"properties"`
	Required      []string         `json:"required"`
	Additional    jsontext.Value   `json:"additionalProperties"`
	MinProperties float64          `json:"minProperties"`
	Items         jsontext.Value   `json:"items"`
	PrefixItems   []jsontext.Value `json:"prefixItems"`
	MinItems      *float64         `json:"minItems"`
	MaxItems      *float64         `json:"maxItems"`
	Unique        bool             `json:"uniqueItems"`
	MinLength     *float64         `json:"minLength"`
	MaxLength     *float64         `json:"maxLength"`
	Pattern       string           `json:"pattern"`
	Format        string           `json:"format"`
	Minimum       *float64         `json:"minimum"`
	Maximum       *float64         `json:"maximum"`
	ExclusiveMin  jsontext.Value   `json:"exclusiveMinimum"`
	ExclusiveMax  jsontext.Value   `json:"exclusiveMaximum"`
	MultipleOf    float64          `json:"multipleOf"`
}

// Bounds on schemas that ask for more than any answer can hold.
const (
	maxNesting = 64     // of keywords
	maxSchemas = 20_000 // compiled for one document, repeated references included
	maxCount   = 1 << 16
)

// fill sets n from a schema.
func (c *compiler) fill(n *node, schema jsontext.Value, depth int) error {
	*n = node{maxItems: -1, maxLen: -1, min: math.Inf(-1), max: math.Inf(1)}
	return c.merge(n, schema, depth)
}

// merge adds what a schema demands to what n demands already.
func (c *compiler) merge(n *node, schema jsontext.Value, depth int) error {
	if c.done++; depth > maxNesting || c.done > maxSchemas {
		return errSchema
	}
	schema = bytes.TrimSpace(schema)
	switch {
	case len(schema) == 0 || string(schema) == "true":
		return nil
	case string(schema) == "false":
		n.never = true
		return nil
	}
	var k keywords
	if err := json.Unmarshal(schema, &k, lenient); err != nil {
		return errSchema
	}
	if k.Ref != "" {
		target, err := c.lookup(k.Ref)
		if err != nil {
			return err
		}
		if err := c.merge(n, target, depth+1); err != nil {
			return err
		}
	}
	for _, s := range k.AllOf {
		if err := c.merge(n, s, depth+1); err != nil {
			return err
		}
	}
	if err := c.kind(n, k); err != nil {
		return err
	}
	if k.Const != nil {
		n.enum = []jsontext.Value{k.Const}
	} else if k.Enum != nil {
		n.enum = k.Enum
	}
	if n.enum != nil {
		for _, v := range n.enum {
			if err := v.Compact(); err != nil {
				return errSchema
			}
		}
	}
	// A branch is taken where it says more than the schema around it does.
	if branches := append(k.AnyOf, k.OneOf...); len(branches) > 0 && n.enum == nil && k.Properties == nil {
		branch := branches[0]
		if simpler := c.leaf(branches); depth > 6 && simpler != nil {
			branch = simpler
		}
		if err := c.merge(n, branch, depth+1); err != nil {
			return err
		}
	}
	c.bounds(n, k)
	return c.children(n, k, depth)
}

func (c *compiler) kind(n *node, k keywords) error {
	switch k.Type.Kind() {
	case '"':
		return json.Unmarshal(k.Type, &n.kind)
	case '[':
		var kinds []string
		if err := json.Unmarshal(k.Type, &kinds); err != nil || len(kinds) == 0 {
			return errSchema
		}
		n.kind = kinds[0]
		if n.kind == "null" && len(kinds) > 1 {
			n.kind = kinds[1]
		}
	default:
		switch {
		case n.kind != "":
		case k.Properties != nil || k.Required != nil:
			n.kind = "object"
		case k.Items != nil || k.PrefixItems != nil:
			n.kind = "array"
		}
	}
	return nil
}

func (c *compiler) bounds(n *node, k keywords) {
	integer := func(p *float64, to *int) {
		if p != nil {
			*to = int(min(max(*p, 0), maxCount))
		}
	}
	integer(k.MinItems, &n.minItems)
	integer(k.MaxItems, &n.maxItems)
	integer(k.MinLength, &n.minLen)
	integer(k.MaxLength, &n.maxLen)
	n.unique = n.unique || k.Unique
	n.minProps = max(n.minProps, int(min(k.MinProperties, maxCount)))
	if k.Pattern != "" {
		n.pattern = k.Pattern
	}
	if k.Format != "" {
		n.format = k.Format
	}
	if k.Minimum != nil {
		n.min = max(n.min, *k.Minimum)
	}
	if k.Maximum != nil {
		n.max = min(n.max, *k.Maximum)
	}
	// Draft 4 has booleans here; those change nothing.
	var x float64
	if k.ExclusiveMin.Kind() == '0' && json.Unmarshal(k.ExclusiveMin, &x) == nil && x >= n.min {
		n.min, n.openMin = x, true
	}
	if k.ExclusiveMax.Kind() == '0' && json.Unmarshal(k.ExclusiveMax, &x) == nil && x <= n.max {
		n.max, n.openMax = x, true
	}
	if k.MultipleOf > 0 {
		n.multiple = k.MultipleOf
	}
}

func (c *compiler) children(n *node, k keywords, depth int) error {
	n.required = append(n.required, k.Required...)
	if k.Properties != nil {
		props, err := members(k.Properties)
		if err != nil {
			return err
		}
		for _, p := range props {
			child, err := c.node(p.value, depth+1)
			if err != nil {
				return err
			}
			n.props = append(n.props, property{name: p.name, node: child})
		}
	}
	for i := range n.props {
		for _, r := range n.required {
			n.props[i].required = n.props[i].required || r == n.props[i].name
		}
	}
	var err error
	if k.Items.Kind() == '{' {
		if n.items, err = c.node(k.Items, depth+1); err != nil {
			return err
		}
	}
	for _, s := range k.PrefixItems {
		child, err := c.node(s, depth+1)
		if err != nil {
			return err
		}
		n.prefix = append(n.prefix, child)
	}
	if k.Additional.Kind() == '{' {
		if n.extra, err = c.node(k.Additional, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// node compiles a schema in a place where it may refer to one that is still
// being compiled.
func (c *compiler) node(schema jsontext.Value, depth int) (*node, error) {
	var k struct {
		Ref string `json:"$ref"`
	}
	if schema.Kind() == '{' && json.Unmarshal(schema, &k, lenient) == nil && k.Ref != "" {
		if n, ok := c.refs[k.Ref]; ok {
			return n, nil
		}
		target, err := c.lookup(k.Ref)
		if err != nil {
			return nil, err
		}
		n := &node{}
		c.refs[k.Ref] = n
		return n, c.fill(n, target, depth)
	}
	n := &node{}
	return n, c.fill(n, schema, depth)
}

// leaf returns the first branch that is a scalar, for schemas that recur.
func (c *compiler) leaf(branches []jsontext.Value) jsontext.Value {
	for _, b := range branches {
		var k keywords
		if json.Unmarshal(b, &k, lenient) != nil {
			continue
		}
		switch strings.Trim(string(k.Type), `"`) {
		case "null", "string", "integer", "number", "boolean":
			return b
		}
	}
	return nil
}

// lookup finds a reference inside the document: "#", "#/$defs/x".
func (c *compiler) lookup(ref string) (jsontext.Value, error) {
	path, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return nil, errSchema
	}
	at := c.root
	for path != "" {
		path = strings.TrimPrefix(path, "/")
		var name string
		name, path, _ = strings.Cut(path, "/")
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		ms, err := members(at)
		if err != nil {
			return nil, err
		}
		at = nil
		for _, m := range ms {
			if m.name == name {
				at = m.value
			}
		}
		if at == nil {
			return nil, errSchema
		}
		if path != "" {
			path = "/" + path
		}
	}
	return at, nil
}

type member struct {
	name  string
	value jsontext.Value
}

// members returns an object's members in their order.
func members(object jsontext.Value) ([]member, error) {
	d := jsontext.NewDecoder(bytes.NewReader(object), lenient)
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return nil, errSchema
	}
	var out []member
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return nil, errSchema
		}
		name := t.String()
		v, err := d.ReadValue()
		if err != nil {
			return nil, errSchema
		}
		out = append(out, member{name, v.Clone()})
	}
	if t, err := d.ReadToken(); err != nil || t.Kind() != '}' {
		return nil, errSchema
	}
	return out, nil
}
