// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"math/rand/v2"
	"testing"
)

// follower is a sidecar that takes the stages it may take and confirms each response, in an order that the
// test chooses.
type follower struct{ sent, confirmed Versions }

func following(r Resources) *follower {
	f := &follower{}
	for _, typ := range Types() {
		f.sent[typ], f.confirmed[typ] = map[string]string{}, map[string]string{}
	}
	f.take(r)
	for _, typ := range Types() {
		f.confirm(r, typ)
	}
	return f
}

func (f *follower) take(r Resources) {
	for _, typ := range Types() {
		for _, x := range r[typ] {
			f.sent[typ][x.Name] = x.Version
		}
	}
}

func (f *follower) confirm(r Resources, typ Type) {
	clear(f.confirmed[typ])
	for _, x := range r[typ] {
		f.confirmed[typ][x.Name] = x.Version
	}
	f.sent[typ] = map[string]string{}
	for n, v := range f.confirmed[typ] {
		f.sent[typ][n] = v
	}
}

func TestStagesAreConsistentAndEndAtTheTarget(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		from, to := translated(t, AnyWorkload(rnd)), translated(t, AnyWorkload(rnd))
		stages := Stages(from, to)
		if from.Equal(&to) != (len(stages) == 0) {
			t.Fatalf("seed %d: %d stages, ends equal: %t", seed, len(stages), from.Equal(&to))
		}
		last := from
		for i, s := range stages {
			checkConfiguration(t, s)
			if s.Equal(&last) {
				t.Errorf("seed %d: stage %d changes nothing", seed, i)
			}
			checkKept(t, from, s, i == len(stages)-1)
			last = s
		}
		if !last.Equal(&to) {
			t.Errorf("seed %d: the last stage is not the target", seed)
		}
		if t.Failed() {
			return
		}
	}
}

// checkKept: what only the old configuration has, clusters and their endpoints, stays until the last stage.
func checkKept(t *testing.T, from, stage Resources, last bool) {
	t.Helper()
	for _, typ := range []Type{Clusters, Endpoints} {
		for _, x := range from[typ] {
			if _, ok := stage.Get(typ, x.Name); !ok && !last {
				t.Errorf("%s %q is gone before the last stage", typ, x.Name)
			}
		}
	}
}

func TestAFollowerAlwaysArrivesAndNeverLacksACluster(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		at, to := translated(t, AnyWorkload(rnd)), translated(t, AnyWorkload(rnd))
		f := following(at)
		for _, stage := range Stages(at, to) {
			if !stage.SafeFor(&f.sent, &f.confirmed) {
				t.Fatalf("seed %d: a stage is not safe although all before is confirmed", seed)
			}
			for _, typ := range []Type{Listeners, Routes} {
				for _, x := range stage[typ] {
					for _, c := range x.Clusters {
						if f.confirmed[Clusters][c] == "" {
							t.Fatalf("seed %d: %q names %q, which the sidecar has not confirmed", seed, x.Name, c)
						}
					}
				}
			}
			f.take(stage)
			for _, typ := range Types() {
				f.confirm(stage, typ)
			}
		}
		if !f.confirmed.Has(&to) {
			t.Fatalf("seed %d: the follower did not arrive", seed)
		}
	}
}

func TestWhatAStageWaitsFor(t *testing.T) {
	rest, zero, ten, five := translated(t, atRest(web(0))), translated(t, web(0, "10.0.0.1")), translated(t, web(10, "10.0.0.1")), translated(t, web(5))
	type when = func(f *follower, stages []Resources)
	nothing := func(*follower, []Resources) {}
	sentFirst := func(f *follower, s []Resources) { f.take(s[0]) }
	confirmedOf := func(types ...Type) when {
		return func(f *follower, s []Resources) {
			f.take(s[0])
			for _, typ := range types {
				f.confirm(s[0], typ)
			}
		}
	}
	for name, tc := range map[string]struct {
		from, to Resources
		stage    int
		after    when
		want     bool
	}{
		"new clusters go out at once":                            {rest, ten, 0, nothing, true},
		"a route waits for its clusters":                         {rest, ten, 1, nothing, false},
		"that they were sent is not enough":                      {rest, ten, 1, sentFirst, false},
		"nor that the clusters are confirmed, without endpoints": {rest, ten, 1, confirmedOf(Clusters), false},
		"nor the endpoints without clusters":                     {rest, ten, 1, confirmedOf(Endpoints), false},
		"it goes out when both are confirmed":                    {rest, ten, 1, confirmedOf(Clusters, Endpoints), true},
		"a higher weight on known clusters waits for nothing":    {zero, ten, 0, nothing, true},
		"a lower weight does not wait for endpoints sent before": {ten, five, 1, sentFirst, true},
		"routes away from a peer do not wait":                    {ten, rest, 0, nothing, true},
		"its clusters stay while the routes are unconfirmed":     {ten, rest, 1, sentFirst, false},
		"its clusters go when the routes are confirmed":          {ten, rest, 1, confirmedOf(Routes), true},
	} {
		t.Run(name, func(t *testing.T) {
			f, stages := following(tc.from), Stages(tc.from, tc.to)
			tc.after(f, stages)
			if got := stages[tc.stage].SafeFor(&f.sent, &f.confirmed); got != tc.want {
				t.Errorf("stage %d of %d is safe: %t, want %t", tc.stage+1, len(stages), got, tc.want)
			}
		})
	}
}

// A sidecar connects with a configuration of which only versions are known.
func TestStagesFromVersionsAlone(t *testing.T) {
	old, next := translated(t, web(10, "10.0.0.1")), translated(t, atRest(web(0)))
	var known Resources
	for _, typ := range Types() {
		versions := map[string]string{}
		for _, x := range old[typ] {
			versions[x.Name] = x.Version
		}
		known[typ] = Known(typ, versions, &next)
	}
	if !known.Equal(&old) {
		t.Fatalf("what is known differs from what was there")
	}
	stages := Stages(known, next)
	if len(stages) != 2 {
		t.Fatalf("%d stages, want 2: routes, then removal", len(stages))
	}
	if x, ok := stages[0].Get(Clusters, "peer|8080|7f9c6d5b4"); !ok || x.Body != nil {
		t.Errorf("the old cluster must be kept, without content: %t", ok)
	}
	if x, _ := stages[0].Get(Clusters, "local|8080"); x.Body == nil {
		t.Errorf("a cluster in the same version has its content")
	}
}
