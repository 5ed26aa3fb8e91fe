// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

func waiting(name, reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

func runningSince(name string, seconds int) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metaAt(seconds)}}}
}

// ended says how a container ended before its current state.
func ended(cs corev1.ContainerStatus, reason string, seconds int) corev1.ContainerStatus {
	cs.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{Reason: reason, FinishedAt: metaAt(seconds)}
	return cs
}

func containers(cs ...corev1.ContainerStatus) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.ContainerStatuses = cs }
}

func initContainers(cs ...corev1.ContainerStatus) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.InitContainerStatuses = cs }
}

func TestWhyAPodHasNoSidecar(t *testing.T) {
	for name, tc := range map[string]struct {
		labels, notes map[string]string
		want          string
	}{
		"it was skipped":          {nil, map[string]string{v1alpha1.SkipAnnotation: "PortTaken: 15601"}, "PortTaken: 15601"},
		"nothing is noted":        {nil, nil, ""},
		"a copied note, injected": {map[string]string{v1alpha1.InjectedLabel: "true"}, map[string]string{v1alpha1.SkipAnnotation: "PortTaken: 15601"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{}
			pod.Labels, pod.Annotations = tc.labels, tc.notes
			if got := observePod(pod, true).NoSidecar; got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestProblemOfAPod(t *testing.T) {
	type problem struct {
		Problem rollout.PodProblem
		Message string
		Since   time.Time
	}
	unschedulable := func(pod *corev1.Pod) {
		pod.Status.StartTime = nil
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes", LastTransitionTime: metaAt(2),
		}}
	}
	for name, tc := range map[string]struct {
		change []func(*corev1.Pod)
		want   problem
	}{
		"a running pod has none":                {[]func(*corev1.Pod){containers(runningSince("app", 3))}, problem{}},
		"being created is none":                 {[]func(*corev1.Pod){containers(waiting("app", "ContainerCreating", ""))}, problem{}},
		"an unknown reason is none":             {[]func(*corev1.Pod){containers(waiting("app", "PodInitializing", ""))}, problem{}},
		"an image that can't be pulled":         {[]func(*corev1.Pod){containers(waiting("app", "ErrImagePull", " not found\n"))}, problem{rollout.ProblemImagePull, "not found", at(0)}},
		"the kubelet waits before it pulls":     {[]func(*corev1.Pod){containers(waiting("app", "ImagePullBackOff", "back-off"))}, problem{rollout.ProblemImagePull, "back-off", at(0)}},
		"an image's name that is none":          {[]func(*corev1.Pod){containers(waiting("app", "InvalidImageName", "x"))}, problem{rollout.ProblemImagePull, "x", at(0)}},
		"an image that may not be pulled":       {[]func(*corev1.Pod){containers(waiting("app", "ErrImageNeverPull", "x"))}, problem{rollout.ProblemImagePull, "x", at(0)}},
		"a missing ConfigMap":                   {[]func(*corev1.Pod){containers(waiting("app", "CreateContainerConfigError", "configmap"))}, problem{rollout.ProblemConfiguration, "configmap", at(0)}},
		"a container that can't be created":     {[]func(*corev1.Pod){containers(waiting("app", "CreateContainerError", "x"))}, problem{rollout.ProblemConfiguration, "x", at(0)}},
		"a container that can't be run":         {[]func(*corev1.Pod){containers(waiting("app", "RunContainerError", "x"))}, problem{rollout.ProblemConfiguration, "x", at(0)}},
		"a crash loop says how the app ended":   {[]func(*corev1.Pod){containers(ended(waiting("app", "CrashLoopBackOff", "back-off"), "Error", 30))}, problem{rollout.ProblemCrashLoop, "container app: Error", at(30)}},
		"a crash loop before its end is known":  {[]func(*corev1.Pod){containers(waiting("app", "CrashLoopBackOff", ""))}, problem{rollout.ProblemCrashLoop, "container app", at(0)}},
		"OOM, running again":                    {[]func(*corev1.Pod){containers(ended(runningSince("app", 41), "OOMKilled", 40))}, problem{rollout.ProblemOOMKilled, "container app", at(40)}},
		"OOM while another's image is missing":  {[]func(*corev1.Pod){containers(waiting("a", "ErrImagePull", "x"), ended(runningSince("b", 41), "OOMKilled", 40))}, problem{rollout.ProblemOOMKilled, "container b", at(40)}},
		"trouble of an init container":          {[]func(*corev1.Pod){initContainers(waiting("migrate", "ErrImagePull", "x"))}, problem{rollout.ProblemImagePull, "x", at(0)}},
		"trouble of the sidecar is none":        {[]func(*corev1.Pod){initContainers(waiting(v1alpha1.ProxyContainer, "ErrImagePull", "x"), waiting(v1alpha1.PrepareContainer, "CrashLoopBackOff", "x"))}, problem{}},
		"no node has room":                      {[]func(*corev1.Pod){unschedulable}, problem{rollout.ProblemUnschedulable, "0/3 nodes", at(2)}},
		"a hiccup of the registry at a restart": {[]func(*corev1.Pod){containers(ended(waiting("app", "ErrImagePull", "x"), "Error", 500))}, problem{rollout.ProblemImagePull, "x", at(500)}},
		"a pull after slow init containers": {
			[]func(*corev1.Pod){containers(waiting("app", "ErrImagePull", "x")), set(corev1.PodInitialized, corev1.ConditionTrue, 90)},
			problem{rollout.ProblemImagePull, "x", at(90)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := observePod(podOf(candidateHash, "c1", "10.0.0.2", tc.change...), true)
			if d := cmp.Diff(tc.want, problem{p.Problem, p.Message, p.ProblemSince}); d != "" {
				t.Errorf("problem (-want +got):\n%s", d)
			}
		})
	}
}

func TestReadinessOfAPod(t *testing.T) {
	otherGate := func(pod *corev1.Pod) {
		pod.Spec.ReadinessGates = append(pod.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: "lb.example/attached"})
	}
	notReady := set(corev1.ContainersReady, corev1.ConditionFalse, 50)
	proxy := func(ready bool) func(*corev1.Pod) {
		cs := runningSince(v1alpha1.ProxyContainer, 1)
		cs.Ready = ready
		return initContainers(cs)
	}
	restarted := func(app, sidecar int32) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: v1alpha1.ProxyContainer, RestartCount: sidecar}}
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", RestartCount: 1}, {Name: "b", RestartCount: app}}
		}
	}
	phase := func(p corev1.PodPhase) func(*corev1.Pod) { return func(pod *corev1.Pod) { pod.Status.Phase = p } }
	ungated := func(pod *corev1.Pod) { pod.Spec.ReadinessGates = nil }
	base := rollout.Pod{Name: "c1", CreatedAt: at(0), NodeReady: true, Gated: true}
	but := func(change func(*rollout.Pod)) rollout.Pod {
		p := base
		change(&p)
		return p
	}
	for name, tc := range map[string]struct {
		change   []func(*corev1.Pod)
		nodeDown bool
		want     rollout.Pod
	}{
		"ready but for the gate":   {want: but(func(p *rollout.Pod) { p.ReadyButGate = true })},
		"gate open and ready":      {change: []func(*corev1.Pod){gateOpen, set(corev1.PodReady, corev1.ConditionTrue, 7)}, want: but(func(p *rollout.Pod) { p.ReadyButGate, p.GateOpen, p.Ready = true, true, true })},
		"another gate is not open": {change: []func(*corev1.Pod){otherGate}, want: but(func(p *rollout.Pod) { p.Message = "pod c1 waits for its readiness gate lb.example/attached" })},
		"containers are not ready": {change: []func(*corev1.Pod){func(pod *corev1.Pod) {
			for i := range pod.Status.Conditions {
				if c := &pod.Status.Conditions[i]; c.Type == corev1.ContainersReady {
					c.Status, c.Message, c.LastTransitionTime = corev1.ConditionFalse, "containers with unready status: [app]", metaAt(0)
				}
			}
		}, containers(runningSince("app", 3)), otherGate}, want: but(func(p *rollout.Pod) { p.Message = "containers with unready status: [app]" })},
		"an init container is not done": {change: []func(*corev1.Pod){func(pod *corev1.Pod) {
			pod.Status.Conditions = []corev1.PodCondition{
				{Type: corev1.PodInitialized, Status: corev1.ConditionFalse, Message: "containers with incomplete status: [migrate]"},
				{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, Message: "containers with unready status: [app]"},
			}
		}}, want: but(func(p *rollout.Pod) { p.Message = "containers with incomplete status: [migrate]" })},
		"another gate is open":               {change: []func(*corev1.Pod){otherGate, set("lb.example/attached", corev1.ConditionTrue, 7)}, want: but(func(p *rollout.Pod) { p.ReadyButGate = true })},
		"a pod without gate and sidecar":     {change: []func(*corev1.Pod){ungated, uninjected}, want: but(func(p *rollout.Pod) { p.ReadyButGate, p.Gated = true, false })},
		"being deleted it is never ready":    {change: []func(*corev1.Pod){terminating}, want: but(func(p *rollout.Pod) { p.Terminating = true })},
		"evicted it counts as terminating":   {change: []func(*corev1.Pod){phase(corev1.PodFailed)}, want: but(func(p *rollout.Pod) { p.Terminating = true })},
		"its node is down":                   {nodeDown: true, want: but(func(p *rollout.Pod) { p.ReadyButGate, p.NodeReady = false, false })},
		"the sidecar's restarts don't count": {change: []func(*corev1.Pod){restarted(0, 9)}, want: but(func(p *rollout.Pod) { p.ReadyButGate, p.Restarts = true, 1 })},
		"the most restarts of an app count":  {change: []func(*corev1.Pod){restarted(3, 9)}, want: but(func(p *rollout.Pod) { p.ReadyButGate, p.Restarts = true, 3 })},
		"never ready since its start":        {change: []func(*corev1.Pod){set(corev1.ContainersReady, corev1.ConditionFalse, 0), containers(runningSince("app", 3))}, want: base},
		"readiness lost while it runs":       {change: []func(*corev1.Pod){notReady, containers(runningSince("app", 3)), proxy(true)}, want: but(func(p *rollout.Pod) { p.LostReadySince = at(50) })},
		"a restart is no loss of readiness":  {change: []func(*corev1.Pod){notReady, containers(runningSince("app", 51))}, want: base},
		"neither is a crash": {change: []func(*corev1.Pod){notReady, containers(waiting("app", "CrashLoopBackOff", ""))}, want: but(func(p *rollout.Pod) {
			p.Problem, p.Message, p.ProblemSince = rollout.ProblemCrashLoop, "container app", at(0)
		})},
		"nor a sidecar that is not ready": {change: []func(*corev1.Pod){notReady, containers(runningSince("app", 3)), proxy(false)}, want: base},
		"nor the end of the pod":          {change: []func(*corev1.Pod){notReady, containers(runningSince("app", 3)), terminating}, want: but(func(p *rollout.Pod) { p.Terminating = true })},
	} {
		t.Run(name, func(t *testing.T) {
			got := observePod(podOf(candidateHash, "c1", "10.0.0.2", tc.change...), !tc.nodeDown)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("pod (-want +got):\n%s", d)
			}
		})
	}
}
