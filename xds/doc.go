// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package xds says what a sidecar does: it translates a Workload into Envoy's configuration. It is
// pure: no network, no clock, no Kubernetes; equal input gives equal bytes.
//
// A request that reaches a pod of a split workload:
//
//	client ──> pod:8080 ──nftables──> :15600, chain of destination 8080
//	                                     │ HTTP: routes "capture|8080"        │ other bytes
//	                                     ├── authority is an address ─────────┤ (direct|8080)
//	                                     ├── 100-w of 100 ────────────────────┤
//	                                     │ w of 100                           │
//	                                peer|8080|<rev>   composite:              v
//	                                     ├── 2. if that can't be reached ──> local|8080
//	                                     │ 1.                                 └──> the pod's own address, port 8080
//	                                     v
//	                                peerconn|8080|<rev>, adds x-headgate-port and -for
//	                                     │
//	   other revision's pod:15601 <──────┘
//	            └─nftables──> :15600, chain of destination 15601
//	                             │ routes "peers", by x-headgate-port; what is for another is refused
//	                             v
//	                          in|8080 (inonce|8080 while that pod ends) ──> that pod's own address, port 8080
//	                          peerconn|8080|<stable> where that revision is over ──> a pod of stable, in|8080
//
// Vocabulary. A hop is the role of a cluster: local, direct, peer, peerconn, in. At rest a workload has only
// local, direct and in, and its configuration holds no address at all. The weight of a peer is in its routes, its
// pods are in its endpoints; nothing that varies during a rollout is in the listener, because a changed
// filter chain closes its connections.
//
// Translate makes a configuration, Stages the way from one to another, Bootstrap what Envoy starts with.
package xds
