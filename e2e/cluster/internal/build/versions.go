// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package build

import "time"

// Versions of what is built or fetched. That of Kubernetes is also said by the module in
// the folder kubernetes, which a test compares.
const (
	KubernetesVersion = "v1.36.3"
	coreDNSVersion    = "v1.14.7"
	helmVersion       = "v4.3.1"
	metricsVersion    = "v0.9.0"
	envoyVersion      = "1.40.0"
)

// program is something that is compiled once and then kept.
type program struct {
	name    string
	version string
	// cold is how long it takes on two cores with an empty build cache.
	cold time.Duration
	// module is the folder, below e2e/cluster, of the module whose main package it is...
	module string
	// ...or install is the package that `go install` gets at the version.
	install string
	// versionVariables are set to the version by the linker.
	versionVariables []string
	// links are other names by which the program is put into the cache.
	links []string
}

// programs in the order in which they are built. Every cluster needs the first two; Helm is what
// tests and demonstrations use, metrics-server what a HorizontalPodAutoscaler needs.
var programs = []program{
	{
		name: "kubernetes", version: KubernetesVersion, cold: 7 * time.Minute, module: "kubernetes",
		versionVariables: []string{"k8s.io/component-base/version.gitVersion"},
		links:            []string{"kubectl"},
	},
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
