// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"math"
	"strconv"
	"strings"
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
		StepLooks: st.StepLooks,
		Missing:   st.missing(),
	}
	if len(st.Rates) > 0 {
		out.Harm, out.HarmThreshold = number(e.harm), number(1/s.Alpha)
		out.Acceptance, out.AcceptanceThreshold = number(e.accepted), number(1/s.Beta)
	}
	return out
}

// missing says what was missing at the last look.
func (st *State) missing() string {
	var parts []string
	if st.Missing {
		parts = append(parts, "request counters"+orDefault(st.Reason == "", "", " ("+st.Reason+")"))
	}
	for i := range st.Metrics {
		if m := &st.Metrics[i]; m.Missing != "" {
			parts = append(parts, fmt.Sprintf("metric %q (%s)", m.Name, m.Missing))
		}
	}
	return bounded(strings.Join(parts, ", "), 4*maxMissing)
}

// number is an e-value to three digits.
func number(v float64) string {
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// message is the verdict as a sentence.
func message(s Settings, st *State, v Verdict) string {
	name, isMetric := strings.CutPrefix(v.Cause, CauseMetric)
	switch {
	case isMetric && v.Result == Fail:
		return fmt.Sprintf("metric %q was outside its range (%s) %d times in a row", name, s.rangeOf(name), looksOutside)
	case isMetric:
		return fmt.Sprintf("the step's time is up and metric %q is outside its range (%s)", name, s.rangeOf(name))
	}
	switch v.Cause {
	case CauseErrorRate:
		return fmt.Sprintf("%s; chance of that without harm under %s", compared(s, st.Total), percent(s.Alpha))
	case CauseBlind:
		return fmt.Sprintf("data has been missing for %s or longer: %s", s.BlindAfter, st.missing())
	case CauseNoSplit:
		return fmt.Sprintf("%s completed %s of %s requests in this step, far below its weight of %d %%: the requests are not split",
			s.Candidate, count(st.StepTotal.CandidateRequests), count(st.StepTotal.CandidateRequests+st.StepTotal.StableRequests), st.Weight)
	case CauseNoAnswers:
		return fmt.Sprintf("%s answered %s of the %s requests that it got in this step, while %s answers", s.Candidate,
			count(st.StepTotal.CandidateRequests), count(st.StepTotal.CandidateStarted), s.Stable)
	case CauseSuspicious:
		return "the step's time is up and there are signs of harm: " + compared(s, st.Total)
	case CauseNotAccepted:
		return fmt.Sprintf("the step's time is up; there was data enough, but it does not rule out %s: %s",
			s.Acceptance.text(), compared(s, st.StepTotal))
	case CauseTooLittleData:
		return "the step's time is up and there was too little data to know: " + compared(s, st.StepTotal)
	case CauseAccepted:
		return accepted(s, st)
	}
	return undecided(s, st)
}

func accepted(s Settings, st *State) string {
	if len(st.Rates) == 0 {
		return "every metric is within its range"
	}
	return fmt.Sprintf("%s; %s is ruled out (chance of error under %s)", compared(s, st.StepTotal), s.Acceptance.text(), percent(s.Beta))
}

func undecided(s Settings, st *State) string {
	if st.Weight <= 0 {
		return s.Candidate + " gets no requests yet"
	}
	if missing := st.missing(); missing != "" {
		return "waiting for data: " + missing
	}
	return "looking: " + compared(s, st.StepTotal)
}

// compared is the counts of both arms in words.
func compared(s Settings, t Totals) string {
	return fmt.Sprintf("%s to %s failed (%s), %s to %s (%s)",
		failures(t.CandidateErrors, t.CandidateRequests)+" requests", s.Candidate, rate(t.CandidateErrors, t.CandidateRequests),
		failures(t.StableErrors, t.StableRequests), s.Stable, rate(t.StableErrors, t.StableRequests))
}

func failures(errors, requests uint64) string {
	return count(errors) + " of " + count(requests)
}

func rate(errors, requests uint64) string {
	if requests == 0 {
		return "no requests"
	}
	return percent(float64(errors) / float64(requests))
}

// percent is a share with about two digits: "5.8 %", "0.08 %", "100 %".
func percent(share float64) string {
	p := 100 * share
	switch {
	case p == 0:
		return "0 %"
	case p < 0.01:
		return "under 0.01 %"
	}
	digits := max(0, 1-int(math.Floor(math.Log10(p))))
	text := strconv.FormatFloat(p, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + " %"
}

// count is a number with thousands set apart: "3,790".
func count(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// text is the acceptance margin for people.
func (m Margin) text() string {
	return fmt.Sprintf("%g times stable's error rate plus %g percentage points", m.Ratio, math.Round(m.Excess*1e8)/1e6)
}

// rangeOf is the range of the metric of that name, for people.
func (s Settings) rangeOf(name string) string {
	for _, r := range s.Metrics {
		if r.Name == name {
			return r.text()
		}
	}
	return "no longer set"
}
