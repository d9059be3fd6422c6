package ollama

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/internal/llm"
)

// LogFacts is what a server's log says of the last run in it. Nil and empty
// mean that it does not say.
type LogFacts struct {
	Version    string
	DevBuild   *bool
	SelfBuilt  *bool // gin runs in debug mode, as in builds that are not the project's
	DebugBuild *bool
	DebugLog   *bool
	// Settings are what the server said it started with, defaults filled in.
	Settings []llm.Setting
	Devices  []llm.Device
	// Libraries are the backends that are installed, where it lists them
	// (0.1.23 to 0.5): a GPU whose library is missing is not used.
	Libraries            []string
	DefaultContext       *int
	DefaultContextReason string
	VRAMBytes            *int64 // of all GPUs together
	// Loads in order, all that the log holds of this run.
	Loads   []LoadFacts
	History llm.History

	Lines      int // of the whole log
	Recognised int // of these, lines that something was taken from
}

// LoadFacts is what a log says of one load of a model.
type LoadFacts struct {
	llm.Load
	Registry     string // full name, registry.ollama.ai/library/qwen3:8b
	Architecture string
	Quantisation string
	Library      string // cuda_v13, rocm, metal, cpu, ...

	ContextPerSlot    *int
	ContextTrained    *int
	Batch             *int
	Microbatch        *int
	Threads           *int
	Flash             llm.Switch
	FlashUsed         *bool
	KVType            string
	LayersAsked       *int
	LayersOverflowing *int
	MMap              *bool
	Buffers           []llm.Buffer
	Host              *llm.HostMemory
	Free              map[string]int64 // by device's id or name, before the load
	Ready             bool

	planned []llm.Buffer // before the load, by Ollama's own estimate
	crashed bool         // after it was ready
	run     int          // position among all events, see logParser.clock
	idle    *time.Duration
	other   bool // another model was loaded since this one's load before
}

// ParseLog reads a server's log, or the end of one: of Ollama of any release
// from 0.1, as written to a file, the journal, Docker or a wrapper, and of a
// llama-server on its own. Lines that it does not know are skipped.
func ParseLog(data []byte) LogFacts {
	p := logParser{}
	p.newRun()
	for raw := range bytes.Lines(data) {
		p.facts.Lines++
		l := readLine(raw)
		if p.line(&l) {
			p.facts.Recognised++
		}
	}
	return p.finish()
}

type logParser struct {
	facts    LogFacts
	loads    []*LoadFacts
	cur      *LoadFacts // newest load
	pending  *LoadFacts // what is said before a load begins
	filling  *LoadFacts // whose file llama.cpp is describing
	legacy   bool       // planning is logged before the runner's start (to 0.11)
	events   map[eventKey]*llm.Event
	order    []eventKey
	zone     *time.Location // of the times that have one
	lastTime time.Time
	lastDone time.Time // end of the last request
	clock    int
	evicted  []int // clock of evictions
	devices  map[string]llm.Device
	sawStart bool // of the run: "server config" or "Listening"
}

type eventKey struct {
	kind   llm.EventKind
	detail string
}

// newRun forgets what belongs to an earlier start of the server.
func (p *logParser) newRun() {
	starts, lines, recognised := p.facts.History.Starts, p.facts.Lines, p.facts.Recognised
	*p = logParser{
		facts:   LogFacts{Lines: lines, Recognised: recognised},
		pending: &LoadFacts{},
		events:  map[eventKey]*llm.Event{},
		devices: map[string]llm.Device{},
	}
	p.facts.History.Starts = starts
}

// started marks a start of the server.
func (p *logParser) started() {
	p.newRun()
	p.facts.History.Starts++
	p.sawStart = true
}

// line takes in one line; it reports whether it held anything of use.
func (p *logParser) line(l *logLine) bool {
	p.clock++
	h := &p.facts.History
	if !l.time.IsZero() {
		switch {
		case l.local:
			l.time = p.inZone(l.time)
		case l.unix && p.zone != nil:
			l.time = l.time.In(p.zone)
		case !l.unix && p.zone == nil:
			p.zone = l.time.Location()
			if h.From != nil {
				h.From = new(p.inZone(*h.From))
			}
		}
		p.lastTime = l.time
	}
	used := (l.msg != "" || l.attrs != nil) && p.message(l) || p.text(l)
	if !l.time.IsZero() {
		if h := &p.facts.History; h.From == nil { // another one, if this began a run
			h.From = new(l.time)
		}
		p.facts.History.To = new(l.time)
	}
	return used
}

// inZone puts a time of the server's own clock into its zone, which the times
// of its other lines have. Without any, all are taken for UTC: differences are
// right.
func (p *logParser) inZone(t time.Time) time.Time {
	if p.zone == nil {
		return t
	}
	return parseIn(t, p.zone)
}

// maxDetails bounds how many different details of a kind of event are kept.
const maxDetails = 24

func (p *logParser) event(kind llm.EventKind, detail string) bool {
	detail = homeless(detail)
	if r := []rune(detail); len(r) > 160 {
		detail = string(r[:160]) + "…"
	}
	key := eventKey{kind, detail}
	e := p.events[key]
	if e == nil {
		n := 0
		for k := range p.events {
			if k.kind == kind {
				n++
			}
		}
		if n >= maxDetails {
			key.detail = ""
			e = p.events[key]
		}
	}
	if e == nil {
		e = &llm.Event{Kind: kind, Detail: key.detail}
		p.events[key] = e
		p.order = append(p.order, key)
	}
	e.Count++
	if !p.lastTime.IsZero() {
		if e.First == nil {
			e.First = new(p.lastTime)
		}
		e.Last = new(p.lastTime)
	}
	if kind == llm.Eviction {
		p.evicted = append(p.evicted, p.clock)
	}
	return true
}

// begin opens a load.
func (p *logParser) begin(l *logLine, c Command) *LoadFacts {
	load := p.pending
	p.pending = &LoadFacts{}
	if load.Model != "" && c.Model != "" && load.Model != c.Model {
		load = &LoadFacts{}
	}
	if c.Model != "" {
		load.Model = c.Model
	}
	load.Engine = c.Engine
	load.run = p.clock
	if t := l.time; !t.IsZero() {
		load.Time = new(t)
		if !p.lastDone.IsZero() {
			load.idle = new(t.Sub(p.lastDone))
		}
	}
	load.take(c)
	p.cur = load
	p.filling = load
	p.loads = append(p.loads, load)
	return load
}

// take copies what a command line says.
func (load *LoadFacts) take(c Command) {
	keep := func(to **int, v *int) {
		if v != nil {
			*to = v
		}
	}
	keep(&load.ContextTotal, c.ContextTotal)
	keep(&load.Slots, c.Slots)
	keep(&load.Batch, c.Batch)
	keep(&load.Microbatch, c.Microbatch)
	keep(&load.Threads, c.Threads)
	if c.Engine == llm.LlamaServerEngine { // older ones are given Ollama's own choice
		keep(&load.LayersAsked, c.GPULayers)
	} else {
		keep(&load.GPULayers, c.GPULayers)
	}
	if c.Flash != "" {
		load.Flash = c.Flash
	}
	if t := c.KVType(); t != "" {
		load.KVType = t
	}
	if c.MMap != nil {
		load.MMap = c.MMap
	}
	if c.Library != "" {
		load.Library = c.Library
	}
}

// loading is the load that is under way, or nil.
func (p *logParser) loading() *LoadFacts {
	if p.cur != nil && !p.cur.Ready && p.cur.Failed == "" {
		return p.cur
	}
	return nil
}

// planning is what lines about the coming or running load belong to.
func (p *logParser) planning() *LoadFacts {
	if l := p.loading(); l != nil && !p.legacy {
		return l
	}
	return p.pending
}

func (p *logParser) ready(seconds string) {
	load := p.loading()
	if load == nil {
		return
	}
	load.Ready = true
	if s, err := strconv.ParseFloat(seconds, 64); err == nil && s >= 0 {
		load.Seconds = new(llm.Seconds(s))
	}
}

func (p *logParser) failed(why string) {
	if load := p.loading(); load != nil {
		load.Failed = trimmed(homeless(why), 160)
		if load.Failed == "" {
			load.Failed = "no reason given"
		}
	}
	p.event(llm.LoadFailed, why)
}

func trimmed(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

func (load *LoadFacts) free(device string, bytes int64) {
	if device == "" {
		return
	}
	if load.Free == nil {
		load.Free = map[string]int64{}
	}
	load.Free[device] = bytes
}

// buffer adds memory. Of one load, llama.cpp prints a line for each model and
// cache buffer of a device, to be added up, and one for compute and output.
func (load *LoadFacts) buffer(b llm.Buffer) {
	for i := range load.Buffers {
		have := &load.Buffers[i]
		if have.Device != b.Device || have.Kind != b.Kind {
			continue
		}
		if b.Kind == llm.ComputeBuffer || b.Kind == llm.OutputBuffer {
			have.Bytes = b.Bytes
		} else {
			have.Bytes += b.Bytes
		}
		return
	}
	load.Buffers = append(load.Buffers, b)
}

// finish puts the run together.
func (p *logParser) finish() LogFacts {
	f := &p.facts
	last := map[string]*LoadFacts{}
	for i, load := range p.loads {
		p.complete(load)
		load.Reason = llm.FirstLoad
		if before := last[load.Model]; before != nil {
			f.History.Reloads++
			load.other = slices.ContainsFunc(p.loads[:i], func(o *LoadFacts) bool { return o.run > before.run && o.Model != load.Model })
			p.explain(load, before)
		}
		last[load.Model] = load
	}
	f.History.LoadCount = len(p.loads)
	for _, load := range p.loads {
		f.Loads = append(f.Loads, *load)
	}
	for _, load := range f.Loads[max(0, len(f.Loads)-llm.MaxLoads):] {
		f.History.Loads = append(f.History.Loads, load.Load)
	}
	for _, k := range p.order {
		f.History.Events = append(f.History.Events, *p.events[k])
	}
	p.putDevices()
	return *f
}

// complete draws the conclusions that one load allows.
func (p *logParser) complete(load *LoadFacts) {
	if len(load.Buffers) == 0 {
		load.Buffers = load.planned
		for i := range load.Buffers {
			// Ollama's own engine logs what it has taken, the llama.cpp runner
			// what it expects to.
			load.Buffers[i].Estimated = load.Engine != llm.OllamaEngine
		}
	}
	if load.ContextPerSlot == nil && load.ContextTotal != nil && load.Slots != nil && *load.Slots > 0 {
		load.ContextPerSlot = new(*load.ContextTotal / *load.Slots)
	}
	if load.Library == "" {
		load.Library = p.libraryFor(load)
	}
	if load.FlashUsed == nil {
		switch load.Flash {
		case llm.On:
			load.FlashUsed = new(true)
		case llm.Off:
			load.FlashUsed = new(false)
		case llm.Auto:
		}
	}
	if load.GPULayers == nil && load.Layers != nil && load.Ready && len(load.Buffers) > 0 && load.Engine != "" &&
		!slices.ContainsFunc(load.Buffers, func(b llm.Buffer) bool { return b.GPU && b.Kind == llm.ModelBuffer }) {
		load.GPULayers = new(0)
	}
}

// libraryFor is the backend of a load that does not name its library.
func (p *logParser) libraryFor(load *LoadFacts) string {
	gpu := slices.ContainsFunc(load.Buffers, func(b llm.Buffer) bool { return b.GPU })
	if len(load.Buffers) > 0 && !gpu {
		return "cpu"
	}
	if len(load.Buffers) == 0 {
		if load.GPULayers == nil || *load.GPULayers == 0 {
			return ""
		}
		lib := ""
		for _, d := range p.facts.Devices {
			if d.Backend == llm.CPU || d.Dropped != "" {
				continue
			}
			if lib != "" && lib != d.Library {
				return "" // one of several
			}
			lib = d.Library
		}
		return lib
	}
	for _, b := range load.Buffers {
		if !b.GPU {
			continue
		}
		name := strings.TrimSuffix(b.Device, "_Mapped")
		for _, d := range p.facts.Devices {
			if d.Name == name && d.Library != "" {
				return d.Library
			}
		}
		return string(llm.BackendOf(name))
	}
	return ""
}

// explain says why a model was loaded again.
func (p *logParser) explain(load, before *LoadFacts) {
	if load.Time != nil && before.Time != nil {
		load.SincePreviousS = new(llm.Seconds(load.Time.Sub(*before.Time).Seconds()))
	}
	changed := differences(before, load)
	evicted := slices.ContainsFunc(p.evicted, func(at int) bool { return at > before.run && at <= load.run })
	keep := llm.Seconds(300)
	if s := p.setting("OLLAMA_KEEP_ALIVE"); s != "" {
		if k, ok := keepAlive(s); ok {
			keep = k
		}
	}
	switch {
	case before.Failed != "" || before.crashed:
		load.Reason, load.Detail = llm.AfterFailure, changed
	case changed != "":
		load.Reason, load.Detail = llm.OptionsChanged, changed
	case evicted:
		load.Reason = llm.AfterEviction
	case load.idle == nil:
		load.Reason = llm.UnknownReason
	case keep >= 0 && load.idle.Seconds() > float64(keep)-5:
		load.Reason = llm.AfterIdle
		load.Detail = fmt.Sprintf("no request for %d s", int(load.idle.Seconds()))
	case load.other:
		load.Reason, load.Detail = llm.AfterEviction, "another model was loaded in between"
	default:
		load.Reason = llm.AfterUnload
	}
}

func (p *logParser) setting(name string) string {
	for _, s := range p.facts.Settings {
		if s.Name == name {
			return s.Value
		}
	}
	return ""
}

// differences names the options that two loads of a model differ in, those
// whose change makes Ollama load again.
func differences(a, b *LoadFacts) string {
	var out []string
	number := func(name string, x, y *int) {
		if x != nil && y != nil && *x != *y {
			out = append(out, fmt.Sprintf("%s %d to %d", name, *x, *y))
		}
	}
	word := func(name, x, y string) {
		if x != "" && y != "" && x != y {
			out = append(out, fmt.Sprintf("%s %s to %s", name, x, y))
		}
	}
	number("context", a.ContextTotal, b.ContextTotal)
	number("slots", a.Slots, b.Slots)
	number("batch", a.Batch, b.Batch)
	number("threads", a.Threads, b.Threads)
	number("layers asked for", a.LayersAsked, b.LayersAsked)
	word("KV type", a.KVType, b.KVType)
	word("flash attention", string(a.Flash), string(b.Flash))
	return strings.Join(out, ", ")
}

// putDevices lists the devices in the order of their appearance.
func (p *logParser) putDevices() {
	f := &p.facts
	if len(f.Devices) == 0 {
		for _, id := range slices.Sorted(maps.Keys(p.devices)) {
			f.Devices = append(f.Devices, p.devices[id])
		}
	}
	for i := range f.Devices {
		f.Devices[i].Sources = []llm.Source{llm.FromLog}
	}
}
