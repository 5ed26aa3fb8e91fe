// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/headgate/headgate/analysis"
)

// What is counted of a rate is the same in the end, at whatever look a request's outcome is counted, and whatever the traffic.
func TestOutcomes(t *testing.T) {
	type counts = analysis.Counts
	none := counts{}
	all := func(n int, c counts) (out []counts) {
		for range n {
			out = append(out, c)
		}
		return out
	}
	then := func(parts ...[]counts) (out []counts) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	turns := func(n int, c ...counts) (out []counts) {
		for i := range n {
			out = append(out, c[i%len(c)])
		}
		return out
	}
	one, itsOutcome := counts{Requests: 1}, counts{Errors: 1}
	for name, tc := range map[string]struct {
		looks []counts
		want  counts
	}{
		"events with their requests":                  {looks: all(10, counts{Requests: 10, Errors: 1}), want: counts{Requests: 100, Errors: 10}},
		"an event a look before its request":          {looks: []counts{itsOutcome, one}, want: counts{Requests: 1, Errors: 1}},
		"an event of a request of before":             {looks: then([]counts{itsOutcome}, all(6, none), []counts{one}), want: counts{Requests: 1}},
		"an event long before the next request":       {looks: then([]counts{one, itsOutcome}, all(20, none), []counts{one}), want: counts{Requests: 2, Errors: 1}},
		"all of them late, in bursts":                 {looks: then(turns(40, counts{Requests: 10}, counts{Errors: 10})), want: counts{Requests: 200, Errors: 190}},
		"an event a look late, with the next request": {looks: []counts{one, itsOutcome, none, one}, want: counts{Requests: 2, Errors: 1}},
		"events are no more than requests":            {looks: []counts{{Requests: 5, Errors: 7}, {Requests: 1}}, want: counts{Requests: 6, Errors: 6}},
	} {
		t.Run(name, func(t *testing.T) {
			var o outcomes
			var sum counts
			for i, c := range tc.looks {
				got := o.settle(start.Add(time.Duration(i)*5*time.Second), c)
				if got.Errors > got.Requests {
					t.Fatalf("look %d: %+v", i+1, got)
				}
				sum.Requests += got.Requests
				sum.Errors += got.Errors
			}
			if sum != tc.want {
				t.Errorf("counted %+v, want %+v; waiting are %+v", sum, tc.want, o)
			}
		})
	}
}

// A numerator without the label pod, or with another pod's, is of all of the denominator's.
func TestNumeratorOfOtherPods(t *testing.T) {
	of := func(name, pod string) series { return series{source: source{Pod: pod}, Name: name, Revision: "new"} }
	for name, tc := range map[string]struct {
		events []string // pods
		want   map[arm]analysis.Counts
	}{
		"the same":       {[]string{"a", "b"}, map[arm]analysis.Counts{{"new", "a"}: {Requests: 10, Errors: 1}, {"new", "b"}: {Requests: 10, Errors: 1}}},
		"one of them":    {[]string{"a"}, map[arm]analysis.Counts{{"new", "a"}: {Requests: 10, Errors: 1}, {"new", "b"}: {Requests: 10}}},
		"none":           {nil, map[arm]analysis.Counts{{"new", "a"}: {Requests: 10}, {"new", "b"}: {Requests: 10}}},
		"without a pod":  {[]string{""}, map[arm]analysis.Counts{{"new", ""}: {Requests: 20, Errors: 1}}},
		"one of another": {[]string{"a", "worker"}, map[arm]analysis.Counts{{"new", ""}: {Requests: 20, Errors: 2}}},
	} {
		var samples []sample
		var increments []increment
		count := func(s series, by float64) {
			samples, increments = append(samples, sample{Value: 100, series: s}), append(increments, increment{series: s, By: by})
		}
		for _, pod := range tc.events {
			count(of(eventsOf, pod), 1)
		}
		count(of(allOf, "a"), 10)
		count(of(allOf, "b"), 10)
		if d := cmp.Diff(tc.want, byPod(samples, increments, strayPods(samples, nil))); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// Successes of a pod are of its own requests, unless no pod has both.
func TestSuccessesOfOtherPods(t *testing.T) {
	for name, tc := range map[string]struct {
		successes []string // pods
		together  bool
	}{
		"the same":           {successes: []string{"a", "b"}},
		"one of them":        {successes: []string{"a"}},
		"none yet":           {},
		"one of another too": {successes: []string{"a", "worker"}},
		"only of another":    {successes: []string{"worker"}, together: true},
		"without a pod":      {successes: []string{""}, together: true},
	} {
		var samples []sample
		add := func(name, pod string) {
			samples = append(samples, sample{series: series{source: source{Pod: pod}, Name: name, Revision: "new"}})
		}
		add(allOf, "a")
		add(allOf, "b")
		for _, pod := range tc.successes {
			add(eventsOf, pod)
		}
		if got := ownPods(samples)["new"]; got != tc.together {
			t.Errorf("%s: taken together %t, want %t", name, got, tc.together)
		}
	}
}

// What was awaited of single pods is not forgotten when they are taken together, nor what was awaited of all of them when
// they could be told apart again.
func TestOutcomesOfPodsThatAreTakenTogether(t *testing.T) {
	look := func(pods ...string) (out []sample) { // events of all of them, requests of those with a + before
		for _, pod := range pods {
			name, asked := strings.CutPrefix(pod, "+")
			s := series{source: source{Pod: name}, Name: eventsOf, Revision: "new"}
			out = append(out, sample{series: s})
			if asked {
				s.Name = allOf
				out = append(out, sample{series: s})
			}
		}
		return out
	}
	counted := func(name, pod string, by float64) increment {
		return increment{series: series{source: source{Pod: pod}, Name: name, Revision: "new"}, By: by}
	}
	apart, together, unlabelled := look("+a", "+b"), look("+a", "+b", "c"), look("+a", "+b", "+")
	for name, looks := range map[string][][]sample{
		"apart": {apart, apart, apart, apart}, "together": {together, together, together, together},
		"then together": {apart, apart, together, together}, "then apart": {together, apart, apart, apart},
		"some without a pod": {apart, unlabelled, unlabelled, unlabelled},
		"in turns":           {apart, together, apart, together}, "in other turns": {together, apart, together, apart},
	} {
		var m rateMemory
		var sum analysis.Counts
		for i, samples := range looks {
			var increments []increment
			switch i {
			case 0:
				increments = []increment{counted(allOf, "a", 10), counted(allOf, "b", 4)}
			case 1:
				increments = []increment{counted(eventsOf, "a", 9), counted(eventsOf, "b", 4)}
			case 2:
				increments = []increment{counted(allOf, "a", 10), counted(allOf, "b", 4)}
			}
			var next rateMemory
			at := start.Add(time.Duration(i) * 5 * time.Second)
			for _, known := range next.settle(at, m.outcomes, byPod(samples, increments, strayPods(samples, m.outcomes))) {
				sum.Requests += known.Requests
				sum.Errors += known.Errors
			}
			m = next
		}
		if want := (analysis.Counts{Requests: 28, Errors: 13}); sum != want {
			t.Errorf("%s: counted %+v, want %+v; waiting are %+v", name, sum, want, m.outcomes)
		}
	}
}

// A healthy candidate whose requests have their outcome some looks later is rolled back no more often than any other, and one that fails is,
// however little there is of it.
func TestOutcomesLooksLater(t *testing.T) {
	s := analysis.Settings{NoErrorRate: true, NoLatency: true, Metrics: []analysis.Criterion{{Name: "orders", Rate: &analysis.RateCriterion{}}}}
	failed := func(run uint64, later int, perLook, rate float64) (n int) {
		r := rand.New(rand.NewPCG(run, 1)) //nolint:gosec // the same runs each time
		draw := func(mean, rate float64) (requests, fail uint64) {
			n := distuv.Poisson{Lambda: mean, Src: r}.Rand()
			if n <= 0 {
				return 0, 0
			}
			return uint64(n), uint64(distuv.Binomial{N: n, P: rate, Src: r}.Rand())
		}
		var st analysis.State
		var pods [2]outcomes
		var numerator [2][]uint64 // of the looks before
		for i := range 120 {
			at := start.Add(time.Duration(i+1) * 5 * time.Second)
			var arms [2]map[string]analysis.Counts
			for part, share := range []float64{0.1, 0.9} {
				p := 0.01
				if part == 0 {
					p = rate
				}
				requests, fail := draw(perLook*share, p)
				var events uint64
				if numerator[part] = append(numerator[part], fail); i >= later {
					events = numerator[part][i-later]
				}
				c := pods[part].settle(at, analysis.Counts{Requests: requests, Errors: events})
				arms[part] = map[string]analysis.Counts{"pod": c}
			}
			l := analysis.Look{
				Time: at, Weight: 10,
				Candidate: map[string]analysis.Counts{"a": {Requests: 100}}, Stable: map[string]analysis.Counts{"b": {Requests: 900}},
				Metrics: []analysis.MetricValue{{Name: "orders", CandidateCounts: arms[0], StableCounts: arms[1]}},
			}
			var v analysis.Verdict
			if st, v = analysis.Judge(s, st, l); v.Result == analysis.Fail {
				return 1
			}
		}
		return 0
	}
	for _, perLook := range []float64{10, 50, 200} {
		for _, later := range []int{1, 4} {
			healthy, broken := 0, 0
			for run := range uint64(50) {
				healthy += failed(run, later, perLook, 0.01)
				broken += failed(run, later, perLook, 0.5)
			}
			if healthy > 3 || broken < 48 {
				t.Errorf("%g a look, %d looks later: of 50 rollouts each, %d healthy and %d broken ones were rolled back", perLook, later, healthy, broken)
			}
		}
	}
}
