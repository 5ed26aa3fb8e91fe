// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"time"
)

// Pods of the same version differ: one is on a busy node, one has the slow shard. A comparison that
// knows only "candidate" and "stable" takes such a difference for the version's. So it is measured how
// much stable's pods differ among themselves, and evidence counts for so much less.

const (
	// minute is the block of time over which pods are compared, block what the history has in one.
	minute = time.Minute
	// minuteLooks is how many looks of the last minute are remembered; at the planned interval of 5 s
	// all of them.
	minuteLooks = 12
	// minutes is over how many minutes the running dispersion is averaged.
	minutes = 5
)

// dispersion is the numerator and the denominator of the variance-to-mean ratio between pods: how far
// the pods' events are from what each would have if all had the same rate, and how far chance alone
// would take them. The ratio is about 1 where only chance is at work.
func dispersion(pods *sample) (found, expected float64) {
	var n, e float64
	for k := range pods {
		n += pods[k][0]
		e += pods[k][1]
	}
	if n <= 0 || e <= 0 {
		return 0, 0
	}
	p := min(e/n, 1)
	for k := range pods {
		mean := pods[k][0] * p
		found += (pods[k][1] - mean) * (pods[k][1] - mean)
		expected += mean * (1 - pods[k][0]/n) * (1 - p)
	}
	return found, expected
}

// ratio is found over expected, at least 1.
func ratio(found, expected float64) float64 {
	if !(expected > 1e-9) {
		return 1
	}
	return max(1, finite(found/expected))
}

// Noise is the running dispersion of one rate between stable's pods: that of the last minute, averaged
// over the last five.
type Noise struct {
	// Last are the looks of the last minute, a ring: Len are in use, Next is where the next goes.
	Last  [minuteLooks]sample        `json:"last"`
	Spans [minuteLooks]time.Duration `json:"spans"`
	Len   int                        `json:"len"`
	Next  int                        `json:"next"`
	// Minutes are the sums of found and expected dispersion by minute, the newest last; Age is how long
	// that one has been open.
	Minutes [minutes][2]float64 `json:"minutes"`
	Age     time.Duration       `json:"age"`
}

// follow takes in a look that covers dt.
func (n *Noise) follow(pods *sample, dt time.Duration) {
	n.Last[n.Next], n.Spans[n.Next] = *pods, dt
	n.Next = (n.Next + 1) % minuteLooks
	n.Len = min(n.Len+1, minuteLooks)

	var sum sample
	var span time.Duration
	for i := range n.Len {
		at := (n.Next - 1 - i + 2*minuteLooks) % minuteLooks
		if span += n.Spans[at]; i > 0 && span > minute+dt/2 {
			break
		}
		sum.plus(&n.Last[at])
	}
	if n.Age >= minute-dt/2 {
		copy(n.Minutes[:], n.Minutes[1:])
		n.Minutes[minutes-1], n.Age = [2]float64{}, 0
	}
	n.Age += dt
	found, expected := dispersion(&sum)
	newest := &n.Minutes[minutes-1]
	newest[0] = min(newest[0]+found, maxEvidence)
	newest[1] = min(newest[1]+expected, maxEvidence)
}

// phi is by how much evidence is tempered; at least 1. With one pod there is nobody to compare with.
func (n *Noise) phi(pods int) float64 {
	if pods < 2 {
		return 1
	}
	var found, expected float64
	for _, m := range n.Minutes {
		found += m[0]
		expected += m[1]
	}
	return ratio(found, expected)
}

func (n *Noise) clean() {
	if n.Len < 0 || n.Len > minuteLooks || n.Next < 0 || n.Next >= minuteLooks {
		*n = Noise{}
	}
	for i := range n.Last {
		n.Last[i].clean()
		n.Spans[i] = min(max(n.Spans[i], 0), maxDuration)
	}
	for i := range n.Minutes {
		n.Minutes[i][0] = min(max(finite(n.Minutes[i][0]), 0), maxEvidence)
		n.Minutes[i][1] = min(max(finite(n.Minutes[i][1]), 0), maxEvidence)
	}
	n.Age = min(max(n.Age, 0), maxDuration)
}

func (s *sample) clean() {
	for k := range s {
		s[k][0] = min(max(finite(s[k][0]), 0), maxCount)
		s[k][1] = min(max(finite(s[k][1]), 0), s[k][0])
	}
}

// podSigmas is how many standard deviations of the lasting difference between pods are tolerated: all
// but one pod in a hundred.
const podSigmas = 2.33

// inflation is by how much a margin's ratio grows where pods differ lastingly (sigma, of the logarithm
// of their rates): the mean over few candidate pods may be off by that much with no fault of the version.
func inflation(sigma, candidatePods, stablePods float64) float64 {
	return math.Exp(podSigmas * sigma * math.Sqrt(1/candidatePods+1/stablePods))
}

// inflated is the margin for a candidate of so many pods.
func (m Margin) inflated(by float64) Margin {
	m.Ratio = min(m.Ratio*by, maxRatio)
	return m
}
