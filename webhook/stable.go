// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	appsv1 "k8s.io/api/apps/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// StableReplicaSet finds the stable revision of a Deployment among the ReplicaSets that it owns: the
// recorded one; without a record the one of the current template if it is complete, else the one with
// most available pods (the older if equal). Nil when no ReplicaSet qualifies. A record of another
// Deployment counts as none.
func StableReplicaSet(d *appsv1.Deployment, record *v1alpha1.Rollout, owned []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	if recordCounts(record, d) && record.Status.Stable != (v1alpha1.Revision{}) {
		return findRevision(owned, record.Status.Stable)
	}
	if current := findTemplate(owned, d); current != nil && current.Status.AvailableReplicas >= max(1, replicasOf(d)) {
		return current
	}
	var best *appsv1.ReplicaSet
	for _, rs := range owned {
		if rs.Status.AvailableReplicas == 0 {
			continue
		}
		if best == nil || rs.Status.AvailableReplicas > best.Status.AvailableReplicas ||
			rs.Status.AvailableReplicas == best.Status.AvailableReplicas && olderReplicaSet(rs, best) {
			best = rs
		}
	}
	return best
}

// recordCounts: a record is only about the Deployment it was written for.
func recordCounts(record *v1alpha1.Rollout, d *appsv1.Deployment) bool {
	return record != nil && record.Status.DeploymentUID != "" && record.Status.DeploymentUID == d.UID
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

// wasStable says whether a revision was proven good before: the last rollout in the record's history that names it decides,
// then what the webhook decided about it. Where neither knows it, it was stable if it is older than the record. If it is not, it
// went out while the namespace was not enabled, and nobody knows whether it ever worked. A record that was never created is younger
// than everything.
func wasStable(rs *appsv1.ReplicaSet, record *v1alpha1.Rollout) bool {
	hash, history := hashOf(rs), record.Status.History
	for i := len(history) - 1; i >= 0; i-- {
		switch e := history[i]; hash {
		case e.To:
			return e.Outcome == v1alpha1.OutcomePromoted || e.Outcome == v1alpha1.OutcomeReleased
		case e.From:
			return true
		}
	}
	switch GateOf(rs.Annotations, TemplateDigest(rs.Spec.Template)) {
	case v1alpha1.GateOpen:
		return true
	case v1alpha1.GateClosed: // a candidate that got nowhere
		return false
	}
	return record.CreationTimestamp.IsZero() || !record.CreationTimestamp.Before(&rs.CreationTimestamp)
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
