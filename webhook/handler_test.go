// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/headgate/headgate/api/v1alpha1"
)

const controllerUser = "system:serviceaccount:headgate-system:headgate"

// testEdge is the edge over two stores: what the cache has seen, and what the API server has besides.
func testEdge(t *testing.T, cached []client.Object, live []client.Object, broken func(client.Object) error) *edge {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	store := func(objects []client.Object) client.Client {
		b := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
			WithIndex(&appsv1.ReplicaSet{}, OwnerIndex, ownerUID).WithIndex(&corev1.Pod{}, OwnerIndex, ownerUID)
		return b.WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if broken != nil {
					if err := broken(o); err != nil {
						return err
					}
				}
				return c.Get(ctx, key, o, opts...)
			},
		}).Build()
	}
	if live == nil {
		live = cached
	}
	e, err := newEdge(gatherer{cache: store(cached), live: store(live)}, Config{
		ControllerUser: controllerUser, Autoscalers: []string{"autoscaler"}, SystemNamespace: "headgate-system", Registerer: prometheus.NewRegistry(),
		Injection: InjectConfig{Image: "proxy:1", XDSAddress: "headgate.headgate-system.svc:15610", XDSName: "headgate.headgate-system.svc"},
		CA:        func() string { return "PEM" }, Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func namespace(labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: labels}}
}

// shop is a managed workload at rest: stable v1 with two injected pods that serve.
func shop(edits ...func(*v1alpha1.Rollout)) []client.Object {
	rs := replicaSet("v1", 10, ownedBy(testUID), rsGate(open))
	r := record(edits...)
	r.ObjectMeta = metav1.ObjectMeta{Namespace: "shop", Name: "web"}
	objects := []client.Object{
		namespace(map[string]string{v1alpha1.EnabledLabel: "true"}),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}},
		&v1alpha1.ClusterRolloutPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		deployment("v1", func(d *appsv1.Deployment) { d.ResourceVersion = "" }), rs, r,
	}
	for _, name := range []string{"web-a", "web-b"} {
		p := stablePod(name, ownedByReplicaSet(rs))
		objects = append(objects, &p)
	}
	return objects
}

func ownedByReplicaSet(rs *appsv1.ReplicaSet) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Namespace = rs.Namespace
		metav1.SetMetaDataLabel(&p.ObjectMeta, appsv1.DefaultDeploymentUniqueLabelKey, hashOf(rs))
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: rs.Name, UID: rs.UID, Controller: ptr(true)}}
	}
}

func without[T client.Object](objects []client.Object) []client.Object {
	var out []client.Object
	for _, o := range objects {
		if _, drop := o.(T); !drop {
			out = append(out, o)
		}
	}
	return out
}

func raw(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func admissionOf(t *testing.T, old, obj any, edits ...func(*admission.Request)) admission.Request {
	t.Helper()
	req := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Update, Namespace: "shop", Name: "web", UserInfo: authenticationv1.UserInfo{Username: "alice"},
		Object: runtime.RawExtension{Raw: raw(t, obj)},
	}}
	if old == nil {
		req.Operation = admissionv1.Create
	} else {
		req.OldObject = runtime.RawExtension{Raw: raw(t, old)}
	}
	for _, e := range edits {
		e(&req)
	}
	return req
}

// admitted applies the answer's patch to the raw object, as the API server does.
func admitted(t *testing.T, req admission.Request, resp admission.Response, into any) {
	t.Helper()
	if !resp.Allowed {
		t.Fatalf("refused: %v", resp.Result)
	}
	object := req.Object.Raw
	if len(resp.Patches) > 0 {
		patch, err := jsonpatch.DecodePatch(raw(t, resp.Patches))
		if err != nil {
			t.Fatal(err)
		}
		if object, err = patch.Apply(object); err != nil {
			t.Fatalf("applying %s: %v", raw(t, resp.Patches), err)
		}
	}
	if err := json.Unmarshal(object, into); err != nil {
		t.Fatal(err)
	}
}

func TestDeploymentRequests(t *testing.T) {
	v1 := deployment("v1")
	v2 := with(v1, setTemplate("v2"))
	cases := map[string]struct {
		objects []client.Object
		edit    func(*admission.Request)
		wantK   int32 // 0: not held
		want    string
	}{
		"held":                     {objects: shop(), wantK: 1, want: "held as a canary rollout"},
		"a dry run shows the same": {objects: shop(), edit: func(r *admission.Request) { r.DryRun = ptr(true) }, wantK: 1, want: "held as a canary rollout"},
		"under an autoscaler": {objects: append(shop(), &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}, Spec: v1alpha1.RolloutPolicySpec{Steps: []v1alpha1.Step{{Weight: 50}}}},
			&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "h"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web"}}}), wantK: 1, want: "(10 %;"},
		"a namespaced policy wins": {objects: append(shop(), &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}, Spec: v1alpha1.RolloutPolicySpec{Steps: []v1alpha1.Step{{Weight: 50}}}}), wantK: 5, want: "50 %"},
		"its policy can't be used": {objects: append(shop(), refusedPolicy(3)), wantK: 1, want: "headgate: RolloutPolicy p can't be used as it is: it names no host"},
		"no policy":                {objects: without[*v1alpha1.ClusterRolloutPolicy](shop()), want: "no policy selects deployment/web"},
		"stable without sidecars":  {objects: append(without[*corev1.Pod](shop()), barePod()), want: "pod web-a has no sidecar yet"},
		"the candidate can't have one": {objects: shop(), edit: func(r *admission.Request) {
			r.Object.Raw = []byte(strings.Replace(string(r.Object.Raw), `"containers"`, `"hostNetwork":true,"containers"`, 1))
		}, want: "can't have a sidecar"},
		"a namespace that is not enabled":   {objects: append(without[*corev1.Namespace](shop()), namespace(nil))},
		"Headgate's own namespace":          {objects: shop(), edit: func(r *admission.Request) { r.Namespace = "headgate-system" }},
		"a creation is never touched":       {objects: shop(), edit: func(r *admission.Request) { r.Operation = admissionv1.Create }},
		"a status write is never touched":   {objects: shop(), edit: func(r *admission.Request) { r.SubResource = "status" }},
		"nothing recorded yet":              {objects: without[*v1alpha1.Rollout](shop()), wantK: 1, want: "held"},
		"rejected before, within back-off":  {objects: shop(rejected("v2", noon.Add(time.Minute))), wantK: 1, want: "failed before"},
		"stable down since a minute is out": {objects: append(without[*corev1.Pod](shop()), downPod()), want: "no pod of the stable version was available for 1m"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			e := testEdge(t, tc.objects, nil, nil)
			req := admissionOf(t, v1, v2)
			if tc.edit != nil {
				tc.edit(&req)
			}
			resp := e.deployments(t.Context(), req)
			var got appsv1.Deployment
			admitted(t, req, resp, &got)
			if k := holdOf(t, &got).K; k != tc.wantK {
				t.Errorf("k = %d, want %d; warnings %q", k, tc.wantK, resp.Warnings)
			}
			if warned := strings.Join(resp.Warnings, "\n"); !strings.Contains(warned, tc.want) || (tc.want == "") != (warned == "") {
				t.Errorf("warnings %q, want %q", warned, tc.want)
			}
		})
	}
}

// The watch of a replica's pods stands still: it shows stable without a pod that serves, or with pods that have no sidecar yet. Before
// an update goes out unjudged for that, the API server is asked.
func TestNothingGoesOutForWhatTheCacheShows(t *testing.T) {
	for name, cached := range map[string]*corev1.Pod{"stable is down": downPod(), "stable has no sidecars": barePod()} {
		t.Run(name, func(t *testing.T) {
			e := testEdge(t, append(without[*corev1.Pod](shop()), cached), shop(), nil)
			req := admissionOf(t, deployment("v1"), with(deployment("v1"), setTemplate("v2")))
			var got appsv1.Deployment
			admitted(t, req, e.deployments(t.Context(), req), &got)
			if holdOf(t, &got).K != 1 {
				t.Error("it is not held")
			}
		})
	}
}

// A version that can't have a sidecar goes out at once where nothing is held. In the middle of a rollout it is held, and
// whoever updates reads at once that this leads nowhere, why, and what would.
func TestATemplateThatCannotHaveASidecar(t *testing.T) {
	takesPort := func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 15601}}
	}
	takesName := func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: v1alpha1.PrepareContainer, Image: "mine"}}
	}
	unheld, held := deployment("v1"), deployment("v2", heldBy(1, defaults()))
	rolling := shop(trying("v2", v1alpha1.PhaseStepping))
	for name, tc := range map[string]struct {
		objects []client.Object
		old     *appsv1.Deployment
		edit    func(*appsv1.Deployment)
		wantK   int32
		want    []string
	}{
		"its port, at rest":         {shop(), unheld, takesPort, 0, []string{"goes out at once", "15601"}},
		"its name, at rest":         {shop(), unheld, takesName, 0, []string{"goes out at once", v1alpha1.PrepareContainer}},
		"its port, another is held": {rolling, held, takesPort, 1, []string{"rejected at once", "15601", v1alpha1.BypassAnnotation}},
		"its name, another is held": {rolling, held, takesName, 1, []string{"rejected at once", v1alpha1.PrepareContainer, v1alpha1.BypassAnnotation}},
		"no update brings what this one can't have": {
			append(without[*corev1.Pod](shop()), barePod()), unheld, takesPort, 0, []string{"pod web-a has no sidecar yet; the new version can't have", "15601"},
		},
		"stable's sidecars are not ready either, another is held": {
			append(without[*corev1.Pod](rolling), barePod()), held, takesPort, 1, []string{"rejected at once", "15601"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := admissionOf(t, tc.old, with(tc.old, setTemplate("v3"), tc.edit))
			resp := testEdge(t, tc.objects, nil, nil).deployments(t.Context(), req)
			var got appsv1.Deployment
			admitted(t, req, resp, &got)
			if k := holdOf(t, &got).K; k != tc.wantK {
				t.Errorf("k = %d, want %d", k, tc.wantK)
			}
			warned := strings.Join(resp.Warnings, "\n")
			for _, want := range tc.want {
				if !strings.Contains(warned, want) {
					t.Errorf("warnings %q, want %q", warned, want)
				}
			}
			if strings.Contains(warned, "as a canary rollout") || strings.Contains(warned, "the next one will be held") {
				t.Errorf("warnings promise what will not be: %q", warned)
			}
		})
	}
}

// refusedPolicy is at generation 3; what its condition says is about the one given.
func refusedPolicy(said int64) *v1alpha1.RolloutPolicy {
	return &v1alpha1.RolloutPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p", Generation: 3},
		Status: v1alpha1.PolicyStatus{Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonInvalid, Message: "it names no host", ObservedGeneration: said,
		}}},
	}
}

func barePod() *corev1.Pod {
	p := stablePod("web-a", bare, ownedByReplicaSet(replicaSet("v1", 10, ownedBy(testUID))))
	return &p
}

func downPod() *corev1.Pod {
	p := stablePod("web-a", unready(time.Minute), ownedByReplicaSet(replicaSet("v1", 10, ownedBy(testUID))))
	return &p
}

func TestControllerIsKnownByItsUser(t *testing.T) {
	held := deployment("v2", heldBy(2, defaults()))
	wish := with(held, note(v1alpha1.HoldAnnotation, v1alpha1.Hold{K: 4, Template: digestOf("v2"), User: defaults()}.String()))
	for user, want := range map[string]int32{controllerUser: 4, "alice": 2, "system:serviceaccount:shop:headgate": 2} {
		e := testEdge(t, shop(), nil, nil)
		req := admissionOf(t, held, wish, func(r *admission.Request) { r.UserInfo.Username = user })
		var got appsv1.Deployment
		admitted(t, req, e.deployments(t.Context(), req), &got)
		if surge := got.Spec.Strategy.RollingUpdate.MaxSurge.IntVal; surge != want {
			t.Errorf("written by %s: maxSurge = %d, want %d", user, surge, want)
		}
	}
}

func TestFieldsOfNewerVersionsSurvive(t *testing.T) {
	e := testEdge(t, shop(), nil, nil)
	req := admissionOf(t, deployment("v1"), deployment("v2"))
	req.Object.Raw = []byte(strings.Replace(string(req.Object.Raw), `"image":"web:v2"`, `"image":"web:v2","brandNew":{"a":1}`, 1))
	var got map[string]any
	admitted(t, req, e.deployments(t.Context(), req), &got)
	if s := string(raw(t, got)); !strings.Contains(s, `"brandNew":{"a":1}`) || !strings.Contains(s, v1alpha1.HoldAnnotation) {
		t.Errorf("the field is lost, or the update is not held: %s", s)
	}
}

func TestUndecidableUpdatesAreRefused(t *testing.T) {
	e := testEdge(t, shop(), nil, func(o client.Object) error {
		if _, ok := o.(*v1alpha1.Rollout); ok {
			return errors.New("the cache is broken")
		}
		return nil
	})
	resp := e.deployments(t.Context(), admissionOf(t, deployment("v1"), deployment("v2")))
	if resp.Allowed || !strings.Contains(resp.Result.Message, "refused; try again") || !strings.Contains(resp.Result.Message, "the cache is broken") {
		t.Errorf("allowed = %v, message %v", resp.Allowed, resp.Result)
	}
}

// newPod is a pod as a ReplicaSet's controller creates it.
func newPod(rs *appsv1.ReplicaSet) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: *rs.Spec.Template.ObjectMeta.DeepCopy(), Spec: *rs.Spec.Template.Spec.DeepCopy()}
	p.GenerateName = rs.Name + "-"
	ownedByReplicaSet(rs)(p)
	p.Namespace = ""
	return p
}

func TestPodRequests(t *testing.T) {
	v1 := replicaSet("v1", 10, ownedBy(testUID), rsGate(open))
	closedV2, openV2 := replicaSet("v2", 0, ownedBy(testUID), rsGate(closed)), replicaSet("v2", 0, ownedBy(testUID), rsGate(open))
	undecidedV2 := replicaSet("v2", 0, ownedBy(testUID))
	orphan := replicaSet("v2", 0, func(rs *appsv1.ReplicaSet) { rs.Namespace, rs.UID = "shop", "rs-orphan" })
	unmanagedShop := slices.Clip(without[*v1alpha1.ClusterRolloutPolicy](shop()))
	cases := map[string]struct {
		cached, live []client.Object
		pod          *corev1.Pod
		edit         func(*admission.Request)
		wantGate     bool
		wantSidecar  bool
	}{
		"a candidate's pod":                          {cached: append(shop(), closedV2), pod: newPod(closedV2), wantGate: true, wantSidecar: true},
		"a pod of the stable revision":               {cached: shop(), pod: newPod(v1), wantSidecar: true},
		"a ReplicaSet that the cache has not seen":   {cached: shop(), live: []client.Object{closedV2}, pod: newPod(closedV2), wantGate: true, wantSidecar: true},
		"the cache still says open, closed just now": {cached: append(shop(), openV2), live: []client.Object{closedV2}, pod: newPod(openV2), wantGate: true, wantSidecar: true},
		"released":                        {cached: append(shop(), openV2), live: []client.Object{openV2}, pod: newPod(openV2), wantSidecar: true},
		"an update that slipped past":     {cached: append(shop(), undecidedV2), live: []client.Object{undecidedV2}, pod: newPod(undecidedV2), wantGate: true, wantSidecar: true},
		"no policy, nobody decided":       {cached: append(unmanagedShop, undecidedV2), live: []client.Object{undecidedV2}, pod: newPod(undecidedV2)},
		"no policy any more, still held":  {cached: append(unmanagedShop, closedV2), pod: newPod(closedV2), wantGate: true},
		"a ReplicaSet of nobody":          {cached: append(shop(), orphan), pod: newPod(orphan)},
		"a pod of nobody":                 {cached: shop(), pod: &corev1.Pod{Spec: template("v1").Spec}},
		"a ReplicaSet that is gone":       {cached: shop(), pod: newPod(undecidedV2)},
		"a namespace that is not enabled": {cached: append(without[*corev1.Namespace](shop()), namespace(nil)), pod: newPod(v1)},
		"Headgate's own namespace":        {cached: shop(), pod: newPod(v1), edit: func(r *admission.Request) { r.Namespace = "headgate-system" }},
		"a template that opts out is gated all the same": {cached: append(shop(), closedV2), wantGate: true,
			pod: func() *corev1.Pod {
				p := newPod(closedV2)
				p.Annotations = map[string]string{v1alpha1.InjectAnnotation: "false"}
				return p
			}()},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			e := testEdge(t, tc.cached, tc.live, nil)
			req := admissionOf(t, nil, tc.pod)
			if tc.edit != nil {
				tc.edit(&req)
			}
			var got corev1.Pod
			admitted(t, req, e.pods(t.Context(), req), &got)
			if HasGate(&got) != tc.wantGate {
				t.Errorf("gated = %v, want %v", HasGate(&got), tc.wantGate)
			}
			if sidecar := initContainer(&got, v1alpha1.ProxyContainer) != nil; sidecar != tc.wantSidecar {
				t.Errorf("sidecar = %v, want %v", sidecar, tc.wantSidecar)
			}
			again := admissionOf(t, nil, &got)
			again.Namespace = req.Namespace
			if resp := e.pods(t.Context(), again); len(resp.Patches) != 0 {
				t.Errorf("called again it changes the pod: %s", raw(t, resp.Patches))
			}
		})
	}
}

// The chart's ValidatingAdmissionPolicy refuses candidates without a gate that bear no such mark.
func TestOnlyACandidateThatIsLetOutIsMarked(t *testing.T) {
	for name, tc := range map[string]struct {
		version string
		gate    v1alpha1.Gate
		want    string
	}{
		"a candidate whose hold has just ended": {"v2", open, string(v1alpha1.GateOpen)},
		"a candidate that is held":              {"v2", closed, ""},
		"a stable pod":                          {"v1", open, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rs := replicaSet(tc.version, 1, ownedBy(testUID), rsGate(tc.gate))
			objects := append(without[*appsv1.ReplicaSet](shop(trying("v2", v1alpha1.PhaseStepping))), rs)
			req := admissionOf(t, nil, newPod(rs))
			var got corev1.Pod
			admitted(t, req, testEdge(t, objects, []client.Object{rs}, nil).pods(t.Context(), req), &got)
			if mark := got.Annotations[v1alpha1.GateAnnotation]; mark != tc.want {
				t.Errorf("the mark is %q, want %q", mark, tc.want)
			}
			revision := ""
			if tc.want != "" {
				revision = hashOf(rs)
			}
			if got := got.Annotations[v1alpha1.GateTemplateAnnotation]; got != revision {
				t.Errorf("the mark is about revision %q, want %q", got, revision)
			}
		})
	}
}

func TestPodsOfUnknownWorkloadsAreRefused(t *testing.T) {
	broken := func(o client.Object) error {
		if _, ok := o.(*appsv1.ReplicaSet); ok {
			return errors.New("no answer")
		}
		return nil
	}
	e := testEdge(t, shop(), nil, broken)
	resp := e.pods(t.Context(), admissionOf(t, nil, newPod(replicaSet("v2", 0, ownedBy(testUID)))))
	if resp.Allowed {
		t.Error("a pod that may be an ungated candidate was let in")
	}
}

func TestScaleRequests(t *testing.T) {
	held := with(deployment("v2", heldBy(1, defaults())), func(d *appsv1.Deployment) { d.ResourceVersion = "" })
	objects := append(without[*appsv1.Deployment](shop(trying("v2", v1alpha1.PhaseStepping), func(r *v1alpha1.Rollout) { r.Status.Replicas = 10 })), held)
	scale := func(n int32) *autoscalingv1.Scale {
		return &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: n}}
	}
	limited := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: held.Namespace, Name: "limited"}}
	limited.Spec.MaxReplicas = 4
	limited.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: held.Name}
	for _, tc := range []struct {
		user    string
		objects []client.Object
		want    int32
	}{{"autoscaler", objects, 10}, {"alice", objects, 0}, {"autoscaler", append(slices.Clone(objects), limited), 4}} {
		user, want := tc.user, tc.want
		e := testEdge(t, tc.objects, nil, nil)
		req := admissionOf(t, scale(12), scale(0), func(r *admission.Request) {
			r.SubResource, r.UserInfo.Username = "scale", user
		})
		var got autoscalingv1.Scale
		admitted(t, req, e.scale(t.Context(), req), &got)
		if got.Spec.Replicas != want {
			t.Errorf("%s gets %d replicas, want %d", user, got.Spec.Replicas, want)
		}
	}
	e := testEdge(t, objects, nil, nil)
	garbage := admissionOf(t, scale(12), scale(5), func(r *admission.Request) { r.SubResource, r.Object.Raw = "scale", []byte("{") })
	if !e.scale(t.Context(), garbage).Allowed {
		t.Error("a scale that can't be read was refused: scaling must work without Headgate")
	}
}

func TestDecisionsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	e := testEdge(t, shop(), nil, nil)
	m, err := newMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	e.metrics = m
	e.deployments(t.Context(), admissionOf(t, deployment("v1"), deployment("v2")))
	e.deployments(t.Context(), admissionOf(t, deployment("v1"), deployment("v2"), func(r *admission.Request) { r.DryRun = ptr(true) }))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "headgate_webhook_decisions_total" {
			continue
		}
		got := f.GetMetric()
		if len(got) != 1 || got[0].GetCounter().GetValue() != 1 || got[0].GetLabel()[0].GetValue() != "7" {
			t.Errorf("decisions: %v, want one of row 7", got)
		}
		return
	}
	t.Error("no decision was counted")
}

// The API server takes annotations from writes of the status, too.
func TestAWriteOfTheStatusLeavesTheHoldAlone(t *testing.T) {
	held := deployment("v2", heldBy(1, defaults()))
	status := func(r *admission.Request) { r.SubResource = "status" }
	for name, edit := range map[string]func(*appsv1.Deployment){
		"all annotations wiped": func(d *appsv1.Deployment) { d.Annotations = nil },
		"the hold wiped, the gate opened": func(d *appsv1.Deployment) {
			delete(d.Annotations, v1alpha1.HoldAnnotation)
			d.Annotations[v1alpha1.GateAnnotation] = string(open)
		},
		"another hold":                      func(d *appsv1.Deployment) { d.Annotations[v1alpha1.HoldAnnotation] = "{}" },
		"nothing, and an annotation of its": func(d *appsv1.Deployment) { d.Annotations["team"] = "shop" },
	} {
		t.Run(name, func(t *testing.T) {
			written := held.DeepCopy()
			edit(written)
			written.Status.ReadyReplicas = 7
			req := admissionOf(t, held, written, status)
			var got appsv1.Deployment
			admitted(t, req, testEdge(t, nil, nil, nil).status(t.Context(), req), &got)
			want := held.DeepCopy()
			want.Status.ReadyReplicas = 7
			if team, ok := written.Annotations["team"]; ok {
				want.Annotations["team"] = team
			}
			if diff := cmp.Diff(want, &got); diff != "" {
				t.Errorf("admitted (-want +got):\n%s", diff)
			}
		})
	}
	garbage := admissionOf(t, held, held, status, func(r *admission.Request) { r.Object.Raw = []byte("{") })
	if testEdge(t, nil, nil, nil).status(t.Context(), garbage).Allowed {
		t.Error("a status that can't be read was admitted: it may wipe the hold")
	}
}

// A namespace that was created while the cache was cut off from the API server is one all the same.
func TestANamespaceThatTheCacheHasNotSeen(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "new", Labels: map[string]string{v1alpha1.EnabledLabel: "true"}}}
	e := testEdge(t, nil, []client.Object{ns}, nil)
	if _, enabled, err := e.namespace(t.Context(), "new"); !enabled || err != nil {
		t.Errorf("enabled %t, error %v; want true, none", enabled, err)
	}
	if _, _, err := e.namespace(t.Context(), "gone"); err == nil {
		t.Error("a namespace that nobody knows is no error")
	}
}
