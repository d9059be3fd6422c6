// Package kill kills runs at random moments and resumes them: the output must
// be that of an undisturbed run, and no answered question may be asked again
// beyond what was in flight. Reproduce the figures of docs/benchmarks.md with:
//
//	go test ./bench/kill -v -kill.runs 50
package kill

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"millrace/internal/llm/sim"
)

var runs = flag.Int("kill.runs", 3, "runs to kill and resume")

const (
	records  = 400
	inFlight = 8
	jobFile  = `
name: kill
version: 1
input: [text]
key: id
prompt: "{{ .text }}"
schema: {type: object, properties: {topic: {type: string, enum: [a, b, c]}, about: {type: string, maxLength: 60}}, required: [topic, about], additionalProperties: false}
`
)

func TestKilledRunsResume(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "millrace")
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "millrace/cmd/millrace").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var csv bytes.Buffer
	csv.WriteString("id,text\n")
	for i := range records {
		fmt.Fprintf(&csv, "s%d,note %d about the garden and the train number %d\n", i, i-i%5, i*i%97) // some are equal
	}
	for name, b := range map[string][]byte{"job.yaml": []byte(jobFile), "in.csv": csv.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	want, _ := once(t, bin, dir, "undisturbed", nil, -1)
	whole := time.Since(start)

	seed := uint64(time.Now().UnixNano()) //nolint:gosec // a seed
	rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments, not secrets
	t.Logf("seed %d", seed)
	var kills, repeated, worst int
	for i := range *runs {
		got, r := once(t, bin, dir, fmt.Sprint(i), want, time.Duration((0.05+0.9*rnd.Float64())*float64(whole)))
		if !bytes.Equal(got, want) {
			t.Errorf("run %d: the output differs from the undisturbed one", i)
		}
		kills += r.kills
		repeated += r.repeated
		worst = max(worst, r.repeated)
		if r.repeated > inFlight*r.kills {
			t.Errorf("run %d: %d answered questions were asked again after %d kills with %d in flight", i, r.repeated, r.kills, inFlight)
		}
	}
	t.Logf("%d runs of %d records, %d kills: outputs identical; %d questions asked again in all, %d at most in a run (up to %d in flight at each kill)",
		*runs, records, kills, repeated, worst, inFlight)
}

type result struct{ kills, repeated int }

// once runs the job to its end; with kill >= 0 it is killed after that time
// and started again with the same command.
func once(t *testing.T, bin, dir, name string, want []byte, kill time.Duration) ([]byte, result) {
	t.Helper()
	p, err := sim.Find("rtx4090")
	if err != nil {
		t.Fatal(err)
	}
	server := sim.New(p.WithSlots(inFlight).WithSpeed(20))
	srv := httptest.NewServer(server.Handler())
	defer srv.Close()
	out := filepath.Join(dir, name+".csv")
	report := filepath.Join(dir, name+".json")
	var r result
	for try := 0; ; try++ {
		cmd := exec.CommandContext(t.Context(), bin, "run", filepath.Join(dir, "job.yaml"), filepath.Join(dir, "in.csv"), "-o", out,
			"--server", srv.URL, "--state", filepath.Join(dir, "state-"+name), "--concurrency", fmt.Sprint(inFlight), "--report", report)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if kill >= 0 && try == 0 {
			killer := time.AfterFunc(kill, func() { _ = cmd.Process.Kill() })
			err := cmd.Wait()
			if !killer.Stop() && err != nil { // it was killed, and not just about to end
				r.kills++
				if b, err := os.ReadFile(out); err == nil && !bytes.Equal(b, want) {
					t.Errorf("%s: an incomplete output stands under its name", name)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, said.String())
			}
			break
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, said.String())
		}
		break
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	j, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var rep struct {
		Answered int
		Resumed  bool
	}
	if err := json.Unmarshal(j, &rep); err != nil {
		t.Fatal(err)
	}
	if rep.Answered != records {
		t.Errorf("%s: %d of %d records answered", name, rep.Answered, records)
	}
	r.repeated = server.Stats().Repeated
	return b, r
}
