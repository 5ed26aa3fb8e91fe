// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package sidecar is what runs in every injected pod: `headgate run` supervises Envoy and stands
// between it and the xDS server; `headgate drain` is its preStop hook.
//
//	      pod                                      │
//	┌─────────────────────────────────────────┐    │   xDS server
//	│ Envoy ══ delta ADS, ══ headgate run ════╪════╪══ delta ADS over TLS,
//	│   │      unix socket    │               │    │   with the pod's token
//	│   └──── child of ───────┘               │    │
//	└─────────────────────────────────────────┘    │
//
// Envoy sees one stream that never ends. Behind it, the stream to the server comes and goes: it is
// opened again with what Envoy has (initial_resource_versions), so the server sends only what
// differs. Three rules decide what Envoy gets; relay is where they are kept:
//
//   - Whatever the server says is passed on, as it says it.
//   - Without a server Envoy keeps what it has. It is never pushed back to an older or another
//     configuration, so no weight jumps because a server restarts.
//   - Only an Envoy that is not live yet, and that the server can't be reached for or has left without
//     an answer for a second, gets the configuration at rest: everything local. So an app starts
//     without a server.
//
// The configuration at rest is made by the same function as the server's, from what the Pod webhook
// wrote down; equal content has equal versions, so the change-over to the server is an ordinary
// update, empty when there is nothing to split.
//
// An Envoy that crashes is started again at once, because until then its pod's captured ports refuse
// connections; without a server it starts at rest. See supervise for when this package gives up.
package sidecar
