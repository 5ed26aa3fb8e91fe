// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A version that takes the place of the candidate in mid-rollout begins anew: what the one before counted is not stable's, and why it
// had no value says nothing of this one.
func TestARateOfTheNextCandidate(t *testing.T) {
	for name, surplus := range map[string]float64{"all of the one before fails": 0, "the one before counts too many successes": 3000} {
		const first, looks = 20, 60
		values := ratesOf(func(look int, target *Target) map[string]float64 {
			n, before := float64(look), min(float64(look), first-1)
			counters := map[string]float64{"old-a": 900*n + 7*float64(look%2), "+old-a": 900*n + 7*float64(look%2)}
			if look < first {
				counters["new-a"], counters["+new-a"] = 100*n, surplus*n
				return counters
			}
			target.Candidate = "newer"
			counters["newer-a"], counters["+newer-a"] = 100*(n-before), 99*(n-before)
			return counters
		}, looks)
		if why := values[first-1].Err; (why != "") != (surplus > 0) {
			t.Errorf("%s: before it had no value because of %q", name, why)
		}
		told := uint64(0)
		for look, v := range values[first:] {
			for pod, c := range v.StableCounts {
				if pod != "old-a" || c.Errors > 0 {
					t.Errorf("%s, look %d: stable's %s counted %+v", name, first+look, pod, c)
				}
			}
			if v.Err != "" {
				t.Errorf("%s, look %d: %s", name, first+look, v.Err)
			}
			told += v.CandidateCounts["newer-a"].Requests
		}
		if want := uint64(looks-first-2) * 100; told != want {
			t.Errorf("%s: of the new one %d requests were told, want %d", name, told, want)
		}
	}
}

// A rate without a value for the rest of its rollout keeps nothing, nor does one of which nothing is told yet keep each name of a pod
// that there ever was.
func TestARateThatKeepsLittle(t *testing.T) {
	for name, tc := range map[string]struct {
		surplus float64
		gone    bool
	}{"too many successes": {surplus: 3, gone: true}, "nothing is told yet": {surplus: 1}} {
		u := users{}
		q := Query{Name: "orders", Denominator: "all", HigherIsBetter: true}
		target := shop(q)
		for look := range 40 {
			at := start.Add(time.Duration(look) * 5 * time.Second)
			u.due(at, []Target{target})
			var samples []sample
			count := func(role, revision, pod string, n float64) {
				samples = append(samples, sample{Value: n, series: series{source: source{workload: target.key(), Pod: pod}, Name: role, Revision: revision}})
			}
			n := 100 * float64(look)
			for _, revision := range []string{"old", "new"} {
				count(allOf, revision, revision, n)
				count(eventsOf, revision, revision, tc.surplus*n)
			}
			for i := range 200 { // each is there for two looks
				pod := fmt.Sprintf("%d-%d", look/2, i)
				count(allOf, "new", pod, n)
				count(eventsOf, "new", pod, n)
			}
			v := u.value(at, target, q, reads{asked: true, samples: samples})
			p := u.rates[target.metric(q)].pairs
			if strings.Contains(v.Err, "without a request") != (tc.gone && look >= 4) {
				t.Errorf("%s, look %d: %+v", name, look, v.Err)
			}
			if v.Err != "" && len(p.arms)+len(p.withheld) > 0 || len(p.withheld) > rateRoom || len(p.arms) > 202 {
				t.Fatalf("%s, look %d: %d pods, and counts of %d are withheld", name, look, len(p.arms), len(p.withheld))
			}
		}
	}
}
