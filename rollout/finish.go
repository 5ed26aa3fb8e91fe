// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"slices"
	"strings"
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
	dep, held := p.o.Deployment, p.held()
	if !held && dep.Complete && dep.Current && dep.Template == p.s.Candidate.Template {
		p.endPromoted()
		return
	}
	if !p.released() && p.failed() {
		return
	}
	p.notePause(held)
	ready, k := p.candidate.ready(), min(p.s.CandidateReplicas, max(1, dep.Replicas))
	if held && !dep.Paused && ready < k && p.inPhase() >= p.policy.EffectiveProgressDeadline() {
		p.rollBack(fail(v1alpha1.CauseProgressDeadline, "candidate pods did not become ready after their gates were opened"))
		return
	}
	p.openGates(p.candidate)
	p.setWeight(max(p.s.Weight, p.capacityShare()))
	p.releaseWhenReady(ready, k)
}

// notePause: the deadline does not run while the user has paused and the hold is on; it begins again when he resumes.
func (p *pass) notePause(held bool) {
	switch {
	case held && p.o.Deployment.Paused:
		p.s.ResumePhase = v1alpha1.PhasePromoting
	case p.s.ResumePhase != "":
		p.enter(v1alpha1.PhasePromoting)
	}
}

// releaseWhenReady gives the user's fields back once k candidate pods are ready, and says what the promotion
// waits for until then.
func (p *pass) releaseWhenReady(ready, k int32) {
	dep := p.o.Deployment
	switch {
	case dep.Paused:
		p.because("promoting: paused by the user")
	case !p.held():
		p.because(fmt.Sprintf("promoting: native rolling update, weight %d %%", p.s.Weight))
	case dep.Hold == nil:
		// The annotation was wiped by hand in the middle of the promotion.
		p.release = v1alpha1.ReleaseForward
		p.because("promoting: the hold was lost, releasing it properly")
	case ready >= k || p.released():
		p.release = v1alpha1.ReleaseForward
		p.because("promoting: all candidate pods are ready, the user's fields go back")
	default:
		p.because(fmt.Sprintf("promoting: gates open, %d of %d candidate pods are ready", ready, k))
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

// uncarried is the share of requests that stable's ready pods can't take without being busier than at
// rest: what the candidate must keep for the moment when its promotion is rolled back.
func (p *pass) uncarried() int32 {
	if p.candidate.ready() == 0 {
		return 0
	}
	n := p.o.Deployment.Replicas
	return 100 - carries(min(p.stable.ready(), n), n)
}

func (p *pass) endPromoted() {
	outcome := p.promotionOutcome()
	p.record(outcome)
	p.event(false, string(outcome), "The new version is complete: it is stable now")
	stable, verdict := p.s.Candidate, p.s.Verdict
	p.clearRollout()
	p.setStable(stable)
	p.s.Verdict, p.s.Rejected = verdict, nil
	p.enter(v1alpha1.PhaseIdle)
	p.d.Requeue = 0
	p.because("promoted: the candidate is stable now")
}

// promotionOutcome is what a promotion ends with: a version that nobody judged was released.
func (p *pass) promotionOutcome() v1alpha1.Outcome {
	if p.released() {
		return v1alpha1.OutcomeReleased
	}
	return v1alpha1.OutcomePromoted
}

// rollBack takes the candidate out of traffic at once; the rest follows in order.
func (p *pass) rollBack(v *v1alpha1.Verdict) {
	promoting := p.s.Phase == v1alpha1.PhasePromoting || p.servesUngated()
	v = clip(v.DeepCopy())
	p.s.Verdict = v
	if v.Cause != v1alpha1.CauseStillServing { // that says nothing about the version
		p.reject(v)
	}
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

// clip keeps a verdict's message to what the record can hold.
func clip(v *v1alpha1.Verdict) *v1alpha1.Verdict {
	if v.Message = strings.ToValidUTF8(v.Message, "?"); len(v.Message) > maxMessage {
		v.Message = strings.ToValidUTF8(v.Message[:maxMessage], "") // not half a letter
	}
	return v
}

// maxMessage is what the CRD allows for a verdict's message.
const maxMessage = 1024

// fromPromotion: the promotion had begun when the candidate failed. Stable may have lost pods already.
func (p *pass) fromPromotion() bool {
	return p.s.Phase == v1alpha1.PhaseRollingBack && p.s.ResumePhase == v1alpha1.PhasePromoting
}

// reject remembers the template, with a back-off that doubles each time it fails in a row.
func (p *pass) reject(v *v1alpha1.Verdict) {
	times := int32(1)
	if r := p.s.Rejected; r != nil && r.Template == p.s.Candidate.Template {
		times = max(1, min(r.Times+1, 20))
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
	if p.fromPromotion() {
		p.rollingBackFromPromotion()
		return
	}
	if !p.weightIsGone() {
		p.because("rolling back: waiting for weight 0 to be acknowledged")
		return
	}
	switch {
	case p.o.Deployment.Paused:
		p.because("rolling back: weight 0; the rest waits until the user resumes")
	case !p.reverts():
		p.enter(v1alpha1.PhaseQuarantined)
		p.s.CandidateReplicas = quarantineReplicas
		p.because("quarantined: one candidate pod stays to be looked at")
	case p.verdict().Cause == v1alpha1.CausePodWebhook:
		// Each pod that comes without a gate serves until it is deleted: nothing to wait for.
		p.release = v1alpha1.ReleaseBack
		p.because("rolling back: pods come without their gate, the stable template comes back at once")
	case p.inPhase() >= revertAfter, p.crowded() != "":
		p.release = v1alpha1.ReleaseBack
		p.because("rolling back: the stable template comes back")
	default:
		p.because("rolling back: weight 0; the failure is shown before the template is reverted")
	}
}

// rollingBackFromPromotion: stable has lost pods already, so the template and the fields go back in one
// write, and the weight falls no faster than stable's ready capacity grows. It ends when no candidate
// pod serves any more and the failure has been visible for long enough.
func (p *pass) rollingBackFromPromotion() {
	p.setWeight(min(p.s.Weight, p.uncarried()))
	dep := p.o.Deployment
	switch back := dep.Template == p.s.Stable.Template && dep.Hold == nil; {
	case back && p.candidate.ready() == 0 && p.noWeight() && p.inPhase() >= revertAfter:
		p.endBack()
	case back:
		p.because(fmt.Sprintf("rolling back a promotion: native rolling update to stable, weight %d %%", p.s.Weight))
	default:
		p.endHold(v1alpha1.ReleaseBack, "rolling back a promotion: the stable template comes back")
	}
}

// reverts says whether the stable template is put back instead of keeping a pod in quarantine.
func (p *pass) reverts() bool {
	if p.mixed() || p.verdict().Cause == v1alpha1.CausePodWebhook {
		return true // a pod that can't be gated can't be quarantined, and a mix must not stay
	}
	switch p.policy.OnFailure {
	case v1alpha1.OnFailureRevert:
		return true
	case v1alpha1.OnFailureQuarantine:
		return false
	}
	return p.s.Autoscaled && p.s.Replicas <= smallUnderHPA
}

// showFailure: as long as the failed candidate is the template, native tools read the failure.
func (p *pass) showFailure() {
	if p.failedBefore() {
		p.d.Failure = p.failureMessage()
	}
}

// rolledBack begins a failure's message; recallRejection reads it.
const rolledBack = "rolled back"

func (p *pass) failureMessage() string {
	m := rolledBack
	if v := p.verdict(); v.Message != "" {
		m = fmt.Sprintf("%s (%s): %s", rolledBack, v.Cause, v.Message)
	}
	serves := "Stable serves all requests"
	switch {
	case p.fromPromotion():
		serves = "The stable version is put back"
	case slices.ContainsFunc(p.o.Sidecars, func(sc Sidecar) bool {
		return sc.Revision == p.s.Stable.Hash && slices.Contains(p.s.Unacknowledged, sc.Pod)
	}):
		serves += ", but perhaps some that reach pods whose sidecars have not confirmed weight 0 (the Rollout's status.unacknowledged)"
	}
	return "headgate: " + m + ". " + serves + ". Look: kubectl describe rollouts.headgate.dev; undo: kubectl rollout undo"
}

// quarantined keeps one candidate pod, gate closed, weight 0, until the next template.
func (p *pass) quarantined() {
	p.d.Requeue = tick
	p.setWeight(0)
	p.because("quarantined")
	if p.o.Deployment.Paused {
		return
	}
	p.s.CandidateReplicas = quarantineReplicas
	crowded := p.crowded()
	switch {
	case p.wantsRetry(p.s.Candidate.Template) && p.inPhase() > 0:
		p.retry()
	case crowded != "": // there is no k = 0 natively
		p.release = v1alpha1.ReleaseBack
		p.event(true, v1alpha1.CauseNoRoom, "The quarantine ends, and the stable template comes back: "+crowded)
		p.because("quarantined, and stable needs the room: the stable template comes back")
	case p.roomFound():
		p.s.Rejected.Until = metav1.NewTime(p.o.Now.Truncate(time.Second))
		p.event(false, "RoomFound", "There is room for the candidate now: the rollout begins again")
		p.begin(p.s.Candidate.Template)
	case p.inPhase() >= p.policy.EffectiveQuarantineTTL():
		p.release = v1alpha1.ReleaseBack
		p.because("quarantine is over: the stable template comes back")
	case p.mixed() && p.inPhase() >= revertAfter:
		// A version that was rejected before was put on top of one that was still going out. That one would
		// go on serving beside stable, and nobody would end it.
		p.release = v1alpha1.ReleaseBack
		p.because("quarantined, and a third version serves beside stable: the stable template comes back")
	}
}

// crowded is which pod of stable a rejected candidate stands in the way of; empty: none. Where stable serves, the failure is
// shown first.
func (p *pass) crowded() string {
	if p.inPhase() < revertAfter && p.stable.ready() > 0 {
		return ""
	}
	return p.crowdedSoon()
}

// roomFound: the pod that found no room runs. That said nothing about the version; but where it happens again, what is missing
// is room for more pods, and the back-off counts.
func (p *pass) roomFound() bool {
	r := p.s.Rejected
	return p.verdict().Cause == v1alpha1.CauseNoRoom && r != nil && p.candidate.readyButGate() >= quarantineReplicas && p.crowdedOut(0) == "" &&
		(r.Times <= 1 || !p.o.Now.Before(r.Until.Time))
}

// retry begins again. Pods that show what the candidate was rejected for would fail it again at once, so
// they are replaced first.
func (p *pass) retry() {
	for _, pod := range p.candidate.Pods {
		if !pod.Terminating && (podSignals(p.o, p.stable, Revision{Pods: []Pod{pod}}) != nil || p.rejectedAsBare(pod)) {
			p.d.DeletePods = append(p.d.DeletePods, pod.Name)
		}
	}
	if len(p.d.DeletePods) > 0 {
		p.because("retry was asked for: the pods that failed are replaced first")
		return
	}
	p.begin(p.s.Candidate.Template)
	p.because("retry was asked for")
}

// rejectedAsBare: the pod has no sidecar, and is one of those that the candidate was rejected for. Its successor, which shows at once
// whether it has one, is younger: a retry would replace pods for ever where none can have a sidecar.
func (p *pass) rejectedAsBare(pod Pod) bool {
	return pod.NoSidecar != "" && p.verdict().Cause == v1alpha1.CauseNoSidecar && p.s.PhaseSince != nil && !pod.CreatedAt.After(p.s.PhaseSince.Time)
}
