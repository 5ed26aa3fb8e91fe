// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/headgate/headgate/sidecar"
	"github.com/headgate/headgate/sidecar/capture"
)

func newPrepare() *cobra.Command {
	return &cobra.Command{
		Use:   "prepare",
		Short: "In a pod: redirect captured ports to the sidecar",
		Long: `Sets the nftables rules of this pod: captured ports and peers go to the sidecar,
probe aliases straight to the app. The init container that the Pod webhook adds
runs it; it needs NET_ADMIN and nothing else. What to capture is in the
environment (HEADGATE_INJECTION). Running it twice is harmless.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			injection, err := sidecar.InjectionFromEnv(os.Getenv)
			if err != nil {
				return err
			}
			rules := capture.Rules(injection)
			if err := capture.Apply(rules); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "redirects programmed: %v\n", rules)
			return err
		},
	}
}

func newRun() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "In a pod: run the sidecar",
		Long: `Supervises Envoy and serves it configuration: piped from Headgate's xDS server,
or, as long as that can't be reached, a plain pass-through of the captured ports.
What it needs to know is in the environment, set by the Pod webhook.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := sidecar.ConfigFromEnv(os.Getenv)
			if err != nil {
				return err
			}
			if err := setLogger("info", "json"); err != nil {
				return err
			}
			return sidecar.Run(ctrl.LoggerInto(cmd.Context(), ctrl.Log.WithName("sidecar")), config)
		},
	}
}

func newDrain() *cobra.Command {
	return &cobra.Command{
		Use:   "drain",
		Short: "In a pod: have the sidecar ask clients to go elsewhere",
		Long: `Tells Envoy that this pod is about to end: from now on responses close their
connections, so that keep-alive clients move on. The sidecar's preStop hook.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return sidecar.Drain(cmd.Context())
		},
	}
}
