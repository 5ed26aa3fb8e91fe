// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	structuralcel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	celplugin "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// oldest is the CEL environment of the oldest version of Kubernetes that the chart supports.
var oldest = environment.MustBaseEnvSet(version.MustParseGeneric(KubeVersion))

func crds(t *testing.T) []*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(ChartDir, "crds", "*.yaml"))
	if err != nil || len(files) != 5 {
		t.Fatalf("want 5 definitions, got %v, %v", files, err)
	}
	all := make([]*apiextensionsv1.CustomResourceDefinition, len(files))
	for i, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[i] = &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(b, all[i]); err != nil {
			t.Fatalf("reading %s: %v", file, err)
		}
	}
	return all
}

// TestDefinitionsAreValid asks the API server's own validation, the cost of CEL rules included.
func TestDefinitionsAreValid(t *testing.T) {
	for _, crd := range crds(t) {
		apiextensionsv1.SetDefaults_CustomResourceDefinition(crd)
		apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
		internal := &apiextensions.CustomResourceDefinition{}
		if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(crd, internal, nil); err != nil {
			t.Fatal(err)
		}
		internal.Status.StoredVersions = []string{"v1alpha1"}
		for _, err := range validation.ValidateCustomResourceDefinition(context.Background(), internal) {
			t.Errorf("%s: %v", crd.Name, err)
		}
	}
}

// TestRulesCompileOnTheOldestKubernetes: newer versions have functions that the oldest one has not.
func TestRulesCompileOnTheOldestKubernetes(t *testing.T) {
	compiled := 0
	for _, crd := range crds(t) {
		compiled += compile(t, crd.Name, structural(t, crd))
	}
	if compiled < 6 {
		t.Errorf("compiled %d rules, want at least 6: the test does not see them", compiled)
	}
}

// structural is the schema of a definition's only version, as the API server works with it.
func structural(t *testing.T, crd *apiextensionsv1.CustomResourceDefinition) *structuralschema.Structural {
	t.Helper()
	internal := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, internal, nil); err != nil {
		t.Fatal(err)
	}
	s, err := structuralschema.NewStructural(internal)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func compile(t *testing.T, path string, s *structuralschema.Structural) int {
	t.Helper()
	n := 0
	if len(s.XValidations) > 0 {
		results, err := structuralcel.Compile(s, model.SchemaDeclType(s, false), celconfig.PerCallLimit, oldest, structuralcel.NewExpressionsEnvLoader())
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for i, r := range results {
			n++
			if r.Error != nil {
				t.Errorf("%s: rule %q: %v", path, s.XValidations[i].Rule, r.Error)
			}
		}
	}
	for name, p := range s.Properties {
		n += compile(t, path+"."+name, &p)
	}
	if s.Items != nil {
		n += compile(t, path+"[]", s.Items)
	}
	return n
}

// TestMatchConditions evaluates what the API server asks before it calls a webhook. An error counts as
// "called": with the failure policy Fail it would refuse the request.
func TestMatchConditions(t *testing.T) {
	deployments := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	const controller = "system:serviceaccount:headgate-system:headgate"
	for name, tc := range map[string]struct {
		webhook     string
		resource    schema.GroupVersionResource
		subresource string
		user        string
		manager     string
		old, new    string
		called      bool
	}{
		"a label on a Deployment without any metadata": {
			webhook: "deployments.headgate.dev", resource: deployments,
			old: `{spec: {replicas: 1}, metadata: {name: a}}`, new: `{spec: {replicas: 1}, metadata: {name: a, labels: {x: y}}}`,
		},
		"an annotation on a Deployment that is not held": {
			webhook: "deployments.headgate.dev", resource: deployments,
			old: `{spec: {replicas: 1}, metadata: {annotations: {"headgate.dev/gate": open}}}`,
			new: `{spec: {replicas: 1}, metadata: {annotations: {"headgate.dev/gate": open, x: y}}}`,
		},
		"a new template": {
			webhook: "deployments.headgate.dev", resource: deployments, called: true,
			old: `{spec: {template: {spec: {containers: [{image: a}]}}}, metadata: {name: a}}`,
			new: `{spec: {template: {spec: {containers: [{image: b}]}}}, metadata: {name: a}}`,
		},
		"the pause of a Deployment": {
			webhook: "deployments.headgate.dev", resource: deployments, called: true,
			old: `{spec: {replicas: 1}, metadata: {name: a}}`, new: `{spec: {replicas: 1, paused: true}, metadata: {name: a}}`,
		},
		"a label on a held Deployment": {
			webhook: "deployments.headgate.dev", resource: deployments, called: true,
			old: `{spec: {replicas: 1}, metadata: {annotations: {"headgate.dev/hold": "{}"}}}`,
			new: `{spec: {replicas: 1}, metadata: {annotations: {"headgate.dev/hold": "{}"}, labels: {x: y}}}`,
		},
		"the hold is wiped, with all annotations": {
			webhook: "deployments.headgate.dev", resource: deployments, called: true,
			old: `{spec: {replicas: 1}, metadata: {annotations: {"headgate.dev/hold": "{}"}}}`, new: `{spec: {replicas: 1}, metadata: {name: a}}`,
		},
		"the controller puts on a missing hold": {
			webhook: "deployments.headgate.dev", resource: deployments, called: true,
			old: `{spec: {replicas: 1}, metadata: {name: a}}`, new: `{spec: {replicas: 1}, metadata: {annotations: {"headgate.dev/hold": "{}"}}}`,
		},
		"the controller ends a hold that the webhook could not end": {
			webhook: "deployments.headgate.dev", resource: deployments, user: controller, manager: "headgate-direct",
			old: `{spec: {replicas: 1}, metadata: {annotations: {"headgate.dev/hold": "{}"}}}`, new: `{spec: {replicas: 2}, metadata: {name: a}}`,
		},
		"the controller states its wish": {
			webhook: "deployments.headgate.dev", resource: deployments, user: controller, manager: "headgate", called: true,
			old: `{spec: {replicas: 1}, metadata: {annotations: {"headgate.dev/hold": "{}"}}}`, new: `{spec: {replicas: 2}, metadata: {name: a}}`,
		},
		"a person pretends to be the controller": {
			webhook: "deployments.headgate.dev", resource: deployments, user: "jane", manager: "headgate-direct", called: true,
			old: `{spec: {replicas: 1}, metadata: {annotations: {"headgate.dev/hold": "{}"}}}`, new: `{spec: {replicas: 2}, metadata: {name: a}}`,
		},
		"a pod of a ReplicaSet": {
			webhook: "pods.headgate.dev", resource: pods, called: true,
			new: `{metadata: {ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: a, controller: true}]}}`,
		},
		"a pod without an owner": {webhook: "pods.headgate.dev", resource: pods, new: `{metadata: {name: a}}`},
		"a pod of a Job": {
			webhook: "pods.headgate.dev", resource: pods,
			new: `{metadata: {ownerReferences: [{apiVersion: batch/v1, kind: Job, name: a, controller: true}]}}`,
		},
		"a pod that a ReplicaSet owns, but does not control": {
			webhook: "pods.headgate.dev", resource: pods,
			new: `{metadata: {ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: a}]}}`,
		},
		"a pod of somebody else's kind ReplicaSet": {
			webhook: "pods.headgate.dev", resource: pods,
			new: `{metadata: {ownerReferences: [{apiVersion: example.com/v1, kind: ReplicaSet, name: a, controller: true}]}}`,
		},
		"a status alone": {
			webhook: "status.headgate.dev", resource: deployments, subresource: "status",
			old: `{status: {replicas: 1}, metadata: {annotations: {"headgate.dev/hold": "{}"}}}`,
			new: `{status: {replicas: 2}, metadata: {annotations: {"headgate.dev/hold": "{}"}}}`,
		},
		"a status without any annotations": {
			webhook: "status.headgate.dev", resource: deployments, subresource: "status",
			old: `{status: {replicas: 1}, metadata: {name: a}}`, new: `{status: {replicas: 2}, metadata: {name: a}}`,
		},
		"a hold wiped together with the status": {
			webhook: "status.headgate.dev", resource: deployments, subresource: "status", called: true,
			old: `{metadata: {annotations: {"headgate.dev/hold": "{}"}}}`, new: `{metadata: {name: a}}`,
		},
		"a gate opened together with the status": {
			webhook: "status.headgate.dev", resource: deployments, subresource: "status", called: true,
			old: `{metadata: {annotations: {"headgate.dev/gate": closed}}}`, new: `{metadata: {annotations: {"headgate.dev/gate": open}}}`,
		},
		"a person scales": {
			webhook: "scale.headgate.dev", resource: deployments, subresource: "scale", user: "jane",
			old: `{spec: {replicas: 2}}`, new: `{spec: {replicas: 1}}`,
		},
		"the autoscaler scales": {
			webhook: "scale.headgate.dev", resource: deployments, subresource: "scale", called: true,
			user: "system:serviceaccount:kube-system:horizontal-pod-autoscaler",
			old:  `{spec: {replicas: 2}}`, new: `{spec: {replicas: 1}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			attributes := admission.NewAttributesRecord(object(t, tc.new), object(t, tc.old), schema.GroupVersionKind{}, "shop", "a",
				tc.resource, tc.subresource, admission.Update, &metav1.UpdateOptions{FieldManager: tc.manager}, false, &user.DefaultInfo{Name: tc.user})
			versioned := &admission.VersionedAttributes{
				Attributes:         attributes,
				VersionedOldObject: admission.NewLazyObject(object(t, tc.old)),
				VersionedObject:    admission.NewLazyObject(object(t, tc.new)),
			}
			got := matcher(t, tc.webhook).Match(context.Background(), versioned, nil, nil)
			if got.Error != nil {
				t.Fatal(got.Error)
			}
			if got.Matches != tc.called {
				t.Errorf("called: %t, want %t", got.Matches, tc.called)
			}
		})
	}
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// matcher is what the API server makes of the conditions of one webhook.
func matcher(t *testing.T, name string) matchconditions.Matcher {
	t.Helper()
	r, err := Render(readInput(t, filepath.Join(ChartDir, "testdata", "default.in.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range r.Objects {
		if u.GetKind() != "MutatingWebhookConfiguration" {
			continue
		}
		for _, w := range typed(t, r, i).(*admissionregistrationv1.MutatingWebhookConfiguration).Webhooks {
			if w.Name != name {
				continue
			}
			expressions := make([]celplugin.ExpressionAccessor, len(w.MatchConditions))
			for i, c := range w.MatchConditions {
				m := matchconditions.MatchCondition(c)
				expressions[i] = &m
			}
			evaluator := celplugin.NewConditionCompiler(oldest).CompileCondition(expressions,
				celplugin.OptionalVariableDeclarations{HasAuthorizer: true}, environment.NewExpressions)
			if errs := evaluator.CompilationErrors(); len(errs) > 0 {
				t.Fatal(errs)
			}
			fail := admissionregistrationv1.Fail
			return matchconditions.NewMatcher(evaluator, &fail, "webhook", "admit", name)
		}
	}
	t.Fatalf("there is no webhook %s", name)
	return nil
}
