// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// SplitState says whether the requests of a workload can be split.
type SplitState struct {
	// Possible: every stable pod that serves has a sidecar that captures a port, and candidates can have one.
	Possible bool
	// Reason says why not, as part of a sentence; empty when Possible.
	Reason string
	// Remedy says what would change it; empty when Possible, or when the reason says it already.
	Remedy string
	// NoSidecar says why a pod of the new template can't have a sidecar, as a sentence; empty when it can, or when
	// there is no new template. Then requests can't be split to it whatever stable's pods are like.
	NoSidecar string
}

// to is the state of stable's pods together with that of the candidate's.
func (s SplitState) to(candidate SplitState) SplitState {
	switch {
	case candidate.Possible:
	case s.Possible:
		return candidate
	default:
		s.NoSidecar = candidate.NoSidecar
		if s.Remedy != "" {
			s.Remedy = candidate.Reason // no update brings the sidecar while this stays
		}
	}
	return s
}

// SplitFromPods judges by the pods of the stable revision: all that are ready must be injected, with a
// sidecar that is ready and captures a port. If none is ready, all that exist are judged, so that a
// stable revision in trouble does not count as one without sidecars. Pods that have Ended never count.
func SplitFromPods(stable []corev1.Pod) SplitState {
	judged := selectPods(stable, func(p *corev1.Pod) bool { return podReady(p) })
	if len(judged) == 0 {
		judged = selectPods(stable, func(*corev1.Pod) bool { return true })
	}
	if len(judged) == 0 {
		return SplitState{Reason: "the stable revision has no pods", Remedy: "rollouts begin with the first update after it has some"}
	}
	anyReady := podReady(judged[0])
	for _, p := range judged {
		if s := splitFromPod(p, anyReady); !s.Possible {
			return s
		}
	}
	return SplitState{Possible: true}
}

func splitFromPod(p *corev1.Pod, wantReady bool) SplitState {
	if p.Labels[v1alpha1.InjectedLabel] != "true" {
		if why := p.Annotations[v1alpha1.SkipAnnotation]; why != "" {
			return SplitState{Reason: "no sidecar: " + why}
		}
		return SplitState{
			Reason: fmt.Sprintf("pod %s has no sidecar yet", p.Name),
			Remedy: "this update brings the sidecar, the next one will be held",
		}
	}
	if wantReady && !sidecarReady(p) {
		return SplitState{Reason: fmt.Sprintf("the sidecar of pod %s is not ready", p.Name), Remedy: "update again when it is"}
	}
	injected, err := v1alpha1.ParseInjection(p.Annotations[v1alpha1.InjectionAnnotation])
	if err != nil || len(injected.Ports) == 0 {
		return SplitState{Reason: "no port to split: the pods declare no TCP containerPort", Remedy: "declare the ports in the template"}
	}
	return SplitState{Possible: true}
}

// SplitToCandidate says whether a pod of the new template would get a sidecar: a candidate without one
// can't be reached by the others.
func SplitToCandidate(t *corev1.PodTemplateSpec, cfg InjectConfig) SplitState {
	pod := &corev1.Pod{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
	if _, skip := Inject(markOpen(pod), cfg); skip.Skipped() {
		why := "the new version can't have a sidecar: " + skip.Message
		return SplitState{Reason: why, NoSidecar: why}
	}
	return SplitState{Possible: true}
}

// StableDown says since when no pod of the stable revision is available on a ready node; nil while one
// is. Pods on nodes that are not ready, and those that end or have ended, are no evidence, nor are those that no node was looked
// for yet: without any other pod nothing is known, and the answer is nil too. One that ends says until when it was available.
func StableDown(stable []corev1.Pod, nodeReady func(name string) bool) *time.Time {
	var since *time.Time
	tells := func(p *corev1.Pod) bool {
		return p.Spec.NodeName != "" && nodeReady(p.Spec.NodeName) || Unschedulable(p) != nil
	}
	for _, p := range selectPods(stable, tells) {
		if podReady(p) {
			return nil
		}
		since = latest(since, unreadySince(p))
	}
	for i := range stable {
		if p := &stable[i]; since != nil && p.DeletionTimestamp != nil {
			since = latest(since, servedUntil(p))
		}
	}
	return since
}

func latest(a *time.Time, b time.Time) *time.Time {
	if a == nil || b.After(*a) {
		return &b
	}
	return a
}

// servedUntil is when a pod that is on its way out ceased to be available: when it was deleted, unless it was not ready by then.
func servedUntil(p *corev1.Pod) time.Time {
	deleted := p.DeletionTimestamp.Time
	if grace := p.DeletionGracePeriodSeconds; grace != nil {
		deleted = deleted.Add(-time.Duration(*grace) * time.Second)
	}
	if since := unreadySince(p); !podReady(p) && since.Before(deleted) {
		return since
	}
	return deleted
}

// Unschedulable is the condition by which the scheduler says that no node has room for the pod; nil where it does not.
func Unschedulable(p *corev1.Pod) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return c
		}
	}
	return nil
}

// unreadySince is the last change of the Ready condition; a pod that was never ready counts since it was created.
func unreadySince(p *corev1.Pod) time.Time {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Time
		}
	}
	return p.CreationTimestamp.Time
}

// Ended says that a pod ends or has ended. One that was evicted, or whose node was shut down, stays as an object for days, and tells
// no more than one that is gone.
func Ended(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}

func selectPods(pods []corev1.Pod, want func(*corev1.Pod) bool) []*corev1.Pod {
	var out []*corev1.Pod
	for i := range pods {
		if !Ended(&pods[i]) && want(&pods[i]) {
			out = append(out, &pods[i])
		}
	}
	return out
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func sidecarReady(p *corev1.Pod) bool {
	for _, s := range p.Status.InitContainerStatuses {
		if s.Name == v1alpha1.ProxyContainer {
			return s.Ready
		}
	}
	return false
}
