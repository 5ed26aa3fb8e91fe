// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/headgate/headgate/xds"
)

// The server goes away, and another one comes that wants the same: requests notice nothing, and nothing is
// sent again.
func TestAnotherServerTakesOver(t *testing.T) {
	p := newPair(t)
	p.weight(50)
	p.a.StopServer()
	if got := p.many(500, false); got["a"]+got["b"] != 500 || got["b"] == 0 {
		t.Errorf("without a server: %v", got)
	}
	registry := prometheus.NewRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	next := serve(t, Config{Identify: Anyone(webKey), Metrics: m, Linger: DefaultLinger})
	set(t, next.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: 50, Endpoints: []string{p.b.IP}}))
	start := time.Now()
	p.a.StartServer(func(g grpc.ServiceRegistrar) { next.Register(g) })
	next.settled(t, webKey, 50)
	t.Logf("settled %s after the server was back", time.Since(start))
	got := gathered(t, registry)
	for name, want := range map[string]float64{"clusters": 1, "listeners": 1, "endpoints": 0, "routes": 0} {
		if n := got["headgate_xds_pushes_total{"+name+"}"]; n != want {
			t.Errorf("%v responses with %s, want %v (empty ones)", n, name, want)
		}
	}
	p.ads = next
	p.weight(0)
	if got := p.many(200, false); got["a"] != 200 {
		t.Errorf("weight 0 from the other server: %v", got)
	}
}
