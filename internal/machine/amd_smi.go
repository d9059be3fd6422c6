package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ParseROCmSMI reads `rocm-smi -a --json` (or --showallinfo), whose keys have
// changed their case and punctuation over the years: one object for each
// card, and one for the system.
func ParseROCmSMI(data []byte) ([]GPU, error) {
	var doc map[string]map[string]any
	if err := json.Unmarshal(jsonPart(data), &doc); err != nil {
		return nil, fmt.Errorf("rocm-smi --json: %w", err)
	}
	driver := ""
	for k, v := range doc["system"] {
		if strings.EqualFold(k, "Driver version") {
			driver = plain(v)
		}
	}
	var gpus []GPU
	for _, card := range slices.Sorted(maps.Keys(doc)) {
		num, ok := strings.CutPrefix(card, "card")
		index, isNum := count(num)
		if !ok || !isNum {
			continue
		}
		g := GPU{Index: index, Vendor: AMD, Driver: driver, Sources: []string{"rocm-smi"}}
		fields := map[string]string{}
		for k, v := range doc[card] {
			fields[strings.ToLower(strings.Trim(strings.TrimSpace(k), ":"))] = strings.TrimSpace(plain(v))
		}
		g.rocm(fields)
		gpus = append(gpus, g)
	}
	if gpus == nil {
		return nil, errors.New("rocm-smi --json: no card in it")
	}
	slices.SortFunc(gpus, func(a, b GPU) int { return a.Index - b.Index })
	return gpus, nil
}

var inBrackets = regexp.MustCompile(`\(([^()]*)\)`)

// rocm fills in one card from its lower-cased keys.
func (g *GPU) rocm(f map[string]string) {
	first := func(keys ...string) string {
		for _, k := range keys {
			if v := f[k]; classify(v) == isValue {
				return v
			}
		}
		return ""
	}
	num := func(v string, scale float64) *float64 {
		x, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) || x < 0 || x > 1<<60 {
			return nil
		}
		return new(x * scale)
	}
	size := func(v string) *int64 {
		x, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return nil
		}
		return asBytes(x)
	}
	clock := func(v string) *int { // "(1269Mhz)", "808Mhz"
		if m := inBrackets.FindStringSubmatch(v); m != nil {
			v = m[1]
		}
		x, ok := megahertz(v)
		if !ok {
			return nil
		}
		return &x
	}
	for _, k := range []string{"device name", "card series"} { // older ones give a number for the series
		if v := first(k); v != "" && !strings.HasPrefix(v, "0x") {
			g.Name = v
			break
		}
	}
	if v := strings.TrimPrefix(first("device id", "gpu id"), "0x"); v != "" {
		if x, err := strconv.ParseUint(v, 16, 16); err == nil {
			g.PCIDevice = fmt.Sprintf("1002:%04x", x)
		}
	}
	pciBus(g, first("pci bus"))
	g.UUID = strings.TrimPrefix(first("unique id"), "0x")
	g.Architecture = first("gfx version")
	g.MemoryTotalBytes = size(first("vram total memory (b)"))
	g.MemoryUsedBytes = size(first("vram total used memory (b)"))
	if g.MemoryTotalBytes != nil && g.MemoryUsedBytes != nil && *g.MemoryUsedBytes <= *g.MemoryTotalBytes {
		g.MemoryFreeBytes = new(*g.MemoryTotalBytes - *g.MemoryUsedBytes)
	}
	g.SharedTotalBytes = size(first("gtt total memory (b)"))
	g.SharedUsedBytes = size(first("gtt total used memory (b)"))
	g.ClockSMMHz = clock(first("sclk clock speed", "sclk clock level"))
	g.ClockMemMHz = clock(first("mclk clock speed", "mclk clock level"))
	g.PowerDrawW = num(first("average graphics package power (w)", "current socket graphics package power (w)"), 1)
	g.PowerLimitW = num(first("max graphics package power (w)"), 1)
	g.TemperatureC = num(first("temperature (sensor edge) (c)"), 1)
	g.TemperatureMemC = num(first("temperature (sensor memory) (c)", "temperature (sensor mem) (c)"), 1)
	g.UtilGPUPercent = num(first("gpu use (%)"), 1)
	// "GPU memory use (%)" is the share of time until ROCm 6.0 and has no
	// meaning that we can be sure of; the later name is clear.
	g.UtilMemPercent = num(first("gpu memory read/write activity (%)"), 1)
	g.PState = first("performance level")
	if m := inBrackets.FindStringSubmatch(first("pcie clock level")); m != nil { // "1 (16.0GT/s x16)"
		speed, width, _ := strings.Cut(m[1], " ")
		g.PCIeGen = pcieGen(speed)
		if x, ok := count(strings.TrimPrefix(width, "x")); ok {
			g.PCIeWidth = &x
		}
	}
}

// plain is a JSON value as text.
func plain(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(x)
	}
	return ""
}

// jsonPart skips the warnings that AMD's tools print before their JSON.
func jsonPart(data []byte) []byte {
	for i, c := range data {
		if (c == '{' || c == '[') && (i == 0 || data[i-1] == '\n') {
			return data[i:]
		}
	}
	return bytes.TrimSpace(data)
}

// ParseAMDSMI reads `amd-smi static --json`, `amd-smi metric --json` and
// `amd-smi process --json`, in the older form (a list) and the newer
// ({"gpu_data": [...]}). Values are {"value", "unit"}, bare numbers, or "N/A".
func ParseAMDSMI(data []byte) ([]GPU, error) {
	var doc any
	if err := json.Unmarshal(jsonPart(data), &doc); err != nil {
		return nil, fmt.Errorf("amd-smi --json: %w", err)
	}
	if m, ok := doc.(map[string]any); ok {
		doc = m["gpu_data"]
	}
	list, ok := doc.([]any)
	if !ok {
		return nil, errors.New("amd-smi --json: no list of GPUs in it")
	}
	var gpus []GPU
	for i, e := range list {
		o, ok := e.(map[string]any)
		if !ok {
			continue
		}
		g := GPU{Index: i, Vendor: AMD, Sources: []string{"amd-smi"}}
		if x, ok := o["gpu"].(float64); ok && x >= 0 && x < 1<<16 {
			g.Index = int(x)
		}
		g.amdSMI(object(o))
		gpus = append(gpus, g)
	}
	if gpus == nil {
		return nil, errors.New("amd-smi --json: no GPU in it")
	}
	return gpus, nil
}

// object walks a JSON tree.
type object map[string]any

// at finds a value below.
func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func (o object) text(path ...string) string {
	s := plain(o.at(path...))
	if classify(s) != isValue {
		return ""
	}
	return s
}

// amdUnits are the units of amd-smi in ours. Its MB are 2^20 bytes.
var amdUnits = map[string]float64{
	"": 1, "W": 1, "MHz": 1, "%": 1, "C": 1, "GT/s": 1, "bit": 1, "mW": 1e-3, "uW": 1e-6, "GHz": 1000,
	"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30,
}

// num is a value with or without a unit; nil if it is not known.
func (o object) num(path ...string) *float64 {
	v, unit := o.at(path...), ""
	if m, ok := v.(map[string]any); ok {
		unit, _ = m["unit"].(string)
		v = m["value"]
	}
	var x float64
	switch t := v.(type) {
	case float64:
		x = t
	case string:
		num, u, ok := strings.Cut(strings.TrimSpace(t), " ")
		if ok {
			unit = u
		}
		var err error
		if x, err = strconv.ParseFloat(num, 64); err != nil {
			return nil
		}
	default:
		return nil
	}
	scale, ok := amdUnits[unit]
	// The largest numbers of 16, 32 and 64 bits mean "not supported".
	isSize := strings.HasSuffix(unit, "B")
	if !ok || math.IsNaN(x) || x < 0 || x > 1<<62 || !isSize && (x == math.MaxUint16 || x == math.MaxUint32) {
		return nil
	}
	return new(x * scale)
}

func (o object) whole(path ...string) *int {
	x := o.num(path...)
	if x == nil || *x > math.MaxInt32 {
		return nil
	}
	return new(int(*x))
}

func (o object) size(path ...string) *int64 {
	x := o.num(path...)
	if x == nil || *x > 1<<60 {
		return nil
	}
	return new(int64(*x))
}

// or is the first that is known.
func or[T any](vs ...*T) *T {
	for _, v := range vs {
		if v != nil {
			return v
		}
	}
	return nil
}

func (g *GPU) amdSMI(o object) {
	g.Name = o.text("asic", "market_name")
	g.Architecture = o.text("asic", "target_graphics_version")
	g.UUID = strings.TrimPrefix(strings.ToLower(o.text("asic", "asic_serial")), "0x")
	if x, err := strconv.ParseUint(strings.TrimPrefix(o.text("asic", "device_id"), "0x"), 16, 16); err == nil {
		g.PCIDevice = fmt.Sprintf("1002:%04x", x)
	}
	for _, p := range [][]string{{"bus", "bdf"}, {"bdf"}} {
		if v := o.text(p...); v != "" {
			pciBus(g, v)
		}
	}
	g.Driver = o.text("driver", "version")
	if g.Driver == "" {
		g.Driver = o.text("driver", "driver_version")
	}
	g.PCIeWidthMax = o.whole("bus", "max_pcie_width")
	g.PCIeGenMax = genOf(o.num("bus", "max_pcie_speed"))
	g.BusWidthBits = o.whole("vram", "bit_width")
	g.MemoryTotalBytes = or(o.size("mem_usage", "total_vram"), o.size("vram", "size"))
	g.MemoryUsedBytes = o.size("mem_usage", "used_vram")
	g.MemoryFreeBytes = o.size("mem_usage", "free_vram")
	g.SharedTotalBytes = o.size("mem_usage", "total_gtt")
	g.SharedUsedBytes = o.size("mem_usage", "used_gtt")

	g.PowerLimitMaxW = or(o.num("limit", "ppt0", "max_power_limit"), o.num("limit", "max_power"))
	g.PowerLimitMinW = or(o.num("limit", "ppt0", "min_power_limit"), o.num("limit", "min_power"))
	g.PowerLimitW = or(o.num("limit", "ppt0", "socket_power_limit"), o.num("limit", "socket_power"))
	g.SlowdownC = o.num("limit", "slowdown_edge_temperature")
	g.ShutdownC = o.num("limit", "shutdown_edge_temperature")
	g.MemLimitC = o.num("limit", "slowdown_vram_temperature")

	g.UtilGPUPercent = o.num("usage", "gfx_activity")
	g.UtilMemPercent = o.num("usage", "umc_activity")
	g.PowerDrawW = or(o.num("power", "socket_power"), o.num("power", "current_socket_power"), o.num("power", "average_socket_power"))
	g.TemperatureC = or(o.num("temperature", "edge"), o.num("temperature", "hotspot"))
	g.TemperatureMemC = o.num("temperature", "mem")
	g.ClockSMMHz, g.ClockSMMaxMHz = o.whole("clock", "gfx_0", "clk"), o.whole("clock", "gfx_0", "max_clk")
	g.ClockMemMHz, g.ClockMemMaxMHz = o.whole("clock", "mem_0", "clk"), o.whole("clock", "mem_0", "max_clk")
	g.PCIeWidth = o.whole("pcie", "width")
	g.PCIeGen = genOf(o.num("pcie", "speed"))
	g.amdThrottle(o)
	if list, ok := o.at("process_list").([]any); ok {
		g.Processes = []Process{}
		for _, e := range list {
			g.amdProcess(e)
		}
	}
}

// genOf is the PCIe generation of a speed in GT/s.
func genOf(gts *float64) *int {
	if gts == nil {
		return nil
	}
	return pcieGen(strconv.FormatFloat(*gts, 'f', -1, 64) + " GT/s")
}

// amdViolations are the violations of amd-smi, by the beginning of their
// names.
var amdViolations = map[string]Reason{
	"prochot":                          AMDProchot,
	"ppt":                              AMDPower,
	"socket_thermal":                   AMDThermal,
	"vr_thermal":                       AMDThermalVR,
	"hbm_thermal":                      AMDThermalMem,
	"gfx_clk_below_host_limit":         AMDBelowLimit,
	"gfx_clk_below_host_limit_power":   AMDPower,
	"gfx_clk_below_host_limit_thermal": AMDThermal,
	"total_gfx_clk_below_host_limit":   AMDBelowLimit,
	"low_utilization":                  AMDUtilization,
}

func (g *GPU) amdThrottle(o object) {
	note := func(r Reason, status string) {
		switch strings.ToUpper(status) {
		case "ACTIVE", "TRUE", "THROTTLED":
			g.ThrottleReasons = append(g.ThrottleReasons, r)
			fallthrough
		case "NOT ACTIVE", "FALSE", "UNTHROTTLED":
			if g.ThrottleReasons == nil {
				g.ThrottleReasons = []Reason{}
			}
		}
	}
	note(AMDThrottled, o.text("power", "throttle_status"))
	if m, ok := o.at("throttle").(map[string]any); ok {
		for k, v := range m {
			if name, ok := strings.CutSuffix(k, "_violation_status"); ok && amdViolations[name] != "" {
				note(amdViolations[name], plain(v))
			}
		}
	}
	g.ThrottleReasons = sortReasons(g.ThrottleReasons)
}

func (g *GPU) amdProcess(e any) {
	m, ok := e.(map[string]any)
	if !ok {
		return
	}
	if inner, ok := m["process_info"].(map[string]any); ok {
		m = inner
	}
	o := object(m)
	pid := o.whole("pid")
	if pid == nil {
		return
	}
	g.Processes = append(g.Processes, Process{
		PID: *pid, Name: programName(o.text("name")), Kind: "C",
		UsedBytes:   or(o.size("memory_usage", "vram_mem"), o.size("mem_usage"), o.size("mem")),
		SharedBytes: o.size("memory_usage", "gtt_mem"),
	})
}
