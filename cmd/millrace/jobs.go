package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"millrace/internal/job"
)

type jobsCmd struct {
	List jobsListCmd `cmd:"" default:"1" help:"List the built-in jobs."`
	Show jobsShowCmd `cmd:"" help:"Show a job: inputs, outputs, lifetime, prompt."`
}

type jobsListCmd struct{}

func (jobsListCmd) Run(a *app) error {
	rows := [][]string{}
	for _, b := range job.Builtins() {
		rows = append(rows, []string{b.Name, b.About})
	}
	table(a.out, rows)
	fmt.Fprintln(a.out, "\nA job of your own is a YAML file: millrace run my-job.yaml INPUT (examples/ has two).")
	return nil
}

type jobsShowCmd struct {
	Name  string            `arg:"" help:"Built-in job, or path of a job file."`
	Param map[string]string `short:"p" help:"Parameter of a built-in job." placeholder:"NAME=VALUE"`
	JSON  bool              `help:"As JSON."`
}

func (c *jobsShowCmd) Run(a *app) error {
	// A built-in job whose required parameters are missing is still shown, with
	// what it needs.
	for _, b := range job.Builtins() {
		if b.Name != c.Name || len(c.Param) > 0 {
			continue
		}
		fmt.Fprintf(a.out, "%s  %s\n\nparameters (give them with -p NAME=VALUE):\n", a.bold.Sprint(b.Name), b.About)
		rows := [][]string{}
		for _, p := range b.Params {
			need := "optional"
			switch {
			case p.Required:
				need = "required"
			case p.Default != "":
				need = "default " + p.Default
			}
			rows = append(rows, []string{"  " + p.Name, need, p.About})
		}
		table(a.out, rows)
		if !slices.ContainsFunc(b.Params, func(p job.Param) bool { return p.Required }) {
			break
		}
		return nil
	}
	j, err := findJob(c.Name, c.Param)
	if err != nil {
		return err
	}
	d := j.Describe()
	if c.JSON {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return enc.Encode(d)
	}
	key := d.Key
	if key == "" {
		key = "the record's position"
	}
	out := make([]string, len(d.Output))
	for i, c := range d.Output {
		out[i] = c.Name
		if c.Type != "" {
			out[i] += " (" + c.Type + ")"
		}
	}
	fmt.Fprintf(a.out, "%s version %d  %s\n", a.bold.Sprint(d.Name), d.Version, d.About)
	steps := "none"
	if d.Prepare && d.Check {
		steps = "rules before the model, a check of its answer after it"
	} else if d.Prepare {
		steps = "rules before the model"
	} else if d.Check {
		steps = "a check of the model's answer"
	}
	options, err := json.Marshal(d.Options)
	if err != nil {
		return err
	}
	table(a.out, [][]string{
		{"  from", d.Origin},
		{"  input", strings.Join(d.Input, ", ")},
		{"  output", strings.Join(out, ", ")},
		{"  record key", key},
		{"  lifetime", d.Lifetime},
		{"  pack", fmt.Sprintf("%d %s a request", d.Pack, plural(d.Pack, "record", "records"))},
		{"  repairs", fmt.Sprint(d.Repairs)},
		{"  Go steps", steps},
		{"  options", string(options)},
	})
	fmt.Fprintf(a.out, "\nsystem message:\n%s\n\nprompt:\n%s\n\nschema:\n%s\n", indent(d.System, "  "), indent(d.Prompt, "  "), indent(string(d.Schema), "  "))
	return nil
}
