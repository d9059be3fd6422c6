package measure

import (
	"fmt"
	"slices"

	"millrace/internal/llm"
)

// Split is where the time of a request went, as means in milliseconds over the
// requests of a group. The parts and RestMs add up to E2EMs; what cannot be
// told apart is nil and is part of the rest.
type Split struct {
	N     int     `json:"n"`
	E2EMs float64 `json:"e2e_ms"`

	// QueueMs is waiting for a turn; QueueBy is how it was found.
	QueueMs *float64 `json:"queue_ms,omitempty"`
	QueueBy QueueBy  `json:"queue_by,omitempty"`
	LoadMs  *float64 `json:"load_ms,omitempty"` // getting the model, by the server
	// PrefillMs is reading the prompt, by the server.
	PrefillMs *float64 `json:"prefill_ms,omitempty"`
	// DecodeMs is making the answer: by the server, or by our clock from the
	// first to the last token where DecodeByClock says so.
	DecodeMs      *float64 `json:"decode_ms,omitempty"`
	DecodeByClock bool     `json:"decode_by_clock,omitempty"`
	// HostMs is the time between tokens that the server does not count as
	// decoding: sampling and grammar, on the host. With several requests at
	// once it is at least that. It is nil for a server whose figure holds it.
	HostMs      *float64 `json:"host_ms,omitempty"`
	TransportMs *float64 `json:"transport_ms,omitempty"` // our time less the server's total
	// RestMs is what nobody accounts for: tokenising, templating, scheduling,
	// and every part that is nil. It is a little below zero where a server
	// counts the same time twice, as with prompts read between tokens.
	RestMs float64 `json:"rest_ms"`
}

// QueueBy is how a wait was found. All of them compare with single requests,
// and for those the quickest is taken as the one that did not wait.
type QueueBy string

// The ways. The first is our own clock: the first token came later than
// loading, reading and one step explain. Without the server's figure for
// reading it can only be said to be more than reading all prompts one after
// the other takes. Without streaming there is only the part of the server's
// total that it does not attribute (ollama.md section 4.3).
const (
	QueueByFirstToken QueueBy = "first token"
	QueueAtLeast      QueueBy = "first token, at least"
	QueueByResidual   QueueBy = "residual"
)

// leavesOutSampling reports whether the server's decoding time is known to
// leave sampling out: Ollama with its own runners, up to 0.24 (ollama.md
// section 4.2).
func leavesOutSampling(t Trial) bool {
	var major, minor int
	if t.Server != llm.Ollama {
		return false
	}
	n, _ := fmt.Sscanf(t.ServerVersion, "%d.%d", &major, &minor)
	return n == 2 && major == 0 && 0 < minor && minor < 30
}

// host is the time of a trial's answer that its server does not count.
func host(t Trial) *float64 {
	n, counted := t.tokens()
	if t.TimePerOutputTokenMs == nil || t.ServerDecodeMs == nil || !counted {
		return nil
	}
	gap := *t.TimePerOutputTokenMs*float64(n) - *t.ServerDecodeMs
	if leavesOutSampling(t) {
		return new(max(gap, 0))
	}
	if gap > 0.03**t.ServerDecodeMs {
		return &gap
	}
	return nil
}

// unexplained is the time before the first token that is neither loading nor
// reading nor the step that made it.
func unexplained(t Trial) *float64 {
	if t.TTFTMs == nil || t.ServerPrefillMs == nil {
		return nil
	}
	return new(*t.TTFTMs - or(t.ServerLoadMs, 0) - *t.ServerPrefillMs - or(t.TimePerOutputTokenMs, 0))
}

// residual is the part of the server's total that it does not attribute.
func residual(t Trial) *float64 {
	if t.ServerTotalMs == nil || t.ServerLoadMs == nil || t.ServerPrefillMs == nil || t.ServerDecodeMs == nil {
		return nil
	}
	return new(*t.ServerTotalMs - *t.ServerLoadMs - *t.ServerPrefillMs - *t.ServerDecodeMs)
}

func ttft(t Trial) *float64 { return t.TTFTMs }

// queue is how long a trial waited for its turn, compared with single ones. A
// single trial is compared with the quickest of its kind.
func queue(t Trial, alone []Trial) (*float64, QueueBy) {
	if len(alone) == 0 {
		return nil, ""
	}
	over := func(of func(Trial) *float64, times float64) *float64 {
		have := of(t)
		var idle []float64
		for _, a := range alone {
			if v := of(a); v != nil {
				idle = append(idle, *v)
			}
		}
		if have == nil || len(idle) == 0 {
			return nil
		}
		floor := slices.Min(idle)
		if t.Concurrency > 1 {
			floor = medianOf(idle)
		}
		return new(max(*have-times*floor, 0))
	}
	if q := over(unexplained, 1); q != nil {
		return q, QueueByFirstToken
	}
	if t.TTFTMs != nil {
		if q := over(ttft, float64(t.Concurrency)); t.Concurrency > 1 && q != nil && *q > 0 {
			return q, QueueAtLeast
		}
		return nil, ""
	}
	if q := over(residual, 1); q != nil {
		return q, QueueByResidual
	}
	return nil, ""
}

// newSplit makes the mean of what the trials say; nil of none. alone are
// single requests of the same kind.
func newSplit(trials, alone []Trial) *Split {
	s := &Split{}
	for _, t := range trials {
		if !t.Good() {
			continue
		}
		s.N++
		s.E2EMs += *t.E2EMs
		add := func(to **float64, v *float64) {
			if v == nil {
				return
			}
			if *to == nil {
				*to = new(0.0)
			}
			**to += *v
		}
		q, by := queue(t, alone)
		if by != "" {
			s.QueueBy = by
		}
		add(&s.QueueMs, q)
		add(&s.LoadMs, t.ServerLoadMs)
		add(&s.PrefillMs, t.ServerPrefillMs)
		switch {
		case t.ServerDecodeMs != nil:
			add(&s.DecodeMs, t.ServerDecodeMs)
		case t.TimePerOutputTokenMs != nil:
			n, _ := t.tokens()
			add(&s.DecodeMs, new(*t.TimePerOutputTokenMs*float64(n-1)))
			s.DecodeByClock = true
		}
		add(&s.HostMs, host(t))
		if t.ServerTotalMs != nil {
			add(&s.TransportMs, new(max(*t.E2EMs-*t.ServerTotalMs, 0)))
		}
	}
	if s.N == 0 {
		return nil
	}
	n := float64(s.N)
	s.E2EMs = round(s.E2EMs/n, 3)
	s.RestMs = s.E2EMs
	for _, p := range []*float64{s.QueueMs, s.LoadMs, s.PrefillMs, s.DecodeMs, s.HostMs, s.TransportMs} {
		if p != nil {
			*p = round(*p/n, 3)
			s.RestMs -= *p
		}
	}
	s.RestMs = round(s.RestMs, 3)
	return s
}
