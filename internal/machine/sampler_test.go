package machine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeLive is a GPU whose counter of the power cap runs while it is read.
type fakeLive struct {
	mu       sync.Mutex
	reads    int
	counters int
	slow     time.Duration
	fail     error
	closed   bool
}

func (f *fakeLive) Read(ctx context.Context, counters bool) ([]GPUSample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if f.slow > 0 {
		select {
		case <-time.After(f.slow):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.fail != nil {
		return nil, f.fail
	}
	s := GPUSample{Vendor: NVIDIA, PowerDrawW: new(float64(f.reads))}
	if counters {
		f.counters++
		s.ThrottleCountersUS = map[Reason]int64{SWPowerCap: int64(1000 * f.reads), SyncBoost: int64(100 - f.reads)}
	}
	return []GPUSample{s}, nil
}

func (f *fakeLive) Close() { f.closed = true }

func TestSampler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := &fakeLive{}
		s := &Sampler{interval: 200 * time.Millisecond, live: live}
		s.Start(t.Context())
		s.Start(t.Context()) // does nothing
		time.Sleep(10*time.Second + 50*time.Millisecond)
		tr := s.Stop()
		if len(tr.Samples) != 50 || tr.Missed != 0 || tr.DurationMS != 10050 || tr.IntervalMS != 200 {
			t.Fatalf("%d samples, %d missed, %v ms, every %v ms", len(tr.Samples), tr.Missed, tr.DurationMS, tr.IntervalMS)
		}
		if at := tr.Samples[9].AtMS; at != 2000 {
			t.Errorf("the tenth sample is at %v ms", at)
		}
		// 1 before, 50 during, 1 after; the counters before, after, and once a second.
		if live.reads != 52 || live.counters != 12 {
			t.Errorf("%d reads, %d with counters", live.reads, live.counters)
		}
		if d := cmp.Diff(map[Reason]int64{SWPowerCap: 51_000}, tr.ThrottledUS(NVIDIA, 0)); d != "" {
			t.Error(d) // the counter that ran backwards is not in it
		}
		if tr.ThrottledUS(NVIDIA, 1) != nil || tr.ThrottledUS(AMD, 0) != nil {
			t.Error("counters of a GPU that is not there")
		}
		if again := s.Stop(); again.Samples != nil {
			t.Error("stopped twice")
		}
		s.Start(t.Context()) // and once more
		time.Sleep(time.Second)
		s.Close()
		if !live.closed {
			t.Error("its source is open")
		}
	})
}

// TestSamplerTrouble: a source that hangs or fails costs its samples, not the
// others, and Stop does not wait for it.
func TestSamplerTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Sampler{interval: 200 * time.Millisecond, live: &fakeLive{fail: errors.New("gone")}, host: &watcher{}}
		s.Start(t.Context())
		time.Sleep(1010 * time.Millisecond)
		tr := s.Stop()
		if len(tr.Samples) != 5 || tr.Missed != 7 || !cmp.Equal(tr.Trouble, []string{"gone"}) {
			t.Errorf("%d samples, %d missed, %v", len(tr.Samples), tr.Missed, tr.Trouble)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &Sampler{interval: 200 * time.Millisecond, live: &fakeLive{slow: time.Hour}}
		ctx, cancel := context.WithCancel(t.Context())
		s.Start(ctx)
		time.Sleep(3500 * time.Millisecond)
		cancel()
		synctest.Wait()
		begin := time.Now()
		tr := s.Stop()
		if wait := time.Since(begin); wait > s.patience() {
			t.Errorf("Stop took %v", wait)
		}
		if len(tr.Samples) > 4 || tr.Missed < 3 {
			t.Errorf("%d samples, %d missed", len(tr.Samples), tr.Missed)
		}
	})
}

// fakeProcs is a server of two processes beside others.
type fakeProcs struct{ now func() time.Duration }

func (f fakeProcs) list(context.Context) ([]Proc, error) {
	return []Proc{{PID: 1, Name: "init"}, {PID: 10, Parent: 1, Name: "ollama"}, {PID: 11, Parent: 10, Name: "llama-server"}, {PID: 12, Parent: 1, Name: "shell"}}, nil
}

func (f fakeProcs) times(_ context.Context, pids []int) ([]Proc, error) {
	var out []Proc
	for _, pid := range pids {
		p := Proc{PID: pid, Threads: map[int]time.Duration{pid: 0}}
		if pid == 11 { // one thread is always busy, another a quarter of the time
			p.CPU = 1000*time.Hour + f.now()*5/4
			p.Threads = map[int]time.Duration{11: 999*time.Hour + f.now(), 13: time.Hour + f.now()/4}
		}
		out = append(out, p)
	}
	return out, nil
}

func (f fakeProcs) busy(context.Context) (time.Duration, bool) { return f.now() * 2, true }

func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f := fakeProcs{func() time.Duration { return time.Since(begin) }}
		s := &Sampler{interval: 200 * time.Millisecond, host: &watcher{
			src: f, every: 2 * time.Second, watch: Watch{Name: func(n string) bool { return n == "ollama" }},
		}}
		s.Start(t.Context())
		time.Sleep(time.Second + time.Millisecond)
		tr := s.Stop()
		if len(tr.Samples) != 5 {
			t.Fatalf("%d samples", len(tr.Samples))
		}
		want := HostSample{BusyCores: new(2.0), ServerCores: new(1.25), BusiestThread: new(1.0), ServerProcesses: new(2)}
		for i, x := range tr.Samples {
			if d := cmp.Diff(want, x.Host); d != "" {
				t.Errorf("sample %d: %s", i, d)
			}
		}
	})
}

func TestFamily(t *testing.T) {
	all := []Proc{{PID: 2, Parent: 1}, {PID: 1, Parent: 0}, {PID: 3, Parent: 2}, {PID: 4, Parent: 4}, {PID: 5, Parent: 9}}
	if d := cmp.Diff([]int{2, 3}, Watch{PIDs: []int{2, 77}}.Family(all)); d != "" {
		t.Error(d)
	}
}

func TestProcStat(t *testing.T) {
	p, err := ParseProcStat([]byte("42 (a b) (c)) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 12 0 1 2"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Proc{PID: 42, Parent: 7, Name: "a b) (c)", CPU: 2 * time.Second}, p); d != "" {
		t.Error(d)
	}
	for in, want := range map[string]time.Duration{"1:02.50": 62500 * time.Millisecond, "1-02:03:04": 93784 * time.Second, "2:00:01": 7201 * time.Second} {
		if got, ok := psTime(in); !ok || got != want {
			t.Errorf("%s = %v, want %v", in, got, want)
		}
	}
	for _, in := range []string{"", "x", "5", "1-2:3", "1:-2"} {
		if got, ok := psTime(in); ok {
			t.Errorf("%q = %v", in, got)
		}
	}
	if got, ok := ParseHostStat([]byte("cpu  100 20 30 4000 50 6 7 8 9 10\ncpu0 1\n")); !ok || got != 1630*time.Millisecond {
		t.Errorf("busy for %v", got)
	}
}

// TestProcHere counts this process's own work.
func TestProcHere(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	all, err := This().Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, p := range all {
		found = found || p.PID == os.Getpid() && p.Parent == os.Getppid()
	}
	if !found {
		t.Error("this process is not in the list")
	}
	ps, err := newProcesses("/", run).times(t.Context(), []int{os.Getpid(), 1 << 30})
	if err != nil || len(ps) != 1 || len(ps[0].Threads) == 0 {
		t.Errorf("%+v, %v", ps, err)
	}
}

func TestLiveNVML(t *testing.T) {
	l, err := newLiveNVML(fakeNVML())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Read(t.Context(), false)
	if err != nil || len(s) != 1 || s[0].ThrottleCountersUS != nil {
		t.Errorf("%+v, %v", s, err)
	}
	equal(t, "draw", s[0].PowerDrawW, 34.2)
	s, err = l.Read(t.Context(), true)
	if err != nil || s[0].ThrottleCountersUS[HWPowerBrake] != 9 {
		t.Errorf("%+v, %v", s, err)
	}
	l.Close()
	l.Close()
}

// TestLiveNVMLStuck: a call that hangs in the driver holds up only itself.
func TestLiveNVMLStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		lib := fakeNVML()
		lib.Utilization = func(nvmlDevice, *nvmlUtilization) nvmlReturn { <-release; return nvmlSuccess }
		l, err := newLiveNVML(lib)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if s, err := l.Read(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, %v", s, err)
			}
			cancel()
		}
		close(release)
		l.Close()
	})
}

// TestFollow reads the capture of an H100 under load as a stream.
func TestFollow(t *testing.T) {
	data := string(testdata(t, "nvidia", "h100-load.csv"))
	head, body, _ := strings.Cut(data, "\n")
	columns := csvHeader(head)
	l := &liveStream{columns: columns, every: 200 * time.Millisecond, first: make(chan struct{}), ended: make(chan struct{}), rows: map[int]GPUSample{}}
	l.follow(strings.NewReader(body))
	s, err := l.Read(t.Context(), true)
	if err != nil || len(s) != 1 {
		t.Fatalf("%v, %v", s, err)
	}
	lines := strings.Split(strings.TrimSpace(body), "\n")
	last := strings.Split(lines[len(lines)-1], ", ")
	w, ok := watts(last[3])
	if !ok {
		t.Fatal(last)
	}
	equal(t, "draw", s[0].PowerDrawW, w)
	if s[0].ThrottleReasons == nil {
		t.Error("reasons are not known")
	}
}

// TestStream runs a program in nvidia-smi's place and ends it.
func TestStream(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a shell")
	}
	dir := t.TempDir()
	smi := filepath.Join(dir, "nvidia-smi")
	const body = `case "$1" in
--help-query-gpu) printf '"index"\n"power.draw"\n"clocks_throttle_reasons.active"\n' ;;
--query-gpu=index,power.draw,clocks_throttle_reasons.active) while :; do echo "0, 50.5, 0x4"; echo "1, [N/A], 0x0"; sleep 0.05; done ;;
*) echo "$@" >&2; exit 2 ;;
esac`
	if err := os.WriteFile(smi, []byte("#!"+sh+"\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h := Host{OS: "linux", Root: dir, Timeout: 10 * time.Second, Run: func(ctx context.Context, name string, args ...string) ([]byte, error) {
		if name != "nvidia-smi" {
			return nil, &exec.Error{Name: name, Err: exec.ErrNotFound}
		}
		return run(ctx, smi, args...)
	}}
	_, known, err := h.smiKnows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := startStream(smi, choose(liveColumns, known), 50*time.Millisecond)
	s, err := l.Read(t.Context(), true)
	if err != nil || len(s) == 0 {
		t.Fatalf("%v, %v", s, err)
	}
	equal(t, "draw", s[0].PowerDrawW, 50.5)
	if d := cmp.Diff([]Reason{SWPowerCap}, s[0].ThrottleReasons); d != "" {
		t.Error(d)
	}
	l.Close()
	// One that fails at once is an error, not a wait.
	l = startStream(smi, []string{"nonsense"}, 50*time.Millisecond)
	if s, err := l.Read(t.Context(), true); err == nil {
		t.Errorf("%v and no error", s)
	}
	l.Close()
}

func TestRun(t *testing.T) {
	if _, err := run(t.Context(), "millrace-no-such-program"); !notInstalled(err) {
		t.Errorf("a missing program: %v", err)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a shell")
	}
	out, err := run(t.Context(), sh, "-c", "echo $LC_ALL; echo bad >&2; exit 3")
	if string(out) != "C\nbad\n" || err == nil || !strings.Contains(err.Error(), "code 3") {
		t.Errorf("%q, %v", out, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := run(ctx, sh, "-c", "sleep 60"); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled program: %v", err)
	}
}

// TestOpenSamplerHere opens what this machine has and follows it for a moment.
func TestOpenSamplerHere(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the machine's own tools")
	}
	s := This().OpenSampler(t.Context(), SamplerOptions{Interval: 20 * time.Millisecond, Watch: Watch{PIDs: []int{os.Getpid()}}})
	defer s.Close()
	s.Start(t.Context())
	for range 3 {
		select { // give it the time for some samples
		case <-time.After(40 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	tr := s.Stop()
	if len(tr.Samples) == 0 {
		t.Fatal("no sample")
	}
	t.Logf("%d samples in %.0f ms; reading took %.2f ms, %.2f %% of a core", len(tr.Samples), tr.DurationMS, tr.ReadingMS, 100*tr.ReadingMS/tr.DurationMS)
	t.Log(pretty(t, tr.Samples[len(tr.Samples)-1]))
	t.Log(pretty(t, tr.Readings))
}
