package machine

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testdata(t testing.TB, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const mib = 1 << 20

// TestNVIDIAXML reads one capture of each dialect whole.
func TestNVIDIAXML(t *testing.T) {
	tests := map[string][]GPU{
		"gtx-1070-ti.xml": {{
			Vendor: NVIDIA, Name: "GeForce GTX 1070 Ti", UUID: "GPU-f9ba66fc-a7f5-94c5-da19-019ef2f9c665", PCIBus: "0000:01:00.0",
			ComputeMode: "Default", MemoryTotalBytes: new(int64(4096 * mib)), MemoryUsedBytes: new(int64(42 * mib)), MemoryFreeBytes: new(int64(4054 * mib)),
			ClockSMMHz: new(135), ClockMemMHz: new(405), TemperatureC: new(39.0), UtilGPUPercent: new(0.0), UtilMemPercent: new(0.0),
			PState: "P8", PCIeGen: new(1), PCIeWidth: new(16),
		}},
		"gt-730-v9.xml": {{
			Vendor: NVIDIA, Name: "GeForce GT 730", UUID: "GPU-09cb2925-9d01-5ca4-810b-6cdebe86b71a", PCIBus: "0000:01:00.0", Driver: "384.111",
		}},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseNVIDIAXML(testdata(t, "nvidia", name))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// parseOne reads a capture with one GPU in it.
func parseOne(t *testing.T, name string) GPU {
	t.Helper()
	gpus, _, err := ParseNVIDIA(testdata(t, "nvidia", name))
	if err != nil {
		t.Fatal(err)
	}
	if len(gpus) != 1 {
		t.Fatalf("%d GPUs, want 1", len(gpus))
	}
	return gpus[0]
}

// equal compares pointers' values.
func equal[T comparable](t *testing.T, what string, got *T, want T) {
	t.Helper()
	switch {
	case got == nil:
		t.Errorf("%s is not known, want %v", what, want)
	case *got != want:
		t.Errorf("%s = %v, want %v", what, *got, want)
	}
}

func unknown[T any](t *testing.T, what string, got *T) {
	t.Helper()
	if got != nil {
		t.Errorf("%s = %v, want not known", what, *got)
	}
}

func TestUserPowerCap(t *testing.T) {
	g := parseOne(t, "rtx-3090-v12.xml")
	equal(t, "limit in force", g.PowerLimitW, 200)
	equal(t, "default limit", g.PowerDefaultW, 350)
	equal(t, "requested limit", g.PowerRequestedW, 200)
	equal(t, "lowest limit", g.PowerLimitMinW, 100)
	equal(t, "highest limit", g.PowerLimitMaxW, 375)
	equal(t, "draw", g.PowerDrawW, 27.23)
	if g.ThrottleReasons == nil {
		t.Error("throttle reasons are not known")
	}
	if g.ThrottleCountersUS != nil {
		t.Error("driver 525 has no counters")
	}
}

func TestNVIDIAXMLNewest(t *testing.T) {
	g := parseOne(t, "rtx-3080-v13.xml")
	equal(t, "draw now", g.PowerDrawW, 142.33)
	equal(t, "average draw", g.PowerAverageW, 139.62)
	equal(t, "max memory clock", g.ClockMemMaxMHz, 9501)
	equal(t, "shutdown", g.ShutdownC, 98)
	equal(t, "slowdown", g.SlowdownC, 95)
	equal(t, "limit", g.TemperatureLimitC, 93)
	unknown(t, "memory temperature", g.TemperatureMemC)
	unknown(t, "margin", g.MarginC)
	if g.Processes == nil || len(g.Processes) != 0 {
		t.Errorf("processes = %v, want none", g.Processes)
	}

	g = parseOne(t, "h100-v13.xml")
	equal(t, "display attached", g.DisplayAttached, true)
	equal(t, "display active", g.DisplayActive, false)
	equal(t, "MIG", g.MIG, false)
	equal(t, "margin", g.MarginC, 44)
	equal(t, "margin at slowdown", g.SlowdownMarginC, -2)
	equal(t, "total", g.MemoryTotalBytes, 81559*mib)
	if d := cmp.Diff(map[Reason]int64{SWPowerCap: 0, SyncBoost: 0, SWThermalSlowdown: 0, HWThermalSlowdown: 0, HWPowerBrake: 0}, g.ThrottleCountersUS); d != "" {
		t.Error(d)
	}
	if g.Name != "NVIDIA H100 80GB HBM3" || g.PCIDevice != "10de:2330" || g.Driver != "580.159.04" || g.CUDA != "13.0" {
		t.Errorf("identity: %q %q %q %q", g.Name, g.PCIDevice, g.Driver, g.CUDA)
	}
}

func TestMIG(t *testing.T) {
	g := parseOne(t, "a100-sxm4-v12.xml")
	equal(t, "MIG", g.MIG, true)
	if len(g.MIGDevices) != 4 {
		t.Fatalf("%d MIG devices, want 4", len(g.MIGDevices))
	}
	want := MIGDevice{
		Index: 0, GPUInstance: new(3), ComputeInstance: new(0), Multiprocessors: new(14),
		MemoryTotalBytes: new(int64(19968 * mib)), MemoryUsedBytes: new(int64(12 * mib)), MemoryFreeBytes: new(int64(19955 * mib)),
	}
	if d := cmp.Diff(want, g.MIGDevices[0]); d != "" {
		t.Error(d)
	}
	unknown(t, "utilisation under MIG", g.UtilGPUPercent)

	q := parseOne(t, "query-590-mig-load.txt")
	table := parseOne(t, "table-590-mig.txt")
	list := parseOne(t, "list-590-mig.txt")
	for _, other := range []GPU{table, list} {
		if len(other.MIGDevices) != len(q.MIGDevices) || len(q.MIGDevices) != 4 {
			t.Errorf("%d, %d MIG devices, want 4 each", len(q.MIGDevices), len(other.MIGDevices))
		}
	}
	equal(t, "table: first device's memory", table.MIGDevices[0].MemoryTotalBytes, *q.MIGDevices[0].MemoryTotalBytes)
}

// TestDialectsAgree holds three forms of one capture against each other.
func TestDialectsAgree(t *testing.T) {
	q := parseOne(t, "query-610-windows-load.txt")
	c := parseOne(t, "csv-610-windows-load.csv")
	if q.Name != c.Name || q.Driver != c.Driver || q.PCIBus != c.PCIBus || q.PCIDevice != c.PCIDevice || q.DriverModel != "wddm" || c.DriverModel != "wddm" {
		t.Errorf("identity differs:\n%+v\n%+v", q, c)
	}
	equal(t, "text: limit", q.PowerLimitW, *c.PowerLimitW)
	equal(t, "text: default limit", q.PowerDefaultW, *c.PowerDefaultW)
	equal(t, "text: max limit", q.PowerLimitMaxW, *c.PowerLimitMaxW)
	equal(t, "text: max memory clock", q.ClockMemMaxMHz, *c.ClockMemMaxMHz)
	equal(t, "text: gen", q.PCIeGenMax, *c.PCIeGenMax)
	equal(t, "csv: max memory clock", c.ClockMemMaxMHz, 7751)
	if c.ComputeCap != "7.5" {
		t.Errorf("compute capability = %q", c.ComputeCap)
	}
	for i, p := range q.Processes {
		if p.UsedBytes != nil {
			t.Errorf("process %d: %d bytes under WDDM, want not known", i, *p.UsedBytes)
		}
		if strings.ContainsAny(p.Name, `\/`) {
			t.Errorf("process name with its folder: %q", p.Name)
		}
	}
	if len(q.Processes) == 0 {
		t.Error("no processes")
	}
}

func TestNVIDIATable(t *testing.T) {
	g := parseOne(t, "table-525.txt")
	want := GPU{
		Vendor: NVIDIA, Driver: "525.125.06", CUDA: "12.0", PCIBus: "0000:01:00.0", ComputeMode: "Exclusive_Process",
		TemperatureC: new(38.0), PState: "P5", PowerDrawW: new(49.0), PowerLimitW: new(450.0),
		MemoryUsedBytes: new(int64(2021 * mib)), MemoryTotalBytes: new(int64(23028 * mib)), UtilGPUPercent: new(0.0),
		DisplayActive: new(false), Faults: map[string]string{"fan.speed": "ERR!"},
	}
	if d := cmp.Diff(want, g); d != "" {
		t.Error(d)
	}
	g = parseOne(t, "table-610-windows.txt")
	if g.Name != "" || g.DriverModel != "wddm" || g.Driver != "610.62" || g.CUDA != "13.3" {
		t.Errorf("%q %q %q %q", g.Name, g.DriverModel, g.Driver, g.CUDA)
	}
	equal(t, "display", g.DisplayActive, true)
	if len(g.Processes) != 19 || g.Processes[0].Name != "dwm.exe" || g.Processes[0].Kind != "C+G" || g.Processes[0].UsedBytes != nil {
		t.Errorf("%d processes, first %+v", len(g.Processes), g.Processes[0])
	}
}

func TestNVIDIACSV(t *testing.T) {
	tests := []struct {
		name    string
		in      string
		columns []string
		want    []GPU
	}{
		{
			name: "units and words for none",
			in: "name, power.draw [W], power.limit [W], clocks_throttle_reasons.active, temperature.memory, fan.speed [%], utilization.gpu [%]\n" +
				"NVIDIA GeForce RTX 4060 Laptop GPU, 2.31 W, [N/A], 0x0000000000000005, N/A, [Unknown Error], 7 %\n",
			want: []GPU{{
				Vendor: NVIDIA, Name: "NVIDIA GeForce RTX 4060 Laptop GPU", PowerDrawW: new(2.31), UtilGPUPercent: new(7.0),
				ThrottleReasons: []Reason{GPUIdle, SWPowerCap}, Faults: map[string]string{"fan.speed": "Unknown Error"},
			}},
		},
		{
			name: "no units, deprecated, error", columns: []string{"index", "power.draw", "display_mode", "memory.used", "pstate"},
			in:   "1, ERR!, [Requested functionality has been deprecated], 123, P0\n",
			want: []GPU{{Index: 1, Vendor: NVIDIA, MemoryUsedBytes: new(int64(123 * mib)), PState: "P0", Faults: map[string]string{"power.draw": "ERR!"}}},
		},
		{
			name: "a reason's bit that has no name yet", columns: []string{"clocks_event_reasons.active"},
			in:   "0x0000000000000208",
			want: []GPU{{Vendor: NVIDIA, ThrottleReasons: []Reason{"bit_0x200", HWSlowdown}}},
		},
		{
			name: "average stands in for the draw", columns: []string{"power.draw", "power.draw.average", "power.draw.instant"},
			in:   "[N/A], 20.5, [N/A]",
			want: []GPU{{Vendor: NVIDIA, PowerDrawW: new(20.5), PowerAverageW: new(20.5)}},
		},
		{
			name: "two GPUs known by UUID", columns: []string{"uuid", "pstate"},
			in:   "GPU-a, P0\nGPU-b, P2\nGPU-a, P8\n",
			want: []GPU{{Vendor: NVIDIA, UUID: "GPU-a", PState: "P0"}, {Index: 1, Vendor: NVIDIA, UUID: "GPU-b", PState: "P2"}, {Vendor: NVIDIA, UUID: "GPU-a", PState: "P8"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := ParseNVIDIACSV([]byte(tt.in), tt.columns)
			if err != nil {
				t.Fatal(err)
			}
			var got []GPU
			for _, r := range rows {
				got = append(got, r.GPU)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	for _, bad := range []string{"", "hello\n", "name, pstate\nA, P0, surplus\n"} {
		if rows, err := ParseNVIDIACSV([]byte(bad), nil); err == nil {
			t.Errorf("%q gave %v and no error", bad, rows)
		}
	}
}

func TestNVIDIAApps(t *testing.T) {
	apps, err := ParseNVIDIAApps(testdata(t, "nvidia", "apps-590-mig.csv"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Process{
		{PID: 21180, Name: "memhog", Kind: "C", UsedBytes: new(int64(2296 * mib))},
		{PID: 21181, Name: "memhog", Kind: "C", UsedBytes: new(int64(1272 * mib))},
		{PID: 21198, Name: "gpu_burn", Kind: "C", UsedBytes: new(int64(7484 * mib))},
	}
	if d := cmp.Diff(want, apps["GPU-00000000-0000-0000-0000-000000000000"]); d != "" {
		t.Error(d)
	}
	apps, err = ParseNVIDIAApps([]byte("pid, process_name, used_gpu_memory [MiB]\n7, C:\\a, b\\x.exe, [N/A]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Process{{PID: 7, Name: "x.exe", Kind: "C"}}, apps[""]); d != "" {
		t.Error(d)
	}
}

func TestNVIDIAHelp(t *testing.T) {
	known := ParseNVIDIAHelp(testdata(t, "nvidia", "help-610-excerpt.txt"))
	for _, n := range []string{"name", "gpu_name", "uuid", "pcie.link.gen.gpucurrent", "clocks_event_reasons.active", "clocks_throttle_reasons.active"} {
		if !known[n] {
			t.Errorf("%s is not known", n)
		}
	}
	got := choose([][]string{{"new", "old"}, {"neither"}, {"name"}}, map[string]bool{"old": true, "name": true})
	if d := cmp.Diff([]string{"old", "name"}, got); d != "" {
		t.Error(d)
	}
}

func TestNVIDIAProblem(t *testing.T) {
	tests := []struct {
		in     string
		code   Code
		remedy Remedy
	}{
		{"Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.161\n", DriverMismatch, Reboot},
		{"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure", DriverNotRunning, InstallDriver},
		{"Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error", DeviceUnreadable, ResetGPU},
		{"NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", LibraryMissing, InstallDriver},
		{"No devices were found", NoDevices, CheckHardware},
		{"Failed to initialize NVML: Insufficient Permissions", NotPermitted, AllowAccess},
	}
	for _, tt := range tests {
		_, d, err := ParseNVIDIA([]byte(tt.in))
		p, ok := errors.AsType[*Problem](err)
		if !ok || d != DialectError || p.Code != tt.code || p.Remedy != tt.remedy {
			t.Errorf("%q: %v %v", tt.in, d, err)
		}
	}
	if p := NVIDIAProblem([]byte("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.161\n")); !strings.Contains(p.Detail, "535.161") {
		t.Errorf("the library's version is missing: %s", p.Detail)
	}
	if p := NVIDIAProblem(testdata(t, "nvidia", "table-525.txt")); p != nil {
		t.Errorf("a healthy table is a problem: %v", p)
	}
}

// TestBrokenOff keeps the GPUs before a break.
func TestBrokenOff(t *testing.T) {
	whole := testdata(t, "nvidia", "h100-v13.xml")
	two := []byte(strings.Replace(string(whole), "</nvidia_smi_log>", "<gpu id=\"00000000:01:00.0\"><product_name>x", 1))
	gpus, err := ParseNVIDIAXML(two)
	if err == nil || len(gpus) != 1 {
		t.Errorf("%d GPUs, %v", len(gpus), err)
	}
	if _, err := ParseNVIDIAXML([]byte("<html/>")); err == nil {
		t.Error("any XML is taken for nvidia-smi's")
	}
}

func FuzzNVIDIA(f *testing.F) {
	entries, err := os.ReadDir(filepath.Join("testdata", "nvidia"))
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		f.Add(testdata(f, "nvidia", e.Name()))
	}
	f.Add([]byte("Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, parse := range []func([]byte) ([]GPU, error){ParseNVIDIAXML, ParseNVIDIAText, ParseNVIDIATable, ParseNVIDIAList} {
			gpus, _ := parse(data)
			checkGPUs(t, gpus)
		}
		gpus, _, _ := ParseNVIDIA(data)
		checkGPUs(t, gpus)
		_, _ = ParseNVIDIAApps(data)
		ParseNVIDIAHelp(data)
	})
}

// checkGPUs holds parsed GPUs to what any GPU is.
func checkGPUs(t *testing.T, gpus []GPU) {
	t.Helper()
	for _, g := range gpus {
		for what, v := range map[string]*int64{"total": g.MemoryTotalBytes, "used": g.MemoryUsedBytes, "free": g.MemoryFreeBytes, "shared": g.SharedUsedBytes} {
			if v != nil && *v < 0 {
				t.Errorf("%s memory of %d bytes", what, *v)
			}
		}
		for what, v := range map[string]*float64{"draw": g.PowerDrawW, "limit": g.PowerLimitW, "utilisation": g.UtilGPUPercent} {
			if v != nil && !(*v >= 0) {
				t.Errorf("%s of %v", what, *v)
			}
		}
		if g.Index < 0 {
			t.Errorf("index %d", g.Index)
		}
		for r, v := range g.ThrottleCountersUS {
			if v < 0 {
				t.Errorf("%s for %d µs", r, v)
			}
		}
		if _, err := json.Marshal(g); err != nil {
			t.Errorf("cannot be written as JSON: %v", err)
		}
	}
}
