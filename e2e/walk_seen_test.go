// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
)

// seen is what two watches see of the workload, each with the time at which it was seen: pods that came and went between two
// looks are there too.
type seen struct {
	mu sync.Mutex
	// version is the tag that the pods of each revision run.
	version map[string]string
	// ready has every pod of a failing version once, when it was ready for the first time: Services send it requests then.
	ready []readyPod
	known map[types.UID]bool
	// serving are the changes of how many pods were ready.
	serving []serving
	// weights are the changes of which revision was to get what share of requests, and whether it had failed.
	weights []weight
	errs    []error
}

type readyPod struct {
	at            time.Time
	name, version string
}

type serving struct {
	at   time.Time
	pods int
}

type weight struct {
	at       time.Time
	revision string
	percent  int32
	failed   bool
}

// fails says whether a version is one that nobody may let out but the walk itself, or a rule.
func fails(version string) bool {
	return slices.Contains([]string{"errors", "crash", "never-ready"}, version)
}

// tag is the part of the application's image that says how it behaves.
func tag(image string) string { return strings.TrimPrefix(image, harness.AppImage) }

// watch begins, and goes on until the case ends.
func watch(c *harness.Case) *seen {
	s := &seen{version: map[string]string{}, known: map[types.UID]bool{}}
	in := client.InNamespace(c.Namespace)
	go func() {
		of := []client.ListOption{in, client.MatchingLabels{"app": harness.Name}}
		s.ended(c.Ctx, harness.Follow(c.Ctx, c.Client, harness.Selected{List: &corev1.PodList{}, Options: of}, s.pods))
	}()
	go func() {
		s.ended(c.Ctx, harness.Follow(c.Ctx, c.Client, harness.Selected{List: &v1alpha1.RolloutList{}, Options: []client.ListOption{in}}, s.rollouts))
	}()
	return s
}

func (s *seen) ended(ctx context.Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.errs = append(s.errs, err)
	}
}

func (s *seen) pods(all map[types.UID]*corev1.Pod) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, ready := time.Now(), 0
	for uid, p := range all {
		v := tag(p.Spec.Containers[0].Image)
		s.version[harness.Revision(p)] = v
		if !harness.Ready(p) {
			continue
		}
		ready++
		if fails(v) && !s.known[uid] {
			s.known[uid] = true
			s.ready = append(s.ready, readyPod{now, p.Name, v})
		}
	}
	if n := len(s.serving); n == 0 || s.serving[n-1].pods != ready {
		s.serving = append(s.serving, serving{now, ready})
	}
	return false
}

func (s *seen) rollouts(all map[types.UID]*v1alpha1.Rollout) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := weight{at: time.Now()}
	for _, r := range all {
		w.revision, w.percent = r.Status.Candidate.Hash, max(r.Status.Weight, r.Status.WeightInForce)
		w.failed = r.Status.Phase == v1alpha1.PhaseRollingBack || r.Status.Phase == v1alpha1.PhaseQuarantined
	}
	if n := len(s.weights); n > 0 && s.weights[n-1].same(w) {
		return false
	}
	s.weights = append(s.weights, w)
	return false
}

func (w weight) same(o weight) bool {
	w.at = o.at
	return w == o
}

// hadFailed says whether a version was one that had been rolled back, a second before a time. The caller holds mu.
func (s *seen) hadFailed(version string, at time.Time) bool {
	for _, w := range slices.Backward(s.weights) {
		if w.at.Before(at.Add(-time.Second)) {
			return w.failed && s.version[w.revision] == version
		}
	}
	return false
}

// served are the changes of how many pods were ready, up to now.
func (s *seen) served() []serving {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.serving)
}

// nobody are the times in which no pod was ready.
func (s *seen) nobody() []interval {
	served := s.served()
	var all []interval
	for i, now := range served {
		if now.pods > 0 {
			continue
		}
		t := interval{from: now.at, to: time.Now()}
		if i+1 < len(served) {
			t.to = served[i+1].at
		}
		all = append(all, t)
	}
	return all
}

// share is the greatest that a version was to get of all requests at any time from one to another.
func (s *seen) share(version string, from, to time.Time) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := int32(0)
	for i, w := range s.weights {
		until := time.Now()
		if i+1 < len(s.weights) {
			until = s.weights[i+1].at
		}
		if s.version[w.revision] == version && w.at.Before(to) && until.After(from) {
			most = max(most, w.percent)
		}
	}
	return float64(most) / 100
}

// exposed is how long each revision of a version was to get requests at a time.
func (s *seen) exposed(version string) map[string]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]time.Duration{}
	for i, w := range s.weights {
		if w.percent > 0 && s.version[w.revision] == version && i+1 < len(s.weights) {
			all[w.revision] += s.weights[i+1].at.Sub(w.at)
		}
	}
	return all
}

// interval is a time from one moment to another; to is zero while it goes on.
type interval struct{ from, to time.Time }

func (i interval) overlaps(o interval) bool {
	return (i.to.IsZero() || i.to.After(o.from)) && (o.to.IsZero() || o.to.After(i.from))
}
