// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/controller"
	"github.com/headgate/headgate/webhook"
	"github.com/headgate/headgate/xds"
)

const (
	system         = "headgate-system"
	controllerUser = "system:serviceaccount:headgate-system:headgate"
	// autoscalerUser is the HorizontalPodAutoscaler controller.
	autoscalerUser = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
)

// quietly is a context without a logger.
func quietly() context.Context { return log.IntoContext(context.Background(), logr.Discard()) }

// replica is one process of Headgate: a cache, the webhooks, the xDS server, the controller. All but the
// xDS server is the production code.
type replica struct {
	name   string
	w      *world
	view   *view
	client *apiClient
	frozen until
	down   bool
	leads  bool

	reconciler *controller.Reconciler
	feeder     *controller.Feeder
	hooks      map[string]admission.Handler
	configs    map[string]xds.Workload
	due        time.Time // when the controller asked to be called again
	news       bool      // something happened since the controller's last pass
	// clean says that the last pass saw the newest state of everything and met no fault.
	clean bool
	// current says that the pass that is under way began with the newest state of everything.
	current bool
}

// start makes a process from nothing but its cache: what only the last one's memory knew is lost.
func (r *replica) start() {
	r.view = newView(r.w.api)
	last := r.client
	r.client = &apiClient{reader: reader{r.view.memory}, api: r.w.api, by: controllerUser, known: r.w.oracle.known}
	if last != nil { // what happens to writes does not depend on who writes
		r.client.fault, r.client.skip, r.client.late, r.client.tamper = last.fault, last.skip, last.late, last.tamper
	}
	r.reconciler = &controller.Reconciler{
		Client: r.client, APIReader: liveReader{r.w.api}, Events: noEvents{}, Namespace: system, Deployment: "headgate",
		Now: func() time.Time { return r.w.api.now }, Sidecars: r.w.sidecars, Looks: r.w.analysis,
	}
	r.configs = map[string]xds.Workload{}
	r.feeder = &controller.Feeder{Reconciler: r.reconciler, Sink: sink{r}}
	own := types.NamespacedName{Namespace: system, Name: "headgate"}
	hooks, err := webhook.Handlers(reader{r.view.memory}, liveReader{r.w.api}, webhook.Config{
		ControllerUser: controllerUser, Autoscalers: []string{autoscalerUser}, SystemNamespace: system, Registerer: prometheus.NewRegistry(),
		Injection: webhook.InjectConfig{Image: "proxy", XDSAddress: "headgate.headgate-system.svc:15610", XDSName: "headgate.headgate-system.svc", CA: "PEM"},
		Releasing: func(ctx context.Context) bool { return controller.Releasing(ctx, reader{r.view.memory}, own) },
		Now:       func() time.Time { return r.w.api.now },
	})
	if err != nil {
		panic(err) // the metrics of a new registry can't collide
	}
	r.hooks, r.news, r.frozen = hooks, true, until{}
	r.catchUp()
}

func (r *replica) catchUp() {
	if r.view.catchUp(func(k kind) bool { return r.w.api.now.Before(r.frozen[k]) || r.w.api.now.Before(r.frozen["all"]) }) {
		r.news = true
	}
}

// fresh says whether the cache has seen everything.
func (r *replica) fresh() bool {
	for k, log := range r.w.api.log {
		if r.view.seen[k] < len(log) {
			return false
		}
	}
	return true
}

// step lets the process do what it has to do now.
func (r *replica) step() {
	r.clean, r.w.acting = false, r
	r.client.arrive()
	if r.down {
		return
	}
	r.catchUp()
	if r.news {
		_, _ = r.feeder.Reconcile(quietly(), ctrl.Request{NamespacedName: webKey})
	}
	if !r.leads || (!r.news && r.w.api.now.Before(r.due)) {
		r.news = r.news && r.leads
		return
	}
	r.news = false
	r.reconcile()
}

func (r *replica) reconcile() {
	defer func() {
		if p := recover(); p != nil {
			if _, died := p.(crash); !died {
				panic(p)
			}
			r.start()
		}
	}()
	fresh, failed := r.fresh(), r.client.failed
	r.current = fresh
	result, err := r.reconciler.Reconcile(quietly(), ctrl.Request{NamespacedName: webKey})
	r.due = r.w.api.now.Add(result.RequeueAfter)
	switch {
	case err != nil:
		r.due = r.w.api.now.Add(time.Second) // the back-off of a failure
	case result.RequeueAfter == 0:
		r.due = r.w.api.now.Add(10 * time.Hour) // the resync of the cache
	}
	r.clean = fresh && failed == r.client.failed && err == nil
	r.w.oracle.passed(r, failed != r.client.failed)
}

// sink is the xDS server's part: what the sidecars of each revision are told.
type sink struct{ r *replica }

// Set implements controller.Configurations.
func (s sink) Set(x xds.Workload) error {
	s.r.configs[x.Revision] = x
	return nil
}

// Forget implements controller.Configurations.
func (s sink) Forget(_, _, revision string) { delete(s.r.configs, revision) }

// noEvents drops what users would read.
type noEvents struct{}

// Eventf implements events.EventRecorder.
func (noEvents) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

// admission calls the webhooks as their configuration says.
type admissionChain struct {
	w *world
	// hooksDown: the Service of the webhooks does not answer. podsTimeOut: only that for pods.
	hooksDown, podsTimeOut bool
	// again: another webhook changes the object after ours, so that ours is called twice.
	again bool
	// tamper and tamperPod, if set, change what the webhooks admit: a bug that is built in.
	tamper    func(before, after *appsv1.Deployment)
	tamperPod func(*corev1.Pod)
	// decided is the row of the last decision about a Deployment.
	decided map[string]string
}

var errWebhookDown = errors.New("failed calling webhook: no answer")

func (a *admissionChain) enabled() bool {
	ns, ok := a.w.api.memory["namespaces"][keyOf("", "shop")].(*corev1.Namespace)
	return ok && ns.Labels[v1alpha1.EnabledLabel] == "true"
}

// handler is the one of a replica that is up, of both in turn; nil when there is none.
func (a *admissionChain) handler(path string) admission.Handler {
	if a.hooksDown || (a.podsTimeOut && path == webhook.PodsPath) {
		return nil
	}
	for i := range a.w.replicas {
		r := a.w.replicas[(i+int(a.w.api.version))%len(a.w.replicas)]
		if !r.down {
			r.catchUp()
			return r.hooks[path]
		}
	}
	return nil
}

// deployment implements admitter: failurePolicy Fail; matchConditions: spec changed, or held.
func (a *admissionChain) deployment(by string, before, after *appsv1.Deployment) (*appsv1.Deployment, error) {
	a.decided = nil
	held := before.Annotations[v1alpha1.HoldAnnotation] != "" || after.Annotations[v1alpha1.HoldAnnotation] != ""
	if before.Namespace == system || !a.enabled() || (!held && apiequality.Semantic.DeepEqual(before.Spec, after.Spec)) {
		return after, nil
	}
	times := 1
	if a.again {
		times = 2
	}
	for range times {
		h := a.handler(webhook.DeploymentsPath)
		if h == nil {
			return nil, apierrors.NewInternalError(errWebhookDown)
		}
		next := &appsv1.Deployment{}
		audit, err := call(h, request(by, admissionv1.Update, "", before, after), next)
		if err != nil {
			return nil, err
		}
		if a.decided == nil {
			a.decided = audit
		}
		after = next
	}
	if a.tamper != nil {
		a.tamper(before, after)
	}
	return after, nil
}

// pod implements admitter: failurePolicy Ignore.
func (a *admissionChain) pod(by string, pod *corev1.Pod) (*corev1.Pod, error) {
	if !a.enabled() {
		return pod, nil
	}
	h := a.handler(webhook.PodsPath)
	if h == nil {
		return pod, nil
	}
	next := &corev1.Pod{}
	_, err := call(h, request(by, admissionv1.Create, "", nil, pod), next)
	if a.tamperPod != nil {
		a.tamperPod(next)
	}
	return next, err
}

// scale implements admitter: failurePolicy Ignore.
func (a *admissionChain) scale(by string, d *appsv1.Deployment, to int32) (int32, error) {
	h := a.handler(webhook.ScalePath)
	if !a.enabled() || h == nil {
		return to, nil
	}
	of := func(n int32) *autoscalingv1.Scale {
		s := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: n}}
		s.Namespace, s.Name = d.Namespace, d.Name
		return s
	}
	next := &autoscalingv1.Scale{}
	_, err := call(h, request(by, admissionv1.Update, "scale", of(*d.Spec.Replicas), of(to)), next)
	return next.Spec.Replicas, err
}

func request(by string, op admissionv1.Operation, subresource string, before, after client.Object) admission.Request {
	raw := func(o any) runtime.RawExtension {
		b, err := json.Marshal(o)
		if err != nil {
			panic(err) // typed objects can be encoded
		}
		return runtime.RawExtension{Raw: b}
	}
	req := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: op, SubResource: subresource, Namespace: after.GetNamespace(), Name: after.GetName(),
		UserInfo: authenticationv1.UserInfo{Username: by}, Object: raw(after),
	}}
	if op == admissionv1.Update {
		req.OldObject = raw(before)
	}
	return req
}

// call asks a webhook and applies its patch.
func call(h admission.Handler, req admission.Request, into any) (map[string]string, error) {
	resp := h.Handle(quietly(), req)
	if !resp.Allowed {
		return nil, apierrors.NewInternalError(fmt.Errorf("admission webhook denied the request: %s", resp.Result.Message))
	}
	raw := req.Object.Raw
	if len(resp.Patches) > 0 {
		data, err := json.Marshal(resp.Patches)
		if err != nil {
			return nil, err
		}
		p, err := jsonpatch.DecodePatch(data)
		if err != nil {
			return nil, err
		}
		if raw, err = p.Apply(raw); err != nil {
			return nil, fmt.Errorf("applying the webhook's patch: %w", err)
		}
	}
	return resp.AuditAnnotations, json.Unmarshal(raw, into)
}
