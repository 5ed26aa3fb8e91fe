// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Widths that a screen is drawn for; narrower terminals cut it off, wider ones leave a margin.
const (
	minWidth = 60
	maxWidth = 120
)

// label is the width of the left column.
const label = 11

// Render draws the model. It is at most height lines high (0: as high as it gets); the timeline gives way first.
func Render(m Model, p Palette, width, height int) string {
	s := screen{m: m, p: p, width: min(maxWidth, max(minWidth, width))}
	top := slices.Concat(s.head(), s.weight(), s.requests(), s.evidence(), s.pods())
	results := s.results()
	room := len(m.Timeline)
	if height > 0 {
		room = max(3, height-len(top)-len(results)-4)
	}
	lines := slices.Concat(top, s.timeline(room), results, []string{"", p.Dim.Render(" Ctrl-C ends the demo; the cluster stays up")})
	if height > 0 && len(lines) > height {
		lines = lines[:height]
	}
	return strings.Join(lines, "\n") + "\n"
}

type screen struct {
	m     Model
	p     Palette
	width int
}

// row is a labelled line.
func (s screen) row(name, text string) string {
	return " " + s.p.Dim.Render(fit(name, label)) + text
}

func (s screen) head() []string {
	left, right := " HEADGATE ", ""
	if m := s.m; m.Current >= 0 {
		right = fmt.Sprintf(" update %d of %d · %s ", m.Current+1, len(m.Updates), clock(m.Elapsed()))
	}
	middle := ""
	if s.m.Current >= 0 {
		middle = " " + s.m.Updates[s.m.Current].Title
	}
	rest := s.width - lipgloss.Width(left) - lipgloss.Width(right)
	return []string{s.p.Title.Render(left) + s.p.Strong.Render(fit(middle, rest)) + s.p.Dim.Render(right), ""}
}

func (s screen) weight() []string {
	st := s.m.Status
	wanted := ""
	if st.Weight != st.WeightInForce {
		wanted = fmt.Sprintf(" (%d %% wanted)", st.Weight)
	}
	text := fmt.Sprintf("  %d %% to %s%s", st.WeightInForce, cmp.Or(s.m.Candidate, "nobody"), wanted)
	width := s.width - label - 28
	gauge := bar(float64(st.WeightInForce)/100, width, s.p.Candidate, s.p.Stable)
	return []string{s.row("weight", gauge+text), s.row("steps", s.steps()), ""}
}

// steps is the way through a rollout, with the place where it is now.
func (s screen) steps() string {
	names := []string{"start"}
	for _, w := range s.m.Steps {
		names = append(names, fmt.Sprintf("%d %%", w))
	}
	names = append(names, "promote")
	at, ended := s.place()
	var parts []string
	for i, n := range names {
		switch {
		case i < at || i == at && ended:
			parts = append(parts, s.p.Good.Render("● "+n))
		case i == at && s.back():
			parts = append(parts, s.p.Error.Render("✗ "+n))
		case i == at:
			parts = append(parts, s.p.Busy.Render("◉ "+n))
		default:
			parts = append(parts, s.p.Dim.Render("○ "+n))
		}
	}
	return strings.Join(parts, s.p.Dim.Render(" ─ "))
}

// place is the index of the step under way, and whether the whole way is done. -1: nothing goes on.
func (s screen) place() (int, bool) {
	st, last := s.m.Status, len(s.m.Steps)+1
	phase := st.Phase
	if phase == v1alpha1.PhasePaused {
		phase = st.ResumePhase
	}
	switch phase {
	case v1alpha1.PhaseStarting:
		return 0, false
	case v1alpha1.PhaseStepping:
		return int(st.Step) + 1, false
	case v1alpha1.PhasePromoting:
		return last, false
	case v1alpha1.PhaseRollingBack, v1alpha1.PhaseQuarantined:
		if st.StepSince == nil {
			return 0, false
		}
		return int(st.Step) + 1, false
	}
	if s.m.Current >= 0 && s.m.Updates[s.m.Current].Result != nil {
		return last, true
	}
	return -1, false
}

func (s screen) back() bool {
	return s.m.Status.Phase == v1alpha1.PhaseRollingBack || s.m.Status.Phase == v1alpha1.PhaseQuarantined
}

func (s screen) requests() []string {
	width, errorsWidth := s.trafficWidths()
	columns := fit("", versionWidth) + fit("answers", width+rateWidth) + fit("failures", errorsWidth)
	lines := []string{s.row("per second", s.p.Dim.Render(strings.TrimRight(columns, " "))), s.traffic("stable", s.m.Stable, s.p.Stable)}
	if s.m.Candidate != "" && s.m.Candidate != s.m.Stable {
		lines = append(lines, s.traffic("candidate", s.m.Candidate, s.p.Candidate))
	} else {
		lines = append(lines, s.row("candidate", s.p.Dim.Render("none")))
	}
	now := s.m.Last.Minus(s.m.Base)
	failures := fmt.Sprintf("%s of %s requests of this update failed", grouped(now.Failed), grouped(now.Sent))
	style := s.p.Good
	if now.Failed > 0 {
		style = s.p.Error
	}
	return append(lines, s.row("users", style.Render(failures)), "")
}

// Widths of the columns of traffic that do not stretch.
const (
	versionWidth = 8
	rateWidth    = 8
	failedWidth  = 14
)

// trafficWidths are those that do: of the answers and of the failures.
func (s screen) trafficWidths() (answers, failures int) {
	room := s.width - label - 1 - versionWidth - rateWidth - failedWidth
	failures = max(4, room/3)
	return max(4, room-failures), failures
}

// traffic is one version: what it answers per second, and beside it what it fails, each on its own scale.
func (s screen) traffic(role, version string, style lipgloss.Style) string {
	width, errorsWidth := s.trafficWidths()
	var answers, errors []float64
	top, topErrors := 1.0, 1.0
	for _, sec := range s.m.Series {
		t := sec.Versions[version]
		answers, errors = append(answers, float64(t.Total())/sec.Seconds), append(errors, float64(t.Failed)/sec.Seconds)
		topErrors = max(topErrors, float64(t.Failed)/sec.Seconds)
		for _, other := range sec.Versions {
			top = max(top, float64(other.Total())/sec.Seconds)
		}
	}
	total := s.m.Last.Minus(s.m.Base).Versions[version]
	return s.row(role, fit(version, versionWidth)+style.Render(sparkline(answers, width, top))+
		fmt.Sprintf("%5.0f/s ", s.m.rate(version))+s.p.Error.Render(sparkline(errors, errorsWidth, topErrors))+
		fmt.Sprintf("%7s failed", grouped(total.Failed)))
}

func (s screen) evidence() []string {
	e := v1alpha1.Evidence{}
	verdict, style := "nothing to judge", s.p.Dim
	if v := s.m.Status.Verdict; v != nil {
		verdict, style = string(v.Result), s.p.Busy
		if v.Message != "" {
			verdict += ": " + v.Message
		}
		switch v.Result {
		case v1alpha1.ResultPass:
			style = s.p.Good
		case v1alpha1.ResultFail:
			style = s.p.Error
		}
		if v.Evidence != nil {
			e = *v.Evidence
		}
	}
	room := s.width - label - 1
	return []string{
		s.gauge("harm", e.Harm, e.HarmThreshold, "rolls back at", s.p.Error),
		s.gauge("acceptance", e.Acceptance, e.AcceptanceThreshold, "goes on at", s.p.Good),
		s.row("verdict", style.Render(strings.TrimRight(fit(verdict, room), " "))), "",
	}
}

// gauge shows an e-value on its way to its threshold.
func (s screen) gauge(name, value, threshold, what string, style lipgloss.Style) string {
	text := "  no evidence yet"
	if value != "" && threshold != "" {
		text = fmt.Sprintf("  e = %s, %s %s", short(value), what, short(threshold))
	}
	width := s.width - label - 38
	return s.row(name, bar(progress(value, threshold), width, style, s.p.Dim)+text)
}

func (s screen) pods() []string {
	var stable, candidate, other []string
	for _, pod := range s.m.Pods {
		dot := s.dot(pod)
		switch pod.Revision {
		case s.m.Status.Stable.Hash:
			stable = append(stable, dot)
		case s.m.Status.Candidate.Hash:
			candidate = append(candidate, dot)
		default:
			other = append(other, dot)
		}
	}
	groups := []string{"stable " + strings.Join(stable, "")}
	if len(candidate) > 0 {
		groups = append(groups, "candidate "+strings.Join(candidate, ""))
	}
	if len(other) > 0 {
		groups = append(groups, "other "+strings.Join(other, ""))
	}
	key := s.p.Dim.Render("● ready  ◐ ready, gate closed  ○ starting  ✗ crashing  · leaving")
	return []string{s.row("pods", strings.Join(groups, "   ")), s.row("", key), ""}
}

func (s screen) dot(p PodView) string {
	switch p.State {
	case PodReady:
		return s.p.Good.Render("●")
	case PodWaiting:
		return s.p.Busy.Render("◐")
	case PodCrashing:
		return s.p.Error.Render("✗")
	case PodLeaving:
		return s.p.Dim.Render("·")
	}
	return s.p.Dim.Render("○")
}

// timeline is the newest entries that fit into so many lines.
func (s screen) timeline(room int) []string {
	entries := s.m.Timeline[max(0, len(s.m.Timeline)-room):]
	var lines []string
	for i, e := range entries {
		name := ""
		if i == 0 {
			name = "timeline"
		}
		text := strings.TrimRight(fit(e.Text, s.width-label-8), " ")
		lines = append(lines, s.row(name, s.p.Dim.Render(clock(e.At))+"  "+s.p.mood(e.Mood).Render(text)))
	}
	return append(lines, "")
}

func (s screen) results() []string {
	var lines []string
	for _, u := range s.m.Updates {
		if r := u.Result; r != nil {
			mood := Good
			if r.Verdict != string(u.Want) {
				mood = Bad
			}
			lines = append(lines, s.row(u.Name, s.p.mood(mood).Render(fit(r.Verdict, 11))+
				fmt.Sprintf("%4.0fs  %s of %s requests failed  rollout status: %d",
					r.Seconds, grouped(r.FailedRequests), grouped(r.Requests), r.RolloutStatusExit)))
		}
	}
	return lines
}

// short writes an e-value with three digits; what is no number stays, within bounds.
func short(value string) string {
	f, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return strings.TrimRight(fit(value, 8), " ")
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}

// clock is minutes and seconds.
func clock(d time.Duration) string {
	d = max(0, d.Truncate(time.Second))
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}
