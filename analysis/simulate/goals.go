// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"fmt"
	"time"

	"github.com/headgate/headgate/analysis"
)

// Goal is something that must hold in a world.
type Goal struct {
	// Name is the goal's number; Says is the world in words.
	Name, Says string
	World      World
	Plan       Plan
	Wants      []Want
}

// Want is a share of the rollouts for which something must be true.
type Want struct {
	Says  string
	Share float64
	Is    func(Outcome) bool
}

// pt is a percentage point.
const pt = 0.01

// fixed is a rollout of half an hour at 10 percent.
func fixed() Plan { return Plan{Weights: []int{10}, Lasts: 30 * time.Minute} }

// ladder is a rollout with five minutes for each step.
func ladder() Plan { return Plan{Weights: []int{5, 10, 25, 50}, Lasts: time.Hour} }

// quick is what the default policy does: four minutes for all steps.
func quick() Plan {
	return Plan{Weights: []int{10, 25, 50}, Total: 4 * time.Minute, Lasts: 10 * time.Minute}
}

func kept(share float64) Want {
	return Want{Says: fmt.Sprintf("rolled back in at most %.3g %%", 100*(1-share)), Share: share, Is: func(o Outcome) bool { return !o.RolledBack }}
}

func within(q float64, limit time.Duration) Want {
	says := "median"
	if q != 0.5 {
		says = fmt.Sprintf("%.0f %%", 100*q)
	}
	return Want{Says: fmt.Sprintf("%s within %v", says, limit), Share: q, Is: func(o Outcome) bool { return o.RolledBack && o.After <= limit }}
}

func harmed(most uint64) Want {
	return Want{Says: fmt.Sprintf("median of failed requests at most %d", most), Share: 0.5, Is: func(o Outcome) bool { return o.RolledBack && o.Failed <= most }}
}

func promoted(limit time.Duration) Want {
	return Want{Says: fmt.Sprintf("promoted within %v in the median", limit), Share: 0.5, Is: func(o Outcome) bool { return o.Promoted && o.After <= limit }}
}

// Goals are all of them.
func Goals() []Goal {
	var out []Goal
	out = append(out, healthy()...)
	out = append(out, shared()...)
	out = append(out, noisy()...)
	out = append(out, failing()...)
	out = append(out, slow()...)
	out = append(out, ladders()...)
	out = append(out, hanging()...)
	return out
}

// healthy is G1: nothing is wrong and nothing is noisy.
func healthy() (out []Goal) {
	for _, base := range []float64{0.001, 0.01} {
		for _, rps := range []float64{2, 20, 200, 5000} {
			out = append(out, Goal{"G1", fmt.Sprintf("healthy, %g %% fail, %g rps%s", 100*base, rps, map[bool]string{true: ", latency too"}[base < 0.01]),
				World{RPS: rps, Base: base, Latency: base < 0.01, Cold: 3}, fixed(), []Want{kept(0.995)}})
		}
	}
	return append(out, Goal{"G1", "true share 13 % at a weight of 10 %, 200 rps",
		World{RPS: 200, Base: 0.01, Split: func(w float64) float64 { return 1.3 * w }}, fixed(), []Want{kept(0.995)}})
}

// shared is G2: what both revisions suffer.
func shared() (out []Goal) {
	worlds := map[string]func(offset float64) Maker{
		"3 outages of 60 s, 20 %":  func(o float64) Maker { return Outages(0.2, 60, 3, o) },
		"3 outages of 60 s, 100 %": func(o float64) Maker { return Outages(1, 60, 3, o) },
		"10 outages of 10 s, 50 %": func(o float64) Maker { return Outages(0.5, 10, 10, o) },
	}
	for _, says := range []string{"3 outages of 60 s, 20 %", "3 outages of 60 s, 100 %", "10 outages of 10 s, 50 %"} {
		for _, offset := range []float64{0, 5, 15} {
			w := World{RPS: 200, Base: 0.001, Noise: worlds[says](offset)}
			if offset > 5 {
				w.Interval = 15 * time.Second
			}
			out = append(out, Goal{"G2", fmt.Sprintf("%s, pods scraped up to %g s apart", says, offset), w, fixed(), []Want{kept(0.995)}})
		}
	}
	drift := World{RPS: 200, Base: 0.001, Latency: true,
		Drift: func(t float64) float64 { return 1 + 2*min(max(t, 0)/300, 1) },
		Slow:  func(t float64) Shape { return Shape{Scale: 1 + 0.5*min(max(t, 0)/300, 1)} }}
	return append(out,
		Goal{"G2", "the rate of both wanders (cv 2, every 10 s), 200 rps", World{RPS: 200, Base: 0.01, Noise: Shared(2, 10)}, fixed(), []Want{kept(0.995)}},
		Goal{"G2", "errors x3 and latency x1.5 in both while the weight rises, 200 rps", drift, ladder(), []Want{kept(0.995)}})
}

// NoisyWorlds are services whose pods fail on their own.
func NoisyWorlds() []struct {
	Says  string
	Noise Maker
} {
	return []struct {
		Says  string
		Noise Maker
	}{
		{"every pod at every look (gamma, cv 2)", EachLook(2)},
		{"pods wander for 60 s (sigma 0.7)", Wandering(0.7, 60)},
		{"pods wander for 300 s (sigma 0.7)", Wandering(0.7, 300)},
		{"bursts of 30 s, 20 %, every 10 min", Bursts(0.2, 30, 600)},
		{"bursts of 15 s, 20 %, every 2 h", Bursts(0.2, 15, 7200)},
		{"bursts of 10 s, 100 %, every hour", Bursts(1, 10, 3600)},
		{"pods differ for good (sigma 0.3)", Differing(0.3)},
	}
}

// noisy is G3: pods that fail on their own.
func noisy() (out []Goal) {
	for _, rps := range []float64{200, 5000} {
		for _, base := range []float64{0.001, 0.01} {
			for _, n := range NoisyWorlds() {
				out = append(out, Goal{"G3", fmt.Sprintf("%s, %g %% fail, %g rps", n.Says, 100*base, rps),
					World{RPS: rps, Base: base, Noise: n.Noise}, fixed(), []Want{kept(0.985)}})
			}
		}
	}
	return out
}

// failing is G4 to G6: candidates that fail more than stable.
func failing() []Goal {
	world := func(rps, worse float64) World {
		return World{RPS: rps, Base: 0.001, Latency: true, Worse: Plus(worse)}
	}
	second := time.Second
	return []Goal{
		{"G4", "+5 points, 200 rps", world(200, 5*pt), fixed(), []Want{within(0.5, 25*second), within(0.95, 40*second)}},
		{"G5", "all fail, 20 rps", world(20, 1), fixed(), []Want{within(0.5, 20*second), harmed(45)}},
		{"G5", "all fail, 200 rps", world(200, 1), fixed(), []Want{within(0.5, 20*second)}},
		{"G5", "all fail, 5000 rps", world(5000, 1), fixed(), []Want{within(0.5, 20*second)}},
		{"G5", "all fail, 2 rps", world(2, 1), fixed(), []Want{within(0.5, 45*second), harmed(10)}},
		{"G6", "+1 point, 200 rps", world(200, 1*pt), fixed(), []Want{within(0.5, 100*second)}},
		{"G6", "0.5 % instead of 0.1 %, 200 rps", world(200, 0.4*pt), fixed(), []Want{within(0.5, 450*second)}},
	}
}

// slow is G7: candidates that answer more slowly.
func slow() []Goal {
	world := func(s Shape) World {
		return World{RPS: 200, Base: 0.001, Latency: true, Cold: 3, Slower: func(float64, int) Shape { return s }}
	}
	return []Goal{
		{"G7", "all x1.5, 200 rps", world(Shape{Scale: 1.5}), fixed(), []Want{within(0.5, 65*time.Second)}},
		{"G7", "slow requests 1 -> 5 %, 200 rps", world(Shape{SlowShare: 0.05}), fixed(), []Want{within(0.5, 110*time.Second)}},
		{"G7", "all x1.1, 200 rps", world(Shape{Scale: 1.1}), fixed(), []Want{kept(0.99)}},
		{"G7", "cold pods are x3 slow for 30 s, 5000 rps",
			World{RPS: 5000, Base: 0.001, Latency: true, Cold: 3}, ladder(), []Want{kept(0.995)}},
	}
}

// ladders is G8 and G9, and the default policy.
func ladders() []Goal {
	good := func(rps float64) World { return World{RPS: rps, Base: 0.001, Latency: true, Cold: 3} }
	late := func(rps float64) World {
		return World{RPS: rps, Base: 0.001, Latency: true, Worse: func(_ float64, weight int) float64 {
			if weight < 25 {
				return 0
			}
			return 5 * pt
		}}
	}
	since := Want{Says: "median within 30 s of reaching 25 %", Share: 0.5, Is: func(o Outcome) bool {
		return o.RolledBack && o.Step == 2 && o.After-o.Reached <= 30*time.Second
	}}
	caught := Want{Says: "all rolled back", Share: 1, Is: RolledBack}
	proven := Want{Says: "every step accepted on evidence in 98 %", Share: 0.98, Is: func(o Outcome) bool {
		return o.Promoted && o.Unproven == 0
	}}
	small := good(200)
	small.Pods, small.Fresh = 4, true
	return []Goal{
		{"G8", "healthy through 5, 10, 25, 50 %, 200 rps", good(200), ladder(), []Want{promoted(320 * time.Second), kept(0.995)}},
		{"G8", "healthy through 5, 10, 25, 50 %, 5000 rps", good(5000), ladder(), []Want{promoted(150 * time.Second), kept(0.995)}},
		{"G9", "+5 points from 25 % on, 5000 rps", late(5000), ladder(), []Want{since, caught}},
		{"G9", "+5 points from 25 % on, 200 rps", late(200), ladder(), []Want{caught}},
		{"policy", "healthy through 10, 25, 50 % in 4 min, 200 rps", good(200), quick(), []Want{proven, promoted(4 * time.Minute)}},
		{"policy", "the same, 4 pods and no history", small, quick(), []Want{proven, promoted(4 * time.Minute)}},
		{"margin", "exactly at the margin (1 % and 1.35 %), 200 rps",
			World{RPS: 200, Base: 0.01, Worse: Plus(0.0035)}, fixed(), []Want{kept(0.99)}},
		{"margin", "accepted beyond the acceptance margin (1 % and 2.75 %) in at most 5 %, 200 rps",
			World{RPS: 200, Base: 0.01, Worse: Plus(0.0175)},
			Plan{Weights: []int{25, 50}, Lasts: 10 * time.Minute, Settings: analysis.Settings{Harm: analysis.Margin{Ratio: 10, Excess: 0.5}}},
			[]Want{{"at most 5 % accepted", 0.95, func(o Outcome) bool { return o.Unproven > 0 || o.Step == 0 && !o.Promoted }}}},
	}
}

// hanging are candidates that complete no requests, and some that complete fewer than their weight says and are all right.
func hanging() (out []Goal) {
	limits := map[float64]time.Duration{2: 4 * time.Minute, 20: 40 * time.Second, 200: 40 * time.Second}
	for _, rps := range []float64{2, 20, 200} {
		limit := limits[rps]
		out = append(out, Goal{"hang", fmt.Sprintf("completes nothing, %g rps", rps),
			World{RPS: rps, Base: 0.001, Split: func(float64) float64 { return 0 }}, fixed(),
			[]Want{{fmt.Sprintf("held within %v in 95 %%", limit), 0.95, func(o Outcome) bool { return o.Unsplit > 0 && o.Unsplit <= limit }}}})
	}
	for _, rps := range []float64{2, 20, 200} {
		out = append(out, Goal{"hang", fmt.Sprintf("true share 7 %% at a weight of 10 %%, %g rps", rps),
			World{RPS: rps, Base: 0.001, Split: func(w float64) float64 { return 0.7 * w }}, fixed(),
			[]Want{{"never held for it in 99.8 %", 0.998, func(o Outcome) bool { return o.Unsplit == 0 }}}})
	}
	return out
}
