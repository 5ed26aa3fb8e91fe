// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// `rollout undo` goes to the revision before in native history, whatever became of it.
func TestWhatWasSupersededLeavesNativeHistory(t *testing.T) {
	for name, tc := range map[string]struct {
		outcome v1alpha1.Outcome
		size    int32
		pods    []rollout.Pod
		want    []string
	}{
		"without pods": {outcome: v1alpha1.OutcomeSuperseded, want: []string{"v2"}},
		"while its pods still end": {
			outcome: v1alpha1.OutcomeSuperseded, pods: []rollout.Pod{{Name: "v2-1", Terminating: true}}, want: []string{"v2"},
		},
		"not while a pod is not even asked to end":    {outcome: v1alpha1.OutcomeSuperseded, pods: []rollout.Pod{{Name: "v2-1"}}},
		"not before the native controller is with it": {outcome: v1alpha1.OutcomeSuperseded, size: 1},
		"never what was promoted":                     {outcome: v1alpha1.OutcomePromoted},
	} {
		t.Run(name, func(t *testing.T) {
			status := v1alpha1.RolloutStatus{
				DeploymentUID: "uid-1", Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Hash: "v1", Template: digest("v1")},
				History: []v1alpha1.HistoryEntry{{Outcome: tc.outcome, From: "v1", To: "v2"}},
			}
			o := rollout.Observation{
				Now:        start,
				Deployment: rollout.Deployment{UID: "uid-1", Replicas: 1, Current: true, Template: digest("v1"), User: userFields()},
				Revisions: []rollout.Revision{
					{Hash: "v1", Template: digest("v1"), Replicas: 1, Desired: 1},
					{Hash: "v2", Template: digest("v2"), Replicas: tc.size, Desired: 1, Pods: tc.pods},
				},
			}
			got := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o).DeleteRevisions
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("deleted revisions (-want +got):\n%s", diff)
			}
		})
	}
}
