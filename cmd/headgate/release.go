// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/release"
)

func newRelease() *cobra.Command {
	o := release.Options{}
	all := false
	cmd := &cobra.Command{
		Use:   "release --all",
		Short: "End every hold: the emergency exit, and what uninstalling runs first",
		Long: `Ends every hold in the cluster: forward where nothing speaks against the
candidate, back where it failed. The user's fields come back as he wrote them,
and nothing of Headgate stays in any Deployment.

A living control plane is asked first, because it can take the weights out of
the sidecars before. What is still held when patience is over, or all of it if
the control plane is dead, is released directly; Headgate's webhooks are removed
before that, so updates are plain Kubernetes updates from then on. At the end it
is looked whether anything is held, or held again: that is an error.

The cluster is that of the kubeconfig's current context (KUBECONFIG, as for
kubectl); inside a pod, the pod's.`,
		Example: `  headgate release --all
  headgate release --all --namespace delivery`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !all {
				return fmt.Errorf("say --all: this ends every rollout in the cluster and removes Headgate's webhooks")
			}
			config, c, err := connect()
			if err != nil {
				return err
			}
			o.Client, o.Out = c, cmd.OutOrStdout()
			fmt.Fprintf(o.Out, "Ending every hold of the cluster %s\n", config.Host)
			return release.All(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "really end every hold")
	f.StringVar(&o.Namespace, "namespace", "", "namespace of the control plane; empty: the one where the webhooks point")
	f.StringVar(&o.Deployment, "deployment", "headgate", "name of the control plane's Deployment")
	f.StringVar(&o.WebhookConfiguration, "webhook-configuration", "zz-headgate", "name of the mutating webhook configuration")
	f.StringVar(&o.PolicyBinding, "policy-binding", "headgate-candidates", "name of the validating admission policy's binding")
	f.DurationVar(&o.Patience, "patience", 60*time.Second, "how long the control plane may take to release by itself")
	return cmd
}

// connect reaches the cluster as kubectl does.
func connect() (*rest.Config, client.Client, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("finding the cluster: %w", err)
	}
	scheme, err := newScheme()
	if err != nil {
		return nil, nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to the cluster: %w", err)
	}
	return config, c, nil
}

// newScheme knows Kubernetes' types and Headgate's.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the types of Kubernetes: %w", err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the types of Headgate: %w", err)
	}
	return scheme, nil
}
