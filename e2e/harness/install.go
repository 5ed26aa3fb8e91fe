// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
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

// Install installs the chart with the images of the local build, or brings an installation up to date.
func (c *Cluster) Install(ctx context.Context) error {
	r := c.RunHelm(ctx, "upgrade", "--install", SystemName, c.Repo+"/charts/headgate",
		"--namespace", SystemNamespace, "--create-namespace", "--wait", "--timeout", "4m",
		// Cases bring their own policies, and some want none.
		"--set", "image.tag=dev,proxy.image.tag=dev,prometheus.enabled=true,prometheus.image.tag=dev,prometheus.scrapeInterval=2s,defaultPolicy.enabled=false")
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
	return nil
}
