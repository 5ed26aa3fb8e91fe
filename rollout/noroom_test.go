// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// Whoever has no room for one pod more reads what to do, but where an update without a rollout would only cost pods.
func TestNoRoomSaysWhatToDo(t *testing.T) {
	const next = "Make room, and it is tried again; where one pod more never fits, undo and set maxSurge: 0"
	since := start.Add(-time.Minute)
	unschedulable := func(message string) rollout.Revision {
		return rollout.Revision{Pods: []rollout.Pod{{Name: "v2-1", NodeReady: true, Problem: rollout.ProblemUnschedulable, ProblemSince: since, Message: message}}}
	}
	refused := func(message string) rollout.Revision {
		return rollout.Revision{CreateFailure: message, CreateFailureSince: since}
	}
	for name, tc := range map[string]struct {
		candidate rollout.Revision
		want      string
	}{
		"no node": {
			unschedulable("0/4 nodes are available: 4 node(s) didn't have free ports for the requested pod ports."),
			"requested pod ports. " + next,
		},
		"a scheduler that says a lot": {unschedulable(strings.Repeat("0/4 nodes are available. ", 40)), "…. " + next},
		"a quota": {
			refused(`pods "web-1" is forbidden: exceeded quota: web, requested: pods=1, used: pods=4, limited: pods=4`),
			"limited: pods=4. " + next,
		},
		"forbidden for ever": {refused(`pods "web-1" is forbidden: violates PodSecurity "restricted:latest"`), `"restricted:latest". Stable serves`},
		"and that is the version's": {
			refused(`pods "web-1" is forbidden: error looking up service account shop/new`), "(NoRoom): pods cannot be created: pods \"web-1\" is forbidden",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := startedAMinuteAgo(rollout.Revision{}, tc.candidate)
			if v := d.Status.Verdict; v == nil || v.Cause != v1alpha1.CauseNoRoom {
				t.Fatalf("verdict %+v, want %s", v, v1alpha1.CauseNoRoom)
			}
			if !strings.Contains(d.Failure, tc.want) || !strings.HasSuffix(d.Failure, "undo: kubectl rollout undo") {
				t.Errorf("got %q, want it to contain %q, and how to look", d.Failure, tc.want)
			}
		})
	}
}

// What is rejected for the sake of stable is not rejected because a pod of stable has not left its place yet.
func TestAPlaceThatBecomesFree(t *testing.T) {
	waiting := func(since time.Duration) rollout.Pod {
		return rollout.Pod{Name: "v1-2", NodeReady: true, Problem: rollout.ProblemUnschedulable, ProblemSince: start.Add(-since), CreatedAt: start.Add(-since)}
	}
	leaving := rollout.Pod{Name: "v1-1", NodeReady: true, Terminating: true}
	quota := func(since time.Duration, pods ...rollout.Pod) rollout.Revision {
		return rollout.Revision{CreateFailure: "exceeded quota", CreateFailureSince: start.Add(-since), Pods: pods}
	}
	for name, tc := range map[string]struct {
		stable   rollout.Revision
		rejected bool
	}{
		"nobody leaves":                   {rollout.Revision{Pods: []rollout.Pod{waiting(5 * time.Second)}}, true},
		"somebody leaves":                 {rollout.Revision{Pods: []rollout.Pod{leaving, waiting(59 * time.Second)}}, false},
		"somebody does not get away":      {rollout.Revision{Pods: []rollout.Pod{leaving, waiting(time.Minute)}}, true},
		"a quota that nobody leaves":      {quota(5 * time.Second), true},
		"a quota that somebody leaves":    {quota(59*time.Second, leaving), false},
		"a quota that nobody gets out of": {quota(time.Minute, leaving), true},
	} {
		t.Run(name, func(t *testing.T) {
			candidate := rollout.Revision{Pods: []rollout.Pod{{Name: "v2-1", NodeReady: true, CreatedAt: start.Add(-time.Minute)}}}
			d := startedAMinuteAgo(tc.stable, candidate)
			if rejected := d.Status.Phase != v1alpha1.PhaseStarting; rejected != tc.rejected {
				t.Errorf("phase %s, verdict %+v; want it rejected: %v", d.Status.Phase, d.Status.Verdict, tc.rejected)
			}
		})
	}
}

// startedAMinuteAgo is what is decided about a candidate of one pod beside a stable version that should have four.
func startedAMinuteAgo(stable, candidate rollout.Revision) rollout.Decision {
	stable.Hash, stable.Template, stable.Replicas, stable.Desired = "v1", digest("v1"), 4, 4
	candidate.Hash, candidate.Template, candidate.Replicas, candidate.Desired = "v2", digest("v2"), 1, 4
	return rollout.Decide(&v1alpha1.RolloutPolicySpec{}, v1alpha1.RolloutStatus{
		DeploymentUID: "uid-1", Phase: v1alpha1.PhaseStarting, PhaseSince: &metav1.MicroTime{Time: start.Add(-time.Minute)}, Replicas: 4, CandidateReplicas: 1,
		Stable:    v1alpha1.Revision{Hash: "v1", Template: digest("v1")},
		Candidate: v1alpha1.Revision{Hash: "v2", Template: digest("v2")},
	}, rollout.Observation{
		Now: start,
		Deployment: rollout.Deployment{
			UID: "uid-1", Replicas: 4, Current: true, Template: digest("v2"), User: userFields(), Gate: v1alpha1.GateClosed,
			Hold: &v1alpha1.Hold{K: 1, Template: digest("v2"), User: userFields()},
		},
		Revisions: []rollout.Revision{stable, candidate},
	})
}
