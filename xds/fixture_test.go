// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// web is a workload with a split: an HTTP port, one whose number differs between the revisions, one that
// the other revision lacks, and one for bytes.
func web(weight uint32, endpoints ...string) Workload {
	return Workload{
		Namespace: "shop", Name: "web.v1", Revision: "6d4b75cb6d",
		Ports: []Port{{Number: 8080, Peer: 8080}, {Number: 8443, Peer: 9443}, {Number: 9000, Protocol: TCP, Peer: 9000}, {Number: 9102}},
		Split: &Split{Peer: "7f9c6d5b4", PeerWeight: weight, Endpoints: endpoints},
	}
}

func atRest(w Workload) Workload {
	w.Split = nil
	return w
}

func translated(t testing.TB, w Workload) Resources {
	t.Helper()
	r, err := Translate(w)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// AnyWorkload is a valid workload; equal sources make equal ones. Few values, so that two of them often
// have something in common.
func AnyWorkload(r *rand.Rand) Workload {
	w := Workload{Namespace: "shop", Name: "web", Revision: "r0", IPv6: r.IntN(2) == 0}
	for n := range uint32(4) {
		if r.IntN(3) > 0 {
			w.Ports = append(w.Ports, Port{Number: 8080 + n, Protocol: Protocol(r.IntN(3)), Peer: uint32(r.IntN(2)) * (8080 + n)})
		}
	}
	if r.IntN(4) > 0 {
		w.Split = &Split{Peer: fmt.Sprintf("r%d", 1+r.IntN(2)), PeerWeight: uint32(r.IntN(101)), PeerIsStable: r.IntN(2) == 0}
		if w.Split.PeerIsStable && r.IntN(3) == 0 {
			w.Split.PeerWeight, w.Split.Over = 100, true
		}
		for n := range r.IntN(3) {
			w.Split.Endpoints = append(w.Split.Endpoints, fmt.Sprintf("10.0.0.%d", 1+n))
		}
	}
	return w
}
