package machine

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// amdCard describes an AMD GPU from its folder in /sys/class/drm/card*/device.
func amdCard(dev tree, g *GPU) {
	g.Sources = append(g.Sources, "sysfs")
	g.Name = dev.text("product_name")
	g.DriverModel = dev.link("driver")
	g.MemoryTotalBytes = sysBytes(dev, "mem_info_vram_total")
	g.MemoryUsedBytes = sysBytes(dev, "mem_info_vram_used")
	if g.MemoryTotalBytes != nil && g.MemoryUsedBytes != nil && *g.MemoryUsedBytes <= *g.MemoryTotalBytes {
		g.MemoryFreeBytes = new(*g.MemoryTotalBytes - *g.MemoryUsedBytes)
	}
	g.SharedTotalBytes = sysBytes(dev, "mem_info_gtt_total")
	if id := dev.text("unique_id"); id != "" && strings.Trim(id, "0") != "" {
		g.UUID = id
	}
	_, g.ClockSMMaxMHz = ParseDPM([]byte(dev.text("pp_dpm_sclk")))
	_, g.ClockMemMaxMHz = ParseDPM([]byte(dev.text("pp_dpm_mclk")))
	g.PCIeGenMax = pcieGen(dev.text("max_link_speed"))
	g.PCIeWidthMax = sysInt(dev, "max_link_width")
	g.PState = dev.text("power_dpm_force_performance_level")

	hw := hwmon(dev)
	g.PowerDefaultW = sysScaled(hw, 1e6, "power1_cap_default")
	g.PowerLimitMinW = sysScaled(hw, 1e6, "power1_cap_min")
	g.PowerLimitMaxW = sysScaled(hw, 1e6, "power1_cap_max")
	for i, label := range []string{"edge", "junction", "mem"} { // labels, else amdgpu's order
		n := hwmonLabel(hw, label, i+1)
		crit := sysScaled(hw, 1000, n+"_crit")
		emergency := sysScaled(hw, 1000, n+"_emergency")
		switch label {
		case "edge":
			g.ShutdownC = emergency
			if g.SlowdownC == nil {
				g.SlowdownC = crit
			}
		case "mem":
			g.MemLimitC = crit
		}
	}

	s := amdSample(dev, g.Index)
	g.UtilGPUPercent, g.UtilMemPercent = s.UtilGPUPercent, s.UtilMemPercent
	g.ClockSMMHz, g.ClockMemMHz = s.ClockSMMHz, s.ClockMemMHz
	g.PowerDrawW, g.PowerLimitW = s.PowerDrawW, s.PowerLimitW
	g.TemperatureC, g.TemperatureMemC = s.TemperatureC, s.TemperatureMemC
	g.SharedUsedBytes = s.SharedUsedBytes
	g.PCIeGen, g.PCIeWidth = s.PCIeGen, s.PCIeWidth
	g.ThrottleReasons = s.ThrottleReasons
}

// amdSample reads what changes.
func amdSample(dev tree, index int) GPUSample {
	s := GPUSample{Index: index, Vendor: AMD}
	if v := sysInt(dev, "gpu_busy_percent"); v != nil && *v <= 100 {
		s.UtilGPUPercent = new(float64(*v))
	}
	if v := sysInt(dev, "mem_busy_percent"); v != nil && *v <= 100 {
		s.UtilMemPercent = new(float64(*v))
	}
	s.MemoryUsedBytes = sysBytes(dev, "mem_info_vram_used")
	s.SharedUsedBytes = sysBytes(dev, "mem_info_gtt_used")
	s.ClockSMMHz, _ = ParseDPM([]byte(dev.text("pp_dpm_sclk")))
	s.ClockMemMHz, _ = ParseDPM([]byte(dev.text("pp_dpm_mclk")))
	s.PCIeGen = pcieGen(dev.text("current_link_speed"))
	s.PCIeWidth = sysInt(dev, "current_link_width")

	hw := hwmon(dev)
	s.PowerDrawW = sysScaled(hw, 1e6, "power1_input")
	if s.PowerDrawW == nil {
		s.PowerDrawW = sysScaled(hw, 1e6, "power1_average")
	}
	s.PowerLimitW = sysScaled(hw, 1e6, "power1_cap")
	s.TemperatureC = sysScaled(hw, 1000, hwmonLabel(hw, "edge", 1)+"_input")
	s.TemperatureMemC = sysScaled(hw, 1000, hwmonLabel(hw, "mem", 3)+"_input")
	if hz := sysScaled(hw, 1e6, "freq1_input"); hz != nil {
		s.ClockSMMHz = new(int(*hz))
	}
	if hz := sysScaled(hw, 1e6, "freq2_input"); hz != nil {
		s.ClockMemMHz = new(int(*hz))
	}
	if b, err := dev.bytes("gpu_metrics"); err == nil {
		s.ThrottleReasons = ParseAMDMetrics(b)
	}
	return s
}

// hwmon is the folder of a card's sensors.
func hwmon(dev tree) tree {
	names := dev.names("hwmon")
	if len(names) == 0 {
		return dev.within("hwmon", "none")
	}
	return dev.within("hwmon", names[0])
}

// hwmonLabel finds the temperature with this label; without labels, the one
// that amdgpu gives this number.
func hwmonLabel(hw tree, label string, number int) string {
	for _, n := range hw.names() {
		if base, ok := strings.CutSuffix(n, "_label"); ok && strings.HasPrefix(n, "temp") && hw.text(n) == label {
			return base
		}
	}
	if hw.exists("temp1_label") {
		return "temp0" // labels are there and this is none of them
	}
	return "temp" + strconv.Itoa(number)
}

// sysBytes is a size in a file; the largest number means that the driver does
// not know.
func sysBytes(t tree, name string) *int64 {
	x, err := strconv.ParseUint(t.text(name), 10, 64)
	if err != nil {
		return nil
	}
	return asBytes(x)
}

func sysInt(t tree, name string) *int {
	x, ok := t.int(name)
	if !ok || x < 0 || x > 1<<30 {
		return nil
	}
	return new(int(x))
}

// sysScaled is a whole number in a small unit, in the usual one.
func sysScaled(t tree, scale float64, name string) *float64 {
	x, ok := t.int(name)
	if !ok || x < 0 || x >= 1<<62 {
		return nil
	}
	return new(float64(x) / scale)
}

var gtPerSecond = regexp.MustCompile(`^(\d+(?:\.\d+)?) ?GT/s`)

// pcieGen is the generation of a link speed, "8.0 GT/s PCIe" (PCI Express
// Base Specification: 2.5, 5, 8, 16, 32, 64 GT/s).
func pcieGen(speed string) *int {
	m := gtPerSecond.FindStringSubmatch(speed)
	if m == nil {
		return nil
	}
	x, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return nil
	}
	i := slices.Index([]float64{2.5, 5, 8, 16, 32, 64}, x)
	if i < 0 {
		return nil
	}
	return new(i + 1)
}

var dpmLine = regexp.MustCompile(`^\s*\S+:\s*(\d+)\s*M[hH]z\s*(\*?)`)

// ParseDPM reads a list of clock levels (pp_dpm_sclk): the level in use,
// which is marked, and the highest.
func ParseDPM(data []byte) (now, highest *int) {
	for line := range bytes.Lines(data) {
		m := dpmLine.FindSubmatch(line)
		if m == nil {
			continue
		}
		x, err := strconv.ParseInt(string(m[1]), 10, 31)
		if err != nil {
			continue
		}
		if highest == nil || int(x) > *highest {
			highest = new(int(x))
		}
		if len(m[2]) > 0 {
			now = new(int(x))
		}
	}
	return now, highest
}

// amdThrottlers are the bits of indep_throttle_status (Linux
// drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h, SMU_THROTTLER_*_BIT).
var amdThrottlers = []struct {
	first, last int
	reason      Reason
}{
	{0, 7, AMDPower},     // PPT0-3, SPL, FPPT, SPPT, SPPT_APU
	{16, 23, AMDCurrent}, // TDC and EDC, APCC
	{32, 33, AMDThermal}, // GPU, CORE
	{34, 34, AMDThermalMem},
	{35, 37, AMDThermal}, // EDGE, HOTSPOT, SOC
	{38, 41, AMDThermalVR},
	{42, 43, AMDThermal},   // LIQUID
	{44, 45, AMDThermalVR}, // VRHOT
	{46, 47, AMDProchot},   // CPU, GFX
}

// ParseAMDMetrics reads the throttle reasons from the table gpu_metrics,
// version 1.3 (Linux drivers/gpu/drm/amd/include/kgd_pp_interface.h), where
// they are independent of the chip. Other versions do not have them: nil.
func ParseAMDMetrics(b []byte) []Reason {
	const (
		size   = 120 // of gpu_metrics_v1_3
		status = 112 // indep_throttle_status
	)
	if len(b) < size || b[2] != 1 || b[3] != 3 || int(binary.LittleEndian.Uint16(b)) < size {
		return nil
	}
	bits := binary.LittleEndian.Uint64(b[status:])
	if bits == ^uint64(0) {
		return nil
	}
	out := []Reason{}
	for _, t := range amdThrottlers {
		for i := t.first; i <= t.last; i++ {
			if bits&(1<<i) != 0 {
				out = append(out, t.reason)
				bits &^= 1 << i
			}
		}
	}
	if bits != 0 {
		out = append(out, AMDOther)
	}
	return sortReasons(out)
}
