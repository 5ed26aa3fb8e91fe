// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	_ "embed" // the definition
	"fmt"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	structuralcel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// definition is that of RolloutPolicy, as the chart installs it; that of ClusterRolloutPolicy has the same rules.
//
//go:embed headgate.dev_rolloutpolicies.yaml
var definition []byte

// refused is what the API server would say about a policy: its form, lists with the same name twice, rules. The error says
// that the definition itself can't be used.
func refused(object map[string]any) ([]string, error) {
	schema, err := schemaOf(definition)
	if err != nil {
		return nil, err
	}
	structural, err := structuralschema.NewStructural(schema)
	if err != nil {
		return nil, fmt.Errorf("reading the definition of policies: %w", err)
	}
	validator, _, err := validation.NewSchemaValidator(schema)
	if err != nil {
		return nil, fmt.Errorf("reading the definition of policies: %w", err)
	}
	found := validation.ValidateCustomResource(nil, object, validator)
	found = append(found, listtype.ValidateListSetsAndMaps(nil, structural, object)...)
	rules := structuralcel.NewValidator(structural, true, celconfig.PerCallLimit)
	broken, _ := rules.Validate(context.Background(), nil, structural, object, nil, celconfig.RuntimeCELCostBudget)
	for _, rule := range broken {
		if !concernsAny(rule, found) {
			found = append(found, rule)
		}
	}
	out := make([]string, len(found))
	for i, e := range found {
		out[i] = said(e)
	}
	return out, nil
}

// schemaOf is that of a definition's only version.
func schemaOf(definition []byte) (*apiextensions.JSONSchemaProps, error) {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(definition, &crd); err != nil {
		return nil, fmt.Errorf("reading the definition of policies: %w", err)
	}
	out := &apiextensions.JSONSchemaProps{}
	in := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(in, out, nil); err != nil {
		return nil, fmt.Errorf("reading the definition of policies: %w", err)
	}
	return out, nil
}

// concernsAny says that a rule is about a value in which something was found already: what the rule says of it is no more than
// that it can't be evaluated, or follows from that.
func concernsAny(rule *field.Error, found field.ErrorList) bool {
	for _, e := range found {
		if e.Field == rule.Field || strings.HasPrefix(e.Field, rule.Field+".") || strings.HasPrefix(e.Field, rule.Field+"[") {
			return true
		}
	}
	return false
}

// said is a mistake in one line: the field, its value, and what to do. The API server's words are kept where they say that.
func said(e *field.Error) string {
	inWords := *e
	inWords.Detail = strings.TrimPrefix(e.Detail, e.Field+" in body ")
	if pattern, is := strings.CutPrefix(inWords.Detail, "should match '"); is {
		if words, ok := expected[strings.TrimSuffix(pattern, "'")]; ok {
			inWords.Detail = "expected " + words
		}
	}
	return strings.ReplaceAll(inWords.Error(), "\n", " ")
}

// expected says in words what the patterns of the definition mean.
var expected = map[string]string{
	`^([0-9]{1,5}(h|m|s)){1,3}$`:             "hours, minutes and whole seconds of up to five digits, like 1h30m or 90s",
	`^([1-9][0-9]?|100)%$`:                   "a number of pods without quotes, or a percentage from 1% to 100%",
	`^[0-9]{1,2}(\.[0-9]{1,6})?$`:            "a percentage above 0 and below 100, in quotes, like \"99.9\"",
	`^[0-9]{1,15}(\.[0-9]{1,9})?$`:           "a decimal number that is not negative, in quotes, like \"1.25\"",
	`^-?[0-9]{1,15}(\.[0-9]{1,9})?$`:         "a decimal number in quotes, like \"0.98\"",
	`^https?://[^ ]+$`:                       "an address like http://prometheus.monitoring:9090",
	`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`:   "a name of lower-case letters, digits and dashes, 63 at most",
	`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`: "the name of a Secret, without its namespace",
	`^[a-z][a-zA-Z0-9]{0,30}$`:               "the name of a template's argument: letters and digits, 31 at most, the first one in lower case",
	"^[^\"'{}\\\\\\x60\\x00-\\x1f]*$":        "a value without quotes, braces, backslashes and line breaks",
}
