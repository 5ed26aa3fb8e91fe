// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package fieldowner takes field managers out of an object's owners. Who applies a value that another manager owns meets a
// conflict (server-side apply, KEP-555), also where that one has only lent its hand.
package fieldowner

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Disown removes the managers from the owners of an object's fields; one that is gone has none. It takes a write of its own, as
// the manager as: the API server adds the entry of a writer after its write. live must read from the API server, because caches
// may leave owners out; obj says which object it is, and is what was written last when Disown returns.
func Disown(ctx context.Context, live client.Reader, c client.Writer, obj client.Object, as string, managers ...string) error {
	key := client.ObjectKeyFromObject(obj)
	// Others write, too, as the native controller does right after each change of the spec.
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := live.Get(ctx, key, obj); err != nil {
			return client.IgnoreNotFound(err)
		}
		owners := obj.GetManagedFields()
		kept := slices.DeleteFunc(slices.Clone(owners), func(f metav1.ManagedFieldsEntry) bool { return slices.Contains(managers, f.Manager) })
		if len(kept) == len(owners) {
			return nil
		}
		obj.SetManagedFields(kept)
		return c.Update(ctx, obj, client.FieldOwner(as))
	})
	if err != nil {
		return fmt.Errorf("disowning the fields of %s: %w", key, err)
	}
	return nil
}
