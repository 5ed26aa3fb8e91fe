// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// installed is the cluster with Headgate as the chart installs it, but for Prometheus, which looks every five seconds.
func installed(b *testing.B) *harness.Cluster {
	b.Helper()
	cluster, err := harness.Connect(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if err := cluster.Install(b.Context(), "prometheus.scrapeInterval=5s"); err != nil {
		b.Fatal(err)
	}
	return cluster
}

// newBenchmark is a case with a workload of three pods that is stable under plenty of requests.
func newBenchmark(b *testing.B, policy string, values ...string) (*harness.Case, *harness.Load) {
	b.Helper()
	cluster := installed(b)
	c := cluster.NewCase(b, harness.Enabled)
	c.Policy(policy)
	c.Deploy(append([]string{"replicas=3"}, values...)...)
	c.AwaitStable()
	clients := harness.ToService(plenty())
	clients.Duration = harness.BenchmarkLimit
	return c, c.StartLoad("service", clients)
}

// report says how long something took in the middle and at most. How long all of it took is nothing to compare.
func report(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(took[len(took)/2].Seconds(), "p50-sec")
	b.ReportMetric(took[len(took)-1].Seconds(), "max-sec")
}

// BenchmarkRollBack is the time from the moment when a candidate that fails 5 % of requests has its 10 % of them until it
// has none.
func BenchmarkRollBack(b *testing.B) {
	c, l := newBenchmark(b, "steps: [{weight: 10}, {weight: 50}]\nmaxDuration: 10m\nprogressDeadline: 60s\nonFailure: Revert")
	var took []time.Duration
	for b.Loop() {
		// Each is another template, because the same one would not be tried again so soon.
		c.Apply(c.Manifest("replicas=3", "tag=errors", fmt.Sprintf("env.ATTEMPT=%d", len(took))))
		c.AwaitWeight(2*time.Minute, 0, 10)
		start := time.Now()
		c.AwaitRollout(10*time.Minute, "the candidate has no requests", func(r *v1alpha1.Rollout) bool { return r.Status.WeightInForce == 0 })
		took = append(took, time.Since(start))
		end := c.AwaitNext(time.Minute, start)
		if end.Outcome != v1alpha1.OutcomeRolledBack {
			b.Fatalf("rollout %d is %s: %+v", len(took), end.Outcome, end.Verdict)
		}
		b.Logf("rolled back after %v: %s", took[len(took)-1].Round(time.Second), end.Verdict.Message)
		c.AwaitStable()
	}
	report(b, took)
	requireOnlyCandidateFails(b, l.Stop())
}

// BenchmarkPromotion is the time that a good version takes, from the update to its end, when each step has to be won by
// evidence: where there is not enough, this policy rolls back.
func BenchmarkPromotion(b *testing.B) {
	c, l := newBenchmark(b, "steps: [{weight: 10}, {weight: 25}, {weight: 50}]\nmaxDuration: 4m\nprogressDeadline: 60s\nonInconclusive: RollBack")
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		// Each is another template, because going back to the version before is let through at once.
		c.Apply(c.Manifest("replicas=3", "tag=v2", fmt.Sprintf("env.ATTEMPT=%d", len(took))))
		promoted(c, start)
		took = append(took, time.Since(start))
		c.AwaitStable()
	}
	report(b, took)
	requireNoFailure(b, "through the Service", l.Stop())
}

// BenchmarkIdentical is the same for the same image with an answer time of a millisecond: whatever the judge says against
// it is wrong. It has twice as many rollouts as the others.
func BenchmarkIdentical(b *testing.B) {
	c, l := newBenchmark(b, "steps: [{weight: 10}, {weight: 25}, {weight: 50}]\nmaxDuration: 4m\nprogressDeadline: 60s", "env.LATENCY=1ms")
	var took []time.Duration
	for b.Loop() {
		for range 2 {
			start := time.Now()
			c.Do("rollout", "restart", "deployment/"+harness.Name)
			end := promoted(c, start)
			took = append(took, time.Since(start))
			requireLatencyJudged(b, end.Verdict)
			c.AwaitStable()
		}
	}
	report(b, took)
	requireNoFailure(b, "through the Service", l.Stop())
}

// promoted waits for the end of the rollout that began at a time, which must be good.
func promoted(c *harness.Case, since time.Time) v1alpha1.HistoryEntry {
	c.T.Helper()
	end := c.AwaitNext(10*time.Minute, since)
	took := time.Since(since).Round(time.Second)
	if end.Outcome != v1alpha1.OutcomePromoted {
		c.T.Fatalf("the rollout is %s after %v: %+v", end.Outcome, took, end.Verdict)
	}
	c.T.Logf("promoted after %v: %s: %s", took, end.Verdict.Result, end.Verdict.Message)
	return end
}
