// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestTargets(t *testing.T) {
	pod := func(namespace, name, ip string, phase corev1.PodPhase, change ...func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: name, Labels: map[string]string{"headgate.dev/injected": "true"},
				Annotations:     map[string]string{"headgate.dev/injection": `{"workload":"web","revision":"aaa"}`},
				OwnerReferences: owner("ReplicaSet", "web-aaa"),
			},
			Status: corev1.PodStatus{PodIP: ip, Phase: phase},
		}
		for _, c := range change {
			c(p)
		}
		return p
	}
	namespace := func(name, enabled string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"headgate.dev/enabled": enabled}}}
	}
	for name, tc := range map[string]struct {
		pods []client.Object
		want string
	}{
		"no pods are an empty list, not null": {want: "[]\n"},
		"sidecars of all namespaces, in order, IPv6 in brackets": {
			pods: []client.Object{
				pod("shop", "b", "fd00::7", corev1.PodRunning),
				pod("shop", "a", "10.0.0.2", corev1.PodPending),
				pod("bank", "c", "10.0.0.1", corev1.PodRunning),
			},
			want: `[{"targets":["10.0.0.1:15603"],"labels":{"namespace":"bank","pod":"c"}},` +
				`{"targets":["10.0.0.2:15603"],"labels":{"namespace":"shop","pod":"a"}},` +
				`{"targets":["[fd00::7]:15603"],"labels":{"namespace":"shop","pod":"b"}}]` + "\n",
		},
		"pods without a sidecar, without an address, or that ended are none": {
			pods: []client.Object{
				pod("shop", "plain", "10.0.0.1", corev1.PodRunning, func(p *corev1.Pod) { p.Labels = nil }),
				pod("shop", "new", "", corev1.PodPending),
				pod("shop", "done", "10.0.0.2", corev1.PodSucceeded),
				pod("shop", "evicted", "10.0.0.3", corev1.PodFailed),
			},
			want: "[]\n",
		},
		"what only has the label is no sidecar": {
			pods: []client.Object{
				pod("evil", "elsewhere", "10.0.0.1", corev1.PodRunning),
				pod("lab", "disabled", "10.0.0.2", corev1.PodRunning),
				pod("shop", "forged", "10.0.0.3", corev1.PodRunning, func(p *corev1.Pod) { p.Annotations = nil }),
				pod("shop", "alone", "10.0.0.4", corev1.PodRunning, func(p *corev1.Pod) { p.OwnerReferences = nil }),
				pod("shop", "set", "10.0.0.5", corev1.PodRunning, func(p *corev1.Pod) { p.OwnerReferences = owner("StatefulSet", "db") }),
				pod("shop", "real", "10.0.0.6", corev1.PodRunning),
			},
			want: `[{"targets":["10.0.0.6:15603"],"labels":{"namespace":"shop","pod":"real"}}]` + "\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			reader := fake.NewClientBuilder().WithObjects(tc.pods...).
				WithObjects(namespace("shop", "true"), namespace("bank", "true"), namespace("lab", "false")).Build()
			Targets(reader).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), "GET", TargetsPath, nil))
			if got := recorder.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("content type %q, which Prometheus refuses", got)
			}
			if d := cmp.Diff(tc.want, recorder.Body.String()); d != "" {
				t.Errorf("body (-want +got):\n%s", d)
			}
		})
	}
}
