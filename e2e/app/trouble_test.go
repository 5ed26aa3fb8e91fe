// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/e2e/faults/proxyfault"
)

func TestAdmissionPatches(t *testing.T) {
	for name, tc := range map[string]struct {
		admission admission
		object    string
		want      string
	}{
		"an image of a Deployment": {
			admission{from: "mirror/", to: "real/"},
			`{"spec":{"template":{"spec":{"containers":[{"image":"other/a"},{"image":"mirror/b:1"}]}}}}`,
			`[{"op":"replace","path":"/spec/template/spec/containers/1/image","value":"real/b:1"}]`,
		},
		"an image of a pod": {
			admission{from: "mirror/", to: "real/"}, `{"spec":{"initContainers":[{"image":"mirror/a"}]}}`,
			`[{"op":"replace","path":"/spec/initContainers/0/image","value":"real/a"}]`,
		},
		"an annotation": {
			admission{drop: "headgate.dev/"}, `{"metadata":{"annotations":{"headgate.dev/hold":"x","team":"shop"}}}`,
			`[{"op":"remove","path":"/metadata/annotations/headgate.dev~1hold"}]`,
		},
		"nothing": {admission{}, `{"metadata":{"annotations":{"a":"b"}},"spec":{"containers":[{"image":"a"}]}}`, `[]`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.admission.patch([]byte(tc.object))
			if err != nil || string(got) != tc.want {
				t.Errorf("got %s, %v; want %s", got, err, tc.want)
			}
		})
	}
}

func TestFindProcesses(t *testing.T) {
	const container = "0123456789abcdef"
	proc := t.TempDir()
	for pid, p := range map[int]struct{ group, line string }{
		1:  {"0::/", "/sbin/init"},
		20: {"0::/../pod1/" + container, "/usr/local/bin/headgate\x00run"},
		21: {"0::/../pod1/" + container, "/usr/local/bin/envoy\x00--config-yaml"},
		30: {"0::/../pod2/fedcba9876543210", "/usr/local/bin/envoy"},
	} {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"cgroup": p.group, "cmdline": p.line} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := findProcesses(proc, container, "envoy")
	if diff := cmp.Diff([]int{21}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestProxyRefusesEveryThirdWrite(t *testing.T) {
	p := &faultyProxy{next: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	p.faults.Store(&proxyfault.Faults{Every: 3, Statuses: []int{http.StatusConflict, http.StatusTooManyRequests}})
	var got []int
	for range 6 {
		for _, method := range []string{http.MethodGet, http.MethodPatch} {
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
			if method == http.MethodGet && w.Code != http.StatusOK {
				t.Errorf("a read got status %d", w.Code)
				continue
			}
			if method == http.MethodPatch {
				got = append(got, w.Code)
			}
			var status metav1.Status
			if w.Code != http.StatusOK && (json.Unmarshal(w.Body.Bytes(), &status) != nil || int(status.Code) != w.Code) {
				t.Errorf("status %d says %s", w.Code, w.Body)
			}
		}
	}
	want := []int{200, 200, http.StatusTooManyRequests, 200, 200, http.StatusConflict}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers to writes (-want +got):\n%s", diff)
	}
	if p.writes.Load() != 6 || p.refused.Load() != 2 {
		t.Errorf("%d writes, %d refused; want 6 and 2", p.writes.Load(), p.refused.Load())
	}
}

// What a client of a Prometheus sees through the proxy, fault by fault.
func TestProxyInFrontOfAPrometheus(t *testing.T) {
	const answer = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"7"]}]}}`
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) }))
	t.Cleanup(behind.Close)
	next, err := forwarder(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	p := &faultyProxy{next: next, address: address}
	t.Cleanup(p.leave)
	for _, step := range []struct {
		faults proxyfault.Faults
		want   string // empty: nobody answers
	}{
		{proxyfault.Faults{}, answer},
		{proxyfault.Faults{NaN: true}, strings.Replace(answer, `"7"`, `"NaN"`, 1)},
		{proxyfault.Faults{AwayFor: metav1.Duration{Duration: time.Hour}}, ""},
		{proxyfault.Faults{}, answer},
	} {
		if err := p.set(step.faults); err != nil {
			t.Fatal(err)
		}
		r, err := http.Get("http://" + address)
		if step.want == "" {
			if err == nil {
				t.Errorf("%+v: somebody answered", step.faults)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%+v: %v", step.faults, err)
		}
		got, err := io.ReadAll(r.Body)
		if diff := cmp.Diff(step.want, string(got)); err != nil || diff != "" {
			t.Errorf("%+v: %v (-want +got):\n%s", step.faults, err, diff)
		}
	}
}
