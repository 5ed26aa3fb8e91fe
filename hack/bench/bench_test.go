// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// printed is what go test prints: of two packages, with a benchmark that was left out.
const printed = `goos: linux
goarch: amd64
pkg: github.com/headgate/headgate/rollout
cpu: A very fast one
BenchmarkDecide
BenchmarkDecide/quiet-night
BenchmarkDecide/quiet-night-2         	   46328	     12345 ns/op	    1500 B/op	      29 allocs/op
PASS
ok  	github.com/headgate/headgate/rollout	1.216s
?   	github.com/headgate/headgate/release	[no test files]
pkg: github.com/headgate/headgate/xds/server
cpu: A very fast one
BenchmarkNewWeight
    weight_test.go:52: needs time
--- SKIP: BenchmarkNewWeight
BenchmarkRequest
envoy: 1.40.0
BenchmarkRequest/local
BenchmarkRequest/local-2          	    5710	    204863 ns/op	    398687 p50-ns	         4.810 p50-ratio	     10327 req/s	         0.4003 req/s-ratio
PASS
ok  	github.com/headgate/headgate/xds/server	1.216s
`

func TestFiguresAreKeptAsMeasured(t *testing.T) {
	r, err := parse([]byte(printed))
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Figures {
		r.Figures[i].text = ""
	}
	decide, request := "rollout.Decide/quiet-night", "xds/server.Request/local"
	want := []figure{
		{Name: decide, Unit: "ns/op", Value: 12345}, {Name: decide, Unit: "B/op", Value: 1500}, {Name: decide, Unit: "allocs/op", Value: 29},
		{Name: request, Unit: "ns/op", Value: 204863}, {Name: request, Unit: "p50-ns", Value: 398687}, {Name: request, Unit: "p50-ratio", Value: 4.81},
		{Name: request, Unit: "req/s", Value: 10327}, {Name: request, Unit: "req/s-ratio", Value: 0.4003},
	}
	if !slices.Equal(r.Figures, want) {
		t.Errorf("got %+v, want %+v", r.Figures, want)
	}
}

func TestTheTableNamesTheMachineAndWhatWasLeftOut(t *testing.T) {
	r, err := parse([]byte(printed))
	if err != nil {
		t.Fatal(err)
	}
	r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Machine.Load = 2, "linux 6.1", "go1.26", 0.4
	want := `Measured on: A very fast one, 2 cores, load 0.4 before, linux 6.1, go1.26, Envoy 1.40.0

rollout.Decide/quiet-night   12.3µs/op   1.46KiB/op   29 allocs/op
xds/server.Request/local     205µs/op    p50 399µs    p50 ×4.81   10.3k req/s   req/s ×0.40

Left out: BenchmarkNewWeight: needs time
`
	if got := r.table(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTheFileNamesThisMachine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "bench.json")
	var out strings.Builder
	if err := run(strings.NewReader(printed+"panic: at last\n"), &out, file); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "panic: at last\n") || strings.Contains(out.String(), "PASS") || strings.Contains(out.String(), "envoy: ") {
		t.Errorf("a failure is not passed on, or what nobody needs is:\n%s", &out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if m := r.Machine; m.CPU != "A very fast one" || m.Cores == 0 || m.Kernel == "" || m.Go == "" || m.Envoy != "1.40.0" || len(r.Figures) != 8 {
		t.Errorf("the file says %+v", r)
	}
}

func TestNothingMeasuredIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"no benchmark of that name":    "PASS\nok  	github.com/headgate/headgate/rollout	1.216s\n",
		"a result that can't be read":  "BenchmarkDecide-2 many 12345 ns/op\n",
		"a result that was broken off": "BenchmarkDecide-2 4711 12345\n",
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := run(strings.NewReader(text), &out, ""); err == nil {
				t.Errorf("no error:\n%s", &out)
			}
		})
	}
}
