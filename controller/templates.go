// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// resolve is a policy with what its metrics' templates say put into them. A metric whose template can't be used keeps
// it, and has nothing to ask; wrong says why the first of those can't. namespace is the policy's; empty: it is one of
// the cluster. The error is the API server's.
func resolve(ctx context.Context, c client.Reader, namespace string, spec *v1alpha1.RolloutPolicySpec) (out *v1alpha1.RolloutPolicySpec, wrong string, err error) {
	if !slices.ContainsFunc(spec.Analysis.Metrics, func(m v1alpha1.Metric) bool { return m.Template != nil }) {
		return spec, "", nil
	}
	out = spec.DeepCopy()
	for i := range out.Analysis.Metrics {
		m := &out.Analysis.Metrics[i]
		if m.Template == nil {
			continue
		}
		template, why, err := findTemplate(ctx, c, namespace, m.Template)
		if err != nil {
			return nil, "", err
		}
		if why == "" {
			why = fill(m, template)
		}
		if why != "" {
			wrong = cmp.Or(wrong, fmt.Sprintf("metric %q can't be used: %s", m.Name, why))
		}
	}
	return out, wrong, nil
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
			return fmt.Sprintf("its template %q has no range that could be another one", m.Template.Name)
		}
		out.Range = m.Range
	}
	if m.ComparedToStable != nil {
		if out.ComparedToStable == nil {
			return fmt.Sprintf("its template %q compares with stable in no way that could be another one", m.Template.Name)
		}
		out.ComparedToStable = m.ComparedToStable
	}
	out.DryRun = out.DryRun || m.DryRun
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
