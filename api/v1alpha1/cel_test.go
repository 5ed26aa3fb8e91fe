// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package v1alpha1_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// TestValidation asks the real API server, by dry run, about every rule of the definitions: what it
// accepts, what it refuses, and whether the message says what to do. Needs KUBECONFIG; where the
// definitions are missing they are created.
func TestValidation(t *testing.T) {
	c := connect(t)
	for name, tc := range map[string]struct {
		// spec is that of a RolloutPolicy.
		spec string
		// want are parts of the message; empty: accepted.
		want []string
	}{
		"an empty spec is a policy":        {spec: `{}`},
		"no spec at all is a policy":       {spec: ``},
		"everything given":                 {spec: everything},
		"another strategy than Canary":     {spec: `{strategy: BlueGreen}`, want: []string{"spec.strategy", `supported values: "Canary"`}},
		"a field that does not exist":      {spec: `{stepps: []}`, want: []string{`unknown field "spec.stepps"`}},
		"weights that stay the same":       {spec: `{steps: [{weight: 10}, {weight: 10, approval: true}]}`},
		"one step":                         {spec: `{steps: [{weight: 10}]}`},
		"weights that decrease":            {spec: `{steps: [{weight: 10}, {weight: 5}]}`, want: []string{"spec.steps", "order the steps by weight"}},
		"weights that decrease at the end": {spec: `{steps: [{weight: 1}, {weight: 50}, {weight: 49}]}`, want: []string{"order the steps by weight"}},
		"no steps are the default ones":    {spec: `{steps: []}`},
		"a step that sends nothing":        {spec: `{steps: [{weight: 0}]}`, want: []string{"spec.steps", "no step sends a request to the candidate"}},
		"several that send nothing":        {spec: `{steps: [{weight: 0}, {weight: 0, approval: false, minDuration: 1m}]}`, want: []string{"give a step a weight above 0, or approval: true"}},
		"one that waits for approval":      {spec: `{steps: [{weight: 0}, {weight: 0, approval: true}]}`},
		"one that sends nothing at first":  {spec: `{steps: [{weight: 0}, {weight: 1}]}`},
		"a step without a weight":          {spec: `{steps: [{approval: true}]}`, want: []string{"spec.steps[0].weight", "Required"}},
		"a weight below nothing":           {spec: `{steps: [{weight: -1}]}`, want: []string{"spec.steps[0].weight", "greater than or equal to 0"}},
		"a weight of everything":           {spec: `{steps: [{weight: 100}]}`, want: []string{"spec.steps[0].weight", "less than or equal to 99"}},
		"twenty steps":                     {spec: `{steps: [` + strings.Repeat(`{weight: 1},`, 20) + `]}`},
		"twenty-one steps":                 {spec: `{steps: [` + strings.Repeat(`{weight: 1},`, 21) + `]}`, want: []string{"spec.steps", "at most 20"}},
		"replicas as a number":             {spec: `{steps: [{weight: 1, replicas: 10000}]}`},
		"replicas as a percentage":         {spec: `{steps: [{weight: 1, replicas: "100%"}]}`},
		"no replicas":                      {spec: `{steps: [{weight: 1, replicas: 0}]}`, want: []string{"spec.steps[0].replicas", "a number from 1 to 10000 or a percentage from 1% to 100%"}},
		"too many replicas":                {spec: `{steps: [{weight: 1, replicas: 10001}]}`, want: []string{"a number from 1 to 10000 or a percentage from 1% to 100%"}},
		"replicas of no percent":           {spec: `{steps: [{weight: 1, replicas: "0%"}]}`, want: []string{"spec.steps[0].replicas", "^([1-9][0-9]?|100)%$"}},
		"replicas above 100 percent":       {spec: `{steps: [{weight: 1, replicas: "101%"}]}`, want: []string{"^([1-9][0-9]?|100)%$"}},
		"replicas as a number in quotes":   {spec: `{steps: [{weight: 1, replicas: "3"}]}`, want: []string{"^([1-9][0-9]?|100)%$"}},
		"a minimum duration in words":      {spec: `{steps: [{weight: 1, minDuration: "1 minute"}]}`, want: []string{"spec.steps[0].minDuration", "should match"}},
		"a duration of several units":      {spec: `{maxDuration: 1h30m15s}`},
		"a maximum duration without unit":  {spec: `{maxDuration: "4"}`, want: []string{"spec.maxDuration", "should match"}},
		"no time at all for a rollout":     {spec: `{maxDuration: 0s}`, want: []string{"spec.maxDuration", "longer than 0s", "default, 4m"}},
		"no time at all for a start":       {spec: `{progressDeadline: 0m}`, want: []string{"spec.progressDeadline", "longer than 0s", "default, 2m"}},
		"no time at all in quarantine":     {spec: `{quarantineTTL: 0h0s}`, want: []string{"spec.quarantineTTL", "longer than 0s", "default, 24h"}},
		"fractions of seconds":             {spec: `{maxDuration: 100ms}`, want: []string{"spec.maxDuration", "should match"}},
		"a negative deadline":              {spec: `{progressDeadline: -1m}`, want: []string{"spec.progressDeadline", "should match"}},
		"an endless quarantine":            {spec: `{quarantineTTL: 123456h}`, want: []string{"spec.quarantineTTL", "should match"}},
		"an unknown onFailure":             {spec: `{onFailure: Panic}`, want: []string{"spec.onFailure", `"Quarantine", "Revert", "Auto"`}},
		"an unknown onInconclusive":        {spec: `{onInconclusive: Guess}`, want: []string{"spec.onInconclusive", `"Advance", "Hold", "RollBack"`}},
		"an unknown onBlind":               {spec: `{onBlind: Advance}`, want: []string{"spec.onBlind", `"Hold", "RollBack"`}},
		"an unknown rollback":              {spec: `{rollback: Never}`, want: []string{"spec.rollback", `"Immediate", "Managed"`}},
		"a Prometheus without scheme":      {spec: `{analysis: {prometheus: {url: "prometheus:9090"}}}`, want: []string{"spec.analysis.prometheus.url", "^https?://"}},
		"a Prometheus without address":     {spec: `{analysis: {prometheus: {}}}`, want: []string{"spec.analysis.prometheus.url", "Required"}},
		"a Prometheus with a password":     {spec: prometheusAt("http://user:secret@prometheus:9090"), want: noSecretInURL},
		"a password with a slash":          {spec: prometheusAt("http://user:1/secret@prometheus:9090"), want: noSecretInURL},
		"a Prometheus with a user's name":  {spec: prometheusAt("https://token@prometheus:9090"), want: noSecretInURL},
		"a Prometheus with a query":        {spec: prometheusAt("https://prometheus:9090/a?token=secret"), want: noSecretInURL},
		"a Prometheus with a fragment":     {spec: prometheusAt("https://prometheus:9090/#secret"), want: noSecretInURL},
		"a Prometheus with a long address": {spec: prometheusAt("https://prometheus:9090/" + strings.Repeat("x", 2024))},
		"a Prometheus with a path":         {spec: prometheusAt("https://[::1]:9090/a%40b/c_d~e")},
		"a Prometheus with a Secret":       {spec: `{analysis: {prometheus: {url: "https://prometheus:9090", secretRef: {name: prometheus.shop}}}}`},
		"a Secret of another namespace":    {spec: `{analysis: {prometheus: {url: "https://prometheus:9090", secretRef: {name: other/prometheus}}}}`, want: []string{"spec.analysis.prometheus.secretRef.name", "should match"}},
		"a Secret without a name":          {spec: `{analysis: {prometheus: {url: "https://prometheus:9090", secretRef: {}}}}`, want: []string{"spec.analysis.prometheus.secretRef.name", "Required"}},
		"a bound that nobody counts by":    {spec: `{analysis: {successRate: {objective: "99.95"}, latency: {bound: 250ms, objective: "95"}}}`, want: []string{"spec.analysis.latency.bound", `"200ms", "300ms"`}},
		"objectives":                       {spec: `{analysis: {successRate: {objective: "99.95"}, latency: {bound: 300ms, objective: "95"}}}`},
		"an objective of everything":       {spec: `{analysis: {successRate: {objective: "100"}}}`, want: []string{"spec.analysis.successRate.objective", "should match"}},
		"an objective of nothing":          {spec: `{analysis: {successRate: {objective: "0.0"}}}`, want: []string{"spec.analysis.successRate.objective", "above 0 and below 100"}},
		"an objective without a bound":     {spec: `{analysis: {latency: {objective: "95"}}}`, want: []string{"spec.analysis.latency", "an objective needs a bound"}},
		"a metric with a minimum":          {spec: metric(`{min: "0.98"}`)},
		"a metric with a maximum":          {spec: metric(`{max: "-1.5"}`)},
		"a range of one value":             {spec: metric(`{min: "1", max: "1.0"}`)},
		"a range without bounds":           {spec: metric(`{}`), want: []string{"spec.analysis.metrics[0].range", "a range needs min, max or both"}},
		"a range that is upside down":      {spec: metric(`{min: "10", max: "9.5"}`), want: []string{"min must not be greater than max"}},
		"negative bounds upside down":      {spec: metric(`{min: "-1", max: "-2"}`), want: []string{"min must not be greater than max"}},
		"a bound that is no number":        {spec: metric(`{min: "1e3"}`), want: []string{"range.min", "should match"}},
		"a bound of too many digits":       {spec: metric(`{max: "1234567890123456"}`), want: []string{"range.max", "should match"}},
		"a metric that is not judged":      {spec: `{analysis: {metrics: [{name: a, query: up}]}}`, want: []string{"spec.analysis.metrics[0]", "exactly one of range, comparedToStable and rate"}},
		"a metric that is judged twice":    {spec: `{analysis: {metrics: [{name: a, query: up, range: {min: "1"}, comparedToStable: {max: {ratio: "1"}}}]}}`, want: []string{"exactly one of range, comparedToStable and rate"}},
		"a metric without a query":         {spec: `{analysis: {metrics: [{name: a, range: {min: "1"}}]}}`, want: []string{"a metric needs a query"}},
		"a metric with an empty query":     {spec: `{analysis: {metrics: [{name: a, query: "", range: {min: "1"}}]}}`, want: []string{"query", "at least 1"}},
		"a rate with a query":              {spec: `{analysis: {metrics: [{name: a, query: up, ` + rate + `}]}}`, want: []string{"a rate a numerator and a denominator instead"}},
		"a metric with all there is to say": {spec: `{analysis: {metrics: [{name: a, query: up, comparedToStable: {min: {difference: "-1"}, max: {ratio: "1.2", difference: "5"}},
			dryRun: true, interval: 4m, warmUp: 1m, weight: 1}]}}`},
		"a comparison without bounds":                             {spec: `{analysis: {metrics: [{name: a, query: up, comparedToStable: {}}]}}`, want: []string{"a comparison needs min, max or both"}},
		"a comparison that is upside down":                        {spec: compared(`min: {ratio: "1.2"}, max: {ratio: "0.8"}`), want: []string{"comparedToStable", "min must not be above max", "lower min's ratio or difference"}},
		"upside down by the difference":                           {spec: compared(`min: {difference: "5"}, max: {difference: "-1"}`), want: []string{"min must not be above max"}},
		"upside down beside a default":                            {spec: compared(`min: {ratio: "1.1"}, max: {difference: "0"}`), want: []string{"min must not be above max"}},
		"a comparison with one value":                             {spec: compared(`min: {ratio: "1"}, max: {difference: "0.0"}`)},
		"a comparison that some values of stable's make possible": {spec: compared(`min: {ratio: "0.5"}, max: {difference: "-3"}`)},
		"a bound that is none":                                    {spec: `{analysis: {metrics: [{name: a, query: up, comparedToStable: {max: {}}}]}}`, want: []string{"a bound needs a ratio, a difference or both"}},
		"a negative ratio":                                        {spec: `{analysis: {metrics: [{name: a, query: up, comparedToStable: {max: {ratio: "-1"}}}]}}`, want: []string{"max.ratio", "should match"}},
		"three rates":                                             {spec: `{analysis: {metrics: [{name: a, ` + rate + `}, {name: b, ` + rate + `}, {name: c, ` + rate + `}]}}`},
		"four rates":                                              {spec: `{analysis: {metrics: [{name: a, ` + rate + `}, {name: b, ` + rate + `}, {name: c, ` + rate + `}, {name: d, ` + rate + `}]}}`, want: []string{"at most 3 metrics can be rates"}},
		"a rate without a denominator":                            {spec: `{analysis: {metrics: [{name: a, rate: {numerator: x}}]}}`, want: []string{"rate.denominator", "Required"}},
		"a rate that is better sideways":                          {spec: `{analysis: {metrics: [{name: a, rate: {numerator: x, denominator: z, better: Sideways}}]}}`, want: []string{"rate.better", `"Lower", "Higher"`}},
		"a rate with lines":                                       {spec: `{analysis: {metrics: [{name: a, rate: {numerator: x, denominator: z, harm: {ratio: "1", difference: "0.001"}, acceptance: {ratio: "1000", difference: "1"}}}]}}`},
		"a rate whose harm could not be accepted":                 {spec: `{analysis: {metrics: [{name: a, rate: {numerator: x, denominator: z, harm: {ratio: "1.25", difference: "0.05"}}}]}}`, want: []string{"a rate's acceptance must not be below its harm"}},
		"a rate's acceptance below harm":                          {spec: `{analysis: {metrics: [{name: a, rate: {numerator: x, denominator: z, acceptance: {ratio: "1.2", difference: "0.05"}}}]}}`, want: []string{"a rate's acceptance must not be below its harm"}},
		"a rate's ratio below 1":                                  {spec: `{analysis: {metrics: [{name: a, rate: {numerator: x, denominator: z, harm: {ratio: "0.9", difference: "0.001"}}}]}}`, want: []string{"a rate's ratio must be from 1 to 1000"}},
		"a rate's difference of none":                             {spec: `{analysis: {metrics: [{name: a, rate: {numerator: x, denominator: z, acceptance: {ratio: "1", difference: "0.0"}}}]}}`, want: []string{"a rate's difference must be above 0, and 1 at most"}},
		"a rate's difference in percent":                          {spec: `{analysis: {metrics: [{name: a, rate: {numerator: x, denominator: z, acceptance: {ratio: "1", difference: "5"}}}]}}`, want: []string{"a rate's difference must be above 0, and 1 at most"}},
		"an interval below all looks":                             {spec: `{analysis: {metrics: [{name: a, query: up, range: {min: "1"}, interval: 4s}]}}`, want: []string{"an interval must be from 5s to 4m"}},
		"an interval beyond all steps":                            {spec: `{analysis: {metrics: [{name: a, query: up, range: {min: "1"}, interval: 5m}]}}`, want: []string{"an interval must be from 5s to 4m"}},
		"a vote of nothing":                                       {spec: `{analysis: {metrics: [{name: a, query: up, range: {min: "1"}, weight: 0}]}}`, want: []string{"weight", "greater than or equal to 1"}},
		"a metric from a template":                                {spec: `{analysis: {metrics: [{name: a, template: {name: x, arguments: [{name: job, value: "api|web"}]}, range: {max: "3"}, weight: 5}]}}`},
		"a template and a query":                                  {spec: `{analysis: {metrics: [{name: a, template: {name: x}, query: up}]}}`, want: []string{"what is asked comes from the template"}},
		"a template of no kind":                                   {spec: `{analysis: {metrics: [{name: a, template: {name: x, kind: Secret}}]}}`, want: []string{"template.kind", `"MetricTemplate", "ClusterMetricTemplate"`}},
		"an argument that ends a string":                          {spec: `{analysis: {metrics: [{name: a, template: {name: x, arguments: [{name: job, value: 'a"} or x{a="'}]}}]}}`, want: []string{"arguments[0].value", "should match"}},
		"an argument with a backtick":                             {spec: "{analysis: {metrics: [{name: a, template: {name: x, arguments: [{name: job, value: 'a`b'}]}}]}}", want: []string{"arguments[0].value", "should match"}},
		"two arguments of one name":                               {spec: `{analysis: {metrics: [{name: a, template: {name: x, arguments: [{name: job, value: a}, {name: job, value: b}]}}]}}`, want: []string{"arguments[1]", "Duplicate value"}},
		"a query beyond all bounds":                               {spec: `{analysis: {metrics: [{name: a, query: "` + strings.Repeat("x", 4097) + `", range: {min: "1"}}]}}`, want: []string{"query", "Too long"}},
		"queries up to the bound":                                 {spec: `{analysis: {metrics: [` + longMetrics(4) + `]}}`},
		"queries beyond it together":                              {spec: `{analysis: {metrics: [` + longMetrics(4) + `, {name: a, ` + rate + `}]}}`, want: []string{"spec.analysis.metrics", "the queries of all metrics together must not be longer than 16384 characters"}},
		"a metric's name in capitals":                             {spec: `{analysis: {metrics: [{name: Conversion, query: up, range: {min: "1"}}]}}`, want: []string{"metrics[0].name", "should match"}},
		"two metrics of one name":                                 {spec: `{analysis: {metrics: [{name: a, query: up, range: {min: "1"}}, {name: a, query: up, range: {min: "1"}}]}}`, want: []string{"metrics[1]", "Duplicate value"}},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, c, "RolloutPolicy", tc.spec, tc.want)
			check(t, c, "ClusterRolloutPolicy", tc.spec, tc.want)
		})
	}
}

// longMetrics are so many metrics whose queries are as long as one can be.
func longMetrics(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`{name: m%d, query: "%s", range: {min: "1"}}`, i, strings.Repeat("x", 4096)))
	}
	return strings.Join(all, ", ")
}

// TestTemplatesAreValidated: the spec of templates.
func TestTemplatesAreValidated(t *testing.T) {
	c := connect(t)
	for name, tc := range map[string]struct {
		spec string
		want []string
	}{
		"a value in a range":               {spec: `{query: "x{job='{{.Args.job}}'}", arguments: [{name: job, default: api}], range: {max: "1"}}`},
		"a rate":                           {spec: `{` + rate + `, dryRun: true, interval: 10s}`},
		"nothing that is judged":           {spec: `{query: up}`, want: []string{"a template needs exactly one of range, comparedToStable and rate"}},
		"a rate with a query":              {spec: `{query: up, ` + rate + `}`, want: []string{"a template needs a query"}},
		"an argument in another case":      {spec: `{query: up, arguments: [{name: Job}], range: {max: "1"}}`, want: []string{"arguments[0].name", "should match"}},
		"a default that ends a string":     {spec: `{query: up, arguments: [{name: job, default: "'"}], range: {max: "1"}}`, want: []string{"arguments[0].default", "should match"}},
		"a template that names a template": {spec: `{template: {name: x}}`, want: []string{`unknown field "spec.template"`}},
		"no spec":                          {spec: ``, want: []string{"spec", "Required"}},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, c, "MetricTemplate", tc.spec, tc.want)
			check(t, c, "ClusterMetricTemplate", tc.spec, tc.want)
		})
	}
}

// TestWishesAreValidated: the spec of a Rollout.
func TestWishesAreValidated(t *testing.T) {
	c := connect(t)
	for name, tc := range map[string]struct {
		spec string
		want []string
	}{
		"no wish":                     {spec: `{}`},
		"every wish":                  {spec: `{approve: {revision: 5d8f, step: 0}, promote: {revision: 5d8f}, retry: {revision: 5d8f}}`},
		"approval of a negative step": {spec: `{approve: {revision: 5d8f, step: -1}}`, want: []string{"spec.approve.step", "greater than or equal to 0"}},
		"approval of no step":         {spec: `{approve: {revision: 5d8f}}`, want: []string{"spec.approve.step", "Required"}},
		"promotion of nothing":        {spec: `{promote: {revision: ""}}`, want: []string{"spec.promote.revision", "at least 1"}},
		"a retry without a revision":  {spec: `{retry: {}}`, want: []string{"spec.retry.revision", "Required"}},
	} {
		t.Run(name, func(t *testing.T) { check(t, c, "Rollout", tc.spec, tc.want) })
	}
}

// TestDefaults: what the API server fills in.
func TestDefaults(t *testing.T) {
	c := connect(t)
	o := policy(t, "RolloutPolicy", `{}`)
	if err := c.Create(t.Context(), o, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"strategy": "Canary", "onFailure": "Auto", "onInconclusive": "Advance", "onBlind": "Hold", "rollback": "Immediate",
	} {
		if got, _, _ := unstructured.NestedString(o.Object, "spec", field); got != want {
			t.Errorf("spec.%s is %q, want %q", field, got, want)
		}
	}
}

const everything = `
selector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: Exists}]}
strategy: Canary
steps:
- {weight: 0, replicas: 1}
- {weight: 25, replicas: 30%, minDuration: 1m, approval: true}
- {weight: 99}
maxDuration: 10m
progressDeadline: 90s
analysis:
  prometheus: {url: "https://thanos.example.com/tenant"}
  successRate: {disabled: true}
  metrics:
  - {name: conversion, query: "sum(rate(x{r='{{.Revision}}'}[1m]))", range: {min: "0.98", max: "1"}}
onFailure: Revert
onInconclusive: RollBack
onBlind: RollBack
rollback: Managed
quarantineTTL: 48h
suspend: true
`

const rate = `rate: {numerator: "x{r='{{.Revision}}'}", denominator: "y{r='{{.Revision}}'}"}`

// noSecretInURL is what is said of an address that is more than one.
var noSecretInURL = []string{"spec.analysis.prometheus.url", "put credentials into a Secret and name it in secretRef"}

func prometheusAt(url string) string {
	return `{analysis: {prometheus: {url: "` + url + `"}}}`
}

func compared(bounds string) string {
	return `{analysis: {metrics: [{name: conversion, query: up, comparedToStable: {` + bounds + `}}]}}`
}

func metric(bounds string) string {
	return `{analysis: {metrics: [{name: conversion, query: up, range: ` + bounds + `}]}}`
}

func policy(t *testing.T, kind, spec string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetAPIVersion("headgate.dev/v1alpha1")
	o.SetKind(kind)
	o.SetGenerateName("validation-")
	if !strings.HasPrefix(kind, "Cluster") {
		o.SetNamespace("default")
	}
	if spec != "" {
		var s map[string]any
		if err := yaml.Unmarshal([]byte(spec), &s); err != nil {
			t.Fatalf("the test's own YAML: %v", err)
		}
		o.Object["spec"] = s
	}
	return o
}

func check(t *testing.T, c client.Client, kind, spec string, want []string) {
	t.Helper()
	err := c.Create(t.Context(), policy(t, kind, spec), client.DryRunAll)
	if len(want) == 0 {
		if err != nil {
			t.Errorf("%s refused: %v", kind, err)
		}
		return
	}
	if err == nil {
		t.Errorf("%s accepted, want a message with %q", kind, want)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: message %q does not say %q", kind, err, w)
		}
	}
}

// connect returns a client that refuses unknown fields, as kubectl does.
func connect(t *testing.T) client.Client {
	t.Helper()
	if os.Getenv("KUBECONFIG") == "" {
		t.Fatal("KUBECONFIG must name a cluster")
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 200, 200
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ensureDefinitions(t, c)
	return client.WithFieldValidation(c, "Strict")
}

// ensureDefinitions creates the definitions that the cluster has not, and waits until they are served.
func ensureDefinitions(t *testing.T, c client.Client) {
	t.Helper()
	files, err := filepath.Glob("../../charts/headgate/crds/*.yaml")
	if err != nil || len(files) != 5 {
		t.Fatalf("want 5 definitions, got %v, %v", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(b, &crd.Object); err != nil {
			t.Fatal(err)
		}
		err = c.Create(t.Context(), crd, client.FieldOwner("helm"))
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	err = wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		for _, kind := range []string{"RolloutPolicy", "ClusterRolloutPolicy", "Rollout", "MetricTemplate", "ClusterMetricTemplate"} {
			spec := `{}`
			if strings.HasSuffix(kind, "Template") {
				spec = `{` + rate + `}`
			}
			err := c.Create(ctx, policy(t, kind, spec), client.DryRunAll)
			if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("waiting for the definitions: %v", err)
	}
}
