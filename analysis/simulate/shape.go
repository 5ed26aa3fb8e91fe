// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import "math"

// Bounds are the latencies that requests are counted by, in seconds.
var Bounds = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5}

// Shape is a distribution of latencies: most requests around 40 ms, one in a hundred slow, around 300 ms.
// Zero values stand for 1, and for 0.01 of SlowShare.
type Shape struct {
	// Scale multiplies all latencies, SlowScale those of the slow requests.
	Scale, SlowScale float64
	// SlowShare is how many requests are slow.
	SlowShare float64
}

const (
	usualMedian, usualSpread = 0.040, 0.6
	slowMedian, slowSpread   = 0.300, 0.5
)

// tail is the chance that a request takes longer than each of Bounds.
func (s Shape) tail() (out [10]float64) {
	scale, slowScale, slow := orOne(s.Scale), orOne(s.SlowScale), s.SlowShare
	if slow == 0 {
		slow = 0.01
	}
	for i, b := range Bounds {
		usual := above(b, usualMedian*scale, usualSpread)
		late := above(b, slowMedian*scale*slowScale, slowSpread)
		out[i] = (1-slow)*usual + slow*late
	}
	return out
}

// above is the chance that a log-normal latency is longer than b.
func above(b, median, spread float64) float64 {
	return math.Erfc(math.Log(b/median)/spread/math.Sqrt2) / 2
}

func orOne(v float64) float64 {
	if v == 0 {
		return 1
	}
	return v
}
