package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"

	"millrace/internal/batch"
	"millrace/internal/job"
	"millrace/internal/llm"
	"millrace/internal/record"
)

type runCmd struct {
	Job   string `arg:"" help:"Name of a built-in job, or path of a job file (YAML)."`
	Input string `arg:"" help:"Records: CSV, TSV, JSONL or Parquet by ending, also .gz and .zst; - for stdin."`

	Output     string            `short:"o" help:"Where the answered records go; - for stdout (default: beside the input)." placeholder:"FILE"`
	Param      map[string]string `short:"p" help:"Parameter of a built-in job." placeholder:"NAME=VALUE"`
	Format     string            `help:"Format of stdin and stdout (default: jsonl), or of files whose ending does not tell." placeholder:"csv|tsv|jsonl|parquet"`
	Quarantine string            `help:"Where records without a valid answer go (default: OUTPUT.quarantine.jsonl)." placeholder:"FILE"`
	Limit      *int64            `help:"Stop after the first N records." placeholder:"N"`
	DryRun     bool              `help:"Ask nothing: say what would be asked."`
	Report     string            `help:"Write the summary as JSON." placeholder:"FILE"`
	NoCache    bool              `help:"Neither use answers of earlier runs nor keep the new ones."`
	Refresh    bool              `help:"Ask again, and keep the new answers."`
}

func (c *runCmd) Run(a *app) error {
	j, err := findJob(c.Job, c.Param)
	if err != nil {
		return err
	}
	if c.Limit != nil && *c.Limit < 1 {
		return fmt.Errorf("--limit %d: needs a number of records from 1 on", *c.Limit)
	}
	if c.NoCache && c.Refresh {
		return errors.New("--no-cache and --refresh exclude each other: the first keeps nothing, the second keeps the new answers")
	}
	_, err = c.execute(a, j, nil)
	return err
}

// limit is the most records to read, 0 for all.
func (c *runCmd) limit() int64 {
	if c.Limit == nil {
		return 0
	}
	return *c.Limit
}

// distinct checks that no two of the run's files are the same one.
func (c *runCmd) distinct(output, quarantine string) error {
	files := []struct{ what, path string }{{"the input", c.Input}, {"the output (-o)", output}, {"the quarantine", quarantine}, {"the report (--report)", c.Report}}
	for i, a := range files {
		for _, b := range files[:i] {
			if a.path == "" || b.path == "" || a.path == "-" || b.path == "-" {
				continue
			}
			if absolute(a.path) == absolute(b.path) || sameFile(a.path, b.path) {
				return fmt.Errorf("%s is %s and %s; name another file for one of them", a.path, b.what, a.what)
			}
		}
	}
	return nil
}

// execute runs a job. srv may be given; otherwise it is looked for.
func (c *runCmd) execute(a *app, j *job.Job, given *serverModel) (batch.Report, error) {
	output := c.output(j)
	quarantine := c.quarantine(output)
	if err := c.distinct(output, quarantine); err != nil {
		return batch.Report{}, err
	}
	in, inFormat, err := c.open(a, j)
	if err != nil {
		return batch.Report{}, err
	}
	defer in.Close()
	if c.DryRun {
		return batch.Report{}, c.dryRun(a, j, in)
	}

	unlock, err := lockOutput(a, output)
	if err != nil {
		return batch.Report{}, err
	}
	defer unlock()
	sink, err := c.create(a, output, quarantine, in, inFormat, j)
	if err != nil {
		return batch.Report{}, err
	}
	defer sink.abort()

	sm := given
	if sm == nil {
		srv, m, err := a.server()
		if err != nil {
			return batch.Report{}, err
		}
		sm = &serverModel{srv, m}
	}
	store, err := a.store()
	if err != nil {
		return batch.Report{}, err
	}
	defer store.Close()

	pacer := batch.NewPacer(0)
	if n := a.config.Concurrency; n > 0 {
		pacer = batch.FixedPacer(n)
	}
	bar := newProgress(a.ui)
	stop, ctx, done := a.interrupts(func() {
		bar.say("millrace: finishing what is in flight and saving; once more to stop at once")
	})
	defer done()
	report, err := batch.RunJob(ctx, batch.Options{
		Job: j, Server: sm.server, Model: sm.model, Store: store,
		In: in, Out: sink.records, Quarantine: sink.quarantine,
		JobRef: c.jobRef(), Args: c.Param, Input: absolute(c.Input), Output: absolute(output),
		Pacer: pacer, Limit: c.limit(), NoCache: c.NoCache, Refresh: c.Refresh,
		Timeout: a.config.Timeout, Patience: a.config.Patience,
		Commit: sink.commit, Stop: stop, Watch: bar.watch,
	})
	bar.stop()
	if werr := writeReport(sink.report, report); werr != nil && err == nil {
		err = werr
	}
	return report, c.conclude(a, report, err, output, sink)
}

type serverModel struct {
	server llm.Server
	model  llm.Model
}

// conclude says how the run ended.
func (c *runCmd) conclude(a *app, r batch.Report, err error, output string, sink *sink) error {
	w := a.out
	if output == "-" {
		w = a.err
	}
	switch {
	case errors.Is(err, batch.ErrStopped):
		a.summary(w, r, output, sink.quarantinePath)
		fmt.Fprintf(a.err, "millrace: stopped. What is answered is saved; to go on, repeat the command:\n          millrace %s\n", shellWords(a.args))
		return exitCode(exitFailed)
	case err != nil:
		if r.Records > 0 {
			a.summary(w, r, output, sink.quarantinePath)
		}
		return err
	}
	name := output
	if output == "-" {
		name = ""
	}
	a.summary(w, r, name, sink.quarantinePath)
	if sink.neutralised() > 0 {
		a.note("%s %s from the model began with = + - or @ and got an apostrophe in front, so that no spreadsheet takes them for a formula", number(sink.neutralised()), plural(sink.neutralised(), "cell", "cells"))
	}
	if r.Quarantined > 0 {
		return exitCode(exitQuarantine)
	}
	return nil
}

func (c *runCmd) jobRef() string {
	for _, n := range builtinNames() {
		if n == c.Job {
			return n
		}
	}
	return absolute(c.Job)
}

// open opens the input and checks that the job's fields are in it.
func (c *runCmd) open(a *app, j *job.Job) (record.Reader, record.Format, error) {
	opts := record.ReadOptions{Encoding: a.config.Encoding}
	var format record.Format
	if c.Format != "" {
		var err error
		if format, err = record.ParseFormat(c.Format); err != nil {
			return nil, "", err
		}
	}
	var in record.Reader
	var err error
	if c.Input == "-" {
		if format == "" {
			format = record.JSONL
		}
		in, err = record.NewReader(a.stdin, format, opts)
	} else {
		byEnding, _, ferr := record.FormatOf(c.Input)
		if ferr == nil {
			format = byEnding
		} else if format == "" {
			return nil, "", ferr
		}
		opts.Format = format
		in, err = record.Open(c.Input, opts)
	}
	if err != nil {
		return nil, "", err
	}
	cols := in.Columns()
	if cols == nil { // JSONL: each record names its own fields; a misspelt one is in none of them
		first := in
		if in, cols, err = record.Peek(first, peekRecords); err != nil {
			first.Close()
			return nil, "", err
		}
	}
	if len(cols) > 0 {
		if err := j.CheckColumns(cols); err != nil {
			in.Close()
			return nil, "", err
		}
	}
	return in, format, nil
}

// peekRecords is how many records of an input without a header are looked at
// for the job's fields before the first request.
const peekRecords = 64

// output is the path of the output: given, or beside the input.
func (c *runCmd) output(j *job.Job) string {
	if c.Output != "" {
		return c.Output
	}
	if c.Input == "-" {
		return "-"
	}
	dir, base := filepath.Split(c.Input)
	stem := base
	for _, e := range []string{".gz", ".zst"} {
		stem = strings.TrimSuffix(stem, e)
	}
	ext := filepath.Ext(stem)
	return dir + strings.TrimSuffix(stem, ext) + "." + j.Name + ext
}

// quarantine is the path of the quarantine: given, or beside the output.
func (c *runCmd) quarantine(output string) string {
	if output == "-" {
		return cmp.Or(c.Quarantine, "millrace.quarantine.jsonl")
	}
	return cmp.Or(c.Quarantine, output+".quarantine.jsonl")
}

// sink is where a run's results go.
type sink struct {
	records        record.Writer
	out            *record.File // nil for stdout
	quarantinePath string

	rejected *record.File // nil until it is opened
	rejects  int
	report   *record.File // nil without --report
	enc      *json.Encoder
	closed   bool
}

func (c *runCmd) create(a *app, output, quarantine string, in record.Reader, inFormat record.Format, j *job.Job) (*sink, error) {
	s := &sink{quarantinePath: quarantine}
	format := record.JSONL
	w := a.stdout
	if output == "-" {
		if c.Format != "" {
			format = inFormat
		}
	} else {
		var err error
		if format, _, err = record.FormatOf(output); err != nil {
			if c.Format == "" {
				return nil, err
			}
			format = inFormat
		}
		if s.out, err = record.Create(output); err != nil {
			return nil, err
		}
		w = s.out
	}
	var err error
	if c.Quarantine != "" || output != "-" && !device(output) { // a place that cannot be written is an error now, not after hours
		if err = s.openQuarantine(); err != nil {
			s.abort()
			return nil, err
		}
	}
	if s.report, err = c.createReport(); err != nil {
		s.abort()
		return nil, err
	}
	if s.records, err = record.NewWriter(w, format, in.Columns(), j.Columns(), record.WriteOptions{From: in}); err != nil {
		s.abort()
		return nil, err
	}
	for _, col := range j.Columns() {
		if slices.Contains(in.Columns(), col.Name) {
			a.note("the answer's %q stands in the output in place of the input's column of that name", col.Name)
		}
	}
	if f, ok := s.records.(record.Flusher); ok && output == "-" {
		s.records = &flushing{s.records, f}
	}
	return s, nil
}

// flushing hands each record on at once: somebody may be reading along.
type flushing struct {
	record.Writer
	f record.Flusher
}

func (w *flushing) Write(r record.Record, added []record.Value) error {
	if err := w.Writer.Write(r, added); err != nil {
		return err
	}
	return w.f.Flush()
}

// quarantine writes one line for a record without a valid answer.
func (s *sink) quarantine(q batch.Quarantined) error {
	if s.rejected == nil {
		if err := s.openQuarantine(); err != nil {
			return err
		}
	}
	s.rejects++
	return s.enc.Encode(q)
}

func (s *sink) openQuarantine() error {
	f, err := record.Create(s.quarantinePath)
	if err != nil {
		return err
	}
	s.rejected = f
	s.enc = json.NewEncoder(f)
	s.enc.SetEscapeHTML(false)
	return nil
}

// commit makes output and quarantine appear. An old quarantine of the same
// name goes when there is no new one: it would speak of another run.
func (s *sink) commit() error {
	if err := s.records.Close(); err != nil {
		return err
	}
	s.closed = true
	if s.rejects > 0 {
		if err := s.rejected.Commit(); err != nil {
			return err
		}
		s.rejected = nil
	} else if err := os.Remove(s.quarantinePath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if s.out != nil {
		if err := s.out.Commit(); err != nil {
			return err
		}
		s.out = nil
	}
	return nil
}

// abort removes what is not complete. After commit it does nothing.
func (s *sink) abort() {
	if s.records != nil && !s.closed {
		_ = s.records.Close() // what it wrote is thrown away
	}
	if s.out != nil {
		s.out.Abort()
	}
	if s.rejected != nil {
		s.rejected.Abort()
	}
	if s.report != nil {
		s.report.Abort()
	}
}

func (s *sink) neutralised() int64 {
	w := s.records
	if f, ok := w.(*flushing); ok {
		w = f.Writer
	}
	if n, ok := w.(record.Neutraliser); ok {
		return n.Neutralised()
	}
	return 0
}

// device reports whether a path is something else than a file to be made:
// /dev/null, a pipe. What stands beside it is not ours.
func device(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular()
}

// sameFile reports whether two paths lead to the same file, links followed.
func sameFile(a, b string) bool {
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	return errA == nil && errB == nil && fa.Mode().IsRegular() && os.SameFile(fa, fb)
}

// lockOutput keeps two processes from writing the same output. The lock goes
// with its process, so that a killed run can be resumed at once.
func lockOutput(a *app, output string) (unlock func(), err error) {
	if output == "-" {
		return func() {}, nil
	}
	dir := filepath.Join(a.config.State, "locks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	l := flock.New(filepath.Join(dir, batch.Fingerprint(absolute(output)).String()))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock for %s: %w", output, err)
	}
	if !ok {
		return nil, fmt.Errorf("another millrace is writing %s; wait for it, or name another output with -o", output)
	}
	return func() {
		_ = os.Remove(l.Path())
		_ = l.Unlock()
	}, nil
}

// interrupts turns the first signal into a gentle stop, which it tells, and
// the second into an end.
func (a *app) interrupts(tell func()) (stop <-chan struct{}, ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(a.ctx)
	stopped := make(chan struct{})
	over := make(chan struct{})
	go func() {
		select {
		case <-a.signals:
			tell()
			close(stopped)
		case <-over:
			return
		}
		select {
		case <-a.signals:
			cancel()
		case <-over:
		}
	}()
	return stopped, ctx, func() { close(over); cancel() }
}

// writeReport writes a run's or dry run's report and makes it appear; without
// --report there is no file.
func writeReport(f *record.File, report any) error {
	if f == nil {
		return nil
	}
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if _, err := f.Write(append(b, '\n')); err != nil {
		return err
	}
	return f.Commit()
}

// createReport begins the report; nil without --report.
func (c *runCmd) createReport() (*record.File, error) {
	if c.Report == "" {
		return nil, nil //nolint:nilnil // no report is no error
	}
	return record.Create(c.Report)
}

func (c *runCmd) dryRun(a *app, j *job.Job, in record.Reader) error {
	report, err := c.createReport()
	if err != nil {
		return err
	}
	if report != nil {
		defer report.Abort()
	}
	m := llm.Model{Name: a.config.Model}
	srv, found, err := a.server()
	switch {
	case err == nil:
		m = found
	case m.Name == "":
		return fmt.Errorf("%w\nwithout a server, name the model with --model to see what is cached for it", err)
	default:
		a.note("no server answered, so what is cached is looked up by the model's name %q, not by its digest", m.Name)
	}
	store, err := a.store()
	if err != nil {
		return err
	}
	defer store.Close()
	e, err := batch.DryRun(a.ctx, batch.Options{
		Job: j, Model: m, Store: store, In: in, Input: absolute(c.Input), Limit: c.limit(), NoCache: c.NoCache, Refresh: c.Refresh,
	})
	if err != nil {
		return err
	}
	if err := writeReport(report, e); err != nil {
		return err
	}
	atLeast := ""
	if e.Capped {
		atLeast = "at most "
	}
	rows := [][]string{
		{"  records", number(e.Records)},
		{"  from the cache", number(e.Cached)},
		{"  same question as another", number(e.Repeated)},
	}
	if e.Prepared > 0 {
		rows = append(rows, []string{"  by rules", number(e.Prepared)})
	}
	if e.Bad > 0 {
		rows = append(rows, []string{"  to quarantine, unreadable", number(e.Bad)})
	}
	requests := (e.Ask + int64(j.Pack) - 1) / int64(j.Pack)
	rows = append(rows,
		[]string{"  to ask", fmt.Sprintf("%s%s %s in %s%s %s", atLeast, number(e.Ask), plural(e.Ask, "question", "questions"), atLeast, number(requests), plural(requests, "request", "requests"))},
		[]string{"  prompt tokens, estimated", number(e.PromptTokens)})
	fmt.Fprintf(a.out, "dry run of %s v%d%s: nothing was asked\n", j.Name, j.Version, ifServer(srv, m))
	table(a.out, rows)
	if e.Example != nil {
		fmt.Fprintln(a.out, "\nthe first question:")
		for _, m := range e.Example {
			fmt.Fprintf(a.out, "\n  [%s]\n%s\n", m.Role, indent(m.Content, "  "))
		}
	}
	return nil
}

func ifServer(srv llm.Server, m llm.Model) string {
	if srv == nil {
		return " with model " + m.Name
	}
	return fmt.Sprintf(" with model %s on %s", m.Name, srv.Info().URL)
}

func indent(s, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+by)
}

// shellWords writes arguments so that they can be pasted into a shell again.
func shellWords(args []string) string {
	q := make([]string, len(args))
	for i, s := range args {
		if s == "" || strings.ContainsAny(s, " \t\n\"'\\$`*?[]{}()<>|&;#~!") {
			s = "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
		q[i] = s
	}
	return strings.Join(q, " ")
}
