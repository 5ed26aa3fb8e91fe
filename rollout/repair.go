// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"slices"

	"github.com/headgate/headgate/api/v1alpha1"
)

// repair compares all ReplicaSets with what they should be: stable N, candidate k, others 0. This
// undoes proportional scaling, superseded candidates and removed unready pods. Only with gates closed,
// not paused, and when the native controller is done with the latest N, so that it is not fought. Not
// while a third revision serves too: its opened pods and stable's are kept by native logic alone.
func (p *pass) repair() {
	p.freeRecreate()
	p.makeRoom()
	if !p.mayRepair() || !p.nativeIsDone() {
		return
	}
	dep := p.o.Deployment
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

// makeRoom takes away what is left of a candidate whose gates stayed closed, once the stable template is back. The native
// controller does too, but for one case: where a pod of stable is missing and these have taken its place (on the node, or in
// the quota), it waits for that pod first. What serves nobody can go at once.
func (p *pass) makeRoom() {
	dep := p.o.Deployment
	if dep.Hold != nil || p.held() || dep.Paused || !dep.Current || p.s.Stable.Hash == "" || dep.Template != p.s.Stable.Template {
		return
	}
	for _, r := range p.o.Revisions {
		if r.Hash != p.s.Stable.Hash && r.Replicas > 0 && r.servesNobody() {
			p.d.Sizes = append(p.d.Sizes, Size{r.Hash, 0})
		}
	}
}

// servesNobody: all pods of the ReplicaSet are known, and each has its gate closed.
func (r Revision) servesNobody() bool {
	closed := r.count(func(pod Pod) bool { return pod.Gated && !pod.GateOpen && !pod.Ready && !pod.Terminating })
	return r.alive() == closed && (closed == r.Replicas || r.CreateFailure != "")
}

// freeRecreate goes on where the Deployment controller would never: with Recreate, and a new N that it has not noted yet on
// every ReplicaSet with pods, it does nothing but scale, and scales none of several, nor one that has N pods already. A hold
// leaves that over where Recreate and another N come in the same moment: pods of both versions would stay for ever, and
// no later update would go out. Once N is noted, what the user asked for goes its native way.
func (p *pass) freeRecreate() {
	dep := p.o.Deployment
	if p.held() || dep.Paused || dep.User.StrategyType != "Recreate" || !dep.Current {
		return
	}
	for _, r := range p.o.Revisions {
		if p.lacksN(r) {
			p.d.NoteReplicas = append(p.d.NoteReplicas, r.Hash)
		}
	}
}

// mayRepair says whether the sizes are Headgate's to keep. Where stable's ReplicaSet was deleted by hand, the
// native controller gives its pods to the candidate, and taking them away would only make it repeat that.
func (p *pass) mayRepair() bool {
	dep := p.o.Deployment
	return p.gatesClosed() && !dep.Paused && dep.Hold != nil && p.release == "" && dep.Replicas != 0 &&
		p.s.Stable.Hash != "" && p.stable.Desired != -1 && p.candidate.Desired != -1 && !p.mixed() &&
		p.candidate.count(func(pod Pod) bool { return !pod.Gated && pod.Ready })+p.leftOver() == 0 // native logic counts them
}

// nativeIsDone: the Deployment controller has seen the latest generation, and has scaled every ReplicaSet
// that has pods with the latest N in mind.
func (p *pass) nativeIsDone() bool {
	dep := p.o.Deployment
	return dep.Current && !slices.ContainsFunc(p.o.Revisions, p.lacksN)
}

// lacksN: the ReplicaSet has pods, and the Deployment controller has not scaled it with the latest N in mind.
func (p *pass) lacksN(r Revision) bool { return r.Replicas > 0 && r.Desired != p.o.Deployment.Replicas }

// tidy deletes the empty ReplicaSets of candidates that never became stable, so that native history
// holds what was stable, and `rollout undo` always means abort or go back. Pods that are on their way out
// don't keep one: they take ten seconds and more, in which an undo would bring the superseded version back.
func (p *pass) tidy() {
	if !p.o.Deployment.Current {
		return
	}
	dead := []v1alpha1.Outcome{v1alpha1.OutcomeRolledBack, v1alpha1.OutcomeSuperseded, v1alpha1.OutcomeAborted}
	for _, r := range p.o.Revisions {
		if r.Hash == "" || r.Hash == p.s.Stable.Hash || r.Hash == p.s.Candidate.Hash || r.Template == p.o.Deployment.Template {
			continue
		}
		if r.Replicas == 0 && r.alive() == 0 && slices.Contains(dead, p.lastOutcome(r.Hash)) {
			p.d.DeleteRevisions = append(p.d.DeleteRevisions, r.Hash)
		}
	}
}
