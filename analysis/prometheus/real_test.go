// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/analysis"
)

// exporter is some pods' sidecars: /<pod> serves their counters.
type exporter struct {
	*httptest.Server
	mu     sync.Mutex
	seen   *sync.Cond
	series map[string]map[string]string // by pod: series as exposed, and value
	native map[string]http.Handler      // by pod: what it serves instead
	scrape map[string]int               // by pod: scrapes begun
}

func newExporter(t *testing.T, pods ...string) *exporter {
	e := &exporter{series: map[string]map[string]string{}, scrape: map[string]int{}}
	e.seen = sync.NewCond(&e.mu)
	for _, p := range pods {
		e.series[p] = map[string]string{}
	}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	return e
}

func (e *exporter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	pod := strings.TrimPrefix(r.URL.Path, "/")
	e.scrape[pod]++
	e.seen.Broadcast()
	if e.series[pod] == nil {
		http.Error(w, "no such pod", http.StatusNotFound)
		return
	}
	if h := e.native[pod]; h != nil {
		h.ServeHTTP(w, r)
		return
	}
	// Only of what is known as a histogram is one converted. No test depends on the types of the others.
	fmt.Fprintln(w, "# TYPE", nativeName, "histogram")
	for _, s := range slices.Sorted(maps.Keys(e.series[pod])) {
		fmt.Fprintln(w, s, e.series[pod][s])
	}
}

// show changes what pods expose ("" takes a series away, a nil map the pod) and waits until Prometheus
// has taken it in: scrapes of a pod do not overlap, so the second one to begin afterwards comes after
// the end of one that saw the change.
func (e *exporter) show(t *testing.T, changes map[string]map[string]string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for pod, change := range changes {
		if change == nil {
			e.series[pod] = nil
			continue
		}
		for s, v := range change {
			if e.series[pod][s] = v; v == "" {
				delete(e.series[pod], s)
			}
		}
	}
	until := maps.Clone(e.scrape)
	for pod := range e.series {
		until[pod] += 2
	}
	stop := time.AfterFunc(20*time.Second, func() { e.mu.Lock(); defer e.mu.Unlock(); clear(until); e.seen.Broadcast() })
	defer stop.Stop()
	for slices.ContainsFunc(slices.Collect(maps.Keys(until)), func(pod string) bool { return e.scrape[pod] < until[pod] }) {
		e.seen.Wait()
	}
	if len(until) == 0 {
		t.Fatal("not scraped within 20 s")
	}
}

// server is a real Prometheus that scrapes an exporter ten times a second.
type server struct {
	t       *testing.T
	address string
	args    []string
	log     bytes.Buffer
	cmd     *exec.Cmd
}

// newServer starts one, with more settings for its scrapes.
func newServer(t *testing.T, e *exporter, settings ...string) *server {
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("no prometheus binary on PATH: install the distribution's package to run this test")
	}
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 100ms, scrape_timeout: 100ms}\nscrape_configs:\n- job_name: sidecars\n")
	for _, s := range settings {
		config.WriteString("  " + s + "\n")
	}
	config.WriteString("  static_configs:\n")
	for pod := range e.series {
		fmt.Fprintf(&config, "  - {targets: [%q], labels: {__metrics_path__: %q, namespace: shop, pod: %q, instance: %q}}\n", strings.TrimPrefix(e.URL, "http://"), "/"+pod, pod, pod)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	s := &server{t: t, address: address, args: []string{binary, "--config.file=" + file, "--web.listen-address=" + address, "--storage.tsdb.path=" + dir}}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get("http://" + s.address + "/-/ready"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
	}
	s.stop()
	s.t.Fatalf("Prometheus is not ready after 30 s:\n%s", s.log.String())
}

// stop kills it, as a node that goes away would.
func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // "signal: killed", as asked
}

func exposed(hop, revision, class string) string {
	return fmt.Sprintf(`%s{hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop=%q,hg_revision=%q,envoy_response_code_class=%q}`, requestsName, hop, revision, class)
}

func exposedConnects(revision string) string {
	return fmt.Sprintf(`%s{hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop="peerconn",hg_revision=%q}`, connectName, revision)
}

// exposedBuckets adds how many requests a pod answered, and how many of them within 100 ms.
func exposedBuckets(into map[string]string, hop, revision, within, requests string) map[string]string {
	for bound, n := range map[string]string{"100": within, "7.5": "0", all: requests} {
		into[fmt.Sprintf(`%s{hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop=%q,hg_revision=%q,le=%q}`, latencyName, hop, revision, bound)] = n
	}
	return into
}

func exposedGRPC(hop, revision, status string) string {
	return fmt.Sprintf(`%s{hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop=%q,hg_revision=%q,grpc_status=%q}`, grpcName, hop, revision, status)
}

// lookAfter is so long that a counter which fell can't be an answer older than the one before: it was reset.
const lookAfter = 2*defaultStaleAfter + 5*time.Second

// The counters' whole life at a real Prometheus, which this test starts, kills and starts again.
func TestRealPrometheus(t *testing.T) {
	t.Parallel()
	type pods = map[string]map[string]string
	e := newExporter(t, "a", "b", "c")
	e.series["c"] = nil // does not exist yet
	s := newServer(t, e)
	client, err := New(Config{URL: "http://" + s.address})
	if err != nil {
		t.Fatal(err)
	}
	local2, local5, peer2, peer5 := exposed("local", "old", "2"), exposed("local", "old", "5"), exposed("peer", "new", "2"), exposed("peer", "new", "5")
	target := Target{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old", Weight: 10, Created: map[string]time.Time{}, Metrics: []Query{
		{Name: "scalar", Expression: "scalar(vector(0.5))"},
		{Name: "pods", Expression: `count(count by (pod) ({hg_workload="{{.Workload}}",namespace="{{.Namespace}}",pod!="c"}))`},
		{Name: "nan", Expression: "0/0"}, {Name: "none", Expression: "absent_metric"}, {Name: "many", Expression: "{hg_hop=\"local\"}"}, {Name: "wrong", Expression: "sum("},
	}}
	now := start
	look := func(what string, candidate, stable analysis.Counts) analysis.Look {
		t.Helper()
		now = now.Add(lookAfter)
		l, err := client.Looks(t.Context(), now, []Target{target})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := total(l[0].Candidate); got != candidate {
			t.Errorf("%s: candidate %+v, want %+v", what, got, candidate)
		}
		if got := total(l[0].Stable); got != stable {
			t.Errorf("%s: stable %+v, want %+v", what, got, stable)
		}
		return l[0]
	}

	e.show(t, pods{"a": {local2: "1000", peer2: "50", exposedConnects("new"): "3"}, "b": {local2: "2000", peer2: "70"}})
	if l := look("first look", analysis.Counts{}, analysis.Counts{}); !l.Missing {
		t.Error("the first look is not a missing one")
	}
	e.show(t, pods{"a": {local2: "1090", peer2: "60"}, "b": {local2: "2090"}})
	l := look("traffic", analysis.Counts{Requests: 10}, analysis.Counts{Requests: 180})
	checkMetrics(t, l)
	e.show(t, pods{"a": exposedBuckets(map[string]string{}, "local", "old", "80", "90")})
	l = look("the first timed requests", analysis.Counts{}, analysis.Counts{})
	if diff := cmp.Diff(map[string]analysis.Served{"a": {Requests: 90, Slower: []uint64{10}}}, l.StableServed); diff != "" {
		t.Errorf("latencies (-want +got):\n%s", diff)
	}
	look("nothing new", analysis.Counts{}, analysis.Counts{})

	e.show(t, pods{"a": {peer5: "4", local5: "1"}})
	look("first errors", analysis.Counts{Requests: 4, Errors: 4}, analysis.Counts{Requests: 1, Errors: 1})
	e.show(t, pods{"a": {peer2: "80", exposedConnects("new"): "8", exposedGRPC("peer", "new", "14"): "2", exposedGRPC("peer", "new", "0"): "9"}})
	look("unreachable peer and gRPC", analysis.Counts{Requests: 20, Errors: 2, Unreached: 5}, analysis.Counts{})
	e.show(t, pods{"a": {local2: "5", peer2: "2", peer5: "", local5: ""}})
	look("the sidecar of a restarts", analysis.Counts{Requests: 2}, analysis.Counts{Requests: 5})

	target.Created["c"] = now.Add(time.Second)
	e.mu.Lock()
	e.series["c"] = map[string]string{}
	e.mu.Unlock()
	e.show(t, pods{"c": {local2: "33", peer2: "3"}})
	look("a new pod", analysis.Counts{Requests: 3}, analysis.Counts{Requests: 33})
	e.show(t, pods{"c": nil})
	look("the pod is gone", analysis.Counts{}, analysis.Counts{})

	e.show(t, pods{"b": {local2: "NaN"}})
	look("NaN", analysis.Counts{}, analysis.Counts{})
	e.show(t, pods{"b": {local2: "2100"}})
	look("a number again", analysis.Counts{}, analysis.Counts{Requests: 10})

	s.stop()
	if l, err := client.Looks(t.Context(), now.Add(time.Second), []Target{target}); err == nil || !l[0].Missing {
		t.Errorf("Prometheus killed: %+v, %v", l[0], err)
	}
	s.start()
	e.show(t, pods{"a": {local2: "25"}, "b": {local2: "2120", peer2: "75"}})
	look("Prometheus is back", analysis.Counts{Requests: 5}, analysis.Counts{Requests: 40})

	e.show(t, pods{"a": nil, "b": nil})
	if l := look("every scrape fails", analysis.Counts{}, analysis.Counts{}); !l.Missing {
		t.Error("a workload without scrapes is not missing")
	}
}

// Samples that nobody refreshes are no data, though Prometheus answers with them for five minutes.
func TestRealPrometheusThatDoesNotScrape(t *testing.T) {
	t.Parallel()
	e := newExporter(t, "a")
	s := newServer(t, e)
	client, err := New(Config{URL: "http://" + s.address, StaleAfter: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	local2 := exposed("local", "old", "2")
	e.show(t, map[string]map[string]string{"a": {local2: "1"}})
	for i := range 2 {
		l, err := client.Looks(t.Context(), start.Add(time.Duration(i)*time.Second), []Target{{Namespace: "shop", Workload: "web", Stable: "old"}})
		if err != nil || l[0].Missing != (i == 0) {
			t.Fatalf("look %d: %+v, %v", i, l, err)
		}
	}
	s.stop() // a Prometheus that is killed leaves no mark that its series ended
	if err := os.WriteFile(strings.TrimPrefix(s.args[1], "--config.file="), []byte("global: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		l, err := client.Looks(t.Context(), time.Now(), []Target{{Namespace: "shop", Workload: "web", Stable: "old"}})
		if err == nil && l[0].Missing && strings.HasPrefix(l[0].Reason, "not scraped for") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("old samples are taken for news: %+v, %v", l, err)
		}
	}
}

// What is counted between two moments of the past is what an exporter counted between them.
func TestRealPrometheusKnowsThePast(t *testing.T) {
	t.Parallel()
	e := newExporter(t, "a")
	s := newServer(t, e)
	client, err := New(Config{URL: "http://" + s.address})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	target := Target{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old"}
	await := func(what string, done func(counted analysis.Counts, known bool) bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			past, err := client.Past(t.Context(), target, Span{From: began, To: time.Now(), Every: time.Second})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			var counted analysis.Counts
			known := false
			for _, l := range past {
				more := total(l.Stable)
				counted.Requests, counted.Errors = counted.Requests+more.Requests, counted.Errors+more.Errors
				known = known || !l.Missing
			}
			if done(counted, known) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v in %d looks", what, counted, len(past))
			}
		}
	}
	e.show(t, map[string]map[string]string{"a": {exposed("local", "old", "2"): "1000", exposed("local", "old", "5"): "50"}})
	await("counting starts", func(counted analysis.Counts, known bool) bool { return known && counted == analysis.Counts{} })
	e.show(t, map[string]map[string]string{"a": {exposed("local", "old", "2"): "1090", exposed("local", "old", "5"): "53"}})
	await("traffic", func(counted analysis.Counts, _ bool) bool { return counted == analysis.Counts{Requests: 93, Errors: 3} })
	e.show(t, map[string]map[string]string{"a": {exposed("local", "old", "2"): "7", exposed("local", "old", "5"): "0"}})
	await("a sidecar that restarted", func(counted analysis.Counts, _ bool) bool {
		return counted == analysis.Counts{Requests: 100, Errors: 3}
	})
}

func total(pods map[string]analysis.Counts) analysis.Counts {
	var sum analysis.Counts
	for _, c := range pods {
		sum.Requests += c.Requests
		sum.Errors += c.Errors
		sum.Unreached += c.Unreached
	}
	return sum
}

func checkMetrics(t *testing.T, l analysis.Look) {
	t.Helper()
	got := map[string]string{}
	for _, m := range l.Metrics {
		got[m.Name] = fmt.Sprint(m.Value, " ", m.Err)
	}
	wrong := got["wrong"]
	delete(got, "wrong")
	want := map[string]string{
		"scalar": "0.5 ", "pods": "2 ", "nan": "0 " + ErrNaN.Error(), "none": "0 " + ErrEmpty.Error(),
		"many": "0 " + ErrNotOne.Error() + ": 2 values",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	if !strings.Contains(wrong, "bad_data") {
		t.Errorf("a query that can't be parsed: %q", wrong)
	}
}
