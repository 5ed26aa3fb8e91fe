// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"testing"
)

func TestIssuedCertificatesVerify(t *testing.T) {
	ca, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.Cert) {
		t.Fatal("the authority's certificate isn't PEM")
	}

	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	for name, tc := range map[string]struct {
		subject Subject
		usages  []x509.ExtKeyUsage
		hosts   []string
	}{
		"a client": {Subject{User: "system:admin", Groups: []string{"system:masters"}}, []x509.ExtKeyUsage{client}, nil},
		"a server": {
			Subject{User: "kube-apiserver", Hosts: []string{"kubernetes.default.svc"}, Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.1")}},
			[]x509.ExtKeyUsage{client, server},
			[]string{"kubernetes.default.svc", "10.96.0.1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			pair, err := ca.Issue(tc.subject)
			if err != nil {
				t.Fatal(err)
			}
			loaded, err := tls.X509KeyPair(pair.Cert, pair.Key)
			if err != nil {
				t.Fatal(err)
			}
			cert := loaded.Leaf
			if !slices.Equal(cert.ExtKeyUsage, tc.usages) {
				t.Errorf("usages are %v, want %v", cert.ExtKeyUsage, tc.usages)
			}
			if cert.Subject.CommonName != tc.subject.User || !slices.Equal(cert.Subject.Organization, tc.subject.Groups) {
				t.Errorf("subject is %s", cert.Subject)
			}
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{client}}); err != nil {
				t.Error(err)
			}
			for _, host := range tc.hosts {
				if err := cert.VerifyHostname(host); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
