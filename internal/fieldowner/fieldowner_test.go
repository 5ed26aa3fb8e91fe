// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package fieldowner_test

import (
	"context"
	"slices"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/headgate/headgate/internal/fieldowner"
)

// server plays the API server for one object, because the fake client keeps owners whatever is written. Before each of the first
// disturbed writes somebody else writes.
type server struct {
	owners            []string // nil: the object is gone
	version           int
	disturbed, writes int
	as                string // who wrote last
}

func (s *server) client() client.WithWatch {
	resource := schema.GroupResource{Resource: "configmaps"}
	return fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{
		Get: func(_ context.Context, _ client.WithWatch, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
			if s.owners == nil {
				return apierrors.NewNotFound(resource, key.Name)
			}
			o.SetResourceVersion(strconv.Itoa(s.version))
			o.SetManagedFields(nil)
			for _, name := range s.owners {
				o.SetManagedFields(append(o.GetManagedFields(), metav1.ManagedFieldsEntry{Manager: name}))
			}
			return nil
		},
		Update: func(_ context.Context, _ client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if s.writes++; s.writes <= s.disturbed {
				s.version++
			}
			if o.GetResourceVersion() != strconv.Itoa(s.version) {
				return apierrors.NewConflict(resource, o.GetName(), nil)
			}
			s.version++
			s.as = (&client.UpdateOptions{}).ApplyOptions(opts).FieldManager
			s.owners = []string{}
			for _, f := range o.GetManagedFields() {
				s.owners = append(s.owners, f.Manager)
			}
			return nil
		},
	}).Build()
}

func TestDisown(t *testing.T) {
	for name, tc := range map[string]struct {
		owners, left      []string
		disturbed, writes int
	}{
		"one of several":                 {[]string{"user", "lent", "other"}, []string{"user", "other"}, 0, 1},
		"while others write":             {[]string{"user", "lent"}, []string{"user"}, 2, 3},
		"nobody":                         {[]string{"user"}, []string{"user"}, 0, 0},
		"of an object that is gone":      {nil, nil, 0, 0},
		"all, and so nobody has entries": {[]string{"lent", "lent"}, []string{}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{owners: tc.owners, disturbed: tc.disturbed}
			c := s.client()
			obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
			if err := fieldowner.Disown(t.Context(), c, c, obj, "writer", "lent"); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.owners, tc.left) || s.writes != tc.writes || (tc.writes > 0 && s.as != "writer") {
				t.Errorf("owners are %v after %d writes (by %q), want %v after %d", s.owners, s.writes, s.as, tc.left, tc.writes)
			}
		})
	}
}
