// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/model"

	"github.com/headgate/headgate/analysis"
)

// element is one element of an answer, from text like the exposition format's.
func element(t testing.TB, text string, value float64) *model.Sample {
	t.Helper()
	name, rest, _ := strings.Cut(strings.TrimSuffix(text, "}"), "{")
	m := model.Metric{}
	if name != "" {
		m[model.MetricNameLabel] = model.LabelValue(name)
	}
	for _, pair := range strings.Split(rest, ",") {
		k, v, _ := strings.Cut(pair, "=")
		m[model.LabelName(k)] = model.LabelValue(v)
	}
	return &model.Sample{Metric: m, Value: model.SampleValue(value), Timestamp: model.TimeFromUnix(1000)}
}

const labels = "hg_namespace=shop,hg_workload=web,hg_port=8080,namespace=shop,pod="

func requests(pod, hop, revision, class string) string {
	return requestsName + "{" + labels + pod + ",hg_hop=" + hop + ",hg_revision=" + revision + ",envoy_response_code_class=" + class + "}"
}

func grpc(pod, hop, revision, status string) string {
	return grpcName + "{" + labels + pod + ",hg_hop=" + hop + ",hg_revision=" + revision + ",grpc_status=" + status + "}"
}

func connects(pod, revision string) string {
	return connectName + "{" + labels + pod + ",hg_hop=peerconn,hg_revision=" + revision + "}"
}

func started(pod, hop, revision string) string {
	return startedName + "{" + labels + pod + ",hg_hop=" + hop + ",hg_revision=" + revision + "}"
}

func brokeOff(name, pod, hop, revision string) string {
	return name + "{" + labels + pod + ",hg_hop=" + hop + ",hg_revision=" + revision + "}"
}

func bucket(pod, hop, revision, bound string) string {
	return latencyName + "{" + labels + pod + ",hg_hop=" + hop + ",hg_revision=" + revision + ",le=" + bound + "}"
}

const scraped = "{hg_namespace=shop,hg_workload=web}"

func TestLooks(t *testing.T) {
	type arm = map[string]analysis.Counts
	target := Target{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old", Step: 1, Weight: 25}
	// In every case all series stand at 0 at the look before, and where nothing is missing stable's sidecar has those that it
	// has from its start.
	idle := connectName + "{" + labels + "s,hg_hop=local,hg_revision=old}"
	tests := map[string]struct {
		answer            map[string]float64
		candidate, stable arm
		missing           string
	}{
		"own app and peer": {
			answer:    map[string]float64{requests("a", "local", "old", "2"): 75, requests("a", "peer", "new", "2"): 25, scraped: 999},
			candidate: arm{"a": {Requests: 25}}, stable: arm{"a": {Requests: 75}},
		},
		"a candidate's pod splits too": {
			answer:    map[string]float64{requests("c", "local", "new", "2"): 5, requests("c", "peer", "old", "2"): 15},
			candidate: arm{"c": {Requests: 5}}, stable: arm{"c": {Requests: 15}},
		},
		"classes: only 5xx is an error, 1xx is no answer": {
			answer: map[string]float64{requests("a", "local", "old", "2"): 10, requests("a", "local", "old", "3"): 1, requests("a", "local", "old", "4"): 2,
				requests("a", "local", "old", "5"): 3, requests("a", "local", "old", "1"): 50},
			candidate: arm{}, stable: arm{"a": {Requests: 16, Errors: 3}},
		},
		"what a sidecar answers itself to gRPC is one error, in a class and a status": {
			answer: map[string]float64{requests("a", "local", "old", "2"): 90, requests("a", "local", "old", "5"): 10, grpc("a", "local", "old", "14"): 10,
				requests("a", "peer", "new", "2"): 20, requests("a", "peer", "new", "5"): 3, grpc("a", "peer", "new", "14"): 5, grpc("a", "peer", "new", "13"): 1},
			candidate: arm{"a": {Requests: 23, Errors: 6}}, stable: arm{"a": {Requests: 100, Errors: 10}},
		},
		"answers that break off are errors, once each": {
			answer: map[string]float64{requests("a", "local", "old", "2"): 95, requests("a", "local", "old", "5"): 5, // 3 of them broke off before, 9 after their headers
				brokeOff(resetName, "a", "local", "old"): 2, brokeOff(brokenName, "a", "local", "old"): 6, brokeOff(lostName, "a", "local", "old"): 4,
				requests("a", "peer", "new", "2"): 20, brokeOff(resetName, "a", "peerconn", "new"): 3, brokeOff(brokenName, "a", "peerconn", "new"): 1},
			candidate: arm{"a": {Requests: 20, Errors: 4}}, stable: arm{"a": {Requests: 100, Errors: 12}},
		},
		"connections to a peer that were lost or could not be had, and what arrived from one": {
			answer:    map[string]float64{requests("a", "peer", "new", "2"): 20, brokeOff(lostName, "a", "peerconn", "new"): 7, brokeOff(resetName, "a", "in", "old"): 7},
			candidate: arm{"a": {Requests: 20}}, stable: arm{},
		},
		"hop in would count twice": {
			answer:    map[string]float64{requests("c", "in", "new", "2"): 25, requests("a", "local", "old", "2"): 1},
			candidate: arm{}, stable: arm{"a": {Requests: 1}},
		},
		"gRPC statuses that are the server's fault": {
			answer: map[string]float64{requests("a", "peer", "new", "2"): 100, grpc("a", "peer", "new", "0"): 80, grpc("a", "peer", "new", "5"): 9,
				grpc("a", "peer", "new", "13"): 6, grpc("a", "peer", "new", "14"): 3, grpc("a", "peer", "new", "12"): 1,
				grpc("a", "peer", "new", "99"): 1, grpc("a", "peer", "new", "-1"): 2, grpc("a", "peer", "new", "99999999999999999999"): 3},
			candidate: arm{"a": {Requests: 100, Errors: 16}}, stable: arm{},
		},
		"a peer that can't be reached, answered locally": {
			answer:    map[string]float64{requests("a", "peer", "new", "2"): 10, connects("a", "new"): 4},
			candidate: arm{"a": {Requests: 10, Unreached: 4}}, stable: arm{},
		},
		"requests that reach a peer, and connections of another protocol to the own app": {
			answer: map[string]float64{requests("a", "peer", "new", "2"): 9, started("a", "peer", "new"): 12, started("a", "peerconn", "new"): 10,
				started("c", "local", "new"): 50},
			candidate: arm{"a": {Requests: 9, Started: 10}}, stable: arm{},
		},
		"not more errors than requests": {
			answer:    map[string]float64{requests("a", "peer", "new", "5"): 10, grpc("a", "peer", "new", "13"): 7},
			candidate: arm{"a": {Requests: 10, Errors: 10}}, stable: arm{},
		},
		"another revision is not part of this rollout": {
			answer:    map[string]float64{requests("a", "peer", "older", "5"): 10, requests("a", "local", "old", "2"): 1},
			candidate: arm{}, stable: arm{"a": {Requests: 1}},
		},
		"a stranger that claims to be this workload": {
			answer: map[string]float64{strings.ReplaceAll(requests("x", "local", "new", "5"), ",namespace=shop", ",namespace=evil"): 1000,
				requests("a", "local", "old", "2"): 1},
			candidate: arm{}, stable: arm{"a": {Requests: 1}},
		},
		"nothing": {answer: nil, candidate: arm{}, stable: arm{}, missing: "no sidecar's counters found"},
		"the candidate's alone": {
			answer:    map[string]float64{requests("c", "local", "new", "2"): 5, requests("c", "peer", "old", "2"): 15},
			candidate: arm{"c": {Requests: 5}}, stable: arm{"c": {Requests: 15}},
			missing: "none of stable's sidecars' counters found (a pod without a ReplicaSet is not scraped)",
		},
		"scraped too long ago":    {answer: map[string]float64{requests("a", "local", "old", "2"): 0, scraped: 960}, candidate: arm{}, stable: arm{}, missing: "not scraped for 40 s"},
		"no traffic is not blind": {answer: map[string]float64{connects("a", "new"): 0, scraped: 998}, candidate: arm{}, stable: arm{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var before, now model.Vector
			for text, value := range tc.answer {
				before = append(before, element(t, text, 0))
				now = append(now, element(t, text, value))
			}
			if tc.missing == "" {
				now = append(now, element(t, idle, 0))
			}
			m, _ := memory{}.advance(start, parse(before).samples, about([]Target{target}))
			a := parse(now)
			_, incs := m.advance(start.Add(5*time.Second), a.samples, about([]Target{target}))
			got := looks(start, []Target{target}, a, m, incs, 30*time.Second)
			var age time.Duration
			if last, ok := tc.answer[scraped]; ok && tc.missing == "" {
				age = time.Duration(1000-last) * time.Second
			}
			want := []analysis.Look{{Time: start, Age: age, Step: 1, Weight: 25, Candidate: tc.candidate, Stable: tc.stable, Missing: tc.missing != "", Reason: tc.missing}}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("looks (-want +got):\n%s", diff)
			}
		})
	}
}

// Requests are timed at the pod that answers them, whether they came straight to it or from a peer.
func TestLatencies(t *testing.T) {
	target := Target{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old", Weight: 25}
	values := map[string]float64{requests("a", "local", "old", "2"): 0}
	for bound, counts := range map[string][3]float64{"10": {50, 5, 0}, "100": {70, 9, 1}, "5000": {75, 10, 3}, all: {75, 10, 3}, "7.5": {40, 4, 0}} {
		values[bucket("a", "local", "old", bound)] = counts[0]
		values[bucket("c", "in", "new", bound)] = counts[1]
		values[bucket("c", "local", "new", bound)] = counts[2]
		values[bucket("x", "in", "older", bound)] = 1000
	}
	values[bucket("a", "local", "old", "20")] = 60 // a bound that only one sidecar has
	// A newer Prometheus writes bounds another way.
	values[bucket("a", "local", "old", "200.0")], values[bucket("x", "in", "older", "200")] = 74, 1000
	values[bucket("c", "in", "new", "200.0")], values[bucket("c", "local", "new", "200.0")] = 9, 3
	var before, now model.Vector
	for text, value := range values {
		before = append(before, element(t, text, 0))
		now = append(now, element(t, text, value))
	}
	m, _ := memory{}.advance(start, parse(before).samples, about([]Target{target}))
	a := parse(now)
	_, incs := m.advance(start.Add(5*time.Second), a.samples, about([]Target{target}))
	got := looks(start, []Target{target}, a, m, incs, 30*time.Second)[0]
	at := map[string]int{"10": 0, "100": 1, "200": 2, "5000": 3}
	if diff := cmp.Diff([]float64{0.01, 0.1, 0.2, 5}, got.Bounds); diff != "" {
		t.Fatalf("bounds (-want +got):\n%s", diff)
	}
	check := func(c analysis.Served, total uint64, slower map[string]uint64) {
		t.Helper()
		if c.Requests != total {
			t.Errorf("%d requests, want %d", c.Requests, total)
		}
		for bound, want := range slower {
			if n := c.Slower[at[bound]]; n != want {
				t.Errorf("%d slower than %s ms, want %d", n, bound, want)
			}
		}
	}
	check(got.StableServed["a"], 75, map[string]uint64{"10": 25, "100": 5, "200": 1, "5000": 0})
	check(got.CandidateServed["c"], 13, map[string]uint64{"10": 8, "100": 3, "200": 1, "5000": 0})
	if len(got.StableServed)+len(got.CandidateServed) != 2 {
		t.Errorf("other pods were timed: %v, %v", got.StableServed, got.CandidateServed)
	}
}

func TestAServiceThatWasNeverTimedHasNoLatency(t *testing.T) {
	target := Target{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old"}
	a := parse(model.Vector{element(t, requests("a", "local", "old", "2"), 5)})
	if got := looks(start, []Target{target}, a, memory{}, nil, time.Minute)[0]; got.Bounds != nil {
		t.Errorf("bounds %v", got.Bounds)
	}
}

func TestRender(t *testing.T) {
	target := Target{Namespace: "shop", Workload: "web.v1", Candidate: "7d9f", Stable: "5c4b"}
	tests := map[string]struct{ in, want, err string }{
		"all variables":      {in: `x{ns="{{.Namespace}}",w="{{ .Workload }}",r=~"{{.Revision}}|{{.StableRevision}}"}`, want: `x{ns="shop",w="web.v1",r=~"7d9f|5c4b"}`},
		"no variable":        {in: `sum(up{a="{b}"})`, want: `sum(up{a="{b}"})`},
		"unknown variable":   {in: `{{.Secret}}`, err: `unknown variable ".Secret"`},
		"no template at all": {in: `{{printf "%1000000000d" 1}}`, err: `unknown variable`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Render(tc.in, target)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestNumber(t *testing.T) {
	one := func(v float64) model.Vector { return model.Vector{{Value: model.SampleValue(v)}} }
	nan := (model.SampleValue)(0)
	nan /= nan
	tests := map[string]struct {
		in   model.Value
		want float64
		err  error
	}{
		"scalar":       {in: &model.Scalar{Value: 3}, want: 3},
		"one element":  {in: one(0.5), want: 0.5},
		"empty":        {in: model.Vector{}, err: ErrEmpty},
		"two elements": {in: append(one(1), one(2)...), err: ErrNotOne},
		"NaN":          {in: &model.Scalar{Value: nan}, err: ErrNaN},
		"a string":     {in: &model.String{Value: "3"}, err: ErrNotOne},
		"a matrix":     {in: model.Matrix{}, err: ErrNotOne},
		"nothing":      {in: nil, err: ErrNotOne},
		"a histogram":  {in: model.Vector{{Histogram: &model.SampleHistogram{}}}, err: ErrNotOne},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := number(tc.in)
			if !errors.Is(err, tc.err) || got != tc.want {
				t.Errorf("got %v, %v; want %v, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

// In how many series a sidecar keeps what it counted says nothing: ports, classes of answers, the port's protocol.
func TestOverHowManySeriesCountsAreSplitChangesNothing(t *testing.T) {
	target := Target{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old", Weight: 25}
	one := map[string]float64{
		requests("a", "local", "old", "2"): 60, requests("a", "local", "old", "5"): 6, requests("a", "peer", "new", "2"): 20, requests("a", "peer", "new", "5"): 4,
		requests("b", "local", "old", "2"): 30, requests("b", "peer", "new", "2"): 10,
	}
	many := map[string]float64{}
	for name, n := range one {
		other := strings.Replace(name, "hg_port=8080", "hg_port=9090", 1)
		many[name], many[other] = n/2, n-n/2
		if strings.HasSuffix(name, "class=2}") {
			many[name], many[strings.Replace(name, "class=2}", "class=3}", 1)] = n/2-1, 1
		}
	}
	look := func(values map[string]float64) analysis.Look {
		zero, now := model.Vector{}, model.Vector{}
		for name, n := range values {
			zero, now = append(zero, element(t, name, 0)), append(now, element(t, name, n))
		}
		m, _ := memory{}.look(start, []Target{target}, parse(zero), time.Minute)
		_, out := m.look(start.Add(5*time.Second), []Target{target}, parse(now), time.Minute)
		return out[0]
	}
	if want, got := look(one), look(many); want.Missing || len(many) <= len(one) || !cmp.Equal(want, got) {
		t.Errorf("%d series instead of %d gave another look (-few +many):\n%s", len(many), len(one), cmp.Diff(want, got))
	}
}

// The scrapes of the chart, and of what takes its PodMonitor, leave out what nobody counts by.
func TestTheChartKeepsWhatIsCounted(t *testing.T) {
	template, err := os.ReadFile("../../charts/headgate/templates/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kept := regexp.MustCompile(`(?m)^  regex: (envoy_cluster_.*)$`).FindSubmatch(template)
	if kept == nil {
		t.Fatal("the chart does not say which series are kept")
	}
	keeps := regexp.MustCompile("^(?:" + string(kept[1]) + ")$")
	for _, name := range append([]string{latencyName, nativeName}, countedNames...) {
		if !keeps.MatchString(name + ";local") {
			t.Errorf("%s is not kept", name)
		}
	}
}
