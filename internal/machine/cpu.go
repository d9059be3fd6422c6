package machine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// vectorFeatures are the instruction sets that decide how fast a CPU runner
// is (ggml's x86 and ARM variants).
var vectorFeatures = []string{
	"avx", "f16c", "fma", "avx2", "bmi2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_tile",
	"asimd", "asimddp", "i8mm", "sve", "sve2", "sme",
}

// ParseCPUInfo reads /proc/cpuinfo of x86 and ARM. Hypervisor says whether
// the processor itself knows that it is virtual (x86 only).
func ParseCPUInfo(data []byte) (c CPU, hypervisor bool, err error) {
	threads := 0
	cores := map[string]bool{}   // package and core
	sockets := map[string]bool{} // packages
	perSocket := 0               // "cpu cores"
	pkg := ""
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		key, v, ok := strings.Cut(sc.Text(), ":")
		if !ok {
			continue
		}
		v = strings.TrimSpace(v)
		switch strings.TrimSpace(key) {
		case "processor":
			threads++
		case "model name":
			c.Model = strings.Join(strings.Fields(v), " ")
		case "Model", "Hardware": // boards with ARM
			if c.Model == "" {
				c.Model = v
			}
		case "vendor_id":
			c.Vendor = v
		case "physical id":
			pkg = v
			sockets[v] = true
		case "core id":
			cores[pkg+"/"+v] = true
		case "cpu cores":
			perSocket, _ = strconv.Atoi(v)
		case "flags", "Features":
			if c.Features != nil {
				continue
			}
			c.Features = []string{}
			flags := strings.Fields(v)
			for _, f := range vectorFeatures {
				if slices.Contains(flags, f) {
					c.Features = append(c.Features, f)
				}
			}
			hypervisor = slices.Contains(flags, "hypervisor")
		}
	}
	if err := sc.Err(); err != nil {
		return c, hypervisor, fmt.Errorf("cpuinfo: %w", err)
	}
	if threads == 0 {
		return c, hypervisor, errors.New("cpuinfo: no processor in it")
	}
	c.Threads = &threads
	if n := len(sockets); n > 0 {
		c.Sockets = &n
	}
	switch {
	case len(cores) > 0 && perSocket > 0 && len(sockets) > 0:
		c.Cores = new(min(threads, max(len(cores), perSocket*len(sockets))))
	case len(cores) > 0:
		c.Cores = new(len(cores))
	}
	return c, hypervisor, nil
}

// ParseLoadAvg reads /proc/loadavg.
func ParseLoadAvg(data []byte) (l1, l5, l15 *float64, err error) {
	f := strings.Fields(string(data))
	if len(f) < 3 {
		return nil, nil, nil, errors.New("loadavg: fewer than three numbers")
	}
	var out [3]*float64
	for i := range out {
		x, err := strconv.ParseFloat(f[i], 64)
		if err != nil || !(x >= 0 && x < 1e9) {
			return nil, nil, nil, fmt.Errorf("loadavg: number %d is none", i+1)
		}
		out[i] = &x
	}
	return out[0], out[1], out[2], nil
}

// linuxCPU reads the processor and how it is governed.
func linuxCPU(root tree) (CPU, bool, error) {
	b, err := root.bytes("proc", "cpuinfo")
	if err != nil {
		return CPU{}, false, err
	}
	c, virtual, err := ParseCPUInfo(b)
	if err != nil {
		return c, virtual, err
	}
	if b, err := root.bytes("proc", "loadavg"); err == nil {
		c.Load1, c.Load5, c.Load15, _ = ParseLoadAvg(b)
	}
	cpus := root.within("sys", "devices", "system", "cpu")
	for _, dir := range [][]string{{"cpu0", "cpufreq"}, {"cpufreq", "policy0"}} {
		f := cpus.within(dir...)
		if c.Governor == "" {
			c.Governor = f.text("scaling_governor")
		}
		if c.EnergyPreference == "" {
			c.EnergyPreference = f.text("energy_performance_preference")
		}
		if khz := sysInt(f, "cpuinfo_max_freq"); khz != nil && c.MaxMHz == nil {
			c.MaxMHz = new(*khz / 1000)
		}
	}
	if s := root.text("sys", "devices", "cpu_core", "cpus"); s != "" && root.exists("sys", "devices", "cpu_atom") {
		if n, ok := cpuList(s); ok { // Intel's fast cores, as logical processors
			c.PerformanceCores = new(n)
			if c.Cores != nil && c.Threads != nil && root.text("sys", "devices", "system", "cpu", "smt", "active") == "1" {
				c.PerformanceCores = new((n + 1) / 2)
			}
		}
	}
	c.QuotaCores = cgroupCores(root)
	return c, virtual, nil
}

// cpuList counts a list like "0-7,16".
func cpuList(s string) (int, bool) {
	n := 0
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(lo)
		if err != nil {
			return 0, false
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(hi); err != nil {
				return 0, false
			}
		}
		if b < a || b > 1<<16 {
			return 0, false
		}
		n += b - a + 1
	}
	return n, n > 0
}

// cgroupCores is the limit of a container: version 2, else 1.
func cgroupCores(root tree) *float64 {
	cg := root.within("sys", "fs", "cgroup")
	quota, period, ok := strings.Cut(cg.text("cpu.max"), " ")
	if !ok {
		quota, period = cg.text("cpu", "cpu.cfs_quota_us"), cg.text("cpu", "cpu.cfs_period_us")
	}
	q, err1 := strconv.ParseFloat(quota, 64)
	p, err2 := strconv.ParseFloat(period, 64)
	if err1 != nil || err2 != nil || !(q > 0 && p > 0) {
		return nil // "max", -1
	}
	return new(q / p)
}

// ParseMeminfo reads /proc/meminfo.
func ParseMeminfo(data []byte) (Memory, error) {
	var m Memory
	var swapFree *int64
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		key, v, ok := strings.Cut(sc.Text(), ":")
		if !ok {
			continue
		}
		num, unit, _ := strings.Cut(strings.TrimSpace(v), " ")
		x, err := strconv.ParseInt(num, 10, 64)
		if err != nil || unit != "kB" || x < 0 || x > 1<<50 {
			continue
		}
		x <<= 10
		switch key {
		case "MemTotal":
			m.TotalBytes = &x
		case "MemAvailable": // since Linux 3.14
			m.AvailableBytes = &x
		case "SwapTotal":
			m.SwapTotalBytes = &x
		case "SwapFree":
			swapFree = &x
		}
	}
	if err := sc.Err(); err != nil {
		return m, fmt.Errorf("meminfo: %w", err)
	}
	if m.TotalBytes == nil {
		return m, errors.New("meminfo: no MemTotal in it")
	}
	if m.SwapTotalBytes != nil && swapFree != nil && *swapFree <= *m.SwapTotalBytes {
		m.SwapUsedBytes = new(*m.SwapTotalBytes - *swapFree)
	}
	return m, nil
}

// linuxMemory reads the memory and a container's limit.
func linuxMemory(root tree) (Memory, error) {
	b, err := root.bytes("proc", "meminfo")
	if err != nil {
		return Memory{}, err
	}
	m, err := ParseMeminfo(b)
	if err != nil {
		return m, err
	}
	cg := root.within("sys", "fs", "cgroup")
	for _, p := range [][]string{{"memory.max"}, {"memory", "memory.limit_in_bytes"}} {
		x, ok := cg.int(p...)
		if ok && x > 0 && x < *m.TotalBytes { // more is no limit: version 1 says 2^63
			m.LimitBytes = &x
			break
		}
	}
	return m, nil
}

// darwinNames are the values of sysctl that are read on macOS.
var darwinNames = []string{
	"machdep.cpu.brand_string", "machdep.cpu.vendor", "hw.physicalcpu", "hw.logicalcpu", "hw.packages", "hw.perflevel0.physicalcpu",
	"hw.memsize", "vm.swapusage", "vm.loadavg", "kern.hv_vmm_present", "kern.osrelease", "iogpu.wired_limit_mb",
}

// darwinHost makes processor and memory of sysctl's values.
func darwinHost(v map[string]string) (CPU, Memory, Virtual) {
	num := func(name string) *int {
		x, ok := count(v[name])
		if !ok {
			return nil
		}
		return &x
	}
	c := CPU{
		Model: v["machdep.cpu.brand_string"], Vendor: v["machdep.cpu.vendor"],
		Cores: num("hw.physicalcpu"), Threads: num("hw.logicalcpu"), Sockets: num("hw.packages"),
		PerformanceCores: num("hw.perflevel0.physicalcpu"),
	}
	if f := strings.Fields(strings.Trim(v["vm.loadavg"], "{} ")); len(f) == 3 {
		c.Load1, c.Load5, c.Load15, _ = ParseLoadAvg([]byte(strings.ReplaceAll(strings.Join(f, " "), ",", ".")))
	}
	var m Memory
	if x, err := strconv.ParseInt(v["hw.memsize"], 10, 64); err == nil && x > 0 {
		m.TotalBytes = &x
	}
	if x, ok := count(v["iogpu.wired_limit_mb"]); ok && x > 0 { // 0: the system's own rule
		m.GPULimitBytes = new(int64(x) << 20)
	}
	// total = 2048.00M  used = 1012.25M  free = 1035.75M
	f := strings.Fields(strings.ReplaceAll(v["vm.swapusage"], "=", " "))
	for i := 0; i+1 < len(f); i++ {
		switch f[i] {
		case "total":
			m.SwapTotalBytes = binarySize(f[i+1])
		case "used":
			m.SwapUsedBytes = binarySize(f[i+1])
		}
	}
	var virtual Virtual
	if v["kern.hv_vmm_present"] == "1" {
		virtual.VM = "yes"
	}
	return c, m, virtual
}

// binarySize reads 1012.25M.
func binarySize(s string) *int64 {
	if s == "" {
		return nil
	}
	scale := map[byte]float64{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}[s[len(s)-1]]
	x, err := strconv.ParseFloat(s[:len(s)-1], 64)
	if err != nil || scale == 0 || !(x >= 0 && x*scale < 1<<60) {
		return nil
	}
	return new(int64(x * scale))
}

// ParseVMStat reads macOS' vm_stat: the memory that can be had without
// swapping.
func ParseVMStat(data []byte) *int64 {
	page := int64(0)
	pages := int64(0)
	seen := false
	for line := range strings.SplitSeq(string(data), "\n") {
		if _, after, ok := strings.Cut(line, "page size of "); ok {
			num, _, _ := strings.Cut(after, " ")
			page, _ = strconv.ParseInt(num, 10, 32)
			continue
		}
		key, v, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		switch key {
		case "Pages free", "Pages inactive", "Pages speculative", "Pages purgeable":
			if x, err := strconv.ParseInt(strings.Trim(v, " ."), 10, 64); err == nil && x >= 0 && x < 1<<40 {
				pages += x
				seen = true
			}
		}
	}
	if !seen || page <= 0 || pages > 1<<44 {
		return nil
	}
	return new(pages * page)
}

// linuxVirtual looks for WSL, virtual machines and containers.
func linuxVirtual(root tree, hypervisor bool) Virtual {
	var v Virtual
	release := root.text("proc", "sys", "kernel", "osrelease")
	switch low := strings.ToLower(release); {
	case strings.Contains(low, "wsl2") || strings.Contains(low, "microsoft-standard"):
		v.WSL = "2"
	case strings.Contains(low, "microsoft"):
		v.WSL = "1"
	}
	dmi := root.within("sys", "class", "dmi", "id")
	v.VM = vmName(dmi.text("sys_vendor"), dmi.text("product_name"))
	if v.VM == "" {
		if t := root.text("sys", "hypervisor", "type"); t != "" {
			v.VM = t
		}
	}
	if v.VM == "" && hypervisor {
		v.VM = "yes"
	}
	if v.WSL == "2" {
		v.VM = "hyper-v"
	}
	v.Container = root.text("run", "systemd", "container")
	switch {
	case v.Container != "":
	case root.exists(".dockerenv"):
		v.Container = "docker"
	case root.exists("run", ".containerenv"):
		v.Container = "podman"
	case root.exists("var", "run", "secrets", "kubernetes.io"):
		v.Container = "kubernetes"
	default:
		cg := root.text("proc", "1", "cgroup")
		for _, n := range []string{"docker", "kubepods", "lxc", "containerd", "libpod"} {
			if strings.Contains(cg, n) {
				v.Container = n
			}
		}
	}
	if v.Container == "wsl" { // systemd in WSL says so
		v.Container = ""
	}
	return v
}

// vmName names a virtual machine by what its firmware says of the maker.
func vmName(vendor, product string) string {
	s := strings.ToLower(vendor + " " + product)
	for _, n := range []struct{ says, name string }{
		{"vmware", "vmware"},
		{"virtualbox", "virtualbox"},
		{"innotek", "virtualbox"},
		{"qemu", "kvm"},
		{"kvm", "kvm"},
		{"xen", "xen"},
		{"parallels", "parallels"},
		{"google compute engine", "google"},
		{"amazon ec2", "amazon"},
		{"bochs", "bochs"},
		{"openstack", "kvm"},
		{"firecracker", "firecracker"},
	} {
		if strings.Contains(s, n.says) {
			// EC2's metal machines say Amazon EC2 too, and are no VMs.
			if n.name == "amazon" && strings.Contains(s, "metal") {
				return ""
			}
			return n.name
		}
	}
	if strings.Contains(s, "microsoft") && strings.Contains(s, "virtual machine") {
		return "hyper-v"
	}
	return ""
}
