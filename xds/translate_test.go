// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/internal/envoyrules"
)

// checkConfiguration holds for every configuration that leaves this package.
func checkConfiguration(t *testing.T, r Resources) {
	t.Helper()
	if err := r.Consistent(); err != nil {
		t.Errorf("not consistent: %v", err)
	}
	for _, typ := range Types() {
		if !slices.IsSortedFunc(r[typ], func(a, b Resource) int { return cmpNames(a.Name, b.Name) }) {
			t.Errorf("%s are not sorted, or a name is there twice", typ)
		}
		for _, x := range r[typ] {
			if err := envoyrules.CheckPacked(x.Body); err != nil {
				t.Errorf("%s %q: %v", typ, x.Name, err)
			}
			if x.Body.GetTypeUrl() != typ.URL() {
				t.Errorf("%q has type %s, want %s", x.Name, x.Body.GetTypeUrl(), typ.URL())
			}
		}
	}
}

// cmpNames makes equal names count as not sorted.
func cmpNames(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

func FuzzTranslate(f *testing.F) {
	f.Add("shop", "web", "a1", "b2", uint32(10), uint32(8080), uint32(8081), "10.0.0.1", byte(0))
	f.Add("shop", "web.v1", "a1", "b2", uint32(100), uint32(65535), uint32(1), "fd00::1", byte(15))
	f.Add("shop", "", "a|1", "b.2", uint32(101), uint32(15601), uint32(0), "x", byte(3))
	f.Fuzz(func(t *testing.T, namespace, name, revision, peer string, weight, port, peerPort uint32, endpoint string, flags byte) {
		w := Workload{
			Namespace: namespace, Name: name, Revision: revision, IPv6: flags&1 != 0,
			Ports: []Port{{Number: port, Protocol: Protocol(flags>>1&1 + flags>>4&1), Peer: peerPort}, {Number: 60000}},
			Split: &Split{Peer: peer, PeerWeight: weight, PeerIsStable: flags&4 != 0, Over: flags&32 != 0, Endpoints: []string{endpoint}},
		}
		if flags&8 != 0 {
			w.Split = nil
		}
		r, err := Translate(w)
		if err != nil {
			return
		}
		checkConfiguration(t, r)
		again := translated(t, w)
		if !r.Equal(&again) {
			t.Errorf("two translations differ")
		}
	})
}

func TestAnyWorkloadIsConsistent(t *testing.T) {
	for seed := range uint64(100) {
		checkConfiguration(t, translated(t, AnyWorkload(rand.New(rand.NewPCG(seed, 1)))))
	}
}

func names(rs []Resource) (out []string) {
	for _, r := range rs {
		out = append(out, r.Name)
	}
	return out
}

// changed are the names whose versions differ, by type.
func changed(a, b Resources) map[string][]string {
	out := map[string][]string{}
	for _, typ := range Types() {
		for _, n := range names(union(a[typ], b[typ])) {
			x, _ := a.Get(typ, n)
			y, _ := b.Get(typ, n)
			if x.Version != y.Version {
				out[typ.String()] = append(out[typ.String()], n)
			}
		}
	}
	return out
}

func TestWhatAChangeTouches(t *testing.T) {
	other := web(10, "10.0.0.1")
	other.Split.Peer = "new"
	for name, tc := range map[string]struct {
		from, to Workload
		want     map[string][]string
	}{
		"a weight touches only the routes of split ports": {
			web(10, "10.0.0.1"), web(20, "10.0.0.1"), map[string][]string{"routes": {"capture|8080", "capture|8443"}},
		},
		"a pod touches only endpoints": {
			web(10, "10.0.0.1"), web(10, "10.0.0.1", "10.0.0.2"),
			map[string][]string{"endpoints": {"peerconn|8080|7f9c6d5b4", "peerconn|8443|7f9c6d5b4"}},
		},
		"a split at weight 0 touches no route": {
			atRest(web(0)), web(0, "10.0.0.1"), map[string][]string{
				"clusters":  {"peerconn|8080|7f9c6d5b4", "peerconn|8443|7f9c6d5b4", "peer|8080|7f9c6d5b4", "peer|8443|7f9c6d5b4"},
				"endpoints": {"peerconn|8080|7f9c6d5b4", "peerconn|8443|7f9c6d5b4"},
			},
		},
		"equal content touches nothing": {web(10, "10.0.0.1"), web(10, "10.0.0.1"), map[string][]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := changed(translated(t, tc.from), translated(t, tc.to))
			sorted := cmp.Transformer("sorted", func(in []string) []string { return slices.Sorted(slices.Values(in)) })
			if diff := cmp.Diff(tc.want, got, cmp.FilterPath(func(p cmp.Path) bool { return len(p) == 2 }, sorted)); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConsistentFindsNamesThatLeadNowhere(t *testing.T) {
	for _, typ := range []Type{Clusters, Endpoints, Routes} {
		whole := translated(t, web(10, "10.0.0.1"))
		for i, x := range whole[typ] {
			broken := whole
			broken[typ] = slices.Delete(slices.Clone(whole[typ]), i, i+1)
			if broken.Consistent() == nil {
				t.Errorf("nobody misses %s %q", typ, x.Name)
			}
		}
	}
}

// BenchmarkTranslate makes the configurations of 100 workloads, each with a split and ten peers: what a
// change of policy for all of them costs.
func BenchmarkTranslate(b *testing.B) {
	var workloads []Workload
	for i := range 100 {
		w := web(25)
		w.Name = fmt.Sprintf("web-%d", i)
		for peer := range 10 {
			w.Split.Endpoints = append(w.Split.Endpoints, fmt.Sprintf("10.0.%d.%d", i, 10+peer))
		}
		workloads = append(workloads, w)
	}
	b.Run("workloads=100", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, w := range workloads {
				translated(b, w)
			}
		}
	})
}
