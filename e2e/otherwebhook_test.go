// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// Other webhooks change what ours has seen, or before it sees it. A rollout is what it is without them.
func testOtherWebhook(t *testing.T, cluster *harness.Cluster) {
	rewrites := []string{"--from=mirror.invalid/", "--to=ghcr.io/headgate/"}
	drops := []string{"--drop=headgate.dev/"}
	for name, w := range map[string]struct {
		order harness.Order
		flags []string
		image string
	}{
		"rewrites images before":      {harness.BeforeHeadgate, rewrites, "mirror.invalid/testapp"},
		"rewrites images after":       {harness.AfterHeadgate, rewrites, "mirror.invalid/testapp"},
		"drops our annotations first": {harness.BeforeHeadgate, drops, "ghcr.io/headgate/testapp"},
		"drops our annotations after": {harness.AfterHeadgate, drops, "ghcr.io/headgate/testapp"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cluster.NewCase(t, harness.Enabled)
			c.AddWebhook(w.order, w.flags...)
			besideAnother(c, w.image)
		})
	}
}

func besideAnother(c *harness.Case, image string) {
	values := []string{"image=" + image, "replicas=3"}
	c.Policy(quick)
	c.Deploy(values...)
	m := &midway{Case: c, stable: c.AwaitStable().Status.Stable.Hash, fields: fieldsOf(c.AwaitComplete())}
	m.loads = everywhere(c)
	c.Pods.Mark(m.stable)

	// The template is what it was, once everybody has had his hands on it.
	c.Apply(c.Manifest(values...))
	requireFields(c.T, m.fields, c.AwaitComplete())
	if r := c.AwaitStable(); len(r.Status.History) != 0 || r.Status.Stable.Hash != m.stable {
		c.T.Errorf("applying the same again was taken for an update: %+v", r.Status)
	}

	next := append([]string{"tag=v2"}, values...)
	c.Apply(c.Manifest(next...))
	m.candidate = c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash
	c.Apply(c.Manifest(next...))
	m.requireStableKept(3)
	end := requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	if end.To != m.candidate {
		c.T.Errorf("%s was promoted, want the candidate of the first update, %s", end.To, m.candidate)
	}
	m.requireEnd("v2")
	if got := c.Pods.Created(m.candidate); got != 3 {
		c.T.Errorf("%d pods of the candidate were created, want 3", got)
	}
}
