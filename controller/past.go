// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// What the judge is told of the time before a rollout, by which it knows how much stable's pods differ.
const (
	// pastFor is how long before the rollout it begins: the judge keeps so many minutes.
	pastFor = 30 * time.Minute
	// pastTimeout bounds all its queries at one look. The look itself waits for them.
	pastTimeout = 2 * time.Second
	// pastLanes is how many of them run at once.
	pastLanes = 4
)

// recall gives the judges of rollouts that begin what was before them, each by one range query. It is tried once: without it the
// judge has less power, and is as right.
func (l *Looks) recall(ctx context.Context, now time.Time, from Counters, rollouts []*v1alpha1.Rollout, targets []prometheus.Target) error {
	ctx, cancel := context.WithTimeout(ctx, pastTimeout)
	defer cancel()
	errs := make([]error, len(rollouts))
	var group errgroup.Group
	group.SetLimit(pastLanes)
	for i, r := range rollouts {
		key := types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
		if !l.begins(key, &r.Status) {
			continue
		}
		group.Go(func() error {
			past, err := from.Past(ctx, targets[i], before(&r.Status, now))
			if err != nil {
				errs[i] = fmt.Errorf("looking at the time before the rollout of %s: %w", key, err)
			}
			for i := range past {
				past[i].Step, past[i].Weight = 0, 0
			}
			l.learn(key, &r.Status, past...)
			return nil
		})
	}
	_ = group.Wait() // errs has them
	return errors.Join(errs...)
}

// learn is judge for what was before the rollout, which the fast lane needs too.
func (l *Looks) learn(key types.NamespacedName, s *v1alpha1.RolloutStatus, past ...analysis.Look) {
	if len(past) == 0 {
		return
	}
	by := settings(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.recorded(key, s).after(s, by, past...)
	known.before = analysis.State{History: known.state.History, Pods: known.state.Pods}
	l.judged.put(key, known)
}

// begins says that nobody has judged this rollout yet. The candidate may have requests already, where its pods were ready before
// the first look.
func (l *Looks) begins(key types.NamespacedName, s *v1alpha1.RolloutStatus) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, known := l.judged.known(key, s)
	return !known && s.JudgeState == ""
}

// before is the time before a rollout in which its stable revision was just that. Candidates that came to nothing meanwhile
// change nothing about it.
func before(s *v1alpha1.RolloutStatus, now time.Time) prometheus.Span {
	to := now.Add(-LookInterval)
	if s.StartedAt != nil && s.StartedAt.Time.Before(to) {
		to = s.StartedAt.Time
	}
	return prometheus.Before(to, v1alpha1.StableSince(s.History, s.Stable.Hash), pastFor)
}
