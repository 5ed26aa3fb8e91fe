// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"fmt"
	"strings"
)

// Dump is what a person would look at to understand a failure.
func (c *Cluster) Dump(ctx context.Context, namespace string) string {
	var b strings.Builder
	for _, args := range [][]string{
		{"get", "deployments,replicasets,pods,services,endpointslices", "-o", "wide", "--show-labels"},
		{"get", "rolloutpolicies,metrictemplates,rollouts", "-o", "yaml"},
		{"describe", "deployment"},
		{"get", "deployments", "-o", "yaml", "--show-managed-fields"},
		{"get", "events", "--sort-by=.lastTimestamp"},
	} {
		r := c.RunKubectl(ctx, "", append([]string{"-n", namespace}, args...)...)
		fmt.Fprintf(&b, "\n%s\n", r)
	}
	logs := c.RunKubectl(ctx, "", "-n", SystemNamespace, "logs", "--prefix", "--tail=400", "--max-log-requests=10",
		"-l", "app.kubernetes.io/name="+SystemName)
	fmt.Fprintf(&b, "\n$ %s | grep %s\n", logs.Line, namespace)
	for line := range strings.Lines(logs.Stdout) {
		if strings.Contains(line, namespace) {
			b.WriteString(line)
		}
	}
	b.WriteString(logs.Stderr)
	return b.String()
}
