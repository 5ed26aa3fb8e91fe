// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

func ptr[T any](v T) *T { return &v }

func template(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
}

func owned(kind, name string, uid types.UID) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: uid, Controller: ptr(true)}}
}

// web is shop/web with template v2 as its user wrote it.
func web() *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "d-uid", Annotations: map[string]string{"team": "shop"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr(int32(4)), Template: template("v2"), ProgressDeadlineSeconds: ptr(int32(600)),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: ptr(intstr.FromString("25%")), MaxUnavailable: ptr(intstr.FromString("25%")),
			}},
		},
	}
}

func hold() v1alpha1.Hold {
	d := web()
	return v1alpha1.Hold{K: 2, Template: webhook.TemplateDigest(d.Spec.Template), User: webhook.FieldsOf(d), UID: d.UID}
}

// heldWeb is shop/web in a hold.
func heldWeb(change ...func(*appsv1.Deployment)) *appsv1.Deployment {
	d := webhook.Render(web(), hold(), nil)
	for _, f := range change {
		f(d)
	}
	return d
}

func replicaSet(hash, image string) *appsv1.ReplicaSet {
	t := template(image)
	t.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-" + hash, UID: types.UID("rs-" + hash), Labels: t.Labels, OwnerReferences: owned("Deployment", "web", "d-uid")},
		Spec:       appsv1.ReplicaSetSpec{Template: t, Selector: &metav1.LabelSelector{MatchLabels: t.Labels}},
	}
}

func gatedPod(hash, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, OwnerReferences: owned("ReplicaSet", "web-"+hash, types.UID("rs-"+hash)),
			Labels: map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: hash},
		},
		Spec: corev1.PodSpec{ReadinessGates: []corev1.PodReadinessGate{{ConditionType: v1alpha1.GateCondition}}},
	}
}

func record(phase v1alpha1.Phase, change ...func(*v1alpha1.Rollout)) *v1alpha1.Rollout {
	r := &v1alpha1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Status:     v1alpha1.RolloutStatus{DeploymentUID: "d-uid", Phase: phase, Stable: v1alpha1.Revision{Hash: "aaa"}, Candidate: v1alpha1.Revision{Hash: "bbb"}, Hold: hold().String()},
	}
	for _, f := range change {
		f(r)
	}
	return r
}

// controlPlane is Headgate's own Deployment with so many ready replicas.
func controlPlane(ready int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "headgate-system", Name: "headgate", UID: "own"},
		Spec:       appsv1.DeploymentSpec{Replicas: ptr(int32(2))}, Status: appsv1.DeploymentStatus{ReadyReplicas: ready},
	}
}

func webhooks() *admissionv1.MutatingWebhookConfiguration {
	return &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "zz-headgate"}}
}

func cluster(t *testing.T, objects ...client.Object) *fake.ClientBuilder {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return fake.NewClientBuilder().WithScheme(s).WithObjects(objects...).
		WithStatusSubresource(&appsv1.Deployment{}, &v1alpha1.Rollout{}, &corev1.Pod{})
}

func options(c client.Client) (Options, *strings.Builder) {
	out := &strings.Builder{}
	return Options{
		Client: c, Namespace: "headgate-system", Deployment: "headgate", WebhookConfiguration: "zz-headgate", PolicyBinding: "headgate-candidates",
		Patience: 10 * time.Second, Out: out,
	}, out
}

// all is All in played time: what was released is looked at again.
func all(t *testing.T, o Options) error {
	t.Helper()
	var err error
	synctest.Test(t, func(t *testing.T) { err = All(t.Context(), o) })
	return err
}

func stored[T client.Object](t *testing.T, c client.Client, o T) T {
	t.Helper()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatalf("reading %T back: %v", o, err)
	}
	return o
}

// outcome is what is left of shop/web.
type outcome struct {
	Image, Surge, Unavailable string
	Deadline                  int32
	Annotations               map[string]string
	Open                      []string // pods with an open gate
}

func outcomeOf(t *testing.T, c client.Client) outcome {
	t.Helper()
	d := stored(t, c, web())
	got := outcome{
		Image: d.Spec.Template.Spec.Containers[0].Image, Deadline: *d.Spec.ProgressDeadlineSeconds, Annotations: d.Annotations,
		Surge: d.Spec.Strategy.RollingUpdate.MaxSurge.String(), Unavailable: d.Spec.Strategy.RollingUpdate.MaxUnavailable.String(),
	}
	var pods corev1.PodList
	if err := c.List(t.Context(), &pods); err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		if slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == v1alpha1.GateCondition && c.Status == "True" }) {
			got.Open = append(got.Open, pod.Name)
		}
	}
	return got
}

// What is let out by direct writes must be able to start.
func TestWhatKeepsCandidatesOutGoesFirst(t *testing.T) {
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "headgate-candidates"}}
	c := cluster(t, heldWeb(), webhooks(), binding).Build()
	o, _ := options(c)
	if err := all(t, o); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(binding), binding); !apierrors.IsNotFound(err) {
		t.Errorf("reading the binding: %v, want that it is gone", err)
	}
}

func TestHoldsAreEndedWithoutAControlPlane(t *testing.T) {
	forward := outcome{Image: "v2", Surge: "25%", Unavailable: "25%", Deadline: 600, Annotations: map[string]string{"team": "shop"}, Open: []string{"c1", "c2"}}
	back := forward
	back.Image, back.Open = "v1", []string{"s1"}
	lost := forward
	lost.Surge, lost.Unavailable, lost.Deadline = "2", "0", v1alpha1.HeldProgressDeadlineSeconds
	wiped := func(d *appsv1.Deployment) { delete(d.Annotations, v1alpha1.HoldAnnotation) }
	undone := func(d *appsv1.Deployment) { d.Annotations = map[string]string{"team": "shop"} }
	unreadable := func(d *appsv1.Deployment) { d.Annotations[v1alpha1.HoldAnnotation] = "{" }
	paused := func(d *appsv1.Deployment) { d.Spec.Paused = true }
	waitingBack := func(d *appsv1.Deployment) {
		h := hold()
		h.Release = v1alpha1.ReleaseBack
		d.Annotations[v1alpha1.HoldAnnotation] = h.String()
	}
	another := func(r *v1alpha1.Rollout) { r.Status.DeploymentUID = "old" }
	for name, tc := range map[string]struct {
		held   *appsv1.Deployment
		record *v1alpha1.Rollout
		want   outcome
		says   string
	}{
		"forward, where nothing speaks against the candidate": {heldWeb(), record(v1alpha1.PhaseStepping), forward, "Deployment shop/web: released forward\n"},
		"forward without a record":                            {heldWeb(), nil, forward, "released forward"},
		"forward where the record is another Deployment's":    {heldWeb(), record(v1alpha1.PhaseQuarantined, another), forward, "released forward"},
		"back, where the candidate failed":                    {heldWeb(), record(v1alpha1.PhaseQuarantined), back, "Deployment shop/web: released back, its candidate had failed\n"},
		"back, while it is rolled back":                       {heldWeb(), record(v1alpha1.PhaseRollingBack), back, "released back"},
		"back, where that waited for the user to resume":      {heldWeb(waitingBack, paused), record(v1alpha1.PhaseIdle), back, "released back"},
		"paused: the user's fields all the same":              {heldWeb(paused), record(v1alpha1.PhasePaused), forward, "released forward"},
		"a hold that was wiped: from the record":              {heldWeb(wiped), record(v1alpha1.PhaseStepping), forward, "released forward"},
		"all annotations dropped by an undo: from the record": {heldWeb(undone), record(v1alpha1.PhaseStepping), forward, "released forward"},
		"a hold that can't be read: from the record":          {heldWeb(unreadable), record(v1alpha1.PhaseQuarantined), back, "released back"},
		"a hold that nobody knows: the user is told":          {heldWeb(unreadable), nil, lost, "check its strategy and progressDeadlineSeconds"},
		"only annotations are left": {func() *appsv1.Deployment {
			return heldWeb(func(d *appsv1.Deployment) { d.Spec = web().Spec }, wiped)
		}(), record(v1alpha1.PhaseIdle), forward, "annotations removed\n"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []client.Object{tc.held, webhooks(), controlPlane(0), replicaSet("aaa", "v1"), replicaSet("bbb", "v2"), gatedPod("aaa", "s1"), gatedPod("bbb", "c1"), gatedPod("bbb", "c2")}
			if tc.record != nil {
				objects = append(objects, tc.record)
			}
			c := cluster(t, objects...).Build()
			o, out := options(c)
			if err := all(t, o); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, outcomeOf(t, c)); d != "" {
				t.Errorf("shop/web (-want +got):\n%s", d)
			}
			if !strings.Contains(out.String(), tc.says) {
				t.Errorf("it says %q, want %q in it", out, tc.says)
			}
			if got := stored(t, c, web()).Spec.Paused; got != tc.held.Spec.Paused {
				t.Errorf("paused is %t; that is the user's", got)
			}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(webhooks()), webhooks()); !apierrors.IsNotFound(err) {
				t.Errorf("the webhooks are still there (%v)", err)
			}
			if n := *stored(t, c, controlPlane(0)).Spec.Replicas; (n == 0) != held(*tc.held) {
				t.Errorf("the control plane has %d replicas; it must not put holds back", n)
			}
		})
	}
}

// A control plane that comes back must not go on with a rollout that was ended without it.
func TestWhatWasReleasedIsNotTakenUpAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		phase   v1alpha1.Phase
		letOut  string // the revision
		history []v1alpha1.Outcome
	}{
		"released forward": {v1alpha1.PhaseStepping, "bbb", []v1alpha1.Outcome{v1alpha1.OutcomePromoted, v1alpha1.OutcomeReleased}},
		"released back":    {v1alpha1.PhaseQuarantined, "aaa", []v1alpha1.Outcome{v1alpha1.OutcomePromoted}},
	} {
		t.Run(name, func(t *testing.T) {
			before := record(tc.phase, func(r *v1alpha1.Rollout) {
				r.Status.Weight, r.Status.History = 10, []v1alpha1.HistoryEntry{{Outcome: v1alpha1.OutcomePromoted, To: "aaa"}}
			})
			c := cluster(t, heldWeb(), webhooks(), controlPlane(0), replicaSet("aaa", "v1"), replicaSet("bbb", "v2"), before).Build()
			o, _ := options(c)
			if err := all(t, o); err != nil {
				t.Fatal(err)
			}
			s := stored(t, c, record("")).Status
			var outcomes []v1alpha1.Outcome
			for _, h := range s.History {
				outcomes = append(outcomes, h.Outcome)
			}
			if d := cmp.Diff(tc.history, outcomes); d != "" {
				t.Errorf("history (-want +got):\n%s", d)
			}
			s.History, s.PhaseSince = nil, nil
			if d := cmp.Diff(v1alpha1.RolloutStatus{DeploymentUID: "d-uid", Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Hash: "aaa"}}, s); d != "" {
				t.Errorf("the record (-want +got):\n%s", d)
			}
			rs := stored(t, c, replicaSet(tc.letOut, ""))
			digest := webhook.TemplateDigest(stored(t, c, web()).Spec.Template)
			if got := webhook.GateOf(rs.Annotations, digest); got != v1alpha1.GateOpen {
				t.Errorf("the revision that was let out has the gate %q", got)
			}
		})
	}
}

func TestALivingControlPlaneReleasesItself(t *testing.T) {
	c := cluster(t, heldWeb(), webhooks(), controlPlane(2), record(v1alpha1.PhaseStepping)).Build()
	// It does its work as soon as it is asked.
	asked := interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if err := c.Patch(ctx, o, p, opts...); err != nil {
				return err
			}
			if o.GetAnnotations()[v1alpha1.ReleaseAnnotation] != "true" {
				t.Errorf("%s was patched to %v without a wish", o.GetName(), o)
			}
			atRest := record(v1alpha1.PhaseIdle)
			atRest.ResourceVersion = stored(t, c, record("")).ResourceVersion
			free := web()
			free.ResourceVersion = stored(t, c, web()).ResourceVersion
			return errors.Join(c.Status().Update(ctx, atRest), c.Update(ctx, free))
		},
	})
	o, out := options(asked)
	if err := all(t, o); err != nil {
		t.Fatal(err)
	}
	if out.String() != "" {
		t.Errorf("there was nothing to tell, but: %s", out)
	}
	if n := *stored(t, c, controlPlane(0)).Spec.Replicas; n != 2 {
		t.Errorf("the control plane has %d replicas; nothing was held any more", n)
	}
}

func TestTheControlPlaneIsAskedAgain(t *testing.T) {
	own := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for name, tc := range map[string]struct {
		answer error
		asked  bool
	}{
		"the API server asks to come back later": {apierrors.NewTooManyRequests("busy", 1), true},
		"it takes too long":                      {context.DeadlineExceeded, true},
		"the control plane is not there":         {apierrors.NewNotFound(own, "headgate"), false},
		"it is not allowed":                      {apierrors.NewForbidden(own, "headgate", nil), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wishes := 0
				c := cluster(t, controlPlane(2)).WithInterceptorFuncs(interceptor.Funcs{
					Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
						if wishes++; wishes == 1 {
							return tc.answer
						}
						return c.Patch(ctx, o, p, opts...)
					},
				}).Build()
				o, _ := options(c)
				err := o.ask(t.Context())
				wish := stored(t, c, controlPlane(0)).Annotations[v1alpha1.ReleaseAnnotation]
				if (err == nil) != tc.asked || (wish == "true") != tc.asked {
					t.Errorf("asked %d times: %v; the wish is %q", wishes, err, wish)
				}
			})
		})
	}
}

func TestOnlyAnAnswerEndsTheWait(t *testing.T) {
	own := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for name, tc := range map[string]struct {
		answer error
		waits  bool
	}{
		"the API server asks to come back later": {apierrors.NewTooManyRequests("busy", 1), true},
		"it takes too long":                      {context.DeadlineExceeded, true},
		"the control plane is not there":         {apierrors.NewNotFound(own, "headgate"), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := 0
				c := cluster(t, heldWeb(), controlPlane(2), record(v1alpha1.PhaseStepping)).WithInterceptorFuncs(interceptor.Funcs{
					Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
						if key.Name != "headgate" {
							return c.Get(ctx, key, o, opts...)
						}
						if answers++; answers == 1 {
							return tc.answer
						}
						// Meanwhile the control plane does its work.
						atRest, free := record(v1alpha1.PhaseIdle), web()
						atRest.ResourceVersion = stored(t, c, record("")).ResourceVersion
						free.ResourceVersion = stored(t, c, web()).ResourceVersion
						return errors.Join(c.Status().Update(ctx, atRest), c.Update(ctx, free), c.Get(ctx, key, o, opts...))
					},
				}).Build()
				o, out := options(c)
				o.waitForControlPlane(t.Context())
				if waited := answers > 1; waited != tc.waits || (out.String() == "") != tc.waits {
					t.Errorf("asked %d times, and says %q", answers, out)
				}
				if free := !held(*stored(t, c, web())); free != tc.waits {
					t.Errorf("released by the control plane: %t, want %t", free, tc.waits)
				}
			})
		})
	}
}

func TestBusyNamesWhatIsHeldOrUnderWay(t *testing.T) {
	under := record(v1alpha1.PhasePromoting)
	under.Name = "api"
	idle := record(v1alpha1.PhaseIdle)
	idle.Name = "old"
	o, _ := options(cluster(t, heldWeb(), record(v1alpha1.PhaseStepping), under, idle).Build())
	got, err := o.busy(t.Context())
	if d := cmp.Diff([]string{"shop/web", "shop/api"}, got); d != "" || err != nil {
		t.Errorf("busy (-want +got), error %v:\n%s", err, d)
	}
}

func TestOneDeploymentDoesNotKeepItFromTheOthers(t *testing.T) {
	other := heldWeb()
	other.Name, other.UID = "api", "api-uid"
	refused := errors.New("refused")
	c := cluster(t, heldWeb(), other, controlPlane(0)).WithInterceptorFuncs(interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if o.GetName() == "api" {
				return refused
			}
			return c.Update(ctx, o, opts...)
		},
	}).Build()
	o, _ := options(c)
	if err := all(t, o); !errors.Is(err, refused) {
		t.Errorf("the error is %v", err)
	}
	if held(*stored(t, c, web())) {
		t.Error("shop/web is still held")
	}
}

func TestWithoutDefinitionsHoldsEndForward(t *testing.T) {
	c := cluster(t, heldWeb()).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, ok := o.(*v1alpha1.Rollout); ok {
				return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "headgate.dev", Kind: "Rollout"}}
			}
			return c.Get(ctx, key, o, opts...)
		},
	}).Build()
	o, out := options(c)
	if err := all(t, o); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "could not be asked") || held(*stored(t, c, web())) {
		t.Errorf("it says %q", out)
	}
}

// The fake client knows no owners of fields, so the API server's part is played here: it adds the entry of
// the writer after the write, and takes entries away only when a write changes nothing else.
func TestNobodyOfHeadgateOwnsFieldsAfterwards(t *testing.T) {
	owners := []metav1.ManagedFieldsEntry{{Manager: "kubectl"}, {Manager: "headgate"}, {Manager: "headgate-direct"}}
	c := cluster(t, heldWeb()).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			o.SetManagedFields(slices.Clone(owners))
			return err
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			before := web()
			if err := c.Get(ctx, client.ObjectKeyFromObject(o), before); err != nil {
				return err
			}
			owners = slices.Clone(o.GetManagedFields())
			if held(*before) {
				owners = append(owners, metav1.ManagedFieldsEntry{Manager: (&client.UpdateOptions{}).ApplyOptions(opts).FieldManager})
			}
			return c.Update(ctx, o, opts...)
		},
	}).Build()
	o, _ := options(c)
	if err := all(t, o); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]metav1.ManagedFieldsEntry{{Manager: "kubectl"}}, owners); d != "" {
		t.Errorf("owners of fields (-want +got):\n%s", d)
	}
}

// elsewhere is the control plane of an installation in another namespace, with the chart's labels, and its webhooks.
func elsewhere() (*appsv1.Deployment, *admissionv1.MutatingWebhookConfiguration) {
	d, w := controlPlane(0), webhooks()
	d.Namespace, d.Labels = "delivery", labels()
	service := &admissionv1.ServiceReference{Namespace: "delivery", Name: "headgate"}
	w.Webhooks = []admissionv1.MutatingWebhook{{Name: "deployments.headgate.dev", ClientConfig: admissionv1.WebhookClientConfig{Service: service}}}
	return d, w
}

// One that is not asked, and not stopped, puts holds back.
func TestTheControlPlaneIsFoundWhereTheWebhooksPoint(t *testing.T) {
	d, w := elsewhere()
	c := cluster(t, heldWeb(), w, d).Build()
	o, _ := options(c)
	o.Namespace = ""
	if err := all(t, o); err != nil {
		t.Fatal(err)
	}
	own := stored(t, c, d)
	if own.Annotations[v1alpha1.ReleaseAnnotation] != "true" || *own.Spec.Replicas != 0 {
		t.Errorf("the control plane was asked by %v, and has %d replicas", own.Annotations, *own.Spec.Replicas)
	}
	if held(*stored(t, c, web())) {
		t.Error("shop/web is still held")
	}
}

func TestAControlPlaneElsewhereIsAnError(t *testing.T) {
	for name, namespace := range map[string]string{"another was given": "shop", "the webhooks are gone": ""} {
		t.Run(name, func(t *testing.T) {
			d, _ := elsewhere()
			c := cluster(t, heldWeb(), webhooks(), d).Build()
			o, _ := options(c)
			o.Namespace = namespace
			err := all(t, o)
			if !errors.Is(err, errElsewhere) || !strings.Contains(err.Error(), "--namespace delivery") {
				t.Errorf("it says %v", err)
			}
			if !held(*stored(t, c, web())) || stored(t, c, webhooks()) == nil {
				t.Error("it did something all the same")
			}
		})
	}
}

func TestWhatIsHeldAgainIsReleasedAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		times int // that a control plane which has not ended yet puts the hold back
		want  error
	}{
		"once":            {1, nil},
		"again and again": {1000, errHeld},
	} {
		t.Run(name, func(t *testing.T) {
			back := 0
			c := cluster(t, heldWeb(), controlPlane(0)).WithInterceptorFuncs(interceptor.Funcs{
				Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
					if err := c.Update(ctx, o, opts...); err != nil || back == tc.times {
						return err
					}
					back++
					again := heldWeb()
					again.ResourceVersion = o.GetResourceVersion()
					return c.Update(ctx, again)
				},
			}).Build()
			o, _ := options(c)
			if err := all(t, o); !errors.Is(err, tc.want) {
				t.Errorf("the error is %v, want %v", err, tc.want)
			}
			if still := held(*stored(t, c, web())); still != (tc.want != nil) {
				t.Errorf("shop/web is held: %t", still)
			}
		})
	}
}

// The API server goes on calling a webhook for a moment after it was removed.
func TestAnUpdateThatIsRefusedIsTriedAgain(t *testing.T) {
	refused := 0
	c := cluster(t, heldWeb(), controlPlane(0)).WithInterceptorFuncs(interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if refused++; refused == 1 {
				return apierrors.NewInternalError(errors.New("failed calling webhook"))
			}
			return c.Update(ctx, o, opts...)
		},
	}).Build()
	o, _ := options(c)
	if err := all(t, o); err != nil {
		t.Fatal(err)
	}
	if held(*stored(t, c, web())) {
		t.Error("shop/web is still held")
	}
}
