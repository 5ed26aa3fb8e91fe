// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"gonum.org/v1/gonum/mathext"
)

// Many runs n rollouts, with seeds from 1 on, on all processors.
func (p Plan) Many(w World, n int) []Outcome {
	return many(n, func(seed uint64) Outcome { return p.Run(w, seed) })
}

func many[T any](n int, one func(seed uint64) T) []T {
	out := make([]T, n)
	var group sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for k := range workers {
		group.Go(func() {
			for i := k; i < n; i += workers {
				out[i] = one(uint64(i + 1))
			}
		})
	}
	group.Wait()
	return out
}

// Share of the outcomes for which something is true.
func Share(all []Outcome, is func(Outcome) bool) float64 {
	n := 0
	for _, o := range all {
		if is(o) {
			n++
		}
	}
	return float64(n) / float64(max(len(all), 1))
}

// RolledBack and Promoted are predicates for Share.
func RolledBack(o Outcome) bool { return o.RolledBack }

// Promoted says that the last step ended well.
func Promoted(o Outcome) bool { return o.Promoted }

// Never is the time of what did not happen.
const Never = time.Duration(math.MaxInt64)

// Times are when the outcomes for which something is true ended, Never for the others.
func Times(all []Outcome, is func(Outcome) bool) []time.Duration {
	out := make([]time.Duration, len(all))
	for i, o := range all {
		if out[i] = Never; is(o) {
			out[i] = o.After
		}
	}
	return out
}

// Quantile of values; the larger of two neighbours.
func Quantile[T cmp.Ordered](values []T, q float64) T {
	if len(values) == 0 {
		var zero T
		return zero
	}
	v := slices.Sorted(slices.Values(values))
	return v[min(int(math.Ceil(q*float64(len(v)-1))), len(v)-1)]
}

// Failed are the candidate's failed requests of all outcomes.
func Failed(all []Outcome) []uint64 {
	out := make([]uint64, len(all))
	for i, o := range all {
		out[i] = o.Failed
	}
	return out
}

// AtLeast says whether hits of n are what a share of at least want looks like. With few runs chance has
// its say: only what would happen once in ten thousand times is then too little.
func AtLeast(hits, n int, want float64, strict bool) bool {
	if strict || want <= 0 {
		return float64(hits) >= want*float64(n)-1e-9
	}
	if want >= 1 {
		return hits == n
	}
	if hits >= n {
		return true
	}
	// The chance of at most so many hits.
	return mathext.RegIncBeta(float64(n-hits), float64(hits+1), 1-want) > 1e-4
}
