// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"
)

// FuzzJudge gives Judge a state and looks that nobody would write, and checks what must hold for all.
func FuzzJudge(f *testing.F) {
	f.Add([]byte(`{"version":2,"looks":9,"injected":0.5,"rates":[{"name":"ErrorRate","share":1,"fast":[50,50,50,50,50]}],"failed":{"result":"Fail"}}`), uint64(100), uint64(40), uint64(900), uint64(1), 10, 0, int64(5), 0.5, false)
	f.Add([]byte(`{"version":2,"injected":-7,"rates":[{"name":"ErrorRate","fast":[1e308,1e308,-1,0,0],"acceptance":{"bets":[-1,1e300,0,0,0],"trend":9}}]}`),
		uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(3), 200, -4, int64(-1<<40), math.Inf(1), false)
	f.Add([]byte(`{"version":2,"share":{"len":99,"next":-3},"looks":-5,"inStep":-9}`), uint64(0), uint64(9), uint64(0), uint64(0), -10, 1<<40, int64(1<<60), math.NaN(), true)
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
		for i := range 16 {
			at = at.Add(time.Duration(seconds))
			l := Look{Time: at, Step: step, Weight: weight, Missing: missing,
				Candidate: map[string]Counts{"a": {Requests: nc, Errors: ec}, "b": {Requests: ec, Errors: nc}}, Stable: map[string]Counts{"a": {Requests: ns, Errors: es}},
				Bounds: [][]float64{{value, 0.1, 2}, {0.1, 0.2, 2}, {0.1}}[(step&0xffff+i)%3], CandidatePods: step,
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

// FuzzRollout plays looks from the start of a rollout, eight bytes each, and checks that nothing is concluded from what was not counted.
func FuzzRollout(f *testing.F) {
	f.Add([]byte{0, 0, 0, 90, 1, 5, 10, 0, 0, 10, 1, 90, 1, 5, 10, 0, 0, 10, 1, 90, 1, 5, 10, 0})
	f.Add([]byte("\x00\x09\x09\x00\x00\x05\x0a\x00\x00\x09\x09\x00\x00\x05\x0a\x00\x00\x09\x09\x00\x00\x05\x0a\x00\x00\x09\x09\x00\x00\x05\x0a\x00"))
	f.Add([]byte{1, 9, 9, 90, 0, 255, 50, 1, 2, 9, 0, 90, 0, 128, 50, 1, 4, 9, 9, 90, 9, 5, 99, 2, 8, 200, 200, 3, 3, 5, 99, 2})
	f.Fuzz(func(t *testing.T, text []byte) {
		var st State
		var stable uint64
		at := start
		for text = text[:min(len(text), 8*300)]; len(text) >= 8; text = text[8:] {
			b, huge := text[:8], uint64(1)
			if b[0]&8 != 0 {
				huge = math.MaxUint64 / 255
			}
			at = at.Add(time.Duration(int8(b[5])) * time.Second) // backwards, too
			l := Look{Time: at, Weight: int(b[6]), Step: int(b[7]), Missing: b[0]&1 != 0}
			if b[0]&2 == 0 {
				l.Candidate = map[string]Counts{"a": {Requests: uint64(b[1]) * huge, Errors: uint64(b[2])}}
			}
			if b[0]&4 == 0 {
				l.Stable = map[string]Counts{"a": {Requests: uint64(b[3]) * huge, Errors: uint64(b[4])}}
			}
			if !l.Missing {
				stable += min(l.Stable["a"].Requests, 1)
			}
			before := st
			var v Verdict
			st, v = Judge(Settings{}, st, l)
			checkVerdict(t, before, l, v)
			e := v.Evidence
			for _, x := range []float64{e.Harm, e.Acceptance} {
				if math.IsNaN(x) || math.IsInf(x, 0) || x < 0 {
					t.Fatalf("an e-value of %v", x)
				}
			}
			switch known := before.Failed != nil; {
			case v.Result == Fail && !known && (l.Missing || stable == 0):
				t.Fatalf("failed without data: %s", v.Message)
			case v.Result == Pass && (st.Missing || stable == 0):
				t.Fatalf("passed without data: %s", v.Message)
			}
			if _, again := Judge(Settings{}, st, l); !reflect.DeepEqual(again, v) {
				t.Fatalf("the same look again changed the verdict from\n%+v to\n%+v", v, again)
			}
		}
	})
}
