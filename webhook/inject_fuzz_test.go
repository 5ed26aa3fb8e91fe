// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/api/v1alpha1"
)

// checkInjected holds what is true for every pod, whatever is in it.
func checkInjected(t *testing.T, pod *corev1.Pod, cfg InjectConfig) {
	t.Helper()
	before := pod.DeepCopy()
	out, skip := Inject(pod, cfg)
	if diff := cmp.Diff(before, pod, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("the input changed (-before +after):\n%s", diff)
	}
	again, skipAgain := Inject(out, cfg)
	if diff := cmp.Diff(out, again, cmpopts.EquateEmpty()); diff != "" || skip.Reason != skipAgain.Reason {
		t.Fatalf("the second call differs, skip %q then %q (-first +second):\n%s", skip, skipAgain, diff)
	}
	if skip.Skipped() {
		return
	}
	checkAppContainers(t, pod, out)
	checkPorts(t, out)
	names := map[string]int{}
	for _, c := range append(out.Spec.InitContainers[:2:2], out.Spec.Containers...) {
		names[c.Name]++
	}
	if names[v1alpha1.PrepareContainer] != 1 || names[v1alpha1.ProxyContainer] != 1 {
		t.Errorf("containers = %v, want each of ours once, in front", names)
	}
	for _, c := range out.Spec.Containers {
		if s := c.Lifecycle.PreStop.Sleep; s != nil && s.Seconds == PreStopSeconds && *out.Spec.TerminationGracePeriodSeconds < PreStopSeconds {
			t.Errorf("grace %d s is shorter than the sleep: the API refuses that", *out.Spec.TerminationGracePeriodSeconds)
		}
	}
}

// checkAppContainers: but for ports of probes and hooks, and a preStop, they are as they were.
func checkAppContainers(t *testing.T, pod, out *corev1.Pod) {
	t.Helper()
	mask := func(list []corev1.Container) []corev1.Container {
		var masked []corev1.Container
		for i := range list {
			if isOwn(&list[i]) {
				continue
			}
			c := list[i].DeepCopy()
			for _, target := range probeTargets(c) {
				target.set(0)
			}
			if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Sleep != nil && c.Lifecycle.PreStop.Sleep.Seconds == PreStopSeconds {
				c.Lifecycle.PreStop = nil
			}
			if c.Lifecycle != nil && *c.Lifecycle == (corev1.Lifecycle{}) {
				c.Lifecycle = nil
			}
			masked = append(masked, *c)
		}
		return masked
	}
	for what, diff := range map[string]string{
		"app":  cmp.Diff(mask(pod.Spec.Containers), mask(out.Spec.Containers), cmpopts.EquateEmpty()),
		"init": cmp.Diff(mask(pod.Spec.InitContainers), mask(out.Spec.InitContainers), cmpopts.EquateEmpty()),
	} {
		if diff != "" {
			t.Errorf("%s containers changed (-before +after):\n%s", what, diff)
		}
	}
}

// checkPorts: captured ports ascend, aliases are in their range and unique, and nothing that the
// kubelet connects to is captured any more.
func checkPorts(t *testing.T, out *corev1.Pod) {
	t.Helper()
	injection, err := v1alpha1.ParseInjection(out.Annotations[v1alpha1.InjectionAnnotation])
	if err != nil {
		t.Fatal(err)
	}
	captured, aliases, last := map[int32]bool{}, map[int32]bool{}, int32(0)
	for _, p := range injection.Ports {
		if p.Port <= last {
			t.Errorf("port %d after %d", p.Port, last)
		}
		last, captured[p.Port] = p.Port, true
		if p.Alias != 0 && (aliases[p.Alias] || p.Alias < v1alpha1.FirstAliasPort || p.Alias > lastReservedPort) {
			t.Errorf("alias %d is not unique or out of range", p.Alias)
		}
		aliases[p.Alias] = true
	}
	for _, c := range lastingContainers(out) {
		for _, target := range probeTargets(c) {
			if captured[target.port] {
				t.Errorf("container %q: a probe or hook names the captured port %d", c.Name, target.port)
			}
		}
	}
}

// around is what of the namespace an injection depends on.
type around struct {
	Services       []corev1.Service        `json:"services"`
	LimitRanges    []corev1.LimitRangeItem `json:"limitRanges"`
	QuotaResources []corev1.ResourceName   `json:"quotaResources"`
}

// FuzzInject reads pods and what is around them as YAML, so that the corpus can be read, and feeds the result of one
// call to the next.
func FuzzInject(f *testing.F) {
	surroundings := []string{
		`{}`,
		`{services: [{spec: {ports: [{port: 80, targetPort: http, name: grpc-web}, {port: 8080, appProtocol: kubernetes.io/h2c}]}}, {spec: {ports: [{port: 8080, name: tcp}]}}]}`,
		`{limitRanges: [{type: Container, min: {cpu: 20m}, max: {memory: 1Gi}, default: {cpu: 1}, defaultRequest: {ephemeral-storage: 1Ki}, maxLimitRequestRatio: {memory: 1500m}}]}`,
		`{limitRanges: [{type: Pod, max: {memory: 200Mi}, maxLimitRequestRatio: {cpu: 1}}], quotaResources: [limits.cpu, requests.ephemeral-storage]}`,
	}
	inputs, err := filepath.Glob("testdata/inject/*.yaml")
	if err != nil || len(inputs) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, input := range inputs {
		text, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		for _, a := range surroundings {
			f.Add(text, []byte(a))
		}
	}
	f.Add([]byte(`{spec: {containers: [{ports: [{containerPort: 15620}]}], initContainers: [{name: headgate-proxy}]}, metadata: {annotations: {headgate.dev/injection: '{"workload":"web","revision":"6d4b75cb6d","ports":[{"port":15620,"alias":15620}]}'}}}`), []byte(surroundings[0]))
	f.Fuzz(func(t *testing.T, text, surrounding []byte) {
		var pod corev1.Pod
		var a around
		if yaml.Unmarshal(text, &pod) != nil || yaml.Unmarshal(surrounding, &a) != nil {
			return
		}
		checkInjected(t, &pod, injectConfig(func(c *InjectConfig) {
			c.Services, c.LimitRanges, c.QuotaResources = a.Services, a.LimitRanges, a.QuotaResources
		}))
		for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
			checkPodSecurity(t, &pod, level)
		}
	})
}

// checkPodSecurity: a pod that the level of its namespace lets in is let in as it comes out, injected or not.
func checkPodSecurity(t *testing.T, pod *corev1.Pod, level api.Level) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	allows := func(p *corev1.Pod) bool {
		at := api.LevelVersion{Level: level, Version: api.LatestVersion()}
		return policy.AggregateCheckResults(evaluator.EvaluatePod(at, &p.ObjectMeta, &p.Spec)).Allowed
	}
	out, skip := Inject(pod, injectConfig(func(c *InjectConfig) {
		c.NamespaceLabels = map[string]string{api.EnforceLevelLabel: string(level)}
	}))
	if allows(pod) && !allows(out) {
		t.Errorf("%s lets the pod in, but not what it became (skip %q)", level, skip)
	}
}

// TestInjectProperties checks the same on random pods that get far: byte fuzzing rarely makes a pod
// whose ports, probes and hooks refer to each other.
func TestInjectProperties(t *testing.T) {
	injected := 0
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		pod := randomPod(r)
		checkInjected(t, pod, injectConfig())
		checkPodSecurity(t, pod, api.LevelBaseline)
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
		if _, skip := Inject(pod, injectConfig()); !skip.Skipped() {
			injected++
		}
	}
	if injected < 200 {
		t.Errorf("only %d of 500 random pods were injected", injected)
	}
}

func randomPod(r *rand.Rand) *corev1.Pod {
	pod := &corev1.Pod{}
	names := []string{"", "http", "grpc"}
	ports := []int32{80, 8080, 9090, 15599, 15700, 65535}
	port := func() intstr.IntOrString {
		if r.IntN(2) == 0 {
			return intstr.FromString(names[r.IntN(len(names))])
		}
		return intstr.FromInt32(ports[r.IntN(len(ports))])
	}
	host := func() string { return []string{"", "", "", "localhost"}[r.IntN(4)] }
	handler := func() corev1.ProbeHandler {
		switch r.IntN(3) {
		case 0:
			return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: port(), Host: host()}}
		case 1:
			return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port(), Host: host()}}
		default:
			return corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: ports[r.IntN(len(ports))]}}
		}
	}
	for i := range 1 + r.IntN(4) {
		c := corev1.Container{Name: string(rune('a' + i))}
		for range r.IntN(3) {
			protocol := []corev1.Protocol{"", corev1.ProtocolTCP, corev1.ProtocolUDP}[r.IntN(3)]
			c.Ports = append(c.Ports, corev1.ContainerPort{Name: names[r.IntN(len(names))], ContainerPort: ports[r.IntN(len(ports))], Protocol: protocol})
		}
		for _, p := range []**corev1.Probe{&c.StartupProbe, &c.ReadinessProbe, &c.LivenessProbe} {
			if r.IntN(2) == 0 {
				*p = &corev1.Probe{ProbeHandler: handler()}
			}
		}
		if r.IntN(3) == 0 {
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: port(), Host: host()}}}
		}
		switch {
		case i > 0 && r.IntN(3) == 0:
			c.Lifecycle, c.RestartPolicy = nil, new(corev1.ContainerRestartPolicyAlways)
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
		default:
			pod.Spec.Containers = append(pod.Spec.Containers, c)
		}
	}
	if r.IntN(2) == 0 {
		pod.Spec.TerminationGracePeriodSeconds = new(int64(r.IntN(40)))
	}
	return pod
}
