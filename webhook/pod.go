// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// GateDecision says whether a pod starts with a closed gate.
type GateDecision struct {
	// Closed: the pod gets the readiness gate.
	Closed bool
	// Decided: the ReplicaSet carries the webhook's decision for its own template. Otherwise the answer
	// is a fallback.
	Decided bool
	// Reason says why, in a few words.
	Reason string
}

// DecideGate obeys what the pod's ReplicaSet says. Without a decision for this very template there (a
// ReplicaSet older than Headgate, or an update that slipped past the Deployment webhook) the gate is
// open for the recorded stable revision, and where nothing is recorded yet; else closed. A record of
// another Deployment than the ReplicaSet's counts as none.
func DecideGate(rs *appsv1.ReplicaSet, record *v1alpha1.Rollout) GateDecision {
	template := TemplateDigest(rs.Spec.Template)
	switch GateOf(rs.Annotations, template) {
	case v1alpha1.GateClosed:
		return GateDecision{Closed: true, Decided: true, Reason: "the update is held"}
	case v1alpha1.GateOpen:
		return GateDecision{Decided: true, Reason: "the update is not held"}
	}
	stable := recordedStable(rs, record)
	switch {
	case stable == (v1alpha1.Revision{}):
		return GateDecision{Reason: "nothing is recorded yet"}
	case stable.Hash == hashOf(rs), stable.Hash == "" && stable.Template == template:
		return GateDecision{Reason: "the stable revision"}
	}
	return GateDecision{Closed: true, Reason: "nobody decided about this revision"}
}

func recordedStable(rs *appsv1.ReplicaSet, record *v1alpha1.Rollout) v1alpha1.Revision {
	owner := metav1.GetControllerOf(rs)
	if record == nil || owner == nil || record.Status.DeploymentUID != owner.UID {
		return v1alpha1.Revision{}
	}
	return record.Status.Stable
}

// CloseGate is the pod with the readiness gate: it runs, but it is not ready before the gate's condition
// is True. It never changes its input, and a pod that has the gate stays as it is.
func CloseGate(pod *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	if !HasGate(pod) {
		out.Spec.ReadinessGates = append(out.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: v1alpha1.GateCondition})
	}
	return out
}

// HasGate says whether a pod has Headgate's readiness gate, open or closed.
func HasGate(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool {
		return g.ConditionType == v1alpha1.GateCondition
	})
}
