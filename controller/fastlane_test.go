// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// withFastLane looks at the record through Prometheus and the fast lane; nil: no Prometheus is configured. This process has
// been leader since noon less a minute, which is before the rollout.
func withFastLane(t *testing.T, prom Counters, fast FastLane, change ...func(*v1alpha1.RolloutStatus)) *Looks {
	t.Helper()
	r := record()
	for _, c := range change {
		c(&r.Status)
	}
	l, _ := watching(t, prom, r)
	l.FastLane = fast
	l.leads(at(-60))
	return l
}

func TestFastLaneOnlyRollsBack(t *testing.T) {
	off := func(s *v1alpha1.RolloutStatus) {
		s.Policy = policyJSON(t, v1alpha1.RolloutPolicySpec{Analysis: v1alpha1.Analysis{SuccessRate: v1alpha1.SuccessRate{Disabled: true}}})
	}
	for name, tc := range map[string]struct {
		prom   Counters
		fast   counters
		change []func(*v1alpha1.RolloutStatus)
		want   v1alpha1.Result
		says   bool // that the sidecars were read
	}{
		"a failing candidate without Prometheus":                   {nil, failing, nil, v1alpha1.ResultFail, true},
		"a failing candidate that Prometheus says nothing against": {healthy, failing, nil, v1alpha1.ResultFail, true},
		"both against it: Prometheus has the word":                 {failing, failing, nil, v1alpha1.ResultFail, false},
		"a good candidate without Prometheus is not promoted":      {nil, healthy, nil, v1alpha1.ResultHold, false},
		"a good candidate, by Prometheus too":                      {healthy, healthy, nil, v1alpha1.ResultPass, false},
		"errors are not judged":                                    {nil, failing, []func(*v1alpha1.RolloutStatus){off}, v1alpha1.ResultHold, false},
		"nothing is in force": {
			nil, failing, []func(*v1alpha1.RolloutStatus){func(s *v1alpha1.RolloutStatus) { s.WeightInForce = 0 }}, v1alpha1.ResultUndecided, false,
		},
		"the policy is lost": {nil, failing, []func(*v1alpha1.RolloutStatus){func(s *v1alpha1.RolloutStatus) { s.Policy = "{" }}, v1alpha1.ResultHold, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := withFastLane(t, tc.prom, tc.fast, tc.change...)
			lookFrom(t, l, 5, 20)
			s := record().Status
			for _, c := range tc.change {
				c(&s)
			}
			v, _ := l.Verdict(webKey, &s)
			if says := strings.HasSuffix(v.Message, fastSource); v.Result != tc.want || says != tc.says {
				t.Errorf("verdict %s, %q; want %s, from the sidecars: %t", v.Result, v.Message, tc.want, tc.says)
			}
		})
	}
}

func TestFastLaneStaysAtItsWord(t *testing.T) {
	l := withFastLane(t, nil, failing)
	lookFrom(t, l, 5, 20)
	l.FastLane = healthy
	lookFrom(t, l, 105, 20)
	next := record().Status
	next.Step = 1
	if v, _ := l.Verdict(webKey, &next); v.Result != v1alpha1.ResultFail {
		t.Errorf("verdict in the next step: %s, %q", v.Result, v.Message)
	}
	retry := record().Status
	retry.StartedAt = &metav1.MicroTime{Time: at(900)}
	if v, _ := l.Verdict(webKey, &retry); v.Result != "" {
		t.Errorf("verdict about another rollout: %s, %q", v.Result, v.Message)
	}
	l.Forget(webKey)
	if v, _ := l.Verdict(webKey, &next); v.Result != "" {
		t.Errorf("verdict about what is forgotten: %s, %q", v.Result, v.Message)
	}
}

// The chances of error that a rollout has, another leader may have taken already.
func TestFastLaneTakesUpARolloutWithoutItsBeginning(t *testing.T) {
	for name, tc := range map[string]struct {
		since time.Time
		state string // of the other judge, in the record
		lost  bool
	}{
		"it was there at the beginning": {at(-1), "", false},
		"it was not":                    {at(1), "", true},
		"nobody knows":                  {time.Time{}, "", true},
		"its clock is behind":           {at(-1), "{}", true},
	} {
		t.Run(name, func(t *testing.T) {
			l := withFastLane(t, nil, failing, func(s *v1alpha1.RolloutStatus) { s.JudgeState = tc.state })
			l.leads(tc.since)
			lookFrom(t, l, 5, 2) // at the first the other judge may not have begun
			if lost := l.fast[webKey].state.Lost; lost != tc.lost {
				t.Errorf("the beginning counts as lost: %t, want %t", lost, tc.lost)
			}
		})
	}
}

// How much pods differ is known from before the rollout; without that only what no noise explains is a failure.
func TestFastLaneIsCarefulWithoutAHistory(t *testing.T) {
	known := func(minutes int) Counters {
		return remembering{counters: healthy, asked: &[]prometheus.Span{}, minutes: minutes}
	}
	some := counters{candidate: analysis.Counts{Requests: 100, Errors: 15}, stable: analysis.Counts{Requests: 900}}
	most := counters{candidate: analysis.Counts{Requests: 100, Errors: 60}, stable: analysis.Counts{Requests: 900}}
	for name, tc := range map[string]struct {
		prom Counters
		fast counters
		want bool
	}{
		"15 % fail, with a history":           {known(20), some, true},
		"15 % fail, with a short history":     {known(9), some, false},
		"15 % fail, without Prometheus":       {nil, some, false},
		"60 % fail, without Prometheus":       {nil, most, true},
		"nothing fails, without Prometheus":   {nil, healthy, false},
		"nothing fails, with a short history": {known(9), healthy, false},
		"nothing fails, with plenty of it":    {known(20), healthy, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := withFastLane(t, tc.prom, tc.fast)
			lookFrom(t, l, 5, 30)
			if v := l.fast[webKey].verdict; (v.Result == v1alpha1.ResultFail) != tc.want {
				t.Errorf("verdict %s, %q; fails, want %t", v.Result, v.Message, tc.want)
			}
		})
	}
}

// heldUp is a fast lane that fails, and may wait first.
type heldUp struct {
	counters
	begun, end chan struct{}
}

var errUnread = errors.New("no sidecar answers")

func (h heldUp) Looks(ctx context.Context, at time.Time, targets []prometheus.Target) ([]analysis.Look, error) {
	h.begun <- struct{}{}
	<-h.end
	looks, _ := h.counters.Looks(ctx, at, targets)
	return looks, errUnread
}

func TestFastLaneDoesNotOverlap(t *testing.T) {
	slow := heldUp{failing, make(chan struct{}, 2), make(chan struct{})}
	l := withFastLane(t, healthy, slow)
	first := l.look(t.Context(), at(5))
	<-slow.begun
	if err := l.look(t.Context(), at(10))(); err != nil { // would not return
		t.Fatal(err)
	}
	close(slow.end)
	if err := first(); !errors.Is(err, errUnread) {
		t.Errorf("error: %v, want %v", err, errUnread)
	}
	if len(slow.begun) > 0 {
		t.Error("two looks of the fast lane at once")
	}
}

func TestWhatTheFastLaneReads(t *testing.T) {
	pod := func(name, hash, ip string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: name, Labels: map[string]string{"pod-template-hash": hash},
				Annotations: map[string]string{v1alpha1.InjectionAnnotation: "1"}, OwnerReferences: owned("ReplicaSet", "web-"+hash, "rs-uid"),
			},
			Status: corev1.PodStatus{PodIP: ip, Phase: corev1.PodRunning},
		}
		change(p)
		return p
	}
	as := func(*corev1.Pod) {}
	var asked []prometheus.Target
	l := withFastLane(t, nil, counters{asked: &asked})
	l.Client = cluster(t, record(),
		pod("stable", stableHash, "10.0.0.1", as), pod("candidate", candidateHash, "fd00::2", as), pod("stranger", "ccc", "10.0.0.3", as),
		pod("starting", candidateHash, "", as),
		pod("over", stableHash, "10.0.0.4", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
		pod("not injected", stableHash, "10.0.0.5", func(p *corev1.Pod) { p.Annotations = nil }),
		pod("own", stableHash, "10.0.0.6", func(p *corev1.Pod) { p.OwnerReferences = nil }),
	).Build()
	lookFrom(t, l, 5, 1)
	want := map[string]string{"stable": "10.0.0.1:15603", "candidate": "[fd00::2]:15603"}
	if len(asked) != 1 || !cmp.Equal(asked[0].Sidecars, want) {
		t.Errorf("asked about %+v, want one target with sidecars %v", asked, want)
	}
}
