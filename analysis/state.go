// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"encoding/json"
	"slices"
	"time"
)

// stateVersion is raised whenever older states can no longer be read.
const stateVersion = 1

// State is what the judge knows from all looks so far: about 2 KB as JSON, however long the rollout.
// The zero value is a new rollout. Losing it (see Restore) costs evidence, never validity. Nobody but
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
	// InStep is for how long Step has been at Weight.
	InStep time.Duration `json:"inStep"`
	// Looks and StepLooks count looks with data; the latter since Step or Weight changed.
	Looks     int64 `json:"looks"`
	StepLooks int64 `json:"stepLooks"`
	// Missing says that the last look had no counts, Blind for how long that has been so.
	Missing bool          `json:"missing,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Blind   time.Duration `json:"blind,omitempty"`

	// Total and StepTotal are what was counted since the first look and since the step began.
	Total     Totals `json:"total"`
	StepTotal Totals `json:"stepTotal"`

	// Share is the window for the candidate's share, Split the check that requests are split at all.
	Share Window `json:"share"`
	Split Split  `json:"split"`

	// Injected is the mass that harm processes have put into play, 0 to 1.
	Injected float64 `json:"injected"`
	// Rates are the compared rates; today the error rate alone.
	Rates []Rate `json:"rates,omitempty"`
	// Metrics are the users' metrics.
	Metrics []Metric `json:"metrics,omitempty"`

	// Failed is the verdict that ended the rollout; nil before that.
	Failed *Verdict `json:"failed,omitempty"`
}

// Rate is the state of one compared rate.
type Rate struct {
	// Name is the cause that a Fail would have.
	Name string `json:"name"`
	// Components are the parts of its e-value against the candidate.
	Components []Component `json:"components"`
	// Acceptance is its e-value for the candidate.
	Acceptance Acceptance `json:"acceptance"`
}

// Restore reads a stored State. Empty text and the zero State are a new rollout. Text that can't be read, or that another
// version wrote, gives the state of a rollout whose beginning was lost: whatever mass its harm
// processes had put into play is gone, and of the rest only the part of each look still to come is
// used. So the whole rollout stays within alpha, however often a state is lost.
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
		return State{Version: stateVersion, Lost: true, Injected: firstMass + stepsMass}
	}
	return st
}

// next is a copy of the state that shares no memory with it and holds no value the formulas can't take.
func (st State) next() State {
	st.Rates = slices.Clone(st.Rates)
	for i := range st.Rates {
		r := &st.Rates[i]
		r.Components = slices.Clone(r.Components)
		for j := range r.Components {
			r.Components[j].clean()
		}
		r.Acceptance.clean()
	}
	st.Metrics = slices.Clone(st.Metrics)
	st.Injected = min(max(finite(st.Injected), 0), 1)
	st.Looks, st.StepLooks = max(st.Looks, 0), max(st.StepLooks, 0)
	st.InStep, st.Blind = max(st.InStep, 0), max(st.Blind, 0)
	st.Total, st.StepTotal = st.Total.plus(Totals{}), st.StepTotal.plus(Totals{})
	st.Share.clean()
	st.Split.clean()
	return st
}

// rates makes the list of compared rates what the settings ask for and keeps what is known of each.
func (st *State) rates(s Settings) {
	if s.NoErrorRate {
		st.Rates = nil
		return
	}
	if len(st.Rates) == 1 && st.Rates[0].Name == CauseErrorRate && st.Rates[0].matches(s) {
		return
	}
	r := Rate{Name: CauseErrorRate}
	for _, c := range s.components() {
		r.Components = append(r.Components, Component{Name: c.name})
	}
	r.Acceptance.restart()
	st.Rates = []Rate{r}
}

func (r *Rate) matches(s Settings) bool {
	defs := s.components()
	return slices.EqualFunc(r.Components, defs[:], func(c Component, d component) bool { return c.Name == d.name })
}
