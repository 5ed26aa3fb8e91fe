// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
)

// namedAtOnce is how many endpoints that policies name are asked at once. What they answer takes memory
// (prometheus.MaxNamedCounters), and any tenant can name some that answer slowly or never.
const namedAtOnce = 16

// namedPerNamespace is how many addresses the policies of a namespace can have looks at. What is remembered
// of each takes memory for as long as its rollouts last; more than one or two have no use.
const namedPerNamespace = 4

// lane is what is looked at in turn. The installation's own Prometheus has a lane, named "", and each
// namespace one for all addresses that policies name for it. So a slow address costs the namespace that
// uses it looks, and nobody else.
type lane struct {
	busy bool
	// clients by endpoint; only who made the lane busy uses it.
	clients map[Endpoint]Counters
}

// work is the rollouts of a lane, by endpoint; the zero value is none.
type work map[Endpoint][]*v1alpha1.Rollout

// Start implements manager.Runnable. Looks are made at whole multiples of LookInterval by the clock, whoever leads, so that whoever
// looks back (see export) knows when they were. Looks that would overlap are left out, not queued.
func (l *Looks) Start(ctx context.Context) error {
	l.leads(time.Now())
	timer := time.NewTimer(untilNext(time.Now()))
	defer timer.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			now := time.Now().Round(0) // by the clock, which may have been set
			timer.Reset(untilNext(now))
			at := now.Truncate(LookInterval)
			if at.Equal(last) { // the clock is a little slower than the timer
				continue
			}
			last = at
			wait := l.look(ctx, at)
			running.Go(func() {
				if err := wait(); err != nil {
					log.FromContext(ctx).Error(err, "Looking at the rollouts")
				}
			})
		}
	}
}

// untilNext is how long it takes to the next look.
func untilNext(now time.Time) time.Duration {
	return now.Truncate(LookInterval).Add(LookInterval).Sub(now)
}

// look begins to judge every rollout that has a candidate, except in lanes that have not finished their
// look before. The fast lane is one more, of all rollouts. wait returns when all has been judged that was begun.
func (l *Looks) look(ctx context.Context, now time.Time) (wait func() error) {
	l.began(now)
	all, err := l.byLane(ctx)
	if err != nil {
		return func() error { return err }
	}
	l.forgetEnded(all)
	lanes := l.enter(all)
	errs := make(chan error, len(lanes)+1)
	go func() { errs <- l.lookFast(ctx, now, all) }()
	for name, lane := range lanes {
		go func() {
			err := l.drive(ctx, now, lane, all[name])
			l.leave(lane)
			errs <- err
		}()
	}
	return func() error {
		var joined error
		for range len(lanes) + 1 {
			joined = errors.Join(joined, <-errs)
		}
		return joined
	}
}

// byLane finds the rollouts to be judged.
func (l *Looks) byLane(ctx context.Context) (map[string]work, error) {
	var list v1alpha1.RolloutList
	if err := l.Client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing rollouts: %w", err)
	}
	all := map[string]work{}
	for i := range list.Items {
		r := &list.Items[i]
		if !judgeable(&r.Status) {
			continue
		}
		name, endpoint := "", l.endpoint(r)
		if endpoint != l.Prometheus {
			name = r.Namespace
		}
		if all[name] == nil {
			all[name] = work{}
		}
		all[name][endpoint] = append(all[name][endpoint], r)
	}
	return all, nil
}

// enter takes the lanes that have work and are not busy, and drops those that have none any more.
func (l *Looks) enter(all map[string]work) map[string]*lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lanes == nil {
		l.lanes, l.named = map[string]*lane{}, make(chan struct{}, namedAtOnce)
	}
	for name, lane := range l.lanes {
		if all[name] == nil && !lane.busy {
			delete(l.lanes, name)
		}
	}
	entered := map[string]*lane{}
	for name := range all {
		if l.lanes[name] == nil {
			l.lanes[name] = &lane{clients: map[Endpoint]Counters{}}
		}
		if lane := l.lanes[name]; !lane.busy {
			lane.busy = true
			entered[name] = lane
		}
	}
	return entered
}

func (l *Looks) leave(lane *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lane.busy = false
}

// drive looks at what is in a lane, one endpoint after the other.
func (l *Looks) drive(ctx context.Context, now time.Time, lane *lane, todo work) error {
	for endpoint := range lane.clients {
		if todo[endpoint] == nil {
			delete(lane.clients, endpoint)
		}
	}
	var joined error
	for i, endpoint := range lane.turns(todo) {
		rollouts := todo[endpoint]
		if i >= namedPerNamespace {
			joined = errors.Join(joined, l.batch(ctx, now, server{url: endpoint.URL, missing: "the policies of its namespace name too many Prometheuses"}, rollouts))
			continue
		}
		client, err := l.client(lane, endpoint)
		joined = errors.Join(joined, err)
		prom := server{client: client, url: endpoint.URL, missing: unusable(endpoint, err)}
		if endpoint == l.Prometheus {
			joined = errors.Join(joined, l.batch(ctx, now, prom, rollouts))
			continue
		}
		// For every endpoint anew, so that a namespace with many of them takes its turn like the others.
		select {
		case l.named <- struct{}{}:
		case <-ctx.Done():
			return joined
		}
		joined = errors.Join(joined, l.batch(ctx, now, prom, l.still(ctx, endpoint, rollouts)))
		<-l.named
	}
	return joined
}

// turns are the endpoints in the order in which they are asked: who is known comes first, so that a rollout
// is not left out halfway because of one that began after it.
func (l *lane) turns(todo work) []Endpoint {
	unknown := func(e Endpoint) int {
		if l.clients[e] != nil {
			return 0
		}
		return 1
	}
	return slices.SortedFunc(maps.Keys(todo), func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(unknown(a), unknown(b)), cmp.Compare(a.URL, b.URL), cmp.Compare(a.Secret.Name, b.Secret.Name))
	})
}

// still reads again the rollouts that had to wait for their turn: their step and weight, by which the
// look counts, may be others by now.
func (l *Looks) still(ctx context.Context, endpoint Endpoint, rollouts []*v1alpha1.Rollout) []*v1alpha1.Rollout {
	var out []*v1alpha1.Rollout
	for _, r := range rollouts {
		var now v1alpha1.Rollout
		err := l.Client.Get(ctx, client.ObjectKeyFromObject(r), &now)
		if err == nil && judgeable(&now.Status) && l.endpoint(&now) == endpoint {
			out = append(out, &now)
		}
	}
	return out
}

// unusable says, for users, why there is no client for an endpoint; empty: there is one, or no address was given. What
// else the error says is for the log.
func unusable(endpoint Endpoint, err error) string {
	if err == nil {
		return ""
	}
	return cmp.Or(prometheus.CheckAddress(endpoint.URL), prometheus.ErrAddress).Error()
}

// client is the one for an endpoint; nil without one, or when the endpoint can't be used.
func (l *Looks) client(lane *lane, endpoint Endpoint) (Counters, error) {
	if endpoint.URL == "" {
		return nil, nil
	}
	if c, ok := lane.clients[endpoint]; ok {
		return c, nil
	}
	c, err := l.Connect(endpoint)
	if err != nil {
		return nil, fmt.Errorf("connecting to Prometheus: %w", err)
	}
	lane.clients[endpoint] = c
	return c, nil
}
