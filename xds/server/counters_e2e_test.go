// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/xds"
)

// answerStatus answers a call with the status that it asks for: in trailers after a message, or, as servers do where there is
// no message, among the headers.
func answerStatus(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	if r.Header.Get("X-Message") == "" {
		w.Header().Set("Grpc-Status", r.Header.Get("X-Status"))
		w.Header().Set("Grpc-Message", "nothing to buy")
		return
	}
	w.WriteHeader(http.StatusOK)
	fmt.Fprint(w, r.Header.Get("X-Message"))
	w.Header().Set(http.TrailerPrefix+"grpc-status", r.Header.Get("X-Status"))
}

// A gRPC status travels in trailers or headers, through one or both sidecars, and is counted for the revision that gave it; so is
// a number that is no status. Whatever it is, the other revision is asked on.
func TestGRPCStatusIsPassedOnAndCounted(t *testing.T) {
	statuses := []string{"14", "13", "5", "-1", "4711", "99999999999999999999"}
	for name, tc := range map[string]struct {
		split *xds.Split
		hops  map[string]xds.Hop // of the revisions that may answer
	}{
		"at rest":                      {nil, map[string]xds.Hop{"a": xds.HopLocal}},
		"both revisions":               {&xds.Split{PeerWeight: 50}, map[string]xds.Hop{"a": xds.HopLocal, "b": xds.HopPeer}},
		"all to the candidate":         {&xds.Split{PeerWeight: 100}, map[string]xds.Hop{"b": xds.HopPeer}},
		"from a candidate of weight 0": {&xds.Split{PeerWeight: 100, PeerIsStable: true}, map[string]xds.Hop{"b": xds.HopPeerConn}},
		"most from a candidate's pod":  {&xds.Split{PeerWeight: 80, PeerIsStable: true}, map[string]xds.Hop{"a": xds.HopLocal, "b": xds.HopPeer}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.appA.handle, p.appB.handle = answerStatus, answerStatus
			if tc.split != nil {
				tc.split.Peer, tc.split.Endpoints = "b", []string{p.b.IP}
				set(t, p.ads.Server, revisionA(tc.split))
				p.ads.settled(t, webKey, tc.split.PeerWeight)
			}
			reader := prometheus.NewSidecars(p.n.Dial)
			p.read(t, reader, 0)
			c := p.client(true)
			for range 20 {
				for _, status := range statuses {
					p.checkCall(t, c, status, "")
					p.checkCall(t, c, status, "message")
				}
			}
			if tc.split != nil && p.leftOut() {
				t.Error("the version whose calls fail is left out, so that nobody sees them")
			}
			p.checkCounted(t, p.read(t, reader, 5), tc.hops)
		})
	}
}

// checkCall: the client gets what the app answers to one call.
func (p *pair) checkCall(t *testing.T, c *http.Client, status, message string) {
	t.Helper()
	r, err := p.call(c, http.Header{"X-Status": {status}, "X-Message": {message}})
	if err != nil {
		t.Fatal(err)
	}
	r.header.Del("Date")
	r.header.Del("Content-Length")
	header, trailer := http.Header{"Content-Type": {"application/grpc"}}, http.Header{"Grpc-Status": {status}}
	if message == "" {
		trailer = nil
		header.Set("Grpc-Status", status)
		header.Set("Grpc-Message", "nothing to buy")
	}
	if diff := cmp.Diff(header, r.header); r.body != message || diff != "" {
		t.Fatalf("status %s: body %q, headers (-want +got):\n%s", status, r.body, diff)
	}
	if diff := cmp.Diff(trailer, r.trailer); diff != "" {
		t.Fatalf("status %s: trailers (-want +got):\n%s", status, diff)
	}
}

// checkCounted: for each revision as many calls and statuses are counted as its app has seen.
func (p *pair) checkCounted(t *testing.T, look analysis.Look, hops map[string]xds.Hop) {
	t.Helper()
	_, stats := p.a.Admin(http.MethodGet, "/stats/prometheus")
	got := map[string]analysis.Counts{"a": look.Stable["a"], "b": look.Candidate["a"]}
	for _, app := range []*app{p.appA, p.appB} {
		seen, statuses := app.taken(), map[string]int{}
		for _, r := range seen {
			statuses[r.Header.Get("X-Status")]++
		}
		hop, may := hops[app.revision]
		if may == (len(seen) == 0) {
			t.Errorf("the app of revision %s saw %d calls", app.revision, len(seen))
		}
		for status, n := range statuses {
			want := fmt.Sprintf(`envoy_cluster_grpc{grpc_status="%s",hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop="%s",hg_revision="%s"} %d`+"\n",
				status, hop, app.revision, n)
			if !strings.Contains(stats, want) {
				t.Errorf("no line %s in:\n%s", want, stats)
			}
		}
		// NotFound (5) is no error. A request that comes to a candidate by itself is none that was meant for it.
		n, failed := uint64(len(seen)), uint64(len(seen)-statuses["5"])
		if hop == xds.HopPeerConn {
			n, failed = 0, 0
		}
		if c := got[app.revision]; c.Requests != n || c.Errors != failed {
			t.Errorf("read of revision %s: %+v, want %d requests, %d errors", app.revision, c, n, failed)
		}
	}
}

// read is a look at what the sidecar of a has counted since the one before; the first has nothing to begin with.
func (p *pair) read(t *testing.T, from *prometheus.Sidecars, seconds int) analysis.Look {
	t.Helper()
	target := prometheus.Target{
		Namespace: "shop", Workload: "web", Stable: "a", Candidate: "b", Weight: 100,
		Sidecars: map[string]string{"a": net.JoinHostPort(p.a.IP, strconv.Itoa(int(xds.StatsPort)))},
	}
	looks, err := from.Looks(t.Context(), time.Unix(int64(seconds), 0), []prometheus.Target{target})
	if err != nil {
		t.Fatal(err)
	}
	return looks[0]
}

// What the sidecar shows is read whole, whichever arm and way a request went, and nothing else with it.
func TestRequestsAreReadFromTheSidecar(t *testing.T) {
	p := newPair(t)
	p.weight(25)
	reader := prometheus.NewSidecars(p.n.Dial)
	p.read(t, reader, 0)
	p.appA.handle = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a", http.StatusInternalServerError) }
	got := p.many(200, false)
	look := p.read(t, reader, 5)
	stable, candidate := look.Stable["a"], look.Candidate["a"]
	if stable.Requests+candidate.Requests != 200 || stable.Errors != stable.Requests || candidate.Errors != 0 ||
		candidate.Requests != uint64(got["b"]) || candidate.Started != uint64(got["b"]) {
		t.Errorf("read from the sidecar: %+v, the client got %v", look, got)
	}
}

// Scrapes and health checks are for this very pod. They are seen, but not taken for the revision's share.
func TestRequestsForAnAddressAreNotRead(t *testing.T) {
	p := newPair(t)
	p.weight(100)
	reader := prometheus.NewSidecars(p.n.Dial)
	p.read(t, reader, 0)
	p.appA.handle = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a", http.StatusInternalServerError) }
	for _, host := range []string{p.a.IP, p.a.IP + ":8080"} {
		r := request(t, "http://"+p.a.IP+":8080/metrics")
		r.Host = host
		if got := do(p.client(false), r); got != "500 a\n" {
			t.Fatalf("Host %s: %q, want an error of a", host, got)
		}
	}
	if got := p.read(t, reader, 5); got.Stable["a"].Requests != 0 || got.Candidate["a"].Requests != 0 {
		t.Errorf("read from the sidecar: %+v", got)
	}
	if got := p.stat("upstream_rq_xx", "direct"); got != "2" {
		t.Errorf("%q requests of hop direct, want 2", got)
	}
}

// An upgrade that is accepted is a request that succeeded, and one that is refused is one that failed: of a service of WebSockets
// nothing else is known. What comes before a request's status (100 Continue) is no request.
func TestUpgradesAreCounted(t *testing.T) {
	p := newPair(t)
	p.weight(50)
	reader := prometheus.NewSidecars(p.n.Dial)
	p.read(t, reader, 0)
	p.appA.handle = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			w.WriteHeader(http.StatusContinue)
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	}
	p.appB.handle = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "b", http.StatusInternalServerError) }
	answers := map[string]int{}
	for range 100 {
		c := p.dial(t, p.a.IP+":8080")
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		answers[strings.TrimSpace(line)]++
		c.Close()
	}
	accepted, refused := answers["HTTP/1.1 101 Switching Protocols"], answers["HTTP/1.1 500 Internal Server Error"]
	look := p.read(t, reader, 5)
	stable, candidate := look.Stable["a"], look.Candidate["a"]
	if accepted+refused != 100 || accepted == 0 || refused == 0 || stable.Requests != uint64(accepted) || stable.Errors != 0 ||
		candidate.Requests != uint64(refused) || candidate.Errors != candidate.Requests {
		t.Errorf("read from the sidecar: stable %+v, candidate %+v; the client got %v", stable, candidate, answers)
	}
	p.rest()
	for range 10 {
		p.get(p.client(false), http.MethodPost)
	}
	if got := p.read(t, reader, 10).Stable["a"]; got.Requests != 10 {
		t.Errorf("%+v of 10 requests to which another answer came before", got)
	}
}

// halfAnAnswer ends the connection, or the stream, in the middle of an answer.
func halfAnAnswer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, "half")
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// tooLong answers, and goes on until the client gives up.
func tooLong(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, "first")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// An answer that breaks off is an error, once, wherever it does; what the client breaks off is none.
func TestAnswersThatBreakOffAreErrorsOnce(t *testing.T) {
	p := newPair(t)
	reader := prometheus.NewSidecars(p.n.Dial)
	at := 0
	p.read(t, reader, at)
	for name, tc := range map[string]struct {
		handle http.HandlerFunc
		wait   time.Duration // of the client
		failed uint64        // of three
	}{
		"whole":               {nil, patience, 0},
		"before the headers":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, patience, 3},
		"after the headers":   {halfAnAnswer, patience, 3},
		"the client gives up": {tooLong, 200 * time.Millisecond, 0},
		"a 503 of the app's":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, patience, 3},
		"a 200 without length": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "b")
			_ = http.NewResponseController(w).Flush()
		}, patience, 0},
	} {
		for _, weight := range []uint32{0, 100} {
			p.weight(weight)
			for _, h2 := range []bool{false, true} {
				p.bothAnswer(tc.handle)
				for range 3 {
					c := p.client(h2)
					c.Timeout = tc.wait
					p.get(c, http.MethodPost)
					c.CloseIdleConnections()
				}
				p.bothAnswer(nil)
				p.get(p.client(h2), http.MethodPost) // what breaks off five times in a row is left out
				at += 5
				look := p.read(t, reader, at)
				got := look.Stable["a"]
				if weight > 0 {
					got = look.Candidate["a"]
				}
				if got.Requests != 4 || got.Errors != tc.failed || got.Unreached != 0 {
					t.Errorf("%s, weight %d, HTTP/2 %t: %+v of 4 requests, want %d errors", name, weight, h2, got, tc.failed)
				}
			}
		}
	}
}

// bothAnswer: both apps answer so from now on.
func (p *pair) bothAnswer(handle http.HandlerFunc) {
	for _, a := range []*app{p.appA, p.appB} {
		a.mu.Lock()
		a.handle = handle
		a.mu.Unlock()
	}
}

// A server of gRPC that does not want the rest of a call resets the stream after its answer.
func TestACallThatEndsBeforeItsRequestIsNoError(t *testing.T) {
	p := newPair(t)
	early := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		fmt.Fprint(w, "message")
		w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
	})
	p.serverB.Handler = early
	p.weight(100)
	reader := prometheus.NewSidecars(p.n.Dial)
	p.read(t, reader, 0)
	for range 3 {
		more, request := io.Pipe()
		req, _ := http.NewRequest(http.MethodPost, "http://"+p.a.IP+":8080/shop.Web/Buy", more)
		req.Host = "web"
		req.Header.Set("Content-Type", "application/grpc")
		go fmt.Fprint(request, "message")
		if got := do(p.client(true), req); got != "message" {
			t.Errorf("%q, want message", got)
		}
		request.Close()
	}
	if got := p.read(t, reader, 5).Candidate["a"]; got.Requests != 3 || got.Errors != 0 {
		t.Errorf("%+v of 3 calls that succeeded", got)
	}
}

// Where the peer port is not let in, all requests are answered by the own app, and the judge knows that it knows nothing. A version
// whose sidecar takes connections is judged.
func TestAPeerThatCantBeReachedIsHeld(t *testing.T) {
	p := newPair(t)
	for what, peer := range map[string]string{"refuses": p.n.Pod().IP, "is silent": "10.213.0.99"} {
		t.Run(what, func(t *testing.T) {
			// Another revision each time: nobody knows yet that it can't be reached.
			reach := func(ip string) {
				set(t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: 50, Endpoints: []string{ip}}))
				p.ads.settled(t, webKey, 50)
			}
			p.rest()
			reach(peer)
			reader, at := prometheus.NewSidecars(p.n.Dial), 0
			p.read(t, reader, at)
			var state analysis.State
			look := func() (v analysis.Verdict) {
				for answer, n := range p.many(40, false) {
					if answer != "a" && answer != "b" {
						t.Fatalf("%d requests failed: %s", n, answer)
					}
				}
				at += 5
				l := p.read(t, reader, at)
				l.Weight, l.CandidatePods = 50, 1
				state, v = analysis.Judge(analysis.Settings{Candidate: "b", Stable: "a"}, state, l)
				if v.Result == analysis.Fail {
					t.Fatalf("after %d s: %s %s", at, v.Result, v.Message)
				}
				return v
			}
			until := func(result analysis.Result) (v analysis.Verdict) {
				for end := time.Now().Add(patience); v.Result != result; v = look() {
					if time.Now().After(end) {
						t.Fatalf("after %d s: %s %s", at, v.Result, v.Message)
					}
				}
				return v
			}
			if v := until(analysis.Hold); v.Cause != analysis.CauseNoSplit || !strings.Contains(v.Message, "at port 15601") {
				t.Errorf("%s: %s", v.Cause, v.Message)
			}
			reach(p.b.IP)
			until(analysis.Pass)
		})
	}
}
