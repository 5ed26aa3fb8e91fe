// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// People change their mind in the middle of a rollout, with the commands they know.
func testChangeOfMind(t *testing.T, cluster *harness.Cluster) {
	for name, test := range map[string]func(*harness.Case){
		"undo aborts": func(c *harness.Case) {
			aborted(c, func() { c.Do("rollout", "undo", "deployment/"+harness.Name) })
		},
		"the old manifest, applied again, aborts": func(c *harness.Case) {
			aborted(c, func() { c.Apply(c.Manifest("replicas=3")) })
		},
		"a third version supersedes":                   superseded,
		"undo after a third version reaches stable":    undoneAfterThird,
		"a third version while the second is promoted": supersededWhilePromoting,
		"undo at once after a third version":           undoneAtOnce,
		"pause, set image, resume":                     pausedBefore,
		"pause, set image, resume, mid-rollout":        pausedMidway,
		"pause, the candidate fails, resume":           failedWhilePaused,
		"scale up and down":                            scaled,
		"scale to 0 and back":                          scaledToZero,
		"strategy Recreate":                            recreate,
		"delete and create again":                      createdAgain,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(cluster.NewCase(t, harness.Enabled))
		})
	}
}

// midway is a workload in the middle of a rollout of v2, at weight 20, with clients everywhere.
type midway struct {
	*harness.Case
	stable, candidate string
	// fields are the user's before the update.
	fields userFields
	loads  []*harness.Load
}

// replicas of the workloads here.
const replicas = 3

// begin brings a workload there. The fewest ready pods of stable are counted from before the update on.
func begin(c *harness.Case, policy string, values ...string) *midway {
	c.T.Helper()
	return beginUnder(c, policy, everywhere, values...)
}

// beginUnder is begin with clients of the case's own choice; they start when the first version is stable.
func beginUnder(c *harness.Case, policy string, clients func(*harness.Case) []*harness.Load, values ...string) *midway {
	c.T.Helper()
	c.Policy(policy)
	c.Deploy(append([]string{fmt.Sprintf("replicas=%d", replicas)}, values...)...)
	m := &midway{Case: c, stable: c.AwaitStable().Status.Stable.Hash, fields: fieldsOf(c.AwaitComplete())}
	m.loads = clients(c)
	c.Pods.Mark(m.stable)
	c.Pods.Mark(harness.AnyRevision)
	c.SetImage("v2")
	m.candidate = c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash
	return m
}

// requireStableKept checks that stable had at least so many ready pods at any moment, and that no client
// met a candidate otherwise than through a sidecar.
func (m *midway) requireStableKept(n int) {
	m.T.Helper()
	if least := m.Pods.Least(m.stable); least < n {
		m.T.Errorf("only %d stable pods were ready at some moment, want %d throughout", least, n)
	}
	m.requireNeverReady(m.candidate)
}

func (m *midway) requireNeverReady(candidate string) {
	m.T.Helper()
	if most := m.Pods.Most(candidate); most != 0 {
		m.T.Errorf("%d pods of candidate %s were ready without a verdict", most, candidate)
	}
}

// promote asks for the promotion of the candidate, as `kubectl headgate promote` would.
func promote(c *harness.Case, revision string) {
	c.T.Helper()
	c.Do("patch", "rollouts.headgate.dev", harness.Name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"promote":{"revision":%q}}}`, revision))
}

// requireThird rolls out v3, as the nth rollout, as if nothing had happened before.
func (m *midway) requireThird(n int) {
	m.T.Helper()
	m.SetImage("v3")
	third := m.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash
	m.requireNeverReady(third)
	promote(m.Case, third)
	requireOutcome(m.Case, n, v1alpha1.OutcomePromoted)
	m.requireEnd("v3")
}

// requireEnd checks that everything is at rest with this version, and that no request failed.
func (m *midway) requireEnd(version string) {
	m.T.Helper()
	m.AwaitStable()
	d := m.AwaitComplete()
	requireFields(m.T, m.fields, d)
	if image(d) != version {
		m.T.Errorf("the Deployment's image is %s, want %s", image(d), version)
	}
	stopAll(m.Case, m.loads)
}

func aborted(c *harness.Case, act func()) {
	m := begin(c, slowly)
	act()
	requireOutcome(c, 1, v1alpha1.OutcomeAborted)
	m.requireEnd("v1")
	m.requireStableKept(replicas)
}

func superseded(c *harness.Case) {
	m := begin(c, quick)
	c.SetImage("v3")
	requireOutcome(c, 1, v1alpha1.OutcomeSuperseded)
	m.requireStableKept(replicas)
	requireOutcome(c, 2, v1alpha1.OutcomePromoted)
	m.requireEnd("v3")
	m.requireNeverReady(m.candidate)
}

// undoneAfterThird: `rollout undo` goes to the revision before, whatever became of it. What was superseded
// is out of the history long before its pods have ended, so that stable is the one before.
func undoneAfterThird(c *harness.Case) {
	m := begin(c, slowly)
	c.SetImage("v3")
	third := c.AwaitRollout(time.Minute, "the third version is the candidate", func(r *v1alpha1.Rollout) bool {
		return r.Status.Candidate.Hash != "" && r.Status.Candidate.Hash != m.candidate
	}).Status.Candidate.Hash
	c.AwaitForgotten(5*time.Second, m.candidate)
	c.Do("rollout", "undo", "deployment/"+harness.Name)
	requireOutcome(c, 2, v1alpha1.OutcomeAborted)
	m.requireEnd("v1")
	m.requireStableKept(replicas)
	m.requireNeverReady(third)
}

// undoneAtOnce: for a moment the version that was superseded is the one before in the native history, and undo goes there.
func undoneAtOnce(c *harness.Case) {
	m := begin(c, slowly)
	c.SetImage("v3")
	third := c.AwaitRevision(time.Minute, "v3")
	if r := c.Do("rollout", "undo", "deployment/"+harness.Name); !strings.Contains(r.Stderr, "back to the stable version") {
		c.T.Errorf("want a warning that says where the undo goes: %s", r)
	}
	requireOutcome(c, 2, v1alpha1.OutcomeAborted)
	m.requireEnd("v1")
	m.requireStableKept(replicas)
	m.requireNeverReady(third)
}

func supersededWhilePromoting(c *harness.Case) {
	m := begin(c, slowly)
	promote(c, m.candidate)
	c.AwaitDeployment(time.Minute, "the native rolling update has begun", func(d *appsv1.Deployment) bool {
		return d.Annotations[v1alpha1.HoldAnnotation] == "" && d.Status.UpdatedReplicas > 1
	})
	c.SetImage("v3")
	requireOutcome(c, 1, v1alpha1.OutcomeSuperseded)
	r := c.AwaitWeight(2*time.Minute, 0, 20)
	if r.Status.Stable.Hash != m.stable {
		c.T.Errorf("stable is %s, want the version that was proven good last, %s", r.Status.Stable.Hash, m.stable)
	}
	m.requireNeverReady(r.Status.Candidate.Hash)
	promote(c, r.Status.Candidate.Hash)
	requireOutcome(c, 2, v1alpha1.OutcomePromoted)
	m.requireEnd("v3")
	// The API's default, 25 %, allows 0 of 3 to be away.
	if least := c.Pods.Least(harness.AnyRevision); least < replicas {
		c.T.Errorf("only %d pods were ready at some moment, want %d throughout", least, replicas)
	}
}

func pausedBefore(c *harness.Case) {
	c.Policy(slowly)
	c.Deploy(fmt.Sprintf("replicas=%d", replicas))
	m := &midway{Case: c, stable: c.AwaitStable().Status.Stable.Hash, fields: fieldsOf(c.AwaitComplete())}
	m.loads = everywhere(c)
	c.Pods.Mark(m.stable)
	c.Do("rollout", "pause", "deployment/"+harness.Name)
	if r := c.Do("set", "image", "deployment/"+harness.Name, "app="+harness.AppImage+"v2"); !strings.Contains(r.Stderr, "begins when the Deployment is resumed") {
		c.T.Errorf("want a warning that says when the rollout begins: %s", r)
	}
	c.AwaitPhase(time.Minute, v1alpha1.PhasePaused)
	c.Do("rollout", "resume", "deployment/"+harness.Name)
	m.candidate = c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash
	m.requireStableKept(replicas)
	promote(c, m.candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// pausedMidway: while a held workload is paused comes a version that is to have fewer pods. The Deployment controller, which then
// does nothing but share out N + k, would take the difference from stable; and when the user resumes, the pods of the version before
// are still there.
func pausedMidway(c *harness.Case) {
	const k = replicas
	policy := func(k int) string {
		return fmt.Sprintf("steps: [{weight: 20, replicas: %d, approval: true}]\nmaxDuration: 10m", k)
	}
	m := begin(c, policy(k))
	c.AwaitReadyButGated(time.Minute, m.candidate, k)
	c.Do("rollout", "pause", "deployment/"+harness.Name)
	c.Policy(policy(1))
	c.SetImage("v3")
	// Whatever the Deployment controller makes of it, it has done by then.
	if d := c.AwaitObserved(); d.Spec.Strategy.RollingUpdate.MaxSurge.IntValue() != k {
		c.T.Errorf("maxSurge is %v while the user has paused, want that it stays %d", d.Spec.Strategy.RollingUpdate.MaxSurge, k)
	}
	requireOutcome(c, 1, v1alpha1.OutcomeSuperseded)
	c.AwaitPhase(time.Minute, v1alpha1.PhasePaused)
	m.requireStableKept(replicas)
	c.Do("rollout", "resume", "deployment/"+harness.Name)
	third := c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash
	if third == m.candidate {
		c.T.Errorf("the candidate is still %s", third)
	}
	c.AwaitDeployment(time.Minute, "one candidate pod is there", func(d *appsv1.Deployment) bool {
		return image(d) == "v3" && d.Status.UpdatedReplicas == 1 && d.Status.Replicas == replicas+1
	})
	m.requireStableKept(replicas)
	m.requireNeverReady(third)
	promote(c, third)
	requireOutcome(c, 2, v1alpha1.OutcomePromoted)
	m.requireEnd("v3")
}

// failedWhilePaused: nothing of the Deployment may change while the user has paused, or stable loses pods;
// but the candidate gets no more requests, and tools see the failure.
func failedWhilePaused(c *harness.Case) {
	c.Policy("steps: [{weight: 50, minDuration: 2m}]\nmaxDuration: 200s\nprogressDeadline: 60s")
	c.Deploy(fmt.Sprintf("replicas=%d", replicas))
	m := &midway{Case: c, stable: c.AwaitStable().Status.Stable.Hash, fields: fieldsOf(c.AwaitComplete())}
	c.Pods.Mark(m.stable)
	l := c.StartLoad("service", harness.ToService(enough()))
	c.SetImage("errors")
	m.candidate = c.AwaitWeight(2*time.Minute, 0, 50).Status.Candidate.Hash
	c.Do("rollout", "pause", "deployment/"+harness.Name)
	requireOutcome(c, 1, v1alpha1.OutcomeRolledBack)
	held := c.AwaitDeployment(time.Minute, "native tools see the failure", failed)
	if image(held) != "errors" || !held.Spec.Paused {
		c.T.Errorf("image %s, paused %v; want the user's word to stand", image(held), held.Spec.Paused)
	}
	c.AwaitRollout(time.Minute, "no request goes to the candidate", func(r *v1alpha1.Rollout) bool {
		return r.Status.Weight == 0 && r.Status.WeightInForce == 0
	})
	requireOnlyCandidateFails(c.T, l.Stop())
	c.Do("rollout", "resume", "deployment/"+harness.Name)
	c.AwaitPhase(time.Minute, v1alpha1.PhaseQuarantined)
	m.loads = everywhereAs(c, "later-")
	c.Do("rollout", "undo", "deployment/"+harness.Name)
	m.requireEnd("v1")
	m.requireStableKept(replicas)
}

// scaled: the Deployment controller scales both ReplicaSets in proportion; stable has what it should have
// within moments, and never less than the smaller of both numbers.
func scaled(c *harness.Case) {
	m := begin(c, slowly)
	n := replicas
	for _, to := range []int{6, 4, 1, 3} {
		c.Pods.Mark(m.stable)
		c.Do("scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", to))
		c.AwaitReady(2*time.Minute, m.stable, to)
		m.requireStableKept(min(n, to))
		k := (to*20 + 99) / 100 // 20 % of them, as the step says
		c.AwaitDeployment(time.Minute, fmt.Sprintf("%d candidate pods are there", k), func(d *appsv1.Deployment) bool {
			return int(d.Status.UpdatedReplicas) == k && int(d.Status.Replicas) == to+k
		})
		n = to
	}
	if r := c.AwaitWeight(time.Minute, 0, 20); len(r.Status.History) != 0 {
		c.T.Errorf("the rollout ended: %+v", r.Status.History)
	}
	promote(c, m.candidate)
	requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	m.requireEnd("v2")
}

// scaledToZero: natively, all pods would be the candidate's when the workload grows again.
func scaledToZero(c *harness.Case) {
	m := begin(c, slowly)
	stopAll(c, m.loads) // nobody can answer without pods
	c.Do("scale", "deployment", harness.Name, "--replicas=0")
	requireOutcome(c, 1, v1alpha1.OutcomeAborted)
	c.Do("scale", "deployment", harness.Name, fmt.Sprintf("--replicas=%d", replicas))
	c.AwaitReady(2*time.Minute, m.stable, replicas)
	m.requireNeverReady(m.candidate)
	c.AwaitStable()
	m.loads = everywhereAs(c, "later-")
	m.requireThird(2)
}

// recreate: natively, stable would go to 0 at once. The wish is noted, and applies when the rollout ends.
func recreate(c *harness.Case) {
	m := begin(c, slowly)
	r := c.Do("patch", "deployment", harness.Name, "-p", `{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}`)
	if !strings.Contains(r.Stderr, "applied when the rollout ends") {
		c.T.Errorf("want a warning that says when the strategy applies: %s", r)
	}
	// Whatever the Deployment controller makes of it, it has done by then.
	c.AwaitObserved()
	c.Do("rollout", "undo", "deployment/"+harness.Name)
	requireOutcome(c, 1, v1alpha1.OutcomeAborted)
	m.fields.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	m.requireEnd("v1")
	m.requireStableKept(replicas)
	if r := c.Do("set", "image", "deployment/"+harness.Name, "app="+harness.AppImage+"v3"); !strings.Contains(r.Stderr, "strategy.type is Recreate") {
		c.T.Errorf("want a warning that says why the next update is no rollout: %s", r)
	}
	c.Do(words(rolloutStatus)...)
}

// createdAgain: the record was about another Deployment of the same name.
func createdAgain(c *harness.Case) {
	m := begin(c, slowly)
	stopAll(c, m.loads)
	c.Do("delete", "deployment", harness.Name)
	c.Apply(c.Manifest(fmt.Sprintf("replicas=%d", replicas)))
	uid := c.AwaitComplete().UID
	c.AwaitRollout(2*time.Minute, "the record is about the new Deployment, and names its stable revision", func(r *v1alpha1.Rollout) bool {
		return r.Status.DeploymentUID == uid && r.Status.Phase == v1alpha1.PhaseIdle && r.Status.Stable.Hash != "" &&
			len(r.OwnerReferences) == 1 && r.OwnerReferences[0].UID == uid
	})
	m.requireNeverReady(m.candidate)
	m.loads = everywhereAs(c, "later-")
	m.requireThird(1)
}
