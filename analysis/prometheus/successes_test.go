// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"fmt"
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

// Where traffic is always the same, a change of weight is all that tells, and where scrapes are rare some look like one: equal versions
// must not differ for it.
func TestRatesOfSuccessesWithLittleToTell(t *testing.T) {
	for _, tc := range []struct {
		name            string
		soonest, latest float64
		bad             bool
	}{{name: "at once"}, {name: "at once, 5 points more", bad: true}, {name: "5-9 s late", soonest: 5, latest: 9}, {name: "15-25 s late", soonest: 15, latest: 25}} {
		got := tally{}
		for _, w := range (rateWorld{pods: 5, perSecond: 100, stable: 0.01, soonest: tc.soonest, latest: tc.latest}).everyScrape() {
			if w.candidate = w.stable; tc.bad {
				w.candidate += 0.05
			}
			line := tally{}
			for seed := range uint64(6) {
				result, _ := w.rollout(seed)
				got[result]++
				line[result]++
			}
			t.Logf("%s: summed %-5t steady %-5t a scrape each %2d s: %s", tc.name, w.summed, w.steady, 5*w.rare, line)
		}
		t.Logf("%s: %s", tc.name, got)
		switch {
		case tc.bad && 10*got[rolledBack] < 9*got.sum():
			t.Errorf("%s: of %d bad candidates %d were rolled back", tc.name, got.sum(), got[rolledBack])
		case !tc.bad && 20*got[rolledBack] > got.sum():
			t.Errorf("%s: of %d healthy candidates %d were rolled back", tc.name, got.sum(), got[rolledBack])
		case !tc.bad && tc.latest == 0 && got[noValue] > 0:
			t.Errorf("%s: of %d healthy candidates %d had no value", tc.name, got.sum(), got[noValue])
		case tc.latest > 0 && got[promoted] > 0:
			t.Errorf("%s: of %d candidates %d were promoted on evidence", tc.name, got.sum(), got[promoted])
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
		if 100*got[noValue] > tc.most*got.sum() || 100*got[rolledBack] > 4*got.sum() {
			t.Errorf("%s: of %d healthy candidates %d had no value and %d were rolled back", tc.name, got.sum(), got[noValue], got[rolledBack])
		}
	}
}

// ratesOf asks for a rate of which more is better look by look, whose counters are by name of the pod, successes with a + before it.
func ratesOf(step func(look int, t *Target) map[string]float64, looks int) (out []analysis.MetricValue) {
	return valuesOf(Query{}, step, looks)
}

// valuesOf does so as a query says.
func valuesOf(q Query, step func(look int, t *Target) map[string]float64, looks int) (out []analysis.MetricValue) {
	u := users{}
	q.Name, q.Denominator, q.HigherIsBetter = "orders", "all", true
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
		asked := u.due(at, []Target{target})[target.metric(q)]
		out = append(out, u.value(at, target, q, reads{asked: asked, samples: samples}))
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

// Of a step of one minute its own requests are told, but for those of the last look; and, where its beginning proves that successes come
// with their requests, what was counted soon after the first step began.
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
	if want := (analysis.Counts{Requests: 800 + 100 + 11*500, Errors: 80 + 10 + 11*50}); sum != want {
		t.Errorf("in the step it counted %+v, want %+v", sum, want)
	}
}

// What failed in the warm-up is never told, whenever it is known that successes come with their requests; nor what was counted before
// the candidate had a weight.
func TestWhatFailsInTheWarmUp(t *testing.T) {
	for _, warmUp := range []time.Duration{0, 30 * time.Second, 2 * time.Minute} {
		for name, steady := range map[string]bool{"in a traffic that is always the same": true, "else": false} {
			const first, looks = 6, 60 // looks without a weight, and all
			warm := first + int(warmUp.Seconds()/lookSeconds)
			var requests, failed float64
			values := valuesOf(Query{WarmUp: warmUp}, func(look int, target *Target) map[string]float64 {
				if target.Weight = 10; look < first {
					target.Weight = 0
				}
				n := 100.0
				if !steady {
					n += 30 * float64(look%2)
				}
				requests += n
				if look < warm {
					failed += n / 2
				}
				return map[string]float64{"old-a": 9 * requests, "+old-a": 9 * requests, "new-a": requests, "+new-a": math.Ceil(requests - failed)}
			}, looks)
			var sum analysis.Counts
			for _, v := range values {
				sum.Requests += v.CandidateCounts["new-a"].Requests
				sum.Errors += v.CandidateCounts["new-a"].Errors
			}
			if sum.Requests < 2000 || sum.Errors > 0 {
				t.Errorf("%s with a warm-up of %s: %+v were told", name, warmUp, sum)
			}
		}
	}
}

// Where most fail anyway failures can't tell a bad candidate: what is twice as many is all of them. An outage makes it so only for a while.
func TestWhereMostHaveNoSuccess(t *testing.T) {
	for name, tc := range map[string]struct {
		success   float64 // of stable
		outage    int     // looks at first of which nothing succeeds
		most, end bool    // that says so: ever, and in the end
	}{
		"few":               {success: 0.1, most: true, end: true},
		"most":              {success: 0.7},
		"all but an outage": {success: 1, outage: 15, most: true},
	} {
		var requests, succeeded float64
		said := false
		values := ratesOf(func(look int, _ *Target) map[string]float64 {
			n := float64(100 + look%7)
			if requests += n; look >= tc.outage {
				succeeded += tc.success * n
			}
			return map[string]float64{"old-a": requests, "+old-a": succeeded, "old-b": requests, "+old-b": succeeded, "new-a": requests, "+new-a": succeeded}
		}, 60)
		for look, v := range values {
			if v.Err != "" && v.Err != mostText {
				t.Errorf("%s, look %d: %s", name, look, v.Err)
			}
			said = said || v.Err == mostText
		}
		if end := values[len(values)-1].Err == mostText; said != tc.most || end != tc.end {
			t.Errorf("%s: it is said that failures can't tell: ever %t, in the end %t", name, said, end)
		}
	}
	for _, text := range []string{mostText, lateText, fmt.Sprintf(surplusText, 1000.0)} {
		if len(text) > 120 {
			t.Errorf("%q has %d bytes, and 120 are kept", text, len(text))
		}
	}
}

// It is asked for at each look, however seldom it should be: a change from look to look is all that tells late successes.
func TestARateOfSuccessesThatIsAskedForSeldom(t *testing.T) {
	for look, v := range valuesOf(Query{Interval: time.Minute}, func(look int, _ *Target) map[string]float64 {
		n := float64(100 * look)
		return map[string]float64{"old-a": n, "+old-a": n, "new-a": n, "+new-a": n}
	}, 40) {
		if v.NotDue && !v.Answered {
			t.Errorf("look %d: it was not asked for", look)
		}
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
		if sum.Requests < 3000 || 100*sum.Errors != sum.Requests {
			t.Errorf("%s: counted %+v, want 1 %% of 3,000 at least", name, sum)
		}
	}
}
