// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/headgate/headgate/api/v1alpha1"
)

// recorded takes a new status in, and tells on the timeline what is new in it.
func (m Model) recorded(s v1alpha1.RolloutStatus) Model {
	old := m.Status
	m.Status = s
	if m.Current < 0 {
		return m
	}
	if s.Phase != old.Phase {
		if text, mood := phaseText(s); text != "" {
			m = m.note(text, mood)
		}
	}
	if s.WeightInForce != old.WeightInForce && s.WeightInForce > 0 {
		m = m.note(fmt.Sprintf("%d %% of requests go to %s", s.WeightInForce, m.Candidate), Busy)
	}
	if s.WeightInForce == 0 && old.WeightInForce > 0 && s.Phase != v1alpha1.PhaseIdle {
		m = m.note("no request goes to "+m.Candidate+" any more", Plain)
	}
	if failing(s.Verdict) && !failing(old.Verdict) {
		m = m.note(s.Verdict.Message, Bad)
	}
	return m
}

func (m Model) note(text string, mood Mood) Model {
	m.Timeline = append(append([]Entry(nil), m.Timeline...), Entry{At: m.Now.Sub(m.Began), Text: text, Mood: mood})
	return m
}

func failing(v *v1alpha1.Verdict) bool { return v != nil && v.Result == v1alpha1.ResultFail }

// phaseText tells a phase to somebody who sees it for the first time.
func phaseText(s v1alpha1.RolloutStatus) (string, Mood) {
	switch s.Phase {
	case v1alpha1.PhaseStarting:
		pods := "1 candidate pod"
		if s.CandidateReplicas > 1 {
			pods = fmt.Sprintf("%d candidate pods", s.CandidateReplicas)
		}
		return "held at the gate: " + pods + " beside the full stable version", Plain
	case v1alpha1.PhasePaused:
		return "paused", Busy
	case v1alpha1.PhasePromoting:
		return "the evidence suffices: gates open, an ordinary rolling update follows", Good
	case v1alpha1.PhaseRollingBack:
		return "rolling back", Bad
	case v1alpha1.PhaseQuarantined:
		return "quarantined: one pod is kept to be looked at, without requests", Plain
	case v1alpha1.PhaseIdle:
		return "complete", Good
	}
	return "", Plain
}
