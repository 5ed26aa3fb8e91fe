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
	mostText    = "over a third of stable's have no success, so failures tell too little: use comparedToStable with a min ratio"
	surplusText = "%.0f successes without a request: late, or of other pods; count succeeded + failed of the same pods in the denominator"
)

const (
	// withheldFor is for how long nothing is told while it is not certain whether successes come late, but nothing speaks for it: as of
	// traffic that is always the same.
	withheldFor = 2 * time.Minute
	// undecidedFor is when what is likely will do.
	undecidedFor = 4 * time.Minute
	// settlesIn is for how long after a change of weight late successes make two equal versions differ: until they have come, up to
	// outcomeWithin later, and have been scraped.
	settlesIn = outcomeWithin + 15*time.Second
)

// pairs is what must be known of a rate of which more is better.
type pairs struct {
	// before and last are when the last two looks were; idle is until when the candidate had had no weight yet.
	before, last, idle time.Time
	// weight is in force since changed, began is when counting started.
	weight         int
	began, changed time.Time
	arms           map[arm]successes
	follows        follows
	// proven says that successes are counted with their requests, likely that it seems so.
	proven, likely bool
	// withheld is what was counted before either was so, and unsettled what was soon after a change of weight. That is told only where
	// it is proven: where they are late after all, it is then that equal versions differ.
	withheld, unsettled map[arm]analysis.Counts
	// apart says why they are not, from when it is known on, for the rest of the rollout: nothing else is needed then, nor kept.
	apart string
}

// newPairs begins to count.
func newPairs(at time.Time, weight int) pairs {
	return pairs{last: at, idle: at, began: at, changed: at, weight: weight}
}

// settle takes in a look, and returns what is told of the look before, also of pods that are gone; nil while all is withheld. The
// first time it is all that was. Nothing is ever told of before the candidate has had a weight for its warm-up.
func (p *pairs) settle(at time.Time, t Target, warmUp time.Duration, counts map[arm]analysis.Counts) map[arm]analysis.Counts {
	if p.apart != "" {
		return nil
	}
	told := p.count(at, counts, t.Stable)
	if t.Weight <= 0 && p.idle.Equal(p.last) { // it has had none until now
		p.idle = at
	}
	if t.Weight <= 0 || p.before.Before(p.idle.Add(warmUp)) {
		clear(told)
	}
	if t.Weight != p.weight {
		p.weight, p.changed = t.Weight, at
	}
	p.conclude(at.Sub(p.began))
	if p.apart != "" {
		*p = pairs{apart: p.apart}
		return nil
	}
	unsettled := !p.last.Before(p.changed) && p.last.Before(p.changed.Add(settlesIn))
	p.before, p.last = p.last, at
	return p.release(told, unsettled)
}

// count takes in what was counted, and returns what is known of the look before.
func (p *pairs) count(at time.Time, counts map[arm]analysis.Counts, stable string) map[arm]analysis.Counts {
	told := map[arm]analysis.Counts{}
	for of, s := range p.arms {
		if _, ok := counts[of]; !ok {
			told[of] = s.told()
		}
	}
	next := map[arm]successes{}
	for of, c := range counts {
		s := p.arms[of]
		told[of] = s.settle(at, c)
		if of.revision == stable {
			s.compare(&p.follows)
		}
		p.find(s.surplus.reason())
		next[of] = s
	}
	p.arms = next
	p.follows.end()
	return told
}

// find notes why there is no value; the first reason stays.
func (p *pairs) find(reason string) { p.apart = cmp.Or(p.apart, reason) }

// reason says why there is no value; empty where there is one, or may be.
func (p *pairs) reason() string {
	if p.mostFail() {
		return mostText
	}
	return p.apart
}

// mostFail says that so many of stable's requests have no success that failures can't tell: twice as many may be all of them, and are
// then accepted whatever the candidate does. An outage makes that so for a while.
func (p *pairs) mostFail() bool { return (p.proven || p.likely) && p.follows.mostFail() }

// conclude says whether successes come late, after so much time.
func (p *pairs) conclude(after time.Duration) {
	told := p.proven || p.likely
	late := p.follows.late(lateSigmas) || !told && after >= undecidedFor && p.follows.late(likelySigmas)
	if late {
		p.find(lateText)
	}
	p.proven = p.proven || p.follows.together(togetherSigmas)
	p.likely = p.likely || p.follows.looks >= followsLooks &&
		(after >= withheldFor && p.follows.unlikely() || after >= undecidedFor && !late)
}

// release tells what was withheld too, or withholds all.
func (p *pairs) release(told map[arm]analysis.Counts, unsettled bool) map[arm]analysis.Counts {
	switch {
	case p.mostFail():
		p.withheld = bounded(join(told, p.withheld))
		return nil
	case p.proven:
		join(told, p.withheld)
		join(told, p.unsettled)
		p.withheld, p.unsettled = nil, nil
	case unsettled:
		p.unsettled = bounded(join(told, p.unsettled))
		return nil
	case p.likely:
		join(told, p.withheld)
		p.withheld = nil
	default:
		p.withheld = bounded(join(told, p.withheld))
		return nil
	}
	maps.DeleteFunc(told, func(_ arm, c analysis.Counts) bool { return c.Requests == 0 })
	return told
}

// join adds others to counts.
func join(counts, others map[arm]analysis.Counts) map[arm]analysis.Counts {
	for of, c := range others {
		c.Requests += counts[of].Requests
		c.Errors += counts[of].Errors
		counts[of] = c
	}
	return counts
}

// bounded takes the pods of a revision together where there are too many: of some whose names are others at each look.
func bounded(counts map[arm]analysis.Counts) map[arm]analysis.Counts {
	if len(counts) <= rateRoom {
		return counts
	}
	out := map[arm]analysis.Counts{}
	for of, c := range counts {
		join(out, map[arm]analysis.Counts{{revision: of.revision}: c})
	}
	return out
}

// successes are what one pod, or all of a revision together, counted of a rate of which more is better. The zero value has
// counted nothing.
//
// What a look counted is told at the next one: the answers for the two counters may be a scrape apart, and what one of them
// lacks at a look it has too much at the look before or after.
type successes struct {
	at time.Time
	// last is what the last look counted; settled what the one before did, and before what was compared last.
	last, settled, before tallied
	surplus               surplus
}

// tallied are requests of a look and how many had no success, below 0 where there were more successes, and in how many seconds,
// with the looks before that had none because nothing was scraped, 0 where that is not known; off is by how much the failures differ from the mean share.
type tallied struct{ requests, failed, seconds, off float64 }

// longestLook is for how many seconds at most there is no scrape.
const longestLook = 60

// settle takes in what was counted at a look, Errors by the numerator, and returns what is told of the look before.
func (s *successes) settle(at time.Time, c analysis.Counts) analysis.Counts {
	now := tallied{requests: float64(c.Requests), failed: float64(c.Requests) - float64(c.Errors)}
	now.seconds = s.since(at)
	if s.last.failed*now.failed < 0 {
		paid := math.Copysign(min(math.Abs(s.last.failed), math.Abs(now.failed)), s.last.failed)
		s.last.failed, now.failed = s.last.failed-paid, now.failed+paid
	}
	told := s.told()
	s.surplus.add(at, s.last.requests, max(-s.last.failed, 0))
	s.at, s.settled, s.last = at, s.last, now
	return told
}

// since is for how long a scrape until now has counted; 0 where it is not known, as of the first.
func (s *successes) since(at time.Time) float64 {
	seconds := at.Sub(s.at).Seconds()
	switch {
	case s.at.IsZero():
		return 0
	case s.last.requests != 0 || s.last.failed != 0:
		return seconds
	case s.last.seconds == 0 || s.last.seconds+seconds > longestLook:
		return 0
	}
	return s.last.seconds + seconds
}

// compare tells how the look that was settled is beside the one before it.
func (s *successes) compare(f *follows) {
	if now := &s.settled; now.requests > 0 && now.seconds > 0 {
		f.add(s.before, now, s.before.seconds > 0)
		s.before = *now
	}
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
