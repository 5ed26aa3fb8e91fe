// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

// OwnerIndex finds ReplicaSets and pods by the uid of their controlling owner.
const OwnerIndex = "headgate.webhook.owner"

// indexOwners makes a cache answer by OwnerIndex.
func indexOwners(ctx context.Context, indexer client.FieldIndexer) error {
	for _, o := range []client.Object{&appsv1.ReplicaSet{}, &corev1.Pod{}} {
		if err := indexer.IndexField(ctx, o, OwnerIndex, ownerUID); err != nil {
			return fmt.Errorf("indexing %T by owner: %w", o, err)
		}
	}
	return nil
}

func ownerUID(o client.Object) []string {
	if ref := metav1.GetControllerOf(o); ref != nil {
		return []string{string(ref.UID)}
	}
	return nil
}

// gatherer reads what the decisions depend on. Lists come from the cache without copies: nobody here
// modifies what he reads.
type gatherer struct {
	// cache is the manager's; live asks the API server, for what is too new to be in the cache.
	cache, live client.Reader
	// deleted are the policies that may be about to come back; nil: none.
	deleted *DeletedPolicies
}

// namespace reads a namespace and says whether it wants Headgate. The webhook configuration says it too; this guards
// against one that was edited.
func (g gatherer) namespace(ctx context.Context, name string) (*corev1.Namespace, bool, error) {
	var ns corev1.Namespace
	key := types.NamespacedName{Name: name}
	err := g.cache.Get(ctx, key, &ns)
	if apierrors.IsNotFound(err) { // after the API server was away, the cache follows it again up to a minute later
		err = g.live.Get(ctx, key, &ns)
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading namespace %s: %w", name, err)
	}
	return &ns, ns.Labels[v1alpha1.EnabledLabel] == "true", nil
}

func (g gatherer) policy(ctx context.Context, namespace string, workload map[string]string, now time.Time) (Selection, error) {
	var namespaced v1alpha1.RolloutPolicyList
	if err := g.list(ctx, &namespaced, namespace); err != nil {
		return Selection{}, err
	}
	var cluster v1alpha1.ClusterRolloutPolicyList
	if err := g.cache.List(ctx, &cluster, client.UnsafeDisableDeepCopy); err != nil {
		return Selection{}, fmt.Errorf("listing cluster policies: %w", err)
	}
	return g.deleted.Select(namespace, namespaced.Items, cluster.Items, workload, now), nil
}

// record is the workload's Rollout; nil when there is none.
func (g gatherer) record(ctx context.Context, key types.NamespacedName) (*v1alpha1.Rollout, error) {
	var r v1alpha1.Rollout
	err := g.cache.Get(ctx, key, &r)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the record of %s: %w", key, err)
	}
	return &r, nil
}

func (g gatherer) replicaSets(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	var list appsv1.ReplicaSetList
	if err := g.list(ctx, &list, d.Namespace, client.MatchingFields{OwnerIndex: string(d.UID)}); err != nil {
		return nil, err
	}
	owned := make([]*appsv1.ReplicaSet, len(list.Items))
	for i := range list.Items {
		owned[i] = &list.Items[i]
	}
	return owned, nil
}

// pods are those that a ReplicaSet owns; none when it is nil.
func (g gatherer) pods(ctx context.Context, rs *appsv1.ReplicaSet) ([]corev1.Pod, error) {
	if rs == nil {
		return nil, nil
	}
	var list corev1.PodList
	err := g.list(ctx, &list, rs.Namespace, client.MatchingFields{OwnerIndex: string(rs.UID)})
	return list.Items, err
}

// livePods is pods, but asks the API server.
func (g gatherer) livePods(ctx context.Context, rs *appsv1.ReplicaSet) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := g.live.List(ctx, &list, client.InNamespace(rs.Namespace), client.MatchingLabels{appsv1.DefaultDeploymentUniqueLabelKey: hashOf(rs)})
	if err != nil {
		return nil, fmt.Errorf("listing pods of %s live: %w", rs.Name, err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return !metav1.IsControlledBy(&p, rs) }), nil
}

// autoscaler is a HorizontalPodAutoscaler that targets the Deployment; nil when there is none.
func (g gatherer) autoscaler(ctx context.Context, d *appsv1.Deployment) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	var list autoscalingv2.HorizontalPodAutoscalerList
	if err := g.list(ctx, &list, d.Namespace); err != nil {
		return nil, err
	}
	for i := range list.Items {
		if ref := list.Items[i].Spec.ScaleTargetRef; ref.Kind == "Deployment" && ref.Name == d.Name {
			return &list.Items[i], nil
		}
	}
	return nil, nil //nolint:nilnil // there may be none
}

// nodeReady: a node that can't be read counts as not ready.
func (g gatherer) nodeReady(ctx context.Context) func(string) bool {
	return func(name string) bool {
		var n corev1.Node
		if err := g.cache.Get(ctx, types.NamespacedName{Name: name}, &n); err != nil {
			return false
		}
		return NodeReady(&n)
	}
}

// NodeReady says whether a node's kubelet reports that it can run pods; false too where nothing is known of it.
func NodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// injection completes an InjectConfig for pods with these labels.
func (g gatherer) injection(ctx context.Context, ns *corev1.Namespace, podLabels map[string]string, cfg InjectConfig) (InjectConfig, error) {
	cfg.NamespaceLabels = ns.Labels
	var services corev1.ServiceList
	if err := g.list(ctx, &services, ns.Name); err != nil {
		return cfg, err
	}
	for _, s := range services.Items {
		if len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(podLabels)) {
			cfg.Services = append(cfg.Services, s)
		}
	}
	var quotas corev1.ResourceQuotaList
	if err := g.list(ctx, &quotas, ns.Name); err != nil {
		return cfg, err
	}
	for i := range quotas.Items {
		for name := range quotas.Items[i].Spec.Hard {
			cfg.QuotaResources = append(cfg.QuotaResources, name)
		}
	}
	var ranges corev1.LimitRangeList
	if err := g.list(ctx, &ranges, ns.Name); err != nil {
		return cfg, err
	}
	for i := range ranges.Items {
		cfg.LimitRanges = append(cfg.LimitRanges, ranges.Items[i].Spec.Limits...)
	}
	return cfg, nil
}

func (g gatherer) list(ctx context.Context, list client.ObjectList, namespace string, opts ...client.ListOption) error {
	opts = append(opts, client.InNamespace(namespace), client.UnsafeDisableDeepCopy)
	if err := g.cache.List(ctx, list, opts...); err != nil {
		return fmt.Errorf("listing %T in %s: %w", list, namespace, err)
	}
	return nil
}
