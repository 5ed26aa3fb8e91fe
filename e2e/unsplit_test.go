// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// Where requests can't be split, or not yet, an update goes out as always, at once, with a warning that says
// why; and once they can, the next one is managed.
func testUnsplit(t *testing.T, cluster *harness.Cluster) {
	t.Run("pods without sidecars", func(t *testing.T) {
		t.Parallel()
		firstUpdate(cluster.NewCase(t, harness.NotEnabled), func(*harness.Case) {})
	})
	t.Run("some pods without sidecars", func(t *testing.T) {
		t.Parallel()
		firstUpdate(cluster.NewCase(t, harness.NotEnabled), replaceOnePod)
	})
	t.Run("Pod Security baseline", func(t *testing.T) {
		t.Parallel()
		baseline(cluster.NewCase(t, harness.Enabled))
	})
	t.Run("hostNetwork", func(t *testing.T) {
		t.Parallel()
		onHostNetwork(cluster.NewCase(t, harness.Enabled))
	})
	t.Run("no ports", func(t *testing.T) {
		t.Parallel()
		c := cluster.NewCase(t, harness.Enabled)
		c.Policy(slowly)
		c.Deploy("ports=false")
		c.AwaitStable()
		loads := everywhere(c)
		atOnce(c, "TCP port", setImage("v2")...)
		stopAll(c, loads)
	})
	t.Run("a Service that changes with the version", func(t *testing.T) {
		for name, change := range map[string]func(manifest, tag string) string{"port": portRenamed, "selector": selectorMoved} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				serviceChanges(cluster.NewCase(t, harness.Enabled), change)
			})
		}
	})
	t.Run("a Service for the candidate", func(t *testing.T) {
		t.Parallel()
		candidateExposed(cluster.NewCase(t, harness.Enabled))
	})
	t.Run("a grace period of 3 s", func(t *testing.T) {
		t.Parallel()
		shortGrace(cluster.NewCase(t, harness.Enabled))
	})
}

// onHostNetwork: there is one node, on which two pods can't have one port. So natively, too, nobody serves while one pod
// replaces the other, and the clients come before and after.
func onHostNetwork(c *harness.Case) {
	c.Policy(slowly)
	c.Deploy("replicas=1", "pod.hostNetwork=true", "strategy.type=RollingUpdate", "strategy.rollingUpdate.maxSurge=0", "strategy.rollingUpdate.maxUnavailable=1")
	served := func(name, version string) {
		l := c.StartLoad(name, harness.ToService(shortKinds()))
		l.Await(time.Minute, "it is served", func(now load.Report) bool { return now.Versions[version].OK > 100 })
		requireNoFailure(c.T, name, l.Stop())
	}
	c.AwaitStable()
	served("before", "v1")
	atOnce(c, "maxSurge is 0", setImage("v2")...)
	served("after", "v2")
	// With room for another pod, hostNetwork itself is the reason.
	c.Apply(c.Manifest("replicas=1", "tag=deaf", "probe=none", "ports=false", "pod.hostNetwork=true"))
	c.AwaitStable()
	atOnce(c, "hostNetwork", "set", "env", "deployment/"+harness.Name, "RELEASE=2")
}

// portRenamed gives the port of every version but the first another name, and has the Services target that.
func portRenamed(manifest, tag string) string {
	if tag == "v1" {
		return manifest
	}
	return strings.NewReplacer("name: http\n", "name: web\n", "port: http\n", "port: web\n", "targetPort: http\n", "targetPort: web\n").Replace(manifest)
}

// selectorMoved labels pods with their version and has the Service for clients select that; the one for the pods themselves
// selects all.
func selectorMoved(manifest, tag string) string {
	const pod, service = "    metadata:\n      labels:\n        app: web\n", "spec:\n  selector:\n    app: web\n"
	manifest = strings.Replace(manifest, pod, pod+"        version: "+tag+"\n", 1)
	return strings.Replace(manifest, service, service+"    version: "+tag+"\n", 1)
}

// serviceChanges: no request of the Service's clients reaches stable from the update on, so the candidate goes out as natively,
// whatever the policy says.
func serviceChanges(c *harness.Case, change func(manifest, tag string) string) {
	c.Policy("steps: [{weight: 20, approval: true}]\nprogressDeadline: 2m")
	c.Apply(change(c.Manifest(), "v1"))
	c.AwaitStable()
	l := c.StartLoad("service", harness.ToService(enough()))
	manifest := c.Manifest("tag=v2")
	update := change(manifest, "v2")
	if update == manifest {
		c.T.Fatal("the Service did not change")
	}
	c.Apply(update)
	end := requireOutcome(c, 1, v1alpha1.OutcomeReleased)
	if end.Verdict == nil || !strings.Contains(end.Verdict.Message, "StableDown") {
		c.T.Errorf("the verdict is %+v, want that stable was down", end.Verdict)
	}
	if d := c.AwaitComplete(); image(d) != "v2" {
		c.T.Errorf("the Deployment's image is %s, want v2", image(d))
	}
	// Nobody answers until the first pod of the new version can, with or without Headgate.
	r := l.Stop()
	c.T.Logf("%d of %d requests failed: %v", r.Failed, r.Sent, r.Classes)
	if r.Versions["v2"].Failed != 0 {
		c.T.Errorf("the new version failed %d requests", r.Versions["v2"].Failed)
	}
}

// candidateExposed: somebody makes a Service to try the candidate by. It leads to no pod of stable, and never did: that is no
// reason to let the candidate out.
func candidateExposed(c *harness.Case) {
	c.Policy("steps: [{weight: 20, approval: true}]\nmaxDuration: 20s")
	c.Deploy()
	c.Do("delete", "service", harness.Name, harness.Name+"-pods")
	c.AwaitStable()
	c.SetImage("v2")
	candidate := c.AwaitPhase(2*time.Minute, v1alpha1.PhaseStepping).Status.Candidate.Hash
	c.Do("expose", "pod", c.Pods.Of(candidate)[0].Name, "--port=8080", "--name=look")
	c.AwaitRollout(time.Minute, "the step waits for an approval", func(r *v1alpha1.Rollout) bool { return r.Status.AwaitingApproval })
	if most := c.Pods.Most(candidate); most != 0 {
		c.T.Errorf("%d pods of the candidate were let out", most)
	}
	c.Do("rollout", "undo", "deployment/"+harness.Name)
	requireOutcome(c, 1, v1alpha1.OutcomeAborted)
}

func setImage(tag string) []string {
	return []string{"set", "image", "deployment/" + harness.Name, "app=" + harness.AppImage + tag}
}

// atOnce makes an update that must go out without a hold, with a warning that says this word.
func atOnce(c *harness.Case, why string, update ...string) {
	c.T.Helper()
	r := c.Do(update...)
	if !strings.Contains(r.Stderr, "goes out at once") || !strings.Contains(r.Stderr, why) {
		c.T.Errorf("want a warning that the update goes out at once, and about %q: %s", why, r)
	}
	c.Do(words(rolloutStatus)...)
	if d := c.AwaitComplete(); d.Annotations[v1alpha1.HoldAnnotation] != "" {
		c.T.Errorf("the Deployment is held: %s", d.Annotations[v1alpha1.HoldAnnotation])
	}
}

// managed makes an update that must be a rollout, the next in the history after so many, and promotes it.
func managed(c *harness.Case, tag string, before int) {
	c.T.Helper()
	c.AwaitStable()
	c.SetImage(tag)
	candidate := c.AwaitWeight(2*time.Minute, 0, 20).Status.Candidate.Hash
	if most := c.Pods.Most(candidate); most != 0 {
		c.T.Errorf("%d pods of the candidate were ready without a verdict", most)
	}
	promote(c, candidate)
	requireOutcome(c, before+1, v1alpha1.OutcomePromoted)
	c.AwaitStable()
	if d := c.AwaitComplete(); image(d) != tag {
		c.T.Errorf("the Deployment's image is %s, want %s", image(d), tag)
	}
}

// firstUpdate: the team labels a namespace whose workloads run for long.
func firstUpdate(c *harness.Case, before func(*harness.Case)) {
	c.Deploy("replicas=3")
	loads := everywhere(c)
	c.Pods.Mark(harness.AnyRevision)
	c.Policy(slowly)
	c.Do("label", "namespace", c.Namespace, v1alpha1.EnabledLabel+"=true")
	c.AwaitStable()
	before(c)
	atOnce(c, "no sidecar yet", setImage("v2")...)
	requireOutcome(c, 1, v1alpha1.OutcomeReleased)
	managed(c, "v3", 1)
	if least := c.Pods.Least(harness.AnyRevision); least < 2 {
		c.T.Errorf("only %d pods were ready at some moment, want at least 2", least)
	}
	stopAll(c, loads)
}

// replaceOnePod gives one of the pods a sidecar, as a drained node would.
func replaceOnePod(c *harness.Case) {
	var pods corev1.PodList
	if err := c.Client.List(c.Ctx, &pods, client.InNamespace(c.Namespace), client.MatchingLabels{"app": harness.Name}); err != nil {
		c.T.Fatal(err)
	}
	c.Do("delete", "pod", pods.Items[0].Name)
	c.AwaitReady(2*time.Minute, harness.Revision(&pods.Items[0]), 3)
	if err := c.Client.List(c.Ctx, &pods, client.InNamespace(c.Namespace), client.MatchingLabels{v1alpha1.InjectedLabel: "true"}); err != nil {
		c.T.Fatal(err)
	}
	if len(pods.Items) != 1 {
		c.T.Errorf("%d pods have a sidecar, want the one that is new", len(pods.Items))
	}
}

// baseline: the namespace's Pod Security level would refuse the sidecar's init container, and so the pod.
func baseline(c *harness.Case) {
	const level = "pod-security.kubernetes.io/enforce"
	c.Do("label", "namespace", c.Namespace, level+"=baseline")
	c.Policy(slowly)
	c.Deploy()
	c.AwaitStable()
	loads := everywhere(c)
	atOnce(c, "PodSecurity", setImage("v2")...)
	requireOutcome(c, 1, v1alpha1.OutcomeReleased)
	c.Do("label", "namespace", c.Namespace, level+"-")
	// Its pods got none when they were created; those of this update do.
	atOnce(c, "no sidecar", setImage("v3")...)
	requireOutcome(c, 2, v1alpha1.OutcomeReleased)
	managed(c, "v4", 2)
	stopAll(c, loads)
}

// shortGrace: the time that Headgate needs to take a pod out of traffic must come on top of what the user
// granted, or the API server would refuse the pod.
func shortGrace(c *harness.Case) {
	c.Policy(slowly)
	c.Deploy("replicas=3", "pod.terminationGracePeriodSeconds=3", "env.DRAIN=1s")
	for _, pod := range c.Pods.Of(c.AwaitStable().Status.Stable.Hash) {
		if got := *pod.Spec.TerminationGracePeriodSeconds; got < 3+5 {
			c.T.Errorf("pod %s is granted %d s, want the user's 3 and the 5 in which it goes out of traffic", pod.Name, got)
		}
	}
	c.Pods.Mark(harness.AnyRevision)
	// Nothing that takes longer than the app is granted.
	brief := map[load.Kind]float64{load.KindHTTP1: 12, load.KindNew: 6, load.KindH2C: 4, load.KindGRPC: 6}
	loads := c.StartLoads(
		harness.NamedConfig{Name: "service", Config: harness.ToService(brief)},
		harness.NamedConfig{Name: "pods", Config: harness.ToPods(brief)},
	)
	managed(c, "v2", 0)
	// The API's default, 25 %, allows 0 of 3 to be away.
	if least := c.Pods.Least(harness.AnyRevision); least < 3 {
		c.T.Errorf("only %d pods were ready at some moment, want 3 throughout", least)
	}
	stopAll(c, loads)
}
