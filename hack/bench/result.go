// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchunit"
)

// result is what the file holds.
type result struct {
	Machine machine  `json:"machine"`
	Figures []figure `json:"figures"`
	// skipped are lines such as "BenchmarkRequest: needs root".
	skipped []string
}

// machine is where the figures are from. They mean nothing without it.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	// Envoy is the version of the one that was measured; empty where none was.
	Envoy string `json:"envoy,omitempty"`
	// Load is how many others wanted a core in the minute before, on average. From about half the cores
	// on, times and p99 say more about them than about Headgate; ratios, p50 and allocations less so.
	Load float64 `json:"load"`
}

// thisMachine is the one that this runs on, but for the name of its CPU, which go test knows, and for Envoy.
func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Kernel: runtime.GOOS, Go: runtime.Version()}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel += " " + strings.TrimSpace(string(release))
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(load), &m.Load) // zero where it says something else
	}
	return m
}

func (m machine) String() string {
	s := fmt.Sprintf("%s, %d cores, load %.1f before, %s, %s", m.CPU, m.Cores, m.Load, m.Kernel, m.Go)
	if m.Envoy != "" {
		s += ", Envoy " + m.Envoy
	}
	return s
}

// figure is one measurement of one benchmark.
type figure struct {
	// Name is the package below the module and the benchmark, as in "webhook.Admission/a_pod".
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
	// text is value and unit for people.
	text string
}

const modulePrefix = "github.com/headgate/headgate/"

// parse takes from the output of go test the results and what was left out. Lines that only look like
// a result are an error: a figure that silently lacks is worse than none.
func parse(text []byte) (result, error) {
	r := result{skipped: skips(text)}
	reader := benchfmt.NewReader(bytes.NewReader(text), "go test")
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return r, fmt.Errorf("reading the results: %w", record)
		case *benchfmt.Result:
			r.Machine.CPU, r.Machine.Envoy = record.GetConfig("cpu"), cmp.Or(record.GetConfig("envoy"), r.Machine.Envoy)
			r.add(record)
		}
	}
	return r, reader.Err()
}

func (r *result) add(b *benchfmt.Result) {
	pkg := strings.TrimPrefix(b.GetConfig("pkg"), modulePrefix)
	base, parts := b.Name.Parts()
	name := string(base)
	for _, p := range parts {
		if p[0] == '/' { // not the number of processors
			name += string(p)
		}
	}
	for _, v := range b.Values {
		f := figure{Name: pkg + "." + name, Unit: v.Unit, Value: v.Value, text: forPeople(v)}
		if v.OrigUnit != "" {
			f.Unit, f.Value = v.OrigUnit, v.OrigValue
		}
		r.Figures = append(r.Figures, f)
	}
}

// forPeople writes 3e-4 p50-sec as "p50 300µs", 4.4 p50-ratio as "p50 ×4.4", 1500 B/op as "1.5kB/op".
func forPeople(v benchfmt.Value) string {
	what, unit, compound := strings.Cut(v.Unit, "-")
	if !compound {
		what, unit = "", v.Unit
	} else {
		what += " "
	}
	if unit == "ratio" {
		return fmt.Sprintf("%s×%.2f", what, v.Value)
	}
	scale := benchunit.CommonScale([]float64{v.Value}, benchunit.ClassOf(v.Unit))
	scale.Prec = max(0, scale.Prec-1) // three digits; the fourth is noise
	if scale.Factor == 1 && v.Value == math.Trunc(v.Value) {
		scale.Prec = 0
	}
	scaled := scale.Format(v.Value)
	switch {
	case strings.HasPrefix(unit, "sec"):
		return what + scaled + "s" + strings.TrimPrefix(unit, "sec")
	case strings.HasPrefix(unit, "B"):
		return what + scaled + unit
	}
	return what + scaled + " " + unit
}

// skipped is a benchmark that said, in the line before, why it does not run here.
var skipped = regexp.MustCompile(`(?m)^ +\S+\.go:\d+: (.*)\n--- SKIP: (Benchmark\S+)$`)

func skips(text []byte) []string {
	var out []string
	for _, m := range skipped.FindAllSubmatch(text, -1) {
		out = append(out, fmt.Sprintf("%s: %s", m[2], m[1]))
	}
	return out
}

// table has one line for each benchmark.
func (r result) table() string {
	var out strings.Builder
	fmt.Fprintf(&out, "Measured on: %s\n\n", r.Machine)
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	for i, f := range r.Figures {
		if i == 0 || f.Name != r.Figures[i-1].Name {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprint(w, f.Name)
		}
		fmt.Fprint(w, "\t", f.text)
	}
	fmt.Fprintln(w)
	_ = w.Flush() // to a strings.Builder
	for _, s := range r.skipped {
		fmt.Fprintf(&out, "\nLeft out: %s\n", s)
	}
	return out.String()
}
