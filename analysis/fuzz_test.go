// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

// FuzzJudge gives Judge a state and looks that nobody would write, and checks what must hold for all.
func FuzzJudge(f *testing.F) {
	f.Add([]byte(`{"version":1,"injected":0.5}`), uint64(100), uint64(40), uint64(900), uint64(1), 10, 0, int64(5), 0.5, false)
	f.Add([]byte(`{"version":1,"injected":-7,"rates":[{"name":"ErrorRate","components":[{"name":"FAST","bets":[1e308,1e308,-1,0,0]}],"acceptance":{"bets":[-1,1e300,0,0,0],"trend":9}}]}`),
		uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(3), 200, -4, int64(-1<<40), math.Inf(1), false)
	f.Add([]byte(`{"version":1,"share":{"len":99,"next":-3},"looks":-5,"inStep":-9}`), uint64(0), uint64(9), uint64(0), uint64(0), -10, 1<<40, int64(1<<60), math.NaN(), true)
	f.Add([]byte(`{"version":2,"looks":3,"rates":[{"name":"x","bound":1},{"name":"ErrorRate"},{"bound":0.1,"share":-3,"noise":{"len":77,"minutes":[[1e308,-1]]},"outlier":{"minute":[1e300,0,0,1e300]}},{"bound":2}],
		"latency":{"expected":true,"bounds":[1,2],"tails":[3]},"history":{"bounds":[1,2,3],"blocks":[{},{"slower":[[1]]}],"age":-5},"pods":[{"name":"a","idle":-9}]}`),
		uint64(1000), uint64(900), uint64(9000), uint64(3), 10, 3, int64(5e9), 0.1, false)
	f.Add([]byte(``), uint64(1000), uint64(900), uint64(9000), uint64(3), 0, 0, int64(61e9), math.NaN(), false)
	f.Add([]byte(`?`), uint64(1), uint64(1), uint64(1), uint64(0), 100, 2, int64(0), 1e300, false)
	f.Fuzz(func(t *testing.T, text []byte, nc, ec, ns, es uint64, weight, step int, seconds int64, value float64, missing bool) {
		limit := 1.0
		s := Settings{Harm: Margin{value, value}, Alpha: value, Metrics: []Criterion{{Name: "m", Range: &Range{Max: &limit}}, {Name: "r", Rate: &RateCriterion{Harm: Margin{value, value}}, Vote: step}}}
		st := Restore(text)
		wasFailed := st.Failed != nil
		at := start
		for range 8 {
			at = at.Add(time.Duration(seconds))
			l := Look{Time: at, Step: step, Weight: weight, Missing: missing,
				Candidate: map[string]Counts{"a": {Requests: nc, Errors: ec}, "b": {Requests: ec, Errors: nc}}, Stable: map[string]Counts{"a": {Requests: ns, Errors: es}},
				Bounds: []float64{value, 0.1, 2}, CandidatePods: step,
				CandidateServed: map[string]Served{"a": {Requests: nc, Slower: []uint64{nc, ec, es}}, "b": {Requests: es, Slower: []uint64{1, ec, 0}}},
				StableServed:    map[string]Served{"a": {Requests: ns, Slower: []uint64{es, ns, ec}}, "c": {Requests: es, Slower: []uint64{nc, 5, 6}}},
				Metrics: []MetricValue{{Name: "m", Value: value},
					{Name: "r", CandidateCounts: map[string]Counts{"a": {Requests: nc, Errors: es}}, StableCounts: map[string]Counts{"a": {Requests: ec, Errors: ns}}}}}
			before := st
			var v Verdict
			st, v = Judge(s, st, l)
			if !wasFailed {
				checkVerdict(t, before, l, v)
			}
			if text, err := json.Marshal(v); err != nil {
				t.Fatalf("verdict can't be stored: %v: %s", err, text)
			}
			if _, err := json.Marshal(st); err != nil {
				t.Fatalf("state can't be stored: %v", err)
			}
		}
	})
}

func checkVerdict(t *testing.T, before State, l Look, v Verdict) {
	t.Helper()
	switch v.Result {
	case Undecided, Pass, Fail, Hold, Inconclusive:
	default:
		t.Fatalf("result %q", v.Result)
	}
	if v.Message == "" {
		t.Fatal("no message")
	}
	fresh := before.Version == 0 && before.Last.IsZero()
	if l.Missing && fresh && v.Result == Pass {
		t.Fatal("passed without data")
	}
	if l.Missing && fresh && v.Result == Fail && v.Cause == CauseErrorRate {
		t.Fatal("failed without data")
	}
	e := v.Evidence
	for _, n := range []int64{e.CandidateRequests, e.CandidateErrors, e.StableRequests, e.StableErrors, e.Looks} {
		if n < 0 {
			t.Fatalf("negative count in %+v", e)
		}
	}
}
