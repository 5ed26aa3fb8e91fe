// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// observePod turns a pod into what Decide may know of it. nodeReady is false when its node is not ready, or gone.
func observePod(pod *corev1.Pod, nodeReady bool) rollout.Pod {
	p := rollout.Pod{
		Name:        pod.Name,
		CreatedAt:   pod.CreationTimestamp.Time,
		Terminating: webhook.Ended(pod),
		NodeReady:   nodeReady,
		Gated:       webhook.HasGate(pod),
		GateOpen:    conditionTrue(pod, v1alpha1.GateCondition),
		Ready:       conditionTrue(pod, corev1.PodReady),
	}
	p.ReadyButGate = !p.Terminating && nodeReady && readyButGate(pod)
	p.LostReadySince = lostReadySince(pod)
	if pod.Labels[v1alpha1.InjectedLabel] != "true" {
		p.NoSidecar = pod.Annotations[v1alpha1.SkipAnnotation]
	}
	observeContainers(pod, &p)
	if c := webhook.Unschedulable(pod); p.Problem == rollout.ProblemNone && c != nil {
		p.Problem, p.Message, p.ProblemSince = rollout.ProblemUnschedulable, c.Message, c.LastTransitionTime.Time
	}
	if p.Problem == rollout.ProblemNone && !p.ReadyButGate {
		p.Message = waitsFor(pod)
	}
	return p
}

// waitsFor is what keeps a pod that runs from being ready, but for Headgate's gate, in the kubelet's words: first the init
// containers, without which the others don't begin, then these.
func waitsFor(pod *corev1.Pod) string {
	for _, t := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady} {
		if c := condition(pod, t); c != nil && c.Status != corev1.ConditionTrue {
			return c.Message
		}
	}
	if gate := closedGate(pod); gate != "" {
		return fmt.Sprintf("pod %s waits for its readiness gate %s", pod.Name, gate)
	}
	return ""
}

// observeContainers finds the worst trouble among the app's own containers: an OOM kill, which needs no
// time to count, before whatever comes first. The sidecar's troubles say nothing about the version.
func observeContainers(pod *corev1.Pod, p *rollout.Pod) {
	for _, cs := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if cs.Name == v1alpha1.PrepareContainer || cs.Name == v1alpha1.ProxyContainer {
			continue
		}
		p.Restarts = max(p.Restarts, cs.RestartCount)
		problem, message := containerProblem(cs)
		worse := p.Problem == rollout.ProblemNone || (problem == rollout.ProblemOOMKilled && p.Problem != problem)
		if problem != rollout.ProblemNone && worse {
			p.Problem, p.Message, p.ProblemSince = problem, message, problemSince(pod, cs)
		}
	}
}

// waitingProblems maps the kubelet's waiting reasons (pkg/kubelet/images, pkg/kubelet/kuberuntime).
var waitingProblems = map[string]rollout.PodProblem{
	"ErrImagePull":               rollout.ProblemImagePull,
	"ImagePullBackOff":           rollout.ProblemImagePull,
	"InvalidImageName":           rollout.ProblemImagePull,
	"ErrImageNeverPull":          rollout.ProblemImagePull,
	"CreateContainerConfigError": rollout.ProblemConfiguration,
	"CreateContainerError":       rollout.ProblemConfiguration,
	"RunContainerError":          rollout.ProblemConfiguration,
	"CrashLoopBackOff":           rollout.ProblemCrashLoop,
}

func containerProblem(cs corev1.ContainerStatus) (rollout.PodProblem, string) {
	for _, t := range terminations(cs) {
		if t.Reason == "OOMKilled" {
			return rollout.ProblemOOMKilled, "container " + cs.Name
		}
	}
	w := cs.State.Waiting
	if w == nil {
		return rollout.ProblemNone, ""
	}
	problem := waitingProblems[w.Reason]
	if problem == rollout.ProblemCrashLoop {
		return problem, "container " + cs.Name + exitOf(cs)
	}
	return problem, strings.TrimSpace(w.Message)
}

func exitOf(cs corev1.ContainerStatus) string {
	t := cs.LastTerminationState.Terminated
	if t == nil {
		return ""
	}
	if m := strings.TrimSpace(t.Message); m != "" {
		return ": " + m
	}
	return ": " + t.Reason
}

// terminations are the ends of a container that the kubelet still tells of, newest first.
func terminations(cs corev1.ContainerStatus) []*corev1.ContainerStateTerminated {
	both := []*corev1.ContainerStateTerminated{cs.State.Terminated, cs.LastTerminationState.Terminated}
	return slices.DeleteFunc(both, func(t *corev1.ContainerStateTerminated) bool { return t == nil })
}

// problemSince is the last moment at which the container's problem can't have been there yet, or, after
// an OOM kill, that of the kill. Measured from the pod's start, a registry's hiccup while one container
// of an old pod restarts, or after slow init containers, would count as if it had lasted all that time.
func problemSince(pod *corev1.Pod, cs corev1.ContainerStatus) time.Time {
	since := startTime(pod)
	later := func(t time.Time) {
		if t.After(since) {
			since = t
		}
	}
	isInit := slices.ContainsFunc(pod.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == cs.Name })
	if c := condition(pod, corev1.PodInitialized); !isInit && c != nil && c.Status == corev1.ConditionTrue {
		later(c.LastTransitionTime.Time)
	}
	for _, t := range terminations(cs) {
		later(t.FinishedAt.Time)
	}
	return since
}

func startTime(pod *corev1.Pod) time.Time {
	if pod.Status.StartTime != nil {
		return pod.Status.StartTime.Time
	}
	return pod.CreationTimestamp.Time
}

// readyButGate: containers ready and every gate but ours True.
func readyButGate(pod *corev1.Pod) bool {
	return conditionTrue(pod, corev1.ContainersReady) && closedGate(pod) == ""
}

// closedGate is the first readiness gate, but for ours, whose condition is not True; empty where there is none.
func closedGate(pod *corev1.Pod) corev1.PodConditionType {
	for _, g := range pod.Spec.ReadinessGates {
		if g.ConditionType != v1alpha1.GateCondition && !conditionTrue(pod, g.ConditionType) {
			return g.ConditionType
		}
	}
	return ""
}

// lostReadySince is when a pod's containers ceased to be ready without a restart: the condition turned
// False after every container had started. Zero otherwise, and while it is the sidecar that is not ready:
// that says nothing about the version.
func lostReadySince(pod *corev1.Pod) time.Time {
	c := condition(pod, corev1.ContainersReady)
	if c == nil || c.Status != corev1.ConditionFalse || webhook.Ended(pod) {
		return time.Time{}
	}
	if slices.ContainsFunc(pod.Status.InitContainerStatuses, func(cs corev1.ContainerStatus) bool {
		return cs.Name == v1alpha1.ProxyContainer && !cs.Ready
	}) {
		return time.Time{}
	}
	for _, cs := range pod.Status.ContainerStatuses {
		if cs.State.Running == nil || !cs.State.Running.StartedAt.Time.Before(c.LastTransitionTime.Time) {
			return time.Time{}
		}
	}
	return c.LastTransitionTime.Time
}

func condition(pod *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == t {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func conditionTrue(pod *corev1.Pod, t corev1.PodConditionType) bool {
	c := condition(pod, t)
	return c != nil && c.Status == corev1.ConditionTrue
}
