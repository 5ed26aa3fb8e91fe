// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"slices"
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
	// Seen says that there was a value in this step; Age is the time since the last one, or since the
	// step began.
	Seen bool          `json:"seen,omitempty"`
	Age  time.Duration `json:"age,omitempty"`
	// Missing says why there was none at the last look; empty when there was.
	Missing string `json:"missing,omitempty"`
}

// accepted says that the metric was in its range at the last look.
func (m Metric) accepted() bool {
	return m.Seen && m.Outside == 0 && m.Missing == ""
}

// update takes the metric's value at a look dt after the one before.
func (m *Metric) update(r Range, v MetricValue, dt time.Duration) {
	if v.missing() {
		m.Age = min(m.Age+dt, maxDuration)
		m.Missing = bounded(orDefault(v.Err != "", v.Err, "the value is not a number"), maxMissing)
		return
	}
	m.Seen, m.Age, m.Missing = true, 0, ""
	if r.contains(v.Value) {
		m.Outside = 0
		return
	}
	m.Outside = min(max(m.Outside, 0)+1, looksOutside)
}

// restart begins a step. Values outside the range keep counting across it.
func (m *Metric) restart() {
	m.Seen, m.Age = false, 0
}

// metrics takes the users' metrics of a look.
func (st *State) metrics(s Settings, values []MetricValue, dt time.Duration) {
	next := make([]Metric, 0, len(s.Metrics))
	for _, r := range s.Metrics {
		m := Metric{Name: r.Name}
		if i := slices.IndexFunc(st.Metrics, func(m Metric) bool { return m.Name == r.Name }); i >= 0 {
			m = st.Metrics[i]
		}
		v := MetricValue{Err: "no value was given"}
		if i := slices.IndexFunc(values, func(v MetricValue) bool { return v.Name == r.Name }); i >= 0 {
			v = values[i]
		}
		m.update(r, v, dt)
		next = append(next, m)
	}
	st.Metrics = next
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

// text is the range for people.
func (r Range) text() string {
	switch {
	case r.Min != nil && r.Max != nil:
		return fmt.Sprintf("%g to %g", *r.Min, *r.Max)
	case r.Min != nil:
		return fmt.Sprintf("at least %g", *r.Min)
	case r.Max != nil:
		return fmt.Sprintf("at most %g", *r.Max)
	}
	return "any value"
}
