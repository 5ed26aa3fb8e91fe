// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/headgate/headgate/internal/playedsidecar"
	"github.com/headgate/headgate/xds"
)

const serverName = "headgate.headgate-system.svc"

// other is another replica, on loopback, with TLS, and its own sidecars.
type other struct {
	*fixture
	address string
	stop    func()
}

func otherReplica(t *testing.T, cert tls.Certificate) *other {
	t.Helper()
	o := &other{fixture: serve(t, Config{Identify: Anyone(webKey)})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(Options(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }})...)
	(&ReplicaService{Server: o.Server, Authenticator: known, User: known["replica"].User}).Register(g)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	o.address, o.stop = l.Addr().String(), g.Stop
	return o
}

// leader follows replicas with a token.
func leader(t *testing.T, pool *x509.CertPool, token string) (*Replicas, chan Key) {
	t.Helper()
	changed := make(chan Key, 1<<16)
	r := NewReplicas(ReplicasConfig{
		TLS:      func() (*tls.Config, error) { return &tls.Config{RootCAs: pool, ServerName: serverName}, nil },
		Token:    func() (string, error) { return token, nil },
		OnChange: func(k Key) { changed <- k },
	})
	t.Cleanup(r.Close)
	return r, changed
}

func untilReplicas(t *testing.T, r *Replicas, changed chan Key, wanted func([]Ack, map[string]error) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		acks, unknown := r.Acks(webKey)
		if wanted(acks, unknown) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("replicas stay at %+v, unknown %v", acks, unknown)
		}
	}
}

func TestTheLeaderHearsOfOtherReplicasSidecars(t *testing.T) {
	cert, pool := playedsidecar.Certificate(t, serverName)
	o := otherReplica(t, cert)
	set(t, o.Server, split(10, "10.0.0.1"))
	first := o.connect(t, "")
	first.start(o.fixture, split(10, "10.0.0.1"))

	r, changed := leader(t, pool, "replica")
	r.Follow(t.Context(), []string{o.address})
	untilReplicas(t, r, changed, func(a []Ack, unknown map[string]error) bool { return haveWeight(10)(a) && len(unknown) == 0 })

	set(t, o.Server, split(20, "10.0.0.1"))
	untilReplicas(t, r, changed, func(a []Ack, _ map[string]error) bool { return len(a) == 1 && !a[0].Known })
	routes := first.want(xds.Routes, "capture|8080")
	start := time.Now()
	first.ack(routes)
	untilReplicas(t, r, changed, func(a []Ack, _ map[string]error) bool { return haveWeight(20)(a) })
	t.Logf("an acknowledgement reached the leader after %s", time.Since(start))

	first.close()
	untilReplicas(t, r, changed, func(a []Ack, unknown map[string]error) bool { return len(a) == 0 && len(unknown) == 0 })
}

func TestAFailedReplicaIsUnknownAndNotSilent(t *testing.T) {
	cert, pool := playedsidecar.Certificate(t, serverName)
	lives, dies := otherReplica(t, cert), otherReplica(t, cert)
	for _, o := range []*other{lives, dies} {
		set(t, o.Server, atRest())
		o.connect(t, "").start(o.fixture, atRest())
	}
	r, changed := leader(t, pool, "replica")
	r.Follow(t.Context(), []string{lives.address, dies.address})
	untilReplicas(t, r, changed, func(_ []Ack, unknown map[string]error) bool { return len(unknown) == 0 })
	dies.stop()
	untilReplicas(t, r, changed, func(a []Ack, unknown map[string]error) bool {
		return len(a) == 1 && len(unknown) == 1 && unknown[dies.address] != nil
	})
	r.Follow(t.Context(), []string{lives.address})
	if a, unknown := r.Acks(webKey); len(a) != 1 || len(unknown) != 0 {
		t.Errorf("after it is given up: %+v, unknown %v", a, unknown)
	}
}

// One workload's pods say what they like, each as much as it may. The others' acknowledgements are none
// the worse for it.
func TestRefusalsOfOneWorkloadLeaveOthersKnown(t *testing.T) {
	const pods = 16000 // more than 4 MiB, what gRPC takes by default, even without a reason; with all of them 96 MiB
	cert, pool := playedsidecar.Certificate(t, serverName)
	o := otherReplica(t, cert)
	loud := Key{Namespace: "loud", Name: "web", Revision: "a"}
	for i := range pods {
		name := fmt.Sprintf("%s-%05d", strings.Repeat("n", 200), i)
		st := newStream(int64(-1-i), loud, Identity{Namespace: "loud", Pod: name, PodUID: name}, &o.cfg)
		st.refused = refusal(strings.Repeat("\x01", 2*maxReasonBytes))
		o.admit(st)
	}
	set(t, o.Server, split(10, "10.0.0.1"))
	o.connect(t, "").start(o.fixture, split(10, "10.0.0.1"))

	r, changed := leader(t, pool, "replica")
	r.Follow(t.Context(), []string{o.address})
	untilReplicas(t, r, changed, func(a []Ack, unknown map[string]error) bool { return haveWeight(10)(a) && len(unknown) == 0 })
	acks, _ := r.Acks(loud)
	told := 0
	for _, a := range acks {
		if len(a.Refused) == maxReasonBytes {
			told++
		}
	}
	if len(acks) != pods || told != maxReasons || acks[pods-1].Refused == "" {
		t.Errorf("%d acknowledgements, %d with all of their reason, the last refused for %q", len(acks), told, acks[pods-1].Refused)
	}
	if all := o.Acks(loud); len(all[pods-1].Refused) != maxReasonBytes {
		t.Error("what is told to others is cut at the replica itself")
	}
}

func TestAReplicaAnswersOnlyReplicas(t *testing.T) {
	cert, pool := playedsidecar.Certificate(t, serverName)
	_, stranger := playedsidecar.Certificate(t, serverName)
	for name, tc := range map[string]struct {
		pool  *x509.CertPool
		token string
		want  string
	}{
		"a pod's token":               {pool, "web-1", "PermissionDenied"},
		"no good token":               {pool, "stolen", "Unauthenticated"},
		"a server nobody vouched for": {stranger, "replica", "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			o := otherReplica(t, cert)
			r, changed := leader(t, tc.pool, tc.token)
			r.Follow(t.Context(), []string{o.address})
			untilReplicas(t, r, changed, func(_ []Ack, unknown map[string]error) bool {
				err := unknown[o.address]
				return err != nil && strings.Contains(err.Error(), tc.want)
			})
		})
	}
}

func TestLatestKeepsTheNewestStreamOfAPod(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	got := Latest([]Ack{
		{Pod: "b", UID: "1", Since: at(5)}, {Pod: "a", UID: "1", Since: at(1)}, {Pod: "a", UID: "1", Since: at(9)}, {Pod: "a", UID: "2", Since: at(3)},
	})
	var seen []string
	for _, a := range got {
		seen = append(seen, a.Pod+a.UID+a.Since.UTC().Format("05"))
	}
	if s := strings.Join(seen, " "); s != "a109 a203 b105" {
		t.Errorf("Latest kept %s", s)
	}
}
