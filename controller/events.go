// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// maxNote is how long the API server lets an Event's note be.
const maxNote = 1024

// emit reports what the Decision says has happened.
func (r *Reconciler) emit(w *workload, d rollout.Decision) {
	for _, e := range d.Events {
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		r.Events.Eventf(w.deployment, w.record, kind, e.Reason, "Rollout", "%s", shorten(e.Message, maxNote))
	}
}

// emitUnheld reports an update that goes out without having been held: no bypass is silent. before is the
// record as it was, so that each update is reported once, by whichever leader; until it is complete, a change of N or a pause
// is another generation, and no other update.
func (r *Reconciler) emitUnheld(w *workload, before *v1alpha1.RolloutStatus) {
	isNew := r.memory.newTemplate(client.ObjectKeyFromObject(w.deployment), webhook.TemplateDigest(w.deployment.Spec.Template))
	if why := whyUnheld(w.deployment, before); why != "" && isNew {
		r.Events.Eventf(w.deployment, w.record, corev1.EventTypeWarning, "UpdateNotHeld", "Rollout",
			"This update goes out at once, not as a rollout: %s", why)
	}
}

// whyUnheld is why a new template was not held: what the webhook said in its warning, because by now things may be
// different. Empty when there is none, when it was reported before, or while no stable version is known (then it is the
// first one).
func whyUnheld(d *appsv1.Deployment, before *v1alpha1.RolloutStatus) string {
	digest := webhook.TemplateDigest(d.Spec.Template)
	known := before.DeploymentUID == d.UID && before.Stable.Template != "" && before.DeploymentGeneration < d.Generation
	if !known || before.Stable.Template == digest || before.Candidate.Template == digest {
		return "" // what ends the hold of a candidate has an Event of its own
	}
	return webhook.WhyUnheld(d)
}
