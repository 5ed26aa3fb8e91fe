// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// rotateAgain is how long the leader waits for a Secret that is not there, or that it could not write.
const rotateAgain = 10 * time.Second

// Rotate has the leader create, renew and publish the certificate: into the Secret, which must exist,
// and its CA as caBundle into the mutating webhook configuration.
//
// Where the Secret is deleted, what it held is served on. When somebody makes it again, there is another CA, which sidecars that run
// trust by the one before, unless no replica has that one any more.
func (k *Keeper) Rotate(mgr ctrl.Manager, dnsNames []string) error {
	err := rotator.AddRotator(lasting{Manager: mgr, log: mgr.GetLogger().WithValues("secret", k.secret)}, &rotator.CertRotator{
		SecretKey:      k.secret,
		CAName:         "headgate-ca",
		CAOrganization: "headgate",
		DNSName:        dnsNames[0],
		ExtraDNSNames:  dnsNames,
		IsReady:        make(chan struct{}),
		// No Webhooks: it would tell the API server of another CA before all replicas serve its certificate.
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
	if err := mgr.Add(&publisher{keeper: k, client: mgr.GetClient()}); err != nil {
		return fmt.Errorf("adding what publishes the CA: %w", err)
	}
	return nil
}

// lasting is the manager as the rotator sees it: without the Secret the rotator does not end the program.
type lasting struct {
	ctrl.Manager
	log logr.Logger
}

// Add runs the rotator as a patient one.
func (m lasting) Add(r manager.Runnable) error {
	if cr, ok := r.(*rotator.CertRotator); ok {
		r = patient{start: cr.Start, log: m.log}
	}
	return m.Manager.Add(r)
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
		case <-time.After(rotateAgain):
		}
	}
}
