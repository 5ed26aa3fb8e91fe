// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// desiredAnnotation is what the Deployment controller notes on a ReplicaSet (k8s.io/kubernetes,
// pkg/controller/deployment/util: DesiredReplicasAnnotation).
const desiredAnnotation = "deployment.kubernetes.io/desired-replicas"

// maxAnnotation is the most pods that the Deployment controller has last allowed when it sized a ReplicaSet;
// a change of N is shared out by it (the same file: MaxReplicasAnnotation).
const maxAnnotation = "deployment.kubernetes.io/max-replicas"

// workload is one Deployment with everything around it, as the caches show it.
type workload struct {
	deployment  *appsv1.Deployment
	enabled     bool // the namespace is labelled
	policy      *v1alpha1.RolloutPolicySpec
	record      *v1alpha1.Rollout // nil when there is none
	replicaSets []*appsv1.ReplicaSet
	pods        map[string][]*corev1.Pod // by pod-template-hash
	autoscaled  bool
	nodesReady  map[string]bool // by name; see nodeUp
}

// gather reads everything about one workload from the caches; nil when the Deployment is gone.
func (r *Reconciler) gather(ctx context.Context, key types.NamespacedName) (*workload, error) {
	w := &workload{deployment: &appsv1.Deployment{}, pods: map[string][]*corev1.Pod{}}
	if err := r.Client.Get(ctx, key, w.deployment); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	steps := []func(context.Context, *workload) error{r.gatherPolicy, r.gatherRecord, r.gatherReplicaSets, r.gatherPods, r.gatherOrphans, r.gatherAutoscaler, r.gatherNodes}
	for _, step := range steps {
		if err := step(ctx, w); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (r *Reconciler) gatherPolicy(ctx context.Context, w *workload) error {
	var ns corev1.Namespace
	if err := r.Client.Get(ctx, types.NamespacedName{Name: w.deployment.Namespace}, &ns); err != nil {
		return fmt.Errorf("getting namespace %q: %w", w.deployment.Namespace, err)
	}
	w.enabled = ns.Labels[v1alpha1.EnabledLabel] == "true" && ns.Name != r.Namespace
	if !w.enabled || r.releasing(ctx) {
		return nil
	}
	var namespaced v1alpha1.RolloutPolicyList
	if err := r.Client.List(ctx, &namespaced, client.InNamespace(ns.Name)); err != nil {
		return fmt.Errorf("listing policies of %q: %w", ns.Name, err)
	}
	var cluster v1alpha1.ClusterRolloutPolicyList
	if err := r.Client.List(ctx, &cluster); err != nil {
		return fmt.Errorf("listing cluster policies: %w", err)
	}
	selected := r.Deleted.Select(ns.Name, namespaced.Items, cluster.Items, w.deployment.Labels, r.Now())
	if selected.Spec == nil || selected.Deleted { // what is about to come back is waited for: a rollout is judged by one policy to its end
		return nil
	}
	home := ns.Name
	if selected.Cluster {
		home = ""
	}
	// With the templates in it, so that what begins a rollout is what is recorded. What is wrong, the policy says.
	var err error
	w.policy, _, err = resolve(ctx, r.Client, home, selected.Spec)
	return err
}

// releasing: the chart is being uninstalled (or somebody ran `headgate release --all`): every hold ends.
func (r *Reconciler) releasing(ctx context.Context) bool {
	return Releasing(ctx, r.Client, types.NamespacedName{Namespace: r.Namespace, Name: r.Deployment})
}

// Releasing says whether Headgate's own Deployment carries the wish to release everything. A Deployment
// that is not there, or can't be read, says nothing.
func Releasing(ctx context.Context, c client.Reader, own types.NamespacedName) bool {
	var d appsv1.Deployment
	return c.Get(ctx, own, &d) == nil && d.Annotations[v1alpha1.ReleaseAnnotation] == "true"
}

func (r *Reconciler) gatherRecord(ctx context.Context, w *workload) error {
	var record v1alpha1.Rollout
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(w.deployment), &record)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("getting rollout %s/%s: %w", w.deployment.Namespace, w.deployment.Name, err)
	}
	w.record = &record
	return nil
}

func (r *Reconciler) gatherReplicaSets(ctx context.Context, w *workload) error {
	var list appsv1.ReplicaSetList
	if err := r.Client.List(ctx, &list, client.InNamespace(w.deployment.Namespace), client.MatchingFields{webhook.OwnerIndex: string(w.deployment.UID)}); err != nil {
		return fmt.Errorf("listing replica sets of %s/%s: %w", w.deployment.Namespace, w.deployment.Name, err)
	}
	for i := range list.Items {
		w.replicaSets = append(w.replicaSets, &list.Items[i])
	}
	return nil
}

func (r *Reconciler) gatherPods(ctx context.Context, w *workload) error {
	for _, rs := range w.replicaSets {
		var list corev1.PodList
		if err := r.Client.List(ctx, &list, client.InNamespace(rs.Namespace), client.MatchingFields{webhook.OwnerIndex: string(rs.UID)}); err != nil {
			return fmt.Errorf("listing pods of replica set %s/%s: %w", rs.Namespace, rs.Name, err)
		}
		hash := rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		for i := range list.Items {
			if pod := &list.Items[i]; !ofAnother(pod, hash) {
				w.pods[hash] = append(w.pods[hash], pod)
			}
		}
	}
	return nil
}

// ofAnother: a ReplicaSet of another revision has made the pod, and somebody has changed its pod-template-hash, by which this
// one has adopted it. It runs the other revision. (generateName can't be changed; a pod that was made by hand may have none.)
func ofAnother(pod *corev1.Pod, hash string) bool {
	return pod.GenerateName != "" && !strings.HasSuffix(strings.TrimSuffix(pod.GenerateName, "-"), "-"+hash)
}

// gatherOrphans finds the pods that somebody left when he deleted stable's ReplicaSet. They serve as before, so that they are
// stable's: their sidecars split requests and count them. A ReplicaSet with the same template, which any undo makes, adopts them.
func (r *Reconciler) gatherOrphans(ctx context.Context, w *workload) error {
	stable := w.status().Stable.Hash
	if stable == "" || w.status().DeploymentUID != w.deployment.UID || w.replicaSet(stable) != nil {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(w.deployment.Spec.Selector)
	if err != nil {
		return fmt.Errorf("reading the selector of %s/%s: %w", w.deployment.Namespace, w.deployment.Name, err)
	}
	var list corev1.PodList
	if err := r.Client.List(ctx, &list, client.InNamespace(w.deployment.Namespace), client.MatchingLabels{appsv1.DefaultDeploymentUniqueLabelKey: stable}); err != nil {
		return fmt.Errorf("listing pods of %q without an owner: %w", w.deployment.Namespace, err)
	}
	for i := range list.Items {
		if pod := &list.Items[i]; metav1.GetControllerOf(pod) == nil && selector.Matches(labels.Set(pod.Labels)) {
			w.pods[stable] = append(w.pods[stable], pod)
		}
	}
	return nil
}

func (r *Reconciler) gatherAutoscaler(ctx context.Context, w *workload) error {
	var list autoscalingv2.HorizontalPodAutoscalerList
	if err := r.Client.List(ctx, &list, client.InNamespace(w.deployment.Namespace)); err != nil {
		return fmt.Errorf("listing autoscalers of %q: %w", w.deployment.Namespace, err)
	}
	for _, hpa := range list.Items {
		t := hpa.Spec.ScaleTargetRef
		if t.Kind == "Deployment" && t.Name == w.deployment.Name {
			w.autoscaled = true
		}
	}
	return nil
}

func (r *Reconciler) gatherNodes(ctx context.Context, w *workload) error {
	var list corev1.NodeList
	// Each pass reads all nodes, and a node is large: they are only looked at.
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	w.nodesReady = map[string]bool{}
	for i := range list.Items {
		w.nodesReady[list.Items[i].Name] = webhook.NodeReady(&list.Items[i])
	}
	return nil
}

// nodeUp says whether a pod's node, by the name that the pod gives, is ready; a pod without a node is on none that is down.
//
// A node that is not known is down: a machine fails, its node is not ready, and is then deleted by the cloud provider;
// until the pods are collected, up to a minute later, they claim to be as ready as they were when the kubelet last spoke.
// It is not that nothing is known yet: no list is answered before the cache has synced. A node that is so new that its
// pod is seen first counts as down until it is seen too, the time of a watch event. Then a candidate waits that moment,
// and a pod gets no requests of the other revision in it; the Feeder looks again (see awaitsNode).
func (w *workload) nodeUp(name string) bool {
	return name == "" || w.nodesReady[name]
}

// status is the record's, or an empty one.
func (w *workload) status() v1alpha1.RolloutStatus {
	if w.record == nil {
		return v1alpha1.RolloutStatus{}
	}
	return w.record.Status
}

// concerned says whether Headgate has anything to do with this Deployment: a policy selects it, or
// something of an earlier time is still there.
func (w *workload) concerned() bool {
	return w.policy != nil || w.deployment.Annotations[v1alpha1.HoldAnnotation] != "" || slices.ContainsFunc(w.replicaSets, w.waits) ||
		(w.record != nil && w.record.Status.Phase != "" && w.record.Status.Phase != v1alpha1.PhaseIdle) || w.holdIsLeft()
}

// holdIsLeft: a hold was wiped, by an undo, and the fields are still its. The record is written before the fields go back, and
// says nothing else any more when that write met a conflict.
func (w *workload) holdIsLeft() bool {
	return w.status().Hold != "" && webhook.FieldsOf(w.deployment).HaveHeldDeadline()
}

// waits: it has pods whose gates are closed: those of a hold, or of a template that slipped past the webhook, which the Pod
// webhook has gated and no hold is about.
func (w *workload) waits(rs *appsv1.ReplicaSet) bool {
	return (rs.Spec.Replicas == nil || *rs.Spec.Replicas > 0) && (rs.Annotations[v1alpha1.GateAnnotation] == string(v1alpha1.GateClosed) ||
		slices.ContainsFunc(w.pods[rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]], func(pod *corev1.Pod) bool {
			return webhook.HasGate(pod) && !conditionTrue(pod, v1alpha1.GateCondition) && pod.DeletionTimestamp == nil
		}))
}

// observe is the Observation but for the verdict, the sidecars and what only memory knows.
func (w *workload) observe(now time.Time) rollout.Observation {
	o := rollout.Observation{
		Now:        now,
		Deployment: observeDeployment(w.deployment, w.replicaSets),
		Autoscaled: w.autoscaled,
	}
	if w.record != nil {
		o.Wishes = w.record.Spec
	}
	for _, rs := range w.replicaSets {
		o.Revisions = append(o.Revisions, w.observeRevision(rs))
	}
	return o
}

func (w *workload) observeRevision(rs *appsv1.ReplicaSet) rollout.Revision {
	hash := rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	rev := rollout.Revision{Hash: hash, Template: webhook.TemplateDigest(rs.Spec.Template), Desired: -1, Replicas: 1}
	if rs.Spec.Replicas != nil {
		rev.Replicas = *rs.Spec.Replicas
	}
	if n, err := strconv.ParseInt(rs.Annotations[desiredAnnotation], 10, 32); err == nil {
		rev.Desired = int32(n)
	}
	for _, c := range rs.Status.Conditions {
		if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
			rev.CreateFailure, rev.CreateFailureSince = c.Message, c.LastTransitionTime.Time
		}
	}
	for _, pod := range w.pods[hash] {
		rev.Pods = append(rev.Pods, observePod(pod, w.nodeUp(pod.Spec.NodeName)))
	}
	return rev
}

func observeDeployment(d *appsv1.Deployment, owned []*appsv1.ReplicaSet) rollout.Deployment {
	digest := webhook.TemplateDigest(d.Spec.Template)
	o := rollout.Deployment{
		UID: d.UID, Generation: d.Generation, Replicas: 1, Paused: d.Spec.Paused,
		Current:  d.Status.ObservedGeneration >= d.Generation,
		Template: digest,
		User:     webhook.FieldsOf(d),
	}
	if d.Spec.Replicas != nil {
		o.Replicas = *d.Spec.Replicas
	}
	o.Complete = o.Current && d.Status.UpdatedReplicas == o.Replicas && d.Status.Replicas == o.Replicas && d.Status.AvailableReplicas == o.Replicas
	// An annotation that can't be read counts as none: the controller then restores the recorded one.
	o.Hold, _ = v1alpha1.ParseHold(d.Annotations[v1alpha1.HoldAnnotation])
	o.Gate = webhook.GateOfDeployment(d, owned)
	if m := failureShown(d); strings.HasPrefix(m, failurePrefix) {
		o.FailureShown = m
	}
	if reason := d.Annotations[v1alpha1.BypassAnnotation]; reason != "" {
		o.Bypass = webhook.BypassDigest(reason)
	}
	return o
}

// stableDownSince is since when no stable pod is available on a ready node; zero while one is.
func (w *workload) stableDownSince() time.Time {
	stable := w.status().Stable.Hash
	if stable == "" {
		return time.Time{}
	}
	since := webhook.StableDown(w.copies(stable), w.nodeUp)
	if since == nil {
		return time.Time{}
	}
	return *since
}

// stableGone: pods of stable should run, and there is none that could say since when it is not available: their
// ReplicaSet was deleted by hand with them, or can't make any.
func (w *workload) stableGone() bool {
	s := w.status()
	if s.Stable.Hash == "" || s.DeploymentUID != w.deployment.UID || (w.deployment.Spec.Replicas != nil && *w.deployment.Spec.Replicas == 0) {
		return false
	}
	return !slices.ContainsFunc(w.pods[s.Stable.Hash], func(pod *corev1.Pod) bool { return !webhook.Ended(pod) })
}

// copies are the pods of a revision as values.
func (w *workload) copies(hash string) []corev1.Pod {
	var out []corev1.Pod
	for _, p := range w.pods[hash] {
		out = append(out, *p)
	}
	return out
}

// splitState says whether requests to the stable revision can be split.
func (w *workload) splitState() webhook.SplitState {
	return webhook.SplitFromPods(w.copies(w.status().Stable.Hash))
}
