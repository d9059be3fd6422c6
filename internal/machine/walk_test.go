package machine

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/recognised-gpu.md anew")

// recognised is one line of the table: a file, or a part of one.
type recognised struct {
	file, part, form string
	gpus             []GPU
	rows             int // of a series
	note             string
}

// section is a part of a file that is the output of one command.
var (
	captureHead = regexp.MustCompile(`(?m)^# \$ (.+)$`)
	fenced      = regexp.MustCompile("(?s)```sh\n(.*?)```")
)

// TestRecognised reads every capture that we were given. Each part is either
// read, every value in it that has a field being a value, or named as not
// needed. The table of what was recognised is docs/recognised-gpu.md.
func TestRecognised(t *testing.T) {
	base := shared(t, "data", "gpu")
	var files []string
	err := filepath.WalkDir(base, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var table []recognised
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(base, f)
		if err != nil {
			t.Fatal(err)
		}
		table = append(table, recogniseFile(t, filepath.ToSlash(rel), data)...)
	}
	table = append(table, recogniseTrees(t)...)
	for _, r := range table {
		for _, g := range r.gpus {
			for field, v := range g.Faults {
				if classify(v) != isFault && v != "REDACTED" { // by whoever published it
					t.Errorf("%s %s: GPU %d: %s has a value that is not understood: %q", r.file, r.part, g.Index, field, v)
				}
			}
		}
	}
	got := tableText(table)
	doc := filepath.Join("..", "..", "docs", "recognised-gpu.md")
	if *update {
		if err := os.WriteFile(doc, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/recognised-gpu.md is out of date: go test ./internal/machine -run TestRecognised -update")
	}
}

func recogniseFile(t *testing.T, rel string, data []byte) []recognised {
	t.Helper()
	switch {
	case strings.HasPrefix(rel, "nvidia_gpu_exporter/") && captureHead.Match(data):
		return recogniseCapture(t, rel, data)
	case strings.HasSuffix(rel, ".md"):
		var out []recognised
		for i, m := range fenced.FindAllSubmatch(data, -1) {
			body := m[1]
			cmd := ""
			if line, rest, ok := bytes.Cut(body, []byte("\n")); ok && bytes.Contains(line, []byte("$ ")) {
				_, c, _ := bytes.Cut(line, []byte("$ "))
				cmd, body = string(c), rest
			}
			if strings.Contains(cmd, "| tail") {
				out = append(out, recognised{file: rel, part: cmd, note: "an excerpt of a few lines"})
				continue
			}
			out = append(out, recogniseOne(t, rel, fmt.Sprintf("%d: %s", i+1, cmd), body))
		}
		return out
	case strings.HasSuffix(rel, ".json"):
		gpus, err := ParseROCmSMI(data)
		if err != nil {
			t.Errorf("%s: %v", rel, err)
		}
		return []recognised{{file: rel, form: "rocm-smi JSON", gpus: gpus}}
	case strings.Contains(rel, "nvlink.status"):
		return []recognised{{file: rel, note: "nvidia-smi nvlink: not needed for one GPU"}}
	case rel == "nvidia_gpu_exporter/fields.txt":
		known := ParseNVIDIAHelp(data)
		for _, want := range slices.Concat(choose(liveColumns, nil), choose(staticColumns, nil)) {
			// That list is of about driver 530: it has the older names.
			if !known[want] && len(choose([][]string{{want, strings.Replace(want, "clocks_event_reasons", "clocks_throttle_reasons", 1)}}, known)) == 0 && !newer[want] {
				t.Errorf("%s: %s is asked for and unknown to it", rel, want)
			}
		}
		return []recognised{{file: rel, form: "properties", note: fmt.Sprintf("%d names", len(known))}}
	}
	return []recognised{recogniseOne(t, rel, "", data)}
}

// newer are properties that fields.txt does not have yet.
var newer = map[string]bool{
	"compute_cap": true, "display_attached": true, "power.draw.instant": true, "pcie.link.gen.gpucurrent": true, "pcie.link.gen.gpumax": true,
	"clocks_event_reasons_counters.sw_power_cap": true, "clocks_event_reasons_counters.sw_thermal_slowdown": true,
	"clocks_event_reasons_counters.hw_thermal_slowdown": true, "clocks_event_reasons_counters.hw_power_brake_slowdown": true,
	"clocks_event_reasons_counters.sync_boost": true,
}

// recogniseCapture takes a capture of nvidia_gpu_exporter apart.
func recogniseCapture(t *testing.T, rel string, data []byte) []recognised {
	t.Helper()
	var out []recognised
	rule := strings.Repeat("#", 80) + "\n"
	parts := strings.Split(string(data), rule)
	var other []string
	states := map[string]GPU{}
	for i := 1; i+1 < len(parts); i++ {
		m := captureHead.FindStringSubmatch(parts[i])
		if m == nil {
			continue
		}
		title, _, _ := strings.Cut(strings.TrimPrefix(parts[i], "# "), "\n")
		title, _, _ = strings.Cut(title, " (")
		body := []byte(strings.Trim(parts[i+1], "\n"))
		args, isSMI := strings.CutPrefix(m[1], "nvidia-smi ")
		switch args = strings.TrimSpace(args); {
		case isSMI && args == "--help-query-gpu":
			known := ParseNVIDIAHelp(body)
			for _, want := range slices.Concat(choose(liveColumns, known), choose(staticColumns, known)) {
				if csvField(want) == nil && want != "timestamp" {
					t.Errorf("%s: %s is asked for and not read", rel, want)
				}
			}
			if got := len(choose(liveColumns, known)); got != len(liveColumns) {
				t.Errorf("%s: %d of %d live properties known", rel, got, len(liveColumns))
			}
			out = append(out, recognised{file: rel, part: title, form: "properties", note: fmt.Sprintf("%d names", len(known))})
		case isSMI && (args == "" || args == "-q" || args == "-L" || strings.HasPrefix(args, "--query-gpu=") || strings.HasPrefix(args, "--query-compute-apps=")):
			r := recogniseOne(t, rel, title, body)
			out = append(out, r)
			if args == "-L" || len(r.gpus) != 1 || strings.HasPrefix(args, "--query-compute") {
				continue
			}
			state, _, _ := strings.Cut(title, " ::")
			if before, ok := states[state]; ok {
				agree(t, rel+" "+title, before, r.gpus[0])
			}
			states[state] = r.gpus[0]
		default:
			_, what, _ := strings.Cut(title, ":: ")
			if !slices.Contains(other, what) {
				other = append(other, what)
			}
		}
	}
	return append(out, recognised{file: rel, part: strings.Join(other, ", "), note: "not needed"})
}

// agree holds two forms of the same state against each other: what does not
// change has to be the same wherever both have it.
func agree(t *testing.T, where string, a, b GPU) {
	t.Helper()
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	for _, name := range []string{
		"Vendor", "Index", "PCIBus", "PCIDevice", "Driver", "CUDA", "ComputeCap", "DriverModel", "MemoryTotalBytes", "PowerLimitW", "PowerDefaultW",
		"PowerLimitMinW", "PowerLimitMaxW", "ClockSMMaxMHz", "ClockMemMaxMHz", "PCIeGenMax", "PCIeWidthMax", "MIG", "DisplayActive", "DisplayAttached",
	} {
		x, y := va.FieldByName(name), vb.FieldByName(name)
		if x.IsZero() || y.IsZero() {
			continue
		}
		if !reflect.DeepEqual(x.Interface(), y.Interface()) {
			t.Errorf("%s: %s differs from the form before: %v and %v", where, name, reflect.Indirect(x), reflect.Indirect(y))
		}
	}
}

// recogniseOne reads one output of nvidia-smi.
func recogniseOne(t *testing.T, rel, part string, data []byte) recognised {
	t.Helper()
	r := recognised{file: rel, part: part}
	if len(bytes.TrimSpace(data)) == 0 {
		r.note = "empty"
		return r
	}
	d := DetectNVIDIA(data)
	r.form = "nvidia-smi " + string(d)
	switch d {
	case DialectApps:
		apps, err := ParseNVIDIAApps(data)
		if err != nil {
			t.Errorf("%s %s: %v", rel, part, err)
		}
		n := 0
		for _, l := range apps {
			n += len(l)
		}
		r.note = fmt.Sprintf("%d processes", n)
	case DialectCSV:
		rows, err := ParseNVIDIACSV(data, nil)
		if err != nil {
			t.Errorf("%s %s: %v", rel, part, err)
		}
		lines := bytes.Count(bytes.TrimSpace(data), []byte("\n"))
		if len(rows) != lines {
			t.Errorf("%s %s: %d rows of %d lines", rel, part, len(rows), lines)
		}
		r.rows = len(rows)
		for _, row := range rows {
			for field, v := range row.GPU.Faults {
				if classify(v) != isFault {
					t.Errorf("%s %s: %s = %q", rel, part, field, v)
				}
			}
		}
		r.gpus, _, _ = ParseNVIDIA(data)
	case "":
		t.Errorf("%s %s: its form is not known", rel, part)
	default:
		gpus, _, err := ParseNVIDIA(data)
		if p, ok := errors.AsType[*Problem](err); ok {
			r.note = fmt.Sprintf("%s → %s", p.Code, p.Remedy)
		} else if err != nil {
			t.Errorf("%s %s: %v", rel, part, err)
		}
		r.gpus = gpus
		if n := expected(d, data); n != len(gpus) {
			t.Errorf("%s %s: %d GPUs, there are %d in it", rel, part, len(gpus), n)
		}
		for _, g := range gpus {
			lossless(t, rel+" "+part, d, data, g)
		}
	}
	return r
}

// expected counts the GPUs in an output by its marks.
func expected(d Dialect, data []byte) int {
	switch d {
	case DialectXML:
		return bytes.Count(data, []byte("<gpu id="))
	case DialectText:
		return len(regexp.MustCompile(`(?m)^GPU [0-9A-Fa-f]+:`).FindAll(data, -1))
	case DialectTable:
		return len(regexp.MustCompile(`(?m)^\|.*[0-9A-Fa-f]{8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d`).FindAll(data, -1))
	case DialectList:
		return len(regexp.MustCompile(`(?m)^GPU \d+:`).FindAll(data, -1))
	}
	return 0
}

// lossless asserts that what any healthy output holds has arrived.
func lossless(t *testing.T, where string, d Dialect, data []byte, g GPU) {
	t.Helper()
	if d == DialectList {
		if g.Name == "" || g.UUID == "" {
			t.Errorf("%s: GPU %d has no name or UUID", where, g.Index)
		}
		return
	}
	if g.PCIBus == "" {
		t.Errorf("%s: GPU %d has no address", where, g.Index)
	}
	for mark, have := range map[string]bool{
		"fb_memory_usage>":              d != DialectXML || g.MemoryTotalBytes != nil,
		"FB Memory Usage":               d != DialectText || g.MemoryTotalBytes != nil && g.MemoryUsedBytes != nil && g.MemoryFreeBytes != nil,
		"Clocks Event Reasons\n":        d != DialectText || g.ThrottleReasons != nil,
		"Clocks Throttle Reasons":       d != DialectText || g.ThrottleReasons != nil,
		"Clocks Event Reasons Counters": d != DialectText || len(g.ThrottleCountersUS) == 5,
		"_reason_gpu_idle>":             d != DialectXML || g.ThrottleReasons != nil,
		"_reasons_counters_sw_power":    d != DialectXML || len(g.ThrottleCountersUS) == 5,
		"max_link_width>":               d != DialectXML || g.PCIeWidthMax != nil,
		"Memory-Usage":                  d != DialectTable || g.MemoryTotalBytes != nil && g.MemoryUsedBytes != nil && g.PowerDrawW != nil,
	} {
		if bytes.Contains(data, []byte(mark)) && !have {
			t.Errorf("%s: GPU %d: %q is in it and was not read", where, g.Index, strings.TrimSpace(mark))
		}
	}
}

// recogniseTrees reads the captured /sys and /proc trees.
func recogniseTrees(t *testing.T) []recognised {
	t.Helper()
	root := trees(t)
	var out []recognised
	for _, n := range root.names("i3status") {
		b, err := root.bytes("i3status", n)
		if err != nil {
			t.Fatal(err)
		}
		s := ParseSupply(b)
		p := powerOf([]Supply{s})
		note := fmt.Sprintf("source %s", p.Source)
		if s.Device {
			note = "a device's battery: does not feed the machine"
		}
		if s.Percent == nil && s.Status == "" {
			t.Errorf("%s: nothing was read", n)
		}
		if s.Percent != nil {
			note += fmt.Sprintf(", %.0f %%", *s.Percent)
		}
		if s.Status != "" {
			note += ", " + s.Status
		}
		out = append(out, recognised{file: "power: i3status/" + n, form: "uevent", note: note})
	}
	for _, sub := range [][]string{{"procfs", "fixtures"}, {"node_exporter"}} {
		r := root.within(sub...)
		p, err := linuxPower(r)
		if err != nil || p.Source != Battery || p.BatteryPercent == nil {
			t.Errorf("%v: %+v, %v", sub, p, err)
			continue
		}
		out = append(out, recognised{file: "power: " + strings.Join(sub, "/"), part: "power_supply", form: "sysfs", note: fmt.Sprintf("source %s, %.0f %%, %s, %.1f W", p.Source, *p.BatteryPercent, p.BatteryStatus, *p.BatteryDrawW)})
		if c, _, err := linuxCPU(r); err == nil {
			out = append(out, recognised{file: "power: " + strings.Join(sub, "/"), part: "cpu", form: "procfs", note: fmt.Sprintf("%s, %d cores, %d threads", c.Model, *c.Cores, *c.Threads)})
		}
		if m, err := linuxMemory(r); err == nil {
			out = append(out, recognised{file: "power: " + strings.Join(sub, "/"), part: "memory", form: "procfs", note: fmt.Sprintf("%d MiB, swap %d MiB", *m.TotalBytes/mib, *m.SwapTotalBytes/mib)})
		}
		for _, g := range pciGPUs(r) {
			out = append(out, recognised{file: "power: " + strings.Join(sub, "/"), part: "drm", form: "sysfs", gpus: []GPU{g.GPU}})
		}
		if g := r.text("sys", "devices", "system", "cpu", "cpu0", "cpufreq", "scaling_governor"); g != "" {
			out = append(out, recognised{file: "power: " + strings.Join(sub, "/"), part: "cpufreq", form: "sysfs", note: "governor " + g})
		}
	}
	return out
}

// tableText writes the table.
func tableText(rows []recognised) []byte {
	var b bytes.Buffer
	b.WriteString(`# What is recognised

Every capture under ` + "`../shared/data/gpu` and `../shared/data/power`" + `, as ` + "`internal/machine`" + ` reads it. Written and held true by
` + "`go test ./internal/machine -run TestRecognised`" + ` (` + "`-update`" + ` writes it anew). Columns: GPUs in it; facts known of the first GPU of
the ` + fmt.Sprint(reflect.TypeFor[GPU]().NumField()-4) + ` that a GPU can have; throttle reasons active (– not known); counters; processes (– not known); what the driver answered with an
error. "Not needed" parts are output of commands that Millrace does not ask.

| file | part | form | GPUs | name | facts | reasons | counters | processes | errors | note |
|---|---|---|---|---|---|---|---|---|---|---|
`)
	for _, r := range rows {
		name, facts, reasons, counters, procs, faults := "", "", "", "", "", ""
		n := ""
		if len(r.gpus) > 0 {
			g := r.gpus[0]
			n = fmt.Sprint(len(r.gpus))
			name = g.Name
			if name == "" {
				name = "– " + g.PCIDevice
			}
			facts = fmt.Sprint(known(g))
			reasons = "–"
			if g.ThrottleReasons != nil {
				reasons = "none"
				if len(g.ThrottleReasons) > 0 {
					s := make([]string, len(g.ThrottleReasons))
					for i, x := range g.ThrottleReasons {
						s[i] = string(x)
					}
					reasons = strings.Join(s, ", ")
				}
			}
			counters = fmt.Sprint(len(g.ThrottleCountersUS))
			procs = "–"
			if g.Processes != nil {
				procs = fmt.Sprint(len(g.Processes))
			}
			for _, k := range slices.Sorted(maps.Keys(g.Faults)) {
				faults += k + ": " + g.Faults[k] + " "
			}
			if len(g.MIGDevices) > 0 {
				r.note = strings.TrimSpace(r.note + fmt.Sprintf(" %d MIG devices", len(g.MIGDevices)))
			}
		}
		if r.rows > 1 {
			r.note = strings.TrimSpace(r.note + fmt.Sprintf(" %d rows", r.rows))
		}
		cells := []string{r.file, r.part, r.form, n, name, facts, reasons, counters, procs, strings.TrimSpace(faults), r.note}
		for i, c := range cells {
			cells[i] = strings.ReplaceAll(c, "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	fmt.Fprintf(&b, "\n%d parts of captures, %d with GPUs, %d GPUs.\n", len(rows), countIf(rows, func(r recognised) bool { return len(r.gpus) > 0 }), func() int {
		n := 0
		for _, r := range rows {
			n += len(r.gpus)
		}
		return n
	}())
	return b.Bytes()
}

func countIf[T any](list []T, f func(T) bool) int {
	n := 0
	for _, x := range list {
		if f(x) {
			n++
		}
	}
	return n
}

// known counts the facts of a GPU.
func known(g GPU) int {
	n := 0
	v := reflect.ValueOf(g)
	for i := range v.NumField() {
		switch v.Type().Field(i).Name {
		case "Index", "Vendor", "Faults", "Sources":
		default:
			if !v.Field(i).IsZero() {
				n++
			}
		}
	}
	return n
}
