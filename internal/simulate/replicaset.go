// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// replicaSetController is the native one, as in pkg/controller/replicaset of Kubernetes 1.36 (the names are those there). It
// reads live: in reality its expectations keep it from acting on a cache that has not seen its own work.
type replicaSetController struct {
	api *api
	by  string
	// pass is syncReplicaSet: the model's, but where package fidelity puts the real one in its place.
	pass func(*appsv1.ReplicaSet) error
	// seen is the version of the API at which there was nothing to do.
	seen   int64
	failed bool
	// due is when the next pod has been ready for minReadySeconds; zero: none is waited for.
	due time.Time
}

func newReplicaSetController(a *api) *replicaSetController {
	c := &replicaSetController{api: a, by: "system:serviceaccount:kube-system:replicaset-controller"}
	c.pass = c.syncOne
	return c
}

func (c *replicaSetController) sync() {
	waited := !c.due.IsZero() && !c.api.now.Before(c.due)
	if c.seen == c.api.version && !c.failed && !waited {
		return
	}
	c.seen, c.failed, c.due = c.api.version, false, time.Time{}
	for _, o := range c.api.all(replicaSets) {
		if c.pass(o.(*appsv1.ReplicaSet)) != nil {
			c.failed = true
		}
	}
}

// podsOf are the pods that a ReplicaSet owns, by name, without those that have ended for good.
func (a *api) podsOf(rs *appsv1.ReplicaSet) (live, ending []*corev1.Pod) {
	for _, o := range a.all(pods) {
		if ref := metav1.GetControllerOf(o); ref == nil || ref.UID != rs.UID {
			continue
		}
		if phase := o.(*corev1.Pod).Status.Phase; phase == corev1.PodFailed || phase == corev1.PodSucceeded {
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

// syncOne is syncReplicaSet. The status is about the pods that there were before: what it did to them is news to it.
func (c *replicaSetController) syncOne(rs *appsv1.ReplicaSet) error {
	live, ending := c.api.podsOf(rs)
	failed := c.manage(rs, live)
	return errors.Join(failed, c.writeStatus(rs, live, ending, failed))
}

// manage is manageReplicas.
func (c *replicaSetController) manage(rs *appsv1.ReplicaSet, live []*corev1.Pod) error {
	for range int(sizeOf(rs)) - len(live) {
		if err := c.createPod(rs); err != nil {
			return err
		}
	}
	surplus := len(live) - int(sizeOf(rs))
	if surplus <= 0 {
		return nil
	}
	for _, pod := range c.leastWanted(rs, live)[:surplus] {
		if err := c.api.remove(c.by, pod, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *replicaSetController) createPod(rs *appsv1.ReplicaSet) error {
	t := rs.Spec.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	pod.Namespace, pod.GenerateName = rs.Namespace, rs.Name+"-"
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	return c.api.create(c.by, pod)
}

// leastWanted is getPodsRankedByRelatedPodsOnSameNode: the pods in the order in which they are deleted. Nobody sets a
// deletion cost here, and sidecars do not restart. Which of equal pods goes is chance there; here it is the first by name.
func (c *replicaSetController) leastWanted(rs *appsv1.ReplicaSet, live []*corev1.Pod) []*corev1.Pod {
	onNode := map[string]int{} // of all the Deployment's pods
	owner := metav1.GetControllerOf(rs)
	for _, o := range c.api.all(replicaSets) {
		if ref := metav1.GetControllerOf(o); owner != nil && ref != nil && ref.UID == owner.UID {
			related, _ := c.api.podsOf(o.(*appsv1.ReplicaSet))
			for _, pod := range related {
				onNode[pod.Spec.NodeName]++
			}
		}
	}
	out := slices.Clone(live)
	slices.SortStableFunc(out, func(a, b *corev1.Pod) int {
		return cmp.Or(
			first(a.Spec.NodeName == "", b.Spec.NodeName == ""),
			first(a.Status.Phase == corev1.PodPending, b.Status.Phase == corev1.PodPending),
			first(!isReady(a), !isReady(b)),
			onNode[b.Spec.NodeName]-onNode[a.Spec.NodeName],
			c.younger(a, b, readySince(a), readySince(b)),
			restarts(b)-restarts(a),
			c.younger(a, b, a.CreationTimestamp, b.CreationTimestamp),
		)
	})
	return out
}

// first puts what is so before what is not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// younger puts first what is so for a much shorter time, in powers of two; what is so for about as long is in the order of
// the UIDs, and what is so since the same moment in none. A zero time is none.
func (c *replicaSetController) younger(a, b *corev1.Pod, sinceA, sinceB metav1.Time) int {
	if sinceA.IsZero() || sinceB.IsZero() || sinceA.Equal(&sinceB) {
		return 0
	}
	age := func(since metav1.Time) int64 {
		if d := c.api.now.Sub(since.Time); d > 0 {
			return int64(math.Log2(float64(d)))
		}
		return -1
	}
	return cmp.Or(cmp.Compare(age(sinceA), age(sinceB)), cmp.Compare(a.UID, b.UID))
}

// readySince is zero for a pod that is not ready.
func readySince(pod *corev1.Pod) metav1.Time {
	if !isReady(pod) {
		return metav1.Time{}
	}
	return condition(pod, corev1.PodReady).LastTransitionTime
}

func restarts(pod *corev1.Pod) (n int) {
	for _, s := range pod.Status.ContainerStatuses {
		n = max(n, int(s.RestartCount))
	}
	return n
}

// writeStatus is calculateStatus and updateReplicaSetStatus.
func (c *replicaSetController) writeStatus(rs *appsv1.ReplicaSet, live, ending []*corev1.Pod, failed error) error {
	next := rs.DeepCopy()
	ready, available := int32(0), int32(0)
	for _, pod := range live {
		if !isReady(pod) {
			continue
		}
		ready++
		if c.available(pod, rs.Spec.MinReadySeconds) {
			available++
		}
	}
	next.Status.Replicas, next.Status.ReadyReplicas, next.Status.AvailableReplicas = int32(len(live)), ready, available
	next.Status.FullyLabeledReplicas, next.Status.TerminatingReplicas = int32(len(live)), new(int32(len(ending)))
	next.Status.ObservedGeneration = rs.Generation
	shown := len(rs.Status.Conditions) > 0
	switch {
	case failed != nil && !shown:
		reason := "FailedCreate"
		if len(live) > int(sizeOf(rs)) {
			reason = "FailedDelete"
		}
		next.Status.Conditions = []appsv1.ReplicaSetCondition{{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: reason, Message: failed.Error(),
			LastTransitionTime: metav1.NewTime(c.api.now),
		}}
	case failed == nil && shown:
		next.Status.Conditions = nil
	}
	if apiequality.Semantic.DeepEqual(rs.Status, next.Status) {
		return nil
	}
	return c.api.update(c.by, next, true)
}

// available is IsPodAvailable of a pod that is ready; of one that is not yet it notes when it will be.
func (c *replicaSetController) available(pod *corev1.Pod, minReadySeconds int32) bool {
	if minReadySeconds == 0 {
		return true
	}
	at := readySince(pod).Add(time.Duration(minReadySeconds) * time.Second)
	if !at.After(c.api.now) {
		return true
	}
	if c.due.IsZero() || at.Before(c.due) {
		c.due = at
	}
	return false
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
