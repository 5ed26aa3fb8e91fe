// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
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
	unjudged := policyIn("shop", "blind", 0)
	unjudged.Spec.Analysis = v1alpha1.Analysis{SuccessRate: v1alpha1.SuccessRate{Disabled: true}, Latency: v1alpha1.Latency{Disabled: true}}
	goodVariable := policyIn("shop", "good", 0)
	goodVariable.Spec.Analysis.Metrics = []v1alpha1.Metric{{Name: "orders", MetricSpec: v1alpha1.MetricSpec{Query: "sum(orders{rev=\"{{.Revision}}\"})"}}}
	suspended := policyIn("shop", "off", 0)
	suspended.Spec.Suspend = true
	for name, tc := range map[string]struct {
		objects []client.Object
		want    map[string]string // policy: status, reason and message
	}{
		"one in each namespace": {
			[]client.Object{policyIn("shop", "a", 0), policyIn("bank", "b", 0), workloadIn("shop", "web"), workloadIn("bank", "web")},
			map[string]string{"a": "True Accepted can be used", "b": "True Accepted can be used"},
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
			map[string]string{"a": "True Accepted can be used", "default": "True Accepted can be used"},
		},
		"a namespace that is not enabled has no conflicts": {
			[]client.Object{policyIn("lab", "a", 0), policyIn("lab", "b", 1), workloadIn("lab", "web")},
			map[string]string{
				"a": "True Accepted not in use: the namespace is not enabled, and queries are not checked",
				"b": "True Accepted not in use: the namespace is not enabled, and queries are not checked",
			},
		},
		"suspended": {
			[]client.Object{suspended}, map[string]string{"off": "True Accepted suspended"},
		},
		"a known variable in a query": {
			[]client.Object{goodVariable}, map[string]string{"good": "True Accepted can be used"},
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
		"nothing is judged": {
			[]client.Object{unjudged},
			map[string]string{"blind": "True Accepted can be used; errors and latency are disabled and no metrics have the votes to decide: whatever starts is promoted"},
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
