// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/go-logr/logr"
	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// caName is the subject of the CA that the leader makes.
const caName = "headgate-ca"

// The keys of the Secret that are not those of its type.
const (
	caCert = "ca.crt"
	caKey  = "ca.key"
)

// tryAgain is how long the leader waits for a Secret that is not there, or that it could not write.
const tryAgain = 10 * time.Second

// Rotate has the leader create, renew and publish the certificate: into the Secret, which must exist,
// and as caBundle into the mutating webhook configuration.
//
// Where the Secret is deleted, what it held is served on, and is put back when somebody makes it again: with another CA
// no sidecar that runs would connect any more. A new CA is made where no replica has the old one: after a deletion and a
// restart of all.
func (k *Keeper) Rotate(mgr ctrl.Manager, dnsNames []string) error {
	err := rotator.AddRotator(lasting{Manager: mgr, keeper: k}, &rotator.CertRotator{
		SecretKey:      k.secret,
		CAName:         caName,
		CAOrganization: "headgate",
		DNSName:        dnsNames[0],
		ExtraDNSNames:  dnsNames,
		IsReady:        make(chan struct{}),
		Webhooks:       []rotator.WebhookInfo{{Name: k.configuration, Type: rotator.Mutating}},
		FieldOwner:     "headgate",
		// The rotator ends the program when the mounted Secret does not show a certificate within a
		// quarter of an hour. That is all the mount is for: what is served comes from the Keeper.
		CertDir:                MountPath,
		RequireLeaderElection:  true,
		CaCertDuration:         caValidity,
		ServerCertDuration:     serverValidity,
		LookaheadInterval:      renewBefore,
		RotationCheckFrequency: checkEvery,
	})
	if err != nil {
		return fmt.Errorf("setting up the rotation of certificates: %w", err)
	}
	return nil
}

// lasting is the manager as the rotator sees it: without the Secret the rotator does not end the program, and it puts back a
// CA that got lost.
type lasting struct {
	ctrl.Manager
	keeper *Keeper
}

// Add runs the rotator as a patient one.
func (m lasting) Add(r manager.Runnable) error {
	if cr, ok := r.(*rotator.CertRotator); ok {
		r = patient{start: cr.Start, log: m.GetLogger().WithValues("secret", m.keeper.secret)}
	}
	return m.Manager.Add(r)
}

// GetClient returns what the rotator writes by.
func (m lasting) GetClient() client.Client {
	return restoring{Client: m.Manager.GetClient(), keeper: m.keeper}
}

// patient starts the rotator again for as long as it has no Secret, or can't write it. An end of it would be one of the whole
// program, which would come back without the certificate that it serves.
type patient struct {
	start func(ctx context.Context) error
	log   logr.Logger
}

func (p patient) NeedLeaderElection() bool { return true }

func (p patient) Start(ctx context.Context) error {
	for {
		err := p.start(ctx)
		if !apierrors.IsNotFound(err) && !wait.Interrupted(err) {
			return err
		}
		p.log.Error(err, "The certificate can't be rotated; trying again. A Secret that is gone has to be made again, empty")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(tryAgain):
		}
	}
}

// restoring writes into the Secret what it held, where the rotator would write another CA though that one is still good.
type restoring struct {
	client.Client
	keeper *Keeper
}

func (c restoring) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	if s, ok := o.(*corev1.Secret); ok {
		c.keeper.putBack(s, time.Now())
	}
	return c.Client.Update(ctx, o, opts...)
}

// putBack replaces another CA by the one that is known, unless it is about to end: then it must be another.
func (k *Keeper) putBack(s *corev1.Secret, now time.Time) {
	p := k.current.Load()
	if p == nil || bytes.Equal(s.Data[caCert], p.data[caCert]) {
		return
	}
	// As the rotator checks it. It would make yet another one of a CA that it takes to be no good.
	good, err := rotator.ValidCert(p.data[caCert], p.data[caCert], p.data[caKey], caName, nil, now.Add(renewBefore))
	if err == nil && good {
		s.Data = maps.Clone(p.data)
	}
}
