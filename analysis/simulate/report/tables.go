// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/simulate"
)

func row(cells ...string) string { return "| " + strings.Join(cells, " | ") + " |\n" }

// table begins a table.
func table(head ...string) *strings.Builder {
	b := &strings.Builder{}
	b.WriteString(row(head...))
	b.WriteString("|" + strings.Repeat("---|", len(head)) + "\n")
	return b
}

// progress says on standard error what is being simulated.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

// took is the median and the 95 % point of times.
func took(all []simulate.Outcome, is func(simulate.Outcome) bool) string {
	times := simulate.Times(all, is)
	return seconds(simulate.Quantile(times, 0.5)) + " / " + seconds(simulate.Quantile(times, 0.95))
}

func seconds(d time.Duration) string {
	if d == simulate.Never {
		return "-"
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

func goals(runs int) string {
	b := table("goal", "world", "wanted", "of "+fmt.Sprint(runs)+" rollouts", "rolled back: share, median / 95 %", "promoted: median / 95 %")
	for _, g := range simulate.Goals() {
		progress("%s: %s", g.Name, g.Says)
		all := g.Plan.Many(g.World, runs)
		wants, hits := []string{}, []string{}
		for _, w := range g.Wants {
			n := int(simulate.Share(all, w.Is)*float64(runs) + 0.5)
			mark := ""
			if !simulate.AtLeast(n, runs, w.Share, runs >= 500) {
				mark = " **missed**"
			}
			wants = append(wants, w.Says)
			hits = append(hits, fmt.Sprintf("%d%s", n, mark))
		}
		down, up := percent(simulate.Share(all, simulate.RolledBack)), ""
		if simulate.Share(all, simulate.RolledBack) >= 0.5 {
			down += ", " + took(all, simulate.RolledBack)
		}
		if len(g.Plan.Weights) > 1 && simulate.Share(all, simulate.Promoted) > 0 {
			up = took(all, simulate.Promoted)
		}
		b.WriteString(row(g.Name, g.Says, strings.Join(wants, "; "), strings.Join(hits, "; "), down, up))
	}
	return b.String()
}

// candidate is one of the table's rows.
type candidate struct {
	says  string
	world simulate.World
}

func candidates(rps float64) []candidate {
	base := simulate.World{RPS: rps, Base: 0.001, Latency: true, Cold: 3}
	with := func(change func(*simulate.World)) simulate.World {
		w := base
		change(&w)
		return w
	}
	return []candidate{
		{"healthy", base},
		{"+1 point of errors", with(func(w *simulate.World) { w.Worse = simulate.Plus(0.01) })},
		{"+5 points of errors", with(func(w *simulate.World) { w.Worse = simulate.Plus(0.05) })},
		{"latency x2", with(func(w *simulate.World) {
			w.Slower = func(float64, int) simulate.Shape { return simulate.Shape{Scale: 2} }
		})},
	}
}

func power(runs int) string {
	b := table("requests/s", "candidate", "2 min", "4 min", "10 min", "30 min")
	for _, rps := range []float64{2, 20, 200} {
		for _, c := range candidates(rps) {
			cells := []string{fmt.Sprint(rps), c.says}
			for _, total := range []time.Duration{2 * time.Minute, 4 * time.Minute, 10 * time.Minute, 30 * time.Minute} {
				progress("maxDuration %v, %g rps, %s", total, rps, c.says)
				plan := simulate.Plan{Weights: []int{10, 25, 50}, Total: total, Lasts: total + time.Minute}
				cells = append(cells, ends(plan.Many(c.world, runs)))
			}
			b.WriteString(row(cells...))
		}
	}
	fmt.Fprintf(b, "\nSteps of 10, 25 and 50 %%, %d rollouts each. *Proven*: promoted with every step accepted on evidence; *unproven*: promoted, but with "+
		"at least one step whose time was up (`onInconclusive: Advance`); the rest was on hold at the end.\n", runs)
	return b.String()
}

// ends says how rollouts ended, in words.
func ends(all []simulate.Outcome) string {
	proven := simulate.Share(all, func(o simulate.Outcome) bool { return o.Promoted && o.Unproven == 0 })
	unproven := simulate.Share(all, func(o simulate.Outcome) bool { return o.Promoted && o.Unproven > 0 })
	back := simulate.Share(all, simulate.RolledBack)
	var parts []string
	for _, p := range []struct {
		share float64
		says  string
	}{{proven, "proven"}, {unproven, "unproven"}, {back, "rolled back"}} {
		if p.share > 0 {
			parts = append(parts, fmt.Sprintf("%.0f %% %s", 100*p.share, p.says))
		}
	}
	if len(parts) == 0 {
		return "on hold"
	}
	return strings.Join(parts, ", ")
}

func margins(runs int) string {
	b := table("errors", "latency", "healthy: every step accepted", "healthy: median / 95 %", "0.5 % instead of 0.1 % of errors: every step accepted", "slow requests 1 -> 3 %: every step accepted")
	proven := func(o simulate.Outcome) bool { return o.Promoted && o.Unproven == 0 }
	for _, m := range [][2]float64{{0.005, 0.01}, {0.005, 0.015}, {0.0075, 0.015}, {0.01, 0.015}, {0.01, 0.02}} {
		progress("margin %v", m)
		plan := simulate.Plan{Weights: []int{10, 25, 50}, Total: 4 * time.Minute, Lasts: 5 * time.Minute, Settings: analysis.Settings{
			Acceptance: analysis.Margin{Ratio: 2, Excess: m[0]}, AcceptanceLatency: analysis.Margin{Ratio: 1.5, Excess: m[1]}}}
		w := simulate.World{RPS: 200, Base: 0.001, Latency: true, Cold: 3, Fresh: true, Pods: 4}
		good := plan.Many(w, runs)
		slow := w
		slow.Slower = func(float64, int) simulate.Shape { return simulate.Shape{SlowShare: 0.03} }
		w.Worse = simulate.Plus(0.004)
		b.WriteString(row(fmt.Sprintf("2 and %g points", 100*m[0]), fmt.Sprintf("1.5 and %g points", 100*m[1]),
			percent(simulate.Share(good, proven)), took(good, simulate.Promoted),
			percent(simulate.Share(plan.Many(w, runs), proven)), percent(simulate.Share(plan.Many(slow, runs), proven))))
	}
	fmt.Fprintf(b, "\nSteps of 10, 25 and 50 %% within 4 minutes, 200 requests per second, 4 pods, no history, %d rollouts each.\n", runs)
	return b.String()
}

// rival is a way to judge at a fixed weight.
type rival struct {
	name string
	many func(w simulate.World, n int) []simulate.Outcome
}

const fixedFor = 30 * time.Minute

func rivals() []rival {
	peer := func(make func() simulate.Peer) func(simulate.World, int) []simulate.Outcome {
		return func(w simulate.World, n int) []simulate.Outcome { return simulate.ManyPeers(make, w, 10, fixedFor, n) }
	}
	return []rival{
		{"Headgate", simulate.Plan{Weights: []int{10}, Lasts: fixedFor}.Many},
		{"Flagger", peer(simulate.Flagger)}, {"Argo", peer(simulate.Argo)}, {"Kayenta", peer(simulate.Kayenta)},
	}
}

func peers(runs int) string {
	b := table("candidate", "requests/s", "Headgate", "Flagger", "Argo", "Kayenta")
	for _, c := range []struct {
		says string
		rps  float64
		plus float64
	}{
		{"healthy", 2, 0}, {"healthy", 200, 0}, {"+0.4 points", 200, 0.004}, {"+1 point", 200, 0.01}, {"+5 points", 200, 0.05}, {"all fail", 200, 1}, {"all fail", 2, 1},
	} {
		cells := []string{c.says, fmt.Sprint(c.rps)}
		for _, r := range rivals() {
			progress("%s: %s, %g rps", r.name, c.says, c.rps)
			all := r.many(simulate.World{RPS: c.rps, Base: 0.001, Worse: simulate.Plus(c.plus)}, runs)
			cells = append(cells, found(all))
		}
		b.WriteString(row(cells...))
	}
	fmt.Fprintf(b, "\nHalf an hour at a weight of 10 %%, stable fails 0.1 %%, %d rollouts each: share rolled back, after how long in the median, and how many of the "+
		"candidate's requests had failed. Flagger: checks of a minute, 99 %%, the fifth failed one of the rollout counts, at the next. Argo Rollouts: measurements of a minute, 99 %%, "+
		"the fourth failure. Kayenta: Mann-Whitney at 98 %% every ten minutes.\n", runs)
	return b.String()
}

func found(all []simulate.Outcome) string {
	share := simulate.Share(all, simulate.RolledBack)
	if share < 0.5 {
		return percent(share)
	}
	return fmt.Sprintf("%s, %s (%d)", percent(share), seconds(simulate.Quantile(simulate.Times(all, simulate.RolledBack), 0.5)), simulate.Quantile(simulate.Failed(all), 0.5))
}

func noisy(runs int) string {
	b := table("service", "base", "Headgate", "Flagger", "Argo", "Kayenta")
	worlds := append(simulate.NoisyWorlds(),
		struct {
			Says  string
			Noise simulate.Maker
		}{"pods differ for good (sigma 0.7)", simulate.Differing(0.7)},
		struct {
			Says  string
			Noise simulate.Maker
		}{"a zone with a third of the pods fails for 5 min", simulate.Zone},
		struct {
			Says  string
			Noise simulate.Maker
		}{"3 shared outages of 60 s, 20 %", simulate.Outages(0.2, 60, 3, 0)})
	for _, n := range worlds {
		for _, base := range []float64{0.001, 0.01} {
			cells := []string{n.Says, percent(base)}
			for _, r := range rivals() {
				progress("%s: %s, %g", r.name, n.Says, base)
				cells = append(cells, percent(simulate.Share(r.many(simulate.World{RPS: 200, Base: base, Noise: n.Noise}, runs), simulate.RolledBack)))
			}
			b.WriteString(row(cells...))
		}
	}
	fmt.Fprintf(b, "\nShare of healthy candidates rolled back within half an hour at 10 %%; 200 requests per second, one candidate pod, ten stable pods, %d rollouts each.\n", runs)
	return b.String()
}

// watched are how long a service may have been watched before a rollout; 0 is not at all.
var watched = []time.Duration{0, time.Minute, 3 * time.Minute, 10 * time.Minute, 30 * time.Minute}

func histories(runs int) string {
	b := table("service", "no history", "1 min", "3 min", "10 min", "30 min")
	for _, n := range simulate.NoisyWorlds() {
		cells := []string{n.Says}
		for _, d := range watched {
			progress("%s: history of %v", n.Says, d)
			w := simulate.World{RPS: 200, Base: 0.01, Noise: n.Noise, Watched: d, Fresh: d == 0}
			all := simulate.Plan{Weights: []int{10}, Lasts: fixedFor}.Many(w, runs)
			cells = append(cells, percent(simulate.Share(all, simulate.RolledBack)))
		}
		b.WriteString(row(cells...))
	}
	fmt.Fprintf(b, "\nShare of healthy candidates rolled back within half an hour at 10 %%; stable fails 1 %%, 200 requests per second, one candidate pod, ten stable pods, %d rollouts each.\n", runs)
	return b.String()
}
