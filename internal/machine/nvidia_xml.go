package machine

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// xmlFields are the elements of `nvidia-smi -q -x`, below <gpu>, that we
// read, in all dialects (DTD v8 to v13).
var xmlFields = map[string]field{
	"product_name":                        fName,
	"product_architecture":                fArch,
	"uuid":                                fUUID,
	"display_mode":                        fDispMode,
	"display_attached":                    fAttached,
	"display_active":                      fActive,
	"driver_model/current_dm":             driverModel,
	"mig_mode/current_mig":                fMIG,
	"compute_mode":                        fMode,
	"performance_state":                   fPState,
	"pci/pci_bus_id":                      pciBus,
	"pci/pci_device_id":                   pciDevice,
	"fb_memory_usage/total":               fTotal,
	"fb_memory_usage/reserved":            fReserved,
	"fb_memory_usage/used":                fUsed,
	"fb_memory_usage/free":                fFree,
	"utilization/gpu_util":                fUtil,
	"utilization/memory_util":             fUtilMem,
	"clocks/sm_clock":                     fSM,
	"clocks/graphics_clock":               fSMWeak,
	"clocks/mem_clock":                    fMem,
	"max_clocks/sm_clock":                 fSMMax,
	"max_clocks/graphics_clock":           fSMMaxWeak,
	"max_clocks/mem_clock":                fMemMax,
	"power_readings/power_draw":           fDraw,
	"power_readings/power_limit":          fRequested,
	"power_readings/enforced_power_limit": fLimit,
	"power_readings/default_power_limit":  fDefault,
	"power_readings/min_power_limit":      fMin,
	"power_readings/max_power_limit":      fMax,

	"gpu_power_readings/power_draw":            fDrawWeak,
	"gpu_power_readings/instant_power_draw":    fDraw,
	"gpu_power_readings/average_power_draw":    fAverage,
	"gpu_power_readings/current_power_limit":   fLimit,
	"gpu_power_readings/requested_power_limit": fRequested,
	"gpu_power_readings/default_power_limit":   fDefault,
	"gpu_power_readings/min_power_limit":       fMin,
	"gpu_power_readings/max_power_limit":       fMax,

	"temperature/gpu_temp":                       fTemp,
	"temperature/memory_temp":                    fTempMem,
	"temperature/gpu_temp_tlimit":                fMargin,
	"temperature/gpu_temp_max_threshold":         fShutdown,
	"temperature/gpu_temp_slow_threshold":        fSlowdown,
	"temperature/gpu_temp_max_gpu_threshold":     fTempLimit,
	"temperature/gpu_temp_max_mem_threshold":     fMemLimit,
	"temperature/gpu_target_temperature":         fTarget,
	"temperature/gpu_temp_slow_tlimit_threshold": fSlowAt,

	"pci/pci_gpu_link_info/pcie_gen/current_link_gen":      fGen,
	"pci/pci_gpu_link_info/pcie_gen/max_link_gen":          fGenMax,
	"pci/pci_gpu_link_info/pcie_gen/max_device_link_gen":   fGenDevice,
	"pci/pci_gpu_link_info/link_widths/current_link_width": fWidth,
	"pci/pci_gpu_link_info/link_widths/max_link_width":     fWidthMax,
}

// xmlReasons are the ends of the elements of throttle reasons, which were
// renamed at about driver 535 from clocks_throttle_reason_ to
// clocks_event_reason_.
var xmlReasons = map[string]Reason{
	"gpu_idle":                    GPUIdle,
	"applications_clocks_setting": AppClocks,
	"sw_power_cap":                SWPowerCap,
	"hw_slowdown":                 HWSlowdown,
	"hw_thermal_slowdown":         HWThermalSlowdown,
	"hw_power_brake_slowdown":     HWPowerBrake,
	"sync_boost":                  SyncBoost,
	"sw_thermal_slowdown":         SWThermalSlowdown,
	"display_clocks_setting":      DisplayClockSetting,
	"display_clock_setting":       DisplayClockSetting,
	// the counters' spelling
	"sw_therm_slowdown": SWThermalSlowdown,
	"hw_therm_slowdown": HWThermalSlowdown,
	"hw_power_brake":    HWPowerBrake,
}

// xmlField finds the field of an element.
func xmlField(path string) field {
	if f := xmlFields[path]; f != nil {
		return f
	}
	group, name, _ := strings.Cut(path, "/")
	switch group {
	case "clocks_throttle_reasons", "clocks_event_reasons":
		name = strings.TrimPrefix(strings.TrimPrefix(name, "clocks_throttle_reason_"), "clocks_event_reason_")
		if r := xmlReasons[name]; r != "" {
			return reason(r)
		}
	case "clocks_throttle_reasons_counters", "clocks_event_reasons_counters":
		if r := xmlReasons[strings.TrimPrefix(name, group+"_")]; r != "" {
			return counter(r)
		}
	}
	return nil
}

// ParseNVIDIAXML reads the output of `nvidia-smi -q -x` of any driver.
// Elements may be missing, in any order, or hold words in place of values. Of
// a document that breaks off it returns the GPUs before the break, and the
// error.
func ParseNVIDIAXML(data []byte) ([]GPU, error) {
	dec := xml.NewDecoder(bytes.NewReader(bytes.ToValidUTF8(data, []byte("?"))))
	dec.Strict = false
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }

	var (
		gpus    []GPU
		g       *GPU
		path    []string // below <gpu> while g is set, else from the root
		txt     strings.Builder
		driver  string
		cuda    string
		process Process
		mig     MIGDevice
		sawRoot bool
	)
	for {
		tok, err := dec.Token()
		if err != nil {
			if errors.Is(err, io.EOF) && sawRoot {
				break
			}
			if errors.Is(err, io.EOF) {
				return nil, errors.New("nvidia-smi -q -x: not its XML: there is no <nvidia_smi_log>")
			}
			return gpus, fmt.Errorf("nvidia-smi -q -x: byte %d: %w", dec.InputOffset(), err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			txt.Reset()
			name := t.Name.Local
			switch {
			case name == "nvidia_smi_log":
				sawRoot = true
			case name == "gpu" && g == nil:
				g, path = &GPU{Index: len(gpus), Vendor: NVIDIA, Driver: driver, CUDA: cuda}, nil
				for _, a := range t.Attr {
					if a.Name.Local == "id" {
						pciBus(g, a.Value)
					}
				}
				continue
			}
			path = append(path, name)
			switch strings.Join(path, "/") {
			case "processes":
				if g != nil && g.Processes == nil {
					g.Processes = []Process{}
				}
			case "processes/process_info":
				process = Process{}
			case "mig_devices/mig_device":
				mig = MIGDevice{}
			}
		case xml.CharData:
			txt.Write(t)
		case xml.EndElement:
			if t.Name.Local == "gpu" && g != nil && len(path) == 0 {
				g.finish()
				gpus, g = append(gpus, *g), nil
				continue
			}
			p := strings.Join(path, "/")
			if len(path) > 0 {
				path = path[:len(path)-1]
			}
			v := strings.TrimSpace(txt.String())
			txt.Reset()
			if g == nil {
				switch t.Name.Local {
				case "driver_version":
					driver = v
				case "cuda_version":
					if classify(v) == isValue {
						cuda = v
					}
				}
				continue
			}
			switch rest, inProcess := strings.CutPrefix(p, "processes/process_info"); {
			case inProcess && rest == "":
				g.Processes = append(g.Processes, process)
				continue
			case inProcess:
				process.set(strings.TrimPrefix(rest, "/"), v)
				continue
			}
			switch rest, inMIG := strings.CutPrefix(p, "mig_devices/mig_device"); {
			case inMIG && rest == "":
				g.MIGDevices = append(g.MIGDevices, mig)
				continue
			case inMIG:
				mig.set(strings.TrimPrefix(rest, "/"), v)
				continue
			}
			if f := xmlField(p); f != nil {
				put(g, p, f, v)
			} else if classify(v) == isFault {
				fault(g, p, v)
			}
		}
	}
	// An outer driver version after the GPUs (elements come in any order).
	for i := range gpus {
		if gpus[i].Driver == "" {
			gpus[i].Driver = driver
		}
		if gpus[i].CUDA == "" {
			gpus[i].CUDA = cuda
		}
	}
	return gpus, nil
}

// set writes an element of <process_info>.
func (p *Process) set(name, v string) {
	switch name {
	case "pid":
		if x, ok := count(v); ok {
			p.PID = x
		}
	case "type":
		p.Kind = v
	case "process_name":
		if classify(v) == isValue {
			p.Name = programName(v)
		}
	case "used_memory":
		p.UsedBytes = processUsed(v)
	}
}

// set writes an element of <mig_device>.
func (m *MIGDevice) set(name, v string) {
	switch name {
	case "index":
		if x, ok := count(v); ok {
			m.Index = x
		}
	case "gpu_instance_id":
		m.GPUInstance = instance(v)
	case "compute_instance_id":
		m.ComputeInstance = instance(v)
	case "device_attributes/shared/multiprocessor_count":
		m.Multiprocessors = instance(v)
	case "fb_memory_usage/total":
		m.MemoryTotalBytes = processUsed(v)
	case "fb_memory_usage/used":
		m.MemoryUsedBytes = processUsed(v)
	case "fb_memory_usage/free":
		m.MemoryFreeBytes = processUsed(v)
	}
}
