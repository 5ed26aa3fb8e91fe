// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metrics "github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/analysis"
)

// exposed is what a scrape would see, without help.
func exposed(t *testing.T, c metrics.Collector) map[string]float64 {
	t.Helper()
	r := metrics.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			out[strings.TrimPrefix(f.GetName(), "headgate_rollout_")+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// How often there was no answer can be seen, of Prometheus and of the fast lane, from the first time on.
func TestLooksAreCounted(t *testing.T) {
	l, _ := watching(t, healthy, record())
	l.FastLane = silent{}
	kind := func(source, result string) string {
		return fmt.Sprintf("looks_total{result=%q,source=%q}", result, source)
	}
	want := map[string]float64{kind("prometheus", "ok"): 0, kind("prometheus", "missing"): 0, kind("sidecars", "ok"): 0, kind("sidecars", "missing"): 0}
	if diff := cmp.Diff(want, exposed(t, l)); diff != "" {
		t.Errorf("before the first look (-want +got):\n%s", diff)
	}
	lookFrom(t, l, 5, 3)
	want[kind("prometheus", "ok")], want[kind("sidecars", "missing")] = 3, 3
	got := exposed(t, l)
	maps.DeleteFunc(got, func(name string, _ float64) bool { return !strings.HasPrefix(name, "looks_total") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after three (-want +got):\n%s", diff)
	}
}

// evidence is what is exposed of rollouts.
func evidence(t *testing.T, l *Looks) map[string]float64 {
	t.Helper()
	out := exposed(t, l)
	maps.DeleteFunc(out, func(name string, _ float64) bool { return strings.HasPrefix(name, "looks_total") })
	return out
}

func TestEvidenceIsExposed(t *testing.T) {
	l, _ := watching(t, counters{candidate: analysis.Counts{Requests: 100, Errors: 50}, stable: analysis.Counts{Requests: 900, Errors: 1}}, record())
	if got := evidence(t, l); len(got) != 0 {
		t.Errorf("before the first look: %v", got)
	}
	lookFrom(t, l, 5, 10)
	got := evidence(t, l)
	web := `hg_namespace="` + webKey.Namespace + `",hg_workload="` + webKey.Name + `"`
	if harm := got["harm{"+web+"}"]; harm < 100 {
		t.Errorf("evidence of harm is %v after a Fail", harm)
	}
	delete(got, "harm{"+web+"}")
	delete(got, "acceptance{"+web+"}")
	requests := got["requests{"+web+`,revision="candidate"}`] // a Fail ends the counting
	want := map[string]float64{
		`verdict{cause="ErrorRate",` + web + `,result="Fail"}`: 1,
		"requests{" + web + `,revision="candidate"}`:           requests, "requests{" + web + `,revision="stable"}`: 9 * requests,
		"errors{" + web + `,revision="candidate"}`: requests / 2, "errors{" + web + `,revision="stable"}`: requests / 100,
	}
	if diff := cmp.Diff(want, got); diff != "" || requests < 100 {
		t.Errorf("exposed (-want +got):\n%s", diff)
	}
}

// A rollout that is over does not stay in the metrics.
func TestEvidenceOfARolloutThatIsOverGoes(t *testing.T) {
	l, _ := watching(t, healthy, record())
	lookFrom(t, l, 5, 3)
	l.began(at(5 + 2*5 + 60))
	if got := evidence(t, l); len(got) == 0 {
		t.Error("gone after a minute")
	}
	l.began(at(5 + 2*5 + 61))
	if got := evidence(t, l); len(got) != 0 {
		t.Errorf("still exposed: %v", got)
	}
}
