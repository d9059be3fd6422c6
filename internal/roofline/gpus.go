package roofline

import (
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// GPU is a row of the curated table: what is known of a GPU from the name that
// its driver reports. A nil pointer is not known, never zero.
type GPU struct {
	Name   string `json:"name"`   // as the driver reports it
	Vendor string `json:"vendor"` // NVIDIA, AMD, Apple, Intel
	Arch   string `json:"arch"`   // architecture, the key of the efficiency model
	Kind   Kind   `json:"kind"`

	ComputeCapability string      `json:"compute_capability,omitempty"` // NVIDIA only
	Cores             *int        `json:"cores,omitempty"`              // CUDA cores, shaders, or Apple's GPU cores
	BusBits           *int        `json:"bus_bits,omitempty"`
	BandwidthGBs      *float64    `json:"bandwidth_gbs,omitempty"` // by specification
	MemoryGB          []float64   `json:"memory_gb,omitempty"`     // sizes that the row holds for, GiB as sold
	PowerW            [2]*float64 `json:"power_w,omitempty"`       // lowest and highest limit that the maker allows
	FP16TFLOPS        *float64    `json:"fp16_tflops,omitempty"`   // dense, tensor cores
	PCIeGen           *int        `json:"pcie_gen,omitempty"`
	PCIeLanes         *int        `json:"pcie_lanes,omitempty"`
	Source            string      `json:"source"`
}

// Kind is what sort of part a GPU is.
type Kind string

// The kinds.
const (
	Desktop     Kind = "desktop"
	Laptop      Kind = "laptop"
	Workstation Kind = "workstation"
	DataCentre  Kind = "datacentre"
	Unified     Kind = "unified"    // one soldered memory for CPU and GPU, of known bandwidth
	Integrated  Kind = "integrated" // uses whatever memory is fitted
)

// ErrUnknownGPU means that the table has no row for a name and memory size.
// Bandwidth is then unknown, unless NVML gives it (BandwidthFromNVML).
var ErrUnknownGPU = errors.New("not in the table of GPUs")

// AmbiguousGPUError means that several rows fit, with different bandwidths:
// the memory size, or on Apple chips the number of GPU cores, tells them apart.
type AmbiguousGPUError struct {
	Name string
	Rows []GPU
}

func (e *AmbiguousGPUError) Error() string {
	var which []string
	for _, g := range e.Rows {
		s := "unknown bandwidth"
		if g.BandwidthGBs != nil {
			s = fmt.Sprintf("%g GB/s", *g.BandwidthGBs)
		}
		which = append(which, fmt.Sprintf("%s with %v GiB", s, g.MemoryGB))
	}
	return fmt.Sprintf("GPU %q is one of %s: give its memory size", e.Name, strings.Join(which, ", "))
}

//go:embed gpus.csv
var gpusCSV string

// table is the embedded table; a test parses it, so an error is not expected.
var table = sync.OnceValues(func() ([]GPU, error) { return parseGPUs(strings.NewReader(gpusCSV)) })

// GPUs returns the table, in its own order.
func GPUs() []GPU {
	rows, _ := table()
	return slices.Clone(rows)
}

// Lookup finds a GPU by the exact name that its driver reports and its memory in
// bytes, 0 when that is not known; on Apple chips the machine's whole memory.
// Only case, spaces, trade marks and the vendor in front may differ: a name
// that is merely similar (a desktop card for a laptop's, a name cut short by
// nvidia-smi) is not found. Errors are ErrUnknownGPU and *AmbiguousGPUError.
//
// A size that no row of the name has is unknown too: a MIG slice has a share
// of its card's bandwidth, and cards with swapped memory exist.
func Lookup(driverName string, memTotalBytes int64) (GPU, error) {
	rows, err := table()
	if err != nil {
		return GPU{}, err
	}
	want := canonical(driverName)
	var named, fit []GPU
	for _, g := range rows {
		if canonical(g.Name) != want {
			continue
		}
		named = append(named, g)
		if g.holds(memTotalBytes) {
			fit = append(fit, g)
		}
	}
	switch {
	case len(named) == 0:
		return GPU{}, fmt.Errorf("GPU %q: %w", driverName, ErrUnknownGPU)
	case len(fit) == 0:
		return GPU{}, fmt.Errorf("GPU %q with %.1f GiB, a size that it is not sold with (a MIG slice, or changed memory): %w",
			driverName, float64(memTotalBytes)/(1<<30), ErrUnknownGPU)
	}
	for _, g := range fit[1:] {
		if !equal(g.BandwidthGBs, fit[0].BandwidthGBs) {
			return GPU{}, &AmbiguousGPUError{Name: driverName, Rows: fit}
		}
	}
	return fit[0], nil
}

// holds reports whether the driver may report this much memory for the row.
// Drivers report a little less than is sold, and 6 % less again where error
// correction takes its share (15360 MiB of a T4's 16384).
func (g GPU) holds(bytes int64) bool {
	if bytes <= 0 || len(g.MemoryGB) == 0 || g.Kind == Integrated {
		return true
	}
	return slices.ContainsFunc(g.MemoryGB, func(gb float64) bool {
		share := float64(bytes) / (gb * (1 << 30))
		return 0.90 < share && share < 1.02
	})
}

// Hardware is what the row says of a machine, to be completed with what was
// measured.
func (g GPU) Hardware() Hardware {
	h := Hardware{Arch: g.Arch, MaxPowerW: g.PowerW[1], BandwidthGBs: g.BandwidthGBs, FP16TFLOPS: g.FP16TFLOPS}
	if g.PCIeGen != nil && g.PCIeLanes != nil {
		h.PCIeGBs = PCIeGBs(*g.PCIeGen, *g.PCIeLanes)
	}
	return h
}

// BandwidthFromNVML is the memory bandwidth in GB/s from the highest memory
// clock in MHz and the bus width in bits, both as NVML reports them: two
// transfers per clock, 8 bits to a byte. It holds for GDDR5 to GDDR7 and HBM
// (checked against published figures in shared/reference/gpu.md section 8); nil
// when either is not a reading.
func BandwidthFromNVML(maxMemClockMHz, busBits int) *float64 {
	if maxMemClockMHz <= 0 || busBits <= 0 {
		return nil
	}
	return new(2 * float64(maxMemClockMHz) * float64(busBits) / 8 / 1000)
}

// PCIeGBs is what a link can carry in one direction, in GB/s: 8, 16, 32 and
// 64 GT/s a lane for generations 3 to 6, 5 and 2.5 before; 8b/10b coding in
// generations 1 and 2, 128b/130b after (PCI-SIG's base specifications; 242 of
// 256 bytes in generation 6). Nil for what is not a link.
func PCIeGBs(gen, lanes int) *float64 {
	perLane := map[int]float64{
		1: 2.5 * 8 / 10 / 8, 2: 5 * 8.0 / 10 / 8,
		3: 8 * 128.0 / 130 / 8, 4: 16 * 128.0 / 130 / 8, 5: 32 * 128.0 / 130 / 8, 6: 64 * 242.0 / 256 / 8,
	}
	if perLane[gen] == 0 || lanes <= 0 || lanes > 32 {
		return nil
	}
	return new(perLane[gen] * float64(lanes))
}

// canonical is a name without what drivers and operating systems vary.
func canonical(name string) string {
	name = strings.NewReplacer("(r)", "", "(tm)", "", "®", "", "™", "").Replace(strings.ToLower(name))
	fields := strings.Fields(name)
	if len(fields) > 1 && (fields[0] == "nvidia" || fields[0] == "amd" || fields[0] == "intel") {
		fields = fields[1:]
	}
	return strings.Join(fields, " ")
}

// columns of gpus.csv, which explains them.
const columns = "name,vendor,arch,kind,cc,cores,bus_bits,gb_s,mem_gb,power_min_w,power_max_w,fp16_tflops,pcie_gen,pcie_lanes,source"

func parseGPUs(r io.Reader) ([]GPU, error) {
	table, err := readTable(r, "table of GPUs", columns)
	if err != nil {
		return nil, err
	}
	rows := make([]GPU, 0, len(table))
	for _, f := range table {
		p := fields{row: f}
		g := GPU{
			Name: f[0], Vendor: f[1], Arch: f[2], Kind: Kind(f[3]), ComputeCapability: f[4],
			Cores: p.whole(5), BusBits: p.whole(6), BandwidthGBs: p.number(7),
			PowerW:     [2]*float64{p.number(9), p.number(10)},
			FP16TFLOPS: p.number(11), PCIeGen: p.whole(12), PCIeLanes: p.whole(13), Source: f[14],
		}
		if f[8] != "" {
			for s := range strings.SplitSeq(f[8], "|") {
				gb, err := strconv.ParseFloat(s, 64)
				if err != nil {
					p.err = err
				}
				g.MemoryGB = append(g.MemoryGB, gb)
			}
		}
		if p.err != nil {
			return nil, fmt.Errorf("table of GPUs, %q: %w", f[0], p.err)
		}
		rows = append(rows, g)
	}
	return rows, nil
}

// readTable reads the rows of an embedded CSV table below its header, which has
// to be the given one. Lines that begin with # explain the table.
func readTable(r io.Reader, what, columns string) ([][]string, error) {
	in := csv.NewReader(r)
	in.Comment = '#'
	rows, err := in.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(rows) == 0 || strings.Join(rows[0], ",") != columns {
		return nil, fmt.Errorf("%s: the first row does not name the columns %s", what, columns)
	}
	return rows[1:], nil
}

// fields reads numbers out of a record; an empty one is nil. The first error
// sticks.
type fields struct {
	row []string
	err error
}

func (p *fields) number(i int) *float64 {
	if p.row[i] == "" {
		return nil
	}
	x, err := strconv.ParseFloat(p.row[i], 64)
	switch {
	case err != nil:
		p.err = err
	case x <= 0 || math.IsInf(x, 0) || math.IsNaN(x):
		p.err = fmt.Errorf("field %d is %g", i, x)
	}
	return &x
}

func (p *fields) whole(i int) *int {
	x := p.number(i)
	if x == nil {
		return nil
	}
	return new(int(*x))
}

func equal(a, b *float64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
