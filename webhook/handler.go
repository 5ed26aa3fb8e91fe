// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// The paths under which the webhooks are served.
const (
	DeploymentsPath = "/mutate-deployments"
	PodsPath        = "/mutate-pods"
	ScalePath       = "/mutate-scale"
	StatusPath      = "/mutate-status"
)

// Config is what the webhooks need to know besides the cluster.
type Config struct {
	// ControllerUser is the user name of Headgate's controller, the only one whose word in the hold
	// annotation counts.
	ControllerUser string
	// Autoscalers are the user names whose decreases through the scale subresource are raised while a workload is held.
	Autoscalers []string
	// SystemNamespace is Headgate's own; nothing there is ever touched.
	SystemNamespace string
	// Injection is what every injection has in common: images and addresses. The rest is filled in for
	// each pod.
	Injection InjectConfig
	// CA gives the current PEM bundle by which sidecars know the xDS server; nil: Injection.CA.
	CA func() string
	// Releasing says that every hold is to end: then no policy counts. Nil: never.
	Releasing func(context.Context) bool
	// Deleted are the policies that may be about to come back; nil: what is deleted counts no more.
	Deleted *DeletedPolicies
	// Registerer takes the metrics; nil: the default one.
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Register serves the webhooks on the manager's webhook server, and makes its cache find ReplicaSets and
// pods by their owner. To be called before the manager starts.
func Register(mgr ctrl.Manager, cfg Config) error {
	if err := indexOwners(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return err
	}
	handlers, err := Handlers(mgr.GetClient(), mgr.GetAPIReader(), cfg)
	if err != nil {
		return err
	}
	server := mgr.GetWebhookServer()
	for path, handler := range handlers {
		server.Register(path, &admission.Webhook{Handler: handler})
	}
	return nil
}

// Handlers are the webhooks by their paths. cache answers by OwnerIndex; live asks the API server, for what
// is too new to be in the cache.
func Handlers(cache, live client.Reader, cfg Config) (map[string]admission.Handler, error) {
	e, err := newEdge(gatherer{cache: cache, live: live, deleted: cfg.Deleted}, cfg)
	if err != nil {
		return nil, err
	}
	return map[string]admission.Handler{
		DeploymentsPath: admission.HandlerFunc(e.deployments),
		PodsPath:        admission.HandlerFunc(e.pods),
		ScalePath:       admission.HandlerFunc(e.scale),
		StatusPath:      admission.HandlerFunc(e.status),
	}, nil
}

// edge is the impure part: it decodes, gathers, asks a pure function, and answers with a patch.
type edge struct {
	gatherer
	cfg     Config
	metrics *metrics
}

func newEdge(g gatherer, cfg Config) (*edge, error) {
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.DefaultRegisterer
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &edge{gatherer: g, cfg: cfg, metrics: m}, nil
}

// errSkip says that a request is none of Headgate's business: it is admitted as it is.
var errSkip = errors.New("not a request to decide about")

// deployments answers for updates of Deployments. What can't be decided is refused: the user sees why,
// and nothing slips past.
func (e *edge) deployments(ctx context.Context, req admission.Request) admission.Response {
	start := e.cfg.Now()
	defer func() { e.metrics.observe("deployments", start, e.cfg.Now()) }()
	in, err := e.holdInput(ctx, req)
	if errors.Is(err, errSkip) {
		return admission.Allowed("")
	}
	if err != nil {
		e.metrics.decisions.WithLabelValues("error").Inc()
		log.FromContext(ctx).Error(err, "Deciding about a Deployment")
		return admission.Errored(http.StatusInternalServerError, fmt.Errorf("headgate could not decide whether to hold this update, so it is refused; try again: %w", err))
	}
	d := DecideHold(in)
	if !isDryRun(req) {
		e.metrics.decisions.WithLabelValues(string(d.Row)).Inc()
		if d.Row != RowNothing && d.Row != RowHeld {
			log.FromContext(ctx).Info("Decided about a Deployment", "row", d.Row, "action", d.Action, "reason", d.Reason, "user", req.UserInfo.Username)
		}
	}
	resp := patchResponse(in.New, d.Deployment).WithWarnings(d.Warnings...)
	resp.AuditAnnotations = map[string]string{"row": string(d.Row), "action": string(d.Action)}
	return resp
}

// holdInput gathers what DecideHold looks at; pods and autoscalers only where a new template makes them matter.
func (e *edge) holdInput(ctx context.Context, req admission.Request) (HoldInput, error) {
	in := HoldInput{Old: &appsv1.Deployment{}, New: &appsv1.Deployment{}, ByController: req.UserInfo.Username == e.cfg.ControllerUser, Now: e.cfg.Now()}
	ns, err := e.decodeUpdate(ctx, req, in.Old, in.New)
	if err != nil {
		return in, err
	}
	selection, err := e.policy(ctx, req.Namespace, in.New.Labels, in.Now)
	if err != nil {
		return in, err
	}
	if e.cfg.Releasing == nil || !e.cfg.Releasing(ctx) {
		in.Policy, in.PolicyTrouble = selection.Spec, selection.trouble()
	}
	if in.Record, err = e.record(ctx, types.NamespacedName{Namespace: req.Namespace, Name: req.Name}); err != nil {
		return in, err
	}
	if in.ReplicaSets, err = e.replicaSets(ctx, in.Old); err != nil {
		return in, err
	}
	if EqualTemplate(&in.Old.Spec.Template, &in.New.Spec.Template) {
		return in, nil
	}
	err = e.seeNewTemplate(ctx, ns, &in)
	return in, err
}

// decodeUpdate reads both Deployments and their namespace; errSkip unless this is an update of a Deployment
// that Headgate may hold.
func (e *edge) decodeUpdate(ctx context.Context, req admission.Request, old, obj *appsv1.Deployment) (*corev1.Namespace, error) {
	if req.Operation != admissionv1.Update || req.SubResource != "" || req.Namespace == e.cfg.SystemNamespace {
		return nil, errSkip
	}
	if err := decode(req, old, obj); err != nil {
		return nil, err
	}
	if obj.DeletionTimestamp != nil {
		return nil, errSkip
	}
	ns, enabled, err := e.namespace(ctx, req.Namespace)
	if err != nil {
		return nil, err
	}
	if !enabled {
		return nil, errSkip
	}
	return ns, nil
}

// seeNewTemplate adds what matters only when the template is another one: autoscalers, stable's pods, and
// whether requests can be split between them and the candidate's.
func (e *edge) seeNewTemplate(ctx context.Context, ns *corev1.Namespace, in *HoldInput) error {
	hpa, err := e.autoscaler(ctx, in.Old)
	if err != nil {
		return err
	}
	in.Autoscaled = hpa != nil
	stable, err := e.stablePods(ctx, in)
	if err != nil {
		return err
	}
	if replicasOf(in.Old) > 0 {
		in.StableDownSince = StableDown(stable, e.nodeReady(ctx))
		if stable, err = e.seeInstead(ctx, in, stable); err != nil {
			return err
		}
	}
	cfg, err := e.injection(ctx, ns, in.New.Spec.Template.Labels, e.injectionFor(in.New.Name, "candidate"))
	if err != nil {
		return err
	}
	in.Split = splitFrom(in, stable).to(SplitToCandidate(&in.New.Spec.Template, cfg))
	return nil
}

// stablePods are the pods of stable, read live where those of the cache would let the update out unjudged: a watch that stands still,
// as it may for the better part of a minute, still shows an outage that is over.
func (e *edge) stablePods(ctx context.Context, in *HoldInput) ([]corev1.Pod, error) {
	rs := StableReplicaSet(in.Old, in.Record, in.ReplicaSets)
	cached, err := e.gatherer.pods(ctx, rs)
	if err != nil || rs == nil || splitFrom(in, cached).Possible && !stableIsDownSince(StableDown(cached, e.nodeReady(ctx)), in.Now) {
		return cached, err
	}
	return e.livePods(ctx, rs)
}

// seeInstead looks at another revision where stable has no pods, or none that serves for so long that nothing would be held
// for it: an update must not go out unjudged while there is something to compare it with. The answer is that one's
// pods, or stable's.
func (e *edge) seeInstead(ctx context.Context, in *HoldInput, stable []corev1.Pod) ([]corev1.Pod, error) {
	alive := len(selectPods(stable, func(*corev1.Pod) bool { return true })) > 0
	if alive && !stableIsDownSince(in.StableDownSince, in.Now) {
		return stable, nil
	}
	rs := servesInstead(in.New, in.Record, in.ReplicaSets)
	if rs == nil {
		return stable, nil
	}
	pods, err := e.gatherer.pods(ctx, rs)
	in.Instead, in.StableDownSince = true, StableDown(pods, e.nodeReady(ctx))
	return pods, err
}

// injectionFor is what injections have in common, for one revision of a workload.
func (e *edge) injectionFor(workload, revision string) InjectConfig {
	cfg := e.cfg.Injection
	cfg.Workload, cfg.Revision = workload, revision
	if e.cfg.CA != nil {
		cfg.CA = e.cfg.CA()
	}
	return cfg
}

// decode reads the old and the new object of a request.
func decode(req admission.Request, old, obj any) error {
	if err := json.Unmarshal(req.OldObject.Raw, old); err != nil {
		return fmt.Errorf("decoding the old object: %w", err)
	}
	if err := json.Unmarshal(req.Object.Raw, obj); err != nil {
		return fmt.Errorf("decoding the new object: %w", err)
	}
	return nil
}

// patchResponse admits after as a patch of what was changed in before. Both are typed: what this version
// of the API's types does not know is in neither, so the patch does not touch it.
func patchResponse(before, after runtime.Object) admission.Response {
	b, err := json.Marshal(before)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, fmt.Errorf("encoding the object: %w", err))
	}
	a, err := json.Marshal(after)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, fmt.Errorf("encoding the admitted object: %w", err))
	}
	return admission.PatchResponseFromRaw(b, a)
}

func isDryRun(req admission.Request) bool { return req.DryRun != nil && *req.DryRun }
