// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"time"
)

// Look is what was counted between the look before and this one.
type Look struct {
	// Time is when the counters were read. A look whose time is not after the last one was counted
	// already and changes nothing.
	Time time.Time
	// Step is the index of the rollout's step, from 0.
	Step int
	// Weight is the share of requests meant for the candidate, in percent. At 0 nothing is compared.
	Weight int
	// Since is when the step's weight came into force; the zero time where nobody says. The step is judged anew when it changes.
	Since time.Time
	// Paused says that the rollout waits for its user: what is counted is evidence, but the time is none of the step's.
	Paused bool
	// Age is how long before Time the newest of the counters were what they are here, as where Prometheus scrapes seldom or is told late.
	// What is older than Since is not the step's. 0: they were read at Time.
	Age time.Duration
	// Missing says that the counters could not be read. Candidate and Stable are then ignored, and the
	// next look's counts span the gap.
	Missing bool
	// Reason says why, for people.
	Reason string
	// Candidate and Stable are the requests completed by each revision, by the pod whose sidecar made
	// the split (so both arms come from the same pods). Both arms are compared by their sums; how much
	// Stable's pods differ among themselves tells how much a pod of the candidate may differ.
	Candidate, Stable map[string]Counts
	// Bounds are the latencies that the two below count by, in seconds, rising. Empty: no latency was
	// measured at this look.
	Bounds []float64
	// CandidateServed and StableServed are the requests of each revision by the pod that answered them.
	CandidateServed, StableServed map[string]Served
	// CandidatePods is how many pods of the candidate get requests, and are ready for them. Zero: as many as were seen in CandidateServed.
	CandidatePods int
	// Metrics are the current values of the users' metrics. One that is absent counts as missing.
	Metrics []MetricValue
}

// isOld says that a look holds nothing of its step: requests from before the step's weight was in force.
func (l Look) isOld() bool { return !l.Since.IsZero() && l.Time.Add(-l.Age).Before(l.Since) }

// Counts are completed requests of one pod between two looks.
type Counts struct {
	// Requests is how many were completed, errors included.
	Requests uint64
	// Errors is how many of them failed; more than Requests counts as all of them.
	Errors uint64
	// Started is how many this pod has passed on to one of the revision's other pods, answered or not. It tells a revision
	// that never answers from one that gets no requests; 0 where nobody counts it.
	Started uint64
	// Unreached is how many of this pod's connections to the revision's other pods failed. Each counts as an error, though
	// nobody may have seen one, unless it says nothing about the revision: see Unreached.
	Unreached uint64
}

// Served are requests that one pod answered between two looks, by how long it took.
type Served struct {
	// Requests is how many there were.
	Requests uint64
	// Slower is how many of them took longer than each of the look's Bounds, in their order; more than
	// Requests counts as all of them.
	Slower []uint64
}

// MetricValue is the value of a user's metric at one look.
type MetricValue struct {
	// Name is that of its Criterion in the Settings.
	Name string
	// Value is the metric's; the candidate's, where it is compared with Stable, stable's at the same moment. NaN and
	// infinities are missing values.
	Value, Stable float64
	// CandidateCounts and StableCounts are what a rate counted since it was asked for last, by pod: Requests are the
	// denominator, Errors the numerator. Pods are named as in the look's other counts.
	CandidateCounts, StableCounts map[string]Counts
	// Phi is by how much less than independent requests a rate's counts are worth, because they swing from look to look; below 1: 1.
	Phi float64
	// Err says why there is no value; empty when there is one. All of the above is then ignored.
	Err string
	// NotDue says that nobody asked, because it was asked a while ago, or that a rate's counters were read for the first time,
	// which is where counting starts, or that what was counted is not told yet: nothing is known, and nothing is missing.
	NotDue bool
	// Answered says of one that is NotDue that it was asked for and that there was an answer: what was missing before is no more.
	Answered bool
}

func (v MetricValue) missing() bool {
	return v.Err != "" || !isFinite(v.Value) || !isFinite(v.Stable)
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// Totals are the sums of both arms over some time.
type Totals struct {
	CandidateRequests uint64 `json:"candidateRequests"`
	CandidateErrors   uint64 `json:"candidateErrors"`
	StableRequests    uint64 `json:"stableRequests"`
	StableErrors      uint64 `json:"stableErrors"`
	// CandidateStarted are the requests that reached a candidate pod, answered or not.
	CandidateStarted uint64 `json:"candidateStarted,omitempty"`
}

func (t Totals) plus(o Totals) Totals {
	return Totals{
		CandidateRequests: addSaturating(t.CandidateRequests, o.CandidateRequests),
		CandidateErrors:   addSaturating(t.CandidateErrors, o.CandidateErrors),
		StableRequests:    addSaturating(t.StableRequests, o.StableRequests),
		StableErrors:      addSaturating(t.StableErrors, o.StableErrors),
		CandidateStarted:  addSaturating(t.CandidateStarted, o.CandidateStarted),
	}
}

// totals sums the look's completed requests over its pods.
func (l Look) totals() Totals {
	var t Totals
	t.CandidateRequests, t.CandidateErrors = sum(l.Candidate)
	t.StableRequests, t.StableErrors = sum(l.Stable)
	for _, c := range l.Candidate {
		t.CandidateStarted = addSaturating(t.CandidateStarted, c.Started)
	}
	return t
}

func sum(pods map[string]Counts) (requests, errors uint64) {
	for _, c := range pods {
		requests = addSaturating(requests, c.Requests)
		errors = addSaturating(errors, min(c.Errors, c.Requests))
	}
	return requests, errors
}

func addSaturating(a, b uint64) uint64 {
	return min(min(a, maxCount)+min(b, maxCount), maxCount)
}

// maxCount is the largest count kept: above it a float64 can't tell neighbours apart, and sums of a
// full window still fit into an int64.
const maxCount = 1 << 53

// arms are the counts of one look as the formulas take them.
type arms struct {
	nc, ns float64 // completed requests of candidate and stable
	ec, es float64 // events (errors) among them
}

func (t Totals) errors() arms {
	return arms{
		nc: float64(t.CandidateRequests), ns: float64(t.StableRequests),
		ec: float64(t.CandidateErrors), es: float64(t.StableErrors),
	}
}
