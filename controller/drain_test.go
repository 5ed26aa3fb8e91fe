// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

// One replica, held, in its first step (or quarantined). A pod of stable was evicted hours ago and is there as Failed. Now stable's
// pod is drained: it ends, and its replacement is not scheduled yet.
func TestADrainIsNoOutageBesideAnEvictedPod(t *testing.T) {
	for name, phase := range map[string]v1alpha1.Phase{"in its first step": v1alpha1.PhaseStepping, "failed, in quarantine": v1alpha1.PhaseQuarantined} {
		t.Run(name, func(t *testing.T) {
			d := heldWeb(1)
			d.Spec.Replicas = ptr(int32(1))
			r := record()
			r.Status.Phase, r.Status.Replicas = phase, 1
			r.Status.PhaseSince, r.Status.WeightSince, r.Status.StepSince = &metav1.MicroTime{Time: at(50)}, &metav1.MicroTime{Time: at(50)}, &metav1.MicroTime{Time: at(51)}
			r.Status.Stable.Template = webhook.TemplateDigest(template("v1"))
			r.Status.Candidate.Template = webhook.TemplateDigest(template("v2"))
			r.Status.DeploymentGeneration = 3
			ready := set(corev1.PodReady, corev1.ConditionTrue, 6)
			c := cluster(t, d, r, namespace("shop", true), &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}},
				replicaSet(stableHash, "v1", 1), replicaSet(candidateHash, "v2", 1),
				podOf(stableHash, "evicted", "10.0.0.1", set(corev1.PodReady, corev1.ConditionFalse, -7200), func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }),
				podOf(stableHash, "drained", "10.0.0.2", gateOpen, ready, terminating),
				podOf(stableHash, "replacement", "", onNode(""), func(p *corev1.Pod) {
					p.Status = corev1.PodStatus{Phase: corev1.PodPending}
					p.CreationTimestamp = metaAt(100)
				}),
				podOf(candidateHash, "candidate", "10.0.0.3"),
			).Build()
			rec := reconciler(c)
			if _, err := rec.Reconcile(t.Context(), reconcile.Request{NamespacedName: webKey}); err != nil {
				t.Fatal(err)
			}
			pod := stored(t, c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "candidate"}})
			got := stored(t, c, record())
			after := stored(t, c, deployment())
			if conditionTrue(pod, v1alpha1.GateCondition) || after.Annotations[v1alpha1.HoldAnnotation] == "" {
				t.Errorf("the candidate's gate is open: %t; the hold: %q; verdict %+v", conditionTrue(pod, v1alpha1.GateCondition), after.Annotations[v1alpha1.HoldAnnotation], got.Status.Verdict)
			}
		})
	}
}
