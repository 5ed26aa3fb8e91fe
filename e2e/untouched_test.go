// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// What Headgate was not asked to handle stays as it is, and is updated as always.
func testUntouched(t *testing.T, cluster *harness.Cluster) {
	t.Run("a namespace that is not enabled", func(t *testing.T) {
		t.Parallel()
		c := cluster.NewCase(t, harness.NotEnabled)
		c.Policy(quick)
		nativeUpdate(c)
	})
	t.Run("an enabled namespace without a policy", func(t *testing.T) {
		t.Parallel()
		c := cluster.NewCase(t, harness.Enabled)
		var policies v1alpha1.ClusterRolloutPolicyList
		if err := c.Client.List(c.Ctx, &policies); err != nil {
			t.Fatal(err)
		}
		if len(policies.Items) > 0 {
			t.Skipf("the cluster has a ClusterRolloutPolicy %q, so there is no namespace without a policy", policies.Items[0].Name)
		}
		nativeUpdate(c)
	})
	t.Run("a suspended policy", func(t *testing.T) {
		t.Parallel()
		c := cluster.NewCase(t, harness.Enabled)
		c.Policy("suspend: true")
		c.Deploy()
		c.SetImage("v2")
		c.Do(words(rolloutStatus)...)
		if d := c.AwaitComplete(); image(d) != "v2" || d.Annotations[v1alpha1.HoldAnnotation] != "" {
			t.Errorf("image %s, annotations %v; want v2 and no hold", image(d), d.Annotations)
		}
	})
	t.Run("StatefulSets, DaemonSets and CronJobs", func(t *testing.T) {
		t.Parallel()
		others(cluster.NewCase(t, harness.Enabled))
	})
}

// nativeUpdate checks that an update is the Deployment controller's alone, and loses no request.
func nativeUpdate(c *harness.Case) {
	t := c.T
	c.Deploy()
	loads := everywhere(c)
	fields := fieldsOf(c.AwaitComplete())
	c.SetImage("v2")
	c.Do(words(rolloutStatus)...)
	d := c.AwaitComplete()
	requireFields(t, fields, d)
	requireUntouched(t, d)
	stopAll(c, loads)

	var pods corev1.PodList
	if err := c.Client.List(c.Ctx, &pods, client.InNamespace(c.Namespace), client.MatchingLabels{"app": harness.Name}); err != nil {
		t.Fatal(err)
	}
	requirePlain(t, pods.Items, 2)
	if created := c.Pods.All(); created != 4 {
		t.Errorf("%d pods were created for two versions of 2, want 4", created)
	}
	var rollouts v1alpha1.RolloutList
	if err := c.Client.List(c.Ctx, &rollouts, client.InNamespace(c.Namespace)); err != nil {
		t.Fatal(err)
	}
	if len(rollouts.Items) != 0 {
		t.Errorf("there is a record of the workload: %+v", rollouts.Items)
	}
}

// requireUntouched checks that nothing of Headgate's is on the object.
func requireUntouched(t testing.TB, d *appsv1.Deployment) {
	t.Helper()
	for key, value := range d.Annotations {
		if strings.Contains(key, "headgate.dev") {
			t.Errorf("annotation %s=%s on the Deployment", key, value)
		}
	}
	for _, f := range d.ManagedFields {
		if strings.Contains(f.Manager, "headgate") {
			t.Errorf("manager %q owns fields of the Deployment: %s", f.Manager, f.FieldsV1)
		}
	}
}

// requirePlain checks that so many pods run without anything of Headgate's.
func requirePlain(t testing.TB, pods []corev1.Pod, want int) {
	t.Helper()
	running := 0
	for _, p := range pods {
		if p.DeletionTimestamp == nil {
			running++
		}
		if len(p.Spec.Containers)+len(p.Spec.InitContainers) != 1 || len(p.Spec.ReadinessGates) != 0 || p.Labels[v1alpha1.InjectedLabel] != "" {
			t.Errorf("pod %s is not plain: %+v", p.Name, p.Spec)
		}
	}
	if running != want {
		t.Errorf("%d pods run, want %d", running, want)
	}
}

func others(c *harness.Case) {
	t := c.T
	manifest, err := os.ReadFile("manifests/others.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.Policy("")
	c.Apply(string(manifest))
	for _, workload := range []string{"statefulset/store", "daemonset/agent"} {
		c.Do("rollout", "status", workload, "--timeout=2m")
		c.Do("set", "image", workload, "app="+harness.AppImage+"v2")
		c.Do("rollout", "status", workload, "--timeout=3m")
	}
	c.Do("create", "job", "now", "--from=cronjob/report")
	c.Do("wait", "--for=condition=Complete", "job/now", "--timeout=2m")
	var pods corev1.PodList
	if err := c.Client.List(c.Ctx, &pods, client.InNamespace(c.Namespace)); err != nil {
		t.Fatal(err)
	}
	requirePlain(t, pods.Items, 4)
}
