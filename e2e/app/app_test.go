// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/e2e/load"
)

func TestBehaviour(t *testing.T) {
	tests := map[string]struct {
		env     map[string]string
		want    Behaviour
		wantErr string
	}{
		"nothing set": {
			want: Behaviour{Version: "dev", Drain: 5 * time.Second},
		},
		"an image's behaviour": {
			env:  map[string]string{"BEHAVIOUR": "errors"},
			want: Behaviour{Version: "errors", ErrorRate: 0.05, Drain: 5 * time.Second},
		},
		"the pod's environment wins over the image's": {
			env:  map[string]string{"BEHAVIOUR": "errors", "ERROR_RATE": "0.5", "DRAIN": "1s", "POD_NAME": "p", "REVISION": "r"},
			want: Behaviour{Version: "errors", ErrorRate: 0.5, Drain: time.Second, Pod: "p", Revision: "r"},
		},
		"all that goes wrong at the start": {
			env:  map[string]string{"BEHAVIOUR": "crash", "NEVER_READY": "1", "HANG": "true", "DEAF": "true", "READY_DELAY": "3s", "LATENCY": "1ms"},
			want: Behaviour{Version: "crash", CrashAfter: time.Second, NeverReady: true, Hang: true, Deaf: true, ReadyDelay: 3 * time.Second, Latency: time.Millisecond, Drain: 5 * time.Second},
		},
		"unknown":             {env: map[string]string{"BEHAVIOUR": "v0"}, wantErr: "unknown BEHAVIOUR"},
		"a share above 1":     {env: map[string]string{"ERROR_RATE": "5"}, wantErr: "reading ERROR_RATE"},
		"a negative duration": {env: map[string]string{"LATENCY": "-1s"}, wantErr: "reading LATENCY"},
		"an odd flag":         {env: map[string]string{"HANG": "sure"}, wantErr: "reading HANG"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseBehaviour(func(k string) string { return tc.env[k] })
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
		})
	}
}

func TestAnswers(t *testing.T) {
	start := time.Now()
	tests := map[string]struct {
		behaviour Behaviour
		path      string
		wantCode  int
	}{
		"fast":                          {path: "/", wantCode: 200},
		"slow":                          {path: "/slow?d=1ms", wantCode: 200},
		"stream":                        {path: "/stream?d=1ms", wantCode: 200},
		"slow without a duration":       {path: "/slow", wantCode: 400},
		"failing":                       {behaviour: Behaviour{ErrorRate: 1}, path: "/", wantCode: 500},
		"the dependency is well":        {behaviour: Behaviour{Dependency: answering(t, http.StatusOK)}, path: "/", wantCode: 200},
		"the dependency fails":          {behaviour: Behaviour{Dependency: answering(t, http.StatusBadGateway)}, path: "/", wantCode: 500},
		"the dependency is away":        {behaviour: Behaviour{Dependency: "http://127.0.0.1:1"}, path: "/", wantCode: 500},
		"failing never fails probes":    {behaviour: Behaviour{ErrorRate: 1}, path: "/readyz", wantCode: 200},
		"not ready for ever":            {behaviour: Behaviour{NeverReady: true}, path: "/readyz", wantCode: 503},
		"not ready yet":                 {behaviour: Behaviour{ReadyDelay: time.Hour}, path: "/readyz", wantCode: 503},
		"not ready, but answers others": {behaviour: Behaviour{NeverReady: true}, path: "/", wantCode: 200},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.behaviour.Version = "v7"
			w := httptest.NewRecorder()
			newApp(tc.behaviour, start).handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, tc.path, strings.NewReader("x")))
			if w.Code != tc.wantCode {
				t.Errorf("status %d, want %d: %s", w.Code, tc.wantCode, w.Body)
			}
			if got := w.Header().Get(load.VersionHeader); !strings.HasSuffix(tc.path, "readyz") && got != "v7" {
				t.Errorf("version header %q, want v7", got)
			}
		})
	}
}

// answering is the URL of a server that gives every request this status.
func answering(t *testing.T, code int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
	t.Cleanup(s.Close)
	return s.URL
}

// serveTest runs an app on the loopback and returns a client configuration for it, and a function
// that sends it the signal to end and returns what serving returned.
func serveTest(t *testing.T, b Behaviour) (load.Config, func() error) {
	t.Helper()
	var ls [2]net.Listener
	for i := range ls {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ls[i] = l
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serveOn(ctx, b, ls[0], ls[1]) }()
	c := load.Config{
		Host:     "127.0.0.1",
		HTTPPort: ls[0].Addr().(*net.TCPAddr).Port, GRPCPort: ls[1].Addr().(*net.TCPAddr).Port,
		Duration: time.Minute, Timeout: 5 * time.Second, SlowFor: 1500 * time.Millisecond, StreamFor: time.Second,
		Rates: map[load.Kind]float64{load.KindHTTP1: 40, load.KindNew: 40, load.KindH2C: 40, load.KindGRPC: 40, load.KindSlow: 5, load.KindStream: 5},
	}
	return c, func() error { cancel(); return <-ended }
}

func TestEveryKindOfRequestIsCounted(t *testing.T) {
	c, stop := serveTest(t, Behaviour{Version: "v1", Pod: "p"})
	c.Requests = 100
	r, err := load.Run(t.Context(), c, func(load.Report) {})
	if err != nil {
		t.Fatal(err)
	}
	want := load.Counts{Sent: 100, OK: 100, Classes: map[string]int64{}, Versions: map[string]load.Tally{"v1": {OK: 100}}}
	if diff := cmp.Diff(want, r.Counts); diff != "" {
		t.Errorf("%s\n%s", diff, strings.Join(r.Samples, "\n"))
	}
	for _, k := range load.Kinds() {
		if r.Kinds[k].OK == 0 {
			t.Errorf("no %s request was counted", k)
		}
	}
	if p50 := r.Kinds[load.KindSlow].Latency.P50; p50 < 1500 {
		t.Errorf("a slow request took %v ms, want at least 1500", p50)
	}
	if err := stop(); err != nil {
		t.Errorf("serving ended with %v", err)
	}
}

func TestFailuresAreCountedByClassAndVersion(t *testing.T) {
	c, stop := serveTest(t, Behaviour{Version: "bad", ErrorRate: 1})
	c.Requests = 50
	r, err := load.Run(t.Context(), c, func(load.Report) {})
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed != 50 || r.Classes["status-500"]+r.Classes["grpc-Internal"] != 50 {
		t.Errorf("failed %d, classes %v; want 50 of status-500 and grpc-Internal", r.Failed, r.Classes)
	}
	if r.Versions["bad"].Failed != 50 {
		t.Errorf("versions %v, want all failures with version bad", r.Versions)
	}
	if err := stop(); err != nil {
		t.Errorf("serving ended with %v", err)
	}
}

// The client ends while the app still drains, so every request was sent to a living app: before the
// signal, and after it. None may fail, also those under way when the app begins to drain.
func TestDrainingLosesNothing(t *testing.T) {
	c, stop := serveTest(t, Behaviour{Version: "v1", Drain: 4 * time.Second})
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reports := 0
	r, err := load.Run(ctx, c, func(load.Report) {
		switch reports++; reports {
		case 1:
			go func() { ended <- stop() }()
		case 3:
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("serving ended with %v, want it to finish", err)
	}
	if r.Failed != 0 || r.OK != r.Sent || r.Sent < 300 {
		t.Errorf("sent %d, ok %d, failed %d %v\n%s", r.Sent, r.OK, r.Failed, r.Classes, strings.Join(r.Samples, "\n"))
	}
}

func TestControl(t *testing.T) {
	stopped := make(chan struct{})
	p := &panel{stop: func() { close(stopped) }, ended: make(chan struct{})}
	server := httptest.NewServer(p.handler())
	defer server.Close()
	go func() {
		<-stopped
		p.last.Store(&load.Report{Final: true, Counts: load.Counts{Sent: 3}})
		close(p.ended)
	}()
	resp, err := http.Post(server.URL+"/stop", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var got load.Report
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if !got.Final || got.Sent != 3 {
		t.Errorf("report %+v, want the final one", got)
	}
}
