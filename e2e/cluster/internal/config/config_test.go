// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/e2e/cluster/internal/pki"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

func TestFilesAreWellFormedAndStayInTheFolder(t *testing.T) {
	for _, version := range []string{"1.30", "1.36"} {
		t.Run(version, func(t *testing.T) { requireWellFormed(t, plan.Cluster{Name: "test", Slot: 7, Kubernetes: version}) })
	}
}

func requireWellFormed(t *testing.T, c plan.Cluster) {
	t.Helper()
	files, err := Files(c, "/usr/lib/cni")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 7 {
		t.Errorf("got %d files", len(files))
	}
	writable := regexp.MustCompile(`/(var|run|etc)/[^\s"',]*`)
	for path, content := range files {
		if bytes.Contains(content, []byte("<no value>")) || bytes.Contains(content, []byte("{{")) {
			t.Errorf("%s isn't rendered:\n%s", path, content)
		}
		switch {
		case strings.HasSuffix(path, ".yaml"):
			for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
				var object struct{ Kind string }
				if err := yaml.Unmarshal(document, &object); err != nil || object.Kind == "" {
					t.Errorf("%s: kind %q, %v", path, object.Kind, err)
				}
			}
		case strings.HasSuffix(path, ".conflist"):
			if !json.Valid(content) {
				t.Errorf("%s isn't JSON:\n%s", path, content)
			}
		}
		if path == AddonsManifest || path == MetricsServerManifest { // their paths are those in a pod
			continue
		}
		for _, found := range writable.FindAllString(string(content), -1) {
			if !strings.HasPrefix(found, c.Dir()) {
				t.Errorf("%s names %s, outside of %s", path, found, c.Dir())
			}
		}
	}
}

func TestTwoClustersShareNoPath(t *testing.T) {
	a, b := plan.Cluster{Name: "a", Slot: 1}, plan.Cluster{Name: "ab", Slot: 2}
	for i, component := range Components(a, "kubernetes") {
		other := Components(b, "kubernetes")[i]
		for _, arg := range component.Args {
			if strings.Contains(arg, plan.Home) && strings.Contains(strings.Join(other.Args, " "), arg) {
				t.Errorf("both have %s of %s", arg, component.Name)
			}
			if strings.Contains(arg, plan.Home) && !strings.Contains(arg, a.Dir()+"/") {
				t.Errorf("%s of %s isn't in the cluster's folder", arg, component.Name)
			}
		}
	}
}

func TestKubeconfig(t *testing.T) {
	c := plan.Cluster{Name: "test"}
	content := Kubeconfig(c, []byte("ca"), "admin", pki.Pair{Cert: []byte("cert"), Key: []byte("key")})
	var parsed struct {
		CurrentContext string `json:"current-context"`
		Clusters       []struct {
			Name    string
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(content, &parsed); err != nil {
		t.Fatal(err)
	}
	if parsed.CurrentContext != "headgate-test" || parsed.Clusters[0].Cluster.Server != c.APIServer() ||
		string(parsed.Clusters[0].Cluster.CA) != "ca" || string(parsed.Users[0].User.Cert) != "cert" || string(parsed.Users[0].User.Key) != "key" {
		t.Errorf("got %+v", parsed)
	}
}
