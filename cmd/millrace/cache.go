package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"millrace/internal/batch"
	"millrace/internal/job"
	"millrace/internal/llm"
	"millrace/internal/record"
)

type cacheCmd struct {
	Stats cacheStatsCmd `cmd:"" default:"1" help:"Size of the cache, by job."`
	Why   cacheWhyCmd   `cmd:"" help:"Say whether a record would be a hit, and if not, what changed."`
	Purge cachePurgeCmd `cmd:"" help:"Remove all that was derived from one record."`
	Prune cachePruneCmd `cmd:"" help:"Remove what no run can use again: expired and replaced answers."`
}

type cacheStatsCmd struct {
	JSON bool `help:"As JSON."`
}

func (c *cacheStatsCmd) Run(a *app) error {
	s, err := a.store()
	if err != nil {
		return err
	}
	defer s.Close()
	st, err := s.Stats(a.ctx, time.Now())
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return enc.Encode(st)
	}
	table(a.out, [][]string{
		{"answers", fmt.Sprintf("%s, of which %s expired and %s replaced by newer ones", number(st.Answers), number(st.Expired), number(st.Stale))},
		{"records", number(st.Records)},
		{"runs", number(st.Runs)},
		{"on disk", fmt.Sprintf("%s in %s", bytesText(st.Bytes), a.config.State)},
	})
	if len(st.ByJob) > 0 {
		fmt.Fprintln(a.out)
		rows := [][]string{{"job", "answers", "oldest", "newest"}}
		for _, j := range st.ByJob {
			rows = append(rows, []string{j.Job, number(j.Answers), j.Oldest.Local().Format(time.DateTime), j.Newest.Local().Format(time.DateTime)})
		}
		table(a.out, rows)
	}
	return nil
}

type cacheWhyCmd struct {
	Record string            `arg:"" help:"Key of the record: the value of the job's key field, or INPUT#POSITION."`
	Job    string            `help:"Job (default: the one that last answered the record)." placeholder:"JOB"`
	Input  string            `help:"File that holds the record (default: that run's input)." placeholder:"FILE"`
	Param  map[string]string `short:"p" help:"Parameter of a built-in job." placeholder:"NAME=VALUE"`
	JSON   bool              `help:"As JSON."`
}

func (c *cacheWhyCmd) Run(a *app) error {
	s, err := a.store()
	if err != nil {
		return err
	}
	defer s.Close()
	trail, err := s.Trail(a.ctx, batch.SubjectOf(c.Record))
	if err != nil {
		return err
	}
	runs := c.runs(trail)
	if len(runs) == 0 {
		return fmt.Errorf("no answer for the record %q in %s; a record is named by the value of its job's key field, or as INPUT#POSITION (reviews.csv#17); to ask about a record that was never answered, give --job and --input", c.Record, a.config.State)
	}
	var verdicts []batch.Verdict
	for _, r := range runs {
		v, err := c.why(a, s, r)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, v)
	}
	if c.JSON {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return enc.Encode(verdicts)
	}
	for _, v := range verdicts {
		fmt.Fprintf(a.out, "%s  job %s, model %s\n  %s\n", a.bold.Sprint(v.Record), v.Job, v.Model, v.Reason)
		if v.Hit && !v.Expires.IsZero() {
			fmt.Fprintf(a.out, "  valid until %s\n", v.Expires.Local().Format(time.DateTime))
		}
	}
	return nil
}

// runs are the runs to ask about: the last one of each job that answered the
// record, or what the flags say.
func (c *cacheWhyCmd) runs(trail []batch.Trail) []batch.Run {
	if c.Job != "" && c.Input != "" {
		r := batch.Run{Job: c.Job, Args: c.Param, Input: c.Input}
		if len(trail) > 0 {
			r.Model, r.Server = trail[0].Run.Model, trail[0].Run.Server
		}
		return []batch.Run{r}
	}
	seen := map[string]bool{}
	var runs []batch.Run
	for _, t := range trail {
		if seen[t.Source.Job] || c.Job != "" && c.Job != t.Source.Job && c.Job != t.Run.Job {
			continue
		}
		seen[t.Source.Job] = true
		r := t.Run
		if c.Input != "" {
			r.Input = c.Input
		}
		if len(c.Param) > 0 {
			r.Args = c.Param
		}
		runs = append(runs, r)
	}
	return runs
}

func (c *cacheWhyCmd) why(a *app, s batch.Store, r batch.Run) (batch.Verdict, error) {
	j, err := findJob(r.Job, r.Args)
	if err != nil {
		return batch.Verdict{}, err
	}
	if r.Input == "-" {
		return batch.Verdict{}, errors.New("the record came from stdin, which is gone; name a file that holds it with --input")
	}
	rec, err := findRecord(j, r.Input, c.Record, a.config.Encoding)
	if err != nil {
		return batch.Verdict{}, err
	}
	m := llm.Model{Name: r.Model}
	if _, found, err := a.server(); err == nil {
		m = found
	} else {
		if a.config.Model != "" {
			m.Name = a.config.Model
		}
		a.note("no server answered (%s); the model is taken by its name %q, so an answer kept under its digest is not found", firstLine(err), m.Name)
	}
	return batch.Why(a.ctx, s, j, m, rec, absolute(r.Input), time.Now())
}

func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimSuffix(s, "; tried")
}

// findRecord reads an input up to the record with the given key.
func findRecord(j *job.Job, input, key, encoding string) (record.Record, error) {
	in, err := record.Open(input, record.ReadOptions{Encoding: encoding})
	if err != nil {
		return record.Record{}, err
	}
	defer in.Close()
	var at int64
	if _, pos, ok := strings.Cut(key, "#"); ok && j.Key == "" {
		at, _ = strconv.ParseInt(pos, 10, 64) // 0, which is no position, if it is no number
	}
	for {
		rec, err := in.Next()
		if _, bad := errors.AsType[*record.BadRecord](err); bad {
			continue
		}
		if errors.Is(err, io.EOF) {
			return record.Record{}, fmt.Errorf("%s holds no record %q", input, key)
		}
		if err != nil {
			return record.Record{}, err
		}
		if at > 0 && rec.Pos == at || j.RecordKey(rec, input) == key {
			return rec, nil
		}
	}
}

type cachePurgeCmd struct {
	Subject string `required:"" help:"Key of the record, as in 'cache why'." placeholder:"ID"`
}

func (c *cachePurgeCmd) Run(a *app) error {
	s, err := a.store()
	if err != nil {
		return err
	}
	defer s.Close()
	p, err := s.Purge(a.ctx, batch.SubjectOf(c.Subject))
	if err != nil {
		return err
	}
	if p == (batch.Purged{}) {
		fmt.Fprintf(a.out, "nothing in %s was derived from the record %q\n", a.config.State, c.Subject)
		return nil
	}
	fmt.Fprintf(a.out, "removed %s %s, %s to answers of other records and %s of interrupted runs; their bytes are gone from %s\n",
		number(p.Answers), plural(p.Answers, "answer", "answers"), links(p.Links), failures(p.Failures), a.config.State)
	if p.Links > 0 {
		fmt.Fprintln(a.out, "an answer that other records shared is gone for them too: they will be asked again")
	}
	fmt.Fprintln(a.out, "output files that were written before are yours to clean")
	return nil
}

func links(n int64) string    { return number(n) + " " + plural(n, "link", "links") }
func failures(n int64) string { return number(n) + " " + plural(n, "failure", "failures") }

type cachePruneCmd struct {
	Abandoned time.Duration `default:"720h" help:"How long an interrupted run may rest before what only it could use is removed."`
}

func (c *cachePruneCmd) Run(a *app) error {
	s, err := a.store()
	if err != nil {
		return err
	}
	defer s.Close()
	now := time.Now()
	p, err := s.Prune(a.ctx, now, now.Add(-c.Abandoned))
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "removed %s %s, %s, %s and %s abandoned %s\n", number(p.Answers), plural(p.Answers, "answer", "answers"),
		links(p.Links), failures(p.Failures), number(p.Runs), plural(p.Runs, "run", "runs"))
	return nil
}
