// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// Interval is where a rate is, from Low to High.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// mostCounted is the largest count for which the interval's logarithms are precise. Larger counts are
// scaled down, which makes the interval wider than it need be.
const mostCounted = 1e12

// interval is a confidence sequence for the share of events: the chance that it ever leaves out the true
// rate, at any of all looks, is at most alpha. It holds the rates against which the mixture of all
// alternatives, weighted by Jeffreys' prior, has not gathered an e-value of 1/alpha. It takes requests
// for independent and the rate for constant, so it is for people's eyes; no verdict rests on it.
func interval(events, requests uint64, alpha float64) Interval {
	n := float64(requests)
	e := math.Min(float64(events), n)
	if n == 0 {
		return Interval{0, 1}
	}
	if n > mostCounted {
		e, n = e/n*mostCounted, mostCounted
	}
	mixture := mathext.Lbeta(e+0.5, n-e+0.5) - mathext.Lbeta(0.5, 0.5)
	refuted := func(p float64) bool {
		return mixture-logTimes(e, p)-logTimes(n-e, 1-p) >= math.Log(1/alpha)
	}
	middle := e / n
	out := Interval{Low: boundary(middle, 0, refuted), High: boundary(middle, 1, refuted)}
	return out
}

// logTimes is n times the logarithm of p; 0 where n is.
func logTimes(n, p float64) float64 {
	if n == 0 {
		return 0
	}
	return n * math.Log(p)
}

// boundary is the last rate on the way from one that is not refuted to an end of the scale.
func boundary(from, end float64, refuted func(float64) bool) float64 {
	if !refuted(end) {
		return end
	}
	for range 60 {
		middle := (from + end) / 2
		if refuted(middle) {
			end = middle
		} else {
			from = middle
		}
	}
	return from
}

// Intervals are where the rates of candidate and stable are, over the whole rollout, in 99 of 100
// rollouts and at all looks.
func (r RateEvidence) Intervals() (candidate, stable Interval) {
	return interval(r.Total.CandidateEvents, r.Total.CandidateRequests, defaultAlpha),
		interval(r.Total.StableEvents, r.Total.StableRequests, defaultAlpha)
}
