// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/headgate/headgate/analysis"
)

// A rate of which more is better is about successes that are counted together with their requests: what has none has failed.
// Where successes come later, what is under way has failed for a while. That is more where a weight has risen and less where it has
// fallen, so that two equal versions differ; and waiting does not help, because nobody knows which success is whose. So it is
// found out whether they come later, and a rate of which they do has no value.

// Reasons why there is no value, as short as one that is kept (120 bytes).
const (
	lateText    = "successes come after their requests: count succeeded + failed in the denominator, or failures with better: Lower"
	surplusText = "%.0f successes without a request: late, or of other pods; count succeeded + failed of the same pods in the denominator"
)

const (
	// withheldFor is for how long nothing is told while it is not certain whether successes come late, but nothing speaks for it: as of
	// traffic that is always the same.
	withheldFor = 2 * time.Minute
	// undecidedFor is when what is likely will do.
	undecidedFor = 4 * time.Minute
)

// pairs is what must be known of a rate of which more is better.
type pairs struct {
	began   time.Time
	arms    map[arm]successes
	follows follows
	// together says that successes are counted with their requests, for all that is known; withheld is what was counted before.
	together bool
	withheld map[arm]analysis.Counts
	// apart says why they are not, from when it is known on, for the rest of the rollout: nothing else is needed then, nor kept.
	apart string
}

// settle takes in a look, and returns what is told of the look before, also of pods that are gone; nil while all is withheld. The
// first time it is all that was.
func (p *pairs) settle(at time.Time, counts map[arm]analysis.Counts, stable string) map[arm]analysis.Counts {
	if p.apart != "" {
		return nil
	}
	told := map[arm]analysis.Counts{}
	for of, s := range p.arms {
		if _, ok := counts[of]; !ok {
			told[of] = s.told()
		}
	}
	next := map[arm]successes{}
	for of, c := range counts {
		s := p.arms[of]
		earlier := s.before
		told[of] = s.settle(at, c)
		if of.revision == stable && s.looks > 1 {
			p.follows.add(earlier, &s.before, s.looks > 2)
		}
		p.find(s.surplus.reason())
		next[of] = s
	}
	p.arms = next
	p.conclude(at.Sub(p.began))
	if p.apart != "" {
		*p = pairs{apart: p.apart}
		return nil
	}
	return p.release(told)
}

// find notes why there is no value; the first reason stays.
func (p *pairs) find(reason string) { p.apart = cmp.Or(p.apart, reason) }

// conclude says whether successes come late, after so much time.
func (p *pairs) conclude(after time.Duration) {
	late := p.follows.late(lateSigmas) || !p.together && after >= undecidedFor && p.follows.late(likelySigmas)
	if late {
		p.find(lateText)
	}
	p.together = p.together || p.follows.together(togetherSigmas) ||
		after >= withheldFor && p.follows.unlikely() || after >= undecidedFor && !late
}

// release tells what was withheld too, or withholds all.
func (p *pairs) release(told map[arm]analysis.Counts) map[arm]analysis.Counts {
	for of, c := range p.withheld {
		c.Requests += told[of].Requests
		c.Errors += told[of].Errors
		told[of] = c
	}
	maps.DeleteFunc(told, func(_ arm, c analysis.Counts) bool { return c.Requests == 0 })
	if p.withheld = nil; !p.together {
		p.withheld, told = bounded(told), nil
	}
	return told
}

// bounded takes the pods of a revision together where there are too many: of some whose names are others at each look.
func bounded(counts map[arm]analysis.Counts) map[arm]analysis.Counts {
	if len(counts) <= rateRoom {
		return counts
	}
	out := map[arm]analysis.Counts{}
	for of, c := range counts {
		all := out[arm{revision: of.revision}]
		all.Requests += c.Requests
		all.Errors += c.Errors
		out[arm{revision: of.revision}] = all
	}
	return out
}

// successes are what one pod, or all of a revision together, counted of a rate of which more is better. The zero value has
// counted nothing.
//
// What a look counted is told at the next one: the answers for the two counters may be a scrape apart, and what one of them
// lacks at a look it has too much at the look before or after.
type successes struct {
	// looks is how many there were, last what the last one counted, and before what the one before did, settled with it.
	looks        int
	last, before tallied
	surplus      surplus
}

// tallied are requests of a look and how many had no success, below 0 where there were more successes; off is by how much that
// differs from the mean share.
type tallied struct{ requests, failed, off float64 }

// settle takes in what was counted at a look, Errors by the numerator, and returns what is told of the look before.
func (s *successes) settle(at time.Time, c analysis.Counts) analysis.Counts {
	now := tallied{requests: float64(c.Requests), failed: float64(c.Requests) - float64(c.Errors)}
	if s.last.failed*now.failed < 0 {
		paid := math.Copysign(min(math.Abs(s.last.failed), math.Abs(now.failed)), s.last.failed)
		s.last.failed, now.failed = s.last.failed-paid, now.failed+paid
	}
	told := s.told()
	s.surplus.add(at, s.last.requests, max(-s.last.failed, 0))
	s.looks, s.before, s.last = s.looks+1, s.last, now
	return told
}

// told is what the last look counted, as far as it is known.
func (s *successes) told() analysis.Counts {
	return analysis.Counts{Requests: uint64(s.last.requests), Errors: uint64(max(s.last.failed, 0))}
}

// Limits of successes without requests. Counters that rise together have some only where a scrape reads one of them before the other,
// or where a restart hides a part of one. Scrapes that read one 100 ms later have 0.2 √n of n requests of a look by chance (a standard
// deviation), so that several looks with large surpluses are something else; and less than 2 % over minutes.
const (
	surplusOver  = 5 * time.Minute
	surplusLooks = 3
	surplusLeast = 5
	surplusShare = 0.02
)

// largeSurplus is one that is hardly ever seen at a look of so many requests.
func largeSurplus(requests float64) float64 { return 2 + 0.7*math.Sqrt(requests) }

// surplus are successes without requests, of the last minutes.
type surplus struct {
	since time.Time
	// requests and n are how many there were of both, and capped n where no look has more than is large: one alone proves nothing.
	requests, n, capped float64
	// looks is how many had some, large how many had many.
	looks, large int
}

func (s *surplus) add(at time.Time, requests, n float64) {
	if at.Sub(s.since) >= surplusOver {
		*s = surplus{since: at}
	}
	s.requests += requests
	s.n += n
	s.capped += min(n, largeSurplus(requests))
	if n > 0 {
		s.looks++
	}
	if n > largeSurplus(requests) {
		s.large++
	}
}

// reason says that there are too many; empty where there are not.
func (s *surplus) reason() string {
	often := s.looks >= surplusLooks && s.capped > max(surplusLeast, surplusShare*s.requests)
	if s.large < surplusLooks && !often {
		return ""
	}
	return fmt.Sprintf(surplusText, s.n)
}
