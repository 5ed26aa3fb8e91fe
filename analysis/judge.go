// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
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
	if !rising(l.Bounds) {
		l.Bounds = nil
	}
	switch {
	case st.isNew(l.Time):
		st.look(s, l)
	case st.isAnother(l):
		// By a clock that is behind the one of the look before. What is known is about another step.
		st.restart()
		st.Step, st.Weight, st.Since = l.Step, l.Weight, l.Since
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

// isAnother says that the look is about another step than the one before, or about the same that has begun again.
func (st *State) isAnother(l Look) bool {
	return l.Step != st.Step || l.Weight != st.Weight || !l.Since.Equal(st.Since)
}

// look takes in one look that was not counted yet.
func (st *State) look(s Settings, l Look) {
	dt := min(max(l.Time.Sub(st.Last), 0), maxGap)
	first := st.Version == 0 || st.Last.IsZero()
	if first {
		dt = s.Interval
	}
	if first || st.isAnother(l) || l.isOld() {
		st.restart()
		dt = min(dt, s.Interval)
	}
	st.Version, st.Last, st.Step, st.Weight, st.Since = stateVersion, l.Time, l.Step, l.Weight, l.Since
	if !l.Paused {
		st.InStep = min(st.InStep+dt, maxDuration)
	}
	span := dt
	if span <= 0 || span >= maxGap { // the clock was set, or nobody looked: what is counted is one look
		span = s.Interval
	}
	if l.Missing {
		st.age(dt)
	} else {
		st.pods(l, span)
	}
	if l.Weight <= 0 {
		st.Missing, st.Reason, st.Blind = false, "", 0
		st.before(s, l, span)
		return
	}
	l.Metrics = st.metrics(s, l.Metrics, dt)
	st.take(s, l, dt, span)
	st.wait(s, l, dt)
}

// take takes in the counts of a look dt after the one before, that covers span, where there are any and they are evidence.
func (st *State) take(s Settings, l Look, dt, span time.Duration) {
	st.Missing, st.Reason = l.Missing, ""
	switch {
	case l.Missing:
		st.Reason = bounded(l.Reason, maxMissing)
		st.Blind = min(st.Blind+dt, maxDuration)
		st.keep(l)
	case !st.reach(&l, dt):
		st.Blind = 0
		st.keep(l)
	default:
		st.Blind = 0
		st.count(s, l, span)
	}
}

// wait takes a look at which the step could not be judged out of the step's time. That the next counts span it does not help:
// a few looks are no evidence, however much each of them counts.
func (st *State) wait(s Settings, l Look, dt time.Duration) {
	if !l.Paused && (st.wants(s) || st.Split.broken()) {
		st.InStep = max(st.InStep-dt, 0)
	}
}

// wants says that something was missing at the last look without which the step can't be judged.
func (st *State) wants(s Settings) bool {
	return st.misses() || st.silent(s, absent)
}

// before takes in a look at weight 0: it is history, as long as no look had a weight.
func (st *State) before(s Settings, l Look, dt time.Duration) {
	if st.Looks > 0 || l.Missing {
		return
	}
	if st.History == nil {
		st.History = &History{}
	}
	st.Latency.remember(l)
	var worth []float64
	if st.Latency.Served >= enoughServed {
		worth = st.Latency.choose(s, maxTracked, l.Bounds)
	}
	st.History.follow(&st.Pods, l, worth, dt)
}

// restart begins a step, or a step again at another weight.
func (st *State) restart() {
	st.InStep, st.StepLooks, st.StepTotal = 0, 0, Totals{}
	st.Share, st.Latency.Share, st.Split, st.Unsplit = Window{}, Window{}, fineSplit(), Totals{}
	for i := range st.Rates {
		st.Rates[i].StepTotal, st.Rates[i].Stratum = Tally{}, Stratum{}
		st.Rates[i].Acceptance.restart()
	}
	for i := range st.Metrics {
		st.Metrics[i].restart()
	}
}

// count takes in the counts of one look that covers dt.
func (st *State) count(s Settings, l Look, dt time.Duration) {
	if st.Looks == 0 {
		st.begin(s, l)
	}
	first := st.Looks == 0 && !st.Lost
	newStep := l.Step > st.Opened // once: its weight comes later, when its pods are ready
	st.Opened = max(st.Opened, l.Step)
	t := l.totals()
	weight := min(float64(l.Weight)/100, 1)
	st.Total, st.StepTotal = st.Total.plus(t), st.StepTotal.plus(t)
	st.Looks++
	st.StepLooks++
	st.Share.add(t.CandidateRequests, t.StableRequests)
	if st.StepLooks > splitSettle {
		st.Split.update(t.errors(), weight)
		st.Unsplit = st.Unsplit.plus(t)
	}
	if st.Split.fine() {
		st.Unsplit = Totals{}
	}
	lat := st.latency(s, l, dt) // may add rates

	o := observation{
		weight: weight, span: dt, look: st.Looks, mass: s.injection(st, first, newStep), settled: st.StepLooks > settleLooks,
		candidates: st.candidatePods(l), stables: stablePods(l), slots: st.Pods.busy(),
	}
	st.Injected = min(st.Injected+o.mass, 1)
	for i := range st.Rates {
		r := &st.Rates[i]
		o.phi = 1
		switch {
		case r.Bound > 0:
			o.arms, o.pods, o.pi = lat.observe(st, &l, i, weight)
			o.alone = st.Latency.Share.alone()
		case r.isMetric():
			o.arms, o.pods, o.phi = r.observe(&st.Pods, l.Metrics)
			o.alone = false // its Stratum never is
		default:
			o.arms, o.pods, o.pi = t.errors(), l.stableSample(&st.Pods), st.Share.share(weight)
			o.alone = st.Share.alone()
		}
		r.update(&s, &o)
	}
	st.Latency.remember(l)
}

// keep takes in what users' rates counted at a look at which the requests' counters were missing: those cover the gap when they are
// back, and these must not be lost either. They are compared at the next look that counts.
func (st *State) keep(l Look) {
	for i := range st.Rates {
		if r := &st.Rates[i]; r.isMetric() {
			x, _, _ := r.observe(&st.Pods, l.Metrics)
			r.Total.add(x)
			r.StepTotal.add(x)
			r.Stratum.keep(x)
		}
	}
}

// begin decides at the first look with a weight what is compared.
func (st *State) begin(s Settings, l Look) {
	st.Latency.Expected = !s.NoLatency && (len(l.Bounds) > 0 || len(st.Latency.Bounds) > 0)
	st.Rates = nil
	if !s.NoErrorRate {
		part := s.builtIn(st.Latency.Expected)
		if st.Latency.Expected {
			part *= errorShare
		}
		base := baseline(st.History.errorBlocks(), st.Pods.busy(), s.Harm, stablePods(l))
		st.Rates = []Rate{newRate(CauseErrorRate, 0, part, st.inPlay(), base)}
	}
	st.Rates = append(st.Rates, s.metricRates(st.Latency.Expected, st.inPlay())...)
	if !st.Latency.Expected {
		st.History, st.Latency = nil, Latency{}
	}
}

// inPlay is the mass that was put into play and not lost.
func (st *State) inPlay() float64 {
	if st.Lost {
		return max(st.Injected-firstMass-stepsMass, 0)
	}
	return st.Injected
}

// stableSample is what the pods in the table counted.
func (l *Look) stableSample(pods *Pods) (out sample) {
	for k := range pods {
		if name := pods[k].Name; name != "" {
			c := l.Stable[name]
			n := min(c.Requests, maxCount)
			out[k] = PodCount{float64(n), float64(min(c.Errors, n))}
		}
	}
	return out
}

// evidence is what the state says, in the terms in which the verdict is found.
type evidence struct {
	harm      float64 // e-value against the candidate
	cause     string  // the rate that has most of it
	largest   float64 // its part
	accepted  float64 // smallest e-value for it; +Inf when no rate is compared
	enough    bool    // every rate has had data enough to be accepted
	suspicion bool    // halfway to a Fail on a logarithmic scale
}

func (st *State) evidence(s Settings) evidence {
	e := evidence{accepted: math.Inf(1), enough: true}
	parts := 0.0
	for i := range st.Rates {
		r := &st.Rates[i]
		if r.DryRun {
			continue
		}
		part := r.Share * r.harm(st.Injected)
		if e.harm += part; part > e.largest {
			e.largest, e.cause = part, r.Name
		}
		parts += r.Share
		e.accepted = min(e.accepted, r.Acceptance.value())
		e.enough = e.enough && r.Acceptance.enough(s.Beta)
	}
	e.harm += max(1-parts, 0) // what no rate has been chosen for
	if st.Latency.Expected && !st.Latency.Chosen {
		e.accepted, e.enough = 0, false
	}
	e.suspicion = e.harm >= math.Sqrt(1/s.Alpha)
	return e
}

// Evidence are the numbers as they are now. A Verdict that is a Fail keeps those that it was found with.
func (st State) Evidence(s Settings) Evidence {
	s = s.withDefaults()
	st = st.next()
	return st.numbers(s, st.evidence(s))
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
		return Fail, e.cause
	}
	if votes, name := st.votes(s, outside(looksOutside)); votes >= Decisive {
		return Fail, CauseMetric + name
	}
	if cause := st.unusable(s); cause != "" {
		return Hold, cause
	}
	if st.accepted(s, e) {
		return Pass, CauseAccepted
	}
	// Where data is missing, nothing is said, not even that the time is up: it may be the next look that decides. Nor while
	// a metric is waited for that warms up, is asked for seldom, or whose counts are not told yet.
	if st.InStep < s.MaxStepTime || st.wants(s) || st.silent(s, awaited) {
		return Undecided, ""
	}
	return timeUp(s, st, e)
}

// unusable is why what is counted can't be judged; empty where it can.
func (st *State) unusable(s Settings) string {
	switch {
	case st.Unreached.lasts(s) && st.Blind < s.BlindAfter: // what else is missing may be so because of that
		return CauseNoSplit
	case st.Blind >= s.BlindAfter || st.Latency.Blind >= s.BlindAfter || st.blindMetric(s):
		return CauseBlind
	case st.Split.broken():
		return st.whyNoSplit()
	}
	return ""
}

// timeUp is what a step is that was not accepted in time.
func timeUp(s Settings, st *State, e evidence) (Result, string) {
	if e.suspicion {
		return Hold, CauseSuspicious
	}
	if votes, name := st.votes(s, outside(1)); votes >= Decisive {
		return Hold, CauseMetric + name
	}
	if st.compares() && e.enough && e.accepted < 1/s.Beta {
		return Hold, CauseNotAccepted
	}
	return Inconclusive, CauseTooLittleData
}

// accepted says that nothing speaks against advancing, and everything that is judged for it.
func (st *State) accepted(s Settings, e evidence) bool {
	if st.misses() || e.suspicion || st.StepLooks < int64(s.MinLooks) || st.InStep < s.MinStepTime {
		return false
	}
	if votes, _ := st.votes(s, func(_ *Criterion, m *Metric) bool { return !m.accepted() }); votes >= Decisive {
		return false
	}
	if !st.compares() && !st.Latency.Expected {
		return true
	}
	bothServed := st.StepTotal.CandidateRequests > 0 && st.StepTotal.StableRequests > 0 || !st.comparesRequests()
	return bothServed && e.accepted >= 1/s.Beta
}

// misses says that the last look did not tell all that is judged by.
func (st *State) misses() bool {
	return st.Missing || st.Unreached.any() || st.Latency.Missing
}

// hangEnough is how many requests must have reached the candidate to say that it does not answer them.
const hangEnough = 10

// whyNoSplit tells a candidate that answers too little from one that is asked too little. What was counted while nothing was wrong
// has no say: the longer that was, the longer a hang would hide behind it.
func (st *State) whyNoSplit() string {
	t := st.Unsplit
	if t.CandidateStarted >= hangEnough && t.CandidateRequests < t.CandidateStarted/2 {
		return CauseNoAnswers
	}
	return CauseNoSplit
}
