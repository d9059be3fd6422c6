package job

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Builtin is a job that comes with Millrace and is completed by parameters.
type Builtin struct {
	Name   string
	About  string
	Params []Param
	// Make gets a value for every parameter, "" for one left out. Call New,
	// which checks them first.
	Make func(params map[string]string) (*Job, error)
}

// Param is a parameter of a built-in job.
type Param struct {
	Name     string
	About    string
	Required bool
	Default  string
}

// Builtins are the built-in jobs of this package.
func Builtins() []Builtin { return []Builtin{extractBuiltin()} }

// New makes the job. A parameter that it does not have or that is required and
// missing is an error; an empty value counts as missing.
func (b Builtin) New(params map[string]string) (*Job, error) {
	names := make([]string, len(b.Params))
	for i, p := range b.Params {
		names[i] = p.Name
	}
	var wrong []string
	for name := range params {
		if !slices.Contains(names, name) {
			hint := didYouMean(name, names)
			if hint == "" {
				hint = "; it has " + oneOf(names)
			}
			wrong = append(wrong, fmt.Sprintf("job %s: unknown parameter %s%s", b.Name, quote(name), hint))
		}
	}
	slices.Sort(wrong)
	full := make(map[string]string, len(b.Params))
	for _, p := range b.Params {
		full[p.Name] = params[p.Name]
		if full[p.Name] == "" {
			full[p.Name] = p.Default
		}
		if full[p.Name] == "" && p.Required {
			wrong = append(wrong, fmt.Sprintf("job %s: the parameter %s is missing (%s); give it with -p %s=...", b.Name, quote(p.Name), p.About, p.Name))
		}
	}
	if len(wrong) > 0 {
		return nil, errors.New(strings.Join(wrong, "\n"))
	}
	return b.Make(full)
}
