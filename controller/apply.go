// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// Field managers. The first owns annotations only; what the second writes is disowned at once, so that
// the user's next server-side apply meets no conflict.
const (
	fieldManager       = "headgate"
	directFieldManager = "headgate-direct"
)

// failurePrefix begins the message of a failure condition that Headgate wrote.
const failurePrefix = "headgate: "

// apply makes the world what the Decision says, in the order that package rollout demands: the status
// first, because all weights derive from it and nothing may stand before weight 0; what raises before
// what lowers. Every write is repeated by the next pass if this one fails.
func (r *Reconciler) apply(ctx context.Context, w *workload, d rollout.Decision) error {
	before := w.status()
	if err := r.writeRecord(ctx, w, d); err != nil {
		return err
	}
	// What happened is reported as soon as it is recorded: the next pass finds it done, and reports nothing.
	r.emitUnheld(w, &before)
	r.emit(w, d)
	return errors.Join(
		r.clearWishes(ctx, w, d),
		r.showFailure(ctx, w, d.Failure),
		r.openGates(ctx, w, d),
		r.writeHold(ctx, w, d),
		r.deletePods(ctx, w, d),
		r.resize(ctx, w, d),
		r.noteReplicas(ctx, w, d),
		r.deleteRevisions(ctx, w, d),
		r.wake(ctx, w, d),
	)
}

// writeRecord creates the Rollout when it is missing and writes its status when it changed.
func (r *Reconciler) writeRecord(ctx context.Context, w *workload, d rollout.Decision) error {
	if w.record == nil {
		w.record = &v1alpha1.Rollout{ObjectMeta: metav1.ObjectMeta{
			Namespace: w.deployment.Namespace, Name: w.deployment.Name, OwnerReferences: ownedBy(w.deployment),
		}}
		if err := r.Client.Create(ctx, w.record); err != nil {
			w.record = nil
			return fmt.Errorf("creating the rollout record: %w", err)
		}
	}
	if err := r.adopt(ctx, w); err != nil {
		return err
	}
	if !apiequality.Semantic.DeepEqual(w.record.Status, d.Status) {
		next := w.record.DeepCopy()
		next.Status = d.Status
		if err := r.Client.Status().Update(ctx, next); err != nil {
			return fmt.Errorf("writing the rollout record: %w", err)
		}
		w.record = next
	}
	return nil
}

// adopt makes the Deployment that is there now the record's owner: one that was orphaned and created anew under the
// same name would otherwise leave its record behind for ever.
func (r *Reconciler) adopt(ctx context.Context, w *workload) error {
	if metav1.IsControlledBy(w.record, w.deployment) {
		return nil
	}
	next := w.record.DeepCopy()
	next.OwnerReferences = ownedBy(w.deployment)
	if err := r.Client.Update(ctx, next); err != nil {
		return fmt.Errorf("making the Deployment the owner of its rollout record: %w", err)
	}
	w.record = next
	return nil
}

func ownedBy(d *appsv1.Deployment) []metav1.OwnerReference {
	return []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
}

// clearWishes removes the wishes that were taken up. After the status: a wish that is left over is cleared
// by the next pass, one that is lost would have to be repeated by the user.
func (r *Reconciler) clearWishes(ctx context.Context, w *workload, d rollout.Decision) error {
	next := w.record.DeepCopy()
	if d.ClearRetry {
		next.Spec.Retry = nil
	}
	if d.ClearPromote {
		next.Spec.Promote = nil
	}
	if d.ClearApprove {
		next.Spec.Approve = nil
	}
	if apiequality.Semantic.DeepEqual(w.record.Spec, next.Spec) {
		return nil
	}
	if err := r.Client.Update(ctx, next); err != nil {
		return fmt.Errorf("clearing the wishes that were taken up: %w", err)
	}
	w.record = next
	return nil
}

// failureShown is the message of the failure condition on the Deployment; empty: there is none.
func failureShown(d *appsv1.Deployment) string {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse && c.Reason == v1alpha1.ReasonDeadlineExceeded {
			return c.Message
		}
	}
	return ""
}

// showFailure writes the condition that native tools read as failure, and takes back what it wrote when
// there is none any more. Any pod whose readiness changes makes the Deployment controller write True
// again; then the next pass asserts it again.
func (r *Reconciler) showFailure(ctx context.Context, w *workload, message string) error {
	shown := failureShown(w.deployment)
	if shown == message || (message == "" && !strings.HasPrefix(shown, failurePrefix)) {
		return nil
	}
	c := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: v1alpha1.ReasonDeadlineExceeded,
		Message: message, LastUpdateTime: metav1.NewTime(r.Now()), LastTransitionTime: metav1.NewTime(r.Now()),
	}
	if message == "" {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "ReplicaSetUpdated", failurePrefix+"the failed version is gone or tried again"
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []appsv1.DeploymentCondition{c}}})
	if err != nil {
		return fmt.Errorf("encoding the failure condition: %w", err)
	}
	d := w.deployment.DeepCopy()
	if err := r.Client.Status().Patch(ctx, d, client.RawPatch(types.StrategicMergePatchType, patch), client.FieldOwner(fieldManager)); err != nil {
		return fmt.Errorf("showing the failure: %w", err)
	}
	// This write alone must not make the hold of the same pass a conflict: it is as fresh as before where
	// nothing but the status changed.
	if d.Generation == w.deployment.Generation && apiequality.Semantic.DeepEqual(d.Annotations, w.deployment.Annotations) {
		w.deployment.ResourceVersion = d.ResourceVersion
	}
	return nil
}

// openGates opens and closes gates by the pods' conditions.
func (r *Reconciler) openGates(ctx context.Context, w *workload, d rollout.Decision) error {
	var errs []error
	set := func(hashes []string, status corev1.ConditionStatus) {
		for _, hash := range hashes {
			for _, pod := range w.pods[hash] {
				open := conditionTrue(pod, v1alpha1.GateCondition)
				if webhook.HasGate(pod) && pod.DeletionTimestamp == nil && open != (status == corev1.ConditionTrue) {
					errs = append(errs, r.setGate(ctx, pod, status))
				}
			}
		}
	}
	set(d.OpenGates, corev1.ConditionTrue) // raises first
	set(d.CloseGates, corev1.ConditionFalse)
	return errors.Join(errs...)
}

func (r *Reconciler) setGate(ctx context.Context, pod *corev1.Pod, status corev1.ConditionStatus) error {
	// About the pod as it was seen: a leader of the past, which writes no record where its status stays the same, must not close
	// what its successor has opened.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": pod.ResourceVersion},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: v1alpha1.GateCondition, Status: status, Reason: "Rollout", LastTransitionTime: metav1.NewTime(r.Now()),
		}}},
	})
	if err != nil {
		return fmt.Errorf("encoding the gate of %s: %w", pod.Name, err)
	}
	err = r.Client.Status().Patch(ctx, pod.DeepCopy(), client.RawPatch(types.StrategicMergePatchType, patch), client.FieldOwner(fieldManager))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("setting the gate of pod %s: %w", pod.Name, err)
	}
	return nil
}

func (r *Reconciler) deletePods(ctx context.Context, w *workload, d rollout.Decision) error {
	var errs []error
	for _, name := range d.DeletePods {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.deployment.Namespace, Name: name}}
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, pod)); err != nil {
			errs = append(errs, fmt.Errorf("deleting ungated pod %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// resize scales ReplicaSets, raises first. Preconditions: the ReplicaSet as it was read, and for what is lowered a Deployment read
// live that is about the same version, and, if it is stable, has no larger N: caches fill at different times, and a stale one
// must not take pods away. All of a decision is about the same Deployment: what else is to be lowered waits for the next pass.
func (r *Reconciler) resize(ctx context.Context, w *workload, d rollout.Decision) error {
	for _, size := range d.Sizes {
		rs := w.replicaSet(size.Revision)
		if rs == nil {
			continue
		}
		if size.Replicas < *rs.Spec.Replicas {
			may, err := r.mayLower(ctx, w, size, size.Revision == d.Status.Stable.Hash)
			if err != nil || !may {
				return err
			}
		}
		next := rs.DeepCopy()
		next.Spec.Replicas = &size.Replicas
		noteMost(next, w.deployment, d.Hold)
		if err := r.Client.Update(ctx, next); err != nil {
			return fmt.Errorf("scaling revision %s to %d: %w", size.Revision, size.Replicas, err)
		}
	}
	return nil
}

func (r *Reconciler) mayLower(ctx context.Context, w *workload, size rollout.Size, stable bool) (bool, error) {
	var live appsv1.Deployment
	if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(w.deployment), &live); err != nil {
		return false, fmt.Errorf("reading the Deployment before revision %s is made smaller: %w", size.Revision, err)
	}
	if webhook.TemplateDigest(live.Spec.Template) != webhook.TemplateDigest(w.deployment.Spec.Template) {
		return false, nil
	}
	return !stable || live.Spec.Replicas != nil && size.Replicas >= *live.Spec.Replicas, nil
}

// noteReplicas notes N, and with it that there may be no more pods: with Recreate, where this is needed, there never are.
func (r *Reconciler) noteReplicas(ctx context.Context, w *workload, d rollout.Decision) error {
	for _, hash := range d.NoteReplicas {
		rs := w.replicaSet(hash)
		if rs == nil || w.deployment.Spec.Replicas == nil {
			continue
		}
		next, n := rs.DeepCopy(), strconv.Itoa(int(*w.deployment.Spec.Replicas))
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, desiredAnnotation, n)
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, maxAnnotation, n)
		if err := r.Client.Update(ctx, next); err != nil {
			return fmt.Errorf("noting %s replicas on revision %s: %w", n, hash, err)
		}
	}
	return nil
}

// noteMost notes on a ReplicaSet what the Deployment controller would have noted, had it done the scaling.
// It sizes all of them anew when N changes, in proportion to this number: with one of a smaller k, a
// candidate of 3 pods grew to 4 when the user went from 5 replicas to 4, and stable lost 2 instead of 1.
func noteMost(rs *appsv1.ReplicaSet, d *appsv1.Deployment, hold *v1alpha1.Hold) {
	if hold == nil || d.Spec.Replicas == nil {
		return
	}
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	rs.Annotations[maxAnnotation] = strconv.Itoa(int(*d.Spec.Replicas + hold.K))
}

// wakeEvery is how often a ReplicaSet is woken: its controller needs a moment, and the condition that tells how that went
// another one.
const wakeEvery = 5 * time.Second

// wake writes to ReplicaSets: whatever changes, their controller tries again at once. Nothing stays, because kubectl's
// undo copies a ReplicaSet's annotations to the Deployment.
func (r *Reconciler) wake(ctx context.Context, w *workload, d rollout.Decision) error {
	for _, hash := range d.Wake {
		rs := w.replicaSet(hash)
		if rs == nil || !r.memory.every(wakeEvery, client.ObjectKeyFromObject(w.deployment), "woken "+hash, r.Now()) {
			continue
		}
		for _, value := range []string{`"now"`, "null"} {
			patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+v1alpha1.WakeAnnotation+`":`+value+`}}}`))
			if err := client.IgnoreNotFound(r.Client.Patch(ctx, rs.DeepCopy(), patch, client.FieldOwner(fieldManager))); err != nil {
				return fmt.Errorf("waking revision %s: %w", hash, err)
			}
		}
	}
	return nil
}

func (r *Reconciler) deleteRevisions(ctx context.Context, w *workload, d rollout.Decision) error {
	var errs []error
	for _, hash := range d.DeleteRevisions {
		rs := w.replicaSet(hash)
		if rs == nil || rs.DeletionTimestamp != nil {
			continue
		}
		err := r.Client.Delete(ctx, rs, client.Preconditions{UID: &rs.UID, ResourceVersion: &rs.ResourceVersion})
		if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("deleting the empty revision %s: %w", hash, err))
		}
	}
	return errors.Join(errs...)
}

func (w *workload) replicaSet(hash string) *appsv1.ReplicaSet {
	for _, rs := range w.replicaSets {
		if rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey] == hash {
			return rs
		}
	}
	return nil
}

// conflict: somebody wrote in between; the next pass sees the newer object.
func conflict(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
}

// retrySoon is the pause after a conflict: the cache is about to catch up.
const retrySoon = 100 * time.Millisecond
