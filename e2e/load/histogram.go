// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"math"
	"time"
)

// growth is the ratio of two neighbouring bucket bounds: quantiles are at most 5 % too high.
const growth = 1.05

// histogram counts durations in buckets whose bounds grow geometrically from 1 µs. The zero value is
// empty and ready for use.
type histogram struct {
	counts []int64
	total  int64
	max    time.Duration
}

func (h *histogram) add(d time.Duration) {
	i := bucket(d)
	for len(h.counts) <= i {
		h.counts = append(h.counts, 0)
	}
	h.counts[i]++
	h.total++
	h.max = max(h.max, d)
}

// quantile is the upper bound of the bucket that holds it, never above the maximum; 0 when empty.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int64(math.Ceil(q * float64(h.total)))
	seen := int64(0)
	for i, n := range h.counts {
		seen += n
		if n > 0 && seen >= rank {
			return min(bound(i), h.max)
		}
	}
	return h.max
}

// bucket is the first one whose bound is not below d.
func bucket(d time.Duration) int {
	micros := float64(d) / float64(time.Microsecond)
	if micros <= 1 {
		return 0
	}
	return int(math.Ceil(math.Log(micros)/math.Log(growth) - 1e-9))
}

func bound(i int) time.Duration {
	return time.Duration(math.Ceil(math.Pow(growth, float64(i)) * float64(time.Microsecond)))
}
