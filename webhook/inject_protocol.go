// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

// portProtocol is what the Services that lead to a container port say about it.
func portProtocol(port v1alpha1.CapturedPort, services []corev1.Service) v1alpha1.PortProtocol {
	var said []v1alpha1.PortProtocol
	for i := range services {
		for _, sp := range services[i].Spec.Ports {
			if LeadsTo(sp, port) {
				said = append(said, servicePortProtocol(sp))
			}
		}
	}
	return agreed(said)
}

// agreed is what all say about a port. Without a Service, or where they don't agree or say nothing, the port is
// sniffed: that is right for every protocol whose client speaks first and at once. Only where all name a
// protocol is it not, so that one whose server speaks first is not delayed, and an HTTP client that opens
// connections ahead of its requests is split all the same (ENVOY.md §1: the sniffing ends after 2 s).
func agreed(said []v1alpha1.PortProtocol) v1alpha1.PortProtocol {
	all := slices.Compact(slices.Sorted(slices.Values(said)))
	if len(all) != 1 {
		return v1alpha1.ProtocolAuto
	}
	return all[0]
}

// LeadsTo tells whether a Service port delivers to a captured port, which are TCP all.
func LeadsTo(sp corev1.ServicePort, port v1alpha1.CapturedPort) bool {
	return cmp.Or(sp.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP && Targets(sp, port.Port, port.Names...)
}

// Targets tells whether a Service port's targetPort numbers a container port, or names it by one of its names; an unset
// targetPort is the Service's own port. The protocol is not looked at.
func Targets(sp corev1.ServicePort, number int32, names ...string) bool {
	switch {
	case sp.TargetPort.Type == intstr.String:
		return slices.Contains(names, sp.TargetPort.StrVal)
	case sp.TargetPort.IntVal == 0:
		return sp.Port == number
	default:
		return sp.TargetPort.IntVal == number
	}
}

// servicePortProtocol is how the traffic of a Service port is handled: its appProtocol decides, else
// the convention that a port's name is a protocol, alone or followed by a dash and anything.
func servicePortProtocol(sp corev1.ServicePort) v1alpha1.PortProtocol {
	protocol, _, _ := strings.Cut(sp.Name, "-")
	if sp.AppProtocol != nil && *sp.AppProtocol != "" {
		protocol = strings.ToLower(*sp.AppProtocol)
	}
	switch protocol {
	case "tcp", "tls", "https", "ssl", "wss", "kubernetes.io/wss",
		"mongo", "mysql", "postgres", "postgresql", "redis", "amqp", "kafka", "mqtt", "nats",
		"cassandra", "memcached", "smtp", "imap", "pop3", "ftp", "ssh", "ldap", "ldaps":
		// TLS by the app can't be split by request; the others are bytes whose server may speak first.
		return v1alpha1.ProtocolTCP
	case "http", "http2", "h2c", "grpc", "ws", "kubernetes.io/h2c", "kubernetes.io/ws":
		return v1alpha1.ProtocolHTTP
	default:
		return v1alpha1.ProtocolAuto
	}
}
