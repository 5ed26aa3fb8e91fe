// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Setup registers the Reconciler (leader only) and the Feeder (every replica) with the manager. wake
// carries the keys of workloads about which something changed outside the API: acknowledgements, verdicts.
func Setup(mgr ctrl.Manager, r *Reconciler, f *Feeder, wake <-chan types.NamespacedName) error {
	events := make(chan event.TypedGenericEvent[types.NamespacedName])
	if err := mgr.Add(forward{wake, events}); err != nil {
		return fmt.Errorf("adding the wake-up channel: %w", err)
	}
	woken := source.TypedChannel(events, handler.TypedEnqueueRequestsFromMapFunc(
		func(_ context.Context, key types.NamespacedName) []reconcile.Request {
			return []reconcile.Request{{NamespacedName: key}}
		}))
	leader := r.watches(mgr, "rollout").
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(scaleTarget)).
		WatchesRawSource(woken).
		WithOptions(controller.Options{MaxConcurrentReconciles: 8})
	if err := leader.Complete(r); err != nil {
		return fmt.Errorf("setting up the rollout controller: %w", err)
	}
	everywhere := false
	feeder := r.watches(mgr, "feeder").
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: &everywhere})
	if err := feeder.Complete(f); err != nil {
		return fmt.Errorf("setting up the feeder: %w", err)
	}
	return nil
}

// watches are what both controllers react to.
func (r *Reconciler) watches(mgr ctrl.Manager, name string) *builder.Builder {
	return ctrl.NewControllerManagedBy(mgr).Named(name).
		For(&appsv1.Deployment{}).
		Owns(&appsv1.ReplicaSet{}).
		Owns(&v1alpha1.Rollout{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.deploymentOfPod)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.deploymentsBeside)).
		Watches(&v1alpha1.RolloutPolicy{}, handler.EnqueueRequestsFromMapFunc(r.deploymentsBeside)).
		Watches(&v1alpha1.ClusterRolloutPolicy{}, handler.EnqueueRequestsFromMapFunc(r.allDeployments)).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.deploymentsIn)).
		Watches(&appsv1.Deployment{}, handler.EnqueueRequestsFromMapFunc(r.onRelease))
}

// forward hands keys on to the leader's queue. It runs on the leader only: on other replicas the channel fills up, what
// does not fit is dropped, and a replica that becomes the leader is handed old keys. They only say which workloads to look
// at, once each however often they are named, and a new leader looks at all of them anyway.
type forward struct {
	from <-chan types.NamespacedName
	to   chan<- event.TypedGenericEvent[types.NamespacedName]
}

// Start implements manager.Runnable.
func (f forward) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case key := <-f.from:
			select {
			case f.to <- event.TypedGenericEvent[types.NamespacedName]{Object: key}:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// deploymentOfPod follows the owners: pod, ReplicaSet, Deployment.
func (r *Reconciler) deploymentOfPod(ctx context.Context, o client.Object) []reconcile.Request {
	ref := metav1.GetControllerOf(o)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return nil
	}
	var rs appsv1.ReplicaSet
	if err := r.Client.Get(ctx, types.NamespacedName{Namespace: o.GetNamespace(), Name: ref.Name}, &rs); err != nil {
		return nil // gone; the ReplicaSet's own event has told
	}
	if owner := metav1.GetControllerOf(&rs); owner != nil && owner.Kind == "Deployment" {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: rs.Namespace, Name: owner.Name}}}
	}
	return nil
}

func scaleTarget(_ context.Context, o client.Object) []reconcile.Request {
	hpa, ok := o.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok || hpa.Spec.ScaleTargetRef.Kind != "Deployment" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: hpa.Namespace, Name: hpa.Spec.ScaleTargetRef.Name}}}
}

func (r *Reconciler) deploymentsBeside(ctx context.Context, o client.Object) []reconcile.Request {
	return r.requests(ctx, client.InNamespace(o.GetNamespace()))
}

func (r *Reconciler) deploymentsIn(ctx context.Context, o client.Object) []reconcile.Request {
	return r.requests(ctx, client.InNamespace(o.GetName()))
}

func (r *Reconciler) allDeployments(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.requests(ctx)
}

func (r *Reconciler) onRelease(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetNamespace() != r.Namespace || o.GetName() != r.Deployment {
		return nil
	}
	return r.requests(ctx)
}

func (r *Reconciler) requests(ctx context.Context, opts ...client.ListOption) []reconcile.Request {
	var list appsv1.DeploymentList
	if err := r.Client.List(ctx, &list, opts...); err != nil {
		return nil // a cache that can't list is not synced yet; every Deployment is enqueued when it is
	}
	out := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return out
}
