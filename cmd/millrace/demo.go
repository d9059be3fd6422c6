package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"millrace/examples"
	"millrace/internal/batch"
	"millrace/internal/llm"
	"millrace/internal/llm/sim"
	"millrace/internal/record"
)

type demoCmd struct {
	Profile string `default:"rtx4060-laptop" help:"Profile of the simulated server, used when no real one is found." placeholder:"NAME"`
	Sim     bool   `help:"Use the simulated server even if a real one is found."`
	Keep    string `help:"Keep records, answers and cache in this directory (default: a temporary one, removed at the end)." placeholder:"DIR"`
}

// Run shows a job over sample records twice: first asked, then from the cache.
func (c *demoCmd) Run(a *app) error {
	dir := c.Keep
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "millrace-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a directory to look into
		return err
	}
	for _, name := range []string{"sentiment.yaml", "reviews.csv"} {
		b, err := examples.Files.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil { //nolint:gosec // sample data
			return err
		}
	}
	sm, end, err := c.server(a)
	if err != nil {
		return err
	}
	defer end()
	a.config.State = filepath.Join(dir, "state")
	j, err := findJob(filepath.Join(dir, "sentiment.yaml"), nil)
	if err != nil {
		return err
	}
	out := filepath.Join(dir, "sentiment.csv")
	code := error(nil)
	var reports [2]batch.Report
	for i, title := range []string{"first run: every distinct question is asked", "second run: the same records again"} {
		fmt.Fprintf(a.out, "\n%s\n", a.bold.Sprint(title))
		fmt.Fprintf(a.out, "%s\n", a.dim.Sprintf("millrace run sentiment.yaml reviews.csv -o sentiment.csv"))
		run := runCmd{Job: filepath.Join(dir, "sentiment.yaml"), Input: filepath.Join(dir, "reviews.csv"), Output: out}
		reports[i], err = run.execute(a, j, sm)
		if c, ok := errors.AsType[exitCode](err); ok && int(c) == exitQuarantine {
			code = err
		} else if err != nil {
			return err
		}
	}
	fmt.Fprintf(a.out, "\n%s\n", a.bold.Sprint("what came out (the first rows)"))
	if err := headOfCSV(a.out, out, 8); err != nil {
		return err
	}
	if first, second := reports[0].Seconds, reports[1].Seconds; second > 0 {
		fmt.Fprintf(a.out, "\nThe second run asked %s %s and took %s of the first run's time.\n", number(reports[1].Requests),
			plural(reports[1].Requests, "question", "questions"), share(second/first))
	}
	if c.Keep != "" {
		fmt.Fprintf(a.out, "Everything is in %s.\n", dir)
	}
	return code
}

func share(x float64) string {
	if x < 0.01 {
		return "less than 1 %"
	}
	return fmt.Sprintf("%.0f %%", 100*x)
}

// server is the real server if there is one, else a simulated one on a free
// port of this machine.
func (c *demoCmd) server(a *app) (*serverModel, func(), error) {
	if !c.Sim {
		srv, m, err := a.server()
		if err == nil {
			fmt.Fprintf(a.out, "found %s %s at %s, model %s\n", srv.Info().Kind, srv.Info().Version, srv.Info().URL, m.Name)
			return &serverModel{srv, m}, func() {}, nil
		}
		if a.config.Server != "" || !errors.Is(err, llm.ErrNoServer) {
			return nil, nil, err
		}
	}
	p, err := sim.Find(c.Profile)
	if err != nil {
		return nil, nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(a.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	stop := make(chan struct{})
	served := make(chan error, 1)
	go func() { served <- serve(a.ctx, l, sim.New(p).Handler(), stop) }()
	end := func() {
		close(stop)
		if err := <-served; err != nil {
			a.note("the simulated server: %v", err)
		}
	}
	srv, err := llm.Find(a.ctx, []llm.Candidate{{URL: "http://" + l.Addr().String(), Source: "simulator", Must: true}}, openers(llm.NewHTTPClient(0), ""))
	if err != nil {
		end()
		return nil, nil, err
	}
	m, err := a.pickModel(srv)
	if err != nil {
		end()
		return nil, nil, err
	}
	fmt.Fprintln(a.out, simNote(p.Name))
	return &serverModel{srv, m}, end, nil
}

// headOfCSV prints the first rows of a CSV file as a table, long cells cut.
func headOfCSV(w io.Writer, path string, n int) error {
	in, err := record.Open(path, record.ReadOptions{})
	if err != nil {
		return err
	}
	defer in.Close()
	rows := [][]string{in.Columns()}
	for range n {
		rec, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		row := make([]string, len(rec.Fields))
		for i, f := range rec.Fields {
			row[i] = cut(f.Value.String(), 34)
		}
		rows = append(rows, row)
	}
	table(w, rows)
	return nil
}

// cut shortens a text to n characters, on one line.
func cut(s string, n int) string {
	r := []rune(strings.Join(strings.Fields(s), " "))
	if len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return string(r)
}
