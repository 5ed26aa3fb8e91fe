// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"
)

// plainEvery is how often a line of numbers is printed without a terminal.
const plainEvery = 10 * time.Second

// plainLines tells in lines what is new in a model.
func plainLines(old, now Model) []string {
	var lines []string
	if now.Current != old.Current {
		u := now.Updates[now.Current]
		lines = append(lines, fmt.Sprintf("update %d of %d: %s", now.Current+1, len(now.Updates), u.Title))
		old.Timeline = nil
	}
	for _, e := range now.Timeline[min(len(old.Timeline), len(now.Timeline)):] {
		lines = append(lines, fmt.Sprintf("  %s  %s", clock(e.At), e.Text))
	}
	if now.Running() && tick(old) != tick(now) {
		lines = append(lines, "  "+numbers(now))
	}
	if now.Current >= 0 && now.Updates[now.Current].Result != nil && old.Current == now.Current && old.Running() {
		r := now.Updates[now.Current].Result
		lines = append(lines, fmt.Sprintf("  %s  %s; %d of %d requests failed; rollout status exits %d",
			clock(now.Elapsed()), r.Verdict, r.FailedRequests, r.Requests, r.RolloutStatusExit))
	}
	return lines
}

func tick(m Model) time.Duration { return m.Elapsed().Truncate(plainEvery) }

// numbers are the state in one line.
func numbers(m Model) string {
	parts := []string{clock(m.Elapsed()), fmt.Sprintf(" weight %d %%", m.Status.WeightInForce)}
	for _, v := range []string{m.Stable, m.Candidate} {
		t := m.Last.Minus(m.Base).Versions[v]
		parts = append(parts, fmt.Sprintf("  %s %.0f/s (%d failed)", v, m.rate(v), t.Failed))
	}
	if v := m.Status.Verdict; v != nil && v.Evidence != nil && v.Evidence.Harm != "" {
		parts = append(parts, fmt.Sprintf("  harm e=%s of %s", v.Evidence.Harm, v.Evidence.HarmThreshold))
	}
	return strings.Join(parts, "")
}
