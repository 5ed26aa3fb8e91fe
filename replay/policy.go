// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"fmt"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/api/v1alpha1"
)

// Interval is the planned time between looks.
const Interval = 5 * time.Second

// Policy reads a RolloutPolicy or ClusterRolloutPolicy.
func Policy(text []byte) (*v1alpha1.RolloutPolicySpec, error) {
	var p v1alpha1.RolloutPolicy // a ClusterRolloutPolicy has the same spec
	if err := yaml.UnmarshalStrict(text, &p); err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	if p.Kind != "RolloutPolicy" && p.Kind != "ClusterRolloutPolicy" {
		return nil, fmt.Errorf("reading the policy: kind is %q; expected RolloutPolicy or ClusterRolloutPolicy", p.Kind)
	}
	return &p.Spec, nil
}

// settings are the judge's under a policy, in a step that began so long after the first request of a
// candidate; without a policy the judge's own. Users' metrics are not recorded in looks.
func settings(policy *v1alpha1.RolloutPolicySpec, step int, judged time.Duration) analysis.Settings {
	s := analysis.Settings{Interval: Interval}
	if policy == nil {
		return s
	}
	most := policy.EffectiveMaxDuration()
	s.Steps = len(policy.EffectiveSteps())
	s.PlannedLooks = int(most/Interval) + 1
	s.NoErrorRate, s.NoLatency = policy.Analysis.SuccessRate.Disabled, policy.Analysis.Latency.Disabled
	s.MaxStepTime = s.StepTime(max(most-judged, 0), s.Steps-step)
	return s
}
