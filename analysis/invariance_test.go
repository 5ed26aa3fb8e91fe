// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// noisy is a service whose pods differ, with history, latencies and a candidate of three pods that gets
// worse. name says what the pods are called.
func noisy(name func(int) string) []Look {
	random := rand.New(rand.NewPCG(7, 7))
	var out []Look
	for i := range 120 {
		weight := 0
		if i >= 60 {
			weight = 25
		}
		l := lookAt(i+1, weight, Counts{}, Counts{})
		l.Bounds = bounds
		l.Candidate, l.Stable = map[string]Counts{}, map[string]Counts{}
		l.CandidateServed, l.StableServed = map[string]Served{}, map[string]Served{}
		for k := range 11 {
			n := 80 + random.Uint64N(40)
			e := random.Uint64N(2 + uint64(k)/2)
			slow := serving(0.9+random.Float64()/5, n, "")[""]
			if k < 8 {
				l.Stable[name(k)], l.StableServed[name(k)] = Counts{Requests: n, Errors: e}, slow
			} else if weight > 0 {
				l.Candidate[name(k)], l.CandidateServed[name(k)] = Counts{Requests: n, Errors: e/2 + uint64(i)/60}, slow
			}
		}
		out = append(out, l)
	}
	return out
}

func verdicts(looks []Look) (out []Verdict) {
	var st State
	var v Verdict
	for _, l := range looks {
		st, v = Judge(Settings{}, st, l)
		out = append(out, v)
	}
	return out
}

// Sums of the same numbers in another order differ in the last digits.
var sameNumbers = cmpopts.EquateApprox(1e-9, 0)

func TestWhatPodsAreCalledChangesNothing(t *testing.T) {
	plain := verdicts(noisy(func(k int) string { return fmt.Sprintf("pod-%02d", k) }))
	for i, name := range []func(int) string{
		func(k int) string { return fmt.Sprintf("pod-%02d", 50-k) },
		func(k int) string { return fmt.Sprintf("%x", 7919*(k+1)%1009) },
	} {
		if diff := cmp.Diff(plain, verdicts(noisy(name)), sameNumbers); diff != "" {
			t.Errorf("names %d (-plain +renamed):\n%s", i, diff)
		}
	}
}

func TestALookThatComesTwiceChangesNothing(t *testing.T) {
	looks := noisy(func(k int) string { return fmt.Sprint(k) })
	var twice []Look
	for _, l := range looks {
		twice = append(twice, l, l)
	}
	once, both := verdicts(looks), verdicts(twice)
	for i := range once {
		if diff := cmp.Diff(once[i], both[2*i+1], sameNumbers); diff != "" {
			t.Fatalf("look %d (-once +twice):\n%s", i, diff)
		}
	}
}

// A pod with one request less and a pod that did nothing tell the judge the same as before: both arms
// are compared by sums.
func TestOnlySumsOfTheCandidateAreCompared(t *testing.T) {
	one := Look{Time: start, Weight: 10, Candidate: map[string]Counts{"a": {Requests: 90, Errors: 9}}, Stable: map[string]Counts{"a": {Requests: 900, Errors: 3}}}
	split := one
	split.Candidate = map[string]Counts{"x": {Requests: 30}, "y": {Requests: 30, Errors: 9}, "z": {Requests: 30}}
	a, va := Judge(Settings{}, State{}, one)
	b, vb := Judge(Settings{}, State{}, split)
	if !cmp.Equal(a, b) || !cmp.Equal(va, vb) {
		t.Errorf("split pods gave another result:\n%s", cmp.Diff(a, b))
	}
}

// A rate of which a candidate has no more than stable must not gain evidence from pods that differ, as
// long as the candidate is one of them.
func TestPodsThatDifferTemperTheEvidence(t *testing.T) {
	play := func(spread uint64) float64 {
		var st State
		var v Verdict
		for i := range 20 {
			l := lookAt(i+1, 10, Counts{Requests: 100, Errors: 4}, Counts{})
			l.Stable = map[string]Counts{}
			for k := range uint64(6) {
				l.Stable[fmt.Sprint(k)] = Counts{Requests: 150, Errors: 2 + spread*(k%2)*2 - spread}
			}
			st, v = Judge(Settings{}, st, l)
		}
		return math.Log(v.Evidence.Harm)
	}
	if same, differ := play(0), play(2); !(differ < same/2) {
		t.Errorf("log of the e-value is %v with equal pods and %v with pods that differ", same, differ)
	}
}
