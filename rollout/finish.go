// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// promote begins the promotion: gates first.
func (p *pass) promote() {
	p.enter(v1alpha1.PhasePromoting)
	p.event(false, "Promoting", "The candidate is accepted: gates open, then a native rolling update replaces stable")
	p.promoting()
}

// promoting opens the gates, waits until all k are Ready, gives the user's fields back, and then
// watches the native rolling update, still judging. Repair stays away: once a gate was open, native
// logic alone keeps the sizes, and the way back is the template.
func (p *pass) promoting() {
	p.d.Requeue = tick
	dep := p.o.Deployment
	if dep.Hold == nil && dep.Complete && dep.Current && dep.Template == p.s.Candidate.Template {
		p.endPromoted()
		return
	}
	if p.failed() {
		return
	}
	p.openGates(p.candidate.Hash)
	p.setWeight(max(p.s.Weight, p.capacityShare()))
	ready := p.candidate.ready()
	switch {
	case dep.Hold == nil && dep.Gate != v1alpha1.GateOpen && p.s.Hold != "":
		// The annotation was wiped by hand in the middle of the promotion.
		p.release = v1alpha1.ReleaseForward
		p.because("promoting: the hold was lost, releasing it properly")
	case dep.Hold == nil:
		p.because(fmt.Sprintf("promoting: native rolling update, weight %d%%", p.s.Weight))
	case dep.Paused:
		p.because("promoting: paused by the user")
	case ready >= p.s.CandidateReplicas:
		p.release = v1alpha1.ReleaseForward
		p.because("promoting: all candidate pods are ready, the user's fields go back")
	default:
		p.because(fmt.Sprintf("promoting: gates open, %d of %d candidate pods are ready", ready, p.s.CandidateReplicas))
	}
}

// capacityShare is the candidate's share of all ready pods, in percent.
func (p *pass) capacityShare() int32 {
	c, s := p.candidate.ready(), p.stable.ready()
	if c+s == 0 {
		return 0
	}
	return 100 * c / (c + s)
}

func (p *pass) endPromoted() {
	outcome := v1alpha1.OutcomePromoted
	if p.s.Verdict != nil && p.s.Verdict.Cause == causeReleased {
		outcome = v1alpha1.OutcomeReleased
	}
	p.record(outcome)
	p.event(false, string(outcome), "The new version is complete: it is stable now")
	stable, verdict := p.s.Candidate, p.s.Verdict
	p.clearRollout()
	p.s.Stable, p.s.Verdict, p.s.Rejected, p.s.Hold = stable, verdict, nil, ""
	p.enter(v1alpha1.PhaseIdle)
	p.openGates(stable.Hash)
	p.d.Requeue = 0
	p.because("promoted: the candidate is stable now")
}

// rollBack takes the candidate out of traffic at once; the rest follows in order.
func (p *pass) rollBack(v *v1alpha1.Verdict) {
	promoting := p.s.Phase == v1alpha1.PhasePromoting
	p.s.Verdict = v.DeepCopy()
	p.reject(v)
	p.record(v1alpha1.OutcomeRolledBack)
	p.event(true, "RolledBack", fmt.Sprintf("Rolled back (%s): %s", v.Cause, v.Message))
	p.enter(v1alpha1.PhaseRollingBack)
	if promoting {
		p.s.ResumePhase = v1alpha1.PhasePromoting
	} else {
		p.setWeight(0)
	}
	p.d.OpenGates = nil
	p.rollingBack()
}

// reject remembers the template, with a back-off that doubles each time it fails in a row.
func (p *pass) reject(v *v1alpha1.Verdict) {
	times := int32(1)
	if r := p.s.Rejected; r != nil && r.Template == p.s.Candidate.Template {
		times = min(r.Times+1, 20)
	}
	wait := min(backoffMax, backoffMin<<(min(times, 8)-1))
	p.s.Rejected = &v1alpha1.Rejection{
		Template: p.s.Candidate.Template, Revision: p.s.Candidate.Hash, Times: times,
		Until:   metav1.NewTime(p.o.Now.Add(wait).Truncate(time.Second)),
		Message: v.Message,
	}
}

// rollingBack: weight 0, acknowledged; then gates; then pods.
func (p *pass) rollingBack() {
	p.d.Requeue = tick
	p.d.Failure = p.failureMessage()
	if p.s.ResumePhase == v1alpha1.PhasePromoting {
		p.rollingBackFromPromotion()
		return
	}
	p.setWeight(0)
	if !p.noWeight() {
		p.because("rolling back: waiting for weight 0 to be acknowledged")
		return
	}
	p.d.CloseGates = append(p.d.CloseGates, p.candidate.Hash)
	switch {
	case p.o.Deployment.Paused:
		p.because("rolling back: weight 0; the rest waits until the user resumes")
	case !p.reverts():
		p.enter(v1alpha1.PhaseQuarantined)
		p.s.CandidateReplicas = quarantineReplicas
		p.because("quarantined: one candidate pod stays to be looked at")
	case p.inPhase() >= revertAfter:
		p.release = v1alpha1.ReleaseBack
		p.because("rolling back: the stable template comes back")
	default:
		p.because("rolling back: weight 0; the failure is shown before the template is reverted")
	}
}

// rollingBackFromPromotion: stable has lost pods already, so the template and the fields go back in one
// write, and the weight falls no faster than stable's ready capacity grows.
func (p *pass) rollingBackFromPromotion() {
	p.setWeight(min(p.s.Weight, p.capacityShare()))
	if p.o.Deployment.Paused {
		p.because("rolling back: paused by the user")
		return
	}
	p.release = v1alpha1.ReleaseBack
	p.because("rolling back a promotion: the stable template comes back")
}

// reverts says whether the stable template is put back instead of keeping a pod in quarantine.
func (p *pass) reverts() bool {
	switch p.policy.OnFailure {
	case v1alpha1.OnFailureRevert:
		return true
	case v1alpha1.OnFailureQuarantine:
		return false
	}
	return p.s.Autoscaled && p.s.Replicas <= smallUnderHPA
}

func (p *pass) failureMessage() string {
	m := "rolled back"
	if v := p.s.Verdict; v != nil && v.Message != "" {
		m = fmt.Sprintf("rolled back (%s): %s", v.Cause, v.Message)
	}
	return "headgate: " + m + ". Stable serves all requests. Look: kubectl describe rollouts.headgate.dev; undo: kubectl rollout undo"
}

// quarantined keeps one candidate pod, gate closed, weight 0, until the next template.
func (p *pass) quarantined() {
	p.d.Failure = p.failureMessage()
	p.d.Requeue = tick
	p.setWeight(0)
	p.because("quarantined")
	if p.o.Deployment.Paused {
		return
	}
	p.s.CandidateReplicas = quarantineReplicas
	switch {
	case p.wantsRetry(p.s.Candidate.Template):
		p.d.Failure = ""
		p.begin(p.s.Candidate.Template)
		p.because("retry was asked for")
	case p.inPhase() >= p.policy.EffectiveQuarantineTTL():
		p.release = v1alpha1.ReleaseBack
		p.because("quarantine is over: the stable template comes back")
	}
}

// finishHold says which annotation the Deployment should carry.
func (p *pass) finishHold() {
	observed := p.o.Deployment.Hold
	recorded, _ := v1alpha1.ParseHold(p.s.Hold)
	base := observed
	if base == nil {
		base = recorded
	}
	switch {
	case p.d.Hold != nil: // decided already
	case p.release != "":
		h := v1alpha1.Hold{K: max(1, p.s.CandidateReplicas), Template: p.s.Candidate.Template, User: p.o.Deployment.User}
		if base != nil {
			h.Template, h.User = base.Template, base.User
		}
		if observed == nil && p.s.Phase == v1alpha1.PhaseRollingBack {
			h.User = p.o.Deployment.User // the hold ended before: the fields are the user's
		}
		h.Release = p.release
		p.d.Hold = &h
		return // the copy in the record stays until the release is seen
	case base != nil && (p.gatesClosed() || p.s.Phase == v1alpha1.PhasePromoting && observed != nil):
		h := *base
		h.Release = ""
		if !p.o.Deployment.Paused {
			h.K = max(1, p.s.CandidateReplicas)
		}
		p.d.Hold = &h
	}
	if p.d.Hold != nil {
		p.s.Hold = p.d.Hold.String()
	} else if p.s.Phase == v1alpha1.PhasePromoting && observed == nil {
		p.s.Hold = ""
	}
}

// repair compares all ReplicaSets with what they should be: stable N, candidate k, others 0. This
// undoes proportional scaling, superseded candidates and removed unready pods. Only with gates closed,
// not paused, and when the native controller is done with the latest N, so that it is not fought.
func (p *pass) repair() {
	dep := p.o.Deployment
	if !p.gatesClosed() || dep.Paused || !dep.Current || dep.Hold == nil || p.release != "" || dep.Replicas == 0 ||
		p.s.Stable.Hash == "" || p.candidate.Desired == -1 {
		return
	}
	for _, r := range p.o.Revisions {
		if r.Replicas > 0 && r.Desired != dep.Replicas {
			return
		}
	}
	var raise, lower []Size
	for _, r := range p.o.Revisions {
		want := int32(0)
		switch r.Hash {
		case p.s.Stable.Hash:
			want = dep.Replicas
		case p.s.Candidate.Hash:
			want = p.s.CandidateReplicas
			if want < r.Replicas && dep.Hold.K != want {
				continue // the annotation is lowered first, or the native controller raises it again
			}
		}
		switch {
		case r.Replicas < want:
			raise = append(raise, Size{r.Hash, want})
		case r.Replicas > want:
			lower = append(lower, Size{r.Hash, want})
		}
	}
	p.d.Sizes = append(raise, lower...)
}

// tidy deletes the empty ReplicaSets of candidates that never became stable, so that native history
// holds what was stable, and `rollout undo` always means abort or go back.
func (p *pass) tidy() {
	if !p.o.Deployment.Current {
		return
	}
	last := map[string]v1alpha1.Outcome{}
	for _, h := range p.s.History {
		last[h.To] = h.Outcome
	}
	dead := []v1alpha1.Outcome{v1alpha1.OutcomeRolledBack, v1alpha1.OutcomeSuperseded, v1alpha1.OutcomeAborted}
	for _, r := range p.o.Revisions {
		if r.Hash == "" || r.Hash == p.s.Stable.Hash || r.Hash == p.s.Candidate.Hash || r.Template == p.o.Deployment.Template {
			continue
		}
		if r.Replicas == 0 && len(r.Pods) == 0 && slices.Contains(dead, last[r.Hash]) {
			p.d.DeleteRevisions = append(p.d.DeleteRevisions, r.Hash)
		}
	}
}
