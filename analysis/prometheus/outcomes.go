// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"slices"
	"time"

	"github.com/headgate/headgate/analysis"
)

// outcomeWithin is for how long after a request of a user's rate its failure may be counted: an order is counted when it
// comes, and as failed when its payment is. Six looks; what is asked for less often has until the next value.
const outcomeWithin = 30 * time.Second

// outcomes are what one pod, or all of a revision together, counted of a user's rate of which less is better, and of which
// the other half is not counted yet. The zero value has nothing.
//
// Compared look by look, an event that comes a look after its request would be none.
type outcomes struct {
	// requests are those without an event, events those without a request.
	requests, events queue
	// owed are events of requests that were counted as none, until there are requests to count them with.
	owed uint64
}

// settle takes in what the pod counted at a look, Errors by the numerator, and returns how many of the requests are events.
func (o *outcomes) settle(at time.Time, c analysis.Counts) analysis.Counts {
	together := min(c.Requests, c.Errors)
	requests, events := c.Requests-together, c.Errors-together // of one of them there are none
	ahead, late := o.events.take(requests), o.requests.take(events)
	o.events.add(at, events-late)
	o.requests.add(at, requests-ahead)
	o.events.expire(at) // their requests were counted before anybody looked
	o.requests.expire(at)
	o.owed += late
	paid := min(o.owed, c.Requests-together-ahead)
	o.owed -= paid
	return analysis.Counts{Requests: c.Requests, Errors: together + ahead + paid}
}

// join takes over what others await.
func (o *outcomes) join(others *outcomes) {
	o.requests.join(others.requests)
	o.events.join(others.events)
	o.owed += others.owed
}

// empty says that nothing is awaited.
func (o *outcomes) empty() bool { return len(o.requests)+len(o.events) == 0 && o.owed == 0 }

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

// expire drops those that have waited too long.
func (q *queue) expire(at time.Time) {
	for len(*q) > 0 && at.Sub((*q)[0].at) >= outcomeWithin {
		*q = (*q)[1:]
	}
}
