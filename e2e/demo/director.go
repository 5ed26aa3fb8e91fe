// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/e2e/load"
)

// patience is how long an update may take before it counts as TimedOut.
const patience = 8 * time.Minute

// breather is the time to read how an update ended before the next one.
const breather = 6 * time.Second

// theUpdates are what the demo shows.
func theUpdates() []Update {
	return []Update{
		{Name: "good", Title: "a good version", Tag: "v2", Want: v1alpha1.OutcomePromoted},
		{Name: "errors", Title: "a version that fails 5 % of its requests", Tag: "errors", Want: v1alpha1.OutcomeRolledBack},
		{Name: "crash", Title: "a version that crashes", Tag: "crash", Want: v1alpha1.OutcomeRolledBack},
	}
}

// director makes the updates and measures what they come to.
type director struct {
	cluster *harness.Cluster
	reports *reports
	emit    func(Event)
}

// run makes all updates, one after the other, and returns their results so far even on an error.
func (d *director) run(ctx context.Context, updates []Update) ([]Update, error) {
	pods, err := d.cluster.WatchPods(ctx, namespace, "app="+workload)
	if err != nil {
		return updates, err
	}
	for i := range updates {
		result, err := d.update(ctx, i, updates[i], pods)
		if err != nil {
			return updates, fmt.Errorf("making update %q: %w", updates[i].Name, err)
		}
		updates[i].Result = &result
		d.emit(Ended{Time: time.Now(), Index: i, Result: result})
		pause(ctx, breather)
	}
	return updates, ctx.Err()
}

func (d *director) update(ctx context.Context, index int, u Update, pods *harness.PodLog) (Result, error) {
	seen, err := d.history(ctx)
	if err != nil {
		return Result{}, err
	}
	before, err := d.reports.after(ctx, time.Now())
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	d.emit(Started{Time: start, Index: index})
	if r := d.kubectl(ctx, "set", "image", "deployment/"+workload, "app="+imageRepository+u.Tag); r.Exit != 0 {
		return Result{}, r.Err()
	}
	exit := make(chan int, 1)
	go func() {
		exit <- d.kubectl(ctx, "rollout", "status", "deployment/"+workload, "--timeout="+patience.String()).Exit
	}()
	entry, err := d.awaitEnd(ctx, seen)
	if err != nil {
		return Result{}, err
	}
	result := Result{Name: u.Name, Seconds: time.Since(start).Seconds(), Verdict: "TimedOut"}
	if entry != nil {
		result.Verdict, result.PodsCreated = string(entry.Outcome), pods.Created(entry.To)
		if entry.Verdict != nil {
			result.Message = entry.Verdict.Message
		}
	}
	result.RolloutStatusExit = <-exit
	delta, err := d.count(ctx, before.Counts, pods)
	result.Requests, result.FailedRequests, result.CandidateRequests = delta.Sent, delta.Failed, delta.Versions[u.Tag].Total()
	return result, err
}

// count is what users noticed since before, until the last pod of the update was gone.
func (d *director) count(ctx context.Context, before load.Counts, pods *harness.PodLog) (load.Counts, error) {
	quiet, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := pods.AwaitQuiet(quiet); err != nil && ctx.Err() != nil {
		return load.Counts{}, err
	}
	after, err := d.reports.after(ctx, time.Now())
	return after.Counts.Minus(before), err
}

// history is what ended before.
func (d *director) history(ctx context.Context) (map[string]bool, error) {
	seen := map[string]bool{}
	var r v1alpha1.Rollout
	if err := d.cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: workload}, &r); err != nil {
		return nil, fmt.Errorf("reading the Rollout: %w", err)
	}
	for _, h := range r.Status.History {
		seen[key(h)] = true
	}
	return seen, nil
}

// awaitEnd waits until a rollout that was not seen before has ended; nil when patience runs out.
func (d *director) awaitEnd(ctx context.Context, seen map[string]bool) (*v1alpha1.HistoryEntry, error) {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var entry *v1alpha1.HistoryEntry
	err := harness.Follow(limit, d.cluster.Client, harness.Selected{List: &v1alpha1.RolloutList{}, Options: inShop()}, func(state map[types.UID]*v1alpha1.Rollout) bool {
		for _, r := range state {
			if r.Name == workload {
				entry = newest(r.Status.History, seen)
			}
		}
		return entry != nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil
	}
	return entry, err
}

func (d *director) kubectl(ctx context.Context, args ...string) harness.Result {
	return d.cluster.RunKubectl(ctx, "", append([]string{"-n", namespace}, args...)...)
}
