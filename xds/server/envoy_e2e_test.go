// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/headgate/headgate/xds"
	"github.com/headgate/headgate/xds/internal/envoytest"
)

// pair is a pod of revision a (the one that tests send requests to) and one of b, with real Envoys. The app
// listens on 8080 in a, and on 8081 in b.
type pair struct {
	t          *testing.T
	n          *envoytest.Network
	a, b       *envoytest.Pod
	ads, adsB  *fixture
	appA, appB *app
	serverB    *http.Server // of appB
}

// dial connects like a client of the pods. The test has as long as patience with the connection.
func (p *pair) dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := p.n.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// app answers with its revision, and remembers what it saw.
type app struct {
	revision string
	mu       sync.Mutex
	seen     []*http.Request
	handle   http.HandlerFunc
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	a.mu.Lock()
	a.seen = append(a.seen, r)
	handle := a.handle
	a.mu.Unlock()
	if handle != nil {
		handle(w, r)
		return
	}
	fmt.Fprint(w, a.revision)
}

// taken empties the memory.
func (a *app) taken() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.seen
	a.seen = nil
	return out
}

func newPair(t *testing.T) *pair {
	t.Helper()
	return newLingeringPair(t, DefaultLinger)
}

func newLingeringPair(t *testing.T, linger time.Duration) *pair {
	t.Helper()
	n := envoytest.New(t)
	p := &pair{
		t: t, n: n, a: n.Pod(8080, 9000, 9001, 9002), b: n.Pod(8081), appA: &app{revision: "a"}, appB: &app{revision: "b"},
		ads:  serve(t, Config{Identify: Anyone(webKey), Linger: linger}),
		adsB: serve(t, Config{Identify: Anyone(keyB)}),
	}
	p.a.Serve(8080, p.appA)
	p.serverB = p.b.Serve(8081, p.appB)
	set(t, p.ads.Server, revisionA(nil))
	set(t, p.adsB.Server, xds.Workload{
		Namespace: "shop", Name: "web", Revision: "b", IPv6: true, Ports: []xds.Port{{Number: 8081, Peer: 8080}},
	})
	p.a.StartEnvoy(func(g grpc.ServiceRegistrar) { p.ads.Register(g) })
	p.b.StartEnvoy(func(g grpc.ServiceRegistrar) { p.adsB.Register(g) })
	p.ads.settled(t, webKey, 0)
	p.adsB.settled(t, keyB, 0)
	return p
}

var keyB = Key{Namespace: "shop", Name: "web", Revision: "b"}

func revisionA(s *xds.Split) xds.Workload {
	return xds.Workload{Namespace: "shop", Name: "web", Revision: "a", IPv6: true, Split: s, Ports: []xds.Port{
		{Number: 8080, Peer: 8081}, {Number: 9000, Protocol: xds.TCP}, {Number: 9001}, {Number: 9002, Protocol: xds.HTTP},
	}}
}

// weight puts a weight in force, and waits until the sidecar says so.
func (p *pair) weight(w uint32) {
	p.t.Helper()
	set(p.t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: w, Endpoints: []string{p.b.IP}}))
	p.ads.settled(p.t, webKey, w)
}

func (p *pair) rest() {
	p.t.Helper()
	set(p.t, p.ads.Server, revisionA(nil))
	p.ads.settled(p.t, webKey, 0)
}

// client speaks HTTP/1.1 or h2c, with the connections of one ordinary client.
func (p *pair) client(h2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetUnencryptedHTTP2(h2)
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{DialContext: p.n.Dial, Protocols: &protocols, MaxIdleConnsPerHost: 16},
	}
}

// get asks pod a under the name web; it returns the body, or what went wrong.
func (p *pair) get(c *http.Client, method string) string {
	req, err := http.NewRequest(method, "http://"+p.a.IP+":8080/", strings.NewReader(strings.Repeat("x", 1000)))
	if err != nil {
		return err.Error()
	}
	req.Host, req.GetBody = "web", nil // the client must not send it again
	return do(c, req)
}

func do(c *http.Client, req *http.Request) string {
	r, err := c.Do(req)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d %s", r.StatusCode, b)
	}
	return string(b)
}

// called is the answer to a gRPC call.
type called struct {
	header, trailer http.Header
	body            string
}

// call makes a gRPC call of pod a under the name web, over HTTP/2, with these headers and some more. It returns the answer
// and its body, of which the trailers have been read.
func (p *pair) call(c *http.Client, header http.Header) (called, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+p.a.IP+":8080/shop.Web/Buy", strings.NewReader("message"))
	if err != nil {
		return called{}, err
	}
	req.Host, req.GetBody = "web", nil // the client must not send it again
	maps.Copy(req.Header, header)
	req.Header.Set("Content-Type", "application/grpc")
	r, err := c.Do(req)
	if err != nil {
		return called{}, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return called{r.Header, r.Trailer, string(body)}, err
}

// answered is a call's status where the answer is one without a message, else what the app has written.
func (p *pair) answered(c *http.Client) string {
	r, err := p.call(c, nil)
	if err != nil {
		return err.Error()
	}
	if status := r.header.Get("Grpc-Status"); status != "" {
		return "status " + status
	}
	return r.body
}

// many sends n requests over 8 connections and counts the answers.
func (p *pair) many(n int, h2 bool) map[string]int {
	out, mu, work := map[string]int{}, sync.Mutex{}, make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	var wg sync.WaitGroup
	for range 8 {
		c := p.client(h2)
		wg.Go(func() {
			defer c.CloseIdleConnections()
			for range work {
				answer := p.get(c, http.MethodPost)
				mu.Lock()
				out[answer]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}
