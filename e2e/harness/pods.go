// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"fmt"
	"maps"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// PodLog has seen every pod that a selector selects since it began, by uid: pods that came and went
// between two looks count too, because it watches.
type PodLog struct {
	mu       sync.Mutex
	now      map[types.UID]*corev1.Pod
	revision map[types.UID]string // of every pod ever seen
	least    map[string]int       // fewest ready pods by revision since Mark
	most     map[string]int       // most ready pods by revision at any time
	err      error
	watchers []chan struct{}
}

// WatchPods starts a log that ends with ctx. It returns when the log has begun.
func (c *Cluster) WatchPods(ctx context.Context, namespace, selector string) (*PodLog, error) {
	sel, err := labels.Parse(selector)
	if err != nil {
		return nil, fmt.Errorf("parsing selector %q: %w", selector, err)
	}
	l := &PodLog{revision: map[types.UID]string{}, least: map[string]int{}, most: map[string]int{}}
	opts := []client.ListOption{client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: sel}}
	begun := make(chan struct{})
	var once sync.Once
	go func() {
		err := Follow(ctx, c.Client, Selected{&corev1.PodList{}, opts}, func(state map[types.UID]*corev1.Pod) bool {
			l.see(state)
			once.Do(func() { close(begun) })
			return false
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = err
		once.Do(func() { close(begun) })
	}()
	<-begun
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, fmt.Errorf("watching pods: %w", l.err)
	}
	return l, nil
}

// Err is why the log has ended; nil while it goes on. What it says of least and most is about the time before.
func (l *PodLog) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *PodLog) see(state map[types.UID]*corev1.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = maps.Clone(state)
	ready := map[string]int{}
	for uid, p := range state {
		rev := Revision(p)
		l.revision[uid] = rev
		if Ready(p) {
			ready[rev]++
			ready[AnyRevision]++
		}
	}
	for rev, n := range l.least {
		l.least[rev] = min(n, ready[rev])
	}
	for rev, n := range ready {
		l.most[rev] = max(n, l.most[rev])
	}
	for _, w := range l.watchers {
		close(w)
	}
	l.watchers = nil
}

// Created is how many pods of a revision were ever seen.
func (l *PodLog) Created(revision string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, rev := range l.revision {
		if rev == revision {
			n++
		}
	}
	return n
}

// All is how many pods were ever seen.
func (l *PodLog) All() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.revision)
}

// Of are the pods of a revision that exist now and are not being deleted.
func (l *PodLog) Of(revision string) []*corev1.Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	var pods []*corev1.Pod
	for _, p := range l.now {
		if Revision(p) == revision && p.DeletionTimestamp == nil {
			pods = append(pods, p)
		}
	}
	return pods
}

// AnyRevision stands for all pods of the workload.
const AnyRevision = ""

// Mark begins to count the fewest ready pods of a revision, or of all together.
func (l *PodLog) Mark(revision string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, p := range l.now {
		if (revision == AnyRevision || Revision(p) == revision) && Ready(p) {
			n++
		}
	}
	l.least[revision] = n
}

// Least is the fewest ready pods of a revision at any moment since Mark.
func (l *PodLog) Least(revision string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.least[revision]
}

// Most is the most ready pods of a revision at any moment since the log began.
func (l *PodLog) Most(revision string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.most[revision]
}

// Has says whether a pod is still there.
func (l *PodLog) Has(uid types.UID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, there := l.now[uid]
	return there
}

// AwaitPods waits until exactly n pods of a revision are as asked.
func (l *PodLog) AwaitPods(ctx context.Context, revision string, n int, ok func(*corev1.Pod) bool) error {
	return l.await(ctx, fmt.Sprintf("%d pods of %s are as asked", n, revision), func() bool {
		count := 0
		for _, p := range l.now {
			if Revision(p) == revision && ok(p) {
				count++
			}
		}
		return count == n
	})
}

// AwaitQuiet waits until no pod is being deleted.
func (l *PodLog) AwaitQuiet(ctx context.Context) error {
	return l.await(ctx, "no pod is being deleted", func() bool {
		for _, p := range l.now {
			if p.DeletionTimestamp != nil {
				return false
			}
		}
		return true
	})
}

// await waits until ok, which is called with the log locked, after each change.
func (l *PodLog) await(ctx context.Context, what string, ok func() bool) error {
	for {
		l.mu.Lock()
		done, changed := ok(), make(chan struct{})
		l.watchers = append(l.watchers, changed)
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		case <-changed:
		}
	}
}

// Revision is the pod's pod-template-hash.
func Revision(p *corev1.Pod) string { return p.Labels[appsv1.DefaultDeploymentUniqueLabelKey] }

// Ready says whether Services send the pod requests.
func Ready(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && podCondition(p, corev1.PodReady)
}

// ReadyButGated says whether all of its containers are ready.
func ReadyButGated(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && podCondition(p, corev1.ContainersReady)
}

func podCondition(p *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
