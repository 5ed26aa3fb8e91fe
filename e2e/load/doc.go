// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package load is the client of the end-to-end tests and of the demo: it sends requests at a constant
// rate and counts every one of them.
//
// The rate is an open loop: request i of a kind is due at start + i/rate, whatever became of the ones
// before it, and its latency counts from when it was due. A server that stalls thus can't slow its
// own measurement down (coordinated omission).
//
//	pace ──due──▶ sender (http1, new, h2c, slow, stream, grpc) ──Outcome──▶ Recorder ──▶ Report
//	                 ▲                                                          │
//	              Targets (DNS, refreshed each second)             a JSON line each second
//
// A request is ok when the app answered it as asked, completely. Anything else has failed, and has a
// class: a status, a transport error, a stream that ended too early. Requests are POSTs, because Go's
// client silently sends a GET again when a kept connection breaks; what the tests promise must hold
// for clients that can't do that. Only what the protocol declares unprocessed is sent again.
package load
