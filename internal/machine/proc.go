package machine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Proc is a process and the processor time that it has used.
type Proc struct {
	PID    int
	Parent int
	Name   string // the program's; Linux cuts it after 15 bytes
	CPU    time.Duration
	// Threads is the time of each thread by its number; nil where the system
	// does not tell (macOS).
	Threads map[int]time.Duration
}

// processes reads processes of a system: all of them without their threads,
// or some with them. One that has ended is left out.
type processes interface {
	list(context.Context) ([]Proc, error)
	times(ctx context.Context, pids []int) ([]Proc, error)
	busy(context.Context) (time.Duration, bool) // processor time of the whole host
}

// newProcesses asks the system where it has calls for it, reads /proc where
// there is one, and else asks ps.
func newProcesses(root tree, run Runner) processes {
	if p := systemProcesses(); p != nil {
		return p
	}
	if root.exists("proc", "stat") {
		return procfs(root.within("proc"))
	}
	return psProcesses{run}
}

// tick is the unit of times in /proc: USER_HZ, which is 100 on every
// architecture that we build for (Linux include/asm-generic/param.h).
const tick = time.Second / 100

// ParseProcStat reads /proc/PID/stat or /proc/PID/task/TID/stat.
func ParseProcStat(data []byte) (Proc, error) {
	s := string(data)
	open, shut := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || shut < open {
		return Proc{}, errors.New("stat: no name in brackets")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(s[:open]))
	f := strings.Fields(s[shut+1:])
	if err != nil || len(f) < 13 {
		return Proc{}, errors.New("stat: too few fields")
	}
	parent, err1 := strconv.Atoi(f[1])
	user, err2 := strconv.ParseInt(f[11], 10, 64)
	system, err3 := strconv.ParseInt(f[12], 10, 64)
	const most = int64(math.MaxInt64 / tick / 2)
	if err := errors.Join(err1, err2, err3); err != nil || user < 0 || system < 0 || user > most || system > most {
		return Proc{}, errors.New("stat: a field is not a number")
	}
	return Proc{PID: pid, Parent: parent, Name: s[open+1 : shut], CPU: time.Duration(user+system) * tick}, nil
}

// procfs is processes of Linux, below /proc.
type procfs tree

func (p procfs) list(context.Context) ([]Proc, error) {
	var out []Proc
	for _, n := range tree(p).names() {
		if n[0] < '0' || n[0] > '9' {
			continue
		}
		b, err := tree(p).bytes(n, "stat")
		if err != nil {
			continue
		}
		if x, err := ParseProcStat(b); err == nil {
			out = append(out, x)
		}
	}
	if out == nil {
		return nil, noData("no process in /proc")
	}
	return out, nil
}

func (p procfs) times(_ context.Context, pids []int) ([]Proc, error) {
	var out []Proc
	for _, pid := range pids {
		dir := strconv.Itoa(pid)
		b, err := tree(p).bytes(dir, "stat")
		if err != nil {
			continue
		}
		x, err := ParseProcStat(b)
		if err != nil {
			continue
		}
		x.Threads = map[int]time.Duration{}
		for _, tid := range tree(p).names(dir, "task") {
			b, err := tree(p).bytes(dir, "task", tid, "stat")
			if err != nil {
				continue
			}
			if t, err := ParseProcStat(b); err == nil {
				x.Threads[t.PID] = t.CPU
			}
		}
		out = append(out, x)
	}
	return out, nil
}

func (p procfs) busy(context.Context) (time.Duration, bool) {
	b, err := tree(p).bytes("stat")
	if err != nil {
		return 0, false
	}
	return ParseHostStat(b)
}

// ParseHostStat reads the first line of /proc/stat: the time in which
// processors did something. Guests' time is already in user time, and waiting
// for a disk is not work.
func ParseHostStat(data []byte) (time.Duration, bool) {
	line, _, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(line)
	if len(f) < 5 || f[0] != "cpu" {
		return 0, false
	}
	var total int64
	for i, s := range f[1:min(len(f), 9)] { // user nice system idle iowait irq softirq steal
		x, err := strconv.ParseInt(s, 10, 64)
		if err != nil || x < 0 || x > math.MaxInt64/int64(tick)/16 {
			return 0, false
		}
		if i != 3 && i != 4 && i != 7 {
			total += x
		}
	}
	return time.Duration(total) * tick, true
}

// ParsePS reads `ps -axo pid=,ppid=,time=,comm=` of macOS.
func ParsePS(data []byte) []Proc {
	var out []Proc
	for line := range strings.SplitSeq(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		pid, err1 := strconv.Atoi(f[0])
		parent, err2 := strconv.Atoi(f[1])
		cpu, ok := psTime(f[2])
		if err1 != nil || err2 != nil || !ok {
			continue
		}
		out = append(out, Proc{PID: pid, Parent: parent, Name: programName(strings.Join(f[3:], " ")), CPU: cpu})
	}
	return out
}

// psTime reads [[days-]hours:]minutes:seconds with or without hundredths.
func psTime(s string) (time.Duration, bool) {
	total := 0.0
	if days, rest, ok := strings.Cut(s, "-"); ok {
		d, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, false
		}
		if strings.Count(rest, ":") != 2 {
			return 0, false
		}
		total, s = float64(d)*24/60, rest // the first step below makes hours of it
	}
	for part := range strings.SplitSeq(s, ":") {
		x, err := strconv.ParseFloat(part, 64)
		if err != nil || !(x >= 0 && x < 1e7) {
			return 0, false
		}
		total = total*60 + x
	}
	if !(total < 1e10) || strings.Count(s, ":") == 0 {
		return 0, false
	}
	return time.Duration(total * float64(time.Second)), true
}

// psProcesses is processes of macOS.
type psProcesses struct{ run Runner }

func (p psProcesses) list(ctx context.Context) ([]Proc, error) {
	b, err := p.run(ctx, "ps", "-axo", "pid=,ppid=,time=,comm=")
	if err != nil {
		return nil, err
	}
	return ParsePS(b), nil
}

func (p psProcesses) times(ctx context.Context, pids []int) ([]Proc, error) {
	list := make([]string, len(pids))
	for i, pid := range pids {
		list[i] = strconv.Itoa(pid)
	}
	b, err := p.run(ctx, "ps", "-o", "pid=,ppid=,time=,comm=", "-p", strings.Join(list, ","))
	if out := ParsePS(b); len(out) > 0 || err == nil {
		return out, nil // ps fails if one of them has ended
	}
	return nil, err
}

func (psProcesses) busy(context.Context) (time.Duration, bool) { return 0, false }

// Watch says which processes are the server's: those with these numbers or
// with a name that matches, and all their descendants.
type Watch struct {
	PIDs []int
	Name func(string) bool // nil matches none
}

// Family picks the watched processes and their descendants.
func (w Watch) Family(all []Proc) []int {
	in := map[int]bool{}
	for _, pid := range w.PIDs {
		in[pid] = true
	}
	for _, p := range all {
		if w.Name != nil && w.Name(p.Name) {
			in[p.PID] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if !in[p.PID] && in[p.Parent] && p.Parent != 0 && p.Parent != p.PID {
				in[p.PID], grown = true, true
			}
		}
	}
	var out []int
	for _, p := range all {
		if in[p.PID] {
			out = append(out, p.PID)
		}
	}
	slices.Sort(out)
	return out
}

// watcher follows the server's processes and the host from sample to sample.
type watcher struct {
	src     processes
	watch   Watch
	every   time.Duration // between searches for new processes; searching reads the whole table
	least   time.Duration // between readings, where one costs a program's run
	family  []int
	sought  time.Time
	at      time.Time
	procs   map[int]time.Duration
	threads map[[2]int]time.Duration
	host    *time.Duration
	last    HostSample
}

// sample reads the use since the sample before. A process or thread that is
// new counts from now on: what it did before it was seen belongs to no
// interval.
func (w *watcher) sample(ctx context.Context, now time.Time) (HostSample, error) {
	if w.src == nil {
		return HostSample{}, nil
	}
	if !w.at.IsZero() && now.Sub(w.at) < w.least {
		return w.last, nil
	}
	var s HostSample
	wall := now.Sub(w.at)
	first := w.at.IsZero() || wall <= 0
	share := func(d time.Duration) *float64 { return new(max(0, float64(d)/float64(wall))) }

	if t, ok := w.src.busy(ctx); ok {
		if w.host != nil && !first {
			s.BusyCores = share(t - *w.host)
		}
		w.host = &t
	}
	if len(w.watch.PIDs) > 0 || w.watch.Name != nil {
		if w.sought.IsZero() || now.Sub(w.sought) >= w.every {
			all, err := w.src.list(ctx)
			if err != nil {
				return s, fmt.Errorf("processes: %w", err)
			}
			w.family, w.sought = w.watch.Family(all), now
		}
		if err := w.server(ctx, &s, first, share); err != nil {
			return s, fmt.Errorf("processes: %w", err)
		}
	}
	w.at, w.last = now, s
	return s, nil
}

func (w *watcher) server(ctx context.Context, s *HostSample, first bool, share func(time.Duration) *float64) error {
	if len(w.family) == 0 {
		s.ServerProcesses = new(0)
		w.procs, w.threads = nil, nil
		return nil
	}
	now, err := w.src.times(ctx, w.family)
	if err != nil {
		return err
	}
	procs, threads := map[int]time.Duration{}, map[[2]int]time.Duration{}
	var used, busiest time.Duration
	knowThreads := len(now) > 0
	compared := false
	for _, p := range now {
		procs[p.PID] = p.CPU
		if before, ok := w.procs[p.PID]; ok {
			used += max(0, p.CPU-before)
			compared = true
		}
		knowThreads = knowThreads && p.Threads != nil
		for tid, cpu := range p.Threads {
			key := [2]int{p.PID, tid}
			threads[key] = cpu
			if before, ok := w.threads[key]; ok {
				busiest = max(busiest, cpu-before)
			}
		}
	}
	s.ServerProcesses = new(len(now))
	if !first && compared {
		s.ServerCores = share(used)
		if knowThreads {
			s.BusiestThread = share(busiest)
		}
	}
	w.procs, w.threads = procs, threads
	return nil
}
