package measure

import (
	"fmt"
	"math"
	"slices"
)

// level is the confidence of intervals.
const level = 0.95

// Estimate is what a sample says about a quantity.
type Estimate struct {
	Median float64 `json:"median"`
	// Low and High bound it with the given confidence. They are nil when the
	// sample is too small to say anything: the interval is then unbounded.
	Low        *float64 `json:"low,omitempty"`
	High       *float64 `json:"high,omitempty"`
	Confidence *float64 `json:"confidence,omitempty"` // really reached, 0 to 1
	Method     Method   `json:"method,omitempty"`     // of the interval
	N          int      `json:"n"`
	Min        float64  `json:"min"`
	Max        float64  `json:"max"`
}

// Method is how an interval was made.
type Method string

// The methods. Order statistics assume nothing of the distribution but need
// six values for 95 %; three to five values, which is what a minute has room
// for on a slow machine, need the assumption that they scatter normally.
const (
	OrderStatistics Method = "order-statistics" // of the median
	StudentT        Method = "student-t"        // of the mean
)

// fewest is the size of a sample from which an interval is given at all. With
// two values Student's interval is 9 times their distance.
const fewest = 3

// NewEstimate makes an estimate of a sample; nil of an empty one.
func NewEstimate(sample []float64) *Estimate {
	n := len(sample)
	if n == 0 {
		return nil
	}
	x := slices.Sorted(slices.Values(sample))
	e := &Estimate{Median: median(x), N: n, Min: x[0], Max: x[n-1]}
	if k, confidence := ranks(n); k > 0 {
		e.Low, e.High, e.Confidence, e.Method = new(x[k-1]), new(x[n-k]), new(round(confidence, 4)), OrderStatistics
	} else if n >= fewest {
		mean, sd := meanSD(x)
		h := t975(n-1) * sd / math.Sqrt(float64(n))
		low := mean - h
		if x[0] >= 0 {
			low = max(low, 0) // rates and times
		}
		e.Low, e.High, e.Confidence, e.Method = &low, new(mean+h), new(level), StudentT
	}
	return e
}

// Known reports whether the interval is no wider than that part of the median
// on either side.
func (e *Estimate) Known(within float64) bool {
	w, ok := e.halfWidth()
	return ok && w <= within
}

// halfWidth is half of the interval's width as a part of the median; false
// when there is no interval.
func (e *Estimate) halfWidth() (float64, bool) {
	if e == nil || e.Low == nil || e.Median == 0 {
		return 0, false
	}
	return (*e.High - *e.Low) / 2 / math.Abs(e.Median), true
}

func (e *Estimate) String() string {
	switch {
	case e == nil:
		return "unknown"
	case e.Low == nil:
		return fmt.Sprintf("%.4g (n=%d)", e.Median, e.N)
	}
	return fmt.Sprintf("%.4g (%.4g to %.4g, n=%d)", e.Median, *e.Low, *e.High, e.N)
}

// median of sorted values.
func median(x []float64) float64 {
	n := len(x)
	if n%2 == 1 {
		return x[n/2]
	}
	return (x[n/2-1] + x[n/2]) / 2
}

func medianOf(x []float64) float64 { return median(slices.Sorted(slices.Values(x))) }

func meanSD(x []float64) (mean, sd float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for _, v := range x {
		sd += (v - mean) * (v - mean)
	}
	if len(x) > 1 {
		sd = math.Sqrt(sd / float64(len(x)-1))
	}
	return mean, sd
}

// ranks is the largest k for which the k-th smallest and the k-th largest of n
// values enclose the median with the wanted confidence: the number of values
// below the median is binomial with p = 1/2. It is 0 if there is none.
func ranks(n int) (k int, confidence float64) {
	p := math.Exp2(-float64(n)) // of exactly k values below the median
	below := 0.0                // of at most that many
	for i := 0; 2*i < n; i++ {
		below += p
		if 1-2*below < level {
			break
		}
		k, confidence = i+1, 1-2*below
		p *= float64(n-i) / float64(i+1)
	}
	return k, confidence
}

// t975 is the 97.5 % quantile of Student's distribution: a table, and beyond it
// the first terms of its expansion (Abramowitz and Stegun 26.7.5).
func t975(df int) float64 {
	table := [...]float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228}
	if df < 1 {
		return math.Inf(1)
	}
	if df <= len(table) {
		return table[df-1]
	}
	const z = 1.959964
	v := float64(df)
	z3 := z * z * z
	z5 := z3 * z * z
	z7 := z5 * z * z
	return z + (z3+z)/(4*v) + (5*z5+16*z3+3*z)/(96*v*v) + (3*z7+19*z5+17*z3-15*z)/(384*v*v*v)
}
