// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/types"
)

const serverName = "headgate.headgate-system.svc"

// secretData is what the Secret holds: a certificate for serverName that is its own CA.
func secretData(t *testing.T) map[string][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "headgate-ca"}, DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return map[string][]byte{
		"ca.crt": certificate, "tls.crt": certificate,
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}
}

func newKeeper() *Keeper {
	return NewKeeper(types.NamespacedName{Namespace: "headgate-system", Name: "headgate-certs"}, "zz-headgate")
}

// handshake connects a client that trusts one Keeper to a server that serves another's certificate.
func handshake(t *testing.T, server, trusts *Keeper, name string) error {
	t.Helper()
	config, err := trusts.ClientTLS(name)
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: server.GetCertificate})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.(*tls.Conn).HandshakeContext(t.Context()) // the client's error is the one that tells
		conn.Close()
	}()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", l.Addr().String(), config)
	if err == nil {
		conn.Close()
	}
	l.Close()
	<-done
	return err
}

func TestNothingIsServedBeforeTheFirstCertificate(t *testing.T) {
	k := newKeeper()
	if c, err := k.GetCertificate(nil); c != nil || !errors.Is(err, errNotReady) {
		t.Errorf("it serves %v, %v", c, err)
	}
	if c, err := k.ClientTLS(serverName); c != nil || !errors.Is(err, errNotReady) {
		t.Errorf("it trusts %v, %v; a client without a CA would trust the system's", c, err)
	}
	if err := k.Ready(nil); !errors.Is(err, errNotReady) {
		t.Errorf("readiness says %v", err)
	}
	if ca := k.CA(); ca != "" {
		t.Errorf("the CA is %q", ca)
	}
}

func TestTheLastGoodCertificateStays(t *testing.T) {
	first, second := secretData(t), secretData(t)
	without := func(key string) map[string][]byte {
		return map[string][]byte{"ca.crt": second["ca.crt"], "tls.crt": second["tls.crt"], "tls.key": second["tls.key"], key: nil}
	}
	for name, tc := range map[string]struct {
		next map[string][]byte
		want map[string][]byte
	}{
		"a whole one replaces it":      {second, second},
		"an empty Secret":              {nil, first},
		"no key yet":                   {without("tls.key"), first},
		"no certificate yet":           {without("tls.crt"), first},
		"no CA yet":                    {without("ca.crt"), first},
		"a key of another certificate": {map[string][]byte{"ca.crt": second["ca.crt"], "tls.crt": second["tls.crt"], "tls.key": first["tls.key"]}, first},
		"a certificate that is no PEM": {map[string][]byte{"ca.crt": second["ca.crt"], "tls.crt": []byte("x"), "tls.key": second["tls.key"]}, first},
	} {
		t.Run(name, func(t *testing.T) {
			k, want := newKeeper(), newKeeper()
			k.take(first, time.Now())
			k.take(tc.next, time.Now())
			want.take(tc.want, time.Now())
			if k.CA() != string(tc.want["ca.crt"]) {
				t.Error("the CA is not the one that belongs to the certificate")
			}
			if err := handshake(t, k, want, serverName); err != nil {
				t.Errorf("a client that trusts the expected CA: %v", err)
			}
			if err := k.Ready(nil); err != nil {
				t.Errorf("readiness says %v", err)
			}
		})
	}
}

// registered is a configuration of one webhook a bundle.
func registered(bundles ...[]byte) *admissionregistrationv1.MutatingWebhookConfiguration {
	c := &admissionregistrationv1.MutatingWebhookConfiguration{}
	for _, b := range bundles {
		c.Webhooks = append(c.Webhooks, admissionregistrationv1.MutatingWebhook{
			ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: b},
		})
	}
	return c
}

// Until the API server trusts another CA, its calls of webhooks must find the certificate of the one before.
func TestAnotherCAIsServedWhenItIsTrusted(t *testing.T) {
	first, second, third := secretData(t), secretData(t), secretData(t)
	trusts := func(of ...map[string][]byte) *admissionregistrationv1.MutatingWebhookConfiguration {
		var bundle []byte
		for _, data := range of {
			bundle = append(bundle, data["ca.crt"]...)
		}
		return registered(bundle, bundle)
	}
	for name, tc := range map[string]struct {
		before, after *admissionregistrationv1.MutatingWebhookConfiguration // of the arrival of the second
		want          map[string][]byte
	}{
		"not trusted yet":             {trusts(first), trusts(first), first},
		"trusted":                     {trusts(first), trusts(second), second},
		"both are":                    {trusts(first), trusts(first, second), second},
		"by one webhook":              {trusts(first), registered(first["ca.crt"], second["ca.crt"]), second},
		"neither is":                  {trusts(first), trusts(third), second},
		"no bundle":                   {trusts(first), registered(nil, nil), second},
		"no webhooks":                 {trusts(first), nil, second},
		"the first never was trusted": {trusts(third), trusts(third), second},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper()
			k.take(first, time.Now())
			k.register(tc.before)
			k.take(second, time.Now())
			k.register(tc.after)
			want := newKeeper()
			want.take(tc.want, time.Now())
			if err := handshake(t, k, want, serverName); err != nil {
				t.Errorf("a client that trusts the expected CA: %v", err)
			}
			if k.CA() != string(second["ca.crt"]) {
				t.Error("new pods are not told the CA that is to come")
			}
			if err := handshake(t, k, k, serverName); err != nil {
				t.Errorf("another replica: %v", err)
			}
		})
	}
	k := newKeeper()
	k.take(first, time.Now())
	k.register(trusts(first))
	k.take(second, time.Now())
	k.take(third, time.Now())
	want := newKeeper()
	want.take(first, time.Now())
	if err := handshake(t, k, want, serverName); err != nil {
		t.Errorf("after two more that are not trusted yet: %v", err)
	}
}

// A replica that the API server does not trust yet would have updates refused, and pods without sidecars.
func TestReadyWhenTheAPIServerTrustsTheCertificate(t *testing.T) {
	ours, stranger := secretData(t), secretData(t)
	type states = []*admissionregistrationv1.MutatingWebhookConfiguration
	none, trusting, empty := registered(), registered(ours["ca.crt"], ours["ca.crt"]), registered(nil, nil)
	other, half := registered(stranger["ca.crt"]), registered(ours["ca.crt"], nil)
	old := registered(slices.Concat(stranger["ca.crt"], ours["ca.crt"]))
	for name, tc := range map[string]struct {
		// What the cluster shows, one after the other; readiness is asked each time.
		states states
		want   error
	}{
		"trusted":                             {states: states{trusting}},
		"the CA before is there too":          {states: states{old}},
		"just installed":                      {states: states{empty}, want: errNotTrusted},
		"the CA of an earlier installation":   {states: states{other}, want: errNotTrusted},
		"one webhook does not trust it yet":   {states: states{half}, want: errNotTrusted},
		"then trusted":                        {states: states{empty, trusting}},
		"damaged after it was trusted":        {states: states{trusting, other}},
		"taken away":                          {states: states{nil}},
		"taken away, and back without trust":  {states: states{nil, empty}, want: errNotTrusted},
		"taken away after it was trusted":     {states: states{trusting, nil}},
		"all its webhooks taken away by hand": {states: states{none}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper()
			k.take(ours, time.Now())
			var err error
			for _, c := range tc.states {
				k.register(c)
				err = k.Ready(nil)
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("readiness says %v, want %v", err, tc.want)
			}
		})
	}
}

func TestClientsTrustTheCAAndTheNameAlone(t *testing.T) {
	k, stranger := newKeeper(), newKeeper()
	k.take(secretData(t), time.Now())
	stranger.take(secretData(t), time.Now())
	var unknown x509.UnknownAuthorityError
	if err := handshake(t, stranger, k, serverName); !errors.As(err, &unknown) {
		t.Errorf("a server with a stranger's certificate: %v", err)
	}
	var wrongName x509.HostnameError
	if err := handshake(t, k, k, "other.headgate-system.svc"); !errors.As(err, &wrongName) {
		t.Errorf("a server of another name: %v", err)
	}
}

// issued is a certificate of a CA (nil: its own), and its key.
func issued(t *testing.T, name string, by *x509.Certificate, byKey *ecdsa.PrivateKey, isCA bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if by == nil {
		by, byKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

// An issuer of cert-manager may be a CA below another: the certificate brings along what is between it and the root, which alone
// is in ca.crt.
func TestACertificateOfACABelowTheRootIsTrusted(t *testing.T) {
	root, rootKey := issued(t, "root", nil, nil, true)
	below, belowKey := issued(t, "below", root, rootKey, true)
	leaf, _ := issued(t, "leaf", below, belowKey, false)
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
	chain := &pair{certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw, below.Raw}, Leaf: leaf}}
	alone := &pair{certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, Leaf: leaf}}
	if !chain.trustedBy(bundle) || alone.trustedBy(bundle) {
		t.Errorf("with the CA between: trusted %t; without it: %t", chain.trustedBy(bundle), alone.trustedBy(bundle))
	}
}
