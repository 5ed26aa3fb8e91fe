// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// Bad input gets a clear answer where its author looks, and never changes what runs.
func testBadInput(t *testing.T, cluster *harness.Cluster) {
	t.Run("policies that can't be", func(t *testing.T) {
		t.Parallel()
		refusedPolicies(cluster.NewCase(t, harness.Enabled))
	})
	t.Run("PromQL that does not parse", func(t *testing.T) {
		t.Parallel()
		c := cluster.NewCase(t, harness.Enabled)
		c.Policy(quick + "analysis:\n  metrics:\n  - {name: conversion, query: 'sum(rate(', range: {min: \"0.9\"}}")
		p := c.AwaitPolicy(time.Minute, "it is not accepted", func(p *v1alpha1.RolloutPolicy) bool {
			return condition(p.Status.Conditions, v1alpha1.ConditionAccepted).Status == metav1.ConditionFalse
		})
		said := condition(p.Status.Conditions, v1alpha1.ConditionAccepted)
		if said.Reason != v1alpha1.ReasonInvalid || !strings.Contains(said.Message, "conversion") {
			t.Errorf("the policy says %s: %q, want %s and the metric's name", said.Reason, said.Message, v1alpha1.ReasonInvalid)
		}
		blind(c, "conversion", "parse error")
	})
	t.Run("a Prometheus that is not there", func(t *testing.T) {
		t.Parallel()
		c := cluster.NewCase(t, harness.Enabled)
		c.Policy(quick + "analysis: {prometheus: {url: 'http://nobody.invalid:9090'}}")
		blind(c, "nobody.invalid")
	})
	t.Run("a template of a ReplicaSet", func(t *testing.T) {
		t.Parallel()
		changedReplicaSet(cluster.NewCase(t, harness.Enabled))
	})
	t.Run("a port that nothing serves", func(t *testing.T) {
		t.Parallel()
		unserved(cluster.NewCase(t, harness.Enabled))
	})
}

// changedReplicaSet: a version can't be changed under its name, and may still be scaled and annotated.
func changedReplicaSet(c *harness.Case) {
	c.Policy(quick)
	c.Deploy()
	rs := "rs/" + harness.Name + "-" + c.AwaitStable().Status.Stable.Hash
	r := c.Try("set", "image", rs, "app="+harness.AppImage+"v2")
	if r.Exit == 0 || !strings.Contains(r.Stderr, "change the Deployment's") {
		c.T.Errorf("the image of a ReplicaSet: %s, want a refusal that says what to do", r)
	}
	c.Do("annotate", rs, "team=shop")
	c.Do("scale", rs, "--replicas=3") // the Deployment controller corrects that
	c.AwaitComplete()
}

func refusedPolicies(c *harness.Case) {
	policies := map[string]struct{ spec, want string }{
		"weights that fall":           {"steps: [{weight: 50}, {weight: 10}]", "order the steps by weight"},
		"a weight above 99":           {"steps: [{weight: 100}]", "99"},
		"a duration without a unit":   {"maxDuration: \"90\"", "maxDuration"},
		"a range that bounds nothing": {"analysis: {metrics: [{name: m, query: up, range: {}}]}", "needs min, max or both"},
		"an unknown strategy":         {"strategy: Hope", "strategy"},
		"no pods wanted":              {"steps: [{weight: 10, replicas: 0}]", "replicas must be"},
	}
	for name, p := range policies {
		r := c.TryWith(harness.PolicyManifest(p.spec), "apply", "-f", "-")
		if r.Exit == 0 || !strings.Contains(r.Stderr, p.want) {
			c.T.Errorf("%s: want a refusal that says %q: %s", name, p.want, r)
		}
	}
}

// blind: without data the rollout holds, says what is wrong with the question, and an undo leaves no trace.
func blind(c *harness.Case, want ...string) {
	t := c.T
	c.Deploy()
	stable := c.AwaitStable().Status.Stable.Hash
	fields := fieldsOf(c.AwaitComplete())
	c.Pods.Mark(stable)
	loads := everywhere(c)
	c.SetImage("v2")
	r := c.AwaitRollout(4*time.Minute, fmt.Sprintf("the Rollout says that it can't judge, and %q", want), func(r *v1alpha1.Rollout) bool {
		judged := condition(r.Status.Conditions, v1alpha1.ConditionJudged)
		return judged.Status == metav1.ConditionFalse && containsAll(judged.Message, want)
	})
	if len(r.Status.History) != 0 {
		t.Errorf("a rollout without data ended: %+v", r.Status.History)
	}
	c.Do("rollout", "undo", "deployment/"+harness.Name)
	requireOutcome(c, 1, v1alpha1.OutcomeAborted)
	d := c.AwaitComplete()
	requireFields(t, fields, d)
	if least := c.Pods.Least(stable); least != 2 {
		t.Errorf("only %d stable pods were ready at some moment, want 2 throughout", least)
	}
	stopAll(c, loads)
}

func containsAll(text string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// unserved: the pods declare a port that the application does not listen on, and none that it does. No
// request arrives, so nothing is known about the candidate, and the Rollout says so.
func unserved(c *harness.Case) {
	t := c.T
	c.Policy(quick + "onInconclusive: Hold")
	manifest := strings.ReplaceAll(c.Manifest("probe=http"), "containerPort: 8080", "containerPort: 7070")
	manifest = strings.ReplaceAll(manifest, "containerPort: 9090", "containerPort: 7071")
	manifest = strings.ReplaceAll(manifest, "port: http\n", "port: 8080\n")
	c.Apply(manifest)
	stable := c.AwaitStable().Status.Stable.Hash
	c.Pods.Mark(stable)
	c.SetImage("v2")
	r := c.AwaitRollout(rolloutEnd, "the Rollout says that there are no requests, or has ended", func(r *v1alpha1.Rollout) bool {
		v := r.Status.Verdict
		return v != nil && v.Result == v1alpha1.ResultInconclusive && strings.Contains(v.Message, "no requests") || len(r.Status.History) > 0
	})
	if len(r.Status.History) > 0 {
		t.Errorf("a rollout that nobody could try ended: %+v", r.Status.History)
	}
	c.Do("rollout", "undo", "deployment/"+harness.Name)
	requireOutcome(c, 1, v1alpha1.OutcomeAborted)
	if d := c.AwaitComplete(); image(d) != "v1" {
		t.Errorf("the Deployment's image is %s, want v1", image(d))
	}
	if least := c.Pods.Least(stable); least != 2 {
		t.Errorf("only %d stable pods were ready at some moment, want 2 throughout", least)
	}
}
