// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package replay runs the judge over looks that were recorded, one JSON object a line: to understand an
// incident, to try another policy on it, or to try the judge itself.
//
//	line.go        a line of input to a look
//	policy.go      a policy to the judge's settings, or to what is wrong with it
//	definition.go  what the API server would refuse of it, by the definition that the chart installs
//	replay.go      look after look to verdicts; each is answered before the next is read
//	explain.go     the same as sentences, and the evidence as a chart
package replay
