// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// quick is a policy whose rollouts end within about a minute.
const quick = `
steps: [{weight: 20, minDuration: 10s}, {weight: 50, minDuration: 5s}]
maxDuration: 60s
progressDeadline: 60s
`

// rolloutEnd is enough for any rollout under the policies of these tests, on a busy machine.
const rolloutEnd = 5 * time.Minute

// requireNoFailure checks that every request was answered as it should. Load.Stop checks that some were of each kind.
func requireNoFailure(t testing.TB, who string, r load.Report) {
	t.Helper()
	if !r.Final || r.Sent == 0 || r.OK != r.Sent {
		t.Errorf("%s: %d sent, %d ok, %d failed %v (final: %v); want none failed\n%s",
			who, r.Sent, r.OK, r.Failed, r.Classes, r.Final, strings.Join(r.Samples, "\n"))
	}
	t.Logf("%s: %d requests, %d failed, versions %v", who, r.Sent, r.Failed, r.Versions)
}

// everywhere starts clients that send all kinds of requests, through the Service and to the pods.
func everywhere(c *harness.Case) []*harness.Load { return everywhereAs(c, "") }

// everywhereAs is everywhere for a case that has had clients before; prefix tells them apart.
func everywhereAs(c *harness.Case, prefix string) []*harness.Load {
	return c.StartLoads(
		harness.NamedConfig{Name: prefix + "service", Config: harness.ToService(harness.AllKinds())},
		harness.NamedConfig{Name: prefix + "pods", Config: harness.ToPods(harness.AllKinds())},
	)
}

// stopAll ends clients when the last pods are gone, and requires that none of their requests failed.
func stopAll(c *harness.Case, loads []*harness.Load) {
	c.T.Helper()
	c.AwaitQuiet()
	for i, l := range loads {
		requireNoFailure(c.T, []string{"through the Service", "to the pods"}[i%2], l.Stop())
	}
}

// userFields are what a hold replaces.
type userFields struct {
	Strategy appsv1.DeploymentStrategy
	Deadline *int32
}

func fieldsOf(d *appsv1.Deployment) userFields {
	return userFields{d.Spec.Strategy, d.Spec.ProgressDeadlineSeconds}
}

// requireFields checks that the Deployment has the user's fields and no hold.
func requireFields(t testing.TB, want userFields, d *appsv1.Deployment) {
	t.Helper()
	if diff := cmp.Diff(want, fieldsOf(d)); diff != "" {
		t.Errorf("the user's fields (-want +got):\n%s", diff)
	}
	if hold, held := d.Annotations[v1alpha1.HoldAnnotation]; held {
		t.Errorf("the Deployment is still held: %s", hold)
	}
}

// requireOutcome waits for the end of the workload's only rollout so far.
func requireOutcome(c *harness.Case, rollouts int, want v1alpha1.Outcome) v1alpha1.HistoryEntry {
	c.T.Helper()
	got := c.AwaitOutcome(rolloutEnd, rollouts)
	if got.Outcome != want {
		c.T.Fatalf("the rollout ended %s, want %s: %+v", got.Outcome, want, got.Verdict)
	}
	return got
}

// progressing is the Deployment's condition that native tools read.
func progressing(d *appsv1.Deployment) appsv1.DeploymentCondition {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing {
			return c
		}
	}
	return appsv1.DeploymentCondition{}
}

// failed says whether native tools see the Deployment's update as failed.
func failed(d *appsv1.Deployment) bool {
	p := progressing(d)
	return p.Status == corev1.ConditionFalse && p.Reason == v1alpha1.ReasonDeadlineExceeded
}

func condition(all []metav1.Condition, kind string) metav1.Condition {
	for _, c := range all {
		if c.Type == kind {
			return c
		}
	}
	return metav1.Condition{}
}

// background runs a command while the test goes on.
func background(run func() harness.Result) <-chan harness.Result {
	done := make(chan harness.Result, 1)
	go func() { done <- run() }()
	return done
}

// image is the app's image in the Deployment's template.
func image(d *appsv1.Deployment) string {
	return strings.TrimPrefix(d.Spec.Template.Spec.Containers[0].Image, harness.AppImage)
}

func words(line string) []string { return strings.Fields(line) }
