// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// failedShare is a metric for every policy of a namespace: of all answers of a revision's pods, those of a class.
const failedShare = `
apiVersion: headgate.dev/v1alpha1
kind: MetricTemplate
metadata: {name: share-of-answers}
spec:
  arguments: [{name: class, default: "5"}]
  rate:
    numerator: sum by (pod) (envoy_cluster_upstream_rq_xx{hg_hop=~"local|in",envoy_response_code_class="{{.Args.class}}",%[1]s})
    denominator: sum by (pod) (envoy_cluster_upstream_rq_xx{hg_hop=~"local|in",%[1]s})
`

// ofRevision selects what the sidecars of a revision's pods count.
const ofRevision = `namespace="{{.Namespace}}",pod=~"{{.Workload}}-{{.Revision}}-.*"`

// byPod are the answers that a revision's pods count, without the end that an offset goes before.
func byPod(selected string) string {
	return fmt.Sprintf(`sum by (pod) (envoy_cluster_upstream_rq_xx{hg_hop=~"local|in",%s%s}`, ofRevision, selected)
}

// ownMetrics: a policy that is judged by nothing but metrics of its own, of every kind, promotes a good version and
// rolls back a bad one.
func ownMetrics(c *harness.Case) {
	t := c.T
	c.Apply(fmt.Sprintf(failedShare, ofRevision))
	answers := fmt.Sprintf(`sum(envoy_cluster_upstream_rq_xx{hg_hop=~"local|in",%s})`, ofRevision)
	c.Policy(fmt.Sprintf(`
steps: [{weight: 10, minDuration: 20s}, {weight: 50, minDuration: 10s}]
maxDuration: 100s
progressDeadline: 60s
analysis:
  successRate: {disabled: true}
  latency: {disabled: true}
  metrics:
  - {name: answers, query: '%[1]s', range: {min: "1"}}
  - {name: not-more, query: '%[1]s', comparedToStable: {max: {ratio: "1.0"}}, weight: 40}
  - {name: never, query: '%[1]s', range: {max: "0"}, dryRun: true}
  - {name: failed, template: {name: share-of-answers}}
  - {name: succeeded, rate: {numerator: '%[2]s)', denominator: '%[3]s)', better: Higher}}
  - {name: later, rate: {numerator: '%[2]s offset 7s)', denominator: '%[3]s)', better: Higher}, dryRun: true}
`, answers, byPod(`,envoy_response_code_class="2"`), byPod("")))
	c.Deploy("replicas=3")
	c.AwaitStable()
	l := c.StartLoad("service", harness.ToService(enough()))

	c.SetImage("v2")
	good := requireOutcome(c, 1, v1alpha1.OutcomePromoted)
	if good.Verdict == nil || good.Verdict.Evidence == nil {
		t.Fatalf("the verdict is %+v, want evidence", good.Verdict)
	}
	seen := map[string]v1alpha1.MetricEvidence{}
	for _, m := range good.Verdict.Evidence.Metrics {
		seen[m.Name] = m
		t.Logf("%+v", m)
	}
	for name, compared := range map[string]bool{"answers": false, "not-more": true, "never": false} {
		if m, known := seen[name]; !known || m.Value == "" || (m.Stable != "") != compared {
			t.Errorf("metric %q is %+v in the evidence", name, m)
		}
	}
	if m := seen["never"]; m.Outside == 0 || !m.DryRun {
		t.Errorf("a metric that can't be inside its range is %+v, want that it is outside and decides nothing", m)
	}
	rates := map[string]v1alpha1.RateEvidence{}
	for _, r := range good.Verdict.Evidence.Rates {
		rates[r.Name] = r
		t.Logf("%+v", r)
	}
	for _, name := range []string{"Metric/failed", "Metric/succeeded"} {
		if r := rates[name]; r.Missing != "" || r.CandidateRequests < 100 || r.CandidateEvents > 0 {
			t.Errorf("a rate of a good version is %+v", r)
		}
	}
	c.AwaitStable()

	c.SetImage("errors")
	bad := requireOutcome(c, 2, v1alpha1.OutcomeRolledBack)
	if bad.Verdict == nil || !slices.Contains([]string{"Metric/failed", "Metric/succeeded"}, bad.Verdict.Cause) || !strings.Contains(bad.Verdict.Message, "ed\" counted") {
		t.Errorf("the verdict is %+v, want what a metric has counted", bad.Verdict)
	}
	t.Logf("rolled back after %v: %s", bad.EndedAt.Sub(bad.StartedAt.Time).Round(time.Second), bad.Verdict.Message)
	own := l.Stop()
	if failed := own.Classes["status-500"] + own.Classes["grpc-Internal"]; own.Failed != failed || own.Versions["v2"].Failed != 0 {
		t.Errorf("%d requests failed, the candidate itself fails %d: %v %v", own.Failed, failed, own.Classes, own.Versions)
	}
}

func testMetrics(t *testing.T, cluster *harness.Cluster) {
	ownMetrics(cluster.NewCase(t, harness.Enabled))
}
