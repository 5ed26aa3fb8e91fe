// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// remembering has counters of the past too: a request a second and pod.
type remembering struct {
	counters
	asked *[]prometheus.Span
	err   error
	// minutes is how far back they go at most; 0: as far as one asks.
	minutes int
}

func (r remembering) Past(_ context.Context, t prometheus.Target, span prometheus.Span) (out []analysis.Look, _ error) {
	*r.asked = append(*r.asked, span)
	if r.err != nil {
		return nil, r.err
	}
	if least := span.To.Add(-time.Duration(r.minutes) * time.Minute); r.minutes > 0 && span.From.Before(least) {
		span.From = least
	}
	for at := span.From; !at.After(span.To); at = at.Add(span.Every) {
		out = append(out, analysis.Look{Time: at, Step: t.Step, Weight: t.Weight, Stable: map[string]analysis.Counts{"s1": {Requests: 60}, "s2": {Requests: 60}}})
	}
	return out, nil
}

func TestTheJudgeLearnsOnceWhatWasBefore(t *testing.T) {
	starting := func(change func(*v1alpha1.RolloutStatus)) *v1alpha1.Rollout {
		r := record()
		r.Status.Phase, r.Status.Weight, r.Status.WeightInForce = v1alpha1.PhaseStarting, 0, 0
		change(&r.Status)
		return r
	}
	half := prometheus.Span{From: at(0).Add(-LookInterval - 30*time.Minute), To: at(-5), Every: time.Minute}
	for name, tc := range map[string]struct {
		rollout *v1alpha1.Rollout
		want    []prometheus.Span
		minutes int
	}{
		"as long as the judge remembers": {starting(func(*v1alpha1.RolloutStatus) {}), []prometheus.Span{half}, 30},
		"not when another version was stable": {
			starting(func(s *v1alpha1.RolloutStatus) {
				s.History = []v1alpha1.HistoryEntry{{To: s.Stable.Hash, EndedAt: metaAt(-4000)}, {To: s.Stable.Hash, EndedAt: metaAt(-305)}, {From: s.Stable.Hash, To: "bad", EndedAt: metaAt(0)}}
			}),
			[]prometheus.Span{{From: at(-305), To: at(-5), Every: time.Minute}}, 5,
		},
		"up to the start of one that is not the newest": {
			starting(func(s *v1alpha1.RolloutStatus) { s.StartedAt = &metav1.MicroTime{Time: at(-60)} }),
			[]prometheus.Span{{From: at(-60).Add(-30 * time.Minute), To: at(-60), Every: time.Minute}}, 30,
		},
		"also when pods were ready before the first look": {
			starting(func(s *v1alpha1.RolloutStatus) { s.Phase, s.WeightInForce = v1alpha1.PhaseStepping, 10 }), []prometheus.Span{half}, 30,
		},
		"not when it was judged already": {starting(func(s *v1alpha1.RolloutStatus) { s.JudgeState = "{}" }), nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []prometheus.Span
			l, _ := watching(t, remembering{counters: healthy, asked: &asked}, tc.rollout)
			lookFrom(t, l, 0, 3)
			if diff := cmp.Diff(tc.want, asked); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
			key := types.NamespacedName{Namespace: tc.rollout.Namespace, Name: tc.rollout.Name}
			got, state := 0, l.judged[key].state
			switch {
			case state.History != nil:
				got = len(state.History.Blocks)
			case len(state.Rates) > 0:
				got = state.Rates[0].Baseline.Minutes
			}
			if got != tc.minutes {
				t.Errorf("the judge remembers %d minutes, want %d", got, tc.minutes)
			}
			if _, text := l.Verdict(key, &tc.rollout.Status); state.History != nil && text != "" {
				t.Errorf("%d bytes are to be recorded of what can be asked for again", len(text))
			}
		})
	}
}

func TestWithoutAPastItIsJudgedAllTheSame(t *testing.T) {
	r := record()
	r.Status.Phase, r.Status.WeightInForce = v1alpha1.PhaseStarting, 0
	var asked []prometheus.Span
	l, woken := watching(t, remembering{counters: healthy, asked: &asked, err: errors.New("too many samples")}, r)
	if err := l.look(t.Context(), at(0))(); err == nil || !strings.Contains(err.Error(), "before the rollout of shop/web: too many samples") {
		t.Errorf("the error is %v, want one that says what is missing", err)
	}
	lookFrom(t, l, 5, 1)
	if len(asked) != 1 || len(*woken) != 2 {
		t.Errorf("asked for the past %d times, judged %d times; want 1 and 2", len(asked), len(*woken))
	}
}
