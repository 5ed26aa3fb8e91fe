// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

// Result is what one look, together with all looks before it, says about the candidate in its step.
type Result string

// Results.
const (
	// Undecided: go on looking. Also what missing data says.
	Undecided Result = "Undecided"
	// Pass: the step is accepted; the caller may advance.
	Pass Result = "Pass"
	// Fail: the candidate is worse than the margin allows; roll back. It stays for the rollout's life.
	Fail Result = "Fail"
	// Hold: there is data enough, or something is wrong with the measurement; do not advance.
	Hold Result = "Hold"
	// Inconclusive: the step's time is up and there was too little data to know.
	Inconclusive Result = "Inconclusive"
)

// Causes: stable words for machines. A user's metric adds its name to CauseMetric ("Metric/checkout").
const (
	// CauseErrorRate with Fail: the candidate fails more requests than stable plus the margin.
	CauseErrorRate = "ErrorRate"
	// CauseLatency with Fail: more of the candidate's requests are slower than a bound than of stable's
	// plus the margin. The bound in seconds follows ("Latency/0.25").
	CauseLatency = "Latency/"
	// CauseMetric with Fail: the metric stayed outside its range, or, of a rate, the candidate has more than stable plus
	// the margin. With Hold: it is outside at the time limit.
	CauseMetric = "Metric/"
	// CauseBlind with Hold: data has been missing for longer than Settings.BlindAfter.
	CauseBlind = "Blind"
	// CauseNoSplit with Hold: stable completes requests, the candidate far fewer than its weight; or its pods can't be reached.
	CauseNoSplit = "NoSplit"
	// CauseNoAnswers with Hold: requests reach the candidate, and most of them are not answered. It may
	// be slow ones; the caller decides how long that may go on.
	CauseNoAnswers = "NoAnswers"
	// CauseSuspicious with Hold: the time is up, and the evidence of harm is halfway to a Fail.
	CauseSuspicious = "Suspicious"
	// CauseNotAccepted with Hold: the time is up and a candidate as good as stable would have passed.
	CauseNotAccepted = "NotAccepted"
	// CauseTooLittleData with Inconclusive.
	CauseTooLittleData = "TooLittleData"
	// CauseAccepted with Pass.
	CauseAccepted = "Accepted"
)

// Verdict is the word of the analysis with its reasons.
type Verdict struct {
	// Result is never empty.
	Result Result `json:"result"`
	// Cause is one of the Causes; empty when Undecided.
	Cause string `json:"cause,omitempty"`
	// Message is one plain sentence for people. It holds counts, so it changes at every look: take
	// Result and Cause to tell whether anything has happened.
	Message string `json:"message,omitempty"`
	// Evidence is what it rests on.
	Evidence Evidence `json:"evidence"`
}

// Evidence are the numbers behind a Verdict.
type Evidence struct {
	// CandidateRequests and the three below are counts since the rollout's first look.
	CandidateRequests int64 `json:"candidateRequests"`
	CandidateErrors   int64 `json:"candidateErrors"`
	StableRequests    int64 `json:"stableRequests"`
	StableErrors      int64 `json:"stableErrors"`
	// Step are the same counts since the current step began.
	Step StepCounts `json:"step"`
	// Harm is the e-value against the candidate. Without harm it is expected to be at most 1, however
	// often one looks; at HarmThreshold (1/alpha) the candidate fails.
	// Zero where no rate is compared.
	Harm          float64 `json:"harm,omitempty"`
	HarmThreshold float64 `json:"harmThreshold,omitempty"`
	// Acceptance is the smallest e-value for the candidate in this step among what is judged; the
	// candidate is accepted at AcceptanceThreshold (1/beta).
	Acceptance          float64 `json:"acceptance,omitempty"`
	AcceptanceThreshold float64 `json:"acceptanceThreshold,omitempty"`
	// Rates are the compared rates one by one.
	Rates []RateEvidence `json:"rates,omitempty"`
	// Metrics are the users' metrics that are no rates.
	Metrics []MetricEvidence `json:"metrics,omitempty"`
	// Looks is how many looks with data there were, StepLooks how many of them in this step.
	Looks     int64 `json:"looks"`
	StepLooks int64 `json:"stepLooks"`
	// StepTime is for how many seconds the step has been judged: looks at which data was missing are left out.
	StepTime float64 `json:"stepTime"`
	// Missing says in words what data was missing at the last look; empty when nothing was.
	Missing string `json:"missing,omitempty"`
}

// StepCounts are counts since the current step began.
type StepCounts struct {
	CandidateRequests int64 `json:"candidateRequests"`
	CandidateErrors   int64 `json:"candidateErrors"`
	StableRequests    int64 `json:"stableRequests"`
	StableErrors      int64 `json:"stableErrors"`
}

// RateEvidence is what there is about one compared rate.
type RateEvidence struct {
	// Name is the cause that a Fail would have: CauseErrorRate, CauseLatency with the bound, or CauseMetric with the
	// metric's name.
	Name string `json:"name"`
	// Total are the counts since the rollout's first look, Step since the current step began. Latency
	// leaves out pods that are warming up.
	Total Tally `json:"total"`
	Step  Tally `json:"step"`
	// Harm is the rate's e-value against the candidate, Share its part in the rollout's.
	Harm  float64 `json:"harm"`
	Share float64 `json:"share"`
	// Acceptance is its e-value for the candidate.
	Acceptance float64 `json:"acceptance"`
	// Phi is by how much evidence is tempered because stable's pods differ; 1 is not at all.
	Phi float64 `json:"phi"`
	// DryRun says that the verdict does not rest on it.
	DryRun bool `json:"dryRun,omitempty"`
	// Missing says why a user's rate had no value when it was asked for last; empty when it had one.
	Missing string `json:"missing,omitempty"`
}

// MetricEvidence is what there is about a user's metric.
type MetricEvidence struct {
	Name string `json:"name"`
	// Known says that there was a value in this step; Value is the last one, Stable what it was compared with, if it
	// was Compared.
	Known    bool    `json:"known,omitempty"`
	Value    float64 `json:"value"`
	Compared bool    `json:"compared,omitempty"`
	Stable   float64 `json:"stable,omitempty"`
	// Outside is how many values in a row were outside the range, at most the number that decides.
	Outside int `json:"outside,omitempty"`
	// DryRun says that the verdict does not rest on it.
	DryRun bool `json:"dryRun,omitempty"`
	// Missing says why there was no value when it was asked for last; empty when there was one.
	Missing string `json:"missing,omitempty"`
}
