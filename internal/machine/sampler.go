package machine

import (
	"context"
	"maps"
	"time"
)

// SamplerOptions say what a Sampler follows.
type SamplerOptions struct {
	// Interval is the time between samples; 200 ms if zero. A reading that
	// takes longer is not overlapped: samples are left out.
	Interval time.Duration
	// Watch are the server's processes. Without it only GPUs and the host as
	// a whole are followed.
	Watch Watch
}

// Sampler follows GPUs, host and server around a load. Opening it may take a
// second; it can then be started and stopped many times. A Sampler is for one
// goroutine. Samples take about 0.5 kB each while it runs.
type Sampler struct {
	interval time.Duration
	live     Live
	host     *watcher
	memory   func() Memory
	readings []Reading

	stop  context.CancelFunc // set between Start and Stop
	done  chan struct{}
	trace *Trace
}

// Sample is everything at one moment.
type Sample struct {
	AtMS float64     `json:"at_ms"` // since the start
	GPUs []GPUSample `json:"gpus,omitzero"`
	Host HostSample  `json:"host,omitzero"`
}

// Trace is what was sampled between a start and a stop.
type Trace struct {
	Start      time.Time `json:"start"`
	IntervalMS float64   `json:"interval_ms"`
	DurationMS float64   `json:"duration_ms"`
	// Before and After hold the counters at the start and at the stop; only
	// their difference says anything of the time between.
	Before  []GPUSample `json:"before,omitzero"`
	After   []GPUSample `json:"after,omitzero"`
	Samples []Sample    `json:"samples"`
	// Missed is how many samples lack the GPUs because they did not answer.
	Missed int `json:"missed"`
	// Trouble is what went wrong while sampling, each message once.
	Trouble []string `json:"trouble,omitzero"`
	// ReadingMS is the time spent reading: an upper bound of what sampling
	// cost one core.
	ReadingMS float64 `json:"reading_ms"`
	// Readings say which sources were opened.
	Readings []Reading `json:"readings,omitzero"`
}

// OpenSampler finds out what can be followed on this host and opens it. It
// does not fail: without a GPU that can be read the samples hold none.
func (h Host) OpenSampler(ctx context.Context, o SamplerOptions) *Sampler {
	if o.Interval <= 0 {
		o.Interval = 200 * time.Millisecond
	}
	live, readings := h.openLive(ctx, o.Interval)
	w := &watcher{src: newProcesses(h.root(), h.Run), watch: o.Watch, every: 2 * time.Second}
	s := &Sampler{interval: o.Interval, live: live, host: w, readings: readings}
	switch h.OS {
	case "darwin":
		w.least = 2 * time.Second
	case "linux":
		s.memory = func() Memory { m, _ := linuxMemory(h.root()); return m }
	case "windows":
		s.memory = func() Memory { m, _ := systemMemory(); return m }
	}
	return s
}

// Close ends the sampler, and the programs that it runs.
func (s *Sampler) Close() {
	if s.stop != nil {
		s.Stop()
	}
	if s.live != nil {
		s.live.Close()
	}
}

// Start reads the counters once and begins to sample, until Stop or the end
// of the context. Started while it runs, it does nothing.
func (s *Sampler) Start(ctx context.Context) {
	if s.stop != nil {
		return
	}
	ctx, s.stop = context.WithCancel(ctx)
	t := &Trace{
		Start: time.Now(), IntervalMS: float64(s.interval.Microseconds()) / 1000,
		Samples: []Sample{}, Readings: s.readings,
	}
	s.trace, s.done = t, make(chan struct{})
	t.Before = s.take(ctx, t, true).GPUs
	go func() {
		defer close(s.done)
		tick := time.NewTicker(s.interval)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// The counters about once a second.
				x := s.take(ctx, t, n%max(1, int(time.Second/s.interval)) == 0)
				if ctx.Err() == nil {
					t.Samples = append(t.Samples, x)
				}
			}
		}
	}()
}

// Stop ends the sampling and returns what was seen; nothing if it was not
// started.
func (s *Sampler) Stop() Trace {
	if s.stop == nil {
		return Trace{}
	}
	s.stop()
	<-s.done
	t := s.trace
	t.DurationMS = float64(time.Since(t.Start).Microseconds()) / 1000
	ctx, cancel := context.WithTimeout(context.Background(), s.patience())
	defer cancel()
	t.After = s.take(ctx, t, true).GPUs
	s.stop, s.trace = nil, nil
	return *t
}

// patience is how long a sample waits for the GPUs.
func (s *Sampler) patience() time.Duration { return max(2*s.interval, time.Second) }

// take reads one sample.
func (s *Sampler) take(ctx context.Context, t *Trace, counters bool) Sample {
	begin := time.Now()
	x := Sample{AtMS: float64(begin.Sub(t.Start).Microseconds()) / 1000}
	defer func() { t.ReadingMS += float64(time.Since(begin).Microseconds()) / 1000 }()
	if s.live != nil {
		waiting, cancel := context.WithTimeout(ctx, s.patience())
		defer cancel()
		var err error
		x.GPUs, err = s.live.Read(waiting, counters)
		if err != nil && ctx.Err() == nil { // not merely stopped in the middle
			t.Missed++
			t.note(err)
		}
	}
	if s.host != nil {
		h, err := s.host.sample(ctx, begin)
		if err != nil {
			t.note(err)
		}
		if s.memory != nil {
			m := s.memory()
			h.AvailableBytes, h.SwapUsedBytes = m.AvailableBytes, m.SwapUsedBytes
		}
		x.Host = h
	}
	return x
}

// note keeps a message once.
func (t *Trace) note(err error) {
	const most = 20
	for _, m := range t.Trouble {
		if m == err.Error() {
			return
		}
	}
	if len(t.Trouble) < most {
		t.Trouble = append(t.Trouble, err.Error())
	}
}

// ThrottledUS is how long each reason held between start and stop, in
// microseconds, for one GPU. Reasons without a counter at both ends are
// absent, as are counters that ran backwards (the driver was loaded anew).
func (t *Trace) ThrottledUS(vendor string, index int) map[Reason]int64 {
	find := func(list []GPUSample) map[Reason]int64 {
		for _, s := range list {
			if s.Vendor == vendor && s.Index == index {
				return s.ThrottleCountersUS
			}
		}
		return nil
	}
	before, after := find(t.Before), find(t.After)
	var out map[Reason]int64
	for r := range maps.Keys(after) {
		b, ok := before[r]
		if !ok || after[r] < b {
			continue
		}
		if out == nil {
			out = map[Reason]int64{}
		}
		out[r] = after[r] - b
	}
	return out
}
