// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// judged is a policy that gives the evidence time to come.
const judged = `
steps: [{weight: 10, minDuration: 2m}, {weight: 50}]
maxDuration: 200s
progressDeadline: 60s
`

// enough is traffic that shows 5 % of errors at weight 10 within a minute or so.
func enough() map[load.Kind]float64 {
	return map[load.Kind]float64{load.KindHTTP1: 50, load.KindNew: 10, load.KindH2C: 10, load.KindGRPC: 10}
}

// plenty is traffic that gives evidence for a good version within minutes: 200 requests a second.
func plenty() map[load.Kind]float64 {
	return map[load.Kind]float64{load.KindHTTP1: 150, load.KindGRPC: 50}
}

func testEvidence(t *testing.T, cluster *harness.Cluster) {
	t.Run("a version that fails 5 % is rolled back, kubectl", func(t *testing.T) {
		t.Parallel()
		failing(cluster.NewCase(t, harness.Enabled), setImageWay())
	})
	t.Run("a version that fails 5 % is rolled back, helm", func(t *testing.T) {
		t.Parallel()
		failing(cluster.NewCase(t, harness.Enabled), helmWay())
	})
	t.Run("an outage that both versions share rolls nothing back", func(t *testing.T) {
		t.Parallel()
		sharedOutage(cluster.NewCase(t, harness.Enabled))
	})
	t.Run("identical versions are never rolled back", func(t *testing.T) {
		t.Parallel()
		identical(cluster.NewCase(t, harness.Enabled))
	})
	t.Run("a step whose pods start slowly is judged at its own weight", func(t *testing.T) {
		t.Parallel()
		startingSlowly(cluster.NewCase(t, harness.Enabled))
	})
}

func failing(c *harness.Case, w way) {
	const n = 3
	t := c.T
	values := []string{"replicas=3"}
	c.Policy(judged)
	if r := w.install(c, "v1", values); r.Exit != 0 {
		t.Fatal(r)
	}
	stable := c.AwaitStable().Status.Stable.Hash
	c.Pods.Mark(stable)
	l := c.StartLoad("service", harness.ToService(enough()))

	r := w.update(c, "errors", values)
	if r.Exit == 0 {
		t.Errorf("the pipeline saw success: %s", r)
	}
	end := requireOutcome(c, 1, v1alpha1.OutcomeRolledBack)
	if end.Verdict == nil || end.Verdict.Cause != "ErrorRate" || end.Verdict.Evidence == nil || end.Verdict.Evidence.CandidateErrors == 0 {
		t.Fatalf("the verdict is %+v, want ErrorRate with evidence", end.Verdict)
	}
	t.Logf("rolled back after %v: %s", end.EndedAt.Sub(end.StartedAt.Time).Round(time.Second), end.Verdict.Message)
	d := c.AwaitDeployment(time.Minute, "native tools see the failure", failed)
	if message := progressing(d).Message; !strings.Contains(message, end.Verdict.Message) {
		t.Errorf("the Deployment's condition does not say why: %q", message)
	}
	if least := c.Pods.Least(stable); least != n {
		t.Errorf("only %d stable pods were ready at some moment, want %d throughout", least, n)
	}
	requireOnlyCandidateFails(t, l.Stop())
	requireReplayed(c)

	after := harness.ToService(enough())
	after.Requests = 800
	report := c.StartLoad("after", after).Wait()
	requireNoFailure(t, "after the roll back", report)
	if got := report.Versions["errors"].Total(); got != 0 {
		t.Errorf("%d requests reached the candidate after the roll back", got)
	}
}

// requireReplayed checks that the looks of the last rollout can be had afterwards, and speak against the candidate then too. They do
// not fall on the same moments, so that it may take one more or less to say that it has failed.
func requireReplayed(c *harness.Case) {
	c.T.Helper()
	exported := c.RunHeadgate(c.Ctx, "export", harness.Name, "-n", c.Namespace)
	if exported.Exit != 0 {
		c.T.Error(exported)
		return
	}
	looks := filepath.Join(c.T.TempDir(), "looks.jsonl")
	if err := os.WriteFile(looks, []byte(exported.Stdout), 0o600); err != nil {
		c.T.Fatal(err)
	}
	r := c.RunHeadgate(c.Ctx, "replay", looks)
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	var last struct {
		Verdict  string
		Evidence float64
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); r.Exit != 0 || err != nil || last.Evidence < 10 {
		c.T.Errorf("%s\n%v; want it to end with evidence against the candidate of at least 10; the looks were\n%s", r, err, exported.Stdout)
	}
	c.T.Logf("%d looks, judged again: %s, evidence %.3g", len(lines), last.Verdict, last.Evidence)
}

// backend is something that every request to the sample application asks; it has no other pod.
const backend = `
apiVersion: v1
kind: Pod
metadata: {name: backend, labels: {app: backend}, annotations: {headgate.dev/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: ` + harness.AppImage + `v1
    readinessProbe: {periodSeconds: 1, httpGet: {path: /readyz, port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: backend}
spec:
  selector: {app: backend}
  ports: [{port: 80, targetPort: 8080}]
`

// sharedOutage: for a minute every request fails, whoever answers it. That is no evidence against the
// candidate, which is promoted when there was enough for it.
func sharedOutage(c *harness.Case) {
	const rate = 60
	c.Policy("steps: [{weight: 10}, {weight: 25}, {weight: 50}]\nmaxDuration: 4m\nprogressDeadline: 60s")
	c.Apply(backend)
	c.Do("wait", "--for=condition=Ready", "pod/backend", "--timeout=2m")
	c.Deploy("replicas=3", "env.DEPENDENCY=http://backend")
	c.AwaitStable()
	l := c.StartLoad("service", harness.ToService(map[load.Kind]float64{load.KindHTTP1: rate}))
	c.SetImage("v2")
	c.AwaitWeight(2*time.Minute, 0, 10)
	c.Do("delete", "pod", "backend")
	l.Await(3*time.Minute, "requests have failed for a minute", func(r load.Report) bool { return r.Failed >= 60*rate })
	c.Apply(backend)
	end := requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	c.T.Logf("promoted after %v: %+v", end.EndedAt.Sub(end.StartedAt.Time).Round(time.Second), end.Verdict)
	r := l.Stop()
	if own := r.Classes["status-500"]; r.Failed != own {
		c.T.Errorf("%d requests failed, %d of them for want of the backend: %v\n%s", r.Failed, own, r.Classes, strings.Join(r.Samples, "\n"))
	}
}

// requireOnlyCandidateFails checks that all failures are those that the candidate's code gives.
func requireOnlyCandidateFails(t testing.TB, r load.Report) {
	t.Helper()
	own := r.Classes["status-500"] + r.Classes["grpc-Internal"]
	if r.Failed != own || r.Versions["v1"].Failed != 0 {
		t.Errorf("%d requests failed, the candidate itself fails %d: %v %v\n%s", r.Failed, own, r.Classes, r.Versions, strings.Join(r.Samples, "\n"))
	}
	if own == 0 {
		t.Error("no request failed: the candidate was not tried")
	}
	t.Logf("%d of %d requests failed", r.Failed, r.Sent)
}

// identical rolls out the same image three times: whatever the judge says against it is wrong. BenchmarkIdentical does
// so more often.
func identical(c *harness.Case) {
	c.Policy("steps: [{weight: 10}, {weight: 25}, {weight: 50}]\nmaxDuration: 2m\nprogressDeadline: 60s")
	c.Deploy("env.LATENCY=1ms")
	c.AwaitStable()
	l := c.StartLoad("service", harness.ToService(plenty()))
	for i := range 3 {
		c.Do("rollout", "restart", "deployment/"+harness.Name)
		end := requireOutcome(c, i+1, v1alpha1.OutcomePromoted)
		requireLatencyJudged(c.T, end.Verdict)
		c.T.Logf("promoted after %v: %+v", end.EndedAt.Sub(end.StartedAt.Time).Round(time.Second), end.Verdict)
		c.AwaitStable()
	}
	requireNoFailure(c.T, "through the Service", l.Stop())
}

// startingSlowly: a step's pods need longer to be ready than a step lasts. What is seen until then says nothing about the step.
func startingSlowly(c *harness.Case) {
	const starts, least = 50 * time.Second, 25 * time.Second // a step has six looks at least, of 5 s
	c.Policy("steps: [{weight: 10, replicas: 1}, {weight: 50, replicas: 2}]\nmaxDuration: 90s\nprogressDeadline: 2m")
	c.Deploy("replicas=2")
	c.AwaitStable()
	l := c.StartLoad("service", harness.ToService(enough()))
	c.Apply(c.Manifest("replicas=2", "tag=v2", "env.READY_DELAY="+starts.String()))
	r := c.AwaitRollout(rolloutEnd, "the promotion begins", func(r *v1alpha1.Rollout) bool { return r.Status.Phase == v1alpha1.PhasePromoting })
	at := slices.IndexFunc(r.Status.Weights, func(w v1alpha1.WeightRecord) bool { return w.Step == 1 })
	if at < 0 {
		c.T.Fatalf("the last step's weight was never in force: %+v", r.Status.Weights)
	}
	if judged := r.Status.PhaseSince.Sub(r.Status.Weights[at].Since.Time); judged < least {
		c.T.Errorf("the last step was over %v after its weight had come in force, want %v at least: %+v", judged, least, r.Status.Weights)
	}
	requireNoFailure(c.T, "through the Service", l.Stop())
}

// requireLatencyJudged: requests of the candidate count for a latency bound, which of an app that answers within a millisecond is one that
// hardly any request takes longer than.
func requireLatencyJudged(t testing.TB, v *v1alpha1.Verdict) {
	t.Helper()
	if v == nil || v.Evidence == nil || !slices.ContainsFunc(v.Evidence.Rates, func(r v1alpha1.RateEvidence) bool {
		return strings.HasPrefix(r.Name, analysis.CauseLatency) && r.CandidateRequests > 0
	}) {
		t.Errorf("no latency of the candidate was judged: %+v", v)
	}
}
