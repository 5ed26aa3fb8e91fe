// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// inShop selects the objects of the shop's namespace.
func inShop() []client.ListOption { return []client.ListOption{client.InNamespace(namespace)} }

// watchAll hands on what happens in the shop until ctx ends.
func watchAll(ctx context.Context, c *harness.Cluster, reports *reports, emit func(Event)) *sync.WaitGroup {
	var all sync.WaitGroup
	again := func(watch func() error) {
		for ctx.Err() == nil {
			_ = watch() // a broken connection: look again
			pause(ctx, time.Second)
		}
	}
	all.Go(func() { again(func() error { return watchRollout(ctx, c, emit) }) })
	all.Go(func() { again(func() error { return watchPods(ctx, c, emit) }) })
	all.Go(func() {
		again(func() error {
			return followReports(ctx, c, func(r load.Report) {
				reports.add(r)
				emit(Counted{Time: time.Now(), Report: r})
			})
		})
	})
	return &all
}

func watchRollout(ctx context.Context, c *harness.Cluster, emit func(Event)) error {
	return harness.Follow(ctx, c.Client, harness.Selected{List: &v1alpha1.RolloutList{}, Options: inShop()}, func(state map[types.UID]*v1alpha1.Rollout) bool {
		for _, r := range state {
			if r.Name == workload {
				emit(Recorded{Time: time.Now(), Status: r.Status})
			}
		}
		return false
	})
}

func watchPods(ctx context.Context, c *harness.Cluster, emit func(Event)) error {
	opts := append(inShop(), client.MatchingLabels{"app": workload})
	return harness.Follow(ctx, c.Client, harness.Selected{List: &corev1.PodList{}, Options: opts}, func(state map[types.UID]*corev1.Pod) bool {
		var pods []PodView
		for _, p := range state {
			pods = append(pods, PodView{Name: p.Name, Revision: harness.Revision(p), State: podState(p)})
		}
		slices.SortFunc(pods, func(a, b PodView) int { return strings.Compare(a.Name, b.Name) })
		emit(PodsSeen{Time: time.Now(), Pods: pods})
		return false
	})
}

func podState(p *corev1.Pod) PodState {
	crashing := func(s corev1.ContainerStatus) bool {
		return s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff" || s.State.Terminated != nil
	}
	switch {
	case p.DeletionTimestamp != nil:
		return PodLeaving
	case harness.Ready(p):
		return PodReady
	case harness.ReadyButGated(p):
		return PodWaiting
	case slices.ContainsFunc(p.Status.ContainerStatuses, crashing):
		return PodCrashing
	case p.Status.Phase == corev1.PodRunning:
		return PodRunning
	}
	return PodPending
}

// followReports reads the client's lines as they are written.
func followReports(ctx context.Context, c *harness.Cluster, see func(load.Report)) error {
	last := int64(1)
	stream, err := c.Kube.CoreV1().Pods(namespace).GetLogs(clientPod, &corev1.PodLogOptions{Follow: true, TailLines: &last}).Stream(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r load.Report
		if json.Unmarshal(lines.Bytes(), &r) == nil {
			see(r)
		}
	}
	return lines.Err()
}

// reports keeps the newest report of the client.
type reports struct {
	mu      sync.Mutex
	last    load.Report
	waiting []chan struct{}
}

func (r *reports) add(report load.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = report
	for _, w := range r.waiting {
		close(w)
	}
	r.waiting = nil
}

// after waits for a report that was made after a moment.
func (r *reports) after(ctx context.Context, moment time.Time) (load.Report, error) {
	for {
		changed := make(chan struct{})
		r.mu.Lock()
		last := r.last
		r.waiting = append(r.waiting, changed)
		r.mu.Unlock()
		if last.At.After(moment) {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return load.Report{}, ctx.Err()
		case <-changed:
		}
	}
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// newest is the last entry of a history that is about a revision not seen before.
func newest(history []v1alpha1.HistoryEntry, seen map[string]bool) *v1alpha1.HistoryEntry {
	for i := len(history) - 1; i >= 0; i-- {
		if !seen[key(history[i])] {
			return &history[i]
		}
	}
	return nil
}

// key names one attempt.
func key(h v1alpha1.HistoryEntry) string { return h.To + h.StartedAt.Format(metav1.RFC3339Micro) }
