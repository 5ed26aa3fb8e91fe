// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

// api is the API server: resourceVersions, generations, conflicts, subresources, admission, and a log of
// changes that caches follow.
type api struct {
	memory

	now     time.Time
	version int64
	uids    int
	pods    int // how many were made
	log     map[kind][]change
	admit   admitter
	// wrote is told every change, at once.
	wrote func(by string, before, after client.Object)
}

// change is one entry of the log; a nil object was deleted.
type change struct {
	key    types.NamespacedName
	object client.Object
}

// admitter is what admission makes of a write.
type admitter interface {
	deployment(by string, before, after *appsv1.Deployment) (*appsv1.Deployment, error)
	pod(by string, pod *corev1.Pod) (*corev1.Pod, error)
	scale(by string, d *appsv1.Deployment, to int32) (int32, error)
}

func newAPI(now time.Time) *api {
	return &api{memory: memory{}, now: now, log: map[kind][]change{}, wrote: func(string, client.Object, client.Object) {}}
}

func resource(o client.Object) schema.GroupResource {
	return schema.GroupResource{Resource: string(kindOf(o))}
}

// commit stores an object as the newest version; nil after means that it is gone.
func (a *api) commit(by string, before, after client.Object) {
	a.version++
	o := after
	if o == nil {
		o = before
	} else {
		o.SetResourceVersion(strconv.FormatInt(a.version, 10))
	}
	k, key := kindOf(o), client.ObjectKeyFromObject(o)
	a.put(k, key, after)
	a.log[k] = append(a.log[k], change{key, after})
	a.wrote(by, before, after)
}

func (a *api) create(by string, o client.Object) error {
	if _, exists := a.memory[kindOf(o)][client.ObjectKeyFromObject(o)]; exists {
		return apierrors.NewAlreadyExists(resource(o), o.GetName())
	}
	next := o.DeepCopyObject().(client.Object)
	if pod, ok := next.(*corev1.Pod); ok {
		a.pods++
		pod.Name, pod.Status.Phase = fmt.Sprintf("%s%03d", pod.GenerateName, a.pods), corev1.PodPending
		admitted, err := a.admit.pod(by, pod)
		if err != nil {
			return err
		}
		next = admitted
	}
	a.uids++
	next.SetUID(types.UID(fmt.Sprintf("uid-%d", a.uids)))
	next.SetCreationTimestamp(metav1.NewTime(a.now.Truncate(time.Second)))
	next.SetGeneration(1)
	if r, ok := next.(*v1alpha1.Rollout); ok {
		r.Status = v1alpha1.RolloutStatus{} // a subresource: ignored at creation
	}
	a.commit(by, nil, next)
	assign(o, next.DeepCopyObject().(client.Object))
	return nil
}

// update replaces an object, or its status alone.
func (a *api) update(by string, o client.Object, status bool) error {
	before, exists := a.memory[kindOf(o)][client.ObjectKeyFromObject(o)]
	if !exists || (o.GetUID() != "" && o.GetUID() != before.GetUID()) {
		return apierrors.NewNotFound(resource(o), o.GetName())
	}
	if v := o.GetResourceVersion(); v != "" && v != before.GetResourceVersion() {
		return apierrors.NewConflict(resource(o), o.GetName(), errors.New("the object has been modified"))
	}
	next := o.DeepCopyObject().(client.Object)
	keep(next, before, status)
	if d, ok := next.(*appsv1.Deployment); ok && !status {
		admitted, err := a.admit.deployment(by, before.(*appsv1.Deployment), d)
		if err != nil {
			return err
		}
		next = admitted
	}
	next.SetResourceVersion(before.GetResourceVersion())
	if apiequality.Semantic.DeepEqual(before, next) {
		assign(o, before.DeepCopyObject().(client.Object))
		return nil
	}
	if !sameSpec(before, next) {
		next.SetGeneration(before.GetGeneration() + 1)
	}
	a.commit(by, before, next)
	assign(o, next.DeepCopyObject().(client.Object))
	return nil
}

// keep restores what a write can't change.
func keep(next, before client.Object, status bool) {
	next.SetUID(before.GetUID())
	next.SetCreationTimestamp(before.GetCreationTimestamp())
	next.SetDeletionTimestamp(before.GetDeletionTimestamp())
	next.SetGeneration(before.GetGeneration())
	switch n := next.(type) {
	case *appsv1.Deployment:
		b := before.(*appsv1.Deployment)
		if status {
			n.Spec, n.Labels, n.ManagedFields = b.Spec, b.Labels, b.ManagedFields // but the annotations are written
			return
		}
		n.Status = b.Status
	case *appsv1.ReplicaSet:
		b := before.(*appsv1.ReplicaSet)
		if status {
			n.Spec, n.Annotations = b.Spec, b.Annotations
			return
		}
		n.Status = b.Status
	case *v1alpha1.Rollout:
		b := before.(*v1alpha1.Rollout)
		if status {
			n.Spec, n.Annotations = b.Spec, b.Annotations
			return
		}
		n.Status = b.Status
	case *corev1.Pod:
		b := before.(*corev1.Pod)
		if status {
			n.Spec, n.Annotations = b.Spec, b.Annotations
			return
		}
		n.Status = b.Status
	}
}

func sameSpec(a, b client.Object) bool {
	switch x := a.(type) {
	case *appsv1.Deployment:
		return apiequality.Semantic.DeepEqual(x.Spec, b.(*appsv1.Deployment).Spec)
	case *appsv1.ReplicaSet:
		return apiequality.Semantic.DeepEqual(x.Spec, b.(*appsv1.ReplicaSet).Spec)
	}
	return true
}

// patch applies a merge, strategic merge or JSON patch to what is stored.
func (a *api) patch(by string, o client.Object, p client.Patch, status bool) error {
	before, exists := a.memory[kindOf(o)][client.ObjectKeyFromObject(o)]
	if !exists {
		return apierrors.NewNotFound(resource(o), o.GetName())
	}
	data, err := p.Data(o)
	if err != nil {
		return err
	}
	patched, err := applyPatch(before, p.Type(), data)
	if err != nil {
		return err
	}
	if err := a.update(by, patched, status); err != nil {
		return err
	}
	assign(o, patched)
	return nil
}

func applyPatch(before client.Object, t types.PatchType, data []byte) (client.Object, error) {
	raw, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	switch t {
	case types.MergePatchType:
		raw, err = jsonpatch.MergePatch(raw, data)
	case types.StrategicMergePatchType:
		raw, err = strategicpatch.StrategicMergePatch(raw, data, before)
	case types.JSONPatchType:
		var p jsonpatch.Patch
		if p, err = jsonpatch.DecodePatch(data); err == nil {
			if raw, err = p.Apply(raw); errors.Is(err, jsonpatch.ErrTestFailed) {
				return nil, apierrors.NewConflict(resource(before), before.GetName(), err)
			}
		}
	default:
		err = fmt.Errorf("a patch of type %s", t)
	}
	if err != nil {
		return nil, fmt.Errorf("patching: %w", err)
	}
	after := newLike(before)
	return after, json.Unmarshal(raw, after)
}

// remove deletes an object; a pod that has a node ends first.
func (a *api) remove(by string, o client.Object, preconditions *metav1.Preconditions) error {
	before, exists := a.memory[kindOf(o)][client.ObjectKeyFromObject(o)]
	if !exists {
		return apierrors.NewNotFound(resource(o), o.GetName())
	}
	if p := preconditions; p != nil {
		if (p.UID != nil && *p.UID != before.GetUID()) || (p.ResourceVersion != nil && *p.ResourceVersion != before.GetResourceVersion()) {
			return apierrors.NewConflict(resource(o), o.GetName(), errors.New("a precondition failed"))
		}
	}
	pod, ok := before.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" {
		a.commit(by, before, nil)
		return nil
	}
	if pod.DeletionTimestamp != nil {
		return nil
	}
	next := pod.DeepCopy()
	next.DeletionTimestamp = new(metav1.NewTime(a.now))
	a.commit(by, before, next)
	return nil
}

// gone takes a pod away at the end of its grace.
func (a *api) gone(pod *corev1.Pod) { a.commit("kubelet", pod, nil) }

// scale is a write to the scale of a Deployment. It never passes the webhook for Deployments.
func (a *api) scale(by string, key types.NamespacedName, to int32) error {
	before, ok := a.memory[deployments][key].(*appsv1.Deployment)
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{Resource: string(deployments)}, key.Name)
	}
	n, err := a.admit.scale(by, before, to)
	if err != nil {
		return err
	}
	if n == *before.Spec.Replicas {
		return nil
	}
	next := before.DeepCopy()
	next.Spec.Replicas, next.Generation = &n, before.Generation+1
	a.commit(by, before, next)
	return nil
}
