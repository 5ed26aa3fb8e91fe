// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

func TestObservedDeployment(t *testing.T) {
	template := webhook.TemplateDigest(deployment().Spec.Template)
	base := rollout.Deployment{UID: "d-uid", Generation: 3, Replicas: 4, Template: template, User: userFields()}
	but := func(change func(*rollout.Deployment)) rollout.Deployment {
		d := base
		change(&d)
		return d
	}
	done := appsv1.DeploymentStatus{ObservedGeneration: 3, Replicas: 4, UpdatedReplicas: 4, AvailableReplicas: 4}
	status := func(change func(*appsv1.DeploymentStatus)) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) {
			d.Status = done
			change(&d.Status)
		}
	}
	annotated := func(key, value string) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) { d.Annotations = map[string]string{key: value} }
	}
	current := but(func(d *rollout.Deployment) { d.Current = true })
	hold := holdOn(deployment(), 2)
	for name, tc := range map[string]struct {
		change func(*appsv1.Deployment)
		want   rollout.Deployment
	}{
		"not seen yet by its controller": {status(func(s *appsv1.DeploymentStatus) { s.ObservedGeneration = 2 }), base},
		"complete": {status(func(*appsv1.DeploymentStatus) {}), but(func(d *rollout.Deployment) {
			d.Current, d.Complete = true, true
		})},
		"old pods are left":             {status(func(s *appsv1.DeploymentStatus) { s.Replicas = 5 }), current},
		"some pods are not updated":     {status(func(s *appsv1.DeploymentStatus) { s.UpdatedReplicas = 3 }), current},
		"some pods are not available":   {status(func(s *appsv1.DeploymentStatus) { s.AvailableReplicas = 3 }), current},
		"a hold":                        {annotated(v1alpha1.HoldAnnotation, hold.String()), but(func(d *rollout.Deployment) { d.Hold = &hold })},
		"a hold that is no JSON":        {annotated(v1alpha1.HoldAnnotation, "{"), base},
		"a hold for no pods":            {annotated(v1alpha1.HoldAnnotation, `{"k":0}`), base},
		"a gate for another template":   {func(d *appsv1.Deployment) { d.Annotations = gates("closed", "other") }, base},
		"a gate for this template":      {func(d *appsv1.Deployment) { d.Annotations = gates("closed", template) }, but(func(d *rollout.Deployment) { d.Gate = v1alpha1.GateClosed })},
		"a bypass is named by a digest": {annotated(v1alpha1.BypassAnnotation, "incident 7"), but(func(d *rollout.Deployment) { d.Bypass = webhook.BypassDigest("incident 7") })},
		"a failure that Headgate shows": {func(d *appsv1.Deployment) {
			d.Status.Conditions = []appsv1.DeploymentCondition{failureCondition("headgate: rolled back (ErrorRate): too many")}
		}, but(func(d *rollout.Deployment) { d.FailureShown = "headgate: rolled back (ErrorRate): too many" })},
		"a failure of its own": {func(d *appsv1.Deployment) {
			d.Status.Conditions = []appsv1.DeploymentCondition{failureCondition("timed out progressing")}
		}, base},
		"paused, N not written": {func(d *appsv1.Deployment) { d.Spec.Paused, d.Spec.Replicas = true, nil }, but(func(d *rollout.Deployment) {
			d.Paused, d.Replicas = true, 1
		})},
	} {
		t.Run(name, func(t *testing.T) {
			d := deployment()
			tc.change(d)
			if diff := cmp.Diff(tc.want, observeDeployment(d, nil)); diff != "" {
				t.Errorf("deployment (-want +got):\n%s", diff)
			}
		})
	}
}

func failureCondition(message string) appsv1.DeploymentCondition {
	return appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: v1alpha1.ReasonDeadlineExceeded, Message: message}
}

func gates(gate, template string) map[string]string {
	return map[string]string{v1alpha1.GateAnnotation: gate, v1alpha1.GateTemplateAnnotation: template}
}

func TestObservedRevision(t *testing.T) {
	digest := webhook.TemplateDigest(template("v2"))
	for name, tc := range map[string]struct {
		change func(*appsv1.ReplicaSet)
		want   rollout.Revision
	}{
		"the digest is the Deployment's, without the hash": {func(*appsv1.ReplicaSet) {}, rollout.Revision{Hash: candidateHash, Template: digest, Replicas: 2, Desired: 4}},
		"without a note of N":                              {func(rs *appsv1.ReplicaSet) { rs.Annotations = nil }, rollout.Revision{Hash: candidateHash, Template: digest, Replicas: 2, Desired: -1}},
		"a note of N that is no number counts as none":     {func(rs *appsv1.ReplicaSet) { rs.Annotations[desiredAnnotation] = "many" }, rollout.Revision{Hash: candidateHash, Template: digest, Replicas: 2, Desired: -1}},
		"pods that can't be created": {func(rs *appsv1.ReplicaSet) {
			rs.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Message: "quota", LastTransitionTime: metaAt(8)}}
		}, rollout.Revision{Hash: candidateHash, Template: digest, Replicas: 2, Desired: 4, CreateFailure: "quota", CreateFailureSince: at(8)}},
		"pods that can be created again": {func(rs *appsv1.ReplicaSet) {
			rs.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionFalse, Message: "quota"}}
		}, rollout.Revision{Hash: candidateHash, Template: digest, Replicas: 2, Desired: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			rs := replicaSet(candidateHash, "v2", 2)
			tc.change(rs)
			if d := cmp.Diff(tc.want, (&workload{}).observeRevision(rs)); d != "" {
				t.Errorf("revision (-want +got):\n%s", d)
			}
		})
	}
}

func podsOf(hash string, pods ...*corev1.Pod) map[string][]*corev1.Pod {
	return map[string][]*corev1.Pod{hash: pods}
}

func TestConcerned(t *testing.T) {
	waiting := func(n int32) *appsv1.ReplicaSet {
		rs := replicaSet(candidateHash, "v2", n)
		rs.Annotations[v1alpha1.GateAnnotation] = string(v1alpha1.GateClosed)
		return rs
	}
	held := deployment()
	held.Annotations = map[string]string{v1alpha1.HoldAnnotation: "{"}
	idle := record()
	idle.Status.Phase = v1alpha1.PhaseIdle
	holding := idle.DeepCopy()
	holding.Status.Hold = "{}"
	wiped := deployment()
	wiped.Spec.ProgressDeadlineSeconds = ptr(v1alpha1.HeldProgressDeadlineSeconds)
	for name, tc := range map[string]struct {
		w    workload
		want bool
	}{
		"a policy selects it":                   {workload{deployment: deployment(), policy: &v1alpha1.RolloutPolicySpec{}}, true},
		"no policy, nothing left of one":        {workload{deployment: deployment()}, false},
		"no policy, at rest":                    {workload{deployment: deployment(), record: idle}, false},
		"no policy, a record that says nothing": {workload{deployment: deployment(), record: &v1alpha1.Rollout{}}, false},
		"no policy, a rollout under way":        {workload{deployment: deployment(), record: record()}, true},
		"no policy, a hold, even an unreadable": {workload{deployment: held}, true},
		"no policy, a hold's fields":            {workload{deployment: wiped, record: holding}, true},
		"no policy, a hold that is over":        {workload{deployment: deployment(), record: holding}, false},
		"no policy, a candidate is left over":   {workload{deployment: deployment(), replicaSets: []*appsv1.ReplicaSet{waiting(1)}}, true},
		"no policy, gated pods of no hold":      {workload{deployment: deployment(), replicaSets: []*appsv1.ReplicaSet{replicaSet(candidateHash, "v2", 1)}, pods: podsOf(candidateHash, podOf(candidateHash, "n", "10.0.0.9"))}, true},
		"no policy, their gates are open":       {workload{deployment: deployment(), replicaSets: []*appsv1.ReplicaSet{replicaSet(candidateHash, "v2", 1)}, pods: podsOf(candidateHash, podOf(candidateHash, "n", "10.0.0.9", gateOpen))}, false},
		"no policy, nothing of a candidate":     {workload{deployment: deployment(), replicaSets: []*appsv1.ReplicaSet{waiting(0), replicaSet(stableHash, "v1", 4)}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.w.concerned(); got != tc.want {
				t.Errorf("concerned is %t, want %t", got, tc.want)
			}
		})
	}
}

func TestGatheredPolicy(t *testing.T) {
	own := func(value string) client.Object {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "headgate-system", Name: "headgate", Annotations: map[string]string{v1alpha1.ReleaseAnnotation: value}}}
	}
	policy := &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
	elsewhere := &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "bank", Name: "p"}}
	everywhere := &v1alpha1.ClusterRolloutPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	for name, tc := range map[string]struct {
		objects       []client.Object
		selected, off bool
	}{
		"one in the namespace":                     {objects: []client.Object{namespace("shop", true), policy}, selected: true},
		"the cluster's":                            {objects: []client.Object{namespace("shop", true), everywhere}, selected: true},
		"one of another namespace":                 {objects: []client.Object{namespace("shop", true), elsewhere}},
		"the namespace is not enabled":             {objects: []client.Object{namespace("shop", false), policy, everywhere}},
		"none counts while everything is released": {objects: []client.Object{namespace("shop", true), policy, own("true")}, off: true},
		"a release that was called off":            {objects: []client.Object{namespace("shop", true), policy, own("false")}, selected: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := reconciler(cluster(t, append(tc.objects, deployment())...).Build())
			w, err := r.gather(t.Context(), webKey)
			if err != nil {
				t.Fatal(err)
			}
			if got := w.policy != nil; got != tc.selected {
				t.Errorf("selected is %t, want %t", got, tc.selected)
			}
			if got := r.releasing(t.Context()); got != tc.off {
				t.Errorf("releasing is %t, want %t", got, tc.off)
			}
			// Uninstalled, holds end at once; a policy that is gone may come back.
			if since := r.completeObservation(t.Context(), w, webKey).PolicyGoneSince; since.IsZero() != (tc.selected || tc.off) {
				t.Errorf("the policy is gone since %s", since)
			}
		})
	}
}

func TestGatheredWorld(t *testing.T) {
	stranger := replicaSet("ccc", "v2", 1)
	stranger.OwnerReferences = owned("Deployment", "other", "other-uid")
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web"}
	r := reconciler(cluster(t, namespace("shop", true), deployment(), record(), hpa, stranger,
		replicaSet(stableHash, "v1", 4), replicaSet(candidateHash, "v2", 1),
		node("n1", corev1.ConditionTrue), node("n2", corev1.ConditionUnknown),
		podOf(stableHash, "s1", "10.0.0.1"), podOf(candidateHash, "c1", "10.0.0.2", onNode("n2")),
		podOf(candidateHash, "c2", "10.0.0.3", onNode("deleted")), podOf(candidateHash, "c3", "", onNode("")),
	).Build())
	w, err := r.gather(t.Context(), webKey)
	if err != nil {
		t.Fatal(err)
	}
	o := w.observe(at(100))
	type pod struct {
		Name string
		Node bool
	}
	got := map[string][]pod{}
	for _, rev := range o.Revisions {
		for _, p := range rev.Pods {
			got[rev.Hash] = append(got[rev.Hash], pod{p.Name, p.NodeReady})
		}
	}
	want := map[string][]pod{stableHash: {{"s1", true}}, candidateHash: {{"c1", false}, {"c2", false}, {"c3", true}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("pods by revision, with their node (-want +got):\n%s", d)
	}
	if len(o.Revisions) != 2 || !o.Autoscaled || !o.Now.Equal(at(100)) {
		t.Errorf("%d revisions (want 2), autoscaled %t (want true), now %s", len(o.Revisions), o.Autoscaled, o.Now.Format(time.TimeOnly))
	}
	gone, err := r.gather(t.Context(), client.ObjectKey{Namespace: "shop", Name: "gone"})
	if gone != nil || err != nil {
		t.Errorf("a Deployment that is gone gives %v, %v; want nothing", gone, err)
	}
}

func TestStableWithoutPodsIsDownSinceThen(t *testing.T) {
	stable := replicaSet(stableHash, "v1", 4)
	for name, tc := range map[string]struct {
		objects []client.Object
		gone    bool
	}{
		"a pod that is not ready says since when by itself": {objects: []client.Object{stable, podOf(stableHash, "s1", "10.0.0.1")}},
		"all are being deleted":                             {objects: []client.Object{stable, podOf(stableHash, "s1", "10.0.0.1", terminating)}, gone: true},
		"none can be made":                                  {objects: []client.Object{stable}, gone: true},
		"the ReplicaSet was deleted":                        {gone: true},
		"the ReplicaSet was deleted, its pods serve":        {objects: []client.Object{podOf(stableHash, "s1", "10.0.0.1", orphan, set(corev1.PodReady, corev1.ConditionTrue, 5))}},
		"the ReplicaSet was deleted, its pods are deleted":  {objects: []client.Object{podOf(stableHash, "s1", "10.0.0.1", orphan, terminating)}, gone: true},
		"another ReplicaSet has adopted the pod":            {objects: []client.Object{stable, podOf(stableHash, "s1", "10.0.0.1", madeFor(candidateHash))}, gone: true},
		"it was made for this one":                          {objects: []client.Object{stable, podOf(stableHash, "s1", "10.0.0.1", madeFor(stableHash))}},
	} {
		t.Run(name, func(t *testing.T) {
			r, w, _ := worldOf(t, append(tc.objects, deployment(), record())...)
			if got := w.stableGone(); got != tc.gone {
				t.Errorf("gone: %t, want %t", got, tc.gone)
			}
			first := r.completeObservation(t.Context(), w, webKey).StableDownSince
			r.Now = func() time.Time { return at(1000) }
			if again := r.completeObservation(t.Context(), w, webKey).StableDownSince; tc.gone && (first.IsZero() || !again.Equal(first)) {
				t.Errorf("down since %v, a moment later since %v, want the first", first, again)
			}
		})
	}
}

func orphan(pod *corev1.Pod) { pod.OwnerReferences = nil }

func madeFor(hash string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.GenerateName = "web-" + hash + "-" }
}

// A candidate's pod that somebody has relabelled is adopted by stable's ReplicaSet, and stays closed.
func TestARelabelledPodIsNotStables(t *testing.T) {
	_, w, _ := worldOf(t, replicaSet(stableHash, "v1", 4), podOf(stableHash, "s1", "10.0.0.1", madeFor(stableHash)),
		podOf(stableHash, "c1", "10.0.0.2", madeFor(candidateHash)), deployment(), record())
	if pods := w.pods[stableHash]; len(pods) != 1 || pods[0].Name != "s1" {
		t.Errorf("stable has %d pods, want s1 alone", len(pods))
	}
}

func TestNoHoldWithoutRoomForIt(t *testing.T) {
	r, w, _ := worldOf(t, replicaSet(stableHash, "v1", 4), podOf(stableHash, "s1", "10.0.0.1"), deployment(), record())
	if why := r.completeObservation(t.Context(), w, webKey).NoSplit; why != "" {
		t.Fatalf("requests can't be split: %s", why)
	}
	w.deployment.Annotations = map[string]string{"big": strings.Repeat("x", 256<<10-100)}
	if why := r.completeObservation(t.Context(), w, webKey).NoSplit; !strings.Contains(why, "annotations leave no room") {
		t.Errorf("%q, want that there is no room", why)
	}
}

// A namespace's policy is deleted and created again, as kubectl replace --force does it, beside one of the cluster. A rollout that
// begins in between would be judged by the cluster's to its end, and lose its approvals.
func TestAPolicyThatComesBackIsWaitedFor(t *testing.T) {
	own := &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	c := cluster(t, namespace("shop", true), deployment(), &v1alpha1.ClusterRolloutPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default"}}).Build()
	r := reconciler(c)
	r.Deleted = &webhook.DeletedPolicies{}
	r.Deleted.Deleted(own, at(90))
	for seconds, want := range map[int]bool{100: false, 119: false, 120: true} {
		r.Now = func() time.Time { return at(seconds) }
		w, err := r.gather(t.Context(), webKey)
		if err != nil {
			t.Fatal(err)
		}
		if seen := w.policy != nil; seen != want {
			t.Errorf("%d s after the policy was deleted the cluster's counts: %t", seconds-90, seen)
		}
	}
}
