// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package server

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/headgate/headgate/xds"
	"github.com/headgate/headgate/xds/internal/envoytest"
)

func TestEnvoyStartsWithTheBootstrap(t *testing.T) {
	boot, err := xds.Bootstrap(xds.Node{ID: "shop/web-1", Socket: "@headgate", Ended: filepath.Join(t.TempDir(), "ended"), IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, boot, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(envoytest.Binary(t), "--mode", "validate", "-c", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// An Envoy of which a thread hangs ends, so that the kubelet starts it again. It is given two seconds here instead of a minute.
func TestAnEnvoyThatHangsEnds(t *testing.T) {
	pod, f := envoytest.New(t).Pod(8080), serve(t, Config{Identify: Anyone(webKey), Linger: DefaultLinger})
	pod.Edit = func(boot []byte) []byte {
		impatient := bytes.ReplaceAll(boot, []byte(`"kill_timeout": "60s"`), []byte(`"kill_timeout": "2s"`))
		if bytes.Equal(boot, impatient) {
			t.Fatalf("no timeout of a watchdog in %s", boot)
		}
		return impatient
	}
	set(t, f.Server, atRest())
	pod.StartEnvoy(func(g grpc.ServiceRegistrar) { f.Register(g) })
	if pod.EnvoyEnds(3 * time.Second) {
		t.Fatal("Envoy ended by itself while nothing hung")
	}
	pod.Hang("wrk:worker_0")
	if !pod.EnvoyEnds(30 * time.Second) {
		t.Error("Envoy goes on while one of its threads hangs")
	}
}

// One Envoy is led through configurations that have nothing to do with each other.
func TestEnvoyTakesAnyConfiguration(t *testing.T) {
	n := envoytest.New(t)
	pod, f := n.Pod(8080), serve(t, Config{Identify: Anyone(webKey), Linger: DefaultLinger})
	set(t, f.Server, atRest())
	pod.StartEnvoy(func(g grpc.ServiceRegistrar) { f.Register(g) })
	for seed := range uint64(60) {
		w := arbitrary(rand.New(rand.NewPCG(seed, 9)))
		set(t, f.Server, w)
		f.until(t, webKey, func(a []Ack) bool {
			if len(a) > 0 && a[0].Refused != "" {
				t.Fatalf("seed %d: Envoy refuses %+v: %s", seed, w, a[0].Refused)
			}
			return len(a) == 1 && f.haveAll(webKey)
		})
	}
}

func arbitrary(r *rand.Rand) xds.Workload {
	w := xds.Workload{Namespace: "shop", Name: "web", Revision: "a"}
	for port := range uint32(4) {
		if r.IntN(3) > 0 {
			w.Ports = append(w.Ports, xds.Port{Number: 8080 + port, Protocol: xds.Protocol(r.IntN(3)), Peer: uint32(r.IntN(2)) * 8080})
		}
	}
	if r.IntN(4) > 0 {
		w.Split = &xds.Split{Peer: fmt.Sprintf("r%d", r.IntN(2)), PeerWeight: uint32(r.IntN(101)), PeerIsStable: r.IntN(2) == 0}
		if w.Split.PeerIsStable && r.IntN(3) == 0 {
			w.Split.PeerWeight, w.Split.Over = 100, true
		}
		for i := range r.IntN(3) {
			w.Split.Endpoints = append(w.Split.Endpoints, fmt.Sprintf("10.213.0.%d", 90+i))
		}
	}
	return w
}

func TestAtRestTheSidecarIsInvisible(t *testing.T) {
	p := newPair(t)
	for name, tc := range map[string]struct {
		h2   bool
		ip   string
		host string
	}{
		"HTTP/1.1":           {false, p.a.IP, "web"},
		"HTTP/2":             {true, p.a.IP, "web"},
		"HTTP/1.1 over IPv6": {false, "[" + p.a.IPv6 + "]", "web"},
		"an address as Host": {false, p.a.IP, p.a.IP + ":8080"},
	} {
		t.Run(name, func(t *testing.T) {
			c, from := p.client(tc.h2), map[string]bool{}
			for range 5 {
				req, _ := http.NewRequest(http.MethodGet, "http://"+tc.ip+":8080/a//b/../c%2Fd?q=1", nil)
				req.Host = tc.host
				req.Header = http.Header{
					"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"192.0.2.1"}, "User-Agent": {"test"},
					"X-Headgate-Port": {"22"}, "X-Headgate-For": {"shop/web/z"}, "X-Envoy-Retry-On": {"5xx"}, "Accept-Encoding": {"identity"},
				}
				if got := do(c, req); got != "a" {
					t.Fatalf("answer %q", got)
				}
				for _, r := range p.appA.taken() {
					from[r.RemoteAddr] = true
					checkSeen(t, r, tc.ip, tc.host)
				}
			}
			// A client that is very fast finds the one connection not back in its pool yet.
			if len(from) > 2 {
				t.Errorf("the app saw %d connections for one keep-alive client", len(from))
			}
		})
	}
}

// checkSeen: the app sees its own address, and what the client sent but for what only sidecars may say.
func checkSeen(t *testing.T, r *http.Request, ip, host string) {
	t.Helper()
	if local := r.Context().Value(http.LocalAddrContextKey).(net.Addr).String(); local != ip+":8080" {
		t.Errorf("the app was reached at %s, want %s:8080", local, ip)
	}
	if r.RequestURI != "/a//b/../c%2Fd?q=1" || r.Host != host {
		t.Errorf("the app saw %s of %s", r.RequestURI, r.Host)
	}
	want := map[string]string{"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1", "User-Agent": "test", "Accept-Encoding": "identity"}
	for k, v := range r.Header {
		if want[k] != strings.Join(v, ",") {
			t.Errorf("the app saw %s: %v", k, v)
		}
	}
	if len(r.Header) != len(want) {
		t.Errorf("the app saw %d headers, want %d: %v", len(r.Header), len(want), r.Header)
	}
}

// Envoy's router does not get to see the content-type of a gRPC call. The app does, whichever way the call comes to it.
func TestTheContentTypeReachesTheApp(t *testing.T) {
	for name, tc := range map[string]struct {
		way func(p *pair)
		app func(p *pair) *app
	}{
		"at rest":                  {func(p *pair) {}, func(p *pair) *app { return p.appA }},
		"by the peer":              {func(p *pair) { p.weight(100) }, func(p *pair) *app { return p.appB }},
		"the peer refuses":         {func(p *pair) { p.weight(100); p.b.StopEnvoy() }, func(p *pair) *app { return p.appA }},
		"the peer's app has ended": {func(p *pair) { p.weight(100); p.serverB.Close(); p.leaveB() }, func(p *pair) *app { return p.appA }},
		"handed on by the peer":    {func(p *pair) { p.candidateB(true, p.a.IP); p.weight(100) }, func(p *pair) *app { return p.appA }},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			tc.way(p)
			for _, want := range []string{"application/grpc", "", "Text/HTML; charset=utf-8", "application/grpc+proto", "application/grpc-web+proto"} {
				for _, h2 := range []bool{true, false} {
					req, _ := http.NewRequest(http.MethodPost, "http://"+p.a.IP+":8080/shop.Web/Buy", strings.NewReader("message"))
					req.Host, req.Header = "web", http.Header{"X-Headgate-Content-Type": {"text/plain"}}
					if want != "" {
						req.Header.Set("Content-Type", want)
					}
					if got := do(p.client(h2), req); got != tc.app(p).revision {
						t.Fatalf("%q, HTTP/2 %t: answer %q", want, h2, got)
					}
					for _, r := range tc.app(p).taken() {
						checkNothingOfOurs(t, r)
						if got := r.Header.Values("Content-Type"); strings.Join(got, "|") != want {
							t.Errorf("%q, HTTP/2 %t: the app saw %q", want, h2, got)
						}
					}
				}
			}
		})
	}
}

// What an app reads of a request over HTTP/1.1, to the byte.
func TestWhatTheAppReads(t *testing.T) {
	p := newPair(t)
	l, heads := p.a.Listen(9001), make(chan string)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var head strings.Builder
			for b := bufio.NewReader(c); !strings.HasSuffix(head.String(), "\r\n\r\n"); {
				line, err := b.ReadString('\n')
				head.WriteString(line)
				if err != nil {
					break
				}
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			c.Close()
			heads <- head.String()
		}
	}()
	const first = "GET / HTTP/1.1\r\nHost: web\r\n"
	for sent, want := range map[string]string{
		"": "",
		"X-Before: 1\r\nContent-Type: a/b; c=\"d, e\"\r\nX-After: 1\r\n": "",
		"Content-TYPE: application/json\r\nX-After: 1\r\n":               "",
		"Content-Type: \r\nX-After: 1\r\n":                               "",
		"X-Before: 1\r\nX-Forwarded-Proto: \r\nX-After: 1\r\n":           "X-Before: 1\r\nX-After: 1\r\n",
		"coNtent-TYPE: application/grpc\r\nX-After: 1\r\n":               "X-After: 1\r\ncoNtent-TYPE: application/grpc\r\n",
		"Content-Type: a/b\r\nX-Between: 1\r\nContent-Type: c/d\r\n":     "Content-Type: a/b,c/d\r\nX-Between: 1\r\n",
	} {
		if want == "" {
			want = sent
		}
		c := p.dial(t, p.a.IP+":9001")
		fmt.Fprint(c, first+sent+"\r\n")
		if got := <-heads; got != first+want+"\r\n" {
			t.Errorf("%q: the app read %q", sent, got)
		}
	}
}

func TestConnections(t *testing.T) {
	p := newPair(t)
	go greet(p.a.Listen(9000))
	go greet(p.a.Listen(9001))
	go greet(p.a.Listen(9002))
	for name, tc := range map[string]struct {
		to, say string
		want    string // the first line of the answer; empty: closed without one
	}{
		"a server that speaks first, on a port for bytes": {p.a.IP + ":9000", "", "220 ready"},
		"bytes on an HTTP port reach the app":             {p.a.IP + ":9001", "\x16\x03\x01nonsense", "220 ready"},
		"TLS on a port called http reaches the app":       {p.a.IP + ":9002", clientHello(t), "220 ready"},
		"HTTP/1.0 without a Host is local":                {p.a.IP + ":8080", "OPTIONS / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK"},
		"the capture port itself":                         {p.a.IP + ":15600", "GET / HTTP/1.1\r\nHost: web\r\n\r\n", ""},
		"the peer port without a header":                  {p.a.IP + ":15601", "GET / HTTP/1.1\r\nHost: web\r\n\r\n", "HTTP/1.1 404 Not Found"},
		"the peer port for a port that is not captured":   {p.a.IP + ":15601", "GET / HTTP/1.1\r\nHost: web\r\nx-headgate-port: 15602\r\n\r\n", "HTTP/1.1 404 Not Found"},
		"the peer port for somebody else":                 {p.a.IP + ":15601", "GET / HTTP/1.1\r\nHost: web\r\nx-headgate-port: 8080\r\nx-headgate-for: shop/web/z\r\n\r\n", "HTTP/1.1 503 Service Unavailable"},
		"the peer port for this very revision":            {p.a.IP + ":15601", "GET / HTTP/1.1\r\nHost: web\r\nx-headgate-port: 8080\r\nx-headgate-for: shop/web/a\r\n\r\n", "HTTP/1.1 200 OK"},
		"the peer port for a captured port":               {p.a.IP + ":15601", "GET / HTTP/1.1\r\nHost: web\r\nx-headgate-port: 8080\r\n\r\n", "HTTP/1.1 200 OK"},
		"statistics":                                      {p.a.IP + ":15603", "GET /stats/prometheus HTTP/1.1\r\nHost: web\r\n\r\n", "HTTP/1.1 200 OK"},
		"statistics over IPv6":                            {"[" + p.a.IPv6 + "]:15603", "GET /ready HTTP/1.1\r\nHost: web\r\n\r\n", "HTTP/1.1 200 OK"},
		"the rest of the admin interface":                 {p.a.IP + ":15603", "GET /config_dump HTTP/1.1\r\nHost: web\r\n\r\n", "HTTP/1.1 404 Not Found"},
		"the unknown upgrade of a client is ignored":      {p.a.IP + ":8080", "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "HTTP/1.1 200 OK"},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.dial(t, tc.to)
			start := time.Now()
			fmt.Fprint(c, tc.say)
			line, _ := bufio.NewReader(c).ReadString('\n')
			if got := strings.TrimRight(line, "\r\n"); got != tc.want {
				t.Errorf("answer %q, want %q", got, tc.want)
			}
			// Envoy sniffs for 2 s: what waits for the end of it takes longer.
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("answered after %s: the client, or the server, was waited for", d)
			}
		})
	}
	if _, err := p.n.Dial(t.Context(), "tcp", p.a.IP+":15602"); err == nil {
		t.Error("the admin interface can be reached from outside the pod")
	}
}

// clientHello is how a TLS client begins.
func clientHello(t *testing.T) string {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() { _ = tls.Client(client, &tls.Config{ServerName: "web"}).Handshake() }() // ends with the pipe
	hello := make([]byte, 16<<10)
	n, err := server.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	return string(hello[:n])
}

// silence is longer than a silent client is waited for where the protocol is not known (2 s). It is the subject of
// the test, not a guess at how long something takes: a slow machine only makes it longer.
const silence = 3 * time.Second

// Clients open connections ahead of their requests. Where the Service says that it is HTTP, these are split too.
func TestARequestOnAConnectionThatWasSilentIsSplit(t *testing.T) {
	p := newPair(t)
	w := revisionA(&xds.Split{Peer: "b", PeerWeight: 100, Endpoints: []string{p.b.IP}})
	w.Ports[0].Protocol = xds.HTTP
	set(t, p.ads.Server, w)
	p.ads.settled(t, webKey, 100)
	c := p.dial(t, p.a.IP+":8080")
	<-time.After(silence)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
	answer, _ := io.ReadAll(c)
	if !strings.HasSuffix(string(answer), "\r\n\r\nb") {
		t.Errorf("answer %q, want revision b's", answer)
	}
}

// On its way to the peer a request passes two sidecars.
func TestWhatPassesAsHTTP1(t *testing.T) {
	p := newPair(t)
	p.appB.handle = func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.Method, r.RequestURI) }
	p.weight(100)
	const ok = "HTTP/1.1 200 OK"
	for request, want := range map[string]string{
		"PURGE /x": ok, "BAN /x": ok, "PROPFIND /x": ok, "FOO-BAR /x": ok, "get /x": ok, "TRACE /x": ok, "GET /a%23b": ok,
		"QUERY /x type": ok,
		// These are README's limits.
		"QUERY /x": "HTTP/1.1 400 Bad Request", "GET /a#b": "HTTP/1.1 400 Bad Request",
		"OPTIONS *": "HTTP/1.1 404 Not Found", "CONNECT web:80": "HTTP/1.1 404 Not Found",
	} {
		t.Run(request, func(t *testing.T) {
			c := p.dial(t, p.a.IP+":8080")
			sent, typed := strings.CutSuffix(request, " type")
			fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: web\r\nConnection: close\r\n", sent)
			if typed {
				fmt.Fprint(c, "Content-Type: application/sql\r\n")
			}
			fmt.Fprint(c, "Content-Length: 0\r\n\r\n")
			answer, _ := io.ReadAll(c)
			if line, _, _ := strings.Cut(string(answer), "\r\n"); line != want {
				t.Fatalf("answer %q, want %q", line, want)
			}
			if want == ok && !strings.Contains(string(answer), sent+"\n") {
				t.Errorf("the app saw something else: %q", answer)
			}
		})
	}
}

// Where no Service says what a port speaks, its client is waited for.
func TestAServerThatSpeaksFirstOnASniffedPortIsDelayed(t *testing.T) {
	p := newPair(t)
	go greet(p.a.Listen(9001))
	start := time.Now()
	c := p.dial(t, p.a.IP+":9001")
	line, _ := bufio.NewReader(c).ReadString('\n')
	if d := time.Since(start); line != "220 ready\n" || d < 1900*time.Millisecond {
		t.Errorf("answer %q after %s, want it after the 2 s that README speaks of", line, d)
	}
}

// greet is a server that speaks first.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, "220 ready\n")
		_, _ = io.Copy(c, c)
		c.Close()
	}
}

func TestSharesOfRequests(t *testing.T) {
	p := newPair(t)
	const n = 4000
	for _, weight := range []uint32{0, 25, 100} {
		p.weight(weight)
		got := p.many(n, weight == 25)
		share := float64(weight) / 100
		deviation := 5 * math.Sqrt(n*share*(1-share))
		if math.Abs(float64(got["b"])-n*share) > deviation || got["a"]+got["b"] != n {
			t.Errorf("weight %d: %v", weight, got)
		}
		t.Logf("weight %d: %v", weight, got)
	}
	for _, r := range append(p.appA.taken(), p.appB.taken()...) {
		checkNothingOfOurs(t, r)
		if r.Host != "web" {
			t.Fatalf("an app saw %v of %s", r.Header, r.Host)
		}
	}
}

func TestAPeerThatCantBeReachedCostsNoRequest(t *testing.T) {
	p := newPair(t)
	p.weight(100)
	p.b.StopEnvoy() // 15601 is redirected to a port where nobody listens: refused
	for _, h2 := range []bool{false, true} {
		if got := p.many(500, h2); got["a"] != 500 {
			t.Errorf("HTTP/2 %t: %v, want all 500 from the local app", h2, got)
		}
	}
	for _, r := range p.appA.taken() {
		checkNothingOfOurs(t, r)
	}
	set(t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: 100}))
	p.ads.settled(t, webKey, 100)
	if got := p.many(500, false); got["a"] != 500 {
		t.Errorf("without any peer: %v, want all 500 from the local app", got)
	}
	if s := p.stat(`upstream_cx_connect_fail`, "peerconn"); s == "0" || s == "" {
		t.Errorf("connect failures of the peer: %q", s)
	}
}

// A candidate of weight 0 has nobody but stable's pods, and half of them are away. Each round begins with a new cluster, so
// that nobody knows yet which.
func TestACandidateOfWeightZeroAsksAnotherStablePod(t *testing.T) {
	p := newLingeringPair(t, 1)
	hosts := []string{p.b.IP, p.n.Pod().IP} // who has no sidecar refuses
	for round := range 20 {
		p.rest()
		p.awaitNoPeer()
		set(t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: 100, PeerIsStable: true, Endpoints: hosts}))
		p.ads.settled(t, webKey, 100)
		if got := p.many(20, round%2 == 1); got["b"] != 20 {
			t.Errorf("round %d: %v, want all 20 from the stable pod that is there", round, got)
		}
	}
}

// awaitNoPeer waits until the sidecar of a has forgotten that of b.
func (p *pair) awaitNoPeer() {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // polling another process
		_, clusters := p.a.Admin(http.MethodGet, "/clusters")
		if !strings.Contains(clusters, p.b.IP+":") {
			return
		}
		if time.Now().After(end) {
			p.t.Fatal("the clusters of the peer stay")
		}
	}
}

// stat is a counter of port 8080 for one hop.
func (p *pair) stat(name, hop string) string {
	_, body := p.a.Admin(http.MethodGet, "/stats/prometheus")
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "envoy_cluster_"+name+"{") && strings.Contains(line, `hg_hop="`+hop+`"`) && strings.Contains(line, `hg_port="8080"`) {
			return strings.TrimSpace(line[strings.LastIndex(line, " "):])
		}
	}
	return ""
}

// The peer does not answer, and while the sidecar tries to connect, the split goes away.
func TestARequestOnItsWayWhenTheSplitGoesIsServed(t *testing.T) {
	p := newPair(t)
	set(t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: 100, Endpoints: []string{"10.213.0.99"}}))
	p.ads.settled(t, webKey, 100)
	answer, start := make(chan string), time.Now()
	go func() { answer <- p.get(p.client(false), http.MethodPost) }()
	for p.stat("upstream_cx_total", "peerconn") == "0" {
		time.Sleep(time.Millisecond) // polling another process
	}
	p.rest()
	if got := <-answer; got != "a" {
		t.Errorf("answer %q, want the local app's", got)
	}
	if d := time.Since(start); d < 200*time.Millisecond || d > 2*time.Second {
		t.Errorf("answered after %s, want the connect timeout of 250ms", d)
	}
}

// Envoy replaces the filter chain that a request came by. It used to cut what was under way five seconds later.
func TestARequestOutlivesTheFilterChainThatItCameBy(t *testing.T) {
	p := newPair(t)
	reached, finish := make(chan struct{}), make(chan struct{})
	p.appA.handle = func(w http.ResponseWriter, _ *http.Request) {
		close(reached)
		<-finish
		fmt.Fprint(w, "a")
	}
	answer := make(chan string, 1)
	go func() { answer <- p.get(p.client(false), http.MethodPost) }()
	<-reached
	changed := revisionA(nil)
	changed.Ports[0].Protocol = xds.HTTP
	set(t, p.ads.Server, changed)
	p.ads.settled(t, webKey, 0)
	select {
	case got := <-answer:
		t.Fatalf("answer %q before the app gave one", got)
	case <-time.After(7 * time.Second):
	}
	close(finish)
	if got := <-answer; got != "a" {
		t.Errorf("answer %q, want the local app's", got)
	}
}

// The peer's pod is ending, its app has ended already, and nobody has told this sidecar. Before its pod ends, an app
// that can't be reached is one that fails. Envoy says both in another way to gRPC.
func TestAPeerWhoseAppHasEndedCostsNoRequest(t *testing.T) {
	for name, tc := range map[string]struct {
		ask    func(p *pair) string
		fails  string
		counts string
	}{
		"HTTP": {
			func(p *pair) string { return p.get(p.client(false), http.MethodPost) }, "503",
			`envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",`,
		},
		"gRPC": {func(p *pair) string { return p.answered(p.client(true)) }, "status 14", `envoy_cluster_grpc{grpc_status="14",`},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.weight(100)
			if got := p.many(50, false); got["b"] != 50 {
				t.Fatalf("%v, want all from the peer", got)
			}
			p.serverB.Close()
			if answer := tc.ask(p); !strings.HasPrefix(answer, tc.fails) {
				t.Errorf("answer %q of a version whose app is not there, want %s", answer, tc.fails)
			}
			if p.leftOut() {
				t.Error("a version whose app fails is left out, so that nobody sees its failures")
			}
			p.leaveB()
			if answer := tc.ask(p); answer != "a" {
				t.Errorf("answer %q, want the local app's", answer)
			}
			// What comes in the moment in which the peer's sidecar closes its doors is lost. So nothing comes.
			if !p.leftOut() {
				t.Error("the peer is still asked after it has said that it ends")
			}
			for _, h2 := range []bool{false, true} {
				if got := p.many(500, h2); got["a"] != 500 {
					t.Errorf("HTTP/2 %t: %v, want all 500 from the local app", h2, got)
				}
			}
			// The version is not to blame: of its failures only the one before the end counts.
			once := tc.counts + `hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop="peer",hg_revision="b"} 1` + "\n"
			if _, stats := p.a.Admin(http.MethodGet, "/stats/prometheus"); !strings.Contains(stats, once) {
				t.Errorf("want %s in %s", once, stats)
			}
		})
	}
}

// leaveB says to the peer's sidecar that its pod ends, as headgate drain does.
func (p *pair) leaveB() {
	p.t.Helper()
	for _, path := range []string{"/healthcheck/fail", "/runtime_modify?" + xds.LeavingKey + "=100"} {
		if status, body := p.b.Admin(http.MethodPost, path); status != http.StatusOK {
			p.t.Fatalf("%s: %d %s", path, status, body)
		}
	}
}

// Whatever an app answers, it is asked on, so that what it does is seen.
func TestAVersionThatFailsIsAskedOn(t *testing.T) {
	p := newPair(t)
	p.weight(100)
	for name, answer := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"503": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"a gRPC status without a message": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "14")
		},
		"a gRPC status and what only an ending pod's sidecar says": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "13")
			w.Header().Set("X-Headgate-Unreached", "true")
		},
		"what only an ending pod's sidecar says": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Headgate-Unreached", "true")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	} {
		p.appB.handle = answer
		p.appA.taken()
		for _, h2 := range []bool{false, true} {
			p.many(20, h2)
		}
		c := p.client(true)
		for range 20 {
			if _, err := p.call(c, nil); err != nil {
				t.Fatalf("%s: a gRPC call: %v", name, err)
			}
		}
		if n := len(p.appA.taken()); p.leftOut() || n != 0 {
			t.Errorf("%s: left out %t, %d of 60 requests were answered by the other version", name, p.leftOut(), n)
		}
	}
}

// Many clients at once get headers, and then nothing more. Others are served.
func TestAVersionWhoseAnswersBreakOffIsAskedOn(t *testing.T) {
	const clients = 20
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.weight(100)
			waiting, broken := make(chan struct{}, clients), make(chan struct{})
			p.appB.handle = func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Break") == "" {
					fmt.Fprint(w, "b")
					return
				}
				w.Header().Set("Content-Length", "1000000")
				_ = http.NewResponseController(w).Flush()
				waiting <- struct{}{}
				<-broken
				panic(http.ErrAbortHandler)
			}
			var all sync.WaitGroup
			for range clients {
				all.Go(func() { do(p.client(h2), request(t, "http://"+p.a.IP+":8080/", "X-Break", "yes")) })
			}
			for len(waiting) < clients {
				time.Sleep(time.Millisecond)
			}
			served, once := p.client(h2), sync.Once{}
			for start := time.Now(); time.Since(start) < 2500*time.Millisecond; { // the sidecar thinks about it every second
				if got := p.get(served, http.MethodPost); got != "b" {
					t.Fatalf("%q after %s, want b; left out: %t", got, time.Since(start), p.leftOut())
				}
				once.Do(func() { close(broken) })
			}
			all.Wait()
		})
	}
}

// A peer that does not answer is tried for a second, and not again for two.
func TestAPeerThatIsSilentIsLeftOut(t *testing.T) {
	p := newPair(t)
	const silent = "10.213.0.99"
	set(t, p.ads.Server, revisionA(&xds.Split{Peer: "b", PeerWeight: 100, Endpoints: []string{silent}}))
	p.ads.settled(t, webKey, 100)
	start := time.Now()
	for !p.leavesOut(silent) {
		if got := p.many(8, false); got["a"] != 8 {
			t.Fatalf("%v, want all from the local app", got)
		}
		if time.Since(start) > patience {
			t.Fatal("a peer that is silent is tried again and again")
		}
	}
	t.Logf("left out after %s", time.Since(start))
}

// leftOut says whether the sidecar of a leaves its peer out.
func (p *pair) leftOut() bool {
	p.t.Helper()
	return p.leavesOut(p.b.IP)
}

// leavesOut says whether the sidecar of a leaves out the only peer that it knows, which has this address.
func (p *pair) leavesOut(ip string) bool {
	p.t.Helper()
	_, clusters := p.a.Admin(http.MethodGet, "/clusters")
	if !strings.Contains(clusters, ip+":") {
		p.t.Fatalf("no %s in %s", ip, clusters)
	}
	return strings.Contains(clusters, "/failed_outlier_check")
}

// An app that ends closes connections that are not used, perhaps in the moment in which the next request is sent. So there
// are none when its pod ends.
func TestAnEndingPodKeepsNoConnectionToItsApp(t *testing.T) {
	p := newPair(t)
	p.weight(100)
	connections := func(h2 bool) int {
		t.Helper()
		if got := p.many(20, h2); got["b"] != 20 {
			t.Fatalf("HTTP/2 %t: %v, want all from the peer", h2, got)
		}
		from := map[string]bool{}
		for _, r := range p.appB.taken() {
			from[r.RemoteAddr] = true
		}
		return len(from)
	}
	for _, h2 := range []bool{false, true} {
		if n := connections(h2); n == 20 {
			t.Errorf("HTTP/2 %t: a connection for each of 20 requests in the middle of the pod's life", h2)
		}
	}
	p.leaveB()
	for _, h2 := range []bool{false, true} {
		if n := connections(h2); n != 20 {
			t.Errorf("HTTP/2 %t: %d connections for 20 requests, want one for each", h2, n)
		}
	}
}

// The peer's app has read the request and hangs up: nobody may send it again.
func TestARequestThatWasReadIsNotRepeated(t *testing.T) {
	p := newPair(t)
	p.appB.handle = func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	p.weight(100)
	for _, h2 := range []bool{false, true} {
		answer := p.get(p.client(h2), http.MethodPost)
		if !strings.HasPrefix(answer, "503") {
			t.Errorf("HTTP/2 %t: answer %q, want 503", h2, answer)
		}
		if a, b := len(p.appA.taken()), len(p.appB.taken()); a != 0 || b != 1 {
			t.Errorf("HTTP/2 %t: seen %d times by the local app and %d times by the peer, want 0 and 1", h2, a, b)
		}
	}
	for c, i := p.client(true), 0; i < 5; i++ {
		if answer := p.answered(c); answer != "status 14" {
			t.Errorf("a gRPC call: answer %q, want a status of the peer's sidecar", answer)
		}
	}
	if a, b := len(p.appA.taken()), len(p.appB.taken()); a != 0 || b != 5 {
		t.Errorf("5 gRPC calls: seen %d times by the local app and %d times by the peer, want 0 and 5", a, b)
	}
	p.rest()
	p.appA.handle = p.appB.handle
	if answer := p.answered(p.client(true)); answer != "status 14" || len(p.appA.taken()) != 1 {
		t.Errorf("a gRPC call at rest: answer %q, want a status of the app's own sidecar", answer)
	}
}

// Splits come and go, weights change, peers leave the list, at 200 requests per second and more.
func TestChangesUnderLoadLoseNothing(t *testing.T) {
	p := newLingeringPair(t, 700*time.Millisecond)
	failed, sent, stop := map[string]int{}, 0, make(chan struct{})
	results, done := make(chan string, 1<<16), make(chan struct{})
	for i := range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			c := p.client(i%2 == 1)
			defer c.CloseIdleConnections()
			pace := time.NewTicker(20 * time.Millisecond) // 8 clients: 400 requests per second
			defer pace.Stop()
			for {
				select {
				case <-stop:
					return
				case <-pace.C:
					results <- p.get(c, http.MethodPost)
				}
			}
		}()
	}
	changes := 0
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); changes += 5 {
		p.rest()
		time.Sleep(750 * time.Millisecond) // long enough that the clusters go
		for _, s := range []*xds.Split{
			{Peer: "b", PeerWeight: 10, Endpoints: []string{p.b.IP}},
			{Peer: "b", PeerWeight: 90, Endpoints: []string{p.b.IP}},
			{Peer: "b", PeerWeight: 90},
			{Peer: "c", PeerWeight: 50, Endpoints: []string{p.b.IP}}, // c had this address, and b says that it is not c
		} {
			set(t, p.ads.Server, revisionA(s))
			p.ads.settled(t, webKey, s.PeerWeight)
			time.Sleep(20 * time.Millisecond) // let requests meet each configuration
		}
	}
	close(stop)
	for range 8 {
		<-done
	}
	close(results)
	for r := range results {
		sent++
		if r != "a" && r != "b" {
			failed[r]++
		}
	}
	fromB := len(p.appB.taken())
	t.Logf("%d requests, %d of them answered by b, %d changes, failed %v", sent, fromB, changes, failed)
	if len(failed) > 0 || sent < 1200 || fromB == 0 {
		t.Errorf("%d requests, failed: %v", sent, failed)
	}
}
