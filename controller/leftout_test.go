// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestStableIsLeftOut(t *testing.T) {
	pods := func(hash, port string, more ...func(*corev1.Pod)) []*corev1.Pod {
		p := podOf(hash, hash, "10.0.0.1")
		p.Spec.Containers = []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: port, ContainerPort: 8080}}}}
		for _, change := range more {
			change(p)
		}
		return []*corev1.Pod{p}
	}
	version := func(v string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Labels["version"] = v }
	}
	asSidecar := func(p *corev1.Pod) {
		always := corev1.ContainerRestartPolicyAlways
		p.Spec.InitContainers = []corev1.Container{{Name: "proxy", RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8081}}}}
	}
	onceOnly := func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "setup", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8081}}}}
	}
	to := func(name, target string) corev1.Service {
		return service(name, servicePortTo("http", intstr.FromString(target)))
	}
	toNumber := func(n int32) corev1.Service { return service("web", servicePortTo("http", intstr.FromInt32(n))) }
	udp := servicePortTo("http", intstr.FromString("http"))
	udp.Protocol = corev1.ProtocolUDP
	of := func(svc corev1.Service, version string) corev1.Service {
		svc.Spec.Selector = map[string]string{"version": version}
		return svc
	}
	more := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Ports: []corev1.ContainerPort{{Name: name, ContainerPort: 9090}}})
		}
	}
	both := service("web", servicePortTo("http", intstr.FromString("web")), servicePortTo("grpc", intstr.FromString("grpc")))
	const noPort, noPod = "Service web leads to a port that no pod of the stable version has", "Service web selects no pod of the stable version any more"
	for name, tc := range map[string]struct {
		stable, candidate []*corev1.Pod
		services          []corev1.Service
		want              string
	}{
		"the port has a new name":               {pods(stableHash, "http"), pods(candidateHash, "web"), []corev1.Service{to("web", "web")}, noPort},
		"one of two has":                        {pods(stableHash, "http", more("grpc")), pods(candidateHash, "web", more("grpc")), []corev1.Service{both}, noPort},
		"the Service still has the old one":     {pods(stableHash, "http"), pods(candidateHash, "web"), []corev1.Service{to("web", "http")}, ""},
		"the Service has a name that none has":  {pods(stableHash, "http"), pods(candidateHash, "http"), []corev1.Service{to("web", "web")}, ""},
		"the name is another protocol's":        {pods(stableHash, "http"), pods(candidateHash, "http"), []corev1.Service{service("dns", udp)}, ""},
		"another Service has the old one":       {pods(stableHash, "http"), pods(candidateHash, "web"), []corev1.Service{to("preview", "web"), to("web", "http")}, ""},
		"another Service has the old number":    {pods(stableHash, "http"), pods(candidateHash, "web"), []corev1.Service{to("preview", "web"), toNumber(8080)}, ""},
		"a number leads anywhere":               {pods(stableHash, "http"), pods(candidateHash, "web"), []corev1.Service{toNumber(9090)}, ""},
		"a port that stable never had":          {pods(stableHash, "grpc"), pods(candidateHash, "grpc", more("web")), []corev1.Service{both}, ""},
		"no Service":                            {pods(stableHash, "http"), pods(candidateHash, "web"), nil, ""},
		"no pod of stable":                      {nil, pods(candidateHash, "web"), []corev1.Service{to("web", "web")}, ""},
		"no pod of the candidate":               {pods(stableHash, "http"), nil, []corev1.Service{to("web", "web")}, ""},
		"stable has the port in a sidecar":      {pods(stableHash, "http", asSidecar), pods(candidateHash, "web"), []corev1.Service{to("web", "web")}, ""},
		"stable had it while it started":        {pods(stableHash, "http", onceOnly), pods(candidateHash, "web"), []corev1.Service{to("web", "web")}, noPort},
		"the Service selects another label":     {pods(stableHash, "http", version("1")), pods(candidateHash, "http", version("2")), []corev1.Service{of(to("web", "http"), "2")}, noPod},
		"a Service to try the new version by":   {pods(stableHash, "http", version("1")), pods(candidateHash, "http", version("2")), []corev1.Service{of(to("preview", "http"), "2"), to("web", "http")}, ""},
		"a label was taken off a pod":           {append(pods(stableHash, "http", version("")), pods(stableHash, "http", version("1"))...), pods(candidateHash, "http", version("1")), []corev1.Service{of(to("web", "http"), "1")}, ""},
		"a Service for neither of the versions": {pods(stableHash, "http", version("1")), pods(candidateHash, "http", version("2")), []corev1.Service{of(to("web", "http"), "3")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := leftOut(tc.stable, tc.candidate, tc.services); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
