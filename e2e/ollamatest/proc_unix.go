//go:build unix

package ollamatest

import (
	"os/exec"
	"syscall"
)

// terminate asks the server to end; it takes its runners along.
func terminate(cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGTERM) }

// kill ends the whole process group. A group that is gone is no error.
func kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
