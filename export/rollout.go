// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"errors"
	"fmt"
	"time"

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
}

// find has the rollout that so many others have followed.
func find(s *v1alpha1.RolloutStatus, back int, now time.Time) (rollout, error) {
	var all []rollout // oldest first
	for i, h := range s.History {
		all = append(all, rollout{h.From, h.To, h.StartedAt.Time, h.EndedAt.Add(settle), h.Weights, v1alpha1.StableSince(s.History[:i], h.From)})
	}
	if s.Phase.UnderWay() && s.StartedAt != nil && s.Candidate.Hash != "" { // else the history has it
		all = append(all, rollout{s.Stable.Hash, s.Candidate.Hash, s.StartedAt.Time, now, s.Weights, v1alpha1.StableSince(s.History, s.Stable.Hash)})
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

// before is the time before a rollout in which its stable revision was just that.
func (r rollout) before(most time.Duration) prometheus.Span {
	return prometheus.Before(r.began.Add(-replay.Interval), r.stable, most)
}

// during is the time of the rollout. One of its looks is when the last weight ended, rounded up to a second: the look that led to
// it has seen what was counted until then, and without that it may have been another verdict.
func (r rollout) during(every time.Duration) prometheus.Span {
	last := r.ended
	if w := r.weights[len(r.weights)-1]; w.Weight == 0 {
		last = w.Since.Truncate(settle).Add(settle)
	}
	to := r.ended
	if last.After(to) {
		to = last
	}
	return prometheus.Span{From: last.Add(-last.Sub(r.began).Truncate(every)), To: to, Every: every}
}

// settle is how long it takes from a look that changes the weight until the new one is in force.
const settle = time.Second

// at is the step and the weight that a look was made by.
func (r rollout) at(look time.Time) (step, weight int) {
	for _, w := range r.weights {
		if !w.Since.Time.Before(look.Add(-settle)) {
			break
		}
		step, weight = int(w.Step), int(w.Weight)
	}
	return step, weight
}
