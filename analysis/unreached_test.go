// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// unreached: so many connections to the candidate's pod, which is ready, fail, and what was meant for it is answered by stable.
func unreached(n uint64) func(*Look) {
	return func(l *Look) {
		l.CandidatePods = 1
		l.Candidate = map[string]Counts{"a": {Requests: 100, Unreached: n}}
	}
}

// through: requests get through to the candidate.
func through(l *Look) {
	l.CandidatePods = 1
	l.Candidate = map[string]Counts{"a": {Requests: 100, Started: 100}}
}

// flaky: of the connections to the candidate's pods many fail, and some do not.
func flaky(l *Look) {
	l.CandidatePods = 2
	l.Candidate = map[string]Counts{"a": {Requests: 100, Started: 60, Unreached: 40}}
}

// notReady: connections fail to pods of which none is ready.
func notReady(l *Look) {
	unreached(40)(l)
	l.CandidatePods = 0
}

func TestUnreached(t *testing.T) {
	short := Settings{MaxStepTime: 75 * time.Second, BlindAfter: time.Minute, Candidate: "v2", Stable: "v1"}
	leftOut := unreached(0) // nobody tries, which sidecars do for a while after failures
	checkVerdicts(t, map[string]verdictCase{
		"a candidate that nobody gets through to is held": {settings: short, looks: looks(12, unreached(40)), want: Hold, cause: CauseNoSplit, from: 12,
			says: "the pods of v2 are ready, but can't be reached from those of v1 at port 15601: a NetworkPolicy that does not let that port in is the likely cause"},
		"for as long as it is so":                         {settings: short, looks: looks(500, unreached(40)), want: Hold, cause: CauseNoSplit},
		"before that it is waited for":                    {settings: short, looks: looks(11, unreached(40)), want: Undecided, says: "connections to v2 at port 15601"},
		"also at looks at which it is left out":           {settings: short, looks: looks(1, unreached(40)).then(looks(200, leftOut)), want: Hold, cause: CauseNoSplit, from: 12},
		"counters that are missing now are told first":    {settings: short, looks: looks(50, unreached(40)).then(looks(12, missing)), want: Hold, cause: CauseBlind},
		"what stable answers meanwhile accepts nothing":   {looks: looks(1, unreached(1)).then(looks(200, leftOut)), want: Undecided},
		"a few connections that failed are not told":      {looks: looks(60, unreached(0)).then(looks(1, unreached(9))).then(looks(30, leftOut)), want: Undecided},
		"when requests get through it is judged":          {settings: short, looks: looks(100, unreached(40)).then(looks(20, through)), want: Pass},
		"and may fail":                                    {settings: short, looks: looks(100, unreached(40)).then(looks(1, through)).then(looks(4, bad)), want: Fail, cause: CauseErrorRate},
		"the first look of both times is no failure":      {settings: short, looks: looks(30, unreached(40)).then(looks(1, flaky)).then(looks(20, through)), want: Pass},
		"it uses up none of the step's time":              {settings: short, looks: looks(100, unreached(40)).then(looks(14, through, idle)), want: Hold, cause: CauseNoSplit},
		"connections that fail now and then are failures": {looks: looks(4, flaky), want: Fail, cause: CauseErrorRate, says: "160 of 400 requests", from: 4},
		"and those to pods that are not ready":            {looks: looks(4, notReady), want: Fail, cause: CauseErrorRate, says: "160 of 400 requests", from: 4},
		"one that fails first, and can't be reached then": {looks: looks(4, flaky).then(looks(20, unreached(40))), want: Fail, cause: CauseErrorRate, from: 4},
	})
}

// The look is the caller's.
func TestFailedConnectionsStayApartInTheLook(t *testing.T) {
	l := lookAt(1, 10, Counts{Requests: 100, Started: 60, Unreached: 40}, Counts{Requests: 900})
	Judge(Settings{}, State{}, l)
	if d := cmp.Diff(lookAt(1, 10, Counts{Requests: 100, Started: 60, Unreached: 40}, Counts{Requests: 900}), l); d != "" {
		t.Errorf("the look was changed (-want +got):\n%s", d)
	}
}
