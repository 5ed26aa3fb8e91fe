// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package harness holds the verbs of the end-to-end tests: what a person would type or look at, and
// nothing about how Headgate does it.
//
// A Cluster is the connection and the programs (kubectl, helm). A Case is one test in a namespace of
// its own, which goes when the test ends; on failure everything that a person needs to understand it
// is printed first. A Load is a client in the cluster that counts every request. A PodLog has seen
// every pod since the case began.
//
//	Cluster ──NewCase──▶ Case ──Deploy, Policy, Kubectl, Helm──▶ the cluster
//	                      ├── Await…: until the watched objects say so, or a deadline passes
//	                      ├── Pods:   PodLog, pods by identity (nothing is missed between two looks)
//	                      └── Load:   Load ──Stop──▶ load.Report
//
// Cases run in parallel. Rates of all clients together are bounded, because a machine that is too
// busy answers late for everybody; a client waits until there is room for it.
package harness
