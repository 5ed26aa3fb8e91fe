// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/internal/golden"
)

// needsNative skips a test where there is no Prometheus that can be told by its configuration to keep native histograms.
func needsNative(t *testing.T) {
	t.Helper()
	out, _ := exec.Command("prometheus", "--version").CombinedOutput()
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "prometheus, version %d.%d.", &major, &minor); err != nil || major < 3 || major == 3 && minor < 8 {
		t.Skip("no Prometheus from 3.8 on on PATH")
	}
}

// recorder keeps the last answer of a Prometheus.
type recorder struct{ body []byte }

func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	r.body, err = io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(r.body))
	return resp, err
}

var clock = regexp.MustCompile(`\b[0-9]{10}(\.[0-9]+)?\b`)

// answer is the last answer, an element a line, in an order and with times that don't vary.
func (r *recorder) answer(t *testing.T) []byte {
	t.Helper()
	var answer struct {
		Data struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal(r.body, &answer); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range answer.Data.Result {
		lines = append(lines, clock.ReplaceAllString(string(e), "1000"))
	}
	slices.Sort(lines)
	return []byte("{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[\n" + strings.Join(lines, ",\n") + "\n]}}\n")
}

// exposedTimes adds the buckets of a sidecar that took so many milliseconds for requests.
func exposedTimes(into map[string]string, hop, revision string, milliseconds ...float64) map[string]string {
	for _, bound := range []string{"1", "2", "5", "7.5", "10", "15", "20", "50", "75", "100", "200", "300", "500", "1000", "2000", "5000", "7500", all} {
		n := 0
		for _, ms := range milliseconds {
			if b, _ := strconv.ParseFloat(bound, 64); ms <= b {
				n++
			}
		}
		into[fmt.Sprintf(`%s{hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop=%q,hg_revision=%q,le=%q}`, latencyName, hop, revision, bound)] = fmt.Sprint(n)
	}
	return into
}

// A Prometheus may keep the sidecars' histograms as they are, converted, or both: the looks are the same.
func TestRealPrometheusThatConverts(t *testing.T) {
	t.Parallel()
	needsNative(t)
	want := realLooks(t, "classic")
	for _, l := range want[1:] {
		if len(l.Bounds) != len(latencyBounds()) || len(l.StableServed)+len(l.CandidateServed) == 0 {
			t.Fatalf("a look without latencies proves nothing: %+v", l)
		}
	}
	for name, settings := range map[string][]string{
		"converted": {"convert_classic_histograms_to_nhcb: true"},
		"both":      {"convert_classic_histograms_to_nhcb: true", "always_scrape_classic_histograms: true"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, realLooks(t, name, settings...)); diff != "" {
				t.Errorf("looks (-classic +%s):\n%s", name, diff)
			}
		})
	}
}

// realLooks are those at some sidecars' life.
func realLooks(t *testing.T, name string, settings ...string) (out []analysis.Look) {
	t.Helper()
	e := newExporter(t, "a", "c")
	s := newServer(t, e, settings...)
	var r recorder
	c, err := New(Config{URL: "http://" + s.address, Transport: &r})
	if err != nil {
		t.Fatal(err)
	}
	local2, peer2 := exposed("local", "old", "2"), exposed("peer", "new", "2")
	// It has the labels that a histogram has, no more and no less.
	total := startedName + `{hg_namespace="shop",hg_workload="web",hg_port="8080",hg_hop="local",hg_revision="old"}`
	fast, slow := slices.Repeat([]float64{1.5}, 40), []float64{8, 10, 11, 99, 180, 1200, 9000}
	for i, show := range []map[string]map[string]string{
		{"a": exposedTimes(map[string]string{local2: "40", peer2: "1", total: "40"}, "local", "old", fast...), "c": exposedTimes(map[string]string{local2: "0"}, "in", "new", 1)},
		{"a": exposedTimes(map[string]string{local2: "47"}, "local", "old", slices.Concat(fast, slow)...)},
		{"a": {peer2: "4"}, "c": exposedTimes(map[string]string{}, "in", "new", 1, 1, 30, 300)},
		{"a": exposedTimes(map[string]string{local2: "3", peer2: "0"}, "local", "old", 2, 20, 200), "c": exposedTimes(map[string]string{}, "local", "new", 3, 40)},
	} {
		e.show(t, show)
		l, err := c.Looks(t.Context(), start.Add(time.Duration(i)*5*time.Second), []Target{shop()})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, l[0])
		if name == "converted" && i < 2 {
			golden.Check(t, fmt.Sprintf("testdata/%s-%d.json", name, i), r.answer(t))
		}
	}
	return out
}

// An exponential histogram that loses resolution between two looks is judged by powers of two, exactly.
func TestRealPrometheusThatScrapesExponentialHistograms(t *testing.T) {
	t.Parallel()
	needsNative(t)
	e := newExporter(t, "a")
	registry := client.NewRegistry()
	names := client.Labels{"hg_namespace": "shop", "hg_workload": "web", "hg_port": "8080", "hg_hop": "local", "hg_revision": "old"}
	requests := client.NewCounter(client.CounterOpts{Name: startedName, ConstLabels: names})
	times := client.NewHistogram(client.HistogramOpts{Name: nativeName, ConstLabels: names, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 12})
	registry.MustRegister(requests, times)
	e.native = map[string]http.Handler{"a": promhttp.HandlerFor(registry, promhttp.HandlerOpts{})}
	s := newServer(t, e, "scrape_native_histograms: true")
	var r recorder
	c, err := New(Config{URL: "http://" + s.address, Transport: &r})
	if err != nil {
		t.Fatal(err)
	}
	schema := func() int32 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return families[0].Metric[0].Histogram.GetSchema()
	}
	var got analysis.Look
	var schemas [2]int32
	for i, observations := range [][]float64{{9, 10, 11, 12, 70}, {0, 3, 8, 9, 16, 17, 60, 200, 900, 4000, 4097}} {
		for _, ms := range observations {
			requests.Inc()
			times.Observe(ms)
		}
		schemas[i] = schema()
		e.show(t, nil)
		l, err := c.Looks(t.Context(), start.Add(time.Duration(i)*5*time.Second), []Target{shop()})
		if err != nil {
			t.Fatal(err)
		}
		got = l[0]
		golden.Check(t, fmt.Sprintf("testdata/exponential-%d.json", i), r.answer(t))
	}
	if schemas[1] >= schemas[0] || schemas[1] < 0 {
		t.Errorf("schemas %v: the resolution was to fall, but not below powers of two", schemas)
	}
	if diff := cmp.Diff(exponentialLook(), got); diff != "" {
		t.Errorf("look (-want +got):\n%s", diff)
	}
}
