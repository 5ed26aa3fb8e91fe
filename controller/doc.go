// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package controller is the shell around the pure core: it observes the cluster, calls rollout.Decide,
// and applies the Decision.
//
//	         caches (API server)        xds/server (every replica)      analysis/prometheus
//	               │                          │ acknowledgements              │ counters
//	               ▼                          ▼                               ▼
//	leader:   observe.go ───► Observation ◄── acks.go                     looks.go (every 5 s, one batch)
//	               │                                                          │
//	               ▼                                                          ▼
//	          rollout.Decide ◄──────────────────────────────────────────── Verdict
//	               │
//	               ▼
//	          apply.go: status first, then failure condition, hold annotation, gates, sizes, events
//
//	every replica: feed.go derives xds.Workload from Rollout.status, pods and Services, and sets it on
//	the local xds/server. Weights come from Rollout.status alone, so all replicas say the same.
//
// metrics.go exposes what the analysis says.
//
// Only the leader writes. The order of apply.go is the contract of package rollout's doc.
package controller
