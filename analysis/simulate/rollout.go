// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"time"

	"github.com/headgate/headgate/analysis"
)

// Plan is how a rollout goes.
type Plan struct {
	// Weights are the steps'. With one weight the rollout stays there, whatever the verdicts but Fail.
	Weights []int
	// Lasts is when the simulation ends.
	Lasts time.Duration
	// Total is what all steps may take together; zero: each may take Settings.MaxStepTime.
	Total time.Duration
	// Settings are the judge's.
	Settings analysis.Settings
}

// Outcome is how one rollout ended.
type Outcome struct {
	// RolledBack and Promoted say how; neither: it was still under way, on hold.
	RolledBack, Promoted bool
	// After is from the first look with a weight to the end.
	After time.Duration
	// Failed is how many requests of the candidate had failed until then.
	Failed uint64
	// Cause is that of the Fail.
	Cause string
	// Step is the last one, Reached when it began.
	Step    int
	Reached time.Duration
	// Unproven is how many steps were left because their time was up.
	Unproven int
	// Unsplit is after how long the judge first said that the candidate completes far too few requests; zero: never.
	Unsplit time.Duration
	// Path is the e-value at each look.
	Path []float64
}

// Run is one rollout in a world.
func (p Plan) Run(w World, seed uint64) Outcome {
	looks := int(p.Lasts / w.interval())
	s := w.start(seed, looks)
	settings := p.Settings
	settings.Interval, settings.Steps = w.interval(), len(p.Weights)
	if p.Total > 0 {
		settings.PlannedLooks = int(p.Total/w.interval()) + 1
	}
	var st analysis.State
	var out Outcome
	var v analysis.Verdict
	for t := -s.before; t < 0; t++ {
		st, _ = analysis.Judge(settings, st, s.next(t, 0, 0))
	}
	for t := range looks {
		out.After = time.Duration(t+1) * w.interval()
		if p.Total > 0 {
			settings.MaxStepTime = settings.StepTime(p.Total-out.Reached, len(p.Weights)-out.Step)
		}
		l := s.next(t, out.Step, p.Weights[out.Step])
		for _, c := range l.Candidate {
			out.Failed += c.Errors
		}
		st, v = analysis.Judge(settings, st, l)
		out.Path = append(out.Path, v.Evidence.Harm)
		if out.Unsplit == 0 && (v.Cause == analysis.CauseNoSplit || v.Cause == analysis.CauseNoAnswers) {
			out.Unsplit = out.After
		}
		if v.Result == analysis.Fail {
			out.RolledBack, out.Cause = true, v.Cause
			return out
		}
		if p.advance(&out, v.Result) {
			return out
		}
	}
	return out
}

// advance goes on by a verdict; true at the end of the last step.
func (p Plan) advance(out *Outcome, r analysis.Result) bool {
	if len(p.Weights) == 1 || r != analysis.Pass && r != analysis.Inconclusive {
		return false
	}
	if r == analysis.Inconclusive {
		out.Unproven++
	}
	if out.Step == len(p.Weights)-1 {
		out.Promoted = true
		return true
	}
	out.Step, out.Reached = out.Step+1, out.After
	return false
}
