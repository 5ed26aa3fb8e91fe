// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// waits is a policy whose first step takes as long as the test wants, and the rest a moment.
const waits = `
steps: [{weight: 20, approval: true}, {weight: 50, minDuration: 5s}]
maxDuration: 60s
progressDeadline: 60s
`

// Headgate itself is brought up to date, from the release before, in the middle of a rollout: nobody notices,
// the rollout goes on where it was, and the sidecars of before do what the control plane of now says.
func testUpgrade(t *testing.T, cluster *harness.Cluster) {
	previous := os.Getenv("HEADGATE_E2E_PREVIOUS")
	if previous == "" {
		t.Skip("set HEADGATE_E2E_PREVIOUS to the chart of an earlier version whose images the cluster has: cluster load --from")
	}
	if there, err := cluster.Installed(t.Context()); err != nil || there {
		t.Skipf("Headgate is there already (%v): this begins with an earlier version", err)
	}
	// Tests of other packages have left the definitions of now, which an earlier version does not know.
	if r := cluster.RunKubectl(t.Context(), "", "delete", "--ignore-not-found", "-f", cluster.Repo+"/charts/headgate/crds"); r.Exit != 0 {
		t.Fatal(r)
	}
	if err := cluster.InstallChart(t.Context(), previous); err != nil {
		t.Fatal(err)
	}
	c := cluster.NewCase(t, harness.Enabled)
	m := begin(c, waits)
	before, created := c.AwaitWeight(time.Minute, 0, 20), c.Pods.All()
	old := sidecars(c)
	if len(old) != 1 {
		t.Fatalf("the pods' sidecars are %v, want those of one version", old)
	}

	stop := keepUpdating(c)
	if err := cluster.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitGone(c)
	for _, refusal := range stop() {
		t.Errorf("an update was refused during the upgrade: %v", refusal)
	}
	requireSameRecord(t, before, c.AwaitWeight(time.Minute, 0, 20))
	if diff := cmp.Diff(old, sidecars(c)); diff != "" || c.Pods.All() != created {
		t.Errorf("the upgrade replaced pods, %d were created before it and %d by now: %s", created, c.Pods.All(), diff)
	}

	approve(c, m.candidate)
	c.AwaitWeight(2*time.Minute, 1, 50)
	m.requireStableKept(replicas)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
	if now := sidecars(c); len(now) != 2 {
		t.Errorf("the sidecars are %v, want those of the candidate's pods as they were, and new ones of the pods that came with the promotion", now)
	}
	requireDefinitions(c)
}

// sidecars counts the images of the sidecars of the workload's pods.
func sidecars(c *harness.Case) map[string]int {
	c.T.Helper()
	var pods corev1.PodList
	if err := c.Client.List(c.Ctx, &pods, client.InNamespace(c.Namespace), client.MatchingLabels{"app": harness.Name}); err != nil {
		c.T.Fatalf("listing pods: %v", err)
	}
	images := map[string]int{}
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil {
			continue
		}
		for _, container := range p.Spec.InitContainers {
			if container.Name == v1alpha1.ProxyContainer {
				images[container.Image]++
			}
		}
	}
	return images
}

// keepUpdating asks, ten times a second, for an update that Headgate's webhook has to admit, and changes nothing.
// It returns what ends that and tells which requests were refused.
func keepUpdating(c *harness.Case) (stop func() []error) {
	c.T.Helper()
	c.Do("create", "deployment", "probe", "--image=probe", "--replicas=0")
	probe := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: "probe"}}
	ctx, cancel := context.WithCancel(c.Ctx)
	ended := make(chan []error)
	go func() {
		var refused []error
		asked := 0
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				c.T.Logf("%d updates were asked for, %d refused", asked, len(refused))
				ended <- refused
				return
			case <-tick.C:
			}
			change := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"minReadySeconds":1}}`))
			if err := c.Client.Patch(c.Ctx, probe.DeepCopy(), change, client.DryRunAll); err != nil {
				refused = append(refused, err)
			}
			asked++
		}
	}()
	return func() []error {
		cancel()
		return <-ended
	}
}

// awaitGone waits until no pod of an earlier version of Headgate is left, not even one that ends its work.
func awaitGone(c *harness.Case) {
	c.T.Helper()
	r := c.RunKubectl(c.Ctx, "", "-n", harness.SystemNamespace, "wait", "--for=delete", "pod",
		"-l", "app.kubernetes.io/name="+harness.SystemName+",app.kubernetes.io/version!=dev", "--timeout=2m")
	if r.Exit != 0 {
		c.T.Fatal(r)
	}
}

// requireSameRecord checks that a rollout is where it was, and did not begin anew.
func requireSameRecord(t *testing.T, before, after *v1alpha1.Rollout) {
	t.Helper()
	type place struct {
		UID               types.UID
		Stable, Candidate string
		Step              int32
		StepSince         *metav1.MicroTime
		Ended             int
	}
	of := func(r *v1alpha1.Rollout) place {
		s := r.Status
		return place{r.UID, s.Stable.Hash, s.Candidate.Hash, s.Step, s.StepSince, len(s.History)}
	}
	if diff := cmp.Diff(of(before), of(after)); diff != "" {
		t.Errorf("the rollout's record over the upgrade (-before +after):\n%s", diff)
	}
}

// requireDefinitions checks that the cluster has the custom resources' definitions of this version: the API server
// drops fields that it does not know.
func requireDefinitions(c *harness.Case) {
	c.T.Helper()
	r := c.RunKubectl(c.Ctx, "", "diff", "--server-side", "--field-manager=helm", "--force-conflicts", "-f", c.Repo+"/charts/headgate/crds")
	if r.Exit != 0 || strings.TrimSpace(r.Stdout) != "" {
		c.T.Errorf("the definitions of the custom resources are not those of this version: %s", r)
	}
}
