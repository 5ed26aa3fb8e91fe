// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Alone are the models of the native controllers with nobody else: no Headgate, no scheduler, no kubelet that does anything by
// itself. One line after the other happens, and after each of them the controllers come to rest. It is held against a
// control plane to which the same happens (e2e/fidelity); how long anything takes there is of no consequence then, and every
// size between two changes of a pod is seen.
type Alone struct{ w *world }

// NewAlone is a world without a workload.
func NewAlone() *Alone {
	w := newWorld()
	_ = w.user.enable(false)
	return &Alone{w}
}

// Age is for how long a pod that gets ready late says that it has been ready: longer than any minReadySeconds.
const Age = 2 * time.Hour

// aloneActions are what can happen; user verbs as in histories, and what a kubelet does to one pod. Of pods that are alike any one
// may be meant: which of them goes first is the same for the counts.
var aloneActions = map[string]action{
	"create":    {text((*world).createOnNode), "VERSION"},
	"replicas":  actions["replicas"],
	"set-image": actions["set-image"],
	"undo":      actions["undo"],
	"pause":     actions["pause"],
	"resume":    actions["resume"],
	"scale":     actions["scale"],
	"strategy":  actions["strategy"],
	"history":   {number(changing(func(d *appsv1.Deployment, n int32) { d.Spec.RevisionHistoryLimit = &n })), "N old revisions are kept"},
	"min-ready": {number(changing(func(d *appsv1.Deployment, n int32) { d.Spec.MinReadySeconds = n })), "SECONDS"},
	"annotate":  {text((*world).annotate), "VALUE, of an annotation that ReplicaSets get too"},
	"ready":     {text(onPod(Unready, func(w *world, p *corev1.Pod) error { return w.kubelets.becomes(p, true, 0) })), "VERSION: one pod of it"},
	"long-ready": {text(onPod(Unready, func(w *world, p *corev1.Pod) error { return w.kubelets.becomes(p, true, Age) })),
		"VERSION: one pod of it, which says that it has been ready for long"},
	"unready":      {text(onPod(Ready, func(w *world, p *corev1.Pod) error { return w.kubelets.becomes(p, false, 0) })), "VERSION: one pod of it"},
	"evict":        {text(onPod(Ready, (*world).evict)), "VERSION: a ready pod of it fails for good"},
	"kill":         {text(onPod(Ready, (*world).kill)), "VERSION: a ready pod of it is deleted"},
	"kill-unready": {text(onPod(Unready, (*world).kill)), "VERSION: a pod of it that is not ready is deleted"},
	"end":          {text(onPod(Ending, func(w *world, p *corev1.Pod) error { w.api.gone(p); return nil })), "VERSION: a deleted pod of it has ended"},
}

// Do lets a line happen, and then the controllers act until they are at rest. It says whether anything could happen at all: not
// where nobody is there to whom it could, or where kubectl refuses it.
func (a *Alone) Do(line string) (done bool, err error) {
	words := strings.Fields(line)
	act, ok := aloneActions[words[0]]
	if !ok {
		return false, fmt.Errorf("%q: there are %v", line, slices.Sorted(maps.Keys(aloneActions)))
	}
	a.w.api.now = a.w.api.now.Add(time.Second)
	err = act.does(a.w, words[1:])
	if errors.Is(err, errUsage) {
		return false, fmt.Errorf("%q: want %s %s", line, words[0], act.usage)
	}
	return err == nil, a.settle()
}

// maxPasses is far more than any line leads to.
const maxPasses = 200

func (a *Alone) settle() error {
	w := a.w
	for range maxPasses {
		version := w.api.version
		w.native.view.catchUp(func(kind) bool { return false })
		w.native.sync(true)
		w.sets.sync()
		w.api.collectGarbage()
		if w.api.version == version {
			return nil
		}
	}
	return fmt.Errorf("after %d passes the models still write", maxPasses)
}

// Objects are all that is stored of the workload. Nobody may modify them.
func (a *Alone) Objects() []client.Object {
	return (&Cluster{w: a.w, cache: a.w.api.memory}).Objects()
}

// createOnNode creates the Deployment with a node in its template, so that its pods need no scheduler, and do not go at once when
// they are deleted.
func (w *world) createOnNode(version string) error {
	d := w.user.manifest(version)
	d.Spec.Template.Spec.NodeName = nodes[0]
	return w.user.createAs(d)
}

func (w *world) annotate(value string) error {
	return w.user.write(func(d *appsv1.Deployment) {
		d.Annotations = maps.Clone(d.Annotations)
		d.Annotations[Annotation] = value
	})
}

// Annotation is the one that "annotate" sets.
const Annotation = "example.com/told"

func changing(f func(*appsv1.Deployment, int32)) func(*world, int32) error {
	return func(w *world, n int32) error {
		return w.user.write(func(d *appsv1.Deployment) { f(d, n) })
	}
}

// becomes changes whether a pod is ready, since some time ago.
func (k *kubelets) becomes(pod *corev1.Pod, ready bool, ago time.Duration) error {
	next := pod.DeepCopy()
	next.Status.Phase = corev1.PodRunning
	k.set(next, corev1.PodReady, ready)
	condition(next, corev1.PodReady).LastTransitionTime = metav1.NewTime(k.api.now.Add(-ago))
	return k.api.update("kubelet", next, true)
}

func (w *world) evict(pod *corev1.Pod) error {
	next := pod.DeepCopy()
	next.Status.Phase = corev1.PodFailed
	w.kubelets.set(next, corev1.PodReady, false)
	return w.api.update("kubelet", next, true)
}

func (w *world) kill(pod *corev1.Pod) error { return w.api.remove("user", pod, nil) }

// PodState is all that tells the pods of a version apart.
type PodState string

// The states.
const (
	Unready PodState = "unready"
	Ready   PodState = "ready"
	Ending  PodState = "ending" // deleted, and not gone yet
	Failed  PodState = "failed" // for good
)

// StateOf is a pod's.
func StateOf(pod *corev1.Pod) PodState {
	switch {
	case pod.Status.Phase == corev1.PodFailed:
		return Failed
	case pod.DeletionTimestamp != nil:
		return Ending
	case isReady(pod):
		return Ready
	}
	return Unready
}

// VersionOf is what a pod, or the pods of a ReplicaSet or Deployment, run.
func VersionOf(o client.Object) string {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return versionOf(&o.Spec.Template)
	case *appsv1.ReplicaSet:
		return versionOf(&o.Spec.Template)
	case *corev1.Pod:
		return o.Spec.Containers[0].Image
	}
	return ""
}

// errNoPod: no pod is in the state that a line is about.
var errNoPod = errors.New("there is no such pod")

// onPod does something to the oldest pod of a version that is in a state.
func onPod(in PodState, does func(*world, *corev1.Pod) error) func(*world, string) error {
	return func(w *world, version string) error {
		pod := PodOf((&Alone{w}).Objects(), version, in)
		if pod == nil {
			return errNoPod
		}
		return does(w, pod)
	}
}

// PodOf is the first pod of a version that is in a state; nil: there is none.
func PodOf(objects []client.Object, version string, in PodState) *corev1.Pod {
	for _, pod := range ownedPods(objects) {
		if VersionOf(pod) == version && StateOf(pod) == in {
			return pod
		}
	}
	return nil
}

// ownedPods are those whose ReplicaSet is still there. The others no controller counts, and how many there are is a question of
// luck: one that is paused before the first new pod is made larger, for it is the only one, and deleted in the same pass where the
// history has no room for it, and meanwhile it may have made pods.
func ownedPods(objects []client.Object) (out []*corev1.Pod) {
	for _, o := range objects {
		if pod, ok := o.(*corev1.Pod); ok && slices.ContainsFunc(objects, func(owner client.Object) bool { return metav1.IsControlledBy(pod, owner) }) {
			out = append(out, pod)
		}
	}
	return out
}

// Describe says in lines what a workload has come to, for comparison: what is written there by controllers, with names and times
// left out, which are never the same twice.
func Describe(objects []client.Object) string {
	var lines []string
	counts := map[string]int{}
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			lines = append(lines, describeDeployment(o))
			for _, c := range o.Status.Conditions {
				lines = append(lines, fmt.Sprintf("Deployment is %s: %s, %s", c.Type, c.Status, reasonOf(o, c.Reason)))
			}
		case *appsv1.ReplicaSet:
			lines = append(lines, describeReplicaSet(o))
		}
	}
	for _, pod := range ownedPods(objects) {
		counts[fmt.Sprintf("pods of %s that are %s", VersionOf(pod), StateOf(pod))]++
	}
	for what, n := range counts {
		lines = append(lines, fmt.Sprintf("%s: %d", what, n))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func describeDeployment(d *appsv1.Deployment) string {
	s := &d.Status
	return fmt.Sprintf("Deployment %s: N=%d paused=%t revision=%q observed=%t replicas=%d updated=%d ready=%d available=%d unavailable=%d terminating=%s",
		VersionOf(d), *d.Spec.Replicas, d.Spec.Paused, d.Annotations[revisionAnnotation], s.ObservedGeneration == d.Generation,
		s.Replicas, s.UpdatedReplicas, s.ReadyReplicas, s.AvailableReplicas, s.UnavailableReplicas, show32(s.TerminatingReplicas))
}

// reasonOf is a condition's reason. Which one an update has that is under way is a question of luck in two cases: a new ReplicaSet's
// first pods are progress only to a pass that has counted the ReplicaSet without them, and where there is none of them
// yet, the end of the old ones only to a pass that has counted some of these.
func reasonOf(d *appsv1.Deployment, reason string) string {
	switch reason {
	case "NewReplicaSetCreated", "FoundNewReplicaSet", "ReplicaSetUpdated":
		return "under way"
	case "NewReplicaSetAvailable":
		if d.Status.UpdatedReplicas == 0 && *d.Spec.Replicas != 0 {
			return "under way"
		}
	}
	return reason
}

func describeReplicaSet(rs *appsv1.ReplicaSet) string {
	s, a := &rs.Status, rs.Annotations
	return fmt.Sprintf("ReplicaSet %s: size=%d revision=%q history=%q desired=%q max=%q told=%q minReady=%d observed=%t replicas=%d ready=%d available=%d terminating=%s conditions=%d",
		VersionOf(rs), sizeOf(rs), a[revisionAnnotation], a[historyAnnotation], a[desiredAnnotation], a[maxAnnotation], a[Annotation], rs.Spec.MinReadySeconds,
		s.ObservedGeneration == rs.Generation, s.Replicas, s.ReadyReplicas, s.AvailableReplicas, show32(s.TerminatingReplicas), len(s.Conditions))
}

func show32(n *int32) string {
	if n == nil {
		return "none"
	}
	return strconv.Itoa(int(*n))
}

// AtRest says whether the statuses are about what is there, so that no controller has anything to tell another one any more.
func AtRest(objects []client.Object) bool {
	live := map[string]int32{}
	for _, pod := range ownedPods(objects) {
		if s := StateOf(pod); s == Ready || s == Unready {
			live[VersionOf(pod)]++
		}
	}
	var d *appsv1.Deployment
	replicas, available := int32(0), int32(0)
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			d = o
		case *appsv1.ReplicaSet:
			if o.Status.ObservedGeneration != o.Generation || o.Status.Replicas != sizeOf(o) || live[VersionOf(o)] != sizeOf(o) {
				return false
			}
			replicas, available = replicas+o.Status.Replicas, available+o.Status.AvailableReplicas
		}
	}
	return d != nil && tells(d, replicas, available)
}

func tells(d *appsv1.Deployment, replicas, available int32) bool {
	s := &d.Status
	return s.ObservedGeneration == d.Generation && s.Replicas == replicas && s.AvailableReplicas == available
}
