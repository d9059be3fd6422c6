package job

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// fault is one way in which a value does not fit a schema.
type fault struct {
	path []string
	rule string // what must be, without contents
	got  string // what is there instead, as JSON; "" when it does not help
}

// String is the fault in words, with contents if asked.
func (f fault) String(contents bool) string {
	var b strings.Builder
	for _, step := range f.path {
		b.WriteByte('/')
		b.WriteString(step)
	}
	if len(f.path) > 0 {
		b.WriteString(": ")
	}
	b.WriteString(f.rule)
	if contents && f.got != "" {
		b.WriteString("; got " + f.got)
	}
	return b.String()
}

// explain lists the faults behind a validation error.
func explain(e *jsonschema.ValidationError, doc any) []fault {
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf:
		return explainBranches(e, doc)
	case *kind.OneOf:
		if len(k.Subschemas) == 0 {
			return explainBranches(e, doc)
		}
	case *kind.Not:
		return []fault{{path: e.InstanceLocation, rule: "must not have this value", got: shown(valueAt(doc, e.InstanceLocation))}}
	}
	if len(e.Causes) == 0 {
		return []fault{leaf(e, doc)}
	}
	var out []fault
	for _, c := range e.Causes {
		out = append(out, explain(c, doc)...)
	}
	return out
}

// explainBranches picks from the branches of anyOf or oneOf the one that the
// value was most likely meant for: one that its type fits.
func explainBranches(e *jsonschema.ValidationError, doc any) []fault {
	var want []string
	var best []fault
	for _, c := range e.Causes {
		if t := typeFault(c); t != nil && slices.Equal(c.InstanceLocation, e.InstanceLocation) {
			want = append(want, t.Want...)
			continue
		}
		if f := explain(c, doc); best == nil || len(f) < len(best) {
			best = f
		}
	}
	if best != nil {
		return best
	}
	return []fault{{path: e.InstanceLocation, rule: "must be " + article(want), got: shown(valueAt(doc, e.InstanceLocation))}}
}

// typeFault is the type error that e consists of, or nil.
func typeFault(e *jsonschema.ValidationError) *kind.Type {
	for {
		if t, ok := e.ErrorKind.(*kind.Type); ok {
			return t
		}
		if len(e.Causes) != 1 {
			return nil
		}
		e = e.Causes[0]
	}
}

func leaf(e *jsonschema.ValidationError, doc any) fault {
	f := fault{path: slices.Clone(e.InstanceLocation)}
	got := func() string { return shown(valueAt(doc, e.InstanceLocation)) }
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		f.rule, f.got = "must be "+article(k.Want), got()
	case *kind.Enum:
		f.rule, f.got = "must be one of "+listed(k.Want), shown(k.Got)
		if len(k.Want) == 1 {
			f.rule = "must be " + shown(k.Want[0])
		}
	case *kind.Const:
		f.rule, f.got = "must be "+shown(k.Want), shown(k.Got)
	case *kind.Required:
		f.rule = "property " + oneOf(k.Missing) + " is missing"
		if len(k.Missing) > 1 {
			f.rule = "properties " + oneOf(k.Missing) + " are missing"
		}
	case *kind.AdditionalProperties:
		f.rule, f.got = "has a property that the schema does not have", oneOf(k.Properties)
	case *kind.FalseSchema:
		f.rule = "must not be there"
	case *kind.Format:
		f.rule, f.got = "must be a valid "+k.Want, shown(k.Got)
	case *kind.Pattern:
		f.rule, f.got = "must match the pattern "+k.Want, shown(k.Got)
	case *kind.MinLength:
		f.rule = fmt.Sprintf("must have at least %d characters; it has %d", k.Want, k.Got)
	case *kind.MaxLength:
		f.rule = fmt.Sprintf("must have at most %d characters; it has %d", k.Want, k.Got)
	case *kind.MinItems:
		f.rule = fmt.Sprintf("must have at least %d items; it has %d", k.Want, k.Got)
	case *kind.MaxItems:
		f.rule = fmt.Sprintf("must have at most %d items; it has %d", k.Want, k.Got)
	case *kind.UniqueItems:
		f.rule = fmt.Sprintf("must not hold the same item twice; items %d and %d are equal", k.Duplicates[0], k.Duplicates[1])
	case *kind.Minimum:
		f.rule, f.got = "must be at least "+decimal(k.Want), got()
	case *kind.Maximum:
		f.rule, f.got = "must be at most "+decimal(k.Want), got()
	case *kind.ExclusiveMinimum:
		f.rule, f.got = "must be more than "+decimal(k.Want), got()
	case *kind.ExclusiveMaximum:
		f.rule, f.got = "must be less than "+decimal(k.Want), got()
	case *kind.MultipleOf:
		f.rule, f.got = "must be a multiple of "+decimal(k.Want), got()
	default:
		f.rule = "does not fit the schema"
		if p := k.KeywordPath(); len(p) > 0 {
			f.rule += " (" + p[0] + ")"
		}
		f.got = k.LocalizedString(message.NewPrinter(language.English))
	}
	return f
}

func decimal(r *big.Rat) string {
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// article is "a string", "an integer or null".
func article(types []string) string {
	var out []string
	for _, t := range types {
		switch {
		case t == "null":
		case strings.ContainsAny(t[:1], "aio"):
			t = "an " + t
		default:
			t = "a " + t
		}
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	if i := slices.Index(out, "null"); i >= 0 {
		out = append(slices.Delete(out, i, i+1), "null")
	}
	return strings.Join(out, " or ")
}

func listed(values []any) string {
	const most = 40
	var b strings.Builder
	for i, v := range values {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(values)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(shown(v))
	}
	return b.String()
}

// shown is a value as short JSON.
func shown(v any) string {
	const most = 60
	switch v := v.(type) {
	case string:
		r := []rune(v)
		if len(r) > most {
			v = string(r[:most]) + "…"
		}
		return string(quoteJSON(nil, v))
	case map[string]any:
		return "an object"
	case []any:
		return "an array"
	case json.Number:
		if len(v) > most {
			return string(v[:most]) + "…"
		}
		return string(v)
	}
	return string(appendShaped(nil, v, nil))
}

// valueAt follows a path into a decoded value; nil where it leads nowhere.
func valueAt(v any, path []string) any {
	for _, step := range path {
		switch c := v.(type) {
		case map[string]any:
			v = c[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(c) {
				return nil
			}
			v = c[i]
		default:
			return nil
		}
	}
	return v
}
