// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"time"
)

// Rate is the state of one compared rate: the share of requests that are errors, or that are slower
// than a bound, or whatever a user's metric counts.
type Rate struct {
	// Name is the cause that a Fail would have.
	Name string `json:"name"`
	// Bound is the latency in seconds; 0 for the error rate and users' metrics.
	Bound float64 `json:"bound,omitempty"`
	// DryRun says that the rate has no part in the verdict.
	DryRun bool `json:"dryRun,omitempty"`
	// Share is the part of the rollout's e-value that is this rate's.
	Share float64 `json:"share"`
	// Total and StepTotal are what was counted of it since the first look and since the step began.
	Total     Tally `json:"total"`
	StepTotal Tally `json:"stepTotal"`
	// Stratum is what of a user's rate is still to be compared.
	Stratum Stratum `json:"stratum,omitzero"`
	// Baseline and Noise say how much stable's pods differ, before and during the rollout.
	Baseline Baseline `json:"baseline"`
	Noise    Noise    `json:"noise"`
	// Seen is what stable's pods counted during the rollout, where there is no history: until Sigma says
	// how much they differ for good, as a history's would.
	Seen  sample  `json:"seen"`
	Sigma float64 `json:"sigma,omitempty"`
	// Fast, Gross and Outlier are the components of its e-value against the candidate.
	Fast    Bets    `json:"fast"`
	Gross   Bets    `json:"gross"`
	Outlier Outlier `json:"outlier"`
	// Acceptance is its e-value for the candidate.
	Acceptance Acceptance `json:"acceptance"`
}

// Tally is what was counted of a rate over some time.
type Tally struct {
	CandidateRequests uint64 `json:"candidateRequests"`
	CandidateEvents   uint64 `json:"candidateEvents"`
	StableRequests    uint64 `json:"stableRequests"`
	StableEvents      uint64 `json:"stableEvents"`
}

func (t *Tally) add(x arms) {
	plus := func(n *uint64, by float64) { *n = addSaturating(*n, uint64(by)) }
	plus(&t.CandidateRequests, x.nc)
	plus(&t.CandidateEvents, x.ec)
	plus(&t.StableRequests, x.ns)
	plus(&t.StableEvents, x.es)
}

func (t *Tally) arms() arms {
	return arms{
		nc: float64(t.CandidateRequests), ns: float64(t.StableRequests),
		ec: float64(t.CandidateEvents), es: float64(t.StableEvents),
	}
}

// newRate is a rate of which nothing was counted yet, after so much mass was put into play.
func newRate(name string, bound, share, injected float64, base Baseline) Rate {
	r := Rate{Name: name, Bound: bound, Share: share, Baseline: base}
	for j := range r.Fast {
		r.Fast[j], r.Gross[j] = injected, injected
	}
	r.Outlier.Pending = injected
	r.Acceptance.restart()
	return r
}

// observation is what one look has for one rate.
type observation struct {
	arms
	pods   sample        // of stable, by slot
	pi     float64       // the candidate's share of the requests; of a user's rate its Stratum says it
	alone  bool          // stable had none of them
	weight float64       // its nominal share
	span   time.Duration // how long the look covers
	phi    float64       // by how much a user's rate is tempered

	look       int64   // its number
	mass       float64 // put into play before it
	settled    bool    // acceptance may use it
	candidates float64 // how many pods the candidate has
	stables    float64 // how many stable has
	slots      int     // how many of those are told apart
}

// margins of the rate.
func (r *Rate) margins(s *Settings) (harm, acceptance Margin) {
	if r.Bound > 0 {
		return s.HarmLatency, s.AcceptanceLatency
	}
	if r.isMetric() {
		return s.metricMargins(r.Name)
	}
	return s.Harm, s.Acceptance
}

// update takes in one look.
func (r *Rate) update(s *Settings, o *observation) {
	r.Total.add(o.arms)
	r.StepTotal.add(o.arms)
	compared, pi := o.arms, o.pi
	if r.isMetric() {
		compared, pi = r.Stratum.add(o.arms)
	}
	r.Noise.follow(&o.pods, o.span)
	phi := max(r.phi(o.slots), o.phi)
	inflate := inflation(max(r.Baseline.Sigma, r.Sigma), o.candidates, o.stables)
	harm, acceptance := r.margins(s)
	harm, acceptance = harm.inflated(inflate), acceptance.inflated(inflate)

	fast, gross := limit(s.Alpha, r.Share*fastWeight, minLooksToFail), limit(s.Alpha, r.Share*grossWeight, minLooksToFail)
	if o.alone { // nothing is known that could speak against the candidate
		fast, gross = 0, 0
	}
	r.Fast.update(compared, pi, harm, o.mass, phi, fast)
	r.Gross.update(compared, pi, grossMargin, o.mass, 1, gross)
	r.Outlier.update(o.arms, &o.pods, o.mass, o.span, usual{
		margin: harm, baseline: &r.Baseline, candidate: o.candidates, pods: o.slots,
		limit: limit(s.Alpha, r.Share*outlierWeight, minMinutesToFail),
	})
	r.Acceptance.follow(compared)
	if o.settled {
		r.Acceptance.update(compared, pi, o.weight, acceptance, phi, s.acceptLimit())
	}
	if r.Baseline.Minutes == 0 {
		r.see(&o.pods, o.look, o.slots)
	}
}

// phi is by how much the rate's evidence is tempered, as far as stable's pods, of which so many are told apart, say.
func (r *Rate) phi(slots int) float64 { return max(1, r.Baseline.Phi, r.Noise.phi(slots)) }

// sigmaLooks is every how many looks the lasting difference between pods is estimated anew where no
// history tells: it takes as long as all the rest, and does not change fast.
const sigmaLooks = 3

// see learns from a look how much stable's pods differ for good; it counts from the next look on.
func (r *Rate) see(pods *sample, look int64, slots int) {
	r.Seen.plus(pods)
	if slots >= 2 && look%sigmaLooks == 0 {
		r.Sigma = lasting(&r.Seen, slots)
	}
}

// harm is the rate's e-value against the candidate.
func (r *Rate) harm(injected float64) float64 {
	return fastWeight*r.Fast.value(injected) + grossWeight*r.Gross.value(injected) + outlierWeight*r.Outlier.value(injected)
}

func (r *Rate) clean() {
	r.Share = min(max(finite(r.Share), 1e-6), 1)
	r.Bound = max(finite(r.Bound), 0)
	r.Stratum.clean()
	r.Baseline.clean()
	r.Noise.clean()
	r.Seen.clean()
	r.Sigma = min(max(finite(r.Sigma), 0), maxSigma)
	r.Fast.clean()
	r.Gross.clean()
	r.Outlier.clean()
	r.Acceptance.clean()
}

func (b *Baseline) clean() {
	b.Minutes = max(b.Minutes, 0)
	b.Phi = min(max(finite(b.Phi), 0), maxEvidence)
	b.Sigma = min(max(finite(b.Sigma), 0), maxSigma)
	for i := range b.Outliers {
		for j := range b.Outliers[i] {
			b.Outliers[i][j] = min(max(finite(b.Outliers[i][j]), 0), mostOutliers)
		}
	}
}

// maxSigma: pods that differ by more than this are not comparable at all.
const maxSigma = 10

// share is how many of the requests are events; NaN without requests.
func share(events, requests uint64) float64 {
	if requests == 0 {
		return math.NaN()
	}
	return float64(min(events, requests)) / float64(requests)
}
