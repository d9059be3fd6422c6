package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"millrace/examples"
	"millrace/internal/llm/sim"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"millrace": main})
}

// Each script is a story. SIM is the address of a simulated server that
// answers at once, SICK of one whose answers never fit the schema.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("SIM", simulated(e.T().(testing.TB), "instant", nil))
			e.Setenv("SICK", simulated(e.T().(testing.TB), "instant", func(p *sim.Profile) { p.Ills.InvalidJSONRate = 1 }))
			e.Setenv("MILLRACE_STATE", filepath.Join(e.WorkDir, "state"))
			for _, f := range []string{"sentiment.yaml", "reviews.csv", "skills.yaml", "postings.jsonl"} {
				b, err := examples.Files.ReadFile(f)
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(e.WorkDir, f), b, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Condition: func(c string) (bool, error) {
			if c == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %s", c)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"jsonfield": jsonField,
			"lines":     countLines,
			"bytes":     writeBytes,
			"newer":     makeNewer,
		},
	})
}

func simulated(t testing.TB, profile string, change func(*sim.Profile)) string {
	p, err := sim.Find(profile)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&p)
	}
	srv := httptest.NewServer(sim.New(p).Handler())
	t.Cleanup(srv.Close)
	return srv.URL
}

// jsonfield FILE NAME VALUE: a field at the top of a JSON object has this value.
func jsonField(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: jsonfield file name value")
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &m); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	b, err := json.Marshal(m[args[1]])
	ts.Check(err)
	if got := strings.Trim(string(b), `"`); (got == args[2]) == neg {
		ts.Fatalf("%s: %s is %s", args[0], args[1], got)
	}
}

// lines FILE N: the file has N lines.
func countLines(ts *testscript.TestScript, neg bool, args []string) {
	if n := fmt.Sprint(strings.Count(ts.ReadFile(args[0]), "\n")); (n == args[1]) == neg {
		ts.Fatalf("%s has %s lines", args[0], n)
	}
}

// newer FILE: makes the database one of a later version of Millrace.
func makeNewer(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec("PRAGMA user_version = 999")
	ts.Check(err)
}

// bytes FILE TEXT: writes a Go string literal, for what a text file cannot hold.
func writeBytes(ts *testscript.TestScript, _ bool, args []string) {
	var s string
	_, err := fmt.Sscanf(`"`+args[1]+`"`, "%q", &s)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(s), 0o600))
}

// The program as a function: what it says goes where it should.
func TestRunStreams(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	url := simulated(t, "instant", nil)
	b, err := examples.Files.ReadFile("sentiment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	jobFile := filepath.Join(dir, "job.yaml")
	if err := os.WriteFile(jobFile, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), process{
		args:    []string{"run", jobFile, "-", "-o", "-", "--server", url, "--state", filepath.Join(dir, "state")},
		environ: []string{"HOME=" + dir, "LocalAppData=" + dir},
		stdin:   strings.NewReader(`{"id":1,"product":"Lamp","review":"Too dark.","n":1.50}` + "\n"),
		stdout:  &out, stderr: &errs,
	})
	if code != exitDone {
		t.Fatalf("exit code %d\n%s", code, errs.String())
	}
	var row map[string]any
	if err := json.Unmarshal(out.Bytes(), &row); err != nil {
		t.Fatalf("stdout is not one JSON record: %v\n%s", err, out.String())
	}
	if !strings.HasPrefix(out.String(), `{"id":1,"product":"Lamp","review":"Too dark.","n":1.50,"aspect":`) {
		t.Errorf("the record's own fields are not as they were: %s", out.String())
	}
	if !strings.Contains(errs.String(), "SIMULATED") {
		t.Errorf("the summary does not say that the server is simulated:\n%s", errs.String())
	}
}

func TestNumbersRead(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := number(n); got != want {
			t.Errorf("number(%d) = %q, want %q", n, got, want)
		}
	}
	for x, want := range map[float64]string{0: "0", 0.123: "0.12", 9.876: "9.88", 47.25: "47.2", 1234.4: "1,234"} {
		if got := rate(x); got != want {
			t.Errorf("rate(%v) = %q, want %q", x, got, want)
		}
	}
}
