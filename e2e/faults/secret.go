// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"

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

// ReplaceCA takes the CA away, too. Webhook calls may fail in the moment in which the API server changes over to the new one.
func ReplaceCA(c *harness.Case) {
	c.T.Helper()
	replaced(c, "ca.crt", `{"data":null}`)
}

// replaced patches the Secret and waits until this key has a new value.
func replaced(c *harness.Case, key, patch string) {
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
			return there && len(s.Data[key]) > 0 && !bytes.Equal(s.Data[key], before.Data[key])
		})
	})
}
