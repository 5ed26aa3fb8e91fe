// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/headgate/headgate/analysis"
)

// rateWorld is a rollout in three steps of which a user's rate is all that is judged, with a numerator of successes.
type rateWorld struct {
	pods              int     // of stable; of the candidate its weight's part of as many
	perSecond         float64 // requests of all
	candidate, stable float64 // share without success
	soonest, latest   float64 // seconds from a request to its success
	summed            bool    // counters have no pod
	rare              int     // every how many looks a pod is scraped; 0: at each
	steady            bool    // requests come evenly
	restarts          bool    // each pod does each minute
	weather           weather // nil: it is as always
}

// weather is by how much there is more traffic at a look, and by how much more of it fails.
type weather func(r *rand.Rand, look int) (traffic, failing float64)

// What becomes of a rollout. A step that is held to the end is rolled back.
const (
	promoted   = "promoted"    // every step was accepted
	unknown    = "unknown"     // promoted, but of some step too little was known
	noValue    = "no value"    // held because the rate had none
	rolledBack = "rolled back" // failed, or held by what was counted
)

const (
	lookSeconds = 5.0
	worldLooks  = 54 // a maxDuration of 4m30s
	// looksBefore is how many looks see stable alone, warmUp for how many it has served before.
	looksBefore = 4
	warmUp      = 8
)

// worldPod is a pod with its counters as they were scraped last.
type worldPod struct {
	name, revision      string
	phase               float64 // seconds from its scrape to the look
	requests, successes float64
	scraped             [2]float64 // requests and successes
	late                []float64  // when successes that are not counted yet will be
}

// worldRun is one rollout in a world.
type worldRun struct {
	rateWorld
	r    *rand.Rand
	pods []*worldPod
	of   map[string]int // pods by revision
}

// scale adds pods to a revision up to so many hundredths of all.
func (w *worldRun) scale(revision string, percent int) {
	for ; w.of[revision] < (w.rateWorld.pods*percent+99)/100; w.of[revision]++ {
		w.pods = append(w.pods, &worldPod{
			name: fmt.Sprint(revision, w.of[revision]), revision: revision, phase: w.r.Float64() * lookSeconds,
		})
	}
}

// serve lets all pods serve until their scrapes before a look, at the weights before and after the look before.
func (w *worldRun) serve(look, before, now int) {
	traffic, failing := 1.0, 1.0
	if w.weather != nil {
		traffic, failing = w.weather(w.r, look)
	}
	for i, p := range w.pods {
		if w.restarts && w.r.IntN(12) == 0 {
			p.requests, p.successes = 0, 0
		}
		share, was, is := w.stable, 100-before, 100-now
		if p.revision == "new" {
			share, was, is = w.candidate, before, now
		}
		each := w.perSecond / 100 / float64(w.of[p.revision])
		from := float64(look-1)*lookSeconds - p.phase
		w.ask(p, from, p.phase, each*float64(was), share*failing)
		w.ask(p, from+p.phase, lookSeconds-p.phase, each*float64(is)*traffic, share*failing)
		p.count(from + lookSeconds)
		if w.rare == 0 || (look+2*i+100*w.rare)%w.rare == 0 {
			p.scraped = [2]float64{p.requests, p.successes}
		}
	}
}

// ask sends requests to a pod, so many per second.
func (w *worldRun) ask(p *worldPod, from, seconds, rate, failing float64) {
	if rate*seconds <= 0 {
		return
	}
	n := distuv.Poisson{Lambda: rate * seconds, Src: w.r}.Rand()
	if w.steady {
		n = math.Floor(rate*seconds + w.r.Float64())
	}
	for range int(n) {
		p.requests++
		if w.r.Float64() >= failing {
			p.late = append(p.late, from+w.r.Float64()*seconds+w.soonest+w.r.Float64()*(w.latest-w.soonest))
		}
	}
}

// count counts the successes until then.
func (p *worldPod) count(at float64) {
	p.late = slices.DeleteFunc(p.late, func(success float64) bool {
		if success <= at {
			p.successes++
			return true
		}
		return false
	})
}

// samples are the pods' counters as the queries give them.
func (w *worldRun) samples() (out []sample) {
	add := func(revision, pod string, requests, successes float64) {
		of := series{source: source{workload: workload{"shop", "web"}, Pod: pod}, Name: allOf, Revision: revision}
		out = append(out, sample{Value: requests, series: of})
		of.Name = eventsOf
		out = append(out, sample{Value: successes, series: of})
	}
	sums := map[string][2]float64{}
	for _, p := range w.pods {
		sums[p.revision] = [2]float64{sums[p.revision][0] + p.scraped[0], sums[p.revision][1] + p.scraped[1]}
		if !w.summed {
			add(p.revision, p.name, p.scraped[0], p.scraped[1])
		}
	}
	if w.summed {
		for revision, sum := range sums {
			add(revision, "", sum[0], sum[1])
		}
	}
	return out
}

// rollout is what becomes of one, and the last reason why there was no value.
func (w rateWorld) rollout(seed uint64) (result, reason string) {
	run := worldRun{rateWorld: w, r: rand.New(rand.NewPCG(seed, 1)), of: map[string]int{}} //nolint:gosec // the same worlds each time
	weights := []int{10, 25, 50}
	s := analysis.Settings{
		NoErrorRate: true, NoLatency: true, Steps: len(weights), MinStepTime: time.Minute, PlannedLooks: worldLooks,
		Metrics: []analysis.Criterion{{Name: "orders", Rate: &analysis.RateCriterion{}}},
	}
	stepTime := func(look, step int) time.Duration {
		return s.StepTime(time.Duration(worldLooks-look)*lookSeconds*time.Second, len(weights)-step)
	}
	q := Query{Name: "orders", Denominator: "all", HigherIsBetter: true}
	target := shop(q)
	target.Weight = 0
	run.scale("old", 100)
	run.scale("new", weights[0])
	u := users{rates: map[userKey]rateMemory{}}
	var st analysis.State
	var v analysis.Verdict
	result, s.MaxStepTime = promoted, stepTime(0, 0)
	before := 0
	for look := -looksBefore - warmUp; look < 3*worldLooks; look++ {
		run.serve(look, before, target.Weight)
		before = target.Weight
		if look < -looksBefore {
			continue
		}
		at := start.Add(time.Duration(look*lookSeconds) * time.Second)
		value := u.value(at, target, q, reads{asked: true, samples: run.samples()})
		reason = cmp.Or(value.Err, reason)
		if look == 0 {
			target.Weight = weights[0]
		}
		if look <= 0 {
			continue
		}
		n := uint64(target.Weight)
		st, v = analysis.Judge(s, st, analysis.Look{
			Time: at, Weight: target.Weight, Step: target.Step, CandidatePods: run.of["new"],
			Candidate: map[string]analysis.Counts{"a": {Requests: 10 * n}}, Stable: map[string]analysis.Counts{"b": {Requests: 1000 - 10*n}},
			Metrics: []analysis.MetricValue{value},
		})
		switch {
		case v.Result == analysis.Hold && look >= worldLooks && v.Cause == analysis.CauseBlind:
			return noValue, reason
		case v.Result == analysis.Fail, v.Result == analysis.Hold && look >= worldLooks:
			return rolledBack, reason
		case v.Result == analysis.Pass, v.Result == analysis.Inconclusive:
			if v.Result == analysis.Inconclusive {
				result = unknown
			}
			if target.Step++; target.Step == len(weights) {
				return result, reason
			}
			target.Weight, s.MaxStepTime = weights[target.Step], stepTime(look, target.Step)
			run.scale("new", target.Weight)
		}
	}
	return unknown, reason
}

// tally is how many rollouts ended how.
type tally map[string]int

func (n tally) String() string {
	return fmt.Sprintf("%4d %4d %4d %4d", n[promoted], n[unknown], n[noValue], n[rolledBack])
}

func (n tally) sum() int { return n[promoted] + n[unknown] + n[noValue] + n[rolledBack] }

// everywhere are a world with counters by pod and summed, and with several shares of failures, numbers of pods and requests.
func (w rateWorld) everywhere() (out []rateWorld) {
	for _, w.summed = range []bool{false, true} {
		for _, w.stable = range []float64{0.01, 0.03, 0.1} {
			for _, w.pods = range []int{3, 10} {
				for _, w.perSecond = range []float64{20, 60, 200} {
					w.candidate = w.stable
					out = append(out, w)
				}
			}
		}
	}
	return out
}

// everyScrape are a world with counters by pod and summed, with traffic that varies and that does not, and with frequent and rare scrapes.
func (w rateWorld) everyScrape() (out []rateWorld) {
	for _, w.summed = range []bool{false, true} {
		for _, w.steady = range []bool{false, true} {
			for _, w.rare = range []int{1, 3, 6} {
				out = append(out, w)
			}
		}
	}
	return out
}
