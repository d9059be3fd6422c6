package machine

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
)

var (
	tableHead   = regexp.MustCompile(`NVIDIA-SMI\s+(\S+)\s+(?:Driver|KMD) Version:\s*(\S+)(?:\s+CUDA(?: UMD)? Version:\s*(\S+))?`)
	tableFirst  = regexp.MustCompile(`^\|\s*(\d+)\s+(.+?)\s+(\S+)\s*\|\s*([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])\s+(\S+)\s*\|`)
	tableSecond = regexp.MustCompile(`^\|\s*(\S+(?: %)?|\d+%)\s+(\S+)\s+(P\d+|N/A|\S+)\s+(\S+)\s*/\s*(\S+)\s*\|\s*(\S+)\s*/\s*(\S+)\s*\|\s*(\S+)\s+(.+?)\s*\|`)
	tableThird  = regexp.MustCompile(`^\|\s+\|\s+\|\s*(Enabled\*?|Disabled\*?|N/A)\s*\|`)
	tableProc   = regexp.MustCompile(`^\|\s*(\d+)\s+(?:(?:N/A|\d+)\s+(?:N/A|\d+)\s+)?(\d+)\s+(C\+G|C|G|M\+C)\s+(.+?)\s+(N/A|\d+MiB)\s*\|`)
	tableMIG    = regexp.MustCompile(`^\|\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*\|\s*(\d+)MiB\s*/\s*(\d+)MiB\s*\|\s*(\d+)\s`)
)

// ParseNVIDIATable reads what `nvidia-smi` prints without options: the last
// resort, since it cuts names short ("NVIDIA GeForce ...") and rounds. A name
// that was cut is left out, for names are matched exactly.
func ParseNVIDIATable(data []byte) ([]GPU, error) {
	var (
		gpus         []GPU
		driver, cuda string
		section      string
		expect       int // the line of a GPU that comes next: 2 or 3
	)
	for raw := range bytes.Lines(data) {
		line := strings.TrimRight(string(raw), " \r\n")
		if m := tableHead.FindStringSubmatch(line); m != nil {
			driver = m[2]
			if len(m) > 3 && classify(m[3]) == isValue {
				cuda = m[3]
			}
			section = "gpus"
			continue
		}
		switch {
		case strings.HasPrefix(line, "| Processes:"):
			section = "processes"
			for i := range gpus { // the table has a place for them
				if gpus[i].Processes == nil {
					gpus[i].Processes = []Process{}
				}
			}
		case strings.HasPrefix(line, "| MIG devices:"):
			section = "mig"
		}
		switch section {
		case "gpus":
			if m := tableFirst.FindStringSubmatch(line); m != nil {
				g := GPU{Vendor: NVIDIA, Driver: driver, CUDA: cuda}
				put(&g, "index", csvFields["index"], m[1])
				if !strings.HasSuffix(m[2], "...") {
					put(&g, "name", fName, m[2])
				}
				switch m[3] {
				case "WDDM", "TCC", "MCDM":
					g.DriverModel = strings.ToLower(m[3])
				}
				put(&g, "pci.bus_id", pciBus, m[4])
				put(&g, "display_active", fActive, m[5])
				gpus, expect = append(gpus, g), 2
				continue
			}
			if len(gpus) == 0 {
				continue
			}
			g := &gpus[len(gpus)-1]
			switch expect {
			case 2:
				if m := tableSecond.FindStringSubmatch(line); m != nil {
					if classify(m[1]) == isFault {
						fault(g, "fan.speed", m[1])
					}
					put(g, "temperature.gpu", fTemp, strings.TrimSuffix(m[2], "C"))
					put(g, "pstate", fPState, m[3])
					put(g, "power.draw", fDraw, strings.TrimSuffix(m[4], "W"))
					put(g, "enforced.power.limit", fLimit, strings.TrimSuffix(m[5], "W"))
					put(g, "memory.used", fUsed, strings.TrimSuffix(m[6], "MiB"))
					put(g, "memory.total", fTotal, strings.TrimSuffix(m[7], "MiB"))
					put(g, "utilization.gpu", fUtil, strings.TrimSuffix(m[8], "%"))
					if mode := m[9]; mode == "E. Process" {
						g.ComputeMode = "Exclusive_Process"
					} else {
						put(g, "compute_mode", fMode, mode)
					}
					expect = 3
				}
			case 3:
				if m := tableThird.FindStringSubmatch(line); m != nil {
					put(g, "mig.mode.current", fMIG, strings.TrimSuffix(m[1], "*"))
				}
				expect = 0
			}
		case "mig":
			if m := tableMIG.FindStringSubmatch(line); m != nil {
				i, _ := count(m[1])
				for j := range gpus {
					if gpus[j].Index != i {
						continue
					}
					d := MIGDevice{GPUInstance: instance(m[2]), ComputeInstance: instance(m[3]), Multiprocessors: instance(m[7])}
					d.set("index", m[4])
					d.MemoryUsedBytes, d.MemoryTotalBytes = processUsed(m[5]), processUsed(m[6])
					gpus[j].MIGDevices = append(gpus[j].MIGDevices, d)
				}
			}
		case "processes":
			if m := tableProc.FindStringSubmatch(line); m != nil {
				i, _ := count(m[1])
				p := Process{Kind: m[3], Name: programName(m[4]), UsedBytes: processUsed(strings.TrimSuffix(m[5], "MiB"))}
				p.set("pid", m[2])
				for j := range gpus {
					if gpus[j].Index == i {
						gpus[j].Processes = append(gpus[j].Processes, p)
					}
				}
			}
		}
	}
	if section == "" {
		return nil, errors.New("nvidia-smi: not its table")
	}
	return gpus, nil
}

var (
	listGPU = regexp.MustCompile(`^GPU (\d+): (.+) \(UUID: (GPU-[0-9a-fA-F-]+)\)`)
	listMIG = regexp.MustCompile(`^\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-\S+)\)`)
)

// ParseNVIDIAList reads `nvidia-smi -L`: the names in full.
func ParseNVIDIAList(data []byte) ([]GPU, error) {
	var gpus []GPU
	for raw := range bytes.Lines(data) {
		line := strings.TrimRight(string(raw), " \r\n")
		if m := listGPU.FindStringSubmatch(line); m != nil {
			g := GPU{Vendor: NVIDIA, Name: m[2], UUID: m[3]}
			put(&g, "index", csvFields["index"], m[1])
			gpus = append(gpus, g)
		} else if m := listMIG.FindStringSubmatch(line); m != nil && len(gpus) > 0 {
			d := MIGDevice{}
			d.set("index", m[2])
			g := &gpus[len(gpus)-1]
			g.MIGDevices = append(g.MIGDevices, d)
			g.MIG = new(true)
		}
	}
	if gpus == nil {
		return nil, errors.New("nvidia-smi -L: no GPU in its list")
	}
	return gpus, nil
}
