// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// most pods that the autoscaler may make.
const most = 2 * replicas

// The real autoscaler, on processor use, in the middle of a rollout. Under little load stable keeps the pods that
// it had, though the autoscaler wants fewer; under more load it gets more, though a pod of the candidate that
// is not ready, and so does nothing that the autoscaler counts, is among them.
func testAutoscaler(t *testing.T, cluster *harness.Cluster) {
	if r := cluster.RunKubectl(t.Context(), "", "get", "--raw", "/apis/metrics.k8s.io/v1beta1"); r.Exit != 0 {
		t.Skipf("the cluster has no metrics, so nothing scales: %s", r.Stderr)
	}
	c := cluster.NewCase(t, harness.Enabled)
	autoscale(c, replicas)
	m := begin(c, slowly)
	watched := watchReplicas(c)
	c.AwaitAutoscaler(3*time.Minute, "it knows what the pods use", func(h *autoscalingv2.HorizontalPodAutoscaler) bool {
		return used(h) != nil
	})

	for _, l := range m.loads {
		requireNoFailure(t, "before the load falls", l.Stop())
	}
	// So few that no pod is needed for them.
	few := map[load.Kind]float64{load.KindHTTP1: 2, load.KindNew: 1, load.KindGRPC: 1}
	m.loads = c.StartLoads(
		harness.NamedConfig{Name: "few-service", Config: harness.ToService(few)},
		harness.NamedConfig{Name: "few-pods", Config: harness.ToPods(few)},
	)
	autoscale(c, 1)
	c.AwaitAutoscaler(3*time.Minute, "it wants fewer pods", func(h *autoscalingv2.HorizontalPodAutoscaler) bool {
		return h.Status.DesiredReplicas < replicas && h.Status.LastScaleTime != nil
	})
	if n := *c.AwaitObserved().Spec.Replicas; n != replicas {
		t.Errorf("the autoscaler made %d replicas of %d in the middle of a rollout", n, replicas)
	}
	m.requireStableKept(replicas)

	crowd := harness.AllKinds()
	crowd[load.KindHTTP1] += 60
	m.loads = append(m.loads, c.StartLoads(
		harness.NamedConfig{Name: "crowd-service", Config: harness.ToService(crowd)},
		harness.NamedConfig{Name: "crowd-pods", Config: harness.ToPods(harness.AllKinds())},
	)...)
	c.AwaitDeployment(4*time.Minute, "more pods are ready", func(d *appsv1.Deployment) bool {
		return d.Status.ReadyReplicas > replicas
	})
	m.requireStableKept(replicas)
	if got := len(c.Pods.Of(m.candidate)); got != 1 {
		t.Errorf("the candidate has %d pods, want 1: it must not feed back into the autoscaler's arithmetic", got)
	}
	promote(c, m.candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	switch least, seen := watched(); {
	case least < replicas:
		t.Errorf("replicas was %d at some moment between the update and the end of the promotion, want %d at least", least, replicas)
	case seen <= replicas:
		t.Errorf("replicas was never more than %d", seen)
	}
	m.requireEnd("v2")
}

// watchReplicas follows the Deployment's replicas until watched is called, which returns the fewest and the most of them.
func watchReplicas(c *harness.Case) (watched func() (least, greatest int32)) {
	c.T.Helper()
	ctx, cancel := context.WithCancel(c.Ctx)
	begun, ended := make(chan struct{}), make(chan error, 1)
	var least, greatest int32
	go func() {
		what := harness.Selected{List: &appsv1.DeploymentList{}, Options: []client.ListOption{client.InNamespace(c.Namespace)}}
		ended <- harness.Follow(ctx, c.Client, what, func(state map[types.UID]*appsv1.Deployment) bool {
			for _, d := range state {
				n := *d.Spec.Replicas
				if greatest == 0 {
					least = n
					close(begun)
				}
				least, greatest = min(least, n), max(greatest, n)
			}
			return false
		})
	}()
	select {
	case <-begun:
	case err := <-ended:
		c.T.Fatalf("watching the Deployment: %v", err)
	}
	return func() (int32, int32) {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			c.T.Errorf("the Deployment was not watched to the end: %v", err)
		}
		return least, greatest
	}
}

// used is what the pods use, in percent of what they request, as the autoscaler knows it; nil: it does not.
func used(h *autoscalingv2.HorizontalPodAutoscaler) *int32 {
	for _, m := range h.Status.CurrentMetrics {
		if m.Resource != nil {
			return m.Resource.Current.AverageUtilization
		}
	}
	return nil
}

// autoscale applies the workload's autoscaler, with at least so many pods. It lets pods go without waiting.
func autoscale(c *harness.Case, least int) {
	c.T.Helper()
	c.Apply(fmt.Sprintf(`
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: %[1]s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: %[2]d
  maxReplicas: %[3]d
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
`, harness.Name, least, most))
}
