// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/rollout"
)

// deeds are what may happen in a random story, as lines of a script, so that what fails can be read and
// replayed. Those that are named more often happen more often.
var deeds = []string{
	"tick 1s", "tick 1s", "tick 1s", "tick 1s", "tick 1s", "tick 1s", "tick 2s", "tick 2s", "tick 20s", "tick 40s", "tick 10m",
	"run 3s", "run 5s", "run 5s", "run 5s", "run 10s", "run 20s", "run 40s",
	"update v2", "update v2", "update v3", "update v4", "undo", "bypass v2", "bypass v5", "slip v3", "slip v1",
	"pause", "pause", "resume", "resume", "resume", "scale 0", "scale 1", "scale 3", "scale 4", "scale 10",
	"promote", "approve", "retry", "wipe", "open v2", "silent v1-1", "silent v2-1",
	"cut v1-1", "cut v2-1", "joined v1-1", "joined v2-1", "lags v2-1", "lags v2-1 no",
	"verdict Pass", "verdict Pass", "verdict Fail ErrorRate errors", "verdict Hold Blind", "verdict Hold NotBetter", "verdict Inconclusive", "verdict none",
	"pods v2 crash", "pods v2 unready", "pods v2 quota", "pods v2 noroom", "pods v2 ok", "pods v1 unready", "pods v1 ok", "pods v1-1 nodelost",
	"down webhook", "up webhook", "down podwebhook", "up podwebhook", "down xds", "up xds", "down native", "up native",
	"policy none", "policy suspend", "policy onFailure=Revert steps=50", "policy steps=10@approval,50 onFailure=Quarantine", "policy",
	"clock -30s", "recreate",
}

// story makes a random one.
func randomStory(r *rand.Rand) []string {
	lines := []string{"policy steps=10,50", "deployment n=4 template=v1"}
	if r.IntN(4) == 0 {
		lines[1] += " hpa"
	}
	for range 5 + r.IntN(60) {
		lines = append(lines, deeds[r.IntN(len(deeds))])
	}
	return lines
}

// TestEveryStoryKeepsThePromises plays random stories and checks each Decision, then lets the world come
// to rest and checks where it ended. A story that breaks a promise is shrunk.
func TestEveryStoryKeepsThePromises(t *testing.T) {
	stories := 800
	if testing.Short() {
		stories = 100
	}
	for seed := range uint64(stories) {
		lines := randomStory(rand.New(rand.NewPCG(seed, 1)))
		if broken := tell(lines); broken != "" {
			short, why := shrink(lines, broken)
			t.Fatalf("seed %d: %s\n\n%s", seed, why, strings.Join(short, "\n"))
		}
	}
}

// tell plays a story; it returns the first broken promise, or nothing.
func tell(lines []string) string {
	s := &script{w: newWorld()}
	o := &oracle{w: s.w}
	s.check = o.check
	for _, line := range lines {
		s.looked = false
		if err := s.command(words(line)); err != nil {
			return err.Error()
		}
		if !s.looked {
			s.look()
		}
		if o.broken != "" {
			return fmt.Sprintf("after %q: %s", line, o.broken)
		}
	}
	return comesToRest(s, o)
}

// shrink leaves out lines as long as the story still breaks a promise.
func shrink(lines []string, why string) ([]string, string) {
	for i := len(lines) - 1; i >= 2; {
		shorter := append(append([]string{}, lines[:i]...), lines[i+1:]...)
		if broken := tell(shorter); broken != "" {
			lines, why = shorter, broken
			i = min(i, len(lines)) // try again from here
		}
		i--
	}
	return lines, why
}

// comesToRest: when nobody does anything any more, everything works and every candidate is good, then
// every rollout ends, and the Deployment is as the user wrote it.
func comesToRest(s *script, o *oracle) string {
	w := s.w
	w.podWebhookDown, w.webhookDown, w.xdsDown, w.asleep = false, false, false, false
	w.policy, w.verdict = &v1alpha1.RolloutPolicySpec{}, v1alpha1.Verdict{Result: v1alpha1.ResultPass}
	w.n = max(w.n, 2)
	for _, v := range w.versions {
		v.trouble = ""
		for _, p := range v.pods {
			p.trouble, p.silent, p.cut, p.lags = "", false, false, false
		}
	}
	if w.paused {
		w.resume()
	}
	rests := 0
	for range 1200 {
		w.wishes.Approve = &v1alpha1.StepWish{Revision: w.status.Candidate.Hash, Step: w.status.Step}
		w.now = w.now.Add(time.Second)
		w.settle()
		s.pass()
		if o.broken != "" {
			return "at rest: " + o.broken
		}
		rests++
		if w.status.Phase != v1alpha1.PhaseQuarantined && (w.status.Phase != v1alpha1.PhaseIdle || w.hold != nil || !w.complete()) {
			rests = 0
		}
		if rests == 5 {
			break
		}
	}
	switch phase := w.status.Phase; {
	case phase == v1alpha1.PhaseQuarantined && w.hold != nil:
		return ""
	case phase != v1alpha1.PhaseIdle:
		return fmt.Sprintf("does not come to rest: %s", headline(w.status))
	case w.hold != nil || !w.complete() || w.status.Stable.Hash != w.template:
		return fmt.Sprintf("Idle, but not done: %s\n%s", headline(w.status), w)
	case w.fields.MaxSurge.String() != "25%" || *w.fields.ProgressDeadlineSeconds != 600:
		return "the user's fields did not come back:\n" + w.String()
	}
	return ""
}

// oracle knows what must hold for each Decision, without knowing how it comes about.
type oracle struct {
	w      *world
	broken string
	// failed is the rollout that has failed; its weight must not rise again.
	failed attempt
	// promote is the wish to promote that is there, and the rollout that was under way when it came.
	promote *v1alpha1.RevisionWish
	wished  attempt
}

// attempt identifies a rollout.
type attempt struct {
	began    time.Time
	template string
}

func attemptOf(s status) attempt {
	if s.StartedAt == nil {
		return attempt{}
	}
	return attempt{s.StartedAt.Time.UTC(), s.Candidate.Template}
}

func (c *oracle) check(before status, o rollout.Observation, d rollout.Decision) {
	for _, promise := range []func(status, rollout.Observation, rollout.Decision) string{
		c.weights, c.failIsHeard, c.pauseIsKept, c.nothingAtZero, c.fieldsAreTheUsers, c.stableIsSafe, c.wishesAreAboutThisRollout,
		c.fixedPoint, c.restart, c.staleRead, c.otherUID,
	} {
		if broken := promise(before, o, d); broken != "" && c.broken == "" {
			c.broken = fmt.Sprintf("%s\nbefore: %s\nafter:  %s (%s)", broken, headline(before), headline(d.Status), d.Reason)
		}
	}
}
