// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/rollout"
)

// Interval is the planned time between looks.
const Interval = policy.LookInterval

// Policy reads a RolloutPolicy or ClusterRolloutPolicy. The error says, in a line each, what the API server would refuse, or
// else what the controller would write into its condition: whoever tries a policy here wants to use it there. What needs a
// cluster is not checked: templates, Secrets, and what Prometheus says about a query.
func Policy(text []byte) (*v1alpha1.RolloutPolicySpec, error) {
	spec, mistakes, err := readPolicy(text)
	if err == nil && len(mistakes) == 0 {
		if wrong := policy.Invalid(spec); wrong != "" {
			mistakes = append(mistakes, wrong)
		}
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the policy: %w", err)
	case len(mistakes) == 1:
		return nil, fmt.Errorf("reading the policy: %s", mistakes[0])
	case len(mistakes) > 1:
		slices.Sort(mistakes) // they are found in no order
		return nil, fmt.Errorf("reading the policy: there are %d mistakes:\n  %s", len(mistakes), strings.Join(mistakes, "\n  "))
	}
	return spec, nil
}

// readPolicy also says what the API server would refuse; the error, that the text is no policy at all.
func readPolicy(text []byte) (spec *v1alpha1.RolloutPolicySpec, mistakes []string, err error) {
	if documents := documents(text); documents > 1 {
		return nil, nil, fmt.Errorf("there are %d YAML documents; expected one", documents)
	}
	plain, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, nil, err
	}
	var object map[string]any
	if err := utiljson.Unmarshal(plain, &object); err != nil {
		return nil, nil, errors.New("it is no YAML object")
	}
	if kind, _ := object["kind"].(string); kind != "RolloutPolicy" && kind != "ClusterRolloutPolicy" {
		return nil, nil, fmt.Errorf("kind is %q; expected RolloutPolicy or ClusterRolloutPolicy", kind)
	}
	if version, given := object["apiVersion"].(string); given && version != v1alpha1.GroupVersion.String() {
		return nil, nil, fmt.Errorf("apiVersion is %q; expected %s", version, v1alpha1.GroupVersion)
	}
	if mistakes, err = refused(object); err != nil {
		return nil, nil, err
	}
	var p v1alpha1.RolloutPolicy // a ClusterRolloutPolicy has the same spec
	unknown, err := kjson.UnmarshalStrict(plain, &p)
	for _, field := range unknown {
		mistakes = append(mistakes, field.Error())
	}
	if len(mistakes) > 0 { // which say better what could not be read
		return nil, mistakes, nil
	}
	return &p.Spec, nil, err
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

// settings are the judge's under a policy, in a step before which a candidate was judged for so
// long; without a policy the judge's own. Users' metrics are not recorded in looks.
func settings(policy *v1alpha1.RolloutPolicySpec, of Rollout, step int, judged time.Duration) analysis.Settings {
	s := analysis.Settings{Interval: Interval, Candidate: of.Candidate, Stable: of.Stable}
	if policy == nil {
		return s
	}
	most := policy.EffectiveMaxDuration()
	s.Steps = len(rollout.EffectiveSteps(policy, of.Replicas, of.Autoscaled))
	s.PlannedLooks = int(most/Interval) + 1
	success, latency := &policy.Analysis.SuccessRate, &policy.Analysis.Latency
	s.NoErrorRate, s.ErrorBudget = success.Disabled, success.Budget()
	s.NoLatency, s.LatencyBound, s.LatencyBudget = latency.Disabled, latency.EffectiveBound(), latency.Budget()
	s.MaxStepTime = s.StepTime(most-judged, s.Steps-step)
	return s
}
