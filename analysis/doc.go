// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package analysis judges a candidate against the stable revision that runs at the same time.
//
// Judge takes one look (what both revisions answered since the look before, and how fast) and says Undecided, Pass,
// Fail, Hold or Inconclusive. It may look as often as it likes: the evidence is an e-process, a
// number that is expected to stay below 1 as long as there is nothing to find, at whatever moment one
// stops. The chance that it ever reaches 100 by accident is below 1 percent, over the whole rollout.
//
//	        counts of one look, by arm and pod: errors, requests slower than each bound
//	                                   │
//	   share.go    what share of requests the candidate gets (pi); does anybody split at all?
//	   latency.go  which latency bounds are judged, and which of the candidate's pods are warm
//	   history.go  what stable's pods did before the rollout; noise.go what they do now
//	                                   │
//	                 rate.go  one for errors, one for each bound, one for each rate of the user's
//	       ┌───────────────────────────┴───────────────────┐
//	    harm.go, outlier.go                            accept.go          metric.go, criterion.go
//	e-processes against                            e-process for the      users' metrics:
//	"no worse than the                             candidate, fresh at    inside their range?
//	harm margin", over                             each step
//	the whole rollout
//	       └───────────────────────────┬───────────────────┴────────────────────┘
//	                   judge.go  the first rule that matches gives the verdict
//	                message.go, interval.go  and says why
//
// A statistician may read rate.go first: each rate has three components against the candidate, FAST, GROSS
// and OUTLIER, and one e-process for it. Everybody else, judge.go: the list of rules is there.
//
// docs/analysis.md has the formulas, why they hold, and what they measure in simulations.
//
// The package is pure: no clock, no input or output, no logging; time is in the Look. Everything that
// is remembered is in State.
package analysis
