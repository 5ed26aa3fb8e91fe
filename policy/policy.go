// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// LookInterval is how often it is looked, and metrics are asked for that say nothing else: as often as sidecars are scraped.
const LookInterval = 5 * time.Second

// Unjudged says that no look could speak against a candidate, because what it answers is not compared, and its metrics have not
// the votes to decide; empty: one could.
func Unjudged(spec *v1alpha1.RolloutPolicySpec) string {
	votes := 0
	for i := range spec.Analysis.Metrics {
		m := &spec.Analysis.Metrics[i]
		c := Criterion(m)
		if m.Template != nil && !c.DryRun { // it may be a rate
			return ""
		}
		votes += c.VotesToPass()
	}
	if !spec.Analysis.SuccessRate.Disabled || !spec.Analysis.Latency.Disabled || votes >= analysis.Decisive {
		return ""
	}
	return "errors and latency are disabled and no metrics have the votes to decide: whatever starts is promoted"
}

// Invalid says why a policy can't be used, and what to do; empty: it can. It is about what the API server does not check, or may
// not have when the policy was written. What a metric's template says is checked once it is in the metric.
func Invalid(spec *v1alpha1.RolloutPolicySpec) string {
	if _, err := metav1.LabelSelectorAsSelector(&spec.Selector); err != nil {
		return fmt.Sprintf("the selector selects nothing: %v", err)
	}
	if wrong := spec.Untested(); wrong != "" {
		return wrong
	}
	if wrong := invalidAddress(spec.Analysis.Prometheus); wrong != "" {
		return wrong
	}
	for i := range spec.Analysis.Metrics {
		m := &spec.Analysis.Metrics[i]
		if wrong := InvalidQuery(m); wrong != "" {
			return fmt.Sprintf("the query of metric %q can't be used: %s", m.Name, wrong)
		}
		if wrong := m.ImpossibleBounds(); wrong != "" {
			return fmt.Sprintf("no value of metric %q could be good: %s", m.Name, wrong)
		}
	}
	return cmp.Or(tooLong(spec), tooSlow(spec))
}

// tooLong says that the steps last longer than the rollout may; empty: they don't.
func tooLong(spec *v1alpha1.RolloutPolicySpec) string {
	var least time.Duration
	for i := range spec.Steps {
		least += duration(spec.Steps[i].MinDuration)
	}
	if most := spec.EffectiveMaxDuration(); least > most {
		return fmt.Sprintf("the steps' minDuration is %s together, longer than maxDuration (%s): shorten them, or raise maxDuration", least, most)
	}
	return ""
}

// tooSlow says which metric has its first value only when a rollout's time is up; empty: none that matters. No step passes
// before metrics whose votes decide have one, so such a rollout would take longer than its policy says.
func tooSlow(spec *v1alpha1.RolloutPolicySpec) string {
	most := spec.EffectiveMaxDuration()
	votes, said := 0, ""
	for i := range spec.Analysis.Metrics {
		m := &spec.Analysis.Metrics[i]
		c := Criterion(m)
		interval := cmp.Or(c.Interval, LookInterval)
		// What a template says of votes and times is not known before it is in the metric.
		if m.Template != nil || c.Votes() == 0 || c.WarmUp+interval <= most {
			continue
		}
		votes += c.VotesToPass()
		how := fmt.Sprintf("warms up for %s", c.WarmUp)
		switch {
		case c.WarmUp == 0:
			how = fmt.Sprintf("is asked for every %s", interval)
		case c.WarmUp <= most:
			how += fmt.Sprintf(" and is asked for every %s, together", interval)
		}
		said = cmp.Or(said, fmt.Sprintf("metric %q %s, longer than maxDuration (%s): steps would wait for it", c.Name, how, most))
	}
	if votes < analysis.Decisive {
		return ""
	}
	return said
}

// invalidAddress says what is wrong with the address of a policy's Prometheus; empty: nothing, or it names none. The API
// server refuses credentials in it, but lets those stay that were there before that rule.
func invalidAddress(p *v1alpha1.PrometheusRef) string {
	if p == nil {
		return ""
	}
	if !prometheus.Showable(p.URL) {
		return "the address of Prometheus is shown to others, and has an @, a query (?) or a fragment (#) in it: put credentials into a Secret and name it in secretRef"
	}
	if err := prometheus.CheckAddress(p.URL); err != nil {
		return err.Error()
	}
	return ""
}

// InvalidQuery says why a metric's queries can't be used, as far as that is to be seen without asking them; empty: they can.
func InvalidQuery(m *v1alpha1.Metric) string {
	for _, q := range m.Queries() {
		if _, err := prometheus.Render(*q, prometheus.Target{}); err != nil {
			return fmt.Sprintf("%v; known are {{.Namespace}} {{.Workload}} {{.Revision}} {{.StableRevision}}", err)
		}
		if literal.MatchString(*q) {
			return "it is a string, which has no value: leave out the quotes around it"
		}
		if (m.ComparedToStable != nil || m.Rate != nil) && !prometheus.NamesRevision(*q) {
			return "it asks for the same whether the candidate is meant or stable; it needs {{.Revision}}"
		}
		if call := rateCall(*q); m.Rate != nil && call != "" {
			return fmt.Sprintf("a rate is given by its counters, of which the judge takes the differences itself; leave out %s", call)
		}
	}
	return ""
}

// quoted is a string in PromQL, in which anything may stand.
const quoted = "(?:\"(?:[^\"\\\\]|\\\\.)*\"|'(?:[^'\\\\]|\\\\.)*'|`[^`]*`)"

var (
	// literal is an expression that is a string and nothing else; no function makes one.
	literal = regexp.MustCompile(`^[\s(]*` + quoted + `[\s)]*$`)
	// inPromQL are strings, and calls of functions that make of counters what is none.
	inPromQL = regexp.MustCompile(quoted + `|\b(?:i?rate|increase|i?delta|deriv)\s*\(`)
)

// rateCall is the first function in a query that makes of counters what is none, as "rate()"; empty: there is none.
func rateCall(query string) string {
	for _, found := range inPromQL.FindAllString(query, -1) {
		if name, call := strings.CutSuffix(found, "("); call {
			return strings.TrimSpace(name) + "()"
		}
	}
	return ""
}
