package llm

import (
	"errors"
	"fmt"
	"time"
)

// ErrorKind says what an error means for the one who asked: whether asking
// again can help, and who has to act.
type ErrorKind string

// The kinds of error.
const (
	Unreachable ErrorKind = "unreachable" // refused, reset, closed early, no such host
	Timeout     ErrorKind = "timeout"     // no reply in the time given
	Busy        ErrorKind = "busy"        // 429 or 503: the queue is full
	Loading     ErrorKind = "loading"     // the model is being loaded
	NoModel     ErrorKind = "no-model"    // the server does not have the model
	TooLong     ErrorKind = "too-long"    // prompt longer than the context
	BadSchema   ErrorKind = "bad-schema"  // the server cannot use the schema
	Refused     ErrorKind = "refused"     // any other 4xx: the request itself is at fault
	Failed      ErrorKind = "failed"      // 5xx
	Garbled     ErrorKind = "garbled"     // a reply that is cut short or is not the protocol
	Canceled    ErrorKind = "canceled"    // our own context ended
)

// Retryable reports whether the same request may succeed later.
func (k ErrorKind) Retryable() bool {
	switch k {
	case Unreachable, Timeout, Busy, Loading, Failed, Garbled:
		return true
	default:
		return false
	}
}

// Error is a failed request.
type Error struct {
	Kind       ErrorKind
	Status     int           // HTTP status; 0 when there was no reply
	RetryAfter time.Duration // what the server asked for; 0 when it did not
	Message    string        // the server's own words, or what happened; never the prompt
	Err        error         // cause, may be nil
}

func (e *Error) Error() string {
	s := e.Message
	if s == "" && e.Err != nil {
		s = e.Err.Error()
	}
	if e.Status != 0 {
		return fmt.Sprintf("%s (HTTP %d): %s", e.Kind, e.Status, s)
	}
	return fmt.Sprintf("%s: %s", e.Kind, s)
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the *Error in err's chain, or "" if there is none.
func KindOf(err error) ErrorKind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}

// ErrNotMine is what an Opener returns for a server that speaks another
// protocol: the next opener is to be tried. Any other error ends the attempt.
var ErrNotMine = errors.New("not this kind of server")
