// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	psaapi "k8s.io/pod-security-admission/api"
	psapolicy "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// renderings are those of all inputs, by name.
func renderings(t *testing.T) map[string]*Rendered {
	t.Helper()
	inputs, err := filepath.Glob(filepath.Join(ChartDir, "testdata", "*.in.yaml"))
	if err != nil || len(inputs) == 0 {
		t.Fatalf("inputs: %v, %v", inputs, err)
	}
	all := map[string]*Rendered{}
	for _, in := range inputs {
		r, err := Render(readInput(t, in))
		if err != nil {
			t.Fatalf("rendering %s: %v", in, err)
		}
		all[strings.TrimSuffix(filepath.Base(in), ".in.yaml")] = r
	}
	return all
}

// scheme has the kinds of Kubernetes, and those of others that the chart makes objects of.
var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(clientscheme.AddToScheme(s))
	utilruntime.Must(certmanagerv1.AddToScheme(s))
	utilruntime.Must(monitoringv1.AddToScheme(s))
	return s
}()

// typed decodes an object strictly into its Go type: a misspelt field is an error. Kinds that are not in scheme,
// Headgate's own, yield nil.
func typed(t *testing.T, r *Rendered, i int) runtime.Object {
	t.Helper()
	u := r.Objects[i]
	if !scheme.Recognizes(u.GroupVersionKind()) {
		return nil
	}
	b, err := u.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	obj, _, err := codecs.UniversalDeserializer().Decode(b, nil, nil)
	if err != nil {
		t.Fatalf("%s: %v", Key(u), err)
	}
	return obj
}

// TestLint asks helm lint, with a warning as an error.
func TestLint(t *testing.T) {
	linter := lint.RunAll(ChartDir, map[string]any{"prometheus": map[string]any{"enabled": true}}, "headgate-system")
	for _, m := range linter.Messages {
		if m.Severity >= support.WarningSev {
			t.Error(m)
		}
	}
	if linter.HighestSeverity == support.UnknownSev {
		t.Error("helm lint looked at nothing")
	}
}

func TestObjectsHaveOnlyFieldsThatExist(t *testing.T) {
	own := sets.New("ClusterRolloutPolicy", "CustomResourceDefinition")
	for name, r := range renderings(t) {
		for i, u := range r.Objects {
			if typed(t, r, i) == nil && !own.Has(u.GetKind()) {
				t.Errorf("%s: %s is of an unknown kind", name, Key(u))
			}
		}
	}
}

// TestPodsPassRestricted asks the code behind Pod Security admission.
func TestPodsPassRestricted(t *testing.T) {
	evaluator, err := psapolicy.NewEvaluator(psapolicy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.LatestVersion()}
	pods := 0
	for name, r := range renderings(t) {
		for i, u := range r.Objects {
			template := podTemplate(typed(t, r, i))
			if template == nil {
				continue
			}
			pods++
			res := psapolicy.AggregateCheckResults(evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec))
			if !res.Allowed {
				t.Errorf("%s: %s: %s", name, Key(u), res.ForbiddenDetail())
			}
			for _, c := range template.Spec.Containers {
				if s := c.SecurityContext; s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
					t.Errorf("%s: %s: container %s may write its root file system", name, Key(u), c.Name)
				}
				if c.Resources.Requests.Memory().IsZero() && name == "default" {
					t.Errorf("%s: %s: container %s requests no memory", name, Key(u), c.Name)
				}
			}
		}
	}
	if pods < 10 {
		t.Errorf("saw %d pod templates, want at least 10", pods)
	}
}

func podTemplate(o runtime.Object) *corev1.PodTemplateSpec {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	}
	return nil
}

// TestRights: no wildcards, nothing dangerous, and what was decided about the most powerful ones.
func TestRights(t *testing.T) {
	for name, r := range renderings(t) {
		for i, u := range r.Objects {
			for _, rule := range rules(typed(t, r, i)) {
				where := name + ": " + Key(u)
				if slices.Contains(slices.Concat(rule.Verbs, rule.Resources, rule.APIGroups), "*") {
					t.Errorf("%s has a wildcard: %v", where, rule)
				}
				if slices.ContainsFunc(rule.Verbs, func(v string) bool { return v == "escalate" || v == "bind" || v == "impersonate" }) {
					t.Errorf("%s may make itself more powerful: %v", where, rule)
				}
				if u.GetKind() == "ClusterRole" && slices.Contains(rule.Resources, "secrets") {
					t.Errorf("%s reads Secrets of all namespaces: %v", where, rule)
				}
				writes := slices.ContainsFunc(rule.Verbs, func(v string) bool { return v == "update" || v == "patch" || v == "delete" || v == "create" })
				for _, resource := range []string{"secrets", "mutatingwebhookconfigurations"} {
					if writes && slices.Contains(rule.Resources, resource) && len(rule.ResourceNames) == 0 {
						t.Errorf("%s writes %s of any name: %v", where, resource, rule)
					}
				}
			}
		}
	}
}

func rules(o runtime.Object) []rbacv1.PolicyRule {
	switch o := o.(type) {
	case *rbacv1.ClusterRole:
		return o.Rules
	case *rbacv1.Role:
		return o.Rules
	}
	return nil
}

// TestEveryRightHasItsReason: in the templates a comment stands above every rule, or above the role when
// it has only one.
func TestEveryRightHasItsReason(t *testing.T) {
	for _, file := range []string{"rbac.yaml", "uninstall-hook.yaml"} {
		b, err := os.ReadFile(filepath.Join(ChartDir, "templates", file))
		if err != nil {
			t.Fatal(err)
		}
		aboveRole, above, role, seen := "", "", "", 0
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			switch {
			case line == "---":
				aboveRole = ""
			case strings.HasPrefix(line, "apiVersion:"):
				aboveRole = above
			case strings.HasPrefix(line, "name:"):
				role = line
			case strings.HasPrefix(line, "- apiGroups:"):
				seen++
				reason := strings.HasPrefix(above, "#") || above == "rules:" && strings.HasPrefix(aboveRole, "#")
				if !reason {
					t.Errorf("%s, %s: a right without its reason: %s", file, role, line)
				}
			}
			above = line
		}
		if seen == 0 {
			t.Errorf("%s has no rights; the test looks at the wrong file", file)
		}
	}
}

// TestValuesAreDocumented: a comment stands above every value, and the schema knows exactly these values.
func TestValuesAreDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(ChartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	for i, line := range lines {
		text := strings.TrimSpace(line)
		if text == "" || strings.HasPrefix(text, "#") || strings.HasPrefix(text, "- ") {
			continue
		}
		section := strings.HasSuffix(text, ":")
		above := strings.TrimSpace(lines[i-1])
		if !section && !strings.HasPrefix(above, "#") && !strings.HasSuffix(above, "resources:") && !strings.HasPrefix(above, "requests:") {
			t.Errorf("values.yaml:%d: %q has no comment above it", i+1, text)
		}
	}

	var values map[string]any
	if err := yaml.UnmarshalStrict(b, &values); err != nil {
		t.Fatal(err)
	}
	s, err := os.ReadFile(filepath.Join(ChartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := yaml.UnmarshalStrict(s, &schema); err != nil {
		t.Fatal(err)
	}
	sameKeys(t, "values", values, schema["properties"].(map[string]any), schema["$defs"].(map[string]any))
}

func sameKeys(t *testing.T, path string, values, properties, defs map[string]any) {
	t.Helper()
	for key := range properties {
		_, ok := values[key]
		optional := key == "global" || strings.HasSuffix(path, "resources") || strings.HasSuffix(path, "issuerRef")
		if !ok && !optional {
			t.Errorf("the schema allows %s.%s, which values.yaml does not name", path, key)
		}
	}
	for key, value := range values {
		property, ok := properties[key].(map[string]any)
		if !ok {
			t.Errorf("values.yaml names %s.%s, which the schema does not know", path, key)
			continue
		}
		if ref, ok := property["$ref"].(string); ok {
			property = defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		}
		if m, ok := value.(map[string]any); ok && property["properties"] != nil {
			sameKeys(t, path+"."+key, m, property["properties"].(map[string]any), defs)
		}
	}
}
