// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/analysis"
)

// fake answers instant queries with whatever the test returns for them.
func fake(t *testing.T, config Config, answer func(w http.ResponseWriter, query string)) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.FormValue("query") // read to its end, so that the server sees the client go
		answer(waiting{w, r.Context()}, query)
	}))
	t.Cleanup(server.Close)
	config.URL = server.URL
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// waiting is a response whose client may give up.
type waiting struct {
	http.ResponseWriter
	request context.Context
}

// never answers: it holds the client until it has gone.
func never(w http.ResponseWriter) { <-w.(waiting).request.Done() }

// vector writes an answer; elements are label sets with a value.
func vector(w http.ResponseWriter, extra string, elements ...map[string]string) {
	type result struct {
		Metric map[string]string `json:"metric"`
		Value  [2]any            `json:"value"`
	}
	out := []result{}
	for _, e := range elements {
		v := e["value"]
		delete(e, "value")
		out = append(out, result{e, [2]any{1000, v}})
	}
	body, _ := json.Marshal(out)
	fmt.Fprintf(w, `{"status":"success"%s,"data":{"resultType":"vector","result":%s}}`, extra, body)
}

func webCounter(value string) map[string]string {
	return map[string]string{"__name__": requestsName, "hg_namespace": "shop", "hg_workload": "web", "hg_port": "8080", "hg_hop": "local",
		"hg_revision": "old", "envoy_response_code_class": "2", "namespace": "shop", "pod": "a", "value": value}
}

func isCounters(query string) bool { return strings.HasPrefix(query, "{__name__=~") }

func shop(metrics ...Query) Target {
	return Target{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old", Weight: 10, Metrics: metrics}
}

func TestOneQueryForAllWorkloads(t *testing.T) {
	var queries atomic.Int32
	c := fake(t, Config{}, func(w http.ResponseWriter, query string) {
		queries.Add(1)
		// The namespace that the scrape adds can't be forged: without it anybody's series would be read.
		if got := strings.Count(query, `,namespace=~"bank|shop"`); got != strings.Count(query, "{") {
			t.Errorf("query %s has selectors without the scrape's namespace", query)
		}
		for _, part := range []string{`hg_namespace=~"bank|shop"`, `hg_workload=~"api|web\\.v1"`, `hg_hop=~"local|peer|peerconn"`,
			`or envoy_cluster_upstream_rq_time_bucket{le=~"\\+Inf|10(\\.0)?|20(\\.0)?|`, `,hg_hop=~"in|local"`,
			`or (label_replace(envoy_cluster_upstream_rq_time{hg_hop=~"in|local",`} {
			if !strings.Contains(query, part) {
				t.Errorf("query %s does not contain %s", query, part)
			}
		}
		vector(w, "")
	})
	targets := []Target{{Namespace: "shop", Workload: "web.v1"}, {Namespace: "bank", Workload: "api"}, {Namespace: "bank", Workload: "web.v1"}}
	got, err := c.Looks(t.Context(), start, targets)
	if err != nil || len(got) != 3 || queries.Load() != 1 {
		t.Errorf("%d looks, %d queries, error %v; want 3, 1, none", len(got), queries.Load(), err)
	}
	if got, err := c.Looks(t.Context(), start, nil); len(got) != 0 || err != nil || queries.Load() != 1 {
		t.Errorf("no workloads: %v, %v, %d queries", got, err, queries.Load())
	}
}

// Latencies are asked for together with the counters, under the same limits, and only where they are judged.
func TestLatenciesAreCountersToo(t *testing.T) {
	timed := Target{Namespace: "shop", Workload: "web"}
	untimed := Target{Namespace: "bank", Workload: "api", NoLatency: true}
	for name, tc := range map[string]struct {
		targets []Target
		want    string
	}{
		"all are judged":  {[]Target{timed}, `,hg_hop=~"in|local",hg_namespace=~"shop",namespace=~"shop",hg_workload=~"web"}`},
		"one is judged":   {[]Target{timed, untimed}, `,hg_hop=~"in|local",hg_namespace=~"shop",namespace=~"shop",hg_workload=~"web"}`},
		"none are judged": {[]Target{untimed}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, got, _ := strings.Cut(expression(tc.targets), latencyName)
			if asked := got != ""; asked != (tc.want != "") || !strings.Contains(got, tc.want) {
				t.Errorf("after the name of the buckets: %q, want %q", got, tc.want)
			}
		})
	}
}

// Whoever names an address must not read what answers there.
func TestTheBodyOfAnotherServerIsNotShown(t *testing.T) {
	c := fake(t, Config{}, func(w http.ResponseWriter, _ string) { fmt.Fprint(w, "root:topsecret") })
	err := c.Check(t.Context(), Query{Expression: "up"})
	if err == nil || strings.Contains(err.Error(), "topsecret") || strings.Contains(err.Error(), "root") {
		t.Errorf("it says %v", err)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	short := Config{QueryTimeout: time.Second, BatchTimeout: 3 * time.Second}
	tests := map[string]func(w http.ResponseWriter){
		"an error": func(w http.ResponseWriter) {
			http.Error(w, `{"status":"error","errorType":"execution","error":"boom"}`, http.StatusUnprocessableEntity)
		},
		"a broken gateway": func(w http.ResponseWriter) { http.Error(w, "<html>", http.StatusBadGateway) },
		"garbage":          func(w http.ResponseWriter) { fmt.Fprint(w, `{"status":`) },
		"another type": func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}`)
		},
		"null": func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[null]}}`)
		},
		"a partial answer":  func(w http.ResponseWriter) { vector(w, `,"warnings":["store x is down"]`, webCounter("9")) },
		"no answer in time": never,
	}
	for name, broken := range tests {
		t.Run(name, func(t *testing.T) {
			var now atomic.Value // how it answers
			now.Store(func(w http.ResponseWriter) { vector(w, "", webCounter("100")) })
			c := fake(t, short, func(w http.ResponseWriter, _ string) { now.Load().(func(http.ResponseWriter))(w) })
			look := func(i int) (requests uint64, missing bool, err error) {
				l, err := c.Looks(t.Context(), start.Add(time.Duration(i)*5*time.Second), []Target{shop()})
				return l[0].Stable["a"].Requests, l[0].Missing, err
			}
			if _, missing, err := look(1); !missing || err != nil {
				t.Errorf("first look: missing %v, %v; want true, none", missing, err)
			}
			now.Store(broken)
			if _, missing, err := look(2); !missing || err == nil {
				t.Errorf("broken: missing %v, error %v; want true, some", missing, err)
			}
			now.Store(func(w http.ResponseWriter) { vector(w, "", webCounter("160")) })
			if n, missing, err := look(3); n != 60 || missing || err != nil {
				t.Errorf("after it: %d requests, missing %v, %v; want the 60 of both looks", n, missing, err)
			}
		})
	}
}

// The whole way from counters to a verdict.
func TestABadCandidateIsFound(t *testing.T) {
	look := 0
	c := fake(t, Config{}, func(w http.ResponseWriter, _ string) {
		counter := func(hop, revision, class string, perLook int) map[string]string {
			e := webCounter(fmt.Sprint(1000 + perLook*look))
			e["hg_hop"], e["hg_revision"], e["envoy_response_code_class"] = hop, revision, class
			return e
		}
		vector(w, "", counter("local", "old", "2", 900), counter("local", "old", "5", 1), counter("peer", "new", "2", 90), counter("peer", "new", "5", 10))
	})
	var st analysis.State
	var v analysis.Verdict
	for look = range 10 {
		l, err := c.Looks(t.Context(), start.Add(time.Duration(look)*5*time.Second), []Target{shop()})
		if err != nil {
			t.Fatal(err)
		}
		if st, v = analysis.Judge(analysis.Settings{Candidate: "new", Stable: "old"}, st, l[0]); v.Result == analysis.Fail {
			break
		}
	}
	want := "40 of 400 requests to new failed (10 %), 4 of 3,604 to old (0.11 %); chance of that without harm under 1 %"
	if v.Result != analysis.Fail || v.Message != want {
		t.Errorf("got %s %q at look %d, want Fail %q", v.Result, v.Message, look, want)
	}
}

func TestUsersMetrics(t *testing.T) {
	config := Config{QueryTimeout: 2 * time.Second, BatchTimeout: time.Minute}
	c := fake(t, config, func(w http.ResponseWriter, query string) {
		switch {
		case isCounters(query):
			vector(w, "", webCounter("1"))
		case query == "slow":
			never(w)
		case query == "huge":
			fmt.Fprintf(w, `{"status":"success","data":"%s"}`, strings.Repeat("x", maxMetric))
		case query == "null":
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[null]}}`)
		case query == "empty":
			vector(w, "")
		case query == "bad":
			http.Error(w, `{"status":"error","errorType":"bad_data","error":"parse error"}`, http.StatusBadRequest)
		case query == `ok{w="web"}`:
			vector(w, "", map[string]string{"value": "0.25"})
		default:
			t.Errorf("unexpected query %q", query)
		}
	})
	got, err := c.Looks(t.Context(), start, []Target{shop(
		Query{Name: "ok", Expression: `ok{w="{{.Workload}}"}`}, Query{Name: "slow", Expression: "slow"}, Query{Name: "huge", Expression: "huge"}, Query{Name: "null", Expression: "null"},
		Query{Name: "nulls", Expression: "null", Denominator: "null"}, Query{Name: "empty", Expression: "empty"}, Query{Name: "bad", Expression: "bad"}, Query{Name: "typo", Expression: "{{.Typo}}"},
	)})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range got[0].Metrics {
		lines = append(lines, fmt.Sprint(m.Name, " ", m.Value, " ", m.Err))
	}
	want := []string{
		"ok 0.25 ", "slow 0 no answer in time", "huge 0 the answer is too large", "null 0 an element of the result is null",
		"nulls 0 the candidate's numerator: an element of the result is null", "empty 0 the result is empty",
		"bad 0 bad_data: parse error", `typo 0 unknown variable ".Typo"`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestASlowTenantCostsNobodyElse(t *testing.T) {
	config := Config{QueryTimeout: 2 * time.Second, BatchTimeout: 5 * time.Second}
	c := fake(t, config, func(w http.ResponseWriter, query string) {
		switch {
		case isCounters(query):
			vector(w, "", webCounter("1"))
		case query == "slow":
			never(w)
		default:
			vector(w, "", map[string]string{"value": "7"})
		}
	})
	var targets []Target
	for i := range 8 {
		slow := Query{Name: "m", Expression: "slow"}
		targets = append(targets, Target{Namespace: "evil", Workload: fmt.Sprint(i), Metrics: []Query{slow, slow, slow}})
	}
	targets = append(targets, shop(Query{Name: "m", Expression: "7"}))
	got, err := c.Looks(t.Context(), start, targets)
	if m := got[8].Metrics; err != nil || len(m) != 1 || m[0].Value != 7 {
		t.Errorf("the other tenant's metric: %+v, %v", m, err)
	}
}

func TestACancelledLookIsMissing(t *testing.T) {
	c := fake(t, Config{}, func(w http.ResponseWriter, _ string) { vector(w, "", webCounter("1")) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := c.Looks(ctx, start, []Target{shop(Query{Name: "m", Expression: "x"})})
	if err == nil || !got[0].Missing || got[0].Metrics[0].Err == "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAWrongAddressIsAnError(t *testing.T) {
	if _, err := New(Config{URL: "http://[::1"}); err == nil {
		t.Error("no error")
	}
}
