// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/internal/quantile"
)

// BenchmarkPodStart is the time from when a workload at rest is to have one pod more, as an autoscaler asks for it,
// until that pod is ready: with the sidecar and, in turns with that, without. The times are medians.
func BenchmarkPodStart(b *testing.B) {
	cluster := installed(b)
	enabled := cluster.NewCase(b, harness.Enabled)
	enabled.Policy(quick)
	with, without := newStarts(enabled), newStarts(cluster.NewCase(b, harness.NotEnabled))
	enabled.AwaitStable()
	for b.Loop() {
		with.measure(true)
		without.measure(false)
	}
	median := func(s *starts) float64 { return quantile.Of(s.took, 0.5).Seconds() }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(with), "with-sec")
	b.ReportMetric(median(without), "without-sec")
	b.ReportMetric(median(with)/median(without), "p50-ratio")
}

// starts are those of the pods of one workload.
type starts struct {
	*harness.Case
	revision string
	took     []time.Duration
}

// newStarts makes a workload of one pod.
func newStarts(c *harness.Case) *starts {
	c.T.Helper()
	c.Deploy("replicas=1")
	var pods corev1.PodList
	if err := c.Client.List(c.Ctx, &pods, client.InNamespace(c.Namespace), client.MatchingLabels{"app": harness.Name}); err != nil {
		c.T.Fatal(err)
	}
	if len(pods.Items) != 1 {
		c.T.Fatalf("the workload has %d pods, want 1", len(pods.Items))
	}
	return &starts{Case: c, revision: harness.Revision(&pods.Items[0])}
}

// measure starts a second pod, which must have a sidecar or must not, and waits until it is gone again.
func (s *starts) measure(sidecar bool) {
	s.T.Helper()
	start := time.Now()
	s.scale(2)
	s.AwaitReady(2*time.Minute, s.revision, 2)
	s.took = append(s.took, time.Since(start))
	for _, p := range s.Pods.Of(s.revision) {
		if has := p.Labels[v1alpha1.InjectedLabel] == "true"; has != sidecar {
			s.T.Fatalf("pod %s has a sidecar: %t, want %t", p.Name, has, sidecar)
		}
	}
	s.scale(1)
	s.AwaitReady(time.Minute, s.revision, 1)
	s.AwaitQuiet()
}

// scale asks the API itself: how long a program takes to start is not to be measured.
func (s *starts) scale(n int) {
	s.T.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)
	_, err := s.Kube.AppsV1().Deployments(s.Namespace).Patch(s.Ctx, harness.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	if err != nil {
		s.T.Fatalf("scaling to %d: %v", n, err)
	}
}
