// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// People change their mind in the middle of a rollout, with the commands they know.
func testChangeOfMind(t *testing.T, cluster *harness.Cluster) {
	t.Run("undo aborts", func(t *testing.T) {
		t.Parallel()
		c := cluster.NewCase(t, harness.Enabled)
		changeMind(c, "v1", v1alpha1.OutcomeAborted, func() { c.Do("rollout", "undo", "deployment/"+harness.Name) })
	})
	t.Run("a third version supersedes", func(t *testing.T) {
		t.Parallel()
		c := cluster.NewCase(t, harness.Enabled)
		changeMind(c, "v3", v1alpha1.OutcomeSuperseded, func() { c.SetImage("v3") })
	})
}

func changeMind(c *harness.Case, final string, want v1alpha1.Outcome, act func()) {
	const n = 3
	c.Policy(quick)
	c.Deploy("replicas=3")
	stable := c.AwaitStable().Status.Stable.Hash
	fields := fieldsOf(c.AwaitComplete())
	c.Pods.Mark(stable)
	loads := everywhere(c)
	c.SetImage("v2")
	c.AwaitWeight(2*time.Minute, 0, 20)
	act()
	requireOutcome(c, 1, want)
	if least := c.Pods.Least(stable); least != n {
		c.T.Errorf("only %d stable pods were ready at some moment, want %d throughout", least, n)
	}
	if want == v1alpha1.OutcomeSuperseded {
		requireOutcome(c, 2, v1alpha1.OutcomePromoted)
	}
	c.AwaitStable()
	d := c.AwaitComplete()
	requireFields(c.T, fields, d)
	if image(d) != final {
		c.T.Errorf("the Deployment's image is %s, want %s", image(d), final)
	}
	stopAll(c, loads)
}
