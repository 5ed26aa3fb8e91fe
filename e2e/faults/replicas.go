// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/e2e/harness"
)

// Prometheus is the Deployment of the one that the chart brings, ControlPlane that of Headgate itself.
const (
	Prometheus   = "headgate-prometheus"
	ControlPlane = harness.SystemName
)

// patience is how long parts of Headgate may take to come and go.
const patience = 3 * time.Minute

// Away takes all pods of one of these Deployments away. They are back when back returns, or the test ends.
func Away(c *harness.Case, deployment string) (back func()) {
	c.T.Helper()
	var d appsv1.Deployment
	if err := c.Client.Get(c.Ctx, client.ObjectKey{Namespace: harness.SystemNamespace, Name: deployment}, &d); err != nil {
		c.T.Fatalf("reading %s: %v", deployment, err)
	}
	scale := func(n int32) { system(c, "scale", "deployment", deployment, fmt.Sprintf("--replicas=%d", n)) }
	scale(0)
	c.Await(2*time.Minute, deployment+" has no pods", func(ctx context.Context) error {
		what := harness.Selected{List: &corev1.PodList{}, Options: []client.ListOption{
			client.InNamespace(harness.SystemNamespace), client.MatchingLabels{"app.kubernetes.io/name": deployment},
		}}
		return harness.Follow(ctx, c.Client, what, func(state map[types.UID]*corev1.Pod) bool { return len(state) == 0 })
	})
	return mended(c, func() {
		scale(*d.Spec.Replicas)
		AwaitReady(c, deployment)
	})
}

// Restart replaces the control plane's pods, one after the other: every sidecar has to open another stream.
func Restart(c *harness.Case) {
	c.T.Helper()
	system(c, "rollout", "restart", "deployment/"+ControlPlane)
	system(c, "rollout", "status", "deployment/"+ControlPlane, "--timeout=3m")
}

// AwaitReady waits until all pods that one of these Deployments should have are ready, and the control plane's also are
// reached by the API server.
func AwaitReady(c *harness.Case, deployment string) {
	c.T.Helper()
	c.Await(patience, deployment+" is ready", func(ctx context.Context) error {
		what := harness.Selected{List: &appsv1.DeploymentList{}, Options: []client.ListOption{client.InNamespace(harness.SystemNamespace)}}
		return harness.Follow(ctx, c.Client, what, func(state map[types.UID]*appsv1.Deployment) bool {
			for _, d := range state {
				if d.Name == deployment {
					return harness.Complete(d)
				}
			}
			return false
		})
	})
	if deployment == ControlPlane {
		c.Await(patience, "the API server reaches the webhooks", c.AwaitWebhooks)
	}
}

// Hurry replaces the control plane's pods that the kubelet would start again only after a while, because they have ended
// often: after an outage of a minute that is longer than anybody waits for here.
func Hurry(c *harness.Case) {
	c.T.Helper()
	var pods corev1.PodList
	of := []client.ListOption{client.InNamespace(harness.SystemNamespace), client.MatchingLabels{"app.kubernetes.io/name": ControlPlane}}
	if err := c.Client.List(c.Ctx, &pods, of...); err != nil {
		c.T.Fatalf("listing the control plane's pods: %v", err)
	}
	for i := range pods.Items {
		for _, s := range pods.Items[i].Status.ContainerStatuses {
			if s.State.Running == nil && s.RestartCount > 0 {
				system(c, "delete", "pod", pods.Items[i].Name, "--wait=false")
			}
		}
	}
}

// Leader waits until there is another leader than the one before (empty: any) that has a pod. It returns who that
// is, for the next call, and its pod: the same as before, if only its process is new.
func Leader(c *harness.Case, before string) (identity string, pod *corev1.Pod) {
	c.T.Helper()
	pod = &corev1.Pod{}
	c.Await(patience, fmt.Sprintf("there is another leader than %q", before), func(ctx context.Context) error {
		what := harness.Selected{List: &coordinationv1.LeaseList{}, Options: []client.ListOption{client.InNamespace(harness.SystemNamespace)}}
		// A leader renews its lease every few seconds, so that there is always another look.
		return harness.Follow(ctx, c.Client, what, func(state map[types.UID]*coordinationv1.Lease) bool {
			for _, l := range state {
				if l.Name == ControlPlane && l.Spec.HolderIdentity != nil {
					identity = *l.Spec.HolderIdentity
				}
			}
			name, _, _ := strings.Cut(identity, "_")
			return identity != "" && identity != before &&
				c.Client.Get(ctx, client.ObjectKey{Namespace: harness.SystemNamespace, Name: name}, pod) == nil
		})
	})
	return identity, pod
}

// system runs kubectl in Headgate's namespace.
func system(c *harness.Case, args ...string) {
	c.T.Helper()
	if r := c.RunKubectl(context.WithoutCancel(c.Ctx), "", append([]string{"-n", harness.SystemNamespace}, args...)...); r.Exit != 0 {
		c.T.Fatal(r)
	}
}
