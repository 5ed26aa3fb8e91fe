// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"fmt"
	"math/rand/v2"
)

// Random makes a history: the same for the same seed. It begins with a workload at rest; then users, pods,
// nodes, the analysis and faults do what they do, mostly with an update under way.
func Random(seed int64) History {
	g := &generator{Rand: rand.New(rand.NewPCG(uint64(seed), 1))}
	g.begin()
	for range 4 + g.IntN(30) {
		g.happens()
	}
	return g.h
}

type generator struct {
	*rand.Rand

	h History
}

func (g *generator) add(format string, args ...any) { g.h = append(g.h, fmt.Sprintf(format, args...)) }

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g *generator) begin() {
	if g.IntN(3) == 0 {
		g.add("first %d", g.IntN(7))
	}
	if g.IntN(2) == 0 {
		g.add("policy %s", g.policy())
	}
	if g.IntN(2) == 0 {
		g.add("strategy %s %s %d", g.pick("25%", "1", "100%"), g.pick("0", "25%", "1"), 600)
	}
	g.add("replicas %d", 1+g.IntN(6))
	if g.IntN(5) == 0 {
		g.add("hpa on")
	}
	if g.IntN(4) == 0 {
		g.add("history %d", g.IntN(2))
	}
	for _, v := range []string{"v2", "v3"} {
		if g.IntN(4) == 0 {
			g.add("trouble %s %s", v, g.trouble())
		}
		g.add("verdict %s %s", v, g.verdict())
	}
	g.add("create v1")
	g.add("run %ds", 5+g.IntN(4))
	g.add("set-image v2")
	g.time()
}

func (g *generator) policy() string {
	return g.pick("default", "default", "revert", "quarantine", "managed", "cautious", "approval", "shortlived")
}

func (g *generator) trouble() string { return g.pick(crashes, hangs, noImage, killed, noRoom) }

func (g *generator) verdict() string {
	return g.pick("Pass", "Pass", "Pass", "Fail", "Fail", "Undecided", "Hold", "Blind", "Inconclusive")
}

func (g *generator) version() string { return g.pick("v1", "v1", "v2", "v2", "v3", "v4") }

// time passes: usually a few seconds, sometimes only a few steps, so that what follows meets everybody half
// done.
func (g *generator) time() {
	switch g.IntN(6) {
	case 0:
		g.add("steps %d", 1+g.IntN(12))
	case 1:
		g.add("run %ds", 20+g.IntN(60))
	default:
		g.add("run %ds", 1+g.IntN(9))
	}
}

// Kind is something that a history may go on with.
type Kind struct {
	// Weight is how often it comes, among others: above 0.
	Weight int
	// Adds appends its lines.
	Adds func()
}

// AddOne adds one of the kinds, by their weights.
func AddOne(r *rand.Rand, kinds []Kind) {
	total := 0
	for _, k := range kinds {
		total += k.Weight
	}
	n := r.IntN(total)
	for _, k := range kinds {
		if n -= k.Weight; n < 0 {
			k.Adds()
			return
		}
	}
}

// happens adds something of the kinds below, by their weight, and then lets time pass.
func (g *generator) happens() {
	AddOne(g.Rand, []Kind{
		{30, g.userActs}, {8, g.strategyActs}, {12, g.podsAct}, {12, g.verdictActs}, {6, g.policyActs}, {8, g.oddThings}, {14, g.faultActs}, {6, g.scalerActs},
	})
	g.time()
}

func (g *generator) userActs() {
	switch g.IntN(11) {
	case 0, 1:
		g.add("set-image %s", g.version())
	case 2:
		g.add("apply %s", g.version())
	case 3:
		g.add("undo")
	case 4:
		g.add("pause")
	case 5, 6:
		g.add("resume")
	case 7, 8:
		g.add("scale %d", g.IntN(8))
	case 9:
		g.add("scale 0")
		g.time()
		g.add("scale %d", 1+g.IntN(5))
	default:
		g.add("wish %s", g.pick("retry", "promote", "approve"))
	}
}

func (g *generator) strategyActs() {
	switch g.IntN(4) {
	case 0:
		g.add("strategy Recreate")
	default:
		g.add("strategy %s %s %d", g.pick("30%", "50%"), g.pick("20%", "40%"), g.pick2(300, 900))
	}
}

func (g *generator) pick2(a, b int) int {
	if g.IntN(2) == 0 {
		return a
	}
	return b
}

func (g *generator) podsAct() {
	v := g.pick("v1", "v2", "v3")
	switch g.IntN(6) {
	case 0:
		g.add("trouble %s %s", v, g.trouble())
	case 1:
		g.add("trouble %s ok", v)
	case 2:
		g.add("sicken %s", v)
	case 3:
		g.add("node n%d %s", 1+g.IntN(3), g.pick("down", "up", "up"))
	default:
		g.add("kill %s", v)
	}
}

func (g *generator) verdictActs() { g.add("verdict %s %s", g.pick("v2", "v3", "v1"), g.verdict()) }

func (g *generator) policyActs() {
	g.add("policy %s", g.pick("none", "suspended", g.policy()))
	g.time()
	if g.IntN(2) == 0 {
		g.add("policy %s", g.policy())
	}
}

func (g *generator) scalerActs() {
	if g.IntN(3) == 0 {
		g.add("hpa %s", g.pick("on", "off"))
		return
	}
	g.add("load %d", g.IntN(9))
}

func (g *generator) oddThings() {
	switch g.IntN(9) {
	case 0:
		g.add("bypass %s", g.version())
	case 1, 2:
		g.add("wipe")
	case 3:
		g.add("slip %s", g.version())
	case 4, 5:
		g.add("forget")
	case 6:
		g.add("delete")
		if g.IntN(2) == 0 {
			g.time()
		}
		g.add("create %s", g.version())
	case 7:
		g.add("enabled off")
		g.time()
		g.add("enabled on")
	default:
		g.add("release on")
		g.time()
		g.add("release off")
	}
}

func (g *generator) faultActs() {
	r := g.pick("a", "b")
	switch g.IntN(12) {
	case 0, 1, 2:
		g.add("fault %s %s %d", r, g.pick(string(faultRefuse), string(faultConflict), string(faultLose), string(faultLate), string(faultCrashBefore), string(faultCrashAfter)), g.IntN(4))
	case 3, 4:
		g.add("stale %s %s %ds", g.pick("a", "b", "native"), g.pick("all", string(deployments), string(replicaSets), string(pods), string(records), string(policies)), g.standstill())
	case 5:
		g.add("replica %s down", r)
		g.time()
		g.add("replica %s up", r)
	case 6:
		g.add("replica b leads")
		g.time()
		g.add("replica %s follows", r)
	case 7:
		g.add("asleep %ds", 1+g.IntN(8))
	case 8:
		g.add("webhooks off")
		g.time()
		g.add("webhooks on")
	case 9:
		g.add("podhook off")
		g.time()
		g.add("podhook on")
	case 10:
		g.add("reinvoke %s", g.pick("on", "off"))
	default:
		g.faultyData()
	}
}

// standstill is for how long a cache stands still, in seconds: a moment, or longer than all that Headgate waits for on the strength
// of what it has seen (30 s). A watch whose connection is half open is noticed after up to a minute.
func (g *generator) standstill() int {
	if g.IntN(3) == 0 {
		return 20 + g.IntN(40)
	}
	return 1 + g.IntN(8)
}

func (g *generator) faultyData() {
	if g.IntN(2) == 0 {
		g.add("mute %s", g.pick("v1", "v2"))
		return
	}
	g.add("xds off")
	g.time()
	g.add("xds on")
}
