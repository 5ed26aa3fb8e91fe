// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/xds"
)

// A gRPC status travels in trailers, through both sidecars, and is counted for the revision that gave it; so is a number that is
// no status.
func TestGRPCStatusIsPassedOnAndCounted(t *testing.T) {
	statuses := []string{"13", "-1", "4711", "99999999999999999999"}
	p := newPair(t)
	p.appB.handle = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.WriteHeader(http.StatusOK)
		fmt.Fprint(w, "message")
		w.Header().Set(http.TrailerPrefix+"grpc-status", r.Header.Get("X-Status"))
	}
	p.weight(100)
	reader := prometheus.NewSidecars(p.n.Dial)
	p.read(t, reader, 0)
	c := p.client(true)
	for i := range 40 {
		status := statuses[i%len(statuses)]
		req, err := http.NewRequest(http.MethodPost, "http://"+p.a.IP+":8080/shop.Web/Buy", strings.NewReader("message"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "web"
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("X-Status", status)
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(body) != "message" || r.Trailer.Get("grpc-status") != status {
			t.Fatalf("body %q, trailers %v, error %v", body, r.Trailer, err)
		}
	}
	if p.leftOut() {
		t.Error("the version whose calls fail is left out, so that nobody sees them")
	}
	look := p.read(t, reader, 5)
	if got := look.Candidate["a"]; got.Requests != 40 || got.Errors != 40 || len(look.Stable) > 0 {
		t.Errorf("read from the sidecar: %+v, want 40 errors of 40 requests to the candidate", look)
	}
	_, stats := p.a.Admin(http.MethodGet, "/stats/prometheus")
	for _, status := range statuses {
		want := `envoy_cluster_grpc{grpc_status="` + status + `",hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop="peer",hg_revision="b"} 10`
		if !strings.Contains(stats, want) {
			t.Errorf("no line %s in:\n%s", want, stats)
		}
	}
}

// read is a look at what the sidecar of a has counted since the one before; the first has nothing to begin with.
func (p *pair) read(t *testing.T, from *prometheus.Sidecars, seconds int) analysis.Look {
	t.Helper()
	target := prometheus.Target{
		Namespace: "shop", Workload: "web", Stable: "a", Candidate: "b", Weight: 100,
		Sidecars: map[string]string{"a": net.JoinHostPort(p.a.IP, strconv.Itoa(int(xds.StatsPort)))},
	}
	looks, err := from.Looks(t.Context(), time.Unix(int64(seconds), 0), []prometheus.Target{target})
	if err != nil {
		t.Fatal(err)
	}
	return looks[0]
}

// What the sidecar shows is read whole, whichever arm and way a request went, and nothing else with it.
func TestRequestsAreReadFromTheSidecar(t *testing.T) {
	p := newPair(t)
	p.weight(25)
	reader := prometheus.NewSidecars(p.n.Dial)
	p.read(t, reader, 0)
	p.appA.handle = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a", http.StatusInternalServerError) }
	got := p.many(200, false)
	look := p.read(t, reader, 5)
	stable, candidate := look.Stable["a"], look.Candidate["a"]
	if stable.Requests+candidate.Requests != 200 || stable.Errors != stable.Requests || candidate.Errors != 0 ||
		candidate.Requests != uint64(got["b"]) || candidate.Started != uint64(got["b"]) {
		t.Errorf("read from the sidecar: %+v, the client got %v", look, got)
	}
}

// An upgrade that is accepted is a request that succeeded, and one that is refused is one that failed: of a service of WebSockets
// nothing else is known. What comes before a request's status (100 Continue) is no request.
func TestUpgradesAreCounted(t *testing.T) {
	p := newPair(t)
	p.weight(50)
	reader := prometheus.NewSidecars(p.n.Dial)
	p.read(t, reader, 0)
	p.appA.handle = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			w.WriteHeader(http.StatusContinue)
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	}
	p.appB.handle = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "b", http.StatusInternalServerError) }
	answers := map[string]int{}
	for range 100 {
		c := p.dial(t, p.a.IP+":8080")
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		answers[strings.TrimSpace(line)]++
		c.Close()
	}
	accepted, refused := answers["HTTP/1.1 101 Switching Protocols"], answers["HTTP/1.1 500 Internal Server Error"]
	look := p.read(t, reader, 5)
	stable, candidate := look.Stable["a"], look.Candidate["a"]
	if accepted+refused != 100 || accepted == 0 || refused == 0 || stable.Requests != uint64(accepted) || stable.Errors != 0 ||
		candidate.Requests != uint64(refused) || candidate.Errors != candidate.Requests {
		t.Errorf("read from the sidecar: stable %+v, candidate %+v; the client got %v", stable, candidate, answers)
	}
	p.rest()
	for range 10 {
		p.get(p.client(false), http.MethodPost)
	}
	if got := p.read(t, reader, 10).Stable["a"]; got.Requests != 10 {
		t.Errorf("%+v of 10 requests to which another answer came before", got)
	}
}
