// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// vectors are computations by an independent implementation in another language (testdata/golden.json).
type vectors struct {
	HarmLogW   []vector `json:"harm_logW"`
	AcceptLogW []vector `json:"accept_logW"`
	// History is half an hour of three stable pods before the rollout, Path the first five minutes of it.
	History struct {
		N, E       [][]uint64
		Phi, Sigma float64
		Q0         [2]float64
	}
	Path []golden
}

// vector is one look's coefficients and evidence.
type vector struct {
	Nc, Ns, Ec, Es float64
	Pi, Rho, Delta float64
	Theta, A, B    []float64 // harm
	U              []float64 // acceptance
	LogW           []float64
}

// golden is one look of the path: its counts, and what the judge is to make of them.
type golden struct {
	Nc, Ec     uint64
	NsPods     []uint64 `json:"ns_pods"`
	EsPods     []uint64 `json:"es_pods"`
	Pi, Phi    float64
	LogFast    float64 `json:"log_fast"`
	LogGross   float64 `json:"log_gross"`
	LogOutlier float64 `json:"log_outlier"`
	LogM       float64
	LogAccept  float64
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.HarmLogW) == 0 || len(v.AcceptLogW) == 0 || len(v.History.N) == 0 || len(v.Path) == 0 {
		t.Fatal("vectors are missing")
	}
	return v
}

func TestCoefficientsEqualThoseOfTheReference(t *testing.T) {
	all := readVectors(t)
	near := cmpopts.EquateApprox(0, 1e-9)
	for _, v := range all.HarmLogW {
		x, m := arms{nc: v.Nc, ns: v.Ns, ec: v.Ec, es: v.Es}, Margin{v.Rho, v.Delta}
		got := vector{}
		for _, theta := range v.Theta {
			a, b := harmCoefficients(v.Pi, v.Rho, theta)
			got.A, got.B = append(got.A, a), append(got.B, b)
			got.LogW = append(got.LogW, harmEvidence(x, v.Pi, m, theta))
		}
		if diff := cmp.Diff(vector{A: v.A, B: v.B, LogW: v.LogW}, got, near); diff != "" {
			t.Errorf("harm of %+v (-want +got):\n%s", v, diff)
		}
	}
	for _, v := range all.AcceptLogW {
		x, m := arms{nc: v.Nc, ns: v.Ns, ec: v.Ec, es: v.Es}, Margin{v.Rho, v.Delta}
		var got []float64
		for _, u := range v.U {
			got = append(got, acceptEvidence(x, v.Pi, m, u))
		}
		if diff := cmp.Diff(v.LogW, got, near); diff != "" {
			t.Errorf("acceptance of %+v (-want +got):\n%s", v, diff)
		}
	}
}

// counted is the look at which pods counted so much.
func counted(i, weight int, n, e []uint64) Look {
	l := lookAt(i, weight, Counts{}, Counts{})
	l.Candidate, l.Stable = nil, map[string]Counts{}
	for k := range n {
		l.Stable[fmt.Sprintf("pod-%d", k)] = Counts{Requests: n[k], Errors: e[k]}
	}
	return l
}

// Half an hour of history and five minutes of a rollout in which the candidate breaks at half time:
// dispersion, lasting differences, calibration, restarts, caps and all components, look by look.
func TestPathEqualsThatOfTheReference(t *testing.T) {
	all := readVectors(t)
	s := Settings{PlannedLooks: 720, Steps: 4, Acceptance: Margin{2, 0.005}}.withDefaults()
	var st State
	look := 0
	for i := range all.History.N {
		look++
		st, _ = Judge(s, st, counted(look, 0, all.History.N[i], all.History.E[i]))
	}
	failed := false
	for i, want := range all.Path {
		look++
		l := counted(look, 10, want.NsPods, want.EsPods)
		l.Candidate = map[string]Counts{"new": {Requests: want.Nc, Errors: want.Ec}}
		l.Bounds = []float64{0.25} // the reference's errors share the e-value with latencies
		var v Verdict
		st, v = Judge(s, st, l)
		r := &st.Rates[0]
		if i == 0 {
			wantBase := Baseline{Minutes: 30, Phi: all.History.Phi, Sigma: all.History.Sigma}
			wantBase.Outliers = r.Baseline.Outliers
			wantBase.Outliers[0] = all.History.Q0
			if diff := cmp.Diff(wantBase, r.Baseline, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Errorf("history (-want +got):\n%s", diff)
			}
		}
		got := want
		got.Pi, got.Phi = st.Share.share(0.1), max(r.Baseline.Phi, r.Noise.phi(3))
		got.LogFast, got.LogGross = math.Log(r.Fast.value(st.Injected)), math.Log(r.Gross.value(st.Injected))
		got.LogOutlier = math.Log(r.Outlier.value(st.Injected))
		got.LogM, got.LogAccept = math.Log(r.harm(st.Injected)), math.Log(r.Acceptance.value())
		if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-6)); diff != "" {
			t.Fatalf("look %d (-want +got):\n%s", i, diff)
		}
		failed = failed || errorShare*math.Exp(want.LogM)+1-errorShare >= 100
		if (v.Result == Fail) != failed {
			t.Fatalf("look %d: %s at log e = %v", i, v.Result, want.LogM)
		}
	}
	if !failed {
		t.Error("the path never fails, so half of it is not tested")
	}
}
