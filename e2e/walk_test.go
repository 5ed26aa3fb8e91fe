// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/e2e/faults"
	"github.com/headgate/headgate/e2e/harness"
)

// TestWalk does at random what people do to a workload, while at random things break, for as long as
// HEADGATE_E2E_WALK says; `make soak` sets it. Each round has a namespace, a few minutes of moves, and a quiet end
// at which everything must be as it should. A round is named by its seed: HEADGATE_E2E_WALK_SEED plays it first.
//
//	walk_draws_test.go   what people do             walk_expect_test.go    what must hold of versions and pods
//	walk_faults_test.go  what breaks                walk_requests_test.go  what must hold of requests
//	walk_seen_test.go    what is watched meanwhile
func TestWalk(t *testing.T) {
	lasts, err := time.ParseDuration(cmp.Or(os.Getenv("HEADGATE_E2E_WALK"), "0s"))
	if err != nil {
		t.Fatalf("reading HEADGATE_E2E_WALK: %v", err)
	}
	if lasts == 0 {
		t.Skip("HEADGATE_E2E_WALK is not set: see make soak")
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("HEADGATE_E2E_WALK_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatalf("reading HEADGATE_E2E_WALK_SEED: %v", err)
	}
	cluster, err := harness.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.EnsureInstalled(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(lasts); time.Now().Before(end); seed++ {
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			newWalk(cluster.NewCase(t, harness.Enabled), seed).round()
		})
		if !ok {
			return // what it left behind may be what the next one finds
		}
	}
}

// walk is one round.
type walk struct {
	*harness.Case
	seed uint64
	// rand is the chance of the present move alone: what it draws may depend on what it meets, and the next ones draw the
	// same nevertheless.
	rand  *rand.Rand
	start time.Time
	moved int
	// lasts is for how many moves what breaks now is broken.
	lasts int
	// kill says whether Envoys are killed. The requests of that round take no time, because those that a killed process was
	// in the middle of are lost, with or without Headgate.
	kill  bool
	loads []*harness.Load
	// prometheus is the one that the policy names; apiServer is what the control plane takes for it, nil in every other
	// round.
	prometheus, apiServer *faults.Proxy
	policy                string

	user
	// broken are the faults that have not been mended, oldest first.
	broken []fault
	// cas is how often the CA was replaced.
	cas  int
	seen *seen
	known
}

const (
	leastMoves, mostMoves = 8, 16
	// leastPods and mostPods of the workload.
	leastPods, mostPods = 2, 5
)

func newWalk(c *harness.Case, seed uint64) *walk {
	w := &walk{Case: c, seed: seed, start: time.Now(), user: user{n: 3}, known: known{floor: 3, out: map[string]time.Time{}}}
	w.rand = w.chance(0)
	w.kill = w.rand.IntN(2) == 0
	return w
}

// chance is that of the nth move; that of the 0th says what kind of round it is.
func (w *walk) chance(n int) *rand.Rand { return rand.New(rand.NewPCG(w.seed, uint64(n))) }

// round walks, waits until everything is quiet, and looks.
func (w *walk) round() {
	behindProxy := w.rand.IntN(2) == 0
	w.policy = pick(w.rand, []string{
		quick,
		quick + "onFailure: Revert",
		quick + "onFailure: Quarantine\nonInconclusive: RollBack",
		"steps: [{weight: 20, minDuration: 30s}, {weight: 50, minDuration: 30s}]\nmaxDuration: 2m\nprogressDeadline: 60s",
	})
	moves := leastMoves + w.rand.IntN(mostMoves-leastMoves)
	if behindProxy {
		w.apiServer = faults.NewAPIServer(w.Case)
	}
	var url string
	w.prometheus, url = faults.NewPrometheus(w.Case)
	w.policy += fmt.Sprintf("\nanalysis: {prometheus: {url: %q}}", url)
	w.Policy(w.policy)
	w.Apply(w.manifest(w.n))
	w.AwaitStable()
	w.fields = fieldsOf(w.AwaitComplete())
	w.first = w.fields
	kinds := harness.AllKinds()
	if w.kill {
		kinds = shortKinds()
	}
	w.loads = w.StartLoads(
		harness.NamedConfig{Name: "service", Config: harness.ToService(kinds)},
		harness.NamedConfig{Name: "pods", Config: harness.ToPods(kinds)},
	)
	w.seen = watch(w.Case)
	for range moves {
		w.move()
		w.mend(func(f fault) bool { return f.until <= w.moved })
		w.requireNoLeak()
		w.settle()
	}
	w.quiet()
	w.requireRest()
	w.requireSidecars()
	w.requireUndo()
	w.AwaitQuiet()
	w.requireNoLeak()
	w.requireServed()
	w.requireAnswers()
}

// manifest is the workload as it is created. The native rolling update takes no pod before its successor is ready.
func (w *walk) manifest(n int) string {
	return w.Manifest(fmt.Sprintf("replicas=%d", n), "strategy.type=RollingUpdate", "strategy.rollingUpdate.maxSurge=1", "strategy.rollingUpdate.maxUnavailable=0")
}

// move makes one, prints it, and lets some time go by.
func (w *walk) move() {
	w.moved++
	w.rand = w.chance(w.moved)
	var all []draw
	for _, d := range w.draws() {
		all = append(all, slices.Repeat([]draw{d}, cmp.Or(d.often, 1))...)
	}
	d := pick(w.rand, all)
	pause := time.Duration(1+w.rand.IntN(20)) * time.Second
	w.lasts = 1 + w.rand.IntN(3)
	d.do(d.what)
	select {
	case <-time.After(pause):
	case <-w.Ctx.Done():
	}
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func (w *walk) say(format string, args ...any) {
	w.T.Helper()
	w.T.Logf("%4.0fs %s", time.Since(w.start).Seconds(), fmt.Sprintf(format, args...))
}

// try runs kubectl. It may be refused while something is broken, or paused; otherwise it must succeed. What it is told
// about an update is compared with what the walk knows.
func (w *walk) try(what string, args ...string) bool {
	w.T.Helper()
	since := time.Now()
	r := w.Try(args...)
	switch {
	case r.Exit == 0:
		w.say("%s", what)
		w.hear(r.Stderr, since)
	case w.trouble() || w.paused:
		w.say("%s: refused: %s", what, strings.TrimSpace(r.Stderr))
	default:
		w.T.Errorf("%s: %s", what, r)
	}
	return r.Exit == 0
}

// quiet mends everything, and resumes. What the user wants may be refused until all else is mended.
func (w *walk) quiet() {
	for range 2 {
		w.mend(func(fault) bool { return true })
	}
	for _, f := range w.broken {
		w.T.Errorf("this can't be mended: %s", f.what)
	}
	faults.AwaitReady(w.Case, faults.ControlPlane)
	if w.paused {
		w.pauseOrResume("")
	}
	w.fix()
}
