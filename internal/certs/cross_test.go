// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// withCA is what the Secret holds when Headgate rotates it: a certificate, its CA, and both keys. All CAs have one name.
func withCA(t *testing.T) map[string][]byte {
	t.Helper()
	ca, caKey := issued(t, "headgate-ca", nil, nil, true)
	leaf, key := issued(t, serverName, ca, caKey, false)
	encode := func(k *ecdsa.PrivateKey) []byte {
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	}
	return map[string][]byte{
		caCertKey: encoded([]*x509.Certificate{ca}), caPrivateKeyKey: encode(caKey),
		corev1.TLSCertKey: encoded([]*x509.Certificate{leaf}), corev1.TLSPrivateKeyKey: encode(key),
	}
}

// told is a client that was told the CA of that time.
func told(data map[string][]byte) *Keeper {
	k := newKeeper()
	k.take(data, time.Now())
	return k
}

// Pods know the CA that was there when they were created, and live through any others.
func TestAnotherCAIsTrustedByThoseThatKnowTheOneBefore(t *testing.T) {
	first, second, third, stranger := withCA(t), withCA(t), withCA(t), withCA(t)
	server := told(first)
	server.register(registered(first[caCertKey]))
	for _, next := range []map[string][]byte{second, third, nil} {
		server.take(next, time.Now())
	}
	for name, client := range map[string]map[string][]byte{"the first": first, "the second": second, "the third": third} {
		if err := handshake(t, server, told(client), serverName); err != nil {
			t.Errorf("a client that knows %s CA: %v", name, err)
		}
	}
	var unknown x509.UnknownAuthorityError
	if err := handshake(t, server, told(stranger), serverName); !errors.As(err, &unknown) {
		t.Errorf("a client that knows none of them: %v", err)
	}
	if err := handshake(t, told(second), server, serverName); !errors.As(err, &unknown) {
		t.Errorf("a client that knows the third CA, and a server of the second: %v", err)
	}
	if server.CA() != string(third[caCertKey]) {
		t.Error("new pods are told another CA than the last")
	}

	// A replica that starts now knows what the Secret says.
	again := withKeys(third, crossKey, encoded(server.current.Load().cross))
	if err := handshake(t, told(again), told(first), serverName); err != nil {
		t.Errorf("a replica that starts later, and a client that knows the first CA: %v", err)
	}
	// Replicas sign each their own, and come to keep one of them.
	server.take(again, time.Now())
	if n := len(server.current.Load().cross); n != 2 {
		t.Errorf("%d cross-certificates are kept, want 2", n)
	}
}

// A certificate of the same CA, renewed, brings the cross-certificates along.
func TestRenewedCertificatesAreTrustedAsBefore(t *testing.T) {
	first, second := withCA(t), withCA(t)
	server := told(first)
	server.take(second, time.Now())
	server.take(second, time.Now())
	if err := handshake(t, server, told(first), serverName); err != nil {
		t.Errorf("a client that knows the first CA: %v", err)
	}
}

func TestCrossCertificatesAreBounded(t *testing.T) {
	server := told(withCA(t))
	for range 2 * mostCross {
		server.take(withCA(t), time.Now())
	}
	if n := len(server.current.Load().certificate.Certificate); n != 1+mostCross {
		t.Errorf("%d certificates are served, want %d", n, 1+mostCross)
	}
}

func withKeys(data map[string][]byte, key string, value []byte) map[string][]byte {
	with := map[string][]byte{key: value}
	for k, v := range data {
		if k != key {
			with[k] = v
		}
	}
	return with
}

// The API server is told of another CA when all replicas serve its certificate, and at once when it trusts none of theirs.
func TestTheAPIServerIsToldOfAnotherCA(t *testing.T) {
	first, second, stranger := withCA(t), withCA(t), withCA(t)
	start := time.Now()
	for name, tc := range map[string]struct {
		trusts []byte // what the API server does when the second comes
		wait   time.Duration
	}{
		"it trusts the one before":  {first[caCertKey], settle},
		"it trusts both":            {append(append([]byte{}, first[caCertKey]...), second[caCertKey]...), settle},
		"it trusts a stranger":      {stranger[caCertKey], 0},
		"it was told nothing":       {nil, 0},
		"it trusts the new one":     {second[caCertKey], 0},
		"something that is no CA's": {[]byte("x"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper()
			k.take(first, start)
			k.take(second, start)
			configuration := registered(tc.trusts, tc.trusts)
			configuration.Name = k.configuration
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: k.secret.Namespace, Name: k.secret.Name}, Data: second}
			p := &publisher{k, fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(secret, configuration).Build()}
			bundle := func() string {
				t.Helper()
				if err := p.client.Get(t.Context(), client.ObjectKeyFromObject(configuration), configuration); err != nil {
					t.Fatal(err)
				}
				k.register(configuration)
				return string(configuration.Webhooks[1].ClientConfig.CABundle)
			}
			bundle()
			wait, err := p.publish(t.Context(), start)
			if err != nil || wait != tc.wait {
				t.Errorf("it looks again in %v (%v), want in %v", wait, err, tc.wait)
			}
			if now := bundle(); tc.wait > 0 && now != string(tc.trusts) {
				t.Error("the API server is told before all replicas may know")
			}
			if wait, err := p.publish(t.Context(), start.Add(tc.wait)); err != nil || wait != 0 {
				t.Errorf("it looks again in %v (%v), want never", wait, err)
			}
			if bundle() != string(second[caCertKey]) {
				t.Error("the API server is not told the CA")
			}
			if err := p.client.Get(t.Context(), k.secret, secret); err != nil {
				t.Fatal(err)
			}
			if err := handshake(t, told(secret.Data), told(first), serverName); err != nil {
				t.Errorf("a replica that starts later, and a client that knows the first CA: %v", err)
			}
		})
	}
}

// Cross-certificates of one CA must not get beside another, that somebody has put there meanwhile.
func TestASecretWithAnotherCAIsLeftAlone(t *testing.T) {
	k := told(withCA(t))
	k.take(withCA(t), time.Now())
	later := withCA(t)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: k.secret.Namespace, Name: k.secret.Name}, Data: later}
	p := &publisher{k, fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(secret).Build()}
	if _, err := p.publish(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := p.client.Get(t.Context(), k.secret, secret); err != nil {
		t.Fatal(err)
	}
	if len(secret.Data[crossKey]) != 0 {
		t.Error("it has a cross-certificate of the CA before")
	}
}
