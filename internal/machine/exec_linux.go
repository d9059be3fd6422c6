package machine

import (
	"os/exec"
	"syscall"
)

// quiet has nothing to hide here.
func quiet(*exec.Cmd) {}

// tie makes a program end when this one does, however that ends. The signal
// comes when the thread that started the program ends, so the caller keeps
// that thread.
func tie(cmd *exec.Cmd) (started func() (release func())) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return func() func() { return func() {} }
}
