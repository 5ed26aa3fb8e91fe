// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/webhook"
)

// kind names a kind of object in histories, for caches that stand still.
type kind string

// The kinds that matter.
const (
	deployments kind = "deployments"
	replicaSets kind = "replicasets"
	pods        kind = "pods"
	records     kind = "rollouts"
	policies    kind = "policies"
	others      kind = "others"
)

func kindOf(o client.Object) kind {
	switch o.(type) {
	case *appsv1.Deployment:
		return deployments
	case *appsv1.ReplicaSet:
		return replicaSets
	case *corev1.Pod:
		return pods
	case *v1alpha1.Rollout:
		return records
	case *v1alpha1.RolloutPolicy:
		return policies
	case *corev1.Node:
		return "nodes"
	case *corev1.Namespace:
		return "namespaces"
	case *autoscalingv2.HorizontalPodAutoscaler:
		return "autoscalers"
	}
	return others
}

// memory holds objects that nobody modifies: what changes is replaced.
type memory map[kind]map[types.NamespacedName]client.Object

func (m memory) put(k kind, key types.NamespacedName, o client.Object) {
	if m[k] == nil {
		m[k] = map[types.NamespacedName]client.Object{}
	}
	if o == nil {
		delete(m[k], key)
		return
	}
	m[k][key] = o
}

// all are the objects of a kind, by name.
func (m memory) all(k kind) []client.Object {
	keys := slices.SortedFunc(maps.Keys(m[k]), func(a, b types.NamespacedName) int {
		return strings.Compare(a.String(), b.String())
	})
	out := make([]client.Object, len(keys))
	for i, key := range keys {
		out[i] = m[k][key]
	}
	return out
}

// view is a cache: what one process has seen of the API, kind by kind.
type view struct {
	memory

	api  *api
	seen map[kind]int
}

func newView(a *api) *view {
	return &view{memory: memory{}, api: a, seen: map[kind]int{}}
}

// catchUp reads what happened meanwhile, but for kinds whose watch stands still; it says whether there was
// anything.
func (v *view) catchUp(frozen func(kind) bool) bool {
	news := false
	for k, log := range v.api.log {
		if frozen(k) {
			continue
		}
		for _, c := range log[v.seen[k]:] {
			v.put(k, c.key, c.object)
			news = true
		}
		v.seen[k] = len(log)
	}
	return news
}

// reader answers from a memory as a client does.
type reader struct{ memory memory }

// Get implements client.Reader.
func (r reader) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	k := kindOf(into)
	stored, ok := r.memory[k][key]
	if !ok || reflect.TypeOf(stored) != reflect.TypeOf(into) {
		return apierrors.NewNotFound(schema.GroupResource{Resource: string(k)}, key.Name)
	}
	assign(into, stored.DeepCopyObject().(client.Object))
	return nil
}

// assign replaces what an object says.
func assign(into, from client.Object) {
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(from).Elem())
}

// List implements client.Reader.
func (r reader) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(opts)
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	sample := reflect.New(items.Type().Elem()).Interface().(client.Object)
	for _, stored := range r.memory.all(kindOf(sample)) {
		if reflect.TypeOf(stored) != reflect.TypeOf(sample) || !selected(stored, o) {
			continue
		}
		if o.UnsafeDisableDeepCopy == nil || !*o.UnsafeDisableDeepCopy {
			stored = stored.DeepCopyObject().(client.Object)
		}
		items.Set(reflect.Append(items, reflect.ValueOf(stored).Elem()))
	}
	return nil
}

func selected(stored client.Object, o client.ListOptions) bool {
	if o.Namespace != "" && stored.GetNamespace() != o.Namespace {
		return false
	}
	if o.FieldSelector == nil {
		return true
	}
	owner, ok := o.FieldSelector.RequiresExactMatch(webhook.OwnerIndex)
	if !ok {
		panic(fmt.Sprintf("a field selector that the simulation does not know: %s", o.FieldSelector))
	}
	ref := metav1.GetControllerOf(stored)
	return ref != nil && string(ref.UID) == owner
}
