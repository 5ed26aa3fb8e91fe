// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/harness"
)

// Nothing of Headgate runs, and a candidate's pod is replaced: the new one has no gate. It must not start, or the
// native controller would give the whole workload to a version that nobody has judged.
func testAway(t *testing.T, cluster *harness.Cluster) {
	const n = 3
	c := cluster.NewCase(t, harness.Enabled)
	c.Policy(slowly)
	c.Deploy("replicas=3")
	stable := c.AwaitStable().Status.Stable.Hash
	c.Pods.Mark(stable)
	loads := everywhere(c)
	c.SetImage("v2")
	candidate := c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash

	back := faults.Away(c, faults.ControlPlane)
	for _, p := range c.Pods.Of(candidate) {
		c.Do("delete", "pod", p.Name, "--wait=false")
	}
	awaitRefused(c, candidate)
	if most := c.Pods.Most(candidate); most != 0 {
		t.Errorf("%d pods of the candidate were ready at some moment", most)
	}

	back()
	if least := c.Pods.Least(stable); least != n {
		t.Errorf("only %d stable pods were ready at some moment before the promotion, want %d throughout", least, n)
	}
	approve(c, candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	c.AwaitComplete()
	stopAll(c, loads)
}

func approve(c *harness.Case, candidate string) {
	c.T.Helper()
	c.Do("patch", "rollouts.headgate.dev", harness.Name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"approve":{"revision":%q,"step":0}}}`, candidate))
}

// awaitRefused waits until the API server has refused pods of this revision.
func awaitRefused(c *harness.Case, hash string) {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(c.Ctx, 2*time.Minute)
	defer cancel()
	of := []client.ListOption{client.InNamespace(c.Namespace), client.MatchingLabels{appsv1.DefaultDeploymentUniqueLabelKey: hash}}
	err := harness.Follow(ctx, c.Client, harness.Selected{List: &appsv1.ReplicaSetList{}, Options: of}, func(state map[types.UID]*appsv1.ReplicaSet) bool {
		for _, rs := range state {
			return slices.ContainsFunc(rs.Status.Conditions, func(k appsv1.ReplicaSetCondition) bool {
				return k.Type == appsv1.ReplicaSetReplicaFailure && k.Status == corev1.ConditionTrue && strings.Contains(k.Message, "headgate-candidates")
			})
		}
		return false
	})
	if err != nil {
		c.T.Fatalf("waiting until pods of %s without a gate are refused: %v", hash, err)
	}
}
