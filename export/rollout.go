// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/replay"
)

// rollout is one that is under way, or was.
type rollout struct {
	from, to string // pod-template-hashes of stable and candidate
	began    time.Time
	ended    time.Time // rounded up to a second; now, while it is under way
	weights  []v1alpha1.WeightRecord
	stable   time.Time // since when from was stable; zero: since before all that is on record
	of       replay.Rollout
}

// find has the rollout that so many others have followed.
func find(s *v1alpha1.RolloutStatus, back int, now time.Time) (rollout, error) {
	var all []rollout // oldest first
	for i, h := range s.History {
		all = append(all, rollout{
			h.From, h.To, h.StartedAt.Time, h.EndedAt.Add(time.Second), h.Weights, v1alpha1.StableSince(s.History[:i], h.From), past(&h),
		})
	}
	if s.Phase.UnderWay() && s.StartedAt != nil && s.Candidate.Hash != "" { // else the history has it
		all = append(all, rollout{
			s.Stable.Hash, s.Candidate.Hash, s.StartedAt.Truncate(time.Second), now, s.Weights, v1alpha1.StableSince(s.History, s.Stable.Hash), present(s),
		})
	}
	switch {
	case len(all) == 0:
		return rollout{}, errors.New("it has had no rollout yet")
	case back < 0 || back >= len(all):
		return rollout{}, fmt.Errorf("it has %d rollouts on record; expected from 0, the newest, to %d", len(all), len(all)-1)
	}
	r := all[len(all)-1-back]
	if len(r.weights) == 0 {
		return rollout{}, fmt.Errorf("the rollout from %s to %s has no weight on record: the candidate got no requests, or an earlier version of Headgate had it", r.from, r.to)
	}
	return r, nil
}

// present is what the looks at the rollout that is under way are of.
func present(s *v1alpha1.RolloutStatus) replay.Rollout {
	out := replay.Rollout{Stable: s.Stable.Hash, Candidate: s.Candidate.Hash, Replicas: s.Replicas, Autoscaled: s.Autoscaled, Policy: judgedBy(s.Policy)}
	if p := out.Policy; p != nil { // as the history keeps it
		out.Metrics = len(p.Analysis.Metrics)
		p.Analysis.Metrics, p.Analysis.Prometheus = nil, nil
	}
	return out
}

// past is what the looks at a rollout that is over were of.
func past(h *v1alpha1.HistoryEntry) replay.Rollout {
	out := replay.Rollout{Stable: h.From, Candidate: h.To, Replicas: h.Replicas, Autoscaled: h.Autoscaled, Policy: judgedBy(h.Policy)}
	if h.Verdict != nil && h.Verdict.Evidence != nil {
		out.Metrics = len(h.Verdict.Evidence.Metrics)
		for _, rate := range h.Verdict.Evidence.Rates {
			if strings.HasPrefix(rate.Name, analysis.CauseMetric) {
				out.Metrics++
			}
		}
	}
	return out
}

// judgedBy is a policy as the record has it; nil where it has none.
func judgedBy(text string) *v1alpha1.RolloutPolicySpec {
	var p v1alpha1.RolloutPolicySpec
	if json.Unmarshal([]byte(text), &p) != nil {
		return nil
	}
	return &p
}

// before is the time before a rollout in which its stable revision was just that, up to the last moment before its looks.
func (r rollout) before(most, every time.Duration) prometheus.Span {
	return prometheus.Before(r.during(every).From.Add(-replay.Interval), r.stable, most)
}

// during is the time of the rollout, looked at when the control plane did: at whole multiples of its interval. The last look led
// to the rollout's end, and without that it may have been another verdict.
func (r rollout) during(every time.Duration) prometheus.Span {
	began := r.began
	if first := r.weights[0]; first.Waiting && first.Since.After(began) { // since when it is known what the candidate is
		began = first.Since.Time
	}
	from, to := slotAfter(began), r.ended.Truncate(replay.Interval)
	if last := r.weights[len(r.weights)-1]; last.Weight == 0 && last.Since.After(r.ended) {
		to = slotAfter(last.Since.Time)
	}
	if to.Before(from) {
		to = from
	}
	return prometheus.Span{From: to.Add(-to.Sub(from).Truncate(every)), To: to, Every: every}
}

// slotAfter is when the control plane looks first after a moment.
func slotAfter(t time.Time) time.Time { return t.Truncate(replay.Interval).Add(replay.Interval) }

// recorded is a look with what the one at that moment was told. What came in force at the same moment came after it.
func (r rollout) recorded(look analysis.Look) replay.Recorded {
	out := replay.Recorded{Look: look}
	out.Step, out.Weight, out.Since, out.Paused = 0, 0, time.Time{}, false
	var before v1alpha1.WeightRecord
	for i, w := range r.weights {
		if !w.Since.Time.Before(look.Time) {
			break
		}
		switch {
		case w.Waiting:
			out.Since = time.Time{}
		case i == 0 || before.Waiting || before.Step != w.Step: // the step began, or began again
			out.Since = w.Since.Time
		}
		out.Step, out.Weight, out.Waiting, out.Paused, out.JudgedFor = int(w.Step), int(w.Weight), w.Waiting, w.Paused, 0
		if w.JudgedFor != nil {
			out.JudgedFor = w.JudgedFor.Duration
		}
		before = w
	}
	return out
}
