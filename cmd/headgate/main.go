// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Command headgate is the one binary of Headgate: the control plane, what runs in pods, and the
// emergency exit.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/sidecar"
)

// version is set when the binary is linked.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := newCommand(os.Stdout).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "headgate:", err)
		stop()
		os.Exit(sidecar.ExitCode(err)) // of Envoy where it was Envoy that ended, else 1
	}
}

func newCommand(out io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "headgate",
		Short: "Progressive delivery for Kubernetes that nobody has to learn",
		Long: `Headgate makes ordinary updates of Deployments into judged rollouts.

People use kubectl, helm or their GitOps tool as ever; this binary is what the
chart runs: the control plane ("controller"), the two commands inside pods
("prepare", "run"), the emergency exit ("release"), and a look back ("export",
"replay").`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.AddCommand(newController(), newPrepare(), newRun(), newDrain(), newRelease(), newExport(), newReplay(), newVersion())
	return root
}

// one is for commands with one argument: its error says which.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("give %s; %q has more", what, cmd.CommandPath()+" --help")
		}
		return nil
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "headgate %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
