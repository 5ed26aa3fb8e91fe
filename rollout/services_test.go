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

// What has led to stable is known for as long as it is stable: also when a Service leads elsewhere already, and in the
// rollout that this belongs to. Nothing of it is known of the next stable version.
func TestServicesOfStableAreRemembered(t *testing.T) {
	policy := &v1alpha1.RolloutPolicySpec{}
	stable := v1alpha1.Revision{Hash: "v1", Template: digest("v1")}
	status := v1alpha1.RolloutStatus{DeploymentUID: "uid-1", Phase: v1alpha1.PhaseIdle, Stable: stable}
	at := start
	decide := func(version string, hold *v1alpha1.Hold, complete bool, services ...string) {
		t.Helper()
		at = at.Add(time.Second)
		status = rollout.Decide(policy, status, rollout.Observation{
			Now: at,
			Deployment: rollout.Deployment{
				UID: "uid-1", Replicas: 2, Template: digest(version), Hold: hold, Current: true, Complete: complete, Gate: v1alpha1.GateOpen,
			},
			Revisions: []rollout.Revision{{Hash: "v1", Template: digest("v1"), Replicas: 2, Desired: 2, Services: services}, {Hash: "v2", Template: digest("v2"), Replicas: 1, Desired: 2}},
		}).Status
	}
	want := func(when string, services ...string) {
		t.Helper()
		if d := cmp.Diff(services, status.StableServices); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	decide("v1", nil, true, "web-pods", "web", "web:80/TCP")
	want("at rest", "web", "web-pods", "web:80/TCP")
	decide("v1", nil, true, "web-pods")
	want("a Service leads elsewhere", "web", "web-pods", "web:80/TCP")
	decide("v2", &v1alpha1.Hold{K: 1, Template: digest("v2"), UID: "uid-1"}, false, "web-pods")
	if status.Candidate.Hash != "v2" {
		t.Fatalf("the candidate is %+v, want v2", status.Candidate)
	}
	want("in the rollout", "web", "web-pods", "web:80/TCP")
	status.Phase, status.Candidate = v1alpha1.PhaseIdle, v1alpha1.Revision{}
	decide("v2", nil, true, "web-pods")
	if status.Stable.Hash != "v2" {
		t.Fatalf("stable is %+v, want v2", status.Stable)
	}
	want("of the next version")
}
