// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// weights are percentages, come in force by acknowledgement only, and rise only towards pods that can
// take their part.
func (c *oracle) weights(before status, o rollout.Observation, d rollout.Decision) string {
	s := d.Status
	if s.Weight < 0 || s.Weight > 100 || s.WeightInForce < 0 || s.WeightInForce > 100 {
		return "a weight is not a percentage"
	}
	sameRollout := before.StartedAt.Equal(s.StartedAt) && before.Candidate.Hash == s.Candidate.Hash
	was := before.WeightInForce
	if !sameRollout {
		was = 0
	}
	acked := slices.ContainsFunc(o.Sidecars, func(sc rollout.Sidecar) bool {
		return sc.Connected && sc.Revision == s.Stable.Hash && sc.Candidate == s.Candidate.Hash && sc.Weight == s.WeightInForce
	})
	if s.WeightInForce > was && !acked {
		return "a weight is in force that no sidecar of stable has acknowledged"
	}
	if (s.Phase == v1alpha1.PhaseStepping || s.Phase == v1alpha1.PhasePaused) && s.Weight > 0 && (s.Weight > before.Weight || !sameRollout) && readyButGate(o, s.Candidate.Hash) == 0 {
		return "weight is given to a candidate without a pod that is ready"
	}
	handsOn := func(sc rollout.Sidecar) bool { return sc.Connected && sc.Revision == s.Candidate.Hash && sc.HandsOn }
	if s.Phase == v1alpha1.PhaseStepping && s.Weight > 0 && slices.ContainsFunc(o.Sidecars, handsOn) {
		return "a candidate is judged whose requests stable answers"
	}
	return ""
}

func readyButGate(o rollout.Observation, hash string) (n int) {
	for _, r := range o.Revisions {
		for _, p := range r.Pods {
			if r.Hash == hash && p.ReadyButGate {
				n++
			}
		}
	}
	return n
}

// failIsHeard: nothing but the verdict stands before weight 0, and it does not rise again.
func (c *oracle) failIsHeard(before status, o rollout.Observation, d rollout.Decision) string {
	s := d.Status
	judged := s.Phase == v1alpha1.PhaseStepping || s.Phase == v1alpha1.PhasePaused && s.ResumePhase == v1alpha1.PhaseStepping
	rescued := o.Deployment.Hold != nil && !o.StableDownSince.IsZero()
	began := s.StartedAt != nil && o.Now.Equal(s.StartedAt.Time)
	if o.Verdict.Result == v1alpha1.ResultFail && judged && s.Weight > 0 && !rescued && !began {
		return "a Fail leaves the candidate its weight"
	}
	if s.StartedAt == nil {
		return ""
	}
	over := s.Phase == v1alpha1.PhaseRollingBack || s.Phase == v1alpha1.PhaseQuarantined
	if over && c.failed == attemptOf(s) && s.Weight > before.Weight {
		return "the weight rises after a Fail"
	}
	if !over && s.Phase != v1alpha1.PhasePromoting && c.failed == attemptOf(s) {
		return "a failed rollout goes on"
	}
	if over {
		c.failed = attemptOf(s)
	}
	if over != (d.Failure != "") {
		return fmt.Sprintf("in phase %s the failure condition is %q", s.Phase, d.Failure)
	}
	return ""
}

// pauseIsKept: while the user has paused, neither k nor sizes change, and no hold ends.
func (c *oracle) pauseIsKept(before status, o rollout.Observation, d rollout.Decision) string {
	if !o.Deployment.Paused || o.Deployment.Replicas == 0 {
		return ""
	}
	if len(d.Sizes) > 0 {
		return "sizes change while paused"
	}
	h := o.Deployment.Hold
	if h == nil {
		h, _ = v1alpha1.ParseHold(before.Hold) // wiped by hand
	}
	if d.Hold == nil || h == nil {
		return ""
	}
	if d.Hold.K != h.K || (d.Hold.Release != h.Release && d.Hold.Template == h.Template) {
		return "the hold changes while paused"
	}
	return ""
}

// nothingAtZero: a hold of a workload without pods is released back.
func (c *oracle) nothingAtZero(_ status, o rollout.Observation, d rollout.Decision) string {
	if o.Deployment.Replicas > 0 || o.Deployment.Hold == nil || d.Status.Stable.Template == "" {
		return ""
	}
	if d.Hold == nil || d.Hold.Release != v1alpha1.ReleaseBack {
		return "held at N = 0"
	}
	if d.Status.Weight != 0 {
		return "weight at N = 0"
	}
	return ""
}

// fieldsAreTheUsers: in these stories the user never changes his fields, so that any other value in a
// hold would be one that Headgate rendered.
func (c *oracle) fieldsAreTheUsers(_ status, _ rollout.Observation, d rollout.Decision) string {
	if d.Hold != nil && !equality.Semantic.DeepEqual(d.Hold.User, userFields()) {
		return "the hold forgets the user's fields"
	}
	return ""
}

// stableIsSafe: stable is never told to be smaller than N, and no pod that serves is scaled away.
func (c *oracle) stableIsSafe(_ status, o rollout.Observation, d rollout.Decision) string {
	for _, size := range d.Sizes {
		if size.Revision == d.Status.Stable.Hash && size.Replicas != o.Deployment.Replicas {
			return "stable gets another size than N"
		}
		for _, r := range o.Revisions {
			serving := int32(0)
			for _, p := range r.Pods {
				if p.Ready {
					serving++
				}
			}
			third := r.Hash != d.Status.Stable.Hash && r.Hash != d.Status.Candidate.Hash
			if r.Hash == size.Revision && third && size.Replicas < serving {
				return "pods that serve are scaled away"
			}
		}
	}
	if slices.Contains(d.DeleteRevisions, d.Status.Stable.Hash) || slices.Contains(d.DeleteRevisions, d.Status.Candidate.Hash) {
		return "a revision in use is deleted"
	}
	for _, hash := range d.OpenGates {
		if slices.Contains(d.CloseGates, hash) {
			return "gates are to be open and closed"
		}
	}
	return ""
}

// wishesAreAboutThisRollout: what was wished for a rollout promotes no later one of the same version.
func (c *oracle) wishesAreAboutThisRollout(before status, o rollout.Observation, d rollout.Decision) string {
	if before.DeploymentUID != o.Deployment.UID {
		c.wished = attempt{} // the record and its wishes are those of another Deployment
	}
	if w := o.Wishes.Promote; !equality.Semantic.DeepEqual(w, c.promote) {
		c.promote, c.wished = w, attempt{}
		if w != nil && w.Revision == before.Candidate.Hash {
			c.wished = attemptOf(before)
		}
	}
	asked := slices.ContainsFunc(d.Events, func(e rollout.Event) bool { return e.Reason == "PromotedByUser" })
	if asked && c.wished != (attempt{}) && c.wished != attemptOf(d.Status) {
		return "a wish about an earlier rollout promotes this one"
	}
	return ""
}

// fixedPoint: the same observation again wants the same and reports nothing again.
func (c *oracle) fixedPoint(_ status, o rollout.Observation, d rollout.Decision) string {
	again := rollout.Decide(c.w.policy, d.Status, o)
	if len(again.Events) > 0 {
		return fmt.Sprintf("an event is repeated: %v", again.Events)
	}
	return differs("decided again", d, again)
}

// restart: what a record holds is all that a new process needs.
func (c *oracle) restart(before status, o rollout.Observation, d rollout.Decision) string {
	text, err := json.Marshal(before)
	if err != nil {
		return err.Error()
	}
	var read status
	if err := json.Unmarshal(text, &read); err != nil {
		return err.Error()
	}
	return differs("decided from the stored record", d, rollout.Decide(c.w.policy, read, o))
}

// staleRead: a Deployment older than the one decided about changes nothing.
func (c *oracle) staleRead(_ status, o rollout.Observation, d rollout.Decision) string {
	o.Deployment.Generation--
	stale := rollout.Decide(c.w.policy, d.Status, o)
	want := rollout.Decision{Status: d.Status, Failure: d.Failure, Requeue: stale.Requeue, Reason: stale.Reason}
	return differs("decided from a stale cache", want, stale)
}

// otherUID: a record of another Deployment is as good as none.
func (c *oracle) otherUID(_ status, o rollout.Observation, d rollout.Decision) string {
	o.Deployment.UID = "another"
	return differs("decided for another Deployment", rollout.Decide(c.w.policy, status{}, o), rollout.Decide(c.w.policy, d.Status, o))
}

// differs compares all that two Decisions want; events are left out.
func differs(what string, a, b rollout.Decision) string {
	a.Events, b.Events = nil, nil
	if equality.Semantic.DeepEqual(a, b) {
		return ""
	}
	return fmt.Sprintf("%s, it wants something else:\n%+v\n%+v", what, a, b)
}
