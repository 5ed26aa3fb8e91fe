// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

// comesBackWithin is for how long a policy that was deleted still counts: a chart that re-creates it takes it away for some
// seconds. The controller waits as long before it ends a hold that no policy asks for.
const comesBackWithin = 30 * time.Second

// DeletedPolicies remembers policies that were deleted a moment ago, so that nothing goes out unjudged, or is judged by another
// policy to its end, because it came while a policy was being re-created. A process that has just started remembers none. Nil
// knows of none, and the zero value is ready; its methods may be called by several goroutines at once.
type DeletedPolicies struct {
	mu   sync.Mutex
	gone map[client.ObjectKey]deletedPolicy // without a namespace: a ClusterRolloutPolicy
}

type deletedPolicy struct {
	policy client.Object
	at     time.Time
}

// Follow makes d hear of policies that are deleted. To be called before the cache starts.
func (d *DeletedPolicies) Follow(ctx context.Context, from cache.Informers, now func() time.Time) error {
	for _, kind := range []client.Object{&v1alpha1.RolloutPolicy{}, &v1alpha1.ClusterRolloutPolicy{}} {
		informer, err := from.GetInformer(ctx, kind)
		if err != nil {
			return fmt.Errorf("watching %T for deletions: %w", kind, err)
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{DeleteFunc: func(o any) {
			if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			if policy, ok := o.(client.Object); ok {
				d.Deleted(policy, now())
			}
		}})
		if err != nil {
			return fmt.Errorf("watching %T for deletions: %w", kind, err)
		}
	}
	return nil
}

// Deleted notes that a policy, of either kind, was deleted.
func (d *DeletedPolicies) Deleted(policy client.Object, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone == nil {
		d.gone = map[client.ObjectKey]deletedPolicy{}
	}
	maps.DeleteFunc(d.gone, func(_ client.ObjectKey, p deletedPolicy) bool { return at.Sub(p.at) >= comesBackWithin })
	d.gone[client.ObjectKeyFromObject(policy)] = deletedPolicy{policy, at}
}

// Select is SelectPolicy, but that a policy of the namespace that was deleted a moment ago counts before those of the cluster, and
// one of the cluster's before none. Then the Selection is Deleted. One of that name that is there again is what counts.
func (d *DeletedPolicies) Select(namespace string, namespaced []v1alpha1.RolloutPolicy, cluster []v1alpha1.ClusterRolloutPolicy,
	workload map[string]string, now time.Time) Selection {
	s := SelectPolicy(namespaced, cluster, workload)
	if d == nil || s.Spec != nil && !s.Cluster {
		return s
	}
	before := SelectPolicy(lately(d, namespace, namespaced, now), lately(d, "", cluster, now), workload)
	if before.Spec == nil || before.Cluster && s.Spec != nil {
		return s
	}
	before.Deleted = true
	return before
}

// lately are the policies of a namespace that were deleted a moment ago and are not there again.
func lately[T any, P interface {
	client.Object
	*T
}](d *DeletedPolicies, namespace string, there []T, now time.Time) (out []T) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, gone := range d.gone {
		again := slices.ContainsFunc(there, func(t T) bool { return P(&t).GetName() == key.Name })
		policy, ok := gone.policy.(P)
		if ok && key.Namespace == namespace && !again && now.Sub(gone.at) < comesBackWithin {
			out = append(out, *policy)
		}
	}
	return out
}
