// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// dear is text of n characters that takes as much room as JSON can make of it.
func dear(n int) string { return strings.Repeat("\x01", n) }

// largest is a policy of which nothing can be larger (see the bounds in api/v1alpha1).
func largest() *v1alpha1.RolloutPolicySpec {
	number, counts, decimal := int32(100), false, "-"+strings.Repeat("9", 15)+"."+strings.Repeat("9", 9)
	forever := &metav1.Duration{Duration: 99999*time.Hour + 59*time.Minute + 59*time.Second}
	line := &v1alpha1.Line{Ratio: &decimal, Difference: &decimal}
	p := &v1alpha1.RolloutPolicySpec{
		Strategy: v1alpha1.StrategyCanary, MaxDuration: forever, ProgressDeadline: forever, QuarantineTTL: forever, Suspend: true,
		OnFailure: v1alpha1.OnFailureQuarantine, OnInconclusive: v1alpha1.OnInconclusiveRollBack, OnBlind: v1alpha1.OnBlindRollBack, Rollback: v1alpha1.RollbackImmediate,
		Analysis: v1alpha1.Analysis{
			Prometheus:  &v1alpha1.PrometheusRef{URL: "http://" + dear(2041), SecretRef: &v1alpha1.SecretRef{Name: strings.Repeat("x", 253)}},
			SuccessRate: v1alpha1.SuccessRate{Disabled: true}, Latency: v1alpha1.Latency{Disabled: true},
		},
	}
	p.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: strings.Split(dear(1<<20), "")}}
	for range 20 {
		many := v1alpha1.IntOrPercent{IntVal: 10000}
		p.Steps = append(p.Steps, v1alpha1.Step{Weight: 99, Replicas: &many, MinDuration: forever, Approval: true})
	}
	for i := range 10 {
		m := v1alpha1.Metric{Name: fmt.Sprintf("%063d", i)}
		m.ComparedToStable = &v1alpha1.Comparison{Min: line, Max: line}
		m.DryRun, m.Interval, m.WarmUp, m.Weight = &counts, forever, forever, &number
		if i < v1alpha1.MaxQueries/4096 {
			m.Query = dear(4096)
		} else { // its arguments are not recorded
			m.Template = &v1alpha1.TemplateRef{Kind: v1alpha1.KindClusterMetricTemplate, Name: dear(253)}
		}
		p.Analysis.Metrics = append(p.Analysis.Metrics, m)
	}
	return p
}

// The record has room for every policy that the API accepts: else something would be judged that nobody asked for.
func TestEveryPolicyIsRecorded(t *testing.T) {
	policy := largest()
	status := v1alpha1.RolloutStatus{DeploymentUID: "uid-1", Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Hash: "v1", Template: digest("v1")}}
	d := rollout.Decide(policy, status, rollout.Observation{
		Now: start,
		Deployment: rollout.Deployment{
			UID: "uid-1", Replicas: 4, Current: true, Template: digest("v2"), User: heldFields(1),
			Hold: &v1alpha1.Hold{K: 1, UID: "uid-1", Template: digest("v2"), User: userFields()},
		},
		Revisions: []rollout.Revision{{Hash: "v1", Template: digest("v1"), Replicas: 4, Desired: 4}},
	})
	if d.Status.Phase != v1alpha1.PhaseStarting {
		t.Fatalf("the rollout is %s, it should have begun", d.Status.Phase)
	}
	var kept v1alpha1.RolloutPolicySpec
	if err := json.Unmarshal([]byte(d.Status.Policy), &kept); err != nil {
		t.Fatalf("of a policy %d bytes are kept: %v", len(d.Status.Policy), err)
	}
	policy.Selector = metav1.LabelSelector{} // not needed any more
	if diff := cmp.Diff(policy, &kept); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}

// So has the history for what it is judged by; of queries and addresses it needs no more than that there were some.
func TestEveryPolicyIsRememberedWithoutItsMetrics(t *testing.T) {
	kept := rollout.Released(v1alpha1.RolloutStatus{
		Phase: v1alpha1.PhaseStepping, Candidate: v1alpha1.Revision{Hash: "v2"}, Replicas: 7, Autoscaled: true, Policy: snapshotOf(t, largest()),
	}, start).History[0]
	var policy v1alpha1.RolloutPolicySpec
	if err := json.Unmarshal([]byte(kept.Policy), &policy); err != nil || kept.Replicas != 7 || !kept.Autoscaled {
		t.Fatalf("%d replicas, autoscaled %t, a policy of %d bytes: %v", kept.Replicas, kept.Autoscaled, len(kept.Policy), err)
	}
	want := largest()
	want.Selector, want.Analysis.Metrics, want.Analysis.Prometheus = metav1.LabelSelector{}, nil, nil
	if diff := cmp.Diff(want, &policy); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}

// snapshotOf is a policy as the record keeps it.
func snapshotOf(t *testing.T, policy *v1alpha1.RolloutPolicySpec) string {
	t.Helper()
	policy.Selector = metav1.LabelSelector{}
	text, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
