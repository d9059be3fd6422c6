package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace/internal/llm/sim"
)

type simCmd struct {
	Profile string            `default:"rtx4060-laptop" help:"Machine to simulate; --list shows them." placeholder:"NAME"`
	Listen  string            `default:"127.0.0.1:11500" help:"Address to listen at." placeholder:"ADDR"`
	List    bool              `help:"List the profiles."`
	Slots   int               `help:"Requests that it answers at a time (default: the profile's)." placeholder:"N"`
	Speed   float64           `default:"1" help:"Run that many times faster than the machine." placeholder:"X"`
	Seed    uint64            `default:"1" help:"Of answers and ills."`
	Ill     map[string]string `help:"What is wrong with it: busy, reset, hang, invalid-json, drop-item, garbled, truncate (each a share from 0 to 1), offload (share of layers in slow memory), throttle (factor of the bandwidth), slots (changed to N after 100 requests)." placeholder:"NAME=X"`
	OpenAI  bool              `name:"openai" help:"Speak only the OpenAI API."`
}

func (c *simCmd) Run(a *app) error {
	if c.List {
		rows := [][]string{}
		for _, p := range sim.Profiles() {
			rows = append(rows, []string{p.Name, p.Note})
		}
		table(a.out, rows)
		return nil
	}
	p, err := c.profile()
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(a.ctx, "tcp", c.Listen)
	if err != nil {
		return withHint(err, "choose another address with --listen; port 0 takes any that is free")
	}
	url := "http://" + l.Addr().String()
	fmt.Fprintf(a.out, "simulated server, profile %s: %s\n", p.Name, p.Note)
	fmt.Fprintf(a.out, "listening at %s; model %s, %d %s. It has no model: answers are made of the prompt's words.\n", url, p.Model.Name, p.Slots, plural(p.Slots, "slot", "slots"))
	fmt.Fprintf(a.out, "try: millrace run JOB INPUT --server %s\n", url)
	stop, ctx, done := a.interrupts(func() {})
	defer done()
	return serve(ctx, l, sim.New(p).Handler(), stop)
}

func (c *simCmd) profile() (sim.Profile, error) {
	p, err := sim.Find(c.Profile)
	if err != nil {
		return p, err
	}
	if c.Slots > 0 {
		p = p.WithSlots(c.Slots)
	}
	p = p.WithSpeed(c.Speed).WithSeed(c.Seed)
	p.OpenAIOnly = c.OpenAI
	ills := p.Ills
	for name, text := range c.Ill {
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return p, fmt.Errorf("--ill %s=%s: needs a number", name, text)
		}
		switch name {
		case "busy":
			ills.BusyRate = x
		case "reset":
			ills.ResetRate = x
		case "hang":
			ills.HangRate = x
		case "invalid-json":
			ills.InvalidJSONRate = x
		case "drop-item":
			ills.DropItemRate = x
		case "garbled":
			ills.GarbledRate = x
		case "truncate":
			ills.TruncateRate = x
		case "offload":
			ills.PartialOffload = x
		case "throttle":
			ills.Throttle = &sim.Throttle{After: 10 * time.Second, Factor: x}
		case "slots":
			ills.SlotsChange = &sim.SlotsChange{AfterRequests: 100, Slots: int(x)}
		default:
			return p, fmt.Errorf("--ill %s: no such ill; there are busy, reset, hang, invalid-json, drop-item, garbled, truncate, offload, throttle and slots", name)
		}
	}
	p = p.WithIlls(ills)
	return p, p.Validate()
}

// serve serves until stop is closed or the context ends.
func serve(ctx context.Context, l net.Listener, h http.Handler, stop <-chan struct{}) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-stop:
	case <-ctx.Done():
	}
	// Requests that hang on purpose have no end of their own.
	shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := srv.Shutdown(shut); err != nil {
		srv.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// simNote says that nothing here comes from a model.
func simNote(profile string) string {
	return strings.TrimSpace(fmt.Sprintf("no inference server was found, so this runs on a SIMULATED one (profile %s): its times are those of such a machine, its answers are made of the prompt's own words", profile))
}
