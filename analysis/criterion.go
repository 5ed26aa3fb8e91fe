// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Criterion says how a user's metric is judged: by exactly one of Range, Compared and Rate.
type Criterion struct {
	// Name is unique among the Settings' metrics.
	Name string
	// Range bounds the value.
	Range *Range
	// Compared bounds it by stable's value at the same moment.
	Compared *Comparison
	// Rate makes it a rate like that of errors, judged by the same sequential method.
	Rate *RateCriterion
	// DryRun shows what the metric says, and lets it decide nothing.
	DryRun bool
	// Vote is the metric's vote in percent, 1 to 100. Metrics whose votes together reach 100 decide: that the candidate
	// fails, that the step is not accepted, that the judge is blind. Of a rate it is the part in the rollout's e-value,
	// where errors and latencies together have 100. Default 100.
	Vote int
	// Interval is how often the metric is asked for. Default: at every look.
	Interval time.Duration
	// WarmUp is for how long after the candidate first has a weight the metric's values are ignored. No step is accepted before.
	WarmUp time.Duration
}

// Range bounds a user's metric, both ends inclusive.
type Range struct {
	// Min and Max are open when nil or NaN.
	Min, Max *float64
}

// Comparison bounds the candidate's value by stable's, both ends inclusive.
type Comparison struct {
	// Min and Max are open when nil.
	Min, Max *Margin
}

// RateCriterion is what is tolerated of a user's rate, of which less is better.
type RateCriterion struct {
	// Harm is the margin below which nothing is rolled back, Acceptance the one that must be ruled out to advance.
	// Default: those of the error rate.
	Harm, Acceptance Margin
}

// MaxRates is how many of the users' metrics can be rates. Each takes the place of a latency bound, because the state
// must stay small; more are left out.
const MaxRates = 3

// Decisive is how many votes, of all metrics together, decide.
const Decisive = 100

// Votes are how many the metric has, from 0, in a dry run, to Decisive.
func (c *Criterion) Votes() int {
	if c.DryRun {
		return 0
	}
	return orDefault(c.Vote > 0 && c.Vote <= Decisive, c.Vote, Decisive)
}

// VotesToPass are how many the metric has in whether a step may pass: its Votes; of a rate all, whatever its part in the
// evidence, because a step is accepted only where each rate is. From 0, in a dry run, to Decisive.
func (c *Criterion) VotesToPass() int {
	if c.Rate != nil && !c.DryRun {
		return Decisive
	}
	return c.Votes()
}

// warmUp is for how long the values are ignored. What a rate has counted when it is asked for goes back for its interval.
func (c *Criterion) warmUp() time.Duration {
	if c.Rate != nil && c.WarmUp > 0 {
		return c.WarmUp + c.Interval
	}
	return c.WarmUp
}

// contains says that a value is where it should be. A rate's value is judged elsewhere.
func (c *Criterion) contains(v MetricValue) bool {
	switch {
	case c.Range != nil:
		return (c.Range.Min == nil || !(v.Value < *c.Range.Min)) && (c.Range.Max == nil || !(v.Value > *c.Range.Max))
	case c.Compared != nil:
		low, high := c.Compared.Min, c.Compared.Max
		return (low == nil || !(v.Value < low.at(v.Stable))) && (high == nil || !(v.Value > high.at(v.Stable)))
	}
	return true
}

// at is the line's value where stable has v. The ratio is of v's size: 1.2 allows a fifth of it more, also below zero, where
// 1.2 times v would be less than v.
func (m *Margin) at(v float64) float64 { return v + (m.Ratio-1)*math.Abs(v) + m.Excess }

// criterion is that of a metric; nil where there is none.
func (s *Settings) criterion(name string) *Criterion {
	for i := range s.Metrics {
		if s.Metrics[i].Name == name {
			return &s.Metrics[i]
		}
	}
	return nil
}

// rates is how many of the users' metrics are rates.
func (s *Settings) rates() (n int) {
	for i := range s.Metrics {
		if s.Metrics[i].Rate != nil && n < MaxRates {
			n++
		}
	}
	return n
}

// rateVotes are the votes of the metrics that are rates.
func (s *Settings) rateVotes() (votes float64) {
	for i := range s.Metrics {
		if s.Metrics[i].Rate != nil {
			votes += float64(s.Metrics[i].Votes())
		}
	}
	return votes
}

// builtIn is the part of the rollout's e-value that errors and latencies have together.
func (s *Settings) builtIn(latency bool) float64 {
	if s.NoErrorRate && !latency {
		return 0
	}
	return Decisive / (Decisive + s.rateVotes())
}

// metricRates are the users' rates, of which nothing was counted yet. What one has in a dry run is what it would have
// alone beside errors and latencies.
func (s *Settings) metricRates(latency bool, injected float64) (out []Rate) {
	left := 1 - s.builtIn(latency)
	votes := s.rateVotes()
	for i := range s.Metrics {
		c := &s.Metrics[i]
		if c.Rate == nil || len(out) == MaxRates {
			continue
		}
		part := left * float64(c.Votes()) / max(votes, 1)
		if c.DryRun {
			part = errorShare
		}
		r := newRate(CauseMetric+c.Name, 0, part, injected, Baseline{})
		r.DryRun = c.DryRun
		out = append(out, r)
	}
	return out
}

// metricMargins are those of a user's rate, by its cause.
func (s *Settings) metricMargins(cause string) (harm, acceptance Margin) {
	harm, acceptance = defaultHarm, defaultAcceptance
	if c := s.criterion(strings.TrimPrefix(cause, CauseMetric)); c != nil && c.Rate != nil {
		harm = orDefault(c.Rate.Harm.valid(), c.Rate.Harm, harm)
		acceptance = orDefault(c.Rate.Acceptance.valid() && c.Rate.Acceptance.Excess > 0, c.Rate.Acceptance, acceptance)
	}
	return harm, acceptance
}

// text is the criterion for people.
func (c *Criterion) text() string {
	if c.Compared != nil {
		return span(c.Compared.Min.text(), c.Compared.Max.text())
	}
	if c.Range == nil {
		return span("", "")
	}
	value := func(v *float64) string {
		if v == nil {
			return ""
		}
		return fmt.Sprintf("%g", *v)
	}
	return span(value(c.Range.Min), value(c.Range.Max))
}

// span is a range between two bounds, of which either may be empty.
func span(low, high string) string {
	switch {
	case low != "" && high != "":
		return low + " to " + high
	case low != "":
		return "at least " + low
	case high != "":
		return "at most " + high
	}
	return "any value"
}

// text is the line for people; empty without one.
func (m *Margin) text() string {
	if m == nil {
		return ""
	}
	text := "stable's"
	if m.Ratio != 1 {
		text = fmt.Sprintf("%g times stable's", m.Ratio)
	}
	switch {
	case m.Excess > 0:
		return fmt.Sprintf("%s plus %g", text, m.Excess)
	case m.Excess < 0:
		return fmt.Sprintf("%s minus %g", text, -m.Excess)
	}
	return text
}
