// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"encoding/json"
	"testing"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// input is all that Decide is given.
type input struct {
	Policy      *v1alpha1.RolloutPolicySpec
	Status      v1alpha1.RolloutStatus
	Observation rollout.Observation
}

// inputs are what Decide was given in a story.
func inputs(tb testing.TB, lines ...string) (all []input) {
	tb.Helper()
	s := &script{w: newWorld()}
	s.check = func(before status, o rollout.Observation, _ rollout.Decision) {
		all = append(all, input{s.w.policy, before, o})
	}
	for _, line := range lines {
		s.looked = false
		if err := s.command(words(line)); err != nil {
			tb.Fatalf("%s: %v", line, err)
		}
		if !s.looked {
			s.look()
		}
	}
	return all
}

// FuzzDecide: whatever a record and an observation say, there is a Decision, and it can be stored.
func FuzzDecide(f *testing.F) {
	for _, story := range [][]string{
		{"deployment n=4", "update v2", "run 5s", "verdict Pass", "run 30s"},
		{"policy steps=10@approval,50@1m onFailure=Revert", "deployment n=10 hpa", "update v2", "run 5s", "verdict Pass", "run 2s", "approve", "run 5s", "pause", "tick 1s", "verdict Fail ErrorRate errors", "run 3s", "resume", "run 40s"},
		{"policy steps=50", "deployment n=4", "update v2", "run 4s", "verdict Pass", "run 4s", "verdict Fail ErrorRate errors", "run 3s"},
		{"deployment n=4", "pods v2 crash", "update v2", "run 30s", "pods v2 ok", "retry", "run 5s", "scale 0", "run 2s"},
		{"deployment n=4", "update v2", "run 5s", "policy none", "tick 40s", "run 3s", "slip v3", "run 3s"},
	} {
		for _, in := range inputs(f, story...) {
			seed, err := json.Marshal(in)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(seed)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var in input
		if json.Unmarshal(data, &in) != nil {
			t.Skip()
		}
		d := rollout.Decide(in.Policy, in.Status, in.Observation)
		if d.Reason == "" {
			t.Error("a Decision without a reason")
		}
		if d.Hold != nil && d.Hold.K < 1 {
			t.Errorf("a hold that can't be read: %s", d.Hold)
		}
		if d.Hold != nil && d.Hold.Release == "" && in.Observation.Deployment.Hold == nil {
			if _, err := v1alpha1.ParseHold(d.Hold.String()); err != nil {
				t.Error(err)
			}
		}
		if _, err := json.Marshal(d.Status); err != nil {
			t.Errorf("a record that can't be stored: %v", err)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	for name, story := range map[string][]string{
		"idle":        {"deployment n=100", "tick 1s"},
		"judging":     {"deployment n=100", "update v2", "run 10s"},
		"promoting":   {"policy steps=50", "deployment n=100", "update v2", "run 4s", "verdict Pass", "run 3s"},
		"quarantined": {"deployment n=100", "update v2", "run 5s", "verdict Fail ErrorRate errors", "run 5s"},
	} {
		all := inputs(b, story...)
		in := all[len(all)-1]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rollout.Decide(in.Policy, in.Status, in.Observation)
			}
		})
	}
}
