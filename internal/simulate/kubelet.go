// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// What a version's pods suffer from.
const (
	healthy = "ok"
	crashes = "crash"  // restarts every few seconds
	hangs   = "hang"   // runs, but is never ready
	noImage = "image"  // can't be pulled
	killed  = "oom"    // is killed for its memory
	noRoom  = "noroom" // finds no node
)

// kubelets run the pods: scheduler, kubelets and the node lifecycle controller in one.
type kubelets struct {
	api *api
	// trouble is what new and running pods of a version suffer from.
	trouble map[string]string
	// sick are single pods whose app has ceased to be ready.
	sick map[string]bool
	down map[string]bool // nodes
	turn int
	ips  map[string]int
	// settled are the pods, as they were last seen, about which there was nothing to do.
	settled map[string]settled
}

type settled struct {
	pod     *corev1.Pod
	trouble string
	sick    bool
}

// nodes are where pods run.
var nodes = []string{"n1", "n2", "n3"}

// evictAfter is how long pods stay on a node that is not ready.
const evictAfter = 30 * time.Second

func (k *kubelets) sync() {
	for _, name := range nodes {
		k.syncNode(name)
	}
	for _, o := range k.api.all(pods) {
		pod := o.(*corev1.Pod)
		switch {
		case k.down[pod.Spec.NodeName]:
			k.lost(pod)
		case pod.DeletionTimestamp != nil:
			if !k.api.now.Before(pod.DeletionTimestamp.Add(time.Second)) {
				k.api.gone(pod)
			}
		case pod.Spec.NodeName == "":
			k.schedule(pod)
		default:
			k.run(pod)
		}
	}
}

func (k *kubelets) syncNode(name string) {
	status := corev1.ConditionTrue
	if k.down[name] {
		status = corev1.ConditionUnknown
	}
	node := &corev1.Node{}
	node.Name = name
	stored, exists := k.api.memory["nodes"][keyOf("", name)].(*corev1.Node)
	if exists && stored.Status.Conditions[0].Status == status {
		return
	}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastTransitionTime: metav1.NewTime(k.api.now)}}
	if !exists {
		_ = k.api.create("kubelet", node)
		return
	}
	_ = k.api.update("kubelet", node, true)
}

// lost: nobody hears of the pods of a node that is down; they are not ready, and later evicted.
func (k *kubelets) lost(pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		return
	}
	next := pod.DeepCopy()
	k.set(next, corev1.PodReady, false)
	k.write(pod, next)
	c := condition(next, corev1.PodReady)
	if k.api.now.Sub(c.LastTransitionTime.Time) >= evictAfter {
		_ = k.api.remove("node-lifecycle", next, nil)
	}
}

func (k *kubelets) schedule(pod *corev1.Pod) {
	next := pod.DeepCopy()
	node := k.nextNode()
	if node == "" || k.trouble[hashOf(pod)] == noRoom {
		if condition(next, corev1.PodScheduled) == nil {
			next.Status.Conditions = append(next.Status.Conditions, corev1.PodCondition{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
				Message: "0/3 nodes are available", LastTransitionTime: metav1.NewTime(k.api.now),
			})
		}
		k.write(pod, next)
		return
	}
	k.set(next, corev1.PodScheduled, true)
	next.Spec.NodeName = node // a binding
	next.Status.StartTime = new(metav1.NewTime(k.api.now))
	if k.ips == nil {
		k.ips = map[string]int{}
	}
	k.ips[pod.Name] = len(k.ips) + 1
	next.Status.PodIP = fmt.Sprintf("10.0.%d.%d", k.ips[pod.Name]/200, k.ips[pod.Name]%200+1)
	next.Status.PodIPs = []corev1.PodIP{{IP: next.Status.PodIP}}
	k.api.commit("scheduler", pod, next)
}

func (k *kubelets) nextNode() string {
	for range nodes {
		k.turn++
		if name := nodes[k.turn%len(nodes)]; !k.down[name] {
			return name
		}
	}
	return ""
}

// run moves a pod on: containers and sidecar start, then the app is ready, unless something ails it.
func (k *kubelets) run(pod *corev1.Pod) {
	trouble := k.trouble[hashOf(pod)]
	seen := settled{pod, trouble, k.sick[pod.Name]}
	if k.settled[pod.Name] == seen && trouble != crashes && trouble != killed {
		return
	}
	next := pod.DeepCopy()
	ready := k.start(next, trouble)
	for _, g := range next.Spec.ReadinessGates {
		ready = ready && isTrue(next, g.ConditionType)
	}
	k.set(next, corev1.PodReady, ready)
	if !k.write(pod, next) {
		k.settled[pod.Name] = seen
	}
}

// start runs the containers and says whether they are ready.
func (k *kubelets) start(pod *corev1.Pod, trouble string) bool {
	s, now := &pod.Status, metav1.NewTime(k.api.now)
	app := corev1.ContainerStatus{Name: appContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}
	if len(s.ContainerStatuses) > 0 {
		app = *s.ContainerStatuses[0].DeepCopy()
	}
	ready := s.Phase != corev1.PodPending && (trouble == "" || trouble == healthy) && !k.sick[pod.Name]
	suffer(&app, trouble, now)
	app.Ready = ready
	if trouble != noImage {
		s.Phase = corev1.PodRunning
	}
	s.ContainerStatuses = []corev1.ContainerStatus{app}
	if pod.Labels[v1alpha1.InjectedLabel] == "true" && s.Phase == corev1.PodRunning {
		s.InitContainerStatuses = []corev1.ContainerStatus{{Name: v1alpha1.PrepareContainer, Ready: true}, {Name: v1alpha1.ProxyContainer, Ready: true}}
		k.set(pod, corev1.PodInitialized, true)
	}
	k.set(pod, corev1.ContainersReady, ready)
	return ready
}

// restartAfter is how often a container that crashes does so. After maxRestarts the back-off is so long that
// nothing more happens in a history.
const (
	restartAfter = 4 * time.Second
	maxRestarts  = 12
)

// suffer gives a container what ails its version.
func suffer(app *corev1.ContainerStatus, trouble string, now metav1.Time) {
	waiting := func(reason string) {
		app.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "no luck"}}
	}
	last := app.LastTerminationState.Terminated
	switch trouble {
	case noImage:
		waiting("ImagePullBackOff")
	case crashes, killed:
		if last != nil && (now.Sub(last.FinishedAt.Time) < restartAfter || app.RestartCount >= maxRestarts) {
			return
		}
		app.RestartCount++
		reason := "Error"
		if trouble == killed {
			reason = "OOMKilled"
		}
		app.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{Reason: reason, ExitCode: 1, FinishedAt: now}
		waiting("CrashLoopBackOff")
	default:
		if app.State.Running == nil {
			app.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
		}
	}
}

func (k *kubelets) set(pod *corev1.Pod, t corev1.PodConditionType, on bool) {
	status := corev1.ConditionFalse
	if on {
		status = corev1.ConditionTrue
	}
	c := condition(pod, t)
	switch {
	case c == nil:
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: t, Status: status, LastTransitionTime: metav1.NewTime(k.api.now)})
	case c.Status != status:
		c.Status, c.Reason, c.Message, c.LastTransitionTime = status, "", "", metav1.NewTime(k.api.now)
	}
}

// write says whether there was anything to write.
func (k *kubelets) write(before, next *corev1.Pod) bool {
	if apiequality.Semantic.DeepEqual(before.Status, next.Status) {
		return false
	}
	_ = k.api.update("kubelet", next, true)
	return true
}

// ordinal is the number at the end of a pod's name.
func ordinal(name string) int {
	n, _ := strconv.Atoi(name[len(name)-3:])
	return n
}
