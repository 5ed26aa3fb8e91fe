// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bounds of the tests' latencies, and the share of requests that a healthy pod has above each.
var (
	bounds = []float64{0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 5}
	tails  = []float64{0.999, 0.6, 0.3, 0.09, 0.02, 0.001, 0}
)

// serving is what pods answer of n requests each, all of them the tails' shares times slow.
func serving(slow float64, n uint64, pods ...string) map[string]Served {
	out := map[string]Served{}
	for _, pod := range pods {
		c := Served{Requests: n}
		for _, tail := range tails {
			c.Slower = append(c.Slower, min(uint64(slow*tail*float64(n)+0.5), n))
		}
		out[pod] = c
	}
	return out
}

// timed gives a look latencies: stable's two pods are healthy, the candidate's one is slow.
func timed(slow float64) func(*Look) {
	return func(l *Look) {
		l.Bounds = bounds
		l.CandidateServed = serving(slow, 1000, "new")
		l.StableServed = serving(1, 4500, "a", "b")
	}
}

func newcomer(slow float64) func(*Look) {
	return func(l *Look) {
		maps.Copy(l.CandidateServed, serving(slow, 1000, "newer"))
	}
}

// replaced gives the look a newcomer in the place of the candidate's one pod.
func replaced(slow float64) func(*Look) {
	return func(l *Look) {
		l.CandidateServed = serving(slow, 1000, "newer")
	}
}

// inTurn shows one of the candidate's two pods at a look, as where each is scraped at every second one.
func inTurn(slow float64) func(*Look) {
	return func(l *Look) {
		l.CandidateServed = serving(slow, 1000, []string{"new", "newer"}[l.Time.Unix()/5%2])
	}
}

func TestLatency(t *testing.T) {
	checkVerdicts(t, map[string]verdictCase{
		"as fast as stable is accepted, once it is warm": {looks: looks(9, timed(1)), want: Pass, cause: CauseAccepted, says: "and 1.5 times stable's share of slow requests plus 1.5 percentage points are ruled out", from: 9},
		"slow while it warms up is forgiven":             {looks: looks(6, timed(10)).then(looks(20, timed(1))), want: Pass},
		"slow once it is warm fails": {looks: looks(10, timed(3)), want: Fail, cause: "Latency/0.05", from: 10,
			says: "3,600 of 4,000 requests to the candidate took longer than 50 ms (90 %), 10,800 of 36,000 to stable (30 %)"},
		"a pod that comes later warms up too": {looks: looks(10, timed(1)).then(looks(6, timed(1), newcomer(10))).then(looks(10, timed(1), newcomer(1))), want: Pass},
		"and is judged then": {looks: looks(10, timed(1)).then(looks(16, timed(1), newcomer(10))),
			want: Fail, cause: "Latency/0.25"},
		"one in another's place warms up, and nothing is accepted meanwhile": {looks: looks(6, timed(1)).then(looks(6, timed(1), replaced(10))), want: Undecided},
		"and is judged no later": {looks: looks(6, timed(1)).then(looks(10, timed(1), replaced(10))),
			want: Fail, cause: "Latency/0.1", from: 15},
		"pods that are scraped in turn warm up": {looks: looks(12, timed(1), inTurn(10)), want: Fail, cause: "Latency/0.1"},
		"and are accepted":                      {looks: looks(14, timed(1), inTurn(1)), want: Pass},
		"an outage is no part of the warm-up's looks, but of its time": {looks: looks(1, timed(3)).then(looks(5, missing)).then(looks(7, timed(3))),
			want: Fail, cause: "Latency/0.05"},
		"errors count from the first request": {looks: looks(4, timed(1), bad), want: Fail, cause: CauseErrorRate, from: 4},
		"a bound of the user's alone": {settings: Settings{LatencyBound: 500 * time.Millisecond}, looks: looks(12, timed(9)),
			want: Fail, cause: "Latency/0.5"},
		"a bound of the user's that nobody counts by": {settings: Settings{LatencyBound: 300 * time.Millisecond}, looks: looks(10, timed(3)),
			want: Fail, cause: "Latency/0.05", from: 10},
		"switched off": {settings: Settings{NoLatency: true}, looks: looks(20, timed(10)), want: Pass},
		"without errors the latency is judged alone": {settings: Settings{NoErrorRate: true}, looks: looks(12, timed(3), bad), want: Fail, cause: "Latency/0.05"},
		"without errors it must be accepted":         {settings: Settings{NoErrorRate: true}, looks: looks(6, timed(1)), want: Undecided},
		"missing for a while is waited for": {looks: looks(10, timed(1)).then(looks(3)), want: Undecided,
			says: "waiting for data: latencies"},
		"missing for a minute holds":                     {looks: looks(10, timed(1)).then(looks(12)), want: Hold, cause: CauseBlind, from: 22},
		"a pod without its buckets spoils the look":      {looks: looks(10, timed(1)).then(looks(1, timed(1), func(l *Look) { l.StableServed["b"] = Served{Requests: 9} })), want: Undecided},
		"no traffic is not missing latency":              {looks: looks(10, timed(1)).then(looks(30, idle)), want: Pass},
		"latency that was never measured is not missed":  {looks: looks(20), want: Pass},
		"latency that comes later than errors is left":   {looks: looks(1).then(looks(30, timed(10))), want: Pass},
		"bounds that tell nothing are not judged":        {looks: looks(40, timed(1)), want: Pass},
		"too few requests to choose bounds hold nothing": {settings: Settings{MaxStepTime: time.Minute}, looks: looks(12, timed(1), func(l *Look) { l.StableServed = serving(1, 10, "a") }), want: Inconclusive, from: 12},
	})
}

// quick gives a look latencies of a service that answers all but slow of its requests within 1 ms; the candidate's slow requests take 2 s.
func quick(slow uint64) func(*Look) {
	return func(l *Look) {
		l.Bounds = []float64{0.01, 0.1, 1}
		l.CandidateServed = map[string]Served{"new": {Requests: 1000, Slower: []uint64{slow, slow, slow}}}
		l.StableServed = map[string]Served{"a": {Requests: 4500, Slower: []uint64{1, 0, 0}}, "b": {Requests: 4500, Slower: []uint64{1, 0, 0}}}
	}
}

// steady gives a look latencies of a service that needs between 10 and 100 ms for all its requests, but half of stable's are a bit faster.
func steady(slow uint64) func(*Look) {
	return func(l *Look) {
		quick(slow)(l)
		l.CandidateServed["new"].Slower[0] = 500 + slow/2
		l.StableServed["a"].Slower[0], l.StableServed["b"].Slower[0] = 2250, 2250
	}
}

func TestLatencyOfFastServices(t *testing.T) {
	checkVerdicts(t, map[string]verdictCase{
		"as fast as stable is accepted":  {looks: looks(10, quick(0)), want: Pass},
		"slow is a failure":              {looks: looks(10, quick(1000)), want: Fail, cause: "Latency/0.01", says: "4,000 of 4,000 requests to the candidate took longer than 10 ms (100 %)"},
		"slow for a few, too":            {looks: looks(12, quick(30)), want: Fail, cause: "Latency/0.01"},
		"where nearly all take as long":  {looks: looks(10, steady(0)), want: Pass},
		"and some of the candidate's do": {looks: looks(12, steady(30)), want: Fail, cause: "Latency/0.1"},
	})
}

// Which bounds are measured changes when an exponential histogram merges its buckets, or another sidecar is scraped.
func TestBoundsThatChange(t *testing.T) {
	fewer := func(l *Look) {
		l.Bounds = []float64{0.25}
		for _, pods := range []map[string]Served{l.CandidateServed, l.StableServed} {
			for name, c := range pods {
				pods[name] = Served{Requests: c.Requests, Slower: c.Slower[4:5]}
			}
		}
	}
	others := func(l *Look) { l.Bounds = []float64{0.006, 0.026, 0.051, 0.11, 0.26, 0.51, 5.1} }
	checkVerdicts(t, map[string]verdictCase{
		"at the look at which they are chosen": {looks: looks(6, timed(1)).then(looks(12, timed(3), fewer)), want: Fail, cause: "Latency/0.25"},
		"to none of those before":              {looks: looks(6, timed(1)).then(looks(12, timed(3), others)), want: Fail, cause: "Latency/0.051"},
		"once they are chosen":                 {looks: looks(10, timed(1)).then(looks(12, timed(3), others)), want: Hold, cause: CauseBlind},
	})
}

// Of more pods than are told apart none is judged before it is warm, and enough are to see what is slow.
func TestManyPodsOfTheCandidate(t *testing.T) {
	many := func(slow float64, from, to int) func(*Look) {
		return func(l *Look) {
			for i := from; i < to; i++ {
				maps.Copy(l.CandidateServed, serving(slow, 1000, fmt.Sprintf("new-%02d", i)))
			}
			l.CandidateServed = maps.Clone(l.CandidateServed)
			l.Weight, l.CandidatePods = 50, to
			l.Candidate = map[string]Counts{"a": {Requests: 1000 * uint64(to)}}
			l.StableServed = serving(1, 20_000, "a", "b")
			l.Stable = map[string]Counts{"a": {Requests: 20_000}, "b": {Requests: 20_000}}
		}
	}
	twenty := looks(20, timed(1), many(1, 0, 20))
	checkVerdicts(t, map[string]verdictCase{
		"those that come are slow while they are cold": {looks: twenty.then(looks(6, timed(1), many(1, 0, 20), many(3, 20, 40))).
			then(looks(20, timed(1), many(1, 0, 40))), want: Pass},
		"all are slow": {looks: twenty.then(looks(16, timed(3), many(3, 0, 40))), want: Fail, cause: "Latency/0.05"},
	})
}

func TestBoundsAreChosenByStableAlone(t *testing.T) {
	st, _ := looks(10, timed(1)).play(Settings{})
	other, _ := looks(10, timed(0.1)).play(Settings{})
	var got, same []float64
	for i := range st.Rates {
		got = append(got, st.Rates[i].Bound)
		same = append(same, other.Rates[i].Bound)
	}
	if diff := cmp.Diff([]float64{0, 0.025, 0.05, 0.1, 0.25, 0.5}, got); diff != "" {
		t.Errorf("bounds (-want +got):\n%s", diff)
	}
	if !slices.Equal(got, same) {
		t.Errorf("another candidate made other bounds: %v", same)
	}
}

// busy is a look as large as they get: ten bounds worth judging, so many pods of stable and ten of the candidate.
func busy(i, weight, pods int, few bool) Look {
	l := lookAt(i, weight, Counts{}, Counts{})
	l.Bounds = []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5}
	if few {
		l.Bounds = []float64{0.01, 0.05, 0.2, 0.5, 2}
	}
	serving := func(slow float64, n uint64, pod string) map[string]Served {
		c := Served{Requests: n}
		for i := range l.Bounds {
			c.Slower = append(c.Slower, uint64(slow*float64(n)*math.Pow(0.5, float64(i+1))))
		}
		return map[string]Served{pod: c}
	}
	l.Candidate, l.Stable = map[string]Counts{}, map[string]Counts{}
	l.CandidateServed, l.StableServed = map[string]Served{}, map[string]Served{}
	for k := range pods {
		name := fmt.Sprintf("checkout-5d4f8b9c7-%05d", k)
		l.Stable[name] = Counts{Requests: 123_456, Errors: uint64(k+i) % 7}
		l.Candidate[name] = Counts{Requests: 12_345, Errors: 1}
		maps.Copy(l.StableServed, serving(1+float64(k%5)/100, 123_456, name))
	}
	for k := range 10 {
		if weight > 0 {
			maps.Copy(l.CandidateServed, serving(1, 12_345, fmt.Sprintf("checkout-66f7c9b8d-%05d", k)))
		}
	}
	return l
}

// manyMetrics are as many as a policy may have, three of them rates.
func manyMetrics(l Look) (out []MetricValue) {
	for _, c := range manySettings().Metrics {
		v := MetricValue{Name: c.Name, Value: 123456.123456, Stable: 123456.123456}
		if c.Rate != nil {
			v.CandidateCounts, v.StableCounts = l.Candidate, l.Stable
		}
		out = append(out, v)
	}
	return out
}

func manySettings() (s Settings) {
	for i := range 10 {
		c := Criterion{Name: fmt.Sprintf("a-name-as-long-as-names-of-metrics-can-be-which-is-63-letters-%02d", i), Compared: &Comparison{}}
		if i < MaxRates {
			c.Compared, c.Rate = nil, &RateCriterion{}
		}
		s.Metrics = append(s.Metrics, c)
	}
	return s
}

func TestTheStateStaysSmall(t *testing.T) {
	for name, s := range map[string]Settings{"latencies": {}, "and users' metrics": manySettings()} {
		t.Run(name, func(t *testing.T) { checkSize(t, s) })
	}
}

func checkSize(t *testing.T, s Settings) {
	var st State
	most := 0
	for i := range 700 {
		weight := 0
		if i >= 400 {
			weight = 10
		}
		l := busy(i, weight, 100, false)
		l.Metrics = manyMetrics(l)
		st, _ = Judge(s, st, l)
		most = max(most, len(stored(t, st)))
	}
	t.Logf("%d bytes at most, %d rates", most, len(st.Rates))
	if len(st.Rates) != 1+maxBounds {
		t.Fatalf("%d rates", len(st.Rates))
	}
	if most > 49152 {
		t.Errorf("the state has up to %d bytes; the record takes 49152", most)
	}
}

// One look of one rollout with six rates and 100 pods.
func BenchmarkJudge(b *testing.B) {
	var st State
	for i := range 60 {
		st, _ = Judge(Settings{}, st, busy(i, 10*min(i/30, 1), 100, true))
	}
	l := busy(61, 10, 100, true)
	b.ReportAllocs()
	for b.Loop() {
		Judge(Settings{}, st, l)
	}
}

// One look of a thousand rollouts with six rates and ten pods each.
func BenchmarkJudgeThousand(b *testing.B) {
	const rollouts = 1000
	states := make([]State, rollouts)
	for i := range 60 {
		states[0], _ = Judge(Settings{}, states[0], busy(i, 10*min(i/30, 1), 10, true))
	}
	for i := range states {
		states[i] = Restore(stored(b, states[0]))
	}
	l := busy(61, 10, 10, true)
	b.ReportAllocs()
	for b.Loop() {
		for i := range states {
			Judge(Settings{}, states[i], l)
		}
	}
}
