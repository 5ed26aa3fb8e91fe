// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/rollout"
)

// testUnreached: a NetworkPolicy of the namespace does not let in the port at which the pods of one version take what those of the
// other pass on. Stable answers all requests, nobody sees an error, and nothing is known of the new version: it is held, with a
// sentence that names the port, and goes on by itself when the port is let in.
func testUnreached(t *testing.T, cluster *harness.Cluster) {
	c := cluster.NewCase(t, harness.Enabled)
	c.Policy(quick)
	c.Deploy()
	stable := c.AwaitStable().Status.Stable.Hash
	loads := everywhere(c)
	var letIn []func()
	for _, pod := range c.Pods.Of(stable) {
		letIn = append(letIn, faults.Shut(c, pod))
	}
	c.SetImage("v2")
	r := c.AwaitRollout(4*time.Minute, "the rollout is held, or over", func(r *v1alpha1.Rollout) bool {
		v := r.Status.Verdict
		return v != nil && v.Result == v1alpha1.ResultHold || len(r.Status.History) > 0
	})
	if v := r.Status.Verdict; len(r.Status.History) > 0 || v.Cause != rollout.CauseNoSplit || !strings.Contains(v.Message, "port 15601") {
		t.Fatalf("the verdict is %+v, history %+v; want a Hold (NoSplit) that names the port", v, r.Status.History)
	}
	for _, open := range letIn {
		open()
	}
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	if d := c.AwaitComplete(); image(d) != "v2" {
		t.Errorf("the Deployment's image is %s, want v2", image(d))
	}
	stopAll(c, loads)
}
