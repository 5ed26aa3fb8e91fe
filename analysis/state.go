// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"encoding/json"
	"slices"
	"time"
)

// stateVersion is raised whenever older states can no longer be read.
const stateVersion = 2

// State is what the judge knows from all looks so far: below 48 KB as JSON, however long the rollout and
// however many pods, unless their names are much longer than Kubernetes makes them.
// The zero value is a new rollout. Losing it (see Forgotten) costs evidence, never validity. Nobody but
// Judge changes it.
type State struct {
	// Version is 0 before the first look.
	Version int `json:"version,omitempty"`
	// Lost says that the rollout's beginning is not in this state.
	Lost bool `json:"lost,omitempty"`
	// Last is the time of the last look that was taken into account.
	Last time.Time `json:"last,omitzero"`
	// Step and Weight are those of that look.
	Step   int `json:"step"`
	Weight int `json:"weight"`
	// Since is the look's, too.
	Since time.Time `json:"since,omitzero"`
	// InStep is for how long Step has been judged at Weight: looks at which something was missing for that are left out.
	InStep time.Duration `json:"inStep"`
	// Looks and StepLooks count looks with data; the latter since Step or Weight changed.
	Looks     int64 `json:"looks"`
	StepLooks int64 `json:"stepLooks"`
	// Missing says that the last look had no counts, Blind for how long that has been so.
	Missing bool          `json:"missing,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Blind   time.Duration `json:"blind,omitempty"`

	// Unreached is since when nobody gets through to the candidate's pods.
	Unreached Unreached `json:"unreached,omitzero"`

	// Total and StepTotal are what was counted since the first look and since the step began.
	Total     Totals `json:"total"`
	StepTotal Totals `json:"stepTotal"`

	// Share is the window for the candidate's share, Split the check that requests are split at all.
	Share Window `json:"share"`
	Split Split  `json:"split"`
	// Unsplit is what was counted since Split was fine last.
	Unsplit Totals `json:"unsplit,omitzero"`

	// Pods are those of stable's pods that are told apart, Fresh the candidate's pods.
	Pods  Pods  `json:"pods"`
	Fresh []Pod `json:"fresh,omitempty"`
	// History is what stable counted before the rollout; nil once it was evaluated.
	History *History `json:"history,omitempty"`
	// Latency is what concerns the latencies as a whole.
	Latency Latency `json:"latency"`

	// Injected is the mass that harm processes have put into play, 0 to 1.
	Injected float64 `json:"injected"`
	// Opened is the last step that has had its mass.
	Opened int `json:"opened,omitempty"`
	// Rates are the compared rates, in this order, in which each is found by its place: that of errors, those of users'
	// metrics, those of the latency bounds, which are chosen last.
	Rates []Rate `json:"rates,omitempty"`
	// Metrics are the users' metrics.
	Metrics []Metric `json:"metrics,omitempty"`

	// Failed is the verdict that ended the rollout; nil before that.
	Failed *Verdict `json:"failed,omitempty"`
}

// Forgotten is the state of a rollout whose beginning was lost: whatever mass its harm processes had put
// into play is gone, and of the rest only the part of each planned look still to come is used. So the whole
// rollout stays within alpha, however often a state is lost and however long the rollout takes, where Settings.Began
// says when it began. A state that is lost after the planned looks finds no more harm.
func Forgotten() State {
	return State{Version: stateVersion, Lost: true, Injected: firstMass + stepsMass}
}

// Restore reads a stored State. Empty text and the zero State are a new rollout; text that can't be read, or
// that another version wrote, is one that was Forgotten.
func Restore(text []byte) State {
	if len(text) == 0 {
		return State{}
	}
	var st State
	err := json.Unmarshal(text, &st)
	if err == nil && st.Version == 0 && st.Looks == 0 {
		return State{}
	}
	if err != nil || st.Version != stateVersion {
		return Forgotten()
	}
	return st
}

// next is a copy of the state that shares no memory with it and holds no value the formulas can't take.
func (st State) next() State {
	st.Rates = inPlace(st.Rates)
	for i := range st.Rates {
		st.Rates[i].clean()
	}
	st.Fresh = slices.Clone(st.Fresh[:min(len(st.Fresh), maxFresh)])
	st.History = st.History.clone()
	st.Latency = st.Latency.clone()
	st.Metrics = slices.Clone(st.Metrics)
	st.Injected = min(max(finite(st.Injected), 0), 1)
	st.Looks, st.StepLooks = max(st.Looks, 0), max(st.StepLooks, 0)
	st.InStep, st.Blind, st.Unreached.For = max(st.InStep, 0), max(st.Blind, 0), max(st.Unreached.For, 0)
	st.Total, st.StepTotal, st.Unsplit = st.Total.plus(Totals{}), st.StepTotal.plus(Totals{}), st.Unsplit.plus(Totals{})
	st.Share.clean()
	st.Split.clean()
	return st
}

// inPlace is a copy of the rates in the only order that they may have: that of errors, those of users' metrics,
// those of latency bounds.
func inPlace(rates []Rate) []Rate {
	out := make([]Rate, 0, len(rates))
	bounds := 0
	for i := range rates {
		r := &rates[i]
		switch {
		case r.Bound > 0 && bounds < maxBounds:
			bounds++
		case r.Bound <= 0 && bounds == 0 && (len(out) == 0 || r.isMetric() && len(out) <= MaxRates):
		default:
			continue
		}
		out = append(out, *r)
	}
	return out
}
