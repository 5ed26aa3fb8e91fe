// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package proxyfault says what a proxy in front of a server does to requests. The proxy is in the sample
// application's image (e2e/app); who asks for faults is package faults.
package proxyfault

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Faults of a server, as its clients see them. The zero value has none.
type Faults struct {
	// AwayFor is how long connections are refused; those that there were are reset. Then it is back, with the
	// other faults.
	AwayFor metav1.Duration `json:"awayFor"`
	// Latency is added to every request.
	Latency metav1.Duration `json:"latency"`
	// Every so many writes one is refused; 0: none.
	Every int64 `json:"every,omitempty"`
	// Statuses are what it is refused with, in turn.
	Statuses []int `json:"statuses,omitempty"`
	// NaN: every sample in the answer of a Prometheus is not a number.
	NaN bool `json:"nan,omitempty"`
	// Reset: every counter in the answer of a Prometheus counts from its first value since this was set, as one whose process was
	// started again. What has no name is none, but what a function makes of some.
	Reset bool `json:"reset,omitempty"`
}

// Counts of what a proxy has seen since it began.
type Counts struct {
	Requests int64 `json:"requests"`
	// Writes are those of the requests that were neither GET nor HEAD, Refused those of the writes that the server
	// did not see.
	Writes  int64 `json:"writes"`
	Refused int64 `json:"refused"`
}

// Refuse is the status with which the nth write (from 1) is refused; 0: it is passed on.
func (f *Faults) Refuse(n int64) int {
	if f.Every <= 0 || len(f.Statuses) == 0 || n%f.Every != 0 {
		return 0
	}
	return f.Statuses[(n/f.Every)%int64(len(f.Statuses))]
}
