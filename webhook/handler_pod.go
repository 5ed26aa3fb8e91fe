// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/headgate/headgate/api/v1alpha1"
)

// pods answers for new pods. failurePolicy Ignore covers a webhook that can't be reached; one that is
// reached and can't find out whose pod it is refuses it: the ReplicaSet tries again within moments,
// whereas a pod let in without a gate might serve unjudged, and one with a gate that nobody opens never
// serves.
func (e *edge) pods(ctx context.Context, req admission.Request) admission.Response {
	start := e.cfg.Now()
	defer func() { e.metrics.observe("pods", start, e.cfg.Now()) }()
	pod, admitted, err := e.admitPod(ctx, req)
	if errors.Is(err, errSkip) {
		return admission.Allowed("")
	}
	if err != nil {
		log.FromContext(ctx).Error(err, "Deciding about a pod")
		return admission.Errored(http.StatusInternalServerError, fmt.Errorf("headgate could not decide whether this pod may serve, so it is refused; it will be tried again: %w", err))
	}
	return patchResponse(pod, admitted)
}

func (e *edge) admitPod(ctx context.Context, req admission.Request) (pod, admitted *corev1.Pod, err error) {
	if req.Operation != admissionv1.Create || req.SubResource != "" || req.Namespace == e.cfg.SystemNamespace {
		return nil, nil, errSkip
	}
	pod = &corev1.Pod{}
	if err := json.Unmarshal(req.Object.Raw, pod); err != nil {
		return nil, nil, fmt.Errorf("decoding the pod: %w", err)
	}
	w, err := e.workloadOf(ctx, req.Namespace, pod)
	if err != nil {
		return nil, nil, err
	}
	admitted, gate := pod, w.gate()
	switch {
	case gate.Closed:
		admitted = CloseGate(admitted)
	case w.isCandidate():
		admitted = markOpen(admitted)
	}
	var skip Skip
	if w.managed() {
		cfg, err := e.injection(ctx, w.namespace, pod.Labels, e.injectionFor(w.deployment.Name, hashOf(w.replicaSet)))
		if err != nil {
			return nil, nil, err
		}
		admitted, skip = Inject(admitted, cfg)
	}
	if !isDryRun(req) {
		e.countPod(gate, w.managed(), skip)
	}
	return pod, admitted, nil
}

func (e *edge) countPod(gate GateDecision, managed bool, skip Skip) {
	word := v1alpha1.GateOpen
	if gate.Closed {
		word = v1alpha1.GateClosed
	}
	e.metrics.gates.WithLabelValues(string(word)).Inc()
	if managed {
		e.metrics.injections.WithLabelValues(string(skip.Reason)).Inc()
	}
}

// workloadOfPod is what a new pod belongs to.
type workloadOfPod struct {
	namespace  *corev1.Namespace
	replicaSet *appsv1.ReplicaSet
	deployment *appsv1.Deployment
	record     *v1alpha1.Rollout
	policy     *v1alpha1.RolloutPolicySpec
}

// managed: a policy asks for rollouts, and so for sidecars.
func (w workloadOfPod) managed() bool { return w.policy != nil && !w.policy.Suspend }

// gate is the decision about the pod. Where no policy selects the workload, a gate that nobody decided
// about would never be opened.
func (w workloadOfPod) gate() GateDecision {
	g := DecideGate(w.replicaSet, w.record)
	if g.Closed && !g.Decided && !w.managed() {
		return GateDecision{Reason: "no policy selects the workload"}
	}
	return g
}

// isCandidate: the record still calls the pod's revision a candidate.
func (w workloadOfPod) isCandidate() bool {
	return w.record != nil && w.record.Status.Candidate.Hash != "" && w.record.Status.Candidate.Hash == hashOf(w.replicaSet)
}

// markOpen notes on a pod that it was let in without a gate on purpose. The chart's ValidatingAdmissionPolicy
// refuses pods of a candidate that the Pod webhook has not seen. A template that says open does not know its own hash.
func markOpen(pod *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	noteOnPod(out, v1alpha1.GateAnnotation, string(v1alpha1.GateOpen))
	noteOnPod(out, v1alpha1.GateTemplateAnnotation, pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey])
	return out
}

// workloadOf finds the ReplicaSet, Deployment, record and policy of a new pod. errSkip: it is no Deployment's.
func (e *edge) workloadOf(ctx context.Context, namespace string, pod *corev1.Pod) (w workloadOfPod, err error) {
	ref := metav1.GetControllerOf(pod)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return w, errSkip
	}
	var enabled bool
	if w.namespace, enabled, err = e.namespace(ctx, namespace); err != nil {
		return w, err
	}
	if !enabled {
		return w, errSkip
	}
	w.replicaSet = &appsv1.ReplicaSet{}
	if err := e.cachedOrLive(ctx, namespace, ref, w.replicaSet); err != nil {
		return w, err
	}
	if ref = metav1.GetControllerOf(w.replicaSet); ref == nil || ref.Kind != "Deployment" {
		return w, errSkip
	}
	w.deployment = &appsv1.Deployment{}
	if err := e.cachedOrLive(ctx, namespace, ref, w.deployment); err != nil {
		return w, err
	}
	if w.record, err = e.record(ctx, types.NamespacedName{Namespace: namespace, Name: w.deployment.Name}); err != nil {
		return w, err
	}
	selection, err := e.policy(ctx, namespace, w.deployment.Labels, e.cfg.Now())
	if err != nil {
		return w, err
	}
	w.policy = selection.Spec
	return w, e.refresh(ctx, &w)
}

// refresh reads the ReplicaSet again where a stale copy would let a candidate in: one that was released
// or rolled out before, says open in the cache, and closed since a moment ago. Pods of the stable revision,
// by far the most, cost nothing.
func (e *edge) refresh(ctx context.Context, w *workloadOfPod) error {
	stable := recordedStable(w.replicaSet, w.record)
	if stable == (v1alpha1.Revision{}) || stable.Hash == hashOf(w.replicaSet) || DecideGate(w.replicaSet, w.record).Closed {
		return nil
	}
	fresh := &appsv1.ReplicaSet{}
	if err := e.live.Get(ctx, client.ObjectKeyFromObject(w.replicaSet), fresh); err != nil {
		return fmt.Errorf("reading ReplicaSet %s: %w", w.replicaSet.Name, err)
	}
	w.replicaSet = fresh
	return nil
}

// cachedOrLive reads an owner, from the API server when the cache has not seen it yet. An owner that is
// gone will take the pod with it: errSkip.
func (e *edge) cachedOrLive(ctx context.Context, namespace string, ref *metav1.OwnerReference, into client.Object) error {
	key := types.NamespacedName{Namespace: namespace, Name: ref.Name}
	for _, reader := range []client.Reader{e.cache, e.live} {
		err := reader.Get(ctx, key, into)
		if err == nil && into.GetUID() == ref.UID {
			return nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading %s %s: %w", ref.Kind, key, err)
		}
	}
	return errSkip
}

// scale answers for writes to the scale of a Deployment. What can't be decided is admitted: scaling must
// work without Headgate.
func (e *edge) scale(ctx context.Context, req admission.Request) admission.Response {
	start := e.cfg.Now()
	defer func() { e.metrics.observe("scale", start, e.cfg.Now()) }()
	if req.Operation != admissionv1.Update || req.SubResource != "scale" || req.Namespace == e.cfg.SystemNamespace {
		return admission.Allowed("")
	}
	var from, to autoscalingv1.Scale
	if err := decode(req, &from, &to); err != nil {
		log.FromContext(ctx).Error(err, "Deciding about a scale")
		return admission.Allowed("")
	}
	in := ScaleInput{
		From: from.Spec.Replicas, To: to.Spec.Replicas, ByAutoscaler: slices.Contains(e.cfg.Autoscalers, req.UserInfo.Username),
		Now: e.cfg.Now(),
	}
	key := types.NamespacedName{Namespace: req.Namespace, Name: req.Name}
	d := &appsv1.Deployment{}
	if err := e.cache.Get(ctx, key, d); err == nil {
		in.Deployment = d
		if hpa, err := e.autoscaler(ctx, d); err == nil && hpa != nil {
			in.Max = hpa.Spec.MaxReplicas
		}
	}
	if r, err := e.record(ctx, key); err == nil {
		in.Record = r
	}
	decision := DecideScale(in)
	if !decision.Raised {
		return admission.Allowed("")
	}
	if !isDryRun(req) {
		e.metrics.raised.Inc()
	}
	raised := to.DeepCopy()
	raised.Spec.Replicas = decision.Replicas
	return patchResponse(&to, raised).WithWarnings(decision.Reason)
}
