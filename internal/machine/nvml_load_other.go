//go:build (!linux && !windows) || (linux && static)

package machine

import "runtime"

// loadNVML says that there is no such library here.
func loadNVML() (*nvml, error) {
	return nil, noData("this build for %s does not load it", runtime.GOOS)
}
