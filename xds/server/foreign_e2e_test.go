// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/headgate/headgate/xds"
)

// A sidecar that has not heard that a peer is gone sends requests to whoever has the address now: another version, or
// another workload with the same port. Nobody there sees them.
func TestARequestForSomebodyElseIsAnsweredByItsSender(t *testing.T) {
	for name, there := range map[string]Key{
		"another version":       {Namespace: "shop", Name: "web", Revision: "c"},
		"another workload":      {Namespace: "shop", Name: "api", Revision: "b"},
		"one of another tenant": {Namespace: "bank", Name: "web", Revision: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			pod, f, stranger := p.n.Pod(8081), serve(t, Config{Identify: Anyone(there)}), &app{revision: "stranger"}
			pod.Serve(8081, stranger)
			set(t, f.Server, xds.Workload{
				Namespace: there.Namespace, Name: there.Name, Revision: there.Revision, IPv6: true, Ports: []xds.Port{{Number: 8081}},
			})
			pod.StartEnvoy(func(g grpc.ServiceRegistrar) { f.Register(g) })
			set(t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: 100, Endpoints: []string{pod.IP}}))
			p.ads.settled(t, webKey, 100)
			// Envoy says it in another way to gRPC.
			if answer := p.answered(p.client(true)); answer != "a" || !p.leavesOut(pod.IP) {
				t.Errorf("a gRPC call: answer %q, want the local app's, and the stranger left out for a while", answer)
			}
			p.awaitBack(pod.IP)
			// One that can't be kept to be sent again may be lost (see notHere), but the stranger does not get it either.
			t.Logf("a large body: %s", p.upload(p.client(false), large))
			for _, h2 := range []bool{false, true} {
				if got := p.many(50, h2); got["a"] != 50 {
					t.Errorf("HTTP/2 %t: %v, want all 50 from the sender's app", h2, got)
				}
			}
			if n := p.stat("upstream_cx_total", "peerconn"); n == "0" {
				t.Error("nobody asked the stranger")
			}
			if n := len(stranger.taken()); n > 0 {
				t.Errorf("the stranger saw %d requests", n)
			}
		})
	}
}

// awaitBack waits until a peer that was left out is asked again.
func (p *pair) awaitBack(ip string) {
	p.t.Helper()
	for end := time.Now().Add(patience); p.leavesOut(ip); time.Sleep(10 * time.Millisecond) { // polling another process
		if time.Now().After(end) {
			p.t.Fatal("the peer stays left out")
		}
	}
}
