// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"net/http"
	"strings"
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
