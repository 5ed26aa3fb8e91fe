// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// A node is drained in the middle of a rollout, with the command that everybody knows and no flag that would
// not be needed without Headgate. What was evicted comes back, and says nothing about the version.
func testDrain(t *testing.T, cluster *harness.Cluster) {
	c := cluster.NewCase(t, harness.Enabled)
	m := begin(c, slowly)
	c.Apply(fmt.Sprintf("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: %[1]s}\nspec: {minAvailable: %[2]d, selector: {matchLabels: {app: %[1]s}}}",
		harness.Name, replicas-1))
	for _, revision := range []string{m.candidate, m.stable} {
		drain(c, revision)
	}
	if least := c.Pods.Least(m.stable); least < replicas-1 {
		t.Errorf("only %d stable pods were ready at some moment, want %d, as the disruption budget says", least, replicas-1)
	}
	m.requireNeverReady(m.candidate)
	if r := c.AwaitWeight(2*time.Minute, 0, 20); len(r.Status.History) != 0 {
		t.Errorf("the rollout ended: %+v", r.Status.History)
	}
	promote(c, m.candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// drain evicts the pods of a revision from their node. The node takes new pods again as soon as it was
// cordoned, because there may be no other.
func drain(c *harness.Case, revision string) {
	c.T.Helper()
	before := c.Pods.Of(revision)
	node := before[0].Spec.NodeName
	drained := background(func() harness.Result {
		return c.Try("drain", node, "--pod-selector=app="+harness.Name+",pod-template-hash="+revision, "--timeout=4m")
	})
	c.AwaitNode(node, "it is cordoned", func(n *corev1.Node) bool { return n.Spec.Unschedulable })
	if r := c.Try("uncordon", node); r.Exit != 0 {
		c.T.Fatal(r)
	}
	if r := <-drained; r.Exit != 0 {
		c.T.Errorf("draining needs something else than a selector: %s", r)
	}
	for _, p := range before {
		if c.Pods.Has(p.UID) {
			c.T.Errorf("pod %s was not evicted", p.Name)
		}
	}
	c.AwaitReadyButGated(2*time.Minute, revision, len(before))
}
