// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package webhook

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/api/v1alpha1"
)

// deployment is a manifest as a user writes it: no strategy, and no node that its pods would fit.
func (r *realCluster) deployment(name, version string) *appsv1.Deployment {
	t := template(version)
	t.Labels["app"] = name
	t.Spec.NodeSelector = map[string]string{"headgate.test/none": "true"}
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: name},
		Spec:       appsv1.DeploymentSpec{Replicas: ptr[int32](4), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: t},
	}
}

func (r *realCluster) pods(app string) []corev1.Pod {
	r.Helper()
	var list corev1.PodList
	r.must(r.user.List(r.Context(), &list, client.InNamespace(r.namespace), client.MatchingLabels{"app": app}))
	return list.Items
}

func (r *realCluster) get(name string) *appsv1.Deployment {
	r.Helper()
	var d appsv1.Deployment
	r.must(r.user.Get(r.Context(), types.NamespacedName{Namespace: r.namespace, Name: name}, &d))
	return &d
}

func (r *realCluster) apply(d *appsv1.Deployment, opts ...client.PatchOption) error {
	b, err := yaml.Marshal(d)
	if err != nil {
		return err
	}
	b, err = yaml.YAMLToJSON(bytes.ReplaceAll(b, []byte("status: {}\n"), nil))
	if err != nil {
		return err
	}
	opts = append(opts, client.FieldOwner("helm"))
	return r.user.Patch(r.Context(), d.DeepCopy(), client.RawPatch(types.ApplyPatchType, b), opts...)
}

// wish is the controller's write of the annotation.
func (r *realCluster) wish(name string, edit func(*v1alpha1.Hold)) {
	r.Helper()
	r.eventually("the controller's write finds the object as it was read", func() bool {
		d := r.get(name)
		h := holdOf(r.T, d)
		edit(&h)
		patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q,"annotations":{%q:%q}}}`, d.ResourceVersion, v1alpha1.HoldAnnotation, h.String())
		err := r.controller.Patch(r.Context(), d, client.RawPatch(types.MergePatchType, []byte(patch)), client.FieldOwner("headgate"))
		if !apierrors.IsConflict(err) {
			r.must(err)
		}
		return err == nil
	})
}

// revisions counts pods and closed gates by image tag.
func (r *realCluster) revisions(app string) string {
	count, gates := map[string]int{}, map[string]int{}
	for _, p := range r.pods(app) {
		if p.DeletionTimestamp != nil {
			continue
		}
		for _, c := range p.Spec.Containers {
			tag := strings.TrimPrefix(c.Image, "web:")
			count[tag]++
			if HasGate(&p) {
				gates[tag]++
			}
		}
	}
	var out []string
	for _, tag := range []string{"v1", "v2", "v3"} {
		if count[tag] > 0 {
			out = append(out, fmt.Sprintf("%s %d gated %d", tag, count[tag], gates[tag]))
		}
	}
	return strings.Join(out, ", ")
}

// TestAnUpdateOnARealCluster follows one workload through a held update, on a real API server with the
// real Deployment controller.
func TestAnUpdateOnARealCluster(t *testing.T) {
	r := startReal(t)
	r.must(r.apply(r.deployment("web", "v1")))
	r.eventually("v1 has its pods", func() bool { return r.revisions("web") == "v1 4 gated 0" })
	r.serveRequests("web")
	r.recordStable()

	if err := r.apply(r.deployment("web", "v2"), client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	if got := r.get("web").Annotations[v1alpha1.HoldAnnotation]; got != "" {
		t.Errorf("a dry run left a hold: %s", got)
	}
	r.warnings = nil
	r.must(r.apply(r.deployment("web", "v2")))
	if len(r.warnings) != 1 || !strings.Contains(r.warnings[0], "held as a canary rollout") {
		t.Errorf("warnings: %q", r.warnings)
	}
	if f := FieldsOf(r.get("web")); !equalFields(f, heldFields(1)) {
		t.Errorf("fields of the held Deployment: %+v", f)
	}
	r.eventually("one gated candidate beside all of stable", func() bool { return r.revisions("web") == "v1 4 gated 0, v2 1 gated 1" })

	r.wish("web", func(h *v1alpha1.Hold) { h.K = 3 })
	r.eventually("three gated candidates", func() bool { return r.revisions("web") == "v1 4 gated 0, v2 3 gated 3" })
	if err := r.apply(r.deployment("web", "v2")); err != nil {
		t.Errorf("the same manifest, applied again mid-rollout by its owner: %v", err)
	}
	r.mayNot(`{"metadata":{"annotations":{"headgate.dev/hold":null,"headgate.dev/gate":null,"headgate.dev/gate-template":null}}}`)
	r.mayNot(`{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}`)
	if got := holdOf(t, r.get("web")).User.StrategyType; got != "Recreate" {
		t.Errorf("noted strategy: %s", got)
	}
	r.mayNot(`{"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"50%","maxUnavailable":2}}}}`)

	r.undo()
	r.eventually("the candidate is gone", func() bool { return r.revisions("web") == "v1 4 gated 0" })
	want := v1alpha1.UserFields{StrategyType: "RollingUpdate", MaxSurge: ptr(intstr.FromString("50%")), MaxUnavailable: ptr(intstr.FromInt32(2)), ProgressDeadlineSeconds: ptr[int32](600)}
	if d := r.get("web"); !equalFields(FieldsOf(d), want) || d.Annotations[v1alpha1.HoldAnnotation] != "" || gateOf(d) != open {
		t.Errorf("after the undo: fields %+v, annotations %v", FieldsOf(d), d.Annotations)
	}

	// The undo owns the image now, as it does without Headgate.
	r.must(r.apply(r.deployment("web", "v3"), client.ForceOwnership))
	r.eventually("v3 is held", func() bool { return r.revisions("web") == "v1 4 gated 0, v3 1 gated 1" })
	r.wish("web", func(h *v1alpha1.Hold) { h.Release = v1alpha1.ReleaseForward })
	if d := r.get("web"); !equalFields(FieldsOf(d), want) || d.Annotations[v1alpha1.HoldAnnotation] != "" || gateOf(d) != open {
		t.Errorf("after the release: fields %+v, annotations %v", FieldsOf(d), d.Annotations)
	}
	r.eventually("new pods of v3 have no gate", func() bool {
		return strings.Contains(r.revisions("web"), "v3 4 gated 1")
	})
}

// serveRequests makes the pods that are there ready, sidecars included, as the kubelet would.
func (r *realCluster) serveRequests(app string) {
	r.Helper()
	for _, p := range r.pods(app) {
		if p.Labels[v1alpha1.InjectedLabel] != "true" || p.Annotations[v1alpha1.InjectionAnnotation] == "" {
			r.Fatalf("pod %s is not injected: %v", p.Name, p.Annotations)
		}
		patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True"}],"initContainerStatuses":[{"name":%q,"ready":true,"image":"","imageID":"","restartCount":0}]}}`, v1alpha1.ProxyContainer)
		r.must(r.user.Status().Patch(r.Context(), &p, client.RawPatch(types.StrategicMergePatchType, []byte(patch))))
	}
	r.eventually("stable is available", func() bool { return r.get(app).Status.AvailableReplicas == 4 })
}

// recordStable writes the record, as the controller does when the first version is complete.
func (r *realCluster) recordStable() {
	r.Helper()
	var sets appsv1.ReplicaSetList
	r.must(r.user.List(r.Context(), &sets, client.InNamespace(r.namespace), client.MatchingLabels{"app": "web"}))
	ro := &v1alpha1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "web"}}
	r.create(ro)
	ro.Status = v1alpha1.RolloutStatus{DeploymentUID: r.get("web").UID, Phase: v1alpha1.PhaseIdle,
		Stable: v1alpha1.Revision{Hash: hashOf(&sets.Items[0]), Template: TemplateDigest(sets.Items[0].Spec.Template)}}
	r.must(r.user.Status().Update(r.Context(), ro))
}

// mayNot writes a patch that must not change what the hold has rendered.
func (r *realCluster) mayNot(patch string) {
	r.Helper()
	d := r.get("web")
	before := holdOf(r.T, d)
	r.must(r.user.Patch(r.Context(), d, client.RawPatch(types.StrategicMergePatchType, []byte(patch))))
	if !equalFields(FieldsOf(d), heldFields(before.K)) || holdOf(r.T, d).K != before.K || gateOf(d) != closed {
		r.Errorf("after %s: fields %+v, annotations %v", patch, FieldsOf(d), d.Annotations)
	}
}

// undo does what kubectl rollout undo does: the template and the annotations of the ReplicaSet before.
func (r *realCluster) undo() {
	r.Helper()
	var sets appsv1.ReplicaSetList
	r.must(r.user.List(r.Context(), &sets, client.InNamespace(r.namespace), client.MatchingLabels{"app": "web"}))
	d := r.get("web")
	for i := range sets.Items {
		if !EqualTemplate(&sets.Items[i].Spec.Template, &d.Spec.Template) {
			setTemplateOf(&sets.Items[i])(d)
			r.must(r.user.Update(r.Context(), d))
			return
		}
	}
	r.Fatal("no ReplicaSet to go back to")
}
