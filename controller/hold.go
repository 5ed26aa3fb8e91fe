// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/internal/fieldowner"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// deploymentWebhook is the webhook's name in the chart's configuration. The configuration lets direct writes
// pass (its match conditions), so that a webhook that is dead does not keep the controller from ending a hold.
const deploymentWebhook = "deployments.headgate.dev"

// writeHold states the wish in the annotation; the Deployment webhook renders it into fields in that
// admission. Where the webhook does not act (the namespace lost its label, the configuration is gone) or
// does not answer (its certificate, the network), the fields are written directly.
func (r *Reconciler) writeHold(ctx context.Context, w *workload, d rollout.Decision) error {
	if d.Hold == nil {
		return nil
	}
	if w.saysAlready(d.Hold) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": w.deployment.ResourceVersion,
		"annotations":     map[string]string{v1alpha1.HoldAnnotation: d.Hold.String()},
	}})
	if err != nil {
		return fmt.Errorf("encoding the hold: %w", err)
	}
	stable := w.stableTemplate(d.Status.Stable.Hash)
	unknown := d.Hold.Release == v1alpha1.ReleaseBack && stable == nil
	admitted := w.deployment.DeepCopy()
	err = r.Client.Patch(ctx, admitted, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(fieldManager))
	if doesNotAnswer(err) && !unknown {
		r.Events.Eventf(w.deployment, w.record, corev1.EventTypeWarning, "WebhookUnavailable", "Rollout",
			"Headgate's Deployment webhook does not answer, so the rollout goes on without it: %s", shorten(err.Error(), 500))
		return r.writeDirectly(ctx, webhook.Render(w.deployment, *d.Hold, stable))
	}
	if err != nil {
		return fmt.Errorf("writing the hold: %w", err)
	}
	rendered := webhook.Render(admitted, *d.Hold, stable)
	acted := apiequality.Semantic.DeepEqual(rendered.Spec, admitted.Spec) &&
		rendered.Annotations[v1alpha1.GateAnnotation] == admitted.Annotations[v1alpha1.GateAnnotation]
	if acted || unknown {
		return nil
	}
	return r.writeDirectly(ctx, rendered)
}

// saysAlready: the annotation says it, and nothing waits in it to be rendered. Nobody renders what waits before the next
// admission, which is the controller's own write, though it says what is there already.
func (w *workload) saysAlready(h *v1alpha1.Hold) bool {
	d := w.deployment
	observed, _ := v1alpha1.ParseHold(d.Annotations[v1alpha1.HoldAnnotation])
	switch n := d.Spec.Replicas; {
	case !sameWish(observed, h):
		return false
	case h.Release != "":
		// It waits for the user to resume; at N = 0 there is nothing to wait for.
		return d.Spec.Paused && (n == nil || *n > 0)
	}
	// Another k that came while the user had paused is not in the fields: with what they have, the native controller and
	// repair would go on making and removing the same pods.
	return apiequality.Semantic.DeepEqual(webhook.FieldsOf(d), webhook.FieldsOf(webhook.Render(d, *h, nil)))
}

// doesNotAnswer: the API server could not call our webhook, and refuses what it would have to ask it. It says
// so in words only (k8s.io/apiserver, pkg/admission/plugin/webhook/errors: ToStatusErr).
func doesNotAnswer(err error) bool {
	return apierrors.IsInternalError(err) && strings.Contains(err.Error(), fmt.Sprintf("failed calling webhook %q", deploymentWebhook))
}

// sameWish: both say the same; where a hold was derived from does not matter.
func sameWish(a, b *v1alpha1.Hold) bool {
	return a != nil && b != nil && a.K == b.K && a.Template == b.Template && a.Release == b.Release &&
		apiequality.Semantic.DeepEqual(a.User, b.User)
}

// stableTemplate is the pod template of a revision; nil when unknown. Rendering takes its hash label off.
func (w *workload) stableTemplate(hash string) *corev1.PodTemplateSpec {
	rs := w.replicaSet(hash)
	if rs == nil {
		return nil
	}
	return &rs.Spec.Template
}

// writeDirectly writes the rendered fields itself and disowns them in a second write.
func (r *Reconciler) writeDirectly(ctx context.Context, rendered *appsv1.Deployment) error {
	if err := r.Client.Update(ctx, rendered, client.FieldOwner(directFieldManager)); err != nil {
		return fmt.Errorf("writing the fields directly: %w", err)
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: rendered.Namespace, Name: rendered.Name}}
	return fieldowner.Disown(ctx, r.APIReader, r.Client, d, directFieldManager, directFieldManager)
}
