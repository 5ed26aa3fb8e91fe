// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package deptest holds no code, only a test: that the packages in which decisions are made draw in,
// however indirectly, no client, no server and no metrics library. What they import directly is
// checked by the linter (depguard); this is about what that imports in turn.
package deptest
