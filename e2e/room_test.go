// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// Each node has room for one pod, as with a host port or an anti-affinity, and the candidate waits for a place. A pod of
// stable is deleted, and the scheduler gives its place to the candidate, which serves nobody: it has to go.
func testRoom(t *testing.T, cluster *harness.Cluster) {
	t.Run("while the candidate starts", func(t *testing.T) {
		t.Parallel()
		crowdedOut(cluster.NewCase(t, harness.Enabled), "progressDeadline: 10m", v1alpha1.PhaseStarting)
	})
	t.Run("in quarantine", func(t *testing.T) {
		t.Parallel()
		crowdedOut(cluster.NewCase(t, harness.Enabled), "progressDeadline: 20s\nonFailure: Quarantine", v1alpha1.PhaseQuarantined)
	})
}

// crowdedOut deletes stable's only pod in that phase.
func crowdedOut(c *harness.Case, policy string, phase v1alpha1.Phase) {
	const antiAffinity = "pod.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]."
	alone := []string{
		"replicas=1", antiAffinity + "topologyKey=" + corev1.LabelHostname, antiAffinity + "labelSelector.matchLabels.app=" + harness.Name,
	}
	c.Policy("steps: [{weight: 50}]\n" + policy)
	c.Deploy(alone...)
	stable := c.AwaitStable().Status.Stable.Hash
	// The scheduler takes the candidate first when a place becomes free. Which one it takes is a race otherwise.
	c.Do("create", "priorityclass", c.Namespace, "--value=1000", "--preemption-policy=Never")
	c.T.Cleanup(func() { c.Do("delete", "priorityclass", c.Namespace) })
	c.Apply(c.Manifest(append(alone, "tag=v2", "pod.priorityClassName="+c.Namespace)...))
	r := c.AwaitRollout(rolloutEnd, fmt.Sprintf("a candidate is %s", phase), func(r *v1alpha1.Rollout) bool {
		return r.Status.Phase == phase && r.Status.Candidate.Hash != "" // a hold begins before its ReplicaSet exists
	})
	candidate := r.Status.Candidate.Hash
	c.Await(time.Minute, "the candidate finds no room", func(ctx context.Context) error {
		return c.Pods.AwaitPods(ctx, candidate, 1, unschedulable)
	})

	c.Do("delete", "pod", c.Pods.Of(stable)[0].Name)
	c.Await(time.Minute, "the candidate has the place", func(ctx context.Context) error {
		return c.Pods.AwaitPods(ctx, candidate, 1, func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	})
	c.AwaitReady(rolloutEnd, stable, 1)
	c.AwaitForgotten(time.Minute, candidate)

	if d := c.AwaitComplete(); image(d) != "v1" {
		c.T.Errorf("the Deployment's image is %s, want stable's", image(d))
	}
	if end := requireOutcome(c, 1, v1alpha1.OutcomeRolledBack); end.Verdict == nil || end.Verdict.Cause != v1alpha1.CauseNoRoom {
		c.T.Errorf("the verdict is %+v, want cause %s", end.Verdict, v1alpha1.CauseNoRoom)
	}
	if most := c.Pods.Most(candidate); most != 0 {
		c.T.Errorf("%d pods of the candidate were ready", most)
	}
}

func unschedulable(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c.Reason == corev1.PodReasonUnschedulable
		}
	}
	return false
}
