// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/e2e/harness"
)

// secretName of the certificate that webhooks and xDS share.
const secretName = "headgate-certs"

// RotateCertificate takes the server's certificate away, as if it had expired, and returns when there is a
// new one of the same CA. It is meant to disturb nobody.
func RotateCertificate(c *harness.Case) {
	c.T.Helper()
	replaced(c, corev1.TLSCertKey, `{"data":{"tls.crt":null,"tls.key":null}}`)
}

// ExpireCertificate puts one of the same CA in place of the server's certificate that has expired, and returns when there is
// a new one. Until then, for a moment, calls of webhooks may fail.
func ExpireCertificate(c *harness.Case) {
	c.T.Helper()
	var now corev1.Secret
	if err := c.Client.Get(c.Ctx, client.ObjectKey{Namespace: harness.SystemNamespace, Name: secretName}, &now); err != nil {
		c.T.Fatalf("reading the certificate: %v", err)
	}
	expired, err := expiredNow(now.Data)
	if err != nil {
		c.T.Fatalf("making an expired certificate: %v", err)
	}
	patch := fmt.Sprintf(`{"data":{%q:%q}}`, corev1.TLSCertKey, base64.StdEncoding.EncodeToString(expired))
	replaced(c, corev1.TLSCertKey, patch, expired...)
}

// expiredNow is the Secret's certificate, signed again by its CA for a time that is over.
func expiredNow(secret map[string][]byte) ([]byte, error) {
	pair, err := tls.X509KeyPair(secret[corev1.TLSCertKey], secret[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, err
	}
	ca, err := tls.X509KeyPair(secret["ca.crt"], secret["ca.key"])
	if err != nil {
		return nil, err
	}
	template := *pair.Leaf
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, &template, ca.Leaf, pair.Leaf.PublicKey, ca.PrivateKey)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// ReplaceCA takes the CA away, too, and returns when the API server has been told to trust the new one alone. It is meant
// to disturb nobody.
func ReplaceCA(c *harness.Case) {
	c.T.Helper()
	ca := replaced(c, "ca.crt", `{"data":null}`)
	c.Await(patience, "the API server is told the new CA", func(ctx context.Context) error {
		what := harness.Selected{List: &admissionregistrationv1.MutatingWebhookConfigurationList{}}
		return harness.Follow(ctx, c.Client, what, func(state map[types.UID]*admissionregistrationv1.MutatingWebhookConfiguration) bool {
			for _, configuration := range state {
				for _, w := range configuration.Webhooks {
					if configuration.Name == webhookConfiguration && !bytes.Equal(w.ClientConfig.CABundle, ca) {
						return false
					}
				}
			}
			return true
		})
	})
}

// replaced patches the Secret and waits until this key has a new value, other than it had and than the patch may have set.
func replaced(c *harness.Case, key, patch string, patched ...byte) (now []byte) {
	c.T.Helper()
	var before corev1.Secret
	if err := c.Client.Get(c.Ctx, client.ObjectKey{Namespace: harness.SystemNamespace, Name: secretName}, &before); err != nil {
		c.T.Fatalf("reading the certificate: %v", err)
	}
	system(c, "patch", "secret", secretName, "--type=merge", "-p", patch)
	c.Await(patience, "there is a new certificate", func(ctx context.Context) error {
		what := harness.Selected{List: &corev1.SecretList{}, Options: []client.ListOption{client.InNamespace(harness.SystemNamespace)}}
		return harness.Follow(ctx, c.Client, what, func(state map[types.UID]*corev1.Secret) bool {
			s, there := state[before.UID]
			if there {
				now = s.Data[key]
			}
			return len(now) > 0 && !bytes.Equal(now, before.Data[key]) && !bytes.Equal(now, patched)
		})
	})
	return now
}
