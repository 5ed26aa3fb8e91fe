// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMarginsFollowTheObjective(t *testing.T) {
	type margins struct{ Harm, Acceptance, HarmLatency, AcceptanceLatency Margin }
	for name, tc := range map[string]struct {
		settings Settings
		want     margins
	}{
		"none declared": {Settings{}, margins{defaultHarm, defaultAcceptance, defaultHarmLatency, defaultAcceptanceLatency}},
		"strict ones": {
			Settings{ErrorBudget: 0.0005, LatencyBudget: 0.01},
			margins{Margin{1.25, 0.00005}, defaultAcceptance, Margin{1.25, 0.001}, defaultAcceptanceLatency},
		},
		"what is no harm can be accepted": {
			Settings{ErrorBudget: 0.2, LatencyBudget: 0.5},
			margins{Margin{1.25, 0.02}, Margin{2, 0.02}, Margin{1.25, 0.05}, Margin{1.5, 0.05}},
		},
		"margins that are given": {
			Settings{ErrorBudget: 0.2, Harm: Margin{1.5, 0.01}, Acceptance: Margin{3, 0.03}},
			margins{Margin{1.5, 0.01}, Margin{3, 0.03}, defaultHarmLatency, defaultAcceptanceLatency},
		},
		"no budgets": {
			Settings{ErrorBudget: -1, LatencyBudget: 2},
			margins{defaultHarm, defaultAcceptance, defaultHarmLatency, defaultAcceptanceLatency},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.settings.withDefaults()
			if d := cmp.Diff(tc.want, margins{s.Harm, s.Acceptance, s.HarmLatency, s.AcceptanceLatency}); d != "" {
				t.Errorf("margins (-want +got):\n%s", d)
			}
		})
	}
}

// The same counts, under an objective that leaves room for them and without one.
func TestAnObjectiveDecides(t *testing.T) {
	worse := func(l *Look) {
		l.Candidate = map[string]Counts{"new": {Requests: 1000, Errors: 15}}
		l.Stable = map[string]Counts{"a": {Requests: 4500, Errors: 4}, "b": {Requests: 4500, Errors: 5}}
	}
	for objective, tc := range map[string]struct {
		budget float64
		want   Result
	}{"none": {0, Fail}, "80 %": {0.2, Pass}} {
		_, verdicts := looks(40, worse).play(Settings{ErrorBudget: tc.budget})
		if got := verdicts[len(verdicts)-1].Result; got != tc.want {
			t.Errorf("with objective %s: %s, want %s", objective, got, tc.want)
		}
	}
}
