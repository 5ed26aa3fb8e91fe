// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"math"
	"slices"
	"time"

	"github.com/headgate/headgate/analysis"
)

// Peer is what another tool would have done at the same looks, as its source says. It stays at one weight.
type Peer interface {
	// Look takes in a look with a weight; true rolls back.
	Look(l analysis.Look) bool
}

// window sums looks up to an interval.
type window struct {
	every          time.Duration
	from           time.Time
	requests, slow uint64
	errors         uint64
	stable, failed uint64
}

// add takes in a look; true when the interval is over.
func (w *window) add(l analysis.Look, dt time.Duration) bool {
	if w.from.IsZero() {
		w.from = l.Time.Add(-dt)
	}
	for name, c := range l.Candidate {
		w.requests += c.Requests
		w.errors += c.Errors
		if slower := l.CandidateServed[name].Slower; len(slower) == len(Bounds) {
			w.slow += slower[slices.Index(Bounds, 0.5)]
		}
	}
	for _, c := range l.Stable {
		w.stable += c.Requests
		w.failed += c.Errors
	}
	return l.Time.Sub(w.from) >= w.every
}

// reset begins the next interval.
func (w *window) reset(at time.Time) { *w = window{every: w.every, from: at} }

// bad says that an absolute threshold was crossed: less than 99 % success, or a 99th percentile above
// 500 ms.
func (w *window) bad() bool {
	n := float64(w.requests)
	return float64(w.errors) > 0.01*n+1e-9 || float64(w.slow) > 0.01*n+1e-9
}

// Flagger checks once a minute; an empty window fails. Failed checks are counted over the whole rollout, and
// at the fifth it rolls back, at the check after it.
func Flagger() Peer { return &flagger{window: window{every: time.Minute}} }

type flagger struct {
	window
	failed int
}

func (f *flagger) Look(l analysis.Look) bool {
	if !f.add(l, 5*time.Second) {
		return false
	}
	if f.failed >= 5 {
		return true
	}
	if f.requests == 0 || f.bad() {
		f.failed++
	}
	f.reset(l.Time)
	return false
}

// Argo Rollouts measures once a minute; NaN is a failure, and the fourth failure rolls back at once.
func Argo() Peer { return &argo{window: window{every: time.Minute}} }

type argo struct {
	window
	failed int
}

func (a *argo) Look(l analysis.Look) bool {
	if !a.add(l, 5*time.Second) {
		return false
	}
	if a.requests == 0 || a.bad() {
		a.failed++
	}
	a.reset(l.Time)
	return a.failed > 3
}

// Kayenta compares the error rates of minutes by a Mann-Whitney test at 98 % and a tolerance of a quarter
// of the estimated difference, every ten minutes over all minutes so far.
func Kayenta() Peer { return &kayenta{window: window{every: time.Minute}} }

type kayenta struct {
	window
	candidate, stable []float64
}

func (k *kayenta) Look(l analysis.Look) bool {
	if !k.add(l, 5*time.Second) {
		return false
	}
	rate := func(e, n uint64) float64 { return float64(e) / float64(max(n, 1)) }
	k.candidate = append(k.candidate, rate(k.errors, k.requests))
	k.stable = append(k.stable, rate(k.window.failed, k.window.stable))
	k.reset(l.Time)
	return len(k.candidate)%10 == 0 && k.high()
}

// high says that the candidate's minutes are higher.
func (k *kayenta) high() bool {
	n := len(k.candidate)
	var differences []float64
	ties := map[float64]float64{}
	for _, c := range k.candidate {
		ties[c]++
		for _, s := range k.stable {
			differences = append(differences, c-s)
		}
	}
	for _, s := range k.stable {
		ties[s]++
	}
	tied := 0.0
	for _, t := range ties {
		tied += t*t*t - t
	}
	slices.Sort(differences)
	size := float64(n)
	pairs := size * size
	sigma := math.Sqrt(pairs / 12 * (2*size + 1 - tied/(2*size*(2*size-1))))
	const z98 = 2.3263478740408408
	low := min(max(int(pairs/2-z98*sigma-0.5), 0), len(differences)-1)
	middle := differences[len(differences)/2]
	return differences[low] > 0.25*math.Abs(middle) && average(k.candidate) >= average(k.stable)
}

func average(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// RunPeer is one rollout at a weight under another tool's rule.
func RunPeer(make func() Peer, w World, weight int, lasts time.Duration, seed uint64) Outcome {
	looks := int(lasts / w.interval())
	s := w.start(seed, looks)
	for t := -s.before; t < 0; t++ {
		s.next(t, 0, 0) // so that the rollout's randomness is that of Headgate's
	}
	peer := make()
	var out Outcome
	for t := range looks {
		l := s.next(t, 0, weight)
		out.After = time.Duration(t+1) * w.interval()
		for _, c := range l.Candidate {
			out.Failed += c.Errors
		}
		if peer.Look(l) {
			out.RolledBack = true
			break
		}
	}
	return out
}

// ManyPeers runs n rollouts under another tool's rule.
func ManyPeers(make func() Peer, w World, weight int, lasts time.Duration, n int) []Outcome {
	return many(n, func(seed uint64) Outcome { return RunPeer(make, w, weight, lasts, seed) })
}
