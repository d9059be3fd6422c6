package machine

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// field writes one value, as a tool of NVIDIA prints it, into a GPU. It
// reports whether the value was one.
type field func(g *GPU, v string) bool

// kind says what a printed value is.
type kind int

const (
	isValue  kind = iota
	isAbsent      // the driver has none: N/A, Not Supported, deprecated
	isFault       // the driver tried and could not: ERR!, Unknown Error
)

// classify sorts the words that stand in for values from the values.
// nvidia-smi writes them with and without brackets.
func classify(v string) kind {
	w := strings.ToLower(strings.Trim(strings.TrimSpace(v), "[]"))
	switch w {
	case "", "n/a", "not supported", "not found", "function not found", "unknown", "insufficient permissions",
		"requested functionality has been deprecated", "not available in wddm driver model":
		return isAbsent
	case "err!", "unknown error", "gpu is lost", "gpu requires reset", "gpu access blocked by the operating system":
		return isFault
	}
	return isValue
}

// put writes a printed value through f, and notes under name what is neither
// a value nor the word for none.
func put(g *GPU, name string, f field, v string) {
	switch classify(v) {
	case isAbsent:
	case isFault:
		fault(g, name, v)
	case isValue:
		if !f(g, strings.TrimSpace(v)) {
			fault(g, name, v)
		}
	}
}

func fault(g *GPU, name, v string) {
	if g.Faults == nil {
		g.Faults = map[string]string{}
	}
	g.Faults[name] = strings.Trim(strings.TrimSpace(v), "[]")
}

// to makes a field of a place in the GPU and a parser.
func to[T any](at func(*GPU) **T, parse func(string) (T, bool)) field {
	return func(g *GPU, v string) bool {
		x, ok := parse(v)
		if ok {
			*at(g) = &x
		}
		return ok
	}
}

// weak is a field that yields to a better source of the same fact, whichever
// comes first.
func weak[T any](at func(*GPU) **T, f field) field {
	return func(g *GPU, v string) bool {
		if p := *at(g); p != nil {
			ok := f(g, v)
			*at(g) = p
			return ok
		}
		return f(g, v)
	}
}

// text is a field that is written as it stands.
func text(at func(*GPU) *string) field {
	return func(g *GPU, v string) bool { *at(g) = v; return true }
}

// number reads a printed number with or without one of the units.
func number(v string, units ...string) (float64, bool) {
	num, unit, _ := strings.Cut(strings.TrimSpace(v), " ")
	if unit != "" && !slices.Contains(units, unit) {
		return 0, false
	}
	for _, u := range units { // 16x, 45Mhz
		if len(num) > len(u) && strings.HasSuffix(num, u) {
			num = strings.TrimSuffix(num, u)
			break
		}
	}
	x, err := strconv.ParseFloat(num, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, false
	}
	return x, true
}

// whole reads a number that has to be whole and not negative.
func whole(v string, units ...string) (int, bool) {
	x, ok := number(v, units...)
	if !ok || x < 0 || x > math.MaxInt32 || x != math.Trunc(x) {
		return 0, false
	}
	return int(x), true
}

func megahertz(v string) (int, bool) { return whole(v, "MHz", "Mhz") }
func lanes(v string) (int, bool)     { return whole(v, "x") }
func count(v string) (int, bool)     { return whole(v) }
func celsius(v string) (float64, bool) {
	x, ok := number(v, "C")
	return x, ok && x > -300 && x < 1000
}

func watts(v string) (float64, bool) {
	x, ok := number(v, "W")
	return x, ok && x >= 0
}

func percent(v string) (float64, bool) {
	x, ok := number(v, "%")
	return x, ok && x >= 0 && x <= 100
}

func microseconds(v string) (int64, bool) {
	num, unit, _ := strings.Cut(v, " ")
	if unit != "" && unit != "us" {
		return 0, false
	}
	x, err := strconv.ParseInt(num, 10, 64)
	return x, err == nil && x >= 0
}

// mebibytes reads a size that is in MiB unless it says otherwise, in bytes.
func mebibytes(v string) (int64, bool) {
	scale := float64(1 << 20)
	switch {
	case strings.HasSuffix(v, "KiB"):
		scale = 1 << 10
	case strings.HasSuffix(v, "GiB"):
		scale = 1 << 30
	}
	x, ok := number(v, "MiB", "KiB", "GiB", "MB")
	if !ok || x < 0 || x*scale > 1<<60 {
		return 0, false
	}
	return int64(x * scale), true
}

func yesNo(v string) (bool, bool) {
	switch strings.ToLower(v) {
	case "yes", "enabled", "on", "true", "active":
		return true, true
	case "no", "disabled", "off", "false", "not active":
		return false, true
	}
	return false, false
}

// driverModel reads the driver model of Windows.
func driverModel(g *GPU, v string) bool {
	g.DriverModel = strings.ToLower(v)
	return true
}

// pciDevice reads the device and vendor in one number, 233010DE or
// 0x233010DE, as vendor:device.
func pciDevice(g *GPU, v string) bool {
	v = strings.ToLower(strings.TrimPrefix(strings.ToLower(v), "0x"))
	if _, err := strconv.ParseUint(v, 16, 32); err != nil || len(v) != 8 {
		return false
	}
	g.PCIDevice = v[4:] + ":" + v[:4]
	return true
}

// pciBus reads a PCI address with a domain of 4 or 8 digits as one of 4.
func pciBus(g *GPU, v string) bool {
	b, ok := cleanPCIBus(v)
	if ok {
		g.PCIBus = b
	}
	return ok
}

func cleanPCIBus(v string) (string, bool) {
	v = strings.ToLower(strings.TrimSpace(v))
	domain, rest, ok := strings.Cut(v, ":")
	if !ok || strings.Count(rest, ":") != 1 || !strings.Contains(rest, ".") {
		return "", false
	}
	d, err := strconv.ParseUint(domain, 16, 32)
	if err != nil {
		return "", false
	}
	s := strconv.FormatUint(d, 16)
	return strings.Repeat("0", max(0, 4-len(s))) + s + ":" + rest, true
}

// reason is the field of one throttle reason.
func reason(r Reason) field {
	return func(g *GPU, v string) bool {
		on, ok := yesNo(v)
		if !ok {
			return false
		}
		if g.ThrottleReasons == nil {
			g.ThrottleReasons = []Reason{}
		}
		if on {
			g.ThrottleReasons = append(g.ThrottleReasons, r)
		}
		return true
	}
}

// counter is the field of one reason's time, in microseconds.
func counter(r Reason) field {
	return func(g *GPU, v string) bool {
		x, ok := microseconds(v)
		if !ok {
			return false
		}
		if g.ThrottleCountersUS == nil {
			g.ThrottleCountersUS = map[Reason]int64{}
		}
		g.ThrottleCountersUS[r] = x
		return true
	}
}

// reasonBits are the bits of the active reasons (go-nvml gen/nvml/nvml.h,
// nvmlClocksEventReason*).
var reasonBits = []struct {
	bit    uint64
	reason Reason
}{
	{0x1, GPUIdle},
	{0x2, AppClocks},
	{0x4, SWPowerCap},
	{0x8, HWSlowdown},
	{0x10, SyncBoost},
	{0x20, SWThermalSlowdown},
	{0x40, HWThermalSlowdown},
	{0x80, HWPowerBrake},
	{0x100, DisplayClockSetting},
}

// reasonsOf names the bits. A bit without a name is written as its number, so
// that a newer driver's reason is not lost.
func reasonsOf(bits uint64) []Reason {
	out := []Reason{}
	for _, b := range reasonBits {
		if bits&b.bit != 0 {
			out = append(out, b.reason)
			bits &^= b.bit
		}
	}
	for bits != 0 {
		low := bits & -bits
		out = append(out, Reason("bit_0x"+strconv.FormatUint(low, 16)))
		bits &^= low
	}
	return sortReasons(out)
}

// reasonMask is the field of all reasons as one number, 0x0000000000000004.
func reasonMask(g *GPU, v string) bool {
	bits, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(v), "0x"), 16, 64)
	if err != nil {
		return false
	}
	if g.ThrottleReasons == nil {
		g.ThrottleReasons = []Reason{}
	}
	g.ThrottleReasons = append(g.ThrottleReasons, reasonsOf(bits)...)
	return true
}

// Fields by what they are; the dialects below name them.
var (
	fName      = text(func(g *GPU) *string { return &g.Name })
	fUUID      = text(func(g *GPU) *string { return &g.UUID })
	fArch      = text(func(g *GPU) *string { return &g.Architecture })
	fDriver    = text(func(g *GPU) *string { return &g.Driver })
	fCap       = text(func(g *GPU) *string { return &g.ComputeCap })
	fMode      = text(func(g *GPU) *string { return &g.ComputeMode })
	fPState    = text(func(g *GPU) *string { return &g.PState })
	fMIG       = to(func(g *GPU) **bool { return &g.MIG }, yesNo)
	fTotal     = to(func(g *GPU) **int64 { return &g.MemoryTotalBytes }, mebibytes)
	fReserved  = to(func(g *GPU) **int64 { return &g.MemoryReservedBytes }, mebibytes)
	fUsed      = to(func(g *GPU) **int64 { return &g.MemoryUsedBytes }, mebibytes)
	fFree      = to(func(g *GPU) **int64 { return &g.MemoryFreeBytes }, mebibytes)
	fSM        = to(func(g *GPU) **int { return &g.ClockSMMHz }, megahertz)
	fSMMax     = to(func(g *GPU) **int { return &g.ClockSMMaxMHz }, megahertz)
	fMem       = to(func(g *GPU) **int { return &g.ClockMemMHz }, megahertz)
	fMemMax    = to(func(g *GPU) **int { return &g.ClockMemMaxMHz }, megahertz)
	fSMWeak    = weak(func(g *GPU) **int { return &g.ClockSMMHz }, fSM) // the graphics clock, where there is no SM clock
	fSMMaxWeak = weak(func(g *GPU) **int { return &g.ClockSMMaxMHz }, fSMMax)
	fDraw      = to(func(g *GPU) **float64 { return &g.PowerDrawW }, watts)
	fDrawWeak  = weak(func(g *GPU) **float64 { return &g.PowerDrawW }, fDraw)
	fAverage   = to(func(g *GPU) **float64 { return &g.PowerAverageW }, watts)
	fLimit     = to(func(g *GPU) **float64 { return &g.PowerLimitW }, watts)
	fRequested = to(func(g *GPU) **float64 { return &g.PowerRequestedW }, watts)
	fDefault   = to(func(g *GPU) **float64 { return &g.PowerDefaultW }, watts)
	fMin       = to(func(g *GPU) **float64 { return &g.PowerLimitMinW }, watts)
	fMax       = to(func(g *GPU) **float64 { return &g.PowerLimitMaxW }, watts)
	fTemp      = to(func(g *GPU) **float64 { return &g.TemperatureC }, celsius)
	fTempMem   = to(func(g *GPU) **float64 { return &g.TemperatureMemC }, celsius)
	fTempLimit = to(func(g *GPU) **float64 { return &g.TemperatureLimitC }, celsius)
	fMemLimit  = to(func(g *GPU) **float64 { return &g.MemLimitC }, celsius)
	fSlowdown  = to(func(g *GPU) **float64 { return &g.SlowdownC }, celsius)
	fShutdown  = to(func(g *GPU) **float64 { return &g.ShutdownC }, celsius)
	fTarget    = to(func(g *GPU) **float64 { return &g.TargetC }, celsius)
	fMargin    = to(func(g *GPU) **float64 { return &g.MarginC }, celsius)
	fSlowAt    = to(func(g *GPU) **float64 { return &g.SlowdownMarginC }, celsius)
	fUtil      = to(func(g *GPU) **float64 { return &g.UtilGPUPercent }, percent)
	fUtilMem   = to(func(g *GPU) **float64 { return &g.UtilMemPercent }, percent)
	fGen       = to(func(g *GPU) **int { return &g.PCIeGen }, count)
	fGenMax    = to(func(g *GPU) **int { return &g.PCIeGenMax }, count)
	fGenDevice = to(func(g *GPU) **int { return &g.PCIeGenDevice }, count)
	fWidth     = to(func(g *GPU) **int { return &g.PCIeWidth }, lanes)
	fWidthMax  = to(func(g *GPU) **int { return &g.PCIeWidthMax }, lanes)
	fAttached  = to(func(g *GPU) **bool { return &g.DisplayAttached }, yesNo)
	fActive    = to(func(g *GPU) **bool { return &g.DisplayActive }, yesNo)
	fDispMode  = weak(func(g *GPU) **bool { return &g.DisplayAttached }, fAttached)
)

// finish settles what depends on several fields.
func (g *GPU) finish() {
	if g.PowerDrawW == nil {
		g.PowerDrawW = g.PowerAverageW
	}
	g.ThrottleReasons = sortReasons(g.ThrottleReasons)
}

// processUsed reads the memory of a process, which Windows does not tell.
func processUsed(v string) *int64 {
	if classify(v) != isValue {
		return nil
	}
	x, ok := mebibytes(strings.TrimSpace(v))
	if !ok {
		return nil
	}
	return &x
}

// instance reads an instance's number, N/A outside MIG.
func instance(v string) *int {
	x, ok := count(strings.TrimSpace(v))
	if !ok {
		return nil
	}
	return &x
}
