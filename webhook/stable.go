// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// StableReplicaSet finds the stable revision of a Deployment among the ReplicaSets that it owns: the
// recorded one; without a record the one of the current template if it is complete, else the one with
// most ready pods (the older if equal). Ready is what Services go by: with a large minReadySeconds a version serves
// long before its pods count as available. Nil when no ReplicaSet qualifies. A record of another Deployment counts as none.
func StableReplicaSet(d *appsv1.Deployment, record *v1alpha1.Rollout, owned []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	if stableIsRecorded(record, d) {
		return findRevision(owned, record.Status.Stable)
	}
	if current := findTemplate(owned, d); current != nil && current.Status.AvailableReplicas >= max(1, replicasOf(d)) {
		return current
	}
	var best *appsv1.ReplicaSet
	for _, rs := range owned {
		if rs.Status.ReadyReplicas > 0 && (best == nil || moreReady(rs, best)) {
			best = rs
		}
	}
	return best
}

// servesInstead finds what an update to d's template is compared with where the recorded stable revision serves nobody:
// of the revisions that were let out and not judged to be bad, the one with most ready pods (the older if equal). So
// it is when an update comes on top of one that went out without a verdict, or was accepted, and is not complete: the
// native controller may have taken all of stable's pods away already. Nil when nothing else serves.
func servesInstead(d *appsv1.Deployment, record *v1alpha1.Rollout, owned []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	if !stableIsRecorded(record, d) {
		return nil
	}
	var best *appsv1.ReplicaSet
	for _, rs := range owned {
		letOut := rs.Status.ReadyReplicas > 0 && GateOf(rs.Annotations, TemplateDigest(rs.Spec.Template)) != v1alpha1.GateClosed
		if !letOut || failedItself(rs, &record.Status) || EqualTemplate(&rs.Spec.Template, &d.Spec.Template) {
			continue
		}
		if hashOf(rs) != record.Status.Stable.Hash && (best == nil || moreReady(rs, best)) {
			best = rs
		}
	}
	return best
}

// failedItself: the revision was rejected, and nobody has let it out since.
func failedItself(rs *appsv1.ReplicaSet, s *v1alpha1.RolloutStatus) bool {
	letOut := s.Phase == v1alpha1.PhasePromoting && s.Candidate.Hash == hashOf(rs)
	return !letOut && s.Rejected != nil && (s.Rejected.Revision == hashOf(rs) || s.Rejected.Template == TemplateDigest(rs.Spec.Template))
}

func moreReady(a, b *appsv1.ReplicaSet) bool {
	if a.Status.ReadyReplicas == b.Status.ReadyReplicas {
		return olderReplicaSet(a, b)
	}
	return a.Status.ReadyReplicas > b.Status.ReadyReplicas
}

// splitFrom is SplitFromPods where it may not be known yet what is stable: there may be pods then, but none that is ready.
func splitFrom(in *HoldInput, stable []corev1.Pod) SplitState {
	if !stableIsRecorded(in.Record, in.Old) && len(stable) == 0 {
		return SplitState{Reason: "no version of it has a ready pod", Remedy: "rollouts begin with the first update after one has"}
	}
	return SplitFromPods(stable)
}

// recordCounts: a record is only about the Deployment it was written for.
func recordCounts(record *v1alpha1.Rollout, d *appsv1.Deployment) bool {
	return record != nil && record.Status.DeploymentUID != "" && record.Status.DeploymentUID == d.UID
}

func stableIsRecorded(record *v1alpha1.Rollout, d *appsv1.Deployment) bool {
	return recordCounts(record, d) && record.Status.Stable != (v1alpha1.Revision{})
}

// findRevision looks for the hash first: digests may change when Headgate learns new fields, hashes don't.
func findRevision(owned []*appsv1.ReplicaSet, r v1alpha1.Revision) *appsv1.ReplicaSet {
	for _, rs := range owned {
		if r.Hash != "" && hashOf(rs) == r.Hash {
			return rs
		}
	}
	for _, rs := range owned {
		if r.Hash == "" && r.Template != "" && TemplateDigest(rs.Spec.Template) == r.Template {
			return rs
		}
	}
	return nil
}

// findTemplate is the ReplicaSet of d's template: the oldest, as the Deployment controller chooses.
func findTemplate(owned []*appsv1.ReplicaSet, d *appsv1.Deployment) *appsv1.ReplicaSet {
	var found *appsv1.ReplicaSet
	for _, rs := range owned {
		if EqualTemplate(&rs.Spec.Template, &d.Spec.Template) && (found == nil || olderReplicaSet(rs, found)) {
			found = rs
		}
	}
	return found
}

func olderReplicaSet(a, b *appsv1.ReplicaSet) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.Name < b.Name
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}

// wasStable says whether a revision was proven good before: the last rollout in the record's history that names it decides. Where none
// does, it was stable if it is older than the record: if it is not, it was let out and replaced before it was complete, or
// went out while the namespace was not enabled, and nobody knows whether it ever worked. One that was let out may also be older than
// what a full history reaches back to. A record that was never created is younger than everything.
func wasStable(rs *appsv1.ReplicaSet, in *HoldInput, record *v1alpha1.Rollout) bool {
	hash, history := hashOf(rs), record.Status.History
	for i := len(history) - 1; i >= 0; i-- {
		switch e := history[i]; hash {
		case e.To:
			return e.Outcome == v1alpha1.OutcomePromoted || e.Outcome == v1alpha1.OutcomeReleased
		case e.From:
			return true
		}
	}
	gate := GateOf(rs.Annotations, TemplateDigest(rs.Spec.Template))
	switch {
	case beforeAnyStable(rs, in, record), gate == v1alpha1.GateClosed: // a candidate that got nowhere
		return false
	case gate == v1alpha1.GateOpen && len(history) >= v1alpha1.MaxHistory:
		return true
	}
	return record.CreationTimestamp.IsZero() || !record.CreationTimestamp.Before(&rs.CreationTimestamp)
}

// soonRecorded is how long after its Deployment a record comes that is there from the beginning.
const soonRecorded = 10 * time.Second

// beforeAnyStable: the revision was made, for this Deployment, before the one that was its first stable revision. Such a version
// never got ready, and was mended by the next one. It can only be known where the record is there from the beginning, and
// its history is.
func beforeAnyStable(rs *appsv1.ReplicaSet, in *HoldInput, record *v1alpha1.Rollout) bool {
	made, recorded, history := in.Old.CreationTimestamp, record.CreationTimestamp, record.Status.History
	late := recorded.IsZero() || recorded.Sub(made.Time) >= soonRecorded
	if late || len(history) >= v1alpha1.MaxHistory || rs.CreationTimestamp.Before(&made) {
		return false
	}
	first := record.Status.Stable.Hash
	if len(history) > 0 {
		first = history[0].From
	}
	return slices.ContainsFunc(in.ReplicaSets, func(owned *appsv1.ReplicaSet) bool {
		return hashOf(owned) == first && rs.CreationTimestamp.Before(&owned.CreationTimestamp)
	})
}

func hashOf(rs *appsv1.ReplicaSet) string {
	return rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
}

// replicasOf is N; the API's default where it is not set.
func replicasOf(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}
