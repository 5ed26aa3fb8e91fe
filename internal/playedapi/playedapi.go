// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package playedapi plays an API server with many objects in which nothing ever happens, so that benchmarks
// can fill the caches of a real manager without a cluster.
package playedapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	goruntime "runtime"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Serve answers lists of these kinds until the test ends; objects are of these kinds.
func Serve(t testing.TB, scheme *runtime.Scheme, kinds, objects []client.Object) *rest.Config {
	t.Helper()
	lists := lists{}
	for _, o := range kinds {
		lists.add(t, scheme, o)
	}
	for _, o := range objects {
		lists.add(t, scheme, o, o)
	}
	a := api{}
	for path, l := range lists {
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		a[path] = text
	}
	server := httptest.NewServer(a)
	t.Cleanup(func() {
		server.CloseClientConnections() // watches of reflectors that have not noticed yet
		server.Close()
	})
	return &rest.Config{Host: server.URL}
}

// Mapper needs no discovery, which is not played.
func Mapper(scheme *runtime.Scheme) func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	return func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
		return testrestmapper.TestOnlyStaticRESTMapper(scheme), nil
	}
}

// Start runs the manager until the test ends, and returns when its caches hold these kinds.
func Start(t testing.TB, mgr ctrl.Manager, kinds []client.Object) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("running the manager: %v", err)
		}
	})
	patience, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, o := range kinds {
		if _, err := mgr.GetCache().GetInformer(patience, o); err != nil {
			t.Fatalf("caching %T: %v", o, err)
		}
	}
	if !mgr.GetCache().WaitForCacheSync(patience) {
		t.Fatal("the caches are not filled")
	}
}

// Heap is how many bytes of it are in use. What fills caches is measured by the difference.
func Heap() int64 {
	var m goruntime.MemStats
	goruntime.GC()
	goruntime.GC() // what pools kept the first time
	goruntime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// lists are by path, over all namespaces.
type lists map[string]*list

type list struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []client.Object `json:"items"`
}

// add puts items into the list of their kind, which is that of o.
func (l lists) add(t testing.TB, scheme *runtime.Scheme, o client.Object, items ...client.Object) {
	t.Helper()
	gvk, err := apiutil.GVKForObject(o, scheme)
	if err != nil {
		t.Fatal(err)
	}
	plural, _ := meta.UnsafeGuessKindToResource(gvk)
	path := "/apis/" + plural.Group + "/" + plural.Version + "/" + plural.Resource
	if plural.Group == "" {
		path = "/api/" + plural.Version + "/" + plural.Resource
	}
	if l[path] == nil {
		l[path] = &list{
			TypeMeta: metav1.TypeMeta{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind + "List"},
			ListMeta: metav1.ListMeta{ResourceVersion: "1000"}, Items: []client.Object{},
		}
	}
	l[path].Items = append(l[path].Items, items...)
}

// api is the lists as JSON.
type api map[string][]byte

func (a api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	list, known := a[r.URL.Path]
	switch {
	case !known:
		http.NotFound(w, r)
	case r.URL.Query().Get("sendInitialEvents") != "":
		http.Error(w, "list first", http.StatusBadRequest)
	case r.URL.Query().Get("watch") != "":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(list)
	}
}
