// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/analysis"
)

// line is a counter as a sidecar of shop/web exposes it: without the labels that a scrape adds.
func line(name, hop, revision, more string, value int) string {
	return fmt.Sprintf("%s{hg_namespace=\"shop\",hg_workload=\"web\",hg_port=\"8080\",hg_hop=%q,hg_revision=%q%s} %d\n", name, hop, revision, more, value)
}

func class(c string) string { return `,envoy_response_code_class="` + c + `"` }

// sidecar serves a text, and says what it was asked for.
func sidecar(t *testing.T, text *string) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != exposedPath || r.URL.Query().Get("filter") != exposedFilter {
			t.Errorf("asked for %s", r.URL)
		}
		w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		fmt.Fprint(w, *text)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func webTarget(sidecars map[string]string) Target {
	return Target{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old", Step: 1, Weight: 25, Sidecars: sidecars}
}

func TestSidecarsAreCountedAsAScrapeWouldCountThem(t *testing.T) {
	var first, second string
	target := webTarget(map[string]string{"a": sidecar(t, &first), "b": sidecar(t, &second)})
	// What was before the first look is not known to have happened in this rollout.
	first = line(requestsName, hopLocal, "old", class("2"), 1000) + line(requestsName, hopLocal, "old", class("5"), 10)
	second = line(requestsName, hopPeer, "old", class("2"), 7)
	s := NewSidecars(nil)
	looks := mustLook(t, s, start, target)
	if !looks[0].Missing || looks[0].Reason != "first look at these counters" {
		t.Errorf("the first look: %+v", looks[0])
	}
	first = "# TYPE envoy_cluster_upstream_rq_xx counter\n" +
		line(requestsName, hopLocal, "old", class("2"), 1090) + line(requestsName, hopLocal, "old", class("5"), 12) +
		line(requestsName, hopPeer, "new", class("2"), 20) + line(requestsName, hopPeer, "new", class("5"), 4) +
		line(statusName, hopPeer, "new", `,envoy_response_code="101"`, 7) + line(requestsName, hopPeer, "new", class("1"), 9) + // two more are 100 (Continue)
		line(grpcName, hopPeer, "new", `,grpc_status="14"`, 3) + line(grpcName, hopPeer, "new", `,grpc_status="0"`, 17) +
		line(connectName, hopPeerConn, "new", "", 1) + line(startedName, hopPeerConn, "new", "", 25)
	second = line(requestsName, hopPeer, "old", class("2"), 5) + // restarted
		line(requestsName, hopIn, "new", class("2"), 50) // was split, and counted, elsewhere
	looks = mustLook(t, s, start.Add(5*time.Second), target)
	want := analysis.Look{
		Time: start.Add(5 * time.Second), Step: 1, Weight: 25,
		Stable:    map[string]analysis.Counts{"a": {Requests: 92, Errors: 2}, "b": {Requests: 5}},
		Candidate: map[string]analysis.Counts{"a": {Requests: 31, Errors: 4, Started: 25, Unreached: 1}},
	}
	if diff := cmp.Diff(want, looks[0]); diff != "" {
		t.Errorf("the look (-want +got):\n%s", diff)
	}
}

func TestASidecarSpeaksForItselfOnly(t *testing.T) {
	text := line(requestsName, hopLocal, "old", class("2"), 1)
	target := webTarget(map[string]string{"a": sidecar(t, &text)})
	s := NewSidecars(nil)
	mustLook(t, s, start, target)
	text = line(requestsName, hopLocal, "old", class("2"), 2) +
		strings.Replace(line(requestsName, hopLocal, "old", class("2"), 50), `"web"`, `"api"`, 1) +
		strings.Replace(line(requestsName, hopLocal, "old", class("2"), 50), `"shop"`, `"bank"`, 1) +
		line(requestsName, hopLocal, "old", class("5")+`,pod="b",namespace="shop"`, 50)
	other := Target{Namespace: "shop", Workload: "api", Candidate: "new", Stable: "old", Weight: 25}
	looks := mustLook(t, s, start.Add(5*time.Second), target, other)
	// A label that only a scrape adds does not make another pod of it.
	if want := (map[string]analysis.Counts{"a": {Requests: 51, Errors: 50}}); !cmp.Equal(looks[0].Stable, want) {
		t.Errorf("counted %v, want %v", looks[0].Stable, want)
	}
	if !looks[1].Missing || len(looks[1].Stable) > 0 {
		t.Errorf("of another workload: %+v", looks[1])
	}
}

// What can't be read now is covered by the next look.
func TestASidecarThatCannotBeReadCostsNothing(t *testing.T) {
	good := line(requestsName, hopLocal, "old", class("2"), 100)
	bad := map[string]http.HandlerFunc{
		"an error":       func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) },
		"something else": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, grpcName+"{<html>\n") },
		"more counters than there can be": func(w http.ResponseWriter, _ *http.Request) {
			for port := range maxExposedCounters + 1 {
				fmt.Fprintf(w, "%s{hg_port=\"%d\"} 1\n", startedName, port)
			}
		},
		"too much":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("# x\n", maxExposed/4+1)) },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
		"half of it": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, good)
		},
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	}
	for name, handle := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := good
			var now atomic.Pointer[http.HandlerFunc]
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if handle := now.Load(); handle != nil {
					(*handle)(w, r)
					return
				}
				fmt.Fprint(w, text)
			}))
			t.Cleanup(server.Close)
			target := webTarget(map[string]string{"a": strings.TrimPrefix(server.URL, "http://")})
			s := NewSidecars(nil)
			mustLook(t, s, start, target)
			now.Store(&handle)
			looks, err := s.Looks(t.Context(), start.Add(5*time.Second), []Target{target})
			if err == nil || !strings.Contains(err.Error(), "shop/web") || !looks[0].Missing {
				t.Errorf("error %v, look %+v", err, looks[0])
			}
			now.Store(nil)
			text = line(requestsName, hopLocal, "old", class("2"), 150)
			looks = mustLook(t, s, start.Add(10*time.Second), target)
			if got := looks[0].Stable["a"].Requests; got != 50 || looks[0].Missing {
				t.Errorf("the next look has %d requests, want 50; missing: %t", got, looks[0].Missing)
			}
		})
	}
}

// One of two pods with the same address is gone, and its successor's counters are not its own.
func TestAnAddressOfTwoPodsIsNotRead(t *testing.T) {
	text := line(requestsName, hopLocal, "old", class("2"), 1)
	address := sidecar(t, &text)
	target := webTarget(map[string]string{"a": address, "b": address})
	s := NewSidecars(nil)
	mustLook(t, s, start, target)
	text = line(requestsName, hopLocal, "old", class("2"), 101)
	if look := mustLook(t, s, start.Add(5*time.Second), target)[0]; !look.Missing || len(look.Stable) > 0 {
		t.Errorf("the look: %+v, want nothing counted", look)
	}
}

// A namespace that shows too many counters is not read further, and no other suffers.
func TestANamespaceHasItsShareOfCounters(t *testing.T) {
	var flood string
	for port := range 60 {
		flood += strings.Replace(line(startedName, hopLocal, "old", "", 1), "8080", fmt.Sprint(port), 1)
	}
	text := strings.ReplaceAll(line(requestsName, hopLocal, "old", class("2"), 1), `"shop"`, `"bank"`)
	target, other := webTarget(map[string]string{"a": sidecar(t, &flood)}), webTarget(map[string]string{"a": sidecar(t, &text)})
	other.Namespace = "bank"
	s := NewSidecars(nil)
	s.memory.room = 100
	if _, err := s.Looks(t.Context(), start, []Target{target, other}); err == nil || !strings.Contains(err.Error(), "shop/web: its namespace has too many") {
		t.Errorf("error %v, want one that says so", err)
	}
	text = strings.Replace(text, "} 1", "} 3", 1)
	looks, _ := s.Looks(t.Context(), start.Add(5*time.Second), []Target{target, other})
	if got := looks[1].Stable["a"].Requests; got != 2 {
		t.Errorf("the other namespace has %d requests, want 2", got)
	}
	if len(s.memory.last) != 1 {
		t.Errorf("%d counters are remembered, want 1", len(s.memory.last))
	}
}

func TestSidecarsOfManyTargets(t *testing.T) {
	var targets []Target
	texts := make([]string, 40)
	for i := range texts {
		texts[i] = strings.ReplaceAll(line(requestsName, hopLocal, "old", class("2"), 1), `"shop"`, fmt.Sprintf("%q", fmt.Sprint("ns", i)))
		target := webTarget(map[string]string{"a": sidecar(t, &texts[i])})
		target.Namespace = fmt.Sprint("ns", i)
		targets = append(targets, target)
	}
	s := NewSidecars(nil)
	mustLook(t, s, start, targets...)
	for i := range texts {
		texts[i] = strings.Replace(texts[i], "} 1\n", fmt.Sprintf("} %d\n", i+2), 1)
	}
	for i, look := range mustLook(t, s, start.Add(5*time.Second), targets...) {
		if got := look.Stable["a"].Requests; got != uint64(i+1) {
			t.Errorf("target %d has %d requests, want %d", i, got, i+1)
		}
	}
}

func mustLook(t *testing.T, s *Sidecars, at time.Time, targets ...Target) []analysis.Look {
	t.Helper()
	looks, err := s.Looks(t.Context(), at, targets)
	if err != nil {
		t.Fatal(err)
	}
	if len(looks) != len(targets) {
		t.Fatalf("%d looks at %d targets", len(looks), len(targets))
	}
	return looks
}

// Whatever a pod answers, it speaks for itself, and by counters.
func FuzzExposition(f *testing.F) {
	f.Add(line(requestsName, hopLocal, "old", class("2"), 1))
	f.Add("# TYPE envoy_cluster_grpc histogram\n" + line(grpcName, hopPeer, "new", `,grpc_status="2",le="+Inf"`, 3))
	f.Add(line(connectName, hopPeerConn, "new", `,pod="b"`, -1) + "x NaN 12\n")
	target := webTarget(nil)
	f.Fuzz(func(t *testing.T, text string) {
		found, err := exposition(strings.NewReader(text), target, "a")
		if err != nil && found != nil {
			t.Errorf("samples beside the error %v", err)
		}
		for _, s := range found {
			if s.Pod != "a" || s.workload != target.key() || !s.counted() {
				t.Errorf("sample of %+v", s.series)
			}
		}
	})
}

// BenchmarkSidecars is a look at a hundred workloads of ten pods each, whose sidecars are a server on this machine.
func BenchmarkSidecars(b *testing.B) {
	var text strings.Builder
	for port := range 2 {
		for _, arm := range []struct{ hop, revision string }{{hopLocal, "old"}, {hopPeer, "new"}, {hopIn, "old"}, {hopPeerConn, "new"}} {
			for c := 1; c <= 5; c++ {
				text.WriteString(strings.Replace(line(requestsName, arm.hop, arm.revision, class(fmt.Sprint(c)), 1000), "8080", fmt.Sprint(8080+port), 1))
			}
			text.WriteString(line(connectName, arm.hop, arm.revision, "", 0) + line(startedName, arm.hop, arm.revision, "", 1000))
		}
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text.String()) }))
	defer server.Close()
	var err error
	if server.Listener, err = net.Listen("tcp", "0.0.0.0:0"); err != nil {
		b.Fatal(err)
	}
	server.Start()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	var targets []Target
	for i := range 100 {
		t := webTarget(map[string]string{})
		t.Namespace = fmt.Sprint("ns", i%20)
		for pod := range 10 {
			t.Sidecars[fmt.Sprintf("web-%d-%d", i, pod)] = fmt.Sprintf("127.0.%d.%d:%s", 1+i, 1+pod, port) // a host for each
		}
		targets = append(targets, t)
	}
	s, at := NewSidecars(nil), start
	for b.Loop() {
		at = at.Add(5 * time.Second)
		if _, err := s.Looks(b.Context(), at, targets); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(text.Len()), "bytes/sidecar")
}
