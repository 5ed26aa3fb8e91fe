// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Command demo shows Headgate at work: a shop under constant load gets three ordinary updates with
// `kubectl set image`, a good one, one that fails 5 % of its requests, and one that crashes; one screen
// shows what happens, and a table at the end what it cost.
//
//	director ──kubectl set image, rollout status──▶ cluster
//	    │ Started, Ended                              │ Rollout, pods, the client's lines
//	    └────────────▶ events ◀──────────────── sources
//	                     │
//	                 Model.Apply (pure) ──▶ Render (pure): a screen; or lines, without a terminal
//
// Everything shown and written was measured: requests by the client that sent them, pods by identity,
// exit codes by running the command, times by the clock here.
package main
