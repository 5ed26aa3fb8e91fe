// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package export writes what a rollout was judged by, in the format that package replay reads. The record of
// a rollout has sums; the single looks come from Prometheus once more, and the record says which revisions they are of and
// which weight was in force.
//
//	rollout.go  a record to the rollouts it has, and what was in force when
//	export.go   asks for the looks and writes them
//	access.go   reaches a Prometheus inside the cluster, or one that asks who you are
package export
