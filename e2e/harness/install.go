// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Installed says whether Headgate is there.
func (c *Cluster) Installed(ctx context.Context) (bool, error) {
	var d appsv1.Deployment
	err := c.Client.Get(ctx, client.ObjectKey{Namespace: SystemNamespace, Name: SystemName}, &d)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for Headgate: %w", err)
	}
	return true, nil
}

// Install installs the chart with the images of the local build, or brings an installation up to date. values, such as
// "prometheus.scrapeInterval=5s", override those that the tests have otherwise.
func (c *Cluster) Install(ctx context.Context, values ...string) error {
	return c.InstallChart(ctx, c.Repo+"/charts/headgate", values...)
}

// InstallChart is Install for the chart of any version, with the images that are its own.
func (c *Cluster) InstallChart(ctx context.Context, chart string, values ...string) error {
	args := []string{
		"upgrade", "--install", SystemName, chart,
		"--namespace", SystemNamespace, "--create-namespace", "--wait", "--timeout", "4m",
		// Cases bring their own policies, and some want none.
		"--set", "prometheus.enabled=true,prometheus.image.repository=ghcr.io/headgate/prometheus,prometheus.image.tag=dev," +
			"prometheus.scrapeInterval=2s,defaultPolicy.enabled=false",
	}
	r := c.RunHelm(ctx, append(args, setFlags(values)...)...)
	if err := r.Err(); err != nil {
		return fmt.Errorf("installing Headgate: %w", err)
	}
	return c.awaitInstalled(ctx)
}

// EnsureInstalled installs the chart unless Headgate is there, and waits until it works.
func (c *Cluster) EnsureInstalled(ctx context.Context) error {
	there, err := c.Installed(ctx)
	if err != nil {
		return err
	}
	if !there {
		return c.Install(ctx)
	}
	return c.awaitInstalled(ctx)
}

func (c *Cluster) awaitInstalled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	err := Follow(ctx, c.Client, Selected{&appsv1.DeploymentList{}, []client.ListOption{client.InNamespace(SystemNamespace)}},
		func(state map[types.UID]*appsv1.Deployment) bool {
			for _, d := range state {
				if !Complete(d) {
					return false
				}
			}
			return len(state) > 0
		})
	if err != nil {
		return fmt.Errorf("waiting for Headgate to be ready: %w\n%s", err, c.Dump(context.WithoutCancel(ctx), SystemNamespace))
	}
	return c.AwaitWebhooks(ctx)
}

// AwaitWebhooks waits until the API server reaches the webhooks: a moment after their pods are ready, when the
// node has routes to them. Pods that are created in that moment start without a sidecar, as designed, and the
// first update of their workload is not held.
func (c *Cluster) AwaitWebhooks(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-webhooks-", Labels: map[string]string{v1alpha1.EnabledLabel: "true"}}}
	if err := c.Client.Create(ctx, ns); err != nil {
		return fmt.Errorf("creating a namespace: %w", err)
	}
	defer c.Client.Delete(context.WithoutCancel(ctx), ns) //nolint:errcheck // an empty namespace harms nobody
	d := idle(ns.Name)
	if err := c.Client.Create(ctx, d); err != nil {
		return fmt.Errorf("creating a Deployment without pods: %w", err)
	}
	// The webhook of Deployments fails closed, so an update that succeeds went through it. All webhooks have the same
	// address.
	change := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"minReadySeconds":1}}`))
	err := admitted(ctx, func(ctx context.Context) error { return c.Client.Patch(ctx, d.DeepCopy(), change, client.DryRunAll) })
	if err != nil {
		return fmt.Errorf("waiting until the API server reaches Headgate's webhooks: %w", err)
	}
	return nil
}

// idle is a Deployment without pods.
func idle(namespace string) *appsv1.Deployment {
	pod := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "probe"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "probe", Image: "probe"}}},
	}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "probe"},
		Spec:       appsv1.DeploymentSpec{Replicas: new(int32), Selector: &metav1.LabelSelector{MatchLabels: pod.Labels}, Template: pod},
	}
}

// admitted tries until the API server lets a request pass, which it does when it reaches the webhooks that it must ask.
func admitted(ctx context.Context, try func(context.Context) error) error {
	var refused error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		err := try(ctx)
		if err == nil {
			return true, nil
		}
		if refused == nil || ctx.Err() == nil && !strings.Contains(err.Error(), "client rate limiter") {
			refused = err // not that there is no time left to ask
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("%w; the API server last said: %w", err, refused)
	}
	return nil
}
