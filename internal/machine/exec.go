package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Runner runs a program to its end and returns what it wrote to its output,
// also when it fails. A program that is not there is exec.ErrNotFound.
type Runner func(ctx context.Context, name string, args ...string) ([]byte, error)

// maxOutput is more than any program asked here writes: nvidia-smi -q -x
// writes about 30 kB for each GPU.
const maxOutput = 4 << 20

// run is the Runner of this host. Programs speak English (LC_ALL=C) and do
// not outlive their context.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := command(ctx, name, args...)
	var out, errOut limited
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if ctx.Err() != nil {
		return out.Bytes(), ctx.Err()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		// The tools of NVIDIA write their errors to either.
		b := append(out.Bytes(), errOut.Bytes()...)
		return b, fmt.Errorf("%s ended with code %d: %s", name, exit.ExitCode(), firstLine(b))
	}
	return out.Bytes(), err
}

// command prepares a program.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second // its children may hold the pipe
	quiet(cmd)
	return cmd
}

// firstLine is what fits into a message.
func firstLine(b []byte) string {
	s, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	if s == "" {
		return "it said nothing"
	}
	return strings.TrimSpace(s)
}

// limited keeps what fits and drops the rest.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutput - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// notInstalled reports whether a program is not there.
func notInstalled(err error) bool { return errors.Is(err, exec.ErrNotFound) || missing(err) }
