// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const testUID = "uid-1"

// template is the pod template of a version.
func template(version string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Image: "web:" + version, Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
		}}},
	}
}

func digestOf(version string) string { return TemplateDigest(template(version)) }

// deployment is one that is not held: 10 replicas, the API's defaults.
func deployment(version string, edits ...func(*appsv1.Deployment)) *appsv1.Deployment {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: testUID, ResourceVersion: "100", Labels: map[string]string{"app": "web"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr[int32](10),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: template(version),
		},
	}
	setFields(d, defaults())
	for _, e := range edits {
		e(d)
	}
	return d
}

func defaults() v1alpha1.UserFields { return rolling("25%", "25%", 600) }

func rolling(surge, unavailable string, deadline int32) v1alpha1.UserFields {
	return v1alpha1.UserFields{
		StrategyType: "RollingUpdate", MaxSurge: ptr(intstr.Parse(surge)), MaxUnavailable: ptr(intstr.Parse(unavailable)),
		ProgressDeadlineSeconds: ptr(deadline),
	}
}

func recreate() v1alpha1.UserFields {
	return v1alpha1.UserFields{StrategyType: "Recreate", ProgressDeadlineSeconds: ptr[int32](600)}
}

// heldBy is a Deployment as the webhook leaves it: the user's fields in the annotation.
func heldBy(k int32, user v1alpha1.UserFields) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		h := v1alpha1.Hold{K: k, Template: TemplateDigest(d.Spec.Template), User: user, UID: testUID, From: "90"}
		renderHold(d, h, true)
	}
}

func fields(f v1alpha1.UserFields) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { setFields(d, f) }
}

func note(key, value string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { annotate(d, key, value) }
}

func gated(g v1alpha1.Gate) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { setGate(d, g) }
}

func paused(d *appsv1.Deployment) { d.Spec.Paused = true }

func scaledTo(n int32) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Replicas = ptr(n) }
}

// with returns a changed copy, as a client's write.
func with(d *appsv1.Deployment, edits ...func(*appsv1.Deployment)) *appsv1.Deployment {
	c := d.DeepCopy()
	for _, e := range edits {
		e(c)
	}
	return c
}

func setTemplate(version string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Template = template(version) }
}

func setTemplateOf(rs *appsv1.ReplicaSet) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		d.Spec.Template = *stableTemplate(&rs.Spec.Template)
		d.Annotations = map[string]string{}
		for k, v := range rs.Annotations {
			d.Annotations[k] = v
		}
	}
}

// replicaSet is the revision of a version; its hash is "h-<version>".
func replicaSet(version string, available int32, edits ...func(*appsv1.ReplicaSet)) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web-h-" + version, Labels: map[string]string{"pod-template-hash": "h-" + version}},
		Spec:       appsv1.ReplicaSetSpec{Template: template(version)},
		Status:     appsv1.ReplicaSetStatus{ReadyReplicas: available, AvailableReplicas: available},
	}
	rs.Spec.Template.Labels["pod-template-hash"] = "h-" + version
	for _, e := range edits {
		e(rs)
	}
	return rs
}

// born is when a ReplicaSet was made, recordedAt when the record was.
func born(at time.Time) func(*appsv1.ReplicaSet) {
	return func(rs *appsv1.ReplicaSet) { rs.CreationTimestamp = metav1.NewTime(at) }
}

func recordedAt(at time.Time) func(*v1alpha1.Rollout) {
	return func(r *v1alpha1.Rollout) { r.CreationTimestamp = metav1.NewTime(at) }
}

func rsGate(g v1alpha1.Gate) func(*appsv1.ReplicaSet) {
	return func(rs *appsv1.ReplicaSet) {
		rs.Annotations = map[string]string{v1alpha1.GateAnnotation: string(g), v1alpha1.GateTemplateAnnotation: TemplateDigest(rs.Spec.Template)}
	}
}

func revision(version string) v1alpha1.Revision {
	return v1alpha1.Revision{Hash: "h-" + version, Template: digestOf(version)}
}

// record is the record of a workload whose stable revision is v1.
func record(edits ...func(*v1alpha1.Rollout)) *v1alpha1.Rollout {
	r := &v1alpha1.Rollout{Status: v1alpha1.RolloutStatus{DeploymentUID: testUID, Phase: v1alpha1.PhaseIdle, Stable: revision("v1")}}
	for _, e := range edits {
		e(r)
	}
	return r
}

func trying(version string, phase v1alpha1.Phase) func(*v1alpha1.Rollout) {
	return func(r *v1alpha1.Rollout) { r.Status.Candidate, r.Status.Phase = revision(version), phase }
}

func rejected(version string, until time.Time) func(*v1alpha1.Rollout) {
	return func(r *v1alpha1.Rollout) {
		r.Status.Rejected = &v1alpha1.Rejection{Template: digestOf(version), Revision: "h-" + version, Times: 1, Until: metav1.NewTime(until), Message: "5 % errors"}
	}
}

func remember(entries ...v1alpha1.HistoryEntry) func(*v1alpha1.Rollout) {
	return func(r *v1alpha1.Rollout) { r.Status.History = entries }
}

func retry(version string) func(*v1alpha1.Rollout) {
	return func(r *v1alpha1.Rollout) { r.Spec.Retry = &v1alpha1.RevisionWish{Revision: "h-" + version} }
}

// update is an ordinary case: a policy, a record, stable v1, requests can be split.
func update(old, obj *appsv1.Deployment, edits ...func(*HoldInput)) HoldInput {
	in := HoldInput{
		Old: old, New: obj, Policy: &v1alpha1.RolloutPolicySpec{}, Record: record(),
		ReplicaSets: []*appsv1.ReplicaSet{replicaSet("v1", 10)},
		Split:       SplitState{Possible: true}, Now: noon,
	}
	for _, e := range edits {
		e(&in)
	}
	return in
}

func noPolicy(in *HoldInput) { in.Policy = nil }
func noSidecar(in *HoldInput) {
	in.Split = SplitState{Possible: true}.to(SplitState{Reason: "can't have a sidecar", NoSidecar: "can't have a sidecar"})
}
func suspended(in *HoldInput)    { in.Policy = &v1alpha1.RolloutPolicySpec{Suspend: true} }
func byController(in *HoldInput) { in.ByController = true }
func troubled(with string) func(*HoldInput) {
	return func(in *HoldInput) { in.PolicyTrouble = with }
}
func noRecord(in *HoldInput) { in.Record = nil }
func withRecord(edits ...func(*v1alpha1.Rollout)) func(*HoldInput) {
	return func(in *HoldInput) { in.Record = record(edits...) }
}
func owning(rs ...*appsv1.ReplicaSet) func(*HoldInput) {
	return func(in *HoldInput) { in.ReplicaSets = rs }
}
func stableDown(d time.Duration) func(*HoldInput) {
	return func(in *HoldInput) { in.StableDownSince = ptr(noon.Add(-d)) }
}

// holdOf is the annotation that was admitted; the zero Hold when there is none.
func holdOf(t *testing.T, d *appsv1.Deployment) v1alpha1.Hold {
	t.Helper()
	h, err := v1alpha1.ParseHold(d.Annotations[v1alpha1.HoldAnnotation])
	if err != nil {
		t.Fatalf("admitted annotation: %v", err)
	}
	if h == nil {
		return v1alpha1.Hold{}
	}
	return *h
}

// outcome is what a test looks at in what was admitted.
type outcome struct {
	Row    Row
	Action Action
	// Version is the image's tag.
	Version string
	Fields  v1alpha1.UserFields
	// K is 0 without a hold.
	K       int32
	User    v1alpha1.UserFields
	Release v1alpha1.Release
	Gate    v1alpha1.Gate
	// Warned is the number of warnings.
	Warned int
}

func outcomeOf(t *testing.T, d HoldDecision) outcome {
	t.Helper()
	h := holdOf(t, d.Deployment)
	return outcome{
		Row: d.Row, Action: d.Action, Version: strings.TrimPrefix(d.Deployment.Spec.Template.Spec.Containers[0].Image, "web:"),
		Fields: FieldsOf(d.Deployment), K: h.K, User: h.User, Release: h.Release, Gate: gateOf(d.Deployment), Warned: len(d.Warnings),
	}
}

type holdCase struct {
	in   HoldInput
	want outcome
}

func checkHold(t *testing.T, cases map[string]holdCase) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			old, obj := tc.in.Old.DeepCopy(), tc.in.New.DeepCopy()
			got := DecideHold(tc.in)
			if diff := cmp.Diff(tc.want, outcomeOf(t, got)); diff != "" {
				t.Errorf("outcome (-want +got):\n%s\nwarnings: %q\nreason: %s", diff, got.Warnings, got.Reason)
			}
			if diff := cmp.Diff(old, tc.in.Old) + cmp.Diff(obj, tc.in.New); diff != "" {
				t.Errorf("the input was modified:\n%s", diff)
			}
			again := tc.in
			again.New = got.Deployment
			if diff := cmp.Diff(got.Deployment, DecideHold(again).Deployment); diff != "" {
				t.Errorf("called again with its own work it admits something else:\n%s", diff)
			}
		})
	}
}

// Somebody wipes Headgate's annotations of an update that was let out. Its ReplicaSet still says so.
func TestGateOfDeployment(t *testing.T) {
	wiped := deployment("v2")
	for name, tc := range map[string]struct {
		d     *appsv1.Deployment
		owned []*appsv1.ReplicaSet
		want  v1alpha1.Gate
	}{
		"its own decision":                       {with(wiped, gated(v1alpha1.GateClosed)), []*appsv1.ReplicaSet{replicaSet("v2", 1, rsGate(v1alpha1.GateOpen))}, v1alpha1.GateClosed},
		"wiped, let out before":                  {wiped, []*appsv1.ReplicaSet{replicaSet("v1", 3), replicaSet("v2", 1, rsGate(v1alpha1.GateOpen))}, v1alpha1.GateOpen},
		"wiped, held before":                     {wiped, []*appsv1.ReplicaSet{replicaSet("v2", 1, rsGate(v1alpha1.GateClosed))}, ""},
		"wiped, another version was let out":     {wiped, []*appsv1.ReplicaSet{replicaSet("v1", 3, rsGate(v1alpha1.GateOpen)), replicaSet("v2", 1)}, ""},
		"its decision is about another template": {with(wiped, gated(v1alpha1.GateClosed), setTemplate("v3")), []*appsv1.ReplicaSet{replicaSet("v3", 1, rsGate(v1alpha1.GateOpen))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := GateOfDeployment(tc.d, tc.owned); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
