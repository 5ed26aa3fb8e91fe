// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package xds says what a sidecar does: it translates a Workload into Envoy's configuration. It is
// pure: no network, no clock, no Kubernetes; equal input gives equal bytes.
//
// A request that reaches a pod of a split workload:
//
//	client ──> pod:8080 ──nftables──> :15600 capture listener, chain by original destination
//	                                     │ HTTP                         │ other bytes
//	                             routes "capture|8080"                  │
//	              authority is an address │        │ split             │
//	                                      │   weight w │ 100-w         │
//	                                      │            │    └──────┐   │
//	                                      │   peer|8080|<rev>      │   │      composite: first the one,
//	                                      │     │ 1.      │ 2.     │   │      then, if it can't be reached,
//	                                      │ peerconn|..   │        │   │      the other
//	                                      │     │         └──┬─────┴───┘
//	                                      └─────┼──────> local|8080 ──> the pod's own address, port 8080
//	                                            v
//	            other revision's pod:15601 ──nftables──> :15600, chain of destination 15601
//	                                                        │ routes "peers", by x-headgate-port
//	                                                     in|8080 ──> that pod's own address, port 8080
//
// Vocabulary. A hop is the role of a cluster: local, peer, peerconn, in. At rest a workload has only
// local and in, and its configuration holds no address at all. The weight of a peer is in its routes, its
// pods are in its endpoints; nothing that varies during a rollout is in the listener, because a changed
// filter chain closes its connections.
//
// Translate makes a configuration, Stages the way from one to another, Bootstrap what Envoy starts with.
package xds
