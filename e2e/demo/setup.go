// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// The shop.
const (
	namespace       = "shop"
	workload        = harness.Name
	imageRepository = harness.AppImage
	firstTag        = "v1"
	clientPod       = "customers"
)

// theSteps are the weights of the shop's policy.
func theSteps() []int32 { return []int32{10, 25, 50} }

// shopPolicy makes rollouts short enough to watch. With an empty spec they would take up to 4 minutes.
const shopPolicy = `
steps: [{weight: 10}, {weight: 25}, {weight: 50}]
maxDuration: 2m
progressDeadline: 1m
onFailure: Quarantine
`

// customers send about 150 requests a second, of all kinds.
func customers() load.Config {
	c := harness.ToService(map[load.Kind]float64{
		load.KindHTTP1: 90, load.KindNew: 20, load.KindH2C: 20, load.KindGRPC: 18, load.KindSlow: 1, load.KindStream: 1,
	})
	c.Duration = time.Hour
	return c
}

// stage prepares everything, telling say what it does.
type stage struct {
	options Options
	say     func(format string, args ...any)
	output  io.Writer // of programs that take long
}

// prepare brings up the cluster, Headgate and the shop under load.
func (s stage) prepare(ctx context.Context) (*harness.Cluster, error) {
	access, err := s.access(ctx)
	if err != nil {
		return nil, err
	}
	c, err := harness.ConnectTo(ctx, access)
	if err != nil {
		return nil, err
	}
	s.say("installing Headgate with helm")
	if err := c.Install(ctx); err != nil {
		return nil, err
	}
	return c, s.openShop(ctx, c)
}

// access is the cluster that was asked for, or one brought up on this machine.
func (s stage) access(ctx context.Context) (harness.Access, error) {
	if s.options.Kubeconfig != "" {
		return harness.Access{
			Kubeconfig: s.options.Kubeconfig,
			Kubectl:    cmp.Or(os.Getenv("HEADGATE_KUBECTL"), "kubectl"),
			Helm:       cmp.Or(os.Getenv("HEADGATE_HELM"), "helm"),
		}, nil
	}
	repo, err := harness.FindRepo()
	if err != nil {
		return harness.Access{}, err
	}
	s.say("bringing up a Kubernetes cluster on this machine (the first time compiles it: about 15 minutes)")
	kubeconfig, err := s.cluster(ctx, repo, "up", "--name", s.options.Cluster, "--images")
	if err != nil {
		return harness.Access{}, err
	}
	helm, err := s.cluster(ctx, repo, "build", "helm")
	if err != nil {
		return harness.Access{}, err
	}
	return harness.Access{Kubeconfig: kubeconfig, Kubectl: filepath.Join(repo, ".cache", "bin", "kubectl"), Helm: helm}, nil
}

// cluster runs the tool for local clusters and returns the last line that it prints.
func (s stage) cluster(ctx context.Context, repo string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"-C", filepath.Join(repo, "e2e", "cluster"), "run", "."}, args...)...)
	cmd.Stderr = s.output
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running the cluster tool %q: %w", args, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], nil
}

// openShop deploys the sample shop, from nothing, and lets customers in.
func (s stage) openShop(ctx context.Context, c *harness.Cluster) error {
	if err := closeShop(ctx, c); err != nil {
		return err
	}
	s.say("opening the shop: Deployment %s, 4 pods, in namespace %s", workload, namespace)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{v1alpha1.EnabledLabel: "true"}}}
	if err := c.Client.Create(ctx, ns); err != nil {
		return fmt.Errorf("creating namespace %s: %w", namespace, err)
	}
	manifest := c.RunHelm(ctx, "template", workload, c.Chart(), "--set", "replicas=4,tag="+firstTag)
	if err := manifest.Err(); err != nil {
		return err
	}
	if err := c.RunKubectl(ctx, harness.PolicyManifest(shopPolicy)+"---\n"+manifest.Stdout, "-n", namespace, "apply", "-f", "-").Err(); err != nil {
		return err
	}
	if err := awaitShop(ctx, c); err != nil {
		return err
	}
	s.say("letting customers in: about 150 requests a second")
	pod := harness.LoadPod(clientPod, customers())
	pod.Namespace = namespace
	if err := c.Client.Create(ctx, pod); err != nil {
		return fmt.Errorf("creating the client: %w", err)
	}
	return nil
}

// awaitShop waits until Headgate has recorded the first version as stable.
func awaitShop(ctx context.Context, c *harness.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	err := harness.Follow(ctx, c.Client, harness.Selected{List: &appsv1.DeploymentList{}, Options: inShop()}, func(state map[types.UID]*appsv1.Deployment) bool {
		for _, d := range state {
			return harness.Complete(d)
		}
		return false
	})
	if err != nil {
		return fmt.Errorf("waiting for the shop's pods: %w", err)
	}
	err = harness.Follow(ctx, c.Client, harness.Selected{List: &v1alpha1.RolloutList{}, Options: inShop()}, func(state map[types.UID]*v1alpha1.Rollout) bool {
		for _, r := range state {
			return r.Status.Phase == v1alpha1.PhaseIdle && r.Status.Stable.Hash != ""
		}
		return false
	})
	if err != nil {
		return fmt.Errorf("waiting for the shop's Rollout: %w", err)
	}
	return nil
}

// closeShop removes what an earlier demo left.
func closeShop(ctx context.Context, c *harness.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	err := c.Client.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting namespace %s: %w", namespace, err)
	}
	err = harness.Follow(ctx, c.Client, harness.Selected{List: &corev1.NamespaceList{}}, func(state map[types.UID]*corev1.Namespace) bool {
		for _, ns := range state {
			if ns.Name == namespace {
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("waiting until namespace %s is gone: %w", namespace, err)
	}
	return nil
}

// sendHome ends the client, for a demo that was interrupted.
func sendHome(c *harness.Cluster) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	now := int64(0)
	err := c.Kube.CoreV1().Pods(namespace).Delete(ctx, clientPod, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil && !apierrors.IsNotFound(err) {
		return errors.Join(errors.New("the client still runs, for at most an hour"), err)
	}
	return nil
}
