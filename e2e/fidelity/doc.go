// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package fidelity holds the simulation's models of the Deployment and ReplicaSet controllers against a control plane. The same
// random histories happen to the models and to Deployments of a cluster, in namespaces that Headgate does not see, line by
// line; after each line both must have come to the same: sizes, annotations, counts, conditions, which old ReplicaSets are gone.
//
// No kubelet runs the pods: their template names a node that is nothing but an object, and the test writes their status. So it can
// stop between any two pods that get ready, for as long as the controllers need to come to rest, and nothing depends on how
// long that is. Package internal/simulate/fidelity compares what depends on caches that lag, and all times, with the
// controllers' code alone.
package fidelity
