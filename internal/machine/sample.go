package machine

// GPUSample is what changes about a GPU while it works, at one moment. The
// fields mean what they mean in GPU; nil is not known.
type GPUSample struct {
	Index  int    `json:"index"`
	Vendor string `json:"vendor"`

	UtilGPUPercent     *float64         `json:"util_gpu_percent,omitzero"`
	UtilMemPercent     *float64         `json:"util_mem_percent,omitzero"`
	ClockSMMHz         *int             `json:"clock_sm_mhz,omitzero"`
	ClockMemMHz        *int             `json:"clock_mem_mhz,omitzero"`
	PowerDrawW         *float64         `json:"power_draw_w,omitzero"`
	PowerAverageW      *float64         `json:"power_average_w,omitzero"`
	PowerLimitW        *float64         `json:"power_limit_w,omitzero"`
	TemperatureC       *float64         `json:"temperature_c,omitzero"`
	TemperatureMemC    *float64         `json:"temperature_mem_c,omitzero"`
	MemoryUsedBytes    *int64           `json:"memory_used_bytes,omitzero"`
	SharedUsedBytes    *int64           `json:"shared_used_bytes,omitzero"`
	PState             string           `json:"pstate,omitzero"`
	PCIeGen            *int             `json:"pcie_gen,omitzero"`
	PCIeWidth          *int             `json:"pcie_width,omitzero"`
	ThrottleReasons    []Reason         `json:"throttle_reasons,omitzero"`
	ThrottleCountersUS map[Reason]int64 `json:"throttle_counters_us,omitzero"`
}

// sampleOf takes what changes from a full description.
func sampleOf(g *GPU) GPUSample {
	return GPUSample{
		Index: g.Index, Vendor: g.Vendor,
		UtilGPUPercent: g.UtilGPUPercent, UtilMemPercent: g.UtilMemPercent,
		ClockSMMHz: g.ClockSMMHz, ClockMemMHz: g.ClockMemMHz,
		PowerDrawW: g.PowerDrawW, PowerAverageW: g.PowerAverageW, PowerLimitW: g.PowerLimitW,
		TemperatureC: g.TemperatureC, TemperatureMemC: g.TemperatureMemC,
		MemoryUsedBytes: g.MemoryUsedBytes, SharedUsedBytes: g.SharedUsedBytes,
		PState: g.PState, PCIeGen: g.PCIeGen, PCIeWidth: g.PCIeWidth,
		ThrottleReasons: g.ThrottleReasons, ThrottleCountersUS: g.ThrottleCountersUS,
	}
}

// HostSample is what changes about the host.
type HostSample struct {
	// BusyCores is how many cores were busy with anything since the sample
	// before.
	BusyCores      *float64 `json:"busy_cores,omitzero"`
	AvailableBytes *int64   `json:"available_bytes,omitzero"`
	SwapUsedBytes  *int64   `json:"swap_used_bytes,omitzero"`
	// ServerCores is how many cores the server's processes used since the
	// sample before, all of them together.
	ServerCores *float64 `json:"server_cores,omitzero"`
	// BusiestThread is the share of one core (0 to 1) that the busiest single
	// thread of the server used since the sample before. At 1 it is what
	// everything else waits for.
	BusiestThread *float64 `json:"busiest_thread,omitzero"`
	// ServerProcesses is how many processes were counted as the server's.
	ServerProcesses *int `json:"server_processes,omitzero"`
}
