// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Empty: with a file of assembly in its package the compiler accepts functions without a body, which link.go declares.
