// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/load"
)

// Model is everything that the screen shows. Apply makes the next one of it; nothing else changes it.
type Model struct {
	Updates []Update
	// Current is the index of the update under way, or of the last one; -1 before the first.
	Current int
	// Now is the time of the last event, Began that of the current update.
	Now, Began time.Time
	// Status is the workload's Rollout.
	Status v1alpha1.RolloutStatus
	// Steps are the weights of the policy.
	Steps []int32
	Pods  []PodView
	// Stable and Candidate are versions (image tags). Candidate is empty until the first update.
	Stable, Candidate string
	// Last are the counts so far, Base those when the current update began; LastSeconds is the age of
	// the client at Last.
	Last, Base  load.Counts
	LastSeconds float64
	// Series are answers per second by version; at most seriesLength, newest last.
	Series []Second
	// Timeline tells the current update.
	Timeline []Entry
}

// seriesLength is what the widest screen shows.
const seriesLength = 120

// Update is one of the three.
type Update struct {
	// Name is a word for machines, Title one line for people.
	Name, Title string
	Tag         string
	Want        v1alpha1.Outcome
	// Result is nil until it has ended.
	Result *Result
}

// Second is what was answered in one second, by version.
type Second struct {
	Seconds  float64 // its length; late reports make it longer than 1
	Versions map[string]load.Tally
}

// Entry is one line of the timeline.
type Entry struct {
	At   time.Duration // since the update began
	Text string
	Mood Mood
}

// Mood colours a text.
type Mood int

// Moods.
const (
	Plain Mood = iota
	Good
	Bad
	Busy
)

// PodState is what matters about a pod.
type PodState int

// States of a pod.
const (
	PodPending  PodState = iota // not running yet
	PodRunning                  // running, some container not ready
	PodWaiting                  // ready but for its gate
	PodReady                    // gets requests
	PodCrashing                 // its container keeps ending
	PodLeaving                  // being deleted
)

// PodView is a pod on the screen.
type PodView struct {
	Name     string
	Revision string
	State    PodState
}

// Event is something that happened.
type Event interface{ at() time.Time }

// The events.
type (
	// Ticked says that time passes.
	Ticked struct{ Time time.Time }
	// Started says that the update with this index was made.
	Started struct {
		Time  time.Time
		Index int
	}
	// Ended says that the update with this index has its result.
	Ended struct {
		Time   time.Time
		Index  int
		Result Result
	}
	// Recorded says that the Rollout changed.
	Recorded struct {
		Time   time.Time
		Status v1alpha1.RolloutStatus
	}
	// PodsSeen says that the workload's pods changed.
	PodsSeen struct {
		Time time.Time
		Pods []PodView
	}
	// Counted says that the client reported.
	Counted struct {
		Time   time.Time
		Report load.Report
	}
)

func (e Ticked) at() time.Time   { return e.Time }
func (e Started) at() time.Time  { return e.Time }
func (e Ended) at() time.Time    { return e.Time }
func (e Recorded) at() time.Time { return e.Time }
func (e PodsSeen) at() time.Time { return e.Time }
func (e Counted) at() time.Time  { return e.Time }

// NewModel is the model before the first update.
func NewModel(updates []Update, stable string, steps []int32, now time.Time) Model {
	return Model{Updates: updates, Current: -1, Stable: stable, Steps: steps, Now: now, Began: now}
}

// Apply is the model after an event. The old one stays valid: slices are replaced, never changed.
func (m Model) Apply(e Event) Model {
	if e.at().After(m.Now) {
		m.Now = e.at()
	}
	switch e := e.(type) {
	case Started:
		m = m.started(e)
	case Ended:
		m = m.ended(e)
	case Recorded:
		m = m.recorded(e.Status)
	case PodsSeen:
		m.Pods = e.Pods
	case Counted:
		m = m.counted(e.Report)
	}
	return m
}

func (m Model) started(e Started) Model {
	m.Current, m.Began = e.Index, e.Time
	m.Candidate, m.Base = m.Updates[e.Index].Tag, m.Last
	m.Timeline = []Entry{{Text: m.Updates[e.Index].command()}}
	return m
}

func (m Model) ended(e Ended) Model {
	updates := append([]Update(nil), m.Updates...)
	r := e.Result
	updates[e.Index].Result = &r
	m.Updates = updates
	if r.Verdict == string(v1alpha1.OutcomePromoted) {
		m.Stable = updates[e.Index].Tag
	}
	return m
}

func (m Model) counted(r load.Report) Model {
	length := r.Seconds - m.LastSeconds
	if length <= 0 { // the same line again
		return m
	}
	delta := r.Counts.Minus(m.Last)
	series := append(append([]Second(nil), m.Series...), Second{Seconds: length, Versions: delta.Versions})
	if len(series) > seriesLength {
		series = series[len(series)-seriesLength:]
	}
	m.Last, m.LastSeconds, m.Series = r.Counts, r.Seconds, series
	return m
}

// Running says whether an update is under way.
func (m Model) Running() bool { return m.Current >= 0 && m.Updates[m.Current].Result == nil }

// Elapsed is how long the current update takes, or took.
func (m Model) Elapsed() time.Duration {
	if m.Current < 0 {
		return 0
	}
	if r := m.Updates[m.Current].Result; r != nil {
		return time.Duration(r.Seconds * float64(time.Second))
	}
	return m.Now.Sub(m.Began)
}

// rate is what a version answers per second, over the last few seconds.
func (m Model) rate(version string) float64 {
	const window = 3
	from := max(0, len(m.Series)-window)
	n, seconds := int64(0), 0.0
	for _, s := range m.Series[from:] {
		n += s.Versions[version].Total()
		seconds += s.Seconds
	}
	if seconds == 0 {
		return 0
	}
	return float64(n) / seconds
}

func (u Update) command() string {
	return "kubectl set image deployment/" + workload + " app=" + imageRepository + u.Tag
}
