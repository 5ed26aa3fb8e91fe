// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
)

// IntOrPercent is a number or a percentage of N.
type IntOrPercent = intstr.IntOrString

// Defaults of a policy; each is what the empty spec means.
const (
	DefaultMaxDuration      = 4 * time.Minute // below the 5 minutes that helm --wait and most pipelines grant
	DefaultProgressDeadline = 2 * time.Minute
	DefaultQuarantineTTL    = 24 * time.Hour
)

// MaxQueries is how long the queries of a policy's metrics may be together, in characters, those of templates with their
// arguments included: so the record has room for every policy.
const MaxQueries = 16384

// EffectiveSteps are the policy's steps, or the default ladder 10, 25, 50.
func (s *RolloutPolicySpec) EffectiveSteps() []Step {
	if len(s.Steps) > 0 {
		return s.Steps
	}
	return []Step{{Weight: 10}, {Weight: 25}, {Weight: 50}}
}

// Untested says that, and what to do where, a candidate is promoted without a single request; empty: it is not. The API server
// refuses such steps, but it sees no files, and its definitions may be older than that rule.
func (s *RolloutPolicySpec) Untested() string {
	if slices.ContainsFunc(s.EffectiveSteps(), func(s Step) bool { return s.Weight > 0 || s.Approval }) {
		return ""
	}
	return "no step sends a request to the candidate, and none waits for approval: give a step a weight above 0, or approval: true"
}

// EffectiveMaxDuration is MaxDuration or its default.
func (s *RolloutPolicySpec) EffectiveMaxDuration() time.Duration {
	if s.MaxDuration == nil || s.MaxDuration.Duration <= 0 {
		return DefaultMaxDuration
	}
	return s.MaxDuration.Duration
}

// EffectiveProgressDeadline is ProgressDeadline or its default.
func (s *RolloutPolicySpec) EffectiveProgressDeadline() time.Duration {
	if s.ProgressDeadline == nil || s.ProgressDeadline.Duration <= 0 {
		return DefaultProgressDeadline
	}
	return s.ProgressDeadline.Duration
}

// EffectiveQuarantineTTL is QuarantineTTL or its default.
func (s *RolloutPolicySpec) EffectiveQuarantineTTL() time.Duration {
	if s.QuarantineTTL == nil || s.QuarantineTTL.Duration <= 0 {
		return DefaultQuarantineTTL
	}
	return s.QuarantineTTL.Duration
}

// UnderWay says that a rollout is in this phase, and its end is not decided.
func (p Phase) UnderWay() bool {
	switch p {
	case PhaseStarting, PhaseStepping, PhasePaused, PhasePromoting:
		return true
	}
	return false
}

// StableSince is when a stable revision (a pod-template-hash) became that, by the past rollouts; the zero time where it was
// before all of them. Of a revision that was never stable it is when its rollout failed.
func StableSince(history []HistoryEntry, revision string) (since time.Time) {
	for _, h := range history {
		if h.To == revision {
			since = h.EndedAt.Time
		}
	}
	return since
}

// CandidateReplicas is k for a step of a workload with n replicas: at least 1, at most n (a workload
// never needs more candidates than it has pods), and under an autoscaler at most a tenth of n, because
// pods that are not ready count in its arithmetic.
func (s Step) CandidateReplicas(n int32, autoscaled bool) int32 {
	k := ceilPercent(s.Weight, n)
	if s.Replicas != nil {
		if v, err := intstr.GetScaledValueFromIntOrPercent(s.Replicas, int(n), true); err == nil {
			k = int32(min(v, 1<<20))
		}
	}
	if autoscaled {
		k = min(k, n/10)
	}
	return max(1, min(k, n))
}

func ceilPercent(percent, n int32) int32 {
	return int32((int64(percent)*int64(n) + 99) / 100)
}

// Queries are all that is asked for a metric, to be read or changed: none where that comes from a template.
func (s *MetricSpec) Queries() []*string {
	var out []*string
	if s.Query != "" {
		out = append(out, &s.Query)
	}
	if s.Rate != nil {
		out = append(out, &s.Rate.Numerator, &s.Rate.Denominator)
	}
	return out
}

// ImpossibleBounds says why no value could be within a metric's bounds; empty: some could. The API server refuses such a
// metric, but it sees no files, and its definitions may be older than that rule.
func (s *MetricSpec) ImpossibleBounds() string {
	if r := s.Range; r != nil && r.Min != nil && r.Max != nil && decimal(r.Min, 0) > decimal(r.Max, 0) {
		return fmt.Sprintf("its range is upside down: min is %s and max %s; lower min or raise max", *r.Min, *r.Max)
	}
	if c := s.ComparedToStable; c != nil && c.Min != nil && c.Max != nil {
		ratio := decimal(c.Min.Ratio, 1) - decimal(c.Max.Ratio, 1)
		difference := decimal(c.Min.Difference, 0) - decimal(c.Max.Difference, 0)
		if ratio >= 0 && difference >= 0 && ratio+difference > 0 {
			return "min is above max, whatever stable's value is; lower min's ratio or difference, or raise max's (default: ratio 1, difference 0)"
		}
	}
	return ""
}

// Budget is what the objective leaves for errors, as a share of the requests; 0 without an objective.
func (s *SuccessRate) Budget() float64 { return budget(s.Objective) }

// Budget is what the objective leaves for requests slower than Bound, as a share of the requests; 0 without an objective.
func (l *Latency) Budget() float64 { return budget(l.Objective) }

func budget(objective *string) float64 { return 1 - decimal(objective, 100)/100 }

// EffectiveBound is Bound, or 0: several bounds.
func (l *Latency) EffectiveBound() time.Duration {
	if l.Bound == nil {
		return 0
	}
	return l.Bound.Duration
}

// decimal is the number in a string of the API's, or the default where there is none.
func decimal(s *string, def float64) float64 {
	if s == nil {
		return def
	}
	v, err := strconv.ParseFloat(*s, 64)
	if err != nil { // the API server takes numbers only
		return def
	}
	return v
}
