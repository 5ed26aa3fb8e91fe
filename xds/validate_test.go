// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/headgate/headgate/xds"
	"github.com/headgate/headgate/xds/internal/envoytest"
)

// TestEnvoyValidatesTranslations writes configurations into a bootstrap, with their routes where they are
// named, and asks Envoy itself: about those that mean something, and some at random.
func TestEnvoyValidatesTranslations(t *testing.T) {
	envoy := envoytest.Binary(t)
	split := func(weight uint32, endpoints ...string) *xds.Split {
		return &xds.Split{Peer: "b", PeerWeight: weight, Endpoints: endpoints}
	}
	ports := []xds.Port{{Number: 8080, Peer: 8080}, {Number: 8443, Peer: 9443}, {Number: 9000, Protocol: xds.TCP, Peer: 9000}, {Number: 9102}}
	back := split(75, "10.0.0.1", "10.0.0.2")
	back.PeerIsStable = true
	workloads := map[string]xds.Workload{
		"nothing captured":      {},
		"at rest":               {Ports: ports},
		"IPv6":                  {Ports: ports, IPv6: true, Split: split(10, "fd00::1")},
		"weight 0, no endpoint": {Ports: ports, Split: split(0)},
		"weight 25":             {Ports: ports, Split: split(25, "10.0.0.1")},
		"weight 100":            {Ports: ports, Split: split(100, "10.0.0.1", "10.0.0.2")},
		"the candidate's side":  {Ports: ports, Split: back},
		"only bytes":            {Ports: []xds.Port{{Number: 5432, Protocol: xds.TCP, Peer: 5432}}, Split: split(50, "10.0.0.1")},
		"only HTTP":             {Ports: []xds.Port{{Number: 80, Protocol: xds.HTTP, Peer: 8080}}, Split: split(50, "10.0.0.1")},
	}
	for seed := range uint64(10) {
		workloads[fmt.Sprintf("seed %d", seed)] = xds.AnyWorkload(rand.New(rand.NewPCG(seed, 2)))
	}
	for name, w := range workloads {
		t.Run(name, func(t *testing.T) {
			w.Namespace, w.Name, w.Revision = "shop", "web", "a"
			resources, err := xds.Translate(w)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "bootstrap.json")
			if err := os.WriteFile(file, static(t, resources), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "-c", file).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// static is the bootstrap of a sidecar with these resources in it.
func static(t *testing.T, resources xds.Resources) []byte {
	t.Helper()
	text, err := xds.Bootstrap(xds.Node{ID: "shop/web-1", Socket: "@headgate"})
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	for _, x := range resources[xds.Clusters] {
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, unpacked(t, x, &clusterv3.Cluster{}))
	}
	for _, x := range resources[xds.Listeners] {
		l := unpacked(t, x, &listenerv3.Listener{})
		for _, chain := range l.GetFilterChains() {
			for _, f := range chain.GetFilters() {
				inlineRoutes(t, f, resources)
			}
		}
		b.StaticResources.Listeners = append(b.StaticResources.Listeners, l)
	}
	text, err = protojson.Marshal(&b)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func unpacked[M proto.Message](t *testing.T, x xds.Resource, into M) M {
	t.Helper()
	if err := x.Body.UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
	return into
}

// inlineRoutes puts routes where a listener only names them: validation fetches nothing.
func inlineRoutes(t *testing.T, f *listenerv3.Filter, resources xds.Resources) {
	t.Helper()
	var manager hcmv3.HttpConnectionManager
	if !f.GetTypedConfig().MessageIs(&manager) {
		return
	}
	if err := f.GetTypedConfig().UnmarshalTo(&manager); err != nil {
		t.Fatal(err)
	}
	name := manager.GetRds().GetRouteConfigName()
	x, ok := resources.Get(xds.Routes, name)
	if !ok {
		t.Fatalf("no routes %q", name)
	}
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: unpacked(t, x, &routev3.RouteConfiguration{})}
	packed, err := anypb.New(&manager)
	if err != nil {
		t.Fatal(err)
	}
	f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed}
}
