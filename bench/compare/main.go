// Command compare measures Millrace against the usual recipe,
// bench/usual_recipe.py: the same records, the same real Ollama, the same
// model, schema and options. It runs from the repository's root:
//
//	make bench
//	go run ./bench/compare -n 500 -parallel 4 -rounds 3
//
// Each round is a fresh cache. The two take turns within a round, and the
// table has the median over the rounds. It needs bin/millrace, the Ollama of
// scripts/ollama.sh, and python3.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"millrace/e2e/ollamatest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "compare:", err)
		stop()
		os.Exit(1)
	}
}

// The recipe's schema is that of bench/sentiment.yaml. Its prompt is either the
// one that Millrace sends, word for word, or the short one that people write,
// without a word on the answer's form or on what is data. A random model's
// answers have another length for every prompt, so only the first is a
// comparison of the two tools; the second is shown beside it.
const (
	job         = "bench/sentiment.yaml"
	prompt      = "Review of <product>{product}</product>: <review>{review}</review>"
	shortSystem = "You judge product reviews."
	shortPrompt = "Review of {product}: {review}"
	schema      = `{"type":"object","properties":{"sentiment":{"type":"string","enum":["good","bad","mixed"]},` +
		`"recommends":{"type":"boolean"}},"required":["sentiment","recommends"],"additionalProperties":false}`
)

// comparison is the two tools, a server and a place for files.
type comparison struct {
	server   *ollamatest.Server
	dir      string
	millrace string
	system   string // Millrace's system message
	stderr   io.Writer
}

// result is what both tools report.
type result struct {
	Records          int     `json:"records"`
	Answered         int     `json:"answered"`
	Requests         int     `json:"requests"`
	Seconds          float64 `json:"seconds"`
	RecordsPerSecond float64 `json:"records_per_second"`
	CompletionTokens int     `json:"completion_tokens"`
}

func (r result) tokensPerSecond() float64 { return float64(r.CompletionTokens) / r.Seconds }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.SetOutput(stderr)
	n := flags.Int("n", 200, "records in each measurement")
	parallel := flags.Int("parallel", 4, "OLLAMA_NUM_PARALLEL of the server")
	rounds := flags.Int("rounds", 1, "times everything is measured")
	millrace := flags.String("millrace", filepath.Join("bin", "millrace"), "the binary to measure")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *n < 1 || *parallel < 1 || *rounds < 1 {
		return errors.New("-n, -parallel and -rounds need at least 1")
	}

	dir, err := os.MkdirTemp("", "millrace-compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := ollamatest.Launch(ctx, ollamatest.Options{Env: []string{"OLLAMA_NUM_PARALLEL=" + strconv.Itoa(*parallel)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	c := &comparison{server: server, dir: dir, millrace: *millrace, stderr: stderr}

	b, err := c.output(ctx, c.millrace, "jobs", "show", job, "--json")
	if err != nil {
		return err
	}
	var shown struct {
		System string `json:"system"`
	}
	if err := json.Unmarshal(b, &shown); err != nil {
		return err
	}
	c.system = shown.System

	warm, err := c.records(ctx, 4, 0, 1_000_000)
	if err != nil {
		return err
	}
	if _, err := c.recipe(ctx, warm, false); err != nil { // loads the model
		return err
	}

	cases := []struct {
		name string
		dup  float64
		runs int // the run that counts
		own  bool
	}{
		{"cold, all different", 0, 1, false},
		{"cold, 30 % repeated", 0.3, 1, false},
		{"second run", 0, 2, false},
		{"cold, the recipe with its own short prompt", 0, 1, true},
	}
	type pair struct{ recipe, millrace []result }
	all := make([]pair, len(cases))
	for round := range *rounds {
		for i, k := range cases {
			in, err := c.records(ctx, *n, k.dup, round*len(cases)+i)
			if err != nil {
				return err
			}
			state := filepath.Join(dir, fmt.Sprintf("state-%d-%d", round, i))
			var r, m result
			for range k.runs {
				if r, err = c.recipe(ctx, in, k.own); err != nil {
					return err
				}
				if m, err = c.run(ctx, in, state); err != nil {
					return err
				}
			}
			all[i].recipe, all[i].millrace = append(all[i].recipe, r), append(all[i].millrace, m)
		}
	}

	fmt.Fprintf(stdout, "%d records; Ollama 0.17.4 with OLLAMA_NUM_PARALLEL=%d and a random model of 4 MB; %d cores; median of %d\n\n",
		*n, *parallel, runtime.NumCPU(), *rounds)
	fmt.Fprintln(stdout, "| | recipe, records/s | Millrace, records/s | ratio | requests, recipe | requests, Millrace | tokens/s, recipe | tokens/s, Millrace |")
	fmt.Fprintln(stdout, "|---|---|---|---|---|---|---|---|")
	for i, k := range cases {
		r, m := median(all[i].recipe), median(all[i].millrace)
		fmt.Fprintf(stdout, "| %s | %.2f | %.2f | %.2f | %d | %d | %.0f | %.0f |\n", k.name,
			r.RecordsPerSecond, m.RecordsPerSecond, m.RecordsPerSecond/r.RecordsPerSecond, r.Requests, m.Requests, r.tokensPerSecond(), m.tokensPerSecond())
	}
	return nil
}

func median(rs []result) result {
	slices.SortFunc(rs, func(a, b result) int {
		switch {
		case a.RecordsPerSecond < b.RecordsPerSecond:
			return -1
		case a.RecordsPerSecond > b.RecordsPerSecond:
			return 1
		}
		return 0
	})
	return rs[len(rs)/2]
}

// records writes an input and returns its path.
func (c *comparison) records(ctx context.Context, n int, dup float64, seed int) (string, error) {
	path := filepath.Join(c.dir, fmt.Sprintf("in-%d.csv", seed))
	out, err := c.output(ctx, "go", "run", "./bench/records",
		"-n", strconv.Itoa(n), "-dup", fmt.Sprint(dup), "-seed", strconv.Itoa(seed))
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, out, 0o600)
}

func (c *comparison) recipe(ctx context.Context, in string, own bool) (r result, err error) {
	system, prompt := c.system, prompt
	if own {
		system, prompt = shortSystem, shortPrompt
	}
	out, err := c.output(ctx, "python3", filepath.Join("bench", "usual_recipe.py"),
		"--url", c.server.URL, "--model", c.server.Model, "--system", system, "--prompt", prompt, "--schema", schema,
		in, filepath.Join(c.dir, "recipe.csv"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

func (c *comparison) run(ctx context.Context, in, state string) (r result, err error) {
	report := filepath.Join(c.dir, "report.json")
	if _, err := c.output(ctx, c.millrace, "run", job, in, "-o", filepath.Join(c.dir, "millrace.csv"),
		"--state", state, "--server", c.server.URL, "--model", c.server.Model, "--report", report); err != nil {
		return r, err
	}
	b, err := os.ReadFile(report)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// output runs a program; what it says on stderr is shown only if it fails.
func (c *comparison) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(append([]string{name}, args...), " "), err, said.Bytes())
	}
	return out, nil
}
