// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/export"
	"github.com/headgate/headgate/replay"
)

func newExport() *cobra.Command {
	o := export.Options{}
	address, secret, directory := "", "", ""
	cmd := &cobra.Command{
		Use:   "export DEPLOYMENT",
		Short: "Write the looks of a rollout, to replay them",
		Long: `Writes what a rollout was judged by, in the format of "headgate replay": first
the time before it, by which the judge knows how much pods differ, then the
rollout, look by look. Times are in seconds since it began.

The Rollout's record says which revisions were compared by which policy, which
weight was in force when, and when it was paused; Prometheus, asked again, what was
counted. So a replay gives the verdicts that were given at the time, but for what a
look did not see then because the last scrapes were still on their way.
The policy's own metrics are not part of it. The last ten rollouts of a workload
are on record; how long Prometheus knows them is Prometheus' own setting.

What a Prometheus at a URL asks for comes from a Secret that you may read, the one
that Headgate itself uses or another, or from a directory with files of the same
names: username and password, or token; ca.crt; tls.crt and tls.key; serverName;
header. and a header's name, as header.X-Scope-OrgID. One in the cluster is reached
through the API server, which takes the right to get services/proxy.`,
		Example: `  headgate export web -n shop > rollout.jsonl
  headgate replay rollout.jsonl --explain
  headgate export web -n shop --back 1 --prometheus https://prometheus.example | headgate replay - --policy stricter.yaml
  headgate export web -n shop --prometheus https://mimir.example/prometheus --prometheus-secret shop/mimir`,
		Args: one("a Deployment"),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, c, err := connect()
			if err != nil {
				return err
			}
			if o.Namespace == "" {
				rules := clientcmd.NewDefaultClientConfigLoadingRules()
				if o.Namespace, _, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).Namespace(); err != nil {
					return fmt.Errorf("finding the namespace: %w", err)
				}
			}
			var credentials prometheus.ReadSecret
			switch {
			case secret != "":
				if credentials, err = export.Secret(c, secret); err != nil {
					return err
				}
			case directory != "":
				credentials = export.Directory(directory)
			}
			if o.Prometheus, err = export.Connect(address, config, credentials); err != nil {
				return err
			}
			o.Client, o.Name, o.Now, o.Out = c, args[0], time.Now(), cmd.OutOrStdout()
			return export.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Namespace, "namespace", "n", "", "namespace of the Deployment; empty: that of the kubeconfig's context")
	f.IntVar(&o.Back, "back", 0, "how many rollouts came after the one that is meant")
	f.DurationVar(&o.Interval, "interval", replay.Interval, "time between two looks, in whole seconds")
	f.DurationVar(&o.Before, "before", 30*time.Minute, "how much of the time before the rollout comes first")
	f.StringVar(&address, "prometheus", "headgate-system/headgate-prometheus:9090", "URL of the Prometheus, or NAMESPACE/SERVICE:PORT of one in the cluster")
	f.StringVar(&secret, "prometheus-secret", "", "NAMESPACE/NAME of a Secret with what the URL asks for")
	f.StringVar(&directory, "prometheus-credentials", "", "directory with files named like the keys of such a Secret")
	cmd.MarkFlagsMutuallyExclusive("prometheus-secret", "prometheus-credentials")
	return cmd
}
