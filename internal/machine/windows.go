package machine

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// The questions to Windows, as arguments of powershell. They ask CIM classes,
// whose names are the same in every language of Windows, unlike counters'.
const (
	askVideo = `$ProgressPreference='SilentlyContinue';[Console]::OutputEncoding=[Text.Encoding]::UTF8;` +
		`Get-CimInstance Win32_VideoController | Select-Object Name,AdapterCompatibility,AdapterRAM,DriverVersion,PNPDeviceID,VideoProcessor | ConvertTo-Json -Compress`
	askGPUMemory = `$ProgressPreference='SilentlyContinue';[Console]::OutputEncoding=[Text.Encoding]::UTF8;` +
		`Get-CimInstance Win32_PerfFormattedData_GPUPerformanceCounters_GPUProcessMemory | Select-Object Name,DedicatedUsage,SharedUsage,LocalUsage,NonLocalUsage | ConvertTo-Json -Compress`
	askHost = `$ProgressPreference='SilentlyContinue';[Console]::OutputEncoding=[Text.Encoding]::UTF8;` +
		`$c=Get-CimInstance Win32_Processor;$s=Get-CimInstance Win32_ComputerSystem;` +
		`@{cpu=@($c|Select-Object Name,Manufacturer,NumberOfCores,NumberOfLogicalProcessors,MaxClockSpeed);system=($s|Select-Object Manufacturer,Model,HypervisorPresent)}|ConvertTo-Json -Depth 4 -Compress`
)

// jsonList decodes a JSON array; PowerShell writes a single element bare, and
// nothing at all for none.
func jsonList[T any](data []byte) ([]T, error) {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if len(data) == 0 {
		return nil, nil
	}
	if data[0] != '[' {
		data = append(append([]byte{'['}, data...), ']')
	}
	var out []T
	err := json.Unmarshal(data, &out)
	return out, err
}

var pnpID = regexp.MustCompile(`(?i)PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})`)

// ParseVideoControllers reads Win32_VideoController as JSON. Its AdapterRAM
// has 32 bits, so that a size near 4 GiB is only a lower bound and is left
// out.
func ParseVideoControllers(data []byte) ([]GPU, error) {
	list, err := jsonList[struct {
		Name, AdapterCompatibility, DriverVersion, PNPDeviceID, VideoProcessor string
		AdapterRAM                                                             *float64
	}](data)
	if err != nil {
		return nil, fmt.Errorf("Win32_VideoController: %w", err)
	}
	var gpus []GPU
	perVendor := map[string]int{}
	for _, c := range list {
		m := pnpID.FindStringSubmatch(c.PNPDeviceID)
		if m == nil {
			continue // a remote or virtual display
		}
		vendor := pciVendors["0x"+strings.ToLower(m[1])]
		if vendor == "" {
			continue
		}
		g := GPU{
			Vendor: vendor, Name: c.Name, Driver: c.DriverVersion, Sources: []string{"Win32_VideoController"},
			PCIDevice: strings.ToLower(m[1] + ":" + m[2]),
		}
		g.Index = perVendor[vendor]
		perVendor[vendor]++
		const bound = 4<<30 - 2<<20 // 4293918720 and what rounds to it
		if c.AdapterRAM != nil && *c.AdapterRAM > 0 && *c.AdapterRAM < bound {
			g.MemoryTotalBytes = new(int64(*c.AdapterRAM))
		}
		g.Integrated = integratedPCI(g.PCIDevice, "")
		gpus = append(gpus, g)
	}
	return gpus, nil
}

// GPUMemory is what Windows' video memory manager says of one process on one
// adapter. It sees CUDA's memory as well.
type GPUMemory struct {
	PID            int
	Adapter        string // its LUID
	DedicatedBytes *int64
	SharedBytes    *int64
}

var counterInstance = regexp.MustCompile(`(?i)pid_(\d+)_luid_(0x[0-9a-f]+_0x[0-9a-f]+)`)

// addCounter notes one counter of one instance.
func addCounter(list []GPUMemory, instance, counter string, v float64) []GPUMemory {
	m := counterInstance.FindStringSubmatch(instance)
	if m == nil || !(v >= 0 && v < 1<<60) {
		return list
	}
	pid, err := strconv.ParseInt(m[1], 10, 32)
	if err != nil {
		return list
	}
	at := -1
	for i := range list {
		if list[i].PID == int(pid) && list[i].Adapter == strings.ToLower(m[2]) {
			at = i
		}
	}
	if at < 0 {
		list = append(list, GPUMemory{PID: int(pid), Adapter: strings.ToLower(m[2])})
		at = len(list) - 1
	}
	switch strings.ToLower(strings.ReplaceAll(counter, " ", "")) {
	case "dedicatedusage":
		list[at].DedicatedBytes = sum(list[at].DedicatedBytes, v)
	case "sharedusage":
		list[at].SharedBytes = sum(list[at].SharedBytes, v)
	}
	return list
}

// sum adds to what may not be known yet: an adapter of several physical GPUs
// has several instances.
func sum(p *int64, v float64) *int64 {
	if p == nil {
		return new(int64(v))
	}
	return new(*p + int64(v))
}

// ParseGPUProcessMemory reads the GPU memory of processes on Windows, in any
// of three forms: the CIM class as JSON, Get-Counter's samples as JSON (Path
// or InstanceName, CookedValue), or typeperf's CSV. Names of hosts in the
// paths are dropped.
func ParseGPUProcessMemory(data []byte) ([]GPUMemory, error) {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if len(data) == 0 {
		return nil, nil
	}
	if data[0] == '"' || data[0] == '(' {
		return parseTypeperf(data)
	}
	list, err := jsonList[struct {
		Name, InstanceName, Path    string
		DedicatedUsage, SharedUsage *json.Number
		CookedValue                 *float64
	}](data)
	if err != nil {
		return nil, fmt.Errorf("GPU process memory: %w", err)
	}
	var out []GPUMemory
	for _, e := range list {
		if e.CookedValue != nil { // \\host\gpu process memory(pid_1_luid_...)\dedicated usage
			counter := e.Path[strings.LastIndex(e.Path, `\`)+1:]
			out = addCounter(out, e.Path+e.InstanceName, counter, *e.CookedValue)
			continue
		}
		for counter, n := range map[string]*json.Number{"dedicatedusage": e.DedicatedUsage, "sharedusage": e.SharedUsage} {
			if n == nil {
				continue
			}
			if v, err := n.Float64(); err == nil {
				out = addCounter(out, e.Name, counter, v)
			}
		}
	}
	return out, nil
}

// parseTypeperf reads typeperf's CSV: a header of counter paths and rows of
// values, of which the last counts.
func parseTypeperf(data []byte) ([]GPUMemory, error) {
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord = -1
	r.LazyQuotes = true
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("typeperf: %w", err)
	}
	if len(rows) == 0 || len(rows[0]) < 2 || !strings.Contains(rows[0][0], "PDH-CSV") {
		return nil, errors.New("typeperf: line 1 is not its header")
	}
	head := rows[0]
	for i := len(rows) - 1; i > 0; i-- {
		if len(rows[i]) != len(head) {
			continue // a line about its end
		}
		var out []GPUMemory
		for c := 1; c < len(head); c++ {
			v, err := strconv.ParseFloat(strings.TrimSpace(strings.ReplaceAll(rows[i][c], ",", ".")), 64)
			if err != nil {
				continue
			}
			out = addCounter(out, head[c], head[c][strings.LastIndex(head[c], `\`)+1:], v)
		}
		return out, nil
	}
	return nil, errors.New("typeperf: no row of values")
}

// ParseWindowsHost reads processor and system from CIM, as askHost asks.
func ParseWindowsHost(data []byte) (CPU, Virtual, error) {
	var doc struct {
		CPU []struct {
			Name, Manufacturer                                      string
			NumberOfCores, NumberOfLogicalProcessors, MaxClockSpeed *int
		} `json:"cpu"`
		System struct {
			Manufacturer, Model string
			HypervisorPresent   *bool
		} `json:"system"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(bytes.TrimSpace(data), []byte("\xef\xbb\xbf")), &doc); err != nil {
		return CPU{}, Virtual{}, fmt.Errorf("Win32_Processor: %w", err)
	}
	if len(doc.CPU) == 0 {
		return CPU{}, Virtual{}, errors.New("Win32_Processor: no processor in it")
	}
	c := CPU{Model: strings.Join(strings.Fields(doc.CPU[0].Name), " "), Vendor: doc.CPU[0].Manufacturer, Sockets: new(len(doc.CPU)), MaxMHz: doc.CPU[0].MaxClockSpeed}
	for _, p := range doc.CPU {
		c.Cores = addInt(c.Cores, p.NumberOfCores)
		c.Threads = addInt(c.Threads, p.NumberOfLogicalProcessors)
	}
	// A hypervisor is present on a bare Windows with Hyper-V or VBS too, so
	// only the model tells.
	var v Virtual
	v.VM = vmName(doc.System.Manufacturer, doc.System.Model)
	return c, v, nil
}

func addInt(a, b *int) *int {
	if a == nil || b == nil {
		return or(a, b)
	}
	return new(*a + *b)
}

var powerPlan = regexp.MustCompile(`([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})\s*(?:\((.*)\))?`)

// powerPlans are Windows' own plans by their GUIDs, which are the same in
// every language (Microsoft, "Power Policy Settings": GUID_MAX_POWER_SAVINGS,
// GUID_MIN_POWER_SAVINGS, GUID_TYPICAL_POWER_SAVINGS; the last is Ultimate
// Performance).
var powerPlans = map[string]string{
	"a1841308-3541-4fab-bc81-f71556f20b4a": "power saver",
	"8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c": "high performance",
	"381b4222-f694-41f0-9685-ff5bb260df2e": "balanced",
	"e9a42b02-d5df-448d-aa00-03f14749eb61": "ultimate performance",
}

// ParsePowercfg reads `powercfg /getactivescheme`.
func ParsePowercfg(data []byte) (Power, error) {
	m := powerPlan.FindStringSubmatch(string(data))
	if m == nil {
		return Power{}, errors.New("powercfg: no power plan in its answer")
	}
	p := Power{ProfileSource: "powercfg"}
	p.Profile = powerPlans[strings.ToLower(m[1])]
	if p.Profile == "" {
		p.Profile = strings.TrimSpace(m[2])
	}
	if p.Profile == "" {
		p.Profile = m[1]
	}
	if powerPlans[strings.ToLower(m[1])] != "" {
		p.Saver = new(p.Profile == "power saver")
	}
	return p, nil
}

// powerStatus reads SYSTEM_POWER_STATUS (Microsoft, winbase.h).
func powerStatus(ac, flag, charge, saver byte) Power {
	p := Power{Source: UnknownPower}
	switch ac {
	case 0:
		p.Source = Battery
	case 1:
		p.Source = AC
	}
	const none, unknown, charging = 128, 255, 8
	if flag != unknown && flag&none == 0 {
		if charge <= 100 {
			p.BatteryPercent = new(float64(charge))
		}
		switch {
		case flag&charging != 0:
			p.BatteryStatus = "charging"
		case ac == 0:
			p.BatteryStatus = "discharging"
		default:
			p.BatteryStatus = "not charging"
		}
	}
	if saver == 1 { // battery saver; 0 says nothing about the power plan
		p.Saver = new(true)
	}
	return p
}

// memoryStatus makes sense of MEMORYSTATUSEX: its page numbers are of the
// commit limit, which is memory and page file together. How much of the page
// file is in use it does not say.
func memoryStatus(total, avail, totalPage uint64) Memory {
	m := Memory{TotalBytes: asBytes(total), AvailableBytes: asBytes(avail)}
	if totalPage >= total {
		m.SwapTotalBytes = asBytes(totalPage - total)
	}
	return m
}
