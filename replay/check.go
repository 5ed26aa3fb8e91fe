// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// maxTime is how many seconds from 1970 a look may be.
const maxTime = 1e11

// maxJudged is how many seconds a rollout may have been judged for: some thirty years.
const maxJudged = 1e9

// maxStep is the largest index that a step may have, maxPods how many pods a candidate may.
const (
	maxStep = 1e6
	maxPods = 1e6
)

// check says what is wrong with a line.
func (l line) check() error {
	switch {
	case l.Time == nil:
		return errors.New(`"time" is missing; expected seconds, rising from line to line`)
	case math.Abs(*l.Time) > maxTime:
		return fmt.Errorf(`"time" is %g; expected seconds up to %g`, *l.Time, float64(maxTime))
	case !wholeUpTo(100, l.Weight):
		return fmt.Errorf(`"weight" is %g; expected a percentage from 0 to 100, a whole number`, l.Weight)
	case !wholeUpTo(maxStep, l.Step):
		return fmt.Errorf(`"step" is %g; expected an index from 0 on`, l.Step)
	case !l.Missing && l.Candidate == nil && l.Stable == nil:
		return errors.New(`neither "candidate" nor "stable" is there; expected counts by pod, or "missing":true`)
	}
	if err := l.checkRollout(); err != nil {
		return err
	}
	return l.checkPods()
}

// checkRollout is about what was known of the rollout.
func (l line) checkRollout() error {
	if at := l.Since; at != nil && math.Abs(*at) > maxTime {
		return fmt.Errorf(`"since" is %g; expected when the weight came into force, seconds like those of "time"`, *at)
	}
	if n := l.Judged; n != nil && (*n < 0 || *n > maxJudged) {
		return fmt.Errorf(`"judged" is %g; expected for how many seconds the steps before were judged, from 0 to %g`, *n, float64(maxJudged))
	}
	if r := l.Rollout; r != nil && (r.Replicas < 0 || r.Metrics < 0) {
		return fmt.Errorf(`"rollout" has %d replicas and %d metrics; expected at least 0`, r.Replicas, r.Metrics)
	}
	return nil
}

func (l line) checkPods() error {
	if n := l.CandidatePods; n != nil && !wholeUpTo(maxPods, *n) {
		return fmt.Errorf(`"candidatePods" is %g; expected how many pods of the candidate get requests, a whole number of at least 0`, *n)
	}
	for arm, pods := range map[string]map[string]pod{"candidate": l.Candidate, "stable": l.Stable} {
		for name, p := range pods {
			if err := p.check(); err != nil {
				return fmt.Errorf("%s pod %q: %w", arm, name, err)
			}
		}
	}
	if math.Abs(l.Age) > maxAge {
		return fmt.Errorf(`"age" is %g; expected how many seconds before "time" the counts were taken, to %g`, l.Age, float64(maxAge))
	}
	return nil
}

// maxAge is how many seconds old counts may be.
const maxAge = 1e6

// wholeUpTo says that v is a whole number from 0 to most.
func wholeUpTo(most, v float64) bool {
	return v >= 0 && v <= most && v == math.Trunc(v)
}

func (p pod) check() error {
	if p.Requests == nil {
		return errors.New(`"requests" is missing; expected how many were completed at this look, which may be 0`)
	}
	counts := map[string]float64{"requests": *p.Requests, "errors": p.Errors, "started": p.Started, "unreached": p.Unreached, "served": p.served()}
	for bound, n := range p.Slower {
		counts["slower than "+bound] = n
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[what]; !wholeUpTo(math.MaxFloat64, n) {
			return fmt.Errorf("%s is %g; expected how many were counted at this look, a whole number of at least 0", what, n)
		}
	}
	return nil
}

// doubtful are the counts that cannot be, and are cut to what can: by pod, what is wrong with the first of them.
func (l line) doubtful() (out []string) {
	for _, arm := range []struct {
		name string
		pods map[string]pod
	}{{"candidate", l.Candidate}, {"stable", l.Stable}} {
		for _, name := range slices.Sorted(maps.Keys(arm.pods)) {
			if wrong := arm.pods[name].doubtful(); wrong != "" {
				out = append(out, fmt.Sprintf("%s pod %q: %s", arm.name, name, wrong))
			}
		}
	}
	return out
}

// doubtful says which of the pod's counts cannot be, where one cannot. Its fields were checked.
func (p pod) doubtful() string {
	if p.Errors > *p.Requests {
		return fmt.Sprintf("%g errors of %g requests", p.Errors, *p.Requests)
	}
	bounds := slices.SortedFunc(maps.Keys(p.Slower), func(a, b string) int {
		x, _ := strconv.ParseFloat(a, 64)
		y, _ := strconv.ParseFloat(b, 64)
		return cmp.Compare(x, y)
	})
	most, of := p.served(), "in all"
	for _, bound := range bounds {
		if n := p.Slower[bound]; n > most {
			return fmt.Sprintf("%g requests slower than %s s, of %g %s", n, bound, most, of)
		}
		most, of = p.Slower[bound], "slower than "+bound+" s"
	}
	return ""
}
