// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"time"
)

// mostCross bounds the cross-certificates, which every handshake carries: pods that have lived through so many CAs and one
// more have to be created anew.
const mostCross = 4

// errNoCA is what a Secret causes whose CA has no key here, as that of cert-manager.
var errNoCA = errors.New("the CA's certificate or key is not there")

// follow makes p what comes after before (nil: nothing is known of it), with the cross-certificates that the Secret has, as PEM.
// When the CA is another one, the one before signs its key: "NewWithOld" of RFC 9810, section 4.4. Sidecars know the CA
// that was there when their pod was created, and API servers learn of another one at times of their own; both
// verify the same chain, whichever of the two they trust. Without the key of the CA before, this can't be: p is trusted by those
// that trust its own CA.
func (p *pair) follow(before *pair, inSecret []byte) {
	p.cross = certificates(inSecret)
	if before != nil {
		if before.ca == p.ca {
			p.since = before.since
		} else if c, err := crossed(before, p); err == nil {
			p.cross = append(p.cross, c)
		}
		p.cross = append(p.cross, before.cross...)
	}
	p.cross = distinct(p.cross)
	for _, c := range p.cross {
		p.certificate.Certificate = append(p.certificate.Certificate, c.Raw)
	}
}

// crossed certifies the CA of the one by the CA of the other. It holds for as long as both do.
func crossed(by, of *pair) (*x509.Certificate, error) {
	old, err := tls.X509KeyPair([]byte(by.ca), by.caKey)
	if err != nil {
		return nil, errors.Join(errNoCA, err)
	}
	ca := certificates([]byte(of.ca))
	if len(ca) == 0 {
		return nil, errNoCA
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(of.since.UnixNano()), Subject: ca[0].Subject,
		NotBefore: ca[0].NotBefore, NotAfter: earlier(old.Leaf.NotAfter, ca[0].NotAfter),
		KeyUsage: ca[0].KeyUsage, BasicConstraintsValid: true, IsCA: true,
		// Both have the same name: the identifiers tell them apart.
		SubjectKeyId: ca[0].SubjectKeyId, AuthorityKeyId: old.Leaf.SubjectKeyId,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, old.Leaf, ca[0].PublicKey, old.PrivateKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// distinct keeps the first of those that say the same about the same keys: each replica signs one, and all come to keep that
// of the Secret.
func distinct(all []*x509.Certificate) []*x509.Certificate {
	var kept []*x509.Certificate
	for _, c := range all {
		same := func(k *x509.Certificate) bool {
			return bytes.Equal(k.SubjectKeyId, c.SubjectKeyId) && bytes.Equal(k.AuthorityKeyId, c.AuthorityKeyId)
		}
		if len(kept) < mostCross && !slices.ContainsFunc(kept, same) {
			kept = append(kept, c)
		}
	}
	return kept
}

// certificates are those that can be read in a PEM text.
func certificates(text []byte) []*x509.Certificate {
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
	return out
}

// encoded is certificates the other way.
func encoded(all []*x509.Certificate) []byte {
	var text []byte
	for _, c := range all {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}
