// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/headgate/headgate/analysis"
)

// One tenant has more series than an answer may have, or such that the query fails.
func TestATenantsCountersCantBlindTheOthers(t *testing.T) {
	many := func(w http.ResponseWriter) {
		e := webCounter("1")
		e["namespace"], e["pod"] = "evil", strings.Repeat("x", 16<<10)
		vector(w, "", e)
	}
	tests := map[string]struct {
		answer func(w http.ResponseWriter) // to every query about evil
		evil   string
	}{
		"more than may be read": {many, "there are more request counters than can be read at once"},
		"more than Prometheus may read": {func(w http.ResponseWriter) {
			http.Error(w, `{"status":"error","errorType":"execution","error":"too many samples"}`, http.StatusUnprocessableEntity)
		}, ReasonNoAnswer},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			value := 0
			c := fake(t, Config{MaxCounters: 16 << 10}, func(w http.ResponseWriter, query string) {
				if strings.Contains(query, "evil") {
					tc.answer(w)
					return
				}
				vector(w, "", webCounter(fmt.Sprint(value)))
			})
			evil := Target{Namespace: "evil", Workload: "web", Candidate: "new", Stable: "old", Step: 2, Weight: 30}
			for i, want := range []struct {
				requests uint64
				reason   string
			}{{0, "first look at these counters"}, {7, ""}} {
				value = 100 + 7*i
				got, err := c.Looks(t.Context(), start.Add(time.Duration(i)*5*time.Second), []Target{evil, shop()})
				if err == nil {
					t.Error("nobody hears of it")
				}
				if l := got[0]; !l.Missing || l.Reason != tc.evil || l.Step != 2 || l.Weight != 30 {
					t.Errorf("look %d at evil: %+v, want missing: %s", i, l, tc.evil)
				}
				if l := got[1]; l.Reason != want.reason || l.Stable["a"].Requests != want.requests {
					t.Errorf("look %d at shop: %+v, want %d requests, %q", i, l, want.requests, want.reason)
				}
			}
		})
	}
}

// Latencies come with the counters also where namespaces are asked one by one, and span what was missing.
func TestLatenciesSurviveAnothersCounters(t *testing.T) {
	value := 0
	c := fake(t, Config{}, func(w http.ResponseWriter, query string) {
		if strings.Contains(query, "evil") {
			http.Error(w, `{"status":"error","errorType":"execution","error":"too many samples"}`, http.StatusUnprocessableEntity)
			return
		}
		within := func(bound string, n int) map[string]string {
			e := webCounter(fmt.Sprint(n))
			delete(e, "envoy_response_code_class")
			e["__name__"], e["le"] = latencyName, bound
			return e
		}
		vector(w, "", webCounter(fmt.Sprint(value)), within("100", value/2), within(all, value))
	})
	for i, evil := range []bool{false, true, true} {
		value = 100 * (i + 1)
		targets := []Target{shop()}
		if evil {
			targets = append(targets, Target{Namespace: "evil", Workload: "web"})
		}
		got, _ := c.Looks(t.Context(), start.Add(time.Duration(i)*5*time.Second), targets)
		var want map[string]analysis.Served
		if i > 0 {
			want = map[string]analysis.Served{"a": {Requests: 100, Slower: []uint64{50}}}
		}
		if diff := cmp.Diff(want, got[0].StableServed, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("look %d: served (-want +got):\n%s", i, diff)
		}
	}
}

// transport is a Prometheus without a network, so that time can stand still.
type transport func(ctx context.Context, w http.ResponseWriter, query string)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	f(r.Context(), w, r.FormValue("query"))
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func TestALookThatNobodyAnswersEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := func(ctx context.Context, _ http.ResponseWriter, _ string) { <-ctx.Done() }
		c, err := New(Config{URL: "http://own", Transport: transport(never)})
		if err != nil {
			t.Fatal(err)
		}
		var targets []Target
		for i := range 40 {
			targets = append(targets, Target{Namespace: fmt.Sprint("n", i), Workload: "web"})
		}
		began := time.Now()
		got, err := c.Looks(t.Context(), start, targets)
		if took := time.Since(began); took != defaultBatchTimeout {
			t.Errorf("the look took %v", took)
		}
		reasons := map[string]int{}
		for _, l := range got {
			reasons[l.Reason]++
		}
		if d := cmp.Diff(map[string]int{ReasonNoAnswer + ": no answer in time": 40}, reasons); d != "" || err == nil {
			t.Errorf("reasons (-want +got), error %v:\n%s", err, d)
		}
	})
}

func TestMetricsAreAskedAfterTheCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := false
		answer := func(_ context.Context, w http.ResponseWriter, query string) {
			if isCounters(query) {
				synctest.Wait() // until a metric that does not wait has been asked
				counted = true
				vector(w, "", webCounter("1"))
				return
			}
			if !counted {
				t.Error("a user's query runs beside the one for everybody's counters")
			}
			vector(w, "", map[string]string{"value": "7"})
		}
		c, err := New(Config{URL: "http://own", Transport: transport(answer)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Looks(t.Context(), start, []Target{shop(Query{Name: "m", Expression: "7"})})
		if err != nil || len(got[0].Metrics) != 1 || got[0].Metrics[0].Value != 7 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// A transport that never ends its answer would take all memory if nothing bounded it.
func TestAnswersHaveALimit(t *testing.T) {
	for name, tc := range map[string]struct {
		config  Config
		size    int
		missing bool
	}{
		"1 MiB from an address that a policy names": {Config{MaxCounters: MaxNamedCounters}, 1 << 20, true},
		"half of it":                                      {Config{MaxCounters: MaxNamedCounters}, 1 << 19, false},
		"1 MiB from the installation's own":               {Config{}, 1 << 20, false},
		"16 MiB from the installation's own, and no more": {Config{}, 16 << 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			tc.config.QueryTimeout, tc.config.BatchTimeout = time.Minute, time.Minute // size alone decides
			c := fake(t, tc.config, func(w http.ResponseWriter, _ string) {
				e := webCounter("1")
				large := maps.Clone(e)
				large["pod"], large["value"] = strings.Repeat("x", tc.size), "1"
				vector(w, "", e, large)
			})
			got, err := c.Looks(t.Context(), start, []Target{shop()})
			if (err != nil) != tc.missing {
				t.Errorf("looks %+v, error %v", got, err)
			}
		})
	}
}

// broken is a way to a Prometheus that never answers.
type broken struct{ why error }

func (b broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, b.why }

func TestWhyThereIsNoAnswer(t *testing.T) {
	dial := func(why error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: why} }
	for name, tc := range map[string]struct {
		err  error
		want string // after ReasonNoAnswer
	}{
		"nobody listens":            {dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), ": connection refused"},
		"the name is unknown":       {dial(&net.DNSError{Err: "no such host", Name: "hunter2", IsNotFound: true}), ": no such host"},
		"the name's server is slow": {dial(&net.DNSError{Err: "i/o timeout", Name: "hunter2", IsTimeout: true}), ": no answer in time"},
		"nobody is there":           {dial(os.NewSyscallError("connect", syscall.ETIMEDOUT)), ": no answer in time"},
		"the time is up":            {context.DeadlineExceeded, ": no answer in time"},
		"something else":            {errors.New("hunter2 went away"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(Config{URL: "http://user:hunter2@own", Transport: broken{tc.err}})
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Looks(t.Context(), start, []Target{shop()})
			if want := ReasonNoAnswer + tc.want; err == nil || !got[0].Missing || got[0].Reason != want {
				t.Errorf("missing %t: %q, %v, want %q", got[0].Missing, got[0].Reason, err, want)
			}
		})
	}
}

// As TestWhyThereIsNoAnswer, by the network itself.
func TestNobodyListens(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	c, err := New(Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	got, err := c.Looks(t.Context(), start, []Target{shop()})
	if want := ReasonNoAnswer + ": connection refused"; err == nil || got[0].Reason != want {
		t.Errorf("%q, %v, want %q", got[0].Reason, err, want)
	}
}
