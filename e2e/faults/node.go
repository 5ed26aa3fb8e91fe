// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// Process is a program in a container of a pod.
type Process struct {
	Pod *corev1.Pod
	// Container is its name, Program the base name of what runs in it.
	Container, Program string
}

// Replica is one of the control plane's pods as a process.
func Replica(pod *corev1.Pod) Process { return Process{pod, "headgate", "headgate"} }

// Envoy is the one in a pod's sidecar.
func Envoy(pod *corev1.Pod) Process { return Process{pod, v1alpha1.ProxyContainer, "envoy"} }

// Sidecar is what starts a pod's Envoy and talks to the control plane: without it the container ends.
func Sidecar(pod *corev1.Pod) Process { return Process{pod, v1alpha1.ProxyContainer, "headgate"} }

// Kill ends a process at once. Its container, if it was the first process there, is started again.
func Kill(c *harness.Case, p Process) {
	c.T.Helper()
	p.onNode(c, "signal", "KILL")
}

// Freeze stops a process: it keeps its connections and answers nothing. It goes on when thaw is called, or
// when the test ends.
func Freeze(c *harness.Case, p Process) (thaw func()) {
	c.T.Helper()
	p.onNode(c, "signal", "STOP")
	return mended(c, func() { p.onNode(c, "signal", "CONT") })
}

// Evict asks the API to move a pod elsewhere, as kubectl drain and autoscalers of nodes do. One that is gone already
// needs no asking.
func Evict(c *harness.Case, pod *corev1.Pod) {
	c.T.Helper()
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
	if err := c.Kube.PolicyV1().Evictions(pod.Namespace).Evict(c.Ctx, eviction); client.IgnoreNotFound(err) != nil {
		c.T.Fatalf("evicting pod %s: %v", pod.Name, err)
	}
}

// Network is how a pod reaches something.
type Network string

// Networks that are not well.
const (
	// Cut: connections are reset, and so is each attempt to make a new one.
	Cut Network = "cut"
	// HalfOpen: what the pod sends is lost, and neither side is told.
	HalfOpen Network = "half-open"
	// Slow: the pod can send one packet a second, what is more is lost.
	Slow Network = "slow"
)

// xdsPort of the control plane's Service.
const xdsPort = 15610

// peerPort of pods, at which the other revision's sidecars deliver.
const peerPort = 15601

// Disconnect breaks a sidecar's connection to the control plane, in the pod's own network, until it is mended
// or the test ends. Nobody else notices.
func Disconnect(c *harness.Case, pod *corev1.Pod, how Network) (mend func()) {
	c.T.Helper()
	return breakPort(c, pod, xdsPort, how)
}

// Shut loses what a pod's sidecar sends to the other revision's pods, as where a NetworkPolicy does not let in their peer port,
// until it is mended or the test ends. The cluster that the tests bring enforces no NetworkPolicy.
func Shut(c *harness.Case, pod *corev1.Pod) (mend func()) {
	c.T.Helper()
	return breakPort(c, pod, peerPort, HalfOpen)
}

// breakPort breaks what a pod sends to a port. A pod has one such fault at a time.
func breakPort(c *harness.Case, pod *corev1.Pod, port int, how Network) (mend func()) {
	c.T.Helper()
	Envoy(pod).onNode(c, "network", strconv.Itoa(port), string(how))
	return mended(c, func() { Envoy(pod).onNode(c, "network", strconv.Itoa(port), "well") })
}

// mended is mend that is called once: by the case, or when the test ends. The pod may be gone then.
func mended(c *harness.Case, mend func()) func() {
	broken := true
	once := func() {
		if broken {
			broken = false
			mend()
		}
	}
	c.T.Cleanup(once)
	return once
}

// onNode has a pod on the same node, which may see all processes there, do something to this one.
func (p Process) onNode(c *harness.Case, verb string, args ...string) {
	c.T.Helper()
	agent := "agent-" + p.Pod.Spec.NodeName
	root, yes := int64(0), true
	err := c.Client.Create(c.Ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: agent},
		Spec: corev1.PodSpec{
			NodeName: p.Pod.Spec.NodeName, HostPID: true,
			Containers: []corev1.Container{{
				Name: "agent", Image: harness.AppImage + "v1",
				SecurityContext: &corev1.SecurityContext{Privileged: &yes, RunAsUser: &root},
			}},
		},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		c.T.Fatalf("creating a pod that breaks others: %v", err)
	}
	c.AwaitPod(agent, "it runs", harness.Ready)
	c.Do(append([]string{"exec", agent, "--", "/app", verb, p.containerID(), p.Program}, args...)...)
}

// containerID is the container runtime's name for the container as it ran when the pod was read.
func (p Process) containerID() string {
	for _, s := range slices.Concat(p.Pod.Status.ContainerStatuses, p.Pod.Status.InitContainerStatuses) {
		if s.Name == p.Container {
			_, id, _ := strings.Cut(s.ContainerID, "://")
			return id
		}
	}
	return ""
}
