// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// steps are the policy's, without those whose weight the workload can't carry under an autoscaler
// (there k is at most a tenth of N). At least the first one stays.
func (p *pass) steps() []v1alpha1.Step {
	return EffectiveSteps(p.policy, p.s.Replicas, p.s.Autoscaled)
}

// EffectiveSteps are a policy's steps for a workload of n replicas: all of them, or, under an
// autoscaler, those whose weight the few candidate pods it allows can carry. Never empty.
func EffectiveSteps(policy *v1alpha1.RolloutPolicySpec, n int32, autoscaled bool) []v1alpha1.Step {
	all := policy.EffectiveSteps()
	if !autoscaled {
		return all
	}
	kept := all[:1:1]
	for _, s := range all[1:] {
		if s.CandidateReplicas(n, false) <= max(1, n/10) {
			kept = append(kept, s)
		}
	}
	return kept
}

func (p *pass) k(step int32) int32 {
	steps := p.steps()
	return steps[min(int(step), len(steps)-1)].CandidateReplicas(p.o.Deployment.Replicas, p.s.Autoscaled)
}

// StepBudget is how long the current step may be judged: an equal share of what is left of
// maxDuration, so that early steps that finish soon leave more to later ones.
func StepBudget(policy *v1alpha1.RolloutPolicySpec, s *v1alpha1.RolloutStatus) time.Duration {
	left := int32(len(EffectiveSteps(policy, s.Replicas, s.Autoscaled))) - s.Step
	return max(0, policy.EffectiveMaxDuration()-s.JudgedFor.Duration) / time.Duration(max(1, left))
}

// starting waits until k pods run and all sidecars know them.
func (p *pass) starting() {
	if p.pauseIfAsked() {
		return
	}
	p.s.CandidateReplicas = p.k(0)
	p.d.Requeue = tick
	if v := p.startSignals(); v != nil {
		p.rollBack(v)
		return
	}
	ready, k := p.candidate.readyButGate(), p.s.CandidateReplicas
	if ready < k {
		p.because(fmt.Sprintf("%d of %d candidate pods are ready but for the gate", ready, k))
		return
	}
	if !p.acked || !p.candidateListens() {
		p.because("waiting for the sidecars to acknowledge the candidate")
		return
	}
	p.enter(v1alpha1.PhaseStepping)
	p.s.Step, p.s.StepSince = 0, nil
	p.event(false, "CandidateReady", fmt.Sprintf("%d candidate pod(s) ready but for the gate; weight goes to %d%%", ready, p.steps()[0].Weight))
	p.stepping()
}

// candidateListens: the sidecars of the candidate's pods have acknowledged too, or a request that
// arrives there would stay there.
func (p *pass) candidateListens() bool {
	n := int32(0)
	for _, sc := range p.o.Sidecars {
		if sc.Revision == p.s.Candidate.Hash && sc.Connected && sc.Candidate == p.s.Candidate.Hash && sc.Weight == p.s.Weight {
			n++
		}
	}
	return n >= min(p.s.CandidateReplicas, p.candidate.readyButGate())
}

// stepping keeps the step's weight and k in force and moves on by evidence.
func (p *pass) stepping() {
	p.d.Requeue = tick
	if p.failed() || p.pauseIfAsked() {
		return
	}
	step := p.currentStep()
	p.s.CandidateReplicas = p.k(p.s.Step)
	if p.s.Weight != step.Weight {
		if ready := p.candidate.readyButGate(); ready < p.s.CandidateReplicas {
			if v := p.startSignals(); v != nil {
				p.rollBack(v)
				return
			}
			p.because(fmt.Sprintf("step %d: %d of %d candidate pods are ready but for the gate", p.s.Step, ready, p.s.CandidateReplicas))
			return
		}
		p.setWeight(step.Weight)
		p.because(fmt.Sprintf("step %d: weight goes to %d%%", p.s.Step, step.Weight))
		return
	}
	if p.s.StepSince == nil {
		if !p.acked {
			p.because(fmt.Sprintf("step %d: waiting for the sidecars to acknowledge %d%%", p.s.Step, step.Weight))
			return
		}
		p.s.StepSince = micro(p.o.Now)
	}
	p.judgeStep(step)
}

func (p *pass) currentStep() v1alpha1.Step {
	steps := p.steps()
	p.s.Step = max(0, min(p.s.Step, int32(len(steps)-1)))
	return steps[p.s.Step]
}

// judged is how long the current step has been judged, pauses not counted.
func (p *pass) judged() time.Duration {
	if p.s.StepSince == nil {
		return 0
	}
	return max(0, p.o.Now.Sub(p.s.StepSince.Time)-p.s.PausedFor.Duration)
}

func (p *pass) judgeStep(step v1alpha1.Step) {
	p.because(fmt.Sprintf("step %d: judging at %d%%", p.s.Step, step.Weight))
	switch {
	case p.wantsPromotion():
		p.event(false, "PromotedByUser", "Promotion was asked for; the remaining steps are skipped")
		p.promote()
	case !p.accepted():
		return
	case step.MinDuration != nil && p.judged() < step.MinDuration.Duration:
		p.because(fmt.Sprintf("step %d: accepted, its minimum time is not over", p.s.Step))
	case step.Approval && !p.approved():
		p.enter(v1alpha1.PhasePaused)
		p.s.ResumePhase, p.s.AwaitingApproval = v1alpha1.PhaseStepping, true
		p.event(false, "AwaitingApproval", fmt.Sprintf("Step %d is accepted and waits for approval", p.s.Step))
		p.because(fmt.Sprintf("step %d: waiting for approval", p.s.Step))
	default:
		p.advance()
	}
}

// accepted follows the verdict; a Fail has been dealt with before.
func (p *pass) accepted() bool {
	v := p.o.Verdict
	overTime := p.s.JudgedFor.Duration+p.judged() >= p.policy.EffectiveMaxDuration()
	switch v.Result {
	case v1alpha1.ResultPass:
		return true
	case v1alpha1.ResultInconclusive:
		switch p.policy.OnInconclusive {
		case v1alpha1.OnInconclusiveRollBack:
			p.rollBack(&v1alpha1.Verdict{Result: v1alpha1.ResultFail, Cause: "Inconclusive", Message: v.Message, Evidence: v.Evidence})
			return false
		case v1alpha1.OnInconclusiveHold:
			p.because(fmt.Sprintf("step %d: inconclusive, the policy says hold", p.s.Step))
			return false
		}
		p.event(false, "StepInconclusive", fmt.Sprintf("Step %d had too little traffic to know; the policy says advance", p.s.Step))
		return true
	case v1alpha1.ResultHold:
		p.because(fmt.Sprintf("step %d: on hold: %s", p.s.Step, v.Cause))
		if IsBlind(v.Cause) {
			if p.policy.OnBlind == v1alpha1.OnBlindRollBack && p.judged() >= blindFor {
				p.rollBack(&v1alpha1.Verdict{Result: v1alpha1.ResultFail, Cause: v.Cause, Message: v.Message, Evidence: v.Evidence})
			}
		} else if overTime {
			p.rollBack(&v1alpha1.Verdict{Result: v1alpha1.ResultFail, Cause: v.Cause, Message: v.Message, Evidence: v.Evidence})
		}
	}
	return false
}

// Causes of a Hold that mean: nothing can be known. They never promote and, but for onBlind, never roll back.
const (
	CauseBlind   = "Blind"
	CauseNoSplit = "NoSplit"
)

// IsBlind says whether a cause means that there is no usable data.
func IsBlind(cause string) bool { return cause == CauseBlind || cause == CauseNoSplit }

func (p *pass) wantsPromotion() bool {
	w := p.o.Wishes.Promote
	return w != nil && w.Revision != "" && w.Revision == p.s.Candidate.Hash
}

func (p *pass) approved() bool {
	w := p.o.Wishes.Approve
	return p.wantsPromotion() || (w != nil && w.Revision != "" && w.Revision == p.s.Candidate.Hash && w.Step == p.s.Step)
}

// advance goes to the next step, or to the end.
func (p *pass) advance() {
	if int(p.s.Step) == len(p.steps())-1 {
		p.promote()
		return
	}
	p.s.JudgedFor = metav1.Duration{Duration: p.s.JudgedFor.Duration + p.judged()}
	p.s.PausedFor = metav1.Duration{}
	p.s.Step++
	p.s.StepSince = nil
	p.enter(v1alpha1.PhaseStepping)
	step := p.currentStep()
	p.s.CandidateReplicas = p.k(p.s.Step)
	p.event(false, "StepAccepted", fmt.Sprintf("Step %d accepted; next is %d%% with %d pod(s)", p.s.Step-1, step.Weight, p.s.CandidateReplicas))
	p.because(fmt.Sprintf("step %d begins", p.s.Step))
}

// failed rolls back when the analysis or the pods say so.
func (p *pass) failed() bool {
	if v := podSignals(p.o, p.stable, p.candidate); v != nil {
		p.rollBack(v)
		return true
	}
	if p.o.Verdict.Result == v1alpha1.ResultFail {
		p.rollBack(p.o.Verdict.DeepCopy())
		return true
	}
	if p.o.Verdict.Result != "" {
		p.s.Verdict = p.o.Verdict.DeepCopy()
	}
	return false
}

// pauseIfAsked: the user's spec.paused. Nothing of the Deployment may change while it is set.
func (p *pass) pauseIfAsked() bool {
	if !p.o.Deployment.Paused {
		return false
	}
	resume := p.s.Phase
	p.enter(v1alpha1.PhasePaused)
	p.s.ResumePhase = resume
	p.event(false, "RolloutPaused", "Paused by the user; the weight stays, and a failing candidate is still taken out of traffic")
	p.because("paused by the user")
	return true
}

// paused keeps everything as it is, but still judges.
func (p *pass) paused() {
	p.d.Requeue = tick
	if p.failed() {
		return
	}
	switch {
	case p.o.Deployment.Paused:
		p.because("paused by the user")
	case p.s.AwaitingApproval && !p.approved():
		p.because(fmt.Sprintf("step %d: waiting for approval", p.s.Step))
	case p.s.AwaitingApproval:
		p.leavePause()
		p.event(false, "Approved", fmt.Sprintf("Step %d was approved", p.s.Step))
		p.advance()
	default:
		p.leavePause()
		p.event(false, "RolloutResumed", "Resumed by the user")
		p.because("resumed")
	}
}

func (p *pass) leavePause() {
	if p.s.StepSince != nil && p.s.PhaseSince != nil {
		from := later(p.s.StepSince.Time, p.s.PhaseSince.Time)
		p.s.PausedFor = metav1.Duration{Duration: p.s.PausedFor.Duration + max(0, p.o.Now.Sub(from))}
	}
	resume := p.s.ResumePhase
	if resume == "" {
		resume = v1alpha1.PhaseStepping
	}
	p.enter(resume)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
