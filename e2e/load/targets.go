// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// refresh is how often the addresses of the host are looked up again.
const refresh = time.Second

// Targets are the addresses behind a name, in turn. A look-up that fails keeps the last answer, so
// that DNS is never what a test measures.
type Targets struct {
	host   string
	lookup func(ctx context.Context, host string) ([]string, error)

	mu    sync.Mutex
	addrs []string
	next  int
}

// NewTargets waits until the name has an address, or ctx ends.
func NewTargets(ctx context.Context, host string) (*Targets, error) {
	t := &Targets{host: host, lookup: net.DefaultResolver.LookupHost}
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		err := t.update(ctx)
		if err == nil {
			return t, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("looking up %q: %w", host, err)
		case <-tick.C:
		}
	}
}

// patience is how long AwaitListening waits.
const patience = 30 * time.Second

// AwaitListening waits until these ports accept connections, so that a Service that was made a moment
// ago, and is not known on every node yet, is not counted as failing. When patience runs out the
// requests themselves tell.
func (t *Targets) AwaitListening(ctx context.Context, ports ...int) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for _, port := range ports {
		for !listening(ctx, hostPort(t.Next(), port)) {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}

func listening(ctx context.Context, addr string) bool {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// Follow keeps the addresses fresh until ctx ends.
func (t *Targets) Follow(ctx context.Context) {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = t.update(ctx) // the last answer stays
		}
	}
}

// Next is the address whose turn it is.
func (t *Targets) Next() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	return t.addrs[t.next%len(t.addrs)]
}

func (t *Targets) update(ctx context.Context) error {
	addrs, err := t.lookup(ctx, t.host)
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return fmt.Errorf("no address")
	}
	slices.Sort(addrs)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addrs = addrs
	return nil
}
