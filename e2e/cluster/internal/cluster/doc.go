// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster brings a cluster up, takes it down, and looks at one that runs.
//
// A cluster is a folder, a network namespace, a veth pair and processes; each can be
// told by the cluster's name alone. So nothing has to be remembered to take it down, and
// a half-made or half-dead one is handled like any other:
//
//	Up    claim a slot -> keys and configuration -> namespace -> processes -> ready
//	Down  processes -> mounts -> control groups, CNI and shim leftovers -> link, namespace -> folder
//
// Both can be repeated, and interrupted at any point.
package cluster
