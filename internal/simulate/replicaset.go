// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"cmp"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// replicaSetController is the native one. It reads live: in reality its expectations keep it from acting
// on a cache that has not seen its own work.
type replicaSetController struct {
	api  *api
	by   string
	made int
	// seen is the version of the API at which there was nothing to do.
	seen   int64
	failed bool
}

func (c *replicaSetController) sync() {
	if c.seen == c.api.version && !c.failed {
		return
	}
	c.failed = false
	for _, o := range c.api.all(replicaSets) {
		c.syncOne(o.(*appsv1.ReplicaSet))
	}
	c.seen = c.api.version
}

// podsOf are the pods that a ReplicaSet owns and that have not ended.
func (a *api) podsOf(rs *appsv1.ReplicaSet) (live, ending []*corev1.Pod) {
	for _, o := range a.all(pods) {
		if ref := metav1.GetControllerOf(o); ref == nil || ref.UID != rs.UID {
			continue
		}
		if o.GetDeletionTimestamp() != nil {
			ending = append(ending, o.(*corev1.Pod))
			continue
		}
		live = append(live, o.(*corev1.Pod))
	}
	return live, ending
}

func (c *replicaSetController) syncOne(rs *appsv1.ReplicaSet) {
	have, _ := c.api.podsOf(rs)
	var failed error
	for range int(sizeOf(rs)) - len(have) {
		if err := c.createPod(rs); err != nil {
			failed, c.failed = err, true
			break
		}
	}
	if surplus := len(have) - int(sizeOf(rs)); surplus > 0 {
		slices.SortStableFunc(have, leastWanted)
		for _, pod := range have[:surplus] {
			_ = c.api.remove(c.by, pod, nil)
		}
	}
	c.writeStatus(rs, failed)
}

func (c *replicaSetController) createPod(rs *appsv1.ReplicaSet) error {
	c.made++
	t := rs.Spec.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: t.Spec}
	pod.Namespace, pod.Name = rs.Namespace, fmt.Sprintf("%s-%03d", rs.Name, c.made)
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	pod.Status.Phase = corev1.PodPending
	return c.api.create(c.by, pod)
}

// leastWanted is ActivePodsWithRanks.Less as far as it matters here: without a node, pending, not ready,
// younger.
func leastWanted(a, b *corev1.Pod) int {
	first := func(x, y bool) int {
		switch {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	}
	return cmp.Or(
		first(a.Spec.NodeName == "", b.Spec.NodeName == ""),
		first(a.Status.Phase == corev1.PodPending, b.Status.Phase == corev1.PodPending),
		first(!isReady(a), !isReady(b)),
		b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
		cmp.Compare(b.Name, a.Name),
	)
}

func (c *replicaSetController) writeStatus(rs *appsv1.ReplicaSet, failed error) {
	next := rs.DeepCopy()
	have, _ := c.api.podsOf(rs)
	ready := int32(0)
	for _, pod := range have {
		if isReady(pod) {
			ready++
		}
	}
	next.Status.Replicas, next.Status.ReadyReplicas, next.Status.AvailableReplicas = int32(len(have)), ready, ready
	next.Status.FullyLabeledReplicas, next.Status.ObservedGeneration = int32(len(have)), rs.Generation
	shown := len(rs.Status.Conditions) > 0
	switch {
	case failed != nil && !shown:
		next.Status.Conditions = []appsv1.ReplicaSetCondition{{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: failed.Error(),
			LastTransitionTime: metav1.NewTime(c.api.now),
		}}
	case failed == nil && shown:
		next.Status.Conditions = nil
	}
	if !apiequality.Semantic.DeepEqual(rs.Status, next.Status) {
		_ = c.api.update(c.by, next, true)
	}
}

// collectGarbage removes what has lost its owner.
func (a *api) collectGarbage() {
	alive := map[string]bool{}
	for _, k := range []kind{deployments, replicaSets} {
		for _, o := range a.memory[k] {
			alive[string(o.GetUID())] = true
		}
	}
	for _, k := range []kind{replicaSets, records, pods} {
		for _, o := range a.all(k) {
			if ref := metav1.GetControllerOf(o); ref != nil && !alive[string(ref.UID)] {
				_ = a.remove("garbage-collector", o, nil)
			}
		}
	}
}

func condition(pod *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == t {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func isTrue(pod *corev1.Pod, t corev1.PodConditionType) bool {
	c := condition(pod, t)
	return c != nil && c.Status == corev1.ConditionTrue
}

func isReady(pod *corev1.Pod) bool { return isTrue(pod, corev1.PodReady) }

// hashOf is the revision of a ReplicaSet or pod.
func hashOf(o client.Object) string { return o.GetLabels()[appsv1.DefaultDeploymentUniqueLabelKey] }
