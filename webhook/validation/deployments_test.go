// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package validation

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	k8sappsv1 "k8s.io/kubernetes/pkg/apis/apps/v1"
	registry "k8s.io/kubernetes/pkg/registry/apps/deployment"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

func TestAdmittedDeployments(t *testing.T) {
	const histories = 1000
	if n := random(t, histories, func(c choices) bool { return checkDeployment(t, c) }); n < histories/10 {
		t.Errorf("only %d of %d Deployments were held: that says little", n, histories)
	}
}

func FuzzAdmittedDeployments(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, text []byte) { checkDeployment(t, text) })
}

// checkDeployment writes to one Deployment again and again, as a user and as the controller: the API server accepts
// what the webhook makes of it. The controller's own writes, the end of a hold among them, are accepted always; a
// user's are refused only where he asks for fields that the API refuses, or fills all the room for annotations while
// there is a hold, with the API's own message.
func checkDeployment(t *testing.T, c choices) (held bool) {
	t.Helper()
	stored := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid", ResourceVersion: "1", Labels: map[string]string{"app": "web"}}}
	stored.Spec.Selector = &metav1.LabelSelector{MatchLabels: stored.Labels}
	stored.Spec.Template = version("v1")
	c.edit(stored)
	legacyscheme.Scheme.Default(stored)
	if len(refused(t, nil, stored)) > 0 {
		return false
	}
	stable := &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Template: stored.Spec.Template}}
	stable.Labels = map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: "h1"}
	record := &v1alpha1.Rollout{Status: v1alpha1.RolloutStatus{
		DeploymentUID: stored.UID, Stable: v1alpha1.Revision{Hash: "h1", Template: webhook.TemplateDigest(stored.Spec.Template)},
	}}
	for range 8 {
		in := webhook.HoldInput{
			Old: stored, New: stored.DeepCopy(), Policy: oneOf(&c, &v1alpha1.RolloutPolicySpec{}, &v1alpha1.RolloutPolicySpec{}, nil), Record: record,
			ReplicaSets: []*appsv1.ReplicaSet{stable}, Split: webhook.SplitState{Possible: true}, Now: time.Unix(1e9, 0),
		}
		if in.ByController = c.rarely(3) && c.wish(in.New); !in.ByController {
			c.edit(in.New)
		}
		legacyscheme.Scheme.Default(in.New)
		if len(refused(t, stored, in.New)) > 0 {
			continue
		}
		d := webhook.DecideHold(in)
		held = held || d.Action == webhook.ActionHold
		legacyscheme.Scheme.Default(d.Deployment)
		switch errs := refused(t, stored, d.Deployment); {
		case len(errs) == 0:
			stored = d.Deployment
			stored.ResourceVersion += "1"
		case !in.ByController && d.Reason == "the API server will refuse the fields":
		case !in.ByController && errs[0].Type == field.ErrorTypeTooLong && d.Deployment.Annotations[v1alpha1.HoldAnnotation] != "":
		default:
			t.Fatalf("by the controller %v, row %s, %s (%s): %v", in.ByController, d.Row, d.Action, d.Reason, errs.ToAggregate())
		}
	}
	return held
}

func version(image string) (t corev1.PodTemplateSpec) {
	t.Labels = map[string]string{"app": "web"}
	t.Spec.Containers = []corev1.Container{{Name: "app", Image: image, Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}}
	return t
}

// edit is what a user writes.
func (c *choices) edit(d *appsv1.Deployment) {
	number := func() *intstr.IntOrString {
		return oneOf(c, nil, new(intstr.FromInt32(1)), new(intstr.FromInt32(0)), new(intstr.FromString("25%")), new(intstr.FromString("0%")), new(intstr.FromString("101%")), new(intstr.FromInt32(1<<31-1)))
	}
	switch c.pick(8) {
	case 0:
		d.Spec.Template.Spec.Containers[0].Image = oneOf(c, "v2", "v1", "v3")
	case 1:
		d.Spec.Strategy = appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: number(), MaxUnavailable: number()}}
	case 2:
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	case 3:
		d.Spec.ProgressDeadlineSeconds = oneOf(c, nil, new(int32(60)), new(int32(1)), new(int32(1<<31-1)), new(int32(1<<31-2)))
	case 4:
		// One more, which the API accepts with a deadline of 1<<31-1, leaves no deadline for a hold. It is 68 years.
		d.Spec.MinReadySeconds = oneOf(c, int32(0), 30, 599, 600, 1<<31-3)
	case 5:
		d.Spec.Paused = !d.Spec.Paused
	case 6:
		d.Spec.Replicas = oneOf(c, nil, new(int32(0)), new(int32(10)), new(int32(1<<31-1)))
	case 7:
		d.Annotations = oneOf(c, nil, map[string]string{"big": string(make([]byte, 256<<10-3-oneOf(c, 0, 1, 500, 5000)))})
	}
}

// wish is what the controller writes: another k, or the end of the hold; false where there is none.
func (c *choices) wish(d *appsv1.Deployment) bool {
	h, err := v1alpha1.ParseHold(d.Annotations[v1alpha1.HoldAnnotation])
	if err != nil || h == nil {
		return false
	}
	h.K = oneOf(c, int32(1), 3, 1<<31-1)
	h.Release = oneOf(c, "", v1alpha1.ReleaseForward, v1alpha1.ReleaseBack)
	d.Annotations[v1alpha1.HoldAnnotation] = h.String()
	return true
}

// refused says why the API server would not store d in place of old, or create it.
func refused(t *testing.T, old, d *appsv1.Deployment) field.ErrorList {
	t.Helper()
	internal := func(d *appsv1.Deployment) *apps.Deployment {
		var out apps.Deployment
		if err := k8sappsv1.Convert_v1_Deployment_To_apps_Deployment(d.DeepCopy(), &out, nil); err != nil {
			t.Fatal(err)
		}
		return &out
	}
	if old == nil {
		return registry.Strategy.Validate(t.Context(), internal(d))
	}
	before, after := internal(old), internal(d)
	registry.Strategy.PrepareForUpdate(t.Context(), after, before)
	return registry.Strategy.ValidateUpdate(t.Context(), after, before)
}
