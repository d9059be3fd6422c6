package roofline

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTableOfGPUs(t *testing.T) {
	t.Parallel()
	rows, err := table()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 120 {
		t.Errorf("only %d rows", len(rows))
	}
	seen := map[string]bool{}
	for _, g := range rows {
		key := fmt.Sprint(canonical(g.Name), g.MemoryGB)
		if seen[key] {
			t.Errorf("%s %v: two rows", g.Name, g.MemoryGB)
		}
		seen[key] = true
		if g.Source == "" || g.Vendor == "" || g.Arch == "" {
			t.Errorf("%s: no source, vendor or architecture", g.Name)
		}
		if !slices.Contains([]Kind{Desktop, Laptop, Workstation, DataCentre, Unified, Integrated}, g.Kind) {
			t.Errorf("%s: kind %q", g.Name, g.Kind)
		}
		if (g.BandwidthGBs == nil) != (g.Kind == Integrated) {
			t.Errorf("%s, %s: bandwidth %v", g.Name, g.Kind, g.BandwidthGBs)
		}
		if laptop := strings.Contains(g.Name, "Laptop") || strings.Contains(g.Name, "Max-Q Design") || g.Name == "NVIDIA GeForce RTX 2050"; laptop != (g.Kind == Laptop) {
			t.Errorf("%s: kind %s", g.Name, g.Kind)
		}
		if g.BandwidthGBs != nil && g.BusBits != nil {
			// What each pin carries, between DDR4-class and HBM or GDDR7: 1.4 to 32 Gbit/s.
			if pin := *g.BandwidthGBs * 8 / float64(*g.BusBits); pin < 1.4 || pin > 32 {
				t.Errorf("%s: %.2f Gbit/s for each pin", g.Name, pin)
			}
		}
		if g.PowerW[0] != nil && (g.PowerW[1] == nil || *g.PowerW[0] > *g.PowerW[1]) {
			t.Errorf("%s: power %v", g.Name, g.PowerW)
		}
		if g.Kind == Laptop && g.PowerW[0] == nil {
			t.Errorf("%s: a laptop's GPU without its range of power", g.Name)
		}
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tc := range []struct {
		name      string
		mem       int64
		bandwidth float64 // 0: an error
		err       error
	}{
		// A laptop's card and the desktop's of the same number are two cards.
		{"NVIDIA GeForce RTX 4060 Laptop GPU", 8188 * mib, 256, nil},
		{"NVIDIA GeForce RTX 4060", 8188 * mib, 272, nil},
		{"NVIDIA GeForce RTX 4090 Laptop GPU", 16376 * mib, 576, nil},
		{"NVIDIA GeForce RTX 4090", 24564 * mib, 1008.4, nil},
		// Older drivers leave the vendor out; NVML's and nvidia-smi's memory, with
		// error correction on and off.
		{"GeForce RTX 2080", 7982 * mib, 448, nil},
		{"Tesla T4", 15360 * mib, 320, nil},
		{"NVIDIA A10G", 23028 * mib, 600.2, nil},
		{"NVIDIA L4", 23034 * mib, 300.1, nil},
		{"NVIDIA RTX A6000", 49140 * mib, 768, nil},
		{"NVIDIA RTX A6000", 46068 * mib, 768, nil},
		{"NVIDIA H100 80GB HBM3", 81559 * mib, 3352.3, nil},
		{"NVIDIA A100-SXM4-40GB", 40960 * mib, 1555.2, nil},
		{"NVIDIA H200", 143771 * mib, 4800, nil},
		{"  nvidia geforce rtx 4070  Ti ", 0, 504.2, nil},
		{"AMD Radeon RX 7900 XTX", 24560 * mib, 960, nil},
		{"Radeon RX 7900 XTX", 0, 960, nil},
		{"Intel(R) Arc(TM) A770 Graphics", 16288 * mib, 512, nil},
		{"Apple M2 Pro", 32 << 30, 200, nil},
		// One name, two cards: the memory tells.
		{"NVIDIA GeForce RTX 3080", 10240 * mib, 760.3, nil},
		{"NVIDIA GeForce RTX 3080", 12288 * mib, 912.4, nil},
		{"NVIDIA GeForce RTX 3060", 12288 * mib, 360, nil},
		{"Apple M3 Max", 36 << 30, 300, nil},
		{"Apple M3 Max", 64 << 30, 400, nil},
		{"NVIDIA GeForce RTX 3080", 0, 0, &AmbiguousGPUError{}},
		// Rows that agree need no memory.
		{"NVIDIA GeForce RTX 4060 Ti", 0, 288, nil},
		{"NVIDIA GeForce RTX 2060", 0, 336, nil},
		// Unknown, not similar.
		{"NVIDIA GeForce RTX 2080 ...", 0, 0, ErrUnknownGPU},
		{"NVIDIA GeForce RTX 4060 Laptop", 0, 0, ErrUnknownGPU},
		{"NVIDIA GeForce RTX 9090", 0, 0, ErrUnknownGPU},
		{"", 0, 0, ErrUnknownGPU},
		{"NVIDIA", 0, 0, ErrUnknownGPU},
		{"NVIDIA A100-SXM4-80GB", 19968 * mib, 0, ErrUnknownGPU}, // a MIG slice
		{"NVIDIA GeForce RTX 2080 Ti", 22528 * mib, 0, ErrUnknownGPU},
	} {
		g, err := Lookup(tc.name, tc.mem)
		var ambiguous *AmbiguousGPUError
		switch {
		case tc.err == nil && err != nil, tc.err == nil && *g.BandwidthGBs != tc.bandwidth:
			t.Errorf("%q with %d MiB: %+v, %v", tc.name, tc.mem/mib, g, err)
		case errors.Is(tc.err, ErrUnknownGPU) && !errors.Is(err, ErrUnknownGPU):
			t.Errorf("%q with %d MiB: %+v, %v, want unknown", tc.name, tc.mem/mib, g, err)
		case errors.As(tc.err, &ambiguous) && !errors.As(err, &ambiguous):
			t.Errorf("%q with %d MiB: %+v, %v, want ambiguous", tc.name, tc.mem/mib, g, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q", tc.name)) {
			t.Errorf("error does not say which GPU: %v", err)
		}
	}
	g, err := Lookup("AMD Radeon 780M Graphics", 512*mib)
	if err != nil || g.Kind != Integrated || g.BandwidthGBs != nil {
		t.Errorf("an integrated GPU: %+v, %v", g, err)
	}
	var ambiguous *AmbiguousGPUError
	if _, err := Lookup("Apple M4 Max", 0); !errors.As(err, &ambiguous) || len(ambiguous.Rows) != 2 || *ambiguous.Rows[0].Cores == *ambiguous.Rows[1].Cores {
		t.Errorf("cores do not tell the two M4 Max apart: %v", err)
	}
}

func TestBandwidthFromNVML(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct { // gpu.md section 8
		mhz, bits int
		want      float64
	}{{7751, 256, 496}, {11501, 256, 736}, {9001, 384, 864}, {7001, 160, 280}, {2619, 5120, 3352}} {
		got := BandwidthFromNVML(tc.mhz, tc.bits)
		if got == nil || math.Abs(*got-tc.want) > 0.5 {
			t.Errorf("%d MHz and %d bits: %v, want %g", tc.mhz, tc.bits, got, tc.want)
		}
	}
	for _, bad := range [][2]int{{0, 256}, {7751, 0}, {-1, 256}} {
		if got := BandwidthFromNVML(bad[0], bad[1]); got != nil {
			t.Errorf("%v gives %g", bad, *got)
		}
	}
	for _, tc := range []struct {
		gen, lanes int
		want       float64
	}{{1, 16, 4}, {3, 16, 15.75}, {4, 8, 15.75}, {4, 16, 31.5}, {5, 16, 63}} {
		if got := PCIeGBs(tc.gen, tc.lanes); got == nil || math.Abs(*got-tc.want) > 0.02 {
			t.Errorf("PCIe %d x%d: %v, want %g", tc.gen, tc.lanes, got, tc.want)
		}
	}
	if PCIeGBs(0, 16) != nil || PCIeGBs(4, 0) != nil || PCIeGBs(99, 1) != nil {
		t.Error("a rate for no link")
	}
}

// TestAgainstDatabase holds the table against RightNowAI's database, which is
// not part of the repository. A difference must be admitted in the row's source.
func TestAgainstDatabase(t *testing.T) {
	t.Parallel()
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "data", "gpu-specs", "gpu-specs-slim.csv"))
	if err != nil {
		t.Skip("reference data is not here: ", err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range records[0] {
		column[name] = i
	}
	db := map[string][]string{}
	for _, r := range records[1:] {
		db[strings.ToLower(r[1])] = r
	}
	compared := 0
	for _, g := range GPUs() {
		r := inDatabase(db, g)
		if r == nil || r[column["bandwidth_gb_s"]] == "" {
			if !strings.Contains(g.Source, "not in db") && !strings.Contains(g.Source, "Apple") {
				t.Errorf("%s %v: not in the database, and its source is %q", g.Name, g.MemoryGB, g.Source)
			}
			continue
		}
		compared++
		number := func(name string) float64 { x, _ := strconv.ParseFloat(r[column[name]], 64); return x }
		var differ []string
		compare := func(what string, ours, theirs, tolerance float64) {
			if ours > 0 && theirs > 0 && math.Abs(ours/theirs-1) > tolerance {
				differ = append(differ, fmt.Sprintf("%s %g, database %g", what, ours, theirs))
			}
		}
		value := func(p *int) float64 {
			if p == nil {
				return 0
			}
			return float64(*p)
		}
		compare("GB/s", *g.BandwidthGBs, number("bandwidth_gb_s"), 0.02)
		compare("bus", value(g.BusBits), number("bus_bits"), 0)
		if !slices.ContainsFunc(g.MemoryGB, func(gb float64) bool { return math.Abs(gb-number("memory_gb")) < 0.5 }) {
			differ = append(differ, fmt.Sprintf("memory %v, database %g", g.MemoryGB, number("memory_gb")))
		}
		if g.PowerW[1] != nil && g.Kind != Laptop { // the database has a laptop's default, not its highest
			compare("W", *g.PowerW[1], number("tdp_w"), 0.06)
		}
		if g.Vendor == "NVIDIA" {
			compare("cores", value(g.Cores), math.Round(number("fp32_tflops")*1e6/number("boost_mhz")/2/64)*64, 0.01)
			if cc := r[column["cuda_cc"]]; cc != g.ComputeCapability {
				differ = append(differ, fmt.Sprintf("compute capability %s, database %s", g.ComputeCapability, cc))
			}
		}
		if g.PCIeGen != nil {
			if link := fmt.Sprintf("PCIe %d.0 x%d", *g.PCIeGen, *g.PCIeLanes); link != r[column["bus_interface"]] && strings.HasPrefix(r[column["bus_interface"]], "PCIe") {
				differ = append(differ, fmt.Sprintf("%s, database %s", link, r[column["bus_interface"]]))
			}
		}
		if len(differ) > 0 {
			t.Logf("%s %v: %s", g.Name, g.MemoryGB, strings.Join(differ, "; "))
			if !strings.Contains(g.Source, "db disagrees") && !strings.Contains(g.Source, "db says") {
				t.Errorf("%s: its source does not mention the difference: %q", g.Name, g.Source)
			}
		}
	}
	t.Logf("%d of %d rows compared", compared, len(GPUs()))
	if compared < 120 {
		t.Errorf("only %d rows found in the database", compared)
	}
}

// inDatabase finds a row under the database's own names.
func inDatabase(db map[string][]string, g GPU) []string {
	name := strings.ToLower(g.Name)
	for _, p := range []string{"nvidia ", "amd ", "intel "} {
		name = strings.TrimPrefix(name, p)
	}
	if special, ok := map[string]string{
		"geforce rtx 2050": "geforce rtx 2050 mobile", "tesla v100-pcie-16gb": "tesla v100 pcie 16 gb", "tesla v100-sxm2-16gb": "tesla v100 sxm2 16 gb",
		"tesla v100-pcie-32gb": "tesla v100 pcie 32 gb", "tesla v100-sxm2-32gb": "tesla v100 sxm2 32 gb", "tesla p100-pcie-16gb": "tesla p100 pcie 16 gb",
		"a100-pcie-40gb": "a100 pcie 40 gb", "a100-sxm4-40gb": "a100 sxm4 40 gb", "a100 80gb pcie": "a100 pcie 80 gb", "a100-sxm4-80gb": "a100 sxm4 80 gb",
		"a10": "a10 pcie", "a16": "a16 pcie", "a30": "a30 pcie", "a40": "a40 pcie", "h100 pcie": "h100 pcie 80 gb", "h100 80gb hbm3": "h100 sxm5 80 gb",
		"h100 nvl": "h100 nvl 94 gb", "h200": "h200 sxm 141 gb", "geforce rtx 3050 6gb laptop gpu": "geforce rtx 3050 mobile refresh 6 gb",
		"rtx 2000 ada generation laptop gpu": "rtx 2000 mobile ada generation", "rtx a2000 12gb": "rtx a2000 12 gb",
		"rtx pro 6000 blackwell workstation edition": "rtx pro 6000 blackwell", "rtx pro 6000 blackwell max-q workstation edition": "rtx pro 6000 blackwell max-q",
		"rtx pro 6000 blackwell server edition": "rtx pro 6000 blackwell server", "geforce gtx 1060 6gb": "geforce gtx 1060 6 gb",
		"instinct mi210": "radeon instinct mi210", "instinct mi300x": "radeon instinct mi300x",
	}[name]; ok {
		return db[special]
	}
	name = strings.NewReplacer(" laptop gpu", " mobile", " with max-q design", " max-q", " graphics", "").Replace(name)
	for _, gb := range slices.Backward(g.MemoryGB) {
		if r := db[fmt.Sprintf("%s %g gb", name, gb)]; r != nil {
			return r
		}
	}
	return db[name]
}

func TestPublishedSpeeds(t *testing.T) {
	t.Parallel()
	rows, err := published()
	if err != nil {
		t.Fatal(err)
	}
	fit := map[string]int{}
	for _, p := range rows {
		if p.Source == "" || p.Set == "" || p.State == "" || p.TokensPerS <= 0 {
			t.Errorf("incomplete: %+v", p)
		}
		if p.Set != "fit" {
			continue
		}
		mem := int64(0)
		if p.GPUGB != nil {
			mem = int64(*p.GPUGB * (1 << 30))
		}
		g, err := Lookup(p.GPU, mem)
		if err != nil {
			t.Error(err)
			continue
		}
		fit[efficiencyOf(g.Hardware()).arch]++
	}
	for _, e := range efficiencies {
		if fit[e.arch] != e.rows {
			t.Errorf("%s says it rests on %d rows, the table has %d", e.arch, e.rows, fit[e.arch])
		}
	}

	got := PublishedSpeeds("NVIDIA GeForce RTX 4060 Laptop GPU", ModelClass{ParamsB: 8.03, Quantisation: "q4_k_m"})
	var speeds []float64
	for _, p := range got {
		speeds = append(speeds, p.TokensPerS)
	}
	// Nearest in size first: Llama 3.1 8B, Qwen3 8B, Qwen2.5 7B. Not the 14B that spilled.
	if diff := cmp.Diff([]float64{47.2, 40, 48.7}, speeds); diff != "" {
		t.Error("(-want +got)\n", diff)
	}
	if got := PublishedSpeeds("NVIDIA GeForce RTX 4060", ModelClass{}); got != nil {
		t.Errorf("speeds of the desktop card, which nobody published: %+v", got)
	}
	if all := PublishedSpeeds("", ModelClass{}); len(all) < 150 || len(all) >= len(rows) {
		t.Errorf("%d healthy rows of %d", len(all), len(rows))
	}
}

func FuzzTables(f *testing.F) {
	f.Add(gpusCSV[:2000])
	f.Add(publishedCSV[:2000])
	f.Add(columns + "\na,b,c,desktop,,,,1,8|16,,,,,,s\n")
	f.Add(publishedColumns + "\na,8,m,8,Q,,1,,,,,,,,1|2,fit,ok,s\n")
	f.Fuzz(func(t *testing.T, s string) {
		rows, err := parseGPUs(strings.NewReader(s))
		for _, g := range rows {
			if err == nil && g.BandwidthGBs != nil && !(*g.BandwidthGBs > 0) {
				t.Fatalf("bandwidth %g", *g.BandwidthGBs)
			}
			_ = g.Hardware()
		}
		speeds, err := parsePublished(strings.NewReader(s))
		for _, p := range speeds {
			if err == nil && !(p.TokensPerS > 0) {
				t.Fatalf("speed %g", p.TokensPerS)
			}
		}
	})
}

func FuzzLookup(f *testing.F) {
	f.Add("NVIDIA GeForce RTX 4060 Laptop GPU", int64(8<<30))
	f.Add("Apple M4 Max", int64(0))
	f.Fuzz(func(t *testing.T, name string, mem int64) {
		if g, err := Lookup(name, mem); err == nil && canonical(g.Name) != canonical(name) {
			t.Fatalf("%q found as %q", name, g.Name)
		}
	})
}
