// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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
	case p.slippedUnmanaged():
		p.releaseUnmanaged()
	case dep.Hold != nil:
		p.begin(dep.Template)
	case p.slippedPast(current):
		p.holdNow()
	case p.held():
		p.d.Requeue = tick
		p.endHold(v1alpha1.ReleaseForward, "a hold was wiped: the user's fields go back")
	case p.s.Stable.Template != "" && dep.Template == p.s.Stable.Template:
		p.because("stable is the template")
	default:
		p.openGates(p.o.revision(current))
		p.because("the template goes out natively")
		if dep.Gate == v1alpha1.GateOpen {
			p.forgive(dep.Template)
		}
		if dep.Complete && current.Hash != "" {
			p.stableIsNow(current)
			p.because("the template is complete: it is stable")
		}
	}
}

// stableIsNow follows what went out natively.
func (p *pass) stableIsNow(current v1alpha1.Revision) {
	p.recordNative(current)
	p.setStable(current)
	p.s.Verdict = nil // was about another version
	p.forgive(current.Template)
}

// forgive: the version that was rejected is let out by somebody, or good after all. A later return to it must not be
// quarantined, and another version on top of it has it to be compared with.
func (p *pass) forgive(template string) {
	if r := p.s.Rejected; r != nil && r.Template == template {
		p.s.Rejected = nil
	}
}

// slippedPast: a template that no webhook decided about, while a stable revision is known and requests
// can be split. The Pod webhook has kept its pods gated. What the webhook would have left alone, because
// the user's own strategy leaves no room for a hold, is left alone here too.
func (p *pass) slippedPast(current v1alpha1.Revision) bool {
	dep := p.o.Deployment
	return !p.gone && p.s.Stable.Hash != "" && dep.Template != p.s.Stable.Template && current.Hash != "" &&
		p.o.NoSplit == "" && canSurge(p.userFields()) && dep.Gate == "" && dep.Replicas > 0 && !dep.Paused && !dep.Complete
}

// slippedUnmanaged: the hold is about another template than the one that slipped past the webhook, which no policy selects.
// Nobody gates its pods, and the webhook would have let it out at once. (With a hold of its own it waits, because a
// chart that is re-created takes its policy away for some seconds.)
func (p *pass) slippedUnmanaged() bool {
	dep := p.o.Deployment
	return p.gone && dep.Hold != nil && dep.Hold.Template != dep.Template
}

func (p *pass) releaseUnmanaged() {
	p.d.Requeue = tick
	if r := p.s.Rejected; r != nil && r.Template == p.o.Deployment.Template && p.stableIsKept() {
		p.endHold(v1alpha1.ReleaseBack, "a version that failed before slipped past, and no policy selects it: back")
		return
	}
	p.endHold(v1alpha1.ReleaseForward, "a version slipped past, and no policy selects it: forward")
}

// canSurge: with Recreate, or without any surge, there is never a candidate next to stable.
func canSurge(u v1alpha1.UserFields) bool {
	if u.StrategyType == "Recreate" {
		return false
	}
	if u.MaxSurge == nil {
		return true
	}
	s := u.MaxSurge.String()
	return s != "0" && s != "0%"
}

// holdNow holds an update that the native controller has begun with. The rollout begins in the same moment, because the
// record is written before the hold: a version that the user takes back before the native controller has noted on its
// ReplicaSet that it is held must not count as an earlier stable one when it comes again.
//
// k covers the pods that are there already: with less, a user's pause in this moment would have them taken from both
// versions, and stable would lose some.
func (p *pass) holdNow() {
	dep := p.o.Deployment
	k := p.steps()[0].CandidateReplicas(dep.Replicas, p.o.Autoscaled)
	all := int32(0)
	for _, r := range p.o.Revisions {
		all += r.Replicas
	}
	hold := &v1alpha1.Hold{K: max(k, all-dep.Replicas), Template: dep.Template, User: p.userFields()}
	p.begin(dep.Template)
	p.d.Hold = hold
}

// begin starts a rollout of the held template.
func (p *pass) begin(template string) {
	if p.s.Stable.Hash == "" {
		p.setStable(p.largestOther(template))
		p.recallRejection(template)
	}
	if p.s.Stable.Hash == "" || p.s.Stable.Template == template {
		// A manifest exported mid-rollout, or a restored backup: there is nothing to compare with.
		p.d.Requeue = tick
		p.endHold(v1alpha1.ReleaseForward, "a hold without another stable revision is released")
		return
	}
	if p.given != nil {
		p.policy = p.given // a retry is a new rollout: what the policy says now applies
	}
	retry := p.wantsRetry(template)
	p.clearRollout()
	p.s.Candidate = p.o.byTemplate(template)
	p.s.StartedAt = micro(p.o.Now)
	p.s.Replicas = p.o.Deployment.Replicas
	p.s.Autoscaled = p.o.Autoscaled
	if p.s.Policy = ""; p.given != nil { // else it is looked for while the candidate starts
		p.s.Policy = snapshot(p.policy)
	}
	p.setWeight(0)
	if r := p.s.Rejected; r != nil && r.Template == template && p.o.Now.Before(r.Until.Time) && !retry {
		p.quarantineAgain(r)
		return
	}
	p.enter(v1alpha1.PhaseStarting)
	p.s.CandidateReplicas = p.k(0)
	message := fmt.Sprintf("Holding the new revision as a candidate: %s, gates closed, weight 0", number(p.s.CandidateReplicas, "pod"))
	if left := len(p.policy.EffectiveSteps()) - len(p.steps()); left > 0 {
		message += fmt.Sprintf("; it does without %s, because so few pods as the autoscaler allows can't carry the weight", number(int32(left), "step"))
	}
	if p.s.Replicas < fewPods {
		message += fmt.Sprintf("; with fewer than %d stable pods the fault of one pod may look like the version's", fewPods)
	}
	p.event(false, "RolloutStarted", message)
	p.because("a hold appeared")
	p.d.Requeue = tick
}

// fewPods is below how many pods of stable the bound on false rollbacks was not seen to hold where pods fail on their own
// (docs/analysis.md, Limits).
const fewPods = 3

// recallRejection: the record is gone, and the Deployment still says that this template was rolled back.
func (p *pass) recallRejection(template string) {
	if m := p.o.Deployment.FailureShown; m != "" {
		m, _, _ = strings.Cut(strings.TrimPrefix(m, "headgate: "), ". Stable serves")
		if cause, why, ok := strings.Cut(m, "): "); ok && strings.HasPrefix(cause, rolledBack+" (") {
			m = why // or it would be said once more each time
		}
		p.s.Rejected = &v1alpha1.Rejection{
			Template: template, Revision: p.o.byTemplate(template).Hash, Times: 1,
			Until: metav1.NewTime(p.o.Now.Add(backoffMin).Truncate(time.Second)), Message: m,
		}
	}
}

// quarantineAgain: a template that failed is applied again before its back-off is over (row 4).
func (p *pass) quarantineAgain(r *v1alpha1.Rejection) {
	p.enter(v1alpha1.PhaseQuarantined)
	p.s.CandidateReplicas = quarantineReplicas
	p.s.Verdict = &v1alpha1.Verdict{Result: v1alpha1.ResultFail, Cause: "RejectedBefore", Message: r.Message}
	p.event(true, "RejectedBefore", "This version was rolled back before and its back-off is not over; it stays in quarantine: "+r.Message)
	p.because("rejected before")
}

// wantsRetry: the user asked to try exactly this revision again. Its ReplicaSet may have been tidied
// away since it was rejected.
func (p *pass) wantsRetry(template string) bool {
	w := p.o.Wishes.Retry
	if w == nil || w.Revision == "" {
		return false
	}
	r := p.s.Rejected
	return w.Revision == p.o.byTemplate(template).Hash || (r != nil && r.Template == template && r.Revision == w.Revision)
}

// largestOther is the revision with the most ready pods among those with another template.
func (p *pass) largestOther(template string) v1alpha1.Revision {
	return p.largest(func(r Revision) bool { return r.Template != template })
}

// largest is the revision with the most ready pods among those that are wanted; empty where none has any.
func (p *pass) largest(wanted func(Revision) bool) v1alpha1.Revision {
	best, n := v1alpha1.Revision{}, int32(0)
	for _, r := range p.o.Revisions {
		ready := r.ready()
		if wanted(r) && ready > 0 && (ready > n || (ready == n && r.Hash < best.Hash)) {
			best, n = v1alpha1.Revision{Hash: r.Hash, Template: r.Template}, ready
		}
	}
	return best
}

// clearRollout forgets the rollout that was, but neither stable nor history nor rejections.
func (p *pass) clearRollout() {
	kept := v1alpha1.RolloutStatus{
		DeploymentUID: p.s.DeploymentUID, DeploymentGeneration: p.s.DeploymentGeneration,
		Phase: p.s.Phase, PhaseSince: p.s.PhaseSince,
		Stable: p.s.Stable, StableServices: p.s.StableServices, Rejected: p.s.Rejected, UsedBypasses: p.s.UsedBypasses,
		Hold: p.s.Hold, History: p.s.History, Conditions: p.s.Conditions,
	}
	*p.s = kept
}

// Released is a record at rest after its hold was ended by somebody else, the rollout that was under way in its history.
// What is stable then is found out when the template is complete.
func Released(status v1alpha1.RolloutStatus, now time.Time) v1alpha1.RolloutStatus {
	p := newPass(nil, status, Observation{Now: now})
	if p.s.Candidate.Hash != "" {
		p.recordUnlessEnded(v1alpha1.OutcomeReleased)
	}
	p.clearRollout()
	p.enter(v1alpha1.PhaseIdle)
	p.s.Hold = ""
	return p.d.Status
}

// stableIsBack: the template is stable's. (A hold that is still there slipped past the webhook, and is
// released once Idle.) The roll back of a promotion has a way to go then: see rollingBackFromPromotion.
func (p *pass) stableIsBack() bool {
	return p.s.Stable.Template != "" && p.o.Deployment.Template == p.s.Stable.Template && !p.fromPromotion()
}

// endBack ends the rollout with the stable template in place.
func (p *pass) endBack() {
	switch {
	case p.failedBefore():
		p.because("the stable template is back")
	default:
		p.record(v1alpha1.OutcomeAborted)
		p.event(false, "RolloutAborted", "The stable template was put back; the candidate is removed")
		p.because("aborted: the stable template was put back")
	}
	verdict := p.s.Verdict
	p.clearRollout()
	p.s.Verdict = verdict
	p.enter(v1alpha1.PhaseIdle)
}

// supersededByHold: what counts is the template that is there, not the one that the annotation names:
// one that slipped past the webhook leaves the annotation as it was.
func (p *pass) supersededByHold() bool {
	return p.o.Deployment.Hold != nil && p.o.Deployment.Template != p.s.Candidate.Template
}

// supersede ends this rollout; the next pass begins one with the new template, and the policy of now.
func (p *pass) supersede() {
	p.recordUnlessEnded(v1alpha1.OutcomeSuperseded)
	p.event(false, "RolloutSuperseded", "A newer version replaces the candidate")
	p.clearRollout()
	p.enter(v1alpha1.PhaseIdle)
	p.because("a newer version replaces the candidate")
}

// supersededNatively: no hold, and the template is neither stable's nor the candidate's.
func (p *pass) supersededNatively() bool {
	dep := p.o.Deployment
	return dep.Hold == nil && dep.Template != p.s.Candidate.Template && dep.Template != p.s.Stable.Template
}

func (p *pass) followNative() {
	if hold := p.lastKnownHold(); hold != nil && !p.gone {
		// It slipped past the webhook mid-rollout: the fields are still those of the hold.
		p.supersede()
		p.begin(p.o.Deployment.Template) // before the hold, as in holdNow
		p.d.Hold = &v1alpha1.Hold{K: hold.K, Template: p.o.Deployment.Template, User: hold.User}
		return
	}
	p.recordUnlessEnded(v1alpha1.OutcomeSuperseded)
	p.clearRollout()
	p.enter(v1alpha1.PhaseIdle)
	p.because("a third template goes out natively")
}

// outNatively: all of stable is gone, and pods that nobody gated serve in its place. So it is after somebody took Headgate's
// webhooks away to get an update out. To take that back would overrule him, and costs the version that serves; only
// what was judged and failed is not kept.
func (p *pass) outNatively() bool {
	dep := p.o.Deployment
	if !dep.Complete || dep.Replicas == 0 || dep.Gate == v1alpha1.GateOpen || p.s.Stable.Template == "" || dep.Template == p.s.Stable.Template {
		return false
	}
	switch p.s.Phase {
	case v1alpha1.PhaseIdle:
		return dep.Hold != nil && p.servesUnseen()
	case v1alpha1.PhasePromoting:
		return false
	}
	failedItself := p.failedBefore() && dep.Template == p.s.Candidate.Template
	return !failedItself && !p.fromPromotion() && p.servesUnseen()
}

// servesUnseen: pods of the template serve that the Pod webhook has not seen.
func (p *pass) servesUnseen() bool {
	return p.o.revision(p.o.byTemplate(p.o.Deployment.Template)).count(func(pod Pod) bool { return !pod.Gated && pod.Ready }) > 0
}

func (p *pass) followOut() {
	out := p.o.byTemplate(p.o.Deployment.Template)
	if p.s.Candidate.Hash != "" && p.s.Candidate.Hash != out.Hash {
		p.recordUnlessEnded(v1alpha1.OutcomeSuperseded)
	}
	p.event(true, "RolloutReleased", "This version went out natively while Headgate could not hold it, and is complete: it is stable now")
	p.stableIsNow(out)
	p.clearRollout()
	p.enter(v1alpha1.PhaseIdle)
	p.because("went out natively and is complete: it is stable")
	if p.held() {
		p.d.Requeue = tick
		p.endHold(v1alpha1.ReleaseForward, "went out natively and is complete: the user's fields go back")
	}
}

// gatesClosed: in these phases no candidate pod may serve by itself.
func (p *pass) gatesClosed() bool {
	switch p.s.Phase {
	case v1alpha1.PhaseStarting, v1alpha1.PhaseStepping, v1alpha1.PhasePaused, v1alpha1.PhaseQuarantined:
		return true
	case v1alpha1.PhaseRollingBack:
		return !p.fromPromotion()
	}
	return false
}

func (p *pass) podWebhookDown() bool {
	if !p.wantsGates() {
		return false
	}
	return p.servesUngated() || (len(p.seenUngated()) > ungatedLimit && !p.failedBefore())
}

// wantsGates: each of the candidate's pods should have a closed gate. Where no policy counts, in a namespace that lost its
// label above all, nobody gates pods any more.
func (p *pass) wantsGates() bool {
	return p.gatesClosed() && p.candidate.Hash != "" && !p.gone
}

// ungated names the candidate's pods that came without their gate and must go.
func (p *pass) ungated() (names []string) {
	if !p.wantsGates() || p.servesUngated() {
		return nil
	}
	for _, pod := range p.candidate.Pods {
		if !pod.Gated && !pod.Terminating {
			names = append(names, pod.Name)
		}
	}
	return names
}

// seenUngated are the last of all that came without a gate in this rollout.
func (p *pass) seenUngated() []string {
	seen := slices.Clone(p.s.UngatedPods)
	for _, name := range p.ungated() {
		if !slices.Contains(seen, name) {
			seen = lastN(append(seen, name), 10)
		}
	}
	return seen
}

// deleteUngated takes pods away that serve users unasked; their ReplicaSet makes gated ones.
func (p *pass) deleteUngated() {
	p.d.DeletePods = append(p.d.DeletePods, p.ungated()...)
	p.s.UngatedPods = p.seenUngated()
}

// servesUngated: candidate pods serve, and the native controller has taken stable's away for them: those that came
// without a gate (nothing of Headgate ran), and those left over from a promotion of this version that was ended. To
// delete or close what serves now would leave too few, or nobody.
func (p *pass) servesUngated() bool {
	serving := p.candidate.count(func(pod Pod) bool { return !pod.Gated && pod.Ready && !pod.Terminating }) + p.leftOver()
	return p.gatesClosed() && serving > 0 && p.stable.ready() < p.o.Deployment.Replicas
}

// leftOver counts pods that have served since before this rollout began, behind a gate that a promotion opened.
func (p *pass) leftOver() int32 {
	return p.candidate.count(func(pod Pod) bool {
		return pod.Gated && pod.Ready && !pod.Terminating && p.s.StartedAt != nil && pod.CreatedAt.Before(p.s.StartedAt.Time)
	})
}

// giveUpWithoutGates goes back; where the candidate serves by itself, as a failed promotion does.
func (p *pass) giveUpWithoutGates() {
	p.deleteUngated()
	switch {
	case p.failedBefore():
		p.event(true, v1alpha1.CausePodWebhook, "Pods of the version that failed serve; the stable template is put back")
		p.enter(v1alpha1.PhaseRollingBack)
		p.s.ResumePhase = v1alpha1.PhasePromoting
		p.rollingBack()
	case p.servesUngated() && p.beganServing():
		p.rollBack(fail(v1alpha1.CauseStillServing, "pods of this version serve that this rollout has not let out (an update before it was ended, or somebody opened their gate): the stable version is put back first; then apply this one again"))
	default:
		p.rollBack(fail(v1alpha1.CausePodWebhook, "pods keep coming without their gate: the Pod webhook is down, or the gate annotation was overwritten; see the Headgate pods, then retry"))
	}
}

// beganServing: all that serves of the candidate did so before this rollout began, gated or not.
func (p *pass) beganServing() bool {
	return p.candidate.count(func(pod Pod) bool {
		return pod.Ready && !pod.Terminating && (p.s.StartedAt == nil || !pod.CreatedAt.Before(p.s.StartedAt.Time))
	}) == 0
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
		Weights: slices.Clone(p.s.Weights), Replicas: p.s.Replicas, Autoscaled: p.s.Autoscaled, Policy: p.judgedBy(),
		Verdict: p.s.Verdict.DeepCopy(),
	}), v1alpha1.MaxHistory)
}

// recordNative notes that another revision became stable without a rollout (bypass, earlier stable,
// nothing to split): one that was rejected once must not look rejected, or tidy would delete it from the
// native history.
func (p *pass) recordNative(to v1alpha1.Revision) {
	if p.s.Stable.Hash != "" && p.s.Stable.Hash != to.Hash {
		p.recordUntried(v1alpha1.OutcomeReleased, to.Hash)
	}
}

// noteUntried puts versions into the history that no rollout was about and that were superseded before they served anybody:
// they slipped past the webhook, and all their pods wait behind closed gates; or they went out natively, and none of
// their pods is ready. Nothing else would tell them from a version older than Headgate, which was stable: an undo
// would lead there, and they would go out at once.
func (p *pass) noteUntried() {
	for _, r := range p.o.Revisions {
		waiting := r.count(func(pod Pod) bool { return pod.Gated && !pod.GateOpen })
		slipped := int(waiting) == len(r.Pods)
		// The native controller takes pods away that are not ready as soon as another version comes. Later a version whose pods
		// are all on their way out may have served while nobody looked.
		unready := r.ready() == 0 && (r.alive() > 0 || p.begins())
		if len(r.Pods) > 0 && (slipped || unready) && r.Template != p.o.Deployment.Template && !p.knows(r) {
			p.recordUntried(v1alpha1.OutcomeSuperseded, r.Hash)
		}
	}
}

// knows: the record says what the revision is, or what became of it. It knows nothing before it knows what is stable.
func (p *pass) knows(r Revision) bool {
	return p.s.Stable.Hash == "" || r.Hash == p.s.Stable.Hash || r.Hash == p.s.Candidate.Hash || r.Template == p.s.Candidate.Template ||
		slices.ContainsFunc(p.s.History, func(h v1alpha1.HistoryEntry) bool { return r.Hash == h.From || r.Hash == h.To })
}

// recordUntried notes the end of a version that no rollout was about.
func (p *pass) recordUntried(outcome v1alpha1.Outcome, to string) {
	now := metav1.NewTime(p.o.Now.Truncate(time.Second))
	p.s.History = lastN(append(p.s.History, v1alpha1.HistoryEntry{
		Outcome: outcome, From: p.s.Stable.Hash, To: to, StartedAt: now, EndedAt: now,
	}), v1alpha1.MaxHistory)
}

// recordUnlessEnded: a rollout that was rolled back is in the history already.
func (p *pass) recordUnlessEnded(outcome v1alpha1.Outcome) {
	if !p.failedBefore() {
		p.record(outcome)
	}
}

// lastOutcome is how the last rollout of the revision ended; empty where the history has none.
func (p *pass) lastOutcome(revision string) v1alpha1.Outcome {
	for _, h := range slices.Backward(p.s.History) {
		if h.To == revision {
			return h.Outcome
		}
	}
	return ""
}

// maxSnapshot is what the record can hold (the CRD refuses more). Every policy that the API accepts fits, so that what is
// judged never differs from what was asked for.
const maxSnapshot = 131072

// judgedBy is the policy that the rollout began with, as its history keeps it; empty where that is not known.
func (p *pass) judgedBy() string {
	var kept v1alpha1.RolloutPolicySpec
	if json.Unmarshal([]byte(p.s.Policy), &kept) != nil {
		return ""
	}
	kept.Analysis.Metrics, kept.Analysis.Prometheus = nil, nil
	if text := snapshot(&kept); len(text) <= maxJudgedBy {
		return text
	}
	return ""
}

// maxJudgedBy is what an entry of the history can hold (the CRD refuses more); without metrics, every policy fits.
const maxJudgedBy = 4096

// snapshot keeps what the policy says now, but whom it selects, which may be long and is of no use any more. One that is too
// long all the same is not kept: then changes apply at once, and the analysis says that it has nothing to go by.
func snapshot(policy *v1alpha1.RolloutPolicySpec) string {
	kept := *policy
	kept.Selector = metav1.LabelSelector{}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // queries are full of < and >
	if err := e.Encode(kept); err != nil || b.Len() > maxSnapshot {
		return ""
	}
	return strings.TrimSpace(b.String())
}
