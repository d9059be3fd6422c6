package machine

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// nvidiaProblems are what nvidia-smi and NVML say when something is wrong,
// in lower case, with what it means.
var nvidiaProblems = []struct {
	says   string
	code   Code
	remedy Remedy
	means  string
}{
	{
		"driver/library version mismatch", DriverMismatch, Reboot,
		"the NVIDIA kernel module that is running and the NVIDIA library on disk are of two versions, as after an update of the driver; reboot",
	},
	{
		"couldn't communicate with the nvidia driver", DriverNotRunning, InstallDriver,
		"nvidia-smi is installed and the NVIDIA kernel driver is not running; install the driver for this kernel, or sign it if Secure Boot refuses it",
	},
	{
		"driver not loaded", DriverNotRunning, InstallDriver,
		"the NVIDIA kernel driver is not loaded; install the driver for this kernel, or sign it if Secure Boot refuses it",
	},
	{
		"couldn't find libnvidia-ml", LibraryMissing, InstallDriver,
		"nvidia-smi does not find its library libnvidia-ml; install the whole driver",
	},
	{
		"unable to determine the device handle", DeviceUnreadable, ResetGPU,
		"a GPU does not answer its driver; reboot, and if it comes again check its seating, power and temperature",
	},
	{
		"gpu is lost", DeviceUnreadable, ResetGPU,
		"a GPU has fallen off the bus; reboot, and if it comes again check its seating, power and temperature",
	},
	{
		"gpu requires reset", DeviceUnreadable, ResetGPU,
		"a GPU has to be reset before it can be used again; reboot",
	},
	{
		"no devices were found", NoDevices, CheckHardware,
		"the NVIDIA driver is running and sees no GPU; check that it is seated, has power and is not taken by another driver",
	},
	{
		"insufficient permissions", NotPermitted, AllowAccess,
		"this user may not ask the NVIDIA driver",
	},
	{
		"blocked by the operating system", NotPermitted, AllowAccess,
		"the GPU is kept from this process by its container or cgroup; pass it in (docker run --gpus all)",
	},
}

var smiVersion = regexp.MustCompile(`NVML library version: (\S+)`)

// NVIDIAProblem finds in the output of nvidia-smi, or in an error of NVML,
// what is wrong; nil if it says nothing that is known.
func NVIDIAProblem(output []byte) *Problem {
	low := bytes.ToLower(output)
	for _, p := range nvidiaProblems {
		if !bytes.Contains(low, []byte(p.says)) {
			continue
		}
		detail := p.means
		if m := smiVersion.FindSubmatch(output); m != nil {
			detail += " (library " + string(m[1]) + ")"
		}
		return &Problem{Code: p.code, Remedy: p.remedy, Detail: detail}
	}
	return nil
}

// Dialect is a form in which NVIDIA's tool tells what it knows.
type Dialect string

const (
	DialectXML   Dialect = "xml"   // nvidia-smi -q -x
	DialectText  Dialect = "text"  // nvidia-smi -q
	DialectCSV   Dialect = "csv"   // nvidia-smi --query-gpu=... --format=csv
	DialectApps  Dialect = "apps"  // nvidia-smi --query-compute-apps=... --format=csv
	DialectTable Dialect = "table" // nvidia-smi
	DialectList  Dialect = "list"  // nvidia-smi -L
	DialectError Dialect = "error" // what it says when it fails
)

// DetectNVIDIA says which of the forms this is, "" if none.
func DetectNVIDIA(data []byte) Dialect {
	s := strings.TrimSpace(string(data))
	first, _, _ := strings.Cut(s, "\n")
	switch {
	case strings.Contains(s, "<nvidia_smi_log"):
		return DialectXML
	case strings.Contains(s, "NVSMI LOG="):
		return DialectText
	case strings.Contains(s, "+--") && tableHead.MatchString(s):
		return DialectTable
	case listGPU.MatchString(first):
		return DialectList
	case NVIDIAProblem(data) != nil:
		return DialectError
	case strings.Contains(first, "pid") && strings.Contains(first, "used_gpu_memory"):
		return DialectApps
	case strings.Contains(first, ","):
		for _, c := range csvHeader(first) {
			if csvField(c) != nil {
				return DialectCSV
			}
		}
	}
	return ""
}

// ParseNVIDIA reads any output of nvidia-smi that describes GPUs. A failure
// that is known comes as a *Problem.
func ParseNVIDIA(data []byte) ([]GPU, Dialect, error) {
	d := DetectNVIDIA(data)
	switch d {
	case DialectXML:
		g, err := ParseNVIDIAXML(data)
		return g, d, err
	case DialectText:
		g, err := ParseNVIDIAText(data)
		return g, d, err
	case DialectTable:
		g, err := ParseNVIDIATable(data)
		return g, d, err
	case DialectList:
		g, err := ParseNVIDIAList(data)
		return g, d, err
	case DialectError:
		return nil, d, NVIDIAProblem(data)
	case DialectCSV:
		rows, err := ParseNVIDIACSV(data, nil)
		var gpus []GPU
		for _, r := range rows { // the newest row of each GPU
			if i := slices.IndexFunc(gpus, func(g GPU) bool { return g.same(&r.GPU) }); i >= 0 {
				gpus[i] = r.GPU
			} else {
				gpus = append(gpus, r.GPU)
			}
		}
		return gpus, d, err
	}
	return nil, d, &Problem{Code: BadOutput, Detail: "the output of nvidia-smi has a form that is not known"}
}
