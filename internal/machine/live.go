package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Live gives readings of GPUs while they work.
type Live interface {
	// Read returns the newest reading of each GPU; with counters, the throttle
	// counters as well, which cost more. It returns within its context.
	Read(ctx context.Context, counters bool) ([]GPUSample, error)
	Close()
}

// liveNVML reads through NVIDIA's library. One goroutine makes the calls, so
// that one that hangs in the driver holds up nobody else.
type liveNVML struct {
	lib     *nvml
	devices []nvmlDevice
	ask     chan liveAsk
	once    sync.Once
}

type liveAsk struct {
	counters bool
	answer   chan<- []GPUSample
}

func newLiveNVML(lib *nvml) (*liveNVML, error) {
	devices, err := lib.open()
	if devices == nil {
		return nil, err
	}
	l := &liveNVML{lib: lib, devices: devices, ask: make(chan liveAsk)}
	go l.serve()
	return l, nil
}

func (l *liveNVML) serve() {
	defer l.lib.shutdown()
	for a := range l.ask {
		var out []GPUSample
		for i, d := range l.devices {
			if d != 0 {
				out = append(out, l.lib.sample(i, d, a.counters))
			}
		}
		a.answer <- out
	}
}

func (l *liveNVML) Read(ctx context.Context, counters bool) ([]GPUSample, error) {
	answer := make(chan []GPUSample, 1)
	select {
	case l.ask <- liveAsk{counters, answer}:
	case <-ctx.Done(): // it still hangs in the call before
		return nil, fmt.Errorf("NVML: %w", ctx.Err())
	}
	select {
	case s := <-answer:
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("NVML: %w", ctx.Err())
	}
}

func (l *liveNVML) Close() { l.once.Do(func() { close(l.ask) }) }

// errNoSample says that a stream has nothing newer.
var errNoSample = errors.New("no new sample")

// liveStream keeps the newest rows that one nvidia-smi, running all the time,
// prints five times a second.
type liveStream struct {
	columns []string
	every   time.Duration
	stop    context.CancelFunc
	ended   chan struct{}
	first   chan struct{} // closed at the first row

	mu   sync.Mutex
	rows map[int]GPUSample
	seen time.Time // of the newest row
	err  error     // why it ended, or the last bad line
}

// follow reads rows until the reader ends.
func (l *liveStream) follow(r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<16)
	var once sync.Once
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" {
			continue
		}
		row, err := csvRow(l.columns, line)
		l.mu.Lock()
		switch {
		case err != nil:
			l.err = fmt.Errorf("nvidia-smi: %s: %w", firstLine([]byte(line)), err)
			if p := NVIDIAProblem([]byte(line)); p != nil {
				l.err = p
			}
		case row != nil:
			l.rows[row.GPU.Index] = sampleOf(&row.GPU)
			l.seen = time.Now()
			once.Do(func() { close(l.first) })
		}
		l.mu.Unlock()
	}
}

func (l *liveStream) Read(ctx context.Context, _ bool) ([]GPUSample, error) {
	select {
	case <-l.first:
	case <-l.ended:
	case <-ctx.Done():
		return nil, fmt.Errorf("nvidia-smi: %w", ctx.Err())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.seen) > 5*l.every {
		if l.err != nil {
			return nil, l.err
		}
		return nil, errNoSample
	}
	out := make([]GPUSample, 0, len(l.rows))
	for _, s := range l.rows {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b GPUSample) int { return a.Index - b.Index })
	return out, nil
}

func (l *liveStream) Close() {
	l.stop()
	<-l.ended
}

// startStream runs nvidia-smi until it is closed. It dies with this process.
func startStream(program string, columns []string, every time.Duration) *liveStream {
	ctx, stop := context.WithCancel(context.Background())
	l := &liveStream{
		columns: columns, every: every, stop: stop,
		ended: make(chan struct{}), first: make(chan struct{}), rows: map[int]GPUSample{},
	}
	go func() {
		defer close(l.ended)
		defer stop()
		// The signal that ends the child with its parent belongs to this thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := command(ctx, program, "--query-gpu="+strings.Join(columns, ","), "--format=csv,noheader,nounits",
			fmt.Sprintf("--loop-ms=%d", every.Milliseconds()))
		started := tie(cmd)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			release := started()
			l.follow(out)
			err = cmd.Wait()
			release()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if err != nil && l.err == nil && ctx.Err() == nil {
			l.err = fmt.Errorf("nvidia-smi ended: %w", err)
		}
	}()
	return l
}

// liveAMD reads the folders of AMD's cards, which costs a few dozen small
// files for each.
type liveAMD struct{ cards map[int]tree }

func (l liveAMD) Read(_ context.Context, _ bool) ([]GPUSample, error) {
	var out []GPUSample
	for i, dev := range l.cards {
		out = append(out, amdSample(dev, i))
	}
	slices.SortFunc(out, func(a, b GPUSample) int { return a.Index - b.Index })
	return out, nil
}

func (liveAMD) Close() {}

// liveRun runs a program now and then and repeats its last answer between.
type liveRun struct {
	every time.Duration
	run   func(context.Context) ([]GPUSample, error)
	last  []GPUSample
	at    time.Time
}

func (l *liveRun) Read(ctx context.Context, _ bool) ([]GPUSample, error) {
	if !l.at.IsZero() && time.Since(l.at) < l.every {
		return l.last, nil
	}
	s, err := l.run(ctx)
	if err != nil {
		return nil, err
	}
	l.last, l.at = s, time.Now()
	return s, nil
}

func (*liveRun) Close() {}

// liveAll joins several.
type liveAll []Live

func (l liveAll) Read(ctx context.Context, counters bool) ([]GPUSample, error) {
	var out []GPUSample
	var errs []error
	for _, x := range l {
		s, err := x.Read(ctx, counters)
		out = append(out, s...)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

func (l liveAll) Close() {
	for _, x := range l {
		x.Close()
	}
}

// openLive opens what there is on this host. Each is a reading.
func (h Host) openLive(ctx context.Context, every time.Duration) (liveAll, []Reading) {
	var (
		all liveAll
		rs  []Reading
	)
	open := func(name string, f func(context.Context) (Live, error)) bool {
		ctx, cancel := context.WithTimeout(ctx, h.Timeout)
		defer cancel()
		begin := time.Now()
		l, err := f(ctx)
		r := outcome(ctx, h.collector(name, nil), err)
		r.Name, r.TookMS = name, float64(time.Since(begin).Microseconds())/1000
		rs = append(rs, r)
		if l != nil {
			all = append(all, l)
		}
		return l != nil
	}
	if h.OS != "darwin" && !open(ReadNVML, h.openNVML) {
		open(ReadNVIDIASMI, func(ctx context.Context) (Live, error) { return h.openStream(ctx, every) })
	}
	switch h.OS {
	case "linux":
		open(ReadPCI, func(context.Context) (Live, error) {
			cards := map[int]tree{}
			for _, g := range pciGPUs(h.root()) {
				if g.Vendor == AMD {
					cards[g.Index] = g.dir
				}
			}
			if len(cards) == 0 {
				return nil, noData("no AMD GPU in /sys")
			}
			return liveAMD{cards}, nil
		})
	case "darwin":
		open(ReadIOReg, func(ctx context.Context) (Live, error) {
			l := &liveRun{every: 2 * time.Second, run: func(ctx context.Context) ([]GPUSample, error) {
				b, err := h.program(ctx, "ioreg", ioregArgs...)
				if err != nil {
					return nil, err
				}
				s, err := ParseIOReg(b)
				return []GPUSample{s}, err
			}}
			_, err := l.Read(ctx, false)
			if err != nil {
				return nil, err
			}
			return l, nil
		})
	}
	return all, rs
}

// openNVML opens the library for sampling, and gives up on one that does not
// answer.
func (h Host) openNVML(ctx context.Context) (Live, error) {
	if h.nvml == nil {
		return nil, noData("not asked")
	}
	type result struct {
		l   *liveNVML
		err error
	}
	done := make(chan result)
	go func() {
		var r result
		lib, err := h.nvml()
		if err == nil {
			r.l, err = newLiveNVML(lib)
		}
		r.err = err
		select {
		case done <- r:
		case <-ctx.Done(): // nobody waits any more
			if r.l != nil {
				r.l.Close()
			}
		}
	}()
	select {
	case r := <-done:
		if r.l == nil {
			return nil, r.err
		}
		return r.l, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// openStream starts nvidia-smi with the properties that it knows.
func (h Host) openStream(ctx context.Context, every time.Duration) (Live, error) {
	program, known, err := h.smiKnows(ctx)
	if err != nil {
		return nil, err
	}
	l := startStream(program, choose(liveColumns, known), every)
	if _, err := l.Read(ctx, true); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
