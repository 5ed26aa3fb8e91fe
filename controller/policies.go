// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/webhook"
)

// Policies says in the conditions of policies whether they are in use. Runs on the leader. A request is a
// namespace, whose policies one pass looks at together; the empty one is the cluster's.
type Policies struct {
	Client client.Client
	// Prometheus is the one for policies that name none; the zero value: their queries are not checked.
	Prometheus Endpoint
	// Check asks a Prometheus about a query; prometheus.ErrBadQuery says that the query is wrong. It is
	// called by several goroutines at once, each about another namespace.
	Check func(ctx context.Context, e Endpoint, q prometheus.Query) error

	mu      sync.Mutex
	checked map[string]checks // by namespace
}

// SetupPolicies registers the controller of policies' conditions.
func SetupPolicies(mgr ctrl.Manager, p *Policies) error {
	// Which policies meet on a workload depends on its labels and on its namespace's alone; whether the
	// cluster's policies meet there, on the namespace's own policies too.
	inside := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{policiesOf(o.GetNamespace()), policiesOf("")}
	})
	itself := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{policiesOf(o.GetName()), policiesOf("")}
	})
	cluster := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{policiesOf("")}
	})
	err := ctrl.NewControllerManagedBy(mgr).Named("policies").
		Watches(&v1alpha1.RolloutPolicy{}, inside).
		Watches(&v1alpha1.ClusterRolloutPolicy{}, cluster).
		Watches(&appsv1.Deployment{}, inside, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&corev1.Namespace{}, itself, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&v1alpha1.MetricTemplate{}, inside).
		Watches(&v1alpha1.ClusterMetricTemplate{}, handler.EnqueueRequestsFromMapFunc(p.everywhere)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 8}).
		Complete(p)
	if err != nil {
		return fmt.Errorf("setting up the controller of policies: %w", err)
	}
	return nil
}

// everywhere asks for a pass over every namespace that has policies, and over those of the cluster.
func (p *Policies) everywhere(ctx context.Context, _ client.Object) []reconcile.Request {
	out := []reconcile.Request{policiesOf("")}
	var list v1alpha1.RolloutPolicyList
	if err := p.Client.List(ctx, &list); err != nil {
		return nil // a cache that can't list is not synced yet; every policy is looked at when it is
	}
	for _, policy := range list.Items {
		out = append(out, policiesOf(policy.Namespace)) // the queue holds each once
	}
	return out
}

// policiesOf asks for a pass over the policies of a namespace; "": over those of the cluster.
func policiesOf(ns string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: ns}}
}

// Reconcile looks at all policies of a namespace: few, and in the cache. Their conditions are written
// even when there was no time to check all queries.
func (p *Policies) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	view, err := p.gather(ctx, req.Namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	subjects := view.subjects(req.Namespace)
	for i := range subjects {
		s := &subjects[i]
		if s.spec, s.wrong, err = resolve(ctx, p.Client, req.Namespace, s.spec); err != nil {
			return ctrl.Result{}, err
		}
	}
	var checked checks
	var again time.Duration
	used := req.Namespace == "" || view.enabled[req.Namespace]
	if used { // nobody else should have an address asked by writing a policy
		checked, again = p.check(ctx, req.Namespace, subjects)
	}
	conflicts := view.conflicts()
	var errs []error
	for _, s := range subjects {
		c := accepted(s.spec, cmp.Or(s.wrong, p.wrongQuery(req.Namespace, s.spec, checked)), conflicts[s.name], used)
		errs = append(errs, p.write(ctx, s.object, s.status, c))
	}
	if err := errors.Join(errs...); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// subject is a policy of either kind.
type subject struct {
	object client.Object
	name   string                      // as in conflicts
	spec   *v1alpha1.RolloutPolicySpec // with its templates in it
	status *v1alpha1.PolicyStatus
	wrong  string // what is wrong with a template; empty: nothing
}

// subjects are the policies whose conditions a pass writes.
func (v policyView) subjects(ns string) []subject {
	var out []subject
	if ns == "" {
		for i := range v.cluster {
			o := &v.cluster[i]
			out = append(out, subject{object: o, name: "clusterrolloutpolicy/" + o.Name, spec: &o.Spec, status: &o.Status})
		}
		return out
	}
	for i := range v.namespaced {
		o := &v.namespaced[i]
		out = append(out, subject{object: o, name: "rolloutpolicy/" + ns + "/" + o.Name, spec: &o.Spec, status: &o.Status})
	}
	return out
}

// maxCondition is how many bytes of a condition's message are written. The API server takes 32768 characters; a Prometheus may
// answer with more, and people read the first.
const maxCondition = 4096

func (p *Policies) write(ctx context.Context, o client.Object, s *v1alpha1.PolicyStatus, c metav1.Condition) error {
	before := s.DeepCopy()
	c.Message = shorten(c.Message, maxCondition)
	c.ObservedGeneration, s.ObservedGeneration = o.GetGeneration(), o.GetGeneration()
	meta.SetStatusCondition(&s.Conditions, c)
	if apiequality.Semantic.DeepEqual(before, s) {
		return nil
	}
	if err := p.Client.Status().Update(ctx, o); err != nil && !conflict(err) {
		return client.IgnoreNotFound(fmt.Errorf("writing the conditions of policy %s: %w", o.GetName(), err))
	}
	return nil
}

// policyView is the policies that a pass is about, and what they may select in enabled namespaces.
type policyView struct {
	namespaced  []v1alpha1.RolloutPolicy // in a pass over the cluster's: those of all namespaces, which win over them
	cluster     []v1alpha1.ClusterRolloutPolicy
	deployments []appsv1.Deployment
	enabled     map[string]bool // namespaces
}

func (p *Policies) gather(ctx context.Context, ns string) (policyView, error) {
	var v policyView
	var namespaced v1alpha1.RolloutPolicyList
	var cluster v1alpha1.ClusterRolloutPolicyList
	var namespaces corev1.NamespaceList
	var deployments appsv1.DeploymentList
	for _, list := range []client.ObjectList{&namespaced, &deployments} {
		if err := p.Client.List(ctx, list, client.InNamespace(ns)); err != nil {
			return v, fmt.Errorf("listing %T: %w", list, err)
		}
	}
	for _, list := range []client.ObjectList{&namespaces, &cluster} {
		if err := p.Client.List(ctx, list); err != nil {
			return v, fmt.Errorf("listing %T: %w", list, err)
		}
	}
	v.enabled = map[string]bool{}
	for _, ns := range namespaces.Items {
		v.enabled[ns.Name] = ns.Labels[v1alpha1.EnabledLabel] == "true"
	}
	v.namespaced, v.cluster = namespaced.Items, cluster.Items
	v.deployments = slices.DeleteFunc(deployments.Items, func(d appsv1.Deployment) bool { return !v.enabled[d.Namespace] })
	return v, nil
}

// conflicts are sentences by policy: both sides of a conflict get one.
func (v policyView) conflicts() map[string]string {
	byNamespace := map[string][]v1alpha1.RolloutPolicy{}
	for _, p := range v.namespaced {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	pairs := map[[2]string][]string{} // winner, loser: workloads
	for _, d := range v.deployments {
		s := webhook.SelectPolicy(byNamespace[d.Namespace], v.cluster, d.Labels)
		for _, loser := range s.Conflicts {
			pair := [2]string{qualified(s.Name, d.Namespace), qualified(loser, d.Namespace)}
			pairs[pair] = append(pairs[pair], d.Namespace+"/"+d.Name)
		}
	}
	sentences := map[string][]string{}
	for pair, workloads := range pairs {
		slices.Sort(workloads)
		on := workloads[0]
		if len(workloads) > 1 {
			on += " and others"
		}
		sentences[pair[0]] = append(sentences[pair[0]], fmt.Sprintf("%s selects %s too; this one is older and wins", pair[1], on))
		sentences[pair[1]] = append(sentences[pair[1]], fmt.Sprintf("%s selects %s too; it is older and wins", pair[0], on))
	}
	out := map[string]string{}
	for name, s := range sentences {
		slices.Sort(s)
		out[name] = strings.Join(s, "; ")
	}
	return out
}

// qualified puts the namespace into the name of a namespaced policy.
func qualified(name, namespace string) string {
	if kind, rest, ok := strings.Cut(name, "/"); ok && kind == "rolloutpolicy" {
		return kind + "/" + namespace + "/" + rest
	}
	return name
}

// accepted is a policy's condition: what makes it unusable comes before what it meets. used: it is for enabled namespaces.
func accepted(spec *v1alpha1.RolloutPolicySpec, wrongQuery, conflict string, used bool) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAccepted}
	if wrong := cmp.Or(policy.Invalid(spec), wrongQuery); wrong != "" {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonInvalid, wrong
		return c
	}
	switch {
	case !used:
		c.Message = "not in use: the namespace is not enabled, and queries are not checked"
	case spec.Suspend:
		c.Message = "suspended"
	default:
		c.Message = "can be used"
	}
	if unjudged := policy.Unjudged(spec); unjudged != "" {
		c.Message += "; " + unjudged
	}
	if conflict != "" {
		c.Reason, c.Message = v1alpha1.ReasonConflict, conflict
	}
	return c
}
