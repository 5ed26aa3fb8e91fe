// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/headgate/headgate/api/v1alpha1"
)

// The record has every step's weight that was in force, also of the longest ladder, whose promotion has one for each pod: what is left out
// can't be replayed.
func TestEveryStepsWeightIsRecorded(t *testing.T) {
	s := &script{w: newWorld()}
	do := func(line string) {
		t.Helper()
		if err := s.command(words(line)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	steps := make([]string, 20)
	for i := range steps {
		steps[i] = fmt.Sprint(2 * (i + 1))
	}
	do("policy steps=" + strings.Join(steps, ",") + " maxDuration=1h")
	do("deployment n=80 template=v1")
	do("update v2")
	do("verdict Pass")
	for range 1000 {
		if do("tick 1s"); s.w.status.Phase == v1alpha1.PhaseIdle && len(s.w.status.History) > 0 {
			break
		}
	}
	if n := len(s.w.status.History); n != 1 {
		t.Fatalf("%d rollouts on record, want 1", n)
	}
	weights := s.w.status.History[0].Weights
	known := 0
	for _, w := range weights {
		if known < len(steps) && w.Step == int32(known) && fmt.Sprint(w.Weight) == steps[known] {
			known++
		}
	}
	if known != len(steps) || len(weights) > 64 {
		t.Errorf("%d weights are on record, those of %d of %d steps: %+v", len(weights), known, len(steps), weights)
	}
}
