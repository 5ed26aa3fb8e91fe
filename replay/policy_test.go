// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
)

// spec is a policy with this spec.
func spec(text string) string { return "kind: RolloutPolicy\nspec: " + text + "\n" }

// metric is a policy with a metric of which a range is said besides.
func metric(text string) string {
	return spec(`{analysis: {metrics: [{name: orders, range: {min: "1"}, ` + text + `}]}}`)
}

func TestPoliciesThatWouldNotBeAccepted(t *testing.T) {
	for name, tc := range map[string]struct {
		policy string
		want   []string // what is wrong, in this order
	}{
		// What is no policy.
		"another kind":     {"kind: Deployment", []string{`kind is "Deployment"; expected RolloutPolicy or ClusterRolloutPolicy`}},
		"no kind":          {"spec: {}", []string{`kind is ""; expected RolloutPolicy or ClusterRolloutPolicy`}},
		"no object":        {"- kind: RolloutPolicy", []string{"it is no YAML object"}},
		"another version":  {"apiVersion: headgate.dev/v1\nkind: RolloutPolicy", []string{`apiVersion is "headgate.dev/v1"; expected headgate.dev/v1alpha1`}},
		"no YAML":          {"kind: RolloutPolicy\nspec: {\n", []string{"did not find expected node content"}},
		"a field twice":    {spec("{suspend: true, suspend: false}"), []string{`key "suspend" already set`}},
		"two policies":     {spec("{}") + "---\n" + spec("{}"), []string{"there are 2 YAML documents; expected one"}},
		"a field unknown":  {spec("{stepz: 1, steps: [{weight: 1, wait: 1m}]}"), []string{"there are 2 mistakes", `unknown field "spec.steps[0].wait"`, `unknown field "spec.stepz"`}},
		"of the cluster's": {"kind: ClusterRolloutPolicy\nspec: {a: 1}", []string{`unknown field "spec.a"`}},

		// What the API server refuses.
		"a weight of everything":               {spec("{steps: [{weight: 100}]}"), []string{"spec.steps[0].weight: Invalid value: 100: should be less than or equal to 99"}},
		"no weight":                            {spec("{steps: [{approval: true}]}"), []string{"spec.steps[0].weight: Required value"}},
		"weights that decrease":                {spec("{steps: [{weight: 50}, {weight: 10}]}"), []string{"spec.steps: Invalid value: ", "order the steps by weight"}},
		"steps that send nothing":              {spec("{steps: [{weight: 0}, {weight: 0}]}"), []string{"spec.steps: Invalid value: ", "give a step a weight above 0, or approval: true"}},
		"no replicas":                          {spec("{steps: [{weight: 1, replicas: 0}]}"), []string{"spec.steps[0].replicas: ", "a number from 1 to 10000 or a percentage from 1% to 100%"}},
		"replicas in quotes":                   {spec(`{steps: [{weight: 1, replicas: "3"}]}`), []string{`spec.steps[0].replicas: Invalid value: "3": expected a number of pods without quotes, or a percentage from 1% to 100%`}},
		"a step that lasts negatively":         {spec("{steps: [{weight: 1, minDuration: -5s}]}"), []string{`spec.steps[0].minDuration: Invalid value: "-5s": expected hours, minutes and whole seconds of up to five digits, like 1h30m or 90s`}},
		"a duration that is a number":          {spec("{maxDuration: 4}"), []string{"spec.maxDuration: Invalid value: \"integer\": must be of type string"}},
		"a duration in words":                  {spec("{quarantineTTL: 1 day}"), []string{`spec.quarantineTTL: Invalid value: "1 day": expected hours, minutes and whole seconds of up to five digits`}},
		"no time at all":                       {spec("{maxDuration: 0s}"), []string{"spec.maxDuration: ", "it must be longer than 0s; leave it out for the default, 4m"}},
		"no time to start":                     {spec("{progressDeadline: 0s}"), []string{"spec.progressDeadline: ", "it must be longer than 0s; leave it out for the default, 2m"}},
		"a word unknown":                       {spec("{onInconclusive: Explode}"), []string{`spec.onInconclusive: Unsupported value: "Explode": supported values: "Advance", "Hold", "RollBack"`}},
		"an objective of everything":           {spec("{analysis: {successRate: {objective: '100'}}}"), []string{`spec.analysis.successRate.objective: Invalid value: "100": expected a percentage above 0 and below 100, in quotes, like "99.9"`}},
		"an objective without a bound":         {spec("{analysis: {latency: {objective: '95'}}}"), []string{"spec.analysis.latency: ", "an objective needs a bound: within what time so many requests are to be answered"}},
		"a range that is upside down":          {spec(`{analysis: {metrics: [{name: a, query: up, range: {min: "5", max: "1"}}]}}`), []string{"spec.analysis.metrics[0].range: ", "min must not be greater than max"}},
		"a metric without a query":             {metric("weight: 7"), []string{"spec.analysis.metrics[0]: ", "a metric needs a query"}},
		"a metric that is asked for too often": {metric("query: up, interval: 1s"), []string{"spec.analysis.metrics[0].interval: ", "an interval must be from 5s to 4m"}},
		"two metrics of a name": {
			spec(`{analysis: {metrics: [{name: a, query: up, range: {min: "1"}}, {name: a, query: up, range: {min: "1"}}]}}`),
			[]string{`spec.analysis.metrics[1]: Duplicate value: {"name":"a"}`},
		},
		"several mistakes, a line each": {
			spec("{maxDuration: 100ms, progressDeadline: 0s, onBlind: Guess, steps: [{weight: 9}, {weight: 7}]}"),
			[]string{
				"reading the policy: there are 4 mistakes:\n  spec.maxDuration: ", "\n  spec.onBlind: ", "\n  spec.progressDeadline: ", "\n  spec.steps: ",
			},
		},

		// What the controller marks as Invalid.
		"steps that last longer than the rollout": {
			spec("{maxDuration: 2m, steps: [{weight: 1, minDuration: 1m}, {weight: 2, minDuration: 90s}]}"),
			[]string{"the steps' minDuration is 2m30s together, longer than maxDuration (2m0s): shorten them, or raise maxDuration"},
		},
		"a variable unknown": {metric(`query: "x{a=\"{{.Foo}}\"}"`), []string{`the query of metric "orders" can't be used: unknown variable ".Foo"`}},
		"a metric that is slower than the rollout": {
			metric("query: up, warmUp: 10m"), []string{`metric "orders" warms up for 10m0s, longer than maxDuration (4m0s)`},
		},
		"a string for a query": {metric(`query: "'up'"`), []string{`the query of metric "orders" can't be used: it is a string`}},
		"a selector of no sense": {
			spec("{selector: {matchExpressions: [{key: app, operator: Near}]}}"), []string{"the selector selects nothing"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Policy([]byte(tc.policy))
			if err == nil {
				t.Fatalf("it is accepted; want %q", tc.want)
			}
			rest := err.Error()
			if !strings.HasPrefix(rest, "reading the policy: ") {
				t.Errorf("the error %q does not say what was done", rest)
			}
			for _, want := range tc.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("the error is\n%s\nwant %q", err, tc.want)
				}
				rest = after
			}
		})
	}
}

// What depends on objects that are not in the file is not held against it.
func TestPoliciesThatAreAccepted(t *testing.T) {
	for name, text := range map[string]string{
		"empty":           "kind: RolloutPolicy\n",
		"of the cluster":  "apiVersion: headgate.dev/v1alpha1\nkind: ClusterRolloutPolicy\nmetadata: {name: all}\nspec: {steps: [{weight: 0}, {weight: 5, replicas: 10%}]}\n",
		"with a template": spec(`{analysis: {metrics: [{name: a, template: {name: failed}, warmUp: 1h}]}}`),
		"with a rate":     spec(`{analysis: {metrics: [{name: a, rate: {numerator: 'x{r="{{.Revision}}",c="5.."}', denominator: 'x{r="{{.Revision}}"}', harm: {ratio: "1.5", difference: "0.005"}}}]}}`),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Policy([]byte(text)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Such a policy is one for a dry run, perhaps, and no mistake. With metrics of the user's another verdict was possible.
func TestAPolicyThatIsOdd(t *testing.T) {
	const unjudged = "Warning: policy: errors and latency are disabled and no metrics have the votes to decide: whatever starts is promoted\n"
	for text, want := range map[string]string{
		spec("{}"): "",
		spec("{analysis: {successRate: {disabled: true}, latency: {disabled: true}}}"): unjudged,
		metric("query: up"): "Warning: policy: looks have no metrics of your own, so the verdicts are those without its analysis.metrics (1)\n",
	} {
		policy, err := Policy([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var out, warnings bytes.Buffer
		if err := Run(strings.NewReader(`{"time":5,"missing":true}`+"\n"), &out, Options{Policy: policy, Warnings: &warnings}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, warnings.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", text, d)
		}
	}
}

// A pattern that is put into words here, and is no longer in the definition, would be said as it is: nobody reads that.
func TestAllPatternsAreExplained(t *testing.T) {
	schema, err := schemaOf(definition)
	if err != nil {
		t.Fatal(err)
	}
	patterns := map[string]bool{}
	all := schema.Properties["spec"]
	gather(&all, patterns)
	for pattern := range patterns {
		if _, ok := expected[pattern]; !ok {
			t.Errorf("there are no words for the pattern %s", pattern)
		}
	}
	for pattern := range expected {
		if !patterns[pattern] {
			t.Errorf("the definition has no pattern %s; it has %v", pattern, slices.Sorted(maps.Keys(patterns)))
		}
	}
}

func gather(s *apiextensions.JSONSchemaProps, into map[string]bool) {
	if s.Pattern != "" {
		into[s.Pattern] = true
	}
	for _, p := range s.Properties {
		gather(&p, into)
	}
	if s.Items != nil && s.Items.Schema != nil {
		gather(s.Items.Schema, into)
	}
}

// Whatever is in the file, there is an answer, and a mistake has a line of its own.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(spec(`{maxDuration: 9m, selector: {matchLabels: {a: b}}, steps: [{weight: 10, replicas: 5%, minDuration: 1m, approval: true}]}`)))
	f.Add([]byte(spec(`{analysis: {prometheus: {url: "http://x"}, latency: {bound: 1s, objective: "95"}, metrics: [{name: a, template: {name: x, arguments: [{name: b, value: c}]}}]}}`)))
	f.Add([]byte(metric(`query: "x\ny", comparedToStable: {max: {ratio: "1"}}, weight: 1`)))
	f.Add([]byte(spec(`{analysis: {metrics: [{name: a, rate: {numerator: "x", denominator: "scalar(x)", harm: {ratio: "2", difference: "1"}}}]}}`)))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, mistakes, err := readPolicy(text)
		if err != nil && len(mistakes) > 0 {
			t.Errorf("it is both no policy (%v) and a wrong one: %q", err, mistakes)
		}
		for _, mistake := range mistakes {
			if strings.Contains(mistake, "\n") {
				t.Errorf("a mistake of two lines: %q", mistake)
			}
		}
		if spec, err := Policy(text); (spec == nil) != (err != nil) {
			t.Errorf("Policy = %v, %v", spec, err)
		}
	})
}
