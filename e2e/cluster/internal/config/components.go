// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"

	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// Component is one long-running program of a cluster.
type Component struct {
	Name string
	// Args is the command line, the program first.
	Args []string
}

// The components, by the names that logs, status and restart use.
const (
	Etcd              = "etcd"
	Containerd        = "containerd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
	Proxy             = "kube-proxy"
)

// Components lists the programs in the order in which they are started. The path is that
// of the binary which is all of Kubernetes.
func Components(c plan.Cluster, kubernetes string) []Component {
	pki := func(name string) string { return c.Path("pki", name) }
	return []Component{
		{Etcd, append([]string{kubernetes, Etcd}, etcdArgs(c)...)},
		{Containerd, []string{"containerd", "--config", c.Path("containerd.toml"), "--log-level", "warn"}},
		{APIServer, append([]string{kubernetes, APIServer}, apiServerArgs(c, pki)...)},
		{ControllerManager, append([]string{kubernetes, ControllerManager}, controllerManagerArgs(pki)...)},
		{Scheduler, []string{
			kubernetes, Scheduler,
			"--kubeconfig=" + pki("kube-scheduler.kubeconfig"),
			"--bind-address=127.0.0.1",
			"--leader-elect=false",
			"--kube-api-qps=100", "--kube-api-burst=200",
		}},
		{Kubelet, []string{
			kubernetes, Kubelet,
			"--config=" + c.Path("kubelet.yaml"),
			"--kubeconfig=" + pki("kubelet.kubeconfig"),
			"--root-dir=" + c.Path("kubelet"),
			"--cert-dir=" + c.Path("kubelet", "pki"),
			"--hostname-override=" + plan.Node,
			"--node-ip=" + c.NodeIP().String(),
		}},
		{Proxy, []string{kubernetes, Proxy, "--config=" + c.Path("kube-proxy.yaml")}},
	}
}

func etcdArgs(c plan.Cluster) []string {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return []string{
		"--name=" + plan.Node,
		"--data-dir=" + c.Path("etcd"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=" + plan.Node + "=" + peer,
		// The data needn't survive the machine.
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func apiServerArgs(c plan.Cluster, pki func(string) string) []string {
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0",
		fmt.Sprintf("--secure-port=%d", plan.APIPort),
		"--advertise-address=" + c.NodeIP().String(),
		"--service-cluster-ip-range=" + plan.ServiceCIDR,
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc." + plan.Domain,
		"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--kubelet-certificate-authority=" + pki("ca.crt"),
		"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		// Aggregated APIs, such as that of metrics-server.
		"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + pki("front-proxy-client.key"),
		"--profiling=false",
	}
}

func controllerManagerArgs(pki func(string) string) []string {
	kubeconfig := pki("kube-controller-manager.kubeconfig")
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"),
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		// Each controller is a user of its own, as on real clusters: admission sees
		// who scales and who creates.
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + pki("sa.key"),
		"--root-ca-file=" + pki("ca.crt"),
		"--cluster-signing-cert-file=" + pki("ca.crt"), "--cluster-signing-key-file=" + pki("ca.key"),
		"--service-cluster-ip-range=" + plan.ServiceCIDR,
		"--kube-api-qps=100", "--kube-api-burst=200",
		"--profiling=false",
	}
}
