// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"math"

	"github.com/headgate/headgate/analysis"
)

// within is how many requests a pod answered within each bound, by the bound's label.
type within map[string]uint64

// timings gather the latencies of one target.
type timings struct {
	// bounds are those that each of its sidecars counts by. Sidecars of two versions may have other ones, and
	// a bound that one of them lacks must not look like one within which nothing was answered.
	bounds            map[source]map[string]bool
	candidate, stable map[string]within
}

// see notes that a sidecar has a bucket.
func (t *timings) see(s series) {
	if t.bounds == nil {
		t.bounds = map[source]map[string]bool{}
	}
	if t.bounds[s.source] == nil {
		t.bounds[s.source] = map[string]bool{}
	}
	t.bounds[s.source][s.Code] = true
}

// common are the bounds that all sidecars have that timed anything.
func (t *timings) common() (out []float64) {
	for _, b := range latencyBounds() {
		everywhere := len(t.bounds) > 0
		for _, has := range t.bounds {
			everywhere = everywhere && has[all] && has[boundLabel(b)]
		}
		if everywhere {
			out = append(out, b)
		}
	}
	return out
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
	(*arm)[inc.Pod][inc.Code] += uint64(math.Round(min(inc.By, 1<<53)))
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
