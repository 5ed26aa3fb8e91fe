// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// podsOf are n pods that serve, an hour old, but for the change.
func podsOf(name string, n int, change func(*rollout.Pod)) (out []rollout.Pod) {
	for i := range n {
		p := rollout.Pod{Name: fmt.Sprint(name, "-", i), Ready: true, ReadyButGate: true, NodeReady: true, CreatedAt: start.Add(-time.Hour)}
		if change != nil {
			change(&p)
		}
		out = append(out, p)
	}
	return out
}

// signalled decides about a candidate v2 beside stable v1 in a phase in which pods alone may speak against it.
func signalled(phase v1alpha1.Phase, gate v1alpha1.Gate, stable, candidate []rollout.Pod) rollout.Decision {
	ago := func(d time.Duration) *metav1.MicroTime { m := metav1.NewMicroTime(start.Add(-d)); return &m }
	status := v1alpha1.RolloutStatus{
		DeploymentUID: "uid-1", Phase: phase, CandidateReplicas: 1, Weight: 10, WeightInForce: 10, Replicas: 4,
		PhaseSince: ago(5 * time.Minute), StepSince: ago(7 * time.Minute), WeightSince: ago(7 * time.Minute), StartedAt: ago(9 * time.Minute),
		Stable: v1alpha1.Revision{Hash: "v1", Template: digest("v1")}, Candidate: v1alpha1.Revision{Hash: "v2", Template: digest("v2")},
	}
	d := rollout.Deployment{UID: "uid-1", Replicas: 4, Current: true, Template: digest("v2"), Gate: gate, User: userFields()}
	if gate == v1alpha1.GateClosed {
		d.Hold = &v1alpha1.Hold{K: 1, Template: digest("v2"), User: userFields()}
	}
	return rollout.Decide(&v1alpha1.RolloutPolicySpec{}, status, rollout.Observation{Now: start, Deployment: d, Revisions: []rollout.Revision{
		{Hash: "v1", Template: digest("v1"), Replicas: int32(len(stable)), Desired: 4, Pods: stable},
		{Hash: "v2", Template: digest("v2"), Replicas: int32(len(candidate)), Desired: 4, Pods: candidate},
	}})
}

// A rollout may last for days, and then what befalls stable's pods now and then befalls the candidate's, too.
func TestRestartsThatStableHasAsOften(t *testing.T) {
	restarted := func(n int32, age time.Duration, problem rollout.PodProblem) func(*rollout.Pod) {
		return func(p *rollout.Pod) {
			p.Restarts, p.CreatedAt, p.Problem = n, start.Add(-age), problem
			if problem != rollout.ProblemNone {
				p.ProblemSince = start.Add(-age / 2)
			}
		}
	}
	for name, tc := range map[string]struct {
		stable, candidate func(*rollout.Pod)
		want              v1alpha1.Phase
	}{
		"as often":        {restarted(40, 400*time.Hour, rollout.ProblemNone), restarted(2, 21*time.Hour, rollout.ProblemNone), v1alpha1.PhaseStepping},
		"more often":      {restarted(40, 400*time.Hour, rollout.ProblemNone), restarted(2, time.Hour, rollout.ProblemNone), v1alpha1.PhaseQuarantined},
		"only that one":   {nil, restarted(2, 21*time.Hour, rollout.ProblemNone), v1alpha1.PhaseQuarantined},
		"killed as often": {restarted(40, 400*time.Hour, rollout.ProblemOOMKilled), restarted(1, 21*time.Hour, rollout.ProblemOOMKilled), v1alpha1.PhaseStepping},
		"killed at once":  {restarted(40, 400*time.Hour, rollout.ProblemOOMKilled), restarted(0, time.Minute, rollout.ProblemOOMKilled), v1alpha1.PhaseQuarantined},
	} {
		t.Run(name, func(t *testing.T) {
			candidate := podsOf("v2", 1, tc.candidate)
			candidate[0].Gated, candidate[0].Ready = true, false
			d := signalled(v1alpha1.PhaseStepping, v1alpha1.GateClosed, podsOf("v1", 4, tc.stable), candidate)
			if got := d.Status.Phase; got != tc.want && (tc.want != v1alpha1.PhaseQuarantined || got != v1alpha1.PhaseRollingBack) {
				t.Errorf("phase %s, want %s: %+v", got, tc.want, d.Status.Verdict)
			}
		})
	}
}

// Late in a promotion none of stable's pods is left. That all of the new ones are not ready for a while, as where a dependency
// is away, can't be compared with anything, and all of stable would have to start again.
func TestReadinessThatIsLostWhereNothingOfStableIsLeft(t *testing.T) {
	blip := podsOf("v2", 4, func(p *rollout.Pod) {
		p.Ready, p.ReadyButGate, p.LostReadySince = false, false, start.Add(-16*time.Second)
	})
	blip[3].LostReadySince = time.Time{} // it still starts
	if d := signalled(v1alpha1.PhasePromoting, v1alpha1.GateOpen, nil, blip); d.Status.Phase != v1alpha1.PhasePromoting {
		t.Errorf("with nothing of stable left: phase %s: %+v", d.Status.Phase, d.Status.Verdict)
	}
	if d := signalled(v1alpha1.PhasePromoting, v1alpha1.GateOpen, podsOf("v1", 1, nil), blip); d.Status.Phase != v1alpha1.PhaseRollingBack {
		t.Errorf("beside a pod of stable that is ready: phase %s: %+v", d.Status.Phase, d.Status.Verdict)
	}
}
