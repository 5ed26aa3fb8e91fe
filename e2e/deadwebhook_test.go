// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/harness"
)

// reverted is a policy whose failed versions are taken back out of the Deployment.
const reverted = `
steps: [{weight: 50, minDuration: 2m}]
maxDuration: 200s
progressDeadline: 60s
onFailure: Revert
`

// A webhook that is registered but does not answer keeps no failed version in place, and stands in the way
// of nothing but new versions.
func testDeadWebhook(t *testing.T, cluster *harness.Cluster) {
	for name, dies := range map[string]func(*harness.Case, faults.Webhook) func(){
		"connections are refused": faults.Refuse,
		"nothing is answered":     faults.Hang,
	} {
		t.Run(name, func(t *testing.T) {
			deadWebhook(cluster.NewCase(t, harness.Enabled), func(c *harness.Case) func() { return dies(c, faults.DeploymentWebhook) })
		})
	}
}

func deadWebhook(c *harness.Case, dies func(*harness.Case) (mend func())) {
	t := c.T
	c.Policy(reverted)
	c.Deploy()
	stable := c.AwaitStable().Status.Stable.Hash
	fields := fieldsOf(c.AwaitComplete())
	c.Pods.Mark(stable)
	l := c.StartLoad("service", harness.ToService(enough()))
	c.SetImage("errors")
	c.AwaitWeight(2*time.Minute, 0, 50)

	mend := dies(c)
	requireOutcome(c, 1, v1alpha1.OutcomeRolledBack)
	d := c.AwaitComplete()
	if image(d) != "v1" {
		t.Errorf("the image is %s, want v1 again", image(d))
	}
	requireFields(t, fields, d)
	if least := c.Pods.Least(stable); least != 2 {
		t.Errorf("only %d stable pods were ready at some moment, want 2 throughout", least)
	}
	requireOnlyCandidateFails(t, l.Stop())
	if r := c.Do("get", "events", "--field-selector=reason=WebhookUnavailable", "-o", "name"); r.Stdout == "" {
		t.Error("no event says that the webhook does not answer")
	}

	if r := c.Try("set", "image", "deployment/"+harness.Name, "app="+harness.AppImage+"v3"); r.Exit == 0 || !strings.Contains(r.Stderr, "deployments.headgate.dev") {
		t.Errorf("a new version without the webhook: want a refusal that names it: %s", r)
	}
	c.Do("label", "deployment", harness.Name, "team=shop")
	c.Do("scale", "deployment", harness.Name, "--replicas=3")
	c.AwaitComplete()

	mend()
	c.SetImage("v3")
	requireOutcome(c, 2, v1alpha1.OutcomePromoted)
	c.AwaitComplete()
}

// A Pod webhook that does not answer lets pods in without a gate. None of the candidate's serves for longer
// than it takes to delete it, the rollout goes back with a reason, and stable pods come as ever.
func testHangingPodWebhook(t *testing.T, cluster *harness.Cluster) {
	const n = 2
	c := cluster.NewCase(t, harness.Enabled)
	c.Policy(strict)
	c.Deploy()
	stable := c.AwaitStable().Status.Stable.Hash
	fields := fieldsOf(c.AwaitComplete())
	c.Pods.Mark(stable)
	loads := everywhere(c)

	faults.Hang(c, faults.PodWebhook)
	c.SetImage("v2")
	end := requireOutcome(c, 1, v1alpha1.OutcomeRolledBack)
	if end.Verdict == nil || end.Verdict.Cause != v1alpha1.CausePodWebhook {
		t.Errorf("the verdict is %+v, want cause %s", end.Verdict, v1alpha1.CausePodWebhook)
	}
	d := c.AwaitDeployment(2*time.Minute, "the stable template is back", func(d *appsv1.Deployment) bool {
		return image(d) == "v1" && harness.Complete(d)
	})
	requireFields(t, fields, d)
	c.AwaitPhase(time.Minute, v1alpha1.PhaseIdle)
	if most := c.Pods.Most(end.To); most != 0 {
		t.Errorf("%d pods of the candidate were ready without a verdict", most)
	}
	if least := c.Pods.Least(stable); least != n {
		t.Errorf("only %d stable pods were ready at some moment, want %d throughout", least, n)
	}
	c.Do("scale", "deployment", harness.Name, "--replicas=3")
	c.AwaitReady(2*time.Minute, stable, 3)
	stopAll(c, loads)
}
