package machine

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestROCmSMI(t *testing.T) {
	got, err := ParseROCmSMI(testdata(t, "amd", "rx6700xt_rocm612.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := []GPU{{
		Vendor: AMD, Name: "Navi 22 [Radeon RX 6700/6700 XT / 6800M]", PCIBus: "0000:07:00.0", PCIDevice: "1002:73df",
		Driver: "6.3.6", Architecture: "gfx1031", Sources: []string{"rocm-smi"},
		MemoryTotalBytes: new(int64(12868124672)), MemoryUsedBytes: new(int64(1572745216)), MemoryFreeBytes: new(int64(12868124672 - 1572745216)),
		SharedTotalBytes: new(int64(16792432640)), SharedUsedBytes: new(int64(242036736)),
		ClockSMMHz: new(0), ClockMemMHz: new(96), PowerDrawW: new(6.0), PowerLimitW: new(211.0), TemperatureC: new(45.0), TemperatureMemC: new(46.0),
		UtilGPUPercent: new(0.0), UtilMemPercent: new(0.0), PState: "auto", PCIeGen: new(4), PCIeWidth: new(16),
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	old, err := ParseROCmSMI(testdata(t, "amd", "rx6700xt_rocm430.json"))
	if err != nil {
		t.Fatal(err)
	}
	if old[0].Name != "" { // its series is a number
		t.Errorf("name = %q", old[0].Name)
	}
	two, err := ParseROCmSMI(testdata(t, "amd", "rocm_smi.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(two) != 2 || two[0].Index != 1 || two[1].Index != 2 || two[0].PCIBus != "0000:03:00.0" {
		t.Errorf("%d cards: %+v", len(two), two)
	}
	equal(t, "shader clock without brackets", two[0].ClockSMMHz, 808)
	equal(t, "memory temperature under its short name", two[0].TemperatureMemC, 32)
	equal(t, "memory under its lower-case name", two[0].MemoryTotalBytes, 17163091968)
}

// The shapes are those of amd-smi 6.0 (a list) and 6.4/7.0 (gpu_data, ppt0)
// as its changelog and users' reports show them.
const (
	amdStatic = "Permission needed for some readings\n" + `{"gpu_data": [{"gpu": 0,
		"asic": {"market_name": "AMD Radeon AI PRO R9700", "device_id": "0x7551", "target_graphics_version": "gfx1201", "asic_serial": "0xABC1"},
		"bus": {"bdf": "0000:03:00.0", "max_pcie_width": 16, "max_pcie_speed": {"value": 32, "unit": "GT/s"}},
		"driver": {"name": "amdgpu", "version": "6.12.12"},
		"vram": {"type": "GDDR6", "size": {"value": 32704, "unit": "MB"}, "bit_width": {"value": 256, "unit": "bit"}},
		"limit": {"ppt0": {"max_power_limit": {"value": 300, "unit": "W"}, "min_power_limit": {"value": 210, "unit": "W"}, "socket_power_limit": {"value": 250, "unit": "W"}},
			"ppt1": {"max_power_limit": "N/A"}, "slowdown_edge_temperature": {"value": 100, "unit": "C"}}}]}`
	amdMetric = `[{"gpu": 0, "usage": {"gfx_activity": {"value": 98, "unit": "%"}, "umc_activity": {"value": 65535, "unit": "%"}, "mm_activity": "N/A"},
		"power": {"socket_power": {"value": 249, "unit": "W"}, "throttle_status": "THROTTLED"},
		"clock": {"gfx_0": {"clk": {"value": 2200, "unit": "MHz"}, "max_clk": {"value": 2920, "unit": "MHz"}}, "mem_0": {"clk": {"value": 1258, "unit": "MHz"}, "max_clk": {"value": 1258, "unit": "MHz"}}},
		"temperature": {"edge": {"value": 61, "unit": "C"}, "hotspot": {"value": 80, "unit": "C"}, "mem": {"value": 84, "unit": "C"}},
		"pcie": {"width": 16, "speed": {"value": 32, "unit": "GT/s"}},
		"mem_usage": {"total_vram": {"value": 32704, "unit": "MB"}, "used_vram": {"value": 24000, "unit": "MB"}, "free_vram": {"value": 8704, "unit": "MB"}},
		"throttle": {"ppt_violation_status": "ACTIVE", "prochot_violation_status": "NOT ACTIVE", "hbm_thermal_violation_status": "N/A", "ppt_accumulated": 18446744073709551615}}]`
	amdProcess = `[{"gpu": 0, "process_list": [{"process_info": {"name": "/usr/bin/llama-server", "pid": 42, "memory_usage": {"gtt_mem": {"value": 0, "unit": "B"}, "vram_mem": {"value": 1024, "unit": "MB"}}}}]}]`
)

func TestAMDSMI(t *testing.T) {
	var lists [][]GPU
	for _, in := range []string{amdStatic, amdMetric, amdProcess} {
		l, err := ParseAMDSMI([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, l)
	}
	want := []GPU{{
		Vendor: AMD, Name: "AMD Radeon AI PRO R9700", UUID: "abc1", PCIBus: "0000:03:00.0", PCIDevice: "1002:7551", Architecture: "gfx1201", Driver: "6.12.12",
		BusWidthBits: new(256), MemoryTotalBytes: new(int64(32704 * mib)), MemoryUsedBytes: new(int64(24000 * mib)), MemoryFreeBytes: new(int64(8704 * mib)),
		ClockSMMHz: new(2200), ClockSMMaxMHz: new(2920), ClockMemMHz: new(1258), ClockMemMaxMHz: new(1258),
		PowerDrawW: new(249.0), PowerLimitW: new(250.0), PowerLimitMinW: new(210.0), PowerLimitMaxW: new(300.0),
		TemperatureC: new(61.0), TemperatureMemC: new(84.0), SlowdownC: new(100.0), UtilGPUPercent: new(98.0),
		ThrottleReasons: []Reason{AMDPower, AMDThrottled}, PCIeGen: new(5), PCIeGenMax: new(5), PCIeWidth: new(16), PCIeWidthMax: new(16),
		Processes: []Process{{PID: 42, Name: "llama-server", Kind: "C", UsedBytes: new(int64(1024 * mib)), SharedBytes: new(int64(0))}},
		Sources:   []string{"amd-smi"},
	}}
	if d := cmp.Diff(want, mergeIndex(lists)); d != "" {
		t.Error(d)
	}
	if g, err := ParseAMDSMI([]byte(`{"gpu_data": "N/A"}`)); err == nil {
		t.Errorf("no list gave %v and no error", g)
	}
	na, err := ParseAMDSMI([]byte(`[{"gpu": 2, "asic": "N/A", "usage": "N/A", "vram": {"size": "N/A"}, "throttle": {"ppt_violation_status": "N/A"}}]`))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]GPU{{Index: 2, Vendor: AMD, Sources: []string{"amd-smi"}}}, na); d != "" {
		t.Error(d)
	}
}

// TestAMDSysfs reads the captured card (procfs fixtures: a Vega 56 or 64).
func TestAMDSysfs(t *testing.T) {
	gpus := pciGPUs(trees(t).within("procfs", "fixtures"))
	if len(gpus) != 1 {
		t.Fatalf("%d GPUs, want 1", len(gpus))
	}
	want := GPU{
		Vendor: AMD, UUID: "0123456789abcdef", PCIBus: "0000:09:00.0", PCIDevice: "1002:687f", DriverModel: "amdgpu",
		MemoryTotalBytes: new(int64(8573157376)), Sources: []string{"sysfs"},
		ClockSMMHz: new(852), ClockSMMaxMHz: new(1630), ClockMemMHz: new(167), ClockMemMaxMHz: new(945), UtilGPUPercent: new(4.0), PState: "manual",
		PCIeGen: new(3), PCIeGenMax: new(3), PCIeWidth: new(16), PCIeWidthMax: new(16),
	}
	got := gpus[0].GPU
	for _, p := range []*int64{got.MemoryUsedBytes, got.MemoryFreeBytes, got.SharedTotalBytes, got.SharedUsedBytes} {
		if p == nil || *p <= 0 || *p > *got.MemoryTotalBytes {
			t.Error("a size is missing or too large")
		}
	}
	got.MemoryUsedBytes, got.MemoryFreeBytes, got.SharedTotalBytes, got.SharedUsedBytes = nil, nil, nil, nil
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestAMDSensors plants a card with sensors, of which the captures have none.
func TestAMDSensors(t *testing.T) {
	const dev = "sys/class/drm/card1/device/"
	root := plant(t, map[string]string{
		dev + "vendor": "0x1002\n", dev + "device": "0x744c\n", dev + "revision": "0xc8\n",
		dev + "uevent":              "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n",
		dev + "mem_info_vram_total": "25753026560\n", dev + "mem_info_vram_used": "18446744073709551615\n",
		dev + "hwmon/hwmon4/power1_average": "303000000\n", dev + "hwmon/hwmon4/power1_cap": "303000000\n", dev + "hwmon/hwmon4/power1_cap_max": "348000000\n",
		dev + "hwmon/hwmon4/temp1_label": "edge\n", dev + "hwmon/hwmon4/temp1_input": "71000\n", dev + "hwmon/hwmon4/temp1_crit": "100000\n", dev + "hwmon/hwmon4/temp1_emergency": "105000\n",
		dev + "hwmon/hwmon4/temp2_label": "junction\n", dev + "hwmon/hwmon4/temp2_input": "95000\n",
		dev + "hwmon/hwmon4/temp3_label": "mem\n", dev + "hwmon/hwmon4/temp3_input": "88000\n",
		dev + "hwmon/hwmon4/freq1_input":                "2304000000\n",
		"sys/class/drm/card1-DP-1/status":               "connected\n",
		"usr/share/libdrm/amdgpu.ids":                   "1.0.0\n744C,\tCC,\tAMD Radeon RX 7900 XT\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n",
		"sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 16\nsimd_count 0\n",
		"sys/class/kfd/kfd/topology/nodes/1/properties": "cpu_cores_count 0\nsimd_count 192\nlocation_id 768\ndomain 0\n",
	})
	metrics := make([]byte, 120)
	binary.LittleEndian.PutUint16(metrics, 120)
	metrics[2], metrics[3] = 1, 3
	binary.LittleEndian.PutUint64(metrics[112:], 1<<0|1<<36|1<<60)
	if err := os.WriteFile(root.path(dev, "gpu_metrics"), metrics, 0o644); err != nil {
		t.Fatal(err)
	}
	gpus := pciGPUs(root)
	if len(gpus) != 1 {
		t.Fatalf("%d GPUs, want 1", len(gpus))
	}
	g := gpus[0].GPU
	if g.Name != "AMD Radeon RX 7900 XTX" {
		t.Errorf("name = %q", g.Name)
	}
	equal(t, "integrated", g.Integrated, false)
	equal(t, "draw", g.PowerDrawW, 303)
	equal(t, "limit", g.PowerLimitW, 303)
	equal(t, "highest limit", g.PowerLimitMaxW, 348)
	equal(t, "temperature", g.TemperatureC, 71)
	equal(t, "memory temperature", g.TemperatureMemC, 88)
	equal(t, "slowdown", g.SlowdownC, 100)
	equal(t, "shutdown", g.ShutdownC, 105)
	equal(t, "clock", g.ClockSMMHz, 2304)
	unknown(t, "memory in use", g.MemoryUsedBytes) // the largest number means unknown
	if d := cmp.Diff([]Reason{AMDOther, AMDPower, AMDThermal}, g.ThrottleReasons); d != "" {
		t.Error(d)
	}
}

func TestIntegrated(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		device, bus string
		want        *bool
	}{
		{"8086:46a6", "0000:00:02.0", &yes}, // Alder Lake
		{"8086:e20b", "0000:03:00.0", &no},  // Arc B580
		{"8086:46a6", "", nil},
		{"1002:1586", "0000:c4:00.0", &yes}, // Strix Halo
		{"1002:744c", "0000:03:00.0", nil},
		{"10de:28e0", "0000:01:00.0", &no},
	} {
		if d := cmp.Diff(tt.want, integratedPCI(tt.device, tt.bus)); d != "" {
			t.Errorf("%s at %s: %s", tt.device, tt.bus, d)
		}
	}
}

func FuzzAMD(f *testing.F) {
	entries, err := os.ReadDir(filepath.Join("testdata", "amd"))
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		f.Add(testdata(f, "amd", e.Name()))
	}
	for _, s := range []string{amdStatic, amdMetric, amdProcess, "0: 852Mhz *\n1: 991Mhz", "8.0 GT/s PCIe"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		gpus, _ := ParseROCmSMI(data)
		checkGPUs(t, gpus)
		gpus, _ = ParseAMDSMI(data)
		checkGPUs(t, gpus)
		now, highest := ParseDPM(data)
		if now != nil && (highest == nil || *now > *highest) {
			t.Error("the level in use is above the highest")
		}
		ParseAMDMetrics(data)
		pcieGen(string(data))
		ParseAMDIDs(data, "744c", "c8")
	})
}

// TestJSONRoundTrip: what is written into an observation is what is read from
// it, with none and not known told apart.
func TestJSONRoundTrip(t *testing.T) {
	s := Snapshot{GPUs: []GPU{{Vendor: NVIDIA, ThrottleReasons: []Reason{}, Processes: []Process{}}, {Vendor: AMD}}, Readings: []Reading{{Name: "cpu", Status: OK}}}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Snapshot
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, back); d != "" {
		t.Error(d)
	}
}
