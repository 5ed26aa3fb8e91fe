// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

// user is whoever has the right to: kubectl, helm, a GitOps tool. It remembers what it wants.
type user struct {
	w *world
	// fields and replicas are what it wrote last; template is the version it asked for last.
	fields   v1alpha1.UserFields
	replicas int32
	// history is the revisionHistoryLimit.
	history  int32
	template string
	bypasses int
}

func newUser(w *world) *user {
	return &user{w: w, replicas: 4, history: 10, fields: rolling("25%", "25%", 600)}
}

func rolling(surge, unavailable string, deadline int32) v1alpha1.UserFields {
	s, u := intstr.Parse(surge), intstr.Parse(unavailable)
	return v1alpha1.UserFields{StrategyType: string(appsv1.RollingUpdateDeploymentStrategyType), MaxSurge: &s, MaxUnavailable: &u, ProgressDeadlineSeconds: &deadline}
}

func recreate() v1alpha1.UserFields {
	return v1alpha1.UserFields{StrategyType: string(appsv1.RecreateDeploymentStrategyType), ProgressDeadlineSeconds: new(int32(600))}
}

func setFields(d *appsv1.Deployment, f v1alpha1.UserFields) {
	d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.DeploymentStrategyType(f.StrategyType)}
	if f.MaxSurge != nil {
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: f.MaxSurge, MaxUnavailable: f.MaxUnavailable}
	}
	d.Spec.ProgressDeadlineSeconds = f.ProgressDeadlineSeconds
}

func (u *user) create(version string) error { return u.createAs(u.manifest(version)) }

func (u *user) manifest(version string) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: webKey.Namespace, Name: webKey.Name, Labels: labels,
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl", Operation: metav1.ManagedFieldsOperationUpdate}},
		},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(u.replicas), Selector: &metav1.LabelSelector{MatchLabels: labels}, RevisionHistoryLimit: new(u.history),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{app(version)}},
			},
		},
	}
	setFields(d, u.fields)
	return d
}

func (u *user) createAs(d *appsv1.Deployment) error {
	if err := u.w.api.create("user", d); err != nil {
		return err
	}
	u.template = versionOf(&d.Spec.Template)
	u.w.oracle.created(u.template)
	return nil
}

func app(version string) corev1.Container {
	return corev1.Container{
		Name: appContainer, Image: version, Ports: []corev1.ContainerPort{{ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: *apiresource.NewMilliQuantity(cpuRequest, apiresource.DecimalSI)}},
	}
}

// errNoWorkload: there is no Deployment to write to.
var errNoWorkload = errors.New("there is no deployment")

// write changes the Deployment as a patch does: without a resourceVersion.
func (u *user) write(change func(*appsv1.Deployment)) error {
	before := u.w.deployment()
	if before == nil {
		return errNoWorkload
	}
	d := before.DeepCopy()
	d.ResourceVersion = ""
	change(d)
	wanted := d.DeepCopy()
	if err := u.w.api.update("user", d, false); err != nil {
		return err
	}
	if v := versionOf(&wanted.Spec.Template); v != versionOf(&before.Spec.Template) {
		u.template = v
	}
	return nil
}

func (u *user) setImage(version string) error {
	return u.write(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = version })
}

// apply is the whole manifest again, as a client-side apply or Helm does.
func (u *user) apply(version string) error {
	return u.write(func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Image = version
		setFields(d, u.fields)
		d.Spec.Replicas = new(u.replicas)
	})
}

func (u *user) strategy(f v1alpha1.UserFields) error {
	if err := u.write(func(d *appsv1.Deployment) { setFields(d, f) }); err != nil {
		return err
	}
	u.fields = f
	return nil
}

func (u *user) bypass(version string) error {
	u.bypasses++
	return u.write(func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Image = version
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[v1alpha1.BypassAnnotation] = fmt.Sprintf("incident %d", u.bypasses)
	})
}

// wipe removes Headgate's annotations, as a tool does that prunes what is not in its manifest.
func (u *user) wipe() error {
	return u.write(func(d *appsv1.Deployment) {
		d.Annotations = maps.Clone(d.Annotations)
		maps.DeleteFunc(d.Annotations, func(k, _ string) bool { return k != revisionAnnotation })
	})
}

func (u *user) scaleTo(n int32) error {
	if u.w.deployment() == nil {
		return errNoWorkload
	}
	if err := u.w.api.scale("user", webKey, n); err != nil {
		return err
	}
	u.replicas = n
	return nil
}

func (u *user) pause(on bool) error {
	return u.write(func(d *appsv1.Deployment) { d.Spec.Paused = on })
}

// undo is what kubectl does: the previous revision's template and its ReplicaSet's annotations, in a patch.
func (u *user) undo() error {
	d := u.w.deployment()
	if d == nil {
		return errNoWorkload
	}
	if d.Spec.Paused {
		return errors.New("you cannot rollback a paused deployment")
	}
	to := u.w.previous(d)
	if to == nil {
		return errors.New("no rollout history found")
	}
	return u.write(func(d *appsv1.Deployment) {
		if webhook.EqualTemplate(&to.Spec.Template, &d.Spec.Template) {
			return // skipped
		}
		annotations := map[string]string{}
		for k, v := range to.Annotations {
			if !notCopied(k) {
				annotations[k] = v
			}
		}
		for k, v := range d.Annotations {
			if notCopied(k) {
				annotations[k] = v
			}
		}
		d.Annotations, d.Spec.Template = annotations, *to.Spec.Template.DeepCopy()
		delete(d.Spec.Template.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	})
}

// previous is the second newest revision; nil when there is none.
func (w *world) previous(d *appsv1.Deployment) *appsv1.ReplicaSet {
	var owned []*appsv1.ReplicaSet
	for _, o := range w.api.all(replicaSets) {
		if ref := metav1.GetControllerOf(o); ref != nil && ref.UID == d.UID {
			owned = append(owned, o.(*appsv1.ReplicaSet))
		}
	}
	slices.SortStableFunc(owned, func(a, b *appsv1.ReplicaSet) int { return int(revisionOf(b) - revisionOf(a)) })
	if len(owned) < 2 {
		return nil
	}
	return owned[1]
}

// slip changes the template while the webhooks do not see it: the namespace's label was away for a moment.
func (u *user) slip(version string) error {
	if err := u.enable(false); err != nil {
		return err
	}
	err := u.setImage(version)
	return errors.Join(err, u.enable(true))
}

func (u *user) enable(on bool) error {
	ns := u.w.api.memory["namespaces"][keyOf("", "shop")].DeepCopyObject().(*corev1.Namespace)
	ns.Labels = map[string]string{v1alpha1.EnabledLabel: strconv.FormatBool(on)}
	return u.w.api.update("admin", ns, false)
}

func (u *user) deleteDeployment() error {
	d := u.w.deployment()
	if d == nil {
		return errNoWorkload
	}
	return u.w.api.remove("user", d, nil)
}

func (u *user) deleteRecord() error {
	r, ok := u.w.api.memory[records][webKey]
	if !ok {
		return errors.New("there is no record")
	}
	return u.w.api.remove("user", r, nil)
}

// wish writes the record's spec; about the candidate that there is, or a rejected one.
func (u *user) wish(what string) error {
	stored, ok := u.w.api.memory[records][webKey].(*v1alpha1.Rollout)
	if !ok {
		return errors.New("there is no record")
	}
	r := stored.DeepCopy()
	hash := r.Status.Candidate.Hash
	if hash == "" && r.Status.Rejected != nil {
		hash = r.Status.Rejected.Revision
	}
	if hash == "" {
		return errors.New("there is no candidate")
	}
	switch what {
	case "retry":
		r.Spec.Retry = &v1alpha1.RevisionWish{Revision: hash}
	case "promote":
		r.Spec.Promote = &v1alpha1.RevisionWish{Revision: hash}
	default:
		r.Spec.Approve = &v1alpha1.StepWish{Revision: hash, Step: r.Status.Step}
	}
	return u.w.api.update("user", r, false)
}

// policy replaces the policy; nil removes it.
func (u *user) policy(spec *v1alpha1.RolloutPolicySpec) error {
	p := &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: webKey.Namespace, Name: webKey.Name}}
	stored, exists := u.w.api.memory[policies][webKey].(*v1alpha1.RolloutPolicy)
	switch {
	case spec == nil && exists:
		return u.w.api.remove("admin", stored, nil)
	case spec == nil:
		return nil
	case !exists:
		p.Spec = *spec
		return u.w.api.create("admin", p)
	}
	p = stored.DeepCopy()
	p.Spec = *spec
	return u.w.api.update("admin", p, false)
}

// currentPolicy is what counts; nil when none does.
func (w *world) currentPolicy() *v1alpha1.RolloutPolicySpec {
	p, ok := w.api.memory[policies][webKey].(*v1alpha1.RolloutPolicy)
	own := w.api.memory[deployments][keyOf(system, "headgate")].(*appsv1.Deployment)
	if !ok || p.Spec.Suspend || own.Annotations[v1alpha1.ReleaseAnnotation] == "true" || !w.chain.enabled() {
		return nil
	}
	return &p.Spec
}

// releaseAll is `headgate release --all`, or the beginning of an uninstallation.
func (u *user) releaseAll(on bool) error {
	own := u.w.api.memory[deployments][keyOf(system, "headgate")].DeepCopyObject().(*appsv1.Deployment)
	own.Annotations = map[string]string{v1alpha1.ReleaseAnnotation: strconv.FormatBool(on)}
	return u.w.api.update("admin", own, false)
}

// killPod deletes one pod of a version.
func (u *user) killPod(version string) error {
	for _, o := range u.w.api.all(pods) {
		if hashOf(o) == version && o.GetDeletionTimestamp() == nil {
			return u.w.api.remove("user", o, nil)
		}
	}
	return fmt.Errorf("%s has no pod", version)
}

// sicken makes one pod of a version not ready, for as long as it lives.
func (u *user) sicken(version string) error {
	for _, o := range u.w.api.all(pods) {
		if hashOf(o) == version && o.GetDeletionTimestamp() == nil && !u.w.kubelets.sick[o.GetName()] {
			u.w.kubelets.sick[o.GetName()] = true
			return nil
		}
	}
	return fmt.Errorf("%s has no pod", version)
}
