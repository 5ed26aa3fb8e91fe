// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestIntervalHoldsTheRate(t *testing.T) {
	tests := map[string]struct {
		events, requests uint64
		low, high        float64
	}{
		"nothing counted says nothing":     {0, 0, 0, 1},
		"no failure leaves little room":    {0, 10_000, 0, 0.0012},
		"nothing but failures":             {1000, 1000, 0.98, 1},
		"a twentieth":                      {500, 10_000, 0.04, 0.061},
		"more events than requests":        {7, 5, 0.1, 1},
		"numbers too large for logarithms": {math.MaxUint64 / 2, math.MaxUint64, 0.4999, 0.5001},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := interval(tc.events, tc.requests, 0.01)
			if got.Low < tc.low || got.High > tc.high || got.Low > got.High {
				t.Errorf("got %+v, want within %v to %v", got, tc.low, tc.high)
			}
		})
	}
}

func TestIntervalIsRightAtAllLooksAtOnce(t *testing.T) {
	const runs, p = 400, 0.03
	left := 0
	for seed := range uint64(runs) {
		random := rand.New(rand.NewPCG(seed, 3))
		var n, e uint64
		for range 300 {
			for range 20 {
				n++
				if random.Float64() < p {
					e++
				}
			}
			if in := interval(e, n, 0.01); p < in.Low || p > in.High {
				left++
				break
			}
		}
	}
	t.Logf("left out the rate in %d of %d runs", left, runs)
	if left > 12 { // 4 are expected at most; more than 12 have a chance of 1 in 10,000
		t.Errorf("left out the rate in %d of %d runs of 300 looks", left, runs)
	}
}
