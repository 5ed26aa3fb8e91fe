// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// Where nothing of stable serves, what was let out and serves most takes its place; never the candidate, nor what failed.
func TestWhatServesTakesThePlaceOfAStableVersionThatIsGone(t *testing.T) {
	pods := func(name string, n int, ready bool) (out []rollout.Pod) {
		for i := range n {
			out = append(out, rollout.Pod{Name: fmt.Sprint(name, "-", i), Ready: ready, ReadyButGate: ready, NodeReady: true})
		}
		return out
	}
	type situation struct {
		status *v1alpha1.RolloutStatus
		o      *rollout.Observation
	}
	alive := func(s situation) { s.o.Revisions[0].Replicas, s.o.Revisions[0].Pods = 1, pods("v1", 1, false) }
	for name, tc := range map[string]struct {
		phase  v1alpha1.Phase
		edit   func(situation)
		stable string
		want   v1alpha1.Phase
	}{
		"while the candidate starts":  {phase: v1alpha1.PhaseStarting, stable: "v3", want: v1alpha1.PhaseStarting},
		"while it is judged: again":   {phase: v1alpha1.PhaseStepping, stable: "v3", want: v1alpha1.PhaseStarting},
		"while it waits for approval": {phase: v1alpha1.PhasePaused, stable: "v3", want: v1alpha1.PhaseStarting},
		"what failed does not go out": {phase: v1alpha1.PhaseQuarantined, stable: "v3", want: v1alpha1.PhaseQuarantined},
		"when a hold appears":         {phase: v1alpha1.PhaseIdle, stable: "v3", want: v1alpha1.PhaseStarting},
		"the candidate's own pods don't count": {
			phase: v1alpha1.PhasePromoting, stable: "v1", want: v1alpha1.PhasePromoting,
		},
		"a pod of stable may come back": {phase: v1alpha1.PhaseStepping, edit: alive, stable: "v1", want: v1alpha1.PhaseStepping},
		"it had its time": {
			phase: v1alpha1.PhaseStepping, stable: "v3", want: v1alpha1.PhaseStarting,
			edit: func(s situation) { alive(s); s.o.StableDownSince = start.Add(-30 * time.Second) },
		},
		"what failed takes no place": {
			phase: v1alpha1.PhaseStepping, stable: "v2", want: v1alpha1.PhaseStarting,
			edit: func(s situation) { s.status.Rejected = &v1alpha1.Rejection{Template: digest("v3"), Revision: "v3"} },
		},
		"the hold is ending": {
			phase: v1alpha1.PhaseStepping, stable: "v1", want: v1alpha1.PhasePromoting,
			edit: func(s situation) {
				s.o.Deployment.Hold.Release, s.o.Deployment.Gate = v1alpha1.ReleaseForward, v1alpha1.GateOpen
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			status, o := stableDeleted(time.Time{})
			status.Phase, o.Deployment.Replicas = tc.phase, 5
			status.Candidate, o.Deployment.Template = v1alpha1.Revision{Hash: "v4", Template: digest("v4")}, digest("v4")
			o.Deployment.Hold.Template = digest("v4")
			if tc.phase == v1alpha1.PhaseIdle {
				status.Candidate = v1alpha1.Revision{}
			}
			if tc.phase == v1alpha1.PhasePaused {
				status.AwaitingApproval = true
			}
			o.Revisions = []rollout.Revision{
				{Hash: "v1", Template: digest("v1"), Desired: 5},
				{Hash: "v2", Template: digest("v2"), Replicas: 2, Desired: 5, Pods: pods("v2", 2, true)},
				{Hash: "v3", Template: digest("v3"), Replicas: 3, Desired: 5, Pods: pods("v3", 3, true)},
				{Hash: "v4", Template: digest("v4"), Replicas: 1, Desired: 5, Pods: []rollout.Pod{{Name: "v4-0", Gated: true, NodeReady: true}}},
			}
			if tc.edit != nil {
				tc.edit(situation{&status, &o})
			}
			d := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o)
			if d.Status.Stable.Hash != tc.stable || d.Status.Phase != tc.want {
				t.Errorf("stable is %s in phase %s, want %s in %s", d.Status.Stable.Hash, d.Status.Phase, tc.stable, tc.want)
			}
			if len(d.OpenGates) > 0 && tc.want != v1alpha1.PhasePromoting {
				t.Errorf("gates opened: %v", d.OpenGates)
			}
		})
	}
}
