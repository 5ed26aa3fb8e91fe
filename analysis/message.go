// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// numbers is the evidence in the form in which it is stored.
func (st *State) numbers(s Settings, e evidence) Evidence {
	out := Evidence{
		CandidateRequests: int64(st.Total.CandidateRequests),
		CandidateErrors:   int64(st.Total.CandidateErrors),
		StableRequests:    int64(st.Total.StableRequests),
		StableErrors:      int64(st.Total.StableErrors),
		Step: StepCounts{
			CandidateRequests: int64(st.StepTotal.CandidateRequests),
			CandidateErrors:   int64(st.StepTotal.CandidateErrors),
			StableRequests:    int64(st.StepTotal.StableRequests),
			StableErrors:      int64(st.StepTotal.StableErrors),
		},
		Looks:     st.Looks,
		StepLooks: st.StepLooks, StepTime: st.InStep.Seconds(),
		Missing: st.missing(s),
	}
	out.Metrics = st.metricNumbers(s)
	if len(st.Rates) == 0 {
		return out
	}
	if st.compares() {
		out.Harm, out.HarmThreshold = e.harm, 1/s.Alpha
		out.Acceptance, out.AcceptanceThreshold = e.accepted, 1/s.Beta
	}
	out.Rates = make([]RateEvidence, len(st.Rates))
	for i := range st.Rates {
		r := &st.Rates[i]
		out.Rates[i] = RateEvidence{
			Name: r.Name, Total: r.Total, Step: r.StepTotal, Share: r.Share,
			Harm: r.harm(st.Injected), Acceptance: r.Acceptance.value(),
			Phi: r.phi(st.Pods.busy()), DryRun: r.DryRun,
			Missing: st.missingRate(r),
		}
	}
	return out
}

// metricNumbers are the users' metrics that are no rates.
func (st *State) metricNumbers(s Settings) (out []MetricEvidence) {
	for i := range st.Metrics {
		m := &st.Metrics[i]
		c := s.criterion(m.Name)
		if c == nil || c.Rate != nil {
			continue
		}
		out = append(out, MetricEvidence{
			Name: m.Name, Value: m.Value, Stable: m.Stable, Compared: c.Compared != nil,
			Known: m.Seen, Outside: m.Outside, DryRun: c.DryRun, Missing: m.Missing,
		})
	}
	return out
}

// missingRate says why a user's rate had no value; empty for any other.
func (st *State) missingRate(r *Rate) string {
	at := slices.IndexFunc(st.Metrics, func(m Metric) bool { return CauseMetric+m.Name == r.Name })
	if at < 0 {
		return ""
	}
	return st.Metrics[at].Missing
}

// missing says what was missing at the last look, of what is judged.
func (st *State) missing(s Settings) string {
	var parts []string
	if st.Missing {
		parts = append(parts, "request counters"+orDefault(st.Reason == "", "", " ("+st.Reason+")"))
	}
	if st.Latency.Missing {
		parts = append(parts, "latencies")
	}
	if st.Unreached.any() {
		parts = append(parts, fmt.Sprintf("connections to %s at port %d", s.Candidate, PeerPort))
	}
	for _, m := range st.voters(s, absent) {
		parts = append(parts, fmt.Sprintf("metric %q (%s)", m.Name, m.Missing))
	}
	return bounded(strings.Join(parts, ", "), 4*maxMissing)
}

// message is the verdict as a sentence.
func message(s Settings, st *State, v Verdict) string {
	if isMetric := strings.HasPrefix(v.Cause, CauseMetric); isMetric && st.rate(v.Cause) == nil {
		if v.Result == Fail {
			return fmt.Sprintf("%s, %d times in a row", st.metricText(s, looksOutside), looksOutside)
		}
		return "the step's time is up and " + st.metricText(s, 1)
	}
	if v.Result == Fail {
		suspect := st.suspect()
		return fmt.Sprintf("%s; chance of that without harm under %s", suspect.text(s, suspect.Total), percent(s.Alpha))
	}
	switch v.Cause {
	case CauseBlind:
		return fmt.Sprintf("data has been missing for %s or longer: %s", st.blindFor(s), st.missing(s))
	case CauseNoSplit:
		return noSplit(s, st)
	case CauseNoAnswers:
		return fmt.Sprintf("%s answered %s of the last %s requests that it got, while %s answers", s.Candidate,
			count(st.Unsplit.CandidateRequests), count(st.Unsplit.CandidateStarted), s.Stable)
	case CauseSuspicious:
		return "the step's time is up and there are signs of harm: " + st.suspect().text(s, st.suspect().Total)
	case CauseNotAccepted:
		r := st.hindmost()
		return fmt.Sprintf("the step's time is up; there was data enough, but it does not rule out %s: %s",
			r.marginText(s), r.text(s, r.StepTotal))
	case CauseTooLittleData:
		return tooLittle(s, st)
	case CauseAccepted:
		return accepted(s, st)
	}
	return undecided(s, st)
}

func noSplit(s Settings, st *State) string {
	if st.Unreached.any() {
		return fmt.Sprintf("the pods of %s are ready, but can't be reached from those of %s at port %d: a NetworkPolicy that does not let that port in is the likely cause",
			s.Candidate, s.Stable, PeerPort)
	}
	return fmt.Sprintf("%s completed %s of the last %s requests, far below its weight of %d %%: the requests are not split",
		s.Candidate, count(st.Unsplit.CandidateRequests), count(st.Unsplit.CandidateRequests+st.Unsplit.StableRequests), st.Weight)
}

func tooLittle(s Settings, st *State) string {
	if !st.compares() {
		return fmt.Sprintf("the step's time is up and there were too few looks with data to know: %d", st.StepLooks)
	}
	r := st.hindmost()
	text := "the step's time is up and there was too little data to know: " + r.text(s, r.StepTotal)
	if phi := r.phi(st.Pods.busy()); phi >= worthTelling {
		text += fmt.Sprintf("; stable's pods differ so much among themselves that it counts %.0f times less", phi)
	}
	return text
}

// worthTelling is the dispersion from which on it is why there is too little data.
const worthTelling = 2

func accepted(s Settings, st *State) string {
	if !st.compares() {
		if votes, _ := st.votes(s, func(*Criterion, *Metric) bool { return true }); votes == 0 {
			return "nothing is judged"
		}
		return cmp.Or(st.outvoted(s), "every metric is within its range")
	}
	r := st.pick(func(*Rate) float64 { return 0 }) // the first
	b := r.appendText(make([]byte, 0, messageSize), s, r.StepTotal)
	b = r.appendMargin(append(b, "; "...), s)
	others := " is ruled out"
	switch latency, alone := st.bounds() > 0, st.evidential()-st.bounds() <= 1; {
	case !alone && !latency && st.sameLine(s, r):
		others = " and as much of every other rate is ruled out"
	case !alone:
		others = " is ruled out, and of every other rate its own line"
	case latency && r.Bound == 0:
		b = st.Rates[len(st.Rates)-1].appendMargin(append(b, " and "...), s)
		others = " are ruled out"
	}
	b = append(append(b, others...), " (chance of error under "...)
	b = append(appendPercent(b, s.Beta), ')')
	if outvoted := st.outvoted(s); outvoted != "" {
		b = append(append(b, "; "...), outvoted...)
	}
	return string(b)
}

// sameLine says that acceptance rules out the same of all rates that are no latencies as of r.
func (st *State) sameLine(s Settings, r *Rate) bool {
	_, line := r.margins(&s)
	return !slices.ContainsFunc(st.Rates, func(o Rate) bool {
		_, other := o.margins(&s)
		return !o.DryRun && o.Bound == 0 && other != line
	})
}

// outvoted says which metrics are not where they should be, and why that decides nothing; empty: all are.
func (st *State) outvoted(s Settings) string {
	var not []string
	votes := 0
	for c, m := range st.voters(s, func(_ *Criterion, m *Metric) bool { return !m.accepted() }) {
		votes += c.Votes()
		switch {
		case m.Missing != "":
			not = append(not, fmt.Sprintf("metric %q has no value (%s)", m.Name, m.Missing))
		case m.Seen:
			not = append(not, m.text(c))
		default:
			not = append(not, fmt.Sprintf("metric %q has no value yet", m.Name))
		}
	}
	if len(not) == 0 {
		return ""
	}
	return fmt.Sprintf("the metrics that are not within their range have %d votes, of the %d that decide: %s", votes, Decisive, strings.Join(not, ", "))
}

// messageSize is enough for the messages that are made at every look, so that each is made in one go.
const messageSize = 512

func undecided(s Settings, st *State) string {
	if st.Weight <= 0 {
		return s.Candidate + " gets no requests yet"
	}
	if missing := st.missing(s); missing != "" {
		return "waiting for data: " + missing
	}
	if _, name := st.votes(s, awaited); name != "" && (st.InStep >= s.MaxStepTime || !st.compares()) {
		return fmt.Sprintf("waiting for metric %q, which warms up, is asked for seldom, or tells what it counted later", name)
	}
	if !st.compares() {
		return fmt.Sprintf("looking: looks with data in this step: %d", st.StepLooks)
	}
	r := st.hindmost()
	return string(r.appendText(append(make([]byte, 0, messageSize), "looking: "...), s, r.StepTotal))
}

// blindFor is for how long what was missing at the last look has been missing, in whole minutes from one on: a sentence that
// changes at every look is read by nobody.
func (st *State) blindFor(s Settings) time.Duration {
	longest := max(st.Blind, st.Latency.Blind, s.BlindAfter)
	for _, m := range st.voters(s, absent) {
		longest = max(longest, m.Age)
	}
	if longest >= time.Minute {
		return longest.Truncate(time.Minute)
	}
	return longest
}

// suspect is the rate with the most evidence against the candidate, hindmost the one with the least for
// it; without any, the errors as they were counted.
func (st *State) suspect() *Rate {
	return st.pick(func(r *Rate) float64 { return r.Share * r.harm(st.Injected) })
}

func (st *State) hindmost() *Rate {
	return st.pick(func(r *Rate) float64 { return -r.Acceptance.value() })
}

func (st *State) pick(by func(*Rate) float64) *Rate {
	if !st.compares() {
		r := &Rate{}
		r.Total.add(st.Total.errors())
		r.StepTotal.add(st.StepTotal.errors())
		return r
	}
	var best *Rate
	for i := range st.Rates {
		if r := &st.Rates[i]; !r.DryRun && (best == nil || by(r) > by(best)) {
			best = r
		}
	}
	return best
}

// rate is that of a cause; nil where there is none.
func (st *State) rate(cause string) *Rate {
	for i := range st.Rates {
		if st.Rates[i].Name == cause {
			return &st.Rates[i]
		}
	}
	return nil
}

// text is counts of both arms in words.
func (r *Rate) text(s Settings, t Tally) string {
	return string(r.appendText(nil, s, t))
}

func (r *Rate) appendText(b []byte, s Settings, t Tally) []byte {
	if r.isMetric() {
		b = fmt.Appendf(b, "metric %q counted ", strings.TrimPrefix(r.Name, CauseMetric))
		b = appendFailures(b, t.CandidateEvents, t.CandidateRequests)
		b = appendRate(append(append(append(b, " for "...), s.Candidate...), " ("...), t.CandidateEvents, t.CandidateRequests)
		b = appendFailures(append(b, "), "...), t.StableEvents, t.StableRequests)
		b = append(append(b, " for "...), s.Stable...)
		return append(appendRate(append(b, " ("...), t.StableEvents, t.StableRequests), ')')
	}
	b = appendFailures(b, t.CandidateEvents, t.CandidateRequests)
	b = append(append(b, " requests to "...), s.Candidate...)
	if r.Bound > 0 {
		b = append(append(b, " took longer than "...), seconds(r.Bound)...)
	} else {
		b = append(b, " failed"...)
	}
	b = appendRate(append(b, " ("...), t.CandidateEvents, t.CandidateRequests)
	b = appendFailures(append(b, "), "...), t.StableEvents, t.StableRequests)
	b = append(append(b, " to "...), s.Stable...)
	return append(appendRate(append(b, " ("...), t.StableEvents, t.StableRequests), ')')
}

// marginText is what acceptance has to rule out.
func (r *Rate) marginText(s Settings) string {
	return string(r.appendMargin(nil, s))
}

func (r *Rate) appendMargin(b []byte, s Settings) []byte {
	_, m := r.margins(&s)
	b = strconv.AppendFloat(b, m.Ratio, 'g', -1, 64)
	switch {
	case r.Bound > 0:
		b = append(b, " times stable's share of slow requests plus "...)
	case r.isMetric():
		b = append(b, " times stable's share plus "...)
	default:
		b = append(b, " times stable's error rate plus "...)
	}
	return append(strconv.AppendFloat(b, math.Round(m.Excess*1e8)/1e6, 'g', -1, 64), " percentage points"...)
}

// seconds is a latency for people: "250 ms", "2.5 s".
func seconds(v float64) string {
	if v < 1 {
		return strconv.FormatFloat(v*1000, 'g', 6, 64) + " ms"
	}
	return strconv.FormatFloat(v, 'g', 6, 64) + " s"
}

func appendFailures(b []byte, events, requests uint64) []byte {
	return appendCount(append(appendCount(b, events), " of "...), requests)
}

func appendRate(b []byte, events, requests uint64) []byte {
	if requests == 0 {
		return append(b, "no requests"...)
	}
	return appendPercent(b, float64(events)/float64(requests))
}

// percent is a share with about two digits: "5.8 %", "0.08 %", "100 %".
func percent(share float64) string { return string(appendPercent(nil, share)) }

func appendPercent(b []byte, share float64) []byte {
	p := 100 * share
	switch {
	case p == 0:
		return append(b, "0 %"...)
	case p < 0.01:
		return append(b, "under 0.01 %"...)
	}
	digits := max(0, 1-int(math.Floor(math.Log10(p))))
	b = strconv.AppendFloat(b, p, 'f', digits, 64)
	if digits > 0 {
		b = bytes.TrimRight(bytes.TrimRight(b, "0"), ".")
	}
	return append(b, " %"...)
}

// count is a number with thousands set apart: "3,790".
func count(n uint64) string { return string(appendCount(nil, n)) }

func appendCount(b []byte, n uint64) []byte {
	if n < 1000 {
		return strconv.AppendUint(b, n, 10)
	}
	b = append(appendCount(b, n/1000), ',')
	rest := n % 1000
	return append(b, byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}
