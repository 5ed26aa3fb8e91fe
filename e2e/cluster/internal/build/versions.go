// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Versions of what is built or fetched.
const (
	coreDNSVersion = "v1.14.7"
	helmVersion    = "v4.3.1"
	metricsVersion = "v0.9.0"
	envoyVersion   = "1.40.0"
)

// DefaultKubernetes is the minor version that clusters run unless another is asked for.
const DefaultKubernetes = "1.36"

// kubernetesVersions are those that clusters can run, by minor version: the default, the oldest that Headgate
// supports, and one in between. The modules in the folder kubernetes say them too, which a test compares.
var kubernetesVersions = map[string]string{
	"1.30":            "v1.30.14",
	"1.34":            "v1.34.4",
	DefaultKubernetes: "v1.36.3",
}

// KubernetesVersions lists the minor versions of Kubernetes that can be built.
func KubernetesVersions() []string {
	return slices.Sorted(maps.Keys(kubernetesVersions))
}

// kubernetes is all of Kubernetes in one program, of a minor version.
func kubernetes(minor string) (program, error) {
	version, known := kubernetesVersions[minor]
	if !known {
		return program{}, fmt.Errorf("unknown version %q of Kubernetes, want one of %s", minor, strings.Join(KubernetesVersions(), ", "))
	}
	p := program{
		name: "kubernetes", version: version, cold: 7 * time.Minute, module: "kubernetes",
		versionVariables: []string{"k8s.io/component-base/version.gitVersion"},
		links:            []string{filepath.Join(minor, "kubectl")},
	}
	if minor == DefaultKubernetes {
		p.links = append(p.links, "kubectl")
	} else {
		p.modfile = filepath.Join("versions", minor+".mod")
	}
	return p, nil
}

// program is something that is compiled once and then kept.
type program struct {
	name    string
	version string
	// cold is how long it takes on two cores with an empty build cache.
	cold time.Duration
	// module is the folder, below e2e/cluster, of the module whose main package it is...
	module string
	// modfile, below that folder, stands for its go.mod; empty: its go.mod does.
	modfile string
	// ...or install is the package that `go install` gets at the version.
	install string
	// versionVariables are set to the version by the linker.
	versionVariables []string
	// links are other names by which the program is put into the cache.
	links []string
}

// programs beside Kubernetes, in the order in which they are built. Every cluster needs the first; Helm is
// what tests and demonstrations use, metrics-server what a HorizontalPodAutoscaler needs.
var programs = []program{
	{
		name: "coredns", version: coreDNSVersion, cold: 150 * time.Second,
		install: "github.com/coredns/coredns",
	},
	{
		name: "helm", version: helmVersion, cold: 150 * time.Second,
		install:          "helm.sh/helm/v4/cmd/helm",
		versionVariables: []string{"helm.sh/helm/v4/internal/version.version"},
		links:            []string{"helm"},
	},
	{
		name: "metrics-server", version: metricsVersion, cold: 150 * time.Second,
		install:          "sigs.k8s.io/metrics-server/cmd/metrics-server",
		versionVariables: []string{"k8s.io/client-go/pkg/version.gitVersion"},
	},
}
