// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package quantile says how long things took in benchmarks: for whoever waits, the slow ones count more
// than the mean.
package quantile

import (
	"slices"
	"testing"
	"time"
)

// Of is the duration that the share q (0 to 1) of took falls below, the slower of two where it is between
// them; zero when took is empty. It sorts took.
func Of(took []time.Duration, q float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	rank := int(q * float64(len(took)))
	return took[min(rank, len(took)-1)]
}

// Report adds the median and the 99th percentile to the figures of b.
func Report(b *testing.B, took []time.Duration) {
	b.Helper()
	b.ReportMetric(float64(Of(took, 0.5)), "p50-ns")
	b.ReportMetric(float64(Of(took, 0.99)), "p99-ns")
}
