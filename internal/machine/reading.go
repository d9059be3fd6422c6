package machine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Status says how a reading ended.
type Status string

const (
	OK       Status = "ok"        // it gave something
	NoData   Status = "no_data"   // there is nothing of the kind here
	Failed   Status = "failed"    // there is, and it could not be read; the detail says why
	TimedOut Status = "timed_out" // it did not answer in time
)

// Reading is the record of one attempt to learn something.
type Reading struct {
	Name   string  `json:"name"`
	Status Status  `json:"status"`
	Detail string  `json:"detail,omitzero"`
	Code   Code    `json:"code,omitzero"`   // of a failure that we know
	Remedy Remedy  `json:"remedy,omitzero"` // what kind of step helps
	TookMS float64 `json:"took_ms"`
}

// Code names a failure of a driver or its tools.
type Code string

const (
	DriverMismatch   Code = "driver_library_mismatch" // kernel module and library are of two versions
	DriverNotRunning Code = "driver_not_running"      // the tool is there, its driver is not
	LibraryMissing   Code = "driver_library_missing"  // the tool is there, its library is not
	DeviceUnreadable Code = "device_unreachable"      // the driver is there and a GPU does not answer
	NoDevices        Code = "no_devices"              // the driver is there and sees no GPU
	NotPermitted     Code = "not_permitted"           // the user or the container may not look
	BadOutput        Code = "unknown_output"          // it said something that we cannot read
)

// Remedy is a kind of step that helps.
type Remedy string

const (
	Reboot        Remedy = "reboot"
	InstallDriver Remedy = "install_driver"
	ResetGPU      Remedy = "reset_gpu" // reboot; check seating and power if it comes again
	CheckHardware Remedy = "check_hardware"
	AllowAccess   Remedy = "allow_access" // group membership, or passing the GPU into the container
)

// Problem is a failure with a name.
type Problem struct {
	Code   Code
	Remedy Remedy
	Detail string
}

func (p *Problem) Error() string { return p.Detail }

// errNoData is the answer of a reading that has nothing to read here.
var errNoData = errors.New("nothing of the kind on this machine")

// noData says why there is nothing to read.
func noData(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errNoData, fmt.Sprintf(format, args...))
}

// collector is one reading: it returns what to write into the snapshot. What
// it found may come with an error; both are kept.
type collector struct {
	name    string
	timeout time.Duration
	read    func(context.Context) (apply func(*Snapshot), err error)
}

// gather runs all collectors at once, each with its own time limit, and
// applies what they found in their order. One that does not come back is left
// behind: its result is never used.
func gather(ctx context.Context, s *Snapshot, collectors []collector) {
	type result struct {
		apply func(*Snapshot)
		r     Reading
	}
	done := make([]chan result, len(collectors))
	for i, c := range collectors {
		done[i] = make(chan result, 1)
		go func() {
			ctx, cancel := context.WithTimeout(ctx, c.timeout)
			defer cancel()
			begin := time.Now()
			inner := make(chan result, 1)
			go func() {
				apply, err := c.read(ctx)
				inner <- result{apply, outcome(ctx, c, err)}
			}()
			var res result
			select {
			case res = <-inner:
			case <-ctx.Done():
				select { // it may have ended at the same moment
				case res = <-inner:
				default:
					res.r = outcome(ctx, c, ctx.Err())
				}
			}
			res.r.Name = c.name
			res.r.TookMS = float64(time.Since(begin).Microseconds()) / 1000
			done[i] <- res
		}()
	}
	for i := range collectors {
		res := <-done[i]
		if res.apply != nil {
			res.apply(s)
		}
		s.Readings = append(s.Readings, res.r)
	}
}

// outcome puts an error into words.
func outcome(ctx context.Context, c collector, err error) Reading {
	r := Reading{Status: OK}
	var p *Problem
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded) || (ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)):
		r.Status = TimedOut
		r.Detail = fmt.Sprintf("no answer within %v", c.timeout)
	case errors.Is(err, errNoData):
		r.Status = NoData
		r.Detail = strings.TrimPrefix(err.Error(), errNoData.Error()+": ")
	case errors.As(err, &p):
		r.Status, r.Code, r.Remedy, r.Detail = Failed, p.Code, p.Remedy, p.Detail
	default:
		r.Status, r.Detail = Failed, err.Error()
	}
	return r
}
