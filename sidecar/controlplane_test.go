// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/headgate/headgate/xds"
	"github.com/headgate/headgate/xds/server"
)

// serverName is in the test server's certificate.
const serverName = "headgate.headgate-system.svc"

// controlPlane is the real xDS server, behind TLS, that can be stopped and started.
type controlPlane struct {
	t       *testing.T
	address string
	cert    tls.Certificate
	stop    func()
	ads     *server.Server

	mu sync.Mutex
	// tokens are what streams presented, in order.
	tokens []string
}

// newControlPlane prepares a server that does not run yet, and a configuration that leads to it.
func newControlPlane(t *testing.T, cfg *Config) *controlPlane {
	t.Helper()
	cert, ca := certificate(t)
	// A port that is free now stays so: nobody else is in this namespace, or takes it this soon.
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	c := &controlPlane{t: t, address: lis.Addr().String(), cert: cert, stop: func() {}}
	cfg.ServerAddress, cfg.ServerName, cfg.CA = c.address, serverName, ca
	cfg.TokenFile = filepath.Join(t.TempDir(), "token")
	c.writeToken(*cfg, "token-1")
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *controlPlane) writeToken(cfg Config, token string) {
	c.t.Helper()
	if err := os.WriteFile(cfg.TokenFile, []byte(token+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// start runs a new server that knows this configuration; nil for a server that knows none yet.
func (c *controlPlane) start(w *xds.Workload) {
	c.t.Helper()
	key := server.Key{Namespace: "shop", Name: "web", Revision: "v1"}
	ctx, cancel := context.WithCancel(context.Background())
	c.ads = server.New(ctx, server.Config{Identify: func(ctx context.Context) (server.Identity, server.Key, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tokens = append(c.tokens, md.Get("authorization")...)
		return server.Identity{Pod: "web-1", PodUID: "1"}, key, nil
	}})
	if w != nil {
		c.set(*w)
	}
	var lis net.Listener
	eventually(c.t, "the server's port is free", 5*time.Second, func() (err error) {
		lis, err = net.Listen("tcp", c.address)
		return err
	})
	g := grpc.NewServer(
		grpc.Creds(credentials.NewServerTLSFromCert(&c.cert)),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
	)
	c.ads.Register(g)
	go g.Serve(lis)
	c.stop = func() {
		cancel()
		g.Stop()
	}
}

func (c *controlPlane) set(w xds.Workload) {
	c.t.Helper()
	if err := c.ads.Set(w); err != nil {
		c.t.Fatal(err)
	}
}

func (c *controlPlane) lastToken() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) == 0 {
		return ""
	}
	return c.tokens[len(c.tokens)-1]
}

// split is this pod's workload with a share of requests for the other revision.
func split(cfg Config, weight uint32) xds.Workload {
	w := cfg.workload()
	w.Ports[0].Peer = 8080
	w.Split = &xds.Split{Peer: "v2", Endpoints: []string{peerIP}, PeerWeight: weight}
	return w
}

// certificate makes a CA and a certificate of it for serverName.
func certificate(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, ca
}
