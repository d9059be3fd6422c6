package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"millrace/internal/batch"
)

// progress shows a run under way: a bar on a terminal, a line from time to
// time elsewhere. Its watch method goes into batch.Options; stop ends it.
type progress struct {
	u     *ui
	every time.Duration // between lines when piped
	done  chan struct{}
	wg    sync.WaitGroup

	mu        sync.Mutex
	container *mpb.Progress // while a bar is on the screen
}

func newProgress(u *ui) *progress {
	return &progress{u: u, every: 10 * time.Second, done: make(chan struct{})}
}

func (p *progress) watch(look func() batch.Progress) {
	p.wg.Go(func() {
		if p.u.errTTY {
			p.bar(look)
		} else {
			p.lines(look)
		}
	})
}

func (p *progress) stop() {
	close(p.done)
	p.wg.Wait()
}

// say prints a line without breaking the bar.
func (p *progress) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.container != nil {
		if _, err := p.container.Write([]byte("\r\x1b[2K" + line + "\n")); err == nil {
			return
		}
	}
	fmt.Fprintln(p.u.err, line)
}

func (p *progress) show(c *mpb.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.container = c
}

func (p *progress) lines(look func() batch.Progress) {
	t := time.NewTicker(p.every)
	defer t.Stop()
	var m meter
	for {
		select {
		case <-p.done:
			return
		case now := <-t.C:
			fmt.Fprintf(p.u.err, "%s  %s\n", now.Format(time.TimeOnly), m.text(look(), true))
		}
	}
}

func (p *progress) bar(look func() batch.Progress) {
	container := mpb.New(mpb.WithOutput(p.u.err), mpb.WithWidth(min(p.u.width, 100)))
	p.show(container)
	defer p.show(nil)
	var m meter
	var text string
	bar := container.New(0, mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("─"),
		mpb.BarRemoveOnComplete(), mpb.BarWidth(20),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + text })))
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.done:
			bar.Abort(true)
			container.Wait()
			return
		case <-t.C:
			now := look()
			total, _ := totalOf(now)
			text = m.text(now, false)
			bar.SetTotal(max(total, now.Done+1), false)
			bar.SetCurrent(now.Done)
		}
	}
}

// totalOf estimates the number of records from the share of the input read.
func totalOf(p batch.Progress) (total int64, exact bool) {
	if p.Complete {
		return p.Read, true
	}
	if p.InputShare > 0 {
		return int64(float64(p.Read) / p.InputShare), false
	}
	return 0, false
}

// meter turns progress into words. Rates are over the last half minute, so
// that they follow a server that changes.
type meter struct {
	past []batch.Progress
}

func (m *meter) text(p batch.Progress, long bool) string {
	m.past = append(m.past, p)
	for len(m.past) > 2 && p.Elapsed-m.past[1].Elapsed > 30*time.Second {
		m.past = m.past[1:]
	}
	from := m.past[0]
	if len(m.past) == 1 {
		from = batch.Progress{}
	}
	seconds := (p.Elapsed - from.Elapsed).Seconds()
	var perSecond, tokens float64
	if seconds > 0 {
		perSecond = float64(p.Done-from.Done) / seconds
		tokens = float64(p.Tokens-from.Tokens) / seconds
	}
	var parts []string
	total, exact := totalOf(p)
	switch {
	case total > 0 && exact:
		parts = append(parts, fmt.Sprintf("%s/%s", number(p.Done), number(total)))
	case total > 0:
		parts = append(parts, fmt.Sprintf("%s of about %s", number(p.Done), number(total)))
	default:
		parts = append(parts, number(p.Done)+" records")
	}
	parts = append(parts, rate(perSecond)+" rec/s")
	if p.Requests > 0 {
		parts = append(parts, rate(tokens)+" tok/s", fmt.Sprintf("%d in flight", p.InFlight))
	}
	if n := p.Cached + p.Shared; n > 0 {
		parts = append(parts, number(n)+" cached")
	}
	if p.Quarantined > 0 {
		parts = append(parts, number(p.Quarantined)+" quarantined")
	}
	if total > p.Done && perSecond > 0 {
		left := duration(time.Duration(float64(total-p.Done) / perSecond * float64(time.Second)))
		if long {
			parts = append(parts, "about "+left+" left")
		} else {
			parts = append(parts, "ETA "+left)
		}
	}
	if p.Waiting != "" {
		parts = append(parts, "waiting: "+p.Waiting)
	}
	return strings.Join(parts, ", ")
}
