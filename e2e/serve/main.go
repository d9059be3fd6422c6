// Command serve runs a real Ollama with a model of random weights, to try
// Millrace on and to measure it against:
//
//	scripts/ollama.sh && go run ./e2e/serve -parallel 4
//
// It prints the server's address and the model's name, each on a line, and
// ends on Ctrl-C, on SIGTERM or with its parent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"millrace/e2e/ollamatest"
	"millrace/internal/gguf/gguftest"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	var (
		flags    = flag.NewFlagSet("serve", flag.ContinueOnError)
		addr     = flags.String("listen", "", "host:port (default: a free port of 127.0.0.1)")
		parallel = flags.Int("parallel", 1, "OLLAMA_NUM_PARALLEL: requests that are answered at a time")
		verbose  = flags.Bool("v", false, "show the server's log")
		model    gguftest.Options
	)
	flags.IntVar(&model.Embedding, "embedding", 0, "width of the model (default 256)")
	flags.IntVar(&model.Layers, "layers", 0, "layers of the model (default 4)")
	flags.IntVar(&model.Vocab, "vocab", 0, "tokens the model knows (default and least: about 1,400)")
	flags.SetOutput(stderr)
	if err := flags.Parse(args); err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	o := ollamatest.Options{
		Addr: *addr, Model: model,
		Env: []string{"OLLAMA_NUM_PARALLEL=" + strconv.Itoa(*parallel)},
	}
	if *verbose {
		o.Log = stderr
	}
	parent := os.Getppid()
	server, err := ollamatest.Launch(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, server.URL)
	fmt.Fprintln(stdout, server.Model)

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return server.Close()
		case <-tick.C:
			if os.Getppid() != parent {
				return server.Close()
			}
		}
	}
}
