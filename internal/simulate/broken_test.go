// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/controller"
)

// Histories in which the bugs below show.
const (
	good          = "replicas 4\ncreate v1\nrun 8s\nverdict v2 Pass\nset-image v2\nrun 40s"
	bad           = "replicas 4\npolicy cautious\ncreate v1\nrun 8s\nset-image v2\nrun 8s\nverdict v2 Fail\nrun 9s"
	unknown       = "replicas 4\npolicy cautious\ncreate v1\nrun 8s\nset-image v2\nverdict v2 Inconclusive\nrun 40s"
	asked         = "replicas 4\npolicy approval\ncreate v1\nrun 8s\nset-image v2\nverdict v2 Pass\nrun 60s"
	silence       = "replicas 4\ncreate v1\nrun 8s\nset-image v2\nrun 30s"
	inPause       = "replicas 4\npolicy cautious\ncreate v1\nrun 8s\nset-image v2\nrun 8s\npause\nrun 3s\nresume\nrun 9s"
	threeVersions = "replicas 4\ncreate v1\nrun 8s\nset-image v2\nrun 8s\nset-image v3\nrun 8s\nverdict v3 Fail\nrun 20s"
)

// TestBugsAreFound builds one known bug in at a time: each invariant can fail.
func TestBugsAreFound(t *testing.T) {
	cases := map[string]struct {
		history string
		bug     func(*world)
		want    Invariant
	}{
		"the hold lets one pod be unavailable": {silence, admitting(func(_, after *appsv1.Deployment) {
			if isHeld(after) {
				after.Spec.Strategy.RollingUpdate.MaxUnavailable = new(intstr.FromInt32(1))
			}
		}), StableKeepsPods},
		"the annotation with a lower k is rendered while paused": {inPause, admitting(func(before, after *appsv1.Deployment) {
			if isHeld(after) && isHeld(before) && after.Spec.Paused {
				after.Spec.Strategy.RollingUpdate.MaxSurge = new(intstr.FromInt32(0))
				after.Spec.Strategy.RollingUpdate.MaxUnavailable = new(intstr.FromInt32(1))
			}
		}), StableKeepsPods},
		"candidates come without a gate": {silence, func(w *world) {
			w.chain.tamperPod = func(pod *corev1.Pod) { pod.Spec.ReadinessGates = nil }
			writing(func(o client.Object) bool { // and nobody takes them away
				_, ok := o.(*corev1.Pod)
				return !ok
			})(w)
		}, OnlyJudgedServes},
		"Undecided counts as Pass": {silence, hearing(func(v v1alpha1.Verdict) v1alpha1.Verdict {
			if v.Result == "" {
				v.Result = v1alpha1.ResultPass
			}
			return v
		}), OnlyJudgedServes},
		"the weight is raised with the hold": {good, recording(func(s *v1alpha1.RolloutStatus) {
			if s.Phase == v1alpha1.PhaseStarting {
				s.Weight = 10
			}
		}), WeightNeedsPeers},
		"a Fail is not heard": {bad, hearing(func(v v1alpha1.Verdict) v1alpha1.Verdict {
			if v.Result == v1alpha1.ResultFail {
				v.Result = v1alpha1.ResultHold
			}
			return v
		}), FailMeansZero},
		"a step that could not be judged counts whatever the policy says": {unknown, hearing(func(v v1alpha1.Verdict) v1alpha1.Verdict {
			if v.Result == v1alpha1.ResultInconclusive {
				v.Result = v1alpha1.ResultPass
			}
			return v
		}), OnlyJudgedServes},
		"nobody is asked for an approval": {asked, recording(func(s *v1alpha1.RolloutStatus) {
			if s.AwaitingApproval {
				s.Phase, s.AwaitingApproval = v1alpha1.PhasePromoting, false
			}
		}), JudgedInForce},
		"a step is left out": {good, recording(func(s *v1alpha1.RolloutStatus) {
			if s.Phase == v1alpha1.PhaseStepping && s.Step == 1 {
				s.Step = 2
			}
		}), JudgedInForce},
		"a step begins before its weight is in force": {good, recording(func(s *v1alpha1.RolloutStatus) {
			if s.Phase == v1alpha1.PhaseStepping && s.Weight > 0 && s.StepSince == nil {
				s.StepSince = s.WeightSince
			}
		}), JudgedInForce},
		"sidecars never send less": {bad, func(w *world) {
			w.sidecars.tamper = func(version string, ack *controller.Ack) {
				if version == "v1" && ack.Peer == "v2" {
					ack.PeerWeight = max(10, ack.PeerWeight)
				}
			}
		}, FailMeansZero},
		"sidecars of a rejected version keep what they are sent": {bad, func(w *world) {
			w.sidecars.tamper = func(_ string, ack *controller.Ack) { ack.Over = false }
		}, FailMeansZero},
		"a roll back keeps a little weight": {bad, recording(func(s *v1alpha1.RolloutStatus) {
			if s.Phase == v1alpha1.PhaseRollingBack {
				s.Weight = max(1, s.Weight)
			}
		}), FailMeansZero},
		"the deadline of the hold stays": {good, admitting(func(before, after *appsv1.Deployment) {
			if isHeld(before) && !isHeld(after) {
				after.Spec.ProgressDeadlineSeconds = before.Spec.ProgressDeadlineSeconds
			}
		}), FieldsComeBack},
		"the controller never writes to the Deployment": {good, writing(func(o client.Object) bool {
			_, ok := o.(*appsv1.Deployment)
			return !ok
		}), ComesToRest},
		// That superseded candidates stay in the history is none: the webhook knows an undo that goes there.
		"an undo is not heard": {threeVersions, admitting(func(before, after *appsv1.Deployment) {
			if isHeld(before) && !isHeld(after) {
				before.DeepCopyInto(after)
			}
		}), UndoReachesStable},
		"the analysis panics": {bad, hearing(func(v v1alpha1.Verdict) v1alpha1.Verdict {
			if v.Result == v1alpha1.ResultFail {
				panic("no evidence")
			}
			return v
		}), NoPanic},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h, err := ParseHistory(tc.history)
			if err != nil {
				t.Fatal(err)
			}
			if v, err := Play(h, Options{}); v != nil || err != nil {
				t.Fatalf("without the bug: %v, %v", v, err)
			}
			if v, err := Play(h, Options{Break: tc.bug}); err != nil || v == nil || v.Invariant != tc.want {
				t.Errorf("got %v, %v; want %q", v, err, tc.want)
			}
		})
	}
}

func admitting(f func(before, after *appsv1.Deployment)) func(*world) {
	return func(w *world) { w.chain.tamper = f }
}

func hearing(f func(v1alpha1.Verdict) v1alpha1.Verdict) func(*world) {
	return func(w *world) { w.analysis.tamper = f }
}

func writing(f func(client.Object) bool) func(*world) {
	return func(w *world) {
		for _, r := range w.replicas {
			r.client.tamper = f
		}
	}
}

func recording(f func(*v1alpha1.RolloutStatus)) func(*world) {
	return writing(func(o client.Object) bool {
		if r, ok := o.(*v1alpha1.Rollout); ok {
			f(&r.Status)
		}
		return true
	})
}

func isHeld(d *appsv1.Deployment) bool { return d.Annotations[v1alpha1.HoldAnnotation] != "" }

// TestShrink: what is not needed for the violation is left out.
func TestShrink(t *testing.T) {
	bug := Options{Break: recording(func(s *v1alpha1.RolloutStatus) {
		if s.Phase == v1alpha1.PhaseStarting {
			s.Weight = 10
		}
	})}
	h, err := ParseHistory("policy revert\nreplicas 3\ncreate v1\nrun 9s\nload 3\nset-image v2\nrun 5s\npause\nrun 5s\nwipe")
	if err != nil {
		t.Fatal(err)
	}
	v, err := Play(h, bug)
	if err != nil || v == nil {
		t.Fatalf("violation %v, error %v", v, err)
	}
	short, v := Shrink(h, v, bug)
	want := "create v1\nrun 9s\nset-image v2\n"
	if short.String() != want || v.Invariant != WeightNeedsPeers {
		t.Errorf("%s\n%s", v, short)
	}
}

// TestPlayingTwiceIsTheSame: a history has no chance in it.
func TestPlayingTwiceIsTheSame(t *testing.T) {
	for seed := range int64(2) {
		var traces [2]string
		for i := range traces {
			var b strings.Builder
			if _, err := Play(Random(seed), Options{Trace: func(line string) { b.WriteString(line + "\n") }}); err != nil {
				t.Fatal(err)
			}
			traces[i] = b.String()
		}
		if traces[0] != traces[1] {
			t.Errorf("seed %d is played in two ways", seed)
		}
	}
}
