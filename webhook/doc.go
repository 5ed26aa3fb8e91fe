// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook decides in the admission of Deployments, pods and scales.
package webhook
