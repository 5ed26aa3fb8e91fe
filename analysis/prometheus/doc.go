// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package prometheus turns what a Prometheus knows of the sidecars into analysis.Looks. Anything that
// answers Prometheus' HTTP API will do.
//
// At one look it sends one query for the raw request counters of all workloads in a rollout, and one
// for each of the users' metrics. What was before a rollout is one range query. It never asks for rate() or increase(): those extrapolate, lose the
// first requests of a new pod, and give fractions; differences of raw counters are exact.
//
//	series.go    which series there are, and what each of them counts
//	tracker.go   samples of counters, look after look, to increments: resets, new and vanished series
//	look.go      increments to the requests and errors of both revisions
//	latency.go   the same for how long requests took
//	native.go    histograms that are a single series, as the counters that their buckets would be
//	metric.go    the users' queries and the numbers in their answers
//	users.go     which of them are due, and what a look says of each
//	client.go    the network edge
//	past.go      looks at what was, from one range query
//	share.go     what is asked namespace by namespace when the one query fails
//	sidecars.go  the same counters without a Prometheus, from the sidecars themselves
//	credentials.go, access.go  what a Prometheus asks for, and what is said where it refuses
//
// All but the last five lines, their helper limit.go and the asking half of users.go is pure.
//
// A request is counted where it was split, at the sidecar of the pod it came to first. So the pods in
// the looks are those that split, not those that answered, and both revisions' counters come from the
// same processes at the same scrape. Requests that came to a candidate's pod directly are split by the
// same weights and count like all others. A request is timed where it is answered, because requests for the
// other revision make one hop more.
package prometheus
