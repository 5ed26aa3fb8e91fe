// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

// versions are pods with all labels that their templates give them.
func versions(stable, candidate []*corev1.Pod) found {
	f := found{stable: stable, candidate: candidate}
	if len(candidate) > 0 {
		f.version = candidate[0].Labels
	}
	return f
}

// A Service of a label that an app gives its leader tells no version from another, and where somebody else answers nobody is lost.
func TestStableIsNotLeftOut(t *testing.T) {
	with := func(name, key, value string) []*corev1.Pod {
		return []*corev1.Pod{podOf(name, name, "10.0.0.1", func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: value, ContainerPort: 8080}}}}
			p.Labels[key] = value
		})}
	}
	svc := func(key, value, target string) []corev1.Service {
		s := service("web", servicePortTo("http", intstr.FromString(target)))
		s.Spec.Selector = map[string]string{key: value}
		return []corev1.Service{s}
	}
	for name, tc := range map[string]struct {
		found       found
		before, now []corev1.Service
	}{
		"the candidate's pod became the leader": {
			found{stable: with(stableHash, "role", ""), candidate: with(candidateHash, "role", "leader"), version: labels.Set{"app": "web"}},
			svc("role", "leader", "leader"), svc("role", "leader", "leader"),
		},
		"another workload has the new label": {
			found{stable: with(stableHash, "version", "1"), candidate: with(candidateHash, "version", "2"), version: labels.Set{"version": "2"}, others: with("web-b", "version", "2")},
			svc("version", "1", "1"), svc("version", "2", "2"),
		},
		"another workload has the new port": {
			found{stable: with(stableHash, "port", "a"), candidate: with(candidateHash, "port", "b"), version: labels.Set{"app": "web"}, others: with("web-b", "port", "b")},
			svc("app", "web", "a"), svc("app", "web", "b"),
		},
	} {
		before := leadingTo(tc.found.stable, tc.before)
		if len(tc.before) > 0 && len(before) == 0 {
			before = []string{"web"} // the label was a stable pod's then
		}
		if got := leftOut(tc.found, tc.now, before); got != "" {
			t.Errorf("%s: %q", name, got)
		}
		alone := tc.found
		alone.others, alone.version = nil, alone.candidate[0].Labels
		if got := leftOut(alone, tc.now, before); got == "" {
			t.Errorf("%s: if it were not for that, stable would be left out", name)
		}
	}
}

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
	preview := func(svc corev1.Service) corev1.Service {
		svc.Annotations = map[string]string{v1alpha1.PreviewAnnotation: "true"}
		return svc
	}
	unready := func(svc corev1.Service) corev1.Service {
		svc.Spec.PublishNotReadyAddresses = true
		return svc
	}
	more := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Ports: []corev1.ContainerPort{{Name: name, ContainerPort: 9090}}})
		}
	}
	twoPorts := func(target string) corev1.Service {
		grpc := corev1.ServicePort{Name: "grpc", Port: 9000, TargetPort: intstr.FromString("grpc")}
		return service("web", servicePortTo("http", intstr.FromString(target)), grpc)
	}
	listens := func(port string, number int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: port, ContainerPort: number}}
		}
	}
	declaresNothing := func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }
	type list = []corev1.Service
	const noPort, noPod = "Service web leads to a port that no pod of the stable version has", "Service web selects no pod of the stable version any more"
	for name, tc := range map[string]struct {
		stable, candidate []*corev1.Pod
		before, now       []corev1.Service
		want              string
	}{
		"the port has a new name":               {pods(stableHash, "http"), pods(candidateHash, "web"), list{to("web", "http")}, list{to("web", "web")}, noPort},
		"one of two has":                        {pods(stableHash, "http", more("grpc")), pods(candidateHash, "web", more("grpc")), list{twoPorts("http")}, list{twoPorts("web")}, noPort},
		"the port has a new number":             {pods(stableHash, "http"), pods(candidateHash, "http", listens("http", 8082)), list{toNumber(8080)}, list{toNumber(8082)}, noPort},
		"from a number to a name":               {pods(stableHash, ""), pods(candidateHash, "web"), list{toNumber(8080)}, list{to("web", "web")}, noPort},
		"from a name to its number":             {pods(stableHash, "http"), pods(candidateHash, "http"), list{to("web", "http")}, list{toNumber(8080)}, ""},
		"a number that nobody declares":         {pods(stableHash, "http"), pods(candidateHash, "http"), list{toNumber(8080)}, list{toNumber(8082)}, ""},
		"from a port that nobody declares":      {pods(stableHash, "", declaresNothing), pods(candidateHash, "http"), list{toNumber(8080)}, list{to("web", "http")}, noPort},
		"who declares nothing listens anywhere": {pods(stableHash, "", declaresNothing), pods(candidateHash, "http", listens("http", 8082)), list{toNumber(8080)}, list{toNumber(8082)}, ""},
		"the Service still has the old one":     {pods(stableHash, "http"), pods(candidateHash, "web"), list{to("web", "http")}, list{to("web", "http")}, ""},
		"the Service has a name that none has":  {pods(stableHash, "http"), pods(candidateHash, "http"), list{to("web", "http")}, list{to("web", "web")}, ""},
		"the name is another protocol's":        {pods(stableHash, "http"), pods(candidateHash, "http"), list{service("dns", udp)}, list{service("dns", udp)}, ""},
		"a Service for the new port":            {pods(stableHash, "http"), pods(candidateHash, "web"), list{to("web", "http")}, list{to("preview", "web"), to("web", "http")}, ""},
		"a port that stable never had":          {pods(stableHash, "grpc"), pods(candidateHash, "grpc", more("web")), list{twoPorts("web")}, list{twoPorts("web")}, ""},
		"it has led nowhere for long":           {pods(stableHash, "http"), pods(candidateHash, "web"), list{to("web", "web")}, list{to("web", "web")}, ""},
		"a preview that follows the versions":   {pods(stableHash, "http", version("1")), pods(candidateHash, "http", version("2")), list{of(to("try", "http"), "1")}, list{preview(of(to("try", "http"), "2"))}, ""},
		"it has those who are not ready too":    {pods(stableHash, "http", version("1")), pods(candidateHash, "http", version("2")), list{of(to("all", "http"), "1")}, list{unready(of(to("all", "http"), "2"))}, ""},
		"no Service":                            {pods(stableHash, "http"), pods(candidateHash, "web"), list{to("web", "http")}, nil, ""},
		"no pod of stable":                      {nil, pods(candidateHash, "web"), list{to("web", "http")}, list{to("web", "web")}, ""},
		"no pod of the candidate":               {pods(stableHash, "http"), nil, list{to("web", "http")}, list{to("web", "web")}, ""},
		"stable has the port in a sidecar":      {pods(stableHash, "http", asSidecar), pods(candidateHash, "web"), list{to("web", "http")}, list{to("web", "web")}, ""},
		"stable had it while it started":        {pods(stableHash, "http", onceOnly), pods(candidateHash, "web"), list{to("web", "http")}, list{to("web", "web")}, noPort},
		"the Service selects another label":     {pods(stableHash, "http", version("1")), pods(candidateHash, "http", version("2")), list{of(to("web", "http"), "1")}, list{of(to("web", "http"), "2")}, noPod},
		"… and another one still selects both":  {pods(stableHash, "http", version("1")), pods(candidateHash, "http", version("2")), list{of(to("web", "http"), "1"), to("pods", "http")}, list{of(to("web", "http"), "2"), to("pods", "http")}, noPod},
		"a Service to try the new version by":   {pods(stableHash, "http", version("1")), pods(candidateHash, "http", version("2")), list{to("web", "http")}, list{of(to("preview", "http"), "2"), to("web", "http")}, ""},
		"a label was taken off a pod":           {append(pods(stableHash, "http", version("")), pods(stableHash, "http", version("1"))...), pods(candidateHash, "http", version("1")), list{of(to("web", "http"), "1")}, list{of(to("web", "http"), "1")}, ""},
		"a Service for neither of the versions": {pods(stableHash, "http", version("1")), pods(candidateHash, "http", version("2")), list{of(to("web", "http"), "1")}, list{of(to("web", "http"), "3")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := leftOut(versions(tc.stable, tc.candidate), tc.now, leadingTo(tc.stable, tc.before)); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
