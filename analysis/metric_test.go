// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"
)

// compared is a value of the candidate beside stable's.
func compared(candidate, stable float64) func(*Look) {
	return func(l *Look) { l.Metrics = []MetricValue{{Name: "queue", Value: candidate, Stable: stable}} }
}

// several gives each metric a value, in the order of their names a, b, c.
func several(values ...float64) func(*Look) {
	return func(l *Look) {
		for i, v := range values {
			l.Metrics = append(l.Metrics, MetricValue{Name: string(rune('a' + i)), Value: v})
		}
	}
}

// orders are what a user counts: of so many, so many failed.
func orders(candidate, stable Counts) func(*Look) {
	return func(l *Look) {
		l.Metrics = []MetricValue{{Name: "orders", CandidateCounts: map[string]Counts{"n": candidate}, StableCounts: map[string]Counts{"a": stable}}}
	}
}

// swinging is of counts of which a look is worth so much less.
func swinging(phi float64) func(*Look) { return func(l *Look) { l.Metrics[0].Phi = phi } }

func notDue(l *Look) {
	for i := range l.Metrics {
		l.Metrics[i] = MetricValue{Name: l.Metrics[i].Name, NotDue: true}
	}
}

func votes(s Settings, vote ...int) Settings {
	atMost := 1.0
	for i, v := range vote {
		s.Metrics = append(s.Metrics, Criterion{Name: string(rune('a' + i)), Range: &Range{Max: &atMost}, Vote: v})
	}
	return s
}

func TestMetricsComparedToStable(t *testing.T) {
	atMost := Settings{Metrics: []Criterion{{Name: "queue", Compared: &Comparison{Max: &Margin{Ratio: 1.2, Excess: 5}}}}}
	atLeast := Settings{Metrics: []Criterion{{Name: "queue", Compared: &Comparison{Min: &Margin{Ratio: 0.5}}}}}
	checkVerdicts(t, map[string]verdictCase{
		"on the line is within it":         {settings: atMost, looks: looks(20, compared(125, 100)), want: Pass},
		"beyond it for three values fails": {settings: atMost, looks: looks(3, compared(126, 100)), want: Fail, cause: "Metric/queue", says: `metric "queue" is 126 and stable's 100, outside its range (at most 1.2 times stable's plus 5), 3 times in a row`, from: 3},
		"stable moves and so does the line": {settings: atMost, looks: looks(3, compared(126, 102)).
			then(looks(17, compared(1000, 900))), want: Pass},
		"nothing beside nothing is fine":       {settings: atMost, looks: looks(20, compared(0, 0)), want: Pass},
		"nothing is below zero":                {settings: atMost, looks: looks(20, compared(-100, -100)), want: Pass},
		"below zero a fifth more is less":      {settings: atMost, looks: looks(3, compared(-74, -100)), want: Fail, from: 3},
		"… and half of it more below":          {settings: atLeast, looks: looks(20, compared(-150, -100)), want: Pass},
		"a minimum":                            {settings: atLeast, looks: looks(3, compared(49, 100)), want: Fail, says: "(at least 0.5 times stable's)", from: 3},
		"without stable's value it is missing": {settings: atMost, looks: looks(12, compared(1, math.NaN())), want: Hold, cause: CauseBlind, from: 12},
	})
}

func TestVotes(t *testing.T) {
	blind := several(math.NaN(), 1)
	checkVerdicts(t, map[string]verdictCase{
		"a small vote alone decides nothing": {settings: votes(Settings{}, 60, 39), looks: looks(20, several(2, 2)), want: Pass},
		"and is said where nothing else judges": {
			settings: votes(Settings{NoErrorRate: true}, 60, 39, 100), looks: looks(20, several(2, 1, 1)), want: Pass,
			says: `the metrics that are not within their range have 60 votes, of the 100 that decide: metric "a" is 2, outside its range (at most 1)`,
		},
		"so is one that is missing": {
			settings: votes(Settings{NoErrorRate: true}, 60, 39), looks: looks(20, several(1, math.NaN())), want: Pass,
			says: `the metrics that are not within their range have 39 votes, of the 100 that decide: metric "b" has no value (the value is not a number)`,
		},
		"also beside rates": {
			settings: votes(Settings{}, 60, 39), looks: looks(20, several(2, 1)), want: Pass,
			says: `(chance of error under 5 %); the metrics that are not within their range have 60 votes, of the 100 that decide: metric "a" is 2`,
		},
		"two that make 100 together fail":           {settings: votes(Settings{}, 40, 60), looks: looks(3, several(2, 2)), want: Fail, cause: "Metric/b", says: `metric "a" is 2, outside its range (at most 1), metric "b" is 2`, from: 3},
		"a small vote that is missing is not blind": {settings: votes(Settings{}, 99, 100), looks: looks(20, blind), want: Pass},
		"a whole one is":                            {settings: votes(Settings{}, 100, 100), looks: looks(20, blind), want: Hold, cause: CauseBlind},
		"one outside and one missing hold together": {settings: votes(Settings{MaxStepTime: 20 * time.Second}, 50, 50), looks: looks(12, several(2, math.NaN())), want: Hold, cause: CauseBlind, says: `missing for 1m0s or longer: metric "b"`, from: 12},
		"and wait until it is known":                {settings: votes(Settings{MaxStepTime: 20 * time.Second}, 50, 50), looks: looks(11, several(2, math.NaN())), want: Undecided},
		"a vote out of range is a whole one":        {settings: votes(Settings{}, 500), looks: looks(3, several(2)), want: Fail},
	})
}

func TestDryRun(t *testing.T) {
	atMost := 1.0
	s := Settings{Metrics: []Criterion{
		{Name: "a", Range: &Range{Max: &atMost}, DryRun: true},
		{Name: "orders", Rate: &RateCriterion{}, DryRun: true},
	}}
	st, got := looks(20, orders(Counts{Requests: 100, Errors: 90}, Counts{Requests: 900, Errors: 9}), func(l *Look) { l.Metrics = append(l.Metrics, MetricValue{Name: "a", Value: 7}) }).play(s)
	v := got[len(got)-1]
	if v.Result != Pass || v.Evidence.Harm > 1 {
		t.Errorf("what is tried only decides: %s %q, harm %g", v.Result, v.Message, v.Evidence.Harm)
	}
	if strings.Contains(v.Message, "every other rate") {
		t.Errorf("it says of what is tried only that it is ruled out: %q", v.Message)
	}
	if len(v.Evidence.Metrics) != 1 || v.Evidence.Metrics[0] != (MetricEvidence{Name: "a", Known: true, Value: 7, Outside: looksOutside, DryRun: true}) {
		t.Errorf("the metric's evidence is %+v", v.Evidence.Metrics)
	}
	if r := v.Evidence.Rates[1]; r.Name != "Metric/orders" || !r.DryRun || r.Harm < 100 || r.Total != (Tally{2000, 1800, 18000, 180}) {
		t.Errorf("the rate's evidence is %+v", r)
	}
	why := func(l *Look) {
		l.Metrics = []MetricValue{{Name: "a", Err: "no such series"}, {Name: "orders", Err: "no requests"}}
	}
	if _, got = looks(20, why).play(s); got[19].Result != Pass || got[19].Evidence.Metrics[0].Missing != "no such series" || got[19].Evidence.Rates[1].Missing != "no requests" {
		t.Errorf("what is tried only has no value, and the evidence does not say why: %s %+v", got[19].Result, got[19].Evidence)
	}
	s.NoErrorRate = true
	if _, got = looks(20, orders(Counts{Requests: 100, Errors: 90}, Counts{Requests: 900, Errors: 9})).play(s); got[19].Evidence.HarmThreshold != 0 {
		t.Errorf("nothing is compared, and it says %+v", got[19].Evidence)
	}
	if _, err := json.Marshal(st); err != nil {
		t.Error(err)
	}
}

func TestWarmUpAndInterval(t *testing.T) {
	atMost := 1.0
	slow := func(c Criterion) Settings {
		c.Name, c.Range = "a", &Range{Max: &atMost}
		return Settings{Metrics: []Criterion{c}}
	}
	warm := slow(Criterion{WarmUp: time.Minute})
	hurried := warm
	hurried.MaxStepTime = 20 * time.Second
	rare := slow(Criterion{Interval: time.Minute})
	// Once a minute it is asked, and v is the answer.
	minutely := func(n int, v float64) (s script) {
		for i := range n {
			s = s.then(looks(1, several(v)))
			if i < n-1 {
				s = s.then(looks(11, several(v), notDue))
			}
		}
		return s
	}
	checkVerdicts(t, map[string]verdictCase{
		"while it warms up nothing is outside":    {settings: warm, looks: looks(12, several(2)), want: Undecided},
		"and nothing is missing":                  {settings: warm, looks: looks(12, several(math.NaN())), want: Undecided},
		"and nothing is accepted":                 {settings: warm, looks: looks(12, several(0)), want: Undecided},
		"however short the step is":               {settings: hurried, looks: looks(12, several(2)), want: Undecided, says: `waiting for metric "a", which warms up`},
		"then it counts in a short step too":      {settings: hurried, looks: looks(15, several(2)), want: Fail, from: 15},
		"then it counts":                          {settings: warm, looks: looks(15, several(2)), want: Fail, from: 15},
		"then it is accepted":                     {settings: warm, looks: looks(13, several(0)), want: Pass},
		"a value counts once until the next":      {settings: rare, looks: minutely(2, 2), want: Undecided},
		"three values are three":                  {settings: rare, looks: minutely(3, 2), want: Fail, from: 25},
		"what is not due is not missing":          {settings: rare, looks: looks(20, several(0)).then(looks(30, several(0), notDue)), want: Pass},
		"one missing answer does not make blind":  {settings: rare, looks: minutely(2, 0).then(minutely(1, math.NaN())), want: Undecided},
		"two that are due one after the other do": {settings: rare, looks: looks(1, several(0)).then(looks(11, several(0), notDue)).then(minutely(3, math.NaN())), want: Hold, cause: CauseBlind},
	})
}

// answered is of a metric that had an answer of which nothing is told yet.
func answered(l *Look) {
	for i := range l.Metrics {
		l.Metrics[i] = MetricValue{Name: l.Metrics[i].Name, NotDue: true, Answered: true}
	}
}

// An answer of which nothing is told yet is not a missing one, whatever there was before.
func TestAnAnswerThatIsNotToldYet(t *testing.T) {
	s := Settings{NoErrorRate: true, Metrics: []Criterion{{Name: "orders", Rate: &RateCriterion{}}}, MaxStepTime: 75 * time.Second}
	missing := func(l *Look) { l.Metrics = []MetricValue{{Name: "orders", Err: "the result is empty"}} }
	waits := `waiting for metric "orders", which warms up, is asked for seldom, or tells what it counted later`
	checkVerdicts(t, map[string]verdictCase{
		"it was missing once":          {settings: s, looks: looks(1, missing).then(looks(40, missing, answered)), want: Undecided, says: waits},
		"it is missing again":          {settings: s, looks: looks(1, missing).then(looks(20, missing, answered)).then(looks(11, missing)), want: Undecided, says: "waiting for data: "},
		"for a minute":                 {settings: s, looks: looks(1, missing).then(looks(20, missing, answered)).then(looks(12, missing)), want: Hold, cause: CauseBlind, from: 33},
		"nobody asked in the meantime": {settings: s, looks: looks(1, missing).then(looks(11, missing, notDue)), want: Hold, cause: CauseBlind, from: 12},
	})
}

func TestRatesOfUsers(t *testing.T) {
	s := Settings{Metrics: []Criterion{{Name: "orders", Rate: &RateCriterion{}}}, MaxStepTime: 75 * time.Second}
	wide := Settings{Metrics: []Criterion{{Name: "orders", Rate: &RateCriterion{Harm: Margin{Ratio: 10, Excess: 0.2}}}}}
	alone := Settings{NoErrorRate: true, Metrics: s.Metrics}
	good := orders(Counts{Requests: 50}, Counts{Requests: 450, Errors: 1})
	broken := orders(Counts{Requests: 50, Errors: 10}, Counts{Requests: 450, Errors: 1})
	asStable := orders(Counts{Requests: 50, Errors: 10}, Counts{Requests: 450, Errors: 90})
	checkVerdicts(t, map[string]verdictCase{
		"a good one is accepted":         {settings: s, looks: looks(14, orders(Counts{Requests: 100}, Counts{Requests: 900, Errors: 1})), want: Pass, says: "and as much of every other rate is ruled out"},
		"not if its counts swing":        {settings: s, looks: looks(14, orders(Counts{Requests: 100}, Counts{Requests: 900, Errors: 1}), swinging(20)), want: Undecided},
		"nobody knows how much":          {settings: s, looks: looks(14, orders(Counts{Requests: 100}, Counts{Requests: 900, Errors: 1}), swinging(math.NaN())), want: Pass},
		"a bad one fails":                {settings: s, looks: looks(5, broken), want: Fail, cause: "Metric/orders", says: `metric "orders" counted 40 of 200 for the candidate (20 %), 4 of 1,800 for stable (0.22 %); chance of that without harm under 1 %`},
		"as bad as stable is not":        {settings: s, looks: looks(14, asStable), want: Pass},
		"what its user tolerates is not": {settings: wide, looks: looks(20, broken), want: Undecided},
		"it alone can be judged":         {settings: alone, looks: looks(40, good, idle), want: Pass, says: `metric "orders" counted`},
		"without a value for a minute":   {settings: s, looks: looks(12, func(l *Look) { l.Metrics = []MetricValue{{Name: "orders", Err: "the result is empty"}} }), want: Hold, cause: CauseBlind, says: `metric "orders" (the result is empty)`},
		"also one with few votes": {
			settings: Settings{NoErrorRate: true, Metrics: []Criterion{{Name: "orders", Rate: &RateCriterion{}, Vote: 30}}, MaxStepTime: 20 * time.Second},
			looks:    looks(12, func(l *Look) { l.Metrics = []MetricValue{{Name: "orders", Err: "the result is empty"}} }), want: Hold, cause: CauseBlind,
		},
		"rates with lines of their own say so": {
			settings: Settings{NoErrorRate: true, Metrics: []Criterion{s.Metrics[0], {Name: "wide", Rate: &RateCriterion{Acceptance: Margin{Ratio: 8, Excess: 0.2}}}}},
			looks: looks(20, orders(Counts{Requests: 100}, Counts{Requests: 900, Errors: 1}), func(l *Look) {
				l.Metrics = append(l.Metrics, MetricValue{Name: "wide", CandidateCounts: map[string]Counts{"n": {Requests: 100, Errors: 6}}, StableCounts: map[string]Counts{"a": {Requests: 900, Errors: 54}}})
			}),
			want: Pass, says: "plus 0.75 percentage points is ruled out, and of every other rate its own line (chance of error under 5 %)",
		},
		"too few to know": {settings: s, looks: looks(15, orders(Counts{Requests: 1}, Counts{Requests: 9})), want: Inconclusive, says: `metric "orders" counted`},
	})
}

// However many metrics vote, and however much, the parts of the e-value add up to 1: else alpha would not hold.
func TestPartsAddUp(t *testing.T) {
	for _, s := range []Settings{
		{},
		{Metrics: []Criterion{{Name: "a", Rate: &RateCriterion{}}}},
		{Metrics: []Criterion{{Name: "a", Rate: &RateCriterion{}, Vote: 30}, {Name: "b", Rate: &RateCriterion{}}, {Name: "c", Rate: &RateCriterion{}, Vote: 7}}},
		{Metrics: []Criterion{{Name: "a", Rate: &RateCriterion{}}, {Name: "b", Rate: &RateCriterion{}, DryRun: true}}},
		{NoErrorRate: true, Metrics: []Criterion{{Name: "a", Rate: &RateCriterion{}}, {Name: "b", Rate: &RateCriterion{}, Vote: 30}}},
		{NoLatency: true, Metrics: []Criterion{{Name: "a", Rate: &RateCriterion{}}}},
	} {
		var st State
		for i := range 60 {
			weight := 0
			if i >= 40 {
				weight = 10
			}
			st, _ = Judge(s, st, busy(i, weight, 5, false))
		}
		sum := 0.0
		for _, r := range st.Rates {
			if !r.DryRun {
				sum += r.Share
			}
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Errorf("with %+v the parts of %d rates add up to %g", s.Metrics, len(st.Rates), sum)
		}
		if n := len(st.Rates); n > 1+maxBounds {
			t.Errorf("%d rates; the state has room for %d", n, 1+maxBounds)
		}
	}
}

// What is counted need not follow the weight, nor be the same from look to look: a candidate that has hardly any of it is
// not accepted on what stable has, and one with suddenly more than its part of the events is not harmful where it has
// more of the rest.
func TestAUsersRateThatDoesNotFollowTheWeight(t *testing.T) {
	s := Settings{NoErrorRate: true, Metrics: []Criterion{{Name: "orders", Rate: &RateCriterion{}}}, MaxStepTime: 5 * time.Minute}
	halves := func(l *Look) {
		l.Weight = 50
		l.Candidate, l.Stable = map[string]Counts{"a": {Requests: 500}}, map[string]Counts{"a": {Requests: 500}}
	}
	stable := Counts{Requests: 500, Errors: 5}
	// rare: in every n-th of 60 looks the candidate has one, and of those every bad-th is an event.
	rare := func(n, bad int) (out script) {
		for i := 1; i <= 60; i++ {
			var c Counts
			if i%n == 0 {
				c.Requests = 1
			}
			if bad > 0 && i%(n*bad) == 0 {
				c.Errors = 1
			}
			out = out.then(looks(1, halves, orders(c, stable)))
		}
		return out
	}
	inTurns := func(candidate, stable Counts) (out script) {
		for range 12 {
			out = out.then(looks(4, halves)).then(looks(1, halves, orders(candidate, Counts{})))
			out = out.then(looks(4, halves)).then(looks(1, halves, orders(Counts{}, stable)))
		}
		return out
	}
	checkVerdicts(t, map[string]verdictCase{
		"none of a handful says little":       {settings: s, looks: rare(4, 0), want: Inconclusive, says: "0 of 15 for the candidate (0 %), 300 of 30,000 for stable"},
		"none of none says nothing":           {settings: s, looks: rare(61, 0), want: Inconclusive, says: "0 of 0 for the candidate"},
		"five times stable's is not accepted": {settings: s, looks: rare(1, 20), want: Inconclusive, says: "3 of 60 for the candidate (5 %)"},
		"one that breaks half is found":       {settings: s, looks: rare(1, 2), want: Fail, cause: "Metric/orders"},
		"a tenth of stable's is plenty":       {settings: s, looks: looks(40, halves, orders(Counts{Requests: 50}, stable)), want: Pass},
		"the arms take turns":                 {settings: s, looks: inTurns(Counts{Requests: 1000, Errors: 10}, Counts{Requests: 10000, Errors: 100}), want: Pass},
		"and one of them is broken":           {settings: s, looks: inTurns(Counts{Requests: 1000, Errors: 100}, Counts{Requests: 10000, Errors: 100}), want: Fail, cause: "Metric/orders"},
	})
	suddenly := looks(60, idle, weight(1), orders(Counts{}, Counts{Requests: 5, Errors: 2})).then(looks(60, step(1), halves, orders(Counts{Requests: 5, Errors: 2}, Counts{Requests: 5, Errors: 2})))
	for name, sc := range map[string]script{"the arms take turns": inTurns(Counts{Requests: 1000, Errors: 10}, Counts{Requests: 10000, Errors: 100}), "suddenly half": suddenly} {
		_, got := sc.play(s)
		for i, v := range got {
			if v.Evidence.Harm > 2 {
				t.Fatalf("%s: at look %d a candidate that is as stable has harm %g: %s", name, i+1, v.Evidence.Harm, v.Message)
			}
		}
	}
}

// Whatever both arms have, at the same time or in turns, a candidate at the margin is accepted in at most beta of the
// rollouts, and one like stable is rolled back in at most alpha. The bounds here leave room for chance: the runs are few.
func TestAUsersRateKeepsItsErrorBounds(t *testing.T) {
	s := Settings{NoErrorRate: true, NoLatency: true, Metrics: []Criterion{{Name: "orders", Rate: &RateCriterion{}}}, MaxStepTime: time.Hour}
	for _, tc := range []struct {
		candidate, stable float64 // requests a look
		inTurns           bool    // each every tenth look, not the same
	}{{0.25, 20, false}, {0.25, 500, true}, {5, 0.25, false}, {5, 500, false}, {5, 500, true}} {
		draw := func(r *rand.Rand, mean, rate float64) Counts {
			requests := distuv.Poisson{Lambda: mean, Src: r}.Rand()
			if requests <= 0 {
				return Counts{}
			}
			return Counts{Requests: uint64(requests), Errors: uint64(distuv.Binomial{N: requests, P: rate, Src: r}.Rand())}
		}
		ever := func(run uint64, rate float64, result Result) (n int) {
			r := rand.New(rand.NewPCG(run, 1)) //nolint:gosec // the same runs each time
			var st State
			for i := range 120 {
				var c, o Counts
				if !tc.inTurns || i%10 == 3 {
					c = draw(r, tc.candidate, rate)
				}
				if !tc.inTurns || i%10 == 7 {
					o = draw(r, tc.stable, 0.2)
				}
				l := lookAt(i+1, 50, Counts{Requests: 500}, Counts{Requests: 500})
				orders(c, o)(&l)
				var v Verdict
				if st, v = Judge(s, st, l); v.Result == result {
					return 1
				}
			}
			return 0
		}
		accepted, failed := 0, 0
		for run := range uint64(100) {
			accepted += ever(run, 2*0.2+0.0075, Pass)
			failed += ever(run, 0.2, Fail)
		}
		if accepted > 12 || failed > 4 {
			t.Errorf("%+v: of 100 rollouts %d are accepted at the margin, %d are rolled back where the candidate is as stable", tc, accepted, failed)
		}
	}
}

// An arm that has nothing for shareLooks looks is compared with nothing of that time; looks without anything are none.
func TestAStratumEnds(t *testing.T) {
	var p Stratum
	for i := range 2*shareLooks + 3 {
		p.add(arms{})
		if got, _ := p.add(arms{ns: 10, es: 1}); got != (arms{}) {
			t.Fatalf("look %d: stable alone is compared: %+v", i+1, got)
		}
	}
	if got, pi := p.add(arms{nc: 10}); got != (arms{nc: 10, ns: 30, es: 3}) || pi != 0.25 {
		t.Errorf("compared is %+v at a share of %g", got, pi)
	}
	if p != (Stratum{}) {
		t.Errorf("%+v is left", p)
	}
}

// What a rate counted while the requests' counters were missing is compared when they are back.
func TestARateIsKeptWhileCountersAreMissing(t *testing.T) {
	s := Settings{Metrics: []Criterion{{Name: "orders", Rate: &RateCriterion{}}}}
	broken := orders(Counts{Requests: 50, Errors: 50}, Counts{Requests: 450, Errors: 1})
	var all script
	for range 6 { // the rate is asked for whenever the counters are missing
		all = all.then(looks(1, broken, notDue)).then(looks(1, broken, missing))
	}
	st, got := all.then(looks(1, broken, notDue)).play(s)
	if total := st.rate("Metric/orders").Total; total != (Tally{300, 300, 2700, 6}) {
		t.Errorf("counted %+v", total)
	}
	if v := got[len(got)-1]; v.Result != Fail || v.Cause != "Metric/orders" {
		t.Errorf("the last verdict is %s %q", v.Result, v.Message)
	}
}

// What a rate counted before it was warm is no evidence, also where it is asked for after that.
func TestARateWithAnIntervalWarmsUp(t *testing.T) {
	s := Settings{Metrics: []Criterion{{Name: "orders", Rate: &RateCriterion{}, Interval: time.Minute, WarmUp: time.Minute}}}
	broken := orders(Counts{Requests: 50, Errors: 50}, Counts{Requests: 450, Errors: 1})
	minute := looks(1, broken).then(looks(11, broken, notDue))
	st, _ := minute.then(minute).play(s)
	if n := st.rate("Metric/orders").Total.CandidateRequests; n != 0 {
		t.Errorf("%d requests were counted, of the warm-up", n)
	}
	st, _ = minute.then(minute).then(minute).play(s)
	if n := st.rate("Metric/orders").Total.CandidateRequests; n != 50 {
		t.Errorf("%d requests were counted after it, want 50", n)
	}
}
