// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"flag"
	"fmt"
	"testing"
)

// runs is how many rollouts there are in each world. The goals are meant for 500 or more (make acceptance);
// with fewer only what chance can't explain is an error.
var runs = flag.Int("runs", 0, "rollouts in each world; 0: a few")

func TestAcceptance(t *testing.T) {
	n := *runs
	if n == 0 {
		n = 8
	}
	if n < 500 && testing.Short() {
		n = 2
	}
	for _, g := range Goals() {
		t.Run(fmt.Sprintf("%s %s", g.Name, g.Says), func(t *testing.T) {
			all := g.Plan.Many(g.World, n)
			for _, w := range g.Wants {
				hits := 0
				for _, o := range all {
					if w.Is(o) {
						hits++
					}
				}
				t.Logf("%s: %d of %d", w.Says, hits, n)
				if !AtLeast(hits, n, w.Share, n >= 500) {
					t.Errorf("%s: %d of %d rollouts, want a share of %v", w.Says, hits, n, w.Share)
				}
			}
		})
	}
}
