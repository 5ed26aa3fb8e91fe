// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"time"
)

// Margin is a line p_candidate = Ratio * p_stable + Excess between error rates, or between values of a metric.
type Margin struct {
	// Ratio multiplies stable's rate; at least 1, except between values. Of a value below zero it is the size that counts.
	Ratio float64
	// Excess is added, as a share of the requests (0.001 is 0.1 percentage points); 0 to 1. Between values it is in
	// their unit, and may be any number.
	Excess float64
}

// Settings say what is tolerated and how long it may take. The zero value of every field stands for
// its default; a value out of range does too.
type Settings struct {
	// Candidate and Stable name the revisions in messages.
	Candidate, Stable string

	// Alpha is the chance of rolling back a candidate that keeps within the Harm margin, over the
	// whole rollout. Default 0.01.
	Alpha float64
	// Beta is the chance of accepting a candidate beyond the Acceptance margin, per step. Default 0.05.
	Beta float64
	// Harm is the margin below which nothing is rolled back. Default 1.25 and 0.1 points: pods and
	// nodes differ by about that much with the same version. With an ErrorBudget a tenth of that instead of 0.1 points.
	Harm Margin
	// Acceptance is the margin that must be ruled out to advance. Default 2 and 0.75 points: see
	// docs/analysis.md for what other values cost in time. Between the margins nothing is decided on
	// evidence alone. Never narrower than Harm by default: what is no harm can be accepted.
	Acceptance Margin
	// ErrorBudget is the share of requests that may fail, and LatencyBudget the share that may take longer than
	// LatencyBound, by the user's objectives; 0 to 1. Zero: he declares none.
	ErrorBudget, LatencyBudget float64

	// Interval is the planned time between looks. Default 5 s: Prometheus scrapes sidecars that often.
	Interval time.Duration
	// PlannedLooks is how many looks the rollout may take; restarts of the harm process are spread over
	// them. More looks are no error, they only get no restart. Default 720, an hour at 5 s.
	PlannedLooks int
	// Began is when the candidate first had a weight. Only a State that was Forgotten needs it, which can't know: once
	// PlannedLooks times Interval have passed since, all that may be put into play may have been, and lost, so such a state puts
	// nothing more into play. Zero: it is not known, and every such state is taken for one of a rollout that is younger than that.
	Began time.Time
	// Steps is how many steps the rollout has. Default 3.
	Steps int
	// MinLooks is how many looks with data a step needs before it can be accepted. Default 6.
	MinLooks int
	// MinStepTime is how long a step lasts at least. Default 0: MinLooks alone decides.
	MinStepTime time.Duration
	// MaxStepTime is when a step that was not accepted becomes Hold or Inconclusive. Default 5 min.
	MaxStepTime time.Duration
	// BlindAfter is how long data may be missing before the verdict is Hold. Default 60 s.
	BlindAfter time.Duration

	// NoErrorRate turns the comparison of error rates off, NoLatency that of latencies. The users'
	// metrics remain.
	NoErrorRate, NoLatency bool
	// LatencyBound is the one bound that requests must not be slower than, where the user names one.
	// Zero, the default, and one that the looks do not count by: every bound that tells something (see choose).
	LatencyBound time.Duration
	// HarmLatency and AcceptanceLatency are the margins between the shares of requests that are slower
	// than a bound. Default 1.25 and 0.2 points; 1.5 and 1.5 points.
	HarmLatency, AcceptanceLatency Margin
	// WarmUp is for how long after its first request a candidate's pod may be slow: caches are cold and
	// code is not compiled yet. Its latency is left out that long; its errors never are. Default 30 s.
	WarmUp time.Duration
	// Metrics say how the users' metrics are judged.
	Metrics []Criterion
}

const (
	defaultAlpha        = 0.01
	defaultBeta         = 0.05
	defaultInterval     = 5 * time.Second
	defaultPlannedLooks = 720
	defaultSteps        = 3
	defaultMinLooks     = 6
	defaultMaxStepTime  = 5 * time.Minute
	defaultBlindAfter   = time.Minute
	defaultWarmUp       = 30 * time.Second
)

// Default margins; see the fields of Settings. With those of acceptance every simulated healthy candidate at 200 requests
// per second goes through 10, 25 and 50 percent within 4 minutes with every step accepted, latency judged too; stricter
// ones leave out one in a hundred (docs/analysis.md, the price of a margin).
var (
	defaultHarm              = Margin{Ratio: 1.25, Excess: 0.001}
	defaultAcceptance        = Margin{Ratio: 2, Excess: 0.0075}
	defaultHarmLatency       = Margin{Ratio: 1.25, Excess: 0.002}
	defaultAcceptanceLatency = Margin{Ratio: 1.5, Excess: 0.015}
)

// withDefaults replaces what is zero or out of range.
func (s Settings) withDefaults() Settings {
	s.Candidate = orDefault(s.Candidate != "", s.Candidate, "the candidate")
	s.Stable = orDefault(s.Stable != "", s.Stable, "stable")
	s.Alpha = orDefault(s.Alpha > 0 && s.Alpha < 1, s.Alpha, defaultAlpha)
	s.Beta = orDefault(s.Beta > 0 && s.Beta < 1, s.Beta, defaultBeta)
	s.Harm, s.Acceptance = margins(s.Harm, s.Acceptance, s.ErrorBudget, defaultHarm, defaultAcceptance)
	s.HarmLatency, s.AcceptanceLatency = margins(s.HarmLatency, s.AcceptanceLatency, s.LatencyBudget, defaultHarmLatency, defaultAcceptanceLatency)
	s.WarmUp = orDefault(s.WarmUp > 0, s.WarmUp, defaultWarmUp)
	s.LatencyBound = max(s.LatencyBound, 0)
	s.Interval = orDefault(s.Interval > 0, s.Interval, defaultInterval)
	s.PlannedLooks = orDefault(s.PlannedLooks > 0, s.PlannedLooks, defaultPlannedLooks)
	s.Steps = orDefault(s.Steps > 0, s.Steps, defaultSteps)
	s.MinLooks = orDefault(s.MinLooks > 0, s.MinLooks, defaultMinLooks)
	s.MinStepTime = max(s.MinStepTime, 0)
	s.MaxStepTime = orDefault(s.MaxStepTime > 0, s.MaxStepTime, defaultMaxStepTime)
	s.BlindAfter = orDefault(s.BlindAfter > 0, s.BlindAfter, defaultBlindAfter)
	return s
}

// margins are those given, where they are valid, or else the default ones; of these the excess that is no harm is a tenth
// of the budget, where there is one.
func margins(harm, acceptance Margin, budget float64, defHarm, defAcceptance Margin) (Margin, Margin) {
	if budget > 0 && budget <= 1 {
		defHarm.Excess = budget / 10
		defAcceptance.Excess = max(defAcceptance.Excess, defHarm.Excess)
	}
	return orDefault(harm.valid(), harm, defHarm),
		orDefault(acceptance.valid() && acceptance.Excess > 0, acceptance, defAcceptance)
}

// StepTime is how long the current step may take when all of the steps that are left, this one included,
// have to end within some time. Later steps have larger weights and so more data: each is granted only
// what a healthy candidate needs at least, and the rest goes to the current one. What it does not use is
// left for the next. Where there is too little for all, each gets the same share: steps shrink to fit,
// and end inconclusive. Never less than one look.
func (s Settings) StepTime(left time.Duration, steps int) time.Duration {
	s = s.withDefaults()
	least := max(time.Duration(s.MinLooks+settleLooks)*s.Interval, s.MinStepTime)
	n := time.Duration(max(steps, 1))
	if left < n*least {
		return max(left/n, s.Interval)
	}
	return left - (n-1)*least
}

// maxRatio keeps coefficients finite; a candidate that may fail a thousand times as often is not judged.
const maxRatio = 1000

func (m Margin) valid() bool {
	return m.Ratio >= 1 && m.Ratio <= maxRatio && m.Excess >= 0 && m.Excess <= 1
}

func orDefault[T any](ok bool, v, def T) T {
	if ok {
		return v
	}
	return def
}

// finite is v, or 0 where v is no finite number.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}
