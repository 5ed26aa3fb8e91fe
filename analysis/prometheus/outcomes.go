// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"slices"
	"time"

	"github.com/headgate/headgate/analysis"
)

// outcomeWithin is for how long after a request of a user's rate its outcome may be counted: an order is counted when it
// comes, and its success when it is paid. Six looks; what is asked for less often has until the next value. For as long after
// a change of weight requests without an outcome are left out: there are then more of one version under way than
// those that the outcomes are of, and of the other less.
const outcomeWithin = 30 * time.Second

// outcomes are what one pod, or all of a revision together, counted of a user's rate, and of which the other half is not
// counted yet. The zero value has nothing.
//
// Compared look by look, a success that comes a look after its request would be a failure, all of a version that counts
// one request now and then, and none of one that always has successes of earlier ones; and a failure that comes so
// would be none.
type outcomes struct {
	// requests are those without an outcome, events (successes, where more is better) those without a request.
	requests, events queue
	// good are requests with a success that are not counted yet, where more is better.
	good queue
	// owed are events of requests that were counted as none, until there are requests to count them with.
	owed uint64
}

// settle takes in what the pod counted at a look, Errors by the numerator, and returns of how many requests the outcome is
// known, and how many of those are events. settled says that the weight is older than outcomeWithin.
func (o *outcomes) settle(at time.Time, c analysis.Counts, higherIsBetter, settled bool) analysis.Counts {
	together := min(c.Requests, c.Errors)
	requests, events := c.Requests-together, c.Errors-together // of one of them there are none
	ahead, late := o.events.take(requests), o.requests.take(events)
	o.events.add(at, events-late)
	if settled || !higherIsBetter {
		o.requests.add(at, requests-ahead)
	}
	o.events.expired(at) // their requests were counted before anybody looked
	without := o.requests.expired(at)
	if higherIsBetter { // successes are known at once, and count no sooner than failures: else none fails at first
		if settled {
			o.good.add(at, together+ahead)
		}
		o.good.add(at, late)
		return analysis.Counts{Requests: o.good.expired(at) + without, Errors: without}
	}
	o.owed += late
	paid := min(o.owed, c.Requests-together-ahead)
	o.owed -= paid
	return analysis.Counts{Requests: c.Requests, Errors: together + ahead + paid}
}

// join takes over what others await.
func (o *outcomes) join(others *outcomes) {
	o.requests.join(others.requests)
	o.events.join(others.events)
	o.good.join(others.good)
	o.owed += others.owed
}

// empty says that nothing is awaited.
func (o *outcomes) empty() bool { return len(o.requests)+len(o.events)+len(o.good) == 0 && o.owed == 0 }

// queue are numbers of requests or events by when they were counted, oldest first.
type queue []counted

type counted struct {
	at time.Time
	n  uint64
}

func (q *queue) add(at time.Time, n uint64) {
	if n > 0 {
		*q = append(*q, counted{at, n})
	}
}

func (q *queue) join(other queue) {
	*q = slices.Concat(*q, other)
	slices.SortStableFunc(*q, func(a, b counted) int { return a.at.Compare(b.at) })
}

// take takes at most n of the oldest.
func (q *queue) take(n uint64) (taken uint64) {
	for len(*q) > 0 && taken < n {
		first := &(*q)[0]
		some := min(first.n, n-taken)
		taken += some
		if first.n -= some; first.n == 0 {
			*q = (*q)[1:]
		}
	}
	return taken
}

// expired takes those that have waited too long.
func (q *queue) expired(at time.Time) (n uint64) {
	for len(*q) > 0 && at.Sub((*q)[0].at) >= outcomeWithin {
		n += (*q)[0].n
		*q = (*q)[1:]
	}
	return n
}
