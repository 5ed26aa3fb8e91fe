// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

func TestEffectiveSteps(t *testing.T) {
	for name, tc := range map[string]struct {
		steps      string
		n          int32
		autoscaled bool
		want       []int32
	}{
		"without an autoscaler all steps are kept":                        {steps: "10,25,50", n: 4, want: []int32{10, 25, 50}},
		"a tenth of 100 carries no more than 10 percent":                  {steps: "5,10,11,50", n: 100, autoscaled: true, want: []int32{5, 10}},
		"one pod of two is half of them":                                  {steps: "10,25,50,75", n: 2, autoscaled: true, want: []int32{10, 25, 50}},
		"one pod of one carries everything":                               {steps: "10,50,99", n: 1, autoscaled: true, want: []int32{10, 50, 99}},
		"when none fits, the first is made as small as must be":           {steps: "50", n: 10, autoscaled: true, want: []int32{10}},
		"the user's word that fewer pods carry more is taken":             {steps: "10,50/1", n: 10, autoscaled: true, want: []int32{10, 50}},
		"the wish for more pods than the weight needs leaves no step out": {steps: "10/5", n: 10, autoscaled: true, want: []int32{10}},
		"nothing to divide at N = 0":                                      {steps: "10,50", n: 0, autoscaled: true, want: []int32{10, 50}},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := steps(tc.steps)
			if err != nil {
				t.Fatal(err)
			}
			var got []int32
			for _, s := range rollout.EffectiveSteps(&v1alpha1.RolloutPolicySpec{Steps: parsed}, tc.n, tc.autoscaled) {
				got = append(got, s.Weight)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
		})
	}
}
