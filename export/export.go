// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/replay"
)

// Options are what to export. The zero value of what has no default is an error.
type Options struct {
	// Client reads the Rollout.
	Client client.Reader
	// Prometheus has what was counted.
	Prometheus Past
	// Namespace and Name are the workload's.
	Namespace, Name string
	// Back is how many rollouts came after the one that is meant; 0: the newest, which may be under way.
	Back int
	// Interval is between two looks, in whole seconds. Default 5 s, as in the rollout.
	Interval time.Duration
	// Before is how much of the time before the rollout comes first, a look a minute; no more than since its stable revision
	// became that. 0: none.
	Before time.Duration
	// Now is the end of a rollout that is under way.
	Now time.Time
	// Out is where the looks go.
	Out io.Writer
}

// Past is a Prometheus; *prometheus.Client is one.
type Past interface {
	Past(ctx context.Context, target prometheus.Target, span prometheus.Span) ([]analysis.Look, error)
}

// Run writes the looks of a rollout.
func Run(ctx context.Context, o Options) error {
	var record v1alpha1.Rollout
	key := client.ObjectKey{Namespace: o.Namespace, Name: o.Name}
	if err := o.Client.Get(ctx, key, &record); apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no Rollout %s: expected the name of a Deployment that Headgate has had a rollout of", key)
	} else if err != nil {
		return fmt.Errorf("reading the Rollout: %w", err)
	}
	r, err := find(&record.Status, o.Back, o.Now)
	if err != nil {
		return fmt.Errorf("finding the rollout of %s: %w", key, err)
	}
	if o.Interval <= 0 {
		o.Interval = replay.Interval
	}
	target := prometheus.Target{Namespace: o.Namespace, Workload: o.Name, Candidate: r.to, Stable: r.from}
	before, err := o.past(ctx, target, r.before(o.Before, o.Interval))
	if err != nil {
		return err
	}
	during, err := o.past(ctx, target, r.during(o.Interval))
	if err != nil {
		return err
	}
	known, err := r.write(o.Out, append(before, during...))
	if err == nil && !known {
		return fmt.Errorf("nothing is known to Prometheus of the rollout from %s to %s at %s: it may keep less, or not be the one that scrapes the sidecars", r.from, r.to, r.began.Format(time.RFC3339))
	}
	return err
}

// write writes the looks, and says whether anything was counted in the rollout.
func (r rollout) write(out io.Writer, looks []analysis.Look) (known bool, err error) {
	for i, look := range looks {
		recorded := r.recorded(look)
		if i == 0 {
			recorded.Rollout = &r.of
		}
		known = known || (recorded.Weight > 0 && !look.Missing)
		if err := replay.Write(out, recorded, r.began); err != nil {
			return known, err
		}
	}
	return known, nil
}

// past are the looks of some time. An error of the API server's says all that is to be said.
func (o Options) past(ctx context.Context, t prometheus.Target, span prometheus.Span) ([]analysis.Look, error) {
	looks, err := o.Prometheus.Past(ctx, t, span)
	if refusal := (refusalError{}); errors.As(err, &refusal) {
		return nil, fmt.Errorf("asking Prometheus: %w", refusal)
	}
	return looks, err
}
