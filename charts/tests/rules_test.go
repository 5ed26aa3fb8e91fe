// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"strings"
	"testing"

	structuralcel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// TestRulesOfPolicies evaluates rules of the definitions without a cluster. All of them are asked of a real API server
// in api/v1alpha1; here are those whose answer must not give away what was written, or that keep a candidate from being
// promoted untested.
func TestRulesOfPolicies(t *testing.T) {
	const secret = "put credentials into a Secret and name it in secretRef"
	const untested = "spec.steps: Invalid value: no step sends a request to the candidate, and none waits for approval"
	for name, tc := range map[string]struct {
		spec string
		want string // a part of the message; empty: accepted
	}{
		"an address":         {spec: at("https://prometheus.example:9090/tenant")},
		"a longer one":       {spec: at("https://[::1]:9090/a%40b/c_d~e/" + strings.Repeat("x", 2017))},
		"a password":         {spec: at("http://user:hunter2@prometheus:9090"), want: secret},
		"one with a slash":   {spec: at("http://user:1/hunter2@prometheus:9090"), want: secret},
		"a token as a user":  {spec: at("https://hunter2@prometheus:9090"), want: secret},
		"a token in a query": {spec: at("https://prometheus:9090/a?token=hunter2"), want: secret},
		"a fragment":         {spec: at("https://prometheus:9090/#hunter2"), want: secret},
		"no spec":            {spec: `{}`},
		"no steps":           {spec: `{steps: []}`},
		"weight 0 alone":     {spec: `{steps: [{weight: 0}]}`, want: untested},
		"no approval":        {spec: `{steps: [{weight: 0}, {weight: 0, approval: false, minDuration: 1m}]}`, want: untested},
		"an approval":        {spec: `{steps: [{weight: 0}, {weight: 0, approval: true}]}`},
		"a weight at last":   {spec: `{steps: [{weight: 0}, {weight: 0}, {weight: 1}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, rules := range policyRules(t) {
				errs, _ := rules.Validate(context.Background(), nil, nil, map[string]any{"spec": numbers(t, tc.spec)}, nil, celconfig.RuntimeCELCostBudget)
				said := ""
				if err := errs.ToAggregate(); err != nil {
					said = err.Error()
				}
				if (said != "") != (tc.want != "") || !strings.Contains(said, tc.want) {
					t.Errorf("%s: the answer is %q, want %q", kind, said, tc.want)
				}
				if strings.Contains(said, "hunter2") {
					t.Errorf("%s: the answer %q repeats the secret", kind, said)
				}
			}
		})
	}
}

func at(url string) string { return `{analysis: {prometheus: {url: "` + url + `"}}}` }

// numbers reads an object as the API server does: whole numbers are no floating-point ones.
func numbers(t *testing.T, text string) (out map[string]any) {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := utiljson.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// policyRules are what the API server evaluates about both kinds of policies.
func policyRules(t *testing.T) map[string]*structuralcel.Validator {
	t.Helper()
	out := map[string]*structuralcel.Validator{}
	for _, crd := range crds(t) {
		if !strings.HasSuffix(crd.Spec.Names.Kind, "RolloutPolicy") {
			continue
		}
		out[crd.Spec.Names.Kind] = structuralcel.NewValidator(structural(t, crd), true, celconfig.PerCallLimit)
	}
	if len(out) != 2 {
		t.Fatalf("there are rules of %d kinds, want 2", len(out))
	}
	return out
}
