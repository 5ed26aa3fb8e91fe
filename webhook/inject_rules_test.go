// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

func TestInjectDelaysShutdown(t *testing.T) {
	hook := &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 20}}}
	tests := map[string]struct {
		grace     *int64
		lifecycle *corev1.Lifecycle
		wantGrace int64
		wantSleep int64
	}{
		"an unset grace is 30 s, and 5 s more":           {nil, nil, 35, 5},
		"a grace shorter than the sleep becomes longer":  {new(int64(3)), nil, 8, 5},
		"no grace at all becomes just the sleep":         {new(int64(0)), nil, 5, 5},
		"a negative grace is 1 s for the API":            {new(int64(-7)), nil, 6, 5},
		"the longest grace does not overflow":            {new(int64(math.MaxInt64)), nil, math.MaxInt64, 5},
		"a preStop of the user's own stays":              {new(int64(30)), hook, 35, 20},
		"a postStart alone does not keep the sleep away": {nil, &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}}}, 35, 5},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			out, _ := Inject(injectPod(func(p *corev1.Pod) {
				p.Spec.TerminationGracePeriodSeconds, p.Spec.Containers[0].Lifecycle = tc.grace, tc.lifecycle
			}), injectConfig())
			if got := *out.Spec.TerminationGracePeriodSeconds; got != tc.wantGrace {
				t.Errorf("grace = %d, want %d", got, tc.wantGrace)
			}
			if got := out.Spec.Containers[0].Lifecycle.PreStop.Sleep.Seconds; got != tc.wantSleep {
				t.Errorf("sleep = %d, want %d", got, tc.wantSleep)
			}
		})
	}
}

func TestInjectLeadsProbesPastTheSidecar(t *testing.T) {
	http := func(port intstr.IntOrString, host string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: port, Host: host}}}
	}
	tests := map[string]struct {
		probe *corev1.Probe
		want  int32 // the port that the probe names after injection; 0: unchanged
	}{
		"by number":                           {http(intstr.FromInt32(8080), ""), 15620},
		"by name":                             {http(intstr.FromString("http"), ""), 15620},
		"a port of another container":         {http(intstr.FromInt32(9100), ""), 15620},
		"tcpSocket":                           {&corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}, 15620},
		"grpc":                                {&corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}}, 15620},
		"a host of its own goes elsewhere":    {http(intstr.FromInt32(8080), "example.com"), 0},
		"a port that nobody declares":         {http(intstr.FromInt32(8081), ""), 0},
		"another container's name is no name": {http(intstr.FromString("metrics"), ""), 0},
		"exec has no port":                    {&corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}, 0},
		"no probe at all":                     {nil, 0},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			out, _ := Inject(injectPod(func(p *corev1.Pod) {
				p.Spec.Containers[0].LivenessProbe = tc.probe
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "exporter", Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: 9100}}})
			}), injectConfig())
			if tc.want == 0 {
				if diff := cmp.Diff(tc.probe, out.Spec.Containers[0].LivenessProbe); diff != "" {
					t.Errorf("the probe changed (-before +after):\n%s", diff)
				}
				return
			}
			targets := probeTargets(&out.Spec.Containers[0])
			if len(targets) != 1 || targets[0].port != tc.want {
				t.Errorf("targets = %v, want one, port %d", targets, tc.want)
			}
		})
	}
}

func TestInjectReadsProtocolsFromServices(t *testing.T) {
	service := func(name, appProtocol string, target intstr.IntOrString) corev1.Service {
		sp := corev1.ServicePort{Name: name, Port: 8080, TargetPort: target}
		if appProtocol != "" {
			sp.AppProtocol = &appProtocol
		}
		return corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{sp}}}
	}
	byNumber, byName, unset := intstr.FromInt32(8080), intstr.FromString("http"), intstr.IntOrString{}
	tests := map[string]struct {
		services []corev1.Service
		want     v1alpha1.PortProtocol
	}{
		"no Service: sniffed":                        {nil, v1alpha1.ProtocolAuto},
		"a Service that says nothing: sniffed":       {[]corev1.Service{service("", "", byNumber)}, v1alpha1.ProtocolAuto},
		"the port's name says mysql":                 {[]corev1.Service{service("mysql-main", "", byNumber)}, v1alpha1.ProtocolTCP},
		"the port's name says http":                  {[]corev1.Service{service("http-web", "", byNumber)}, v1alpha1.ProtocolHTTP},
		"gRPC is HTTP":                               {[]corev1.Service{service("", "grpc", byNumber)}, v1alpha1.ProtocolHTTP},
		"the port's name only begins like tcp":       {[]corev1.Service{service("tcpish", "", byNumber)}, v1alpha1.ProtocolAuto},
		"appProtocol is stronger than the name":      {[]corev1.Service{service("mysql", "http", byName)}, v1alpha1.ProtocolHTTP},
		"appProtocol says https, target by name":     {[]corev1.Service{service("", "HTTPS", byName)}, v1alpha1.ProtocolTCP},
		"an unset target is the Service's own port":  {[]corev1.Service{service("redis", "", unset)}, v1alpha1.ProtocolTCP},
		"an unknown appProtocol is sniffed":          {[]corev1.Service{service("", "example.com/odd", byNumber)}, v1alpha1.ProtocolAuto},
		"a Service of another port has no say":       {[]corev1.Service{service("mysql", "", intstr.FromInt32(1))}, v1alpha1.ProtocolAuto},
		"one of two Services says nothing: sniffed":  {[]corev1.Service{service("", "", byNumber), service("http", "", byName)}, v1alpha1.ProtocolAuto},
		"one of two Services speaks HTTP: sniffed":   {[]corev1.Service{service("tcp", "", byNumber), service("http", "", byName)}, v1alpha1.ProtocolAuto},
		"both Services name another protocol: bytes": {[]corev1.Service{service("tcp", "", byNumber), service("tls", "", byName)}, v1alpha1.ProtocolTCP},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			out, _ := Inject(injectPod(), injectConfig(func(c *InjectConfig) { c.Services = tc.services }))
			injection, err := v1alpha1.ParseInjection(out.Annotations[v1alpha1.InjectionAnnotation])
			if err != nil {
				t.Fatal(err)
			}
			want := []v1alpha1.CapturedPort{{Port: 8080, Names: []string{"http"}, Protocol: tc.want}}
			if diff := cmp.Diff(want, injection.Ports); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInjectReadsAllNamesOfAPort(t *testing.T) {
	port := func(name string, number int32) corev1.ContainerPort {
		return corev1.ContainerPort{Name: name, ContainerPort: number, Protocol: corev1.ProtocolTCP}
	}
	udp := corev1.ContainerPort{Name: "quic", ContainerPort: 8080, Protocol: corev1.ProtocolUDP}
	captured := func(number int32, protocol v1alpha1.PortProtocol, names ...string) v1alpha1.CapturedPort {
		return v1alpha1.CapturedPort{Port: number, Protocol: protocol, Names: names}
	}
	services := []corev1.Service{{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "grpc", Port: 80, TargetPort: intstr.FromString("web")}}}}}
	for name, tc := range map[string]struct {
		containers [][]corev1.ContainerPort
		want       []v1alpha1.CapturedPort
	}{
		"declared twice in one container":            {[][]corev1.ContainerPort{{port("metrics", 8080), port("web", 8080)}}, []v1alpha1.CapturedPort{captured(8080, v1alpha1.ProtocolHTTP, "metrics", "web")}},
		"declared by two containers":                 {[][]corev1.ContainerPort{{port("web", 8080)}, {port("metrics", 8080)}}, []v1alpha1.CapturedPort{captured(8080, v1alpha1.ProtocolHTTP, "metrics", "web")}},
		"declared with a name and without":           {[][]corev1.ContainerPort{{port("", 8080)}, {port("web", 8080)}}, []v1alpha1.CapturedPort{captured(8080, v1alpha1.ProtocolHTTP, "web")}},
		"declared by two containers with one name":   {[][]corev1.ContainerPort{{port("web", 8080)}, {port("web", 8080)}}, []v1alpha1.CapturedPort{captured(8080, v1alpha1.ProtocolHTTP, "web")}},
		"the name for UDP is none":                   {[][]corev1.ContainerPort{{udp, port("web", 8080)}}, []v1alpha1.CapturedPort{captured(8080, v1alpha1.ProtocolHTTP, "web")}},
		"one name for two ports: the first is meant": {[][]corev1.ContainerPort{{port("web", 9090)}, {port("web", 8080)}}, []v1alpha1.CapturedPort{captured(8080, v1alpha1.ProtocolAuto), captured(9090, v1alpha1.ProtocolHTTP, "web")}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := injectPod(func(p *corev1.Pod) {
				p.Spec.Containers = nil
				for i, ports := range tc.containers {
					p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: string(rune('a' + i)), Ports: ports, ReadinessProbe: &corev1.Probe{
						ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}})
				}
			})
			out, _ := Inject(pod, injectConfig(func(c *InjectConfig) { c.Services = services }))
			injection, err := v1alpha1.ParseInjection(out.Annotations[v1alpha1.InjectionAnnotation])
			if err != nil {
				t.Fatal(err)
			}
			tc.want[0].Alias = v1alpha1.FirstAliasPort
			if diff := cmp.Diff(tc.want, injection.Ports); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
			for _, c := range out.Spec.Containers {
				if got := c.ReadinessProbe.TCPSocket.Port.IntVal; got != v1alpha1.FirstAliasPort {
					t.Errorf("the probe of container %s goes to %d", c.Name, got)
				}
			}
		})
	}
}

func TestInjectResources(t *testing.T) {
	type list = corev1.ResourceList
	cpu := func(s string) list { return list{corev1.ResourceCPU: resource.MustParse(s)} }
	memory := func(s string) list { return list{corev1.ResourceMemory: resource.MustParse(s)} }
	item := func(i corev1.LimitRangeItem) func(*InjectConfig) {
		return func(c *InjectConfig) {
			i.Type = corev1.LimitTypeContainer
			c.LimitRanges = append(c.LimitRanges, i)
		}
	}
	quota := func(names ...corev1.ResourceName) func(*InjectConfig) {
		return func(c *InjectConfig) { c.QuotaResources = names }
	}
	tests := map[string]struct {
		app      list
		whole    *corev1.ResourceRequirements
		cfg      func(*InjectConfig)
		requests map[corev1.ResourceName]string
		limits   map[corev1.ResourceName]string
	}{
		"small where the app requests little": {app: cpu("50m"), requests: needs("10m", "64Mi")},
		"5 % of the app's CPU":                {app: cpu("1"), requests: needs("50m", "64Mi")},
		"at most 100m":                        {app: cpu("64"), requests: needs("100m", "64Mi")},
		"nothing of what the pod states as a whole": {
			whole: &corev1.ResourceRequirements{Requests: cpu("1")}, requests: needs("", "64Mi")},
		"limits that a quota demands": {
			cfg: quota("limits.cpu", "limits.memory"), requests: needs("10m", "64Mi"), limits: needs("1", "256Mi")},
		"a quota on requests is met anyway": {cfg: quota("requests.cpu", "memory"), requests: needs("10m", "64Mi")},
		"raised to the minimum":             {cfg: item(corev1.LimitRangeItem{Min: cpu("200m")}), requests: needs("200m", "64Mi")},
		"a maximum demands a limit":         {cfg: item(corev1.LimitRangeItem{Max: memory("128Mi")}), requests: needs("10m", "64Mi"), limits: needs("", "128Mi")},
		"a maximum below the request lowers both": {
			cfg: item(corev1.LimitRangeItem{Max: memory("32Mi")}), requests: needs("10m", "32Mi"), limits: needs("", "32Mi")},
		"a default limit is replaced by a better one": {
			cfg: item(corev1.LimitRangeItem{Default: memory("16Mi")}), requests: needs("10m", "64Mi"), limits: needs("", "256Mi")},
		"a ratio raises the request, never lowers the limit": {
			cfg: item(corev1.LimitRangeItem{MaxLimitRequestRatio: cpu("4")}), requests: needs("250m", "64Mi"), limits: needs("1", "")},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := injectConfig()
			if tc.cfg != nil {
				tc.cfg(&cfg)
			}
			out, skip := Inject(injectPod(func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests = tc.app
				p.Spec.Resources = tc.whole
			}), cfg)
			if skip.Skipped() {
				t.Fatal(skip)
			}
			for _, c := range out.Spec.InitContainers {
				if diff := cmp.Diff(tc.requests, texts(c.Resources.Requests), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("requests of %s (-want +got):\n%s", c.Name, diff)
				}
				if diff := cmp.Diff(tc.limits, texts(c.Resources.Limits), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("limits of %s (-want +got):\n%s", c.Name, diff)
				}
			}
		})
	}
}

// needs are resources by name; an empty quantity is none.
func needs(cpu, memory string) map[corev1.ResourceName]string {
	m := map[corev1.ResourceName]string{}
	if cpu != "" {
		m[corev1.ResourceCPU] = cpu
	}
	if memory != "" {
		m[corev1.ResourceMemory] = memory
	}
	return m
}

func texts(list corev1.ResourceList) map[corev1.ResourceName]string {
	m := map[corev1.ResourceName]string{}
	for name, q := range list {
		m[name] = q.String()
	}
	return m
}

// TestInjectAgain is the API server's reinvocation: other webhooks changed the pod in between.
func TestInjectAgain(t *testing.T) {
	probe := func(port int32) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}}
	}
	proxy := func(p *corev1.Pod) *corev1.Container { return initContainer(p, v1alpha1.ProxyContainer) }
	tests := map[string]struct {
		between func(*corev1.Pod)
		cfg     InjectConfig
		check   func(*corev1.Pod) bool
	}{
		"nothing changed: nothing changes": {
			func(*corev1.Pod) {}, injectConfig(), func(p *corev1.Pod) bool { return len(p.Spec.InitContainers) == 2 }},
		"a mirror's image stays": {
			func(p *corev1.Pod) { proxy(p).Image = "mirror/headgate-proxy" }, injectConfig(),
			func(p *corev1.Pod) bool { return proxy(p).Image == "mirror/headgate-proxy" }},
		"an autoscaler's resources stay": {
			func(p *corev1.Pod) { proxy(p).Resources.Requests[corev1.ResourceCPU] = resource.MustParse("7m") }, injectConfig(),
			func(p *corev1.Pod) bool { return proxy(p).Resources.Requests.Cpu().String() == "7m" }},
		"a mount of the API server's token stays": {
			func(p *corev1.Pod) {
				proxy(p).VolumeMounts = append(proxy(p).VolumeMounts, corev1.VolumeMount{Name: "api", MountPath: "/api"})
			}, injectConfig(),
			func(p *corev1.Pod) bool { return len(proxy(p).VolumeMounts) == 2 }},
		"an argument that was changed is set back": {
			func(p *corev1.Pod) { proxy(p).Args = []string{"version"} }, injectConfig(),
			func(p *corev1.Pod) bool { return proxy(p).Args[0] == "run" }},
		"an init container put in front goes behind ours": {
			func(p *corev1.Pod) {
				p.Spec.InitContainers = slices.Insert(p.Spec.InitContainers, 0, corev1.Container{Name: "first"})
			}, injectConfig(),
			func(p *corev1.Pod) bool {
				return p.Spec.InitContainers[0].Name == v1alpha1.PrepareContainer && p.Spec.InitContainers[2].Name == "first"
			}},
		"a container that was added gets its port, alias and preStop": {
			func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "late", Ports: []corev1.ContainerPort{{ContainerPort: 80}}, LivenessProbe: probe(80)})
			}, injectConfig(),
			func(p *corev1.Pod) bool {
				late := p.Spec.Containers[1]
				return late.LivenessProbe.TCPSocket.Port.IntVal == 15620 && late.Lifecycle.PreStop != nil &&
					p.Spec.Containers[0].LivenessProbe.TCPSocket.Port.IntVal == 15621
			}},
		"a grace that was lowered still fits an added sleep": {
			func(p *corev1.Pod) {
				p.Spec.TerminationGracePeriodSeconds = new(int64(2))
				p.Spec.Containers[0].Lifecycle = nil
			}, injectConfig(),
			func(p *corev1.Pod) bool { return *p.Spec.TerminationGracePeriodSeconds == 5 }},
		"a grace that was raised stays": {
			func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(90)) }, injectConfig(),
			func(p *corev1.Pod) bool { return *p.Spec.TerminationGracePeriodSeconds == 90 }},
		"annotations that another webhook dropped are put back": {
			func(p *corev1.Pod) { p.Annotations = nil }, injectConfig(),
			func(p *corev1.Pod) bool {
				return p.Annotations[v1alpha1.InjectionAnnotation] != "" && len(p.Spec.InitContainers) == 2 && *p.Spec.TerminationGracePeriodSeconds == 35
			}},
		"a sidecar that a copied template brought is replaced": {
			func(p *corev1.Pod) { proxy(p).Image = "old" }, injectConfig(func(c *InjectConfig) { c.Revision = "next" }),
			func(p *corev1.Pod) bool {
				return proxy(p).Image == "ghcr.io/headgate/headgate-proxy:test" && *p.Spec.TerminationGracePeriodSeconds == 35
			}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod, skip := Inject(injectPod(func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = probe(8080) }), injectConfig())
			if skip.Skipped() {
				t.Fatal(skip)
			}
			tc.between(pod)
			again, skip := Inject(pod, tc.cfg)
			if skip.Skipped() {
				t.Fatal(skip)
			}
			if !tc.check(again) {
				text, _ := json.MarshalIndent(again.Spec, "", " ")
				t.Errorf("not so:\n%s", text)
			}
			checkInjected(t, pod, tc.cfg)
		})
	}
}
