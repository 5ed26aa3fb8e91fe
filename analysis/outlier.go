// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"time"
)

// OUTLIER asks once a minute: is the candidate an outlier, and is it one more often than a group of
// stable's pods is? It finds what comes and goes, which the other two components forgive, and it does not
// take a service for broken whose pods are outliers now and then.

// outlierBets are the shares of minutes with an outlier that it bets on.
var outlierBets = [...]float64{0.2, 0.5, 0.97}

// groupSizes are the numbers of candidate pods for which the history is asked what to expect.
var groupSizes = [...]int{1, 2, 3, 5, 10}

const (
	// leastOutliers is the least share of minutes with an outlier that is expected: a history without
	// any is no proof that there never is one.
	leastOutliers = 0.01
	// mostOutliers is the largest.
	mostOutliers = 0.95
	// minMinutesToFail is how many minutes OUTLIER alone needs.
	minMinutesToFail = 3
)

// outlier says that a group with n1 requests and e1 events stands out beyond the margin from the rest:
// by three standard deviations, and not by a single event.
func outlier(x arms, m Margin) bool {
	if x.nc <= 0 || x.ns <= 0 || x.ec < 2 {
		return false
	}
	p := x.es / x.ns
	mean := x.nc * (m.Ratio*p + m.Excess)
	variance := mean + x.nc*m.Ratio*x.nc*m.Ratio*p/x.ns
	return x.ec-mean > 3*math.Sqrt(variance+1e-12)
}

// lonely is what to expect where stable has one pod and nobody to compare it with.
func lonely() (out [len(groupSizes)][2]float64) {
	for i := range out {
		out[i] = [2]float64{0.05, 0.5}
	}
	return out
}

// grouped is the size of the groups of stable's pods that stand for a candidate of k pods.
func grouped(k, pods int) int {
	return min(k, max(1, pods/2))
}

// calibrate counts, in the history, in which share of minutes a group of stable's pods that stands for a
// candidate of k pods is an outlier among the rest: after a minute without, and after one with an outlier.
func calibrate(blocks []sample, pods, k int, m Margin) [2]float64 {
	g := grouped(k, pods)
	var minutes, hits [2]float64
	var before [maxPods]bool
	for i := range blocks {
		now := outlyingGroups(&blocks[i], g, m)
		for j := range pods {
			after := 0
			if before[j] {
				after = 1
			}
			minutes[after]++
			if now[j] {
				hits[after]++
			}
		}
		before = now
	}
	first := max(leastOutliers, (hits[0]+0.5)/(minutes[0]+1))
	again := max(first, (hits[1]+0.2)/(minutes[1]+2))
	few := max(1, float64(k)/float64(g))
	return [2]float64{min(first*few, mostOutliers), min(again*few, mostOutliers)}
}

// outlyingGroups says of every group of g neighbours, in a circle, whether it is an outlier among all.
func outlyingGroups(pods *sample, g int, m Margin) (out [maxPods]bool) {
	var n, e float64
	used := 0
	for k := range pods {
		n += pods[k][0]
		e += pods[k][1]
		if pods[k][0] > 0 {
			used = k + 1
		}
	}
	for j := range used {
		var x arms
		for i := range min(g, used) {
			pod := pods[(j+i)%used]
			x.nc += pod[0]
			x.ec += pod[1]
		}
		x.ns, x.es = n-x.nc, e-x.ec
		out[j] = outlier(x, m)
	}
	return out
}

// Outlier is the state of OUTLIER for one rate.
type Outlier struct {
	// Bets are the e-values of the single bets, times the mass in play on each.
	Bets [len(outlierBets)]float64 `json:"bets"`
	// Pending is the mass that comes into play when the minute is over.
	Pending float64 `json:"pending"`
	// Before says that the minute before had an outlier.
	Before bool `json:"before,omitempty"`
	// Minute is what both arms counted in this minute, Pods what stable's pods did; Age is how long it
	// has been open.
	Minute [4]float64    `json:"minute"`
	Pods   sample        `json:"pods"`
	Age    time.Duration `json:"age"`
}

// usual is what OUTLIER needs to know at the end of a minute to tell what is usual in this service.
type usual struct {
	margin   Margin
	baseline *Baseline
	// candidate and pods are the numbers of candidate pods and of stable pods told apart.
	candidate float64
	pods      int
	limit     float64
}

// update takes in a look that covers dt. mass is what is put into play before it.
func (o *Outlier) update(x arms, pods *sample, mass float64, dt time.Duration, about usual) {
	o.Pending = min(o.Pending+mass, 1)
	for i, v := range [4]float64{x.nc, x.ns, x.ec, x.es} {
		o.Minute[i] = min(o.Minute[i]+v, maxCount)
	}
	o.Pods.plus(pods)
	if o.Age += dt; o.Age < minute-dt/2 {
		return
	}
	o.close(about)
}

// close ends a minute.
func (o *Outlier) close(about usual) {
	x := arms{nc: o.Minute[0], ns: o.Minute[1], ec: o.Minute[2], es: o.Minute[3]}
	found := outlier(x, about.margin)
	expected := o.expected(about)
	for i, bet := range outlierBets {
		o.Bets[i] += o.Pending
		bet = max(bet, expected)
		if bet <= expected || x.nc <= 0 || x.ns <= 0 {
			continue
		}
		factor := max(1-bet, 0.001) / (1 - expected)
		if found {
			factor = bet / expected
		}
		o.Bets[i] = min(o.Bets[i]*min(factor, math.Exp(about.limit)), maxEvidence)
	}
	if x.nc > 0 && x.ns > 0 {
		o.Before = found
	}
	o.Pending, o.Minute, o.Pods, o.Age = 0, [4]float64{}, sample{}, 0
}

// expected is the chance of an outlier in this minute with no fault of the version: what the history
// says, or how many of stable's pods are outliers in this very minute.
func (o *Outlier) expected(about usual) float64 {
	size := 0
	for i, k := range groupSizes {
		if float64(k) <= about.candidate {
			size = i
		}
	}
	after := 0
	if o.Before {
		after = 1
	}
	share := about.baseline.Outliers[size][after]
	if share <= 0 { // no history
		share = 0.5
	}
	// More candidate pods than the history was asked for: as often as each of so many groups.
	share *= max(1, about.candidate/float64(groupSizes[size]))
	if about.pods >= 2 {
		g := grouped(int(min(about.candidate, maxPods)), about.pods)
		pods := []sample{o.Pods}
		inOrder(pods)
		hits := 0
		for _, is := range outlyingGroups(&pods[0], g, about.margin) {
			if is {
				hits++
			}
		}
		share = max(share, float64(hits)/float64(about.pods)*max(1, about.candidate/float64(g)))
	}
	return min(share, mostOutliers)
}

// value is OUTLIER's e-value.
func (o *Outlier) value(injected float64) float64 {
	return mean(o.Bets[:]) + max(1-injected+o.Pending, 0)
}

func (o *Outlier) clean() {
	for i := range o.Bets {
		o.Bets[i] = min(max(finite(o.Bets[i]), 0), maxEvidence)
	}
	for i := range o.Minute {
		o.Minute[i] = min(max(finite(o.Minute[i]), 0), maxCount)
	}
	o.Pending = min(max(finite(o.Pending), 0), 1)
	o.Pods.clean()
	o.Age = min(max(o.Age, 0), maxDuration)
}
