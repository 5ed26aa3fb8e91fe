// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package fidelity

import (
	"fmt"
	"math/rand/v2"

	"github.com/headgate/headgate/internal/simulate"
)

// random makes a history: the same for the same seed. Its lines are those of simulate.Alone.
func random(seed int64) simulate.History {
	g := &generator{Rand: rand.New(rand.NewPCG(uint64(seed), 2)), current: "v1"}
	g.begin()
	for range 8 + g.IntN(12) {
		g.happens()
	}
	// Whatever the controllers have not done yet, they do when N changes.
	g.add("resume")
	g.add("scale %d", 8)
	return g.h
}

type generator struct {
	*rand.Rand

	h simulate.History
	// current is the version that was asked for last.
	current string
}

func (g *generator) add(format string, args ...any) { g.h = append(g.h, fmt.Sprintf(format, args...)) }

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g *generator) begin() {
	g.add("replicas %d", g.IntN(7))
	g.add("create v1")
	g.strategy()
	if g.IntN(2) == 0 {
		g.add("history %d", g.IntN(3))
	}
	g.ready(7)
	g.update()
}

// ready are up to n pods of the version that was asked for last: an update goes on. Lines for pods that are not there are
// left out when it is played.
func (g *generator) ready(n int) {
	how := "ready"
	if g.IntN(3) == 0 {
		how = "long-ready"
	}
	for range 1 + g.IntN(n) {
		g.add("%s %s", how, g.current)
		if g.IntN(2) == 0 {
			g.add("end %s", g.pick("v1", "v2", "v3"))
		}
	}
}

func (g *generator) update() {
	g.current = g.pick("v1", "v2", "v2", "v3", "v4")
	g.add("set-image %s", g.current)
}

func (g *generator) strategy() {
	if g.IntN(6) == 0 {
		g.add("strategy Recreate")
		return
	}
	deadline := 600
	if g.IntN(6) == 0 {
		deadline = 1<<31 - 1 // none
	}
	g.add("strategy %s %s %d", g.pick("25%", "1", "2", "100%"), g.pick("0", "25%", "1", "50%"), deadline)
}

// happens adds something of the kinds below, by their weight.
func (g *generator) happens() {
	v := g.pick("v1", "v1", "v2", "v2", "v3", "v4")
	simulate.AddOne(g.Rand, []simulate.Kind{
		{Weight: 30, Adds: func() { g.ready(3) }},
		{Weight: 8, Adds: func() { g.ready(8) }},
		{Weight: 14, Adds: g.update},
		{Weight: 6, Adds: func() { g.add("undo") }},
		{Weight: 16, Adds: func() { g.add("scale %d", g.IntN(10)) }},
		{Weight: 6, Adds: func() { g.add("pause") }},
		{Weight: 9, Adds: func() { g.add("resume") }},
		{Weight: 8, Adds: g.strategy},
		{Weight: 4, Adds: func() { g.add("history %d", g.IntN(4)) }},
		{Weight: 5, Adds: func() { g.add("min-ready %d", 500*g.IntN(2)) }},
		{Weight: 3, Adds: func() { g.add("annotate %d", g.IntN(100)) }},
		{Weight: 6, Adds: func() { g.add("unready %s", v) }},
		{Weight: 3, Adds: func() { g.add("evict %s", v) }},
		{Weight: 4, Adds: func() { g.add("kill %s", v) }},
		{Weight: 4, Adds: func() { g.add("kill-unready %s", v) }},
		{Weight: 8, Adds: func() {
			for range 1 + g.IntN(4) {
				g.add("end %s", v)
			}
		}},
	})
}
