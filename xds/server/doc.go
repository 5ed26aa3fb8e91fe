// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package server is the network edge of package xds: it serves each sidecar its configuration over
// delta ADS, stage by stage, and tells who has acknowledged what.
//
//	controller ── Set(Workload) ──> target, one per key (namespace, name, revision)
//	                                   │ xds.Stages, for each stream by itself
//	sidecar ── token ──> stream ── requests ──> sent, confirmed ── SafeFor? ──> next stage
//	                        │                        │
//	                        └── watch, one per type <┘ push
//
// Vocabulary. A target is what the sidecars of a key should have. A stream is one connected sidecar; it
// is settled when it has confirmed all of its target, and moved while parts of a target of another state may have
// reached it since. A watch is the client's standing question for one type. An Ack is what is known about a
// stream, and what other replicas are told.
//
// Stages belong to a stream, not to a key: a sidecar's routes name its own clusters, so no sidecar has to
// wait for another, and a slow or dead one delays nobody. A stage waits for what it needs (see
// xds.Resources.SafeFor) for as long as it takes; there is no timeout after which a route would be sent
// to a sidecar that can't follow it yet. A lower weight needs nothing and never waits; how long to wait
// for its acknowledgement is the controller's decision.
//
// The protocol's bookkeeping (subscriptions, nonces) is go-control-plane's. Its cache is not used: it
// pushes all types at once and marshals every resource again for each stream.
package server
