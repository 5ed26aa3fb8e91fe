// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
)

// looksOutside is how many values in a row must be outside their range before a metric fails the
// candidate. One is a glitch (a scrape that came late, the edge of a rate's window), and two can be
// the same glitch seen by two looks; three at the default interval are 15 s, as fast as the
// comparison of error rates gets.
const looksOutside = 3

// Metric is the state of one user's metric.
type Metric struct {
	Name string `json:"name"`
	// Outside is how many values in a row were outside the range, across missing ones.
	Outside int `json:"outside"`
	// Seen says that there was a value in this step; Age is the time since the last answer, or, while nothing is missing, since
	// the step began.
	Seen bool          `json:"seen,omitempty"`
	Age  time.Duration `json:"age,omitempty"`
	// Warm is for how long the candidate has had a weight, with requests or without; it stops at the end of the warm-up.
	Warm time.Duration `json:"warm,omitempty"`
	// Value is the last one, and Stable what it was compared with; 0 of a rate.
	Value  float64 `json:"value,omitempty"`
	Stable float64 `json:"stable,omitempty"`
	// Missing says why there was none when it was asked for last; empty when there was one, or there will be one of what was answered.
	Missing string `json:"missing,omitempty"`
}

// accepted says that the metric was in its range at the last look.
func (m *Metric) accepted() bool {
	return m.Seen && m.Outside == 0 && m.Missing == ""
}

// update takes the metric's value at a look dt after the one before, and says whether it counts.
func (m *Metric) update(c *Criterion, v MetricValue, dt time.Duration) bool {
	if m.Warm < c.warmUp() {
		m.Warm = min(m.Warm+dt, maxDuration)
		return false
	}
	if v.NotDue && v.Answered { // else it would go on saying why there was no answer once, and be blind for that
		m.Age, m.Missing = 0, ""
		return false
	}
	if v.NotDue {
		m.Age = min(m.Age+dt, maxDuration)
		return false
	}
	if v.missing() {
		m.Age = min(m.Age+dt, maxDuration)
		m.Missing = bounded(orDefault(v.Err != "", v.Err, "the value is not a number"), maxMissing)
		return false
	}
	m.Seen, m.Age, m.Missing, m.Value, m.Stable = true, 0, "", v.Value, v.Stable
	if c.contains(v) {
		m.Outside = 0
		return true
	}
	m.Outside = min(max(m.Outside, 0)+1, looksOutside)
	return true
}

// restart begins a step. Values outside the range keep counting across it, and so do those that are missing.
func (m *Metric) restart() {
	m.Seen = false
	if m.Missing == "" {
		m.Age = 0
	}
}

// absent is of a metric whose value is missing, awaited of one that has had none in this step, and that is not missing: it
// warms up, or is asked for later.
func absent(_ *Criterion, m *Metric) bool { return m.Missing != "" }

func awaited(c *Criterion, m *Metric) bool { return !m.Seen && !absent(c, m) }

// metrics takes the users' metrics of a look, and returns those that count.
func (st *State) metrics(s Settings, values []MetricValue, dt time.Duration) (counted []MetricValue) {
	next := make([]Metric, 0, len(s.Metrics))
	for i := range s.Metrics {
		c := &s.Metrics[i]
		m := Metric{Name: c.Name}
		if i := slices.IndexFunc(st.Metrics, func(m Metric) bool { return m.Name == c.Name }); i >= 0 {
			m = st.Metrics[i]
		}
		v := MetricValue{Err: "no value was given"}
		if i := slices.IndexFunc(values, func(v MetricValue) bool { return v.Name == c.Name }); i >= 0 {
			v = values[i]
		}
		if m.update(c, v, dt) {
			counted = append(counted, v)
		}
		next = append(next, m)
	}
	st.Metrics = next
	return counted
}

// votes are those of the metrics of which something is so, and the name of the one that has most of them. A rate's value is never
// out of a range, so that its votes are about whether the step may pass.
func (st *State) votes(s Settings, is func(*Criterion, *Metric) bool) (votes int, name string) {
	most := 0
	for c, m := range st.voters(s, is) {
		v := c.VotesToPass()
		votes += v
		if v > most {
			most, name = v, m.Name
		}
	}
	return votes, name
}

// voters are the metrics that have votes, of which something is so.
func (st *State) voters(s Settings, is func(*Criterion, *Metric) bool) iter.Seq2[*Criterion, *Metric] {
	return func(yield func(*Criterion, *Metric) bool) {
		for i := range st.Metrics {
			m := &st.Metrics[i]
			if c := s.criterion(m.Name); c != nil && c.Votes() > 0 && is(c, m) && !yield(c, m) {
				return
			}
		}
	}
}

// outside is of a metric that was outside its range n times in a row.
func outside(n int) func(*Criterion, *Metric) bool {
	return func(_ *Criterion, m *Metric) bool { return m.Outside >= n }
}

// blindMetric says that users' metrics have had no value for too long: for BlindAfter, and twice in a row.
func (st *State) blindMetric(s Settings) bool {
	return st.silent(s, func(c *Criterion, m *Metric) bool {
		return absent(c, m) && m.Age >= max(s.BlindAfter, 2*c.Interval)
	})
}

// silent says that metrics of which something is so keep the step from passing, together with those outside their range.
func (st *State) silent(s Settings, is func(*Criterion, *Metric) bool) bool {
	some, _ := st.votes(s, is)
	all, _ := st.votes(s, func(c *Criterion, m *Metric) bool { return m.Outside > 0 || is(c, m) })
	return some > 0 && all >= Decisive
}

// isMetric says that the rate is a user's.
func (r *Rate) isMetric() bool { return strings.HasPrefix(r.Name, CauseMetric) }

// observe is what the look has for a user's rate: both arms, stable's pods, and by how much it is tempered. It has nothing where the
// rate was not asked for, is missing, or is warming up.
func (r *Rate) observe(pods *Pods, values []MetricValue) (x arms, stable sample, phi float64) {
	at := slices.IndexFunc(values, func(v MetricValue) bool { return CauseMetric+v.Name == r.Name })
	if at < 0 {
		return arms{}, sample{}, 1
	}
	l := Look{Candidate: values[at].CandidateCounts, Stable: values[at].StableCounts}
	return l.totals().errors(), l.stableSample(pods), finite(values[at].Phi)
}

// compares says that rates are compared on which the verdict rests.
func (st *State) compares() bool { return st.evidential() > 0 }

// evidential is how many rates the verdict rests on: those that are not in a dry run.
func (st *State) evidential() (n int) {
	for i := range st.Rates {
		if !st.Rates[i].DryRun {
			n++
		}
	}
	return n
}

// comparesRequests says that requests are compared, not users' rates alone.
func (st *State) comparesRequests() bool {
	return st.Latency.Expected || slices.ContainsFunc(st.Rates, func(r Rate) bool { return !r.isMetric() })
}

const (
	// maxMissing bounds the stored reason for a missing value, in bytes.
	maxMissing = 120
	// maxDuration bounds remembered spans of time.
	maxDuration = 1000 * time.Hour
)

// bounded cuts text to at most n bytes, at the start of a character.
func bounded(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && text[n]&0xC0 == 0x80 {
		n--
	}
	return text[:n]
}

// metricText is what the metrics outside their ranges say, those with the largest votes first.
func (st *State) metricText(s Settings, n int) string {
	var out []string
	for c, m := range st.voters(s, outside(n)) {
		out = append(out, m.text(c))
	}
	return strings.Join(out, ", ")
}

// text is the value that is outside its range.
func (m *Metric) text(c *Criterion) string {
	if c.Compared != nil {
		return fmt.Sprintf("metric %q is %g and stable's %g, outside its range (%s)", m.Name, m.Value, m.Stable, c.text())
	}
	return fmt.Sprintf("metric %q is %g, outside its range (%s)", m.Name, m.Value, c.text())
}
