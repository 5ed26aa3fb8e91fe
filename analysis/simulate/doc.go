// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package simulate tries the judge on services that do not exist, thousands of times, so that what is
// claimed of it can be checked by anyone: go test ./analysis/simulate -run Acceptance, or make acceptance
// for the whole of it.
//
//	world.go    a service: traffic, error rates, pods, from look to look
//	shape.go    how long its requests take
//	noise.go    what its pods do on their own, or all together
//	rollout.go  a rollout in it: weights, steps, the judge
//	peers.go    what other tools would have said at the same looks
//	batch.go    many rollouts, and what came of them
//	goals.go    what must hold, as data: the worlds, the numbers
//
// Everything is seeded: the same seed is the same rollout.
package simulate
