// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/rollout"
)

// strict is a policy with short limits for pods that don't start.
const strict = `
steps: [{weight: 20, minDuration: 20s}, {weight: 50}]
maxDuration: 90s
progressDeadline: 40s
`

// badVersion is a version that does not work, and what is said about it.
type badVersion struct {
	tag    string
	values []string
	cause  string
	// quota is a ResourceQuota's spec that leaves no room for the candidate.
	quota string
}

// A version that can't even start is rolled back with a reason that says so, and no user notices.
func testBadVersion(t *testing.T, cluster *harness.Cluster) {
	versions := map[string]badVersion{
		"crash-loops":   {tag: "crash", cause: v1alpha1.CauseCrashLoop},
		"image missing": {tag: "missing", cause: v1alpha1.CauseImagePull},
		"never ready":   {tag: "never-ready", cause: v1alpha1.CauseProgressDeadline},
		// The process runs and never listens; a probe that only connects must not be fooled by the sidecar.
		"hangs at the start, behind a tcpSocket probe": {tag: "deaf", values: []string{"probe=tcp"}, cause: v1alpha1.CauseProgressDeadline},
		// Room for the stable pods and two clients.
		"no room": {tag: "v2", quota: `{"hard":{"pods":"4"}}`, cause: v1alpha1.CauseNoRoom},
	}
	for name, v := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rejected(cluster.NewCase(t, harness.Enabled), v)
		})
	}
	t.Run("a stable pod dies in quarantine", func(t *testing.T) {
		t.Parallel()
		stablePodDies(cluster.NewCase(t, harness.Enabled))
	})
	t.Run("hangs, behind a tcpSocket probe", func(t *testing.T) {
		t.Parallel()
		hanging(cluster.NewCase(t, harness.Enabled))
	})
}

func rejected(c *harness.Case, v badVersion) {
	const n = 2
	t := c.T
	c.Policy(strict)
	c.Deploy(v.values...)
	stable := c.AwaitStable().Status.Stable.Hash
	c.Pods.Mark(stable)
	loads := everywhere(c)
	if v.quota != "" {
		c.Apply(`{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"full"},"spec":` + v.quota + "}")
	}
	c.SetImage(v.tag)
	if r := c.Try(words(rolloutStatus)...); r.Exit != 1 {
		t.Errorf("rollout status saw no failure: %s", r)
	}
	end := requireOutcome(c, 1, v1alpha1.OutcomeRolledBack)
	if end.Verdict == nil || end.Verdict.Cause != v.cause || end.Verdict.Message == "" {
		t.Errorf("the verdict is %+v, want cause %s", end.Verdict, v.cause)
	}
	if least := c.Pods.Least(stable); least != n {
		t.Errorf("only %d stable pods were ready at some moment, want %d throughout", least, n)
	}
	stopAll(c, loads)
}

// hanging: a version that connects and never answers passes its probe, so it gets requests; they are
// lost, and what matters is that it is few of them and not for long.
func hanging(c *harness.Case) {
	t := c.T
	c.Policy(strict)
	c.Deploy("probe=tcp")
	stable := c.AwaitStable().Status.Stable.Hash
	c.Pods.Mark(stable)
	l := c.StartLoad("service", harness.ToService(enough()))
	c.SetImage("hang")
	if r := c.Try(words(rolloutStatus)...); r.Exit != 1 {
		t.Errorf("rollout status saw no failure: %s", r)
	}
	end := requireOutcome(c, 1, v1alpha1.OutcomeRolledBack)
	if end.Verdict == nil || end.Verdict.Cause != rollout.CauseNoAnswers || end.Verdict.Message == "" {
		t.Errorf("the verdict is %+v, want cause %s", end.Verdict, rollout.CauseNoAnswers)
	}
	t.Logf("rolled back after %v: %+v", end.EndedAt.Sub(end.StartedAt.Time).Round(time.Second), end.Verdict)
	if least := c.Pods.Least(stable); least != 2 {
		t.Errorf("only %d stable pods were ready at some moment, want 2 throughout", least)
	}
	r := l.Stop()
	if r.Versions["v1"].Failed != 0 {
		t.Errorf("stable answered %d requests wrongly", r.Versions["v1"].Failed)
	}
	if unanswered := r.Versions[""].Failed; r.Failed != unanswered || unanswered*100 > r.Sent*20 {
		t.Errorf("%d of %d requests failed, %d of them unanswered; want only unanswered ones, and no more than the candidate's weight", r.Failed, r.Sent, unanswered)
	}
	t.Logf("%d of %d requests failed: %v", r.Failed, r.Sent, r.Classes)
}

// stablePodDies: the readiness of any pod makes the Deployment controller overwrite the failure condition; it
// must be there again before anybody polls, and the new pod must be stable's.
func stablePodDies(c *harness.Case) {
	const n = 2
	t := c.T
	c.Policy(strict + "onFailure: Quarantine")
	c.Deploy()
	stable := c.AwaitStable().Status.Stable.Hash
	loads := everywhere(c)
	c.SetImage("crash")
	candidate := c.AwaitPhase(rolloutEnd, v1alpha1.PhaseQuarantined).Status.Candidate.Hash
	c.AwaitDeployment(time.Minute, "native tools see the failure", failed)
	first := c.Pods.Of(stable)[0]
	c.Do("delete", "pod", first.Name)
	c.AwaitReady(2*time.Minute, stable, n)
	c.AwaitDeployment(5*time.Second, "native tools see the failure, though a pod became ready", failed)
	if got := c.Pods.Created(stable); got != n+1 {
		t.Errorf("%d stable pods were created, want %d and one for the pod that died", got, n)
	}
	if r := c.Try(words(rolloutStatus)...); r.Exit != 1 {
		t.Errorf("rollout status saw no failure: %s", r)
	}
	if most := c.Pods.Most(candidate); most != 0 {
		t.Errorf("%d pods of the candidate were ready", most)
	}
	stopAll(c, loads)
}
