// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package capture programs the nftables rules that bring a pod's inbound traffic to its sidecar. It
// is what `headgate prepare` runs, once, in the pod's own network namespace, before any other
// container of the pod starts.
//
// Captured are the declared TCP ports of the app. Peers (sidecars of the other revision) deliver to a
// port of their own; it is redirected to the same listener, so that the original destination tells
// the two apart. Aliases lead probes and hooks past the sidecar, straight to the app:
//
//	client        ── 8080  ──┐
//	                         ├─► 15600  Envoy
//	peer          ── 15601 ──┘
//	kubelet probe ── 15620 ────► 8080   app
//
// Everything happens in the prerouting hook, so traffic that starts inside the pod is never touched:
// the app's own requests, to localhost or elsewhere, and what Envoy sends on to the app.
//
// Rules is the pure half (what should be redirected where), Apply the edge (netlink).
package capture
