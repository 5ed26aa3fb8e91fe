// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/headgate/headgate/internal/quantile"
	"github.com/headgate/headgate/xds"
	"github.com/headgate/headgate/xds/internal/envoytest"
)

// How requests are measured. All ways take turns within each round, so that whatever else the machine does
// meets all of them alike, and the ratios mean something where the times do not.
const (
	rounds = 6
	// turn is how long a way is measured in a round, first under the constant load, then at saturation.
	turn = time.Second
	// pacers send the constant load, 400 requests per second, each on a connection of its own. It leaves
	// two cores mostly idle.
	pacers = 4
	pace   = 10 * time.Millisecond
	// saturators each send the next request as soon as the last one was answered.
	saturators = 16
)

// BenchmarkRequest measures what a small HTTP/1.1 request costs on its way to an app that answers at once:
//
//	direct   client -> app
//	envoy    client -> Envoy that does nothing but forward -> app
//	local    client -> sidecar at rest -> app
//	peer     client -> sidecar with weight 100 -> the other revision's sidecar -> app
//
// The time of an operation is the mean of one connection that has the machine for itself; the quantiles are
// under the constant load, from when a request was sent. The ratios are to direct, which is flattered: client
// and app are one process. Clients, apps and Envoys (of one worker each) share the machine, so at saturation
// all of them count.
func BenchmarkRequest(b *testing.B) {
	ways := newWays(b)
	for range rounds {
		for _, w := range ways {
			w.measure(b)
		}
	}
	direct := ways[0].figures()
	for _, w := range ways {
		b.Run(w.name, func(b *testing.B) {
			c := w.connect(b)
			defer c.Close()
			for b.Loop() {
				if err := c.get(); err != nil {
					b.Fatal(err)
				}
			}
			f := w.figures()
			b.ReportMetric(f.p50, "p50-ns")
			b.ReportMetric(f.p99, "p99-ns")
			b.ReportMetric(f.rate, "req/s")
			if w != ways[0] {
				b.ReportMetric(f.p50/direct.p50, "p50-ratio")
				b.ReportMetric(f.p99/direct.p99, "p99-ratio")
				b.ReportMetric(f.rate/direct.rate, "req/s-ratio")
			}
		})
	}
}

// way is one of the ways to an app, and what was measured on it.
type way struct {
	name    string
	address string
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	took    []time.Duration
	// atSaturation is the number of requests of each round, per second.
	atSaturation []float64
}

type figures struct{ p50, p99, rate float64 }

// figures takes the median of the rounds for the rate: the others were disturbed by something.
func (w *way) figures() figures {
	rates := slices.Sorted(slices.Values(w.atSaturation))
	return figures{float64(quantile.Of(w.took, 0.5)), float64(quantile.Of(w.took, 0.99)), rates[len(rates)/2]}
}

// newWays makes three pods for four ways: one without a sidecar, and one of each revision.
func newWays(b *testing.B) []*way {
	b.Helper()
	n := envoytest.New(b)
	n.NoteVersion()
	plain, side, split, peer := n.Pod(), n.Pod(8080), n.Pod(8080), n.Pod(8080)
	app := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	for _, p := range []*envoytest.Pod{plain, side, split, peer} {
		p.Serve(8080, app)
	}
	plain.RunEnvoyWith(b.TempDir(), forwarder(plain.IP))
	configure(b, side, atRest())
	configure(b, peer, atRest())
	w := atRest()
	w.Split = &xds.Split{Peer: "b", PeerWeight: 100, Endpoints: []string{peer.IP}}
	configure(b, split, w)

	ways := []*way{
		{name: "direct", address: plain.IP + ":8080"},
		{name: "envoy", address: plain.IP + ":10000"},
		{name: "local", address: side.IP + ":8080"},
		{name: "peer", address: split.IP + ":8080"},
	}
	for _, w := range ways {
		w.dial = n.Dial
		w.await(b)
	}
	return ways
}

// configure starts a pod's sidecar and waits until w is in force.
func configure(b *testing.B, p *envoytest.Pod, w xds.Workload) {
	b.Helper()
	f := serve(b, Config{Identify: Anyone(KeyOf(w)), Linger: DefaultLinger})
	set(b, f.Server, w)
	p.StartEnvoy(func(g grpc.ServiceRegistrar) { f.Register(g) })
	f.settled(b, KeyOf(w), StateOf(w).PeerWeight)
}

// forwarder is the least that Envoy needs to forward HTTP from port 10000 to port 8080 of ip.
func forwarder(ip string) []byte {
	return fmt.Appendf(nil, `{"static_resources": {
		"listeners": [{
			"address": {"socket_address": {"address": "0.0.0.0", "port_value": 10000}},
			"filter_chains": [{"filters": [{"name": "http", "typed_config": {
				"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
				"stat_prefix": "http",
				"route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
				"http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
			}}]}]
		}],
		"clusters": [{"name": "app", "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [
			{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": 8080}}}}
		]}]}}]
	}}`, ip)
}

// await returns when somebody listens there.
func (w *way) await(b *testing.B) {
	b.Helper()
	for deadline := time.Now().Add(patience); ; {
		c, err := w.dial(b.Context(), "tcp", w.address)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: %v", w.name, err)
		}
		time.Sleep(20 * time.Millisecond) // polling another process
	}
}

// measure is one turn.
func (w *way) measure(b *testing.B) {
	b.Helper()
	ticks := int(turn / pace)
	w.took = append(w.took, w.together(b, pacers, func(i int, start time.Time) bool {
		time.Sleep(time.Until(start.Add(time.Duration(i) * pace)))
		return i < ticks
	})...)
	answered := w.together(b, saturators, func(_ int, start time.Time) bool { return time.Since(start) < turn })
	w.atSaturation = append(w.atSaturation, float64(len(answered))/turn.Seconds())
}

// together sends requests on n connections, on each as long as more says so before the i-th. Their starts are
// spread over one pace.
func (w *way) together(b *testing.B, n int, more func(i int, start time.Time) bool) []time.Duration {
	b.Helper()
	connections, took, errs := make([]*connection, n), make([][]time.Duration, n), make([]error, n)
	for i := range connections {
		connections[i] = w.connect(b)
		defer connections[i].Close()
		errs[i] = connections[i].get() // so that both ends of the sidecar have their connections
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i, c := range connections {
		wg.Go(func() {
			own := start.Add(time.Duration(i) * pace / time.Duration(n))
			for j := 0; errs[i] == nil && more(j, own); j++ {
				sent := time.Now()
				errs[i] = c.get()
				took[i] = append(took[i], time.Since(sent))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatalf("%s: %v", w.name, err)
	}
	return slices.Concat(took...)
}

// connection is a client with as little code of its own as can be.
type connection struct {
	net.Conn
	buffered *bufio.Reader
}

func (w *way) connect(b *testing.B) *connection {
	b.Helper()
	c, err := w.dial(b.Context(), "tcp", w.address)
	if err != nil {
		b.Fatal(err)
	}
	return &connection{c, bufio.NewReader(c)}
}

// get asks once.
func (c *connection) get() error {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return err
	}
	r, err := http.ReadResponse(c.buffered, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && (r.StatusCode != http.StatusOK || string(body) != "ok") {
		err = fmt.Errorf("answer %s %q", r.Status, body)
	}
	return err
}
