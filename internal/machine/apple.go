package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// ParseSystemProfiler reads `system_profiler SPDisplaysDataType -json`. Apple
// silicon says its cores and shares the machine's memory; older Macs have
// cards of other vendors. What it says of the screens (serial numbers) is not
// read.
func ParseSystemProfiler(data []byte) ([]GPU, error) {
	var doc struct {
		Displays []struct {
			Name   string `json:"_name"`
			Model  string `json:"sppci_model"`
			Vendor string `json:"spdisplays_vendor"`
			Bus    string `json:"sppci_bus"`
			Cores  any    `json:"sppci_cores"`
			VRAM   string `json:"spdisplays_vram"`
			Shared string `json:"spdisplays_vram_shared"`
			Device string `json:"spdisplays_device-id"`
			Metal  string `json:"spdisplays_mtlgpufamilysupport"`
			Lanes  string `json:"spdisplays_pcie_width"`
			Ndrvs  []any  `json:"spdisplays_ndrvs"`
		} `json:"SPDisplaysDataType"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("system_profiler: %w", err)
	}
	var gpus []GPU
	perVendor := map[string]int{}
	for _, d := range doc.Displays {
		g := GPU{Name: d.Model, Sources: []string{"system_profiler"}}
		if g.Name == "" {
			g.Name = d.Name
		}
		if g.Name == "" {
			continue
		}
		v := strings.ToLower(d.Vendor + " " + g.Name)
		switch {
		case strings.Contains(v, "apple"):
			g.Vendor = Apple
		case strings.Contains(v, "amd") || strings.Contains(v, "radeon") || strings.Contains(v, "0x1002"):
			g.Vendor = AMD
		case strings.Contains(v, "nvidia") || strings.Contains(v, "0x10de"):
			g.Vendor = NVIDIA
		case strings.Contains(v, "intel") || strings.Contains(v, "0x8086"):
			g.Vendor = Intel
		default:
			g.Vendor = "other"
		}
		g.Index = perVendor[g.Vendor]
		perVendor[g.Vendor]++
		switch d.Bus {
		case "spdisplays_builtin":
			g.Integrated = new(true)
		case "spdisplays_pcie_device":
			g.Integrated = new(false)
		}
		if x, ok := count(plain(d.Cores)); ok {
			g.Cores = &x
		}
		if x, ok := size(d.VRAM); ok {
			g.MemoryTotalBytes = &x
		} else if x, ok := size(d.Shared); ok {
			g.SharedTotalBytes = &x
		}
		if x, ok := lanes(strings.TrimPrefix(d.Lanes, "x")); ok {
			g.PCIeWidth = &x
		}
		g.Architecture = strings.TrimPrefix(d.Metal, "spdisplays_")
		if len(d.Ndrvs) > 0 {
			g.DisplayActive = new(true)
		}
		gpus = append(gpus, g)
	}
	if gpus == nil {
		return nil, errors.New("system_profiler: no GPU in it")
	}
	return gpus, nil
}

// size reads "8 GB", "1536 MB": in 2^30 and 2^20.
func size(v string) (int64, bool) {
	num, unit, _ := strings.Cut(strings.TrimSpace(v), " ")
	scale := map[string]float64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}[strings.ToUpper(unit)]
	x, err := strconv.ParseFloat(num, 64)
	if err != nil || scale == 0 || !(x >= 0 && x*scale < 1<<60) {
		return 0, false
	}
	return int64(x * scale), true
}

var ioregStat = regexp.MustCompile(`"([^"]+)"\s*=\s*(\d+)`)

// ParseIOReg reads the performance statistics of the GPU from `ioreg -r -d 1
// -w 0 -c IOAccelerator`, which needs no rights: utilisation, and the main
// memory that the GPU has in use. With two accelerators the busier one is
// taken.
func ParseIOReg(data []byte) (GPUSample, error) {
	best := GPUSample{Vendor: Apple}
	found := false
	for block := range strings.SplitSeq(string(data), `"PerformanceStatistics"`) {
		_, rest, ok := strings.Cut(block, "{")
		if !ok || !strings.HasPrefix(strings.TrimSpace(block), "=") {
			continue
		}
		rest, _, _ = strings.Cut(rest, "}")
		s := GPUSample{Vendor: Apple}
		for _, m := range ioregStat.FindAllStringSubmatch(rest, -1) {
			x, err := strconv.ParseUint(m[2], 10, 64)
			if err != nil {
				continue
			}
			switch m[1] {
			case "Device Utilization %":
				if x <= 100 {
					s.UtilGPUPercent = new(float64(x))
				}
			case "In use system memory":
				s.SharedUsedBytes = asBytes(x)
			}
		}
		if s.UtilGPUPercent == nil && s.SharedUsedBytes == nil {
			continue
		}
		if !found || best.UtilGPUPercent == nil || s.UtilGPUPercent != nil && *s.UtilGPUPercent > *best.UtilGPUPercent {
			best, found = s, true
		}
	}
	if !found {
		return best, errors.New("ioreg: no performance statistics of a GPU")
	}
	return best, nil
}

// ParseSysctl reads `sysctl NAME...`: values by name.
func ParseSysctl(data []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.SplitSeq(string(data), "\n") {
		name, v, ok := strings.Cut(line, ": ")
		if !ok || strings.Contains(name, " ") {
			continue
		}
		out[name] = strings.TrimSpace(v)
	}
	return out
}

// ParsePmset reads `pmset -g batt` (source, charge) and, where it is appended,
// `pmset -g` (low power mode).
func ParsePmset(data []byte) (Power, error) {
	p := Power{Source: UnknownPower}
	s := string(data)
	switch {
	case strings.Contains(s, "'AC Power'"):
		p.Source = AC
	case strings.Contains(s, "'Battery Power'"), strings.Contains(s, "'UPS Power'"):
		p.Source = Battery
	default:
		return p, errors.New("pmset: it does not say what the power is drawn from")
	}
	if m := pmsetBattery.FindStringSubmatch(s); m != nil {
		if x, ok := percent(m[1]); ok {
			p.BatteryPercent = &x
		}
		p.BatteryStatus = m[2]
		if m[2] == "AC attached" {
			p.BatteryStatus = "not charging"
		}
	}
	if m := pmsetLow.FindStringSubmatch(s); m != nil {
		p.Saver = new(m[1] == "1")
		p.ProfileSource = "pmset"
		p.Profile = map[string]string{"0": "automatic", "1": "low power mode", "2": "high power mode"}[m[1]]
	}
	return p, nil
}

var (
	pmsetBattery = regexp.MustCompile(`InternalBattery.*?\t\s*(\d+)%;\s*([A-Za-z ]+);`)
	pmsetLow     = regexp.MustCompile(`(?m)^\s*(?:lowpowermode|powermode)\s+(\d)`)
)
