// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/api/v1alpha1"
)

// Interval is the planned time between looks.
const Interval = 5 * time.Second

// Policy reads a RolloutPolicy or ClusterRolloutPolicy.
func Policy(text []byte) (*v1alpha1.RolloutPolicySpec, error) {
	var p v1alpha1.RolloutPolicy // a ClusterRolloutPolicy has the same spec
	if documents := documents(text); documents > 1 {
		return nil, fmt.Errorf("reading the policy: there are %d YAML documents; expected one", documents)
	}
	if err := yaml.UnmarshalStrict(text, &p); err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	if p.Kind != "RolloutPolicy" && p.Kind != "ClusterRolloutPolicy" {
		return nil, fmt.Errorf("reading the policy: kind is %q; expected RolloutPolicy or ClusterRolloutPolicy", p.Kind)
	}
	if err := check(&p.Spec); err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	return &p.Spec, nil
}

// documents is how many a YAML text has; those that say nothing, as a comment before the first, are not counted.
func documents(text []byte) (n int) {
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := r.Read()
		if err != nil {
			return n
		}
		var content any
		if err := yaml.Unmarshal(document, &content); err != nil || content != nil {
			n++
		}
	}
}

// check says what the API server would refuse of a policy's steps, time, objectives and bounds: whoever tries a policy
// here wants to use it there.
func check(p *v1alpha1.RolloutPolicySpec) error {
	if err := checkNames(p); err != nil {
		return err
	}
	if err := checkSteps(p); err != nil {
		return err
	}
	if d := p.MaxDuration; d != nil && (d.Duration <= 0 || d.Duration%time.Second != 0) {
		return fmt.Errorf("maxDuration is %s; expected hours, minutes and whole seconds, like 4m, the default", d.Duration)
	}
	if err := checkObjectives(&p.Analysis); err != nil {
		return err
	}
	for i := range p.Analysis.Metrics {
		m := &p.Analysis.Metrics[i]
		if wrong := m.ImpossibleBounds(); wrong != "" {
			return fmt.Errorf("no value of metric %q could be good: %s", m.Name, wrong)
		}
	}
	return nil
}

func checkSteps(p *v1alpha1.RolloutPolicySpec) error {
	last := int32(0)
	for i, s := range p.Steps {
		switch {
		case s.Weight < 0 || s.Weight > 99:
			return fmt.Errorf("steps[%d].weight is %d; expected 0 to 99", i, s.Weight)
		case s.Weight < last:
			return fmt.Errorf("steps[%d].weight is %d, after %d; order the steps by weight", i, s.Weight, last)
		}
		last = s.Weight
	}
	if wrong := p.Untested(); wrong != "" {
		return errors.New(wrong)
	}
	return nil
}

// checkNames says which field has a word that means nothing there.
func checkNames(p *v1alpha1.RolloutPolicySpec) error {
	for _, f := range []struct {
		name, value string
		known       []string
	}{
		{"strategy", string(p.Strategy), []string{string(v1alpha1.StrategyCanary)}},
		{"onFailure", string(p.OnFailure), []string{string(v1alpha1.OnFailureQuarantine), string(v1alpha1.OnFailureRevert), string(v1alpha1.OnFailureAuto)}},
		{"onInconclusive", string(p.OnInconclusive), []string{string(v1alpha1.OnInconclusiveAdvance), string(v1alpha1.OnInconclusiveHold), string(v1alpha1.OnInconclusiveRollBack)}},
		{"onBlind", string(p.OnBlind), []string{string(v1alpha1.OnBlindHold), string(v1alpha1.OnBlindRollBack)}},
		{"rollback", string(p.Rollback), []string{string(v1alpha1.RollbackImmediate), string(v1alpha1.RollbackManaged)}},
	} {
		if f.value != "" && !slices.Contains(f.known, f.value) {
			return fmt.Errorf("%s is %q; expected %s", f.name, f.value, strings.Join(f.known, " or "))
		}
	}
	return nil
}

func checkObjectives(a *v1alpha1.Analysis) error {
	for field, objective := range map[string]*string{"successRate": a.SuccessRate.Objective, "latency": a.Latency.Objective} {
		if objective == nil {
			continue
		}
		if v, err := strconv.ParseFloat(*objective, 64); err != nil || !(v > 0 && v < 100) {
			return fmt.Errorf("analysis.%s.objective is %q; expected a percentage above 0 and below 100, like \"99.9\"", field, *objective)
		}
	}
	if l := &a.Latency; l.Objective != nil && l.Bound == nil {
		return errors.New("analysis.latency.objective needs a bound: within what time so many requests are to be answered")
	}
	return nil
}

// settings are the judge's under a policy, in a step before which a candidate was judged for so
// long; without a policy the judge's own. Users' metrics are not recorded in looks.
func settings(policy *v1alpha1.RolloutPolicySpec, step int, judged time.Duration) analysis.Settings {
	s := analysis.Settings{Interval: Interval}
	if policy == nil {
		return s
	}
	most := policy.EffectiveMaxDuration()
	s.Steps = len(policy.EffectiveSteps())
	s.PlannedLooks = int(most/Interval) + 1
	success, latency := &policy.Analysis.SuccessRate, &policy.Analysis.Latency
	s.NoErrorRate, s.ErrorBudget = success.Disabled, success.Budget()
	s.NoLatency, s.LatencyBound, s.LatencyBudget = latency.Disabled, latency.EffectiveBound(), latency.Budget()
	s.MaxStepTime = s.StepTime(max(most-judged, 0), s.Steps-step)
	return s
}
