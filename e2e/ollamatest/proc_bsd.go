//go:build unix && !linux

package ollamatest

import (
	"os/exec"
	"syscall"
)

// ownGroup gives the server a process group, so that its runners can be ended
// with it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
