// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// Pods of a candidate that came without a gate are deleted, but never those that users depend on.
func TestUngatedPodsThatServeAreReplacedByStablePodsFirst(t *testing.T) {
	pods := func(name string, n int, gated bool) (out []rollout.Pod) {
		for i := range n {
			out = append(out, rollout.Pod{Name: fmt.Sprint(name, "-", i), Gated: gated, Ready: true, ReadyButGate: true, NodeReady: true})
		}
		return out
	}
	for name, tc := range map[string]struct {
		phase   v1alpha1.Phase
		stable  int
		deleted []string
		back    bool
	}{
		"stable is whole":                                 {v1alpha1.PhaseStepping, 3, []string{"v2-0"}, false},
		"stable is whole, quarantined":                    {v1alpha1.PhaseQuarantined, 3, []string{"v2-0"}, false},
		"stable has lost a pod to it":                     {v1alpha1.PhaseStepping, 2, nil, true},
		"stable is gone, and the version was rejected":    {v1alpha1.PhaseQuarantined, 0, nil, true},
		"stable is gone in the middle of the roll back":   {v1alpha1.PhaseRollingBack, 0, nil, true},
		"stable is gone while the candidate was starting": {v1alpha1.PhaseStarting, 0, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			status, o := stableDeleted(time.Time{})
			status.Phase, o.Deployment.Replicas = tc.phase, 3
			o.Revisions = []rollout.Revision{
				{Hash: "v1", Template: digest("v1"), Replicas: int32(tc.stable), Desired: 3, Pods: pods("v1", tc.stable, true)},
				{Hash: "v2", Template: digest("v2"), Replicas: 1, Desired: 3, Pods: pods("v2", 1, false)},
			}
			got := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o)
			if diff := cmp.Diff(tc.deleted, got.DeletePods); diff != "" {
				t.Errorf("deleted pods (-want +got):\n%s", diff)
			}
			if back := got.Hold != nil && got.Hold.Release == v1alpha1.ReleaseBack; back != tc.back {
				t.Errorf("the stable template is put back: %t, want %t (%+v)", back, tc.back, got.Hold)
			}
		})
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

// A candidate that is not ready waits for a stable version that is only down, not for one that can't come back.
func TestNothingIsHeldForAStableVersionThatIsGone(t *testing.T) {
	for name, tc := range map[string]struct {
		kept []rollout.Revision
		want v1alpha1.Release
	}{
		"its ReplicaSet is there": {[]rollout.Revision{{Hash: "v1", Template: digest("v1"), Replicas: 2, Desired: 2}}, ""},
		"its ReplicaSet is gone":  {nil, v1alpha1.ReleaseForward},
	} {
		t.Run(name, func(t *testing.T) {
			status, o := stableDeleted(start.Add(-time.Minute))
			o.Revisions[0].Pods[0].ReadyButGate = false
			o.Revisions = append(o.Revisions, tc.kept...)
			d := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o)
			if d.Hold == nil || d.Hold.Release != tc.want {
				t.Errorf("the hold is %+v, want the release %q", d.Hold, tc.want)
			}
		})
	}
}

// Where no policy counts every hold ends, also that of a version that failed when nothing is left to go back to.
func TestWithoutAPolicyNothingIsHeldForAStableVersionThatIsGone(t *testing.T) {
	status, o := stableDeleted(time.Time{})
	status.Phase = v1alpha1.PhaseRollingBack
	if d := rollout.Decide(nil, status, o); d.Hold == nil || d.Hold.Release != v1alpha1.ReleaseForward {
		t.Errorf("the hold is %+v, want it released forward", d.Hold)
	}
}

// A hold that the webhook has ended, before somebody wiped what said so, is not ended again with fields from before.
func TestFieldsThatAreBackAreNotGivenBackAgain(t *testing.T) {
	status, o := stableDeleted(time.Time{})
	status.Hold = o.Deployment.Hold.String()
	o.Revisions = append(o.Revisions, rollout.Revision{Hash: "v1", Template: digest("v1"), Replicas: 2, Desired: 2})
	o.Deployment.Template, o.Deployment.Hold, o.Deployment.Gate = digest("v1"), nil, ""
	for name, tc := range map[string]struct {
		fields v1alpha1.UserFields
		ended  bool
	}{
		"the hold's fields are there": {heldFields(1), true},
		"the user's fields are there": {v1alpha1.UserFields{StrategyType: "RollingUpdate", ProgressDeadlineSeconds: new(int32(300))}, false},
	} {
		t.Run(name, func(t *testing.T) {
			o.Deployment.User = tc.fields
			if d := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o); (d.Hold != nil) != tc.ended {
				t.Errorf("the hold is %+v, want one that ends: %t", d.Hold, tc.ended)
			}
		})
	}
}

// Growing back from 0 while held makes nothing but candidates, so the hold ends there, one way or the other.
func TestAtZeroThereMustBeSomethingToGoBackTo(t *testing.T) {
	for name, tc := range map[string]struct {
		kept []rollout.Revision
		want v1alpha1.Release
	}{
		"stable's ReplicaSet is there":              {[]rollout.Revision{{Hash: "v1", Template: digest("v1")}}, v1alpha1.ReleaseBack},
		"its digest is by an older Headgate":        {[]rollout.Revision{{Hash: "v1", Template: "#as computed today"}}, v1alpha1.ReleaseBack},
		"the history limit has done away with that": {nil, v1alpha1.ReleaseForward},
	} {
		t.Run(name, func(t *testing.T) {
			status, o := stableDeleted(time.Time{})
			o.Deployment.Replicas = 0
			o.Revisions = append(tc.kept, rollout.Revision{Hash: "v2", Template: digest("v2")})
			d := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o)
			if d.Hold == nil || d.Hold.Release != tc.want {
				t.Errorf("the hold is %+v, want a release %s", d.Hold, tc.want)
			}
		})
	}
}

// With Recreate the native controller does nothing while several versions have pods, or one as many as N, and N is new.
func TestNIsNotedWhereRecreateWaitsForIt(t *testing.T) {
	both := []string{"v1", "v2"}
	for name, tc := range map[string]struct {
		change func(*v1alpha1.RolloutStatus, *rollout.Observation)
		want   []string
	}{
		"a candidate is left over": {func(*v1alpha1.RolloutStatus, *rollout.Observation) {}, both},
		"one has N pods already":   {func(_ *v1alpha1.RolloutStatus, o *rollout.Observation) { o.Revisions[0].Replicas = 0 }, []string{"v2"}},
		"an update goes out": {func(s *v1alpha1.RolloutStatus, o *rollout.Observation) {
			s.Phase, s.Candidate = v1alpha1.PhasePromoting, v1alpha1.Revision{Hash: "v2", Template: digest("v2")}
			o.Deployment.Template = digest("v2")
		}, both},
		"N is noted":                  {func(_ *v1alpha1.RolloutStatus, o *rollout.Observation) { o.Deployment.Replicas = 4 }, nil},
		"it scales, without Recreate": {func(_ *v1alpha1.RolloutStatus, o *rollout.Observation) { o.Deployment.User = userFields() }, nil},
		"it will, after the resume":   {func(_ *v1alpha1.RolloutStatus, o *rollout.Observation) { o.Deployment.Paused = true }, nil},
		"it has not looked yet":       {func(_ *v1alpha1.RolloutStatus, o *rollout.Observation) { o.Deployment.Current = false }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			status := v1alpha1.RolloutStatus{DeploymentUID: "uid-1", Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Hash: "v1", Template: digest("v1")}}
			o := rollout.Observation{
				Now: start,
				Deployment: rollout.Deployment{
					UID: "uid-1", Replicas: 1, Current: true, Template: digest("v1"), Gate: v1alpha1.GateOpen, User: v1alpha1.UserFields{StrategyType: "Recreate"},
				},
				Revisions: []rollout.Revision{
					{Hash: "v1", Template: digest("v1"), Replicas: 4, Desired: 4},
					{Hash: "v2", Template: digest("v2"), Replicas: 1, Desired: 4},
				},
			}
			tc.change(&status, &o)
			d := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o)
			if diff := cmp.Diff(tc.want, d.NoteReplicas); diff != "" {
				t.Errorf("N is noted on (-want +got):\n%s", diff)
			}
			if len(d.Sizes) > 0 {
				t.Errorf("sizes %v, which native logic alone decides here", d.Sizes)
			}
		})
	}
}

// What slips past the webhook while no policy selects the workload is none of Headgate's: nobody gates its pods.
func TestWhatSlipsPastWithoutAPolicyIsLetOut(t *testing.T) {
	for name, tc := range map[string]struct {
		policy   *v1alpha1.RolloutPolicySpec
		held     string
		rejected string
		want     v1alpha1.Release
	}{
		"no policy":                           {nil, "v2", "", v1alpha1.ReleaseForward},
		"a suspended one":                     {&v1alpha1.RolloutPolicySpec{Suspend: true}, "v2", "", v1alpha1.ReleaseForward},
		"it failed before":                    {nil, "v2", "v3", v1alpha1.ReleaseBack},
		"the webhook held it a moment before": {nil, "v3", "", ""},
		"a policy selects it":                 {&v1alpha1.RolloutPolicySpec{}, "v2", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, o := stableDeleted(time.Time{})
			if tc.rejected != "" {
				status.Rejected = &v1alpha1.Rejection{Template: digest(tc.rejected)}
			}
			o.PolicyGoneSince = start.Add(-time.Second)
			o.Deployment.Template, o.Deployment.Hold.Template = digest("v3"), digest(tc.held)
			o.Revisions = append(o.Revisions, rollout.Revision{Hash: "v1", Template: digest("v1"), Replicas: 2, Desired: 2})
			d := rollout.Decide(tc.policy, status, o)
			if d.Hold == nil || d.Hold.Release != tc.want || d.Hold.Template != digest("v3") {
				t.Errorf("the hold is %+v, want one of v3 with the release %q", d.Hold, tc.want)
			}
		})
	}
}

// A version that was let out, taken back and applied again is a candidate again, whether or not anybody saw that.
func TestWhatWasLetOutAndIsHeldAgainIsACandidate(t *testing.T) {
	for name, tc := range map[string]struct {
		hold *v1alpha1.Hold
		gate v1alpha1.Gate
		want v1alpha1.Phase
	}{
		"held again":             {&v1alpha1.Hold{K: 1, Template: digest("v2")}, v1alpha1.GateClosed, v1alpha1.PhasePaused},
		"it waits for a resume":  {&v1alpha1.Hold{K: 1, Template: digest("v2"), Release: v1alpha1.ReleaseForward}, v1alpha1.GateOpen, v1alpha1.PhasePromoting},
		"the hold ended already": {nil, v1alpha1.GateOpen, v1alpha1.PhasePromoting},
	} {
		t.Run(name, func(t *testing.T) {
			status, o := stableDeleted(time.Time{})
			status.Phase, status.Verdict = v1alpha1.PhasePromoting, &v1alpha1.Verdict{Result: v1alpha1.ResultUndecided, Cause: "Released"}
			o.Deployment.Paused, o.Deployment.Hold, o.Deployment.Gate = true, tc.hold, tc.gate
			d := rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, o)
			if d.Status.Phase != tc.want {
				t.Errorf("it is %s, want %s", d.Status.Phase, tc.want)
			}
			if opened := len(d.OpenGates) > 0; opened != (tc.want == v1alpha1.PhasePromoting) {
				t.Errorf("gates opened: %v", d.OpenGates)
			}
		})
	}
}

// Pods that served before a rollout began, because stable served nobody, go on until stable has its pods: native logic has
// counted them.
func TestWhatServedBeforeTheRolloutKeepsItsGates(t *testing.T) {
	for name, tc := range map[string]struct {
		stable int32
		closed []string
	}{
		"stable has too few": {1, nil},
		"stable is whole":    {2, []string{"v2"}},
	} {
		t.Run(name, func(t *testing.T) {
			status, o := stableDeleted(time.Time{})
			status.Phase, o.Deployment.Paused = v1alpha1.PhasePaused, true
			began := metav1.NewMicroTime(start.Add(-time.Minute))
			status.StartedAt = &began
			serves := rollout.Pod{Gated: true, GateOpen: true, Ready: true, ReadyButGate: true, NodeReady: true, CreatedAt: start.Add(-time.Hour)}
			stable := rollout.Revision{Hash: "v1", Template: digest("v1"), Replicas: 2, Desired: 2}
			for range tc.stable {
				stable.Pods = append(stable.Pods, serves)
			}
			o.Revisions[0].Pods = []rollout.Pod{serves, serves}
			o.Revisions = append(o.Revisions, stable)
			d := rollout.Decide(&v1alpha1.RolloutPolicySpec{Suspend: true}, status, o)
			if diff := cmp.Diff(tc.closed, d.CloseGates); diff != "" {
				t.Errorf("gates closed (-want +got):\n%s", diff)
			}
		})
	}
}
