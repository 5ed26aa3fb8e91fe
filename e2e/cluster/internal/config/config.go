// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package config renders what the parts of a cluster are told: their configuration
// files, kubeconfigs and command lines. Each setting that differs from the
// default says why beside it.
package config

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"text/template"

	"github.com/headgate/headgate/e2e/cluster/internal/pki"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

//go:embed templates
var templates embed.FS

// Images that the cluster itself needs. They are built here and never pulled.
const (
	PauseImage   = "ghcr.io/headgate/pause:local"
	CoreDNSImage = "ghcr.io/headgate/coredns:local"
	// MetricsServerImage is needed only where metrics are asked for.
	MetricsServerImage = "ghcr.io/headgate/metrics-server:local"
)

// ProxyFile is kube-proxy's, which ends when it is written.
const ProxyFile = "kube-proxy.yaml"

// Manifests that are applied once the API server answers.
const (
	AddonsManifest        = "addons.yaml"
	MetricsServerManifest = "metrics-server.yaml"
)

// files maps each template to the file, below the cluster's folder, that it becomes.
var files = map[string]string{
	"containerd.toml":     "containerd.toml",
	"hosts.toml":          "registries/_default/hosts.toml",
	"cni.conflist":        "cni/10-headgate.conflist",
	"kubelet.yaml":        "kubelet.yaml",
	"kube-proxy.yaml":     ProxyFile,
	"addons.yaml":         AddonsManifest,
	"metrics-server.yaml": MetricsServerManifest,
	"resolv.client.conf":  "resolv.client.conf",
}

// values is what the templates may name.
type values struct {
	Dir, Socket, Cgroup, CNINetwork, CNIPlugins string
	Node, PodCIDR, DNSServiceIP, Domain         string
	PauseImage, CoreDNSImage                    string
	MetricsServerImage                          string
	// Kubernetes is the minor version, where settings differ.
	Kubernetes string
}

// Files renders all configuration files: content by path below the cluster's folder.
// CNI plugins are programs in the folder cniPlugins.
func Files(c plan.Cluster, cniPlugins string) (map[string][]byte, error) {
	parsed, err := template.New("").Option("missingkey=error").ParseFS(templates, "templates/*")
	if err != nil {
		return nil, fmt.Errorf("parsing the templates: %w", err)
	}
	v := values{
		Dir: c.Dir(), Socket: c.ContainerdSocket(), Cgroup: c.Cgroup(), CNINetwork: c.CNINetwork(), CNIPlugins: cniPlugins,
		Node: plan.Node, PodCIDR: plan.PodCIDR, DNSServiceIP: plan.DNSServiceIP, Domain: plan.Domain,
		PauseImage: PauseImage, CoreDNSImage: CoreDNSImage, MetricsServerImage: MetricsServerImage,
		Kubernetes: c.Kubernetes,
	}
	// An empty resolver file: pods with the machine's DNS settings have none.
	rendered := map[string][]byte{"resolv.conf": nil}
	for name, path := range files {
		var out bytes.Buffer
		if err := parsed.ExecuteTemplate(&out, name, v); err != nil {
			return nil, fmt.Errorf("rendering %s: %w", name, err)
		}
		rendered[path] = out.Bytes()
	}
	return rendered, nil
}

// Kubeconfig renders the file by which a client with this certificate reaches the cluster. It
// holds everything itself, so that it can be copied.
func Kubeconfig(c plan.Cluster, ca []byte, user string, pair pki.Pair) []byte {
	encode := base64.StdEncoding.EncodeToString
	context := "headgate-" + c.Name
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[4]s
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[4]s}
current-context: %[1]s
`, context, c.APIServer(), encode(ca), user, encode(pair.Cert), encode(pair.Key))
}
