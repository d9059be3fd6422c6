//go:build e2e

// Package e2e holds Millrace to its word on a real Ollama: the built binary,
// the real protocol, a model of random weights whose answers are noise that
// the grammar forces into the schema. `make e2e` runs it.
package e2e

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"millrace/e2e/ollamatest"
)

// binary is the program under test: MILLRACE_BIN, or built here.
var binary string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	binary = os.Getenv("MILLRACE_BIN")
	if binary == "" {
		dir, err := os.MkdirTemp("", "millrace-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "millrace")
		if out, err := exec.Command("go", "build", "-o", binary, "../cmd/millrace").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// moodJob has only properties that a grammar can hold a random model to, so
// that no answer needs a repair.
const moodJob = `name: e2e-mood
version: 1
input: [review, product]
key: id
system: You judge product reviews.
prompt: "Review of {{ .product }}: {{ .review }}"
schema: {type: object, properties: {mood: {type: string, enum: [good, bad, mixed]}, urgent: {type: boolean}}, required: [mood, urgent], additionalProperties: false}
lifetime: forever
options: {temperature: 0, seed: 1, max_tokens: 300}
`

// tagJob asks for a free string as well, short of tokens: noise may be cut off
// or break the limit on its length.
const tagJob = `name: e2e-tag
version: 1
input: [review, product]
key: id
prompt: "Tag this review of {{ .product }}: {{ .review }}"
schema: {type: object, properties: {mood: {type: string, enum: [good, bad, mixed]}, urgent: {type: boolean}, tag: {type: string, minLength: 1, maxLength: 8}}, required: [mood, urgent, tag], additionalProperties: false}
lifetime: forever
options: {temperature: 0, seed: 1, max_tokens: 60}
repairs: 1
`

// bench is a directory with a job and records, and the state of its runs.
type bench struct {
	dir    string
	server *ollamatest.Server
	ids    []string // of the records, in order
	unique int      // different questions among them
}

// setUp writes a job and n records, of which every fourth repeats an earlier
// question under an id of its own.
func setUp(t *testing.T, server *ollamatest.Server, job string, n int) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), server: server}
	var in bytes.Buffer
	w := csv.NewWriter(&in)
	w.Write([]string{"id", "product", "review"})
	for i := range n {
		id := fmt.Sprintf("r%03d", i+1)
		about := i
		if i%4 == 3 {
			about = i - 3
		} else {
			b.unique++
		}
		w.Write([]string{id, "kettle, 1.7 l", fmt.Sprintf("It boiled %d times — then it \"sang\".\nWürde ich es wieder kaufen?", about)})
		b.ids = append(b.ids, id)
	}
	w.Flush()
	b.write(t, "job.yaml", job)
	b.write(t, "in.csv", in.String())
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(b.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) exists(name string) bool {
	_, err := os.Stat(b.path(name))
	return err == nil
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d after %s\nstdout:\n%s\nstderr:\n%s", r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

// command is a running millrace.
type command struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer
	started        time.Time
}

// start starts millrace in the bench's directory with a state directory there
// and no settings of the user's.
func (b *bench) start(t *testing.T, stdin string, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	c := &command{Cmd: exec.CommandContext(ctx, binary, args...), started: time.Now()}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "MILLRACE_") && !strings.HasPrefix(kv, "OLLAMA_") && !strings.HasPrefix(kv, "XDG_") {
			c.Env = append(c.Env, kv)
		}
	}
	c.Env = append(c.Env, "HOME="+b.dir, "MILLRACE_PATIENCE=3s", "MILLRACE_STATE="+b.path("state"))
	c.Dir = b.dir
	c.Stdin = strings.NewReader(stdin)
	c.Stdout, c.Stderr = &c.stdout, &c.stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *command) wait(t *testing.T) result {
	t.Helper()
	err := c.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{c.ProcessState.ExitCode(), c.stdout.String(), c.stderr.String(), time.Since(c.started)}
}

// runArgs is the command all tests give, with some more arguments.
func (b *bench) runArgs(more ...string) []string {
	return append([]string{
		"run", "job.yaml", "in.csv", "-o", "out.csv",
		"--server", b.server.URL, "--model", b.server.Model, "--report", "report.json",
	}, more...)
}

// run runs the job to its end.
func (b *bench) run(t *testing.T, more ...string) (result, report) {
	t.Helper()
	r := b.start(t, "", b.runArgs(more...)...).wait(t)
	t.Logf("millrace %s: exit code %d after %s\n%s%s", strings.Join(b.runArgs(more...), " "), r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
	return r, b.report(t)
}

// report is the part of --report that the tests look at.
type report struct {
	Records, Answered, Cached, Deduplicated, Requests, Quarantined int
	Repaired, Retried                                              int
	PromptTokens                                                   int `json:"prompt_tokens"`
	CompletionTokens                                               int `json:"completion_tokens"`
	Seconds                                                        float64
	RecordsPerSecond                                               float64 `json:"records_per_second"`
	Server, Model                                                  string
	ServerKind                                                     string `json:"server_kind"`
	Resumed, Interrupted                                           bool
}

func (b *bench) report(t *testing.T) (r report) {
	t.Helper()
	data, err := os.ReadFile(b.path("report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatalf("report: %v\n%s", err, data)
	}
	return r
}

// check holds a finished run to "nothing lost": every record once, as a valid
// row in the order of the input or as a line of quarantine with its reason.
// It returns the rows by id.
func (b *bench) check(t *testing.T, r result) map[string][]string {
	t.Helper()
	quarantined := map[string]bool{}
	if data, err := os.ReadFile(b.path("out.csv.quarantine.jsonl")); err == nil {
		for line := range strings.Lines(string(data)) {
			var q struct {
				Record struct{ ID string }
				Reason string
			}
			if err := json.Unmarshal([]byte(line), &q); err != nil {
				t.Fatalf("quarantine: %v\n%s", err, line)
			}
			if q.Reason == "" {
				t.Errorf("record %s is in quarantine without a reason", q.Record.ID)
			}
			if quarantined[q.Record.ID] {
				t.Errorf("record %s is in quarantine twice", q.Record.ID)
			}
			quarantined[q.Record.ID] = true
		}
	}
	want := 0
	if len(quarantined) > 0 {
		want = 2
	}
	if r.code != want {
		t.Errorf("exit code %d, want %d with %d records in quarantine", r.code, want, len(quarantined))
	}

	data, err := os.ReadFile(b.path("out.csv"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	header, rows := all[0], map[string][]string{}
	var order []string
	for _, row := range all[1:] {
		id := row[0]
		if _, twice := rows[id]; twice || quarantined[id] {
			t.Errorf("record %s is there twice", id)
		}
		rows[id] = row
		order = append(order, id)
		for i, name := range header {
			switch v := row[i]; name {
			case "mood":
				if v != "good" && v != "bad" && v != "mixed" {
					t.Errorf("record %s has mood %q", id, v)
				}
			case "urgent":
				if v != "true" && v != "false" {
					t.Errorf("record %s has urgent %q", id, v)
				}
			case "tag":
				// A cell that a spreadsheet would run gets one more character.
				if n := utf8.RuneCountInString(strings.TrimPrefix(v, "'")); n > 8 {
					t.Errorf("record %s has a tag of %d characters", id, n)
				}
			}
		}
	}
	var expected []string
	for _, id := range b.ids {
		if !quarantined[id] {
			expected = append(expected, id)
		}
	}
	if got, want := strings.Join(order, " "), strings.Join(expected, " "); got != want {
		t.Errorf("rows are %s\nwant %s", got, want)
	}
	for id := range quarantined {
		if !strings.Contains(strings.Join(b.ids, " "), id) {
			t.Errorf("record %q is in quarantine and never was in the input", id)
		}
	}
	return rows
}

// until waits until the server has answered n requests, or the command ends.
func (b *bench) until(t *testing.T, c *command, n int) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(2 * time.Minute)
	for b.server.Requests() < n {
		select {
		case <-tick.C:
			if b.exists("out.csv") {
				t.Fatalf("the run was over after %d requests, before anything could go wrong\n%s", b.server.Requests(), c.stderr.String())
			}
		case <-limit:
			t.Fatalf("%d requests after two minutes, want %d", b.server.Requests(), n)
		}
	}
}
