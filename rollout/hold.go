// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"slices"

	"github.com/headgate/headgate/api/v1alpha1"
)

// endHold ends the hold, unless the user has paused: with spec.paused set, the Deployment controller
// answers a changed maxSurge by scaling, and stable loses pods.
func (p *pass) endHold(way v1alpha1.Release, reason string) {
	if p.o.Deployment.Paused {
		p.because(reason + ", once the user resumes")
		return
	}
	p.release = way
	p.because(reason)
}

// recordedHold is the copy in the record; nil when there is none, or none that can be read.
func (p *pass) recordedHold() *v1alpha1.Hold {
	h, _ := v1alpha1.ParseHold(p.s.Hold)
	return h
}

// held: the Deployment's three fields are those of the hold. So too when the annotation was wiped by
// hand: only a gate that the webhook has opened says that the user's fields are back, and not even that
// when the release waited for a resume; then the fields themselves tell. In a promotion and at rest the user's
// fields say enough: a webhook of somebody else may drop what ours says about the gate.
func (p *pass) held() bool {
	dep := p.o.Deployment
	if dep.Hold != nil || p.recordedHold() == nil {
		return dep.Hold != nil
	}
	released := dep.Gate == v1alpha1.GateOpen || (p.s.Phase == v1alpha1.PhasePromoting && !dep.Paused) || p.isIdle()
	return !released || dep.User.HaveHeldDeadline()
}

// lastKnownHold is the hold in force, or the copy of one that was wiped; nil when there is none.
func (p *pass) lastKnownHold() *v1alpha1.Hold {
	if h := p.o.Deployment.Hold; h != nil || !p.held() {
		return h
	}
	return p.recordedHold()
}

// userFields are the three fields as the user wants them.
func (p *pass) userFields() v1alpha1.UserFields {
	if h := p.lastKnownHold(); h != nil {
		return h.User
	}
	return p.o.Deployment.User
}

// finishHold says which annotation the Deployment should carry. One that was wiped is restored from the
// copy in the record. While the user has paused, k stays what it is, and so does a release that waits.
func (p *pass) finishHold() {
	base := p.lastKnownHold()
	p.takeUpRelease(base)
	p.putOffRecreate(base)
	switch {
	case p.d.Hold != nil: // decided already
	case p.release != "":
		p.d.Hold = p.lastHold(base)
		if base != nil {
			p.s.Hold = base.String() // until the release is seen
		}
		return
	case p.isIdle() || base == nil:
	default:
		h := *base // with a release that waits for the user to resume
		h.Template = p.o.Deployment.Template
		if p.o.Deployment.Hold != nil && !p.o.Deployment.Paused && p.gatesClosed() {
			h.K = max(1, p.s.CandidateReplicas)
		}
		p.d.Hold = &h
	}
	switch {
	case p.d.Hold != nil:
		p.s.Hold = p.d.Hold.String()
	case !p.held():
		p.s.Hold = ""
	}
}

// putOffRecreate: while some ReplicaSet notes another N, the Deployment controller does nothing but scale,
// and with Recreate it scales none of several. Released in that moment, the pods of both versions would
// run for ever, at N = 0 too.
func (p *pass) putOffRecreate(base *v1alpha1.Hold) {
	n := p.o.Deployment.Replicas
	noted := !slices.ContainsFunc(p.o.Revisions, func(r Revision) bool {
		return r.Replicas > 0 && r.Desired != -1 && r.Desired != n
	})
	if p.release == "" || base == nil || noted || p.userFields().StrategyType != "Recreate" {
		return
	}
	p.release = ""
	p.d.Hold, p.d.Requeue = base, tick
	p.because(p.d.Reason + ", once the Deployment controller has noted N")
}

// takeUpRelease goes on with a release that waited for the user to resume.
func (p *pass) takeUpRelease(base *v1alpha1.Hold) {
	if base != nil && base.Release != "" && p.release == "" && !p.o.Deployment.Paused {
		p.release = base.Release
	}
}

// lastHold is the annotation that ends the hold. The fields it gives back are the user's: as recorded
// while the hold is on, as they stand when it is over already (a promotion that failed).
func (p *pass) lastHold(base *v1alpha1.Hold) *v1alpha1.Hold {
	k := p.s.CandidateReplicas
	if base != nil {
		k = base.K
	}
	return &v1alpha1.Hold{K: max(1, k), Template: p.o.Deployment.Template, User: p.userFields(), Release: p.release}
}

// finishGates: stable's gates are open in every phase, the candidate's closed where it must not serve by
// itself. In a roll back they close after weight 0, and what serves already keeps its gates until stable has its pods.
func (p *pass) finishGates() {
	p.openGates(p.stable)
	if !p.gatesClosed() || p.rescue || p.rescued() || p.servesUngated() {
		return
	}
	if p.s.Phase == v1alpha1.PhaseRollingBack && !p.noWeight() {
		return
	}
	if p.candidate.count(func(pod Pod) bool { return pod.Gated && pod.GateOpen }) > 0 {
		p.d.CloseGates = append(p.d.CloseGates, p.candidate.Hash)
	}
}

// openGates wants the closed gates of a revision open.
func (p *pass) openGates(r Revision) {
	closed := r.count(func(pod Pod) bool { return pod.Gated && !pod.GateOpen && !pod.Terminating })
	if r.Hash != "" && closed > 0 && !slices.Contains(p.d.OpenGates, r.Hash) {
		p.d.OpenGates = append(p.d.OpenGates, r.Hash)
	}
}

// spendWishes names the wishes that were taken up, or can't be any more. Left in the spec they would hit a later rollout
// of the same revision: one promoted by hand, rejected and retried would skip its steps, and so would one that was taken
// back or superseded and is applied again. A retry asks for a rollout to come, and is spent when that begins.
func (p *pass) spendWishes() {
	w, current := p.o.Wishes, p.s.Candidate.Hash
	if p.isIdle() {
		current = p.s.Stable.Hash
	}
	p.d.ClearRetry = w.Retry != nil && current != "" && w.Retry.Revision == current && !p.failedBefore()
	p.d.ClearPromote = w.Promote != nil && p.isOver(w.Promote.Revision)
	p.d.ClearApprove = w.Approve != nil && (p.isOver(w.Approve.Revision) ||
		w.Approve.Revision == p.s.Candidate.Hash && w.Approve.Step < p.s.Step)
}

// isOver: what is left of the revision's rollout has no steps, or it has ended. By the history, so that a wish whose removal
// failed is found again. A revision that no rollout was about may have one yet.
func (p *pass) isOver(revision string) bool {
	switch {
	case revision == "":
		return false
	case revision == p.s.Candidate.Hash && !p.isIdle():
		return p.s.Phase == v1alpha1.PhasePromoting || p.failedBefore()
	case revision == p.s.Stable.Hash:
		return true
	}
	ended := p.lastOutcome(revision)
	return ended != "" && ended != v1alpha1.OutcomePromoted
}
