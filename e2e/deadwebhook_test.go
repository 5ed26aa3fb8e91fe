// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/headgate/headgate/api/v1alpha1"
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
	c := cluster.NewCase(t, harness.Enabled)
	c.Policy(reverted)
	c.Deploy()
	stable := c.AwaitStable().Status.Stable.Hash
	fields := fieldsOf(c.AwaitComplete())
	c.Pods.Mark(stable)
	l := c.StartLoad("service", harness.ToService(enough()))
	c.SetImage("errors")
	c.AwaitWeight(2*time.Minute, 0, 50)

	const nobody, served = 444, 443
	pointWebhook(c, nobody)
	t.Cleanup(func() { pointWebhook(c, served) }) // other cases need it, whatever happens here
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

	pointWebhook(c, served)
	c.SetImage("v3")
	requireOutcome(c, 2, v1alpha1.OutcomePromoted)
	c.AwaitComplete()
}

// pointWebhook makes the API server call the Deployment webhook on this port of its Service.
func pointWebhook(c *harness.Case, port int) {
	c.T.Helper()
	patch := fmt.Sprintf(`[{"op":"test","path":"/webhooks/0/name","value":"deployments.headgate.dev"},{"op":"replace","path":"/webhooks/0/clientConfig/service/port","value":%d}]`, port)
	if r := c.RunKubectl(c.Ctx, "", "patch", "mutatingwebhookconfiguration", "zz-headgate", "--type=json", "-p", patch); r.Exit != 0 {
		c.T.Fatal(r)
	}
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

	hangPodWebhook(c)
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

// hangPodWebhook makes the API server call the Pod webhook where connections are accepted and nothing is
// ever answered, until the test ends.
func hangPodWebhook(c *harness.Case) {
	c.T.Helper()
	const hung = "hung"
	c.Do("run", hung, "--image="+harness.AppImage+"hang", "--port=8080")
	c.Do("expose", "pod", hung, "--port=443", "--target-port=8080")
	c.AwaitPod(hung, "it is ready", harness.Ready)
	point := func(namespace, name string) {
		patch := fmt.Sprintf(`[{"op":"test","path":"/webhooks/1/name","value":"pods.headgate.dev"},`+
			`{"op":"replace","path":"/webhooks/1/clientConfig/service/namespace","value":%q},`+
			`{"op":"replace","path":"/webhooks/1/clientConfig/service/name","value":%q}]`, namespace, name)
		if r := c.RunKubectl(c.Ctx, "", "patch", "mutatingwebhookconfiguration", "zz-headgate", "--type=json", "-p", patch); r.Exit != 0 {
			c.T.Fatal(r)
		}
	}
	point(c.Namespace, hung)
	c.T.Cleanup(func() { point(harness.SystemNamespace, harness.SystemName) }) // other cases need it, whatever happens here
}
