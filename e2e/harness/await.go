// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

// AwaitDeployment waits until the workload's Deployment is as asked, and returns it.
func (c *Case) AwaitDeployment(within time.Duration, what string, ok func(*appsv1.Deployment) bool) *appsv1.Deployment {
	c.T.Helper()
	return awaitOne(c, &appsv1.DeploymentList{}, awaited[*appsv1.Deployment]{Name, within, what, ok})
}

// AwaitRollout waits until the workload's Rollout is as asked, and returns it.
func (c *Case) AwaitRollout(within time.Duration, what string, ok func(*v1alpha1.Rollout) bool) *v1alpha1.Rollout {
	c.T.Helper()
	return awaitOne(c, &v1alpha1.RolloutList{}, awaited[*v1alpha1.Rollout]{Name, within, what, ok})
}

// AwaitPolicy waits until the workload's RolloutPolicy is as asked, and returns it.
func (c *Case) AwaitPolicy(within time.Duration, what string, ok func(*v1alpha1.RolloutPolicy) bool) *v1alpha1.RolloutPolicy {
	c.T.Helper()
	return awaitOne(c, &v1alpha1.RolloutPolicyList{}, awaited[*v1alpha1.RolloutPolicy]{Name, within, what, ok})
}

// AwaitAutoscaler waits until the workload's HorizontalPodAutoscaler is as asked.
func (c *Case) AwaitAutoscaler(within time.Duration, what string, ok func(*autoscalingv2.HorizontalPodAutoscaler) bool) {
	c.T.Helper()
	awaitOne(c, &autoscalingv2.HorizontalPodAutoscalerList{}, awaited[*autoscalingv2.HorizontalPodAutoscaler]{Name, within, "the autoscaler: " + what, ok})
}

// awaited is what a wait is for.
type awaited[T client.Object] struct {
	name   string
	within time.Duration
	what   string
	ok     func(T) bool
}

func awaitOne[T client.Object](c *Case, list client.ObjectList, a awaited[T]) T {
	c.T.Helper()
	var last T
	c.Await(a.within, a.what, func(ctx context.Context) error {
		opts := append(c.in(), client.MatchingFields{"metadata.name": a.name})
		return Follow(ctx, c.Client, Selected{list, opts}, func(state map[types.UID]T) bool {
			o, there := one(state, a.name)
			if !there {
				return false
			}
			last = o
			return a.ok(o)
		})
	})
	return last
}

// Await ends the test when the wait fails.
func (c *Case) Await(within time.Duration, what string, wait func(context.Context) error) {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(c.Ctx, within)
	defer cancel()
	if err := wait(ctx); err != nil {
		c.T.Fatalf("waiting %v until %s: %v", within, what, err)
	}
}

func (c *Case) in() []client.ListOption {
	return []client.ListOption{client.InNamespace(c.Namespace)}
}

// AwaitComplete waits until the Deployment is complete, as kubectl rollout status means it.
func (c *Case) AwaitComplete() *appsv1.Deployment {
	c.T.Helper()
	return c.AwaitDeployment(3*time.Minute, "the Deployment is complete", Complete)
}

// AwaitObserved waits until the Deployment controller has acted on the latest spec, and returns the Deployment.
func (c *Case) AwaitObserved() *appsv1.Deployment {
	c.T.Helper()
	return c.AwaitDeployment(time.Minute, "the Deployment is observed", func(d *appsv1.Deployment) bool {
		return d.Status.ObservedGeneration == d.Generation
	})
}

// AwaitQuiet waits until no pod of the workload is being deleted: whatever an update does to requests,
// it has done by then.
func (c *Case) AwaitQuiet() {
	c.T.Helper()
	c.Await(2*time.Minute, "no pod is being deleted", c.Pods.AwaitQuiet)
}

// AwaitReady waits until exactly n pods of a revision are ready.
func (c *Case) AwaitReady(within time.Duration, revision string, n int) {
	c.T.Helper()
	c.Await(within, fmt.Sprintf("%d pods of %s are ready", n, revision), func(ctx context.Context) error {
		return c.Pods.AwaitPods(ctx, revision, n, Ready)
	})
}

// AwaitReadyButGated waits until the containers of exactly n pods of a revision are ready.
func (c *Case) AwaitReadyButGated(within time.Duration, revision string, n int) {
	c.T.Helper()
	c.Await(within, fmt.Sprintf("the containers of %d pods of %s are ready", n, revision), func(ctx context.Context) error {
		return c.Pods.AwaitPods(ctx, revision, n, ReadyButGated)
	})
}

// AwaitNode waits until a node is as asked.
func (c *Case) AwaitNode(name, what string, ok func(*corev1.Node) bool) {
	c.T.Helper()
	c.Await(time.Minute, fmt.Sprintf("node %s: %s", name, what), func(ctx context.Context) error {
		return Follow(ctx, c.Client, Selected{List: &corev1.NodeList{}}, func(state map[types.UID]*corev1.Node) bool {
			n, there := one(state, name)
			return there && ok(n)
		})
	})
}

// AwaitRevision waits until there is a ReplicaSet of the workload's with this version of the sample application, and returns the
// revision.
func (c *Case) AwaitRevision(within time.Duration, tag string) (revision string) {
	c.T.Helper()
	c.Await(within, "there is a revision of "+tag, func(ctx context.Context) error {
		opts := append(c.in(), client.MatchingLabels{"app": Name})
		return Follow(ctx, c.Client, Selected{&appsv1.ReplicaSetList{}, opts}, func(state map[types.UID]*appsv1.ReplicaSet) bool {
			for _, rs := range state {
				if rs.Spec.Template.Spec.Containers[0].Image == AppImage+tag {
					revision = rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
				}
			}
			return revision != ""
		})
	})
	return revision
}

// AwaitForgotten waits until a revision is in the native history no more, so that no undo can reach it.
func (c *Case) AwaitForgotten(within time.Duration, revision string) {
	c.T.Helper()
	c.Await(within, fmt.Sprintf("revision %s is not in the history", revision), func(ctx context.Context) error {
		opts := append(c.in(), client.MatchingLabels{appsv1.DefaultDeploymentUniqueLabelKey: revision})
		return Follow(ctx, c.Client, Selected{&appsv1.ReplicaSetList{}, opts}, func(state map[types.UID]*appsv1.ReplicaSet) bool {
			return len(state) == 0
		})
	})
}

// AwaitPhase waits until the workload's Rollout is in a phase, and returns it.
func (c *Case) AwaitPhase(within time.Duration, phase v1alpha1.Phase) *v1alpha1.Rollout {
	c.T.Helper()
	return c.AwaitRollout(within, fmt.Sprintf("the Rollout is %s", phase), func(r *v1alpha1.Rollout) bool {
		return r.Status.Phase == phase
	})
}

// AwaitStable waits until Headgate has recorded the stable revision and nothing is going on; the
// sidecars are connected then, so that the next update can be split.
func (c *Case) AwaitStable() *v1alpha1.Rollout {
	c.T.Helper()
	c.AwaitComplete()
	return c.AwaitRollout(2*time.Minute, "the Rollout is Idle with a stable revision", func(r *v1alpha1.Rollout) bool {
		return r.Status.Phase == v1alpha1.PhaseIdle && r.Status.Stable.Hash != ""
	})
}

// AwaitOutcome waits until the history has so many entries, and returns the last one.
func (c *Case) AwaitOutcome(within time.Duration, rollouts int) v1alpha1.HistoryEntry {
	c.T.Helper()
	r := c.AwaitRollout(within, fmt.Sprintf("rollout %d has ended", rollouts), func(r *v1alpha1.Rollout) bool {
		return len(r.Status.History) >= rollouts
	})
	return r.Status.History[len(r.Status.History)-1]
}

// AwaitNext waits until a rollout has ended later than since, in whole seconds, whenever it began, and returns the last one that
// did. Other than AwaitOutcome it knows no limit of how many there may have been: the history keeps ten.
func (c *Case) AwaitNext(within time.Duration, since time.Time) v1alpha1.HistoryEntry {
	c.T.Helper()
	since = since.Truncate(time.Second) // like the times in the history
	r := c.AwaitRollout(within, "a rollout has ended later than "+since.Format(time.TimeOnly), func(r *v1alpha1.Rollout) bool {
		n := len(r.Status.History)
		return n > 0 && r.Status.History[n-1].EndedAt.After(since)
	})
	return r.Status.History[len(r.Status.History)-1]
}

// AwaitWeight waits until a weight is in force for a candidate.
func (c *Case) AwaitWeight(within time.Duration, step, weight int32) *v1alpha1.Rollout {
	c.T.Helper()
	return c.AwaitRollout(within, fmt.Sprintf("weight %d of step %d is in force", weight, step), func(r *v1alpha1.Rollout) bool {
		s := r.Status
		return s.Candidate.Hash != "" && s.Step == step && s.Weight == weight && s.WeightInForce == weight && s.StepSince != nil
	})
}

// Complete says whether all pods are of the current template and available, and none is left over.
func Complete(d *appsv1.Deployment) bool {
	s, n := d.Status, *d.Spec.Replicas
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n
}
