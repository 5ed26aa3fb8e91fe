// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package validation

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// choices are the bytes of the fuzzer, each of which decides one thing; when there are none left, everything else
// is plain. Objects made like this are mostly such as the API accepts, which JSON with changed bytes rarely is, and
// the fuzzer still sees which byte led where.
type choices []byte

// pick is a number below n.
func (c *choices) pick(n int) int {
	if len(*c) == 0 {
		return 0
	}
	first := int((*c)[0])
	*c = (*c)[1:]
	return first % n
}

// rarely is true once in n.
func (c *choices) rarely(n int) bool { return c.pick(n) == n-1 }

// oneOf chooses; the first one is the plain one.
func oneOf[T any](c *choices, list ...T) T { return list[c.pick(len(list))] }

// pod is one of a ReplicaSet.
func (c *choices) pod() *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-6d4b75cb6d-x7x2k", Labels: map[string]string{"app": "web", "pod-template-hash": "6d4b75cb6d"}},
		Spec:       c.podSpec(),
	}
	if c.rarely(8) {
		// About as much as the API accepts: 256 KiB, the name included.
		pod.Annotations = map[string]string{"big": string(make([]byte, 256<<10-3-oneOf(c, 0, 1, 200, 3000)))}
	}
	return pod
}

func (c *choices) podSpec() corev1.PodSpec {
	spec := corev1.PodSpec{
		ServiceAccountName:            "default", // the API server's own plugin sees to it
		HostNetwork:                   c.rarely(8),
		HostUsers:                     oneOf(c, nil, new(true), new(false)),
		ShareProcessNamespace:         oneOf(c, nil, new(true)),
		TerminationGracePeriodSeconds: oneOf(c, nil, new(int64(30)), new(int64(0)), new(int64(1)), new(int64(4)), new(int64(-1)), new(int64(1<<62))),
		SecurityContext:               oneOf(c, nil, &corev1.PodSecurityContext{RunAsUser: new(int64(1000))}, &corev1.PodSecurityContext{RunAsNonRoot: new(true), FSGroup: new(int64(2000))}, &corev1.PodSecurityContext{}),
		Resources:                     oneOf(c, nil, c.ofPod()),
		Volumes:                       c.volumes(),
	}
	if c.rarely(12) {
		spec.OS = &corev1.PodOS{Name: oneOf(c, corev1.Linux, corev1.Windows)}
	}
	for i := range 1 + c.pick(3) {
		spec.Containers = append(spec.Containers, c.container(fmt.Sprintf("app-%d", i), spec.Volumes, true))
	}
	for i := range c.pick(3) {
		restart := oneOf(c, nil, new(corev1.ContainerRestartPolicyAlways))
		init := c.container(fmt.Sprintf("init-%d", i), spec.Volumes, restart != nil)
		init.RestartPolicy = restart
		spec.InitContainers = append(spec.InitContainers, init)
	}
	if spec.HostNetwork {
		for i := range spec.Containers {
			for j := range spec.Containers[i].Ports {
				spec.Containers[i].Ports[j].HostPort = spec.Containers[i].Ports[j].ContainerPort
			}
		}
	}
	return spec
}

func (c *choices) volumes() []corev1.Volume {
	token := corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: "token"}}
	projected := func(mode *int32) corev1.VolumeSource {
		return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: mode, Sources: []corev1.VolumeProjection{token}}}
	}
	all := []corev1.Volume{
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "tokens", VolumeSource: projected(oneOf(c, nil, new(int32(0o400))))},
	}
	all = all[:c.pick(len(all)+1)]
	if c.rarely(16) {
		all = append(all, corev1.Volume{Name: "headgate-token", VolumeSource: projected(nil)})
	}
	return all
}

// container is one of the app's; only what lasts may have probes and hooks.
func (c *choices) container(name string, volumes []corev1.Volume, lasts bool) corev1.Container {
	out := corev1.Container{
		Name: name, Image: "example.com/app:1", Ports: c.ports(), Resources: c.ofContainer(),
		SecurityContext: oneOf(c, nil, &corev1.SecurityContext{RunAsUser: new(int64(1000))}, &corev1.SecurityContext{RunAsUser: new(int64(0))}),
	}
	if c.rarely(32) {
		out.Name = "headgate-proxy"
	}
	for _, v := range volumes {
		out.VolumeMounts = append(out.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}
	if !lasts {
		return out
	}
	out.StartupProbe, out.LivenessProbe, out.ReadinessProbe = c.probe(), c.probe(), c.probe()
	if c.rarely(3) {
		out.Lifecycle = &corev1.Lifecycle{PostStart: c.hook(), PreStop: c.hook()}
	}
	return out
}

// Ports that mean something: to the app, to the sidecar, to nobody.
var (
	portNumbers = []int32{8080, 80, 9090, 443, 15599, 15600, 15620, 15700, 65535, 1}
	portNames   = []string{"http", "", "grpc", "metrics", "headgate-stats"}
)

func (c *choices) ports() (out []corev1.ContainerPort) {
	for range oneOf(c, 1, 0, 2, 3) {
		port := corev1.ContainerPort{
			Name: oneOf(c, portNames...), ContainerPort: oneOf(c, portNumbers...), Protocol: oneOf(c, corev1.ProtocolTCP, "", corev1.ProtocolUDP, corev1.ProtocolSCTP),
		}
		named := func(p corev1.ContainerPort) bool { return p.Name == port.Name }
		if slices.ContainsFunc(out, named) {
			port.Name = ""
		}
		out = append(out, port)
	}
	return out
}

func (c *choices) port() intstr.IntOrString {
	if c.rarely(2) {
		return intstr.FromString(oneOf(c, "http", "metrics", "other"))
	}
	return intstr.FromInt32(oneOf(c, portNumbers...))
}

func (c *choices) probe() *corev1.Probe {
	host := func() string { return oneOf(c, "", "", "127.0.0.1") }
	switch c.pick(4) {
	case 1:
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: c.port(), Host: host()}}}
	case 2:
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: c.port(), Host: host()}}}
	case 3:
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: oneOf(c, portNumbers...)}}}
	}
	return nil
}

func (c *choices) hook() *corev1.LifecycleHandler {
	switch c.pick(4) {
	case 1:
		return &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: c.port()}}
	case 2:
		return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}
	case 3:
		return &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: oneOf(c, int64(1), 0, 5, 30)}}
	}
	return nil
}

// quantities of each resource, each larger than the one before.
var quantities = map[corev1.ResourceName][]string{
	corev1.ResourceCPU: {"1m", "10m", "500m", "4", "100"}, corev1.ResourceMemory: {"1Ki", "64Mi", "1Gi", "4Gi", "1Ti"}, corev1.ResourceEphemeralStorage: {"1Ki", "8Mi", "64Mi", "1Gi", "1Ti"},
}

// resourceList has, of these resources, the quantities from the least to the most-th, or none.
func (c *choices) resourceList(least, most int, names ...corev1.ResourceName) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, name := range names {
		if !c.rarely(2) {
			out[name] = resource.MustParse(oneOf(c, quantities[name][least:most+1]...))
		}
	}
	return out
}

// allResources are those that LimitRanges and quotas are mostly about; a pod as a whole can state the first two.
var allResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}

// ofContainer and ofPod: requests are below limits, and those of the pod above those of all containers.
func (c *choices) ofContainer() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: c.resourceList(0, 2, allResources...), Limits: c.resourceList(2, 3, allResources...)}
}

func (c *choices) ofPod() *corev1.ResourceRequirements {
	return &corev1.ResourceRequirements{Requests: c.resourceList(3, 3, allResources[:2]...), Limits: c.resourceList(4, 4, allResources[:2]...)}
}

// limitRanges are items of a LimitRange.
func (c *choices) limitRanges() (out []corev1.LimitRangeItem) {
	for range c.pick(3) {
		item := corev1.LimitRangeItem{Type: oneOf(c, corev1.LimitTypeContainer, corev1.LimitTypePod), Min: c.resourceList(0, 1, allResources...), Max: c.resourceList(3, 4, allResources...)}
		if item.Type == corev1.LimitTypeContainer {
			item.Default, item.DefaultRequest = c.resourceList(2, 3, allResources...), c.resourceList(1, 2, allResources...)
		}
		if c.rarely(3) {
			item.MaxLimitRequestRatio = corev1.ResourceList{oneOf(c, allResources...): resource.MustParse(oneOf(c, "1", "2", "1500m"))}
		}
		out = append(out, item)
	}
	return out
}

// services are those that select the pod.
func (c *choices) services() (out []corev1.Service) {
	for range c.pick(3) {
		s := corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}}}
		for range 1 + c.pick(2) {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
				Name: oneOf(c, "http", "", "tcp-db", "grpc-web"), Port: oneOf(c, portNumbers...), TargetPort: c.port(),
				AppProtocol: oneOf(c, nil, new("kubernetes.io/h2c"), new("https"), new("")), Protocol: oneOf(c, "", corev1.ProtocolTCP, corev1.ProtocolUDP),
			})
		}
		out = append(out, s)
	}
	return out
}
