// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// Query is what Prometheus is asked for a metric. One that would say nothing, or fail every candidate, is Unusable.
func Query(m *v1alpha1.Metric) prometheus.Query {
	q := prometheus.Query{
		Name: m.Name, Expression: m.Query, Compared: m.ComparedToStable != nil, Interval: duration(m.Interval), WarmUp: duration(m.WarmUp),
	}
	if m.Rate != nil {
		q.Expression, q.Denominator = m.Rate.Numerator, m.Rate.Denominator
		q.HigherIsBetter = m.Rate.Better == v1alpha1.BetterHigher
	}
	switch wrong, out := InvalidQuery(m), m.ImpossibleBounds(); {
	case m.Template != nil: // else what it says would be in the record
		q.Unusable = fmt.Sprintf("its template %q could not be used when the rollout began", m.Template.Name)
	case wrong != "":
		q.Unusable = "its query can't be used: " + wrong
	case out != "": // else it would fail every candidate
		q.Unusable = "no value of it could be good: " + out
	}
	return q
}

// Criterion is what the judge makes of a metric's answers. One whose template could not be put into it has no bounds.
func Criterion(m *v1alpha1.Metric) analysis.Criterion {
	c := analysis.Criterion{Name: m.Name, DryRun: m.DryRun != nil && *m.DryRun, Interval: duration(m.Interval), WarmUp: duration(m.WarmUp)}
	if m.Weight != nil {
		c.Vote = int(*m.Weight)
	}
	switch {
	case m.Template != nil:
	case m.Range != nil:
		c.Range = &analysis.Range{Min: number(m.Range.Min), Max: number(m.Range.Max)}
	case m.ComparedToStable != nil:
		c.Compared = &analysis.Comparison{Min: line(m.ComparedToStable.Min), Max: line(m.ComparedToStable.Max)}
	case m.Rate != nil:
		c.Rate = &analysis.RateCriterion{Harm: rateLine(m.Rate.Harm), Acceptance: rateLine(m.Rate.Acceptance)}
	}
	return c
}

func duration(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}

// line is a bound that moves with stable; nil where there is none.
func line(l *v1alpha1.Line) *analysis.Margin {
	if l == nil {
		return nil
	}
	m := &analysis.Margin{Ratio: 1}
	if v := number(l.Ratio); v != nil {
		m.Ratio = *v
	}
	if v := number(l.Difference); v != nil {
		m.Excess = *v
	}
	return m
}

// rateLine is a rate's; the zero value, where there is none, stands for the judge's default.
func rateLine(l *v1alpha1.RateLine) (m analysis.Margin) {
	if l == nil {
		return m
	}
	if ratio, difference := number(&l.Ratio), number(&l.Difference); ratio != nil && difference != nil {
		m = analysis.Margin{Ratio: *ratio, Excess: *difference}
	}
	return m
}

// number reads a decimal; nil where there is none.
func number(s *string) *float64 {
	if s == nil {
		return nil
	}
	v, err := strconv.ParseFloat(*s, 64)
	if err != nil {
		return nil
	}
	return &v
}
