// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// emit reports what the Decision says has happened.
func (r *Reconciler) emit(w *workload, d rollout.Decision) {
	for _, e := range d.Events {
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		r.Events.Eventf(w.deployment, w.record, kind, e.Reason, "Rollout", "%s", e.Message)
	}
}

// emitUnheld reports an update that goes out without having been held: no bypass is silent. before is the
// record as it was, so that each update is reported once.
func (r *Reconciler) emitUnheld(w *workload, before *v1alpha1.RolloutStatus) {
	if why := whyUnheld(w, before); why != "" {
		r.Events.Eventf(w.deployment, w.record, corev1.EventTypeWarning, "UpdateNotHeld", "Rollout",
			"This update goes out at once, not as a rollout: %s", why)
	}
}

// whyUnheld is why a new template of a workload at rest was not held; empty when there is none, when it
// was reported before, or while no stable version is known (then it is the first one).
func whyUnheld(w *workload, before *v1alpha1.RolloutStatus) string {
	if !newAndUnheld(w.deployment, before) {
		return ""
	}
	cannot := webhook.CannotHold(w.deployment, webhook.FieldsOf(w.deployment), w.splitState())
	switch {
	case w.policy == nil:
		return "no policy selects this Deployment"
	case w.policy.Suspend:
		return "its policy is suspended"
	case w.deployment.Annotations[v1alpha1.BypassAnnotation] != "":
		return "bypassed (" + shorten(w.deployment.Annotations[v1alpha1.BypassAnnotation], 100) + ")"
	case cannot != "":
		return cannot
	case !w.stableDownSince().IsZero():
		return "no pod of the stable version was available"
	}
	return "this version was stable before"
}

// newAndUnheld: since before, at rest with a stable version, another template came that is marked as ungated.
func newAndUnheld(d *appsv1.Deployment, before *v1alpha1.RolloutStatus) bool {
	digest := webhook.TemplateDigest(d.Spec.Template)
	known := before.DeploymentUID == d.UID && before.Phase == v1alpha1.PhaseIdle && before.Stable.Template != ""
	return known && before.Stable.Template != digest && before.DeploymentGeneration < d.Generation &&
		webhook.GateOf(d.Annotations, digest) == v1alpha1.GateOpen
}
