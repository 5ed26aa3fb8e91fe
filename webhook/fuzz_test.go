// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/headgate/headgate/api/v1alpha1"
)

// readDeployment is one as the API server returns it: defaulted, with status and field managers.
func readDeployment(tb testing.TB) *appsv1.Deployment {
	tb.Helper()
	text, err := os.ReadFile("testdata/api/deployment.json")
	if err != nil {
		tb.Fatal(err)
	}
	var d appsv1.Deployment
	if err := json.Unmarshal(text, &d); err != nil {
		tb.Fatal(err)
	}
	return &d
}

// FuzzHoldAndRelease holds any Deployment with another image, at some k, and releases it forward or back:
// the user gets what he wrote, or what was there before, exactly. What the controller writes directly, where the webhook
// does not act, is the same.
func FuzzHoldAndRelease(f *testing.F) {
	for _, d := range []*appsv1.Deployment{deployment("v1"), deployment("v1", fields(rolling("1", "0", 60)), note("a", "b")), readDeployment(f)} {
		b, err := json.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "web:v2", int32(3), true)
		f.Add(b, "", int32(1), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, image string, k int32, back bool) {
		var user appsv1.Deployment
		if json.Unmarshal(text, &user) != nil || len(user.Spec.Template.Spec.Containers) == 0 || k < 1 || user.Spec.Paused {
			t.Skip()
		}
		user.UID, user.ResourceVersion = testUID, "100"
		for _, key := range append(OwnAnnotations(), v1alpha1.BypassAnnotation) {
			dropAnnotation(&user, key)
		}
		written := user.DeepCopy()
		written.Spec.Template.Spec.Containers[0].Image = image
		stable := &appsv1.ReplicaSet{}
		stable.Labels = map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: "v1"}
		stable.Spec.Template = user.Spec.Template
		about := func(in HoldInput) HoldInput {
			in.ReplicaSets, in.Record.Status.Stable = []*appsv1.ReplicaSet{stable}, v1alpha1.Revision{Hash: "v1", Template: TemplateDigest(user.Spec.Template)}
			return in
		}
		held := DecideHold(about(update(&user, written)))
		if held.Action != ActionHold || !validFields(FieldsOf(&user), user.Spec.MinReadySeconds) {
			t.Skip() // what can't be held, and what no API server would store
		}
		release, want := v1alpha1.ReleaseForward, written
		if back {
			release, want = v1alpha1.ReleaseBack, &user
		}
		next := step(t, about, held.Deployment, func(h *v1alpha1.Hold) { h.K = k })
		got := step(t, about, next, func(h *v1alpha1.Hold) { h.Release = release })
		dropAnnotation(got, v1alpha1.GateAnnotation)
		dropAnnotation(got, v1alpha1.GateTemplateAnnotation)
		want = want.DeepCopy()
		want.ResourceVersion = got.ResourceVersion
		if !apiequality.Semantic.DeepEqual(want, got) {
			t.Errorf("released (-want +got):\n%s", cmp.Diff(want, got, cmpopts.EquateEmpty()))
		}
	})
}

// step is the controller's next wish, admitted; the wish rendered by the controller itself must be the same.
func step(t *testing.T, about func(HoldInput) HoldInput, d *appsv1.Deployment, wish func(*v1alpha1.Hold)) *appsv1.Deployment {
	t.Helper()
	old := d.DeepCopy()
	old.ResourceVersion += "1" // stored meanwhile
	h := holdOf(t, old)
	wish(&h)
	in := about(update(old, with(old, note(v1alpha1.HoldAnnotation, h.String())), byController))
	admitted := DecideHold(in).Deployment
	if h.String() != old.Annotations[v1alpha1.HoldAnnotation] {
		h.From = old.ResourceVersion // what only the webhook knows
	}
	if diff := cmp.Diff(admitted, Render(old, h, &in.ReplicaSets[0].Spec.Template)); diff != "" {
		t.Errorf("the wish %s (-webhook +Render):\n%s", h, diff)
	}
	return admitted
}

// FuzzPolicy lets any policy decide about an update.
func FuzzPolicy(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"suspend":true}`, `{"steps":[{"weight":10},{"weight":50,"replicas":"300%"},{"weight":100,"replicas":0}]}`,
		`{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn"}]},"steps":[{"weight":-1}],"maxDuration":"-1h","rollback":"Managed"}`,
		`{"selector":{"matchLabels":{"app":"web"}},"onFailure":"Auto","quarantineTTL":"24h","analysis":{"metrics":[{"name":"x","query":"{{.","range":{}}]}}`,
	} {
		f.Add([]byte(seed), int32(10), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, n int32, autoscaled bool) {
		var spec v1alpha1.RolloutPolicySpec
		if json.Unmarshal(text, &spec) != nil || n < 0 {
			t.Skip()
		}
		chosen := SelectPolicy(nil, []v1alpha1.ClusterRolloutPolicy{{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: spec}}, map[string]string{"app": "web"})
		v1 := deployment("v1", scaledTo(n))
		in := update(v1, with(v1, setTemplate("v2")))
		in.Policy, in.Autoscaled = chosen.Spec, autoscaled
		checkNothingElse(t, in)
		once := DecideHold(in)
		if h := holdOf(t, once.Deployment); once.Action == ActionHold && (h.K < 1 || chosen.Spec == nil || spec.Suspend) {
			t.Errorf("held with k %d by policy %s", h.K, text)
		}
		in.New = once.Deployment
		if diff := cmp.Diff(once.Deployment, DecideHold(in).Deployment); diff != "" {
			t.Errorf("the second look differs:\n%s", diff)
		}
	})
}

// FuzzRequests hands any JSON to the webhooks, as the API server would. They answer; the answer to a dry run
// is the same, and leaves no trace.
func FuzzRequests(f *testing.F) {
	d, err := json.Marshal(readDeployment(f))
	if err != nil {
		f.Fatal(err)
	}
	pod, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-v1", UID: "rs-web-v1", Controller: ptr(true)}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d, d, "alice", byte(0))
	f.Add(d, []byte(`{"spec":{"template":{"spec":{"containers":[{}]}}}}`), controllerUser, byte(0))
	f.Add([]byte(nil), pod, "replicaset-controller", byte(1))
	f.Add([]byte(`{"spec":{"replicas":9}}`), []byte(`{"spec":{"replicas":-1}}`), "autoscaler", byte(2))
	f.Add([]byte(`[`), []byte(`null`), "", byte(3))
	f.Fuzz(func(t *testing.T, old, obj []byte, user string, which byte) {
		e := testEdge(t, shop(), nil, nil)
		paths := []admission.HandlerFunc{e.deployments, e.pods, e.scale, e.status}
		req := admissionOf(t, json.RawMessage("{}"), json.RawMessage("{}"), func(r *admission.Request) {
			r.OldObject.Raw, r.Object.Raw, r.UserInfo.Username = old, obj, user
			switch which % 4 {
			case 1:
				r.Operation = admissionv1.Create
			case 2:
				r.SubResource = "scale"
			case 3:
				r.SubResource = "status"
			}
			r.DryRun = ptr(true)
		})
		handle := paths[which%4]
		before := counted(t, e)
		dry := handle(t.Context(), req)
		if diff := cmp.Diff(before, counted(t, e)); diff != "" && dry.Allowed {
			t.Errorf("a dry run was counted:\n%s", diff)
		}
		req.DryRun = nil
		if diff := cmp.Diff(dry, handle(t.Context(), req)); diff != "" {
			t.Errorf("a dry run is answered differently:\n%s", diff)
		}
	})
}

// counted are the counters of decisions. How long they took is measured for dry runs too.
func counted(t *testing.T, e *edge) map[string]float64 {
	t.Helper()
	families, err := e.cfg.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if m.GetCounter() != nil {
				out[family.GetName()+m.String()] = m.GetCounter().GetValue()
			}
		}
	}
	return out
}
