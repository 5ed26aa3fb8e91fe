// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/internal/playedsidecar"
	"github.com/headgate/headgate/internal/quantile"
	xdsserver "github.com/headgate/headgate/xds/server"
)

// BenchmarkVerdict measures from a verdict of Fail to the last acknowledgement of weight 0: how long users still meet a version of
// which it is known that it fails. In between are a pass of the controller, the record, its watch, the Feeder, and the server
// of all sidecars, over a connection with TLS for each. Everything but the record is read from caches like the control plane's.
// Played are the API server, to which a write and its watch cost nothing here (a real one takes some milliseconds), and the
// sidecars, which acknowledge at once (for an Envoy see xds/server.NewWeight).
func BenchmarkVerdict(b *testing.B) {
	for _, n := range []int32{1, 10, 100} {
		b.Run(fmt.Sprintf("sidecars=%d", n), func(b *testing.B) { newStand(b, n).measure(b) })
	}
}

// stand is a control plane with one rollout in its first step.
type stand struct {
	client   client.WithWatch
	begun    *v1alpha1.Rollout // the record as it is there
	failing  atomic.Bool
	sidecars int
	server   *xdsserver.Server
	wake     chan struct{}
	changed  chan struct{}
}

func newStand(b *testing.B, sidecars int32) *stand {
	b.Helper()
	s := &stand{sidecars: int(sidecars), wake: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	objects := settled(b, v1alpha1.PhaseStepping, sidecars, inFirstStep(b, sidecars))
	for _, o := range objects {
		o.SetResourceVersion("")
	}
	s.client = recordApart{cluster(b, objects...).Build(), manager(b, append(objects, node("n1", corev1.ConditionTrue))).GetClient()}
	s.begun = stored(b, s.client, record())
	s.server = xdsserver.New(b.Context(), xdsserver.Config{Identify: s.identify, OnChange: func(xdsserver.Key) { signal(s.changed) }})
	r := reconciler(s.client)
	r.Looks, r.Sidecars = s, s
	r.Now = func() time.Time { return at(105) } // a look later than the step began
	go s.lead(b, r)
	go s.feed(b, &Feeder{Reconciler: r, Sink: xdsServer{s.server}})
	s.connect(b)
	return s
}

// recordApart writes everything, and reads Rollouts, at an API server of its own, and reads all else from caches in which nothing
// ever happens.
type recordApart struct {
	client.WithWatch

	cached client.Reader
}

// Get implements client.Reader.
func (r recordApart) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if _, is := o.(*v1alpha1.Rollout); is {
		return r.WithWatch.Get(ctx, key, o, opts...)
	}
	return r.cached.Get(ctx, key, o, opts...)
}

// List implements client.Reader.
func (r recordApart) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if _, is := list.(*v1alpha1.RolloutList); is {
		return r.WithWatch.List(ctx, list, opts...)
	}
	return r.cached.List(ctx, list, opts...)
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// lead makes a pass whenever it is woken.
func (s *stand) lead(b *testing.B, r *Reconciler) {
	for {
		select {
		case <-b.Context().Done():
			return
		case <-s.wake:
			if _, err := r.Reconcile(b.Context(), ctrl.Request{NamespacedName: webKey}); err != nil && b.Context().Err() == nil {
				b.Error(err)
			}
		}
	}
}

// feed follows the record, as every replica does.
func (s *stand) feed(b *testing.B, f *Feeder) {
	w, err := s.client.Watch(b.Context(), &v1alpha1.RolloutList{})
	if err != nil {
		b.Error(err)
		return
	}
	defer w.Stop()
	for {
		if _, err := f.Reconcile(b.Context(), ctrl.Request{NamespacedName: webKey}); err != nil && b.Context().Err() == nil {
			b.Error(err)
		}
		select {
		case <-b.Context().Done():
			return
		case <-w.ResultChan():
		}
	}
}

// connect serves all sidecars, those of stable and the candidate's.
func (s *stand) connect(b *testing.B) {
	b.Helper()
	certificate, trusted := playedsidecar.Certificate(b, "test")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer(xdsserver.Options(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }})...)
	s.server.Register(g)
	go g.Serve(l) // it ends when the server is stopped
	b.Cleanup(g.Stop)
	pods := []string{"c0"}
	for i := range s.sidecars {
		pods = append(pods, fmt.Sprintf("s%d", i))
	}
	for _, pod := range pods {
		playedsidecar.Connect(b, l.Addr().String(), &tls.Config{RootCAs: trusted, ServerName: "test"}, pod, 6379, 8080, 9090, 9100)
	}
}

// identify takes the sidecars' word for it.
func (s *stand) identify(ctx context.Context) (xdsserver.Identity, xdsserver.Key, error) {
	pod := playedsidecar.Pod(ctx)
	revision := stableHash
	if strings.HasPrefix(pod, "c") {
		revision = candidateHash
	}
	return xdsserver.Identity{Namespace: webKey.Namespace, Pod: pod}, key(revision), nil
}

func key(revision string) xdsserver.Key {
	return xdsserver.Key{Namespace: webKey.Namespace, Name: webKey.Name, Revision: revision}
}

// Acks implements Sidecars.
func (s *stand) Acks(_ types.NamespacedName, revision string) []Ack {
	var out []Ack
	for _, a := range s.server.Acks(key(revision)) {
		out = append(out, Ack{Pod: a.Pod, Peer: a.State.Peer, PeerWeight: int32(a.State.PeerWeight), Over: a.State.Over})
	}
	return out
}

// Unheard implements Sidecars.
func (s *stand) Unheard() string { return "" }

// Verdict implements Analysis.
func (s *stand) Verdict(types.NamespacedName, *v1alpha1.RolloutStatus) (v1alpha1.Verdict, string) {
	if s.failing.Load() {
		return v1alpha1.Verdict{Result: v1alpha1.ResultFail, Cause: "ErrorRate", Message: "it fails"}, ""
	}
	return v1alpha1.Verdict{Result: v1alpha1.ResultUndecided}, ""
}

// Forget implements Analysis.
func (s *stand) Forget(types.NamespacedName) {}

// measure fails one candidate after the other.
func (s *stand) measure(b *testing.B) {
	var took []time.Duration
	s.await(b, 10)
	for b.Loop() {
		start := time.Now()
		s.failing.Store(true)
		signal(s.wake)
		s.await(b, 0)
		took = append(took, time.Since(start))

		b.StopTimer()
		s.failing.Store(false)
		s.again(b)
		s.await(b, 10)
		b.StartTimer()
	}
	quantile.Report(b, took)
}

// again puts the record back to where it was.
func (s *stand) again(b *testing.B) {
	b.Helper()
	now := stored(b, s.client, record())
	now.Status = *s.begun.Status.DeepCopy()
	if err := s.client.Status().Update(b.Context(), now); err != nil {
		b.Fatal(err)
	}
}

// await waits until all of stable's sidecars have acknowledged a weight.
func (s *stand) await(b *testing.B, weight uint32) {
	b.Helper()
	for deadline := time.After(10 * time.Second); ; {
		reached := 0
		for _, a := range s.server.Acks(key(stableHash)) {
			if a.Known && a.State.PeerWeight == weight {
				reached++
			}
		}
		if reached == s.sidecars {
			return
		}
		select {
		case <-s.changed:
		case <-deadline:
			b.Fatalf("of %d sidecars %d have acknowledged weight %d; the record says %+v", s.sidecars, reached, weight, stored(b, s.client, record()).Status)
		}
	}
}
