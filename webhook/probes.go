// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

// lastReservedPort ends the range of ports that the data plane keeps for itself.
const lastReservedPort = v1alpha1.CapturePort + 99

// capture decides which ports are captured and leads probes and hooks past the sidecar. They must
// reach this app: Envoy accepts every connection, so a tcpSocket probe of a captured port would
// always succeed, and at a weight above zero an httpGet could be answered by the other revision.
func (in *injection) capture() Skip {
	ports := declaredPorts(in.out, in.cfg.Services)
	if len(ports) == 0 {
		return skipf(SkipNoPorts, "no container declares a TCP port, so there is nothing to split; declare the ports that the app serves")
	}
	for _, p := range ports {
		if p.Port >= v1alpha1.CapturePort && p.Port <= lastReservedPort {
			return skipf(SkipPortTaken, "the app declares port %d; ports %d to %d are the sidecar's, use another", p.Port, v1alpha1.CapturePort, lastReservedPort)
		}
	}
	in.restoreTargets()
	if skip := in.aliasTargets(ports); skip.Skipped() {
		return skip
	}
	in.now.Ports = ports
	return Skip{}
}

// declaredPorts are the TCP ports of all containers that live as long as the pod, ascending, each
// once with all its names. A name that two containers give to different ports means the first one, as it does
// to Services. UDP and SCTP are none of the sidecar's business; a hostPort needs no care, the node forwards
// it to the pod's own address, where it is captured like any other connection.
func declaredPorts(pod *corev1.Pod, services []corev1.Service) []v1alpha1.CapturedPort {
	var ports []v1alpha1.CapturedPort
	named := map[string]bool{}
	for _, c := range lastingContainers(pod) {
		for _, p := range c.Ports {
			if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP || p.ContainerPort < 1 || p.ContainerPort > 65535 {
				continue
			}
			i := slices.IndexFunc(ports, func(x v1alpha1.CapturedPort) bool { return x.Port == p.ContainerPort })
			if i < 0 {
				i, ports = len(ports), append(ports, v1alpha1.CapturedPort{Port: p.ContainerPort})
			}
			if p.Name != "" && !named[p.Name] {
				named[p.Name], ports[i].Names = true, append(ports[i].Names, p.Name)
			}
		}
	}
	for i := range ports {
		slices.Sort(ports[i].Names)
		ports[i].Protocol = portProtocol(ports[i], services)
	}
	slices.SortFunc(ports, func(a, b v1alpha1.CapturedPort) int { return int(a.Port - b.Port) })
	return ports
}

// lastingContainers are the app containers and the app's native sidecars: what can serve requests,
// and have probes, in the order in which Services look for a named port. Headgate's own are not among them.
func lastingContainers(pod *corev1.Pod) []*corev1.Container {
	var found []*corev1.Container
	for i := range pod.Spec.Containers {
		found = append(found, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if !isOwn(c) && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			found = append(found, c)
		}
	}
	return found
}

// probeTarget is one place in a container that names a port for the kubelet to connect to.
type probeTarget struct {
	port int32
	set  func(int32)
}

// restoreTargets undoes the aliases of an earlier injection, so that a second call starts from what
// the user meant. (The name of a port is not restored; its number means the same.)
func (in *injection) restoreTargets() {
	if in.before == nil {
		return
	}
	original := map[int32]int32{}
	for _, p := range in.before.Ports {
		if p.Alias >= v1alpha1.FirstAliasPort && p.Alias <= lastReservedPort {
			original[p.Alias] = p.Port
		}
	}
	for _, c := range lastingContainers(in.out) {
		for _, target := range probeTargets(c) {
			if port, ok := original[target.port]; ok {
				target.set(port)
			}
		}
	}
}

// aliasTargets gives each captured port that a probe or hook names an alias, in the order of ports.
func (in *injection) aliasTargets(ports []v1alpha1.CapturedPort) Skip {
	targets := map[int32][]probeTarget{}
	for _, c := range lastingContainers(in.out) {
		for _, t := range probeTargets(c) {
			targets[t.port] = append(targets[t.port], t)
		}
	}
	next := v1alpha1.FirstAliasPort
	for i := range ports {
		found := targets[ports[i].Port]
		if len(found) == 0 {
			continue
		}
		if next > lastReservedPort {
			return skipf(SkipTooManyPorts, "probes and hooks name more than %d different ports", lastReservedPort-v1alpha1.FirstAliasPort+1)
		}
		ports[i].Alias = next
		next++
		for _, t := range found {
			t.set(ports[i].Alias)
		}
	}
	return Skip{}
}

// probeTargets are the places in a container that name a port of this pod. Those with a host of their
// own go elsewhere, and a name that the container does not declare goes nowhere: both are left alone.
func probeTargets(c *corev1.Container) []probeTarget {
	var targets []probeTarget
	add := func(host string, port *intstr.IntOrString) {
		if n, ok := resolvePort(c, *port); ok && host == "" {
			targets = append(targets, probeTarget{port: n, set: func(n int32) { *port = intstr.FromInt32(n) }})
		}
	}
	for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		switch {
		case p == nil:
		case p.HTTPGet != nil:
			add(p.HTTPGet.Host, &p.HTTPGet.Port)
		case p.TCPSocket != nil:
			add(p.TCPSocket.Host, &p.TCPSocket.Port)
		case p.GRPC != nil:
			grpc := p.GRPC
			targets = append(targets, probeTarget{port: grpc.Port, set: func(n int32) { grpc.Port = n }})
		}
	}
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil && h.HTTPGet != nil {
				add(h.HTTPGet.Host, &h.HTTPGet.Port)
			}
		}
	}
	return targets
}

// resolvePort reads a port as the kubelet does: names count within their own container only.
func resolvePort(c *corev1.Container, port intstr.IntOrString) (int32, bool) {
	if port.Type == intstr.Int {
		return port.IntVal, true
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return p.ContainerPort, true
		}
	}
	return 0, false
}
