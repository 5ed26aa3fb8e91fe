// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// cell is how many requests each share is measured with.
const cell = 4000

// approved is a policy that stays at each weight until it is approved. Nothing is compared, so that steps
// are accepted by time: here the shares count, not the evidence.
const approved = `
steps:
- {weight: 0, approval: true}
- {weight: 10, approval: true}
- {weight: 25, approval: true}
- {weight: 50, approval: true}
maxDuration: 4m
progressDeadline: 2m
analysis: {successRate: {disabled: true}, latency: {disabled: true}}
`

// The candidate gets the share of requests that its step says, whatever the number of pods, and
// wherever the request came in.
func testWeight(t *testing.T, cluster *harness.Cluster) {
	for _, n := range []int{10, 1, 2} {
		t.Run(fmt.Sprintf("N=%d", n), func(t *testing.T) {
			t.Parallel()
			weights(cluster.NewCase(t, harness.Enabled), n)
		})
	}
}

func weights(c *harness.Case, n int) {
	c.Policy(approved)
	c.Deploy(fmt.Sprintf("replicas=%d", n))
	c.AwaitStable()
	c.SetImage("v2")
	for step, weight := range []int32{0, 10, 25, 50} {
		r := c.AwaitWeight(3*time.Minute, int32(step), weight)
		measure(c, r.Status.Candidate.Hash, weight)
		c.Do("patch", "rollouts.headgate.dev", harness.Name, "--type=merge", "-p",
			fmt.Sprintf(`{"spec":{"approve":{"revision":%q,"step":%d}}}`, r.Status.Candidate.Hash, step))
	}
	end := requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	c.AwaitComplete()
	if got := c.Pods.Created(end.To); got != n {
		c.T.Errorf("%d pods of the candidate were created, want %d", got, n)
	}
}

// measure sends requests through the Service and straight to a candidate pod at this weight.
func measure(c *harness.Case, candidate string, weight int32) {
	c.T.Helper()
	pods := c.Pods.Of(candidate)
	if len(pods) == 0 {
		c.T.Fatalf("weight %d is in force, but there is no candidate pod", weight)
	}
	rates := map[load.Kind]float64{load.KindHTTP1: 25, load.KindNew: 10, load.KindH2C: 10, load.KindGRPC: 15}
	ways := []harness.NamedConfig{
		{Name: fmt.Sprintf("service-%d", weight), Config: harness.ToService(rates)},
		{Name: fmt.Sprintf("candidate-%d", weight), Config: harness.ToPod(pods[0].Status.PodIP, rates)},
	}
	for i := range ways {
		ways[i].Config.Requests = cell
	}
	for i, l := range c.StartLoads(ways...) {
		r := l.Wait()
		requireNoFailure(c.T, "to "+ways[i].Name, r)
		requireShare(c.T, r, weight)
	}
}

// requireShare checks the number of the candidate's answers against the binomial distribution.
func requireShare(t testing.TB, r load.Report, weight int32) {
	t.Helper()
	if r.Sent != cell {
		t.Errorf("%d requests were sent, want %d", r.Sent, cell)
	}
	p := float64(weight) / 100
	want, tolerance := p*cell, 5*math.Sqrt(cell*p*(1-p))
	got := float64(r.Versions["v2"].Total())
	if math.Abs(got-want) > tolerance {
		t.Errorf("at weight %d, %v of %d requests reached the candidate, want %v ± %.0f", weight, got, cell, want, tolerance)
	}
}
