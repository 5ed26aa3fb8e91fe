// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import "math"

// follows is how what stable's requests lack of successes follows the number of requests from look to look: where both are
// counted together, an additional request fails as often as any other; where successes come later, it always does at first.
// Of stable alone: of a candidate that fails what it can't carry it would be an excuse.
//
// With dn and de for the differences of requests and failures to the look before, the slope is sum(dn de)/sum(dn²). Its
// standard error is taken from what the differences are beside it (White 1980), and is at least that of independent failures: so an
// outage, which is much of what there is in a look or two, is no evidence. Differences of looks that follow each other share a
// look, which makes the variance 1.5 times that of as many independent ones.
type follows struct {
	looks            int
	requests, failed float64
	// Sums over the differences: n of requests, e of failures; and m, the requests of both looks.
	nn, ne, nnm, nnee, nnne, nnnn float64
	// with and against are in how many more or less failed than the mean share of the additional requests.
	with, against int
	// swings is how much of what a look is beside the mean share the next one is on the other side, chance the variance of that by chance.
	swings, chance float64
}

// Limits between together and late, by simulation (successes_test.go). A slope of 0.4 is about that of successes 2 s later, at looks
// every 5 s. Not most looks, but a few make the slope of outages with more requests than usual, as clients retry.
const (
	followsLooks   = 12
	lateSlope      = 0.4
	lateLooks      = 0.6
	lateSigmas     = 4
	togetherSigmas = 3
	likelySigmas   = 2
)

// add takes in a look of one of stable's pods, or of all together, and the one before it; known says that there was one. It notes in now
// how that is beside the mean.
func (f *follows) add(before tallied, now *tallied, known bool) {
	if p := f.share(); f.requests > 0 {
		now.off = now.failed - p*now.requests
		f.swings -= now.off * before.off
		f.chance += p * (1 - p) * now.requests
	}
	f.requests += now.requests
	f.failed += now.failed
	n, e := now.requests-before.requests, now.failed-before.failed
	if !known || n == 0 {
		return
	}
	switch excess := n * (e - f.share()*n); {
	case excess > 0:
		f.with++
	case excess < 0:
		f.against++
	}
	f.looks++
	f.nn += n * n
	f.ne += n * e
	f.nnm += n * n * (now.requests + before.requests)
	f.nnee += n * n * e * e
	f.nnne += n * n * n * e
	f.nnnn += n * n * n * n
}

// share is the mean share of failures.
func (f *follows) share() float64 {
	if f.requests <= 0 {
		return 0
	}
	return min(max(f.failed/f.requests, 0), 1)
}

// slope is how many more of additional requests fail than of all, 0 where both are counted together and about 1 where successes come
// later, and its standard error: infinite where nothing is known, as of traffic that is always the same.
func (f *follows) slope() (slope, sigma float64) {
	p := f.share()
	if f.looks < followsLooks || f.nn <= 0 || p >= 1 {
		return 0, math.Inf(1)
	}
	slope = f.ne / f.nn
	found := f.nnee - 2*slope*f.nnne + slope*slope*f.nnnn
	sigma = math.Sqrt(1.5*max(found, p*(1-p)*f.nnm)) / f.nn
	return (slope - p) / (1 - p), sigma / (1 - p)
}

// late says that successes come later than their requests, so many standard errors from together.
func (f *follows) late(sigmas float64) bool {
	slope, sigma := f.slope()
	return slope > max(lateSlope, sigmas*sigma) && float64(f.with) > lateLooks*float64(f.with+f.against)
}

// together says that they do not, so many standard errors from late.
func (f *follows) together(sigmas float64) bool {
	slope, sigma := f.slope()
	return slope+sigmas*sigma < lateSlope
}

// unlikely says that nothing speaks for late.
func (f *follows) unlikely() bool {
	slope, _ := f.slope()
	return slope < lateSlope/2
}

// phi is by how much looks differ more than by chance, where the next one makes up for it: that is what successes are that come a
// second later, or of which a scrape reads some later. Of the standard deviation, because it cancels out from look to look; but
// single looks would seem to be evidence.
func (f *follows) phi() float64 {
	if f.looks < followsLooks || f.chance <= 0 {
		return 1
	}
	return math.Sqrt(1 + 2*max(f.swings/f.chance, 0))
}
