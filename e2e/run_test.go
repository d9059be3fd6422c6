//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"millrace/e2e/ollamatest"
)

func TestRunTwice(t *testing.T) {
	b := setUp(t, ollamatest.Start(t, "OLLAMA_NUM_PARALLEL=2"), tagJob, 24)
	r, rep := b.run(t)
	first := b.check(t, r)
	if rep.Records != 24 || rep.Answered != len(first) || rep.Answered+rep.Quarantined != 24 {
		t.Errorf("report: %d records, %d answered, %d in quarantine; rows: %d", rep.Records, rep.Answered, rep.Quarantined, len(first))
	}
	if rep.Answered == 0 {
		t.Fatal("not one record was answered")
	}
	if rep.Cached != 0 {
		t.Errorf("report: %d cached in a first run", rep.Cached)
	}
	sent := b.server.Requests()
	if rep.Requests != sent {
		t.Errorf("report: %d requests; the server counts %d", rep.Requests, sent)
	}
	if rep.Requests < b.unique {
		t.Errorf("report: %d requests for %d different questions", rep.Requests, b.unique)
	}
	if rep.PromptTokens == 0 || rep.CompletionTokens == 0 || rep.RecordsPerSecond == 0 || rep.Server == "" || rep.Model == "" {
		t.Errorf("report lacks figures: %+v", rep)
	}
	if rep.Quarantined == 0 && rep.Deduplicated != 6 {
		t.Errorf("report: %d deduplicated, want 6", rep.Deduplicated)
	}

	// Records in quarantine are asked again by a new run, all others are not.
	r, rep = b.run(t)
	b.check(t, r)
	if more := b.server.Requests() - sent; more != rep.Requests {
		t.Errorf("second run: report says %d requests; the server counts %d", rep.Requests, more)
	}
	if rep.Cached != rep.Answered {
		t.Errorf("second run: %d answered, only %d of them cached", rep.Answered, rep.Cached)
	}
}

// TestSecondRunIsFree is the promise without any quarantine in the way: no
// request at all, and none needed to find that out.
func TestSecondRunIsFree(t *testing.T) {
	b := setUp(t, ollamatest.Start(t), moodJob, 24)
	r, rep := b.run(t)
	b.check(t, r)
	if rep.Quarantined != 0 || rep.Requests != b.unique || b.server.Requests() != b.unique {
		t.Errorf("first run: %d in quarantine, %d requests (server: %d), want 0 and one for each of %d questions",
			rep.Quarantined, rep.Requests, b.server.Requests(), b.unique)
	}
	before := read(t, b, "out.csv")
	r, rep = b.run(t)
	b.check(t, r)
	if rep.Requests != 0 || b.server.Requests() != b.unique {
		t.Errorf("second run: %d requests (server: %d more), want none", rep.Requests, b.server.Requests()-b.unique)
	}
	if after := read(t, b, "out.csv"); after != before {
		t.Error("the second run wrote another output")
	}
	// A third with --refresh pays again, and only then.
	r, rep = b.run(t, "--refresh")
	b.check(t, r)
	if rep.Requests != b.unique || b.server.Requests() != 2*b.unique {
		t.Errorf("--refresh: %d requests (server: %d), want %d", rep.Requests, b.server.Requests()-b.unique, b.unique)
	}
}

// TestAddressOfOpenAIClients: people copy an address with /v1 from other
// clients. Ollama is known by it all the same, and asked by its own API.
func TestAddressOfOpenAIClients(t *testing.T) {
	b := setUp(t, ollamatest.Start(t), moodJob, 8)
	args := b.runArgs()
	for i, a := range args {
		if a == b.server.URL {
			args[i] += "/v1"
		}
	}
	r := b.start(t, "", args...).wait(t)
	b.check(t, r)
	if got := b.server.Requests(); got != b.unique {
		t.Errorf("the server counts %d requests, want %d\n%s", got, b.unique, r)
	}
	if rep := b.report(t); rep.ServerKind != "ollama" || rep.Server != b.server.URL {
		t.Errorf("it spoke to %s at %s", rep.ServerKind, rep.Server)
	}
}

func TestPipe(t *testing.T) {
	b := setUp(t, ollamatest.Start(t), moodJob, 0)
	in := `{"id":"a","product":"kettle","review":"fine","more":{"x":[1,2.50]}}` + "\n" + `{"id":"b","product":"lamp","review":"dark"}` + "\n"
	r := b.start(t, in, "run", "job.yaml", "-", "-o", "-", "--server", b.server.URL).wait(t)
	if r.code != 0 {
		t.Fatal(r)
	}
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if len(lines) != 2 {
		t.Fatalf("want two lines and nothing else on stdout\n%s", r)
	}
	for i, line := range lines {
		var got struct {
			ID, Mood string
			Urgent   *bool
			More     json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		if got.ID != []string{"a", "b"}[i] || got.Mood == "" || got.Urgent == nil {
			t.Errorf("line %d is %s", i+1, line)
		}
		if i == 0 && string(got.More) != `{"x":[1,2.50]}` {
			t.Errorf("the record's own value became %s", got.More)
		}
	}
}

func TestDryRunAsksNothing(t *testing.T) {
	b := setUp(t, ollamatest.Start(t), moodJob, 8)
	r := b.start(t, "", "run", "job.yaml", "in.csv", "-o", "out.csv", "--server", b.server.URL, "--dry-run").wait(t)
	if r.code != 0 || b.server.Requests() != 0 || b.exists("out.csv") {
		t.Errorf("%d requests\n%s", b.server.Requests(), r)
	}
}

func TestKilledRunResumes(t *testing.T) {
	b := setUp(t, ollamatest.Start(t, "OLLAMA_NUM_PARALLEL=2"), moodJob, 80)
	total, inFlight := 0, 2
	for range 2 { // killed twice, finished the third time
		c := b.start(t, "", b.runArgs("--concurrency", "2")...)
		b.until(t, c, total+12)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.wait(t)
		if b.exists("out.csv") {
			t.Fatal("an output that is not complete appeared under its name")
		}
		settle(b)
		total = b.server.Requests()
	}
	r, rep := b.run(t, "--concurrency", "2")
	b.check(t, r)
	if !rep.Resumed {
		t.Error("the report does not say that the run was resumed")
	}
	// What was in flight at a kill is asked again, and what was answered but
	// not yet saved: a group of answers is written every few milliseconds.
	if got, most := b.server.Requests(), b.unique+2*(inFlight+4); got > most {
		t.Errorf("the server counts %d requests for %d questions and two kills, want at most %d", got, b.unique, most)
	}
	if rep.Cached == 0 {
		t.Error("nothing of the killed runs was used")
	}
}

func TestInterruptedRunResumes(t *testing.T) {
	b := setUp(t, ollamatest.Start(t), moodJob, 60)
	c := b.start(t, "", b.runArgs("--concurrency", "2")...)
	b.until(t, c, 10)
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	r := c.wait(t)
	if r.code != 1 || b.exists("out.csv") {
		t.Errorf("want code 1 and no output\n%s", r)
	}
	if !strings.Contains(r.stderr, "millrace run job.yaml in.csv") {
		t.Errorf("it does not say how to go on\n%s", r)
	}
	r, rep := b.run(t, "--concurrency", "2")
	b.check(t, r)
	// What was in flight was finished: nothing is asked twice.
	if got := b.server.Requests(); got != b.unique {
		t.Errorf("the server counts %d requests for %d questions", got, b.unique)
	}
	if !rep.Resumed || rep.Cached < 10 {
		t.Errorf("resumed %v, %d of %d from before", rep.Resumed, rep.Cached, rep.Answered)
	}
}

func TestServerGoneForGood(t *testing.T) {
	b := setUp(t, ollamatest.Start(t), moodJob, 60)
	c := b.start(t, "", b.runArgs("--concurrency", "2")...)
	b.until(t, c, 10)
	b.server.Kill()
	answered := b.server.Requests()
	r := c.wait(t)
	if r.code != 1 || b.exists("out.csv") {
		t.Errorf("want code 1 and no output\n%s", r)
	}
	if !strings.Contains(r.stderr, strings.TrimPrefix(b.server.URL, "http://")) {
		t.Errorf("it does not name the server\n%s", r)
	}

	if err := b.server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, rep := b.run(t, "--concurrency", "2")
	b.check(t, r)
	if rep.Quarantined != 0 {
		t.Errorf("%d records are in quarantine because the server was away", rep.Quarantined)
	}
	if got := rep.Requests + answered; got > b.unique+2 {
		t.Errorf("%d requests for %d questions", got, b.unique)
	}
}

func TestServerComesBack(t *testing.T) {
	b := setUp(t, ollamatest.Start(t), moodJob, 40)
	c := b.start(t, "", append(b.runArgs("--concurrency", "2"), "--patience", "60s")...)
	b.until(t, c, 8)
	b.server.Kill()
	away := time.NewTimer(1500 * time.Millisecond)
	defer away.Stop()
	<-away.C
	if err := b.server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := c.wait(t)
	b.check(t, r)
	if rep := b.report(t); rep.Retried == 0 || rep.Quarantined != 0 {
		t.Errorf("%d retried, %d in quarantine", rep.Retried, rep.Quarantined)
	}
}

func TestWrongModel(t *testing.T) {
	b := setUp(t, ollamatest.Start(t), moodJob, 4)
	r := b.start(t, "", "run", "job.yaml", "in.csv", "-o", "out.csv", "--server", b.server.URL, "--model", "llama9:70b").wait(t)
	if r.code != 1 || b.exists("out.csv") || b.server.Requests() != 0 {
		t.Errorf("want code 1, no output and no request, got %d requests\n%s", b.server.Requests(), r)
	}
	for _, want := range []string{"llama9:70b", ollamatest.Model} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("it does not name %s\n%s", want, r)
		}
	}
}

func TestNoServer(t *testing.T) {
	server := ollamatest.Start(t)
	b := setUp(t, server, moodJob, 4)
	server.Stop()
	r := b.start(t, "", b.runArgs()...).wait(t)
	if r.code != 1 || b.exists("out.csv") || !strings.Contains(r.stderr, server.URL) {
		t.Errorf("want code 1, no output and the address\n%s", r)
	}
}

// settle waits until the server has logged what a killed client left behind.
func settle(b *bench) {
	for n := -1; n != b.server.Requests(); {
		n = b.server.Requests()
		timer := time.NewTimer(300 * time.Millisecond)
		<-timer.C
	}
}

func read(t *testing.T, b *bench, name string) string {
	t.Helper()
	data, err := os.ReadFile(b.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
