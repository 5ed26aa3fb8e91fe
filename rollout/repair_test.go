// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// stableDeleted is a rollout whose stable ReplicaSet somebody deleted; the native controller has given its
// replicas to the candidate. since is when the last stable pod was seen to be gone.
func stableDeleted(since time.Time) (v1alpha1.RolloutStatus, rollout.Observation) {
	candidate := rollout.Pod{Name: "v2-1", Gated: true, ReadyButGate: true, NodeReady: true}
	status := v1alpha1.RolloutStatus{
		DeploymentUID: "uid-1", Phase: v1alpha1.PhaseStepping, CandidateReplicas: 1,
		Stable: v1alpha1.Revision{Hash: "v1", Template: digest("v1")}, Candidate: v1alpha1.Revision{Hash: "v2", Template: digest("v2")},
	}
	return status, rollout.Observation{
		Now: start, StableDownSince: since,
		Deployment: rollout.Deployment{
			UID: "uid-1", Replicas: 2, Current: true, Template: digest("v2"), Gate: v1alpha1.GateClosed,
			Hold: &v1alpha1.Hold{K: 1, Template: digest("v2"), User: userFields()},
		},
		Revisions: []rollout.Revision{{Hash: "v2", Template: digest("v2"), Replicas: 2, Desired: 2, Pods: []rollout.Pod{candidate}}},
	}
}

// Whoever deletes stable's ReplicaSet by hand gets the candidate, not a fight between two controllers.
func TestTheCandidateServesWhereStableWasDeleted(t *testing.T) {
	status, o := stableDeleted(start.Add(-time.Second))
	early := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o)
	if len(early.Sizes) > 0 || len(early.OpenGates) > 0 {
		t.Errorf("at once: sizes %v, gates opened %v, want neither", early.Sizes, early.OpenGates)
	}
	status, o = stableDeleted(start.Add(-time.Minute))
	late := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o)
	if diff := cmp.Diff([]string{"v2"}, late.OpenGates); diff != "" {
		t.Errorf("gates opened after a minute (-want +got):\n%s", diff)
	}
	if late.Hold == nil || late.Hold.Release != v1alpha1.ReleaseForward {
		t.Errorf("the hold is %+v, want it released forward", late.Hold)
	}
}
