// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"

	"github.com/headgate/headgate/analysis"
)

// users is what must be known of the users' metrics from look to look. The zero value knows nothing.
type users struct {
	asked map[userKey]ask // when each was asked last
	// rates are the last values of the counters, of each rate apart: else a counter that could not be read at first
	// would look like a new one of a pod that is known.
	rates map[userKey]rateMemory
}

// rateMemory is what must be known of one rate.
type rateMemory struct {
	memory
	// outcomes are of one of which less is better, pairs of one of which more is.
	outcomes map[arm]outcomes
	pairs    pairs
}

// arm is a pod of a revision, or, with an empty pod, all of them.
type arm struct{ revision, pod string }

// ask is when a metric was asked for, and in which step at which weight.
type ask struct {
	at           time.Time
	step, weight int
}

// userKey is a metric of a rollout. Of another one nothing is known, also where its candidate takes the place of this one's in
// mid-rollout: what that counted is neither the new one's nor stable's, and whether successes come late may be another answer.
type userKey struct {
	workload
	candidate, stable string
	name              string
}

// metric is the key of one of the target's metrics.
func (t Target) metric(q Query) userKey { return userKey{t.key(), t.Candidate, t.Stable, q.Name} }

const (
	// early is how much before its time a metric may be asked for: looks do not come to the millisecond.
	early = time.Second
	// rateRoom is how many counters of a rate are remembered that are gone.
	rateRoom = 1000
	// rateLag is by how much an answer may be older than the one before, see memory.lag.
	rateLag = time.Minute
	// late is how much after its time a metric may be asked for: when looks are on time again.
	late = 30 * time.Second
)

// rateGap is how long may pass between two answers of a rate: one may be missing.
func rateGap(interval time.Duration) time.Duration { return max(maxGap, 2*interval+late) }

// due says which metrics are to be asked for now, and notes that they are: when their interval is over, and when a step
// begins, which would otherwise have to wait for it. What nobody wants any more is forgotten.
func (u *users) due(at time.Time, targets []Target) map[userKey]bool {
	last, rates := map[userKey]ask{}, map[userKey]rateMemory{}
	due := map[userKey]bool{}
	for _, t := range targets {
		for _, q := range t.Metrics {
			key := t.metric(q)
			now := ask{at, t.Step, t.Weight}
			before, known := u.asked[key]
			due[key] = !known || q.HigherIsBetter || at.Sub(before.at)+early >= q.Interval || now.step != before.step || now.weight != before.weight
			if !due[key] {
				now = before
			}
			last[key] = now
			if m, ok := u.rates[key]; ok {
				rates[key] = m
			}
		}
	}
	u.asked, u.rates = last, rates
	return due
}

// reads are the answers of one look to a metric's queries. The zero value: it was not due.
type reads struct {
	asked bool
	err   error
	// value and stable are numbers, samples are a rate's counters.
	value, stable float64
	samples       []sample
}

// read asks for one metric.
func (c *Client) read(ctx context.Context, moment time.Time, q Query, t Target) reads {
	r := reads{asked: true}
	if q.Unusable != "" {
		r.err = errors.New(q.Unusable)
		return r
	}
	stable := t
	stable.Candidate = t.Stable
	if q.Denominator != "" {
		r.samples, r.err = c.counts(ctx, moment, q, t, stable)
		return r
	}
	if r.value, r.err = c.number(ctx, moment, q.Expression, t); r.err == nil && q.Compared {
		r.stable, r.err = c.number(ctx, moment, q.Expression, stable)
		if r.err != nil {
			r.err = fmt.Errorf("stable's: %w", r.err)
		}
	}
	return r
}

func (c *Client) number(ctx context.Context, moment time.Time, expression string, t Target) (float64, error) {
	v, err := c.evaluate(ctx, moment, expression, t)
	if err != nil {
		return 0, err
	}
	return number(v)
}

// Roles of a rate's counters.
const (
	eventsOf = "events"
	allOf    = "all"
)

// counts asks for a rate's counters of both revisions: all of them, or none. Of events there may be none; a revision without
// any to count by has no rate.
func (c *Client) counts(ctx context.Context, moment time.Time, q Query, candidate, stable Target) ([]sample, error) {
	var out []sample
	for _, arm := range []struct {
		whose  string
		target Target
	}{{"the candidate's", candidate}, {"stable's", stable}} {
		events, err := c.countersOf(ctx, moment, q.Expression, eventsOf, arm.target)
		if err != nil {
			return nil, fmt.Errorf("%s numerator: %w", arm.whose, err)
		}
		all, err := c.countersOf(ctx, moment, q.Denominator, allOf, arm.target)
		if err == nil && len(all) == 0 {
			err = ErrEmpty
		}
		if err == nil && !slices.ContainsFunc(all, func(s sample) bool { return usable(s.Value) }) {
			err = ErrNaN
		}
		if err != nil {
			return nil, fmt.Errorf("%s denominator: %w", arm.whose, err)
		}
		out = append(append(out, events...), all...)
	}
	return out, nil
}

// countersOf are those that an expression has for one revision.
func (c *Client) countersOf(ctx context.Context, moment time.Time, expression, role string, t Target) ([]sample, error) {
	v, err := c.evaluate(ctx, moment, expression, t)
	if err != nil {
		return nil, err
	}
	vector, ok := v.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("%w, but a %s", errNoCounters, v.Type())
	}
	out := make([]sample, 0, len(vector))
	for _, e := range vector {
		if e.Histogram != nil {
			return nil, fmt.Errorf("%w, but a histogram", errNoCounters)
		}
		// A counter is told from others by all of its labels.
		out = append(out, sample{Value: float64(e.Value), series: series{
			source: source{workload: t.key(), Pod: string(e.Metric[labelPod])},
			Name:   role, Revision: t.Candidate, Code: e.Metric.String(),
		}})
	}
	return out, nil
}

// value is what a metric's answers say, as the analysis takes it.
func (u *users) value(at time.Time, t Target, q Query, r reads) analysis.MetricValue {
	out := analysis.MetricValue{Name: q.Name, Value: r.value, Stable: r.stable, NotDue: !r.asked}
	if r.err != nil {
		out.Err = r.err.Error()
	}
	if q.Denominator == "" || !r.asked || r.err != nil {
		return out
	}
	key := t.metric(q)
	before := u.rates[key]
	before.room, before.gap, before.lag = rateRoom, rateGap(q.Interval), rateLag
	next, increments := before.advance(at, r.samples, about([]Target{t}))
	if next.looks == 1 { // where counting starts: what it says is known at the next look
		u.rates[key] = rateMemory{memory: next, pairs: newPairs(at, t.Weight)}
		out.NotDue, out.Answered = true, true
		return out
	}
	after := rateMemory{memory: next, pairs: before.pairs}
	var counts map[arm]analysis.Counts
	if q.HigherIsBetter {
		counts = after.pairs.settle(at, t, q.WarmUp, byPod(r.samples, increments, ownPods(r.samples)))
		out.Err, out.Phi = after.pairs.reason(), after.pairs.follows.phi()
		out.NotDue = counts == nil && out.Err == ""
		out.Answered = out.NotDue
	} else {
		counts = after.settle(at, before.outcomes, byPod(r.samples, increments, strayPods(r.samples, before.outcomes)))
	}
	u.rates[key] = after
	if out.Err != "" || out.NotDue {
		return out
	}
	out.CandidateCounts, out.StableCounts = map[string]analysis.Counts{}, map[string]analysis.Counts{}
	for of, known := range counts {
		if of.revision == t.Candidate {
			out.CandidateCounts[of.pod] = known
		} else {
			out.StableCounts[of.pod] = known
		}
	}
	return out
}

// settle puts events and requests together, and remembers what is left of either. It returns what is known.
func (m *rateMemory) settle(at time.Time, waiting map[arm]outcomes, counts map[arm]analysis.Counts) map[arm]analysis.Counts {
	m.outcomes = map[arm]outcomes{}
	out := map[arm]analysis.Counts{}
	for of, c := range counts {
		o := waiting[of]
		if of.pod == "" {
			o = togetherOf(of.revision, waiting)
		}
		if known := o.settle(at, c); known.Requests > 0 {
			out[of] = known
		}
		if !o.empty() {
			m.outcomes[of] = o
		}
	}
	return out
}

// togetherOf is what all pods of a revision await.
func togetherOf(revision string, waiting map[arm]outcomes) (all outcomes) {
	for of, o := range waiting {
		if of.revision == revision {
			all.join(&o)
		}
	}
	return all
}

// strayPods are the revisions whose pods are taken together of a rate of which less is better: those with events of pods that have
// no requests: the numerator has no label pod, or another one's, or a pod has had no request yet; and those of which some counters
// have no label pod. They are for as long as they await outcomes so, of which nobody knows whose they are.
func strayPods(samples []sample, waiting map[arm]outcomes) map[string]bool {
	requests, together := withRequests(samples), map[string]bool{}
	for of := range waiting {
		if of.pod == "" {
			together[of.revision] = true
		}
	}
	for _, s := range samples {
		if s.Pod == "" || !requests[arm{s.Revision, s.Pod}] {
			together[s.Revision] = true
		}
	}
	return together
}

// withRequests are the pods that the denominator names.
func withRequests(samples []sample) map[arm]bool {
	out := map[arm]bool{}
	for _, s := range samples {
		if s.Name == allOf {
			out[arm{s.Revision, s.Pod}] = true
		}
	}
	return out
}

// ownPods are the revisions whose pods are taken together of a rate of which more is better: those of which some counters have
// no label pod, or no pod has both. Where some have both, successes of another are not of their requests.
func ownPods(samples []sample) map[string]bool {
	requests := withRequests(samples)
	events, both, together := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range samples {
		if s.Pod == "" {
			together[s.Revision] = true
		}
		if s.Name == eventsOf {
			events[s.Revision] = true
			both[s.Revision] = both[s.Revision] || requests[arm{s.Revision, s.Pod}]
		}
	}
	for revision := range events {
		together[revision] = together[revision] || !both[revision]
	}
	return together
}

// byPod are a rate's increments by revision and pod, also of the pods that are there and counted nothing: their outcomes are
// awaited, and those of pods that are gone are not. The pods of some revisions are taken together.
func byPod(samples []sample, increments []increment, together map[string]bool) map[arm]analysis.Counts {
	armOf := func(s series) arm {
		if together[s.Revision] {
			return arm{revision: s.Revision}
		}
		return arm{s.Revision, s.Pod}
	}
	out := map[arm]analysis.Counts{}
	for _, s := range samples {
		out[armOf(s.series)] = analysis.Counts{}
	}
	for _, inc := range increments {
		of := armOf(inc.series)
		c := out[of]
		if inc.Name == allOf {
			c.Requests += inc.count()
		} else {
			c.Errors += inc.count()
		}
		out[of] = c
	}
	return out
}
