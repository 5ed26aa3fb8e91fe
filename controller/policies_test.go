// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

func policyIn(ns, name string, seconds int) *v1alpha1.RolloutPolicy {
	return &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Generation: 2, CreationTimestamp: metaAt(seconds)}}
}

func clusterPolicy(name string, seconds int) *v1alpha1.ClusterRolloutPolicy {
	return &v1alpha1.ClusterRolloutPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metaAt(seconds)}}
}

func workloadIn(ns, name string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": name}}}
}

// pass is one over the policies of a namespace; it returns when the next one is due.
func pass(t *testing.T, p *Policies, ns string) time.Duration {
	t.Helper()
	result, err := p.Reconcile(t.Context(), policiesOf(ns))
	if err != nil {
		t.Fatal(err)
	}
	return result.RequeueAfter
}

func TestPoliciesSayWhetherTheyAreInUse(t *testing.T) {
	only := func(p *v1alpha1.RolloutPolicy, app string) *v1alpha1.RolloutPolicy {
		p.Spec.Selector.MatchLabels = map[string]string{"app": app}
		return p
	}
	badVariable := policyIn("shop", "bad", 0)
	badVariable.Spec.Analysis.Metrics = []v1alpha1.Metric{{Name: "orders", MetricSpec: v1alpha1.MetricSpec{Query: "sum(orders{pod=\"{{.Pod}}\"})"}}}
	badSelector := policyIn("shop", "bad", 0)
	badSelector.Spec.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Near"}}
	upsideDown := policyIn("shop", "bad", 0)
	upsideDown.Spec.Analysis.Metrics = []v1alpha1.Metric{{Name: "orders", MetricSpec: v1alpha1.MetricSpec{Query: "up", Range: &v1alpha1.Range{Min: ptr("2"), Max: ptr("1")}}}}
	untested := policyIn("shop", "bad", 0)
	untested.Spec.Steps = []v1alpha1.Step{{Weight: 0}, {Weight: 0}}
	goodVariable := policyIn("shop", "good", 0)
	goodVariable.Spec.Analysis.Metrics = []v1alpha1.Metric{{Name: "orders", MetricSpec: v1alpha1.MetricSpec{Query: "sum(orders{rev=\"{{.Revision}}\"})"}}}
	for name, tc := range map[string]struct {
		objects []client.Object
		want    map[string]string // policy: status, reason and message
	}{
		"one in each namespace": {
			[]client.Object{policyIn("shop", "a", 0), policyIn("bank", "b", 0), workloadIn("shop", "web"), workloadIn("bank", "web")},
			map[string]string{"a": "True Accepted in use", "b": "True Accepted in use"},
		},
		"two select one workload: both say so": {
			[]client.Object{policyIn("shop", "old", 0), policyIn("shop", "new", 9), workloadIn("shop", "web")},
			map[string]string{
				"old": "True Conflict rolloutpolicy/shop/new selects shop/web too; this one is older and wins",
				"new": "True Conflict rolloutpolicy/shop/old selects shop/web too; it is older and wins",
			},
		},
		"they meet on several workloads, not on all": {
			[]client.Object{policyIn("shop", "all", 0), only(policyIn("shop", "api", 9), "api"), workloadIn("shop", "web"), workloadIn("shop", "api"), workloadIn("bank", "api")},
			map[string]string{
				"all": "True Conflict rolloutpolicy/shop/api selects shop/api too; this one is older and wins",
				"api": "True Conflict rolloutpolicy/shop/all selects shop/api too; it is older and wins",
			},
		},
		"two of the cluster meet everywhere": {
			[]client.Object{clusterPolicy("first", 0), clusterPolicy("second", 1), workloadIn("shop", "web"), workloadIn("bank", "web")},
			map[string]string{
				"first":  "True Conflict clusterrolloutpolicy/second selects bank/web and others too; this one is older and wins",
				"second": "True Conflict clusterrolloutpolicy/first selects bank/web and others too; it is older and wins",
			},
		},
		"a namespaced one and the cluster's are no conflict": {
			[]client.Object{policyIn("shop", "a", 9), clusterPolicy("default", 0), workloadIn("shop", "web")},
			map[string]string{"a": "True Accepted in use", "default": "True Accepted in use"},
		},
		"a namespace that is not enabled has no conflicts": {
			[]client.Object{policyIn("lab", "a", 0), policyIn("lab", "b", 1), workloadIn("lab", "web")},
			map[string]string{"a": "True Accepted in use", "b": "True Accepted in use"},
		},
		"a known variable in a query": {
			[]client.Object{goodVariable}, map[string]string{"good": "True Accepted in use"},
		},
		"an unknown variable comes before a conflict": {
			[]client.Object{badVariable, policyIn("shop", "new", 9), workloadIn("shop", "web")},
			map[string]string{
				"bad": `False Invalid the query of metric "orders" can't be used`,
				"new": "True Conflict rolloutpolicy/shop/bad selects shop/web too; it is older and wins",
			},
		},
		"bounds that no value can be within": {
			[]client.Object{upsideDown}, map[string]string{"bad": `False Invalid no value of metric "orders" could be good`},
		},
		"steps that send nothing": {
			[]client.Object{untested}, map[string]string{"bad": "False Invalid no step sends a request to the candidate, and none waits for approval"},
		},
		"a selector that can't be parsed": {
			[]client.Object{badSelector, workloadIn("shop", "web")}, map[string]string{"bad": "False Invalid the selector selects nothing"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster(t, append(tc.objects, namespace("shop", true), namespace("bank", true), namespace("lab", false))...).Build()
			p := &Policies{Client: c}
			for range 2 { // the second pass finds nothing to write
				for _, ns := range []string{"shop", "bank", "lab", ""} {
					pass(t, p, ns)
				}
			}
			got := map[string]string{}
			for _, o := range tc.objects {
				switch o := o.(type) {
				case *v1alpha1.RolloutPolicy:
					got[o.Name] = accepts(stored(t, c, o).Status)
				case *v1alpha1.ClusterRolloutPolicy:
					got[o.Name] = accepts(stored(t, c, o).Status)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("conditions (-want +got):\n%s", d)
			}
		})
	}
}

func TestPoliciesSayWhatIsWrongWithAnAddress(t *testing.T) {
	const secret = "False Invalid the address of Prometheus is shown to others, and has an @, a query (?) or a fragment (#) in it: put credentials into a Secret and name it in secretRef"
	const unusable = "False Invalid the address of Prometheus can't be used: "
	for url, want := range map[string]string{
		"http://prometheus:9090/tenant":     "True Accepted in use",
		"http://user:hunter2@prometheus":    secret, // from before the API server refused it
		"http://user:12/hunter2@prometheus": secret,
		"https://prometheus/?token=hunter2": secret,
		"https://prometheus/#hunter2":       secret,
		"http://%zz":                        unusable + "it is not a valid URL",
		"http://[::1":                       unusable + "it is not a valid URL",
		"http:///path":                      unusable + "it names no host",
		"http://x:99999":                    unusable + "its port is not a number from 1 to 65535",
	} {
		t.Run(url, func(t *testing.T) {
			policy := policyIn("shop", "a", 0)
			policy.Spec.Analysis.Prometheus = &v1alpha1.PrometheusRef{URL: url}
			c := cluster(t, namespace("shop", true), policy).Build()
			pass(t, &Policies{Client: c}, "shop")
			said := meta.FindStatusCondition(stored(t, c, policy).Status.Conditions, v1alpha1.ConditionAccepted)
			if got := string(said.Status) + " " + said.Reason + " " + said.Message; got != want {
				t.Errorf("the condition is %q, want %q", got, want)
			}
		})
	}
}

func TestMetricsThatAreSlowerThanARolloutMayBe(t *testing.T) {
	metric := func(name string, warmUp, interval time.Duration) v1alpha1.Metric {
		m := v1alpha1.Metric{Name: name, MetricSpec: v1alpha1.MetricSpec{Query: "up", Range: &v1alpha1.Range{Min: ptr("1")}}}
		if warmUp > 0 {
			m.WarmUp = &metav1.Duration{Duration: warmUp}
		}
		if interval > 0 {
			m.Interval = &metav1.Duration{Duration: interval}
		}
		return m
	}
	halved := func(m v1alpha1.Metric) v1alpha1.Metric { m.Weight = ptr(int32(50)); return m }
	dry := func(m v1alpha1.Metric) v1alpha1.Metric { m.DryRun = ptr(true); return m }
	for name, tc := range map[string]struct {
		max     time.Duration // 0: the default, 4m
		metrics []v1alpha1.Metric
		want    string
	}{
		"no metrics": {},
		"warm long after the end": {
			metrics: []v1alpha1.Metric{metric("fast", 0, 0), metric("orders", 10*time.Minute, 0)},
			want:    `metric "orders" warms up for 10m0s, longer than maxDuration (4m0s): steps would wait for it`,
		},
		"as long as there is time for": {max: 20 * time.Minute, metrics: []v1alpha1.Metric{metric("orders", 10*time.Minute, 0)}},
		"just in time":                 {metrics: []v1alpha1.Metric{metric("orders", 3*time.Minute+55*time.Second, 0)}},
		"just too late": {
			metrics: []v1alpha1.Metric{metric("orders", 3*time.Minute+56*time.Second, 0)},
			want:    `metric "orders" warms up for 3m56s and is asked for every 5s, together, longer than maxDuration (4m0s): steps would wait for it`,
		},
		"asked for too seldom": {
			max: time.Minute, metrics: []v1alpha1.Metric{metric("orders", 0, 2*time.Minute)},
			want: `metric "orders" is asked for every 2m0s, longer than maxDuration (1m0s): steps would wait for it`,
		},
		"nobody waits for a dry run": {metrics: []v1alpha1.Metric{dry(metric("orders", 10*time.Minute, 0))}},
		"nor for half a vote":        {metrics: []v1alpha1.Metric{halved(metric("a", 10*time.Minute, 0)), dry(metric("b", 10*time.Minute, 0))}},
		"two halves are a vote": {
			metrics: []v1alpha1.Metric{halved(metric("a", 10*time.Minute, 0)), halved(metric("b", 10*time.Minute, 0))},
			want:    `metric "a" warms up for 10m0s, longer than maxDuration (4m0s): steps would wait for it`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{Metrics: tc.metrics}}
			if tc.max > 0 {
				spec.MaxDuration = &metav1.Duration{Duration: tc.max}
			}
			c := accepted(spec, "", "another policy")
			if tc.want == "" && c.Reason == v1alpha1.ReasonConflict {
				return
			}
			if c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonInvalid || c.Message != tc.want {
				t.Errorf("the condition is %s %s %q, want %q", c.Status, c.Reason, c.Message, tc.want)
			}
		})
	}
}

func TestPoliciesThatCanNotMeanWhatTheySay(t *testing.T) {
	lasting := func(each, most time.Duration) *v1alpha1.RolloutPolicySpec {
		step := v1alpha1.Step{Weight: 10, MinDuration: &metav1.Duration{Duration: each}}
		return &v1alpha1.RolloutPolicySpec{Steps: []v1alpha1.Step{step, {Weight: 10}, step}, MaxDuration: &metav1.Duration{Duration: most}}
	}
	rate := func(numerator, denominator string) *v1alpha1.RolloutPolicySpec {
		m := v1alpha1.Metric{Name: "orders", MetricSpec: v1alpha1.MetricSpec{Rate: &v1alpha1.MetricRate{Numerator: numerator, Denominator: denominator}}}
		return &v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{Metrics: []v1alpha1.Metric{m}}}
	}
	const counters, inUse = `x{revision="{{.Revision}}"}`, "True Accepted in use"
	notCounters := func(call string) string {
		return `False Invalid the query of metric "orders" can't be used: a rate is given by its counters, of which the judge takes the differences itself; leave out ` + call
	}
	unjudged := func(metrics ...v1alpha1.Metric) *v1alpha1.RolloutPolicySpec {
		return &v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{
			SuccessRate: v1alpha1.SuccessRate{Disabled: true}, Latency: v1alpha1.Latency{Disabled: true}, Metrics: metrics,
		}}
	}
	const nothing = inUse + "; errors and latency are disabled and no metrics have the votes to decide: whatever starts is promoted"
	up := v1alpha1.Metric{Name: "up", MetricSpec: v1alpha1.MetricSpec{Query: "up", Range: &v1alpha1.Range{Min: ptr("1")}}}
	dry := up
	dry.DryRun = ptr(true)
	half := up
	half.Weight = ptr(int32(50))
	for name, tc := range map[string]struct {
		spec *v1alpha1.RolloutPolicySpec
		want string
	}{
		"steps that last as long as the rollout may": {lasting(time.Minute, 2*time.Minute), inUse},
		"steps that last longer": {
			lasting(time.Minute, 119*time.Second), "False Invalid the steps' minDuration is 2m0s together, longer than maxDuration (1m59s)",
		},
		"a rate of counters":              {rate(counters, counters), inUse},
		"sums of them":                    {rate("sum("+counters+")", "sum by (pod) ("+counters+")"), inUse},
		"names and strings like a rate's": {rate(`my_rate(`+counters+`)`, `x{revision="{{.Revision}}",a="\"rate(",b='increase(',c=`+"`delta(`}"), inUse},
		"a rate of a rate":                {rate("sum(rate ("+counters+"[1m]))", counters), notCounters("rate()")},
		"only the denominator":            {rate(counters, "increase("+counters+"[1m])"), notCounters("increase()")},
		"nothing is judged":               {unjudged(), nothing},
		"a metric that only shows":        {unjudged(dry), nothing},
		"a metric that has a vote":        {unjudged(dry, up), inUse},
		"metrics that can't decide":       {unjudged(half), nothing},
		"metrics that can, together":      {unjudged(half, half), inUse},
	} {
		t.Run(name, func(t *testing.T) {
			c := accepted(tc.spec, "", "")
			if got := fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// accepts is the condition as text; of an Invalid one without the parser's own words.
func accepts(s v1alpha1.PolicyStatus) string {
	c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionAccepted)
	if c == nil {
		return "none"
	}
	message := c.Message
	if c.Reason == v1alpha1.ReasonInvalid {
		message, _, _ = strings.Cut(message, ": ")
	}
	return strings.Join([]string{string(c.Status), c.Reason, message}, " ")
}

func TestPolicyIsWrittenOnlyWhenItChanged(t *testing.T) {
	policy := policyIn("shop", "a", 0)
	c := cluster(t, namespace("shop", true), policy).Build()
	p := &Policies{Client: c}
	var versions []string
	for range 2 {
		pass(t, p, "shop")
		versions = append(versions, stored(t, c, policy).ResourceVersion)
	}
	if versions[0] != versions[1] || policy.Status.ObservedGeneration != 2 {
		t.Errorf("versions %v, observed generation %d, want 2", versions, policy.Status.ObservedGeneration)
	}
}
