// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// noDeadline is what the native controller takes for none.
const noDeadline = 1<<31 - 1

func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != noDeadline
}

func progressing(s *appsv1.DeploymentStatus) *appsv1.DeploymentCondition {
	return deploymentCondition(s, appsv1.DeploymentProgressing)
}

func deploymentCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func removeCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(slices.Clone(s.Conditions), func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

// setCondition is SetDeploymentCondition: equal status and reason change nothing.
func (c *deploymentController) setCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) {
	now := metav1.NewTime(c.api.now)
	next := appsv1.DeploymentCondition{Type: t, Status: status, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now}
	if old := deploymentCondition(s, t); old != nil {
		if old.Status == status && old.Reason == reason {
			return
		}
		if old.Status == status {
			next.LastTransitionTime = old.LastTransitionTime
		}
	}
	removeCondition(s, t)
	s.Conditions = append(s.Conditions, next)
}

// checkPaused is checkPausedConditions.
func (c *deploymentController) checkPaused(d *appsv1.Deployment) error {
	cond := progressing(&d.Status)
	if !hasDeadline(d) || (cond != nil && cond.Reason == "ProgressDeadlineExceeded") {
		return nil
	}
	shown := cond != nil && cond.Reason == "DeploymentPaused"
	if d.Spec.Paused == shown {
		return nil
	}
	if d.Spec.Paused {
		c.setCondition(&d.Status, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused")
	} else {
		c.setCondition(&d.Status, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed")
	}
	return c.api.update(c.by, d.DeepCopy(), true)
}

func complete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	n := *d.Spec.Replicas
	return s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n && s.ObservedGeneration >= d.Generation
}

// status is calculateStatus.
func (c *deploymentController) status(d *appsv1.Deployment, all []*appsv1.ReplicaSet, newRS *appsv1.ReplicaSet) appsv1.DeploymentStatus {
	actual := func(rs *appsv1.ReplicaSet) int32 { return rs.Status.Replicas }
	available := sum(all, availableOf)
	s := appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation, Replicas: sum(all, actual),
		ReadyReplicas:     sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.ReadyReplicas }),
		AvailableReplicas: available, UnavailableReplicas: max(0, sum(all, sizeOf)-available),
		Conditions: slices.Clone(d.Status.Conditions),
	}
	s.TerminatingReplicas = terminating(all)
	if newRS != nil {
		s.UpdatedReplicas = newRS.Status.Replicas
	}
	if _, unavailable := fenceposts(d); available >= *d.Spec.Replicas-unavailable {
		c.setCondition(&s, appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.")
	} else {
		c.setCondition(&s, appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
	}
	return s
}

// terminating is GetTerminatingReplicaCountForReplicaSets.
func terminating(all []*appsv1.ReplicaSet) *int32 {
	n := int32(0)
	for _, rs := range all {
		switch t := rs.Status.TerminatingReplicas; {
		case t != nil:
			n += *t
		case rs.Status.ObservedGeneration != 0:
			return nil
		}
	}
	return &n
}

// rolloutStatus is syncRolloutStatus.
func (c *deploymentController) rolloutStatus(d *appsv1.Deployment, all []*appsv1.ReplicaSet, newRS *appsv1.ReplicaSet) error {
	s := c.status(d, all, newRS)
	if !hasDeadline(d) {
		removeCondition(&s, appsv1.DeploymentProgressing)
	}
	name := fmt.Sprintf("Deployment %q", d.Name)
	if newRS != nil {
		name = fmt.Sprintf("ReplicaSet %q", newRS.Name)
	}
	cond := progressing(&d.Status)
	done := s.Replicas == s.UpdatedReplicas && cond != nil && cond.Reason == "NewReplicaSetAvailable"
	if hasDeadline(d) && !done {
		switch {
		case complete(d, &s):
			c.setCondition(&s, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetAvailable", name+" has successfully progressed.")
		case isProgress(&d.Status, &s):
			c.noteProgress(&s, cond, name)
		case c.timedOut(d, progressing(&s)):
			c.setCondition(&s, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", name+" has timed out progressing.")
		}
	}
	c.replicaFailure(&s, all)
	return c.writeStatus(d, s)
}

// isProgress is DeploymentProgressing.
func isProgress(before, now *appsv1.DeploymentStatus) bool {
	return now.UpdatedReplicas > before.UpdatedReplicas ||
		now.Replicas-now.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		now.ReadyReplicas > before.ReadyReplicas || now.AvailableReplicas > before.AvailableReplicas
}

// noteProgress writes True, also over a failure that somebody else wrote.
func (c *deploymentController) noteProgress(s *appsv1.DeploymentStatus, before *appsv1.DeploymentCondition, name string) {
	now := metav1.NewTime(c.api.now)
	next := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "ReplicaSetUpdated",
		Message: name + " is progressing.", LastUpdateTime: now, LastTransitionTime: now,
	}
	if before != nil && before.Status == corev1.ConditionTrue {
		next.LastTransitionTime = before.LastTransitionTime
	}
	removeCondition(s, appsv1.DeploymentProgressing)
	s.Conditions = append(s.Conditions, next)
}

func (c *deploymentController) timedOut(d *appsv1.Deployment, cond *appsv1.DeploymentCondition) bool {
	if cond == nil || cond.Reason == "NewReplicaSetAvailable" {
		return false
	}
	if cond.Reason == "ProgressDeadlineExceeded" {
		return true
	}
	limit := time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second
	return cond.LastUpdateTime.Add(limit).Before(c.api.now)
}

func (c *deploymentController) replicaFailure(s *appsv1.DeploymentStatus, all []*appsv1.ReplicaSet) {
	for _, rs := range slices.Backward(all) {
		for _, f := range rs.Status.Conditions {
			if f.Type == appsv1.ReplicaSetReplicaFailure {
				c.setCondition(s, appsv1.DeploymentReplicaFailure, f.Status, f.Reason, f.Message)
				return
			}
		}
	}
	removeCondition(s, appsv1.DeploymentReplicaFailure)
}

func (c *deploymentController) writeStatus(d *appsv1.Deployment, s appsv1.DeploymentStatus) error {
	if apiequality.Semantic.DeepEqual(d.Status, s) {
		return nil
	}
	next := d.DeepCopy()
	next.Status = s
	return c.api.update(c.by, next, true)
}
