// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package certs serves the certificate that webhooks and xDS share, from its Secret, and has it
// rotated by open-policy-agent/cert-controller (or leaves that to cert-manager).
//
// Another CA disturbs nobody: the one before signs its key (cross.go), so that clients which were told either
// trust what is served, and the API server is told the new one only when every replica serves its certificate
// (publish.go).
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
	"sync"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Validity. A server certificate lives for a quarter and is renewed in its last month. The CA lives
// long, because sidecars were given it when their pod was created.
const (
	serverValidity = 90 * 24 * time.Hour
	renewBefore    = 30 * 24 * time.Hour
	caValidity     = 10 * 365 * 24 * time.Hour
	checkEvery     = 12 * time.Hour
)

// Keys of the Secret beside those of type kubernetes.io/tls.
const (
	caCertKey       = "ca.crt"
	caPrivateKeyKey = "ca.key"
	crossKey        = "cross.crt"
)

// MountPath is where the chart mounts the Secret.
const MountPath = "/certs"

var (
	// errNotReady is what a TLS client causes, and readiness says, before the Secret holds a certificate.
	errNotReady = errors.New("the Secret holds no certificate yet")
	// errGone is what the log says when somebody deletes the Secret. What it held is served on, by replicas that have it.
	errGone = errors.New("the Secret with the certificate is gone: it is served on from memory, and replicas that start will not be ready")
	// errNotTrusted is what readiness says while the API server would refuse the certificate.
	errNotTrusted = errors.New("the webhook configuration's caBundle does not trust the certificate yet")
)

// Keeper holds the current certificate. Safe for concurrent use.
type Keeper struct {
	secret        types.NamespacedName
	configuration string

	current    atomic.Pointer[pair]                                                 // the Secret's
	registered atomic.Pointer[admissionregistrationv1.MutatingWebhookConfiguration] // nil: there is none
	trusted    atomic.Bool                                                          // it was trusted once

	choice sync.Mutex           // held while current is taken, or served chosen
	served atomic.Pointer[pair] // current, or the one before

	changed chan struct{} // has an element when the publisher has something to look at
}

type pair struct {
	certificate tls.Certificate // its chain ends with cross
	ca          string
	caKey       []byte              // as PEM; empty where cert-manager keeps it
	cross       []*x509.Certificate // see crossed
	since       time.Time           // when the CA was first seen here
}

// NewKeeper keeps the certificate of a Secret with the keys of type kubernetes.io/tls, and ca.crt besides. The API
// server is told to trust it by the mutating webhook configuration of the given name.
func NewKeeper(secret types.NamespacedName, webhookConfiguration string) *Keeper {
	return &Keeper{secret: secret, configuration: webhookConfiguration, changed: make(chan struct{}, 1)}
}

// Watch follows the Secret and the webhook configuration through the manager's cache; the cache must be
// allowed to see them.
func (k *Keeper) Watch(ctx context.Context, mgr ctrl.Manager) error {
	err := follow(ctx, mgr, func(s *corev1.Secret, deleted bool) {
		switch {
		case s.Namespace != k.secret.Namespace || s.Name != k.secret.Name:
		case deleted:
			mgr.GetLogger().Error(errGone, "Make it again, empty, before the last of these replicas ends: sidecars that run will trust the new CA by the one of now", "secret", k.secret)
		default:
			k.take(s.Data, time.Now())
		}
	})
	if err != nil {
		return fmt.Errorf("watching secret %s: %w", k.secret, err)
	}
	err = follow(ctx, mgr, func(c *admissionregistrationv1.MutatingWebhookConfiguration, deleted bool) {
		if c.Name != k.configuration {
			return
		}
		if deleted {
			c = nil
		}
		k.register(c)
	})
	if err != nil {
		return fmt.Errorf("watching webhook configuration %s: %w", k.configuration, err)
	}
	return nil
}

// follow hands every state of every object of a kind to see.
func follow[T any, P interface {
	*T
	client.Object
}](ctx context.Context, mgr ctrl.Manager, see func(o P, deleted bool)) error {
	informer, err := mgr.GetCache().GetInformer(ctx, P(new(T)))
	if err != nil {
		return err
	}
	present := func(obj any) {
		if o, ok := obj.(P); ok {
			see(o, false)
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    present,
		UpdateFunc: func(_, obj any) { present(obj) },
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(P); ok {
				see(o, true)
			}
		},
	})
	return err
}

// take keeps a pair that can be used; a Secret half written is ignored, and the last good one stays.
func (k *Keeper) take(data map[string][]byte, now time.Time) {
	certificate, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil || len(data[caCertKey]) == 0 {
		return
	}
	k.choice.Lock()
	defer k.choice.Unlock()
	next := &pair{certificate: certificate, ca: string(data[caCertKey]), caKey: data[caPrivateKeyKey], since: now}
	next.follow(k.current.Load(), data[crossKey])
	k.current.Store(next)
	k.choose()
}

// register notes what the API server trusts; nil: it calls no webhook of ours.
func (k *Keeper) register(c *admissionregistrationv1.MutatingWebhookConfiguration) {
	k.choice.Lock()
	defer k.choice.Unlock()
	k.registered.Store(c)
	k.choose()
}

// choose has the certificate of another CA wait until the API server trusts it, unless it does not trust the one
// before either: calls of webhooks would fail until then, and those that may fail would let updates pass.
func (k *Keeper) choose() {
	current, served, c := k.current.Load(), k.served.Load(), k.registered.Load()
	if served == nil || current.trustedByAll(c) || !served.trustedByAll(c) {
		k.served.Store(current)
	}
	select {
	case k.changed <- struct{}{}:
	default: // it has yet to look
	}
}

// GetCertificate is for tls.Config: every handshake gets the certificate of that time.
func (k *Keeper) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p := k.served.Load()
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

// ClientTLS trusts the current CA for a server of this name, and for as long as the certificate of another one is
// served, that one too.
func (k *Keeper) ClientTLS(serverName string) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(k.CA())) {
		return nil, errNotReady
	}
	if p := k.served.Load(); p != nil {
		pool.AppendCertsFromPEM([]byte(p.ca))
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: serverName}, nil
}

// Ready is a readiness check: there is a certificate, and the API server trusts it. What was trusted once
// stays ready: the same pods serve the sidecars, which do not suffer from a configuration that was damaged or
// taken away.
func (k *Keeper) Ready(*http.Request) error {
	p := k.current.Load()
	if p == nil {
		return errNotReady
	}
	if k.trusted.Load() {
		return nil
	}
	c := k.registered.Load()
	if !p.trustedByAll(c) {
		return errNotTrusted
	}
	k.trusted.Store(c != nil)
	return nil
}

// trustedByAll says whether each webhook's bundle trusts the certificate; c is nil when somebody took the webhooks away.
func (p *pair) trustedByAll(c *admissionregistrationv1.MutatingWebhookConfiguration) bool {
	if c == nil || p == nil {
		return p != nil
	}
	for _, w := range c.Webhooks {
		if !p.trustedBy(w.ClientConfig.CABundle) {
			return false
		}
	}
	return true
}

// trustedBy says whether the certificate was issued by a CA of the bundle, or by one that it brings along and which that has
// issued, at the time that it was issued.
func (p *pair) trustedBy(bundle []byte) bool {
	roots, brought := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	for _, der := range p.certificate.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			brought.AddCert(c)
		}
	}
	_, err := p.certificate.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: brought, CurrentTime: p.certificate.Leaf.NotBefore})
	return err == nil
}
