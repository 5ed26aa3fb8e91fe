// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"fmt"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/controller"
)

// walk is the way that a candidate goes through the policy's steps, as far as the oracle has seen it.
type walk struct {
	// passed are the steps whose time has begun.
	passed map[int32]passedStep
	// approved are the steps that the user has approved.
	approved map[int32]bool
	// policy is what counted when the rollout began; nil once another one did, or N was an autoscaler's: then the steps are not
	// known here.
	policy *v1alpha1.RolloutPolicySpec
	// began is the policy that the process saw which began the rollout; it counts until the end. Nil: none, or not known.
	began *v1alpha1.RolloutPolicySpec
}

// passedStep is a step as it was judged.
type passedStep struct {
	weight int32
	// mixed: the deciding process saw a third version that serves, beside which native logic leaves the candidate one pod. It gets
	// as much of the step's weight as that one can carry.
	mixed bool
}

// stepTaken is told each change of the record.
func (o *oracle) stepTaken(before, after *v1alpha1.RolloutStatus) {
	if !after.StartedAt.Equal(before.StartedAt) || after.Candidate.Template != before.Candidate.Template {
		o.walk = walk{passed: map[int32]passedStep{}, approved: map[int32]bool{}}
		if p, ok := o.w.acting.view.memory[policies][webKey].(*v1alpha1.RolloutPolicy); ok && !p.Spec.Suspend {
			o.walk.began = &p.Spec
		}
		if o.w.scaler.stored() == nil {
			o.walk.policy = o.w.currentPolicy()
		}
	}
	if after.StepSince == nil || (before.StepSince != nil && after.Step == before.Step) {
		return
	}
	if o.walk.passed != nil {
		o.walk.passed[after.Step] = passedStep{after.Weight, o.mixed(after)}
	}
	o.stepInForce(after)
}

// mixed: the process that acts sees ready pods of a version that is neither stable nor the candidate.
func (o *oracle) mixed(s *v1alpha1.RolloutStatus) bool {
	return slices.ContainsFunc(o.w.acting.view.memory.all(pods), func(x client.Object) bool {
		v := hashOf(x)
		return v != s.Stable.Hash && v != s.Candidate.Hash && isReady(x.(*corev1.Pod))
	})
}

// stepInForce: at least one of the sidecars of stable that are connected sends the share that is about to be judged. What they
// say changes with the server that they are connected to, so that only a pass that sees everything can be asked.
func (o *oracle) stepInForce(s *v1alpha1.RolloutStatus) {
	if !o.w.acting.current || o.w.acting.client.arriving.do != nil {
		return
	}
	for _, ack := range o.w.sidecars.Acks(webKey, s.Stable.Hash) {
		if ack.Peer == s.Candidate.Hash && ack.PeerWeight == s.Weight {
			return
		}
	}
	o.violated(JudgedInForce, "step %d of %s begins at %d %%, and no sidecar of %s sends that", s.Step, s.Candidate.Hash, s.Weight, s.Stable.Hash)
}

// wished is told each write. Once a policy or an autoscaler has changed the oracle doesn't know which steps count.
func (o *oracle) wished(by string, written client.Object) {
	switch x := written.(type) {
	case *v1alpha1.Rollout:
		if a := x.Spec.Approve; by == "user" && a != nil && a.Revision == o.versionOf(x.Status.Candidate) && o.walk.approved != nil {
			o.walk.approved[a.Step] = true
		}
	case *v1alpha1.RolloutPolicy, *autoscalingv2.HorizontalPodAutoscaler:
		o.walk.policy = nil
	}
}

// unwalked is what of a policy's steps is missing for a promotion by verdicts; empty: nothing, or nothing that the oracle knows of.
func (o *oracle) unwalked() string {
	if o.walk.policy == nil {
		return ""
	}
	for i, step := range o.walk.policy.EffectiveSteps() {
		passed, ok := o.walk.passed[int32(i)]
		less := passed.mixed && 0 < passed.weight && passed.weight < step.Weight
		switch {
		case !ok:
			return fmt.Sprintf("step %d was left out", i)
		case passed.weight != step.Weight && !less:
			return fmt.Sprintf("step %d was judged at %d %%", i, passed.weight)
		case step.Approval && !o.walk.approved[int32(i)]:
			return fmt.Sprintf("nobody has approved step %d", i)
		}
	}
	return ""
}

// verdictCounts: the verdict lets a version out. What could not be judged does where the policy that the rollout began with says
// so, or where the oracle doesn't know that one.
func (o *oracle) verdictCounts(told v1alpha1.Result) bool {
	policy := o.walk.began
	switch told {
	case v1alpha1.ResultPass:
		return true
	case v1alpha1.ResultInconclusive:
		return policy == nil || policy.OnInconclusive == "" || policy.OnInconclusive == v1alpha1.OnInconclusiveAdvance
	}
	return false
}

// maxUnheardRounds is how long a sidecar may take to hear from a server that has seen everything.
const maxUnheardRounds = 3

// rejectedIsOver: once a candidate is rejected, the sidecars that are connected to a server that has seen that do as it says, and
// not only the record: those of stable send nothing to it, and its own hand on what others still send, who are cut off.
func (o *oracle) rejectedIsOver() {
	s, unheard := o.w.record(), ""
	if isRejected(s) && s.Candidate.Hash != "" {
		for pod, ack := range o.w.sidecars.heard(s.Stable.Hash) {
			if ack.Peer == s.Candidate.Hash && ack.PeerWeight > 0 {
				unheard = fmt.Sprintf("%s still sends %d %% to %s", pod, ack.PeerWeight, s.Candidate.Hash)
			}
		}
		for pod, ack := range o.w.sidecars.heard(s.Candidate.Hash) {
			if !ack.Over {
				unheard = pod + " keeps what sidecars that are cut off still send it"
			}
		}
	}
	if unheard == "" {
		o.unheard = 0
		return
	}
	if o.unheard++; o.unheard > maxUnheardRounds {
		o.violated(FailMeansZero, "%s was rejected, and %s", s.Candidate.Hash, unheard)
	}
}

// heard is what the sidecars of a version do that are connected to a server which has seen everything, and that answer, by pod.
func (s *sidecars) heard(version string) map[string]controller.Ack {
	out := map[string]controller.Ack{}
	for _, o := range s.w.api.all(pods) {
		pod := o.(*corev1.Pod)
		if hashOf(pod) != version || s.mute[version] {
			continue
		}
		if ack, ok := s.acks[pod.Name]; ok {
			if r := s.server(pod); r != nil && r.fresh() {
				out[pod.Name] = ack
			}
		}
	}
	return out
}
