// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"slices"
	"time"
)

const (
	// maxGap bounds what one look may add to any remembered span of time: a clock that jumps ahead, or
	// a controller that was away, does not use up a step's time at once.
	maxGap = 2 * time.Minute
	// clockStep is how far back a look must be to mean that the clock was set back, rather than that
	// the look was counted already.
	clockStep = time.Minute
)

// Judge takes in one look and says what all looks so far mean. It is total: whatever the state and the
// look hold, it neither panics nor returns a number that is not finite, and data that is missing never
// passes and never fails.
func Judge(s Settings, st State, l Look) (State, Verdict) {
	s = s.withDefaults()
	st = st.next()
	if st.Failed == nil && st.isNew(l.Time) {
		st.look(s, l)
	}
	v := conclude(s, &st)
	if v.Result == Fail && st.Failed == nil {
		failed := v
		st.Failed = &failed
	}
	return st, v
}

// isNew says that a look of this time was not counted yet.
func (st *State) isNew(at time.Time) bool {
	return st.Last.IsZero() || at.After(st.Last) || st.Last.Sub(at) > clockStep
}

// look takes in one look that was not counted yet.
func (st *State) look(s Settings, l Look) {
	first := st.Version == 0
	dt := min(max(l.Time.Sub(st.Last), 0), maxGap)
	if first || st.Last.IsZero() {
		dt = s.Interval
	}
	if first || st.Last.IsZero() || l.Step != st.Step || l.Weight != st.Weight {
		st.restart()
		dt = min(dt, s.Interval)
	}
	st.Version, st.Last, st.Step, st.Weight = stateVersion, l.Time, l.Step, l.Weight
	st.InStep = min(st.InStep+dt, maxDuration)
	st.rates(s)
	if l.Weight <= 0 {
		st.Missing, st.Reason, st.Blind = false, "", 0
		return
	}
	st.metrics(s, l.Metrics, dt)
	st.Missing, st.Reason = l.Missing, ""
	if l.Missing {
		st.Reason = bounded(l.Reason, maxMissing)
		st.Blind = min(st.Blind+dt, maxDuration)
		return
	}
	st.Blind = 0
	st.count(s, l)
}

// restart begins a step, or a step again at another weight.
func (st *State) restart() {
	st.InStep, st.StepLooks, st.StepTotal = 0, 0, Totals{}
	st.Share = Window{}
	for i := range st.Rates {
		st.Rates[i].Acceptance.restart()
	}
	for i := range st.Metrics {
		st.Metrics[i].restart()
	}
}

// count takes in the counts of one look.
func (st *State) count(s Settings, l Look) {
	first := st.Looks == 0 && !st.Lost
	newStep := st.StepLooks == 0 && l.Step > 0
	t := l.totals()
	weight := min(float64(l.Weight)/100, 1)
	st.Total, st.StepTotal = st.Total.plus(t), st.StepTotal.plus(t)
	st.Looks++
	st.StepLooks++
	st.Share.add(t.CandidateRequests, t.StableRequests)
	pi := st.Share.share(weight)
	if st.StepLooks > splitSettle {
		st.Split.update(t.errors(), weight)
	}

	mass := s.injection(st, first, newStep)
	st.Injected = min(st.Injected+mass, 1)
	for i := range st.Rates {
		st.Rates[i].update(s, t.errors(), pi, mass, st.StepLooks > settleLooks)
	}
}

// update takes in one look; settled says that acceptance may use it.
func (r *Rate) update(s Settings, x arms, pi, mass float64, settled bool) {
	for j, def := range s.components() {
		r.Components[j].update(def, x, pi, mass, def.cap(s.Alpha))
	}
	r.Acceptance.follow(x)
	if settled {
		r.Acceptance.update(s, x, pi)
	}
}

// harm is the metric's e-value against the candidate.
func (r *Rate) harm(s Settings, injected float64) float64 {
	var m float64
	for j, def := range s.components() {
		m += def.weight * r.Components[j].value(injected)
	}
	return m
}

// evidence is what the state says, in the terms in which the verdict is found.
type evidence struct {
	harm      float64 // e-value against the candidate
	accepted  float64 // smallest e-value for it; +Inf when no rate is compared
	enough    bool    // every rate has had data enough to be accepted
	suspicion bool    // halfway to a Fail on a logarithmic scale
}

func (st *State) evidence(s Settings) evidence {
	e := evidence{accepted: math.Inf(1), enough: true}
	for i := range st.Rates {
		r := &st.Rates[i]
		e.harm += r.harm(s, st.Injected) / float64(len(st.Rates))
		e.accepted = min(e.accepted, r.Acceptance.value())
		e.enough = e.enough && r.Acceptance.enough(s.Beta)
	}
	e.suspicion = e.harm >= math.Sqrt(1/s.Alpha)
	return e
}

// conclude finds the verdict from the state alone. First match wins.
func conclude(s Settings, st *State) Verdict {
	if st.Failed != nil {
		return *st.Failed
	}
	e := st.evidence(s)
	v := Verdict{Evidence: st.numbers(s, e)}
	v.Result, v.Cause = decide(s, st, e)
	v.Message = message(s, st, v)
	return v
}

// decide is the list of rules.
func decide(s Settings, st *State, e evidence) (Result, string) {
	if st.Weight <= 0 {
		return Undecided, ""
	}
	if e.harm >= 1/s.Alpha {
		return Fail, CauseErrorRate
	}
	if name := st.outside(looksOutside); name != "" {
		return Fail, CauseMetric + name
	}
	if st.Blind >= s.BlindAfter || st.blindMetric(s) {
		return Hold, CauseBlind
	}
	if st.Split.broken() {
		return Hold, st.whyNoSplit()
	}
	if st.accepted(s, e) {
		return Pass, CauseAccepted
	}
	// A look without data says nothing, not even that the time is up: it may be the next that decides.
	if st.InStep < s.MaxStepTime || st.Missing {
		return Undecided, ""
	}
	return timeUp(s, st, e)
}

// timeUp is what a step is that was not accepted in time.
func timeUp(s Settings, st *State, e evidence) (Result, string) {
	if e.suspicion {
		return Hold, CauseSuspicious
	}
	if name := st.outside(1); name != "" {
		return Hold, CauseMetric + name
	}
	if len(st.Rates) > 0 && e.enough && e.accepted < 1/s.Beta {
		return Hold, CauseNotAccepted
	}
	return Inconclusive, CauseTooLittleData
}

// outside is the first of the users' metrics that was outside its range n times in a row; empty when
// there is none.
func (st *State) outside(n int) string {
	for i := range st.Metrics {
		if st.Metrics[i].Outside >= n {
			return st.Metrics[i].Name
		}
	}
	return ""
}

// blindMetric says that one of the users' metrics has had no value for too long.
func (st *State) blindMetric(s Settings) bool {
	return slices.ContainsFunc(st.Metrics, func(m Metric) bool { return m.Missing != "" && m.Age >= s.BlindAfter })
}

// accepted says that nothing speaks against advancing, and everything that is judged for it.
func (st *State) accepted(s Settings, e evidence) bool {
	if st.Missing || e.suspicion || st.StepLooks < int64(s.MinLooks) || st.InStep < s.MinStepTime {
		return false
	}
	if slices.ContainsFunc(st.Metrics, func(m Metric) bool { return !m.accepted() }) {
		return false
	}
	if len(st.Rates) == 0 {
		return true
	}
	bothServed := st.StepTotal.CandidateRequests > 0 && st.StepTotal.StableRequests > 0
	return bothServed && e.accepted >= 1/s.Beta
}

// hangEnough is how many requests must have reached the candidate to say that it does not answer them.
const hangEnough = 10

// whyNoSplit tells a candidate that answers too little from one that is asked too little.
func (st *State) whyNoSplit() string {
	t := st.StepTotal
	if t.CandidateStarted >= hangEnough && t.CandidateRequests < t.CandidateStarted/2 {
		return CauseNoAnswers
	}
	return CauseNoSplit
}
