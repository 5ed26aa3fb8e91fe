// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"cmp"
	"slices"
	"time"
)

const (
	// maxPods is how many of stable's pods are told apart. A sample: more pods would tell more precisely
	// how much pods differ, but ten do, and the state must stay small.
	maxPods = 10
	// maxFresh is how many of the candidate's pods are told apart. Of more the latency is not judged: nobody knows whether they are
	// warm, and so many tell enough.
	maxFresh = 32
	// forgetPod is for how long a pod without requests is remembered.
	forgetPod = time.Minute
	// goneAfter is how many requests a pod of the candidate would have had, at equal parts, when it is taken for gone until it
	// has one again: fewer may pass it by for no reason.
	goneAfter = 10
)

// Pod is a pod that answers requests.
type Pod struct {
	Name string `json:"name"`
	// Age is for how long it has been known, Idle for how long it has had no request.
	Age  time.Duration `json:"age"`
	Idle time.Duration `json:"idle,omitempty"`
	// Missed is how many requests it would have had in that time, at equal parts. Of stable's pods it is not counted.
	Missed float64 `json:"missed,omitempty"`
}

// PodCount is how many requests a pod had, and how many of them were events (errors, slow requests).
type PodCount [2]float64

// sample of stable's pods: what each slot of the table counted at one look.
type sample [maxPods]PodCount

func (s *sample) plus(o *sample) {
	for k := range s {
		s[k][0] += o[k][0]
		s[k][1] += o[k][1]
	}
}

// Pods is the table of stable's pods that are told apart. A free slot has no name.
type Pods [maxPods]Pod

// busy is how many slots are in use.
func (p *Pods) busy() int {
	n := 0
	for i := range p {
		if p[i].Name != "" {
			n++
		}
	}
	return n
}

// follow updates the table at a look dt after the one before. A pod keeps its slot as long as it
// answers, so that what is remembered by slot is one pod's.
func (p *Pods) follow(requests func(name string) (float64, bool), dt time.Duration) {
	for i := range p {
		if p[i].Name == "" {
			continue
		}
		p[i].Age = min(p[i].Age+dt, maxDuration)
		p[i].Idle += dt
		if n, ok := requests(p[i].Name); ok && n > 0 {
			p[i].Idle = 0
		}
		if p[i].Idle > forgetPod {
			p[i] = Pod{}
		}
	}
}

// fill gives free slots to pods that have none: those with the most requests first, whatever their
// names are.
func (p *Pods) fill(pods []namedCount) {
	if p.busy() == maxPods {
		return
	}
	slices.SortFunc(pods, func(a, b namedCount) int {
		return cmp.Or(-cmp.Compare(a.requests, b.requests), cmp.Compare(a.events, b.events), cmp.Compare(a.name, b.name))
	})
	for _, pod := range pods {
		free := slices.IndexFunc(p[:], func(q Pod) bool { return q.Name == "" })
		if free < 0 {
			return
		}
		if !slices.ContainsFunc(p[:], func(q Pod) bool { return q.Name == pod.name }) {
			p[free] = Pod{Name: pod.name}
		}
	}
}

// namedCount is a pod that asks for a slot.
type namedCount struct {
	name             string
	requests, events float64
}

// newcomers are stable's pods with requests that have no slot yet; nil when there is no room anyway.
func (st *State) newcomers(l Look) []namedCount {
	if st.Pods.busy() == maxPods {
		return nil
	}
	var out []namedCount
	ask := func(name string, requests, events uint64) {
		known := slices.ContainsFunc(st.Pods[:], func(q Pod) bool { return q.Name == name })
		if requests > 0 && !known {
			out = append(out, namedCount{name, float64(requests), float64(events)})
		}
	}
	if len(l.StableServed) > 0 {
		for name, c := range l.StableServed {
			ask(name, c.Requests, l.Stable[name].Errors)
		}
		return out
	}
	for name, c := range l.Stable {
		ask(name, c.Requests, c.Errors)
	}
	return out
}

// pods takes in which pods of both revisions a look shows.
func (st *State) pods(l Look, dt time.Duration) {
	st.Pods.follow(func(name string) (float64, bool) {
		if c, ok := l.StableServed[name]; ok {
			return float64(c.Requests), true
		}
		c, ok := l.Stable[name]
		return float64(c.Requests), ok
	}, dt)
	st.Pods.fill(st.newcomers(l))
	if l.Weight <= 0 {
		return
	}
	st.fresh(l.CandidateServed, dt)
}

// age lets the candidate's pods grow older by an outage: they warm up all the same. Whether they had requests in it is not known.
func (st *State) age(dt time.Duration) {
	for i := range st.Fresh {
		st.Fresh[i].Age = min(st.Fresh[i].Age+dt, maxDuration)
	}
}

// isGone says that requests pass the pod by. It is remembered for a while: maybe it was not scraped as often as others.
func (p *Pod) isGone() bool { return p.Missed > goneAfter }

// present is how many of the candidate's pods are not gone.
func (st *State) present() (n int) {
	for i := range st.Fresh {
		if !st.Fresh[i].isGone() {
			n++
		}
	}
	return n
}

// fresh remembers since when the candidate's pods have had requests. One that is gone must not count: the candidate would seem
// to be judged by its latency, and nothing would speak against it.
func (st *State) fresh(served map[string]Served, dt time.Duration) {
	for i := range st.Fresh {
		pod := &st.Fresh[i]
		pod.Age, pod.Idle = min(pod.Age+dt, maxDuration), min(pod.Idle+dt, maxDuration)
		if served[pod.Name].Requests > 0 {
			pod.Idle, pod.Missed = 0, 0
		}
	}
	requests := st.meet(served)
	for i := range st.Fresh {
		if st.Fresh[i].Idle > 0 {
			st.Fresh[i].Missed += float64(requests) / float64(len(st.Fresh))
		}
	}
	st.Fresh = slices.DeleteFunc(st.Fresh, func(pod Pod) bool { return pod.Idle > forgetPod })
}

// meet adds the candidate's pods that have requests for the first time, and returns how many requests all had.
func (st *State) meet(served map[string]Served) (requests uint64) {
	known := st.Fresh // sorted by name
	for name, c := range served {
		requests = addSaturating(requests, c.Requests)
		_, ok := find(known, name)
		if c.Requests > 0 && !ok && len(st.Fresh) < maxFresh {
			st.Fresh = append(st.Fresh, Pod{Name: name})
		}
	}
	if len(st.Fresh) > len(known) {
		slices.SortFunc(st.Fresh, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
	}
	return requests
}

// warming says that a pod of the candidate has not had requests for long enough to be judged by its
// latency.
func (st *State) warming(s Settings, name string) bool {
	at, ok := find(st.Fresh, name)
	return !ok || st.Fresh[at].Age+s.Interval/2 < s.WarmUp
}

// find looks for a pod among those that are sorted by name.
func find(pods []Pod, name string) (at int, ok bool) {
	return slices.BinarySearchFunc(pods, name, func(p Pod, name string) int { return cmp.Compare(p.Name, name) })
}

// unlisted is how many more of the candidate's pods have requests than are told apart.
func (st *State) unlisted(served map[string]Served) (n int) {
	if len(st.Fresh) < maxFresh {
		return 0
	}
	for name, c := range served {
		if _, listed := find(st.Fresh, name); c.Requests > 0 && !listed {
			n++
		}
	}
	return n
}

// candidatePods is how many pods the candidate has, for all that is known; at least 1, which is the
// cautious answer.
func (st *State) candidatePods(l Look) float64 {
	if l.CandidatePods > 0 {
		return float64(min(l.CandidatePods, 1<<20))
	}
	return float64(max(st.present(), 1))
}

// stablePods is how many pods stable has.
func stablePods(l Look) float64 {
	return float64(max(len(l.Stable), len(l.StableServed), 1))
}
