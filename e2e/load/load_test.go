// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPaceKeepsTheRate(t *testing.T) {
	tests := map[string]struct {
		rate   float64
		length time.Duration
		stall  time.Duration // how long the third request holds the pacer up
		want   int
	}{
		"at 10 a second, 2 s give 20":                        {rate: 10, length: 2*time.Second - time.Millisecond, want: 20},
		"at 0.5 a second, 5 s give 3":                        {rate: 0.5, length: 5 * time.Second, want: 3},
		"what was held up is sent at once, none is left out": {rate: 10, length: 2*time.Second - time.Millisecond, stall: time.Second, want: 20},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), tc.length)
				defer cancel()
				var dues []time.Duration
				pace(ctx, tc.rate, func() bool { return true }, func(at time.Time) {
					dues = append(dues, at.Sub(start))
					if len(dues) == 3 {
						time.Sleep(tc.stall) // in the bubble's time
					}
				})
				if len(dues) != tc.want {
					t.Errorf("%d requests were due, want %d: %v", len(dues), tc.want, dues)
				}
				for i, at := range dues {
					if want := due(int64(i), tc.rate); at != want {
						t.Errorf("request %d was due at %v, want %v", i, at, want)
					}
				}
			})
		})
	}
}

func TestPaceEndsWhenNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, fired := 7, 0
		pace(t.Context(), 100, func() bool { left--; return left >= 0 }, func(time.Time) { fired++ })
		if fired != 7 {
			t.Errorf("fired %d, want 7", fired)
		}
	})
}

func TestRates(t *testing.T) {
	tests := map[string]struct {
		in      string
		want    map[Kind]float64
		wantErr string
	}{
		"one kind":            {in: "http1=50", want: map[Kind]float64{KindHTTP1: 50}},
		"several, with space": {in: "grpc=2.5, slow=1", want: map[Kind]float64{KindGRPC: 2.5, KindSlow: 1}},
		"no rate":             {in: "http1", wantErr: "want kind=rate"},
		"no number":           {in: "http1=many", wantErr: "parsing the rate of \"http1\""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseRates(tc.in)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			again, err := ParseRates(FormatRates(got))
			if diff := cmp.Diff(got, again); diff != "" || err != nil {
				t.Errorf("formatting and parsing again: %v %s", err, diff)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	good := Config{Host: "web", Rates: map[Kind]float64{KindHTTP1: 1}, Duration: time.Second, Timeout: time.Second}
	tests := map[string]struct {
		change func(*Config)
		want   string // part of the error; empty: none
	}{
		"a good one":            {change: func(*Config) {}},
		"no host":               {change: func(c *Config) { c.Host = "" }, want: "host"},
		"unbounded duration":    {change: func(c *Config) { c.Duration = 0 }, want: "duration"},
		"an unknown kind":       {change: func(c *Config) { c.Rates = map[Kind]float64{"udp": 1} }, want: "udp"},
		"nothing to send":       {change: func(c *Config) { c.Rates = nil }, want: "rates"},
		"a flood":               {change: func(c *Config) { c.Rates = map[Kind]float64{KindNew: 1e6} }, want: "rates"},
		"a negative rate":       {change: func(c *Config) { c.Rates = map[Kind]float64{KindNew: -1} }, want: "rate of new"},
		"requests never expire": {change: func(c *Config) { c.Timeout = 0 }, want: "timeout"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := good
			tc.change(&c)
			err := c.Validate()
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestHistogramQuantiles(t *testing.T) {
	var h histogram
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.9: 900 * time.Millisecond, 0.99: 990 * time.Millisecond, 1: time.Second} {
		got := h.quantile(q)
		if got < want || float64(got) > float64(want)*growth {
			t.Errorf("quantile %v is %v, want %v and at most 5 %% above", q, got, want)
		}
	}
	if got := (&histogram{}).quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing is %v, want 0", got)
	}
	for d := time.Microsecond; d < time.Hour; d = d*3 + 7 {
		if b := bound(bucket(d)); b < d {
			t.Errorf("%v is above the bound %v of its bucket", d, b)
		}
	}
}

func TestRecorder(t *testing.T) {
	start := time.Unix(1000, 0)
	r := NewRecorder(start)
	for _, o := range []Outcome{
		{Kind: KindHTTP1, Version: "v1", Latency: time.Millisecond},
		{Kind: KindHTTP1, Version: "v2", Class: "status-500", Latency: 3 * time.Millisecond},
		{Kind: KindGRPC, Class: ClassConnect, Latency: 2 * time.Millisecond, Detail: "refused"},
	} {
		r.Sent(o.Kind)
		r.Done(o, start.Add(time.Second))
	}
	r.Sent(KindSlow)
	first := r.Report(start.Add(2*time.Second), false)
	want := Counts{
		Sent: 4, OK: 1, Failed: 2,
		Classes:  map[string]int64{"status-500": 1, ClassConnect: 1},
		Versions: map[string]Tally{"v1": {OK: 1}, "v2": {Failed: 1}, "": {Failed: 1}},
	}
	if diff := cmp.Diff(want, first.Counts); diff != "" {
		t.Error(diff)
	}
	if first.InFlight != 1 || len(first.Samples) != 2 || first.Seconds != 2 {
		t.Errorf("in flight %d, samples %q, seconds %v; want 1, two, 2", first.InFlight, first.Samples, first.Seconds)
	}

	r.Done(Outcome{Kind: KindSlow, Version: "v1"}, start.Add(3*time.Second))
	second := r.Report(start.Add(3*time.Second), true)
	wantDelta := Counts{OK: 1, Classes: map[string]int64{}, Versions: map[string]Tally{"v1": {OK: 1}}}
	if diff := cmp.Diff(wantDelta, second.Counts.Minus(first.Counts)); diff != "" {
		t.Errorf("what came later: %s", diff)
	}
	if diff := cmp.Diff(want, first.Counts); diff != "" {
		t.Errorf("a report changed after it was made: %s", diff)
	}
}

func TestClassOfError(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("sending: %w", err) }
	tests := map[string]struct {
		err  error
		want string
	}{
		"deadline":       {wrap(context.DeadlineExceeded), ClassTimeout},
		"refused":        {wrap(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), ClassConnect},
		"reset":          {wrap(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), ClassReset},
		"closed early":   {wrap(io.EOF), ClassEOF},
		"something else": {errors.New("odd"), ClassTransport},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := classOfError(tc.err); got != tc.want {
				t.Errorf("class %q, want %q", got, tc.want)
			}
		})
	}
}

func TestReadStream(t *testing.T) {
	if err := readStream(strings.NewReader("v1 a\nv1 b\nend\n")); err != nil {
		t.Errorf("a complete stream: %v", err)
	}
	if err := readStream(strings.NewReader("v1 a\nv1 b\n")); err == nil {
		t.Error("a stream without its end passed")
	}
}

func TestAwaitListening(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	targets := &Targets{addrs: []string{"127.0.0.1"}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	targets.AwaitListening(ctx, port)
	if ctx.Err() != nil {
		t.Error("a port that accepts was not seen to")
	}
	_ = l.Close()
	gone, cancelGone := context.WithCancel(ctx)
	cancelGone()
	targets.AwaitListening(gone, port)
	if listening(ctx, hostPort("127.0.0.1", port)) {
		t.Error("a closed port accepts")
	}
}
