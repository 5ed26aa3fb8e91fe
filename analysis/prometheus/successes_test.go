// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/analysis"
)

// A rate of which more is better finds a version that fails more, and no other, where successes are counted with their
// requests; where they come seconds later it has no value; and where they come within a second too little is known at worst.
func TestRatesOfSuccesses(t *testing.T) {
	for _, tc := range []struct {
		name            string
		soonest, latest float64
	}{{"at once", 0, 0}, {"0-1 s late", 0, 1}, {"5-9 s late", 5, 9}} {
		healthy, bad, busy := tally{}, tally{}, tally{} // busy: bad ones with requests enough to be found
		t.Logf("%s: %-34s %-21s %-21s %s", tc.name, "", "healthy", "3 times", "5 points more (promoted, unknown, no value, rolled back)")
		for _, w := range (rateWorld{soonest: tc.soonest, latest: tc.latest}).everywhere() {
			lines := [3]tally{{}, {}, {}}
			for i, candidate := range []float64{w.stable, 3 * w.stable, w.stable + 0.05} {
				w.candidate = candidate
				for seed := range uint64(6) {
					result, reason := w.rollout(seed)
					lines[i][result]++
					if (result == noValue) != (reason != "") && result != rolledBack {
						t.Errorf("%s, seed %d: %+v was %s; why it had no value: %q", tc.name, seed, w, result, reason)
					}
					switch {
					case i == 0:
						healthy[result]++
						continue
					case candidate < 2*w.stable+0.0075: // it may be accepted
						continue
					case w.perSecond >= 60:
						busy[result]++
					}
					bad[result]++
				}
			}
			t.Logf("summed %-5t %2d pods %3g/s %3g %%: %s  %s  %s", w.summed, w.pods, w.perSecond, 100*w.stable, lines[0], lines[1], lines[2])
		}
		t.Logf("%s: of %d healthy %s, of %d bad %s", tc.name, healthy.sum(), healthy, bad.sum(), bad)
		if 50*healthy[rolledBack] > healthy.sum() || bad[promoted] > 0 {
			t.Errorf("%s: %d of %d healthy candidates were rolled back, and %d of %d bad ones promoted on evidence",
				tc.name, healthy[rolledBack], healthy.sum(), bad[promoted], bad.sum())
		}
		through := healthy[promoted] + healthy[unknown] + bad[unknown]
		switch {
		case tc.latest == 0 && (healthy[noValue]+bad[noValue] > 0 || 100*busy[rolledBack] < 98*busy.sum()):
			t.Errorf("%s: %d had no value; %d of %d bad candidates were found", tc.name, healthy[noValue]+bad[noValue], busy[rolledBack], busy.sum())
		case tc.soonest > 0 && (healthy[promoted] > 0 || 50*through > healthy.sum()+bad.sum()):
			t.Errorf("%s: %d of %d rollouts went through", tc.name, through, healthy.sum()+bad.sum())
		}
	}
}

// Counters that rise together are not taken for others, whatever the weather is.
func TestSuccessesThatOnlySeemLate(t *testing.T) {
	outage := func(looks, every int, traffic float64) weather {
		return func(_ *rand.Rand, look int) (float64, float64) {
			if (look+10*every)%every < looks {
				return traffic, 8
			}
			return 1, 1
		}
	}
	burst := func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64() / 2) }
	for _, tc := range []struct {
		name string
		most int // in a hundred without a value
		w    rateWorld
	}{
		{name: "as always"},
		{name: "successes are read 100 ms later", w: rateWorld{soonest: 0.1, latest: 0.1}},
		{name: "steady traffic", w: rateWorld{steady: true}},
		{name: "pods restart each minute", most: 1, w: rateWorld{restarts: true}},
		{name: "an outage at first", w: rateWorld{weather: outage(6, 1000, 1)}},
		{name: "outages of 20 s", w: rateWorld{weather: outage(4, 16, 1)}},
		{name: "outages of 20 s with retries", most: 10, w: rateWorld{weather: outage(4, 16, 1.3)}},
		{name: "ramps", w: rateWorld{weather: func(_ *rand.Rand, look int) (float64, float64) { return 1 + 0.8*math.Sin(float64(look)/8), 1 }}},
		{name: "bursts of traffic", w: rateWorld{weather: func(r *rand.Rand, _ int) (float64, float64) { return burst(r), 1 }}},
		{name: "bursts of failures", most: 3, w: rateWorld{weather: func(r *rand.Rand, _ int) (float64, float64) { return 1, r.ExpFloat64() }}},
		{name: "bursts of both", most: 3, w: rateWorld{weather: func(r *rand.Rand, _ int) (float64, float64) { return burst(r), r.ExpFloat64() }}},
	} {
		got := tally{}
		for _, w := range tc.w.everywhere() {
			for seed := range uint64(3) {
				result, _ := w.rollout(seed)
				got[result]++
			}
		}
		t.Logf("%-32s %s", tc.name, got)
		if 100*got[noValue] > tc.most*got.sum() || 100*got[rolledBack] > 3*got.sum() {
			t.Errorf("%s: of %d healthy candidates %d had no value and %d were rolled back", tc.name, got.sum(), got[noValue], got[rolledBack])
		}
	}
}

// ratesOf asks for a rate of which more is better look by look, whose counters are by name of the pod, successes with a + before it.
func ratesOf(step func(look int, t *Target) map[string]float64, looks int) (out []analysis.MetricValue) {
	u := users{}
	q := Query{Name: "orders", Denominator: "all", HigherIsBetter: true}
	target := shop(q)
	for look := range looks {
		var samples []sample
		for name, value := range step(look, &target) {
			s := sample{Value: value, series: series{source: source{workload: target.key(), Pod: name}, Name: allOf, Revision: "old"}}
			if pod, ok := strings.CutPrefix(name, "+"); ok {
				s.Name, s.Pod = eventsOf, pod
			}
			if revision, _, _ := strings.Cut(s.Pod, "-"); revision != "" {
				s.Revision = revision
			}
			samples = append(samples, s)
		}
		at := start.Add(time.Duration(look) * lookSeconds * time.Second)
		u.due(at, []Target{target})
		out = append(out, u.value(at, target, q, reads{asked: true, samples: samples}))
	}
	return out
}

// A pod that counts successes and no requests does not hide what fails: neither its own nor another's.
func TestSuccessesOfAPodWithoutRequests(t *testing.T) {
	for name, without := range map[string]bool{"both count both": false, "one counts no requests": true} {
		values := ratesOf(func(look int, _ *Target) map[string]float64 {
			n := float64(look)
			counters := map[string]float64{"old-a": 1000 * n, "+old-a": 990 * n, "new-a": 50 * n, "+new-a": 40 * n, "new-b": 50 * n, "+new-b": 40 * n}
			if without {
				delete(counters, "new-b")
			}
			return counters
		}, 40)
		for look, v := range values {
			for pod, c := range v.CandidateCounts {
				if 5*c.Errors != c.Requests {
					t.Errorf("%s, look %d: %d of %d in %s, want 20 %%", name, look, c.Errors, c.Requests, pod)
				}
			}
			if wrong := strings.Contains(v.Err, "successes without a request"); wrong != (without && look >= 4) {
				t.Errorf("%s, look %d: %q", name, look, v.Err)
			}
		}
		if last := values[len(values)-1]; !without && last.CandidateCounts["new-b"].Requests != 50 {
			t.Errorf("%s: in the end it counts %+v", name, last.CandidateCounts)
		}
	}
}

// Of a step of one minute its own requests are told, but for those of the last look.
func TestRateOfAShortStep(t *testing.T) {
	const short, looks = 30, 42
	requests := 0.0
	values := ratesOf(func(look int, target *Target) map[string]float64 {
		each := 100.0
		if look >= short {
			target.Step, target.Weight, each = 1, 50, 500
		}
		requests += each
		return map[string]float64{"old-a": requests, "+old-a": requests, "new-a": requests, "+new-a": 0.9 * requests}
	}, looks)
	var sum analysis.Counts
	for _, v := range values[short:] {
		sum.Requests += v.CandidateCounts["new-a"].Requests
		sum.Errors += v.CandidateCounts["new-a"].Errors
	}
	if want := (analysis.Counts{Requests: 100 + 11*500, Errors: 10 + 11*50}); sum != want {
		t.Errorf("in the step it counted %+v, want %+v", sum, want)
	}
}

// Successes without requests are told from what a restart or a pod that went leaves of a sum.
func TestSurplus(t *testing.T) {
	for name, tc := range map[string]struct {
		n        []float64 // by look
		requests float64   // of each
		many     bool
	}{
		"none":                                {requests: 1000, n: make([]float64, 60)},
		"a pod went, and two scrapes":         {requests: 1000, n: []float64{500, 0, 1, 0, 1}},
		"half of a few are of another":        {requests: 4, n: []float64{2, 2, 2}, many: true},
		"a third of many":                     {requests: 1000, n: []float64{300, 300, 300}, many: true},
		"half of a restart at each of two":    {requests: 1000, n: []float64{100, 0, 0, 100}},
		"some at each look, as of scrapes":    {requests: 100, n: []float64{1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 2}},
		"some more at each, for five minutes": {requests: 100, n: slices.Repeat([]float64{3}, 60), many: true},
	} {
		var s surplus
		for look, n := range tc.n {
			s.add(start.Add(time.Duration(look)*5*time.Second), tc.requests, n)
		}
		if reason := s.reason(); (reason != "") != tc.many {
			t.Errorf("%s: %q, want a reason: %t", name, reason, tc.many)
		}
	}
}

// An answer of which a half is a scrape older counts no failures, and hides none.
func TestSuccessesOfAnotherScrape(t *testing.T) {
	for name, tc := range map[string]struct{ requests, successes int }{"of the requests": {35, -1}, "of the successes": {-1, 35}} {
		values := ratesOf(func(look int, _ *Target) map[string]float64 {
			older := func(at int) float64 {
				if look == at {
					return float64(look - 1)
				}
				return float64(look)
			}
			n, ok := older(tc.requests), older(tc.successes)
			return map[string]float64{"old-a": 100 * n, "+old-a": 99 * ok, "new-a": 100 * n, "+new-a": 99 * ok}
		}, 40)
		var sum analysis.Counts
		for _, v := range values {
			if v.Err != "" {
				t.Errorf("%s: %s", name, v.Err)
			}
			sum.Requests += v.CandidateCounts["new-a"].Requests
			sum.Errors += v.CandidateCounts["new-a"].Errors
		}
		if want := (analysis.Counts{Requests: 3800, Errors: 38}); sum != want {
			t.Errorf("%s: counted %+v, want %+v", name, sum, want)
		}
	}
}
