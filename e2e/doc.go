// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests Headgate on a real cluster: what users do, and what they see. The tests have the
// build tag e2e; `make e2e` brings a cluster up, builds the images and runs them.
//
// The cases of TestHeadgate run in parallel, each in a namespace of its own, while clients send
// requests of every kind and count each one. What must hold is said in the state of the world: pods by
// identity, answers by version, exit codes of the tools that people use. Those that uninstall Headgate
// come last and alone, and only where HEADGATE_E2E_UNINSTALL is "true".
package e2e
