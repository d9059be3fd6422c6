package machine

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// fakeNVML is the library of a laptop's RTX 4060 on a weak adapter. Functions
// that a test takes away are as in an older driver.
func fakeNVML() *nvml {
	u32 := func(v uint32) func(nvmlDevice, *uint32) nvmlReturn {
		return func(_ nvmlDevice, p *uint32) nvmlReturn { *p = v; return nvmlSuccess }
	}
	kinds := func(m map[uint32]uint32) func(nvmlDevice, uint32, *uint32) nvmlReturn {
		return func(_ nvmlDevice, k uint32, p *uint32) nvmlReturn {
			v, ok := m[k]
			if !ok {
				return nvmlNotSupported
			}
			*p = v
			return nvmlSuccess
		}
	}
	str := func(s string) func(nvmlDevice, *byte, uint32) nvmlReturn {
		return func(_ nvmlDevice, p *byte, n uint32) nvmlReturn {
			copy(unsafe.Slice(p, n), s+"\x00")
			return nvmlSuccess
		}
	}
	notSupported := func(nvmlDevice, *uint32) nvmlReturn { return nvmlNotSupported }
	l := &nvml{
		Init: func() nvmlReturn { return nvmlSuccess }, Shutdown: func() nvmlReturn { return nvmlSuccess },
		DriverVersion:     func(p *byte, n uint32) nvmlReturn { return str("566.36")(0, p, n) },
		CudaDriverVersion: func(v *int32) nvmlReturn { *v = 12070; return nvmlSuccess },
		DeviceCount:       func(n *uint32) nvmlReturn { *n = 1; return nvmlSuccess },
		HandleByIndex:     func(i uint32, d *nvmlDevice) nvmlReturn { *d = nvmlDevice(i + 1); return nvmlSuccess },
		Name:              str("NVIDIA GeForce RTX 4060 Laptop GPU"), UUID: str("GPU-1"),
		PCIInfo: func(_ nvmlDevice, p *nvmlPCIInfo) nvmlReturn {
			copy(p.busID[:], "00000000:01:00.0")
			p.pciDeviceID = 0x28E010DE
			return nvmlSuccess
		},
		ComputeCapability: func(_ nvmlDevice, a, b *int32) nvmlReturn { *a, *b = 8, 9; return nvmlSuccess },
		MemoryInfo2: func(_ nvmlDevice, m *nvmlMemory2) nvmlReturn {
			if m.version != 0x2000028 {
				return 25
			}
			m.total, m.reserved, m.free, m.used = 8188*mib, 240*mib, 2000*mib, 5948*mib
			return nvmlSuccess
		},
		MemoryInfo: func(_ nvmlDevice, m *nvmlMemory) nvmlReturn {
			m.total, m.free, m.used = 8188*mib, 2000*mib, 6188*mib
			return nvmlSuccess
		},
		BusWidth: u32(128), NumCores: u32(3072), PowerSource: u32(2),
		ClockInfo:          kinds(map[uint32]uint32{nvmlClockSM: 1455, nvmlClockMem: 8000}),
		MaxClockInfo:       kinds(map[uint32]uint32{nvmlClockSM: 3105, nvmlClockMem: 8001}),
		PowerUsage:         u32(35_500),
		EnforcedPowerLimit: u32(35_000), PowerLimit: notSupported, PowerDefaultLimit: u32(80_000),
		PowerConstraints:     func(_ nvmlDevice, lo, hi *uint32) nvmlReturn { *lo, *hi = 5_000, 115_000; return nvmlSuccess },
		Temperature:          kinds(map[uint32]uint32{0: 71}),
		TemperatureThreshold: kinds(map[uint32]uint32{nvmlShutdownC: 105, nvmlSlowdownC: 102}),
		Utilization: func(_ nvmlDevice, u *nvmlUtilization) nvmlReturn {
			u.gpu, u.memory = 97, 81
			return nvmlSuccess
		},
		PerformanceState: u32(2),
		EventReasons:     func(_ nvmlDevice, b *uint64) nvmlReturn { *b = 0x84; return nvmlSuccess },
		ViolationStatus: func(_ nvmlDevice, policy uint32, v *nvmlViolation) nvmlReturn {
			if policy != 3 {
				return nvmlNotSupported
			}
			v.violationNS = 7_000_000
			return nvmlSuccess
		},
		FieldValues: func(_ nvmlDevice, n int32, f *nvmlField) nvmlReturn {
			for i := range unsafe.Slice(f, n) {
				f := &unsafe.Slice(f, n)[i]
				switch f.id {
				case nvmlFieldPowerInstant:
					f.valueType = 1
					*(*uint32)(unsafe.Pointer(&f.value)) = 34_200
				case 74:
					f.valueType = 3
					*(*uint64)(unsafe.Pointer(&f.value)) = 5_000_000_000
				case 271:
					f.valueType = 3
					*(*uint64)(unsafe.Pointer(&f.value)) = 9_000
				default:
					f.ret = nvmlNotSupported
				}
			}
			return nvmlSuccess
		},
		CurrPCIeGen: u32(4), CurrPCIeWidth: u32(8), MaxPCIeGen: u32(4), MaxPCIeWidth: u32(8), GPUMaxPCIeGen: u32(4),
		DisplayMode: u32(0), DisplayActive: u32(1), MIGMode: func(nvmlDevice, *uint32, *uint32) nvmlReturn { return nvmlNotSupported },
		ComputeProcesses: func(_ nvmlDevice, n *uint32, p *nvmlProcess) nvmlReturn {
			*n = 1
			*p = nvmlProcess{pid: 42, used: 5500 * mib}
			return nvmlSuccess
		},
		GraphicsProcesses: func(_ nvmlDevice, n *uint32, p *nvmlProcess) nvmlReturn {
			*n = 2
			copy(unsafe.Slice(p, 2), []nvmlProcess{{pid: 42, used: 5500 * mib}, {pid: 7, used: nvmlNotAvailable}})
			return nvmlSuccess
		},
		ProcessName: func(pid uint32, p *byte, n uint32) nvmlReturn {
			return str(map[uint32]string{42: "/usr/bin/ollama runner --model /home/ada/x", 7: `C:\Windows\dwm.exe`}[pid])(0, p, n)
		},
	}
	return l
}

func TestNVMLStructs(t *testing.T) {
	// As sizeof says in C on 64-bit Linux and Windows.
	for what, size := range map[string][2]uintptr{
		"nvmlPciInfo_t":       {unsafe.Sizeof(nvmlPCIInfo{}), 68},
		"nvmlMemory_t":        {unsafe.Sizeof(nvmlMemory{}), 24},
		"nvmlMemory_v2_t":     {unsafe.Sizeof(nvmlMemory2{}), 40},
		"nvmlFieldValue_t":    {unsafe.Sizeof(nvmlField{}), 40},
		"nvmlProcessInfo_t":   {unsafe.Sizeof(nvmlProcess{}), 24},
		"nvmlViolationTime_t": {unsafe.Sizeof(nvmlViolation{}), 16},
	} {
		if size[0] != size[1] {
			t.Errorf("%s has %d bytes, want %d", what, size[0], size[1])
		}
	}
}

func TestNVML(t *testing.T) {
	got, err := fakeNVML().read()
	if err != nil {
		t.Fatal(err)
	}
	want := GPU{
		Vendor: NVIDIA, Name: "NVIDIA GeForce RTX 4060 Laptop GPU", UUID: "GPU-1", PCIBus: "0000:01:00.0", PCIDevice: "10de:28e0",
		Driver: "566.36", CUDA: "12.7", ComputeCap: "8.9", Cores: new(3072), BusWidthBits: new(128),
		MemoryTotalBytes: new(int64(8188 * mib)), MemoryReservedBytes: new(int64(240 * mib)), MemoryUsedBytes: new(int64(5948 * mib)), MemoryFreeBytes: new(int64(2000 * mib)),
		ClockSMMHz: new(1455), ClockSMMaxMHz: new(3105), ClockMemMHz: new(8000), ClockMemMaxMHz: new(8001),
		PowerDrawW: new(34.2), PowerLimitW: new(35.0), PowerDefaultW: new(80.0), PowerLimitMinW: new(5.0), PowerLimitMaxW: new(115.0), PowerSource: Undersized,
		TemperatureC: new(71.0), SlowdownC: new(102.0), ShutdownC: new(105.0), UtilGPUPercent: new(97.0), UtilMemPercent: new(81.0), PState: "P2",
		ThrottleReasons:    []Reason{HWPowerBrake, SWPowerCap},
		ThrottleCountersUS: map[Reason]int64{SWPowerCap: 5_000_000, HWPowerBrake: 9, BoardLimit: 7000},
		PCIeGen:            new(4), PCIeGenMax: new(4), PCIeGenDevice: new(4), PCIeWidth: new(8), PCIeWidthMax: new(8),
		DisplayAttached: new(false), DisplayActive: new(true),
		Processes: []Process{{PID: 42, Name: "ollama runner", Kind: "C+G", UsedBytes: new(int64(5500 * mib))}, {PID: 7, Name: "dwm.exe", Kind: "G"}},
		Sources:   []string{"nvml"},
	}
	if d := cmp.Diff([]GPU{want}, got); d != "" {
		t.Error(d)
	}
	if !got[0].NamedLaptop() || !got[0].Has(HWPowerBrake) || got[0].Has(GPUIdle) {
		t.Error("name or reasons are not understood")
	}
}

// TestNVMLOld takes every function away in turn: nothing else is lost, and
// nothing crashes.
func TestNVMLOld(t *testing.T) {
	l := &nvml{Init: fakeNVML().Init, DeviceCount: fakeNVML().DeviceCount, HandleByIndex: fakeNVML().HandleByIndex}
	got, err := l.read()
	if d := cmp.Diff([]GPU{{Vendor: NVIDIA, Sources: []string{"nvml"}}}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	l = fakeNVML()
	l.MemoryInfo2, l.FieldValues, l.EventReasons, l.PowerSource, l.GraphicsProcesses = nil, nil, nil, nil, nil
	got, err = l.read()
	if err != nil {
		t.Fatal(err)
	}
	g := got[0]
	equal(t, "used with what is reserved", g.MemoryUsedBytes, 6188*mib)
	unknown(t, "reserved", g.MemoryReservedBytes)
	equal(t, "draw", g.PowerDrawW, 35.5)
	if g.ThrottleReasons != nil || g.PowerSource != "" {
		t.Error("reasons or source are invented")
	}
	if d := cmp.Diff(map[Reason]int64{BoardLimit: 7000}, g.ThrottleCountersUS); d != "" {
		t.Error(d)
	}
}

func TestNVMLProblems(t *testing.T) {
	tests := map[string]struct {
		change func(*nvml)
		code   Code
	}{
		"versions differ": {func(l *nvml) { l.Init = func() nvmlReturn { return nvmlMismatch } }, DriverMismatch},
		"no driver":       {func(l *nvml) { l.Init = func() nvmlReturn { return nvmlDriverNotLoaded } }, DriverNotRunning},
		"no GPU":          {func(l *nvml) { l.DeviceCount = func(n *uint32) nvmlReturn { *n = 0; return nvmlSuccess } }, NoDevices},
		"lost":            {func(l *nvml) { l.HandleByIndex = func(uint32, *nvmlDevice) nvmlReturn { return nvmlGPULost } }, DeviceUnreadable},
		"container":       {func(l *nvml) { l.Init = func() nvmlReturn { return nvmlBlocked } }, NotPermitted},
		"half a library":  {func(l *nvml) { l.DeviceCount = nil }, LibraryMissing},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := fakeNVML()
			tt.change(l)
			gpus, err := l.read()
			p, ok := errors.AsType[*Problem](err)
			if !ok || p.Code != tt.code || len(gpus) != 0 {
				t.Errorf("%v, %v", gpus, err)
			}
		})
	}
	t.Run("one of two is lost", func(t *testing.T) {
		l := fakeNVML()
		l.DeviceCount = func(n *uint32) nvmlReturn { *n = 2; return nvmlSuccess }
		open := l.HandleByIndex
		l.HandleByIndex = func(i uint32, d *nvmlDevice) nvmlReturn {
			if i == 0 {
				return nvmlGPULost
			}
			return open(i, d)
		}
		gpus, err := l.read()
		if len(gpus) != 1 || gpus[0].Index != 1 || err == nil {
			t.Errorf("%v, %v", gpus, err)
		}
	})
}

// TestNVMLSymbols holds the names of functions against what a real library of
// driver 610 exports.
func TestNVMLSymbols(t *testing.T) {
	b, err := os.ReadFile(shared(t, "data", "gpu", "nvidia_gpu_exporter", "linux-x86_64__nvidia-geforce-rtx-2080-super__610.57.04.txt"))
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]bool{}
	for line := range strings.SplitSeq(string(b), "\n") {
		if strings.HasPrefix(line, "nvml") {
			exported[strings.TrimSpace(line)] = true
		}
	}
	places := 0
	for _, names := range new(nvml).symbols() {
		places++
		if !exported[names[0]] {
			t.Errorf("the library has no %s", names[0])
		}
	}
	if places != 40 {
		t.Errorf("%d functions have a name, want all 40", places)
	}
}

// TestNVMLHere reads this machine's own GPU and prints what it said. It is
// the check to run on a machine that has one.
func TestNVMLHere(t *testing.T) {
	l, err := loadNVML()
	if errors.Is(err, errNoData) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	gpus, err := l.read()
	if err != nil {
		t.Skip(err) // a library without a driver
	}
	for _, g := range gpus {
		t.Log(pretty(t, g))
		if g.Name == "" || g.MemoryTotalBytes == nil || g.Driver == "" {
			t.Error("name, memory or driver is missing")
		}
		if bw, clock := g.BusWidthBits, g.ClockMemMaxMHz; bw != nil && clock != nil {
			t.Logf("bandwidth by 2 × %d MHz × %d bit: %d GB/s", *clock, *bw, 2**clock**bw/8/1000)
		}
	}
	live, err := newLiveNVML(l)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	s, err := live.Read(t.Context(), true)
	if err != nil || len(s) != len(gpus) {
		t.Fatalf("%d samples, %v", len(s), err)
	}
	t.Log(pretty(t, s))
}

// TestSnapshotHere looks at this machine and prints what it found.
func TestSnapshotHere(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the machine's own tools")
	}
	s := This().Snapshot(context.Background())
	t.Log(pretty(t, s))
	if s.CPU.Threads == nil || s.Memory.TotalBytes == nil {
		t.Error("a machine without processor or memory")
	}
	for _, r := range s.Readings {
		if r.Status == "" || r.Name == "" || r.TookMS < 0 {
			t.Errorf("reading %+v", r)
		}
	}
}

// BenchmarkSample measures what one sample costs this machine's processor.
func BenchmarkSample(b *testing.B) {
	s := This().OpenSampler(b.Context(), SamplerOptions{Watch: Watch{PIDs: []int{os.Getpid()}}})
	defer s.Close()
	t := &Trace{}
	for b.Loop() {
		s.take(b.Context(), t, false)
	}
}
