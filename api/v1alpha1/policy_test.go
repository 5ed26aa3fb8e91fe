// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"strings"
	"testing"
)

func TestBoundsThatNoValueCanBeWithin(t *testing.T) {
	text := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	line := func(ratio, difference string) *Line { return &Line{Ratio: text(ratio), Difference: text(difference)} }
	for name, tc := range map[string]struct {
		metric MetricSpec
		want   string // part of what is said; empty: nothing
	}{
		"no bounds at all":                    {MetricSpec{}, ""},
		"a range":                             {MetricSpec{Range: &Range{Min: text("-2"), Max: text("-1.5")}}, ""},
		"a range of one value":                {MetricSpec{Range: &Range{Min: text("1"), Max: text("1.0")}}, ""},
		"a range that is open":                {MetricSpec{Range: &Range{Min: text("5")}}, ""},
		"a range that is upside down":         {MetricSpec{Range: &Range{Min: text("10"), Max: text("9.5")}}, "min is 10 and max 9.5; lower min or raise max"},
		"a comparison":                        {MetricSpec{ComparedToStable: &Comparison{Min: line("0.8", ""), Max: line("1.2", "5")}}, ""},
		"a comparison that is open":           {MetricSpec{ComparedToStable: &Comparison{Max: line("", "-5")}}, ""},
		"a comparison with one value":         {MetricSpec{ComparedToStable: &Comparison{Min: line("1", ""), Max: line("", "0")}}, ""},
		"lines that cross, below":             {MetricSpec{ComparedToStable: &Comparison{Min: line("0.5", ""), Max: line("", "-3")}}, ""},
		"lines that cross, above":             {MetricSpec{ComparedToStable: &Comparison{Min: line("1.2", ""), Max: line("", "5")}}, ""},
		"a comparison that is upside down":    {MetricSpec{ComparedToStable: &Comparison{Min: line("1.2", ""), Max: line("0.8", "")}}, "raise max's"},
		"upside down by the difference":       {MetricSpec{ComparedToStable: &Comparison{Min: line("", "5"), Max: line("", "-1")}}, "raise max's"},
		"upside down beside a default":        {MetricSpec{ComparedToStable: &Comparison{Min: line("1.1", ""), Max: line("", "0")}}, "raise max's"},
		"what the API server does not let in": {MetricSpec{Range: &Range{Min: text("many"), Max: text("1")}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := tc.metric.ImpossibleBounds()
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("it says %q, want %q", got, tc.want)
			}
		})
	}
}

func TestUntestedSteps(t *testing.T) {
	for name, tc := range map[string]struct {
		steps []Step
		want  bool
	}{
		"none are the default ones": {nil, false},
		"a weight":                  {[]Step{{Weight: 0}, {Weight: 1}}, false},
		"an approval":               {[]Step{{Weight: 0, Approval: true}, {Weight: 0}}, false},
		"neither":                   {[]Step{{Weight: 0}, {Weight: 0}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (&RolloutPolicySpec{Steps: tc.steps}).Untested() != ""; got != tc.want {
				t.Errorf("untested is %t", got)
			}
		})
	}
}
