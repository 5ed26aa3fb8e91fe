// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// resolve is a policy with what its metrics' templates say put into them. A metric whose template can't be used keeps
// its name, and has nothing to ask; wrong says why the first of those can't. namespace is the policy's; empty: it is one
// of the cluster. The error is the API server's.
func resolve(ctx context.Context, c client.Reader, namespace string, spec *v1alpha1.RolloutPolicySpec) (out *v1alpha1.RolloutPolicySpec, wrong string, err error) {
	if !slices.ContainsFunc(spec.Analysis.Metrics, func(m v1alpha1.Metric) bool { return m.Template != nil }) {
		return spec, "", nil
	}
	out = spec.DeepCopy()
	var all extent
	for i := range out.Analysis.Metrics {
		all.add(&out.Analysis.Metrics[i].MetricSpec) // of those with a template nothing
	}
	for i := range out.Analysis.Metrics {
		m := &out.Analysis.Metrics[i]
		if m.Template == nil {
			continue
		}
		template, why, err := findTemplate(ctx, c, namespace, m.Template)
		if err != nil {
			return nil, "", err
		}
		filled := *m.DeepCopy()
		if why == "" {
			why = fill(&filled, template)
		}
		with := all
		with.add(&filled.MetricSpec)
		if why = cmp.Or(why, with.tooMuch()); why != "" {
			wrong = cmp.Or(wrong, fmt.Sprintf("metric %q can't be used: %s", m.Name, why))
			m.Template.Arguments = nil // the record has no use for them
			continue
		}
		*m, all = filled, with
	}
	return out, wrong, nil
}

// extent is how much a policy's metrics are together. The API server has checked what is not from templates.
type extent struct{ rates, characters int }

func (e *extent) add(m *v1alpha1.MetricSpec) {
	if m.Rate != nil {
		e.rates++
	}
	for _, q := range m.Queries() {
		e.characters += utf8.RuneCountInString(*q)
	}
}

// tooMuch says in words what there is too much of; empty: nothing.
func (e *extent) tooMuch() string {
	switch {
	case e.rates > analysis.MaxRates:
		return fmt.Sprintf("with it %d metrics are rates; at most %d can be", e.rates, analysis.MaxRates)
	case e.characters > v1alpha1.MaxQueries:
		return fmt.Sprintf("with it the queries of all metrics are longer than %d characters", v1alpha1.MaxQueries)
	}
	return ""
}

// findTemplate is the template of that name; why says in words why there is none.
func findTemplate(ctx context.Context, c client.Reader, namespace string, ref *v1alpha1.TemplateRef) (t *v1alpha1.MetricTemplateSpec, why string, err error) {
	if ref.Kind == v1alpha1.KindClusterMetricTemplate {
		var found v1alpha1.ClusterMetricTemplate
		err = c.Get(ctx, types.NamespacedName{Name: ref.Name}, &found)
		t, why = &found.Spec, fmt.Sprintf("there is no ClusterMetricTemplate %q", ref.Name)
	} else {
		if namespace == "" {
			return nil, "a ClusterRolloutPolicy can use templates of kind ClusterMetricTemplate only", nil
		}
		var found v1alpha1.MetricTemplate
		err = c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, &found)
		t, why = &found.Spec, fmt.Sprintf("there is no MetricTemplate %q in namespace %q", ref.Name, namespace)
	}
	switch {
	case apierrors.IsNotFound(err):
		return nil, why, nil
	case err != nil:
		return nil, "", fmt.Errorf("getting template %q: %w", ref.Name, err)
	}
	return t, "", nil
}

// fill puts a template into a metric. why says in words why it can't be; the metric is then as it was.
func fill(m *v1alpha1.Metric, t *v1alpha1.MetricTemplateSpec) (why string) {
	args, why := arguments(m.Template.Arguments, t.Arguments)
	if why != "" {
		return why
	}
	out := *t.MetricSpec.DeepCopy()
	for _, q := range out.Queries() {
		var err error
		if *q, err = prometheus.Substitute(*q, args); err != nil {
			return fmt.Sprintf("its template %q: %v", m.Template.Name, err)
		}
	}
	if m.Range != nil {
		if out.Range == nil {
			return fmt.Sprintf("the metric sets range, but its template %q has none: leave it out, or use a template with range", m.Template.Name)
		}
		out.Range = m.Range
	}
	if m.ComparedToStable != nil {
		if out.ComparedToStable == nil {
			return fmt.Sprintf("the metric sets comparedToStable, but its template %q has none: leave it out, or use a template with comparedToStable", m.Template.Name)
		}
		out.ComparedToStable = m.ComparedToStable
	}
	out.DryRun = cmp.Or(m.DryRun, out.DryRun)
	out.Interval = cmp.Or(m.Interval, out.Interval)
	out.WarmUp = cmp.Or(m.WarmUp, out.WarmUp)
	out.Weight = cmp.Or(m.Weight, out.Weight)
	m.MetricSpec, m.Template = out, nil
	return ""
}

// arguments are the values of all that a template takes, by name.
func arguments(given []v1alpha1.Argument, taken []v1alpha1.Parameter) (args map[string]string, why string) {
	args = map[string]string{}
	for _, p := range taken {
		if p.Default != nil {
			args[p.Name] = *p.Default
		}
	}
	for _, a := range given {
		if !slices.ContainsFunc(taken, func(p v1alpha1.Parameter) bool { return p.Name == a.Name }) {
			return nil, fmt.Sprintf("its template takes no argument %q", a.Name)
		}
		args[a.Name] = a.Value
	}
	for _, p := range taken {
		if _, ok := args[p.Name]; !ok {
			return nil, fmt.Sprintf("its template needs the argument %q", p.Name)
		}
	}
	return args, ""
}
