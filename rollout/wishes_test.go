// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"testing"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// Wishes about v2 are spent with its rollout, as far as the record says that it has ended: also where that was in a pass whose
// removal of them failed, and where what comes next has no ReplicaSet yet, as while the user has paused.
func TestWishesAreSpentWithTheirRollout(t *testing.T) {
	ended := func(outcomes ...v1alpha1.Outcome) (h []v1alpha1.HistoryEntry) {
		for _, outcome := range outcomes {
			h = append(h, v1alpha1.HistoryEntry{Outcome: outcome, From: "v1", To: "v2"})
		}
		return h
	}
	for name, tc := range map[string]struct {
		template, candidate string
		history             []v1alpha1.HistoryEntry
		want                bool
	}{
		"taken back":                      {template: "v1", history: ended(v1alpha1.OutcomeAborted), want: true},
		"rolled back":                     {template: "v1", history: ended(v1alpha1.OutcomeRolledBack), want: true},
		"ended by somebody else":          {template: "v1", history: ended(v1alpha1.OutcomeReleased), want: true},
		"superseded":                      {template: "v3", candidate: "v3", history: ended(v1alpha1.OutcomeSuperseded), want: true},
		"superseded by what is not there": {template: "v3", history: ended(v1alpha1.OutcomeSuperseded), want: true},
		"promoted, and taken back since":  {template: "v1", history: ended(v1alpha1.OutcomePromoted, v1alpha1.OutcomeAborted), want: true},
		"tried again":                     {template: "v2", candidate: "v2", history: ended(v1alpha1.OutcomeAborted)},
		"stable before":                   {template: "v1", history: ended(v1alpha1.OutcomePromoted)},
		"not tried yet":                   {template: "v1"},
		"not tried yet, and another is":   {template: "v3", candidate: "v3"},
	} {
		t.Run(name, func(t *testing.T) {
			s := v1alpha1.RolloutStatus{
				DeploymentUID: "uid-1", Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Hash: "v1", Template: digest("v1")}, History: tc.history,
			}
			o := rollout.Observation{
				Now:        start,
				Deployment: rollout.Deployment{UID: "uid-1", Replicas: 4, Paused: true, Current: true, Template: digest(tc.template), User: userFields()},
				Revisions:  []rollout.Revision{{Hash: "v1", Template: digest("v1"), Replicas: 4, Desired: 4}},
				Wishes: v1alpha1.RolloutSpec{
					Promote: &v1alpha1.RevisionWish{Revision: "v2"}, Approve: &v1alpha1.StepWish{Revision: "v2"}, Retry: &v1alpha1.RevisionWish{Revision: "v2"},
				},
			}
			if tc.template != "v1" {
				s.Phase, s.Candidate = v1alpha1.PhasePaused, v1alpha1.Revision{Hash: tc.candidate, Template: digest(tc.template)}
				s.ResumePhase = v1alpha1.PhaseStarting
				o.Deployment.Gate, o.Deployment.Hold = v1alpha1.GateClosed, &v1alpha1.Hold{K: 1, Template: digest(tc.template), User: userFields()}
			}
			if tc.candidate != "" {
				o.Revisions = append(o.Revisions, rollout.Revision{Hash: tc.candidate, Template: digest(tc.candidate), Desired: 4})
			}
			d := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, s, o)
			if d.ClearPromote != tc.want || d.ClearApprove != tc.want {
				t.Errorf("promote and approve are spent: %t and %t, want %t (%s)", d.ClearPromote, d.ClearApprove, tc.want, d.Reason)
			}
			if want := tc.candidate == "v2"; d.ClearRetry != want {
				t.Errorf("retry is spent: %t, want %t", d.ClearRetry, want)
			}
		})
	}
}
