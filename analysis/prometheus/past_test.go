// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/analysis"
)

// stream is a series of an answer to a range query: labels, then seconds and value by turns.
func stream(labels string, values ...string) string {
	var points []string
	for i := 0; i < len(values); i += 2 {
		points = append(points, fmt.Sprintf(`[%s,%q]`, values[i], values[i+1]))
	}
	return fmt.Sprintf(`{"metric":{%s},"values":[%s]}`, labels, strings.Join(points, ","))
}

// ranging is the client of a server that answers range queries.
func ranging(t *testing.T, answer func(*http.Request) string) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/query_range") {
			t.Errorf("asked for %s", r.URL.Path)
		}
		fmt.Fprint(w, answer(r))
	}))
	t.Cleanup(server.Close)
	c, err := New(Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPastIsLookAfterLook(t *testing.T) {
	const labels = `"hg_namespace":"shop","namespace":"shop","hg_workload":"web","hg_port":"8080","hg_hop":"local","hg_revision":"old","envoy_response_code_class":`
	counter := func(pod, class string) string {
		return fmt.Sprintf(`"__name__":%q,"pod":%q,%s%q`, requestsName, pod, labels, class)
	}
	var asked [3]string
	c := ranging(t, func(r *http.Request) string {
		asked = [3]string{r.FormValue("start"), r.FormValue("end"), r.FormValue("step")}
		return `{"status":"success","data":{"resultType":"matrix","result":[` + strings.Join([]string{
			stream(counter("a", "2"), "1000", "10", "1060", "70", "1120", "5", "1180", "6"), // restarts after 1060
			stream(counter("a", "5"), "1060", "2", "1120", "0"),
			stream(counter("b", "2"), "1060", "100", "1180", "130"), // missed a scrape
			// The candidate's own pods, of which there is a second later, and what stable's sidecars count of their requests.
			stream(strings.Replace(counter("c", "2"), `"old"`, `"new"`, 1), "1060", "0", "1120", "0", "1180", "0"),
			stream(strings.Replace(counter("c", "4"), `"old"`, `"new"`, 1), "1060", "0", "1120", "0", "1180", "0"),
			stream(strings.Replace(counter("d", "2"), `"old"`, `"new"`, 1), "1120", "0", "1180", "0"),
			stream(strings.NewReplacer(`"old"`, `"new"`, `"local"`, `"peer"`).Replace(counter("a", "2")), "1060", "0", "1120", "0", "1180", "0"),
			stream(`"hg_namespace":"shop","hg_workload":"web"`, "1000", "999", "1060", "1059", "1120", "1119", "1180", "1090"),
		}, ",") + "]}}"
	})
	target := shop()
	got, err := c.Past(t.Context(), target, Span{From: time.Unix(1000, 5e8), To: time.Unix(1185, 0), Every: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([3]string{"1000", "1180", "60"}, asked); diff != "" {
		t.Errorf("start, end and step (-want +got):\n%s", diff)
	}
	none := map[string]analysis.Counts{}
	look := func(second int64, why string, pods int, stable map[string]analysis.Counts) analysis.Look {
		l := analysis.Look{Time: time.Unix(second, 0), Weight: 10, Missing: why != "", Reason: why, Candidate: none, Stable: stable, CandidatePods: pods}
		if !l.Missing {
			l.Age = time.Second
		}
		return l
	}
	want := []analysis.Look{
		look(1000, "first look at these counters", 0, none),
		look(1060, "", 1, map[string]analysis.Counts{"a": {Requests: 62, Errors: 2}}),
		look(1120, "", 2, map[string]analysis.Counts{"a": {Requests: 5}}),
		look(1180, "not scraped for 90 s", 2, map[string]analysis.Counts{"a": {Requests: 1}, "b": {Requests: 30}}),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("looks (-want +got):\n%s", diff)
	}
}

func TestAPastThatCannotBeHadIsAnError(t *testing.T) {
	span := Span{From: start, To: start.Add(time.Hour), Every: time.Minute}
	for name, tc := range map[string]struct{ extra, result, want string }{
		"a part of it": {`,"warnings":["a store is away"]`, `"matrix","result":[]`, "partial answer: a store is away"},
		"no matrix":    {"", `"vector","result":[]`, "answer is a vector"},
	} {
		c := ranging(t, func(*http.Request) string {
			return fmt.Sprintf(`{"status":"success"%s,"data":{"resultType":%s}}`, tc.extra, tc.result)
		})
		if got, err := c.Past(t.Context(), shop(), span); err == nil || !strings.Contains(err.Error(), tc.want) || got != nil {
			t.Errorf("%s: %v, %v; want an error with %q", name, got, err, tc.want)
		}
	}
	c := ranging(t, func(*http.Request) string { t.Error("asked for one moment"); return "" })
	if got, err := c.Past(t.Context(), shop(), Span{From: start, To: start.Add(30 * time.Second), Every: time.Minute}); got != nil || err != nil {
		t.Errorf("one moment has nothing before it: %v, %v", got, err)
	}
}

// A rollout may have taken days, of which one query would be refused. What was counted between two queries is not lost.
func TestALongPastIsAskedForInParts(t *testing.T) {
	const moments = 2*maxMoments + 1
	queries := 0
	c := ranging(t, func(r *http.Request) string {
		queries++
		from, _ := strconv.Atoi(r.FormValue("start"))
		to, _ := strconv.Atoi(r.FormValue("end"))
		if r.FormValue("step") != "5" || (to-from)/5 >= maxMoments {
			t.Errorf("asked from %d to %d, every %s s", from, to, r.FormValue("step"))
		}
		var values []string
		for at := from; at <= to; at += 5 {
			values = append(values, strconv.Itoa(at), strconv.Itoa(at))
		}
		labels := `"__name__":"` + requestsName + `","pod":"a","hg_namespace":"shop","namespace":"shop","hg_workload":"web","hg_port":"8080","hg_hop":"local","hg_revision":"old","envoy_response_code_class":"2"`
		return `{"status":"success","data":{"resultType":"matrix","result":[` + stream(labels, values...) + "]}}"
	})
	got, err := c.Past(t.Context(), shop(), Span{From: time.Unix(1000, 0), To: time.Unix(1000+5*(moments-1), 0), Every: 5 * time.Second})
	if err != nil || len(got) != moments || queries != 3 {
		t.Fatalf("%d looks by %d queries, %v; want %d by 3", len(got), queries, err, moments)
	}
	for i, look := range got {
		if want := min(5*uint64(i), 5); look.Stable["a"].Requests != want {
			t.Errorf("look %d has %d requests, want %d", i, look.Stable["a"].Requests, want)
		}
	}
}

// What is larger than the share of several answers at once may still be as large as one.
func TestALargePast(t *testing.T) {
	queries := 0
	c := ranging(t, func(*http.Request) string {
		queries++
		return `{"status":"success","data":{"resultType":"matrix","result":[` + stream(`"pod":"`+strings.Repeat("a", 1000)+`"`, "1000", "1") + "]}}"
	})
	for limit, fits := range map[int64]bool{2000: true, 900: false} {
		large, err := New(Config{URL: c.config.URL, MaxCounters: limit})
		if err != nil {
			t.Fatal(err)
		}
		queries = 0
		if _, err := large.Past(t.Context(), shop(), Span{From: start, To: start.Add(time.Minute), Every: time.Minute}); (err == nil) != fits || queries != 2 {
			t.Errorf("where %d bytes are allowed: %v after %d queries", limit, err, queries)
		}
	}
}

func TestAPastOfNativeHistograms(t *testing.T) {
	histogram := func(second, fast, slow int) string {
		return fmt.Sprintf(`[%d,{"count":"%d","sum":"1","buckets":[[0,"0","10","%d"],[0,"100","200","%d"]]}]`, second, fast+slow, fast, slow)
	}
	c := ranging(t, func(*http.Request) string {
		return fmt.Sprintf(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":%q,%s},"histograms":[%s]}]}}`,
			nativeName, `"pod":"a","hg_namespace":"shop","namespace":"shop","hg_workload":"web","hg_port":"8080","hg_hop":"local","hg_revision":"old"`,
			histogram(1000, 100, 7)+","+histogram(1060, 180, 17))
	})
	got, err := c.Past(t.Context(), shop(), Span{From: time.Unix(1000, 0), To: time.Unix(1060, 0), Every: time.Minute})
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	served := got[1].StableServed["a"]
	if at := slices.Index(got[1].Bounds, 0.1); served.Requests != 90 || at < 0 || served.Slower[at] != 10 {
		t.Errorf("%+v by %v, want 10 of 90 over 0.1 s", served, got[1].Bounds)
	}
}
