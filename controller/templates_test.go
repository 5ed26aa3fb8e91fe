// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

// failures is a template of both kinds.
func failures() v1alpha1.MetricTemplateSpec {
	return v1alpha1.MetricTemplateSpec{
		Arguments: []v1alpha1.Parameter{{Name: "job"}, {Name: "code", Default: ptr("5..")}},
		MetricSpec: v1alpha1.MetricSpec{
			Rate: &v1alpha1.MetricRate{
				Numerator:   `http_total{job="{{.Args.job}}",code=~"{{.Args.code}}",pod=~".*-{{.Revision}}-.*"}`,
				Denominator: `http_total{job="{{.Args.job}}",pod=~".*-{{.Revision}}-.*"}`,
			},
			WarmUp: &metav1.Duration{Duration: time.Minute},
		},
	}
}

// long is a template that arguments make larger than what a policy may be.
func long() v1alpha1.MetricTemplateSpec {
	t := v1alpha1.MetricTemplateSpec{MetricSpec: v1alpha1.MetricSpec{Range: &v1alpha1.Range{Max: ptr("10")}}}
	for i := range 10 {
		t.Arguments = append(t.Arguments, v1alpha1.Parameter{Name: fmt.Sprintf("a%d", i)})
	}
	t.Query = strings.Repeat("{{.Args.a0}}+", 100)
	return t
}

func templates() []client.Object {
	return []client.Object{
		&v1alpha1.MetricTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "failures"}, Spec: failures()},
		&v1alpha1.ClusterMetricTemplate{ObjectMeta: metav1.ObjectMeta{Name: "failures"}, Spec: failures()},
		&v1alpha1.MetricTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "long"}, Spec: long()},
		&v1alpha1.MetricTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "queue"}, Spec: v1alpha1.MetricTemplateSpec{
			MetricSpec: v1alpha1.MetricSpec{Query: "queue", Range: &v1alpha1.Range{Max: ptr("10")}, DryRun: ptr(true)},
		}},
	}
}

// using is a metric that a template describes.
func using(kind v1alpha1.TemplateKind, name string, args ...string) v1alpha1.Metric {
	m := v1alpha1.Metric{Name: "m", Template: &v1alpha1.TemplateRef{Kind: kind, Name: name}}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		m.Template.Arguments = append(m.Template.Arguments, v1alpha1.Argument{Name: k, Value: v})
	}
	return m
}

func TestTemplates(t *testing.T) {
	const own, clusters = v1alpha1.KindMetricTemplate, v1alpha1.KindClusterMetricTemplate
	filled := failures().MetricSpec
	filled.Rate.Numerator = `http_total{job="api",code=~"5..",pod=~".*-{{.Revision}}-.*"}`
	filled.Rate.Denominator = `http_total{job="api",pod=~".*-{{.Revision}}-.*"}`
	otherCode := *filled.DeepCopy()
	otherCode.Rate.Numerator = strings.Replace(filled.Rate.Numerator, "5..", "[45]..", 1)
	otherCode.WarmUp, otherCode.DryRun, otherCode.Weight = &metav1.Duration{Duration: time.Second}, ptr(true), ptr(int32(7))

	more := using(clusters, "failures", "job=api", "code=[45]..")
	more.WarmUp, more.DryRun, more.Weight = otherCode.WarmUp, ptr(true), otherCode.Weight
	narrower := using(own, "queue")
	narrower.Range, narrower.DryRun = &v1alpha1.Range{Max: ptr("5")}, ptr(false)
	ranged := using(own, "failures", "job=api")
	ranged.Range = narrower.Range

	compared := using(own, "failures", "job=api")
	compared.ComparedToStable = &v1alpha1.Comparison{Max: &v1alpha1.Line{Ratio: ptr("2")}}

	for name, tc := range map[string]struct {
		namespace string
		metric    v1alpha1.Metric
		want      v1alpha1.MetricSpec
		wrong     string
	}{
		"of the namespace":                 {"shop", using(own, "failures", "job=api"), filled, ""},
		"of the cluster, and more is said": {"shop", more, otherCode, ""},
		"for a cluster's policy":           {"", using(clusters, "failures", "job=api"), filled, ""},
		"another range, and it counts":     {"shop", narrower, v1alpha1.MetricSpec{Query: "queue", Range: narrower.Range, DryRun: narrower.DryRun}, ""},
		"a range for a rate":               {"shop", ranged, ranged.MetricSpec, `the metric sets range, but its template "failures" has none: leave it out, or use a template with range`},
		"a comparison for a rate":          {"shop", compared, compared.MetricSpec, `the metric sets comparedToStable, but its template "failures" has none: leave it out, or use a template with comparedToStable`},
		"an argument is missing":           {"shop", using(own, "failures"), v1alpha1.MetricSpec{}, `its template needs the argument "job"`},
		"an argument that it has not":      {"shop", using(own, "failures", "job=a", "jop=b"), v1alpha1.MetricSpec{}, `its template takes no argument "jop"`},
		"another namespace's":              {"bank", using(own, "failures", "job=a"), v1alpha1.MetricSpec{}, `there is no MetricTemplate "failures" in namespace "bank"`},
		"none of the cluster":              {"shop", using(clusters, "queue"), v1alpha1.MetricSpec{}, `there is no ClusterMetricTemplate "queue"`},
		"a namespace's for the cluster's":  {"", using(own, "queue"), v1alpha1.MetricSpec{}, `a ClusterRolloutPolicy can use templates of kind ClusterMetricTemplate only`},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster(t, templates()...).Build()
			spec := &v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{Metrics: []v1alpha1.Metric{tc.metric}}}
			before := spec.DeepCopy()
			got, wrong, err := resolve(t.Context(), c, tc.namespace, spec)
			if err != nil {
				t.Fatal(err)
			}
			want := v1alpha1.Metric{Name: "m", MetricSpec: tc.want}
			if tc.wrong != "" {
				want.MetricSpec, want.Template = tc.metric.MetricSpec, &v1alpha1.TemplateRef{Kind: tc.metric.Template.Kind, Name: tc.metric.Template.Name}
				tc.wrong = `metric "m" can't be used: ` + tc.wrong
			}
			if d := cmp.Diff(want, got.Analysis.Metrics[0]); d != "" || wrong != tc.wrong {
				t.Errorf("it says %q, want %q; the metric (-want +got):\n%s", wrong, tc.wrong, d)
			}
			if d := cmp.Diff(before, spec); d != "" {
				t.Errorf("the policy itself was changed:\n%s", d)
			}
		})
	}
}

// What is wrong with a metric is said where its user looks, and goes when it is put right.
func TestPoliciesSayWhatIsWrongWithMetrics(t *testing.T) {
	compared := v1alpha1.Metric{Name: "m", MetricSpec: v1alpha1.MetricSpec{Query: "queue", ComparedToStable: &v1alpha1.Comparison{Max: &v1alpha1.Line{Ratio: ptr("2")}}}}
	rates := func(n int) (out []v1alpha1.Metric) {
		for range n {
			out = append(out, using(v1alpha1.KindMetricTemplate, "failures", "job=api"))
		}
		return out
	}
	long := using(v1alpha1.KindMetricTemplate, "long")
	for i := range 10 {
		long.Template.Arguments = append(long.Template.Arguments, v1alpha1.Argument{Name: fmt.Sprintf("a%d", i), Value: strings.Repeat("x", 256)})
	}
	for name, tc := range map[string]struct {
		metrics []v1alpha1.Metric
		want    string
	}{
		"no template":                 {[]v1alpha1.Metric{using(v1alpha1.KindMetricTemplate, "gone")}, `metric "m" can't be used: there is no MetricTemplate "gone" in namespace "shop"`},
		"the same for both revisions": {[]v1alpha1.Metric{compared}, `the query of metric "m" can't be used: it asks for the same whether the candidate is meant or stable; it needs {{.Revision}}`},
		"four rates":                  {rates(4), `metric "m" can't be used: with it 4 metrics are rates; at most 3 can be`},
		"what arguments make long":    {[]v1alpha1.Metric{long}, `metric "m" can't be used: with it the queries of all metrics are longer than 16384 characters`},
		"three":                       {rates(3), "can be used"},
	} {
		t.Run(name, func(t *testing.T) {
			policy := policyIn("shop", "web", 0)
			policy.Spec.Analysis.Metrics = tc.metrics
			c := cluster(t, append(templates(), namespace("shop", true), policy)...).Build()
			p := &Policies{Client: c}
			pass(t, p, "shop")
			if got := stored(t, c, policy).Status.Conditions[0].Message; got != tc.want {
				t.Errorf("it says %q, want %q", got, tc.want)
			}
		})
	}
}

// A rollout is recorded with what its templates said when it began.
func TestARolloutBeginsWithItsTemplates(t *testing.T) {
	policy := policyIn("shop", "web", 0)
	policy.Spec.Analysis.Metrics = []v1alpha1.Metric{using(v1alpha1.KindMetricTemplate, "failures", "job=api")}
	c := cluster(t, append(templates(), namespace("shop", true), policy)...).Build()
	w := &workload{deployment: workloadIn("shop", "web")}
	r := reconciler(c)
	if err := r.gatherPolicy(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if m := w.policy.Analysis.Metrics[0]; m.Template != nil || m.Rate == nil || !strings.Contains(m.Rate.Numerator, `job="api"`) {
		t.Errorf("the policy has %+v", m)
	}
	var own v1alpha1.MetricTemplate
	if err := c.Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: "failures"}, &own); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(own.Spec.Rate.Numerator, "{{.Args.job}}") {
		t.Errorf("the template itself was changed: %+v", own.Spec)
	}
}
