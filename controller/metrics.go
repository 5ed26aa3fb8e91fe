// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"time"

	metrics "github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/analysis"
)

// exportedFor is for how long after its last look a rollout has metrics: one that is over has none soon after.
const exportedFor = time.Minute

// descriptions of what the analysis exposes. The labels that say which workload are those of the sidecars'
// series; namespace alone would be the pod's that is scraped.
var (
	harmMetric = metrics.NewDesc("headgate_rollout_harm",
		"Evidence against the candidate, as an e-value: expected to stay below 1 without harm, rolled back at 100 (1000 by the fast lane).", []string{"hg_namespace", "hg_workload"}, nil)
	acceptanceMetric = metrics.NewDesc("headgate_rollout_acceptance",
		"Evidence for the candidate in its step, as an e-value: accepted at 20.", []string{"hg_namespace", "hg_workload"}, nil)
	requestsMetric = metrics.NewDesc("headgate_rollout_requests",
		"Requests that were judged so far in this rollout.", []string{"hg_namespace", "hg_workload", "revision"}, nil)
	errorsMetric = metrics.NewDesc("headgate_rollout_errors",
		"How many of them failed.", []string{"hg_namespace", "hg_workload", "revision"}, nil)
	verdictMetric = metrics.NewDesc("headgate_rollout_verdict",
		"1 for the verdict of the last look.", []string{"hg_namespace", "hg_workload", "result", "cause"}, nil)
	looksMetric = metrics.NewDesc("headgate_rollout_looks_total",
		"Looks at rollouts, by whom was asked for the counters (prometheus, sidecars), and whether there was an answer (ok, missing).",
		[]string{"source", "result"}, nil)
)

// Describe implements prometheus.Collector.
func (l *Looks) Describe(out chan<- *metrics.Desc) {
	for _, d := range []*metrics.Desc{harmMetric, acceptanceMetric, requestsMetric, errorsMetric, verdictMetric, looksMetric} {
		out <- d
	}
}

// Collect implements prometheus.Collector: what the analysis says of the rollouts that it looks at.
func (l *Looks) Collect(out chan<- metrics.Metric) {
	for by, n := range l.looked() {
		out <- metrics.MustNewConstMetric(looksMetric, metrics.CounterValue, float64(n), by.source, by.result)
	}
	for key, j := range l.current() {
		gauge := func(d *metrics.Desc, v float64, more ...string) {
			out <- metrics.MustNewConstMetric(d, metrics.GaugeValue, v, append([]string{key.Namespace, key.Name}, more...)...)
		}
		e := j.evidence
		gauge(verdictMetric, 1, string(j.verdict.Result), j.verdict.Cause)
		gauge(requestsMetric, float64(e.CandidateRequests), "candidate")
		gauge(requestsMetric, float64(e.StableRequests), "stable")
		gauge(errorsMetric, float64(e.CandidateErrors), "candidate")
		gauge(errorsMetric, float64(e.StableErrors), "stable")
		if e.HarmThreshold > 0 { // else nothing is compared
			gauge(harmMetric, e.Harm)
			gauge(acceptanceMetric, e.Acceptance)
		}
	}
}

// Who is asked for the counters.
const (
	byPrometheus = "prometheus"
	bySidecars   = "sidecars" // the fast lane
)

// looksBy are looks of one kind.
type looksBy struct{ source, result string }

// count counts a look. l.mu is held.
func (l *Looks) count(source string, look analysis.Look) {
	by := looksBy{source, "ok"}
	if look.Missing {
		by.result = "missing"
	}
	if l.looks == nil {
		l.looks = map[looksBy]int{}
	}
	l.looks[by]++
}

// looked says how many looks were made; those that there were none of are 0, so that a rate begins with the first.
func (l *Looks) looked() map[looksBy]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[looksBy]int{}
	for _, source := range []string{byPrometheus, bySidecars} {
		for _, result := range []string{"ok", "missing"} {
			out[looksBy{source, result}] = l.looks[looksBy{source, result}]
		}
	}
	return out
}

// began notes the time of a look.
func (l *Looks) began(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = now
}

// current are the rollouts that were looked at lately.
func (l *Looks) current() map[types.NamespacedName]judged {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := maps.Clone(l.judged)
	for key, fast := range l.fast { // what it says is what happens
		if own, ok := out[key]; ok && fast.overrules(own) && own.candidate == fast.candidate && own.began.Equal(fast.began) {
			out[key] = fast
		}
	}
	maps.DeleteFunc(out, func(_ types.NamespacedName, j judged) bool { return l.last.Sub(j.looked) > exportedFor })
	return out
}
