// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// starting waits until k pods run and all sidecars know them.
func (p *pass) starting() {
	if p.pauseIfAsked() {
		return
	}
	if p.s.Policy == "" && p.given != nil { // it was away when the rollout began
		p.s.Policy = snapshot(p.given)
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
	if p.given == nil && p.s.Policy == "" {
		p.because("waiting for a policy: none selects this Deployment any more")
		return
	}
	if !p.acked || !p.candidateListens() {
		p.because("waiting for the sidecars to acknowledge the candidate")
		return
	}
	p.enter(v1alpha1.PhaseStepping)
	p.s.Step, p.s.StepSince = 0, nil
	p.event(false, "CandidateReady", fmt.Sprintf("%s ready but for the gate; weight goes to %d %%", number(ready, "candidate pod"), p.weightOf(p.currentStep())))
	p.stepping()
}

// candidateListens: the sidecars of all the candidate's pods have acknowledged too, or a request that
// arrives there would stay there; or, where this version was rejected before, go to stable, whose answer would count as the
// candidate's.
func (p *pass) candidateListens() bool {
	n := int32(0)
	for _, sc := range p.o.Sidecars {
		if sc.Revision == p.s.Candidate.Hash && sc.Connected && p.hasAcknowledged(sc) {
			n++
		}
	}
	return n >= p.candidate.readyButGate()
}

// stepping keeps the step's weight and k in force and moves on by evidence.
func (p *pass) stepping() {
	p.d.Requeue = tick
	p.noteUnconfirmed()
	if p.failed() || p.pauseIfAsked() {
		return
	}
	step := p.currentStep()
	p.s.CandidateReplicas = p.kNow()
	if p.promotable() {
		p.event(false, "PromotedByUser", "Promotion was asked for; the remaining steps are skipped")
		p.promote()
		return
	}
	if p.s.Weight > 0 && p.handingOn() != "" || p.s.Weight > p.weightOf(step) {
		p.beginAgain()
	}
	if weight := p.weightOf(step); p.s.Weight != weight || p.isNewStep() {
		p.enterWeight(weight)
		return
	}
	if p.s.StepSince == nil && !p.comesInForce() {
		return
	}
	if p.o.Now.Equal(p.s.StepSince.Time) {
		// The verdict seen now was made before the weight was in force: it is about the step before.
		p.because(fmt.Sprintf("step %d: %d %% is in force", p.s.Step, p.s.Weight))
		return
	}
	p.judgeStep(step)
}

// comesInForce begins the step's time when its weight is acknowledged.
func (p *pass) comesInForce() bool {
	if p.acked {
		p.s.StepSince = micro(p.o.Now)
		return true
	}
	if p.nobodyThere() {
		p.judgeAgain()
		return false
	}
	p.because(fmt.Sprintf("step %d: waiting for the sidecars to acknowledge %d %%", p.s.Step, p.s.Weight))
	if v := p.o.Verdict; v.Result == v1alpha1.ResultHold && IsBlind(v.Cause) {
		p.hold(v)
	}
	return false
}

// handingOn is a pod of the candidate whose sidecar gives its requests to stable; empty: none does. So does one that is
// connected to a replica of Headgate that has not heard yet that this version is tried again. What is counted meanwhile says
// nothing about the candidate.
func (p *pass) handingOn() string {
	for _, sc := range p.o.Sidecars {
		if sc.Revision == p.s.Candidate.Hash && sc.Connected && sc.HandsOn {
			return sc.Pod
		}
	}
	return ""
}

// noteUnconfirmed makes a want of data of it when the step's weight does not come in force: what the analysis says then is
// about the weight before. A Fail is one all the same. It is told as late as any other want of data, and onBlind says what
// becomes of it. While the candidate starts, stable's sidecars that are not connected let it out (releaseUnsplit); here it is
// half judged, and goes no further without a verdict.
func (p *pass) noteUnconfirmed() {
	why, lasts := p.whyUnconfirmed()
	if lasts < BlindAfter || p.o.Verdict.Result == v1alpha1.ResultFail {
		return
	}
	v := &p.o.Verdict
	v.Result, v.Cause, v.Message = v1alpha1.ResultHold, CauseBlind, why
}

// whyUnconfirmed is why the step's weight has not come in force, and for how long that has been so.
func (p *pass) whyUnconfirmed() (why string, lasts time.Duration) {
	if p.s.StepSince != nil || p.acked || p.isNewStep() || p.s.Weight != p.weightOf(p.currentStep()) {
		return "", 0
	}
	why = p.refusal()
	if why == "" {
		why = p.o.whyNotConnected()
	}
	if why == "" {
		why = "they are not connected to Headgate, or do not answer; a NetworkPolicy in the way, or another CA of Headgate's than theirs, is the likely cause"
	}
	lasts = min(p.sinceWeight(), p.o.Now.Sub(p.o.SeenSince)) // before that nobody was there to hear of it
	return fmt.Sprintf("no sidecar of stable's pods has confirmed %d %%: %s", p.s.Weight, why), lasts
}

// isNewStep: the step has begun, or goes on after a pause, and its weight was not entered since. The step before may have
// had the same one, with fewer pods.
func (p *pass) isNewStep() bool {
	return p.s.StepSince == nil && (p.s.WeightSince == nil || p.s.WeightSince.Before(p.s.PhaseSince))
}

// enterWeight brings the step's weight in force, once all k pods can take their part of it. Where the candidate had none, their
// sidecars must have said so, as when it starts: in the meantime they may have been told that it is over.
func (p *pass) enterWeight(weight int32) {
	if p.s.StepSince != nil {
		// It was in force before and was taken away (scaled to zero and back): its clocks start again.
		p.s.JudgedFor = metav1.Duration{Duration: p.s.JudgedFor.Duration + p.judged()}
		p.s.StepSince, p.s.PausedFor = nil, metav1.Duration{}
		p.enter(v1alpha1.PhaseStepping)
	}
	if why := p.notYet(weight); why != "" {
		p.because(fmt.Sprintf("step %d: %s", p.s.Step, why))
		if v := p.startSignals(); v != nil {
			p.rollBack(v)
		}
		return
	}
	p.setWeight(weight)
	p.s.WeightSince = micro(p.o.Now)
	p.because(fmt.Sprintf("step %d: weight goes to %d %%", p.s.Step, weight))
}

// StepInForce is the step that a judge is to look at: the one before the current one while that one's weight, or its pods, are not there
// yet. Nothing that is seen then says anything about it.
func StepInForce(s *v1alpha1.RolloutStatus) int32 {
	if s.StepSince == nil {
		return max(0, s.Step-1)
	}
	return s.Step
}

// notYet is what the weight waits for; empty: nothing.
func (p *pass) notYet(weight int32) string {
	switch ready := p.candidate.readyButGate(); {
	case ready < p.s.CandidateReplicas:
		return fmt.Sprintf("%d of %d candidate pods are ready but for the gate", ready, p.s.CandidateReplicas)
	case p.s.Weight == 0 && weight > 0 && !p.candidateListens():
		return "waiting for the sidecars to acknowledge the candidate"
	}
	return ""
}

func (p *pass) currentStep() v1alpha1.Step {
	steps := p.steps()
	p.s.Step = max(0, min(p.s.Step, int32(len(steps)-1)))
	return steps[p.s.Step]
}

// judged is how long the current step has been judged, pauses and outages not counted.
func (p *pass) judged() time.Duration {
	if p.s.StepSince == nil {
		return 0
	}
	since := p.pausedSince()
	return max(0, p.o.Now.Sub(p.s.StepSince.Time)-p.s.PausedFor.Duration-p.inStep(p.s.BlindSince, since)-p.inStep(since, nil))
}

// spent is what the step has used up of the time that the rollout may take: the judge leaves out outages that are too short to
// be told.
func (p *pass) spent() time.Duration {
	if e := p.o.Verdict.Evidence; p.s.Weight > 0 && e != nil && e.StepTime != nil {
		return min(p.judged(), e.StepTime.Duration)
	}
	return p.judged()
}

func (p *pass) judgeStep(step v1alpha1.Step) {
	p.because(fmt.Sprintf("step %d: judging at %d %%", p.s.Step, p.s.Weight))
	switch {
	case p.nobodyThere() && p.o.Verdict.Result == v1alpha1.ResultHold:
		p.judgeAgain()
	case !p.accepted():
		return
	case p.nobodyThere():
		p.judgeAgain()
	case step.MinDuration != nil && p.spent() < step.MinDuration.Duration:
		p.because(fmt.Sprintf("step %d: accepted, its minimum time is not over", p.s.Step))
	case step.Approval && !p.approved():
		p.enter(v1alpha1.PhasePaused)
		p.s.ResumePhase, p.s.AwaitingApproval = v1alpha1.PhaseStepping, true
		p.event(false, "AwaitingApproval", fmt.Sprintf("Step %d is accepted and waits for approval: set the Rollout's spec.approve to {revision: %s, step: %d}",
			p.s.Step, p.s.Candidate.Hash, p.s.Step))
		p.because(fmt.Sprintf("step %d: waiting for approval", p.s.Step))
	default:
		p.advance()
	}
}

// nobodyThere: no pod of the candidate could answer a request.
func (p *pass) nobodyThere() bool { return p.candidate.readyButGate() == 0 }

// judgeAgain: what was judged is a version of which nothing runs any more (its pods were deleted, and no new one can be
// made; or they hang since they were started anew). What was seen of it says nothing about pods that nobody has seen, and those
// have as long to be ready as at the start.
func (p *pass) judgeAgain() {
	p.beginAgain()
	p.because(fmt.Sprintf("step %d: no candidate pod is ready any more; it is judged again when one is", p.s.Step))
}

// beginAgain takes the weight away until the step's pods can take their part of it.
func (p *pass) beginAgain() {
	p.s.StepSince, p.s.PausedFor = nil, metav1.Duration{}
	p.enter(v1alpha1.PhaseStepping)
	p.setWeight(0)
}

// accepted follows the verdict; a Fail has been dealt with before.
func (p *pass) accepted() bool {
	if p.currentStep().Weight == 0 {
		return true // the candidate gets no requests: its pods run, and there is nothing to compare
	}
	switch v := p.o.Verdict; v.Result {
	case v1alpha1.ResultPass:
		return true
	case v1alpha1.ResultInconclusive:
		return p.acceptedInconclusive(v)
	case v1alpha1.ResultHold:
		p.hold(v)
	}
	return false
}

// hold waits, as long as that may last.
func (p *pass) hold(v v1alpha1.Verdict) {
	p.because(fmt.Sprintf("step %d: on hold: %s", p.s.Step, v.Cause))
	if !p.heldTooLong(v.Cause) {
		return
	}
	if IsBlind(v.Cause) {
		v.Message += notTheVersion
	}
	p.rollBack(failAs(v.Cause, v))
}

// acceptedInconclusive follows the policy where the step's time is up and nothing is known.
func (p *pass) acceptedInconclusive(v v1alpha1.Verdict) bool {
	switch p.policy.OnInconclusive {
	case v1alpha1.OnInconclusiveRollBack:
		p.rollBack(failAs("Inconclusive", v))
		return false
	case v1alpha1.OnInconclusiveHold:
		p.because(fmt.Sprintf("step %d: inconclusive, the policy says hold", p.s.Step))
		return false
	}
	return true
}

// heldTooLong: a Hold for want of data lasts for ever, unless onBlind says otherwise; a candidate that
// answers nothing gets as long as a start may take; any other gets until maxDuration is over.
func (p *pass) heldTooLong(cause string) bool {
	if IsBlind(cause) {
		return p.policy.OnBlind == v1alpha1.OnBlindRollBack && p.blind() >= blindFor
	}
	if cause == CauseNoAnswers && p.judged() >= p.policy.EffectiveProgressDeadline() {
		return true
	}
	return p.s.JudgedFor.Duration+p.spent() >= p.policy.EffectiveMaxDuration()
}

// failAs makes a Fail of a verdict that is none, because the policy says so.
func failAs(cause string, v v1alpha1.Verdict) *v1alpha1.Verdict {
	return &v1alpha1.Verdict{Result: v1alpha1.ResultFail, Cause: cause, Message: v.Message, Evidence: v.Evidence}
}

// Causes of a Hold that mean: nothing can be known. They never promote and, but for onBlind, never roll back.
const (
	CauseBlind   = "Blind"
	CauseNoSplit = "NoSplit"
)

// CauseNoAnswers of a Hold: requests reach the candidate and are not answered. Slow answers are none of
// its fault for as long as a start may take (progressDeadline); then it hangs, and is rolled back.
const CauseNoAnswers = "NoAnswers"

// BlindAfter is for how long data may be missing before the judge must say so: analysis.Settings.BlindAfter. That time is
// none of the step's either.
const BlindAfter = time.Minute

// IsBlind says whether a cause means that there is no usable data.
func IsBlind(cause string) bool { return cause == CauseBlind || cause == CauseNoSplit }

// noteBlind remembers since when there is no data, and tells it once: ten minutes of a step are not ten blind minutes. The
// time of an outage is not judged time, as for the judge.
func (p *pass) noteBlind() {
	switch v := p.o.Verdict; {
	case v.Result == "": // nobody has looked yet, after a restart
	case v.Result != v1alpha1.ResultHold || !IsBlind(v.Cause) || p.nobodyThere():
		p.s.PausedFor.Duration += p.inStep(p.s.BlindSince, p.pausedSince())
		p.s.BlindSince = nil
	case p.s.BlindSince == nil:
		since := p.o.Now
		if v.Cause == CauseBlind && p.s.StepSince != nil {
			since = later(p.s.StepSince.Time, since.Add(-BlindAfter))
		}
		p.s.BlindSince = micro(since)
		p.event(true, v.Cause, "The rollout can't be judged and waits: "+v.Message+". It goes on by itself when it can; kubectl rollout undo ends it")
	}
}

// inStep is how much of the current step lies between since and until, or now where that is unset or later. A pause and an
// outage at the same time are so counted once: of the one that ends first, the part before the other began.
func (p *pass) inStep(since, until *metav1.MicroTime) time.Duration {
	if since == nil || p.s.StepSince == nil {
		return 0
	}
	end := p.o.Now
	if until != nil && until.Time.Before(end) {
		end = until.Time
	}
	return max(0, end.Sub(later(p.s.StepSince.Time, since.Time)))
}

// pausedSince is unset where the rollout is not paused.
func (p *pass) pausedSince() *metav1.MicroTime {
	if p.s.Phase != v1alpha1.PhasePaused {
		return nil
	}
	return p.s.PhaseSince
}

func (p *pass) blind() time.Duration {
	if p.s.BlindSince == nil {
		return 0
	}
	return p.o.Now.Sub(p.s.BlindSince.Time)
}

func (p *pass) wantsPromotion() bool {
	w := p.o.Wishes.Promote
	return w != nil && w.Revision != "" && w.Revision == p.s.Candidate.Hash
}

// promotable: a promotion that was asked for can begin. Without its k pods it would open gates for
// nobody, and wait.
func (p *pass) promotable() bool {
	return p.wantsPromotion() && p.candidate.readyButGate() >= p.s.CandidateReplicas
}

func (p *pass) approved() bool {
	w := p.o.Wishes.Approve
	return w != nil && w.Revision != "" && w.Revision == p.s.Candidate.Hash && w.Step == p.s.Step
}

// advance goes to the next step, or to the end.
func (p *pass) advance() {
	reason, message := p.endOfStep()
	p.event(false, reason, message)
	if p.isLastStep() {
		p.promote()
		return
	}
	p.s.JudgedFor = metav1.Duration{Duration: p.s.JudgedFor.Duration + p.spent()}
	p.s.PausedFor = metav1.Duration{}
	p.s.Step++
	p.s.StepSince = nil
	p.enter(v1alpha1.PhaseStepping)
	p.s.CandidateReplicas = p.k(p.s.Step)
	p.because(fmt.Sprintf("step %d begins", p.s.Step))
}

func (p *pass) isLastStep() bool { return int(p.s.Step) == len(p.steps())-1 }

// endOfStep says how the current step ended, by what evidence, and what comes next.
func (p *pass) endOfStep() (reason, message string) {
	reason, ended, v := "StepAccepted", "is accepted", p.o.Verdict
	if v.Result == v1alpha1.ResultInconclusive {
		reason, ended = "StepInconclusive", "ended without a verdict, and the policy says advance"
	}
	next := "it was the last one"
	if !p.isLastStep() {
		k := p.k(p.s.Step + 1)
		next = fmt.Sprintf("next is %d %% with %s", p.lightened(p.steps()[p.s.Step+1], k), number(k, "pod"))
	}
	message = fmt.Sprintf("Step %d %s; %s", p.s.Step, ended, next)
	if v.Message != "" && p.currentStep().Weight > 0 {
		message += ": " + v.Message
	}
	return reason, message
}

// failed rolls back when the analysis or the pods say so.
func (p *pass) failed() bool {
	if v := podSignals(p.o, p.stable, p.candidate); v != nil && !p.waitsForRoom(v) {
		p.rollBack(v)
		return true
	}
	// With the candidate's share of the requests, stable can wait for a node as long as a start may take.
	if crowded := p.crowdedOut(p.policy.EffectiveProgressDeadline()); crowded != "" && p.s.Phase != v1alpha1.PhasePromoting {
		p.rollBack(fail(v1alpha1.CauseNoRoom, "%s", crowded))
		return true
	}
	if p.begins() {
		return false // seen when the rollout began: a verdict about the one before it
	}
	p.noteBlind()
	if p.o.Verdict.Result == v1alpha1.ResultFail {
		p.rollBack(p.o.Verdict.DeepCopy())
		return true
	}
	p.tellWaiting(p.o.Verdict, p.verdict())
	// What promoted it stays on record; after that only a Fail is news.
	if p.o.Verdict.Result != "" && p.s.Phase != v1alpha1.PhasePromoting {
		p.s.Verdict = clip(p.o.Verdict.DeepCopy())
	}
	return false
}

// tellWaiting says once that a step does not go on, and why, unless it is over in this pass; noteBlind does where nothing is known.
func (p *pass) tellWaiting(v, before v1alpha1.Verdict) {
	switch {
	case p.waitsForSomebody(v) && !p.waitsForSomebody(before):
		p.event(true, "StepInconclusive", fmt.Sprintf("Step %d ended without a verdict, and the policy says hold: promote it (the Rollout's spec.promote), or kubectl rollout undo; %s", p.s.Step, v.Message))
	case p.onHold(v) && !p.onHold(before) && !p.heldTooLong(v.Cause):
		p.event(true, "StepHeld", fmt.Sprintf("Step %d is on hold (%s), and rolled back if it stays so: %s", p.s.Step, v.Cause, v.Message))
	}
}

// onHold: there is data, and it does not speak for the candidate.
func (p *pass) onHold(v v1alpha1.Verdict) bool {
	return v.Result == v1alpha1.ResultHold && !IsBlind(v.Cause) && p.s.Phase == v1alpha1.PhaseStepping
}

// waitsForSomebody: the step's time is up, nothing is known, and the policy leaves the decision to people.
func (p *pass) waitsForSomebody(v v1alpha1.Verdict) bool {
	return v.Result == v1alpha1.ResultInconclusive && p.policy.OnInconclusive == v1alpha1.OnInconclusiveHold && p.s.Phase == v1alpha1.PhaseStepping
}

// verdict is the one on record; the zero value where there is none.
func (p *pass) verdict() v1alpha1.Verdict {
	if p.s.Verdict == nil {
		return v1alpha1.Verdict{}
	}
	return *p.s.Verdict
}

// waitsForRoom: in the native part of a promotion, a pod without a node is what it is in any rolling
// update: something to wait for. It says nothing about the version, and going back needs room too.
func (p *pass) waitsForRoom(v *v1alpha1.Verdict) bool {
	return v.Cause == v1alpha1.CauseNoRoom && p.s.Phase == v1alpha1.PhasePromoting && !p.held()
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
	if p.s.Weight > 0 && p.handingOn() != "" { // what was accepted, if it was, may have been stable's answers
		p.beginAgain()
		p.because(fmt.Sprintf("step %d: %s", p.s.Step, p.notYet(p.weightOf(p.currentStep()))))
		return
	}
	p.followN()
	switch {
	case p.o.Deployment.Paused:
		p.because("paused by the user")
	case p.s.AwaitingApproval && p.promotable():
		p.leavePause()
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

// followN: N may change while the user has paused, or somebody makes up his mind. What was accepted, or is judged, stays so.
func (p *pass) followN() {
	if p.s.AwaitingApproval && !p.o.Deployment.Paused {
		p.s.CandidateReplicas = p.kNow()
	}
	if weight := p.weightOf(p.currentStep()); weight < p.s.Weight {
		p.setWeight(weight)
	}
}

func (p *pass) leavePause() {
	p.s.PausedFor.Duration += p.inStep(p.pausedSince(), p.s.BlindSince)
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

// number of things, as people say it.
func number(n int32, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
