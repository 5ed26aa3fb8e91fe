// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package policy says what a policy means for whoever follows it: the controller, which makes rollouts by it and
// writes into its conditions what is wrong with it, and replay, which tries one that is in no cluster.
//
//	policy.go  what is wrong with a policy, in words
//	metric.go  a policy's metric to Prometheus' query and the judge's criterion
//
// Everything here is a function of the policy alone. What needs other objects stays with the controller: templates,
// Secrets, whether two policies meet on a workload, and what Prometheus says about a query.
package policy
