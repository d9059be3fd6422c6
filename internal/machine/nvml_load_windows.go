package machine

import (
	"github.com/ebitengine/purego"
	"golang.org/x/sys/windows"
)

// loadNVML loads the library without C: from the system's folder, where
// drivers since 2018 put it, or from the folder of older ones. That it is not
// there is no failure.
func loadNVML() (*nvml, error) {
	h, err := windows.LoadLibraryEx("nvml.dll", 0, windows.LOAD_LIBRARY_SEARCH_SYSTEM32)
	if err != nil {
		h, err = windows.LoadLibraryEx(`C:\Program Files\NVIDIA Corporation\NVSMI\nvml.dll`, 0, windows.LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR|windows.LOAD_LIBRARY_SEARCH_SYSTEM32)
	}
	if err != nil {
		return nil, noData("nvml.dll is not installed")
	}
	l := &nvml{} // never unloaded: the library keeps threads
	for place, names := range l.symbols() {
		for _, n := range names {
			if sym, err := windows.GetProcAddress(h, n); err == nil && sym != 0 {
				purego.RegisterFunc(place, sym)
				break
			}
		}
	}
	return l, nil
}
