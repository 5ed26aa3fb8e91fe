// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// servers are Prometheuses that count who asks them, and answer when the test lets them.
type servers struct {
	mu       sync.Mutex
	answer   chan struct{}  // nil: at once
	asked    map[string]int // by "address of namespace/workload"
	connects map[string]int
	now      int // how many named ones are being asked
	most     int
}

func (s *servers) connect(e Endpoint) (Counters, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connects == nil {
		s.connects, s.asked = map[string]int{}, map[string]int{}
	}
	s.connects[e.URL]++
	return oneServer{s, e.URL}, nil
}

type oneServer struct {
	*servers
	url string
}

func (s oneServer) Looks(ctx context.Context, at time.Time, targets []prometheus.Target) ([]analysis.Look, error) {
	s.mu.Lock()
	for _, t := range targets {
		s.asked[s.url+" of "+t.Namespace+"/"+t.Workload]++
	}
	answer := s.answer
	if s.url == "own" {
		answer = nil
	} else {
		s.now++
		s.most = max(s.most, s.now)
	}
	s.mu.Unlock()
	if answer != nil {
		<-answer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.url != "own" {
		s.now--
	}
	return healthy.Looks(ctx, at, targets)
}

func (s oneServer) Past(context.Context, prometheus.Target, prometheus.Span) ([]analysis.Look, error) {
	return nil, nil
}

// naming is a rollout whose policy names an address; "" names none.
func naming(t *testing.T, ns, name, url string) *v1alpha1.Rollout {
	t.Helper()
	r := record()
	r.Namespace, r.Name = ns, name
	if url != "" {
		r.Status.Policy = policyJSON(t, v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{Prometheus: &v1alpha1.PrometheusRef{URL: url}}})
	}
	return r
}

func TestASlowNamedAddressCostsOnlyItsNamespaceLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := watching(t, nil, naming(t, "shop", "web", ""), naming(t, "evil", "web", "slow"), naming(t, "evil", "api", "slower"))
		s := &servers{answer: make(chan struct{})}
		l.Prometheus, l.Connect = Endpoint{URL: "own"}, s.connect
		var waits []func() error
		for i := range 3 {
			waits = append(waits, l.look(t.Context(), at(5*i)))
			synctest.Wait()
		}
		if got := s.asked["own of shop/web"]; got != 3 || s.now != 1 {
			t.Errorf("asked own %d times, and %d slow ones at once; want 3 and 1", got, s.now)
		}
		close(s.answer)
		for _, wait := range waits {
			if err := wait(); err != nil {
				t.Error(err)
			}
		}
		want := map[string]int{"own of shop/web": 3, "slow of evil/web": 1, "slower of evil/api": 1}
		if d := cmp.Diff(want, s.asked); d != "" {
			t.Errorf("asked; looks that would overlap are left out (-want +got):\n%s", d)
		}
		lookFrom(t, l, 20, 1)
		if got := s.asked["slow of evil/web"]; got != 2 {
			t.Errorf("when it has answered it is asked again: %d times, want 2", got)
		}
	})
}

func TestFewNamedAddressesAreAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rollouts := []client.Object{}
		for i := range 3 * namedAtOnce {
			rollouts = append(rollouts, naming(t, fmt.Sprint("n", i), "web", fmt.Sprint("slow", i)))
		}
		l, woken := watching(t, nil, rollouts...)
		s := &servers{answer: make(chan struct{})}
		l.Prometheus, l.Connect = Endpoint{URL: "own"}, s.connect
		wait := l.look(t.Context(), at(5))
		synctest.Wait()
		close(s.answer)
		if err := wait(); err != nil {
			t.Error(err)
		}
		if s.most != namedAtOnce || len(*woken) != 3*namedAtOnce {
			t.Errorf("%d were asked at once, %d judged; want %d and all %d", s.most, len(*woken), namedAtOnce, 3*namedAtOnce)
		}
	})
}

func TestANamespaceIsLookedAtThroughFewAddresses(t *testing.T) {
	var rollouts []client.Object
	for i := range namedPerNamespace {
		rollouts = append(rollouts, naming(t, "shop", fmt.Sprint("web", i), fmt.Sprint("z", i)))
	}
	l, _ := watching(t, nil, rollouts...)
	s := &servers{}
	l.Prometheus, l.Connect = Endpoint{URL: "own"}, s.connect
	lookFrom(t, l, 5, 1)
	late := naming(t, "shop", "late", "a")
	if err := l.Client.(client.Client).Create(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	lookFrom(t, l, 10, 15)
	if len(s.connects) != namedPerNamespace || s.connects["a"] != 0 {
		t.Errorf("connected to %v; the first %d stay, and no more are added", s.connects, namedPerNamespace)
	}
	v, _ := l.Verdict(client.ObjectKeyFromObject(late), &late.Status)
	if v.Evidence == nil || !strings.Contains(v.Evidence.Missing, "too many") {
		t.Errorf("the late one's verdict is %+v with %+v", v, v.Evidence)
	}
}

func TestWhatHadToWaitIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := naming(t, "evil", "web", "slow")
		l, _ := watching(t, nil, gone, naming(t, "evil", "api", "slow"))
		s := &servers{}
		l.Prometheus, l.Connect = Endpoint{URL: "own"}, s.connect
		l.enter(nil) // makes the places
		for range namedAtOnce {
			l.named <- struct{}{}
		}
		wait := l.look(t.Context(), at(5))
		synctest.Wait()
		if err := l.Client.(client.Client).Delete(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		<-l.named
		if err := wait(); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(map[string]int{"slow of evil/api": 1}, s.asked); d != "" {
			t.Errorf("asked (-want +got):\n%s", d)
		}
	})
}

func TestClientsLiveAsLongAsTheyAreUsed(t *testing.T) {
	first, second := naming(t, "shop", "web", "first"), naming(t, "shop", "api", "second")
	elsewhere := naming(t, "bank", "web", "first")
	l, _ := watching(t, nil, first, second, elsewhere)
	c := l.Client.(client.Client)
	s := &servers{}
	l.Prometheus, l.Connect = Endpoint{URL: "own"}, s.connect
	kept := func() map[string]int {
		n := map[string]int{}
		for name, lane := range l.lanes {
			n[name] = len(lane.clients)
		}
		return n
	}
	lookFrom(t, l, 5, 2)
	if d := cmp.Diff(map[string]int{"first": 2, "second": 1}, s.connects); d != "" {
		t.Errorf("connected, once for each namespace (-want +got):\n%s", d)
	}
	for _, step := range []struct {
		over *v1alpha1.Rollout
		want map[string]int
	}{
		{second, map[string]int{"shop": 1, "bank": 1}},
		{elsewhere, map[string]int{"shop": 1}},
		{first, map[string]int{}},
	} {
		if err := c.Delete(t.Context(), step.over); err != nil {
			t.Fatal(err)
		}
		lookFrom(t, l, 20, 1)
		if d := cmp.Diff(step.want, kept()); d != "" {
			t.Errorf("clients by namespace without %s/%s (-want +got):\n%s", step.over.Namespace, step.over.Name, d)
		}
	}
}

// A Prometheus is asked as its policy says: with the workload's namespace's own Secret, and by a client of its own.
func TestEndpoints(t *testing.T) {
	own := Endpoint{URL: "own", Secret: types.NamespacedName{Namespace: "headgate-system", Name: "prometheus"}}
	secret := func(name string) *v1alpha1.SecretRef { return &v1alpha1.SecretRef{Name: name} }
	for name, tc := range map[string]struct {
		ref  *v1alpha1.PrometheusRef
		want Endpoint
	}{
		"a policy that names none":             {nil, own},
		"one that names the installation's":    {&v1alpha1.PrometheusRef{URL: "own"}, own},
		"another address has none of its keys": {&v1alpha1.PrometheusRef{URL: "other"}, Endpoint{URL: "other"}},
		"a Secret": {&v1alpha1.PrometheusRef{URL: "other", SecretRef: secret("s")},
			Endpoint{URL: "other", Secret: types.NamespacedName{Namespace: "shop", Name: "s"}}},
		"the installation's address as somebody else": {&v1alpha1.PrometheusRef{URL: "own", SecretRef: secret("prometheus")},
			Endpoint{URL: "own", Secret: types.NamespacedName{Namespace: "shop", Name: "prometheus"}}},
	} {
		policy := &v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{Prometheus: tc.ref}}
		if d := cmp.Diff(tc.want, endpointOf(policy, own, "shop")); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	var rollouts []client.Object
	for _, as := range []string{"a", "b"} {
		r := naming(t, "shop", as, "own")
		r.Status.Policy = policyJSON(t, v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{Prometheus: &v1alpha1.PrometheusRef{URL: "own", SecretRef: secret(as)}}})
		rollouts = append(rollouts, r)
	}
	l, _ := watching(t, nil, rollouts...)
	s := &servers{}
	l.Prometheus, l.Connect = own, s.connect
	lookFrom(t, l, 5, 2)
	if s.connects["own"] != 2 || len(l.lanes) != 1 || l.lanes["shop"] == nil {
		t.Errorf("connected %d times, lanes %v; want once for each Secret, in the namespace's lane", s.connects["own"], l.lanes)
	}
}
