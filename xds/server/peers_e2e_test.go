// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/xds"
)

// A sidecar that ends counts the connections of peers to know whether somebody still has to be told.
func TestWhoKnowsOfAPeersEndHasNoConnectionToIt(t *testing.T) {
	p := newPair(t)
	p.weight(100)
	connections := func() string {
		_, stats := p.b.Admin(http.MethodGet, "/stats?filter="+xds.PeerConnectionsStat)
		return strings.TrimSpace(stats)
	}
	for _, h2 := range []bool{false, true} {
		p.many(50, h2)
	}
	if got := connections(); got == xds.PeerConnectionsStat+": 0" || !strings.HasPrefix(got, xds.PeerConnectionsStat+": ") {
		t.Fatalf("%s, want some after requests", got)
	}
	set(t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: 100}))
	p.ads.settled(t, webKey, 100)
	deadline := time.Now().Add(time.Second)
	for connections() != xds.PeerConnectionsStat+": 0" {
		if time.Now().After(deadline) {
			t.Fatalf("%s a second after the pod was taken out", connections())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Clients that give up on most of their calls, all of which share one connection on the way to the peer, cost nobody else a call.
func TestCallsThatAreCancelledCostNoOthers(t *testing.T) {
	p := newPair(t)
	p.appB.handle = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(300 * time.Millisecond):
			fmt.Fprint(w, "b")
		}
	}
	p.weight(100)
	call := func(ctx context.Context, c *http.Client) string {
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.a.IP+":8080/", http.NoBody)
		req.Host = "web"
		return do(c, req)
	}
	var clients sync.WaitGroup
	for range 6 {
		c := p.client(true)
		clients.Go(func() {
			for range 500 {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
				call(ctx, c)
				cancel()
			}
		})
	}
	given := make(chan struct{})
	go func() { clients.Wait(); close(given) }()
	for n := 0; ; n++ {
		select {
		case <-given:
			if n == 0 {
				t.Fatal("nobody else called meanwhile")
			}
			t.Logf("%d calls that nobody cancelled", n)
			return
		default:
			if got := call(t.Context(), p.client(true)); got != "b" {
				t.Fatalf("call %d that nobody cancelled: %q, want b", n, got)
			}
		}
	}
}

// Everything that a sidecar has to say to a peer goes over connections that are open, on which nothing fails when the node is lost.
func TestALostNodeCostsTheRequestsUnderWay(t *testing.T) {
	p := newPair(t)
	p.weight(100)
	c := p.client(true)
	if got := p.get(c, http.MethodPost); got != "b" {
		t.Fatalf("%q, want b", got)
	}
	p.b.Lose()
	start := time.Now()
	lost := p.get(c, http.MethodPost)
	if d := time.Since(start); !strings.HasPrefix(lost, "503") || d > 9*time.Second {
		t.Errorf("the request under way: %q after %s, want 503 after about 6s", lost, d)
	}
	for range 5 {
		if got := p.get(c, http.MethodPost); got != "a" {
			t.Errorf("%q after the loss was noticed, want the local app's", got)
		}
	}
}

// The second attempt needs the body, so the sidecar keeps it until a peer has taken the request. A peer that doesn't answer is
// waited for, and a client doesn't wait meanwhile.
func TestAnUploadSurvivesAPeerThatCantBeReached(t *testing.T) {
	p := newPair(t)
	p.appA.handle = func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "a ", r.ContentLength) }
	upload := func(size int64, h2 bool) string {
		req, _ := http.NewRequest(http.MethodPost, "http://"+p.a.IP+":8080/", io.LimitReader(zeros{}, size))
		req.Host, req.ContentLength = "web", size
		return do(p.client(h2), req)
	}
	for what, peer := range map[string]string{"refuses": p.n.Pod().IP, "is silent": "10.213.0.99"} {
		for _, size := range []int64{1_000_000, 2_000_000, 4<<20 + 5} {
			for _, h2 := range []bool{false, true} {
				// Another revision each time: nobody knows yet that it can't be reached.
				set(t, p.ads.Server, revisionA(&xds.Split{Peer: fmt.Sprintf("b%d%t%d", size, h2, len(what)), PeerWeight: 100, Endpoints: []string{peer}}))
				p.ads.settled(t, webKey, 100)
				if got, want := upload(size, h2), fmt.Sprint("a ", size); got != want {
					t.Errorf("peer %s, %d bytes, HTTP/2 %t: %q, want %q", what, size, h2, got, want)
				}
			}
		}
	}
}

// Content-Length and chunked at once: clients take chunked, so they must get it.
func TestAnAnswerWithTwoLengthsIsPassedOn(t *testing.T) {
	p := newPair(t)
	l := p.a.Listen(9001)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
			}
			c.Close()
		}
	}()
	req, _ := http.NewRequest(http.MethodGet, "http://"+p.a.IP+":9001/", nil)
	req.Host = "web"
	if got := do(p.client(false), req); got != "ok" {
		t.Errorf("%q, want ok", got)
	}
	// From a client it stays refused.
	c := p.dial(t, p.a.IP+":8080")
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a request with both: %s, want 400", resp.Status)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
