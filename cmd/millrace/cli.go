package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/alecthomas/kong"

	"millrace/internal/config"
)

// version is set by the linker.
var version = "development"

// cli is every command there is.
type cli struct {
	Settings settings `embed:"" group:"Settings"`

	Run    runCmd    `cmd:"" help:"Run a job over records."`
	Jobs   jobsCmd   `cmd:"" help:"List the jobs there are, or show one."`
	Cache  cacheCmd  `cmd:"" help:"Look into the cache of answers, or remove from it."`
	Sim    simCmd    `cmd:"" help:"Start a simulated inference server."`
	Demo   demoCmd   `cmd:"" help:"See the whole thing on bundled sample records."`
	Config configCmd `cmd:"" help:"Print each setting and where it comes from."`

	Version kong.VersionFlag `help:"Print the version."`
}

// settings are the flags that stand in for settings of millrace.yaml and MILLRACE_*.
type settings struct {
	Server      *string `help:"Address of the inference server (default: found by itself)." placeholder:"URL"`
	Model       *string `help:"Model to ask (default: the one that is loaded, or the only one)." placeholder:"NAME"`
	State       *string `help:"Directory of the cache and of unfinished runs." placeholder:"DIR"`
	Concurrency *string `help:"Requests in flight: auto, or a number." placeholder:"auto|N"`
	Encoding    *string `help:"Character set of the input, such as windows-1252 (default: UTF-8)." placeholder:"NAME"`
	Patience    *string `help:"How long the server may be gone before a run gives up." placeholder:"5m"`
	Timeout     *string `help:"Longest time for one request." placeholder:"10m"`
	APIKey      *string `name:"api-key" help:"Sent to a server that asks for one." placeholder:"KEY"`
	Color       *string `help:"auto, always or never." placeholder:"WHEN"`
}

// given returns the flags that were given, by key of the settings.
func (s settings) given() map[string]string {
	m := map[string]string{}
	for key, v := range map[string]*string{
		"server": s.Server, "model": s.Model, "state": s.State, "concurrency": s.Concurrency, "encoding": s.Encoding,
		"patience": s.Patience, "timeout": s.Timeout, "api_key": s.APIKey, "color": s.Color,
	} {
		if v != nil {
			m[key] = *v
		}
	}
	return m
}

// app is what a command works with.
type app struct {
	process
	*ui
	ctx    context.Context
	config *config.Config
	env    map[string]string
}

const description = `Pushes LLM jobs over records through the inference server on this machine, at its
full throughput: each distinct question is paid for once, answers are validated,
nothing is lost.`

// run is the program.
func run(ctx context.Context, p process) int {
	u := newUI(p, config.ColorNever)
	var c cli
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("millrace"), kong.Description(description),
		kong.Writers(p.stdout, p.stderr), kong.Exit(func(code int) {
			if exited < 0 {
				exited = code
			}
		}),
		kong.Vars{"version": "millrace " + version},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
	)
	if err != nil {
		u.fail(err)
		return exitFailed
	}
	kctx, err := parser.Parse(p.args)
	if exited >= 0 { // --help, --version
		return exited
	}
	if err != nil {
		if len(p.args) == 0 {
			_, _ = parser.Parse([]string{"--help"})
			return exitFailed
		}
		u.fail(withHint(err, "see millrace --help"))
		return exitFailed
	}

	a := &app{process: p, ctx: ctx, env: environment(p.environ)}
	if a.config, err = loadConfig(a.env, c.Settings.given()); err != nil {
		u.fail(err)
		return exitFailed
	}
	a.ui = newUI(p, a.config.Color)
	for _, w := range a.config.Warnings {
		a.note("%s", w)
	}
	err = kctx.Run(a)
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if err != nil {
		a.fail(err)
		return exitFailed
	}
	return exitDone
}

// exitCode is an error that has been spoken of already.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// environment turns KEY=value into a map. Names are as given; on Windows they
// are compared without case, which a few common spellings cover.
func environment(environ []string) map[string]string {
	m := make(map[string]string, len(environ))
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
		if runtime.GOOS == "windows" {
			m[strings.ToUpper(k)] = v
		}
	}
	return m
}

func loadConfig(env, flags map[string]string) (*config.Config, error) {
	src := config.Sources{OS: runtime.GOOS, Env: env, Flags: flags}
	for _, f := range config.Files(runtime.GOOS, env) {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		src.Path, src.File = f, b
		break
	}
	return config.Load(src)
}

type configCmd struct{}

func (configCmd) Run(a *app) error {
	rows := [][]string{}
	for _, v := range a.config.Values() {
		text := v.Value
		if text == "" {
			text = "-"
		}
		rows = append(rows, []string{v.Key, text, v.Source})
	}
	table(a.out, rows)
	return nil
}

// absolute makes a path absolute for what is remembered across runs; "-" stays.
func absolute(path string) string {
	if path == "-" {
		return path
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
