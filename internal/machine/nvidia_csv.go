package machine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// csvFields are the properties of `nvidia-smi --query-gpu` that we read, with
// the older names of the same.
var csvFields = map[string]field{
	"index":                    func(g *GPU, v string) bool { x, ok := count(v); g.Index = x; return ok },
	"name":                     fName,
	"gpu_name":                 fName,
	"uuid":                     fUUID,
	"gpu_uuid":                 fUUID,
	"driver_version":           fDriver,
	"kmd_version":              fDriver,
	"driver_model.current":     driverModel,
	"compute_cap":              fCap,
	"compute_mode":             fMode,
	"pstate":                   fPState,
	"pci.bus_id":               pciBus,
	"gpu_bus_id":               pciBus,
	"pci.device_id":            pciDevice,
	"display_mode":             fDispMode,
	"display_attached":         fAttached,
	"display_active":           fActive,
	"mig.mode.current":         fMIG,
	"memory.total":             fTotal,
	"memory.reserved":          fReserved,
	"memory.used":              fUsed,
	"memory.free":              fFree,
	"utilization.gpu":          fUtil,
	"utilization.memory":       fUtilMem,
	"clocks.sm":                fSM,
	"clocks.current.sm":        fSM,
	"clocks.gr":                fSMWeak,
	"clocks.current.graphics":  fSMWeak,
	"clocks.mem":               fMem,
	"clocks.current.memory":    fMem,
	"clocks.max.sm":            fSMMax,
	"clocks.max.graphics":      fSMMaxWeak,
	"clocks.max.gr":            fSMMaxWeak,
	"clocks.max.memory":        fMemMax,
	"clocks.max.mem":           fMemMax,
	"power.draw":               fDrawWeak,
	"power.draw.instant":       fDraw,
	"power.draw.average":       fAverage,
	"power.limit":              fRequested,
	"enforced.power.limit":     fLimit,
	"power.default_limit":      fDefault,
	"power.min_limit":          fMin,
	"power.max_limit":          fMax,
	"temperature.gpu":          fTemp,
	"temperature.memory":       fTempMem,
	"temperature.gpu.tlimit":   fMargin,
	"pcie.link.gen.current":    weak(func(g *GPU) **int { return &g.PCIeGen }, fGen),
	"pcie.link.gen.gpucurrent": fGen,
	"pcie.link.gen.max":        fGenMax,
	"pcie.link.gen.gpumax":     fGenDevice,
	"pcie.link.width.current":  fWidth,
	"pcie.link.width.max":      fWidthMax,
}

// csvReasons are the ends of the names of the throttle reasons.
var csvReasons = map[string]Reason{
	"gpu_idle":                    GPUIdle,
	"applications_clocks_setting": AppClocks,
	"sw_power_cap":                SWPowerCap,
	"hw_slowdown":                 HWSlowdown,
	"hw_thermal_slowdown":         HWThermalSlowdown,
	"hw_power_brake_slowdown":     HWPowerBrake,
	"sw_thermal_slowdown":         SWThermalSlowdown,
	"sync_boost":                  SyncBoost,
}

// csvField finds the field of a property.
func csvField(name string) field {
	if f := csvFields[name]; f != nil {
		return f
	}
	for _, p := range []string{"clocks_throttle_reasons.", "clocks_event_reasons."} {
		if n, ok := strings.CutPrefix(name, p); ok {
			if n == "active" {
				return reasonMask
			}
			if r := csvReasons[n]; r != "" {
				return reason(r)
			}
		}
	}
	for _, p := range []string{"clocks_throttle_reasons_counters.", "clocks_event_reasons_counters."} {
		if n, ok := strings.CutPrefix(name, p); ok && csvReasons[n] != "" {
			return counter(csvReasons[n])
		}
	}
	return nil
}

// Row is one line of `nvidia-smi --query-gpu`: a GPU at a moment.
type Row struct {
	GPU GPU
	// Stamp is the timestamp as printed, in the host's local time; zero if
	// the timestamp was not asked for.
	Stamp time.Time
}

// csvHeader splits a header line into names without units.
func csvHeader(line string) []string {
	cols := strings.Split(line, ",")
	for i, c := range cols {
		name, _, _ := strings.Cut(strings.TrimSpace(c), " [")
		cols[i] = name
	}
	return cols
}

// ParseNVIDIACSV reads the output of `nvidia-smi --query-gpu=... --format=csv`
// with or without units and several rows of the same GPU. Columns are what
// was asked for; without them the first line has to be the header.
func ParseNVIDIACSV(data []byte, columns []string) ([]Row, error) {
	var rows []Row
	lineNo := 0
	for line := range bytes.Lines(data) {
		lineNo++
		s := strings.TrimSpace(string(line))
		if s == "" {
			continue
		}
		if columns == nil {
			columns = csvHeader(s)
			if !slices.ContainsFunc(columns, func(c string) bool { return csvField(c) != nil }) {
				return nil, errors.New("nvidia-smi --query-gpu: line 1 is not its header")
			}
			continue
		}
		row, err := csvRow(columns, s)
		if err != nil {
			return rows, fmt.Errorf("nvidia-smi --query-gpu: line %d: %w", lineNo, err)
		}
		if row == nil { // the header, although the columns are known
			continue
		}
		if !slices.Contains(columns, "index") {
			row.GPU.Index = indexOf(rows, row)
		}
		rows = append(rows, *row)
	}
	if columns == nil {
		return nil, errors.New("nvidia-smi --query-gpu: no output")
	}
	return rows, nil
}

// csvRow reads one line; nil for the header.
func csvRow(columns []string, line string) (*Row, error) {
	cols := strings.Split(line, ",")
	if len(cols) != len(columns) {
		return nil, fmt.Errorf("%d values for %d properties", len(cols), len(columns))
	}
	if slices.Equal(csvHeader(line), columns) {
		return nil, nil
	}
	row := &Row{GPU: GPU{Vendor: NVIDIA}}
	for i, c := range columns {
		v := strings.TrimSpace(cols[i])
		if c == "timestamp" {
			row.Stamp, _ = time.ParseInLocation("2006/01/02 15:04:05.000", v, time.Local)
			continue
		}
		if f := csvField(c); f != nil {
			put(&row.GPU, c, f, v)
		} else if classify(v) == isFault {
			fault(&row.GPU, c, v)
		}
	}
	row.GPU.finish()
	return row, nil
}

// indexOf numbers rows that do not say which GPU they are: known GPUs keep
// their number, new ones get the next.
func indexOf(rows []Row, r *Row) int {
	next := 0
	for i := range rows {
		g := &rows[i].GPU
		if r.GPU.UUID != "" && g.UUID == r.GPU.UUID || r.GPU.UUID == "" && r.GPU.PCIBus != "" && g.PCIBus == r.GPU.PCIBus {
			return g.Index
		}
		next = max(next, g.Index+1)
	}
	if r.GPU.UUID == "" && r.GPU.PCIBus == "" { // nothing to tell them apart: one GPU over time
		return 0
	}
	return next
}

// ParseNVIDIAApps reads `nvidia-smi --query-compute-apps=... --format=csv`:
// processes by the UUID of their GPU ("" where it was not asked for). Names of
// programs may hold commas.
func ParseNVIDIAApps(data []byte) (map[string][]Process, error) {
	var columns []string
	apps := map[string][]Process{}
	lineNo := 0
	for line := range bytes.Lines(data) {
		lineNo++
		s := strings.TrimSpace(string(line))
		if s == "" || strings.HasPrefix(s, "No running") {
			continue
		}
		if columns == nil {
			columns = csvHeader(s)
			if !slices.Contains(columns, "pid") {
				return nil, errors.New("nvidia-smi --query-compute-apps: line 1 is not its header")
			}
			continue
		}
		cols := strings.Split(s, ",")
		if extra, at := len(cols)-len(columns), slices.Index(columns, "process_name"); extra > 0 && at >= 0 {
			cols = slices.Concat(cols[:at], []string{strings.Join(cols[at:at+extra+1], ",")}, cols[at+extra+1:])
		}
		if len(cols) != len(columns) {
			return apps, fmt.Errorf("nvidia-smi --query-compute-apps: line %d: %d values for %d properties", lineNo, len(cols), len(columns))
		}
		p, uuid := Process{Kind: "C"}, ""
		for i, c := range columns {
			v := strings.TrimSpace(cols[i])
			switch c {
			case "gpu_uuid":
				uuid = v
			case "pid":
				p.set("pid", v)
			case "process_name", "name":
				p.set("process_name", v)
			case "used_gpu_memory", "used_memory":
				p.UsedBytes = processUsed(v)
			}
		}
		apps[uuid] = append(apps[uuid], p)
	}
	return apps, nil
}

// ParseNVIDIAHelp reads the properties that this driver knows from
// `nvidia-smi --help-query-gpu`, all names of each.
func ParseNVIDIAHelp(data []byte) map[string]bool {
	known := map[string]bool{}
	for line := range bytes.Lines(data) {
		s := strings.TrimSpace(string(line))
		if !strings.HasPrefix(s, `"`) {
			continue
		}
		for i, part := range strings.Split(s, `"`) { // "name" or "other name"
			if i%2 == 1 && part != "" && !strings.Contains(part, " ") {
				known[part] = true
			}
		}
	}
	return known
}

// liveColumns are the properties of a live sample, each with its older names;
// the first that the driver knows is taken.
var liveColumns = [][]string{
	{"index"},
	{"timestamp"},
	{"utilization.gpu"},
	{"utilization.memory"},
	{"power.draw.instant"},
	{"power.draw"},
	{"enforced.power.limit"},
	{"clocks.current.sm", "clocks.sm"},
	{"clocks.current.memory", "clocks.mem"},
	{"temperature.gpu"},
	{"temperature.memory"},
	{"memory.used"},
	{"pstate"},
	{"pcie.link.gen.gpucurrent", "pcie.link.gen.current"},
	{"pcie.link.width.current"},
	{"clocks_event_reasons.active", "clocks_throttle_reasons.active"},
	{"clocks_event_reasons_counters.sw_power_cap"},
	{"clocks_event_reasons_counters.sw_thermal_slowdown"},
	{"clocks_event_reasons_counters.hw_thermal_slowdown"},
	{"clocks_event_reasons_counters.hw_power_brake_slowdown"},
	{"clocks_event_reasons_counters.sync_boost"},
}

// staticColumns are the properties that the XML lacks, or that are the
// fallback for it.
var staticColumns = [][]string{
	{"index"},
	{"uuid"},
	{"pci.bus_id"},
	{"name"},
	{"driver_version"},
	{"compute_cap"},
	{"pstate"},
	{"memory.total"},
	{"memory.used"},
	{"memory.free"},
	{"enforced.power.limit"},
	{"power.limit"},
	{"power.default_limit"},
	{"power.min_limit"},
	{"power.max_limit"},
	{"power.draw"},
	{"power.draw.instant"},
	{"clocks.current.sm", "clocks.sm"},
	{"clocks.current.memory", "clocks.mem"},
	{"clocks.max.sm"},
	{"clocks.max.memory", "clocks.max.mem"},
	{"temperature.gpu"},
	{"utilization.gpu"},
	{"utilization.memory"},
	{"pcie.link.gen.gpucurrent", "pcie.link.gen.current"},
	{"pcie.link.gen.max"},
	{"pcie.link.gen.gpumax"},
	{"pcie.link.width.current"},
	{"pcie.link.width.max"},
	{"display_attached", "display_mode"},
	{"display_active"},
	{"mig.mode.current"},
	{"driver_model.current"},
	{"compute_mode"},
	{"clocks_event_reasons.active", "clocks_throttle_reasons.active"},
}

// choose takes of each list the first name that is known. Without knowledge
// it takes the newest names.
func choose(columns [][]string, known map[string]bool) []string {
	var out []string
	for _, names := range columns {
		for _, n := range names {
			if len(known) == 0 || known[n] {
				out = append(out, n)
				break
			}
		}
	}
	return out
}
