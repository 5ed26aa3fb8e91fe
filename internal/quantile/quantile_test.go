// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package quantile

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestOf(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	hundred := make([]time.Duration, 100) // 1 to 100, in any order
	for i, n := range r.Perm(100) {
		hundred[i] = time.Duration(n + 1)
	}
	for name, tc := range map[string]struct {
		took []time.Duration
		q    float64
		want time.Duration
	}{
		"nothing took any time":                              {nil, 0.5, 0},
		"one is every quantile":                              {[]time.Duration{7}, 0.99, 7},
		"the median of two is the slower, lest a stall hide": {[]time.Duration{9, 1}, 0.5, 9},
		"the smallest":                                       {hundred, 0, 1},
		"the median":                                         {hundred, 0.5, 51},
		"one in a hundred is slower or as slow":              {hundred, 0.99, 100},
		"the largest":                                        {hundred, 1, 100},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Of(tc.took, tc.q); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}
