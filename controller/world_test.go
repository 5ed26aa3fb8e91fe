// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

// Revisions of the workload shop/web in these tests.
const (
	stableHash    = "aaa"
	candidateHash = "bbb"
)

var webKey = types.NamespacedName{Namespace: "shop", Name: "web"}

// at is a moment, in seconds after noon.
func at(seconds int) time.Time {
	return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(seconds) * time.Second)
}

func metaAt(seconds int) metav1.Time { return metav1.NewTime(at(seconds)) }

func ptr[T any](v T) *T { return &v }

func template(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
}

// userFields are what the user of shop/web wrote.
func userFields() v1alpha1.UserFields {
	return v1alpha1.UserFields{
		StrategyType: "RollingUpdate", MaxSurge: ptr(intstr.FromString("25%")), MaxUnavailable: ptr(intstr.FromString("25%")),
		ProgressDeadlineSeconds: ptr(int32(600)),
	}
}

// deployment is shop/web with template v2, four replicas, not held.
func deployment() *appsv1.Deployment {
	u := userFields()
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "d-uid", Generation: 3, Labels: map[string]string{"app": "web"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr(int32(4)), Template: template("v2"), ProgressDeadlineSeconds: u.ProgressDeadlineSeconds,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: u.MaxSurge, MaxUnavailable: u.MaxUnavailable},
			},
		},
	}
}

// holdOn is the hold with k candidate pods for this Deployment.
func holdOn(d *appsv1.Deployment, k int32) v1alpha1.Hold {
	return v1alpha1.Hold{K: k, Template: webhook.TemplateDigest(d.Spec.Template), User: userFields(), UID: d.UID}
}

func owned(kind, name string, uid types.UID) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: uid, Controller: ptr(true)}}
}

func replicaSet(hash, image string, replicas int32) *appsv1.ReplicaSet {
	t := template(image)
	t.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-" + hash, UID: types.UID("rs-" + hash), Labels: t.Labels,
			Annotations: map[string]string{desiredAnnotation: "4"}, OwnerReferences: owned("Deployment", "web", "d-uid"),
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Template: t, Selector: &metav1.LabelSelector{MatchLabels: t.Labels}},
	}
}

// podOf is a running, injected pod of a revision with the gate closed, ready but for it.
func podOf(hash, name, ip string, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, CreationTimestamp: metaAt(0),
			Labels: map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: hash, v1alpha1.InjectedLabel: "true"},
			Annotations: map[string]string{v1alpha1.InjectionAnnotation: v1alpha1.Injection{
				Workload: "web", Revision: hash, Ports: []v1alpha1.CapturedPort{{Port: 8080, Names: []string{"http"}}},
			}.String()},
			OwnerReferences: owned("ReplicaSet", "web-"+hash, types.UID("rs-"+hash)),
		},
		Spec: corev1.PodSpec{NodeName: "n1", ReadinessGates: []corev1.PodReadinessGate{{ConditionType: v1alpha1.GateCondition}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: ip, StartTime: ptr(metaAt(0)),
			Conditions: []corev1.PodCondition{{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: metaAt(5)}},
		},
	}
	if ip != "" {
		pod.Status.PodIPs = []corev1.PodIP{{IP: ip}}
	}
	for _, f := range change {
		f(pod)
	}
	return pod
}

// set gives a pod a condition.
func set(t corev1.PodConditionType, status corev1.ConditionStatus, seconds int) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		c := corev1.PodCondition{Type: t, Status: status, LastTransitionTime: metaAt(seconds)}
		if old := condition(pod, t); old != nil {
			*old = c
			return
		}
		pod.Status.Conditions = append(pod.Status.Conditions, c)
	}
}

func gateOpen(pod *corev1.Pod) { set(v1alpha1.GateCondition, corev1.ConditionTrue, 6)(pod) }

func terminating(pod *corev1.Pod) {
	pod.DeletionTimestamp = ptr(metaAt(60))
	pod.Finalizers = []string{"test/keep"} // the fake client takes no terminating object without
}

func uninjected(pod *corev1.Pod) {
	delete(pod.Labels, v1alpha1.InjectedLabel)
	delete(pod.Annotations, v1alpha1.InjectionAnnotation)
}

func onNode(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.NodeName = name }
}

// record is a rollout of v2 in its first step.
func record() *v1alpha1.Rollout {
	return &v1alpha1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", OwnerReferences: owned("Deployment", "web", "d-uid")},
		Status: v1alpha1.RolloutStatus{
			DeploymentUID: "d-uid", Phase: v1alpha1.PhaseStepping, StartedAt: &metav1.MicroTime{Time: at(0)},
			Stable: v1alpha1.Revision{Hash: stableHash}, Candidate: v1alpha1.Revision{Hash: candidateHash},
			Replicas: 4, CandidateReplicas: 1, Weight: 10, WeightInForce: 10, Policy: "{}",
		},
	}
}

func namespace(name string, enabled bool) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if enabled {
		ns.Labels = map[string]string{v1alpha1.EnabledLabel: "true"}
	}
	return ns
}

func scheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// node is one whose kubelet says this.
func node(name string, ready corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}},
	}
}

// cluster is an API server's memory with these objects, indexed like the manager's cache. The node of podOf is ready
// where no nodes are given.
func cluster(t testing.TB, objects ...client.Object) *fake.ClientBuilder {
	t.Helper()
	if !slices.ContainsFunc(objects, func(o client.Object) bool { _, is := o.(*corev1.Node); return is }) {
		objects = append(slices.Clone(objects), node("n1", corev1.ConditionTrue))
	}
	return fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.Rollout{}, &v1alpha1.RolloutPolicy{}, &v1alpha1.ClusterRolloutPolicy{}, &appsv1.Deployment{}, &corev1.Pod{}).
		WithIndex(&appsv1.ReplicaSet{}, webhook.OwnerIndex, owners).WithIndex(&corev1.Pod{}, webhook.OwnerIndex, owners)
}

// owners are by what webhook.OwnerIndex finds an object.
func owners(o client.Object) []string {
	if ref := metav1.GetControllerOf(o); ref != nil {
		return []string{string(ref.UID)}
	}
	return nil
}

func reconciler(c client.Client) *Reconciler {
	return &Reconciler{
		Client: c, APIReader: c, Events: events.NewFakeRecorder(100), Namespace: "headgate-system", Deployment: "headgate",
		Now: func() time.Time { return at(100) }, Sidecars: noSidecars{},
	}
}

type noSidecars struct{}

func (noSidecars) Unheard() string { return "" }

func (noSidecars) Acks(types.NamespacedName, string) []Ack { return nil }

// stored reads an object back.
func stored[T client.Object](t testing.TB, c client.Client, o T) T {
	t.Helper()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatalf("reading %T back: %v", o, err)
	}
	return o
}
