// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"
)

// The property on which everything rests: at the margin, whatever stable's error rate, the e-value of a
// look is expected to be at most 1. Exact: sums over both arms' binomial distributions, and the closed form
// of Poisson's; no sampling.
func TestExpectationAtTheMarginIsAtMostOne(t *testing.T) {
	worst := 0.0
	for _, n := range [][2]int{{3, 7}, {10, 90}, {100, 900}, {500, 500}, {50, 950}, {400, 100}, {190, 10}} {
		nc, ns := float64(n[0]), float64(n[1])
		pi := nc / (nc + ns)
		for _, ps := range []float64{0, 1e-4, 1e-3, 0.01, 0.1, 0.3} {
			for _, m := range []Margin{{1, 0}, {1.25, 0.001}, {1.25, 0.01}, {3, 0.2}} {
				for _, bet := range harmBets {
					a, b := harmCoefficients(pi, m.Ratio, m.Ratio*bet)
					e := expectation(nc, m.Ratio*ps+m.Excess, a) * expectation(ns, ps, -b) * math.Exp(-nc*m.Excess*math.Expm1(a))
					worst = max(worst, check(t, e, "harm", n, ps, m, bet))
					check(t, math.Exp(nc*(m.Ratio*ps+m.Excess)*math.Expm1(a)+ns*ps*math.Expm1(-b)-nc*m.Excess*math.Expm1(a)), "harm, Poisson", n, ps, m, bet)
				}
			}
			for _, m := range []Margin{{2, 0.005}, {1.5, 0.01}, {2, 0.01}} {
				for _, bet := range acceptBets {
					u := acceptBet(bet, pi)
					b := acceptCoefficient(pi, m.Ratio, u)
					e := expectation(nc, m.Ratio*ps+m.Excess, math.Log(u)) * expectation(ns, ps, b) * math.Exp(nc*m.Excess*(1-u))
					worst = max(worst, check(t, e, "acceptance", n, ps, m, u))
					check(t, math.Exp(nc*(m.Ratio*ps+m.Excess)*(u-1)+ns*ps*math.Expm1(b)+nc*m.Excess*(1-u)), "acceptance, Poisson", n, ps, m, u)
				}
			}
		}
	}
	if worst < 0.999 {
		t.Errorf("largest expectation is %v: the bound is not reached anywhere, so the test sees nothing", worst)
	}
}

func check(t *testing.T, e float64, what string, at ...any) float64 {
	t.Helper()
	if e > 1+1e-9 || math.IsNaN(e) {
		t.Errorf("%s at %v: expectation %v", what, at, e)
	}
	return e
}

// expectation of exp(coefficient * errors) for n requests that fail with probability p.
func expectation(n, p, coefficient float64) float64 {
	if p > 1 {
		return 0 // no such rate
	}
	sum := 0.0
	d := distuv.Binomial{N: n, P: p}
	for k := 0.0; k <= n; k++ {
		if prob := d.Prob(k); prob > 0 {
			sum += math.Exp(math.Log(prob) + coefficient*k)
		}
	}
	return sum
}

// Where the candidate has most requests, stable's few errors decide: one that is as good must be accepted in time all the same, or not
// be said to have had data enough; and one at the line must not be.
func TestAcceptanceAtLargeWeights(t *testing.T) {
	const rollouts = 30
	s := Settings{NoLatency: true, Steps: 1, MaxStepTime: 5 * time.Minute}
	play := func(seed uint64, perLook, weight, stable, candidate float64) (v Verdict) {
		source := rand.NewPCG(seed, 3)
		var st State
		for look := 1; look <= 60 && v.Result != Pass; look++ {
			counts := func(share, p float64) map[string]Counts {
				n := distuv.Poisson{Lambda: perLook * share, Src: source}.Rand()
				return map[string]Counts{"pod": {Requests: uint64(n), Errors: uint64(distuv.Binomial{N: n, P: p, Src: source}.Rand())}}
			}
			st, v = Judge(s, st, Look{Time: time.Unix(int64(5*look), 0), Weight: int(100 * weight), CandidatePods: 4,
				Candidate: counts(weight, candidate), Stable: counts(1-weight, stable)})
		}
		return v
	}
	m := defaultAcceptance
	for _, weight := range []float64{0.5, 0.8, 0.95} {
		for _, perLook := range []float64{100, 500, 2500} {
			for _, p := range []float64{0.01, 0.1, 0.2} {
				held, wrong := 0, 0
				for seed := range uint64(rollouts) {
					if play(seed, perLook, weight, p, p).Cause == CauseNotAccepted {
						held++
					}
					if play(seed, perLook, weight, p, m.Ratio*p+m.Excess).Result == Pass {
						wrong++
					}
				}
				if held > rollouts/10 || wrong > rollouts/10 {
					t.Errorf("weight %g, %g requests a look of which %g fail: %d of %d as good are held, %d at the line accepted", weight, perLook, p, held, rollouts, wrong)
				}
			}
		}
	}
}

// Within one look in which stable and candidate are the same, outcomes may depend on each other in any
// way (an outage of a shared database): which arm a failed request was in is still by chance. So how many of the failed are the
// candidate's is hypergeometric, however many failed, and every margin must make the evidence smaller yet. Exact.
func TestSharedFailuresAreNoEvidence(t *testing.T) {
	worst := 0.0
	for _, n := range [][2]int{{3, 7}, {10, 90}, {100, 900}, {500, 500}, {400, 100}, {190, 10}} {
		nc, all := n[0], n[0]+n[1]
		for _, failed := range []int{0, 1, 2, all / 20, all / 5, all / 2, all - 1, all} {
			for _, m := range []Margin{{1, 0}, {1.25, 0}, {1.25, 0.001}, {1.25, 0.01}, {3, 0}, {3, 0.2}} {
				for _, bet := range harmBets {
					a, b := harmCoefficients(float64(nc)/float64(all), m.Ratio, m.Ratio*bet)
					e := 0.0
					for k := max(0, failed-n[1]); k <= min(failed, nc); k++ {
						e += math.Exp(hypergeometric(k, all, nc, failed) + a*float64(k) - b*float64(failed-k) - float64(nc)*m.Excess*math.Expm1(a))
					}
					worst = max(worst, check(t, e, "shared", n, failed, m, bet))
				}
			}
		}
	}
	if worst < 0.999 {
		t.Errorf("largest expectation is %v: the bound is not reached anywhere, so the test sees nothing", worst)
	}
}

// hypergeometric is the logarithm of the chance that k of the failed are among the chosen.
func hypergeometric(k, all, chosen, failed int) float64 {
	return choose(chosen, k) + choose(all-chosen, failed-k) - choose(all, failed)
}

func choose(n, k int) float64 {
	lg := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	return lg(n) - lg(k) - lg(n-k)
}

func TestOneLookIsNeverEnough(t *testing.T) {
	// Every request of the candidate fails, none of stable's.
	var st State
	for i := 1; ; i++ {
		var v Verdict
		st, v = Judge(Settings{}, st, lookAt(i, 10, Counts{Requests: 100000, Errors: 100000}, Counts{Requests: 900000, Errors: 0}))
		if v.Result == Fail {
			if i != minLooksToFail {
				t.Errorf("failed at look %d, want %d", i, minLooksToFail)
			}
			return
		}
		if i > 10 {
			t.Fatal("never failed")
		}
	}
}

func TestPercentReadsWell(t *testing.T) {
	tests := map[float64]string{
		0: "0 %", 1: "100 %", 0.058: "5.8 %", 0.0008: "0.08 %", 0.00008: "under 0.01 %",
		0.05: "5 %", 0.123: "12 %", 0.999: "100 %", 0.00123: "0.12 %",
	}
	for share, want := range tests {
		if got := percent(share); got != want {
			t.Errorf("percent(%v) = %q, want %q", share, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}
