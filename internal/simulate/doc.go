// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package simulate plays random histories of one workload: the production webhooks and controller among
// models of everything else, with stale caches, lost and late writes, crashes between any two writes, and
// users who do anything at any time. An oracle checks every write; a history that ends badly is shortened,
// and printed as a file that is a test. docs/design/SIMULATION.md says what is modelled and what must hold.
//
//	history.go  what can happen; a history is text, one action a line
//	random.go   histories from seeds
//	play.go     playing, coming to rest, shortening
//	oracle*.go  the invariants
//	api.go, memory.go, client.go        the API server, caches, and clients whose writes go wrong
//	deployment.go, conditions.go, replicaset.go, autoscaler.go, kubelet.go, world.go   the native side and the sidecars
//	native.go   the models compared with other controllers (package fidelity)
//	alone.go    the models alone, line by line, compared with a control plane (e2e/fidelity)
//	replica.go  one process of Headgate
//	user.go     kubectl and its friends
//
// Nothing here has a clock or chance of its own: playing a history twice does the same twice.
package simulate
