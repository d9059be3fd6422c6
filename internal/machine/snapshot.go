package machine

import "time"

// Snapshot is one look at a host. It is written into observation files, so
// its JSON names stay as they are. Pointers, empty strings and absent lists
// mean "not known".
type Snapshot struct {
	Time     time.Time `json:"time"`
	OS       string    `json:"os"`   // as GOOS: linux, windows, darwin
	Arch     string    `json:"arch"` // as GOARCH
	Kernel   string    `json:"kernel,omitzero"`
	Virtual  Virtual   `json:"virtual,omitzero"`
	CPU      CPU       `json:"cpu"`
	Memory   Memory    `json:"memory"`
	Power    Power     `json:"power"`
	GPUs     []GPU     `json:"gpus"`
	Readings []Reading `json:"readings"`
}

// Virtual says what stands between this system and the bare machine. An empty
// field means that no sign of it was seen.
type Virtual struct {
	WSL       string `json:"wsl,omitzero"`       // "1" or "2"
	VM        string `json:"vm,omitzero"`        // kvm, vmware, hyper-v, ... or "yes" where only the fact is known
	Container string `json:"container,omitzero"` // docker, podman, lxc, kubernetes, ...
}

// CPU is the processor.
type CPU struct {
	Model   string `json:"model,omitzero"`
	Vendor  string `json:"vendor,omitzero"`
	Sockets *int   `json:"sockets,omitzero"`
	Cores   *int   `json:"cores,omitzero"`   // physical
	Threads *int   `json:"threads,omitzero"` // logical
	// PerformanceCores are the fast ones of a processor with two kinds.
	PerformanceCores *int     `json:"performance_cores,omitzero"`
	MaxMHz           *int     `json:"max_mhz,omitzero"`
	Governor         string   `json:"governor,omitzero"`
	EnergyPreference string   `json:"energy_preference,omitzero"`
	Features         []string `json:"features,omitzero"` // the vector units that matter to a CPU runner: avx2, avx512f, ...
	Load1            *float64 `json:"load_1,omitzero"`   // load average over 1 minute
	Load5            *float64 `json:"load_5,omitzero"`
	Load15           *float64 `json:"load_15,omitzero"`
	// QuotaCores is how many cores a container may use.
	QuotaCores *float64 `json:"quota_cores,omitzero"`
}

// Memory is the main memory.
type Memory struct {
	TotalBytes     *int64 `json:"total_bytes,omitzero"`
	AvailableBytes *int64 `json:"available_bytes,omitzero"`
	SwapTotalBytes *int64 `json:"swap_total_bytes,omitzero"`
	SwapUsedBytes  *int64 `json:"swap_used_bytes,omitzero"`
	// LimitBytes is how much a container may use.
	LimitBytes *int64 `json:"limit_bytes,omitzero"`
	// GPULimitBytes is how much of a unified memory the GPU may wire down
	// (Apple's iogpu.wired_limit_mb), where somebody has set it.
	GPULimitBytes *int64 `json:"gpu_limit_bytes,omitzero"`
}

// PowerSource says where the power comes from.
type PowerSource string

const (
	AC           PowerSource = "ac"
	Battery      PowerSource = "battery"
	Undersized   PowerSource = "undersized" // an adapter too weak for the machine; only NVIDIA's driver says so
	UnknownPower PowerSource = "unknown"
)

// Power is how the machine is fed and what it is told to do with it.
type Power struct {
	Source         PowerSource `json:"source"`
	BatteryPercent *float64    `json:"battery_percent,omitzero"`
	BatteryStatus  string      `json:"battery_status,omitzero"` // charging, discharging, full, not charging
	// BatteryDrawW is what the battery gives while it discharges.
	BatteryDrawW *float64 `json:"battery_draw_w,omitzero"`
	// Profile is what the system's own setting is called: a platform profile
	// or power-profiles-daemon's on Linux, the power plan on Windows, "low
	// power mode" on macOS.
	Profile string `json:"profile,omitzero"`
	// ProfileSource says which of them Profile is: platform_profile,
	// power-profiles-daemon, powercfg, pmset.
	ProfileSource string `json:"profile_source,omitzero"`
	// Saver is whether the system saves power at the cost of speed.
	Saver *bool `json:"saver,omitzero"`
}

// GPU finds the GPU with this index of this vendor, or nil.
func (s *Snapshot) GPU(vendor string, index int) *GPU {
	for i := range s.GPUs {
		if s.GPUs[i].Vendor == vendor && s.GPUs[i].Index == index {
			return &s.GPUs[i]
		}
	}
	return nil
}

// Reading finds a reading by its name, or nil if it was not tried.
func (s *Snapshot) Reading(name string) *Reading {
	for i := range s.Readings {
		if s.Readings[i].Name == name {
			return &s.Readings[i]
		}
	}
	return nil
}
