// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

func (p *pass) isIdle() bool { return p.s.Phase == v1alpha1.PhaseIdle }

// idle waits for a hold and follows what goes out natively.
func (p *pass) idle() {
	dep := p.o.Deployment
	current := p.o.byTemplate(dep.Template)
	switch {
	case dep.Hold != nil:
		p.begin(dep.Hold.Template)
	case p.s.Stable.Template != "" && dep.Template == p.s.Stable.Template:
		p.s.Stable = current
		p.openGates(current.Hash)
		p.because("stable is the template")
	case p.slippedPast(current):
		p.holdNow()
	default:
		p.openGates(current.Hash)
		p.because("the template goes out natively")
		if dep.Complete && current.Hash != "" {
			p.s.Stable = current
			p.because("the template is complete: it is stable")
		}
	}
}

// slippedPast: a template that no webhook decided about, while a stable revision is known and requests
// can be split. The Pod webhook has kept its pods gated.
func (p *pass) slippedPast(current v1alpha1.Revision) bool {
	return !p.gone && p.s.Stable.Hash != "" && current.Hash != "" && p.o.NoSplit == "" &&
		p.o.Deployment.Gate == "" && p.o.Deployment.Replicas > 0 && !p.o.Deployment.Paused && !p.o.Deployment.Complete
}

func (p *pass) holdNow() {
	k := p.steps()[0].CandidateReplicas(p.o.Deployment.Replicas, p.o.Autoscaled)
	p.d.Hold = &v1alpha1.Hold{K: k, Template: p.o.Deployment.Template, User: p.o.Deployment.User}
	p.d.Requeue = tick
	p.because("an update slipped past the webhook: hold it now")
}

func (p *pass) openGates(hash string) {
	if hash != "" {
		p.d.OpenGates = append(p.d.OpenGates, hash)
	}
}

// begin starts a rollout of the held template.
func (p *pass) begin(template string) {
	if p.s.Stable.Hash == "" {
		p.s.Stable = p.largestOther(template)
	}
	if p.s.Stable.Hash == "" {
		// A manifest exported mid-rollout, or a restored backup: there is nothing to compare with.
		p.release = v1alpha1.ReleaseForward
		p.because("a hold without a stable revision is released")
		return
	}
	retry := p.wantsRetry(template)
	p.clearRollout()
	p.s.Candidate = p.o.byTemplate(template)
	p.s.StartedAt = micro(p.o.Now)
	p.s.Replicas = p.o.Deployment.Replicas
	p.s.Autoscaled = p.o.Autoscaled
	p.s.Policy = snapshot(p.policy)
	p.setWeight(0)
	if r := p.s.Rejected; r != nil && r.Template == template && p.o.Now.Before(r.Until.Time) && !retry {
		p.quarantineAgain(r)
		return
	}
	p.d.ClearRetry = retry
	p.enter(v1alpha1.PhaseStarting)
	p.s.CandidateReplicas = p.k(0)
	p.event(false, "RolloutStarted", fmt.Sprintf("Holding the new revision as a candidate: %d pod(s), gates closed, weight 0", p.s.CandidateReplicas))
	p.because("a hold appeared")
	p.d.Requeue = tick
}

// quarantineAgain: a template that failed is applied again before its back-off is over (row 4).
func (p *pass) quarantineAgain(r *v1alpha1.Rejection) {
	p.enter(v1alpha1.PhaseQuarantined)
	p.s.CandidateReplicas = quarantineReplicas
	p.s.Verdict = &v1alpha1.Verdict{Result: v1alpha1.ResultFail, Cause: "RejectedBefore", Message: r.Message}
	p.d.Failure = p.failureMessage()
	p.event(true, "RejectedBefore", "This version was rolled back before and its back-off is not over; it stays in quarantine: "+r.Message)
	p.because("rejected before")
}

// wantsRetry: the user asked to try exactly this revision again.
func (p *pass) wantsRetry(template string) bool {
	w := p.o.Wishes.Retry
	return w != nil && w.Revision != "" && w.Revision == p.o.byTemplate(template).Hash
}

// largestOther is the revision with the most ready pods among those with another template.
func (p *pass) largestOther(template string) v1alpha1.Revision {
	best, n := v1alpha1.Revision{}, int32(0)
	for _, r := range p.o.Revisions {
		if r.Template != template && r.ready() > n {
			best, n = v1alpha1.Revision{Hash: r.Hash, Template: r.Template}, r.ready()
		}
	}
	return best
}

// clearRollout forgets the rollout that was, but neither stable nor history nor rejections.
func (p *pass) clearRollout() {
	kept := v1alpha1.RolloutStatus{
		DeploymentUID: p.s.DeploymentUID, DeploymentGeneration: p.s.DeploymentGeneration,
		Phase: p.s.Phase, PhaseSince: p.s.PhaseSince,
		Stable: p.s.Stable, Rejected: p.s.Rejected, UsedBypasses: p.s.UsedBypasses,
		Hold: p.s.Hold, History: p.s.History, Conditions: p.s.Conditions,
	}
	*p.s = kept
}

// stableIsBack: there is no hold, and the template is stable's.
func (p *pass) stableIsBack() bool {
	return p.o.Deployment.Hold == nil && p.s.Stable.Template != "" && p.o.Deployment.Template == p.s.Stable.Template
}

// endBack ends the rollout with the stable template in place.
func (p *pass) endBack() {
	switch p.s.Phase {
	case v1alpha1.PhaseRollingBack, v1alpha1.PhaseQuarantined:
		p.because("the stable template is back")
	default:
		p.record(v1alpha1.OutcomeAborted)
		p.event(false, "RolloutAborted", "The stable template was put back; the candidate is removed")
		p.because("aborted: the stable template was put back")
	}
	verdict := p.s.Verdict
	p.clearRollout()
	p.s.Verdict = verdict
	p.s.Hold = ""
	p.enter(v1alpha1.PhaseIdle)
	p.openGates(p.s.Stable.Hash)
}

func (p *pass) supersededByHold() bool {
	h := p.o.Deployment.Hold
	return h != nil && h.Template != p.s.Candidate.Template
}

// supersede starts again with the new template.
func (p *pass) supersede() {
	p.recordUnlessEnded(v1alpha1.OutcomeSuperseded)
	if p.s.Phase == v1alpha1.PhasePromoting {
		p.event(false, "RolloutSuperseded", "A newer version replaces the one that was being promoted")
	}
	p.begin(p.o.Deployment.Hold.Template)
}

// supersededNatively: no hold, and the template is neither stable's nor the candidate's.
func (p *pass) supersededNatively() bool {
	dep := p.o.Deployment
	return dep.Hold == nil && dep.Template != p.s.Candidate.Template && dep.Template != p.s.Stable.Template
}

func (p *pass) followNative() {
	hold, _ := v1alpha1.ParseHold(p.s.Hold)
	if p.o.Deployment.Gate != v1alpha1.GateOpen && hold != nil && !p.gone {
		// It slipped past the webhook mid-rollout: the fields are still those of the hold.
		p.d.Hold = &v1alpha1.Hold{K: hold.K, Template: p.o.Deployment.Template, User: hold.User}
		p.d.Requeue = tick
		p.because("a third template slipped past the webhook: hold it now")
		return
	}
	p.recordUnlessEnded(v1alpha1.OutcomeSuperseded)
	p.clearRollout()
	p.s.Hold = ""
	p.enter(v1alpha1.PhaseIdle)
	p.openGates(p.o.byTemplate(p.o.Deployment.Template).Hash)
	p.because("a third template goes out natively")
}

// releasedByWebhook: no hold any more on the candidate's template, which the record does not know yet.
func (p *pass) releasedByWebhook() bool {
	dep := p.o.Deployment
	return dep.Hold == nil && dep.Template == p.s.Candidate.Template && dep.Gate == v1alpha1.GateOpen &&
		p.s.Phase != v1alpha1.PhasePromoting
}

func (p *pass) followRelease() {
	p.s.Verdict = &v1alpha1.Verdict{Result: v1alpha1.ResultUndecided, Cause: causeReleased, Message: "released without a verdict"}
	p.enter(v1alpha1.PhasePromoting)
	p.event(false, "RolloutReleased", "The hold was released; the version goes out by a native rolling update")
	p.promoting()
}

// causeReleased marks a rollout whose hold ended without a verdict.
const causeReleased = "Released"

func (p *pass) scaledToZero() bool {
	return p.o.Deployment.Hold != nil && p.o.Deployment.Replicas == 0
}

func (p *pass) releaseBackAtZero() {
	p.setWeight(0)
	p.release = v1alpha1.ReleaseBack
	p.d.Requeue = tick
	p.because("scaled to zero: the stable template comes back")
}

func (p *pass) policyGone() bool {
	if !p.gone || p.o.Deployment.Hold == nil {
		return false
	}
	suspended := p.o.PolicyGoneSince.IsZero()
	return suspended || p.o.Now.Sub(p.o.PolicyGoneSince) >= policyGoneFor
}

func (p *pass) releaseByPolicy() {
	switch p.s.Phase {
	case v1alpha1.PhaseRollingBack, v1alpha1.PhaseQuarantined:
		p.setWeight(0)
		p.release = v1alpha1.ReleaseBack
		p.because("no policy any more, and the candidate failed: back")
	default:
		p.release = v1alpha1.ReleaseForward
		p.because("no policy any more, and nothing speaks against the candidate: forward")
	}
	p.d.Requeue = tick
}

func (p *pass) stableDown() bool {
	since := p.o.StableDownSince
	return !since.IsZero() && p.o.Now.Sub(since) >= stableDownFor && p.o.Deployment.Hold != nil &&
		p.s.Phase != v1alpha1.PhasePromoting && p.candidate.readyButGate() > 0
}

func (p *pass) releaseToRescue() {
	p.openGates(p.candidate.Hash)
	p.release = v1alpha1.ReleaseForward
	p.event(true, "StableDown", "No stable pod is available; the candidate is released, because it can only help")
	p.d.Requeue = tick
	p.because("stable serves nobody")
}

// gatesClosed: in these phases no candidate pod may serve by itself.
func (p *pass) gatesClosed() bool {
	switch p.s.Phase {
	case v1alpha1.PhaseStarting, v1alpha1.PhaseStepping, v1alpha1.PhasePaused, v1alpha1.PhaseQuarantined:
		return true
	case v1alpha1.PhaseRollingBack:
		return p.s.ResumePhase != v1alpha1.PhasePromoting
	}
	return false
}

func (p *pass) podWebhookDown() bool {
	if !p.gatesClosed() || p.candidate.Hash == "" {
		return false
	}
	for _, pod := range p.candidate.Pods {
		if pod.Gated || pod.Terminating {
			continue
		}
		p.d.DeletePods = append(p.d.DeletePods, pod.Name)
		if !slices.Contains(p.s.UngatedPods, pod.Name) {
			p.s.UngatedPods = lastN(append(p.s.UngatedPods, pod.Name), 10)
		}
	}
	return len(p.s.UngatedPods) > ungatedLimit && p.s.Phase != v1alpha1.PhaseRollingBack && p.s.Phase != v1alpha1.PhaseQuarantined
}

func (p *pass) giveUpWithoutGates() {
	p.rollBack(fail(v1alpha1.CausePodWebhook, "pods keep coming without their gate: the Pod webhook does not answer; look at the Headgate pods, then retry"))
}

// record notes the end of the rollout in the history.
func (p *pass) record(outcome v1alpha1.Outcome) {
	started := metav1.NewTime(p.o.Now)
	if p.s.StartedAt != nil {
		started = metav1.NewTime(p.s.StartedAt.Time)
	}
	p.s.History = lastN(append(p.s.History, v1alpha1.HistoryEntry{
		Outcome: outcome, From: p.s.Stable.Hash, To: p.s.Candidate.Hash,
		StartedAt: started.Rfc3339Copy(), EndedAt: metav1.NewTime(p.o.Now.Truncate(time.Second)),
		Verdict: p.s.Verdict.DeepCopy(),
	}), 10)
}

// recordUnlessEnded: a rollout that was rolled back is in the history already.
func (p *pass) recordUnlessEnded(outcome v1alpha1.Outcome) {
	if p.s.Phase != v1alpha1.PhaseRollingBack && p.s.Phase != v1alpha1.PhaseQuarantined {
		p.record(outcome)
	}
}

func snapshot(policy *v1alpha1.RolloutPolicySpec) string {
	b, err := json.Marshal(policy)
	if err != nil { // a policy spec has no field that can fail to marshal
		return ""
	}
	return string(b)
}
