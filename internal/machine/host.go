package machine

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Host is where facts are read from. This is this computer; tests and readers
// of captures use others.
type Host struct {
	OS   string // as GOOS
	Arch string // as GOARCH
	Root string // the folder in which proc, sys, usr and run are found; "/" here
	Run  Runner
	// Timeout is how long one reading may take.
	Timeout time.Duration
	// nvml loads NVIDIA's library.
	nvml func() (*nvml, error)
}

// This is the host that we run on.
func This() Host {
	return Host{OS: runtime.GOOS, Arch: runtime.GOARCH, Root: "/", Run: run, Timeout: 10 * time.Second, nvml: loadNVML}
}

func (h Host) root() tree { return tree(h.Root) }

// Names of the readings.
const (
	ReadKernel     = "kernel"
	ReadCPU        = "cpu"
	ReadMemory     = "memory"
	ReadPower      = "power"
	ReadProfile    = "power_profile"
	ReadNVML       = "nvml"
	ReadNVIDIASMI  = "nvidia_smi"
	ReadNVIDIACSV  = "nvidia_smi_query"
	ReadPCI        = "pci"
	ReadAMDSMI     = "amd_smi"
	ReadROCmSMI    = "rocm_smi"
	ReadApple      = "system_profiler"
	ReadIOReg      = "ioreg"
	ReadVideo      = "video_controllers"
	ReadGPUProcess = "gpu_process_memory"
)

// Snapshot looks at everything once. It does not fail: what could not be read
// is nil in it, and Readings says why.
func (h Host) Snapshot(ctx context.Context) Snapshot {
	s := Snapshot{Time: time.Now().UTC(), OS: h.OS, Arch: h.Arch, GPUs: []GPU{}, Power: Power{Source: UnknownPower}}
	lists := map[string][]GPU{}
	var memory []GPUMemory
	var hypervisor bool

	gpus := func(name string, read func(context.Context) ([]GPU, error)) collector {
		return h.collector(name, func(ctx context.Context) (func(*Snapshot), error) {
			list, err := read(ctx)
			return func(*Snapshot) { lists[name] = list }, err
		})
	}
	smi := []collector{
		gpus(ReadNVML, func(context.Context) ([]GPU, error) { return h.readNVML() }),
		gpus(ReadNVIDIASMI, h.readNVIDIASMI),
		gpus(ReadNVIDIACSV, h.readNVIDIACSV),
	}
	var cs []collector
	switch h.OS {
	case "linux":
		cs = append(cs,
			h.collector(ReadKernel, func(context.Context) (func(*Snapshot), error) {
				k := h.root().text("proc", "sys", "kernel", "osrelease")
				if k == "" {
					return nil, noData("no /proc/sys/kernel/osrelease")
				}
				return func(s *Snapshot) { s.Kernel = k }, nil
			}),
			h.collector(ReadCPU, func(context.Context) (func(*Snapshot), error) {
				c, hv, err := linuxCPU(h.root())
				return func(s *Snapshot) { s.CPU, hypervisor = c, hv }, err
			}),
			h.collector(ReadMemory, func(context.Context) (func(*Snapshot), error) {
				m, err := linuxMemory(h.root())
				return func(s *Snapshot) { s.Memory = m }, err
			}),
			h.collector(ReadPower, func(context.Context) (func(*Snapshot), error) {
				p, err := linuxPower(h.root())
				return func(s *Snapshot) { s.Power = p }, err
			}),
			h.collector(ReadProfile, h.readProfile),
		)
		cs = append(cs, smi...)
		cs = append(cs,
			gpus(ReadPCI, func(context.Context) ([]GPU, error) {
				var list []GPU
				for _, g := range pciGPUs(h.root()) {
					list = append(list, g.GPU)
				}
				if list == nil {
					return nil, noData("no GPU of NVIDIA, AMD or Intel in /sys")
				}
				return list, nil
			}),
			gpus(ReadAMDSMI, h.readAMDSMI),
			gpus(ReadROCmSMI, h.readROCmSMI),
		)
	case "windows":
		cs = append(cs,
			h.collector(ReadCPU, func(ctx context.Context) (func(*Snapshot), error) {
				b, err := h.powershell(ctx, askHost)
				if err != nil {
					return nil, err
				}
				c, v, err := ParseWindowsHost(b)
				return func(s *Snapshot) { s.CPU, s.Virtual = c, v }, err
			}),
			h.collector(ReadMemory, func(context.Context) (func(*Snapshot), error) {
				m, err := systemMemory()
				return func(s *Snapshot) { s.Memory = m }, err
			}),
			h.collector(ReadPower, func(context.Context) (func(*Snapshot), error) {
				p, err := systemPower()
				return func(s *Snapshot) { s.Power = p }, err
			}),
			h.collector(ReadProfile, h.readPowercfg),
		)
		cs = append(cs, smi...)
		cs = append(cs,
			gpus(ReadVideo, func(ctx context.Context) ([]GPU, error) {
				b, err := h.powershell(ctx, askVideo)
				if err != nil {
					return nil, err
				}
				return ParseVideoControllers(b)
			}),
			h.collector(ReadGPUProcess, func(ctx context.Context) (func(*Snapshot), error) {
				list, err := h.GPUMemory(ctx)
				return func(*Snapshot) { memory = list }, err
			}),
		)
	case "darwin":
		cs = append(cs,
			h.collector(ReadCPU, h.readSysctl),
			h.collector(ReadMemory, func(ctx context.Context) (func(*Snapshot), error) {
				b, err := h.program(ctx, "vm_stat")
				if err != nil {
					return nil, err
				}
				v := ParseVMStat(b)
				return func(s *Snapshot) { s.Memory.AvailableBytes = v }, nil
			}),
			h.collector(ReadPower, h.readPmset),
			gpus(ReadApple, func(ctx context.Context) ([]GPU, error) {
				b, err := h.program(ctx, "system_profiler", "SPDisplaysDataType", "-json")
				if err != nil {
					return nil, err
				}
				return ParseSystemProfiler(b)
			}),
			h.collector(ReadIOReg, func(ctx context.Context) (func(*Snapshot), error) {
				b, err := h.program(ctx, "ioreg", ioregArgs...)
				if err != nil {
					return nil, err
				}
				v, err := ParseIOReg(b)
				if err != nil {
					return nil, err
				}
				return func(*Snapshot) {
					lists[ReadIOReg] = []GPU{{Vendor: Apple, UtilGPUPercent: v.UtilGPUPercent, SharedUsedBytes: v.SharedUsedBytes, Sources: []string{"ioreg"}}}
				}, nil
			}),
		)
	}
	gather(ctx, &s, cs)

	nv := merge(lists[ReadNVML], lists[ReadNVIDIASMI], lists[ReadNVIDIACSV])
	amd := merge(lists[ReadAMDSMI], lists[ReadROCmSMI])
	s.GPUs = combine(nv, amd, lists[ReadPCI], lists[ReadApple], lists[ReadIOReg], lists[ReadVideo])
	if h.OS == "linux" {
		s.Virtual = linuxVirtual(h.root(), hypervisor)
	}
	if s.OS == "darwin" && s.Memory.TotalBytes != nil {
		for i := range s.GPUs { // unified: the GPU's memory is the machine's
			if g := &s.GPUs[i]; g.Vendor == Apple && g.SharedTotalBytes == nil {
				g.SharedTotalBytes = s.Memory.TotalBytes
			}
		}
	}
	applyGPUMemory(s.GPUs, memory)
	return s
}

// combine joins what the vendors' own tools say of their GPUs with what the
// system says of all: a system's entry is dropped only where it is known to
// be the same GPU, by address or by model and number.
func combine(nv, amd []GPU, system ...[]GPU) []GPU {
	out := append(append([]GPU{}, nv...), amd...) // not nil: none is an answer
	for _, list := range system {
		for _, g := range list {
			i := slices.IndexFunc(out, func(o GPU) bool { return sameDevice(&o, &g) })
			if i < 0 {
				out = append(out, g)
				continue
			}
			out[i].fill(&g)
		}
	}
	// NVIDIA's GPUs have the memory that they have; only a few (Jetson, GB10)
	// share the machine's, and they are not on PCI.
	for i := range out {
		g := &out[i]
		if g.Vendor == NVIDIA && g.Integrated == nil && g.PCIBus != "" && g.MemoryTotalBytes != nil {
			g.Integrated = new(false)
		}
		if g.Sources == nil {
			g.Sources = []string{}
		}
	}
	slices.SortStableFunc(out, func(a, b GPU) int {
		if a.Vendor != b.Vendor {
			return vendorRank(a.Vendor) - vendorRank(b.Vendor)
		}
		return a.Index - b.Index
	})
	// Each vendor's numbers are its own; what came in with a number that is
	// taken gets the next free one.
	taken := map[string]map[int]bool{}
	for i := range out {
		t := taken[out[i].Vendor]
		if t == nil {
			t = map[int]bool{}
			taken[out[i].Vendor] = t
		}
		for t[out[i].Index] {
			out[i].Index++
		}
		t[out[i].Index] = true
	}
	return out
}

// vendorRank is the order of GPUs in a snapshot.
func vendorRank(vendor string) int {
	order := []string{NVIDIA, AMD, Apple, Intel}
	if i := slices.Index(order, vendor); i >= 0 {
		return i
	}
	return len(order)
}

// sameDevice is same for descriptions from unlike sources, whose numbers need
// not agree: by address where both have one, by PCI device and number where
// not.
func sameDevice(a, b *GPU) bool {
	if a.Vendor != b.Vendor {
		return false
	}
	if a.PCIBus != "" && b.PCIBus != "" {
		return a.PCIBus == b.PCIBus
	}
	if a.PCIDevice != "" && b.PCIDevice != "" && a.PCIDevice != b.PCIDevice {
		return false
	}
	return a.Index == b.Index
}

// applyGPUMemory writes what Windows says of processes into the GPUs. Which
// adapter is which GPU it does not say, so it is used only where there is one
// GPU with memory of its own, for the adapter that has the most in use.
func applyGPUMemory(gpus []GPU, list []GPUMemory) {
	var own []int
	for i := range gpus {
		if in := gpus[i].Integrated; in == nil && gpus[i].Vendor != Intel || in != nil && !*in {
			own = append(own, i)
		}
	}
	if len(own) != 1 || len(list) == 0 {
		return
	}
	use := map[string]int64{}
	best := ""
	for _, m := range list {
		if m.DedicatedBytes != nil {
			use[m.Adapter] += *m.DedicatedBytes
		}
		if best == "" || use[m.Adapter] > use[best] {
			best = m.Adapter
		}
	}
	if use[best] == 0 {
		return
	}
	g := &gpus[own[0]]
	for _, m := range list {
		if m.Adapter != best {
			continue
		}
		if m.SharedBytes != nil {
			g.SharedUsedBytes = sum(g.SharedUsedBytes, float64(*m.SharedBytes))
		}
		g.Processes = mergeProcesses(g.Processes, []Process{{PID: m.PID, UsedBytes: m.DedicatedBytes, SharedBytes: m.SharedBytes}})
	}
	if !slices.Contains(g.Sources, ReadGPUProcess) {
		g.Sources = append(g.Sources, ReadGPUProcess)
	}
}

// collector makes a reading with the host's time limit.
func (h Host) collector(name string, read func(context.Context) (func(*Snapshot), error)) collector {
	return collector{name: name, timeout: h.Timeout, read: read}
}

// program runs a program, of which it is no failure that it is not there.
func (h Host) program(ctx context.Context, name string, args ...string) ([]byte, error) {
	b, err := h.Run(ctx, name, args...)
	if notInstalled(err) {
		return nil, noData("%s is not installed", name)
	}
	return b, err
}

// powershell asks Windows PowerShell, which every Windows has.
func (h Host) powershell(ctx context.Context, script string) ([]byte, error) {
	return h.program(ctx, "powershell.exe", "-NoLogo", "-NoProfile", "-NonInteractive", "-Command", script)
}

// GPUMemory asks Windows how much GPU memory each process has, dedicated and
// shared. It takes a second or more of processor time, so it is asked once
// during a load, not at every sample. On other systems there is no data.
func (h Host) GPUMemory(ctx context.Context) ([]GPUMemory, error) {
	if h.OS != "windows" {
		return nil, noData("only Windows counts shared GPU memory by process")
	}
	b, err := h.powershell(ctx, askGPUMemory)
	if err != nil {
		return nil, err
	}
	return ParseGPUProcessMemory(b)
}

// Processes lists the processes of this host, without their threads.
func (h Host) Processes(ctx context.Context) ([]Proc, error) {
	return newProcesses(h.root(), h.Run).list(ctx)
}

// readProfile asks the daemon that desktops set the profile with.
func (h Host) readProfile(ctx context.Context) (func(*Snapshot), error) {
	b, err := h.program(ctx, "powerprofilesctl", "get")
	if err != nil {
		return nil, err
	}
	p, ok := parseProfile(b)
	if !ok {
		return nil, errors.New("powerprofilesctl get: not the name of a profile: " + firstLine(b))
	}
	return func(s *Snapshot) {
		s.Power.Profile, s.Power.ProfileSource, s.Power.Saver = p, "power-profiles-daemon", saver(p)
	}, nil
}

func (h Host) readPowercfg(ctx context.Context) (func(*Snapshot), error) {
	b, err := h.program(ctx, "powercfg.exe", "/getactivescheme")
	if err != nil {
		return nil, err
	}
	p, err := ParsePowercfg(b)
	return func(s *Snapshot) {
		s.Power.Profile, s.Power.ProfileSource = p.Profile, p.ProfileSource
		s.Power.Saver = or(s.Power.Saver, p.Saver)
	}, err
}

func (h Host) readSysctl(ctx context.Context) (func(*Snapshot), error) {
	b, err := h.program(ctx, "sysctl", darwinNames...)
	v := ParseSysctl(b)
	if len(v) == 0 {
		if err == nil {
			err = errors.New("sysctl: it told nothing")
		}
		return nil, err
	}
	// It fails as a whole where one name is unknown (no perflevel on Intel).
	c, m, virtual := darwinHost(v)
	return func(s *Snapshot) {
		avail := s.Memory.AvailableBytes
		s.CPU, s.Memory, s.Virtual, s.Kernel = c, m, virtual, v["kern.osrelease"]
		s.Memory.AvailableBytes = avail
	}, nil
}

func (h Host) readPmset(ctx context.Context) (func(*Snapshot), error) {
	b, err := h.program(ctx, "pmset", "-g", "batt")
	if err != nil {
		return nil, err
	}
	if more, err := h.program(ctx, "pmset", "-g"); err == nil {
		b = append(append(b, '\n'), more...)
	}
	p, err := ParsePmset(b)
	return func(s *Snapshot) { s.Power = p }, err
}

var ioregArgs = []string{"-r", "-d", "1", "-w", "0", "-c", "IOAccelerator"}

// readNVML reads all of NVIDIA's GPUs through the library.
func (h Host) readNVML() ([]GPU, error) {
	if h.nvml == nil {
		return nil, noData("not asked")
	}
	l, err := h.nvml()
	if err != nil {
		return nil, err
	}
	return l.read()
}

// smiPaths are where nvidia-smi may be, the first that runs is taken: in the
// path, in WSL, and in the folders of Windows.
func (h Host) smiPaths() []string {
	if h.OS == "windows" {
		return []string{"nvidia-smi.exe", `C:\Windows\System32\nvidia-smi.exe`, `C:\Program Files\NVIDIA Corporation\NVSMI\nvidia-smi.exe`}
	}
	return []string{"nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi", "/run/current-system/sw/bin/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi"}
}

// smi runs nvidia-smi and makes a problem of what it says when it fails.
func (h Host) smi(ctx context.Context, args ...string) ([]byte, error) {
	_, b, err := h.smiAt(ctx, args...)
	return b, err
}

// smiAt also says which nvidia-smi it ran.
func (h Host) smiAt(ctx context.Context, args ...string) (program string, out []byte, err error) {
	for _, program := range h.smiPaths() {
		b, err := h.Run(ctx, program, args...)
		if notInstalled(err) || errors.Is(err, exec.ErrDot) {
			continue
		}
		if err != nil && ctx.Err() == nil {
			if p := NVIDIAProblem(b); p != nil {
				err = p
			}
		}
		return program, b, err
	}
	return "", nil, noData("nvidia-smi is not installed")
}

// readNVIDIASMI reads the XML, and of a tool too old or too odd for it the
// text and then the table.
func (h Host) readNVIDIASMI(ctx context.Context) ([]GPU, error) {
	var firstErr error
	for _, args := range [][]string{{"-q", "-x"}, {"-q"}, {}} {
		b, err := h.smi(ctx, args...)
		var p *Problem
		if errors.Is(err, errNoData) || errors.As(err, &p) && p.Code != DeviceUnreadable || ctx.Err() != nil {
			return nil, err
		}
		// With one GPU lost it fails and may have told of the others.
		gpus, _, parseErr := ParseNVIDIA(b)
		if firstErr == nil {
			firstErr = errors.Join(err, parseErr)
			if err != nil {
				firstErr = err
			}
		}
		if len(gpus) > 0 {
			for i := range gpus {
				gpus[i].Sources = []string{"nvidia-smi " + strings.Join(args, " ")}
			}
			return gpus, err
		}
	}
	return nil, firstErr
}

// readNVIDIACSV asks for what the XML lacks.
func (h Host) readNVIDIACSV(ctx context.Context) ([]GPU, error) {
	_, known, err := h.smiKnows(ctx)
	if err != nil {
		return nil, err
	}
	columns := choose(staticColumns, known)
	b, err := h.smi(ctx, "--query-gpu="+strings.Join(columns, ","), "--format=csv,noheader,nounits")
	if err != nil {
		return nil, err
	}
	rows, err := ParseNVIDIACSV(b, columns)
	var gpus []GPU
	for _, r := range rows {
		r.GPU.Sources = []string{"nvidia-smi --query-gpu"}
		gpus = append(gpus, r.GPU)
	}
	return gpus, err
}

// smiKnows lists the properties that this nvidia-smi can be asked for, and
// says where it is.
func (h Host) smiKnows(ctx context.Context) (program string, known map[string]bool, err error) {
	program, b, err := h.smiAt(ctx, "--help-query-gpu")
	if err != nil {
		return "", nil, err
	}
	known = ParseNVIDIAHelp(b)
	if len(known) == 0 {
		return "", nil, fmt.Errorf("nvidia-smi --help-query-gpu: no property in it: %s", firstLine(b))
	}
	return program, known, nil
}

func (h Host) readAMDSMI(ctx context.Context) ([]GPU, error) {
	var lists [][]GPU
	var firstErr error
	for _, what := range []string{"static", "metric", "process"} {
		b, err := h.program(ctx, "amd-smi", what, "--json")
		if err == nil {
			var l []GPU
			if l, err = ParseAMDSMI(b); err == nil {
				lists = append(lists, l)
			}
		}
		if errors.Is(err, errNoData) {
			return nil, err
		}
		if err != nil && firstErr == nil {
			firstErr = err
		}
	}
	return mergeIndex(lists), firstErr
}

// mergeIndex joins lists of the same tool, where the number is the same.
func mergeIndex(lists [][]GPU) []GPU {
	var out []GPU
	for _, l := range lists {
		for _, g := range l {
			i := slices.IndexFunc(out, func(o GPU) bool { return o.Index == g.Index })
			if i < 0 {
				out = append(out, g)
				continue
			}
			out[i].fill(&g)
		}
	}
	return out
}

func (h Host) readROCmSMI(ctx context.Context) ([]GPU, error) {
	b, err := h.program(ctx, "rocm-smi", "-a", "--showmeminfo", "vram", "gtt", "--json")
	if err != nil {
		return nil, err
	}
	return ParseROCmSMI(b)
}
