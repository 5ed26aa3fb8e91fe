// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	structuralcel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// TestRulesOfPolicies evaluates rules of the definitions without a cluster. All of them are asked of a real API server
// in api/v1alpha1; here are those whose answer must not give away what was written.
func TestRulesOfPolicies(t *testing.T) {
	const secret = "put credentials into a Secret and name it in secretRef"
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
	} {
		t.Run(name, func(t *testing.T) {
			for kind, rules := range policyRules(t) {
				object := object(t, `{spec: `+tc.spec+`}`).Object
				errs, _ := rules.Validate(context.Background(), field.NewPath(""), nil, object, nil, celconfig.RuntimeCELCostBudget)
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

// policyRules are what the API server evaluates about both kinds of policies.
func policyRules(t *testing.T) map[string]*structuralcel.Validator {
	t.Helper()
	out := map[string]*structuralcel.Validator{}
	for _, crd := range crds(t) {
		if !strings.HasSuffix(crd.Spec.Names.Kind, "RolloutPolicy") {
			continue
		}
		internal := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, internal, nil); err != nil {
			t.Fatal(err)
		}
		s, err := structuralschema.NewStructural(internal)
		if err != nil {
			t.Fatal(err)
		}
		out[crd.Spec.Names.Kind] = structuralcel.NewValidator(s, true, celconfig.PerCallLimit)
	}
	if len(out) != 2 {
		t.Fatalf("there are rules of %d kinds, want 2", len(out))
	}
	return out
}
