// Command millrace pushes LLM jobs over records through a local inference
// server, at its full throughput, with each distinct question paid for once.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(run(context.Background(), process{
		args: os.Args[1:], environ: os.Environ(),
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, signals: signals,
	}))
}

// process is what the program has from the system, and nothing else: a test
// gives its own.
type process struct {
	args           []string // without the program's name
	environ        []string // KEY=value
	stdin          io.Reader
	stdout, stderr io.Writer
	signals        <-chan os.Signal
}
