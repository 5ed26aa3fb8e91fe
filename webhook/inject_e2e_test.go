// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package webhook

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// TestInjectIsAcceptedByARealAPIServer creates, dry, what Inject makes: validation, defaulting, Pod
// Security, LimitRanger and ResourceQuota are the server's own. What comes back, defaults and all, is
// injected again, and must not change any more.
func TestInjectIsAcceptedByARealAPIServer(t *testing.T) {
	if os.Getenv("KUBECONFIG") == "" {
		t.Skip("needs KUBECONFIG, of any cluster")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	plain := injectNamespace(t, client, "")
	baseline := injectNamespace(t, client, "baseline")
	limited := injectNamespace(t, client, "")
	limits := limitNamespace(t, client, limited)
	quota := func(c *InjectConfig) {
		c.QuotaResources = []corev1.ResourceName{"limits.cpu", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "limits.ephemeral-storage"}
		c.LimitRanges = limits
	}
	grace := func(s int64) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = &s }
	}
	tests := map[string]struct {
		namespace string
		pod       *corev1.Pod
		cfg       InjectConfig
		want      SkipReason
	}{
		"the smallest pod":        {plain, injectPod(), injectConfig(), ""},
		"a typical pod":           {plain, readPod(t, "testdata/inject/typical.in.yaml"), injectConfig(), ""},
		"no grace":                {plain, injectPod(grace(0)), injectConfig(), ""},
		"a short grace":           {plain, injectPod(grace(3)), injectConfig(), ""},
		"the longest grace":       {plain, injectPod(grace(1<<63 - 1)), injectConfig(), ""},
		"80 probed ports":         {plain, injectPod(probedPorts(80), named), injectConfig(), ""},
		"restricted as far as is": {plain, injectPod(restricted), injectConfig(), ""},
		"a user namespace":        {plain, injectPod(func(p *corev1.Pod) { p.Spec.HostUsers = new(false) }), injectConfig(), ""},
		"resources for the whole pod": {plain, injectPod(func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: cpuAndMemory("1m", "1Mi"), Limits: cpuAndMemory("2m", "2Mi")}
		}), injectConfig(), ""},
		"hooks and a gRPC probe": {plain, injectPod(func(p *corev1.Pod) {
			c := &p.Spec.Containers[0]
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}}
			hook := &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("http")}}
			c.Lifecycle = &corev1.Lifecycle{PostStart: hook, PreStop: hook}
		}), injectConfig(), ""},
		"a namespace with quota and limits": {limited, injectPod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: everything("20m", "20Mi", "8Mi"), Limits: everything("40m", "40Mi", "16Mi")}
		}), injectConfig(quota), ""},
		"baseline is left alone": {baseline, injectPod(), injectConfig(func(c *InjectConfig) {
			c.NamespaceLabels = map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}
		}), SkipPodSecurity},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.pod.Name, tc.pod.GenerateName, tc.pod.Namespace = "injected", "", ""
			out, skip := Inject(tc.pod, tc.cfg)
			if skip.Reason != tc.want {
				t.Fatalf("skip = %v, want %q", skip, tc.want)
			}
			created, err := client.CoreV1().Pods(tc.namespace).Create(t.Context(), out, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			if !skip.Skipped() {
				checkInjected(t, created, tc.cfg)
			}
		})
	}
	t.Run("what is skipped would have been refused", func(t *testing.T) {
		out, _ := Inject(injectPod(), injectConfig())
		out.Name = "injected"
		_, err := client.CoreV1().Pods(baseline).Create(t.Context(), out, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "NET_ADMIN") {
			t.Errorf("err = %v, want that Pod Security forbids NET_ADMIN", err)
		}
	})
}

func injectNamespace(t *testing.T, client kubernetes.Interface, level string) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "inject-test-"}}
	if level != "" {
		ns.Labels = map[string]string{"pod-security.kubernetes.io/enforce": level}
	}
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Log(err)
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for { // pods are refused until the namespace's service account is there
		if _, err := client.CoreV1().ServiceAccounts(ns.Name).Get(t.Context(), "default", metav1.GetOptions{}); err == nil {
			return ns.Name
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// limitNamespace demands limits of every container, and narrow ones.
func limitNamespace(t *testing.T, client kubernetes.Interface, ns string) []corev1.LimitRangeItem {
	t.Helper()
	items := []corev1.LimitRangeItem{
		{Type: corev1.LimitTypeContainer, Min: cpuAndMemory("20m", "16Mi"), Max: cpuAndMemory("500m", "48Mi"), MaxLimitRequestRatio: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}},
		{Type: corev1.LimitTypePod, Max: cpuAndMemory("2", "1Gi")},
	}
	lr := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "limits"}, Spec: corev1.LimitRangeSpec{Limits: items}}
	lr, err := client.CoreV1().LimitRanges(ns).Create(t.Context(), lr, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	hard := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{"limits.cpu", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "limits.ephemeral-storage"} {
		hard[name] = resource.MustParse("100Gi")
	}
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "quota"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	if _, err := client.CoreV1().ResourceQuotas(ns).Create(t.Context(), q, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return lr.Spec.Limits
}

func cpuAndMemory(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

func everything(cpu, memory, storage string) corev1.ResourceList {
	list := cpuAndMemory(cpu, memory)
	list[corev1.ResourceEphemeralStorage] = resource.MustParse(storage)
	return list
}

// named completes containers that were made without a name or image.
func named(p *corev1.Pod) {
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].Name, p.Spec.Containers[i].Image = fmt.Sprintf("c%d", i), "example.com/app:1"
	}
}
