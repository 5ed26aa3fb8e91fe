// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"slices"

	"github.com/headgate/headgate/api/v1alpha1"
)

// steps are the policy's, without those whose weight the workload can't carry under an autoscaler
// (there k is at most a tenth of N). At least the first one stays.
func (p *pass) steps() []v1alpha1.Step {
	return EffectiveSteps(p.policy, p.s.Replicas, p.s.Autoscaled)
}

// EffectiveSteps are a policy's steps for a workload of n replicas: all of them, or, under an
// autoscaler, those whose weight the few candidate pods it allows can carry, and those at which the user wants to be asked, or to
// wait, with as much weight as they can carry. Never empty, and never without requests where the policy has some: then it is the
// first step that has, with as much weight as they can carry.
func EffectiveSteps(policy *v1alpha1.RolloutPolicySpec, n int32, autoscaled bool) []v1alpha1.Step {
	all := policy.EffectiveSteps()
	if !autoscaled {
		return all
	}
	k := max(1, n/10)
	var kept []v1alpha1.Step
	for _, s := range all {
		// More pods than the weight needs are a wish that the autoscaler overrules; fewer are the
		// user's word that they can carry it.
		byWeight := v1alpha1.Step{Weight: s.Weight}
		switch fits := min(byWeight.CandidateReplicas(n, false), s.CandidateReplicas(n, false)) <= k; {
		case fits:
			kept = append(kept, s)
		case s.Approval || s.MinDuration != nil:
			kept = append(kept, lighter(s, k, n))
		}
	}
	hasRequests := func(s v1alpha1.Step) bool { return s.Weight > 0 }
	if at := slices.IndexFunc(all, hasRequests); at >= 0 && !slices.ContainsFunc(kept, hasRequests) {
		kept = append(kept, lighter(all[at], k, n))
	}
	if len(kept) == 0 {
		kept = append(kept, lighter(all[0], k, n))
	}
	return kept
}

// lighter is a step with no more weight than k of n pods can carry.
func lighter(s v1alpha1.Step, k, n int32) v1alpha1.Step {
	s.Weight = min(s.Weight, carries(k, n))
	return s
}

// carries is the weight that k of n pods can carry: one that makes none of them busier than the others.
func carries(k, n int32) int32 {
	return int32(min(100, 100*int64(k)/int64(max(1, n))))
}

// k is the number of candidate pods for a step: it follows N, and under an autoscaler is no more than that allows. There it
// doesn't fall below what it was at the start, so that the candidate does not feed back into the arithmetic that N comes from.
func (p *pass) k(step int32) int32 {
	if p.mixed() {
		return 1
	}
	steps := p.steps()
	s, n := steps[max(0, min(int(step), len(steps)-1))], p.o.Deployment.Replicas
	if p.s.Autoscaled {
		return min(max(s.CandidateReplicas(p.s.Replicas, true), s.CandidateReplicas(n, true)), max(1, n))
	}
	return s.CandidateReplicas(n, false)
}

// kNow is k for the current step, which has so many pods already. An autoscaler that wavers about a multiple of ten must not have
// the last of them made and taken away each minute: it goes when there are more than twice as many as are allowed.
func (p *pass) kNow() int32 {
	k := p.k(p.s.Step)
	if was := p.s.CandidateReplicas; p.s.Autoscaled && !p.mixed() && was > k && was <= min(2*k, p.o.Deployment.Replicas) {
		return was
	}
	return k
}

// mixed: some third revision serves beside stable, because its promotion was under way when the
// candidate came. Native logic alone keeps these pods and stable's, with one candidate pod on top.
func (p *pass) mixed() bool {
	return slices.ContainsFunc(p.o.Revisions, func(r Revision) bool {
		return r.Hash != p.s.Stable.Hash && r.Hash != p.s.Candidate.Hash && r.ready() > 0
	})
}

// weightOf is the current step's weight, or as much of it as the candidate's pods can carry: see lightened. Each change makes the
// step begin again, and an autoscaler changes N each minute: one that has fallen stays.
func (p *pass) weightOf(step v1alpha1.Step) int32 {
	if was := p.s.Weight; p.s.Autoscaled && was > 0 && was < step.Weight && !p.isNewStep() {
		step.Weight = was
	}
	return p.lightened(step, p.s.CandidateReplicas)
}

// lightened is a step's weight, or as much of it as its pods can carry: one on top of a mix, or the k that an autoscaler allows
// where N has grown since the steps were chosen. That is not nothing, however many pods there are: without requests the step
// would never be judged. Fewer pods than the weight needs are the user's word that they can carry it.
func (p *pass) lightened(step v1alpha1.Step, k int32) int32 {
	n := p.o.Deployment.Replicas
	switch {
	case p.mixed():
		return min(step.Weight, max(1, carries(1, n)))
	case p.s.Autoscaled && overloads(step.Weight, k, n) && (step.Replicas == nil || k < step.CandidateReplicas(n, false)):
		return max(1, carries(k, n))
	}
	return step.Weight
}

// overloads: each of k candidate pods would have more than one and a half times the requests of one of n pods. What is less is
// not worth that the step begins again.
func overloads(weight, k, n int32) bool {
	return 2*int64(weight)*int64(n) > 300*int64(k)
}
