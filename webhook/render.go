// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Render is d as it looks with hold h: the three fields, the annotations and, for ReleaseBack, the
// stable template. It is what the webhook does in an admission; the controller uses it for direct writes
// when the webhook provably can't act. While d is paused and has replicas the fields and the template stay
// as they are, and a release stays in the annotation to be rendered after the user resumed. stable is only read for
// ReleaseBack; nil leaves the template. d is not modified.
func Render(d *appsv1.Deployment, h v1alpha1.Hold, stable *corev1.PodTemplateSpec) *appsv1.Deployment {
	out := d.DeepCopy()
	switch {
	case h.Release == "":
		renderHold(out, h, !d.Spec.Paused)
	case d.Spec.Paused && replicasOf(d) > 0:
		renderWaitingRelease(out, h, stable)
	default:
		renderRelease(out, h, stable)
	}
	return out
}

// renderHold writes the hold; fields only where they may change.
func renderHold(d *appsv1.Deployment, h v1alpha1.Hold, fields bool) {
	if fields {
		setFields(d, heldFields(h.K))
	}
	annotate(d, v1alpha1.HoldAnnotation, h.String())
	setGate(d, v1alpha1.GateClosed)
}

// renderRelease ends the hold: the user's fields as he wrote them, the annotation dropped, the gate open.
func renderRelease(d *appsv1.Deployment, h v1alpha1.Hold, stable *corev1.PodTemplateSpec) {
	setFields(d, h.User)
	if h.Release == v1alpha1.ReleaseBack && stable != nil && !EqualTemplate(&d.Spec.Template, stable) {
		d.Spec.Template = *stableTemplate(stable)
	}
	dropAnnotation(d, v1alpha1.HoldAnnotation)
	setGate(d, v1alpha1.GateOpen)
}

// renderWaitingRelease notes a release that the user's pause puts off. The gate opens at once where the
// template is the one that will stay.
func renderWaitingRelease(d *appsv1.Deployment, h v1alpha1.Hold, stable *corev1.PodTemplateSpec) {
	annotate(d, v1alpha1.HoldAnnotation, h.String())
	if h.Release == v1alpha1.ReleaseBack && (stable == nil || !EqualTemplate(&d.Spec.Template, stable)) {
		setGate(d, v1alpha1.GateClosed)
		return
	}
	setGate(d, v1alpha1.GateOpen)
}

// stableTemplate is a ReplicaSet's template as the Deployment had it.
func stableTemplate(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	c := withoutHash(t)
	return c.DeepCopy()
}

// setGate writes the decision beside the template that it is about. The reason of another one goes.
func setGate(d *appsv1.Deployment, g v1alpha1.Gate) {
	template := TemplateDigest(d.Spec.Template)
	if GateOf(d.Annotations, template) != g {
		dropAnnotation(d, v1alpha1.GateReasonAnnotation)
	}
	annotate(d, v1alpha1.GateAnnotation, string(g))
	annotate(d, v1alpha1.GateTemplateAnnotation, template)
}

// maxReason is the length in bytes beyond which GateReasonAnnotation is cut.
const maxReason = 512

// setReason says beside the open gate why the update to d's template is not held. Where there is no room for a hold there
// is none for that either: NoRoomToHold is the reason then.
func setReason(d *appsv1.Deployment, why string) {
	dropAnnotation(d, v1alpha1.GateReasonAnnotation)
	if why != "" && NoRoomToHold(d) == "" {
		annotate(d, v1alpha1.GateReasonAnnotation, shorten(why, maxReason))
	}
}

// WhyUnheld is why the update to d's template went out without having been held, in the words of its admission warning;
// empty when it was held, or when nobody has decided about it.
func WhyUnheld(d *appsv1.Deployment) string {
	if gateOf(d) != v1alpha1.GateOpen {
		return ""
	}
	if why := d.Annotations[v1alpha1.GateReasonAnnotation]; why != "" {
		return why
	}
	return NoRoomToHold(d)
}

// GateOf is the decision that annotations carry for a template; empty when there is none for it.
func GateOf(annotations map[string]string, templateDigest string) v1alpha1.Gate {
	g := v1alpha1.Gate(annotations[v1alpha1.GateAnnotation])
	if annotations[v1alpha1.GateTemplateAnnotation] != templateDigest || g != v1alpha1.GateClosed && g != v1alpha1.GateOpen {
		return ""
	}
	return g
}

// gateOf is the decision that d's own annotations carry for its template.
func gateOf(d *appsv1.Deployment) v1alpha1.Gate {
	return GateOf(d.Annotations, TemplateDigest(d.Spec.Template))
}

// GateOfDeployment is the decision for d's template: d's own or, where somebody wiped d's annotations, that a ReplicaSet
// of this template was let out. The Deployment controller copies annotations there and never takes them away, and
// the Pod webhook obeys them. That one was held once says nothing: it may be there again without a decision.
func GateOfDeployment(d *appsv1.Deployment, owned []*appsv1.ReplicaSet) v1alpha1.Gate {
	template := TemplateDigest(d.Spec.Template)
	if _, ok := d.Annotations[v1alpha1.GateAnnotation]; ok {
		return GateOf(d.Annotations, template)
	}
	if rs := findTemplate(owned, d); rs != nil && GateOf(rs.Annotations, template) == v1alpha1.GateOpen {
		return v1alpha1.GateOpen
	}
	return ""
}

func annotate(d *appsv1.Deployment, key, value string) {
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[key] = value
}

func dropAnnotation(d *appsv1.Deployment, key string) {
	delete(d.Annotations, key)
	if len(d.Annotations) == 0 {
		d.Annotations = nil
	}
}
