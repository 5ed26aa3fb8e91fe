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
// hand: only a gate that the webhook has opened says that the user's fields are back.
func (p *pass) held() bool {
	dep, recorded := p.o.Deployment, p.recordedHold()
	return dep.Hold != nil || (dep.Gate != v1alpha1.GateOpen && recorded != nil && recorded.Template == dep.Template)
}

// finishHold says which annotation the Deployment should carry. One that was wiped is restored from the
// copy in the record. While the user has paused, k stays what it is, and so does a release that waits.
func (p *pass) finishHold() {
	base := p.o.Deployment.Hold
	if base == nil && p.held() {
		base = p.recordedHold()
	}
	if base != nil && base.Release != "" && p.release == "" && !p.o.Deployment.Paused {
		p.release = base.Release // it waited for the user to resume
	}
	switch {
	case p.d.Hold != nil: // decided already
	case p.release != "":
		p.d.Hold = p.lastHold(base)
		return // the copy in the record stays until the release is seen
	case p.isIdle() || base == nil:
	default:
		h := *base // with a release that waits for the user to resume
		h.Template = p.o.Deployment.Template
		if !p.o.Deployment.Paused && p.gatesClosed() {
			h.K = max(1, p.s.CandidateReplicas)
		}
		p.d.Hold = &h
	}
	switch {
	case p.d.Hold != nil:
		p.s.Hold = p.d.Hold.String()
	case !p.isIdle() && !p.held():
		p.s.Hold = ""
	}
}

// lastHold is the annotation that ends the hold. The fields it gives back are the user's: as recorded
// while the hold is on, as they stand when it is over already (a promotion that failed).
func (p *pass) lastHold(base *v1alpha1.Hold) *v1alpha1.Hold {
	h := v1alpha1.Hold{
		K: max(1, p.s.CandidateReplicas), Template: p.o.Deployment.Template, User: p.o.Deployment.User, Release: p.release,
	}
	if base != nil {
		h.K, h.User = max(1, base.K), base.User
	}
	return &h
}

// finishGates: stable's gates are open in every phase, the candidate's closed where it must not serve by
// itself. In a roll back they close after weight 0.
func (p *pass) finishGates() {
	p.openGates(p.stable)
	if !p.gatesClosed() || p.rescue {
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

// spendWishes names the wishes that were taken up, or can't be any more. Left in the spec they would hit
// a later rollout of the same revision: one promoted by hand, rejected and retried would skip its steps.
func (p *pass) spendWishes() {
	w, hash := p.o.Wishes, p.s.Candidate.Hash
	if p.isIdle() {
		hash = p.s.Stable.Hash
	}
	if hash == "" {
		return
	}
	about := func(w *v1alpha1.RevisionWish) bool { return w != nil && w.Revision == hash }
	over := p.isIdle() || p.s.Phase == v1alpha1.PhasePromoting || p.failedBefore()
	p.d.ClearRetry = about(w.Retry) && !p.failedBefore()
	p.d.ClearPromote = about(w.Promote) && over
	p.d.ClearApprove = w.Approve != nil && w.Approve.Revision == hash && (over || w.Approve.Step < p.s.Step)
}
