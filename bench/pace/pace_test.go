// Package pace measures how well the pacer finds a server's knee: whole runs
// through the real client and runner against the simulated server, in virtual
// time. Reproduce the table of docs/benchmarks.md with:
//
//	go test ./bench/pace -run Pace -v -pace.full
package pace

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/batch"
	"millrace/internal/job"
	"millrace/internal/llm/ollama"
	"millrace/internal/llm/sim"
	"millrace/internal/record"
	"millrace/internal/sqlite"
)

var full = flag.Bool("pace.full", false, "sweep all concurrencies over 2,000 records; otherwise few over 600")

const jobFile = `
name: pace
version: 1
input: [text]
system: You sort notes by topic and say in a sentence what each is about.
prompt: "{{ .text }}"
schema:
  type: object
  properties:
    topic: {type: string, enum: [work, home, travel, money]}
    about: {type: string, minLength: 60, maxLength: 400}
  required: [topic, about]
  additionalProperties: false
`

// notes is a Reader of n different records of 20 to 200 words.
type notes struct{ n, next int }

var words = strings.Fields("the train to the coast leaves at nine and the garden needs water before we pay the rent for the office where a new lamp stands beside the old table that my sister bought in spring")

func (r *notes) Next() (record.Record, error) {
	if r.next == r.n {
		return record.Record{}, io.EOF
	}
	r.next++
	var b strings.Builder
	fmt.Fprintf(&b, "Note %d.", r.next)
	size := 20 + (r.next*7919)%181
	for i := range size {
		b.WriteByte(' ')
		b.WriteString(words[(r.next*31+i*i+i)%len(words)])
	}
	return record.Record{Pos: int64(r.next), Fields: []record.Field{{Name: "text", Value: record.Text(b.String())}}}, nil
}
func (r *notes) Columns() []string { return []string{"text"} }
func (r *notes) Progress() float64 { return 1 }
func (r *notes) Close() error      { return nil }

type nowhere struct{}

func (nowhere) Write(record.Record, []record.Value) error { return nil }
func (nowhere) Close() error                              { return nil }

// outcome is one run.
type outcome struct {
	took     time.Duration
	inFlight int
	report   batch.Report
}

func run(t *testing.T, p sim.Profile, pacer *batch.Pacer, records int) (o outcome) {
	synctest.Test(t, func(t *testing.T) {
		server := sim.New(p)
		client, err := ollama.Open(t.Context(), "http://sim", &http.Client{Transport: sim.Transport(server.Handler())})
		if err != nil {
			t.Fatal(err)
		}
		models, err := client.Models(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		j, err := job.Parse([]byte(jobFile), "pace.yaml")
		if err != nil {
			t.Fatal(err)
		}
		store, err := sqlite.Open(t.Context(), t.TempDir(), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		start := time.Now()
		rep, err := batch.RunJob(t.Context(), batch.Options{
			Job: j, Server: client, Model: models[0], Store: store, In: &notes{n: records}, Out: nowhere{},
			Input: "notes", Output: "nowhere", Pacer: pacer,
		})
		if err != nil {
			t.Fatal(err)
		}
		if rep.Answered != int64(records) {
			t.Fatalf("%d of %d records answered", rep.Answered, records)
		}
		o = outcome{time.Since(start), server.Stats().MaxInFlight, rep}
	})
	return o
}

func TestPaceAgainstSweep(t *testing.T) {
	records, sweep := 600, []int{4, 16, 48}
	slotCounts := []int{1, 4, 16}
	if *full {
		records = 2000
		sweep = []int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}
		slotCounts = []int{1, 2, 4, 8, 16, 32}
	}
	base, err := sim.Find("rtx4060-laptop")
	if err != nil {
		t.Fatal(err)
	}
	base = base.WithContext(2048)
	type server struct {
		name string
		p    sim.Profile
		knee int
	}
	var servers []server
	for _, n := range slotCounts {
		servers = append(servers, server{fmt.Sprintf("%d slots", n), base.WithSlots(n), n})
	}
	servers = append(servers, server{"4, then 16 slots", base.WithSlots(4).WithIlls(sim.Ills{
		SlotsChange: &sim.SlotsChange{AfterRequests: records / 2, Slots: 16},
	}), 16})
	t.Logf("%d records each; best fixed concurrency of %v", records, sweep)
	t.Log("server            best at  best s   auto s  auto/best  most in flight  settled at")
	for _, s := range servers {
		best, at := time.Duration(1<<62), 0
		for _, c := range sweep {
			if c > 4*s.knee+4 {
				continue
			}
			if o := run(t, s.p, batch.FixedPacer(c), records); o.took < best {
				best, at = o.took, c
			}
		}
		o := run(t, s.p, batch.NewPacer(0), records)
		ratio := best.Seconds() / o.took.Seconds()
		t.Logf("%-17s %7d %7.0f %8.0f %10.3f %15d %11d", s.name, at, best.Seconds(), o.took.Seconds(), ratio, o.inFlight, o.report.Concurrency.Level)
		if least := 0.95; *full && ratio < least {
			t.Errorf("%s: auto gives %.3f of the best fixed rate, want at least %.2f", s.name, ratio, least)
		}
		if o.inFlight > 2*s.knee {
			t.Errorf("%s: %d requests in flight, more than twice the knee of %d", s.name, o.inFlight, s.knee)
		}
	}
}
