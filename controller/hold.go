// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// writeHold states the wish in the annotation; the Deployment webhook renders it into fields in that
// admission. Where the webhook does not act (the namespace lost its label, the configuration is gone),
// the fields are written directly.
func (r *Reconciler) writeHold(ctx context.Context, w *workload, d rollout.Decision) error {
	if d.Hold == nil {
		return nil
	}
	if observed, _ := v1alpha1.ParseHold(w.deployment.Annotations[v1alpha1.HoldAnnotation]); sameWish(observed, d.Hold) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": w.deployment.ResourceVersion,
		"annotations":     map[string]string{v1alpha1.HoldAnnotation: d.Hold.String()},
	}})
	if err != nil {
		return fmt.Errorf("encoding the hold: %w", err)
	}
	admitted := w.deployment.DeepCopy()
	if err := r.Client.Patch(ctx, admitted, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(fieldManager)); err != nil {
		return fmt.Errorf("writing the hold: %w", err)
	}
	stable := w.stableTemplate(d.Status.Stable.Hash)
	rendered := webhook.Render(admitted, *d.Hold, stable)
	acted := apiequality.Semantic.DeepEqual(rendered.Spec, admitted.Spec) &&
		rendered.Annotations[v1alpha1.GateAnnotation] == admitted.Annotations[v1alpha1.GateAnnotation]
	if acted || (d.Hold.Release == v1alpha1.ReleaseBack && stable == nil) {
		return nil
	}
	return r.writeDirectly(ctx, rendered)
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

// writeDirectly writes the rendered fields itself and disowns them in a second write: the same write
// can't, because the API server adds the entry after it.
func (r *Reconciler) writeDirectly(ctx context.Context, rendered *appsv1.Deployment) error {
	if err := r.Client.Update(ctx, rendered, client.FieldOwner(directFieldManager)); err != nil {
		return fmt.Errorf("writing the fields directly: %w", err)
	}
	kept := slices.DeleteFunc(slices.Clone(rendered.ManagedFields), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == directFieldManager
	})
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/resourceVersion", "value": rendered.ResourceVersion},
		{"op": "replace", "path": "/metadata/managedFields", "value": kept},
	})
	if err != nil {
		return fmt.Errorf("encoding managed fields: %w", err)
	}
	if err := r.Client.Patch(ctx, rendered, client.RawPatch(types.JSONPatchType, patch)); err != nil {
		return fmt.Errorf("disowning the fields: %w", err)
	}
	return nil
}
