// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"

	"github.com/headgate/headgate/api/v1alpha1"
)

// stableIsReplaced: an update is held while nothing of stable is left, or none of it has served for as long as nothing is held
// for it, and a version that was let out serves. So it is when the update came on top of one that went out without a
// verdict, or was accepted, and was not complete. Without this the candidate would be compared with nothing, and released
// because stable is down, though users are served.
func (p *pass) stableIsReplaced() bool {
	dep := p.o.Deployment
	if dep.Hold == nil || dep.Hold.Release != "" || dep.Replicas == 0 || p.s.Stable.Hash == "" || dep.Template == p.s.Stable.Template {
		return false
	}
	if dep.Template == p.s.Candidate.Template && (p.s.Phase == v1alpha1.PhasePromoting || p.fromPromotion() || p.rescued()) {
		return false // its own pods serve: there is a way back for that already
	}
	return p.stableIsGone() && p.servesInstead().Hash != ""
}

// stableIsGone: the native controller has taken stable's pods away, or they are down for too long.
func (p *pass) stableIsGone() bool {
	return p.stable.Replicas == 0 && p.stable.alive() == 0 || p.stableDownLong()
}

// servesInstead is the version with most ready pods that is neither the template nor rejected. Where two have as many, the
// webhook may have looked at the other. A ready pod is one that was let out: no gate of a candidate is open.
func (p *pass) servesInstead() v1alpha1.Revision {
	return p.largest(func(r Revision) bool {
		failed := p.s.Rejected != nil && p.s.Rejected.Template == r.Template && !p.letOut(r)
		return r.Template != p.o.Deployment.Template && r.Hash != p.s.Stable.Hash && !failed
	})
}

// letOut: the revision is being promoted, by a verdict or without one.
func (p *pass) letOut(r Revision) bool {
	return p.s.Phase == v1alpha1.PhasePromoting && p.s.Candidate.Hash == r.Hash
}

// followServing takes the version that serves for stable. What was held against the one before begins again, because what was
// seen of it was a comparison with something else; what failed before stays so.
func (p *pass) followServing() {
	now := p.servesInstead()
	p.d.Requeue = tick
	p.event(now.Hash != p.s.Candidate.Hash, "StableReplaced", fmt.Sprintf("No pod of the stable version %s serves any more; "+
		"%s was let out and serves: it is stable now, and what is held is compared with it", p.s.Stable.Hash, now.Hash))
	p.because("nothing of stable is left: what was let out and serves is stable")
	switch {
	case now.Hash == p.s.Candidate.Hash: // an update came before its promotion was complete
		p.record(p.promotionOutcome())
		p.forgive(now.Template)
		p.clearRollout()
		p.enter(v1alpha1.PhaseIdle)
		p.setStable(now)
	case p.isIdle() || p.failedBefore() || p.s.Candidate.Template != p.o.Deployment.Template:
		p.stableIsNow(now)
	default:
		p.stableIsNow(now)
		p.begin(p.o.Deployment.Template)
	}
}
