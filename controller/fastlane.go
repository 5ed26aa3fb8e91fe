// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// fastAlpha is the chance that the fast lane rolls back a candidate that does no harm, over the whole rollout. It comes on top
// of the hundredth that the judge by Prometheus has, and is small because both mostly count the same requests.
const fastAlpha = 0.001

// How pods of the same version differ is known from before the rollout, by Prometheus. Who does not know takes one pod's bad
// minute for a bad version: in simulated services whose pods have such minutes, one in a dozen good candidates.
const (
	// enoughHistory is how many minutes of it tell.
	enoughHistory = 10
	// historyWithin is how long it may take to hear of them, from the beginning of the rollout.
	historyWithin = 3 * LookInterval
)

// carefulHarm is the margin for those who know less: a catastrophe, as for the part GROSS of the harm process.
var carefulHarm = analysis.Margin{Ratio: 3, Excess: 0.2}

// fastSource is said at the end of the fast lane's verdicts.
const fastSource = " (counters read from the sidecars themselves)"

// FastLane reads counters without a Prometheus; *prometheus.Sidecars does.
//
// A second judge follows each rollout by them, of which only a Fail counts: that candidates are rolled back does not depend on
// a Prometheus that is away, lags or scrapes seldom, and that they are promoted does. It judges errors only, and where the
// policy turns that off, nothing.
type FastLane interface {
	// Looks makes one look at each target, in their order; the error says why counters are missing, for the log.
	Looks(ctx context.Context, at time.Time, targets []prometheus.Target) ([]analysis.Look, error)
}

// leads notes when this process became the only one that looks.
func (l *Looks) leads(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = now
}

// lookFast makes the fast lane's look at all rollouts, unless it is still at the one before.
func (l *Looks) lookFast(ctx context.Context, now time.Time, all map[string]work) error {
	if l.FastLane == nil || !l.onFast.CompareAndSwap(false, true) {
		return nil
	}
	defer l.onFast.Store(false)
	var rollouts []*v1alpha1.Rollout
	var targets []prometheus.Target
	for _, lane := range all {
		for _, some := range lane {
			for _, r := range some {
				if json.Valid([]byte(r.Status.Policy)) && !recordedPolicy(&r.Status).Analysis.SuccessRate.Disabled {
					rollouts, targets = append(rollouts, r), append(targets, l.target(ctx, r))
				}
			}
		}
	}
	looks, err := l.FastLane.Looks(ctx, now, targets)
	for i, r := range rollouts {
		if key := (types.NamespacedName{Namespace: r.Namespace, Name: r.Name}); l.judgeFast(key, &r.Status, looks[i]) {
			l.Wake(key)
		}
	}
	return err
}

// judgeFast takes in a look; it reports whether the candidate fails.
func (l *Looks) judgeFast(key types.NamespacedName, s *v1alpha1.RolloutStatus, look analysis.Look) (fails bool) {
	by := settings(s)
	by.Alpha, by.NoLatency, by.Metrics = fastAlpha, true, nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(bySidecars, look)
	known, ok := l.fast.known(key, s)
	if !ok {
		if l.awaitsHistory(key, s, look.Time) {
			return false
		}
		known = begun(s, l.fastState(key, s))
		known.careful = known.state.History.Minutes() < enoughHistory
	}
	if known.careful {
		by.Harm = carefulHarm
	}
	known = known.after(s, by, look)
	fails = known.verdict.Result == v1alpha1.ResultFail
	if fails {
		known.verdict.Message = shorten(known.verdict.Message, maxMessage-len(fastSource)) + fastSource
	}
	l.fast.put(key, known)
	return fails
}

// awaitsHistory: the judge by Prometheus may still hear of the time before the rollout. l.mu is held.
func (l *Looks) awaitsHistory(key types.NamespacedName, s *v1alpha1.RolloutStatus, now time.Time) bool {
	_, asked := l.judged.known(key, s)
	return !asked && s.StartedAt != nil && now.Sub(s.StartedAt.Time) < historyWithin
}

// fastState is what the fast lane begins a rollout with. Its state is in no record: it would double what each look writes, to
// keep some power for one case, a new leader while Prometheus is away. So who did not see the beginning may not take
// the chances of error again that somebody else may have had. What is in the record tells, too, and does not depend on two
// machines' clocks. l.mu is held.
func (l *Looks) fastState(key types.NamespacedName, s *v1alpha1.RolloutStatus) analysis.State {
	if l.since.IsZero() || s.StartedAt == nil || s.StartedAt.Time.Before(l.since) || s.JudgeState != "" {
		return analysis.Forgotten()
	}
	judged, _ := l.judged.known(key, s)
	return judged.before
}

// StatsAddress is where a pod's sidecar exposes its counters, as host:port; empty where there is none that could answer. The
// label says nothing: anybody can put it on a pod, and what that serves would be read.
func StatsAddress(pod *corev1.Pod) string {
	over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	owner := metav1.GetControllerOf(pod)
	injected := pod.Annotations[v1alpha1.InjectionAnnotation] != "" && owner != nil && owner.Kind == "ReplicaSet"
	if over || pod.Status.PodIP == "" || !injected {
		return ""
	}
	return net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(v1alpha1.StatsPort)))
}
