// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package certs serves the certificate that webhooks and xDS share, from its Secret, and has it
// rotated by open-policy-agent/cert-controller (or leaves that to cert-manager).
//
// The certificate is taken from the Secret by an informer, not from a mounted volume: the kubelet
// refreshes volumes only about once a minute, which every first install would wait for.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
)

// Validity. A server certificate lives for a quarter and is renewed in its last month. The CA lives
// long, because sidecars were given it when their pod was created.
const (
	serverValidity = 90 * 24 * time.Hour
	renewBefore    = 30 * 24 * time.Hour
	caValidity     = 10 * 365 * 24 * time.Hour
	checkEvery     = 12 * time.Hour
)

// MountPath is where the chart mounts the Secret.
const MountPath = "/certs"

// errNotReady is what a TLS client causes, and readiness says, before the Secret holds a certificate.
var errNotReady = errors.New("the Secret holds no certificate yet")

// Keeper holds the current certificate. Safe for concurrent use.
type Keeper struct {
	secret  types.NamespacedName
	current atomic.Pointer[pair]
}

type pair struct {
	certificate tls.Certificate
	ca          string
}

// NewKeeper keeps the certificate of a Secret of type kubernetes.io/tls with an additional ca.crt.
func NewKeeper(secret types.NamespacedName) *Keeper {
	return &Keeper{secret: secret}
}

// Watch follows the Secret through the manager's cache; the cache must be allowed to see it.
func (k *Keeper) Watch(ctx context.Context, mgr ctrl.Manager) error {
	informer, err := mgr.GetCache().GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("watching secret %s: %w", k.secret, err)
	}
	take := func(obj any) {
		if s, ok := obj.(*corev1.Secret); ok && s.Namespace == k.secret.Namespace && s.Name == k.secret.Name {
			k.take(s.Data)
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    take,
		UpdateFunc: func(_, obj any) { take(obj) },
	})
	if err != nil {
		return fmt.Errorf("watching secret %s: %w", k.secret, err)
	}
	return nil
}

// take keeps a pair that can be used; a Secret half written is ignored, and the last good one stays.
func (k *Keeper) take(data map[string][]byte) {
	certificate, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil || len(data["ca.crt"]) == 0 {
		return
	}
	k.current.Store(&pair{certificate: certificate, ca: string(data["ca.crt"])})
}

// GetCertificate is for tls.Config: every handshake gets the current certificate.
func (k *Keeper) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p := k.current.Load()
	if p == nil {
		return nil, errNotReady
	}
	return &p.certificate, nil
}

// CA is the bundle that clients should trust, as PEM; empty before there is one.
func (k *Keeper) CA() string {
	if p := k.current.Load(); p != nil {
		return p.ca
	}
	return ""
}

// ClientTLS trusts the current CA for a server of this name.
func (k *Keeper) ClientTLS(serverName string) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(k.CA())) {
		return nil, errNotReady
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: serverName}, nil
}

// Ready is a readiness check.
func (k *Keeper) Ready(*http.Request) error {
	if k.current.Load() == nil {
		return errNotReady
	}
	return nil
}

// Rotate has the leader create, renew and publish the certificate: into the Secret, which must exist,
// and as caBundle into the mutating webhook configuration of the given name.
func Rotate(mgr ctrl.Manager, secret types.NamespacedName, webhookConfiguration string, dnsNames []string) error {
	err := rotator.AddRotator(mgr, &rotator.CertRotator{
		SecretKey:      secret,
		CAName:         "headgate-ca",
		CAOrganization: "headgate",
		DNSName:        dnsNames[0],
		ExtraDNSNames:  dnsNames,
		IsReady:        make(chan struct{}),
		Webhooks:       []rotator.WebhookInfo{{Name: webhookConfiguration, Type: rotator.Mutating}},
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
