// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/controller"
	"github.com/headgate/headgate/xds/server"
)

func owner(kind, name string) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: types.UID(name), Controller: &yes}}
}

func TestIdentityComesFromOwnersAlone(t *testing.T) {
	pod := func(owners []metav1.OwnerReference) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-1", UID: "pod-uid", OwnerReferences: owners,
			// What a tenant writes himself counts for nothing.
			Labels:      map[string]string{"pod-template-hash": "forged"},
			Annotations: map[string]string{"headgate.dev/injection": `{"workload":"forged","revision":"forged"}`},
		}}
	}
	replicaSet := func(owners []metav1.OwnerReference) *appsv1.ReplicaSet {
		return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-aaa", OwnerReferences: owners, Labels: map[string]string{"pod-template-hash": "aaa"}}}
	}
	who := server.Identity{Namespace: "shop", Pod: "web-1", PodUID: "pod-uid"}
	isWorkloadless := func(err error) bool { return errors.Is(err, errNoWorkload) }
	for name, tc := range map[string]struct {
		objects []client.Object
		who     server.Identity
		want    server.Key
		refused func(error) bool
	}{
		"a pod of a Deployment": {
			objects: []client.Object{pod(owner("ReplicaSet", "web-aaa")), replicaSet(owner("Deployment", "web"))},
			who:     who, want: server.Key{Namespace: "shop", Name: "web", Revision: "aaa"},
		},
		"a pod that is gone":                {who: who, refused: apierrors.IsNotFound},
		"a pod of the same name made later": {objects: []client.Object{pod(owner("ReplicaSet", "web-aaa")), replicaSet(owner("Deployment", "web"))}, who: server.Identity{Namespace: "shop", Pod: "web-1", PodUID: "old"}, refused: func(err error) bool { return err != nil }},
		"the pod of another namespace":      {objects: []client.Object{pod(owner("ReplicaSet", "web-aaa")), replicaSet(owner("Deployment", "web"))}, who: server.Identity{Namespace: "bank", Pod: "web-1", PodUID: "pod-uid"}, refused: apierrors.IsNotFound},
		"a pod that nobody owns":            {objects: []client.Object{pod(nil)}, who: who, refused: isWorkloadless},
		"a pod of a StatefulSet":            {objects: []client.Object{pod(owner("StatefulSet", "web"))}, who: who, refused: isWorkloadless},
		"its ReplicaSet is gone":            {objects: []client.Object{pod(owner("ReplicaSet", "web-aaa"))}, who: who, refused: apierrors.IsNotFound},
		"a ReplicaSet that nobody owns":     {objects: []client.Object{pod(owner("ReplicaSet", "web-aaa")), replicaSet(nil)}, who: who, refused: isWorkloadless},
	} {
		t.Run(name, func(t *testing.T) {
			l := locator{fake.NewClientBuilder().WithObjects(tc.objects...).Build()}
			got, err := l.Locate(t.Context(), tc.who)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("key (-want +got):\n%s", d)
			}
			if tc.refused == nil && err != nil || tc.refused != nil && !tc.refused(err) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestOtherReplicasAreFollowed(t *testing.T) {
	replica := func(namespace, name, ip string, phase corev1.PodPhase, app string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app.kubernetes.io/name": app}},
			Status:     corev1.PodStatus{PodIP: ip, Phase: phase},
		}
	}
	t.Setenv("POD_NAME", "headgate-1")
	f := &follower{options: Options{Namespace: "headgate-system", XDSPort: 15610}, reader: fake.NewClientBuilder().WithObjects(
		replica("headgate-system", "headgate-1", "10.0.0.1", corev1.PodRunning, "headgate"), // this one
		replica("headgate-system", "headgate-3", "fd00::3", corev1.PodRunning, "headgate"),
		replica("headgate-system", "headgate-2", "10.0.0.2", corev1.PodRunning, "headgate"),
		replica("headgate-system", "headgate-4", "10.0.0.4", corev1.PodFailed, "headgate"),
		replica("headgate-system", "headgate-5", "", corev1.PodRunning, "headgate"),
		replica("headgate-system", "prometheus", "10.0.0.6", corev1.PodRunning, "prometheus"),
		replica("shop", "headgate-7", "10.0.0.7", corev1.PodRunning, "headgate"), // not in Headgate's namespace
	).Build()}
	got, err := f.others(t.Context())
	if d := cmp.Diff([]string{"10.0.0.2:15610", "[fd00::3]:15610"}, got); d != "" || err != nil {
		t.Errorf("addresses (-want +got), error %v:\n%s", err, d)
	}
}

func TestTokenOfTheReplica(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if _, err := readToken(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file the error is %v", err)
	}
	if err := os.WriteFile(file, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := readToken(file); token != "abc" || err != nil {
		t.Errorf("the token is %q, %v", token, err)
	}
}

func TestWakingNeverBlocks(t *testing.T) {
	wake := make(chan types.NamespacedName, 1)
	first, second := types.NamespacedName{Name: "first"}, types.NamespacedName{Name: "second"}
	notify(wake, first)
	notify(wake, second) // full: dropped
	if got := <-wake; got != first || len(wake) != 0 {
		t.Errorf("woken %v, and %d more", got, len(wake))
	}
}

func TestOwnUser(t *testing.T) {
	o := Options{Namespace: "headgate-system", ServiceAccount: "headgate"}
	if got, want := o.user(), "system:serviceaccount:headgate-system:headgate"; got != want {
		t.Errorf("user %q, want %q", got, want)
	}
}

func TestAddressesThatPoliciesNameMayAnswerLess(t *testing.T) {
	p := prometheuses{own: Options{PrometheusURL: "http://own:9090"}.own()}
	for url, want := range map[string]prometheus.Config{
		"http://own:9090":  {URL: "http://own:9090"},
		"http://evil:9090": {URL: "http://evil:9090", MaxCounters: 1 << 20},
	} {
		if d := cmp.Diff(want, p.config(controller.Endpoint{URL: url})); d != "" {
			t.Errorf("%s (-want +got):\n%s", url, d)
		}
	}
}
