// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/api/v1alpha1"
)

// verbs are what users do to a rollout, and how a story's command is recognised as one.
var verbs = map[string]func(w *world, line []string) bool{
	"abort": func(w *world, line []string) bool {
		return line[0] == "undo" || (line[0] == "update" && line[1] == w.status.Stable.Hash)
	},
	"new revision": func(w *world, line []string) bool {
		return line[0] == "update" && line[1] != w.status.Stable.Hash && line[1] != w.template
	},
	"scale":      func(w *world, line []string) bool { return line[0] == "scale" && line[1] != "0" && w.n != 0 },
	"scale to 0": func(w *world, line []string) bool { return line[0] == "scale" && line[1] == "0" },
	"pause":      func(_ *world, line []string) bool { return line[0] == "pause" },
	"Recreate":   func(_ *world, line []string) bool { return line[0] == "strategy" && line[1] == "recreate" },
	"bypass":     func(_ *world, line []string) bool { return line[0] == "bypass" },
	"policy gone": func(_ *world, line []string) bool {
		return line[0] == "policy" && len(line) == 2 && (line[1] == "none" || line[1] == "suspend")
	},
	"re-creation": func(_ *world, line []string) bool { return line[0] == "recreate" },
}

// TestStoriesTellEveryVerbInEveryPhase computes from the stories what is told in them. Paused is the user's
// pause, or a step that waits for approval.
func TestStoriesTellEveryVerbInEveryPhase(t *testing.T) {
	told := map[v1alpha1.Phase]map[string][]string{}
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		story, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		playNoting(t, string(story), func(w *world, line []string) {
			phase := w.status.Phase
			for verb, is := range verbs {
				if is(w, line) {
					if told[phase] == nil {
						told[phase] = map[string][]string{}
					}
					told[phase][verb] = append(told[phase][verb], name)
				}
			}
		})
	}
	for _, phase := range []v1alpha1.Phase{v1alpha1.PhaseStarting, v1alpha1.PhaseStepping, v1alpha1.PhasePaused, v1alpha1.PhasePromoting, v1alpha1.PhaseRollingBack, v1alpha1.PhaseQuarantined} {
		for verb := range verbs {
			if len(told[phase][verb]) == 0 {
				t.Errorf("no story tells %q in phase %s", verb, phase)
			}
		}
	}
}

// playNoting plays a story for its commands alone.
func playNoting(t *testing.T, story string, note func(*world, []string)) {
	t.Helper()
	s := &script{w: newWorld()}
	output := false
	for line := range strings.Lines(story) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
			output = false
		case line == "----":
			output = true
			if !s.looked {
				s.look()
			}
		case output || strings.HasPrefix(line, "#"):
		default:
			s.looked = false
			command := words(line)
			if command[0] != "quickly" {
				note(s.w, command)
			} else {
				note(s.w, command[1:])
			}
			if err := s.command(command); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
}

// nevers are the promises of DESIGN.md §5 that begin with "never" or "nothing", and the stories that tell them,
// each with a line that would not be there if the promise were broken.
var nevers = map[string][]struct{ story, line string }{
	"change k, template or sizes while the user has paused": {
		{"fail_paused", "because: rolling back: weight 0; the rest waits until the user resumes"},
		{"rolling_back_paused", "because: rolling back: weight 0; the rest waits until the user resumes"},
		{"quarantined_paused", "because: quarantined"},
		{"suspended", "because: paused by the user"},
	},
	"let anything but the verdict stand before weight 0": {
		{"fail_on_the_way_up", "warning: RolledBack"},
		{"xds_down", "warning: RolledBack"},
		{"silent_sidecar", "left out"},
	},
	"keep a hold at N = 0": {
		{"scale_to_zero", "hold: release Back"},
		{"paused_scaled_to_zero", "hold: release Back"},
		{"rolling_back_scaled_to_zero", "hold: release Back"},
	},
	"quarantine what failed while promoting": {
		{"fail_promoting", "hold: release Back"},
	},
	"quarantine a small workload under an autoscaler": {
		{"autoscaled_small_reverts", "hold: release Back"},
	},
	"keep pods whose gates were open, once a third version comes": {
		{"superseded_promoting_fail", "hold: release Back"},
	},
	"promote or roll back on missing data": {
		{"blind", "on hold: Blind"},
	},
	"try a rejected version before its back-off is over": {
		{"rejected_before", "warning: RejectedBefore"},
	},
}

// TestStoriesTellEveryNever looks for the lines.
func TestStoriesTellEveryNever(t *testing.T) {
	for never, stories := range nevers {
		for _, s := range stories {
			text, err := os.ReadFile(filepath.Join("testdata", s.story+".txt"))
			if err != nil {
				t.Errorf("never %s: %v", never, err)
				continue
			}
			if !strings.Contains(string(text), s.line) {
				t.Errorf("never %s: %s does not say %q", never, s.story, s.line)
			}
		}
	}
}
