package ollamatest

import (
	"os/exec"
	"syscall"
)

// ownGroup gives the server a process group, so that its runners can be ended
// with it, and ends it when this process is killed.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
