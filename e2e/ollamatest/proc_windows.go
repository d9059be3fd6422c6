package ollamatest

import "os/exec"

func ownGroup(*exec.Cmd) {}

func terminate(cmd *exec.Cmd) { kill(cmd) }

// kill ends the server; Windows has no signal that would ask it to.
func kill(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
