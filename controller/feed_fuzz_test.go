// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/headgate/headgate/internal/envoyrules"
	"github.com/headgate/headgate/webhook"
	"github.com/headgate/headgate/xds"
)

// Pods of two revisions between which port names moved, as far as Services and the webhook read them.
const (
	before8080 = `{"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}, {"name": "rpc", "containerPort": 9090}]}]}`
	after8081  = `{"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8081}, {"containerPort": 9090}, {"containerPort": 53, "protocol": "UDP"}]}]}`
)

// FuzzServices lets any Services lead to pods of two revisions: some when the webhook injected the pods, and others, for
// Services change, when their sidecars are told what to do. Whatever they say, the sidecars get a configuration that
// Envoy accepts.
func FuzzServices(f *testing.F) {
	services := readServices(f)
	f.Add(services, services, []byte(before8080), []byte(after8081), byte(10))
	f.Add(services, []byte(`{"items": [{"spec": {"selector": {"pod-template-hash": "aaa"}, "ports": [{"port": 8080}]}}]}`), []byte(before8080), []byte(before8080), byte(100))
	f.Add([]byte(`{}`), services, []byte(after8081), []byte(`{}`), byte(0))
	f.Fuzz(func(t *testing.T, then, now, stable, candidate []byte, weight byte) {
		all, ok := configured(then, now, stable, candidate, weight)
		if !ok {
			t.Skip()
		}
		checkConfigurations(t, all)
	})
}

// What the fuzzer begins with means something: ports are split, with others of the candidate, and Services say how.
func TestServicesOfTheFuzzerLeadToPods(t *testing.T) {
	services := readServices(t)
	all, ok := configured(services, services, []byte(before8080), []byte(after8081), 10)
	if !ok {
		t.Fatal("these are no Services and pods")
	}
	var got [][]xds.Port
	for _, w := range all {
		got = append(got, w.Ports)
	}
	want := [][]xds.Port{
		{{Number: 8080, Peer: 8081}, {Number: 9090, Protocol: xds.HTTP, Peer: 9090}}, // one Service calls 8080 http, another one tcp
		{{Number: 8081, Protocol: xds.HTTP, Peer: 8080}, {Number: 9090, Protocol: xds.HTTP, Peer: 9090}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ports (-want +got):\n%s", d)
	}
	checkConfigurations(t, all)
}

// readServices are some as the API server returns them.
func readServices(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/api/services.json")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// configured is what the sidecars of both revisions are told: Services (when the pods were created, and now) and specs
// of pods are JSON; false where it is not.
func configured(then, now, stable, candidate []byte, weight byte) ([]xds.Workload, bool) {
	var created, services corev1.ServiceList
	if json.Unmarshal(then, &created) != nil || json.Unmarshal(now, &services) != nil {
		return nil, false
	}
	var pods []*corev1.Pod
	for hash, text := range map[string][]byte{stableHash: stable, candidateHash: candidate} {
		var spec corev1.PodSpec
		if json.Unmarshal(text, &spec) != nil {
			return nil, false
		}
		pods = append(pods, injected(hash, spec, created.Items))
	}
	w := view(pods...)
	w.record.Status.Weight = int32(weight % 101)
	return w.configurations(services.Items), true
}

// injected is a pod of a revision as the webhook admitted it, with whatever Services there were.
func injected(hash string, spec corev1.PodSpec, services []corev1.Service) *corev1.Pod {
	pod := podOf(hash, "p-"+hash, "10.0.0."+map[string]string{stableHash: "1", candidateHash: "2"}[hash], uninjected)
	replaceSpec(pod, spec)
	cfg := webhook.InjectConfig{Workload: "web", Revision: hash}
	for _, s := range services {
		if len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			cfg.Services = append(cfg.Services, s)
		}
	}
	out, _ := webhook.Inject(pod, cfg)
	return out
}

// replaceSpec leaves a pod its gates and its node.
func replaceSpec(pod *corev1.Pod, spec corev1.PodSpec) {
	spec.ReadinessGates, spec.NodeName = pod.Spec.ReadinessGates, pod.Spec.NodeName
	pod.Spec = spec
}

// checkConfigurations: each can be translated, into what Envoy's own rules accept, and requests for the other revision
// go to ports that its sidecars capture.
func checkConfigurations(t *testing.T, all []xds.Workload) {
	t.Helper()
	captured := map[string]map[uint32]bool{}
	for _, w := range all {
		captured[w.Revision] = map[uint32]bool{}
		for _, p := range w.Ports {
			captured[w.Revision][p.Number] = true
		}
	}
	for _, w := range all {
		for _, p := range w.Ports {
			if p.Peer != 0 && !captured[w.Split.Peer][p.Peer] {
				t.Errorf("port %d of %s is split with port %d, which %s does not capture", p.Number, w.Revision, p.Peer, w.Split.Peer)
			}
		}
		r, err := xds.Translate(w)
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range xds.Types() {
			for _, x := range r[typ] {
				if err := envoyrules.CheckPacked(x.Body); err != nil {
					t.Errorf("%s %q: %v", typ, x.Name, err)
				}
			}
		}
	}
}
