package machine

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLinuxHost(t *testing.T) {
	root := trees(t).within("procfs", "fixtures")
	c, virtual, err := linuxCPU(root)
	if err != nil {
		t.Fatal(err)
	}
	if c.Model != "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz" || c.Vendor != "GenuineIntel" || virtual {
		t.Errorf("%+v, virtual %v", c, virtual)
	}
	equal(t, "cores", c.Cores, 4)
	equal(t, "threads", c.Threads, 8)
	equal(t, "sockets", c.Sockets, 1)
	equal(t, "load", c.Load5, 0.04)
	if d := cmp.Diff([]string{"avx", "f16c", "fma", "avx2", "bmi2"}, c.Features); d != "" {
		t.Error(d)
	}
	m, err := linuxMemory(root)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "memory", m.TotalBytes, 15666184<<10)
	equal(t, "swap", m.SwapTotalBytes, 0)
	equal(t, "swap in use", m.SwapUsedBytes, 0)

	p, err := linuxPower(root)
	if err != nil {
		t.Fatal(err)
	}
	want := Power{Source: Battery, BatteryPercent: new(85.0), BatteryStatus: "discharging", BatteryDrawW: new(5.064)}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	c, _, err = linuxCPU(plantCPU(t))
	if err != nil {
		t.Fatal(err)
	}
	if c.Governor != "powersave" || c.EnergyPreference != "balance_power" {
		t.Errorf("governor %q, preference %q", c.Governor, c.EnergyPreference)
	}
	equal(t, "quota", c.QuotaCores, 1.5)
	equal(t, "fast cores", c.PerformanceCores, 6)
	equal(t, "highest clock", c.MaxMHz, 4800)
}

// plantCPU is a laptop with two kinds of cores in a container.
func plantCPU(t *testing.T) tree {
	const cpu = "sys/devices/system/cpu/"
	return plant(t, map[string]string{
		"proc/cpuinfo":                                     "processor : 0\nmodel name : 13th Gen Intel(R) Core(TM)\nphysical id : 0\ncore id : 0\ncpu cores : 1\nflags : avx2 hypervisor\n",
		cpu + "cpu0/cpufreq/scaling_governor":              "powersave\n",
		cpu + "cpufreq/policy0/cpuinfo_max_freq":           "4800000\n",
		cpu + "cpu0/cpufreq/energy_performance_preference": "balance_power\n",
		cpu + "smt/active":                                 "1\n",
		"sys/devices/cpu_core/cpus":                        "0-11\n",
		"sys/devices/cpu_atom/cpus":                        "12-19\n",
		"sys/fs/cgroup/cpu.max":                            "150000 100000\n",
		"sys/fs/cgroup/memory.max":                         "1073741824\n",
		"proc/meminfo":                                     "MemTotal: 16000000 kB\nMemAvailable: 9000000 kB\nSwapTotal: 4000000 kB\nSwapFree: 1000000 kB\n",
		"proc/sys/kernel/osrelease":                        "5.15.153.1-microsoft-standard-WSL2\n",
		".dockerenv":                                       "",
		"sys/class/dmi/id/sys_vendor":                      "QEMU\n",
	})
}

func TestVirtual(t *testing.T) {
	if d := cmp.Diff(Virtual{WSL: "2", VM: "hyper-v", Container: "docker"}, linuxVirtual(plantCPU(t), true)); d != "" {
		t.Error(d)
	}
	if v := linuxVirtual(plant(t, map[string]string{"proc/1/cgroup": "0::/init.scope\n", "sys/class/dmi/id/sys_vendor": "LENOVO\n"}), false); v != (Virtual{}) {
		t.Errorf("a bare machine is %+v", v)
	}
	if v := linuxVirtual(plant(t, map[string]string{"sys/class/dmi/id/sys_vendor": "Amazon EC2\n", "sys/class/dmi/id/product_name": "g5.metal\n"}), false); v.VM != "" {
		t.Errorf("a metal machine is %+v", v)
	}
	m, err := linuxMemory(plantCPU(t))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "limit", m.LimitBytes, 1<<30)
	equal(t, "swap in use", m.SwapUsedBytes, 3000000<<10)
}

func TestSupplies(t *testing.T) {
	bat := func(status string, more ...string) Supply {
		return ParseSupply([]byte("POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS=" + status + "\n" + strings.Join(more, "\n")))
	}
	mains := func(on string) Supply {
		return ParseSupply([]byte("POWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE=" + on))
	}
	tests := map[string]struct {
		in   []Supply
		want Power
	}{
		"desktop":    {nil, Power{Source: UnknownPower}},
		"plugged in": {[]Supply{mains("1"), bat("Not charging", "POWER_SUPPLY_CAPACITY=80")}, Power{Source: AC, BatteryStatus: "not charging", BatteryPercent: new(80.0)}},
		"on battery": {[]Supply{mains("0"), bat("Discharging", "POWER_SUPPLY_CHARGE_NOW=50", "POWER_SUPPLY_CHARGE_FULL=100")}, Power{Source: Battery, BatteryStatus: "discharging", BatteryPercent: new(50.0)}},
		"adapter too weak": {
			[]Supply{mains("1"), bat("Discharging", "POWER_SUPPLY_CURRENT_NOW=-1000000", "POWER_SUPPLY_VOLTAGE_NOW=12000000")},
			Power{Source: AC, BatteryStatus: "discharging", BatteryDrawW: new(12.0)},
		},
		"a mouse only":        {[]Supply{ParseSupply([]byte("POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_SCOPE=Device\nPOWER_SUPPLY_CAPACITY=9"))}, Power{Source: UnknownPower}},
		"an empty USB socket": {[]Supply{ParseSupply([]byte("POWER_SUPPLY_TYPE=USB\nPOWER_SUPPLY_ONLINE=0")), bat("Full")}, Power{Source: UnknownPower, BatteryStatus: "full"}},
		"two batteries": {
			[]Supply{bat("Full", "POWER_SUPPLY_ENERGY_NOW=30", "POWER_SUPPLY_ENERGY_FULL=30"), bat("Discharging", "POWER_SUPPLY_ENERGY_NOW=0", "POWER_SUPPLY_ENERGY_FULL=90")},
			Power{Source: Battery, BatteryStatus: "discharging", BatteryPercent: new(25.0)},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, powerOf(tt.in)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPmset(t *testing.T) {
	tests := map[string]struct {
		in   string
		want Power
	}{
		"battery, saving": {
			"Now drawing from 'Battery Power'\n -InternalBattery-0 (id=22806627)\t78%; discharging; 5:05 remaining present: true\n\nCurrently in use:\n lowpowermode         1\n sleep 1\n",
			Power{Source: Battery, BatteryPercent: new(78.0), BatteryStatus: "discharging", Profile: "low power mode", ProfileSource: "pmset", Saver: new(true)},
		},
		"desktop": {"Now drawing from 'AC Power'\n", Power{Source: AC}},
		"full":    {"Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t100%; charged; 0:00 remaining present: true\n lowpowermode 0\n", Power{Source: AC, BatteryPercent: new(100.0), BatteryStatus: "charged", Profile: "automatic", ProfileSource: "pmset", Saver: new(false)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePmset([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	if _, err := ParsePmset([]byte("pmset: command failed")); err == nil {
		t.Error("an error is taken for an answer")
	}
}

const displays = `{"SPDisplaysDataType": [{"_name": "Apple M4 Max", "spdisplays_mtlgpufamilysupport": "spdisplays_metal4", "spdisplays_vendor": "sppci_vendor_Apple",
	"sppci_bus": "spdisplays_builtin", "sppci_cores": "40", "sppci_device_type": "spdisplays_gpu", "sppci_model": "Apple M4 Max", "spdisplays_ndrvs": [{"_spdisplays_display-serial-number": "secret"}]},
	{"_name": "kHW_AMDRadeonPro5500MItem", "sppci_model": "AMD Radeon Pro 5500M", "spdisplays_vendor": "sppci_vendor_amd", "sppci_bus": "spdisplays_pcie_device", "spdisplays_vram": "8 GB", "spdisplays_pcie_width": "x16"}]}`

const ioreg = `+-o AGXAcceleratorG16X  <class AGXAcceleratorG16X>
    {
      "IOReportLegend" = ({"IOReportChannels"=((1,2,"In use system memory"))})
      "PerformanceStatistics" = {"In use system memory (driver)"=0,"Alloc system memory"=52967440384,"Tiler Utilization %"=10,"Device Utilization %"=16,"In use system memory"=2363801600}
    }`

func TestApple(t *testing.T) {
	got, err := ParseSystemProfiler([]byte(displays))
	if err != nil {
		t.Fatal(err)
	}
	want := []GPU{
		{Vendor: Apple, Name: "Apple M4 Max", Cores: new(40), Integrated: new(true), Architecture: "metal4", DisplayActive: new(true), Sources: []string{"system_profiler"}},
		{Vendor: AMD, Name: "AMD Radeon Pro 5500M", Integrated: new(false), MemoryTotalBytes: new(int64(8 << 30)), PCIeWidth: new(16), Sources: []string{"system_profiler"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	s, err := ParseIOReg([]byte(ioreg))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(GPUSample{Vendor: Apple, UtilGPUPercent: new(16.0), SharedUsedBytes: new(int64(2363801600))}, s); d != "" {
		t.Error(d)
	}
	pages := ParseVMStat([]byte("Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:        100.\nPages active:     900.\nPages inactive:    50.\n"))
	equal(t, "available", pages, 150*16384)
}

const (
	controllers = "\xef\xbb\xbf" + `[{"Name":"NVIDIA GeForce RTX 4060 Laptop GPU","AdapterCompatibility":"NVIDIA","AdapterRAM":4293918720,"DriverVersion":"32.0.15.6636","PNPDeviceID":"PCI\\VEN_10DE&DEV_28E0&SUBSYS_1\\4&0&8","VideoProcessor":"x"},
		{"Name":"Intel(R) UHD Graphics","AdapterCompatibility":"Intel","AdapterRAM":1073741824,"DriverVersion":"31.0","PNPDeviceID":"PCI\\VEN_8086&DEV_A7A8&SUBSYS_2\\3&1","VideoProcessor":null},
		{"Name":"Microsoft Remote Display Adapter","AdapterRAM":null,"DriverVersion":"10","PNPDeviceID":"SWD\\REMOTEDISPLAYENUM\\1"}]`
	gpuMemory = `[{"Name":"pid_42_luid_0x00000000_0x0000D1F2_phys_0","DedicatedUsage":7000000000,"SharedUsage":1500000000,"LocalUsage":1,"NonLocalUsage":2},
		{"Name":"pid_7_luid_0x00000000_0x0000D1F2_phys_0","DedicatedUsage":100,"SharedUsage":50},
		{"Name":"pid_7_luid_0x00000000_0x0000AAAA_phys_0","DedicatedUsage":1,"SharedUsage":900}]`
)

func TestWindows(t *testing.T) {
	got, err := ParseVideoControllers([]byte(controllers))
	if err != nil {
		t.Fatal(err)
	}
	want := []GPU{
		{Vendor: NVIDIA, Name: "NVIDIA GeForce RTX 4060 Laptop GPU", PCIDevice: "10de:28e0", Driver: "32.0.15.6636", Integrated: new(false), Sources: []string{"Win32_VideoController"}},
		{Vendor: Intel, Name: "Intel(R) UHD Graphics", PCIDevice: "8086:a7a8", Driver: "31.0", MemoryTotalBytes: new(int64(1 << 30)), Sources: []string{"Win32_VideoController"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	one, err := ParseVideoControllers([]byte(`{"Name":"x","PNPDeviceID":"PCI\\VEN_1002&DEV_744C"}`))
	if err != nil || len(one) != 1 || one[0].Vendor != AMD {
		t.Errorf("a single controller: %v, %v", one, err)
	}

	memory := []GPUMemory{
		{PID: 42, Adapter: "0x00000000_0x0000d1f2", DedicatedBytes: new(int64(7000000000)), SharedBytes: new(int64(1500000000))},
		{PID: 7, Adapter: "0x00000000_0x0000d1f2", DedicatedBytes: new(int64(100)), SharedBytes: new(int64(50))},
		{PID: 7, Adapter: "0x00000000_0x0000aaaa", DedicatedBytes: new(int64(1)), SharedBytes: new(int64(900))},
	}
	const a, b = `gpu process memory(pid_42_luid_0x00000000_0x0000d1f2_phys_0)`, `gpu process memory(pid_7_luid_0x00000000_0x0000d1f2_phys_0)`
	for name, tt := range map[string]struct {
		in   string
		want []GPUMemory
	}{
		"CIM": {gpuMemory, memory},
		"Get-Counter": {`[{"Path":"\\\\ada-pc\\` + a + `\\dedicated usage","CookedValue":7000000000},{"Path":"\\\\ada-pc\\` + a + `\\shared usage","CookedValue":1500000000},
			{"Path":"\\\\ada-pc\\` + b + `\\dedicated usage","CookedValue":100},{"Path":"\\\\ada-pc\\` + b + `\\shared usage","CookedValue":50}]`, memory[:2]},
		"typeperf": {
			`"(PDH-CSV 4.0)","\\ADA-PC\` + a + `\Dedicated Usage","\\ADA-PC\` + a + `\Shared Usage","\\ADA-PC\` + b + `\Dedicated Usage","\\ADA-PC\` + b + `\Shared Usage"` + "\r\n" +
				`"11/24/2026 09:00:00.000","7000000000.000000","1500000000.000000","100.000000","50.000000"` + "\r\nExiting, please wait...\r\n",
			memory[:2],
		},
		"nothing": {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseGPUProcessMemory([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}

	p, err := ParsePowercfg([]byte("GUID des Energieschemas: 381b4222-f694-41f0-9685-ff5bb260df2e  (Ausbalanciert)\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Power{Profile: "balanced", ProfileSource: "powercfg", Saver: new(false)}, p); d != "" {
		t.Error(d)
	}
	p, err = ParsePowercfg([]byte("Power Scheme GUID: 27fa6203-3987-4dcc-918d-748559d549ec  (Silent)"))
	if err != nil || p.Profile != "Silent" || p.Saver != nil {
		t.Errorf("%+v, %v", p, err)
	}
	for _, tt := range []struct {
		ac, flag, charge, saver byte
		want                    Power
	}{
		{0, 0, 55, 1, Power{Source: Battery, BatteryPercent: new(55.0), BatteryStatus: "discharging", Saver: new(true)}},
		{1, 9, 90, 0, Power{Source: AC, BatteryPercent: new(90.0), BatteryStatus: "charging"}},
		{1, 128, 255, 0, Power{Source: AC}},
		{255, 255, 255, 0, Power{Source: UnknownPower}},
	} {
		if d := cmp.Diff(tt.want, powerStatus(tt.ac, tt.flag, tt.charge, tt.saver)); d != "" {
			t.Error(d)
		}
	}
}

func TestMemoryStatus(t *testing.T) {
	want := Memory{TotalBytes: new(int64(16 << 30)), AvailableBytes: new(int64(5 << 30)), SwapTotalBytes: new(int64(4 << 30))}
	if d := cmp.Diff(want, memoryStatus(16<<30, 5<<30, 20<<30)); d != "" {
		t.Error(d)
	}
}

// script is a Runner that answers from a table of "program args" and counts
// what it was asked.
type script map[string]string

func (s script) run(_ context.Context, name string, args ...string) ([]byte, error) {
	line := strings.TrimSpace(name + " " + strings.Join(args, " "))
	for k, v := range s {
		if !strings.HasPrefix(line, k) {
			continue
		}
		if code, out, ok := strings.Cut(v, "!"); ok && strings.HasPrefix(v, "exit") {
			return []byte(out), fmt.Errorf("%s ended with code %s", name, strings.TrimPrefix(code, "exit"))
		}
		return []byte(v), nil
	}
	return nil, &exec.Error{Name: name, Err: exec.ErrNotFound}
}

func TestSnapshotWindows(t *testing.T) {
	h := Host{OS: "windows", Arch: "amd64", Root: t.TempDir(), Timeout: time.Minute, Run: script{
		"nvidia-smi.exe -q -x":                                                       "<nvidia_smi_log><driver_version>566.36</driver_version><gpu id=\"00000000:01:00.0\"><product_name>NVIDIA GeForce RTX 4060 Laptop GPU</product_name><fb_memory_usage><total>8188 MiB</total></fb_memory_usage><processes><process_info><pid>42</pid><type>C</type><process_name>C:\\Users\\ada\\ollama.exe</process_name><used_memory>Not available in WDDM driver model</used_memory></process_info></processes></gpu></nvidia_smi_log>",
		"nvidia-smi.exe --help-query-gpu":                                            "\"index\"\n\"compute_cap\"\n\"pci.bus_id\"\n\"clocks_throttle_reasons.active\"",
		"nvidia-smi.exe --query-gpu=index":                                           "0, 00000000:01:00.0, 8.9, 0x4",
		"powershell.exe -NoLogo -NoProfile -NonInteractive -Command " + askVideo:     controllers,
		"powershell.exe -NoLogo -NoProfile -NonInteractive -Command " + askGPUMemory: gpuMemory,
		"powershell.exe -NoLogo -NoProfile -NonInteractive -Command " + askHost:      `{"cpu":[{"Name":"13th Gen  Intel(R) Core(TM) i7-13620H ","Manufacturer":"GenuineIntel","NumberOfCores":10,"NumberOfLogicalProcessors":16,"MaxClockSpeed":2400}],"system":{"Manufacturer":"ASUSTeK","Model":"TUF","HypervisorPresent":true}}`,
		"powercfg.exe": "Power Scheme GUID: a1841308-3541-4fab-bc81-f71556f20b4a  (Power saver)",
	}.run}
	s := h.Snapshot(t.Context())
	if len(s.GPUs) != 2 {
		t.Fatalf("%d GPUs, want 2: %s", len(s.GPUs), pretty(t, s.GPUs))
	}
	g := s.GPU(NVIDIA, 0)
	want := GPU{
		Vendor: NVIDIA, Name: "NVIDIA GeForce RTX 4060 Laptop GPU", PCIBus: "0000:01:00.0", PCIDevice: "10de:28e0", Driver: "566.36", ComputeCap: "8.9", Integrated: new(false),
		MemoryTotalBytes: new(int64(8188 * mib)), SharedUsedBytes: new(int64(1500000050)), ThrottleReasons: []Reason{SWPowerCap},
		Processes: []Process{
			{PID: 42, Name: "ollama.exe", Kind: "C", UsedBytes: new(int64(7000000000)), SharedBytes: new(int64(1500000000))},
			{PID: 7, UsedBytes: new(int64(100)), SharedBytes: new(int64(50))},
		},
		Sources: []string{"nvidia-smi -q -x", "nvidia-smi --query-gpu", "Win32_VideoController", "gpu_process_memory"},
	}
	if d := cmp.Diff(want, *g); d != "" {
		t.Error(d)
	}
	if s.CPU.Model != "13th Gen Intel(R) Core(TM) i7-13620H" || s.Virtual != (Virtual{}) {
		t.Errorf("%+v %+v", s.CPU, s.Virtual)
	}
	if s.Power.Profile != "power saver" || s.Power.Saver == nil || !*s.Power.Saver {
		t.Errorf("%+v", s.Power)
	}
}

func TestSnapshotDarwin(t *testing.T) {
	h := Host{OS: "darwin", Arch: "arm64", Root: t.TempDir(), Timeout: time.Minute, Run: script{
		"sysctl":                             "machdep.cpu.brand_string: Apple M4 Max\nhw.physicalcpu: 16\nhw.logicalcpu: 16\nhw.perflevel0.physicalcpu: 12\nhw.memsize: 51539607552\nvm.swapusage: total = 2048.00M  used = 1012.25M  free = 1035.75M  (encrypted)\nvm.loadavg: { 1.83 2.31 2.55 }\nkern.hv_vmm_present: 0\nkern.osrelease: 25.1.0\niogpu.wired_limit_mb: 40960\n",
		"vm_stat":                            "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free: 1000.\n",
		"pmset -g batt":                      "Now drawing from 'AC Power'\n",
		"pmset -g":                           "Now drawing from 'AC Power'\n",
		"system_profiler SPDisplaysDataType": displays,
		"ioreg":                              ioreg,
	}.run}
	s := h.Snapshot(t.Context())
	equal(t, "fast cores", s.CPU.PerformanceCores, 12)
	equal(t, "load", s.CPU.Load1, 1.83)
	equal(t, "memory", s.Memory.TotalBytes, 51539607552)
	equal(t, "available", s.Memory.AvailableBytes, 1000*16384)
	equal(t, "swap in use", s.Memory.SwapUsedBytes, int64(1012.25*mib))
	equal(t, "limit for the GPU", s.Memory.GPULimitBytes, 40960*mib)
	if s.Kernel != "25.1.0" || s.Power.Source != AC {
		t.Errorf("kernel %q, power %+v", s.Kernel, s.Power)
	}
	g := s.GPU(Apple, 0)
	if g == nil {
		t.Fatal("no GPU of Apple's")
	}
	equal(t, "shared", g.SharedTotalBytes, 51539607552)
	equal(t, "in use", g.SharedUsedBytes, 2363801600)
	equal(t, "utilisation", g.UtilGPUPercent, 16)
}

// TestSnapshotLinuxBroken: the card is there, its driver is not.
func TestSnapshotLinuxBroken(t *testing.T) {
	root := plant(t, map[string]string{
		"sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n", "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n", "sys/bus/pci/devices/0000:01:00.0/device": "0x2330\n",
		"sys/bus/pci/devices/0000:01:00.0/uevent": "PCI_SLOT_NAME=0000:01:00.0\nDRIVER=nouveau\n",
		"sys/bus/pci/devices/0000:00:1f.0/class":  "0x060100\n", "sys/bus/pci/devices/0000:00:1f.0/vendor": "0x8086\n",
		"sys/class/drm/card0/device/vendor": "0x1a03\n", // a server board's screen
		"proc/cpuinfo":                      "processor : 0\n",
	})
	h := Host{OS: "linux", Arch: "amd64", Root: string(root), Timeout: time.Minute, Run: script{
		"nvidia-smi": "exit9!NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
	}.run, nvml: func() (*nvml, error) {
		l := fakeNVML()
		l.Init = func() nvmlReturn { return nvmlDriverNotLoaded }
		return l, nil
	}}
	s := h.Snapshot(t.Context())
	if d := cmp.Diff([]GPU{{Vendor: NVIDIA, PCIBus: "0000:01:00.0", PCIDevice: "10de:2330", DriverModel: "nouveau", Integrated: new(false), Sources: []string{"sysfs"}}}, s.GPUs); d != "" {
		t.Error(d)
	}
	for _, name := range []string{ReadNVML, ReadNVIDIASMI, ReadNVIDIACSV} {
		if r := s.Reading(name); r == nil || r.Status != Failed || r.Code != DriverNotRunning || r.Remedy != InstallDriver {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := s.Reading(ReadMemory); r == nil || r.Status != Failed {
		t.Errorf("memory without meminfo: %+v", r)
	}
	if r := s.Reading(ReadROCmSMI); r == nil || r.Status != NoData {
		t.Errorf("rocm-smi: %+v", r)
	}
}

// TestOneLost: nvidia-smi fails because of one GPU and describes the other.
func TestOneLost(t *testing.T) {
	xml := string(testdata(t, "nvidia", "h100-v13.xml"))
	h := Host{OS: "linux", Root: t.TempDir(), Timeout: time.Minute, Run: script{
		"nvidia-smi -q -x": "exit255!" + xml + "\nUnable to determine the device handle for GPU 0000:0B:00.0: Unknown Error",
	}.run}
	gpus, err := h.readNVIDIASMI(t.Context())
	p, ok := errors.AsType[*Problem](err)
	if len(gpus) != 1 || !ok || p.Code != DeviceUnreadable {
		t.Errorf("%d GPUs, %v", len(gpus), err)
	}
}

func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Snapshot
		release := make(chan struct{})
		gather(t.Context(), &s, []collector{
			{"stuck", time.Second, func(context.Context) (func(*Snapshot), error) {
				<-release // as a driver's call that does not return
				return func(s *Snapshot) { s.Kernel = "late" }, nil
			}},
			{"good", time.Second, func(context.Context) (func(*Snapshot), error) {
				return func(s *Snapshot) { s.Arch = "x" }, nil
			}},
			{"none", time.Second, func(context.Context) (func(*Snapshot), error) { return nil, noData("no such thing") }},
			{"slow", time.Second, func(ctx context.Context) (func(*Snapshot), error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}},
			{"half", time.Second, func(context.Context) (func(*Snapshot), error) {
				return func(s *Snapshot) { s.OS = "y" }, errors.New("the rest is broken")
			}},
		})
		close(release)
		var got []string
		for _, r := range s.Readings {
			got = append(got, fmt.Sprintf("%s %s %s", r.Name, r.Status, r.Detail))
		}
		want := []string{"stuck timed_out no answer within 1s", "good ok ", "none no_data no such thing", "slow timed_out no answer within 1s", "half failed the rest is broken"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if s.Arch != "x" || s.OS != "y" || s.Kernel != "" {
			t.Errorf("applied: %+v", s)
		}
	})
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{
		displays, ioreg, controllers, gpuMemory, "processor : 0\nflags : avx2\ncpu cores : 3\nphysical id : 0", "0.02 0.04 0.05 1/497 11947", "MemTotal: 1 kB",
		"POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_CHARGE_NOW=1", "1 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13", "cpu  1 2 3 4 5 6 7 8", "1 0 1-02:03:04.50 /bin/x",
		"Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t9%; charging;", "hw.memsize: 5\nvm.swapusage: total = 2048.00M", "0-7,16", `"(PDH-CSV 4.0)","\\x\gpu process memory(pid_1_luid_0x0_0x1)\Shared Usage"` + "\n\"a\",\"1\"",
		"381b4222-f694-41f0-9685-ff5bb260df2e (x)", "10de  NVIDIA\n\t2330  GH100", "page size of 16384 bytes\nPages free: 1.",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, _, err := ParseCPUInfo(data); err == nil && (*c.Threads < 1 || c.Cores != nil && *c.Cores > *c.Threads) {
			t.Errorf("%d threads", *c.Threads)
		}
		_, _, _, _ = ParseLoadAvg(data)
		if m, err := ParseMeminfo(data); err == nil && *m.TotalBytes < 0 {
			t.Error("less than no memory")
		}
		s := ParseSupply(data)
		if s.Percent != nil && !(*s.Percent >= 0 && *s.Percent <= 100) {
			t.Errorf("charge of %v %%", *s.Percent)
		}
		powerOf([]Supply{s})
		if p, err := ParseProcStat(data); err == nil && p.CPU < 0 {
			t.Error("negative time")
		}
		if d, ok := ParseHostStat(data); ok && d < 0 {
			t.Error("negative time")
		}
		for _, p := range ParsePS(data) {
			if p.CPU < 0 {
				t.Error("negative time")
			}
		}
		gpus, _ := ParseSystemProfiler(data)
		checkGPUs(t, gpus)
		gpus, _ = ParseVideoControllers(data)
		checkGPUs(t, gpus)
		_, _ = ParseIOReg(data)
		_, _ = ParsePmset(data)
		_, _ = ParsePowercfg(data)
		_, _, _ = ParseWindowsHost(data)
		list, _ := ParseGPUProcessMemory(data)
		for _, m := range list {
			if m.DedicatedBytes != nil && *m.DedicatedBytes < 0 || m.SharedBytes != nil && *m.SharedBytes < 0 {
				t.Error("less than no memory")
			}
		}
		darwinHost(ParseSysctl(data))
		ParseVMStat(data)
		ParsePCIIDs(strings.NewReader(string(data)), "10de", "2330")
		cpuList(string(data))
	})
}
