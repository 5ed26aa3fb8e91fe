// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/golden"
	"github.com/headgate/headgate/rollout"
)

// TestScripts plays the stories in testdata. A story is made of blocks: commands, a line of four dashes,
// and what Decide said, up to an empty line. Lines that begin with # tell the story. The commands are
// those of the map in commands_test.go; each block ends with one look, if its last command did not look
// itself (tick, run, show). `go test ./rollout -update` writes the output anew.
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			story, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			golden.Check(t, path, play(t, string(story)))
		})
	}
}

// script is one story being played.
type script struct {
	w   *world
	out bytes.Buffer
	// last is what lasts of the last Decision, so that `run` prints changes only; looked says that the
	// block has shown one already.
	last   string
	looked bool
	// check, if set, sees every Decision before it is applied.
	check func(status, rollout.Observation, rollout.Decision)
}

// play plays a story and returns it with its output.
func play(t *testing.T, story string) []byte {
	t.Helper()
	s := &script{w: newWorld()}
	var text bytes.Buffer
	lines := strings.Split(strings.TrimRight(story, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		text.WriteString(line + "\n")
		switch {
		case line == "----":
			if !s.looked {
				s.look()
			}
			if s.out.Len() == 0 {
				s.out.WriteString("nothing new\n")
			}
			text.Write(s.out.Bytes())
			s.out.Reset()
			for i+1 < len(lines) && lines[i+1] != "" {
				i++ // the old output
			}
		case line == "" || strings.HasPrefix(line, "#"):
		default:
			s.looked = false
			if err := s.command(words(line)); err != nil {
				t.Fatalf("line %d: %s: %v", i+1, line, err)
			}
		}
	}
	return text.Bytes()
}

// words splits a line; double quotes keep words together.
func words(line string) []string {
	var out []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			out = append(out, part)
			continue
		}
		out = append(out, strings.Fields(part)...)
	}
	return out
}

// command runs one line. `quickly run 5s` prints nothing: what every reader knows by now.
func (s *script) command(line []string) error {
	if line[0] == "quickly" {
		defer func() { s.looked = false; s.out.Reset() }()
		line = line[1:]
	}
	f, ok := commands[line[0]]
	if !ok {
		return fmt.Errorf("unknown command; there are %v", slices.Sorted(maps.Keys(commands)))
	}
	return f(s, line[1:])
}

// look is one pass of the controller: observe, decide, apply, print.
func (s *script) look() {
	s.print(s.pass())
}

func (s *script) pass() decision {
	before := s.w.status
	o := s.w.observe()
	d := rollout.Decide(s.w.policy, before, o)
	if s.check != nil {
		s.check(before, o, d)
	}
	s.w.apply(d)
	return describe(before, o, d)
}

func (s *script) print(d decision) {
	s.looked, s.last = true, d.lasts()
	fmt.Fprintf(&s.out, "%s %s\n%s  because: %s\n", s.elapsed(), d.where, d.does, d.because)
}

// decision is a Decision as text: where the rollout stands, what is new or to be done, and why.
type decision struct{ where, does, because string }

func (d decision) lasts() string { return d.where + d.because }

func (s *script) elapsed() string {
	return fmt.Sprintf("[%s]", s.w.now.Sub(start)-2*time.Second) // create takes two
}

// describe prints a Decision, leaving out what stays as it is.
func describe(before status, o rollout.Observation, d rollout.Decision) decision {
	var b strings.Builder
	say := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  %s: %s\n", what, fmt.Sprintf(format, args...))
	}
	for _, e := range d.Events {
		kind := "event"
		if e.Warning {
			kind = "warning"
		}
		say(kind, "%s: %s", e.Reason, e.Message)
	}
	switch h := d.Hold; {
	case h == nil && o.Deployment.Hold != nil:
		say("hold", "left alone")
	case h == nil || (o.Deployment.Hold != nil && *h == *o.Deployment.Hold):
	case h.Release != "":
		say("hold", "release %s, the user's maxSurge is %s", h.Release, text(h.User.MaxSurge))
	default:
		say("hold", "k %d of %s, the user's maxSurge is %s", h.K, h.Template, text(h.User.MaxSurge))
	}
	list := func(what string, items []string) {
		if len(items) > 0 {
			say(what, "%s", strings.Join(items, " "))
		}
	}
	list("open gates", d.OpenGates)
	list("close gates", d.CloseGates)
	var sizes []string
	for _, size := range d.Sizes {
		sizes = append(sizes, fmt.Sprintf("%s=%d", size.Revision, size.Replicas))
	}
	list("sizes", sizes)
	list("note N on", d.NoteReplicas)
	list("delete pods", d.DeletePods)
	list("delete revisions", d.DeleteRevisions)
	if !slices.Equal(d.Status.Unacknowledged, before.Unacknowledged) {
		list("left out", d.Status.Unacknowledged)
	}
	if n := len(d.Status.History); n > len(before.History) {
		h := d.Status.History[n-1]
		say("history", "%s %s to %s", h.Outcome, h.From, h.To)
	}
	if r := d.Status.Rejected; r != nil && (before.Rejected == nil || *r != *before.Rejected) {
		say("rejected", "%s, %d time(s), until [%s]", r.Template, r.Times, r.Until.Sub(start)-2*time.Second)
	}
	if d.Failure != "" && o.Deployment.FailureShown != d.Failure {
		say("failure", "%s", d.Failure)
	}
	if d.Failure == "" && o.Deployment.FailureShown != "" {
		say("failure", "none any more")
	}
	for _, wish := range []struct {
		what  string
		spent bool
	}{{"retry", d.ClearRetry}, {"promote", d.ClearPromote}, {"approve", d.ClearApprove}} {
		if wish.spent {
			say("spent wish", "%s", wish.what)
		}
	}
	return decision{headline(d.Status), b.String(), d.Reason}
}

// headline is where the rollout stands, in one line.
func headline(s status) string {
	phase := string(s.Phase)
	if s.ResumePhase != "" {
		phase += " (from " + string(s.ResumePhase) + ")"
	}
	if s.AwaitingApproval {
		phase += " awaiting approval"
	}
	if s.Candidate.Template == "" {
		return fmt.Sprintf("%s: stable %s", phase, or(s.Stable.Hash, "unknown"))
	}
	return fmt.Sprintf("%s step %d: %s -> %s, weight %d (%d in force), k %d",
		phase, s.Step, s.Stable.Hash, or(s.Candidate.Hash, "not there yet"), s.Weight, s.WeightInForce, s.CandidateReplicas)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
