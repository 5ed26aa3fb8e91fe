// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"cmp"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"
)

// world is a simulated service whose looks are independent Poisson traffic with binomial errors.
type world struct {
	rps               float64
	stable, candidate func(look, weight int) float64 // error rates
}

// outcome is how one simulated rollout ended.
type outcome struct {
	result Result
	after  time.Duration // from the first request with a weight to the verdict that ended it
	failed float64       // candidate's failed requests until then
	steps  [3]time.Duration
	timeUp int // steps that were left by Hold or Inconclusive
	// accepted says that some look said Pass.
	accepted bool
}

// ladder is a rollout over weights, each step at most limit, at most total in all.
type ladder struct {
	settings Settings
	weights  []int
	total    time.Duration
}

func always(p float64) func(int, int) float64 { return func(int, int) float64 { return p } }

// run simulates one rollout. A step whose time is up is left like an accepted one.
func (ld ladder) run(w world, seed uint64) outcome {
	src := rand.NewPCG(seed, 42)
	s := ld.settings.withDefaults()
	s.Steps = len(ld.weights)
	var out outcome
	var st State
	step, since := 0, 0
	for look := 0; time.Duration(look)*s.Interval < ld.total; look++ {
		weight := ld.weights[step]
		c, n := draw(src, w, look, weight, s.Interval)
		out.failed += float64(c.Errors)
		out.after = time.Duration(look+1) * s.Interval
		var v Verdict
		if ld.settings.MaxStepTime == 0 && len(ld.weights) > 1 {
			s.MaxStepTime = s.StepTime(ld.total-time.Duration(since)*s.Interval, len(ld.weights)-step)
		}
		st, v = Judge(s, st, Look{Time: start.Add(out.after), Step: step, Weight: weight,
			Candidate: map[string]Counts{"a": c}, Stable: map[string]Counts{"a": n}})
		if v.Result == Fail {
			out.result = Fail
			return out
		}
		out.accepted = out.accepted || v.Result == Pass
		if v.Result == Undecided {
			continue
		}
		if v.Result != Pass {
			out.timeUp++
		}
		if len(ld.weights) == 1 {
			continue
		}
		out.steps[step] = time.Duration(look+1-since) * s.Interval
		since = look + 1
		if step++; step == len(ld.weights) {
			out.result = Pass
			return out
		}
	}
	return out
}

func draw(src rand.Source, w world, look, weight int, dt time.Duration) (candidate, stable Counts) {
	share := float64(weight) / 100
	total := w.rps * dt.Seconds()
	return arm(src, total*share, w.candidate(look, weight)), arm(src, total*(1-share), w.stable(look, weight))
}

func arm(src rand.Source, mean, p float64) Counts {
	good := distuv.Poisson{Lambda: max(mean*(1-p), 1e-12), Src: src}.Rand()
	bad := distuv.Poisson{Lambda: max(mean*p, 1e-12), Src: src}.Rand()
	return Counts{Requests: uint64(good + bad), Errors: uint64(bad)}
}

// many runs n rollouts with seeds 1..n on all processors.
func (ld ladder) many(w world, n int) []outcome {
	out := make([]outcome, n)
	var wg sync.WaitGroup
	for k := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := k; i < n; i += runtime.GOMAXPROCS(0) {
				out[i] = ld.run(w, uint64(i+1))
			}
		})
	}
	wg.Wait()
	return out
}

func quantile[T cmp.Ordered](v []T, q float64) T {
	v = slices.Sorted(slices.Values(v))
	return v[min(int(math.Ceil(q*float64(len(v)-1))), len(v)-1)]
}

// report is what a batch of rollouts came to.
type report struct {
	failed, passed, timeUp float64 // shares of the runs; timeUp counts steps per run
	median, p95            time.Duration
	requests               float64 // median of failed requests of the candidate
}

func summarise(out []outcome) report {
	var r report
	var after []time.Duration
	var requests []float64
	for _, o := range out {
		n := 1 / float64(len(out))
		switch o.result {
		case Fail:
			r.failed += n
		case Pass:
			r.passed += n
		}
		r.timeUp += n * float64(o.timeUp)
		after = append(after, o.after)
		requests = append(requests, o.failed)
	}
	r.median, r.p95, r.requests = quantile(after, 0.5), quantile(after, 0.95), quantile(requests, 0.5)
	return r
}

const (
	runs = 1000
	pt   = 0.01 // a percentage point
)

// Fixed weight of 10 %. The table of docs/analysis.md is printed by go test -v -run Simulated.
func TestSimulatedHarm(t *testing.T) {
	fixed := ladder{weights: []int{10}, total: 4 * time.Minute}
	tests := map[string]struct {
		rps, stable, candidate float64
		atLeast, atMost        float64 // share of runs that must fail
		within                 time.Duration
	}{
		"healthy at 0.1 %, 2 rps":      {2, 0.001, 0.001, 0, 0.005, 0},
		"healthy at 0.1 %, 200 rps":    {200, 0.001, 0.001, 0, 0.005, 0},
		"healthy at 0.1 %, 5000 rps":   {5000, 0.001, 0.001, 0, 0.005, 0},
		"healthy at 1 %, 20 rps":       {20, 0.01, 0.01, 0, 0.005, 0},
		"healthy at 1 %, 200 rps":      {200, 0.01, 0.01, 0, 0.005, 0},
		"healthy at 1 %, 5000 rps":     {5000, 0.01, 0.01, 0, 0.005, 0},
		"at the margin, 200 rps":       {200, 0.01, 0.01*1.25 + 0.001, 0, 0.01, 0},
		"at the margin, 5000 rps":      {5000, 0.01, 0.01*1.25 + 0.001, 0, 0.01, 0},
		"+1 point, 200 rps":            {200, 0.001, 0.001 + pt, 0.95, 1, 100 * time.Second},
		"+5 points, 20 rps":            {20, 0.001, 0.001 + 5*pt, 0.95, 1, 100 * time.Second},
		"+5 points, 200 rps":           {200, 0.001, 0.001 + 5*pt, 1, 1, 25 * time.Second},
		"+5 points, 5000 rps":          {5000, 0.001, 0.001 + 5*pt, 1, 1, 20 * time.Second},
		"half fails, 2 rps":            {2, 0.001, 0.5, 0.95, 1, 80 * time.Second},
		"all fails, 2 rps":             {2, 0.001, 1, 0.99, 1, 45 * time.Second},
		"all fails, 20 rps":            {20, 0.001, 1, 1, 1, 20 * time.Second},
		"all fails, 200 rps":           {200, 0.001, 1, 1, 1, 20 * time.Second},
		"+5 points from 2 min on, 200": {200, 0.001, -1, 0.99, 1, 160 * time.Second},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := world{rps: tc.rps, stable: always(tc.stable), candidate: always(tc.candidate)}
			if tc.candidate < 0 {
				w.candidate = func(look, _ int) float64 {
					if look < 24 {
						return tc.stable
					}
					return tc.stable + 5*pt
				}
			}
			r := summarise(fixed.many(w, runs))
			t.Logf("failed %.1f %%, median %v, p95 %v, %v failed requests", 100*r.failed, r.median, r.p95, r.requests)
			if r.failed < tc.atLeast-1e-9 || r.failed > tc.atMost+1e-9 {
				t.Errorf("failed in %.1f %% of the runs, want %v to %v", 100*r.failed, tc.atLeast, tc.atMost)
			}
			if tc.within > 0 && r.median > tc.within {
				t.Errorf("median time %v, want at most %v", r.median, tc.within)
			}
		})
	}
}

// Three steps, in which a step's time is what StepTime gives it of four minutes.
func TestSimulatedAcceptance(t *testing.T) {
	steps := []int{10, 25, 50}
	tests := map[string]struct {
		settings          Settings
		rps               float64
		stable, candidate float64
		passed            float64       // at least this share of runs
		within            time.Duration // median
		timeUp            float64       // at most so many steps per run without an acceptance
	}{
		"healthy, 200 rps":                      {rps: 200, stable: 0.001, candidate: 0.001, passed: 1, within: 140 * time.Second, timeUp: 0.05},
		"healthy at 1 %, 200 rps":               {rps: 200, stable: 0.01, candidate: 0.01, passed: 1, within: 140 * time.Second, timeUp: 0.1},
		"healthy, 5000 rps":                     {rps: 5000, stable: 0.001, candidate: 0.001, passed: 1, within: 90 * time.Second},
		"healthy, 20 rps":                       {rps: 20, stable: 0.001, candidate: 0.001, passed: 1, within: 4 * time.Minute, timeUp: 3},
		"healthy, 2 rps":                        {rps: 2, stable: 0.001, candidate: 0.001, passed: 1, within: 4 * time.Minute, timeUp: 3},
		"margin of 1 point, healthy, 200 rps":   {settings: Settings{Acceptance: Margin{2, 0.01}}, rps: 200, stable: 0.001, candidate: 0.001, passed: 1, within: 100 * time.Second, timeUp: 0.02},
		"+0.4 points, 200 rps":                  {rps: 200, stable: 0.001, candidate: 0.005, timeUp: 3},
		"margin of 1 point, +0.4 points, 200":   {settings: Settings{Acceptance: Margin{2, 0.01}}, rps: 200, stable: 0.001, candidate: 0.005, timeUp: 3},
		"75 s a step, healthy, 200 rps":         {settings: Settings{MaxStepTime: 75 * time.Second}, rps: 200, stable: 0.001, candidate: 0.001, passed: 1, timeUp: 1},
		"75 s, margin of 1 point, healthy, 200": {settings: Settings{MaxStepTime: 75 * time.Second, Acceptance: Margin{2, 0.01}}, rps: 200, stable: 0.001, candidate: 0.001, passed: 1, timeUp: 0.05},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ld := ladder{settings: tc.settings, weights: steps, total: 4 * time.Minute}
			w := world{rps: tc.rps, stable: always(tc.stable), candidate: always(tc.candidate)}
			out := ld.many(w, runs)
			r := summarise(out)
			clean := 0.0
			for _, o := range out {
				if o.result == Pass && o.timeUp == 0 {
					clean += 1 / float64(runs)
				}
			}
			t.Logf("passed %.1f %% (every step accepted: %.1f %%), failed %.1f %%, median %v, p95 %v, %.2f steps without acceptance, first step %v (p95 %v)",
				100*r.passed, 100*clean, 100*r.failed, r.median, r.p95, r.timeUp, firstStep(out, 0.5), firstStep(out, 0.95))
			if r.passed < tc.passed-0.005 || tc.within > 0 && r.median > tc.within || r.timeUp > tc.timeUp+1e-9 {
				t.Errorf("passed %v, median %v, %v steps without acceptance; want %v, %v, %v", r.passed, r.median, r.timeUp, tc.passed, tc.within, tc.timeUp)
			}
		})
	}
}

func firstStep(out []outcome, q float64) time.Duration {
	var d []time.Duration
	for _, o := range out {
		d = append(d, o.steps[0])
	}
	return quantile(d, q)
}

// At the acceptance margin at most beta of the steps are accepted by mistake.
func TestSimulatedAcceptanceError(t *testing.T) {
	one := ladder{weights: []int{25}, total: 5 * time.Minute, settings: Settings{Harm: Margin{10, 0.5}}}
	for _, stable := range []float64{0.001, 0.01} {
		accepted := 0
		for _, o := range one.many(world{rps: 500, stable: always(stable), candidate: always(2*stable + 0.005)}, runs) {
			if o.accepted {
				accepted++
			}
		}
		t.Logf("stable %v: accepted %d of %d", stable, accepted, runs)
		if accepted > runs*5/100+20 {
			t.Errorf("at the margin, stable %v: accepted %d of %d", stable, accepted, runs)
		}
	}
}
