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

// slowly is a policy whose first step takes longer than the test.
const slowly = `
steps: [{weight: 20, approval: true}]
maxDuration: 10m
`

// Headgate can go at any moment, in order or all at once, and what it was doing ends well.
func testUninstall(t *testing.T, cluster *harness.Cluster) {
	t.Run("helm uninstall", func(t *testing.T) { uninstallInOrder(t, cluster) })
	t.Run("all deleted by hand", func(t *testing.T) { uninstallByHand(t, cluster) })
	if err := cluster.Install(t.Context()); err != nil {
		t.Errorf("installing again: %v", err)
	}
}

func uninstallInOrder(t *testing.T, cluster *harness.Cluster) {
	step, quarantine := cluster.NewCase(t, harness.Enabled), cluster.NewCase(t, harness.Enabled)
	step.Policy(slowly)
	quarantine.Policy(strict + "onFailure: Quarantine")
	for _, c := range []*harness.Case{step, quarantine} {
		c.Deploy()
	}
	fields := fieldsOf(step.AwaitComplete())
	for _, c := range []*harness.Case{step, quarantine} {
		c.AwaitStable()
	}
	loads := map[*harness.Case][]*harness.Load{step: everywhere(step), quarantine: everywhere(quarantine)}
	step.SetImage("v2")
	quarantine.SetImage("never-ready")
	step.AwaitWeight(2*time.Minute, 0, 20)
	quarantine.AwaitRollout(rolloutEnd, "it is quarantined", func(r *v1alpha1.Rollout) bool {
		return r.Status.Phase == v1alpha1.PhaseQuarantined
	})

	if r := cluster.RunHelm(step.Ctx, "uninstall", harness.SystemName, "-n", harness.SystemNamespace, "--wait", "--timeout", "5m"); r.Exit != 0 {
		t.Fatal(r)
	}
	for c, want := range map[*harness.Case]string{step: "v2", quarantine: "v1"} {
		d := c.AwaitComplete()
		if image(d) != want {
			t.Errorf("in %s the image is %s, want %s", c.Namespace, image(d), want)
		}
		requireFields(t, fields, d)
		requireUntouched(t, d)
		c.SetImage("v3")
		c.Do(words(rolloutStatus)...)
		if d := c.AwaitComplete(); image(d) != "v3" {
			t.Errorf("the next update gave %s, want v3", image(d))
		}
		stopAll(c, loads[c])
	}
}

func uninstallByHand(t *testing.T, cluster *harness.Cluster) {
	if err := cluster.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := cluster.NewCase(t, harness.Enabled)
	c.Policy(slowly)
	c.Deploy()
	stable := c.AwaitStable().Status.Stable.Hash
	loads := everywhere(c)
	c.Pods.Mark(stable)
	c.SetImage("v2")
	candidate := c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash

	for _, args := range [][]string{
		{"delete", "namespace", harness.SystemNamespace, "--timeout=3m"},
		{"delete", "mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings",
			"-l", "app.kubernetes.io/name=" + harness.SystemName},
	} {
		if r := cluster.RunKubectl(c.Ctx, "", args...); r.Exit != 0 {
			t.Fatal(r)
		}
	}
	if most := c.Pods.Most(candidate); most != 0 {
		t.Errorf("%d pods of the candidate were ready at some moment", most)
	}
	if least := c.Pods.Least(stable); least != 2 {
		t.Errorf("only %d stable pods were ready at some moment, want 2 throughout", least)
	}
	c.SetImage("v3")
	c.Do(words(rolloutStatus)...)
	if d := c.AwaitComplete(); image(d) != "v3" {
		t.Errorf("the next update gave %s, want v3", image(d))
	}
	stopAll(c, loads)
}
