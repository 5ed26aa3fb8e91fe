// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type is one of the four types of resources that a sidecar gets. The order of the constants is the
// order in which they are sent: what is named before what names it.
type Type int

const (
	Clusters Type = iota
	Endpoints
	Listeners
	Routes

	typeCount = iota
)

// Types are all types in the order in which they are sent.
func Types() [typeCount]Type { return [...]Type{Clusters, Endpoints, Listeners, Routes} }

// URL is the type URL of the xDS protocol.
func (t Type) URL() string {
	return "type.googleapis.com/envoy.config." + [...]string{
		Clusters:  "cluster.v3.Cluster",
		Endpoints: "endpoint.v3.ClusterLoadAssignment",
		Listeners: "listener.v3.Listener",
		Routes:    "route.v3.RouteConfiguration",
	}[t]
}

// String is the plural noun, lower case.
func (t Type) String() string { return [...]string{"clusters", "endpoints", "listeners", "routes"}[t] }

// TypeOf is the type with this URL; false when a sidecar gets no such resources.
func TypeOf(url string) (Type, bool) {
	for _, t := range Types() {
		if t.URL() == url {
			return t, true
		}
	}
	return 0, false
}

// Resource is one named piece of configuration. It is immutable: it is shared by all streams.
type Resource struct {
	Name string
	// Version is a hash of the content: equal content, equal version, on every replica and in
	// `headgate run`.
	Version string
	// Body is the content. It is nil for a resource of which only name and version are known, because a
	// sidecar said on connecting that it has it.
	Body *anypb.Any
	// Clusters are the names of the clusters that it routes to, sorted; for a cluster, those it is made of.
	Clusters []string
	// routes are the route configurations that a listener asks for.
	routes []string
	// eds says that a cluster waits for its endpoints before it is used.
	eds bool
}

// Resources is one whole configuration, each type sorted by name. The zero value is empty.
type Resources [typeCount][]Resource

// Get finds a resource by name.
func (r *Resources) Get(t Type, name string) (Resource, bool) {
	i, ok := slices.BinarySearchFunc(r[t], name, func(x Resource, n string) int { return strings.Compare(x.Name, n) })
	if !ok {
		return Resource{}, false
	}
	return r[t][i], true
}

// Equal says that both hold the same names in the same versions.
func (r *Resources) Equal(o *Resources) bool {
	for _, t := range Types() {
		if !slices.EqualFunc(r[t], o[t], func(a, b Resource) bool { return a.Name == b.Name && a.Version == b.Version }) {
			return false
		}
	}
	return true
}

// Known is a configuration of which only names and versions are known. Where in has the same version of
// a resource, its content is known too.
func Known(t Type, versions map[string]string, in *Resources) []Resource {
	out := make([]Resource, 0, len(versions))
	for name, version := range versions {
		if x, ok := in.Get(t, name); ok && x.Version == version {
			out = append(out, x)
			continue
		}
		out = append(out, Resource{Name: name, Version: version})
	}
	sortByName(out)
	return out
}

func sortByName(rs []Resource) {
	slices.SortFunc(rs, func(a, b Resource) int { return strings.Compare(a.Name, b.Name) })
}

// named is what every xDS resource but endpoints has.
type named interface {
	proto.Message
	GetName() string
}

func newResource(m named) Resource {
	body := packed(m)
	r := Resource{Name: m.GetName(), Version: version(body.GetValue()), Body: body}
	r.Clusters, r.routes = references(m)
	if c, ok := m.(*clusterv3.Cluster); ok {
		r.eds = c.GetType() == clusterv3.Cluster_EDS
	}
	return r
}

// newEndpoints hashes the cluster's content in with the endpoints: a changed cluster waits for its
// endpoints again, and Envoy does not ask for a name that it is subscribed to already.
func newEndpoints(m *endpointv3.ClusterLoadAssignment, cluster Resource) Resource {
	body := packed(m)
	return Resource{Name: m.GetClusterName(), Version: version([]byte(cluster.Version), body.GetValue()), Body: body}
}

func version(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Consistent says which names lead nowhere: a route, listener or cluster that names a cluster that is
// absent, a listener that asks for absent routes, a cluster without its endpoints, endpoints without
// their cluster. Envoy would answer 503 for the first, and wait for the others without end.
// References of resources without content are unknown and not checked.
func (r *Resources) Consistent() error {
	var errs []error
	need := func(by Resource, t Type, name string) {
		if _, ok := r.Get(t, name); !ok {
			errs = append(errs, fmt.Errorf("%q names %q, which is not among the %s", by.Name, name, t))
		}
	}
	for _, t := range Types() {
		for _, x := range r[t] {
			for _, c := range x.Clusters {
				need(x, Clusters, c)
			}
			for _, n := range x.routes {
				need(x, Routes, n)
			}
			if x.eds {
				need(x, Endpoints, x.Name)
			}
			if t == Endpoints {
				need(x, Clusters, x.Name)
			}
		}
	}
	return errors.Join(errs...)
}
