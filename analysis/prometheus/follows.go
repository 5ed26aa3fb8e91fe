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
// outage, which is much of what there is in a look or two, is no evidence. Where a look or two are nearly all there is of dn, as of a
// traffic that is always the same but for a change of weight, that finds nothing, and the error is taken from how much de is anyway.
// Differences of looks that follow each other share a look, which makes the variance 1.5 times that of as many independent ones.
type follows struct {
	looks            int
	requests, failed float64
	// Sums over the differences: n of requests, e of failures; and m, the variance of n by chance.
	nn, ne, ee, nnm, nnee, nnne, nnnn float64
	// seconds is the sum of n² times how long the looks were; jumps is how many have far more or less requests than the one before.
	seconds float64
	jumps   int
	// counted is nn as it was a look ago, atOnce the sum of the squares of by how much it rose at a look.
	counted, atOnce float64
	// with and against are in how many more or less failed than the mean share of the additional requests.
	with, against int
	// swings is how much of what a look is beside the mean share the next one is on the other side, chance the variance of that by chance.
	swings, chance float64
}

// Limits between together and late, by simulation (successes_test.go). A slope of 0.4 is about that of successes 2 s later, at looks
// every 5 s (lookLength); at longer ones, where scrapes are rarer, it is that much smaller. Not most looks, but a few make the slope of
// outages with more requests than usual, as clients retry. Where at most looks the requests are a fifth more or less than at the one
// before (jump: of both), they are mostly sums of pods of which a scrape has some at each look: those follow the scrapes, which hides
// what is late, and proves nothing.
const (
	followsLooks   = 12
	lookLength     = 5
	jump           = 0.1
	fewLooks       = 4
	lateSlope      = 0.4
	lateLooks      = 0.6
	lateSigmas     = 4
	togetherSigmas = 3
	likelySigmas   = 2
)

// add takes in what one of stable's pods, or all together, counted from scrape to scrape, and what before; known says that there was
// something before. It notes in now how that is beside the mean.
func (f *follows) add(before tallied, now *tallied, known bool) {
	if p := f.share(); f.requests > 0 {
		now.off = now.failed - p*now.requests
		f.swings -= now.off * before.off
		f.chance += p * (1 - p) * now.requests
	}
	f.requests += now.requests
	f.failed += now.failed
	if known {
		f.compare(before.pace(), now.pace(), (before.seconds+now.seconds)/2)
	}
}

// end is when all of a look is taken in.
func (f *follows) end() {
	look := f.nn - f.counted
	f.counted = f.nn
	f.atOnce += look * look
}

// pace is what a look would count that were lookLength long, and the variance of its requests.
type pace struct{ requests, failed, variance float64 }

// pace is how much that is at a look of lookLength.
func (t *tallied) pace() pace {
	k := lookLength / t.seconds
	return pace{requests: k * t.requests, failed: k * t.failed, variance: k * k * t.requests}
}

// compare takes in by how much two looks differ, as if both were of the same length: else one that misses a scrape, or an answer, would
// be a look with fewer requests of which as many fail as ever, and prove whatever is not so.
func (f *follows) compare(before, now pace, seconds float64) {
	n, e, m := now.requests-before.requests, now.failed-before.failed, now.variance+before.variance
	switch excess := n * (e - f.share()*n); {
	case excess > 0:
		f.with++
	case excess < 0:
		f.against++
	}
	if math.Abs(n) > max(jump*(now.requests+before.requests), 4*math.Sqrt(m)) {
		f.jumps++
	}
	f.looks++
	f.seconds += n * n * seconds
	f.nn += n * n
	f.ne += n * e
	f.ee += e * e
	f.nnm += n * n * m
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

// mostFail says that more than a third fail, of as many as tell that.
func (f *follows) mostFail() bool { return f.requests >= 100 && 3*f.failed > f.requests }

// slope is how many more of additional requests fail than of all, 0 where both are counted together and about 1 where successes come
// later, and its standard error: infinite where nothing is known, as of traffic that is always the same.
func (f *follows) slope() (slope, sigma float64) {
	p := f.share()
	if f.looks < followsLooks || f.nn <= 0 || p >= 1 {
		return 0, math.Inf(1)
	}
	slope = f.ne / f.nn
	found := f.nnee - 2*slope*f.nnne + slope*slope*f.nnnn
	if f.nn*f.nn < fewLooks*f.atOnce {
		found = max(found, (f.ee-slope*f.ne)/float64(f.looks)*f.nn)
	}
	sigma = math.Sqrt(1.5*max(found, p*(1-p)*f.nnm)) / f.nn
	return (slope - p) / (1 - p), sigma / (1 - p)
}

// limit is the slope between together and late, of looks that are so long on average.
func (f *follows) limit() float64 {
	if f.nn <= 0 {
		return lateSlope
	}
	return lateSlope * lookLength / max(f.seconds/f.nn, lookLength)
}

// late says that successes come later than their requests, so many standard errors from together.
func (f *follows) late(sigmas float64) bool {
	slope, sigma := f.slope()
	return slope > max(f.limit(), sigmas*sigma) && float64(f.with) > lateLooks*float64(f.with+f.against)
}

// together says that they do not, so many standard errors from late.
func (f *follows) together(sigmas float64) bool {
	slope, sigma := f.slope()
	return slope+sigmas*sigma < f.limit() && f.jumps < f.looks/2
}

// unlikely says that nothing speaks for late, also where nothing would.
func (f *follows) unlikely() bool {
	slope, sigma := f.slope()
	return slope < f.limit()/2 || sigma > 2*f.limit()
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
