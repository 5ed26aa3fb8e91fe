// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"
)

// shareLanes is how many namespaces' counters are asked for at once when those of all could not be had.
// Each may have that part of the bytes, so that all of them together take no more memory than one answer,
// and of the time, so that a few namespaces whose answer never comes leave some for the others.
const shareLanes = 4

// ask asks for all counters in one query, and, if that fails, once more namespace by namespace: one
// tenant with too many series must not blind the others. unknown has the namespaces without an answer,
// and why. What is missing here is covered by the next look; only the first requests of a pod that was
// created during the gap are not.
func (c *Client) ask(ctx context.Context, targets []Target) (out model.Vector, unknown map[string]error, err error) {
	out, err = samples(ctx, c.counters, expression(targets), c.config.QueryTimeout, c.config.MaxCounters/counterSize)
	if err == nil {
		return out, nil, nil
	}
	namespaces := byNamespace(targets)
	if len(namespaces) == 1 {
		return nil, map[string]error{targets[0].Namespace: err}, err
	}
	var mu sync.Mutex
	unknown = map[string]error{}
	var group errgroup.Group
	group.SetLimit(shareLanes)
	for name, indices := range namespaces {
		group.Go(func() error {
			some := make([]Target, len(indices))
			for i, index := range indices {
				some[i] = targets[index]
			}
			part, failed := samples(ctx, c.share, expression(some), c.config.QueryTimeout/shareLanes, c.config.MaxCounters/counterSize/shareLanes)
			mu.Lock()
			defer mu.Unlock()
			if failed != nil {
				unknown[name] = failed
			}
			out = append(out, part...)
			return nil
		})
	}
	_ = group.Wait() // no lane returns an error
	return out, unknown, fmt.Errorf("%w; asked namespace by namespace, %d of %d had no answer", err, len(unknown), len(namespaces))
}

// byNamespace has the indices of each namespace's targets.
func byNamespace(targets []Target) map[string][]int {
	out := make(map[string][]int)
	for i, t := range targets {
		out[t.Namespace] = append(out[t.Namespace], i)
	}
	return out
}

// ReasonNoAnswer is a Look's when the query for its counters failed. A colon and why may be after it.
const ReasonNoAnswer = "the query failed"

// missing is a Look's reason.
func missing(err error) string {
	if errors.Is(err, errTooLarge) {
		return "there are more request counters than can be read at once"
	}
	if why := access(err); why != "" {
		return ErrAccess.Error() + ": " + why
	}
	if why := silence(err); why != "" {
		return ReasonNoAnswer + ": " + why
	}
	return ReasonNoAnswer
}

// silence says why there was no answer at all, in few words that are always the same; empty: it is none of the usual reasons.
func silence(err error) string {
	var unknown *net.DNSError
	var late net.Error
	switch {
	case errors.As(err, &unknown) && unknown.IsNotFound:
		return "no such host"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return "no answer in time"
	}
	return ""
}
