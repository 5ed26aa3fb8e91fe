// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/headgate/headgate/e2e/cluster/internal/config"
	"github.com/headgate/headgate/e2e/cluster/internal/network"
	"github.com/headgate/headgate/e2e/cluster/internal/process"
)

// Status prints how a cluster is doing, part by part.
func Status(ctx context.Context, out io.Writer, name string) error {
	s, err := load(name)
	if err != nil {
		return err
	}
	c := s.cluster(name)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(table, "cluster\t%s\n", name)
	if !s.Prepared || !network.Exists(c) {
		_, _ = fmt.Fprintf(table, "state\tnot up, or only in part; `down` removes what is left\n")
		return table.Flush()
	}
	_, _ = fmt.Fprintf(table, "Kubernetes\t%s\nkubeconfig\t%s\nAPI server\t%s\nnamespace\t%s\nfolder\t%s\n", c.Kubernetes, c.Kubeconfig(), c.APIServer(), c.Namespace(), c.Dir())
	for _, component := range config.Components(c, s.Kubernetes) {
		record, err := process.Load(c.Record(component.Name))
		if err != nil {
			return err
		}
		verdict := "not running; see " + c.Log(component.Name)
		if record.Alive() {
			verdict = fmt.Sprintf("running, process %d", record.PID)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\n", component.Name, verdict)
	}
	a, err := newAPI(c)
	if err != nil {
		return err
	}
	for _, check := range []check{{"node", a.nodeReady}, {"DNS (CoreDNS)", a.dnsReady}} {
		verdict := "ready"
		if err := check.of(ctx); err != nil {
			verdict = err.Error()
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\n", check.what, verdict)
	}
	return table.Flush()
}
