// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/xds"
)

// A sidecar that ends counts the connections of peers to know whether somebody still has to be told.
func TestWhoKnowsOfAPeersEndHasNoConnectionToIt(t *testing.T) {
	p := newPair(t)
	p.weight(100)
	connections := func() string {
		_, stats := p.b.Admin(http.MethodGet, "/stats?filter="+xds.PeerConnectionsStat)
		return strings.TrimSpace(stats)
	}
	for _, h2 := range []bool{false, true} {
		p.many(50, h2)
	}
	if got := connections(); got == xds.PeerConnectionsStat+": 0" || !strings.HasPrefix(got, xds.PeerConnectionsStat+": ") {
		t.Fatalf("%s, want some after requests", got)
	}
	set(t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: 100}))
	p.ads.settled(t, webKey, 100)
	deadline := time.Now().Add(time.Second)
	for connections() != xds.PeerConnectionsStat+": 0" {
		if time.Now().After(deadline) {
			t.Fatalf("%s a second after the pod was taken out", connections())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Clients that give up on most of their calls, all of which share one connection on the way to the peer, cost nobody else a call.
func TestCallsThatAreCancelledCostNoOthers(t *testing.T) {
	p := newPair(t)
	p.appB.handle = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(300 * time.Millisecond):
			fmt.Fprint(w, "b")
		}
	}
	p.weight(100)
	call := func(ctx context.Context, c *http.Client) string {
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.a.IP+":8080/", http.NoBody)
		req.Host = "web"
		return do(c, req)
	}
	var clients sync.WaitGroup
	for range 6 {
		c := p.client(true)
		clients.Go(func() {
			for range 500 {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
				call(ctx, c)
				cancel()
			}
		})
	}
	given := make(chan struct{})
	go func() { clients.Wait(); close(given) }()
	for n := 0; ; n++ {
		select {
		case <-given:
			if n == 0 {
				t.Fatal("nobody else called meanwhile")
			}
			t.Logf("%d calls that nobody cancelled", n)
			return
		default:
			if got := call(t.Context(), p.client(true)); got != "b" {
				t.Fatalf("call %d that nobody cancelled: %q, want b", n, got)
			}
		}
	}
}
