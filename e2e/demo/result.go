// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Result is what one update came to, as measured.
type Result struct {
	// Name is good, errors or crash.
	Name string `json:"name"`
	// Verdict is Promoted or RolledBack; any other outcome as it is called, TimedOut when there was none.
	Verdict string `json:"verdict"`
	// Seconds from the command until the outcome.
	Seconds float64 `json:"seconds"`
	// Requests that users sent meanwhile, those that failed, and those that the new version answered.
	Requests          int64 `json:"requests"`
	FailedRequests    int64 `json:"failedRequests"`
	CandidateRequests int64 `json:"candidateRequests"`
	// PodsCreated of the new version.
	PodsCreated int `json:"podsCreated"`
	// RolloutStatusExit is the exit code of `kubectl rollout status`.
	RolloutStatusExit int `json:"rolloutStatusExit"`
	// Message says why.
	Message string `json:"message,omitempty"`
}

// writeResults writes what the updates came to.
func writeResults(path string, results []Result) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	b, err := json.MarshalIndent(struct {
		Updates []Result `json:"updates"`
	}{results}, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}

// table shows the results side by side.
func table(updates []Update, p Palette) string {
	var b strings.Builder
	row := func(cells ...string) {
		fmt.Fprintf(&b, "  %-8s %-11s %7s %9s %7s %10s %5s  %s\n", toAny(cells)...)
	}
	row("update", "verdict", "time", "requests", "failed", "new ver.", "pods", "rollout status")
	for _, u := range updates {
		r := u.Result
		if r == nil {
			row(u.Name, "not made", "", "", "", "", "", "")
			continue
		}
		mood := Good
		if r.Verdict != string(u.Want) {
			mood = Bad
		}
		// Colours would count as width, so they come after the columns are set.
		verdict := fmt.Sprintf("%-11s", r.Verdict)
		line := fmt.Sprintf("  %-8s %s %6.0fs %9d %7d %10d %5d  exit %d\n", r.Name, verdict, r.Seconds,
			r.Requests, r.FailedRequests, r.CandidateRequests, r.PodsCreated, r.RolloutStatusExit)
		b.WriteString(strings.Replace(line, verdict, p.mood(mood).Render(verdict), 1))
	}
	return b.String()
}

func toAny(cells []string) []any {
	out := make([]any, len(cells))
	for i, c := range cells {
		out[i] = c
	}
	return out
}

// unexpected says which updates did not end as they should.
func unexpected(updates []Update) error {
	var wrong []string
	for _, u := range updates {
		switch {
		case u.Result == nil:
			wrong = append(wrong, u.Name+" was not made")
		case u.Result.Verdict != string(u.Want):
			wrong = append(wrong, fmt.Sprintf("%s ended %s, want %s (%s)", u.Name, u.Result.Verdict, u.Want, u.Result.Message))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("not as expected: %s", strings.Join(wrong, "; "))
	}
	return nil
}
