package machine

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Vendors of GPUs, as they stand in GPU.Vendor.
const (
	NVIDIA = "nvidia"
	AMD    = "amd"
	Intel  = "intel"
	Apple  = "apple"
)

// GPU is one graphics processor as its driver describes it. Nil and empty
// mean that nothing told us. Its JSON names are part of the observation file.
type GPU struct {
	Index  int    `json:"index"` // the vendor's own numbering, from 0
	Vendor string `json:"vendor"`
	Name   string `json:"name,omitzero"` // exactly as the driver gives it
	UUID   string `json:"uuid,omitzero"`

	PCIBus       string `json:"pci_bus,omitzero"`    // 0000:01:00.0
	PCIDevice    string `json:"pci_device,omitzero"` // vendor:device, 10de:28e0
	Architecture string `json:"architecture,omitzero"`
	Driver       string `json:"driver,omitzero"`       // its version
	DriverModel  string `json:"driver_model,omitzero"` // wddm, tcc, mcdm on Windows; the kernel module on Linux where only that is known
	CUDA         string `json:"cuda,omitzero"`         // newest CUDA that the driver can do
	ComputeCap   string `json:"compute_cap,omitzero"`
	ComputeMode  string `json:"compute_mode,omitzero"`
	Integrated   *bool  `json:"integrated,omitzero"` // its memory is the machine's
	Cores        *int   `json:"cores,omitzero"`      // shader or CUDA cores; Apple's GPU cores

	MIG        *bool       `json:"mig,omitzero"`
	MIGDevices []MIGDevice `json:"mig_devices,omitzero"`

	MemoryTotalBytes    *int64 `json:"memory_total_bytes,omitzero"`
	MemoryReservedBytes *int64 `json:"memory_reserved_bytes,omitzero"`
	MemoryUsedBytes     *int64 `json:"memory_used_bytes,omitzero"`
	MemoryFreeBytes     *int64 `json:"memory_free_bytes,omitzero"`
	// Shared memory is main memory that the GPU uses as its own: GTT on
	// Linux, the shared GPU memory of Windows.
	SharedTotalBytes *int64 `json:"shared_total_bytes,omitzero"`
	SharedUsedBytes  *int64 `json:"shared_used_bytes,omitzero"`
	BusWidthBits     *int   `json:"bus_width_bits,omitzero"`

	ClockSMMHz     *int `json:"clock_sm_mhz,omitzero"`
	ClockSMMaxMHz  *int `json:"clock_sm_max_mhz,omitzero"`
	ClockMemMHz    *int `json:"clock_mem_mhz,omitzero"`
	ClockMemMaxMHz *int `json:"clock_mem_max_mhz,omitzero"`

	PowerDrawW        *float64    `json:"power_draw_w,omitzero"`          // now; an average over a second where the driver gives only that
	PowerAverageW     *float64    `json:"power_average_w,omitzero"`       // over the last second
	PowerLimitW       *float64    `json:"power_limit_w,omitzero"`         // the limit in force
	PowerRequestedW   *float64    `json:"power_requested_w,omitzero"`     // the limit somebody asked for
	PowerDefaultW     *float64    `json:"power_default_w,omitzero"`       // the limit it starts with
	PowerLimitMinW    *float64    `json:"power_limit_min_w,omitzero"`     // the lowest one may ask for
	PowerLimitMaxW    *float64    `json:"power_limit_max_w,omitzero"`     // the highest
	PowerSource       PowerSource `json:"power_source,omitzero"`          // what the GPU's driver thinks of the supply
	TemperatureC      *float64    `json:"temperature_c,omitzero"`         // of the die
	TemperatureMemC   *float64    `json:"temperature_mem_c,omitzero"`     // of its memory
	TemperatureLimitC *float64    `json:"temperature_limit_c,omitzero"`   // highest for operation
	SlowdownC         *float64    `json:"slowdown_c,omitzero"`            // where it slows itself down
	ShutdownC         *float64    `json:"shutdown_c,omitzero"`            // where it switches itself off
	TargetC           *float64    `json:"target_c,omitzero"`              // what its fan aims at
	MarginC           *float64    `json:"margin_c,omitzero"`              // degrees left to the limit (T.Limit)
	SlowdownMarginC   *float64    `json:"slowdown_margin_c,omitzero"`     // margin at which it slows down
	MemLimitC         *float64    `json:"temperature_mem_max_c,omitzero"` // highest for its memory

	UtilGPUPercent *float64 `json:"util_gpu_percent,omitzero"` // share of time with a kernel running
	// UtilMemPercent is the share of time in which memory was read or
	// written. It is not a share of the bandwidth.
	UtilMemPercent *float64 `json:"util_mem_percent,omitzero"`
	// PState is NVIDIA's performance state, P0 the fastest; on AMD the forced
	// performance level (auto, low, high, manual).
	PState string `json:"pstate,omitzero"`
	// ThrottleReasons are the reasons active at this moment, sorted; absent
	// means not known, empty means none.
	ThrottleReasons []Reason `json:"throttle_reasons,omitzero"`
	// ThrottleCountersUS is how long each reason has held since the driver
	// started, in microseconds. Only differences say anything.
	ThrottleCountersUS map[Reason]int64 `json:"throttle_counters_us,omitzero"`

	PCIeGen       *int `json:"pcie_gen,omitzero"`        // now; it drops when idle
	PCIeGenMax    *int `json:"pcie_gen_max,omitzero"`    // of card and slot together
	PCIeGenDevice *int `json:"pcie_gen_device,omitzero"` // the highest the card can
	PCIeWidth     *int `json:"pcie_width,omitzero"`      // lanes now
	PCIeWidthMax  *int `json:"pcie_width_max,omitzero"`

	DisplayAttached *bool `json:"display_attached,omitzero"` // a screen is plugged in
	DisplayActive   *bool `json:"display_active,omitzero"`   // it draws a desktop

	Processes []Process `json:"processes,omitzero"` // absent: not known; empty: none

	// Faults are the fields for which the driver gave an error in place of a
	// value, and what it gave.
	Faults map[string]string `json:"faults,omitzero"`
	// Sources are the readings that this was put together from, best first.
	Sources []string `json:"sources,omitzero"`
}

// MIGDevice is one slice of a GPU cut up by MIG.
type MIGDevice struct {
	Index            int    `json:"index"`
	GPUInstance      *int   `json:"gpu_instance,omitzero"`
	ComputeInstance  *int   `json:"compute_instance,omitzero"`
	Multiprocessors  *int   `json:"multiprocessors,omitzero"`
	MemoryTotalBytes *int64 `json:"memory_total_bytes,omitzero"`
	MemoryUsedBytes  *int64 `json:"memory_used_bytes,omitzero"`
	MemoryFreeBytes  *int64 `json:"memory_free_bytes,omitzero"`
}

// Process is a program that uses a GPU. Name is the program's own, without
// its folder and arguments, which can name people.
type Process struct {
	PID       int    `json:"pid"`
	Name      string `json:"name,omitzero"`
	Kind      string `json:"kind,omitzero"` // C compute, G graphics, C+G
	UsedBytes *int64 `json:"used_bytes,omitzero"`
	// SharedBytes is main memory that it uses through the GPU (Windows).
	SharedBytes *int64 `json:"shared_bytes,omitzero"`
}

// Reason is why a GPU does not run as fast as it could.
type Reason string

// The reasons of NVIDIA's driver (go-nvml gen/nvml/nvml.h,
// nvmlClocksEventReason*), under the names that nvidia-smi gives them.
const (
	GPUIdle             Reason = "gpu_idle"
	AppClocks           Reason = "applications_clocks_setting"
	SWPowerCap          Reason = "sw_power_cap"
	HWSlowdown          Reason = "hw_slowdown"
	SyncBoost           Reason = "sync_boost"
	SWThermalSlowdown   Reason = "sw_thermal_slowdown"
	HWThermalSlowdown   Reason = "hw_thermal_slowdown"
	HWPowerBrake        Reason = "hw_power_brake_slowdown"
	DisplayClockSetting Reason = "display_clocks_setting"
	// The next three have counters only (nvmlPerfPolicyType).
	BoardLimit     Reason = "board_limit"
	LowUtilization Reason = "low_utilization"
	Reliability    Reason = "reliability"
)

// The reasons of AMD's drivers: groups of the bits of indep_throttle_status
// (Linux drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h, SMU_THROTTLER_*) and
// of amd-smi's violations.
const (
	AMDPower       Reason = "amd_power"       // PPT: package power limit
	AMDCurrent     Reason = "amd_current"     // TDC, EDC: current limit
	AMDThermal     Reason = "amd_thermal"     // die, hotspot, edge
	AMDThermalMem  Reason = "amd_thermal_mem" // memory
	AMDThermalVR   Reason = "amd_thermal_vr"  // voltage regulators
	AMDProchot     Reason = "amd_prochot"     // an outside signal: too hot or too little power
	AMDThrottled   Reason = "amd_throttled"   // throttled, and the tool does not say why
	AMDOther       Reason = "amd_other"       // a bit without a name here
	AMDBelowLimit  Reason = "amd_below_limit" // graphics clock below the host's limit
	AMDUtilization Reason = "amd_utilization" // low utilisation
)

// Has reports whether a reason is active. It is false where the reasons are
// not known.
func (g *GPU) Has(r Reason) bool { return slices.Contains(g.ThrottleReasons, r) }

// NamedLaptop reports whether the driver's name says that it is a laptop's
// GPU, whose bandwidth and power differ from the desktop card's.
func (g *GPU) NamedLaptop() bool {
	n := strings.ToLower(g.Name)
	return strings.Contains(n, "laptop gpu") || strings.Contains(n, "max-q") || strings.Contains(n, "mobile")
}

// same reports whether two descriptions are of one GPU: by PCI address, else
// by UUID (which AMD's tools write in several ways), else by index.
func (g *GPU) same(o *GPU) bool {
	switch {
	case g.Vendor != o.Vendor:
		return false
	case g.PCIBus != "" && o.PCIBus != "":
		return g.PCIBus == o.PCIBus
	case g.UUID != "" && o.UUID != "":
		return g.UUID == o.UUID
	}
	return g.Index == o.Index
}

// fill takes from o what g does not know.
func (g *GPU) fill(o *GPU) {
	for _, s := range o.Sources {
		if !slices.Contains(g.Sources, s) {
			g.Sources = append(g.Sources, s)
		}
	}
	sources := g.Sources
	reasons := maps.Clone(o.ThrottleCountersUS)
	if reasons == nil && g.ThrottleCountersUS != nil {
		reasons = map[Reason]int64{}
	}
	maps.Copy(reasons, g.ThrottleCountersUS)
	processes := mergeProcesses(g.Processes, o.Processes)

	fillZero(reflect.ValueOf(g).Elem(), reflect.ValueOf(o).Elem())
	g.Sources, g.ThrottleCountersUS, g.Processes = sources, reasons, processes
}

// fillZero copies each field of src over a zero field of dst.
func fillZero(dst, src reflect.Value) {
	for i := range dst.NumField() {
		if dst.Field(i).IsZero() {
			dst.Field(i).Set(src.Field(i))
		}
	}
}

// mergeProcesses joins two lists of the same GPU by process.
func mergeProcesses(a, b []Process) []Process {
	if a == nil {
		return b
	}
	out := slices.Clone(a)
	for _, p := range b {
		i := slices.IndexFunc(out, func(q Process) bool { return q.PID == p.PID })
		if i < 0 {
			out = append(out, p)
			continue
		}
		fillZero(reflect.ValueOf(&out[i]).Elem(), reflect.ValueOf(&p).Elem())
	}
	return out
}

// merge joins lists of GPUs, the better source first: each GPU keeps what the
// first list says and takes from the others what that lacks.
func merge(lists ...[]GPU) []GPU {
	var out []GPU
	for _, list := range lists {
		for _, g := range list {
			i := slices.IndexFunc(out, func(h GPU) bool { return h.same(&g) })
			if i < 0 {
				out = append(out, g)
				continue
			}
			out[i].fill(&g)
		}
	}
	return out
}

// sortReasons sorts and removes doubles; it keeps nil nil.
func sortReasons(rs []Reason) []Reason {
	if rs == nil {
		return nil
	}
	slices.Sort(rs)
	return slices.Compact(rs)
}

// programName is a command without its folder and its arguments.
func programName(cmd string) string {
	cmd, _, _ = strings.Cut(strings.TrimSpace(cmd), " -") // arguments; names may hold spaces
	if i := strings.LastIndexAny(cmd, `/\`); i >= 0 {
		cmd = cmd[i+1:]
	}
	return strings.TrimSpace(cmd)
}
