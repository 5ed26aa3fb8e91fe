// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden compares what each input renders to with the file next to it.
func TestGolden(t *testing.T) {
	base, err := Render(readInput(t, filepath.Join(ChartDir, "testdata", "default.in.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := filepath.Glob(filepath.Join(ChartDir, "testdata", "*.in.yaml"))
	if err != nil || len(inputs) < 2 {
		t.Fatalf("inputs: %v, %v", inputs, err)
	}
	known := map[string]bool{}
	for _, in := range inputs {
		name := strings.TrimSuffix(filepath.Base(in), ".in.yaml")
		out := strings.TrimSuffix(in, ".in.yaml") + ".out.yaml"
		known[out] = true
		t.Run(name, func(t *testing.T) {
			r, err := Render(readInput(t, in))
			if err != nil {
				t.Fatal(err)
			}
			if name == "default" {
				compare(t, out, difference(t, &Rendered{}, r))
				return
			}
			compare(t, out, difference(t, base, r))
		})
	}
	outputs, err := filepath.Glob(filepath.Join(ChartDir, "testdata", "*.out.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range outputs {
		if !known[out] {
			t.Errorf("%s belongs to no input; remove it", out)
		}
	}
}

func readInput(t *testing.T, path string) Rendering {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := Rendering{Upgrade: directive(string(b), "upgrade") == "true"}
	if v := directive(string(b), "api-versions"); v != "" {
		r.APIVersions = strings.Split(v, " ")
	}
	if err := yaml.UnmarshalStrict(b, &r.Values); err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
	return r
}

// difference prints the objects of r that base has not, or has otherwise, names those that r lacks, and
// ends with the notes.
func difference(t *testing.T, base, r *Rendered) string {
	t.Helper()
	var s strings.Builder
	for _, o := range base.Objects {
		if r.Find(Key(o)) == nil {
			fmt.Fprintf(&s, "# not there: %s\n", Key(o))
		}
	}
	for _, o := range r.Objects {
		if old := base.Find(Key(o)); old != nil && reflect.DeepEqual(old.Object, o.Object) {
			continue
		}
		if o.GetKind() == "CustomResourceDefinition" {
			// Its content is generated, and compared by make verify.
			fmt.Fprintf(&s, "# there too: %s\n", Key(o))
			continue
		}
		b, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		s.WriteString("---\n")
		s.Write(b)
	}
	if r.Notes != base.Notes {
		s.WriteString("---\n# Notes:\n")
		for line := range strings.Lines(strings.TrimSpace(r.Notes) + "\n") {
			s.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
		}
	}
	return s.String()
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got); if that is meant: go test . -update\n%s", path, d)
	}
}

// TestRefused renders values that can't work; the message says what to do instead.
func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		values string
		want   string
	}{
		"no Prometheus at all":              {`{}`, "--set prometheus.enabled=true installs a small one"},
		"two Prometheuses":                  {`{prometheus: {enabled: true, url: "http://p:9090"}}`, "are both set"},
		"a misspelt value":                  {`{prometheus: {enabeld: true}}`, "'enabeld' not allowed"},
		"an address without scheme":         {`{prometheus: {url: "p:9090"}}`, "/prometheus/url"},
		"a password in the address":         {`{prometheus: {url: "https://u:p@p:9090"}}`, "/prometheus/url"},
		"a log level that does not exist":   {`{prometheus: {enabled: true}, log: {level: loud}}`, "'info', 'debug'"},
		"a webhook that is waited for long": {`{prometheus: {enabled: true}, webhooks: {timeoutSeconds: 31}}`, "/webhooks/timeoutSeconds"},
		"a Pod Security level of nobody":    {`{prometheus: {enabled: true}, webhooks: {podSecurityDefault: strict}}`, "'privileged', 'baseline', 'restricted'"},
		"a user name that ends the quote":   {`{prometheus: {enabled: true}, webhooks: {autoscalers: ["a'b"]}}`, "/webhooks/autoscalers"},
		"a Secret for the small Prometheus": {`{prometheus: {enabled: true, secret: s}}`, "leave prometheus.secret out"},
		"a Secret's right without a name":   {`{prometheus: {enabled: true}, rbac: {prometheusSecrets: [{namespace: shop}]}}`, "/rbac/prometheusSecrets/0"},
		"a tag that is a digest":            {`{prometheus: {enabled: true}, image: {tag: "sha256:abc"}}`, "/image/tag"},
	} {
		t.Run(name, func(t *testing.T) {
			var r Rendering
			if err := yaml.Unmarshal([]byte(tc.values), &r.Values); err != nil {
				t.Fatal(err)
			}
			_, err := Render(r)
			if err == nil {
				t.Fatal("rendered, want an error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
		})
	}
}
