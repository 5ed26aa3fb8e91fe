// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/internal/golden"
)

func injectConfig(change ...func(*InjectConfig)) InjectConfig {
	cfg := InjectConfig{
		Image:      "ghcr.io/headgate/headgate-proxy:test",
		Workload:   "web",
		Revision:   "6d4b75cb6d",
		XDSAddress: "headgate.headgate-system.svc:15610",
		XDSName:    "headgate.headgate-system.svc",
		CA:         "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n",
	}
	for _, c := range change {
		c(&cfg)
	}
	return cfg
}

// injectPod is the smallest pod that gets a sidecar: one container that serves on 8080.
func injectPod(change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name:  "web",
		Image: "example.com/web:1",
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
	}}}}
	for _, c := range change {
		c(pod)
	}
	return pod
}

func readPod(t testing.TB, file string) *corev1.Pod {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(text, &pod); err != nil {
		t.Fatalf("reading %s: %v", file, err)
	}
	return &pod
}

// TestInjectGolden keeps the whole result of typical pods on file.
func TestInjectGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/inject/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			out, skip := Inject(readPod(t, input), injectConfig())
			if skip.Skipped() {
				t.Fatalf("skipped: %v", skip)
			}
			got, err := yaml.Marshal(out)
			if err != nil {
				t.Fatal(err)
			}
			golden.Check(t, strings.TrimSuffix(input, ".in.yaml")+".out.yaml", got)
		})
	}
}

func TestInjectSkips(t *testing.T) {
	label := func(level string) func(*InjectConfig) {
		return func(c *InjectConfig) {
			c.NamespaceLabels = map[string]string{"pod-security.kubernetes.io/enforce": level}
		}
	}
	annotation := func(key, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{key: value} }
	}
	limit := func(i corev1.LimitRangeItem) func(*InjectConfig) {
		return func(c *InjectConfig) { c.LimitRanges = []corev1.LimitRangeItem{i} }
	}
	list := func(cpu string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	secretToken := func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(1000))}
		p.Spec.Volumes = []corev1.Volume{{Name: "vault", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: new(int32(0o400)),
			Sources:     []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
		}}}}
	}
	tests := map[string]struct {
		pod  *corev1.Pod
		cfg  InjectConfig
		want SkipReason
	}{
		"a plain pod is injected":                {injectPod(), injectConfig(), ""},
		"a pod that opted out is left alone":     {injectPod(annotation(v1alpha1.InjectAnnotation, "false")), injectConfig(), SkipOptedOut},
		"inject true is not an opt-out":          {injectPod(annotation(v1alpha1.InjectAnnotation, "true")), injectConfig(), ""},
		"the node's network can't be captured":   {injectPod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), injectConfig(), SkipHostNetwork},
		"the node's DNS knows no Services":       {injectPod(func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSDefault }), injectConfig(), SkipDNS},
		"the cluster's DNS does":                 {injectPod(func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSClusterFirst }), injectConfig(), ""},
		"Windows by spec.os has no nftables":     {injectPod(func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }), injectConfig(), SkipWindows},
		"Windows by selector has no nftables":    {injectPod(func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelOSStable: "windows"} }), injectConfig(), SkipWindows},
		"Istio's native sidecar is another mesh": {injectPod(addInit("istio-proxy")), injectConfig(), SkipOtherMesh},
		"Linkerd's annotation is another mesh":   {injectPod(annotation("linkerd.io/proxy-version", "1")), injectConfig(), SkipOtherMesh},
		"a pod without ports has nothing to split": {
			injectPod(func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }), injectConfig(), SkipNoPorts},
		"UDP and SCTP ports are nothing to split": {injectPod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 53, Protocol: corev1.ProtocolUDP}, {ContainerPort: 54, Protocol: corev1.ProtocolSCTP}}
		}), injectConfig(), SkipNoPorts},
		"a port of ordinary init containers serves nobody": {injectPod(addInit("setup"), func(p *corev1.Pod) {
			p.Spec.InitContainers[0].Ports, p.Spec.Containers[0].Ports = p.Spec.Containers[0].Ports, nil
		}), injectConfig(), SkipNoPorts},
		"the first of our ports is taken":          {injectPod(addPort(15600)), injectConfig(), SkipPortTaken},
		"the last of our ports is taken":           {injectPod(addPort(15699)), injectConfig(), SkipPortTaken},
		"the port before ours is free":             {injectPod(addPort(15599)), injectConfig(), ""},
		"the port after ours is free":              {injectPod(addPort(15700)), injectConfig(), ""},
		"an app container with our name":           {injectPod(func(p *corev1.Pod) { p.Spec.Containers[0].Name = v1alpha1.ProxyContainer }), injectConfig(), SkipNameTaken},
		"an init container with our name":          {injectPod(addInit(v1alpha1.PrepareContainer)), injectConfig(), SkipNameTaken},
		"a volume with our name":                   {injectPod(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: v1alpha1.TokenVolume}} }), injectConfig(), SkipNameTaken},
		"baseline forbids NET_ADMIN":               {injectPod(), injectConfig(label("baseline")), SkipPodSecurity},
		"restricted forbids NET_ADMIN":             {injectPod(restricted), injectConfig(label("restricted")), SkipPodSecurity},
		"privileged allows everything":             {injectPod(), injectConfig(label("privileged")), ""},
		"the cluster's default level counts":       {injectPod(), injectConfig(func(c *InjectConfig) { c.PodSecurityDefault = "baseline" }), SkipPodSecurity},
		"a pod that is refused anyway is injected": {injectPod(func(p *corev1.Pod) { p.Spec.HostPID = true }), injectConfig(label("baseline")), ""},
		"tokens of the app become unreadable":      {injectPod(secretToken), injectConfig(), SkipTokenMode},
		"an fsGroup keeps tokens readable":         {injectPod(secretToken, func(p *corev1.Pod) { p.Spec.SecurityContext.FSGroup = new(int64(1)) }), injectConfig(), ""},
		"root reads every token":                   {injectPod(secretToken, func(p *corev1.Pod) { p.Spec.SecurityContext.RunAsUser = new(int64(0)) }), injectConfig(), ""},
		"a container maximum below its minimum":    {injectPod(), injectConfig(limit(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Min: list("2"), Max: list("1")})), SkipLimitRange},
		"a pod maximum that the sidecar exceeds": {
			injectPod(func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list("1") }),
			injectConfig(limit(corev1.LimitRangeItem{Type: corev1.LimitTypePod, Max: list("1")})), SkipLimitRange},
		"more probed ports than aliases":         {injectPod(probedPorts(81)), injectConfig(), SkipTooManyPorts},
		"as many probed ports as aliases":        {injectPod(probedPorts(80)), injectConfig(), ""},
		"annotations that fill what is accepted": {injectPod(annotation("big", strings.Repeat("x", 256<<10-3))), injectConfig(), SkipTooLarge},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			out, skip := Inject(tc.pod, tc.cfg)
			if skip.Reason != tc.want {
				t.Fatalf("skip = %q (%s), want %q", skip.Reason, skip.Message, tc.want)
			}
			injected := initContainer(out, v1alpha1.ProxyContainer) != nil && out.Labels[v1alpha1.InjectedLabel] == "true"
			if injected == skip.Skipped() {
				t.Errorf("injected = %t although skip = %q", injected, skip.Reason)
			}
			want := skip.String()
			if skip.Reason == SkipTooLarge {
				want = "" // no room for it either
			}
			if got := out.Annotations[v1alpha1.SkipAnnotation]; got != want {
				t.Errorf("annotation = %q, want %q", got, want)
			}
		})
	}
}

func addInit(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: name, Image: "example.com/other:1"})
	}
}

func addPort(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{ContainerPort: n})
	}
}

func restricted(p *corev1.Pod) {
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

// probedPorts gives the pod n containers, each with a port and a probe of it.
func probedPorts(n int) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers = nil
		for i := range n {
			port := int32(1000 + i)
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
				Ports:          []corev1.ContainerPort{{ContainerPort: port}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}},
			})
		}
	}
}
