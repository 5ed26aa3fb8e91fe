// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package fidelity holds the simulation's models of native controllers against the real ones: the Deployment controller, the
// ReplicaSet controller and the autoscaler's arithmetic of Kubernetes itself play the same random histories in a second
// world, second by second, and whatever is stored must be the same. `make fidelity` runs it. It is a module of its own, so
// that nothing else has to compile Kubernetes.
//
// What is linked (link.go) is one pass of each controller, for the simulation decides when which controller acts upon which
// cache; as a whole, with their queues and watches, they would act when the machine's scheduler lets them.
package fidelity
