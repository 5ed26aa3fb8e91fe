// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"slices"
	"strconv"
	"time"
)

// Latency is compared by how many requests were slower than a bound, for several bounds at once. Each of
// them is a rate like that of errors, and judged the same way. No quantile is estimated: it would have
// to be interpolated between bounds, and what is known of its error holds for one look only.

const (
	// maxBounds is how many bounds are judged at most.
	maxBounds = 6
	// leastTail and mostTail are between which shares of stable's requests must be slower than a bound
	// for it to be judged: others hardly ever change, or take long to tell anything.
	leastTail, mostTail = 0.0005, 0.9
	// fewSlower is the largest share of slower requests at which a bound still shows whatever is slower for a few.
	fewSlower = 0.02
	// enoughServed is how many requests of stable are needed to choose.
	enoughServed = 200
	// errorShare is the part of the rollout's e-value that is the error rate's where latency is judged
	// too; the bounds share the rest.
	errorShare = 0.5
)

// Latency is what is known of the latencies as a whole.
type Latency struct {
	// Expected says that latency is judged in this rollout. It is decided at the first look with a
	// weight, because the parts of the e-value must not change.
	Expected bool `json:"expected,omitempty"`
	// Chosen says that the bounds are chosen.
	Chosen bool `json:"chosen,omitempty"`
	// Missing says that the last look had no latencies, Blind for how long that has been so.
	Missing bool          `json:"missing,omitempty"`
	Blind   time.Duration `json:"blind,omitempty"`
	// Bounds are those that Tails counts by, while they are not chosen: Served requests of stable so
	// far, and how many of them were slower.
	Bounds []float64 `json:"bounds,omitempty"`
	Tails  []uint64  `json:"tails,omitempty"`
	Served uint64    `json:"served,omitempty"`
	// Warm and Known are how many of the candidate's pods are judged by their latency, and how many there
	// are. Share is the window for the judged pods' share of the requests, for as long as they are the same.
	Warm  int    `json:"warm,omitempty"`
	Known int    `json:"known,omitempty"`
	Share Window `json:"share"`
}

// served is what one look has of one arm's latencies.
type served struct {
	requests float64            // of the pods that are judged
	slower   [maxBounds]float64 // of those, by chosen bound
	broken   bool               // a pod's counts are incomplete
}

// latencies are both arms' at one look.
type latencies struct {
	candidate, stable served
	index             [maxBounds]int // of each chosen bound in the look's Bounds; -1: not there
}

// rising says that bounds are usable: positive, finite, each larger than the one before.
func rising(bounds []float64) bool {
	last := 0.0
	for _, b := range bounds {
		if !(b > last) || math.IsInf(b, 0) {
			return false
		}
		last = b
	}
	return true
}

// serve sums the latencies of one arm, without the pods that are left out.
func serve(pods map[string]Served, bounds int, index []int, leftOut func(pod string) bool) served {
	var out served
	for name, c := range pods {
		if len(c.Slower) < bounds {
			out.broken = out.broken || c.Requests > 0
			continue
		}
		if leftOut != nil && leftOut(name) {
			continue
		}
		n := min(c.Requests, maxCount)
		out.requests += float64(n)
		for i, at := range index {
			if at >= 0 {
				out.slower[i] += float64(min(c.Slower[at], n))
			}
		}
	}
	return out
}

// latencies sums a look's; ok is false where they are missing.
func (st *State) latencies(s Settings, l Look) (out latencies, ok bool) {
	chosen := 0
	known := true
	for i := range st.Rates {
		if bound := st.Rates[i].Bound; bound > 0 && chosen < maxBounds {
			out.index[chosen] = slices.Index(l.Bounds, bound)
			known = known && out.index[chosen] >= 0
			chosen++
		}
	}
	index := out.index[:chosen]
	out.candidate = serve(l.CandidateServed, len(l.Bounds), index, func(pod string) bool { return st.warming(s, pod) })
	out.stable = serve(l.StableServed, len(l.Bounds), index, nil)
	empty := len(l.CandidateServed)+len(l.StableServed) == 0
	if empty {
		return latencies{}, l.idle()
	}
	return out, known && len(l.Bounds) > 0 && !out.candidate.broken && !out.stable.broken
}

// latency takes in the latencies of a look; what it returns is empty where they are missing.
func (st *State) latency(s Settings, l Look, dt time.Duration) latencies {
	p := &st.Latency
	if !p.Expected {
		return latencies{}
	}
	lat, ok := st.latencies(s, l)
	if p.Missing = !ok; !ok {
		p.Blind = min(p.Blind+dt, maxDuration)
		return latencies{}
	}
	p.Blind = 0
	warm, known := st.warm(s), st.present()+st.unlisted(l.CandidateServed)
	if (warm == 0) != (p.Warm == 0) || warm*p.Known != p.Warm*known { // another part of the candidate's requests is judged
		p.Share = Window{}
	}
	p.Warm, p.Known = warm, known
	if !p.Chosen && p.Warm > 0 && p.Served >= enoughServed && st.chooseBounds(s, l) {
		lat, _ = st.latencies(s, l)
	}
	p.Share.add(uint64(lat.candidate.requests), uint64(lat.stable.requests))
	return lat
}

// warm is how many of the candidate's pods are judged by their latency.
func (st *State) warm(s Settings) int {
	n := 0
	for i := range st.Fresh {
		if !st.Fresh[i].isGone() && !st.warming(s, st.Fresh[i].Name) {
			n++
		}
	}
	return n
}

// judgedWeight is what of a weight goes to pods that are judged, of all requests that are: the others' do not
// count. It assumes that pods get equal parts, until enough is counted.
func (p *Latency) judgedWeight(weight float64) float64 {
	part := float64(p.Warm) / float64(max(p.Known, 1))
	return weight * part / (1 - weight + weight*part + 1e-12)
}

// observe is what the look has for the i-th rate: both arms, stable's pods, and the candidate's share of
// what is judged. As long as all of the candidate's pods are warming up it has nothing. Looks in which
// judged pods merely had no request do count: leaving those out would leave out stable's events only.
func (lat *latencies) observe(st *State, l *Look, i int, weight float64) (x arms, pods sample, pi float64) {
	at := i - (len(st.Rates) - st.bounds())
	if lat.stable.requests > 0 {
		for k := range st.Pods {
			if c, ok := l.StableServed[st.Pods[k].Name]; ok && len(c.Slower) >= len(l.Bounds) {
				n := min(c.Requests, maxCount)
				pods[k] = PodCount{float64(n), float64(min(c.Slower[lat.index[at]], n))}
			}
		}
	}
	if st.Latency.Warm == 0 {
		return arms{}, pods, 0.5
	}
	x = arms{nc: lat.candidate.requests, ns: lat.stable.requests, ec: lat.candidate.slower[at], es: lat.stable.slower[at]}
	return x, pods, st.Latency.Share.share(st.Latency.judgedWeight(weight))
}

// bounds is how many latencies are judged. They come last among the rates.
func (st *State) bounds() int {
	n := 0
	for i := range st.Rates {
		if st.Rates[i].Bound > 0 {
			n++
		}
	}
	return min(n, maxBounds)
}

// idle says that no requests were completed.
func (l Look) idle() bool {
	t := l.totals()
	return t.CandidateRequests == 0 && t.StableRequests == 0
}

// remember counts stable's latencies until the bounds are chosen.
func (p *Latency) remember(l Look) {
	if p.Chosen || len(l.Bounds) == 0 {
		return
	}
	if !slices.Equal(p.Bounds, l.Bounds) {
		bounds := l.Bounds[:min(len(l.Bounds), maxRemembered)]
		p.Bounds, p.Tails, p.Served = slices.Clone(bounds), make([]uint64, len(bounds)), 0
	}
	for _, c := range l.StableServed {
		if len(c.Slower) < len(p.Bounds) {
			continue
		}
		p.Served = addSaturating(p.Served, c.Requests)
		for i := range p.Bounds {
			p.Tails[i] = addSaturating(p.Tails[i], min(c.Slower[i], c.Requests))
		}
	}
}

// maxRemembered bounds the list of bounds.
const maxRemembered = 40

// choose finds at most n bounds to judge, of those that are measured now, from what stable did so far: those that split its
// requests into two parts of which neither is almost empty. The candidate has no say in it, or it would choose by what it
// did. Where there are more than n, they are spread evenly over them. One that the user named is judged alone,
// whatever stable did.
//
// A service that is faster than all bounds, or nearly always between two of them, has none that shows what becomes slower
// for a few, and maybe none at all. The first bound that it hardly ever passes is judged, too, then.
func (p *Latency) choose(s Settings, n int, measured []float64) []float64 {
	if named := s.LatencyBound.Seconds(); slices.Contains(p.Bounds, named) && slices.Contains(measured, named) {
		return []float64{named}
	}
	var out []float64
	for i, bound := range p.Bounds {
		tail := share(p.Tails[i], p.Served)
		if !(tail < mostTail) || !slices.Contains(measured, bound) {
			continue
		}
		if tail > leastTail || !p.shows(out) {
			out = append(out, bound)
		}
	}
	return spread(out, n)
}

// shows says that few of stable's requests are slower than one of the bounds.
func (p *Latency) shows(bounds []float64) bool {
	return slices.ContainsFunc(bounds, func(bound float64) bool {
		return share(p.Tails[slices.Index(p.Bounds, bound)], p.Served) <= fewSlower
	})
}

// spread is at most n of the bounds, evenly.
func spread(bounds []float64, n int) []float64 {
	if len(bounds) <= n {
		return bounds
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = bounds[i*(len(bounds)-1)/(n-1)]
	}
	return out
}

// chooseBounds makes a rate of each bound, unless the look has none of those that stable was measured by.
func (st *State) chooseBounds(s Settings, l Look) bool {
	p := &st.Latency
	if !slices.ContainsFunc(p.Bounds, func(b float64) bool { return slices.Contains(l.Bounds, b) }) {
		return false
	}
	bounds := p.choose(s, maxTracked, l.Bounds)
	if st.History.Minutes() > 0 { // those with a history are known better
		known := slices.DeleteFunc(slices.Clone(bounds), func(b float64) bool { return !slices.Contains(st.History.Bounds, b) })
		bounds = orDefault(len(known) > 0, known, bounds)
	}
	bounds = spread(bounds, maxBounds-s.rates())
	part := 1.0 // the rates before have theirs
	for i := range st.Rates {
		if !st.Rates[i].DryRun {
			part -= st.Rates[i].Share
		}
	}
	for _, bound := range bounds {
		base := baseline(st.History.slowerBlocks(bound), st.Pods.busy(), s.HarmLatency, stablePods(l))
		st.Rates = append(st.Rates, newRate(CauseLatency+strconv.FormatFloat(bound, 'g', -1, 64), bound, part/float64(len(bounds)), st.inPlay(), base))
	}
	p.Chosen, p.Bounds, p.Tails, p.Served = true, nil, nil, 0
	st.History = nil
	return true
}

func (p *Latency) clone() Latency {
	out := *p
	out.Bounds, out.Tails = slices.Clone(p.Bounds), slices.Clone(p.Tails)
	if len(out.Bounds) != len(out.Tails) || len(out.Bounds) > maxRemembered {
		out.Bounds, out.Tails, out.Served = nil, nil, 0
	}
	out.Blind = min(max(out.Blind, 0), maxDuration)
	out.Share.clean()
	return out
}
