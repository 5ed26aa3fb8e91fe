// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/faults/proxyfault"
	"github.com/headgate/headgate/e2e/harness"
)

// Whatever of Headgate, or of what it needs, breaks in the middle of a rollout: no request is lost, stable
// keeps its pods, and the rollout goes on when things are well again. These break it for the whole cluster.
func testFaults(t *testing.T, cluster *harness.Cluster) {
	t.Run("another CA, and no Prometheus", func(t *testing.T) { anotherCA(cluster.NewCase(t, harness.Enabled)) })
}

// testOwnFaults are those that nobody but the case itself notices.
func testOwnFaults(t *testing.T, cluster *harness.Cluster) {
	for name, test := range map[string]func(*harness.Case){
		"pods deleted and evicted":              podsGone,
		"Prometheus slow, nonsensical and away": unreliablePrometheus,
		"another certificate":                   anotherCertificate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(cluster.NewCase(t, harness.Enabled))
		})
	}
}

// anotherCA: sidecars were told the old one when their pod was created, and without data nothing is accepted and
// nothing is held against the candidate.
func anotherCA(c *harness.Case) {
	m := begin(c, "steps: [{weight: 20, minDuration: 10s}, {weight: 50, minDuration: 5s}]\nmaxDuration: 60s")
	back := faults.Away(c, faults.Prometheus)
	faults.ReplaceCA(c)
	c.AwaitDeployment(time.Minute, "the webhook is trusted again", func(*appsv1.Deployment) bool {
		return c.Try("annotate", "--overwrite", "deployment", harness.Name, "team=shop").Exit == 0
	})
	c.Do("scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", replicas+1))
	c.AwaitReady(2*time.Minute, m.stable, replicas+1)
	requireBlind(c)
	m.requireStableKept(replicas)
	back()
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	// All sidecars know the new CA now.
	c.AwaitStable()
	c.SetImage("v3")
	third := c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash
	m.requireNeverReady(third)
	promote(c, third)
	requireOutcome(c, 2, v1alpha1.OutcomePromoted)
	m.requireEnd("v3")
}

// requireBlind waits until the Rollout says that there is no data, and checks that nothing was concluded from it.
func requireBlind(c *harness.Case) {
	c.T.Helper()
	r := c.AwaitRollout(3*time.Minute, "the Rollout says that it can't judge", func(r *v1alpha1.Rollout) bool {
		return condition(r.Status.Conditions, v1alpha1.ConditionJudged).Status == metav1.ConditionFalse && r.Status.BlindSince != nil
	})
	if r.Status.Step != 0 || len(r.Status.History) != 0 {
		c.T.Errorf("without data the rollout went on: step %d, %+v", r.Status.Step, r.Status.History)
	}
}

// podsGone: pods come and go for reasons of their own, before the promotion and while it goes on. Natively, too,
// a pod that is evicted is missing until there is another one.
func podsGone(c *harness.Case) {
	m := begin(c, slowly)
	c.Do("delete", "pod", c.Pods.Of(m.candidate)[0].Name, "--wait=false")
	faults.Evict(c, c.Pods.Of(m.stable)[0])
	c.AwaitQuiet()
	c.AwaitReady(2*time.Minute, m.stable, replicas)
	c.AwaitReadyButGated(2*time.Minute, m.candidate, 1)
	if r := c.AwaitWeight(2*time.Minute, 0, 20); len(r.Status.History) != 0 {
		c.T.Errorf("the rollout ended: %+v", r.Status.History)
	}
	m.requireStableKept(replicas - 1)
	promote(c, m.candidate)
	c.AwaitPhase(time.Minute, v1alpha1.PhasePromoting)
	faults.Evict(c, c.Pods.Of(m.candidate)[0])
	c.Do("delete", "pod", c.Pods.Of(m.stable)[0].Name, "--wait=false")
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// unreliablePrometheus answers late, then with nothing that is a number, then not at all.
func unreliablePrometheus(c *harness.Case) {
	prometheus, url := faults.NewPrometheus(c)
	prometheus.Set(proxyfault.Faults{NaN: true})
	m := begin(c, fmt.Sprintf("steps: [{weight: 20, minDuration: 5s}, {weight: 50, minDuration: 5s}]\nmaxDuration: 150s\nanalysis: {prometheus: {url: %q}}", url))
	asked := prometheus.Await(time.Minute, proxyfault.Faults{NaN: true}, 4)
	prometheus.Await(time.Minute, proxyfault.Faults{Latency: metav1.Duration{Duration: 5 * time.Second}}, asked.Requests+4)
	prometheus.Set(proxyfault.Faults{AwayFor: metav1.Duration{Duration: time.Hour}})
	requireBlind(c)
	m.requireStableKept(replicas)
	prometheus.Set(proxyfault.Faults{})
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// anotherCertificate of the same CA, for webhooks and xDS.
func anotherCertificate(c *harness.Case) {
	m := begin(c, slowly)
	faults.RotateCertificate(c)
	c.Do("annotate", "deployment", harness.Name, "team=shop") // a held workload's writes need the webhook
	c.Do("scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", replicas+1))
	c.AwaitReady(2*time.Minute, m.stable, replicas+1)
	m.requireStableKept(replicas)
	promote(c, m.candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}
