// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package process starts the parts of a cluster so that they outlive the command
// that started them, and finds and ends them later, whatever happened between.
//
// Two questions are kept apart. Is a component running? Its Record says: a process
// id alone is not enough, the kernel uses it again. Which processes belong to the
// cluster? An Owner says, from what the kernel knows of each process, so that
// those count too that no record names: shims, containers whose shim was killed, a
// component that was started just before the command died.
package process
