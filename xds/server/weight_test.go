// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/headgate/headgate/internal/playedsidecar"
	"github.com/headgate/headgate/internal/quantile"
	"github.com/headgate/headgate/xds/internal/envoytest"
)

// BenchmarkNewWeight measures from a new weight to the last acknowledgement. (What comes before, from the verdict on, is measured
// by the controller's BenchmarkVerdict.) The sidecars acknowledge at once; they have connections of their own, with TLS, over
// loopback. The Envoy is a real one, and takes the weight from its own socket, as in a pod.
func BenchmarkNewWeight(b *testing.B) {
	b.Run("envoys=1", newWeightsOfEnvoy)
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("sidecars=%d", n), func(b *testing.B) { newWeights(b, n) })
	}
}

func newWeights(b *testing.B, sidecars int) {
	var connected atomic.Int64
	changed := make(chan struct{}, 1)
	s := New(b.Context(), Config{
		Identify: func(context.Context) (Identity, Key, error) {
			return Identity{Namespace: "shop", Pod: fmt.Sprintf("web-%d", connected.Add(1))}, webKey, nil
		},
		OnChange: func(Key) {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
	})
	inForce := func(weight uint32) {
		set(b, s, split(weight, "10.0.0.1", "10.0.0.2"))
		for deadline := time.After(patience); ; {
			if acks := s.Acks(webKey); len(acks) == sidecars && haveWeight(weight)(acks) {
				return
			}
			select {
			case <-changed:
			case <-deadline:
				b.Fatalf("acknowledgements stay at %+v", s.Acks(webKey))
			}
		}
	}
	cert, pool := playedsidecar.Certificate(b, serverName)
	address := listen(b, s, cert)
	for range sidecars {
		playedsidecar.Connect(b, address, &tls.Config{RootCAs: pool, ServerName: serverName}, "", 8080)
	}
	inForce(0)
	measureWeights(b, inForce)
}

func newWeightsOfEnvoy(b *testing.B) {
	n := envoytest.New(b)
	n.NoteVersion()
	pod := n.Pod(8080)
	f := serve(b, Config{Identify: Anyone(webKey), Linger: DefaultLinger})
	inForce := func(weight uint32) {
		set(b, f.Server, split(weight, "10.213.0.98", "10.213.0.99"))
		f.settled(b, webKey, weight)
	}
	set(b, f.Server, atRest())
	pod.StartEnvoy(func(g grpc.ServiceRegistrar) { f.Register(g) })
	inForce(0)
	measureWeights(b, inForce)
}

// measureWeights puts one weight after the other in force.
func measureWeights(b *testing.B, inForce func(weight uint32)) {
	b.Helper()
	var took []time.Duration
	for weight := uint32(1); b.Loop(); weight = weight%100 + 1 {
		start := time.Now()
		inForce(weight)
		took = append(took, time.Since(start))
	}
	quantile.Report(b, took)
}

// listen serves as the control plane does.
func listen(b *testing.B, s *Server, cert tls.Certificate) (address string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer(Options(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }})...)
	s.Register(g)
	go g.Serve(l)
	b.Cleanup(g.Stop)
	return l.Addr().String()
}
