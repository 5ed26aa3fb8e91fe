// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// lookAt is the i-th look, 5 s apart, in step 0.
func lookAt(i, weight int, candidate, stable Counts) Look {
	return Look{
		Time: start.Add(time.Duration(i) * 5 * time.Second), Weight: weight,
		Candidate: map[string]Counts{"a": candidate}, Stable: map[string]Counts{"a": stable},
	}
}

// script is a sequence of looks.
type script []func(*Look)

func looks(n int, change ...func(*Look)) script {
	s := make(script, n)
	for i := range s {
		s[i] = func(l *Look) {
			for _, c := range change {
				c(l)
			}
		}
	}
	return s
}

func (s script) then(o script) script { return append(s[:len(s):len(s)], o...) }

func (s script) play(settings Settings) (State, []Verdict) {
	var st State
	var all []Verdict
	for i, change := range s {
		l := lookAt(i+1, 10, Counts{Requests: 100, Errors: 0}, Counts{Requests: 900, Errors: 1})
		change(&l)
		var v Verdict
		st, v = Judge(settings, st, l)
		all = append(all, v)
	}
	return st, all
}

func missing(l *Look) {
	l.Missing, l.Reason, l.Candidate, l.Stable = true, "the query failed", nil, nil
}

func bad(l *Look) { l.Candidate = map[string]Counts{"a": {Requests: 100, Errors: 40}} }

func idle(l *Look) { l.Candidate, l.Stable = nil, nil }

func alone(l *Look) { l.Stable = nil }

func silent(l *Look) { l.Candidate = nil }

func outage(l *Look) {
	l.Candidate, l.Stable = map[string]Counts{"a": {Requests: 100, Errors: 20}}, map[string]Counts{"a": {Requests: 900, Errors: 180}}
}

// uneven: stable's pods differ, and which of them fails changes from look to look.
func uneven(l *Look) {
	l.Stable = map[string]Counts{}
	for k := range 6 {
		l.Stable[string(rune('a'+k))] = Counts{Requests: 150}
	}
	l.Stable[string(rune('a'+l.Time.Unix()/60%6))] = Counts{Requests: 150, Errors: 40}
}

func weight(w int) func(*Look) { return func(l *Look) { l.Weight = w } }

func step(n int) func(*Look) { return func(l *Look) { l.Step = n } }

func metric(v float64) func(*Look) {
	return func(l *Look) { l.Metrics = []MetricValue{{Name: "checkout", Value: v}} }
}

// started: so many requests reach the candidate in each look, answered or not.
func started(n uint64) func(*Look) {
	return func(l *Look) {
		c := l.Candidate["a"]
		c.Started = n
		l.Candidate = map[string]Counts{"a": c}
	}
}

func TestJudge(t *testing.T) {
	atLeast := 0.95
	ranged := Settings{Metrics: []Criterion{{Name: "checkout", Range: &Range{Min: &atLeast}}}, MaxStepTime: 75 * time.Second}
	short := Settings{MaxStepTime: 75 * time.Second}
	brief := Settings{Metrics: ranged.Metrics, MaxStepTime: 20 * time.Second}
	checkVerdicts(t, map[string]verdictCase{
		"a healthy candidate is accepted": {looks: looks(20), want: Pass, cause: CauseAccepted, says: "0 of 2,000 requests"},
		"not before six looks, however much traffic": {looks: looks(6, func(l *Look) {
			l.Candidate["a"], l.Stable["a"] = Counts{Requests: 1e6, Errors: 0}, Counts{Requests: 9e6, Errors: 0}
		}), want: Pass, from: 6},
		"not before the minimum time": {settings: Settings{MinStepTime: time.Minute}, looks: looks(12, func(l *Look) {
			l.Candidate["a"] = Counts{Requests: 1e6, Errors: 0}
			l.Stable["a"] = Counts{Requests: 9e6, Errors: 0}
		}), want: Pass, from: 12},
		"a bad candidate fails":                                 {looks: looks(4, bad), want: Fail, cause: CauseErrorRate, says: "160 of 400 requests to the candidate failed (40 %), 4 of 3,600 to stable (0.11 %)", from: 4},
		"and stays failed":                                      {looks: looks(4, bad).then(looks(50)), want: Fail, cause: CauseErrorRate},
		"an outage of both is nobody's fault":                   {looks: looks(30, outage), want: Pass},
		"no data is no verdict":                                 {looks: looks(5, missing), want: Undecided, says: "request counters (the query failed)"},
		"no data for a minute holds":                            {looks: looks(12, missing), want: Hold, cause: CauseBlind, from: 12},
		"an accepted step does not pass on a look without data": {looks: looks(20).then(looks(1, missing)), want: Undecided},
		"a blind rollout goes on when data is back":             {looks: looks(13, missing).then(looks(15)), want: Pass},
		"an outage uses up none of the step's time":             {settings: short, looks: looks(13, missing).then(looks(14, idle)), want: Undecided},
		"nor does it leave the step more":                       {settings: short, looks: looks(13, missing).then(looks(15, idle)), want: Inconclusive, from: 28},
		"nor does one of less than a minute":                    {settings: short, looks: looks(11, missing).then(looks(14, idle)), want: Undecided},
		"however often it comes back":                           {settings: short, looks: looks(7, idle).then(looks(10, missing)).then(looks(7, idle)).then(looks(10, missing)).then(looks(1, idle)), want: Inconclusive, from: 35},
		"how long data has been missing is said in minutes":     {looks: looks(30, missing), want: Hold, cause: CauseBlind, says: "data has been missing for 2m0s or longer"},
		"requests that were not split use up no time":           {settings: short, looks: looks(30, silent).then(looks(25)), want: Pass},
		"no traffic is inconclusive":                            {settings: short, looks: looks(15, idle), want: Inconclusive, cause: CauseTooLittleData, from: 15},
		"a candidate that completes nothing is not split":       {looks: looks(7, silent), want: Hold, cause: CauseNoSplit, from: 7},
		"a candidate that gets requests and answers none hangs": {looks: looks(7, silent, started(100)), want: Hold, cause: CauseNoAnswers, says: "answered 0 of the last 400 requests that it got", from: 7},
		"too little data because of pods that differ says so": {settings: Settings{MaxStepTime: time.Minute}, looks: looks(12, uneven), want: Inconclusive,
			says: "; stable's pods differ so much among themselves that it counts 335 times less"},
		"one that hangs after an hour hangs as well": {looks: looks(720, started(100)).then(looks(4, silent, started(100))), want: Hold, cause: CauseNoAnswers,
			says: "answered 0 of the last 400 requests that it got", from: 724},
		"a few unanswered requests are no hang":              {looks: looks(7, silent, started(1)), want: Hold, cause: CauseNoSplit, from: 7},
		"a split that breaks after a while is found as fast": {looks: looks(100).then(looks(4, silent)), want: Hold, cause: CauseNoSplit, from: 104},
		"a split that works again is believed":               {looks: looks(30, silent).then(looks(25)), want: Pass},
		"weight 0 compares nothing":                          {looks: looks(30, weight(0), bad), want: Undecided, says: "gets no requests yet"},
		"weight 0 is not blind":                              {looks: looks(30, weight(0), missing), want: Undecided},
		"weight 100 has nobody to compare with":              {settings: short, looks: looks(30, weight(100), func(l *Look) { l.Stable = nil }), want: Inconclusive},
		"a candidate alone has nobody to compare with":       {settings: short, looks: looks(30, bad, alone), want: Hold, cause: CauseNotAccepted},
		"nor when stable is gone after a while":              {settings: short, looks: looks(4).then(looks(20, func(l *Look) { l.Candidate["a"] = Counts{Requests: 400, Errors: 400} }, alone)), want: Hold, cause: CauseNotAccepted},
		"a bad candidate fails where stable is back":         {looks: looks(8, bad, alone).then(looks(4, bad)), want: Fail, cause: CauseErrorRate},
		"a new step is accepted afresh":                      {looks: looks(20).then(looks(5, step(1), weight(25))), want: Undecided},
		"the old step's time does not count":                 {settings: short, looks: looks(14, idle).then(looks(14, step(1), weight(25), idle)), want: Undecided},
		"plenty of data that accepts nothing holds": {settings: short, looks: looks(15, func(l *Look) {
			l.Candidate["a"], l.Stable["a"] = Counts{Requests: 5000, Errors: 40}, Counts{Requests: 45000, Errors: 240}
		}), want: Pass},
		"too little traffic is inconclusive": {settings: short, looks: looks(15, func(l *Look) {
			l.Candidate["a"], l.Stable["a"] = Counts{Requests: 1, Errors: 0}, Counts{Requests: 9, Errors: 0}
		}), want: Inconclusive},
		"a metric in its range is accepted":                      {settings: ranged, looks: looks(20, metric(0.97)), want: Pass},
		"a metric on the edge of its range is in it":             {settings: ranged, looks: looks(20, metric(0.95)), want: Pass},
		"a metric outside for three values fails":                {settings: ranged, looks: looks(10, metric(0.97)).then(looks(3, metric(0.9))), want: Fail, cause: "Metric/checkout", says: `metric "checkout" is 0.9, outside its range (at least 0.95), 3 times in a row`, from: 13},
		"outside for two is not enough":                          {settings: ranged, looks: looks(2, metric(0.9)), want: Undecided},
		"three outside with one inside between are not in a row": {settings: ranged, looks: looks(2, metric(0.9)).then(looks(1, metric(1))).then(looks(2, metric(0.9))), want: Undecided},
		"a missing value neither counts nor ends the row":        {settings: ranged, looks: looks(2, metric(0.9)).then(looks(3)).then(looks(1, metric(0.9))), want: Fail, from: 6},
		"NaN is missing":                                           {settings: ranged, looks: looks(11, metric(math.NaN())), want: Undecided, says: `metric "checkout" (the value is not a number)`},
		"a metric missing for a minute holds":                      {settings: ranged, looks: looks(12, metric(math.Inf(1))), want: Hold, cause: CauseBlind, from: 12},
		"a metric without a value keeps a short step from passing": {settings: brief, looks: looks(11, metric(math.NaN())), want: Undecided},
		"and short steps together":                                 {settings: brief, looks: looks(6, metric(math.NaN())).then(looks(6, step(1), metric(math.NaN()))), want: Hold, cause: CauseBlind, from: 12},
		"a metric is judged while counters are missing":            {settings: ranged, looks: looks(3, missing, metric(0.5)), want: Fail, cause: "Metric/checkout"},
		"without error rates the metrics alone are accepted":       {settings: Settings{NoErrorRate: true, Metrics: ranged.Metrics}, looks: looks(6, bad, metric(1)), want: Pass, from: 6, says: "every metric is within its range"},
		"without either nothing is judged, and that is said":       {settings: Settings{NoErrorRate: true, NoLatency: true}, looks: looks(6, bad), want: Pass, says: "nothing is judged"},
		"metrics alone and too few looks":                          {settings: Settings{NoErrorRate: true, Metrics: ranged.Metrics, MaxStepTime: 20 * time.Second}, looks: looks(4, bad, metric(1)), want: Inconclusive, says: "too few looks with data to know: 4", from: 4},
		"a metric outside at the time limit holds":                 {settings: ranged, looks: looks(14, metric(1), idle).then(looks(1, metric(0), idle)), want: Hold, cause: "Metric/checkout"},
		"a late look spans the gap as one look": {looks: looks(10).then(looks(1, missing)).then(looks(1, func(l *Look) {
			l.Candidate["a"], l.Stable["a"] = Counts{Requests: 1e5, Errors: 1e5}, Counts{Requests: 9e5, Errors: 0}
		})), want: Undecided},
		"more errors than requests are all of them": {looks: looks(4, func(l *Look) { l.Candidate["a"] = Counts{Requests: 100, Errors: 1e18} }), want: Fail, says: "400 of 400"},
		"a candidate that fails within the tolerance is left alone": {looks: looks(200, func(l *Look) {
			l.Candidate["a"], l.Stable["a"] = Counts{Requests: 10000, Errors: 12}, Counts{Requests: 90000, Errors: 90}
		}), want: Pass},
	})
}

func TestTheTimeLimitHolds(t *testing.T) {
	short := Settings{MaxStepTime: 75 * time.Second}
	// 0.92 % of the candidate's requests fail and 0.1 % of stable's: between the lines, which are at 0.95 % and 1.2 %.
	_, got := looks(15, func(l *Look) {
		l.Candidate["a"], l.Stable["a"] = Counts{Requests: 10000, Errors: 92}, Counts{Requests: 90000, Errors: 90}
	}).play(
		Settings{MaxStepTime: 75 * time.Second, Harm: Margin{2, 0.01}})
	if v := got[14]; v.Result != Hold || v.Cause != CauseNotAccepted {
		t.Errorf("plenty of data, not accepted: got %s %q %q", v.Result, v.Cause, v.Message)
	}
	_, got = looks(3, bad).then(looks(12, idle)).play(short)
	if v := got[14]; v.Result != Hold || v.Cause != CauseSuspicious {
		t.Errorf("signs of harm: got %s %q %q %+v", v.Result, v.Cause, v.Message, v.Evidence)
	}
}

func TestALookIsCountedOnce(t *testing.T) {
	st, _ := looks(7, bad)[:3].play(Settings{})
	l := lookAt(3, 10, Counts{Requests: 100, Errors: 100}, Counts{Requests: 900, Errors: 0})
	again, v := Judge(Settings{}, st, l)
	if v.Result != Undecided {
		t.Errorf("the same look again gave %s", v.Result)
	}
	if diff := cmp.Diff(st, again); diff != "" {
		t.Errorf("the same look again changed the state:\n%s", diff)
	}
	l.Time = l.Time.Add(-20 * time.Second)
	if again, _ = Judge(Settings{}, st, l); !cmp.Equal(st, again) {
		t.Error("an older look changed the state")
	}
}

func TestAClockThatJumpsShiftsTimeLimitsAndNothingElse(t *testing.T) {
	for name, jump := range map[string]time.Duration{"a day ahead": 24 * time.Hour, "a day back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			_, want := looks(30).play(Settings{})
			_, got := looks(10).then(looks(20, func(l *Look) { l.Time = l.Time.Add(jump) })).play(Settings{})
			for i := range got {
				if diff := cmp.Diff(want[i], got[i], cmpopts.IgnoreFields(Evidence{}, "StepTime")); diff != "" {
					t.Fatalf("look %d:\n%s", i+1, diff)
				}
			}
		})
	}
}

// stored is a state as the record keeps it.
func stored(tb testing.TB, st State) []byte {
	tb.Helper()
	text, err := json.Marshal(st)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestARestartChangesNothing(t *testing.T) {
	all := looks(12).then(looks(2, missing)).then(looks(20, step(1), weight(25))).then(looks(6, bad, step(1), weight(25)))
	_, want := all.play(Settings{})
	var st State
	for i, change := range all {
		l := lookAt(i+1, 10, Counts{Requests: 100, Errors: 0}, Counts{Requests: 900, Errors: 1})
		change(&l)
		var v Verdict
		st, v = Judge(Settings{}, Restore(stored(t, st)), l)
		if diff := cmp.Diff(want[i], v); diff != "" {
			t.Fatalf("look %d after a restart:\n%s", i+1, diff)
		}
	}
}

func TestALostStateCostsPowerNotValidity(t *testing.T) {
	st := Restore([]byte(`{"version":1,"torn`))
	var found int
	for i := 1; ; i++ {
		var v Verdict
		st, v = Judge(Settings{}, st, lookAt(i, 10, Counts{Requests: 100, Errors: 40}, Counts{Requests: 900, Errors: 1}))
		if v.Result == Fail {
			found = i
			break
		}
		if i > 100 {
			t.Fatal("a bad candidate was never found after a loss")
		}
	}
	if found <= minLooksToFail {
		t.Errorf("found at look %d, as if nothing had been lost", found)
	}
}

// The masses that all states of a rollout have put into play add up to at most 1, also where it takes much longer than planned:
// it waits for an approval, or is paused.
func TestHoweverOftenAStateIsLost(t *testing.T) {
	s := Settings{PlannedLooks: 49, Began: start.Add(time.Second)}
	for name, every := range map[string]int{"never": 500, "at every look": 1, "now and then": 20, "when the plan is nearly over": 48, "after it": 60} {
		var st State
		total, losses := 0.0, 0
		for i := range 500 {
			if i > 0 && i%every == 0 {
				total += st.inPlay()
				st = Restore([]byte("?"))
				losses++
			}
			l := lookAt(i+1, 10, Counts{Requests: 100, Errors: 0}, Counts{Requests: 900, Errors: 1})
			l.Step = min(i/10, 2)
			st, _ = Judge(s, st, l)
		}
		if total += st.inPlay(); total > 1+1e-9 {
			t.Errorf("lost %s (%d times): masses add up to %v", name, losses, total)
		}
		if every <= 20 && total < 0.7 {
			t.Errorf("lost %s: masses add up to %v only", name, total)
		}
	}
	late := s
	late.Began = start.Add(-time.Hour)
	st := Forgotten()
	for i := range 100 {
		var v Verdict
		st, v = Judge(late, st, lookAt(i+1, 10, Counts{Requests: 100, Errors: 40}, Counts{Requests: 900, Errors: 1}))
		if v.Result == Fail || v.Result == Pass {
			t.Fatalf("look %d of a state that was lost an hour after the beginning: %s %q", i, v.Result, v.Message)
		}
	}
}

func TestJudgeDoesNotTouchItsInput(t *testing.T) {
	atMost := 1.0
	s := Settings{Metrics: []Criterion{{Name: "checkout", Range: &Range{Max: &atMost}}}}
	st, _ := looks(20, metric(2)).play(Settings{})
	before := stored(t, st)
	for i := range 5 {
		l := lookAt(21+i, 10, Counts{Requests: 100, Errors: 50}, Counts{Requests: 900, Errors: 0})
		metric(2)(&l)
		Judge(s, st, l)
	}
	if after := stored(t, st); string(before) != string(after) {
		t.Errorf("state changed from\n%s\nto\n%s", before, after)
	}
}

// verdictCase is a rollout and its last verdict.
type verdictCase struct {
	settings Settings
	looks    script
	want     Result
	cause    string
	says     string // part of the message
	from     int    // first look with this result; 0: not checked
}

// The clock goes back by less than tells it from a look that comes twice: the next step has no verdict by the step before.
func TestAClockThatIsBehindAcceptsNoStep(t *testing.T) {
	st, before := looks(12).play(Settings{})
	l := lookAt(9, 25, Counts{Requests: 100}, Counts{Requests: 300})
	l.Step = 1
	if _, v := Judge(Settings{}, st, l); before[11].Result != Pass || v.Result != Undecided || v.Evidence.StepLooks != 0 {
		t.Errorf("after %s step 1 is %s: %s", before[11].Result, v.Result, v.Message)
	}
}

// A step begins with its pods, and its weight comes when they are ready: its part of the mass is put into play once.
// Prometheus is told late, so that the first looks of a step are about the one before. In the step itself all requests fail.
func TestAStepIsNotAcceptedByWhatWasBeforeIt(t *testing.T) {
	for _, age := range []time.Duration{0, 15 * time.Second, 25 * time.Second, 29 * time.Second} {
		var st State
		var v Verdict
		for i := 1; i < 40; i++ {
			l := lookAt(i, 25, Counts{Requests: 250}, Counts{Requests: 750})
			l.Since, l.Age = start, age
			if i > 20 {
				l.Step, l.Weight, l.Since = 1, 50, start.Add(101*time.Second)
			}
			if l.Time.Add(-age).After(start.Add(103 * time.Second)) { // more than half of what was counted
				l.Candidate, l.Stable = map[string]Counts{"a": {Requests: 500, Errors: 500}}, map[string]Counts{"a": {Requests: 500}}
			}
			if st, v = Judge(Settings{}, st, l); i > 20 && v.Result != Undecided {
				break
			}
		}
		if v.Result != Fail {
			t.Errorf("%s old: %s %s", age, v.Result, v.Message)
		}
	}
}

func TestEachStepHasItsMassOnce(t *testing.T) {
	atOnce := looks(6).then(looks(6, step(1), weight(25))).then(looks(6, step(2), weight(50)))
	later := looks(6).then(looks(3, step(1))).then(looks(3, step(1), weight(25))).then(looks(3, step(2), weight(25))).then(looks(3, step(2), weight(50)))
	var got []float64
	for _, s := range []script{atOnce[:12], later[:12], atOnce, later} {
		st, _ := s.play(Settings{Steps: 3})
		got = append(got, st.Injected)
	}
	if got[0] != got[1] || got[2] != got[3] || got[2] < got[0]+stepsMass/2 {
		t.Errorf("in play after two steps %v and %v, after three %v and %v", got[0], got[1], got[2], got[3])
	}
}

func checkVerdicts(t *testing.T, cases map[string]verdictCase) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, got := tc.looks.play(tc.settings)
			last := got[len(got)-1]
			if last.Result != tc.want || tc.cause != "" && last.Cause != tc.cause || !strings.Contains(last.Message, tc.says) {
				t.Errorf("last verdict is %s %q %q\nwant %s %q %q", last.Result, last.Cause, last.Message, tc.want, tc.cause, tc.says)
			}
			for i, v := range got {
				if tc.from > 0 && (v.Result == tc.want) != (i+1 >= tc.from) {
					t.Errorf("look %d: %s %q, want %s from look %d", i+1, v.Result, v.Message, tc.want, tc.from)
					break
				}
			}
		})
	}
}
