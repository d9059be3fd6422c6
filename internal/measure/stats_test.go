package measure

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Student's quantiles against the tables that are printed everywhere.
func TestT975(t *testing.T) {
	for df, want := range map[int]float64{1: 12.706, 2: 4.303, 10: 2.228, 11: 2.201, 15: 2.131, 20: 2.086, 30: 2.042, 60: 2.000, 120: 1.980, 1e6: 1.960} {
		if got := t975(df); math.Abs(got-want) > 0.0015 {
			t.Errorf("%d degrees of freedom: %.4f, want %.3f", df, got, want)
		}
	}
	if !math.IsInf(t975(0), 1) {
		t.Error("no degree of freedom has a quantile")
	}
}

// The ranks of a 95 % interval of the median, as in tables of the sign test.
func TestRanks(t *testing.T) {
	for _, c := range []struct {
		n, k       int
		confidence float64
	}{
		{0, 0, 0}, {1, 0, 0}, {5, 0, 0}, {6, 1, 0.9688}, {8, 1, 0.9922}, {9, 2, 0.9609}, {12, 3, 0.9614}, {15, 4, 0.9648}, {20, 6, 0.9586}, {30, 10, 0.9572}, {100, 40, 0.9648},
	} {
		k, confidence := ranks(c.n)
		if k != c.k || math.Abs(confidence-c.confidence) > 0.0001 {
			t.Errorf("%d values: rank %d with %.4f, want %d with %.4f", c.n, k, confidence, c.k, c.confidence)
		}
	}
}

func TestEstimate(t *testing.T) {
	if NewEstimate(nil) != nil {
		t.Error("an estimate of nothing")
	}
	for _, c := range []struct {
		sample    []float64
		median    float64
		low, high float64 // NaN for none
		method    Method
	}{
		{[]float64{5}, 5, math.NaN(), 0, ""},
		{[]float64{7, 5}, 6, math.NaN(), 0, ""},
		{[]float64{3, 1, 2}, 2, 0, 4.484, StudentT}, // 2 - 2.484 is below zero, where no rate is
		{[]float64{12, 10, 11, 13, 14}, 12, 10.037, 13.963, StudentT},
		{[]float64{6, 1, 2, 3, 4, 5}, 3.5, 1, 6, OrderStatistics},
		{[]float64{9, 8, 7, 6, 5, 4, 3, 2, 1}, 5, 2, 8, OrderStatistics},
		{[]float64{4, 4, 4}, 4, 4, 4, StudentT},
	} {
		before := slices.Clone(c.sample)
		e := NewEstimate(c.sample)
		if e.Median != c.median || e.Method != c.method || e.N != len(c.sample) || e.Min != slices.Min(c.sample) || e.Max != slices.Max(c.sample) {
			t.Errorf("%v: %+v", c.sample, e)
		}
		if math.IsNaN(c.low) {
			if e.Low != nil || e.High != nil || e.Confidence != nil || e.Known(1e9) {
				t.Errorf("%v: an interval of too few values: %v", c.sample, e)
			}
		} else if math.Abs(*e.Low-c.low) > 0.001 || math.Abs(*e.High-c.high) > 0.001 || *e.Confidence < level {
			t.Errorf("%v: %v, want %g to %g", c.sample, e, c.low, c.high)
		}
		if !slices.Equal(before, c.sample) {
			t.Errorf("the sample was changed")
		}
	}
}

// What the rule "repeat until the interval is narrow" does to it: how often it
// holds the true value, for machines that scatter little, some and much. It is
// less than 95 %, which the package comment admits; never below 85 %.
func TestCoverageOfSequentialIntervals(t *testing.T) {
	d := rand.New(rand.NewPCG(1, 2))
	plan := Plan{}.withDefaults()
	for _, cv := range []float64{0.005, 0.02, 0.05, 0.15} {
		const runs = 4000
		holds, asked := 0, 0
		for range runs {
			var x []float64
			var e *Estimate
			for len(x) < plan.Max {
				x = append(x, 100*(1+cv*d.NormFloat64()))
				if e = NewEstimate(x); len(x) >= plan.Min && e.Known(plan.Within) {
					break
				}
			}
			asked += len(x)
			if *e.Low <= 100 && 100 <= *e.High {
				holds++
			}
		}
		share := float64(holds) / runs
		t.Logf("spread %.1f %%: %.1f repetitions, %.1f %% of the intervals hold", 100*cv, float64(asked)/runs, 100*share)
		if share < 0.85 {
			t.Errorf("spread %g: only %.3f of the intervals hold the true value", cv, share)
		}
	}
}
