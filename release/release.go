// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package release ends every hold in a cluster: the emergency exit, and what the chart's uninstall hook
// runs. Forward where nothing speaks against the candidate, back where it failed; the user's fields as
// he wrote them; nothing of Headgate stays in any Deployment.
//
// It works in two ways. With a living control plane it asks it to release (an annotation), because only
// the control plane can take the weights out of the sidecars first; it waits for that. What is still
// held then, or all of it if the control plane is dead, it releases itself: the webhooks are removed
// first, so that nobody refuses or undoes the writes.
package release

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/internal/fieldowner"
	"github.com/headgate/headgate/rollout"
	"github.com/headgate/headgate/webhook"
)

// fieldManager is the name under which Deployments are written; disown takes it away again.
const fieldManager = "headgate-release"

// ownManagers are the names under which Headgate writes to Deployments.
func ownManagers() []string { return []string{"headgate", "headgate-direct", fieldManager} }

// Options say how to release.
type Options struct {
	// Client reads live and writes.
	Client client.Client
	// Namespace is Headgate's own, Deployment the control plane's name there. Empty: the one where the webhooks point, or,
	// without webhooks, headgate-system.
	Namespace, Deployment string
	// WebhookConfiguration, and the binding of the ValidatingAdmissionPolicy that keeps candidates out while the
	// webhooks are away, are removed before anything is written directly.
	WebhookConfiguration, PolicyBinding string
	// Patience is how long the control plane may take to release by itself.
	Patience time.Duration
	// Out is told what happens, a line each.
	Out io.Writer
}

// All ends every hold and removes Headgate's annotations from all Deployments. Errors about single
// Deployments do not keep it from the others; they are joined. What is held at the end is an error, too.
func All(ctx context.Context, o Options) error {
	if err := o.locate(ctx); err != nil {
		return err
	}
	if err := o.ask(ctx); err != nil {
		fmt.Fprintf(o.Out, "The control plane could not be asked (%v); releasing directly\n", err)
	} else {
		o.waitForControlPlane(ctx)
	}
	if err := o.removeWebhooks(ctx); err != nil {
		return err
	}
	return o.releaseDirectly(ctx)
}

// locate finds Headgate's namespace where it was not given. A control plane that lives elsewhere is not asked and not stopped,
// and puts every hold back: that there is one in another namespace than was given is an error, before anything is done.
func (o *Options) locate(ctx context.Context) error {
	if o.Namespace == "" {
		if err := o.followWebhooks(ctx); err != nil {
			return err
		}
	}
	key := types.NamespacedName{Namespace: o.Namespace, Name: o.Deployment}
	if err := o.Client.Get(ctx, key, &appsv1.Deployment{}); !apierrors.IsNotFound(err) {
		return nil // it is there; or nobody knows now, and who asks it says why
	}
	var list appsv1.DeploymentList
	if err := o.Client.List(ctx, &list, client.MatchingLabels(labels())); err != nil {
		return fmt.Errorf("looking for the control plane: %w", err)
	}
	if len(list.Items) == 0 {
		return nil // it is dead
	}
	there := client.ObjectKeyFromObject(&list.Items[0])
	return fmt.Errorf("%w %s but %s: give --namespace %s --deployment %s", errElsewhere, key, there, there.Namespace, there.Name)
}

// errElsewhere is that the control plane lives in another namespace, or has another name, than was given.
var errElsewhere = errors.New("the control plane is not")

// labels are those by which the chart marks the control plane's Deployment.
func labels() map[string]string {
	return map[string]string{"app.kubernetes.io/name": "headgate", "app.kubernetes.io/part-of": "headgate"}
}

// followWebhooks sets the namespace to the one that the API server calls webhooks in.
func (o *Options) followWebhooks(ctx context.Context) error {
	o.Namespace = "headgate-system"
	var c admissionv1.MutatingWebhookConfiguration
	err := o.Client.Get(ctx, types.NamespacedName{Name: o.WebhookConfiguration}, &c)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("finding the control plane by the webhooks %s (or give --namespace): %w", o.WebhookConfiguration, err)
	}
	for _, w := range c.Webhooks {
		if s := w.ClientConfig.Service; s != nil {
			o.Namespace = s.Namespace
			return nil
		}
	}
	return nil
}

// What is released may be held again, or refused: the API server goes on calling webhooks for a moment after they were removed,
// and the control plane does not end the moment that it is told to. It is looked after it for as long.
const (
	settle = 2 * time.Second
	tries  = 5
)

// releaseDirectly releases what carries anything of Headgate's, until nothing is held any more.
func (o Options) releaseDirectly(ctx context.Context) error {
	list, err := o.deployments(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, held) {
		return o.releaseMarked(ctx, list)
	}
	// A control plane that is alive but did not release would put holds back.
	if err := o.stopControlPlane(ctx); err != nil {
		fmt.Fprintf(o.Out, "The control plane could not be stopped: %v\n", err)
	}
	var again []string
	for range tries {
		refused := o.releaseMarked(ctx, list)
		select {
		case <-ctx.Done():
			return errors.Join(refused, ctx.Err())
		case <-time.After(settle):
		}
		if list, err = o.deployments(ctx); err != nil {
			return errors.Join(refused, err)
		}
		if again = names(list, annotated); len(again) == 0 && refused == nil {
			return nil
		}
		err = refused
	}
	if len(again) == 0 {
		return err
	}
	return errors.Join(err, fmt.Errorf("%w: %s. A control plane that lives puts holds back: stop it (kubectl scale deployment %s -n %s --replicas=0) and try again",
		errHeld, strings.Join(again, ", "), o.Deployment, o.Namespace))
}

// errHeld is that something is held though it was released.
var errHeld = errors.New("still held, or held again")

// deployments are all in the cluster.
func (o Options) deployments(ctx context.Context) ([]appsv1.Deployment, error) {
	var list appsv1.DeploymentList
	if err := o.Client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing deployments: %w", err)
	}
	return list.Items, nil
}

// releaseMarked releases those that carry anything of Headgate's.
func (o Options) releaseMarked(ctx context.Context, deployments []appsv1.Deployment) error {
	var errs []error
	for i := range deployments {
		if marked(deployments[i]) {
			errs = append(errs, o.release(ctx, client.ObjectKeyFromObject(&deployments[i])))
		}
	}
	return errors.Join(errs...)
}

// askFor is how long the control plane is asked again where the API server does not take the wish.
const askFor = 10 * time.Second

// ask tells the control plane to end every hold.
func (o Options) ask(ctx context.Context) error {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Deployment}}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{v1alpha1.ReleaseAnnotation: "true"}}})
	if err != nil {
		return fmt.Errorf("encoding the wish to release: %w", err)
	}
	var refused error
	err = wait.PollUntilContextTimeout(ctx, time.Second, min(askFor, o.Patience), true, func(ctx context.Context) (bool, error) {
		refused = o.Client.Patch(ctx, d, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(fieldManager))
		if apierrors.IsNotFound(refused) || apierrors.IsForbidden(refused) {
			return false, refused
		}
		return refused == nil, nil
	})
	if err != nil {
		return fmt.Errorf("asking the control plane to release: %w", cmp.Or(refused, err))
	}
	if err := o.disown(ctx, client.ObjectKeyFromObject(d)); err != nil { // it was asked all the same
		fmt.Fprintf(o.Out, "The next helm upgrade may not take the wish back: %v\n", err)
	}
	return nil
}

// waitForControlPlane returns when nothing is held and no rollout is under way, or patience is over.
// A control plane without a ready pod is not waited for.
func (o Options) waitForControlPlane(ctx context.Context) {
	last := ""
	err := wait.PollUntilContextTimeout(ctx, time.Second, o.Patience, true, func(ctx context.Context) (bool, error) {
		var d appsv1.Deployment
		// Only an answer ends it. What is released directly keeps the weights that its sidecars were told last; one request
		// that took too long, or came at a bad time, must not lead there.
		err := o.Client.Get(ctx, types.NamespacedName{Namespace: o.Namespace, Name: o.Deployment}, &d)
		if apierrors.IsNotFound(err) || err == nil && d.Status.ReadyReplicas == 0 {
			return false, fmt.Errorf("the control plane %s/%s has no ready pod", o.Namespace, o.Deployment)
		}
		if err != nil {
			return false, nil //nolint:nilerr // the API server may answer next time
		}
		busy, err := o.busy(ctx)
		if err != nil {
			return false, nil //nolint:nilerr // the API server may answer next time
		}
		if now := strings.Join(busy, ", "); now != last && now != "" {
			fmt.Fprintf(o.Out, "Waiting for the control plane to release: %s\n", now)
			last = now
		}
		return len(busy) == 0, nil
	})
	if err != nil {
		fmt.Fprintf(o.Out, "Not waiting any longer: %v\n", err)
	}
}

// busy names the workloads that are held or not at rest.
func (o Options) busy(ctx context.Context) ([]string, error) {
	list, err := o.deployments(ctx)
	if err != nil {
		return nil, err
	}
	busy := names(list, held)
	var rollouts v1alpha1.RolloutList
	if err := o.Client.List(ctx, &rollouts); err != nil {
		return nil, fmt.Errorf("listing rollouts: %w", err)
	}
	for _, ro := range rollouts.Items {
		if name := ro.Namespace + "/" + ro.Name; ro.Status.Phase != "" && ro.Status.Phase != v1alpha1.PhaseIdle && !slices.Contains(busy, name) {
			busy = append(busy, name)
		}
	}
	return busy, nil
}

// removeWebhooks removes what would refuse or undo direct writes, and pods that are let out by them.
func (o Options) removeWebhooks(ctx context.Context) error {
	c := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: o.WebhookConfiguration}}
	if err := client.IgnoreNotFound(o.Client.Delete(ctx, c)); err != nil {
		return fmt.Errorf("removing the webhooks %s: %w", o.WebhookConfiguration, err)
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: o.PolicyBinding}}
	if err := client.IgnoreNotFound(o.Client.Delete(ctx, binding)); err != nil {
		return fmt.Errorf("removing the policy binding %s: %w", o.PolicyBinding, err)
	}
	return nil
}

func (o Options) stopControlPlane(ctx context.Context) error {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Deployment}}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
	if err := client.IgnoreNotFound(o.Client.Patch(ctx, d, patch, client.FieldOwner(fieldManager))); err != nil {
		return fmt.Errorf("scaling the control plane to 0: %w", err)
	}
	return o.disown(ctx, client.ObjectKeyFromObject(d)) // helm upgrade starts it again
}

// release ends one hold, opens the gates of what stays, and takes Headgate's annotations away.
func (o Options) release(ctx context.Context, key types.NamespacedName) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var d appsv1.Deployment
		if err := o.Client.Get(ctx, key, &d); err != nil {
			return client.IgnoreNotFound(err)
		}
		next, how, err := o.released(ctx, &d)
		if err != nil {
			return err
		}
		if err := o.Client.Update(ctx, next, client.FieldOwner(fieldManager)); err != nil {
			return err
		}
		fmt.Fprintf(o.Out, "Deployment %s: %s\n", key, how)
		return nil
	})
	if err != nil {
		return fmt.Errorf("releasing %s: %w", key, err)
	}
	return errors.Join(o.disown(ctx, key), o.openGates(ctx, key), o.closeRecord(ctx, key))
}

// closeRecord ends the rollout in the workload's record too. A control plane that comes back, maybe after months, would go
// on with it: with the fields, the candidate and the stable version of that time.
func (o Options) closeRecord(ctx context.Context, key types.NamespacedName) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var record v1alpha1.Rollout
		if err := o.Client.Get(ctx, key, &record); err != nil {
			return err
		}
		if s := &record.Status; s.Phase == "" || s.Phase == v1alpha1.PhaseIdle && s.Hold == "" {
			return nil
		}
		record.Status = rollout.Released(record.Status, time.Now())
		return o.Client.Status().Update(ctx, &record, client.FieldOwner(fieldManager))
	})
	if err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
		return fmt.Errorf("closing the record of %s: %w", key, err)
	}
	return nil
}

// disown takes Headgate out of the owners of a Deployment's fields, or the user's next server-side apply
// of another value would meet a conflict with somebody who is gone.
func (o Options) disown(ctx context.Context, key types.NamespacedName) error {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	return fieldowner.Disown(ctx, o.Client, o.Client, d, fieldManager, ownManagers()...)
}

// released is the Deployment as its user wrote it.
func (o Options) released(ctx context.Context, d *appsv1.Deployment) (*appsv1.Deployment, string, error) {
	next, how := d.DeepCopy(), "annotations removed"
	record, err := o.record(ctx, d)
	if err != nil {
		return nil, "", err
	}
	hold := lastHold(d, record)
	switch {
	case hold != nil:
		stable, err := o.stableTemplate(ctx, d, record)
		if err != nil {
			return nil, "", err
		}
		back := stable != nil && (failed(record) || hold.Release == v1alpha1.ReleaseBack)
		hold.Release, how = v1alpha1.ReleaseForward, "released forward"
		if back {
			hold.Release, how = v1alpha1.ReleaseBack, "released back, its candidate had failed"
		}
		// Nobody will be there to restore the fields when the user resumes, so a pause does not put that off.
		next.Spec.Paused = false
		next = webhook.Render(next, *hold, stable)
		next.Spec.Paused = d.Spec.Paused
	case held(*d):
		how = "annotations removed; the hold could not be read: check its strategy and progressDeadlineSeconds"
	}
	for _, a := range webhook.OwnAnnotations() {
		delete(next.Annotations, a)
	}
	return next, how, nil
}

// lastHold is the hold in force, or the record's copy of one that was wiped or can't be read; nil when
// the fields are the user's.
func lastHold(d *appsv1.Deployment, record *v1alpha1.Rollout) *v1alpha1.Hold {
	if hold, err := v1alpha1.ParseHold(d.Annotations[v1alpha1.HoldAnnotation]); err == nil && hold != nil {
		return hold
	}
	if record == nil || !webhook.FieldsOf(d).HaveHeldDeadline() {
		return nil
	}
	hold, err := v1alpha1.ParseHold(record.Status.Hold)
	if err != nil {
		return nil
	}
	return hold
}

// record is the workload's; nil when there is none, or when it is about another Deployment.
func (o Options) record(ctx context.Context, d *appsv1.Deployment) (*v1alpha1.Rollout, error) {
	var record v1alpha1.Rollout
	err := o.Client.Get(ctx, client.ObjectKeyFromObject(d), &record)
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err): // without its definition, nothing is recorded either
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("getting the record: %w", err)
	case record.Status.DeploymentUID != d.UID:
		return nil, nil
	}
	return &record, nil
}

// failed says whether the candidate did.
func failed(record *v1alpha1.Rollout) bool {
	return record != nil && (record.Status.Phase == v1alpha1.PhaseRollingBack || record.Status.Phase == v1alpha1.PhaseQuarantined)
}

// stableTemplate is the recorded stable revision's template; nil when unknown.
func (o Options) stableTemplate(ctx context.Context, d *appsv1.Deployment, record *v1alpha1.Rollout) (*corev1.PodTemplateSpec, error) {
	if record == nil || record.Status.Stable.Hash == "" {
		return nil, nil
	}
	var sets appsv1.ReplicaSetList
	if err := o.Client.List(ctx, &sets, client.InNamespace(d.Namespace), client.MatchingLabels{appsv1.DefaultDeploymentUniqueLabelKey: record.Status.Stable.Hash}); err != nil {
		return nil, fmt.Errorf("listing replica sets: %w", err)
	}
	for _, rs := range sets.Items {
		if metav1.IsControlledBy(&rs, d) {
			t := rs.Spec.Template
			delete(t.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
			return &t, nil
		}
	}
	return nil, nil
}

// openGates opens the gates of the pods that have the Deployment's template now; the others go.
func (o Options) openGates(ctx context.Context, key types.NamespacedName) error {
	var d appsv1.Deployment
	if err := o.Client.Get(ctx, key, &d); err != nil {
		return client.IgnoreNotFound(err)
	}
	var sets appsv1.ReplicaSetList
	if err := o.Client.List(ctx, &sets, client.InNamespace(d.Namespace)); err != nil {
		return fmt.Errorf("listing replica sets: %w", err)
	}
	for _, rs := range sets.Items {
		if !metav1.IsControlledBy(&rs, &d) || !webhook.EqualTemplate(&rs.Spec.Template, &d.Spec.Template) {
			continue
		}
		if err := errors.Join(o.markOpen(ctx, &d, &rs), o.openGatesOf(ctx, &rs)); err != nil {
			return err
		}
	}
	return nil
}

// markOpen notes on the ReplicaSet, where the Deployment controller has copied the gate of the hold, that this
// version was let out: for the Pod webhook, and for a control plane that comes back.
func (o Options) markOpen(ctx context.Context, d *appsv1.Deployment, rs *appsv1.ReplicaSet) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
		v1alpha1.GateAnnotation: string(v1alpha1.GateOpen), v1alpha1.GateTemplateAnnotation: webhook.TemplateDigest(d.Spec.Template),
	}}})
	if err != nil {
		return fmt.Errorf("encoding the gate: %w", err)
	}
	if err := client.IgnoreNotFound(o.Client.Patch(ctx, rs, client.RawPatch(types.MergePatchType, patch))); err != nil {
		return fmt.Errorf("marking revision %s as let out: %w", rs.Name, err)
	}
	return nil
}

func (o Options) openGatesOf(ctx context.Context, rs *appsv1.ReplicaSet) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.PodCondition{{
		Type: v1alpha1.GateCondition, Status: corev1.ConditionTrue, Reason: "Released", LastTransitionTime: metav1.Now(),
	}}}})
	if err != nil {
		return fmt.Errorf("encoding the gate: %w", err)
	}
	var pods corev1.PodList
	if err := o.Client.List(ctx, &pods, client.InNamespace(rs.Namespace), client.MatchingLabels(rs.Spec.Selector.MatchLabels)); err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	var errs []error
	for i := range pods.Items {
		pod := &pods.Items[i]
		if !webhook.HasGate(pod) || !metav1.IsControlledBy(pod, rs) {
			continue
		}
		err := o.Client.Status().Patch(ctx, pod, client.RawPatch(types.StrategicMergePatchType, patch))
		errs = append(errs, client.IgnoreNotFound(err))
	}
	return errors.Join(errs...)
}

// held: by the annotation or, where that was wiped or an undo dropped it, by the fields.
func held(d appsv1.Deployment) bool {
	return annotated(d) || webhook.FieldsOf(&d).HaveHeldDeadline()
}

// annotated: somebody holds it now. Fields of a hold alone may be what is left of one that nobody could read.
func annotated(d appsv1.Deployment) bool { return d.Annotations[v1alpha1.HoldAnnotation] != "" }

// names are the namespaces and names of those that are so.
func names(deployments []appsv1.Deployment, are func(appsv1.Deployment) bool) []string {
	var names []string
	for _, d := range deployments {
		if are(d) {
			names = append(names, d.Namespace+"/"+d.Name)
		}
	}
	return names
}

// marked: something of Headgate is on it.
func marked(d appsv1.Deployment) bool {
	if held(d) {
		return true
	}
	return slices.ContainsFunc(webhook.OwnAnnotations(), func(a string) bool { _, there := d.Annotations[a]; return there })
}
