//go:build linux && !static

package machine

import "github.com/ebitengine/purego"

// nvmlPaths are where the library may be: by the loader's rules, in WSL, on
// NixOS, and in the usual folders of systems whose loader cache is stale.
var nvmlPaths = []string{
	"libnvidia-ml.so.1",
	"/usr/lib/wsl/lib/libnvidia-ml.so.1",
	"/run/opengl-driver/lib/libnvidia-ml.so.1",
	"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
	"/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
	"/usr/lib64/libnvidia-ml.so.1",
	"/usr/local/nvidia/lib64/libnvidia-ml.so.1", // Kubernetes on COS
}

// loadNVML loads the library without C. It makes the program one that is
// linked dynamically to libc; with the build tag static it is left out, and
// nvidia-smi stands in for it. That it is not there is no failure.
func loadNVML() (*nvml, error) {
	var handle uintptr
	for _, p := range nvmlPaths {
		if h, err := purego.Dlopen(p, purego.RTLD_NOW|purego.RTLD_LOCAL); err == nil {
			handle = h
			break
		}
	}
	if handle == 0 {
		return nil, noData("libnvidia-ml.so.1 is not installed")
	}
	l := &nvml{} // never unloaded: the library keeps threads
	for place, names := range l.symbols() {
		for _, n := range names {
			if sym, err := purego.Dlsym(handle, n); err == nil && sym != 0 {
				purego.RegisterFunc(place, sym)
				break
			}
		}
	}
	return l, nil
}
