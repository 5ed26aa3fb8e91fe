// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"
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
	next.until(t, webKey, settledAt(50))
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

// A gRPC status travels in trailers, through both sidecars, and is counted for the revision that gave it.
func TestGRPCStatusIsPassedOnAndCounted(t *testing.T) {
	p := newPair(t)
	p.appB.handle = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.WriteHeader(http.StatusOK)
		fmt.Fprint(w, "message")
		w.Header().Set(http.TrailerPrefix+"grpc-status", "13")
	}
	p.weight(100)
	c := p.client(true)
	for range 10 {
		req, err := http.NewRequest(http.MethodPost, "http://"+p.a.IP+":8080/shop.Web/Buy", strings.NewReader("message"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "web"
		req.Header.Set("Content-Type", "application/grpc")
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(body) != "message" || r.Trailer.Get("grpc-status") != "13" {
			t.Fatalf("body %q, trailers %v, error %v", body, r.Trailer, err)
		}
	}
	_, stats := p.a.Admin(http.MethodGet, "/stats/prometheus")
	want := `envoy_cluster_grpc{grpc_status="13",hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop="peer",hg_revision="b"} 10`
	if !strings.Contains(stats, want) {
		t.Errorf("no line %s in:\n%s", want, stats)
	}
}
