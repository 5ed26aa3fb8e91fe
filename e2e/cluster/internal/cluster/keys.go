// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"

	"github.com/headgate/headgate/e2e/cluster/internal/config"
	"github.com/headgate/headgate/e2e/cluster/internal/pki"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// client is a user of the API, with the certificate's groups that give it its rights.
type client struct {
	name  string // of the kubeconfig
	user  string
	group string
}

// newKeys makes all keys, certificates and kubeconfigs: content by path below the cluster's folder.
func newKeys(c plan.Cluster) (map[string][]byte, error) {
	ca, err := pki.NewAuthority("headgate-" + c.Name)
	if err != nil {
		return nil, err
	}
	frontProxyCA, err := pki.NewAuthority("front-proxy")
	if err != nil {
		return nil, err
	}
	private, public, err := pki.NewSigningKey()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{
		"pki/ca.crt": ca.Cert, "pki/ca.key": ca.Key,
		"pki/front-proxy-ca.crt": frontProxyCA.Cert,
		"pki/sa.key":             private, "pki/sa.pub": public,
	}
	for _, leaf := range leaves(c, ca, frontProxyCA) {
		pair, err := leaf.issuer.Issue(leaf.subject)
		if err != nil {
			return nil, err
		}
		files["pki/"+leaf.name+".crt"], files["pki/"+leaf.name+".key"] = pair.Cert, pair.Key
	}
	for _, user := range []client{
		{"kubeconfig", "headgate-admin", "system:masters"},
		{"pki/kube-controller-manager.kubeconfig", "system:kube-controller-manager", ""},
		{"pki/kube-scheduler.kubeconfig", "system:kube-scheduler", ""},
		{"pki/kube-proxy.kubeconfig", "system:kube-proxy", ""},
		{"pki/kubelet.kubeconfig", "system:node:" + plan.Node, "system:nodes"},
	} {
		subject := pki.Subject{User: user.user}
		if user.group != "" {
			subject.Groups = []string{user.group}
		}
		pair, err := ca.Issue(subject)
		if err != nil {
			return nil, err
		}
		files[user.name] = config.Kubeconfig(c, ca.Cert, user.user, pair)
	}
	return files, nil
}

type leaf struct {
	name    string
	issuer  *pki.Authority
	subject pki.Subject
}

func leaves(c plan.Cluster, ca, frontProxyCA *pki.Authority) []leaf {
	loopback := netip.MustParseAddr("127.0.0.1")
	return []leaf{
		{"apiserver", ca, pki.Subject{
			User: "kube-apiserver",
			Hosts: []string{
				"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc." + plan.Domain,
			},
			Addresses: []netip.Addr{loopback, c.NodeIP(), netip.MustParseAddr(plan.APIServiceIP)},
		}},
		{"kubelet-serving", ca, pki.Subject{
			User: "system:node:" + plan.Node, Groups: []string{"system:nodes"},
			Hosts: []string{plan.Node}, Addresses: []netip.Addr{loopback, c.NodeIP()},
		}},
		{"apiserver-kubelet-client", ca, pki.Subject{User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}}},
		{"front-proxy-client", frontProxyCA, pki.Subject{User: "front-proxy-client"}},
	}
}
