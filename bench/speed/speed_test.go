// Package speed measures the runner itself, with a server that answers at once:
//
//	go test ./bench/speed -bench . -benchtime 1x -speed.records 100000
package speed

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"millrace/internal/batch"
	"millrace/internal/job"
	"millrace/internal/llm"
	"millrace/internal/llm/ollama"
	"millrace/internal/llm/sim"
	"millrace/internal/record"
	"millrace/internal/sqlite"
)

var records = flag.Int("speed.records", 2000, "records of a run")

const jobFile = `
name: speed
version: 1
input: [product, review]
key: id
system: You judge product reviews.
prompt: "Review of {{ .product }}: {{ .review }}"
schema: {type: object, properties: {sentiment: {type: string, enum: [good, bad, mixed]}, recommends: {type: boolean}}, required: [sentiment, recommends], additionalProperties: false}
`

func BenchmarkFirstRun(b *testing.B)  { benchmark(b, false) }
func BenchmarkSecondRun(b *testing.B) { benchmark(b, true) }

func benchmark(b *testing.B, second bool) {
	p, err := sim.Find("instant")
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(sim.New(p).Handler())
	defer srv.Close()
	client, err := ollama.Open(b.Context(), srv.URL, llm.NewHTTPClient(0))
	if err != nil {
		b.Fatal(err)
	}
	models, err := client.Models(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	in := filepath.Join(dir, "in.csv")
	if err := writeRecords(in, *records); err != nil {
		b.Fatal(err)
	}
	j, err := job.Parse([]byte(jobFile), "speed.yaml")
	if err != nil {
		b.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	if second {
		once(b, j, client, models[0], in, state)
	}
	for i := range b.N {
		if !second {
			state = filepath.Join(dir, fmt.Sprint("state", i))
		}
		b.ResetTimer()
		rep := once(b, j, client, models[0], in, state)
		b.StopTimer()
		if want := int64(*records); rep.Answered != want || second && rep.Cached != want {
			b.Fatalf("report %+v", rep)
		}
		b.ReportMetric(rep.RecordsPerSecond, "records/s")
		b.ReportMetric(float64(rep.Concurrency.Level), "in-flight")
	}
}

func once(b *testing.B, j *job.Job, server llm.Server, m llm.Model, input, state string) batch.Report {
	b.Helper()
	store, err := sqlite.Open(b.Context(), state, sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	in, err := record.Open(input, record.ReadOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := record.NewWriter(io.Discard, record.CSV, in.Columns(), j.Columns(), record.WriteOptions{From: in})
	if err != nil {
		b.Fatal(err)
	}
	rep, err := batch.RunJob(b.Context(), batch.Options{
		Job: j, Server: server, Model: m, Store: store, In: in, Out: out, Input: input, Output: "-", Commit: out.Close,
	})
	if err != nil {
		b.Fatal(err)
	}
	return rep
}

func writeRecords(path string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "id,product,review")
	for i := range n {
		fmt.Fprintf(w, "%d,kettle %d,\"I have had it for %d days. It boils fast, and the lid holds; the handle gets warm, number %d of its kind.\"\n", i, i%40, i%365, i)
	}
	return w.Flush()
}
