// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/headgate/headgate/api/v1alpha1"
)

// OwnAnnotations are those that nobody but the Deployment webhook writes.
func OwnAnnotations() []string {
	return []string{v1alpha1.HoldAnnotation, v1alpha1.GateAnnotation, v1alpha1.GateTemplateAnnotation, v1alpha1.GateReasonAnnotation}
}

func dropOwnAnnotations(d *appsv1.Deployment) {
	for _, key := range OwnAnnotations() {
		dropAnnotation(d, key)
	}
}

// KeepOwnAnnotations is d with the annotations of old that only the Deployment webhook writes, and without
// those that old has not. The API server takes annotations from writes of the status too, where the hold is
// not rendered: wiping it there would release a candidate that nobody judged.
func KeepOwnAnnotations(old, d *appsv1.Deployment) *appsv1.Deployment {
	out := d.DeepCopy()
	for _, key := range OwnAnnotations() {
		if value, ok := old.Annotations[key]; ok {
			annotate(out, key, value)
			continue
		}
		dropAnnotation(out, key)
	}
	return out
}

// status answers for writes of a Deployment's status that would change Headgate's annotations.
func (e *edge) status(ctx context.Context, req admission.Request) admission.Response {
	start := e.cfg.Now()
	defer func() { e.metrics.observe("status", start, e.cfg.Now()) }()
	if req.Operation != admissionv1.Update || req.SubResource != "status" || req.Namespace == e.cfg.SystemNamespace {
		return admission.Allowed("")
	}
	var old, d appsv1.Deployment
	if err := decode(req, &old, &d); err != nil {
		log.FromContext(ctx).Error(err, "Deciding about a Deployment's status")
		return admission.Errored(http.StatusInternalServerError, fmt.Errorf("headgate could not read this write of the status, so it is refused: %w", err))
	}
	return patchResponse(&d, KeepOwnAnnotations(&old, &d)).
		WithWarnings("headgate: its annotations are written by Headgate alone; the others, and the status, are written as asked")
}
