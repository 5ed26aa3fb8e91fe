// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"slices"

	"github.com/headgate/headgate/api/v1alpha1"
)

// releasedByWebhook: no hold any more on the candidate's template, which the record does not know yet.
// After a promotion failed, the hold has been over for long and the revert may not be written yet.
func (p *pass) releasedByWebhook() bool {
	dep := p.o.Deployment
	over := dep.Hold == nil || dep.Hold.Release == v1alpha1.ReleaseForward // the latter waits for a resume
	return over && dep.Template == p.s.Candidate.Template && dep.Gate == v1alpha1.GateOpen &&
		p.s.Phase != v1alpha1.PhasePromoting && !p.fromPromotion()
}

// heldAgain: a version that goes out without a verdict has a new hold. So it is when the user puts another version in its
// place, and then this one again, before anybody has seen that.
func (p *pass) heldAgain() bool {
	hold := p.o.Deployment.Hold
	return p.s.Phase == v1alpha1.PhasePromoting && p.released() && hold != nil && hold.Release == "" &&
		hold.Template == p.o.Deployment.Template && p.o.Deployment.Gate == v1alpha1.GateClosed
}

func (p *pass) followRelease() {
	why := p.whyReleased()
	p.s.Verdict = &v1alpha1.Verdict{Result: v1alpha1.ResultUndecided, Cause: causeReleased, Message: "released without a verdict: " + why}
	p.enter(v1alpha1.PhasePromoting)
	p.event(false, "RolloutReleased", "The hold was released ("+why+"); the version goes out by a native rolling update")
	p.promoting()
}

// whyReleased is what ended the hold, as far as that can be seen afterwards.
func (p *pass) whyReleased() string {
	switch {
	case p.given == nil:
		return "no policy selects this Deployment"
	case p.given.Suspend:
		return "its policy is suspended"
	case p.bypassed:
		return "bypassed"
	case p.verdict().Cause == v1alpha1.CauseSidecarSilent, p.verdict().Cause == causeStableDown:
		return p.verdict().Cause
	case !p.o.StableDownSince.IsZero(), !p.o.StableLeftOutSince.IsZero():
		return causeStableDown
	}
	return "this version was stable before, or there was nothing to compare it with"
}

// Causes of an Undecided verdict that say why a rollout ends without one.
const (
	causeReleased     = "Released"
	causeScaledToZero = "ScaledToZero"
	causeStableDown   = "StableDown"
)

// released: the hold ended without a verdict, because the user, the policy or the state of stable
// wanted so. What goes out then is not Headgate's to judge.
func (p *pass) released() bool {
	return p.verdict().Cause == causeReleased
}

func (p *pass) scaledToZero() bool {
	return p.o.Deployment.Hold != nil && p.o.Deployment.Replicas == 0
}

// releaseBackAtZero does not wait for a resume: there is no pod that a changed field could cost, and
// growing back while paused would make nothing but candidates.
func (p *pass) releaseBackAtZero() {
	p.setWeight(0)
	p.d.Requeue = tick
	if !p.stableIsKept() {
		p.release = v1alpha1.ReleaseForward
		p.because("scaled to zero, and there is no stable revision to go back to: forward")
		return
	}
	if !p.isIdle() && !p.failedBefore() {
		p.noteOnce(causeScaledToZero, "Scaled to zero while held: the stable template comes back", false)
	}
	p.release = v1alpha1.ReleaseBack
	p.because("scaled to zero: the stable template comes back")
}

// stableIsKept is false where nothing is known to be stable, and where the native controller has deleted its ReplicaSet: with a
// small revisionHistoryLimit it does so as soon as that has no pods, and with it goes the only copy of the template. The hash
// decides, as it does for the webhook that would put the template back: a digest of the template may be an older Headgate's.
func (p *pass) stableIsKept() bool {
	hash := p.s.Stable.Hash
	return hash != "" && slices.ContainsFunc(p.o.Revisions, func(r Revision) bool { return r.Hash == hash })
}

// noteOnce makes a verdict of what happens, and an event the first time.
func (p *pass) noteOnce(cause, message string, warning bool) {
	if p.verdict().Cause != cause {
		p.event(warning, cause, message)
	}
	p.s.Verdict = &v1alpha1.Verdict{Result: v1alpha1.ResultUndecided, Cause: cause, Message: message}
}

// failedBefore: the candidate was rejected; it gets no request any more.
func (p *pass) failedBefore() bool { return rejected(p.s) }

func rejected(s *v1alpha1.RolloutStatus) bool {
	return s.Phase == v1alpha1.PhaseRollingBack || s.Phase == v1alpha1.PhaseQuarantined
}

// Over says that the candidate was rejected and no request is meant for it any more: its sidecars hand on to stable what they
// are still sent. In every other phase it is judged, or about to be, or goes out, and answers.
func Over(s *v1alpha1.RolloutStatus) bool {
	return s.Weight == 0 && rejected(s)
}

// policyGone does not fire while the user has paused: nothing may change then, and the candidate is
// still judged. Only an uninstall can't wait: nothing of Headgate may stay.
func (p *pass) policyGone() bool {
	since := p.o.PolicyGoneSince
	switch {
	case !p.gone || p.o.Deployment.Hold == nil:
		return false
	case p.given == nil && since.IsZero():
		return true
	case p.o.Deployment.Paused:
		return false
	}
	return p.given != nil || p.o.Now.Sub(since) >= policyGoneFor
}

func (p *pass) releaseByPolicy() {
	p.d.Requeue = tick
	switch {
	case p.failedBefore() && !p.stableIsKept():
		p.release = v1alpha1.ReleaseForward
		p.because("no policy any more, and no stable version to go back to: forward, though the candidate failed")
	case p.failedBefore() && !p.fromPromotion() && !p.weightIsGone():
		p.because("no policy any more, and the candidate failed: waiting for weight 0 to be acknowledged")
	case p.failedBefore():
		p.release = v1alpha1.ReleaseBack
		p.because("no policy any more, and the candidate failed: back")
	case !p.released() && !p.rescued() && p.failed(): // the last word on a candidate that would go out otherwise
	default:
		p.release = v1alpha1.ReleaseForward
		p.because("no policy any more, and nothing speaks against the candidate: forward")
	}
}

// weightIsGone wants weight 0 and says whether it is in force.
func (p *pass) weightIsGone() bool {
	p.setWeight(0)
	return p.noWeight()
}

// stableDown: stable has served nobody for a while, and the candidate can, or nothing brings stable back. One that has failed does
// not go out for that: stable's pods come back as they would without a rollout, and it would be stable for good.
func (p *pass) stableDown() bool {
	down := p.stableDownLong() && (!p.failedBefore() || !p.stableIsKept())
	return (down || p.stableLeftOut() || p.rescued()) && p.o.Deployment.Hold != nil && p.s.Phase != v1alpha1.PhasePromoting && !p.fromPromotion() &&
		(p.candidate.readyButGate() > 0 || !p.stableIsKept())
}

// stableLeftOut: a Service that led to stable leads to the candidate alone. Whoever makes one lead to a version that has failed
// knows what it is, and who asks elsewhere still has stable.
func (p *pass) stableLeftOut() bool {
	since := p.o.StableLeftOutSince
	return !since.IsZero() && p.o.Now.Sub(since) >= leftOutFor && !p.failedBefore()
}

// stableDownLong: nothing is held any longer for a stable version that serves nobody. What was observed may be about the
// one before, in the moment when another takes its place.
func (p *pass) stableDownLong() bool {
	since := p.o.StableDownSince
	serves := p.stable.count(func(pod Pod) bool { return pod.Ready && pod.NodeReady && !pod.Terminating }) > 0
	return !since.IsZero() && !serves && p.o.Now.Sub(since) >= stableDownFor
}

// rescued: the candidate serves in stable's place, and the release waits for the user to resume. The native
// controller counts these pods, and may have scaled stable to nothing: closed again, nobody would serve.
func (p *pass) rescued() bool {
	return p.verdict().Cause == causeStableDown && p.stable.ready() < p.o.Deployment.Replicas && p.candidate.ready() > 0
}

func (p *pass) releaseToRescue() {
	p.d.Requeue = tick
	p.rescue = true
	p.openGates(p.candidate)
	why := "No stable pod is available; the candidate is released, because it can only help"
	if p.stableLeftOut() {
		why = p.o.StableLeftOut + "; the candidate is released without a verdict, because it alone can answer there. " +
			"A Service that is to lead to the newest version only, to try it: annotate it with " + v1alpha1.PreviewAnnotation + "=true"
	}
	p.noteOnce(causeStableDown, why, true)
	p.endHold(v1alpha1.ReleaseForward, "stable serves nobody: the candidate is released")
}

// noteUnconnected remembers since when most of stable's sidecars have not been connected: those that are (pods made
// after the control plane's CA changed, say) would split what reaches them alone. Only the start of a rollout
// asks: later they keep what they were told, connected or not.
func (p *pass) noteUnconnected() {
	connected, all := 0, 0
	for _, sc := range p.o.Sidecars {
		if sc.Revision == p.s.Stable.Hash {
			all++
			if sc.Connected {
				connected++
			}
		}
	}
	switch {
	case p.s.Phase != v1alpha1.PhaseStarting || 2*connected >= max(all, 1) || p.stable.ready() == 0:
		p.s.UnconnectedSince = nil
	case p.s.UnconnectedSince == nil:
		p.s.UnconnectedSince = micro(p.o.Now)
	}
}

func (p *pass) unconnected() bool {
	since := p.s.UnconnectedSince
	return since != nil && p.o.Now.Sub(since.Time) >= unconnectedFor && p.o.Deployment.Hold != nil
}

// releaseUnsplit lets the version go out natively: held, it would be called a failure, and so would every version
// after it, the one that mends the connection included.
func (p *pass) releaseUnsplit() {
	p.deleteUngated()
	p.d.Requeue = tick
	why := p.o.whyNotConnected()
	if why == "" {
		why = "a NetworkPolicy or the pods' dnsPolicy in the way is the likely cause"
	}
	p.noteOnce(v1alpha1.CauseSidecarSilent, "Most of the stable pods' sidecars are not connected to Headgate, so requests can't be split: "+
		"this version goes out at once, not as a rollout; "+why, true)
	p.endHold(v1alpha1.ReleaseForward, "stable's sidecars are not connected: the candidate is released")
}

// whyNotConnected is why sidecars may count as not connected which are; empty: nothing is known of that.
func (o *Observation) whyNotConnected() string {
	if o.Unheard == "" {
		return ""
	}
	return "those of a replica that Headgate's leader can't ask count as not connected; a NetworkPolicy within Headgate's namespace, or certificates that differ, is the likely cause" + because(o.Unheard)
}
