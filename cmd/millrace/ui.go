package main

// This file owns how the program speaks.
//
// stdout carries results: data when the output is "-", otherwise summaries,
// lists and reports. stderr carries everything about the work: progress, notes,
// warnings, errors. Sentences are calm, say what happened and what to do, and
// end without an exclamation mark. Errors begin with "millrace:". Numbers carry
// their unit; an estimate is called one. Colour only on a terminal, and never
// as the only carrier of a meaning.

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fatih/color"
	"golang.org/x/term"

	"millrace/internal/batch"
	"millrace/internal/config"
)

// The exit codes.
const (
	exitDone       = 0
	exitFailed     = 1
	exitQuarantine = 2 // done, but some records are in quarantine
)

// hinted is an error with the next thing to do.
type hinted struct {
	err  error
	hint string
}

func (h hinted) Error() string { return h.err.Error() }
func (h hinted) Unwrap() error { return h.err }

// withHint attaches what to do next to an error.
func withHint(err error, format string, args ...any) error {
	return hinted{err, fmt.Sprintf(format, args...)}
}

// ui is where the program speaks to.
type ui struct {
	out, err   io.Writer
	outTTY     bool
	errTTY     bool
	width      int
	bold, dim  *color.Color
	good, warn *color.Color
}

func newUI(p process, when config.Color) *ui {
	u := &ui{out: p.stdout, err: p.stderr, width: 80}
	if f, ok := p.stdout.(*os.File); ok {
		u.outTTY = term.IsTerminal(int(f.Fd()))
	}
	if f, ok := p.stderr.(*os.File); ok {
		u.errTTY = term.IsTerminal(int(f.Fd()))
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
			u.width = w
		}
	}
	u.bold, u.dim = color.New(color.Bold), color.New(color.Faint)
	u.good, u.warn = color.New(color.FgGreen), color.New(color.FgYellow)
	for _, c := range []*color.Color{u.bold, u.dim, u.good, u.warn} {
		if when == config.ColorAlways || when == config.ColorAuto && u.outTTY {
			c.EnableColor()
		} else {
			c.DisableColor()
		}
	}
	return u
}

// fail prints an error, each of its lines, and its hint.
func (u *ui) fail(err error) {
	lines := strings.Split(strings.TrimRight(err.Error(), "\n"), "\n")
	fmt.Fprintf(u.err, "millrace: %s\n", strings.Join(lines, "\n          "))
	if h, ok := errors.AsType[hinted](err); ok {
		fmt.Fprintf(u.err, "          %s\n", strings.ReplaceAll(h.hint, "\n", "\n          "))
	}
}

// note prints something that the user should know.
func (u *ui) note(format string, args ...any) {
	fmt.Fprintf(u.err, "note: "+format+"\n", args...)
}

// number writes an integer with thousands separated.
func number[T ~int | ~int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	neg := strings.TrimPrefix(s, "-")
	sign := s[:len(s)-len(neg)]
	var b strings.Builder
	for i, r := range neg {
		if i > 0 && (len(neg)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(r)
	}
	return sign + b.String()
}

// rate writes a rate with three significant figures, so that slow and fast
// servers both read well.
func rate(x float64) string {
	switch {
	case x <= 0 || math.IsNaN(x) || math.IsInf(x, 0):
		return "0"
	case x >= 100:
		return number(int64(math.Round(x)))
	case x >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	default:
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
}

// duration writes a duration as a person would say it: 840 ms, 12.4 s, 3m20s, 2h05m.
func duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
}

// bytesText writes a size in units of 1000.
func bytesText(n int64) string {
	const units = "kMGT"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	x := float64(n)
	i := -1
	for x >= 1000 && i < len(units)-1 {
		x /= 1000
		i++
	}
	return fmt.Sprintf("%.1f %cB", x, units[i])
}

// plural gives the form of a noun for a count.
func plural[T ~int | ~int64](n T, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// table prints aligned columns: the first to the left, the others as given
// with their own alignment done by the caller.
func table(w io.Writer, rows [][]string) {
	var widths []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(c)))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, c := range r {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(c)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-len([]rune(c))))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// summary prints what a run did.
func (u *ui) summary(w io.Writer, r batch.Report, output, quarantine string) {
	head := "done"
	switch {
	case r.Interrupted:
		head = "stopped"
	case r.Quarantined > 0:
		head = "done, with records in quarantine"
	}
	colour := u.good
	if r.Interrupted || r.Quarantined > 0 {
		colour = u.warn
	}
	fmt.Fprintln(w, colour.Sprint(head)+u.dim.Sprintf("  %s v%d", r.Job, r.JobVersion))
	rows := [][]string{{"  records", fmt.Sprintf("%s in %s, %s records/s", number(r.Answered+r.Quarantined),
		duration(time.Duration(r.Seconds*float64(time.Second))), rate(r.RecordsPerSecond))}}
	asked := r.Answered - r.Cached - r.Deduplicated - r.Prepared
	var how []string
	for _, x := range []struct {
		n    int64
		what string
	}{{asked, "asked"}, {r.Cached, "from the cache"}, {r.Deduplicated, "same question as another record"}, {r.Prepared, "by rules"}} {
		if x.n > 0 {
			how = append(how, number(x.n)+" "+x.what)
		}
	}
	switch len(how) {
	case 0:
		rows = append(rows, []string{"  answered", number(r.Answered)})
	case 1:
		_, what, _ := strings.Cut(how[0], " ")
		rows = append(rows, []string{"  answered", fmt.Sprintf("%s, all %s", number(r.Answered), what)})
	default:
		rows = append(rows, []string{"  answered", fmt.Sprintf("%s: %s", number(r.Answered), strings.Join(how, ", "))})
	}
	if r.Quarantined > 0 {
		where := ""
		if quarantine != "" && !r.Interrupted {
			where = ", see " + quarantine
		}
		rows = append(rows, []string{"  quarantine", number(r.Quarantined) + where})
	}
	if r.Requests > 0 {
		var extra strings.Builder
		for _, x := range []struct {
			n    int64
			what string
		}{{r.Repaired, "answers repaired"}, {r.Retried, "retried"}, {r.Raised, "with a higher token limit"}} {
			if x.n > 0 {
				fmt.Fprintf(&extra, ", %s %s", number(x.n), x.what)
			}
		}
		rows = append(rows, []string{"  requests", number(r.Requests) + extra.String()})
		if r.Packed > 0 {
			rows = append(rows, []string{"  packs", fmt.Sprintf("%s records shared requests, %s of them had to be asked again alone", number(r.Packed), number(r.PackReasked))})
		}
		estimated := ""
		if r.TokensEstimated {
			estimated = " (estimated: the server does not count them)"
		}
		rows = append(rows,
			[]string{"  tokens", fmt.Sprintf("%s read, %s written, %s written/s%s", number(r.PromptTokens), number(r.CompletionTokens), rate(r.TokensPerSecond), estimated)},
			[]string{"  in flight", flightText(r.Concurrency)})
	}
	server := fmt.Sprintf("%s %s at %s, model %s", r.ServerKind, r.ServerVersion, r.Server, r.Model)
	if r.Simulated != "" {
		server = fmt.Sprintf("SIMULATED (profile %s) at %s, model %s", r.Simulated, r.Server, r.Model)
	}
	rows = append(rows, []string{"  server", strings.Join(strings.Fields(server), " ")})
	if output != "" && !r.Interrupted {
		rows = append(rows, []string{"  output", output})
	}
	table(w, rows)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
}

func flightText(c batch.Concurrency) string {
	if c.Mode == "fixed" {
		return fmt.Sprintf("%d at a time, as set", c.Level)
	}
	s := fmt.Sprintf("%d at most", c.Peak)
	if c.Found {
		s = fmt.Sprintf("%s; full rate from %d on, about %s tokens/s", s, c.Level, rate(c.Rate))
	}
	if c.Refusals > 0 {
		s += fmt.Sprintf("; lowered after %d %s or time-outs", c.Refusals, plural(c.Refusals, "refusal", "refusals"))
	}
	return s
}
