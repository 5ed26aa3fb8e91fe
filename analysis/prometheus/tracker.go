// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// forgetAfter is for how many looks a sidecar that is no longer there is remembered: one whose scrape fails
// for a while goes on where it was. Its counters are remembered as long as it is itself, because one that
// comes back after a hole in the data must not be taken for a new one that counted all its past since the
// last look. 60 looks are 5 minutes.
const forgetAfter = 60

// maxGap is how long may pass between two looks, unless they are planned to be farther apart. More is not one look any more:
// nobody was looking, as between two rollouts of a workload, and counting starts again.
const maxGap = 5 * time.Minute

// memory is what must be known of earlier looks. The zero value knows nothing.
type memory struct {
	// at is the time of the last look with data, looks how many there were.
	at    time.Time
	looks int
	last  map[series]reading
	// sources are the sidecars seen, with the look at which each was seen last.
	sources map[source]int
	// room is how many counters that are gone are remembered; 0: all of them.
	room int
	// gap is how long may pass between two looks; 0: maxGap.
	gap time.Duration
	// lag is by how much an answer may be older than the one before, as where two Prometheuses answer in turn; 0: not at all,
	// because who is asked is where the counters are.
	lag time.Duration
	// marked is when the values that counters had were marked last.
	marked time.Time
}

// reading is the last value of a counter.
type reading struct {
	value float64
	// unread says that the counter was there, for the first time, with a value that no counter can have.
	unread bool
	// marks are values that it had: at memory.marked, and at least a lag before that; 0: it was not there.
	marks [2]float64
	// fell is when it first had less than value, without rising above since; zero: it has not.
	fell time.Time
}

// increment is by how much a counter rose since it was read last.
type increment struct {
	series
	By float64
}

// count is the increment as whole requests.
func (i increment) count() uint64 { return uint64(math.Round(min(i.By, 1<<53))) }

// knows says that a sidecar was there at an earlier look.
func (m memory) knows(s source) bool {
	_, ok := m.sources[s]
	return ok
}

// fresh is the memory as it is worth something at a time: nothing after too long a gap.
func (m memory) fresh(at time.Time) memory {
	if at.Sub(m.at) > cmp.Or(m.gap, maxGap) {
		return m.forgotten()
	}
	return m
}

// forgotten is the memory without what was seen.
func (m memory) forgotten() memory { return memory{room: m.room, gap: m.gap, lag: m.lag} }

// asked are the workloads that a look is about, with the creation times of their pods by name.
type asked map[workload]map[string]time.Time

// created is when a sidecar's pod was created; the zero time where that is not known.
func (a asked) created(s source) time.Time { return a[s.workload][s.Pod] }

// advance takes in the samples of one look.
//
//   - A counter that rose: the difference. One that fell was reset: all it has counted since, unless it had that value within
//     the last lag or two. Then an older answer is likelier, and it counts nothing until it has risen above what it was, or has
//     not for a lag: a counter that falls now and then and is always all new would be evidence without end. And one of no pod is
//     a user's sum over pods, which falls when one of them goes: nothing, it is where counting starts again.
//   - A new counter of a sidecar that was there before: all of it. Envoy makes a counter when it first
//     counts, and the first error must not be lost.
//   - A new counter of a new sidecar: all of it if the pod was created after the look before; else it
//     is where counting starts, because most of it happened before anybody looked. That includes the few
//     requests of a pod that was created since counting began, and was first scraped a few looks later: it
//     may have been seen and forgotten, and what is counted twice is evidence that there never was.
//   - A counter that is gone: nothing.
//   - A value that no counter can have (NaN, negative) is as good as none.
//
// After too long a gap all counters are new, of sidecars never seen. m is not changed.
func (m memory) advance(at time.Time, samples []sample, about asked) (memory, []increment) {
	m = m.fresh(at)
	next := m.forgotten()
	next.at, next.looks, next.marked = at, m.looks+1, m.marked
	next.last, next.sources = make(map[series]reading, len(samples)), make(map[source]int, len(m.sources))
	if m.marks(at) {
		next.marked = at
	}
	for _, s := range samples {
		next.read(s)
	}
	restarted := m.restarted(next)
	increments := make([]increment, 0, len(next.last))
	for series, now := range next.last {
		if now.unread {
			continue
		}
		now, by := m.since(series, now.value, restarted[series.source], at, about)
		next.last[series] = now
		if by > 0 {
			increments = append(increments, increment{series: series, By: by})
		}
	}
	m.carry(&next, about)
	return next, increments
}

// read takes in one sample.
func (m *memory) read(s sample) {
	m.sources[s.source] = m.looks
	have, ok := m.last[s.series]
	switch {
	case !usable(s.Value):
		if !ok {
			m.last[s.series] = reading{unread: true}
		}
	// Scraped twice: the fresher value is the larger one, except during a reset, which is then seen a
	// scrape later.
	case !ok, have.unread, s.Value > have.value:
		m.last[s.series] = reading{value: s.Value}
	}
}

// restarted are the sidecars of which a counter is below what it was long ago: no answer can be that old, so all of it fell.
func (m memory) restarted(next memory) map[source]bool {
	out := make(map[source]bool)
	for s, now := range next.last {
		if before, ok := m.last[s]; ok && !now.unread && now.value < before.value && (m.lag == 0 || now.value < before.marks[1]) {
			out[s.source] = true
		}
	}
	return out
}

// marks says that it is time to mark the values that counters have.
func (m memory) marks(at time.Time) bool { return at.Sub(m.marked) >= m.lag }

// since is what is remembered of a counter that has a value now, and by how much it rose.
func (m memory) since(s series, value float64, restarted bool, at time.Time, about asked) (now reading, by float64) {
	before, ok := m.last[s]
	if m.marks(at) {
		before.marks = [2]float64{before.value, before.marks[0]}
	}
	now = reading{value: value, marks: before.marks}
	switch {
	case before.unread:
		return now, 0
	case ok && value >= before.value:
		return now, value - before.value
	case ok && s.Pod == "":
		return now, 0
	case ok && !restarted && before.isOlder(at, m.lag):
		return before, 0
	case ok, m.knows(s.source), m.looks > 0 && about.created(s.source).After(m.at):
		return reading{value: value}, value
	}
	return now, 0
}

// isOlder says that a value below the last one is from an older answer, for all that is known; it notes since when there are such.
func (r *reading) isOlder(at time.Time, lag time.Duration) bool {
	if r.fell.IsZero() {
		r.fell = at
	}
	return at.Sub(r.fell) < lag
}

// absent is a sidecar that is remembered, with those of its counters that the newest answer lacks.
type absent struct {
	source
	look     int // at which the sidecar was seen last
	counters []series
}

// carry copies what is gone into the next memory: sidecars for a while, and their counters with them. A
// workload that is not looked at any more is forgotten, so that its next rollout does not begin with all
// that happened in between.
//
// A namespace has its share of the room, and what finds no place in it is forgotten, sidecar by sidecar:
// somebody whose counters have other names at every look must not fill the memory. A sidecar that was
// forgotten begins anew when it is back, which costs what it counted in between.
func (m memory) carry(next *memory, about asked) {
	left := make(map[string]int)
	for w := range about {
		left[w.Namespace] = 0
	}
	share := math.MaxInt
	if m.room > 0 {
		share = m.room / max(1, len(left))
	}
	for ns := range left {
		left[ns] = share
	}
	for _, a := range m.absent(*next, about) {
		if left[a.Namespace] -= len(a.counters); left[a.Namespace] < 0 {
			continue
		}
		next.sources[a.source] = a.look
		for _, s := range a.counters {
			next.last[s] = m.last[s]
		}
	}
}

// absent are the sidecars worth remembering, those that were seen last first.
func (m memory) absent(next memory, about asked) []*absent {
	found := make(map[source]*absent)
	for s, look := range m.sources {
		now, seen := next.sources[s]
		_, wanted := about[s.workload]
		if wanted && (seen || next.looks-look <= forgetAfter) {
			found[s] = &absent{source: s, look: max(look, now)}
		}
	}
	for s := range m.last {
		if now, ok := next.last[s]; ok && !now.unread {
			continue
		}
		if a := found[s.source]; a != nil {
			a.counters = append(a.counters, s)
		}
	}
	out := make([]*absent, 0, len(found))
	for _, a := range found {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *absent) int {
		return cmp.Or(cmp.Compare(b.look, a.look), cmp.Compare(len(a.counters), len(b.counters)), cmp.Compare(a.Pod, b.Pod))
	})
	return out
}
