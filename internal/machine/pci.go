package machine

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// pciVendors are the vendors of GPUs by their PCI number. Displays of virtual
// machines and of server boards are not GPUs and are not in it.
var pciVendors = map[string]string{
	"0x10de": NVIDIA,
	"0x1002": AMD,
	"0x8086": Intel,
}

// amdIntegrated are AMD's processors with graphics, by PCI device, from Linux'
// amdgpu and the PCI ID database. What is not in it is not known to be
// integrated.
var amdIntegrated = []string{
	"15d8", "15dd", // Raven, Picasso
	"1636", "164c", "1638", // Renoir, Lucienne, Cezanne
	"163f", "1435", // Van Gogh
	"1681", "164d", // Rembrandt
	"164e", "13c0", // Raphael, Granite Ridge
	"1506",                         // Mendocino
	"15bf", "15c8", "1900", "1901", // Phoenix, Hawk Point
	"150e", "1586", "1114", // Strix, Strix Halo, Krackan
}

// integratedPCI says whether a GPU is part of the processor, by its PCI
// numbers and, where it is known, its address; nil if they do not tell.
func integratedPCI(device, bus string) *bool {
	vendor, id, _ := strings.Cut(device, ":")
	switch vendor {
	case "10de":
		return new(false) // Jetson's GPU is not on PCI
	case "1002":
		if slices.Contains(amdIntegrated, id) {
			return new(true)
		}
	case "8086":
		if bus == "" {
			return nil
		}
		return new(strings.HasSuffix(bus, ":00:02.0")) // where Intel's own always sits
	}
	return nil
}

// pciGPU is a GPU and its folder in /sys.
type pciGPU struct {
	GPU
	dir tree
}

// pciGPUs describes the GPUs of a Linux host from /sys, without their
// drivers' help for NVIDIA's: that a card is there at all is worth knowing
// when its driver does not answer.
func pciGPUs(root tree) []pciGPU {
	var gpus []pciGPU
	seen := map[string]bool{}
	perVendor := map[string]int{}
	add := func(dev tree, card string) {
		vendor := pciVendors[dev.text("vendor")]
		if vendor == "" {
			return
		}
		g := GPU{Vendor: vendor}
		env := parseUevent([]byte(dev.text("uevent")))
		if id := strings.TrimPrefix(dev.text("device"), "0x"); id != "" {
			g.PCIDevice = strings.TrimPrefix(dev.text("vendor"), "0x") + ":" + id
		}
		if b, ok := cleanPCIBus(env["PCI_SLOT_NAME"]); ok {
			if seen[b] {
				return
			}
			seen[b], g.PCIBus = true, b
		}
		g.Index = perVendor[vendor]
		perVendor[vendor]++
		g.DriverModel = dev.link("driver")
		if g.DriverModel == "" {
			g.DriverModel = env["DRIVER"]
		}
		g.Integrated = integratedPCI(g.PCIDevice, g.PCIBus)
		switch vendor {
		case AMD:
			model := g.DriverModel
			amdCard(dev, &g)
			g.DriverModel = model
		case NVIDIA:
			g.Sources = []string{"sysfs"}
			g.PCIeGenMax, g.PCIeWidthMax = pcieGen(dev.text("max_link_speed")), sysInt(dev, "max_link_width")
			g.PCIeGen, g.PCIeWidth = pcieGen(dev.text("current_link_speed")), sysInt(dev, "current_link_width")
		case Intel:
			g.Sources = []string{"sysfs"}
			intelCard(root, card, dev, &g)
		}
		if vendor == AMD && g.Integrated == nil {
			g.Integrated = kfdIntegrated(root, g.PCIBus)
		}
		if g.Name == "" && vendor != NVIDIA { // NVIDIA's names are the driver's, exactly, or none
			g.Name = pciName(root, g.PCIDevice, dev.text("revision"))
		}
		gpus = append(gpus, pciGPU{g, dev})
	}
	for _, c := range root.names("sys", "class", "drm") {
		if num, ok := strings.CutPrefix(c, "card"); ok {
			if _, err := strconv.Atoi(num); err == nil { // not card0-HDMI-A-1
				add(root.within("sys", "class", "drm", c, "device"), c)
			}
		}
	}
	for _, b := range root.names("sys", "bus", "pci", "devices") {
		dev := root.within("sys", "bus", "pci", "devices", b)
		if c := dev.text("class"); strings.HasPrefix(c, "0x03") { // display controllers
			add(dev, "")
		}
	}
	return gpus
}

// intelCard reads the clocks of an Intel GPU: of the i915 driver or of xe.
func intelCard(root tree, card string, dev tree, g *GPU) {
	if card != "" {
		c := root.within("sys", "class", "drm", card)
		g.ClockSMMHz, g.ClockSMMaxMHz = sysInt(c, "gt_act_freq_mhz"), sysInt(c, "gt_max_freq_mhz")
	}
	xe := dev.within("tile0", "gt0", "freq0")
	g.ClockSMMHz = or(g.ClockSMMHz, sysInt(xe, "act_freq"))
	g.ClockSMMaxMHz = or(g.ClockSMMaxMHz, sysInt(xe, "max_freq"))
	g.PCIeGen, g.PCIeWidth = pcieGen(dev.text("current_link_speed")), sysInt(dev, "current_link_width")
	g.PCIeGenMax, g.PCIeWidthMax = pcieGen(dev.text("max_link_speed")), sysInt(dev, "max_link_width")
}

// kfdIntegrated asks AMD's compute driver: a node with both processor cores
// and shaders is a processor with graphics.
func kfdIntegrated(root tree, bus string) *bool {
	var domain, b, dev, fn uint64
	if _, err := fmt.Sscanf(bus, "%x:%x:%x.%x", &domain, &b, &dev, &fn); err != nil {
		return nil
	}
	nodes := root.within("sys", "class", "kfd", "kfd", "topology", "nodes")
	for _, n := range nodes.names() {
		props := map[string]uint64{}
		for line := range strings.SplitSeq(nodes.text(n, "properties"), "\n") {
			if k, v, ok := strings.Cut(line, " "); ok {
				if x, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64); err == nil {
					props[k] = x
				}
			}
		}
		// location_id is bus<<8 | device<<3 | function.
		if props["simd_count"] == 0 || props["location_id"] != b<<8|dev<<3|fn || props["domain"] != domain {
			continue
		}
		return new(props["cpu_cores_count"] > 0)
	}
	return nil
}

// pciName looks a device up in the lists of names that distributions carry:
// AMD's by revision, else the PCI database.
func pciName(root tree, device, revision string) string {
	vendor, id, ok := strings.Cut(device, ":")
	if !ok {
		return ""
	}
	if vendor == "1002" {
		if b, err := root.bytes("usr", "share", "libdrm", "amdgpu.ids"); err == nil {
			if n := ParseAMDIDs(b, id, strings.TrimPrefix(revision, "0x")); n != "" {
				return n
			}
		}
	}
	for _, p := range []string{"usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids"} {
		if n := root.pciIDs(p, vendor, id); n != "" {
			return n
		}
	}
	return ""
}

// ParseAMDIDs finds the name of a device and revision in libdrm's amdgpu.ids
// ("744C,	C8,	AMD Radeon RX 7900 XTX").
func ParseAMDIDs(data []byte, device, revision string) string {
	for line := range bytes.Lines(data) {
		p := strings.SplitN(string(line), ",", 3)
		if len(p) == 3 && strings.EqualFold(strings.TrimSpace(p[0]), device) && strings.EqualFold(strings.TrimSpace(p[1]), revision) {
			return strings.TrimSpace(p[2])
		}
	}
	return ""
}

// pciIDs looks in a file of the PCI database, which is larger than other
// files read here.
func (t tree) pciIDs(path, vendor, device string) string {
	f, err := t.open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	return ParsePCIIDs(f, vendor, device)
}

// ParsePCIIDs finds the name of a device in the PCI database: vendors at the
// beginning of a line, their devices after one tab.
func ParsePCIIDs(r io.Reader, vendor, device string) string {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	mine := false
	for sc.Scan() {
		line := sc.Text()
		switch {
		case line == "" || line[0] == '#' || strings.HasPrefix(line, "\t\t"):
		case line[0] != '\t':
			if mine {
				return ""
			}
			mine = strings.HasPrefix(strings.ToLower(line), vendor+" ")
		case mine && strings.HasPrefix(strings.ToLower(line[1:]), device+" "):
			return strings.TrimSpace(line[1+len(device):])
		}
	}
	return ""
}

// parseUevent reads KEY=value lines.
func parseUevent(data []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.SplitSeq(string(data), "\n") {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			out[k] = v
		}
	}
	return out
}
