// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/xds"
)

// candidateB makes b the candidate of stable a; all that arrives there by itself is for one of these stable pods. over: it
// was rejected.
func (p *pair) candidateB(over bool, stable ...string) {
	p.t.Helper()
	slices.Sort(stable)
	set(p.t, p.adsB.Server, xds.Workload{
		Namespace: "shop", Name: "web", Revision: "b", IPv6: true, Ports: []xds.Port{{Number: 8081, Peer: 8080}},
		Split: &xds.Split{Peer: "a", PeerIsStable: true, PeerWeight: 100, Over: over, Endpoints: stable},
	})
	p.adsB.settled(p.t, keyB, 100)
}

// upload sends a body of so many bytes in small pieces, without saying how many there will be.
func (p *pair) upload(c *http.Client, size int64) string {
	req, err := http.NewRequest(http.MethodPost, "http://"+p.a.IP+":8080/", io.LimitReader(endless{}, size))
	if err != nil {
		return err.Error()
	}
	req.Host = "web"
	return do(c, req)
}

// endless is a body that does not end.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

const large = 8 << 20 // more than Envoy keeps of a request to send it again

// crowd are clients that never stop, some with large bodies, over HTTP/1.1 and HTTP/2.
type crowd struct {
	p       *pair
	mu      sync.Mutex
	answers [2]map[string]int // to small requests, and to large ones
	done    atomic.Bool
	clients sync.WaitGroup
}

func (p *pair) crowd() *crowd {
	c := &crowd{p: p, answers: [2]map[string]int{{}, {}}}
	for i := range 6 {
		c.clients.Go(func() {
			client := p.client(i%2 == 1)
			defer client.CloseIdleConnections()
			for !c.done.Load() {
				if i < 2 {
					c.note(1, p.upload(client, large))
				} else {
					c.note(0, p.get(client, http.MethodPost))
				}
			}
		})
	}
	return c
}

func (c *crowd) note(size int, answer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[size][answer]++
}

// take waits for some more answers to small requests and to large ones, and counts them.
func (c *crowd) take() map[string]int {
	c.mu.Lock()
	c.answers = [2]map[string]int{{}, {}}
	c.mu.Unlock()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // polling the clients
		got, total := map[string]int{}, [2]int{}
		c.mu.Lock()
		for size, answers := range c.answers {
			for answer, n := range answers {
				got[answer] += n
				total[size] += n
			}
		}
		c.mu.Unlock()
		if total[0] >= 100 && total[1] >= 10 || time.Now().After(end) {
			return got
		}
	}
}

// stop ends the clients; nothing that sidecars tell each other has reached an app.
func (c *crowd) stop() {
	c.p.t.Helper()
	c.done.Store(true)
	c.clients.Wait()
	for _, r := range append(c.p.appA.taken(), c.p.appB.taken()...) {
		checkNothingOfOurs(c.p.t, r)
	}
}

// A sidecar of stable is cut off, with a weight of 50 % to a candidate that is judged, fails, and is tried again, under load.
// From when the candidate's sidecar has heard of the failure, until it has heard of the next try, nobody gets that version,
// and no request is lost at any time.
func TestARejectedCandidateHandsOnWhatItIsStillSent(t *testing.T) {
	p := newPair(t)
	p.candidateB(false, p.a.IP)
	p.weight(50)
	p.a.StopServer()
	c := p.crowd()
	wantBoth := func(when string) {
		t.Helper()
		if got := c.take(); got["a"] == 0 || got["b"] == 0 || len(got) != 2 {
			t.Errorf("%s: %v, want answers of both versions and no others", when, got)
		}
	}
	wantBoth("while it is judged")
	for range 2 {
		p.candidateB(true, p.a.IP)
		if got := c.take(); got["a"] == 0 || got["a"]+got["b"] != total(got) { // some were under way
			t.Errorf("while the candidate hears of its failure: %v", got)
		}
		p.appB.taken()
		if got := c.take(); got["a"] != total(got) {
			t.Errorf("after it failed: %v, want stable's answers alone", got)
		}
		if n := len(p.appB.taken()); n != 0 {
			t.Errorf("the version that failed saw %d requests", n)
		}
		p.candidateB(false, p.a.IP)
		wantBoth("when it is tried again")
	}
	c.stop()
}

// Stable's sidecar and the candidate's hear of a failure, and of the next try, each in its own time.
func TestWhoHearsOfAFailureFirstDoesNotMatter(t *testing.T) {
	p := newPair(t)
	p.candidateB(false, p.a.IP)
	p.weight(50)
	c := p.crowd()
	stable, candidate := func(w uint32) { p.weight(w) }, func(over bool) { p.candidateB(over, p.a.IP) }
	for _, step := range []func(){
		func() { stable(0) }, func() { candidate(true) }, func() { candidate(false) }, func() { stable(50) },
		func() { candidate(true) }, func() { stable(0) }, func() { stable(50) }, func() { candidate(false) },
	} {
		step()
		if got := c.take(); got["a"]+got["b"] != total(got) {
			t.Errorf("lost: %v", got)
		}
	}
	c.stop()
}

func total(answers map[string]int) (n int) {
	for _, m := range answers {
		n += m
	}
	return n
}

// checkNothingOfOurs: no app sees what sidecars tell each other.
func checkNothingOfOurs(t *testing.T, r *http.Request) {
	t.Helper()
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Headgate") {
			t.Fatalf("an app saw %s: %v", name, r.Header[name])
		}
	}
}

// A request that the version has begun to answer when it is rejected is answered to its end.
func TestARequestUnderWayWhenTheCandidateIsRejectedIsAnswered(t *testing.T) {
	p := newPair(t)
	p.candidateB(false, p.a.IP)
	reached, finish := make(chan struct{}), make(chan struct{})
	p.appB.handle = func(w http.ResponseWriter, _ *http.Request) {
		close(reached)
		<-finish
		fmt.Fprint(w, "b")
	}
	p.weight(100)
	answer := make(chan string, 1)
	go func() { answer <- p.get(p.client(false), http.MethodPost) }()
	<-reached
	p.candidateB(true, p.a.IP)
	if got := p.many(20, false); got["a"] != 20 {
		t.Errorf("%v, want all 20 from stable", got)
	}
	close(finish)
	if got := <-answer; got != "b" {
		t.Errorf("answer %q to the request that was under way, want the candidate's", got)
	}
}

// Where the candidate's sidecar can't hand on, the sender answers: it is a pod of stable itself.
func TestWhatCantBeHandedOnIsAnsweredByItsSender(t *testing.T) {
	for name, tc := range map[string]struct {
		refuses, ends, stable bool // the pods of stable that the candidate knows
		want                  string
	}{
		"the only pod of stable refuses":         {refuses: true, want: "a"},
		"it ends, and its app has ended":         {ends: true, want: "a"},
		"one refuses, and another one is there":  {refuses: true, stable: true, want: "a"},
		"one ends, and another one is there":     {ends: true, stable: true, want: "a"},
		"nobody is there but the only candidate": {want: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			var stable []string
			if tc.stable {
				stable = append(stable, p.a.IP)
			}
			if tc.refuses {
				stable = append(stable, p.n.Pod().IP)
			}
			asked := 0
			if tc.ends {
				pod := p.n.Pod()
				pod.Serve(int(xds.CapturePort), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					asked++
					w.Header().Set("X-Headgate-Unreached", "true")
					w.WriteHeader(http.StatusServiceUnavailable)
				}))
				stable = append(stable, pod.IP)
			}
			p.candidateB(true, stable...)
			p.weight(100)
			for _, h2 := range []bool{false, true} {
				if got := p.many(40, h2); got[tc.want] != 40 {
					t.Errorf("HTTP/2 %t: %v, want all 40 from %s", h2, got, tc.want)
				}
			}
			if tc.ends && asked == 0 {
				t.Error("nobody asked the pod that ends")
			}
			if n := p.stat("upstream_cx_total", "peerconn"); n == "0" {
				t.Error("nobody asked the candidate")
			}
		})
	}
}

// Each of two sidecars has last heard that its version is over and the other one stable.
func TestWhatWasHandedOnIsHandedOnNoFurther(t *testing.T) {
	p := newPair(t)
	p.candidateB(true, p.a.IP)
	set(t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerIsStable: true, PeerWeight: 100, Over: true, Endpoints: []string{p.b.IP}}))
	p.ads.settled(t, webKey, 100)
	for _, h2 := range []bool{false, true} {
		r := request(t, "http://"+p.a.IP+":15601/", "X-Headgate-Port", "8080", "X-Headgate-For", "shop/web/a")
		if got := do(p.client(h2), r); got != "b" {
			t.Errorf("HTTP/2 %t: %q, want b, whom a hands it on to", h2, got)
		}
		// What only sidecars may say is not believed of a client.
		r = request(t, "http://"+p.a.IP+":8080/", "X-Headgate-Handed-On", "true")
		if got := do(p.client(h2), r); got != "a" {
			t.Errorf("HTTP/2 %t: a client's request: %q, want a, whom b hands it on to", h2, got)
		}
	}
	for _, r := range append(p.appA.taken(), p.appB.taken()...) {
		checkNothingOfOurs(t, r)
	}
}
