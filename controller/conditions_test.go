// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// said is a condition without its time.
type said struct{ Status, Reason, Message string }

func TestConditionsOfARecord(t *testing.T) {
	fine := func(phase string) said {
		return said{"True", phase, "nothing speaks against the version that is in the template"}
	}
	complete := said{"True", "DataComplete", "the analysis has what it needs"}
	for name, tc := range map[string]struct {
		phase   v1alpha1.Phase
		verdict *v1alpha1.Verdict
		want    map[string]said
	}{
		"at rest nothing is judged": {v1alpha1.PhaseIdle, &v1alpha1.Verdict{Result: v1alpha1.ResultPass}, map[string]said{"Healthy": fine("Idle")}},
		"before the first verdict":  {v1alpha1.PhaseStepping, nil, map[string]said{"Healthy": fine("Stepping")}},
		"judged with all data":      {v1alpha1.PhaseStepping, &v1alpha1.Verdict{}, map[string]said{"Healthy": fine("Stepping"), "Judged": complete}},
		"still judged while paused": {v1alpha1.PhasePaused, &v1alpha1.Verdict{Evidence: &v1alpha1.Evidence{}}, map[string]said{"Healthy": fine("Paused"), "Judged": complete}},
		"blind": {
			v1alpha1.PhaseStepping, &v1alpha1.Verdict{Result: v1alpha1.ResultHold, Cause: "Blind", Message: "no data"},
			map[string]said{"Healthy": fine("Stepping"), "Judged": {"False", "Blind", "no data"}},
		},
		"nobody splits": {
			v1alpha1.PhasePromoting, &v1alpha1.Verdict{Result: v1alpha1.ResultHold, Cause: "NoSplit", Message: "no share"},
			map[string]said{"Healthy": fine("Promoting"), "Judged": {"False", "NoSplit", "no share"}},
		},
		"a look without data": {
			v1alpha1.PhaseStepping, &v1alpha1.Verdict{Evidence: &v1alpha1.Evidence{Missing: "timeout"}},
			map[string]said{"Healthy": fine("Stepping"), "Judged": {"False", "DataMissing", "timeout"}},
		},
		"nobody can know": {
			v1alpha1.PhaseStepping, &v1alpha1.Verdict{Result: v1alpha1.ResultInconclusive, Cause: "TooLittleData", Message: "no traffic", Evidence: &v1alpha1.Evidence{}},
			map[string]said{"Healthy": fine("Stepping"), "Judged": {"False", "Inconclusive", "no traffic"}},
		},
		"rolled back": {
			v1alpha1.PhaseQuarantined, &v1alpha1.Verdict{Result: v1alpha1.ResultFail, Message: "5 % errors"},
			map[string]said{"Healthy": {"False", "Failed", "5 % errors"}},
		},
		"rolling back without a word why": {
			v1alpha1.PhaseRollingBack, nil,
			map[string]said{"Healthy": {"False", "Failed", "the version that is in the template failed; stable serves"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := v1alpha1.RolloutStatus{Phase: tc.phase, Verdict: tc.verdict, Conditions: []metav1.Condition{
				{Type: "Judged", Status: "True", Reason: "Old", LastTransitionTime: metaAt(1)},
			}}
			setConditions(&s, nil, metaAt(50))
			got := map[string]said{}
			for _, c := range s.Conditions {
				got[c.Type] = said{string(c.Status), c.Reason, c.Message}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("conditions (-want +got):\n%s", d)
			}
		})
	}
}

func TestConditionsChangeTheirTimeOnlyWithTheirStatus(t *testing.T) {
	s := v1alpha1.RolloutStatus{Phase: v1alpha1.PhaseStarting}
	var got []string
	for i, phase := range []v1alpha1.Phase{v1alpha1.PhaseStarting, v1alpha1.PhaseStepping, v1alpha1.PhaseRollingBack, v1alpha1.PhaseQuarantined} {
		s.Phase = phase
		setConditions(&s, nil, metaAt(i))
		got = append(got, s.Conditions[0].LastTransitionTime.UTC().Format("05"))
	}
	if d := cmp.Diff([]string{"00", "00", "02", "02"}, got); d != "" {
		t.Errorf("seconds of the last transition (-want +got):\n%s", d)
	}
}

func TestNoTrafficNamesThePorts(t *testing.T) {
	since := metav1.NewMicroTime(metaAt(0).Time)
	ports := []v1alpha1.CapturedPort{{Port: 7070}, {Port: 9090}}
	for name, tc := range map[string]struct {
		requests int64
		second   int
		want     said
	}{
		"no request for a while":      {0, 30, said{"False", "NoTraffic", "no request was seen at the captured ports (7070, 9090); they are the containerPorts of the pods"}},
		"the step has just begun":     {0, 5, said{"True", "DataComplete", "the analysis has what it needs"}},
		"one request is some traffic": {1, 30, said{"True", "DataComplete", "the analysis has what it needs"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := v1alpha1.RolloutStatus{
				Phase: v1alpha1.PhaseStepping, StepSince: &since,
				Verdict: &v1alpha1.Verdict{Evidence: &v1alpha1.Evidence{StableRequests: tc.requests}},
			}
			setConditions(&s, ports, metaAt(tc.second))
			c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionJudged)
			if got := (said{string(c.Status), c.Reason, c.Message}); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
