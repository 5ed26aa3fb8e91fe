// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/e2e/load"
	"github.com/headgate/headgate/internal/golden"
)

var zero = time.Unix(1_700_000_000, 0)

func at(seconds float64) time.Time { return zero.Add(time.Duration(seconds * float64(time.Second))) }

// report makes the client's report so many seconds after zero, 150 requests a second, of which the
// candidate gets a share since the second from.
func report(seconds, from int, share float64, tag string) Event {
	total := int64(150 * seconds)
	candidate := int64(150 * share * float64(max(0, seconds-from)))
	bad := candidate / 20
	if tag != "errors" {
		bad = 0
	}
	r := load.Report{At: at(float64(seconds)), Seconds: float64(seconds), Counts: load.Counts{
		Sent: total, OK: total - bad, Failed: bad,
		Versions: map[string]load.Tally{"v2": {OK: total - candidate}, tag: {OK: candidate - bad, Failed: bad}},
	}}
	return Counted{Time: at(float64(seconds)), Report: r}
}

func pods(seconds float64, stable int, candidate ...PodState) Event {
	var all []PodView
	for i := range stable {
		all = append(all, PodView{Name: fmt.Sprint("s", i), Revision: "aaa", State: PodReady})
	}
	for i, s := range candidate {
		all = append(all, PodView{Name: fmt.Sprint("c", i), Revision: "bbb", State: s})
	}
	return PodsSeen{Time: at(seconds), Pods: all}
}

func recorded(seconds float64, change func(*v1alpha1.RolloutStatus)) Event {
	since := metav1.NewMicroTime(at(seconds))
	s := v1alpha1.RolloutStatus{
		Phase: v1alpha1.PhaseStepping, StepSince: &since, Weight: 10, WeightInForce: 10, CandidateReplicas: 1,
		Stable: v1alpha1.Revision{Hash: "aaa"}, Candidate: v1alpha1.Revision{Hash: "bbb"},
	}
	change(&s)
	return Recorded{Time: at(seconds), Status: s}
}

// failing5 is the story of the second update, until some second.
func failing5(until float64) Model {
	m := NewModel(theUpdates(), "v1", theSteps(), zero)
	m = m.Apply(Started{Time: zero, Index: 0})
	m = m.Apply(Ended{Time: zero, Index: 0, Result: Result{Name: "good", Verdict: "Promoted", Seconds: 64, Requests: 9876, RolloutStatusExit: 0}})
	m = m.Apply(Started{Time: zero, Index: 1})
	events := []Event{pods(0, 4)}
	for s := 1; s <= 40; s++ {
		events = append(events, report(s, 8, 0.1, "errors"))
	}
	evidence := v1alpha1.Evidence{
		CandidateRequests: 480, CandidateErrors: 24, StableRequests: 4320, Harm: "38.2", HarmThreshold: "200",
		Acceptance: "0.03", AcceptanceThreshold: "20", Looks: 9,
	}
	events = append(events,
		recorded(0.2, func(s *v1alpha1.RolloutStatus) {
			s.Phase, s.StepSince, s.Weight, s.WeightInForce = v1alpha1.PhaseStarting, nil, 0, 0
		}),
		pods(1, 4, PodRunning), pods(5, 4, PodWaiting),
		recorded(6, func(s *v1alpha1.RolloutStatus) { s.WeightInForce = 0 }),
		recorded(8, func(s *v1alpha1.RolloutStatus) {
			s.Verdict = &v1alpha1.Verdict{Result: v1alpha1.ResultUndecided, Message: "not enough requests yet", Evidence: &evidence}
		}),
		recorded(41, func(s *v1alpha1.RolloutStatus) {
			harm := evidence
			harm.Harm = "213"
			s.Phase, s.Weight, s.WeightInForce = v1alpha1.PhaseRollingBack, 0, 0
			s.Verdict = &v1alpha1.Verdict{Result: v1alpha1.ResultFail, Cause: "ErrorRate", Message: "the candidate fails 5 % of its requests, stable 0 %", Evidence: &harm}
		}),
		Ended{Time: at(41.5), Index: 1, Result: Result{Name: "errors", Verdict: "RolledBack", Seconds: 41.5, Requests: 6210, FailedRequests: 24, CandidateRequests: 480, PodsCreated: 1, RolloutStatusExit: 1}},
	)
	slices.SortStableFunc(events, func(a, b Event) int { return a.at().Compare(b.at()) })
	for _, e := range events {
		if e.at().Sub(zero).Seconds() <= until {
			m = m.Apply(e)
		}
	}
	return m
}

func TestScreens(t *testing.T) {
	models := map[string]Model{
		"before":   NewModel(theUpdates(), "v1", theSteps(), zero),
		"judging":  failing5(40).Apply(Ticked{Time: at(40)}),
		"rejected": failing5(60),
	}
	got := map[string][]byte{}
	for name, m := range models {
		for _, width := range []int{80, 120} {
			screen := Render(m, Palette{}, width, 0)
			got[filepath.Join("testdata", fmt.Sprintf("%s-%d.txt", name, width))] = []byte(screen)
			coloured := Render(m, colours(), width, 0)
			if diff := cmp.Diff(screen, ansi.Strip(coloured)); diff != "" {
				t.Errorf("%s at %d: colours change the text: %s", name, width, diff)
			}
		}
	}
	golden.CheckAll(t, "testdata/*-*.txt", got)
}

func TestScreensFit(t *testing.T) {
	m := failing5(60).Apply(recorded(61, func(s *v1alpha1.RolloutStatus) {
		s.Verdict = &v1alpha1.Verdict{Result: v1alpha1.ResultHold, Message: strings.Repeat("a long story ", 30), Evidence: &v1alpha1.Evidence{
			Harm: "1234567.89", HarmThreshold: "1000000", Acceptance: "0.000001", AcceptanceThreshold: "1000000",
		}}
	}))
	for _, width := range []int{80, 100, 120, 200} {
		for i, line := range strings.Split(Render(m, Palette{}, width, 0), "\n") {
			if w := lipgloss.Width(line); w > width {
				t.Errorf("at %d columns line %d has %d: %q", width, i, w, line)
			}
		}
	}
	for _, height := range []int{20, 24, 30} {
		if n := strings.Count(Render(m, Palette{}, 80, height), "\n"); n > height {
			t.Errorf("at %d lines the screen has %d", height, n)
		}
	}
}

func TestPlainLines(t *testing.T) {
	m := NewModel(theUpdates(), "v1", theSteps(), zero)
	var got []string
	for _, e := range []Event{
		report(1, 99, 0, "v2"),
		Started{Time: at(1), Index: 0},
		recorded(3, func(*v1alpha1.RolloutStatus) {}),
		Ticked{Time: at(5)},
		report(11, 3, 0.1, "v2"),
		Ticked{Time: at(12)},
		Ended{Time: at(20), Index: 0, Result: Result{Name: "good", Verdict: "Promoted", Seconds: 19, Requests: 2850}},
		Ticked{Time: at(30)},
	} {
		next := m.Apply(e)
		got = append(got, plainLines(m, next)...)
		m = next
	}
	golden.Check(t, "testdata/plain.txt", []byte(strings.Join(got, "\n")+"\n"))
}

func TestApplyLeavesTheOldModelAlone(t *testing.T) {
	m := failing5(40)
	before := Render(m, Palette{}, 100, 0)
	n := m.Apply(Ended{Time: at(50), Index: 1, Result: Result{Name: "errors", Verdict: "RolledBack"}})
	n = n.Apply(report(50, 8, 0.1, "errors"))
	_ = n.Apply(recorded(51, func(s *v1alpha1.RolloutStatus) { s.WeightInForce = 50 }))
	if diff := cmp.Diff(before, Render(m, Palette{}, 100, 0)); diff != "" {
		t.Errorf("the model changed after the fact: %s", diff)
	}
}

func TestRatesAndCounts(t *testing.T) {
	m := NewModel(theUpdates(), "v1", theSteps(), zero)
	for s := 1; s <= 10; s++ {
		if s == 5 { // a line that was lost: the next one covers two seconds
			continue
		}
		m = m.Apply(report(s, 4, 0.1, "errors"))
	}
	if got := m.rate("v2"); got < 134 || got > 136 {
		t.Errorf("stable answers %v/s, want 135", got)
	}
	if got := m.rate("errors"); got < 14 || got > 16 {
		t.Errorf("the candidate answers %v/s, want 15", got)
	}
	again := m.Apply(report(10, 4, 0.1, "errors"))
	if len(again.Series) != len(m.Series) {
		t.Error("a line that came twice was counted twice")
	}
}

func TestWidgets(t *testing.T) {
	plain := lipgloss.NewStyle()
	for share, want := range map[float64]string{0: "░░░░", 0.5: "██░░", 1: "████", 2: "████", 0.001: "▏░░░", 0.375: "█▌░░"} {
		if got := bar(share, 4, plain, plain); got != want {
			t.Errorf("bar of %v is %q, want %q", share, got, want)
		}
	}
	if got, want := sparkline([]float64{9, 9, 0, 1, 5, 10}, 5, 10), "█ ▁▅█"; got != want {
		t.Errorf("sparkline %q, want %q", got, want)
	}
	if got, want := sparkline([]float64{1}, 3, 1), "  █"; got != want {
		t.Errorf("sparkline %q, want %q", got, want)
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1 000", 1234567: "1 234 567", -1234: "-1 234"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
	for _, tc := range []struct {
		value, threshold string
		want             float64
	}{{"1", "100", 0}, {"10", "100", 0.5}, {"100", "100", 1}, {"1e9", "100", 1}, {"0.2", "100", 0}, {"", "", 0}, {"NaN", "100", 0}} {
		if got := progress(tc.value, tc.threshold); got < tc.want-1e-9 || got > tc.want+1e-9 {
			t.Errorf("progress of %q to %q is %v, want %v", tc.value, tc.threshold, got, tc.want)
		}
	}
}

func TestResults(t *testing.T) {
	updates := theUpdates()
	if err := unexpected(updates); err == nil || !strings.Contains(err.Error(), "good was not made") {
		t.Errorf("nothing was made, and the error is %v", err)
	}
	updates[0].Result = &Result{Name: "good", Verdict: "Promoted", Seconds: 64.2, Requests: 9876}
	updates[1].Result = &Result{Name: "errors", Verdict: "RolledBack", Seconds: 41.5, Requests: 6210, FailedRequests: 24, CandidateRequests: 480, PodsCreated: 1, RolloutStatusExit: 1}
	updates[2].Result = &Result{Name: "crash", Verdict: "Promoted", Seconds: 30, Message: "looked fine"}
	if err := unexpected(updates); err == nil || !strings.Contains(err.Error(), "crash ended Promoted, want RolledBack (looked fine)") {
		t.Errorf("the crash was promoted, and the error is %v", err)
	}
	golden.Check(t, "testdata/table.txt", []byte(table(updates, Palette{})))

	path := filepath.Join(t.TempDir(), "new", "demo.json")
	if err := writeResults(path, made(updates)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Updates []map[string]any }
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"name": "errors", "verdict": "RolledBack", "seconds": 41.5, "requests": 6210.0, "failedRequests": 24.0,
		"candidateRequests": 480.0, "podsCreated": 1.0, "rolloutStatusExit": 1.0,
	}
	if diff := cmp.Diff(want, got.Updates[1]); diff != "" {
		t.Error(diff)
	}
}

func TestNewest(t *testing.T) {
	one := v1alpha1.HistoryEntry{To: "aaa", StartedAt: metav1.NewTime(zero)}
	two := v1alpha1.HistoryEntry{To: "bbb", StartedAt: metav1.NewTime(at(5))}
	seen := map[string]bool{key(one): true}
	if got := newest([]v1alpha1.HistoryEntry{one}, seen); got != nil {
		t.Errorf("nothing new, got %+v", got)
	}
	if got := newest([]v1alpha1.HistoryEntry{one, two}, seen); got == nil || got.To != "bbb" {
		t.Errorf("got %+v, want bbb", got)
	}
}
