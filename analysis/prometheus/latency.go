// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"slices"

	"github.com/headgate/headgate/analysis"
)

// within is how many requests a pod answered within each bound, by the bound's label.
type within map[string]uint64

// timings gather the latencies of one target.
type timings struct {
	// bounds are those that each of its sidecars' histograms, a series without Code, counts by, a bit each. Sidecars of two
	// versions may have other ones, and a bound that one of them lacks must not look like one within which nothing was
	// answered.
	bounds            map[series]uint32
	bits              map[string]uint32
	candidate, stable map[string]within
}

// bits gives each bound's label a bit.
func bits() map[string]uint32 {
	out := map[string]uint32{all: 1}
	for _, b := range slices.Concat(latencyBounds(), exponentialBounds()) {
		out[boundLabel(b)] = 1 << len(out)
	}
	return out
}

// see notes that a histogram has a bucket.
func (t *timings) see(s series) {
	if t.bounds == nil {
		t.bounds, t.bits = map[series]uint32{}, bits()
	}
	bit := t.bits[s.Code]
	s.Code = ""
	t.bounds[s] |= bit
}

// common are the bounds that all histograms have that timed anything: the sidecars' own or, where those are not kept,
// an exponential histogram's.
func (t *timings) common() []float64 {
	if len(t.bounds) == 0 {
		return nil
	}
	everywhere := ^uint32(0)
	for _, has := range t.bounds {
		everywhere &= has
	}
	missing := func(bound float64) bool {
		return everywhere&t.bits[all] == 0 || everywhere&t.bits[boundLabel(bound)] == 0
	}
	if own := slices.DeleteFunc(latencyBounds(), missing); len(own) > 0 {
		return own
	}
	return slices.DeleteFunc(exponentialBounds(), missing)
}

// add counts one increment of a bucket for the revision that answered.
func (t *timings) add(target Target, inc increment) {
	arm := &t.stable
	switch inc.Revision {
	case target.Stable:
	case target.Candidate:
		arm = &t.candidate
	default:
		return
	}
	if *arm == nil {
		*arm = map[string]within{}
	}
	if (*arm)[inc.Pod] == nil {
		(*arm)[inc.Pod] = within{}
	}
	(*arm)[inc.Pod][inc.Code] += inc.count()
}

// put sets a look's latencies. A service whose sidecars have never timed a request has none, which is not the
// same as none at this look.
func (t *timings) put(l *analysis.Look) {
	bounds := t.common()
	if len(bounds) == 0 {
		return
	}
	l.Bounds = bounds
	l.CandidateServed, l.StableServed = served(t.candidate, bounds), served(t.stable, bounds)
}

func served(pods map[string]within, bounds []float64) map[string]analysis.Served {
	out := make(map[string]analysis.Served, len(pods))
	for pod, counts := range pods {
		c := analysis.Served{Requests: counts[all]}
		for _, b := range bounds {
			// Buckets are cumulative; one that was scraped in between may be ahead of the sum.
			c.Slower = append(c.Slower, c.Requests-min(counts[boundLabel(b)], c.Requests))
		}
		out[pod] = c
	}
	return out
}
