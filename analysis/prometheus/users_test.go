// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/analysis"
)

func TestSubstitute(t *testing.T) {
	args := map[string]string{"service": "{{.Namespace}}", "code": "5.."}
	for expression, want := range map[string]string{
		`x{s="{{.Args.service}}",c=~"{{ .Args.code }}"}`: `x{s="{{.Namespace}}",c=~"5.."}`,
		`x{r="{{.Revision}}"}`:                           `x{r="{{.Revision}}"}`,
		`x{s="{{.Args.other}}"}`:                         `error: unknown argument "other"`,
	} {
		got, err := Substitute(expression, args)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%s became %s, want %s", expression, got, want)
		}
	}
	if NamesRevision("x{{.StableRevision}}") || !NamesRevision(`x{r="{{ .Revision }}"}`) {
		t.Error("which queries name the revision is seen wrongly")
	}
}

// A metric with an interval is asked for when it is due, and when a weight or a step is new; its value is not repeated in between.
func TestMetricsThatAreDue(t *testing.T) {
	asked := 0
	c := fake(t, Config{}, func(w http.ResponseWriter, query string) {
		if isCounters(query) {
			vector(w, "", webCounter("1"))
			return
		}
		asked++
		vector(w, "", map[string]string{"value": "7"})
	})
	target := shop(Query{Name: "m", Expression: "m", Interval: 15 * time.Second})
	var got []string
	for i := range 10 {
		switch i {
		case 7:
			target.Weight += 15
		case 8:
			target.Step++
		}
		l, err := c.Looks(t.Context(), start.Add(time.Duration(i)*5*time.Second-time.Duration(i)*time.Millisecond), []Target{target})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(l[0].Metrics[0].Value, l[0].Metrics[0].NotDue))
	}
	if d := cmp.Diff("7 false,0 true,0 true,7 false,0 true,0 true,7 false,7 false,7 false,0 true", strings.Join(got, ",")); d != "" || asked != 5 {
		t.Errorf("asked %d times (-want +got):\n%s", asked, d)
	}
}

// A rate's answers count all together or not at all, and what was not counted is not lost.
func TestARateThatIsMissing(t *testing.T) {
	value, fail := 0, ""
	c := fake(t, Config{}, func(w http.ResponseWriter, query string) {
		switch {
		case isCounters(query):
			vector(w, "", webCounter("1"))
		case query == fail:
			http.Error(w, `{"status":"error","errorType":"execution","error":"too many samples"}`, http.StatusUnprocessableEntity)
		case strings.HasPrefix(query, "nothing"), query == "gone old":
			vector(w, "")
		case strings.HasPrefix(query, "nan"):
			vector(w, "", map[string]string{"pod": query, "value": "NaN"})
		case query == "scalar new":
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"scalar","result":[1000,"7"]}}`)
		case strings.HasPrefix(query, "failed"):
			vector(w, "", map[string]string{"pod": query, "value": fmt.Sprint(value)})
		case strings.HasPrefix(query, "succeeded"):
			vector(w, "", map[string]string{"pod": strings.Replace(query, "succeeded", "failed", 1), "value": fmt.Sprint(9 * value)})
		default:
			vector(w, "", map[string]string{"pod": strings.Replace(query, "all", "failed", 1), "value": fmt.Sprint(10 * value)})
		}
	})
	now := start
	look := func(q Query) analysis.MetricValue {
		now = now.Add(5 * time.Second)
		value++
		l, err := c.Looks(t.Context(), now, []Target{shop(q)})
		if err != nil {
			t.Fatal(err)
		}
		return l[0].Metrics[0]
	}
	q := Query{Name: "m", Expression: "failed {{.Revision}}", Denominator: "all {{.Revision}}"}
	counted := func(candidate, stable analysis.Counts) analysis.MetricValue {
		v := analysis.MetricValue{Name: "m", CandidateCounts: map[string]analysis.Counts{}, StableCounts: map[string]analysis.Counts{}}
		if candidate.Requests > 0 {
			v.CandidateCounts["failed new"], v.StableCounts["failed old"] = candidate, stable
		}
		return v
	}
	check := func(what string, q Query, want analysis.MetricValue) {
		t.Helper()
		if d := cmp.Diff(want, look(q)); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	check("at first nothing is known", q, analysis.MetricValue{Name: "m", NotDue: true, Answered: true})
	check("then it is counted", q, counted(analysis.Counts{Requests: 10, Errors: 1}, analysis.Counts{Requests: 10, Errors: 1}))
	fail = "all old"
	check("one of four is missing", q, analysis.MetricValue{Name: "m", Err: "stable's denominator: execution: too many samples"})
	fail = ""
	check("the gap is covered", q, counted(analysis.Counts{Requests: 20, Errors: 2}, analysis.Counts{Requests: 20, Errors: 2}))
	inverted := q
	inverted.Name, inverted.Expression, inverted.HigherIsBetter = "inverted", "succeeded {{.Revision}}", true
	named := func(v analysis.MetricValue) analysis.MetricValue {
		v.Name = "inverted"
		return v
	}
	check("another rate begins anew", inverted, analysis.MetricValue{Name: "inverted", NotDue: true, Answered: true})
	notYet := analysis.MetricValue{Name: "inverted", Phi: 1, NotDue: true, Answered: true}
	check("where more is better, nothing is told before it is known whether successes come late", inverted, notYet)
	for range 22 {
		look(inverted)
	}
	withheld := named(counted(analysis.Counts{Requests: 150, Errors: 15}, analysis.Counts{Requests: 150, Errors: 15}))
	withheld.Phi = 1
	check("which is withheld, but for what was counted soon after the candidate had a weight", inverted, withheld)
	next := named(counted(analysis.Counts{Requests: 10, Errors: 1}, analysis.Counts{Requests: 10, Errors: 1}))
	next.Phi = 1
	check("and what a look counts is told at the next", inverted, next)
	check("a number is no counter", Query{Name: "m", Expression: "scalar {{.Revision}}", Denominator: "all {{.Revision}}"},
		analysis.MetricValue{Name: "m", Err: "the candidate's numerator: the result is not a list of counters, but a scalar"})
	check("a denominator that selects nothing", Query{Name: "m", Expression: "failed {{.Revision}}", Denominator: "nothing {{.Revision}}"},
		analysis.MetricValue{Name: "m", Err: "the candidate's denominator: the result is empty"})
	check("one that selects nothing of stable", Query{Name: "m", Expression: "failed {{.Revision}}", Denominator: "gone {{.Revision}}"},
		analysis.MetricValue{Name: "m", Err: "stable's denominator: the result is empty"})
	check("one that is not a number", Query{Name: "m", Expression: "failed {{.Revision}}", Denominator: "nan {{.Revision}}"},
		analysis.MetricValue{Name: "m", Err: "the candidate's denominator: " + ErrNaN.Error()})
	check("of events there may be none", Query{Name: "none", Expression: "nothing {{.Revision}}", Denominator: "all {{.Revision}}"},
		analysis.MetricValue{Name: "none", NotDue: true, Answered: true})
	check("what can't be asked", Query{Name: "m", Unusable: "there is no template"}, analysis.MetricValue{Name: "m", Err: "there is no template"})
}

// Where a rate that is asked for seldom misses one answer, the next covers the gap. After two nobody knows any more what was
// counted, and that is no value.
func TestARateThatIsAskedForSeldom(t *testing.T) {
	value, fail := 0, false
	c := fake(t, Config{}, func(w http.ResponseWriter, query string) {
		switch {
		case isCounters(query):
			vector(w, "", webCounter("1"))
		case fail:
			http.Error(w, `{"status":"error","errorType":"execution","error":"too many samples"}`, http.StatusUnprocessableEntity)
		default:
			vector(w, "", map[string]string{"pod": "a", "value": fmt.Sprint(value)})
		}
	})
	q := Query{Name: "m", Expression: "failed {{.Revision}}", Denominator: "all {{.Revision}}", Interval: 4 * time.Minute}
	var got []string
	for i := range 8 * 48 { // 8 intervals
		now := start.Add(time.Duration(i) * 5 * time.Second)
		fail = i == 2*48 || i == 4*48 || i == 5*48
		value = 10 * (i/48 + 1)
		l, err := c.Looks(t.Context(), now, []Target{shop(q)})
		if err != nil {
			t.Fatal(err)
		}
		if v := l[0].Metrics[0]; i%48 == 0 {
			got = append(got, fmt.Sprint(v.NotDue, v.CandidateCounts["a"].Requests, v.StableCounts["a"].Requests, v.Err != ""))
		} else if !v.NotDue {
			t.Errorf("look %d: it was asked for before its time: %+v", i, v)
		}
	}
	want := []string{
		"true 0 0 false", "false 10 10 false", "false 0 0 true", "false 20 20 false",
		"false 0 0 true", "false 0 0 true", "true 0 0 false", "false 10 10 false",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("every 4 minutes (-want +got):\n%s", d)
	}
}

// The three kinds of users' metrics at a real Prometheus.
func TestRealPrometheusUsersMetrics(t *testing.T) {
	t.Parallel()
	e := newExporter(t, "web-old-a", "web-old-b", "web-new-c")
	s := newServer(t, e)
	client, err := New(Config{URL: "http://" + s.address})
	if err != nil {
		t.Fatal(err)
	}
	const pods = `{namespace="{{.Namespace}}",pod=~"{{.Workload}}-{{.Revision}}-.*"}`
	target := Target{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old", Created: map[string]time.Time{}, Metrics: []Query{
		{Name: "queue", Expression: "max(queue_length" + pods + ")", Compared: true},
		{Name: "alone", Expression: "absent_metric" + pods, Compared: true},
		{Name: "orders", Expression: "sum by (pod) (orders_failed_total" + pods + ")", Denominator: "orders_total" + pods},
	}}
	now := start
	look := func() []analysis.MetricValue {
		t.Helper()
		now = now.Add(lookAfter)
		l, err := client.Looks(t.Context(), now, []Target{target})
		if err != nil {
			t.Fatal(err)
		}
		return l[0].Metrics
	}
	show := func(pod string, orders, failed, queue int) {
		t.Helper()
		e.show(t, map[string]map[string]string{pod: {
			`orders_total{kind="a"}`: fmt.Sprint(orders - orders/2), `orders_total{kind="b"}`: fmt.Sprint(orders / 2),
			`orders_failed_total`: fmt.Sprint(failed), `queue_length`: fmt.Sprint(queue),
		}})
	}
	show("web-old-a", 1000, 10, 4)
	show("web-old-b", 2000, 20, 8)
	show("web-new-c", 100, 1, 12)
	for range 3 { // so that it is known what counters were for long
		look()
	}
	show("web-old-a", 1100, 11, 4)
	show("web-old-b", 70, 1, 9) // was restarted
	show("web-new-c", 130, 31, 13)
	want := []analysis.MetricValue{
		{Name: "queue", Value: 13, Stable: 9},
		{Name: "alone", Err: ErrEmpty.Error()},
		{
			Name: "orders", CandidateCounts: map[string]analysis.Counts{"web-new-c": {Requests: 30, Errors: 30}},
			StableCounts: map[string]analysis.Counts{"web-old-a": {Requests: 100, Errors: 1}, "web-old-b": {Requests: 70, Errors: 1}},
		},
	}
	if d := cmp.Diff(want, look()); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
}

// What a rate's counters may do that a sidecar's never do.
func TestARateOfSums(t *testing.T) {
	var failed, all, extra string
	c := fake(t, Config{}, func(w http.ResponseWriter, query string) {
		switch {
		case isCounters(query):
			vector(w, "", webCounter("1"))
		case strings.HasPrefix(query, "failed"):
			vector(w, extra, map[string]string{"value": failed})
		default:
			vector(w, extra, map[string]string{"value": all})
		}
	})
	q := Query{Name: "m", Expression: "failed {{.Revision}}", Denominator: "all {{.Revision}}"}
	now := start
	look := func() analysis.MetricValue {
		now = now.Add(5 * time.Second)
		l, err := c.Looks(t.Context(), now, []Target{shop(q)})
		if err != nil {
			t.Fatal(err)
		}
		return l[0].Metrics[0]
	}
	counted := func(n analysis.Counts) (out map[string]analysis.Counts) {
		out = map[string]analysis.Counts{}
		if n.Requests > 0 {
			out[""] = n
		}
		return out
	}
	for _, tc := range []struct {
		what               string
		failed, all, extra string
		first              bool
		want               analysis.Counts
		err                string
	}{
		{what: "at first nothing is known", failed: "50", all: "10000", first: true},
		{what: "sums are counted like counters", failed: "51", all: "10100", want: analysis.Counts{Requests: 100, Errors: 1}},
		{what: "a pod went and took its part of both", failed: "40", all: "8000"},
		{what: "it goes on from there", failed: "42", all: "8010", want: analysis.Counts{Requests: 10, Errors: 2}},
		{what: "half of an answer", failed: "2", all: "10", extra: `,"warnings":["one store did not answer"]`, err: "the candidate's numerator: partial answer: one store did not answer"},
		{what: "and the whole again", failed: "43", all: "8030", want: analysis.Counts{Requests: 20, Errors: 1}},
	} {
		failed, all, extra = tc.failed, tc.all, tc.extra
		want := analysis.MetricValue{Name: "m", Err: tc.err, NotDue: tc.first, Answered: tc.first}
		if tc.err == "" && !tc.first {
			want.CandidateCounts, want.StableCounts = counted(tc.want), counted(tc.want)
		}
		if d := cmp.Diff(want, look()); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.what, d)
		}
	}
}

// A number of a part of the stores is nobody's number.
func TestANumberOfAPartOfTheStores(t *testing.T) {
	c := fake(t, Config{}, func(w http.ResponseWriter, query string) {
		if isCounters(query) {
			vector(w, "", webCounter("1"))
			return
		}
		vector(w, `,"warnings":["one store did not answer"]`, map[string]string{"value": "5"})
	})
	l, err := c.Looks(t.Context(), start, []Target{shop(Query{Name: "queue", Expression: "queue"})})
	if err != nil {
		t.Fatal(err)
	}
	want := []analysis.MetricValue{{Name: "queue", Err: "partial answer: one store did not answer"}}
	if d := cmp.Diff(want, l[0].Metrics); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
}

// What gives no number whatever it is asked about is found before anything depends on it.
func TestCheckFindsWhatGivesNoNumber(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		query  Query
		says   string
	}{
		"values over time": {`"matrix","result":[]`, Query{Expression: "up"}, "a range vector"},
		"a number":         {`"scalar","result":[0,"1"]`, Query{Expression: "up"}, ""},
		"nothing yet":      {`"vector","result":[]`, Query{Expression: "up"}, ""},
		"no counters yet":  {`"vector","result":[]`, Query{Expression: "a", Denominator: "b"}, ""},
		"a rate of ranges": {`"matrix","result":[]`, Query{Expression: "a", Denominator: "b"}, "its numerator: bad query: it gives values over time"},
		"of one number":    {`"scalar","result":[0,"1"]`, Query{Expression: "a", Denominator: "b"}, "its numerator: bad query: it gives one number (a scalar)"},
		"by one number":    {`"scalar","result":[0,"1"]`, Query{Expression: "good", Denominator: "b"}, "its denominator: bad query: it gives one number (a scalar)"},
	} {
		t.Run(name, func(t *testing.T) {
			c := fake(t, Config{}, func(w http.ResponseWriter, query string) {
				answer := tc.answer
				if query == "good" {
					answer = `"vector","result":[]`
				}
				fmt.Fprintf(w, `{"status":"success","data":{"resultType":%s}}`, answer)
			})
			err := c.Check(t.Context(), tc.query)
			if errors.Is(err, ErrBadQuery) != (tc.says != "") || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("Check = %v, want %q", err, tc.says)
			}
		})
	}
}

// What a user's query is compared with or divided by is asked for at the same moment, however long the answers take: with a scrape
// between the two, all of its requests would seem to have failed.
func TestUsersMetricsAreOfOneMoment(t *testing.T) {
	clock := 1000
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clock++ // a scrape for each query
		at := r.FormValue("time")
		if at == "" {
			at = strconv.Itoa(clock)
		}
		if query := r.FormValue("query"); isCounters(query) {
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"hg_namespace":"shop","hg_workload":"web"},"value":[%s,%q]}]}}`, at, at)
		} else {
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"pod":%q},"value":[%s,%q]}]}}`, query[len(query)-1:], at, at)
		}
	}))
	t.Cleanup(server.Close)
	c, err := New(Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	target := shop(Query{Name: "succeeded", Expression: "good {{.Revision}}", Denominator: "all {{.Revision}}", HigherIsBetter: true},
		Query{Name: "age", Expression: "age {{.Revision}}", Compared: true})
	for i := range 28 { // of traffic that is always the same nothing is told for two minutes
		l, err := c.Looks(t.Context(), start.Add(time.Duration(i)*5*time.Second), []Target{target})
		if err != nil {
			t.Fatal(err)
		}
		rate, age := l[0].Metrics[0], l[0].Metrics[1]
		if i >= 25 && (rate.CandidateCounts["w"].Requests == 0 || rate.CandidateCounts["w"].Errors != 0 || rate.StableCounts["d"].Errors != 0) {
			t.Errorf("look %d: %+v of the candidate's and %+v of stable's; want none that failed", i, rate.CandidateCounts, rate.StableCounts)
		}
		if age.Value != age.Stable {
			t.Errorf("look %d: the candidate's value is of second %g, stable's of second %g", i, age.Value, age.Stable)
		}
	}
}
