// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Command app is the sample application of the end-to-end tests and of the demo; called as `app load`
// their client; and as what makes their life hard:
//
//	app admit    the admission webhook of somebody else, which rewrites images or removes annotations
//	app proxy    a proxy in front of the API server, or of a Prometheus, that delays, refuses and spoils
//	app signal   kills, stops and continues processes of containers on its node
//	app network  cuts and slows connections of pods on its node
//
// As an application it answers HTTP/1.1 and h2c on port 8080 and gRPC on port 9090, and says in every
// answer which version and which pod gave it. It behaves well, or badly in one of a few ways, as its
// environment says (see Behaviour). Images of one content and different tags set BEHAVIOUR, so that
// `kubectl set image` alone rolls out a bad version.
//
//	/             JSON: version, pod, revision
//	/slow?d=8s    the same after d
//	/stream?d=5s  a line every 200 ms for d, and the line "end"
//	/healthz      200
//	/readyz       200 once ready, 503 before, and with NEVER_READY
//
// On SIGTERM it goes on answering for DRAIN, because endpoints lag behind, and asks clients to close
// their connections; then it finishes what it has begun and exits with 0.
package main
