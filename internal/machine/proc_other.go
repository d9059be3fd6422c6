//go:build !windows

package machine

import "errors"

func systemProcesses() processes { return nil }

var errNotWindows = errors.New("only Windows has this")

func systemPower() (Power, error)   { return Power{}, errNotWindows }
func systemMemory() (Memory, error) { return Memory{}, errNotWindows }
