// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/harness"
)

// What README says about an emergency, line by line: Headgate is dead in the middle of two rollouts, an update must
// get out, and afterwards everything is as its user wants it, also when Headgate is back.
func testBreakGlass(t *testing.T, cluster *harness.Cluster) {
	updated, released := cluster.NewCase(t, harness.Enabled), cluster.NewCase(t, harness.Enabled)
	cases := map[*harness.Case]string{updated: "v3", released: "v2"}
	for c := range cases {
		c.Policy(slowly)
		c.Deploy()
	}
	fields := fieldsOf(updated.AwaitComplete())
	loads := map[*harness.Case][]*harness.Load{}
	for c := range cases {
		c.AwaitStable()
		loads[c] = everywhere(c)
		c.SetImage("v2")
	}
	for c := range cases {
		c.AwaitWeight(2*time.Minute, 0, 20)
	}

	faults.Away(updated, faults.ControlPlane)
	t.Cleanup(func() { // other cases need it, whatever happens here
		if err := cluster.Install(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	for _, args := range [][]string{
		{"delete", "mutatingwebhookconfiguration", "zz-headgate"},
		{"delete", "validatingadmissionpolicybinding", "headgate-candidates"},
	} {
		if r := cluster.RunKubectl(updated.Ctx, "", args...); r.Exit != 0 {
			t.Fatal(r)
		}
	}
	updated.SetImage("v3")
	updated.Do(words(rolloutStatus)...)
	if r := cluster.RunHeadgate(updated.Ctx, "release", "--all"); r.Exit != 0 {
		t.Fatal(r)
	}
	for c, want := range cases {
		d := c.AwaitComplete()
		if image(d) != want {
			t.Errorf("in %s the image is %s, want %s", c.Namespace, image(d), want)
		}
		requireFields(t, fields, d)
		requireUntouched(t, d)
	}

	if err := cluster.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for c, want := range cases {
		c.AwaitRollout(2*time.Minute, "what is out is stable", func(r *v1alpha1.Rollout) bool {
			return r.Status.Phase == v1alpha1.PhaseIdle && imageOf(c, r.Status.Stable.Hash) == want
		})
		// It has no sidecars: the first update brings them, and the second is a rollout again.
		c.SetImage("v4")
		c.Do(words(rolloutStatus)...)
		c.AwaitRollout(time.Minute, "the next one is stable", func(r *v1alpha1.Rollout) bool {
			return r.Status.Phase == v1alpha1.PhaseIdle && imageOf(c, r.Status.Stable.Hash) == "v4"
		})
		c.SetImage("v5")
		c.AwaitWeight(2*time.Minute, 0, 20)
		stopAll(c, loads[c])
	}
}

// imageOf is the tag that a revision's pods run; empty when it has none.
func imageOf(c *harness.Case, revision string) string {
	for _, pod := range c.Pods.Of(revision) {
		return strings.TrimPrefix(pod.Spec.Containers[0].Image, harness.AppImage)
	}
	return ""
}
