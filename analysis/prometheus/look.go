// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"fmt"
	"time"

	"github.com/headgate/headgate/analysis"
)

// Target is a workload in a rollout.
type Target struct {
	Namespace, Workload string
	// Candidate and Stable are the revisions' pod-template-hashes.
	Candidate, Stable string
	// Step and Weight are in force; they go into the Look as they are.
	Step, Weight int
	// Created has the creation times of the workload's pods, of both revisions. One that is absent
	// only costs the pod's first few requests.
	Created map[string]time.Time
	// Sidecars has the addresses (host:port) where the pods' sidecars expose their counters, by pod. Only Sidecars.Looks needs them.
	Sidecars map[string]string
	// CandidatePods is how many pods of the candidate get requests; 0: not known.
	CandidatePods int
	// Since and Paused are the look's, too.
	Since  time.Time
	Paused bool
	// NoLatency says that latencies are not asked for: nobody judges them, and they are half of the series.
	NoLatency bool
	// Metrics are the users' metrics.
	Metrics []Query
}

// Look is one at the target at which nothing was counted yet.
func (t Target) Look(at time.Time) analysis.Look {
	return analysis.Look{Time: at, Step: t.Step, Weight: t.Weight, Since: t.Since, Paused: t.Paused, CandidatePods: t.CandidatePods}
}

// MissingLook is one without data, and why.
func (t Target) MissingLook(at time.Time, reason string) analysis.Look {
	l := t.Look(at)
	l.Missing, l.Reason = true, reason
	return l
}

func (t Target) key() workload { return workload{t.Namespace, t.Workload} }

// look takes in an answer, and makes one Look per target, in their order. m is not changed.
func (m memory) look(at time.Time, targets []Target, a answer, stale time.Duration) (memory, []analysis.Look) {
	before := m.fresh(at)
	next, increments := before.advance(at, a.samples, about(targets))
	return next, looks(at, targets, a, before, increments, stale)
}

// looks makes one Look per target, in their order. before is the memory without the answer.
func looks(at time.Time, targets []Target, a answer, before memory, increments []increment, stale time.Duration) []analysis.Look {
	out := make([]analysis.Look, len(targets))
	index := make(map[workload]int, len(targets))
	for i, t := range targets {
		index[t.key()] = i
		out[i] = t.Look(at)
		out[i].Candidate, out[i].Stable = map[string]analysis.Counts{}, map[string]analysis.Counts{}
	}
	times := make([]timings, len(targets))
	known := make([]bool, len(targets))
	present := make([]bool, len(targets))
	splits := make([]bool, len(targets)) // stable's own sidecars
	own := make(replies)
	for _, s := range a.samples {
		if i, ok := index[s.workload]; ok {
			present[i] = true
			splits[i] = splits[i] || s.Hop == hopLocal && s.Revision == targets[i].Stable
			if s.Name == latencyName {
				times[i].see(s.series)
			}
			known[i] = known[i] || before.knows(s.source)
		}
	}
	for _, inc := range increments {
		if i, ok := index[inc.workload]; ok {
			known[i] = true // of a pod created since the look before
			if inc.Name == latencyName {
				times[i].add(targets[i], inc)
				continue
			}
			add(&out[i], targets[i], inc)
			own.note(inc)
		}
	}
	own.settle(func(of series) map[string]analysis.Counts {
		i := index[of.workload]
		return countsOf(&out[i], targets[i], of.Revision)
	})
	for i, t := range targets {
		capErrors(out[i].Candidate)
		capErrors(out[i].Stable)
		times[i].put(&out[i])
		conclude(&out[i], whyMissing(a, t, present[i], splits[i], known[i], stale), a.age[t.key()])
	}
	return out
}

// conclude notes that a look is worth nothing, and why, or how many seconds old its counts are.
func conclude(l *analysis.Look, why string, age float64) {
	if l.Reason, l.Missing = why, why != ""; !l.Missing {
		l.Age = time.Duration(age * float64(time.Second))
	}
}

// whyMissing says why a target's counts are worth nothing; empty where they are not. Stable's sidecars count both arms of what they
// split: without theirs a candidate that gets half of all requests has hardly any.
func whyMissing(a answer, t Target, present, splits, known bool, stale time.Duration) string {
	age, hasAge := a.age[t.key()]
	switch {
	case !present:
		return "no sidecar's counters found"
	case !splits:
		return "none of stable's sidecars' counters found (a pod without a ReplicaSet is not scraped)"
	case hasAge && age > stale.Seconds():
		return fmt.Sprintf("not scraped for %.0f s", age)
	case !known:
		return "first look at these counters"
	}
	return ""
}

// reply is how many answers of a sidecar were of class 5, how many had gRPC's status for that, and how many broke off.
type reply struct{ class5, unavailable, brokeOff uint64 }

// replies are by pod, hop, port and revision; the series have no name and no code.
type replies map[series]reply

// note takes in an increment of one of the three.
func (own replies) note(inc increment) {
	of := inc.series
	of.Name, of.Code = "", ""
	if of.Hop == hopPeerConn {
		of.Hop = hopPeer // where its requests are in a class
	}
	r := own[of]
	switch _, failed := inc.counts(); {
	case failed && inc.Name == requestsName:
		r.class5 += inc.count()
	case failed && inc.Name == grpcName && inc.Code == grpcUnavailable:
		r.unavailable += inc.count()
	case inc.brokeOff():
		r.brokeOff += inc.count()
	default:
		return
	}
	own[of] = r
}

// settle makes one error of what was counted in two ways: what a sidecar answers itself to a gRPC call (the app has reset it, or can't
// be reached) is UNAVAILABLE with the class of a 503, and an answer that broke off before its headers is in class 5. Where a port has
// both kinds, some of the one may be taken for the other's: then there are fewer errors, in both arms alike.
func (own replies) settle(counts func(of series) map[string]analysis.Counts) {
	for of, r := range own {
		arm := counts(of)
		if arm == nil {
			continue
		}
		c := arm[of.Pod]
		c.Errors -= min(c.Errors, r.class5, r.unavailable)
		c.Errors += r.brokeOff - min(r.brokeOff, r.class5)
		if c != (analysis.Counts{}) {
			arm[of.Pod] = c
		}
	}
}

// countsOf is the revision's part of a look; nil for a revision that the rollout is not about.
func countsOf(l *analysis.Look, t Target, revision string) map[string]analysis.Counts {
	switch revision {
	case t.Stable:
		return l.Stable
	case t.Candidate:
		return l.Candidate
	}
	return nil
}

// add counts one increment for the revision that it was meant for.
func add(l *analysis.Look, t Target, inc increment) {
	requests, errors := inc.counts()
	arm := countsOf(l, t, inc.Revision)
	if arm == nil {
		return
	}
	if !requests && !errors && !inc.started() && !inc.unreached() {
		return
	}
	n := inc.count()
	c := arm[inc.Pod]
	if requests {
		c.Requests += n
	}
	if errors {
		c.Errors += n
	}
	if inc.started() {
		c.Started += n
	}
	if inc.unreached() {
		c.Unreached += n
	}
	arm[inc.Pod] = c
}

// capErrors makes sure that no pod has more errors than requests: a request may be an error in more
// than one way.
func capErrors(pods map[string]analysis.Counts) {
	for pod, c := range pods {
		c.Errors = min(c.Errors, c.Requests)
		pods[pod] = c
	}
}
