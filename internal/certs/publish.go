// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// settle is how long the API server goes on with the CA before, which it has: replicas learn of the Secret at times of
	// their own, and until the last of them serves the new certificate, a call by the new CA alone would fail there.
	settle = 10 * time.Second
	// tryAgain is how long after a write that failed there is another one.
	tryAgain = time.Second
)

// publisher has the API server trust the current CA, and keeps the cross-certificates for replicas that start. It is a manager's
// runnable that needs leadership.
type publisher struct {
	keeper *Keeper
	client client.Client
}

// Start implements manager.Runnable.
func (p *publisher) Start(ctx context.Context) error {
	for {
		wait, err := p.publish(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			ctrl.Log.WithName("certs").Error(err, "Publishing the CA")
			wait = tryAgain
		}
		var again <-chan time.Time // never, unless there is something to wait for
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.keeper.changed:
		case <-again:
		}
	}
}

// publish writes what is due, and says when to look again; 0: when something changes.
func (p *publisher) publish(ctx context.Context, now time.Time) (time.Duration, error) {
	current, c := p.keeper.current.Load(), p.keeper.registered.Load()
	if current == nil {
		return 0, nil
	}
	if err := p.keep(ctx, current); err != nil {
		return 0, err
	}
	wait, due := current.due(c, now)
	if !due {
		return wait, nil
	}
	c = c.DeepCopy()
	for i := range c.Webhooks {
		c.Webhooks[i].ClientConfig.CABundle = []byte(current.ca)
	}
	if err := p.client.Update(ctx, c, client.FieldOwner("headgate")); err != nil {
		return 0, fmt.Errorf("updating the caBundle of %s: %w", c.Name, err)
	}
	return 0, nil
}

// due says whether the CA should be written into the configuration now, or after how long it should (0: never). One that trusts
// the certificate by the CA before is left alone until all replicas serve it.
func (p *pair) due(c *admissionregistrationv1.MutatingWebhookConfiguration, now time.Time) (wait time.Duration, due bool) {
	if c == nil || !slices.ContainsFunc(c.Webhooks, func(w admissionregistrationv1.MutatingWebhook) bool {
		return !bytes.Equal(w.ClientConfig.CABundle, []byte(p.ca))
	}) {
		return 0, false
	}
	if !p.trustedByAll(c) {
		return 0, true
	}
	wait = max(p.since.Add(settle).Sub(now), 0)
	return wait, wait == 0
}

// keep writes the cross-certificates into the Secret that they are about.
func (p *publisher) keep(ctx context.Context, current *pair) error {
	if len(current.cross) == 0 {
		return nil
	}
	var s corev1.Secret
	if err := p.client.Get(ctx, p.keeper.secret, &s); apierrors.IsNotFound(err) {
		return nil // there will be another one
	} else if err != nil {
		return fmt.Errorf("reading secret %s: %w", p.keeper.secret, err)
	}
	want := encoded(current.cross)
	if string(s.Data[caCertKey]) != current.ca || bytes.Equal(s.Data[crossKey], want) {
		return nil
	}
	s.Data[crossKey] = want
	if err := p.client.Update(ctx, &s, client.FieldOwner("headgate")); err != nil {
		return fmt.Errorf("keeping the cross-certificates in secret %s: %w", p.keeper.secret, err)
	}
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (p *publisher) NeedLeaderElection() bool { return true }
