// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/headgate/headgate/rollout"
)

// A ReplicaSet is woken now and then, and keeps nothing of it.
func TestWake(t *testing.T) {
	rs := replicaSet(candidateHash, "v2", 1)
	writes := 0
	c := cluster(t, namespace("shop", true), deployment(), rs).WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			writes++
			return c.Patch(ctx, o, patch, opts...)
		},
	}).Build()
	r := reconciler(c)
	now := at(0)
	r.Now = func() time.Time { return now }
	w, err := r.gather(t.Context(), webKey)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, seconds := range []int{0, 1, 4, 5, 6, 20} {
		now = at(seconds)
		if err := r.wake(t.Context(), w, rollout.Decision{Wake: []string{candidateHash, "gone"}}); err != nil {
			t.Fatal(err)
		}
		got = append(got, writes)
	}
	if d := cmp.Diff([]int{2, 2, 2, 4, 4, 6}, got); d != "" {
		t.Errorf("writes by then (-want +got):\n%s", d)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(rs), rs); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w.replicaSet(candidateHash).Annotations, rs.Annotations); d != "" {
		t.Errorf("annotations (-before +after):\n%s", d)
	}
}
