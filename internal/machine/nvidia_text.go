package machine

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
)

// textFields are the lines of `nvidia-smi -q`, below a GPU, that we read.
var textFields = map[string]field{
	"Product Name":             fName,
	"Product Architecture":     fArch,
	"GPU UUID":                 fUUID,
	"Display Mode":             fDispMode,
	"Display Attached":         fAttached,
	"Display Active":           fActive,
	"Driver Model/Current":     driverModel,
	"MIG Mode/Current":         fMIG,
	"Compute Mode":             fMode,
	"Performance State":        fPState,
	"PCI/Bus Id":               pciBus,
	"PCI/Device Id":            pciDevice,
	"FB Memory Usage/Total":    fTotal,
	"FB Memory Usage/Reserved": fReserved,
	"FB Memory Usage/Used":     fUsed,
	"FB Memory Usage/Free":     fFree,
	"Utilization/Gpu":          fUtil,
	"Utilization/GPU":          fUtil,
	"Utilization/Memory":       fUtilMem,
	"Clocks/SM":                fSM,
	"Clocks/Graphics":          fSMWeak,
	"Clocks/Memory":            fMem,
	"Max Clocks/SM":            fSMMax,
	"Max Clocks/Graphics":      fSMMaxWeak,
	"Max Clocks/Memory":        fMemMax,

	"Power Readings/Power Draw":           fDraw,
	"Power Readings/Power Limit":          fRequested,
	"Power Readings/Enforced Power Limit": fLimit,
	"Power Readings/Default Power Limit":  fDefault,
	"Power Readings/Min Power Limit":      fMin,
	"Power Readings/Max Power Limit":      fMax,

	"GPU Power Readings/Power Draw":               fDrawWeak,
	"GPU Power Readings/Instantaneous Power Draw": fDraw,
	"GPU Power Readings/Average Power Draw":       fAverage,
	"GPU Power Readings/Current Power Limit":      fLimit,
	"GPU Power Readings/Requested Power Limit":    fRequested,
	"GPU Power Readings/Default Power Limit":      fDefault,
	"GPU Power Readings/Min Power Limit":          fMin,
	"GPU Power Readings/Max Power Limit":          fMax,
	// From driver 610 on, where the limit proper is only here.
	"GPU Power Readings/GPU Ceiling Power Limit/Current Power Limit":   weak(func(g *GPU) **float64 { return &g.PowerLimitW }, fLimit),
	"GPU Power Readings/GPU Ceiling Power Limit/Requested Power Limit": weak(func(g *GPU) **float64 { return &g.PowerRequestedW }, fRequested),
	"GPU Power Readings/GPU Ceiling Power Limit/Default Power Limit":   weak(func(g *GPU) **float64 { return &g.PowerDefaultW }, fDefault),
	"GPU Power Readings/GPU Ceiling Power Limit/Min Power Limit":       weak(func(g *GPU) **float64 { return &g.PowerLimitMinW }, fMin),
	"GPU Power Readings/GPU Ceiling Power Limit/Max Power Limit":       weak(func(g *GPU) **float64 { return &g.PowerLimitMaxW }, fMax),

	"Temperature/GPU Current Temp":              fTemp,
	"Temperature/Memory Current Temp":           fTempMem,
	"Temperature/GPU T.Limit Temp":              fMargin,
	"Temperature/GPU Current T.Limit Temp":      fMargin,
	"Temperature/GPU Shutdown Temp":             fShutdown,
	"Temperature/GPU Slowdown Temp":             fSlowdown,
	"Temperature/GPU Slowdown T.Limit Temp":     fSlowAt,
	"Temperature/GPU Max Operating Temp":        fTempLimit,
	"Temperature/GPU Target Temperature":        fTarget,
	"Temperature/Memory Max Operating Temp":     fMemLimit,
	"PCI/GPU Link Info/PCIe Generation/Current": fGen,
	"PCI/GPU Link Info/PCIe Generation/Max":     fGenMax,

	"PCI/GPU Link Info/PCIe Generation/Device Max": fGenDevice,
	"PCI/GPU Link Info/Link Width/Current":         fWidth,
	"PCI/GPU Link Info/Link Width/Max":             fWidthMax,
}

// textReasons are the lines of throttle reasons and of their counters.
var textReasons = map[string]Reason{
	"Idle":                        GPUIdle,
	"Applications Clocks Setting": AppClocks,
	"SW Power Cap":                SWPowerCap,
	"SW Power Capping":            SWPowerCap,
	"HW Slowdown":                 HWSlowdown,
	"HW Thermal Slowdown":         HWThermalSlowdown,
	"HW Power Brake Slowdown":     HWPowerBrake,
	"HW Power Braking":            HWPowerBrake,
	"Sync Boost":                  SyncBoost,
	"SW Thermal Slowdown":         SWThermalSlowdown,
	"Display Clock Setting":       DisplayClockSetting,
}

// textField finds the field of a line.
func textField(path string) field {
	if f := textFields[path]; f != nil {
		return f
	}
	group, name, _ := strings.Cut(path, "/")
	if i := strings.LastIndex(name, "/"); i >= 0 { // the two under HW Slowdown
		name = name[i+1:]
	}
	r := textReasons[name]
	switch {
	case r == "":
	case group == "Clocks Throttle Reasons" || group == "Clocks Event Reasons":
		return reason(r)
	case group == "Clocks Throttle Reasons Counters" || group == "Clocks Event Reasons Counters":
		return counter(r)
	}
	return nil
}

// ParseNVIDIAText reads the output of `nvidia-smi -q`, where indentation says
// what belongs to what.
func ParseNVIDIAText(data []byte) ([]GPU, error) {
	type level struct {
		indent int
		name   string
	}
	var (
		gpus         []GPU
		stack        []level
		driver, cuda string
		sawHead      bool
	)
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := strings.TrimRight(sc.Text(), " \r\t")
		body := strings.TrimLeft(line, " \t")
		if body == "" {
			continue
		}
		if strings.Contains(body, "NVSMI LOG") {
			sawHead = true
			continue
		}
		if !sawHead {
			continue
		}
		indent := len(line) - len(body)
		if bus, ok := strings.CutPrefix(body, "GPU "); ok && indent == 0 {
			g := GPU{Index: len(gpus), Vendor: NVIDIA, Driver: driver, CUDA: cuda}
			if !pciBus(&g, bus) {
				return gpus, errors.New("nvidia-smi -q: a GPU without a bus address: " + body)
			}
			gpus, stack = append(gpus, g), stack[:0]
			continue
		}
		name, v, _ := strings.Cut(body, " : ")
		if name == body { // "Key :" and "Key" alone
			name = strings.TrimSuffix(body, ":")
		}
		name, v = strings.TrimSpace(name), strings.TrimSpace(v)
		if len(gpus) == 0 {
			switch name {
			case "Driver Version", "KMD Version":
				driver = v
			case "CUDA Version", "CUDA UMD Version":
				if classify(v) == isValue {
					cuda = v
				}
			}
			continue
		}
		for len(stack) > 0 && stack[len(stack)-1].indent >= indent {
			stack = stack[:len(stack)-1]
		}
		stack = append(stack, level{indent, name})
		parts := make([]string, len(stack))
		for i, l := range stack {
			parts[i] = l.name
		}
		gpus[len(gpus)-1].textLine(strings.Join(parts, "/"), v)
	}
	if err := sc.Err(); err != nil {
		return gpus, err
	}
	if !sawHead {
		return nil, errors.New("nvidia-smi -q: not its text: there is no NVSMI LOG line")
	}
	for i := range gpus {
		gpus[i].finish()
	}
	return gpus, nil
}

// textLine writes one line of a GPU's part.
func (g *GPU) textLine(path, v string) {
	if rest, ok := strings.CutPrefix(path, "Processes"); ok {
		g.textProcess(strings.TrimPrefix(rest, "/"), v)
		return
	}
	if rest, ok := strings.CutPrefix(path, "MIG Device"); ok && (rest == "" || rest[0] == '/') {
		if rest == "" {
			g.MIGDevices = append(g.MIGDevices, MIGDevice{})
		} else if n := len(g.MIGDevices); n > 0 {
			g.MIGDevices[n-1].textLine(rest[1:], v)
		}
		return
	}
	if f := textField(path); f != nil {
		put(g, path, f, v)
	} else if classify(v) == isFault {
		fault(g, path, v)
	}
}

func (g *GPU) textProcess(path, v string) {
	if g.Processes == nil {
		g.Processes = []Process{}
	}
	n := len(g.Processes)
	switch path {
	case "Process ID":
		if x, ok := count(v); ok {
			g.Processes = append(g.Processes, Process{PID: x})
		}
		return
	}
	name, ok := strings.CutPrefix(path, "Process ID/")
	if !ok || n == 0 {
		return
	}
	p := &g.Processes[n-1]
	switch name {
	case "Type":
		p.Kind = v
	case "Name":
		if classify(v) == isValue {
			p.Name = programName(v)
		}
	case "Used GPU Memory":
		p.UsedBytes = processUsed(v)
	}
}

func (m *MIGDevice) textLine(path, v string) {
	switch path {
	case "Index":
		m.set("index", v)
	case "GPU Instance ID":
		m.GPUInstance = instance(v)
	case "Compute Instance ID":
		m.ComputeInstance = instance(v)
	case "Device Attributes/Shared/Multiprocessor count":
		m.Multiprocessors = instance(v)
	case "Shared FB Memory Usage/Total", "FB Memory Usage/Total":
		m.MemoryTotalBytes = processUsed(v)
	case "Shared FB Memory Usage/Used", "FB Memory Usage/Used":
		m.MemoryUsedBytes = processUsed(v)
	case "Shared FB Memory Usage/Free", "FB Memory Usage/Free":
		m.MemoryFreeBytes = processUsed(v)
	}
}
