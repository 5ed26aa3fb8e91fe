// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

func TestPoliciesSayWhatIsWrongWithAnAddress(t *testing.T) {
	const secret = "the address of Prometheus is shown to others, and has an @, a query (?) or a fragment (#) in it: put credentials into a Secret and name it in secretRef"
	const unusable = "the address of Prometheus can't be used: "
	for url, want := range map[string]string{
		"http://prometheus:9090/tenant":     "",
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
			spec := &v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{Prometheus: &v1alpha1.PrometheusRef{URL: url}}}
			if got := Invalid(spec); got != want {
				t.Errorf("Invalid = %q, want %q", got, want)
			}
		})
	}
}

func TestMetricsThatAreSlowerThanARolloutMayBe(t *testing.T) {
	metric := func(name string, warmUp, interval time.Duration) v1alpha1.Metric {
		m := v1alpha1.Metric{Name: name, MetricSpec: v1alpha1.MetricSpec{Query: "up", Range: &v1alpha1.Range{Min: new("1")}}}
		if warmUp > 0 {
			m.WarmUp = &metav1.Duration{Duration: warmUp}
		}
		if interval > 0 {
			m.Interval = &metav1.Duration{Duration: interval}
		}
		return m
	}
	halved := func(m v1alpha1.Metric) v1alpha1.Metric { m.Weight = new(int32(50)); return m }
	rate := func(m v1alpha1.Metric) v1alpha1.Metric {
		m.Query, m.Range = "", nil
		m.Rate = &v1alpha1.MetricRate{Numerator: `failed{r="{{.Revision}}"}`, Denominator: `all{r="{{.Revision}}"}`}
		return m
	}
	dry := func(m v1alpha1.Metric) v1alpha1.Metric { m.DryRun = new(true); return m }
	templated := func(m v1alpha1.Metric) v1alpha1.Metric { m.Template = &v1alpha1.TemplateRef{Name: "orders"}; return m }
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
		"nobody waits for a dry run":    {metrics: []v1alpha1.Metric{dry(metric("orders", 10*time.Minute, 0))}},
		"nor for half a vote":           {metrics: []v1alpha1.Metric{halved(metric("a", 10*time.Minute, 0)), dry(metric("b", 10*time.Minute, 0))}},
		"a template may say more of it": {metrics: []v1alpha1.Metric{templated(metric("orders", 10*time.Minute, 0))}},
		"but for half a rate": {
			metrics: []v1alpha1.Metric{rate(halved(metric("orders", 10*time.Minute, 0)))},
			want:    `metric "orders" warms up for 10m0s, longer than maxDuration (4m0s): steps would wait for it`,
		},
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
			if got := Invalid(spec); got != tc.want {
				t.Errorf("Invalid = %q, want %q", got, tc.want)
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
	const counters = `x{revision="{{.Revision}}"}`
	asked := func(query string) *v1alpha1.RolloutPolicySpec {
		m := v1alpha1.Metric{Name: "orders", MetricSpec: v1alpha1.MetricSpec{Query: query, Range: &v1alpha1.Range{Min: new("1")}}}
		return &v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{Metrics: []v1alpha1.Metric{m}}}
	}
	const noValue = `the query of metric "orders" can't be used: it is a string, which has no value: leave out the quotes around it`
	notCounters := func(call string) string {
		return `the query of metric "orders" can't be used: a rate is given by its counters, of which the judge takes the differences itself; leave out ` + call
	}
	for name, tc := range map[string]struct {
		spec *v1alpha1.RolloutPolicySpec
		want string
	}{
		"steps that last as long as the rollout may": {lasting(time.Minute, 2*time.Minute), ""},
		"steps that last longer": {
			lasting(time.Minute, 119*time.Second), "the steps' minDuration is 2m0s together, longer than maxDuration (1m59s): shorten them, or raise maxDuration",
		},
		"a rate of counters":              {rate(counters, counters), ""},
		"sums of them":                    {rate("sum("+counters+")", "sum by (pod) ("+counters+")"), ""},
		"a string":                        {asked(` "up{a=\"b\"}" `), noValue},
		"a string in parentheses":         {asked("('up')"), noValue},
		"a string with a revision":        {rate("`{{.Revision}}`", counters), noValue},
		"strings in an expression":        {asked(`label_replace(up, "a", "b", "c", "d") == ignoring ("e") up{f="g"}`), ""},
		"a metric's name in quotes":       {asked(`{"up"}`), ""},
		"names and strings like a rate's": {rate(`my_rate(`+counters+`)`, `x{revision="{{.Revision}}",a="\"rate(",b='increase(',c=`+"`delta(`}"), ""},
		"a rate of a rate":                {rate("sum(rate ("+counters+"[1m]))", counters), notCounters("rate()")},
		"only the denominator":            {rate(counters, "increase("+counters+"[1m])"), notCounters("increase()")},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Invalid(tc.spec); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestPoliciesThatJudgeNothing(t *testing.T) {
	unjudged := func(metrics ...v1alpha1.Metric) *v1alpha1.RolloutPolicySpec {
		return &v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{
			SuccessRate: v1alpha1.SuccessRate{Disabled: true}, Latency: v1alpha1.Latency{Disabled: true}, Metrics: metrics,
		}}
	}
	up := v1alpha1.Metric{Name: "up", MetricSpec: v1alpha1.MetricSpec{Query: "up", Range: &v1alpha1.Range{Min: new("1")}}}
	dry := up
	dry.DryRun = new(true)
	half := up
	half.Weight = new(int32(50))
	shared := up
	shared.Template = &v1alpha1.TemplateRef{Name: "orders"}
	for name, tc := range map[string]struct {
		spec *v1alpha1.RolloutPolicySpec
		says bool
	}{
		"what is empty":                   {&v1alpha1.RolloutPolicySpec{}, false},
		"nothing":                         {unjudged(), true},
		"a metric that only shows":        {unjudged(dry), true},
		"a metric that has a vote":        {unjudged(dry, up), false},
		"a metric that can't decide":      {unjudged(half), true},
		"metrics that can, together":      {unjudged(half, half), false},
		"a metric that may become a rate": {unjudged(shared), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Unjudged(tc.spec); (got != "") != tc.says {
				t.Errorf("it says %q", got)
			}
		})
	}
}
