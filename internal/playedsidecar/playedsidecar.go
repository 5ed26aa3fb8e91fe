// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package playedsidecar plays sidecars that acknowledge at once, so that benchmarks see what a server costs with many of
// them. Their streams are real: gRPC with TLS, one connection each.
package playedsidecar

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/headgate/headgate/xds"
)

// PodHeader is in the metadata of the streams, for a server that takes a sidecar's word for who it is.
const PodHeader = "pod"

// Connect opens the stream of a pod's sidecar, which asks for what Envoy asks for, and acknowledges whatever it gets until the test
// ends. ports are those that the pod has captured.
func Connect(t testing.TB, address string, server *tls.Config, pod string, ports ...uint32) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(server)))
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), PodHeader, pod)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	routes := []string{"peers"}
	for _, p := range ports {
		routes = append(routes, fmt.Sprintf("capture|%d", p))
	}
	ended := make(chan error, 1)
	go func() { ended <- acknowledge(stream, routes) }()
	t.Cleanup(func() {
		conn.Close()
		<-ended // says only that the connection was closed
	})
}

// Pod is the name of the pod whose sidecar opened a stream.
func Pod(ctx context.Context) string {
	if names := metadata.ValueFromIncomingContext(ctx, PodHeader); len(names) == 1 {
		return names[0]
	}
	return ""
}

func acknowledge(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, routes []string) error {
	ask := func(typ xds.Type, nonce string, names ...string) error {
		return stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ.URL(), ResponseNonce: nonce, ResourceNamesSubscribe: names})
	}
	if err := errors.Join(ask(xds.Clusters, ""), ask(xds.Listeners, "")); err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		typ, ok := xds.TypeOf(r.GetTypeUrl())
		if !ok {
			return fmt.Errorf("a response of the unknown type %s", r.GetTypeUrl())
		}
		if err := ask(typ, r.GetNonce()); err != nil {
			return err
		}
		for _, x := range r.GetResources() {
			switch {
			case typ == xds.Clusters && strings.HasPrefix(x.GetName(), "peerconn|"):
				err = ask(xds.Endpoints, "", x.GetName())
			case typ == xds.Listeners:
				err = ask(xds.Routes, "", routes...)
			}
			if err != nil {
				return err
			}
		}
	}
}

// Certificate is one for a control plane of this DNS name, and what its sidecars trust it by: it is its own authority, and valid for
// an hour.
func Certificate(t testing.TB, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
