package machine

import (
	"bytes"
	"fmt"
	"strconv"
	"unsafe"
)

// nvml is NVIDIA's management library as functions, each nil where the
// library lacks it. Names, arguments and constants are of go-nvml
// gen/nvml/nvml.h (2026-07). A device is an opaque pointer of the library's.
type nvml struct {
	Init                 func() nvmlReturn
	Shutdown             func() nvmlReturn
	DriverVersion        func(buf *byte, n uint32) nvmlReturn
	CudaDriverVersion    func(v *int32) nvmlReturn
	DeviceCount          func(n *uint32) nvmlReturn
	HandleByIndex        func(i uint32, d *nvmlDevice) nvmlReturn
	Name                 func(d nvmlDevice, buf *byte, n uint32) nvmlReturn
	UUID                 func(d nvmlDevice, buf *byte, n uint32) nvmlReturn
	PCIInfo              func(d nvmlDevice, p *nvmlPCIInfo) nvmlReturn
	ComputeCapability    func(d nvmlDevice, major, minor *int32) nvmlReturn
	MemoryInfo           func(d nvmlDevice, m *nvmlMemory) nvmlReturn
	MemoryInfo2          func(d nvmlDevice, m *nvmlMemory2) nvmlReturn
	BusWidth             func(d nvmlDevice, v *uint32) nvmlReturn
	NumCores             func(d nvmlDevice, v *uint32) nvmlReturn
	PowerSource          func(d nvmlDevice, v *uint32) nvmlReturn
	ClockInfo            func(d nvmlDevice, kind uint32, v *uint32) nvmlReturn
	MaxClockInfo         func(d nvmlDevice, kind uint32, v *uint32) nvmlReturn
	PowerUsage           func(d nvmlDevice, mw *uint32) nvmlReturn
	EnforcedPowerLimit   func(d nvmlDevice, mw *uint32) nvmlReturn
	PowerLimit           func(d nvmlDevice, mw *uint32) nvmlReturn
	PowerDefaultLimit    func(d nvmlDevice, mw *uint32) nvmlReturn
	PowerConstraints     func(d nvmlDevice, lo, hi *uint32) nvmlReturn
	Temperature          func(d nvmlDevice, sensor uint32, c *uint32) nvmlReturn
	TemperatureThreshold func(d nvmlDevice, kind uint32, c *uint32) nvmlReturn
	Utilization          func(d nvmlDevice, u *nvmlUtilization) nvmlReturn
	PerformanceState     func(d nvmlDevice, p *uint32) nvmlReturn
	EventReasons         func(d nvmlDevice, bits *uint64) nvmlReturn
	ViolationStatus      func(d nvmlDevice, policy uint32, v *nvmlViolation) nvmlReturn
	FieldValues          func(d nvmlDevice, n int32, v *nvmlField) nvmlReturn
	CurrPCIeGen          func(d nvmlDevice, v *uint32) nvmlReturn
	CurrPCIeWidth        func(d nvmlDevice, v *uint32) nvmlReturn
	MaxPCIeGen           func(d nvmlDevice, v *uint32) nvmlReturn
	MaxPCIeWidth         func(d nvmlDevice, v *uint32) nvmlReturn
	GPUMaxPCIeGen        func(d nvmlDevice, v *uint32) nvmlReturn
	DisplayMode          func(d nvmlDevice, v *uint32) nvmlReturn
	DisplayActive        func(d nvmlDevice, v *uint32) nvmlReturn
	MIGMode              func(d nvmlDevice, now, pending *uint32) nvmlReturn
	ComputeProcesses     func(d nvmlDevice, n *uint32, p *nvmlProcess) nvmlReturn
	GraphicsProcesses    func(d nvmlDevice, n *uint32, p *nvmlProcess) nvmlReturn
	ProcessName          func(pid uint32, buf *byte, n uint32) nvmlReturn
}

// symbols are the names of the functions in the library, newest first, each
// with the place where it goes.
func (l *nvml) symbols() map[any][]string {
	return map[any][]string{
		&l.Init:                 {"nvmlInit_v2", "nvmlInit"},
		&l.Shutdown:             {"nvmlShutdown"},
		&l.DriverVersion:        {"nvmlSystemGetDriverVersion"},
		&l.CudaDriverVersion:    {"nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion"},
		&l.DeviceCount:          {"nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"},
		&l.HandleByIndex:        {"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex"},
		&l.Name:                 {"nvmlDeviceGetName"},
		&l.UUID:                 {"nvmlDeviceGetUUID"},
		&l.PCIInfo:              {"nvmlDeviceGetPciInfo_v3"},
		&l.ComputeCapability:    {"nvmlDeviceGetCudaComputeCapability"},
		&l.MemoryInfo:           {"nvmlDeviceGetMemoryInfo"},
		&l.MemoryInfo2:          {"nvmlDeviceGetMemoryInfo_v2"},
		&l.BusWidth:             {"nvmlDeviceGetMemoryBusWidth"},
		&l.NumCores:             {"nvmlDeviceGetNumGpuCores"},
		&l.PowerSource:          {"nvmlDeviceGetPowerSource"},
		&l.ClockInfo:            {"nvmlDeviceGetClockInfo"},
		&l.MaxClockInfo:         {"nvmlDeviceGetMaxClockInfo"},
		&l.PowerUsage:           {"nvmlDeviceGetPowerUsage"},
		&l.EnforcedPowerLimit:   {"nvmlDeviceGetEnforcedPowerLimit"},
		&l.PowerLimit:           {"nvmlDeviceGetPowerManagementLimit"},
		&l.PowerDefaultLimit:    {"nvmlDeviceGetPowerManagementDefaultLimit"},
		&l.PowerConstraints:     {"nvmlDeviceGetPowerManagementLimitConstraints"},
		&l.Temperature:          {"nvmlDeviceGetTemperature"},
		&l.TemperatureThreshold: {"nvmlDeviceGetTemperatureThreshold"},
		&l.Utilization:          {"nvmlDeviceGetUtilizationRates"},
		&l.PerformanceState:     {"nvmlDeviceGetPerformanceState"},
		&l.EventReasons:         {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"},
		&l.ViolationStatus:      {"nvmlDeviceGetViolationStatus"},
		&l.FieldValues:          {"nvmlDeviceGetFieldValues"},
		&l.CurrPCIeGen:          {"nvmlDeviceGetCurrPcieLinkGeneration"},
		&l.CurrPCIeWidth:        {"nvmlDeviceGetCurrPcieLinkWidth"},
		&l.MaxPCIeGen:           {"nvmlDeviceGetMaxPcieLinkGeneration"},
		&l.MaxPCIeWidth:         {"nvmlDeviceGetMaxPcieLinkWidth"},
		&l.GPUMaxPCIeGen:        {"nvmlDeviceGetGpuMaxPcieLinkGeneration"},
		&l.DisplayMode:          {"nvmlDeviceGetDisplayMode"},
		&l.DisplayActive:        {"nvmlDeviceGetDisplayActive"},
		&l.MIGMode:              {"nvmlDeviceGetMigMode"},
		&l.ComputeProcesses:     {"nvmlDeviceGetComputeRunningProcesses_v3"},
		&l.GraphicsProcesses:    {"nvmlDeviceGetGraphicsRunningProcesses_v3"},
		&l.ProcessName:          {"nvmlSystemGetProcessName"},
	}
}

type (
	nvmlReturn int32
	nvmlDevice uintptr
)

// Return codes that we tell apart (nvmlReturn_enum).
const (
	nvmlSuccess          nvmlReturn = 0
	nvmlNotSupported     nvmlReturn = 3
	nvmlNoPermission     nvmlReturn = 4
	nvmlInsufficientSize nvmlReturn = 7
	nvmlDriverNotLoaded  nvmlReturn = 9
	nvmlGPULost          nvmlReturn = 15
	nvmlResetRequired    nvmlReturn = 16
	nvmlBlocked          nvmlReturn = 17 // by the operating system or a cgroup
	nvmlMismatch         nvmlReturn = 18
)

// problem says what a return code means for the whole library or a device.
func (r nvmlReturn) problem(doing string) error {
	says := map[nvmlReturn]string{
		nvmlNoPermission: "insufficient permissions", nvmlDriverNotLoaded: "driver not loaded",
		nvmlGPULost: "gpu is lost", nvmlResetRequired: "gpu requires reset",
		nvmlBlocked: "blocked by the operating system", nvmlMismatch: "driver/library version mismatch",
	}[r]
	if says != "" {
		return NVIDIAProblem([]byte(says))
	}
	return fmt.Errorf("NVML: %s: code %d", doing, r)
}

// The library's structures, laid out as in C on 64-bit systems.
type (
	nvmlPCIInfo struct {
		_           [16]byte  // address in the older form
		_           [3]uint32 // domain, bus, device
		pciDeviceID uint32
		_           uint32 // subsystem
		busID       [32]byte
	}
	nvmlMemory  struct{ total, free, used uint64 }
	nvmlMemory2 struct {
		version                     uint32
		_                           uint32
		total, reserved, free, used uint64
	}
	nvmlUtilization struct{ gpu, memory uint32 }
	nvmlViolation   struct{ _, violationNS uint64 } // µs of reference, ns of violation
	nvmlField       struct {
		id        uint32
		_         uint32   // scope
		_         [2]int64 // timestamp, latency
		valueType uint32
		ret       nvmlReturn
		value     [8]byte
	}
	nvmlProcess struct {
		pid  uint32
		_    uint32
		used uint64
		_    [2]uint32 // GPU instance, compute instance
	}
)

const (
	nvmlMemory2Version = uint32(unsafe.Sizeof(nvmlMemory2{})) | 2<<24 // NVML_STRUCT_VERSION(Memory, 2)

	nvmlClockGraphics = 0
	nvmlClockSM       = 1
	nvmlClockMem      = 2

	nvmlShutdownC = 0 // nvmlTemperatureThresholds_t
	nvmlSlowdownC = 1
	nvmlMemMaxC   = 2
	nvmlGPUMaxC   = 3

	nvmlNotAvailable = ^uint64(0) // NVML_VALUE_NOT_AVAILABLE

	nvmlFieldMemTemp      = 82
	nvmlFieldPowerAverage = 185
	nvmlFieldPowerInstant = 186
)

// nvmlCounters are the counters of throttling: as a field (nanoseconds), and
// as the older violation policy that counts the same. The thermal policy has
// become sw_thermal_slowdown (nvml.h, note on nvmlDeviceGetViolationStatus).
var nvmlCounters = []struct {
	reason Reason
	field  uint32
	policy int // -1 where there is none
}{
	{SWPowerCap, 74, 0},
	{SWThermalSlowdown, 269, 1},
	{HWThermalSlowdown, 270, -1},
	{HWPowerBrake, 271, -1},
	{SyncBoost, 76, 2},
	{BoardLimit, 77, 3},
	{LowUtilization, 78, 4},
	{Reliability, 79, 5},
}

// uint makes a Go value of the library's number by its type (nvmlValueType_t).
func (f *nvmlField) uint() (uint64, bool) {
	if f.ret != nvmlSuccess {
		return 0, false
	}
	switch f.valueType {
	case 1, 5: // unsigned and signed int
		v := *(*uint32)(unsafe.Pointer(&f.value))
		return uint64(v), v != ^uint32(0)
	case 2, 3, 4: // unsigned long, unsigned and signed long long
		v := *(*uint64)(unsafe.Pointer(&f.value))
		return v, v != nvmlNotAvailable
	case 6: // unsigned short
		return uint64(*(*uint16)(unsafe.Pointer(&f.value))), true
	}
	return 0, false
}

// open starts the library and counts its GPUs.
func (l *nvml) open() ([]nvmlDevice, error) {
	if l.Init == nil || l.DeviceCount == nil || l.HandleByIndex == nil {
		return nil, &Problem{Code: LibraryMissing, Remedy: InstallDriver, Detail: "libnvidia-ml lacks its first functions; install the whole driver"}
	}
	if r := l.Init(); r != nvmlSuccess {
		return nil, r.problem("start")
	}
	var n uint32
	if r := l.DeviceCount(&n); r != nvmlSuccess {
		l.shutdown()
		return nil, r.problem("count GPUs")
	}
	var devices []nvmlDevice
	var firstErr error
	for i := range n {
		var d nvmlDevice
		if r := l.HandleByIndex(i, &d); r != nvmlSuccess {
			if firstErr == nil {
				firstErr = r.problem("open GPU " + strconv.Itoa(int(i)))
			}
			d = 0 // its index stays
		}
		devices = append(devices, d)
	}
	if n == 0 {
		l.shutdown()
		return nil, NVIDIAProblem([]byte("no devices were found"))
	}
	return devices, firstErr
}

func (l *nvml) shutdown() {
	if l.Shutdown != nil {
		l.Shutdown()
	}
}

// Get helpers: nil where the function is missing or fails.

func getU32(f func(nvmlDevice, *uint32) nvmlReturn, d nvmlDevice) *uint32 {
	var v uint32
	if f == nil || f(d, &v) != nvmlSuccess || v == ^uint32(0) {
		return nil
	}
	return &v
}

func getKind(f func(nvmlDevice, uint32, *uint32) nvmlReturn, d nvmlDevice, kind uint32) *uint32 {
	var v uint32
	if f == nil || f(d, kind, &v) != nvmlSuccess || v == ^uint32(0) {
		return nil
	}
	return &v
}

func getText(f func(nvmlDevice, *byte, uint32) nvmlReturn, d nvmlDevice) string {
	if f == nil {
		return ""
	}
	return cText(func(buf *byte, n uint32) nvmlReturn { return f(d, buf, n) })
}

// cText calls a function that fills a buffer with a C string.
func cText(f func(buf *byte, n uint32) nvmlReturn) string {
	if f == nil {
		return ""
	}
	buf := make([]byte, 256)
	if f(&buf[0], uint32(len(buf))) != nvmlSuccess {
		return ""
	}
	s, _, _ := bytes.Cut(buf, []byte{0})
	return string(s)
}

func asInt(v *uint32) *int {
	if v == nil {
		return nil
	}
	return new(int(*v))
}

func asWatts(mw *uint32) *float64 {
	if mw == nil {
		return nil
	}
	return new(float64(*mw) / 1000)
}

func asCelsius(v *uint32) *float64 {
	if v == nil || *v > 1000 {
		return nil
	}
	return new(float64(*v))
}

func asBool(v *uint32) *bool {
	if v == nil {
		return nil
	}
	return new(*v != 0)
}

// gpu reads everything about one device.
func (l *nvml) gpu(i int, d nvmlDevice) GPU {
	g := GPU{Index: i, Vendor: NVIDIA, Sources: []string{"nvml"}}
	g.Name = getText(l.Name, d)
	g.UUID = getText(l.UUID, d)
	g.Driver = cText(l.DriverVersion)
	var cuda int32
	if l.CudaDriverVersion != nil && l.CudaDriverVersion(&cuda) == nvmlSuccess && cuda > 0 {
		g.CUDA = fmt.Sprintf("%d.%d", cuda/1000, cuda%1000/10)
	}
	var pci nvmlPCIInfo
	if l.PCIInfo != nil && l.PCIInfo(d, &pci) == nvmlSuccess {
		bus, _, _ := bytes.Cut(pci.busID[:], []byte{0})
		pciBus(&g, string(bus))
		g.PCIDevice = fmt.Sprintf("%04x:%04x", pci.pciDeviceID&0xffff, pci.pciDeviceID>>16)
	}
	var major, minor int32
	if l.ComputeCapability != nil && l.ComputeCapability(d, &major, &minor) == nvmlSuccess {
		g.ComputeCap = fmt.Sprintf("%d.%d", major, minor)
	}
	l.memory(&g, d)
	g.BusWidthBits = asInt(getU32(l.BusWidth, d))
	g.Cores = asInt(getU32(l.NumCores, d))
	if v := getU32(l.PowerSource, d); v != nil {
		switch *v {
		case 0:
			g.PowerSource = AC
		case 1:
			g.PowerSource = Battery
		case 2:
			g.PowerSource = Undersized
		}
	}
	g.ClockSMMaxMHz = asInt(getKind(l.MaxClockInfo, d, nvmlClockSM))
	g.ClockMemMaxMHz = asInt(getKind(l.MaxClockInfo, d, nvmlClockMem))
	g.PowerRequestedW = asWatts(getU32(l.PowerLimit, d))
	g.PowerDefaultW = asWatts(getU32(l.PowerDefaultLimit, d))
	var lo, hi uint32
	if l.PowerConstraints != nil && l.PowerConstraints(d, &lo, &hi) == nvmlSuccess {
		g.PowerLimitMinW, g.PowerLimitMaxW = asWatts(&lo), asWatts(&hi)
	}
	g.ShutdownC = asCelsius(getKind(l.TemperatureThreshold, d, nvmlShutdownC))
	g.SlowdownC = asCelsius(getKind(l.TemperatureThreshold, d, nvmlSlowdownC))
	g.TemperatureLimitC = asCelsius(getKind(l.TemperatureThreshold, d, nvmlGPUMaxC))
	g.MemLimitC = asCelsius(getKind(l.TemperatureThreshold, d, nvmlMemMaxC))
	g.PCIeGenMax = asInt(getU32(l.MaxPCIeGen, d))
	g.PCIeGenDevice = asInt(getU32(l.GPUMaxPCIeGen, d))
	g.PCIeWidthMax = asInt(getU32(l.MaxPCIeWidth, d))
	g.DisplayAttached = asBool(getU32(l.DisplayMode, d))
	g.DisplayActive = asBool(getU32(l.DisplayActive, d))
	var now, pending uint32
	if l.MIGMode != nil && l.MIGMode(d, &now, &pending) == nvmlSuccess {
		g.MIG = new(now == 1)
	}
	g.Processes = l.processes(d)

	s := l.sample(i, d, true)
	g.ClockSMMHz, g.ClockMemMHz = s.ClockSMMHz, s.ClockMemMHz
	g.PowerDrawW, g.PowerAverageW, g.PowerLimitW = s.PowerDrawW, s.PowerAverageW, s.PowerLimitW
	g.TemperatureC, g.TemperatureMemC = s.TemperatureC, s.TemperatureMemC
	g.UtilGPUPercent, g.UtilMemPercent, g.PState = s.UtilGPUPercent, s.UtilMemPercent, s.PState
	g.ThrottleReasons, g.ThrottleCountersUS = s.ThrottleReasons, s.ThrottleCountersUS
	g.PCIeGen, g.PCIeWidth = s.PCIeGen, s.PCIeWidth
	g.finish()
	return g
}

// memory reads the sizes: with what the driver reserves told apart if the
// library can, for in the older form "used" includes it.
func (l *nvml) memory(g *GPU, d nvmlDevice) {
	m2 := nvmlMemory2{version: nvmlMemory2Version}
	if l.MemoryInfo2 != nil && l.MemoryInfo2(d, &m2) == nvmlSuccess {
		g.MemoryTotalBytes, g.MemoryReservedBytes = asBytes(m2.total), asBytes(m2.reserved)
		g.MemoryUsedBytes, g.MemoryFreeBytes = asBytes(m2.used), asBytes(m2.free)
		return
	}
	var m nvmlMemory
	if l.MemoryInfo != nil && l.MemoryInfo(d, &m) == nvmlSuccess {
		g.MemoryTotalBytes, g.MemoryUsedBytes, g.MemoryFreeBytes = asBytes(m.total), asBytes(m.used), asBytes(m.free)
	}
}

// asBytes is a size, nil for one that cannot be: the largest number is how
// drivers say that they do not know.
func asBytes(v uint64) *int64 {
	if v > 1<<60 {
		return nil
	}
	return new(int64(v))
}

// processes lists who uses the device; nil where that is not told.
func (l *nvml) processes(d nvmlDevice) []Process {
	var out []Process
	for _, src := range []struct {
		f    func(nvmlDevice, *uint32, *nvmlProcess) nvmlReturn
		kind string
	}{{l.ComputeProcesses, "C"}, {l.GraphicsProcesses, "G"}} {
		if src.f == nil {
			continue
		}
		buf := make([]nvmlProcess, 128)
		n := uint32(len(buf))
		if r := src.f(d, &n, &buf[0]); r == nvmlInsufficientSize && n < 1<<16 {
			n += 16 // some may have started since
			buf = make([]nvmlProcess, n)
			if src.f(d, &n, &buf[0]) != nvmlSuccess {
				continue
			}
		} else if r != nvmlSuccess {
			continue
		}
		if out == nil {
			out = []Process{}
		}
		for _, p := range buf[:min(int(n), len(buf))] {
			out = l.addProcess(out, p, src.kind)
		}
	}
	return out
}

func (l *nvml) addProcess(list []Process, p nvmlProcess, kind string) []Process {
	for i := range list {
		if list[i].PID == int(p.pid) {
			if list[i].Kind != kind {
				list[i].Kind = "C+G"
			}
			return list
		}
	}
	q := Process{PID: int(p.pid), Kind: kind, UsedBytes: asBytes(p.used)}
	if l.ProcessName != nil {
		q.Name = programName(cText(func(buf *byte, n uint32) nvmlReturn { return l.ProcessName(p.pid, buf, n) }))
	}
	return append(list, q)
}

// sample reads what changes: one device, now. The counters are asked for only
// where they are wanted.
func (l *nvml) sample(i int, d nvmlDevice, counters bool) GPUSample {
	s := GPUSample{Index: i, Vendor: NVIDIA}
	var u nvmlUtilization
	if l.Utilization != nil && l.Utilization(d, &u) == nvmlSuccess && u.gpu <= 100 && u.memory <= 100 {
		s.UtilGPUPercent, s.UtilMemPercent = new(float64(u.gpu)), new(float64(u.memory))
	}
	s.ClockSMMHz = asInt(getKind(l.ClockInfo, d, nvmlClockSM))
	if s.ClockSMMHz == nil {
		s.ClockSMMHz = asInt(getKind(l.ClockInfo, d, nvmlClockGraphics))
	}
	s.ClockMemMHz = asInt(getKind(l.ClockInfo, d, nvmlClockMem))
	s.PowerDrawW = asWatts(getU32(l.PowerUsage, d))
	s.PowerLimitW = asWatts(getU32(l.EnforcedPowerLimit, d))
	s.TemperatureC = asCelsius(getKind(l.Temperature, d, 0))
	if v := getU32(l.PerformanceState, d); v != nil && *v < 16 { // 32: unknown
		s.PState = "P" + strconv.Itoa(int(*v))
	}
	var bits uint64
	if l.EventReasons != nil && l.EventReasons(d, &bits) == nvmlSuccess {
		s.ThrottleReasons = reasonsOf(bits)
	}
	s.PCIeGen, s.PCIeWidth = asInt(getU32(l.CurrPCIeGen, d)), asInt(getU32(l.CurrPCIeWidth, d))
	var g GPU
	l.memory(&g, d)
	s.MemoryUsedBytes = g.MemoryUsedBytes
	l.fields(&s, d, counters)
	return s
}

// fields reads the field values: the momentary power, the memory's
// temperature, and the counters.
func (l *nvml) fields(s *GPUSample, d nvmlDevice, counters bool) {
	f := []nvmlField{{id: nvmlFieldPowerInstant}, {id: nvmlFieldPowerAverage}, {id: nvmlFieldMemTemp}}
	if counters {
		for _, c := range nvmlCounters {
			f = append(f, nvmlField{id: c.field})
		}
	}
	got := l.FieldValues != nil && l.FieldValues(d, int32(len(f)), &f[0]) == nvmlSuccess
	value := func(i int) (uint64, bool) {
		if !got {
			return 0, false
		}
		return f[i].uint()
	}
	if v, ok := value(0); ok {
		s.PowerDrawW = new(float64(v) / 1000)
	}
	if v, ok := value(1); ok {
		s.PowerAverageW = new(float64(v) / 1000)
	}
	if v, ok := value(2); ok && v > 0 && v < 1000 { // 0: no sensor
		s.TemperatureMemC = new(float64(v))
	}
	if !counters {
		return
	}
	for i, c := range nvmlCounters {
		ns, ok := value(3 + i)
		if !ok && c.policy >= 0 && l.ViolationStatus != nil {
			var v nvmlViolation
			ok = l.ViolationStatus(d, uint32(c.policy), &v) == nvmlSuccess && v.violationNS != nvmlNotAvailable
			ns = v.violationNS
		}
		if !ok {
			continue
		}
		if s.ThrottleCountersUS == nil {
			s.ThrottleCountersUS = map[Reason]int64{}
		}
		s.ThrottleCountersUS[c.reason] = int64(ns / 1000)
	}
}

// read describes all GPUs and closes the library again.
func (l *nvml) read() ([]GPU, error) {
	devices, err := l.open()
	if devices == nil {
		return nil, err
	}
	defer l.shutdown()
	var gpus []GPU
	for i, d := range devices {
		if d != 0 {
			gpus = append(gpus, l.gpu(i, d))
		}
	}
	return gpus, err
}
