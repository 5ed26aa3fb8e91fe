// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/xds"
)

func environment(change map[string]string) func(string) string {
	env := map[string]string{
		"POD_NAMESPACE":        "shop",
		"POD_NAME":             "web-1",
		"POD_IPS":              "192.0.2.1,2001:db8::1",
		"HEADGATE_INJECTION":   `{"workload":"web","revision":"v1","ports":[{"port":8080,"protocol":"auto","alias":15620},{"port":9000,"protocol":"tcp"}]}`,
		"HEADGATE_XDS_ADDRESS": "headgate.headgate-system.svc:15610",
		"HEADGATE_XDS_NAME":    "headgate.headgate-system.svc",
		"HEADGATE_CA":          "pem",
	}
	for k, v := range change {
		env[k] = v
	}
	return func(name string) string { return env[name] }
}

func TestConfigFromEnv(t *testing.T) {
	got, err := ConfigFromEnv(environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Injection: v1alpha1.Injection{Workload: "web", Revision: "v1", Ports: []v1alpha1.CapturedPort{
			{Port: 8080, Protocol: v1alpha1.ProtocolAuto, Alias: 15620}, {Port: 9000, Protocol: v1alpha1.ProtocolTCP},
		}},
		Namespace: "shop", Pod: "web-1",
		PodIPs:        []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		ServerAddress: "headgate.headgate-system.svc:15610", ServerName: "headgate.headgate-system.svc", CA: []byte("pem"),
		TokenFile: "/var/run/secrets/headgate.dev/token",
		Envoy:     "/usr/local/bin/envoy", LogLevel: "warning", Concurrency: 1,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	workload := xds.Workload{Namespace: "shop", Name: "web", Revision: "v1", IPv6: true, Ports: []xds.Port{{Number: 8080, Protocol: xds.Auto}, {Number: 9000, Protocol: xds.TCP}}}
	if diff := cmp.Diff(workload, got.workload()); diff != "" {
		t.Errorf("workload (-want +got):\n%s", diff)
	}
}

func TestConfigFromEnvNamesWhatIsWrong(t *testing.T) {
	tests := map[string]struct {
		variable, value string
	}{
		"no pod name":             {"POD_NAME", ""},
		"no server":               {"HEADGATE_XDS_ADDRESS", ""},
		"no CA":                   {"HEADGATE_CA", ""},
		"no injection":            {"HEADGATE_INJECTION", ""},
		"an injection of nothing": {"HEADGATE_INJECTION", "{}"},
		"an address that is none": {"POD_IPS", "192.0.2.1,x"},
		"no worker":               {"HEADGATE_CONCURRENCY", "0"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ConfigFromEnv(environment(map[string]string{tc.variable: tc.value}))
			if err == nil || !strings.Contains(err.Error(), tc.variable) {
				t.Errorf("error = %v, want one that names %s", err, tc.variable)
			}
		})
	}
}

func TestExitCodeIsEnvoysOwn(t *testing.T) {
	tests := map[string]struct {
		err  error
		want int
	}{
		"the end that was asked for": {nil, 0},
		"an error of our own":        {errors.New("no"), 1},
		"Envoy's code":               {fmt.Errorf("running Envoy: %w", exec.Command("sh", "-c", "exit 7").Run()), 7},
		"a signal, as shells say it": {fmt.Errorf("running Envoy: %w", exec.Command("sh", "-c", "kill -SEGV $$").Run()), 139},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := ExitCode(tc.err); got != tc.want {
				t.Errorf("ExitCode(%v) = %d, want %d", tc.err, got, tc.want)
			}
		})
	}
}

func TestActiveRequestsLeavesOutEnvoysOwn(t *testing.T) {
	body := `{"cluster_statuses":[
		{"name":"headgate-xds","host_statuses":[{"stats":[{"name":"rq_active","value":"1","type":"GAUGE"}]}]},
		{"name":"local|8080","host_statuses":[{"stats":[{"name":"cx_active","value":"9"},{"name":"rq_active","value":"2"}]},{"stats":[{"name":"rq_active","value":"3"}]}]},
		{"name":"peer|8080|v2"}]}`
	got, err := activeRequests([]byte(body))
	if err != nil || got != 5 {
		t.Errorf("active = %d, %v; want 5", got, err)
	}
}
